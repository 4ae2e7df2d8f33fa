package compat

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// A compatLine is a line of a file for -R.
type compatLine struct {
	number int
	c      *Command
	flow   *ct.Flow // of -I and -A
}

// load does what the lines of a file say. All are read first, and nothing is done
// when one of them cannot be; one that fails does not keep the next ones from
// being done.
func (r *runner) load(file string) error {
	in := r.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return &Error{Status: 2, Text: fmt.Sprintf("Failed to open file %s for reading", file)}
		}
		defer f.Close()
		in = f
	}
	// The lines are kept until all are read, so that collecting garbage again and
	// again among them finds little.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	lines, err := r.lines(in)
	if err != nil || len(lines) == 0 {
		return err
	}
	ctx, stop := r.Interrupt("changed")
	defer stop()
	conn, err := r.dial()
	if err != nil {
		return err
	}
	bad := 0
	fail := func(n int, err error) {
		bad++
		r.Line("%s: line %d: %v", Name, n, err)
	}
	var waiting []*compatLine // whose requests are on their way
	batch := conn.NewBatch(table.BatchSize, func(_ *ct.Flow, err error) {
		l := waiting[0]
		waiting = waiting[1:]
		switch {
		case err == nil && r.Edited != nil:
			r.Edited()
		case err != nil && !(l.c.Verb == 'A' && errors.Is(err, unix.EEXIST)):
			fail(l.number, failed(l.c.Verb, err))
		}
	})
	for i := range lines {
		l := &lines[i]
		if l.flow != nil {
			waiting = append(waiting, l)
			if err := batch.Create(l.flow, false); err != nil {
				return err
			}
			l.flow = nil
			continue
		}
		if err := batch.Flush(); err != nil {
			return err
		}
		if err := r.do(ctx, l.c); err != nil {
			fail(l.number, failed(l.c.Verb, err))
		}
		if ctx.Err() != nil {
			return ended(ctx, nil)
		}
	}
	if err := batch.Flush(); err != nil {
		return err
	}
	if bad > 0 {
		return &Error{Status: 1}
	}
	return nil
}

// do does what a line says, without the summary that a command ends with.
func (r *runner) do(ctx context.Context, c *Command) error {
	out, err := format.ParseOutput(cmp.Or(c.Output, "text"))
	if err != nil {
		return err
	}
	switch c.Verb {
	case 'D':
		_, err = r.deleted(ctx, c, out)
	case 'U':
		_, err = r.updated(ctx, c, out)
	default:
		if err = r.flushed(ctx, c); err == nil {
			r.Line("%s: connection tracking table has been emptied.", Name)
		}
	}
	return err
}

// maxLoadLine bounds a line of a file for -R, in bytes.
const maxLoadLine = 1 << 20

func (r *runner) lines(in io.Reader) (lines []compatLine, err error) {
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, maxLoadLine)
	var words []string
	for n := 1; sc.Scan(); n++ {
		text := strings.TrimSpace(sc.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		l := compatLine{number: n}
		if f := new(ct.Flow); format.ParsePlain(text, f) {
			relax(f)
			l.c, l.flow = made(text[1]), f
		} else {
			if words, err = format.Split(words[:0], text); err == nil {
				l.c, err = ParseLine(words)
			}
			if err == nil && (l.c.Verb == 'I' || l.c.Verb == 'A') {
				l.flow, err = r.entry(l.c)
				l.c = made(l.c.Verb) // the rest was read
			}
		}
		if err != nil {
			return nil, &Error{Status: 2, Text: fmt.Sprintf("line %d: %v", n, err)}
		}
		lines = append(lines, l)
	}
	if err = sc.Err(); errors.Is(err, bufio.ErrTooLong) {
		err = fmt.Errorf("a line is longer than %d bytes", maxLoadLine)
	}
	return lines, err
}

// made returns what is left of -I or -A once its flow was read.
func made(verb byte) *Command {
	if verb == 'I' {
		return &madeI
	}
	return &madeA
}

var madeI, madeA = Command{Verb: 'I'}, Command{Verb: 'A'}
