// Package say writes what a program says beside its output: text that cannot steer the
// terminal, to a reader that may stall.
package say

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Writer is standard error, for all that a program says. What is written to it
// cannot steer a terminal, whoever it comes from; and a reader that stalls holds nobody
// up for longer than a moment: what it does not take is dropped, and counted. It is for
// any number of goroutines.
type Writer struct {
	W io.Writer // where to
	// Journal says that it is systemd's journal, which takes a level in front of each line
	// (sd-daemon(3)).
	Journal bool

	mu      sync.Mutex
	pending []byte        // not yet taken by the writer
	busy    bool          // the writer is at work
	done    chan struct{} // closed when it has written all; nil: it has
	stalled bool          // somebody has waited in vain since it last wrote
	dropped uint64
}

const (
	// messageRoom bounds what waits for a reader.
	messageRoom = 64 << 10
	// messageWait is how long a message holds up who says it, so that messages and
	// output keep their order where both are read.
	messageWait = 20 * time.Millisecond
	// messageEnd is how long the end of the program waits for a reader that takes
	// nothing.
	messageEnd = 500 * time.Millisecond
)

// A Level is how much a message matters, as syslog(3) has it.
type Level byte

// The levels that there are.
const (
	Err     Level = '3'
	Warning Level = '4'
	Info    Level = '6'
)

// Write writes text in whole lines, at the level Info; see Harmless.
func (m *Writer) Write(b []byte) (int, error) {
	m.At(Info, b)
	return len(b), nil
}

// At writes text in whole lines.
func (m *Writer) At(level Level, b []byte) {
	text := Harmless(string(b), true)
	if m.Journal {
		var marked strings.Builder
		for line := range strings.Lines(text) {
			if line != "\n" {
				marked.WriteString("<" + string(rune(level)) + ">")
			}
			marked.WriteString(line)
		}
		text = marked.String()
	}
	m.Raw([]byte(text))
}

// Raw writes what may steer the terminal.
func (m *Writer) Raw(b []byte) {
	m.mu.Lock()
	if len(m.pending)+len(b) > messageRoom && len(m.pending) > 0 {
		m.dropped++
		m.mu.Unlock()
		return
	}
	m.pending = append(m.pending, b...)
	if !m.busy {
		m.busy, m.done = true, make(chan struct{})
		go m.write()
	}
	done, wait := m.done, !m.stalled
	m.mu.Unlock()
	if !wait {
		return
	}
	t := time.NewTimer(messageWait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		m.mu.Lock()
		m.stalled = m.busy
		m.mu.Unlock()
	}
}

// write writes what is pending, on a goroutine of its own.
func (m *Writer) write() {
	var b []byte
	for {
		m.mu.Lock()
		b, m.pending = m.pending, b[:0]
		if len(b) == 0 && m.dropped > 0 {
			b = fmt.Appendf(b, "nfctl: %s dropped: nobody read them\n", messages(m.dropped))
			m.dropped = 0
		}
		if len(b) == 0 {
			m.busy = false
			close(m.done)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		_, _ = m.W.Write(b)
		m.mu.Lock()
		m.stalled = false
		m.mu.Unlock()
	}
}

// Flush waits until all is written, or nothing is taken for messageEnd.
func (m *Writer) Flush() {
	m.mu.Lock()
	busy, done := m.busy, m.done
	m.mu.Unlock()
	if busy {
		select {
		case <-done:
		case <-time.After(messageEnd):
		}
	}
}

// Harmless makes text safe to show: what controls a terminal, and what is not
// UTF-8, becomes \xNN or \uNNNN, as do marks that turn the direction of text round;
// newlines and tabs become \n and \t unless lines is set.
func Harmless(s string, lines bool) string {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f || (s[i] == '\n' || s[i] == '\t') && lines
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case (r == '\n' || r == '\t') && lines:
			b.WriteByte(s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == utf8.RuneError && n == 1, r < ' ', r >= 0x7f && r < 0xa0:
			if n == 1 {
				r = rune(s[i])
			}
			fmt.Fprintf(&b, `\x%02x`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// Bounds of what somebody else wrote, and of a message, in bytes.
const (
	mostForeign = 500
	MostMessage = 2000
)

// Shortened keeps the beginning and the end of a text that is longer than most.
func Shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes) …%s", s[:most*4/5], len(s), s[len(s)-most/5:])
}

// Foreign makes what is put into a message fit for a line of it: texts of others are
// bounded, and made harmless.
func Foreign(args []any) []any {
	out := make([]any, len(args))
	for i, x := range args {
		switch v := x.(type) {
		case string:
			out[i] = Harmless(Shortened(v, mostForeign), false)
		case []byte:
			out[i] = Harmless(Shortened(string(v), mostForeign), false)
		case error:
			out[i] = Harmless(Shortened(v.Error(), MostMessage), false)
		case fmt.Stringer:
			out[i] = Harmless(Shortened(v.String(), mostForeign), false)
		default:
			out[i] = x
		}
	}
	return out
}

func messages(n uint64) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}
