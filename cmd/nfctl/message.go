package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"nfctl/internal/lua"
)

// messages is standard error, for all that nfctl says. What is written to it cannot
// steer a terminal, whoever it comes from; and a reader that stalls holds nobody up
// for longer than a moment: what it does not take is dropped, and counted.
type messages struct {
	w io.Writer

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

// Write writes text in whole lines; see harmless.
func (m *messages) Write(b []byte) (int, error) {
	m.raw([]byte(harmless(string(b), true)))
	return len(b), nil
}

// raw writes what may steer the terminal.
func (m *messages) raw(b []byte) {
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
func (m *messages) write() {
	var b []byte
	for {
		m.mu.Lock()
		b, m.pending = m.pending, b[:0]
		if len(b) == 0 && m.dropped > 0 {
			b = fmt.Appendf(b, "nfctl: %s dropped: nobody read them\n", plural(m.dropped, "message"))
			m.dropped = 0
		}
		if len(b) == 0 {
			m.busy = false
			close(m.done)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		_, _ = m.w.Write(b)
		m.mu.Lock()
		m.stalled = false
		m.mu.Unlock()
	}
}

// flush waits until all is written, or nothing is taken for messageEnd.
func (m *messages) flush() {
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

// harmless makes text safe to show: what controls a terminal, and what is not
// UTF-8, becomes \xNN or \uNNNN, as do marks that turn the direction of text round;
// newlines and tabs become \n and \t unless lines is set.
func harmless(s string, lines bool) string {
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
	mostMessage = 2000
)

// shortened keeps the beginning and the end of a text that is longer than most.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes) …%s", s[:most*4/5], len(s), s[len(s)-most/5:])
}

// foreign makes what is put into a message fit for a line of it.
func foreign(args []any) []any {
	out := make([]any, len(args))
	for i, x := range args {
		switch v := x.(type) {
		case string:
			out[i] = harmless(shortened(v, mostForeign), false)
		case []byte:
			out[i] = harmless(shortened(string(v), mostForeign), false)
		case error:
			out[i] = harmless(shortened(v.Error(), mostMessage), false)
		case fmt.Stringer:
			out[i] = harmless(shortened(v.String(), mostForeign), false)
		default:
			out[i] = x
		}
	}
	return out
}

// line says one line, of which only format's own newlines end lines.
func (a *app) line(format string, args ...any) {
	fmt.Fprintf(a.err, format+"\n", foreign(args)...)
}

// linesOf are the lines of an error: one, but of joined ones, and of a script with
// its trace.
func linesOf(err error) []string {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var list []string
		for _, e := range j.Unwrap() {
			list = append(list, linesOf(e)...)
		}
		return list
	}
	var script *lua.Error
	text := err.Error()
	if errors.As(err, &script) && script.Trace != "" {
		if head, ok := strings.CutSuffix(text, "\n"+script.Trace); ok {
			return append([]string{head}, strings.Split(script.Trace, "\n")...)
		}
	}
	return []string{text}
}

// exit ends the program at once, with what was said.
func (a *app) exit(status int) {
	a.unready()
	a.flush()
	os.Exit(status)
}

// flush waits for the messages.
func (a *app) flush() {
	if m, ok := a.err.(*messages); ok {
		m.flush()
	}
}

// stderr is standard error as it is, for who must answer for what it writes.
func (a *app) stderr() io.Writer {
	if m, ok := a.err.(*messages); ok {
		return m.w
	}
	return a.err
}
