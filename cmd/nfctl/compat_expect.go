package main

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/compat"
	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/pattern"
)

// expectPrinter prints expectations as conntrack(8) does: of the parts of -o only
// xml and timestamp say something of them, and who caused an event is not said.
func expectPrinter(out format.Output, opt format.Options) (*format.Printer[ct.Expect], error) {
	o := format.Output{Format: format.Text, Timestamp: out.Timestamp}
	if out.Format == format.XML {
		o.Format = format.XML
	}
	form := *format.Expects
	anonymous := func(b []byte, e *ct.Expect, appendTo func([]byte, *ct.Expect) []byte) []byte {
		by := e.By
		e.By = ct.By{}
		b = appendTo(b, e)
		e.By = by
		return b
	}
	text, xml := form.Text, form.XML
	form.Text = func(o *format.Output, opt format.Options) func([]byte, *ct.Expect) []byte {
		appendText := text(o, opt)
		return func(b []byte, e *ct.Expect) []byte { return anonymous(b, e, appendText) }
	}
	form.XML = func(o *format.Output, opt format.Options) func([]byte, *ct.Expect) []byte {
		appendXML := xml(o, opt)
		return func(b []byte, e *ct.Expect) []byte { return anonymous(b, e, appendXML) }
	}
	p, err := format.New(&form, o, opt)
	if err != nil {
		return nil, &usageError{err}
	}
	return p, nil
}

func (r *compatRun) listExpects(ctx context.Context, c *compat.Command, out format.Output) error {
	p, err := expectPrinter(out, format.Options{})
	if err != nil {
		return err
	}
	conn, err := r.dial()
	if err != nil {
		return err
	}
	family := uint8(ct.IPv4)
	if c.Family == "ipv6" {
		family = ct.IPv6
	}
	k, n := &sink{w: r.a.out}, uint64(0)
	_, err = conn.Expects(ctx, family, nil, func(e *ct.Expect) error {
		if n == 0 {
			k.b = p.Begin(k.b)
		}
		n++
		k.b = p.Append(k.b, e)
		if k.full() {
			return k.flush()
		}
		return nil
	})
	if n > 0 {
		k.b = p.End(k.b)
	}
	if err = cmp.Or(err, k.flush()); err != nil {
		return err
	}
	r.done(n, "expectations", "shown")
	return nil
}

// expectOptionsOf gathers conntrack(8)'s flags about a master and what it expects.
func expectOptionsOf(c *compat.Command) (*expectOptions, error) {
	o := &expectOptions{}
	for _, f := range c.Entry {
		switch f.Name {
		case "timeout":
			d, err := number("timeout", f.Text, 1, 1<<32-1)
			if err != nil {
				return nil, err
			}
			o.timeout = time.Duration(d) * time.Second
		default:
			o.words = append(o.words, given{f.Name, f.Text})
		}
	}
	if n, err := strconv.ParseUint(c.Proto, 10, 8); err == nil && pattern.HasICMP(uint8(n)) {
		o.icmp = " type 0 code 0 id 0" // conntrack(8) has no options for them here
	}
	return o, nil
}

func (r *compatRun) createExpect(c *compat.Command) error {
	o, err := expectOptionsOf(c)
	if err != nil {
		return err
	}
	e, err := o.expect(nil)
	if err != nil {
		return err
	}
	conn, err := r.dial()
	if err != nil {
		return err
	}
	_, err = conn.CreateExpect(e, false)
	return err
}

// expectNamed reads the expectation that -G or -D of conntrack(8) name, and dials.
func (r *compatRun) expectNamed(c *compat.Command) (*ct.Expect, *ct.Conn, error) {
	o, err := expectOptionsOf(c)
	if err != nil {
		return nil, nil, err
	}
	key, err := expectKey(o.flow("orig-"))
	if err != nil {
		return nil, nil, err
	}
	conn, err := r.dial()
	return key, conn, err
}

func (r *compatRun) getExpect(c *compat.Command, out format.Output) error {
	key, conn, err := r.expectNamed(c)
	if err != nil {
		return err
	}
	var got ct.Expect
	if err := conn.GetExpect(key, &got); err != nil {
		return noSuch(err)
	}
	p, err := expectPrinter(out, format.Options{})
	if err != nil {
		return err
	}
	k := &sink{w: r.a.out}
	k.b = p.Append(p.Begin(k.b), &got)
	return finishPrint(p, k)
}

func (r *compatRun) deleteExpect(c *compat.Command) error {
	key, conn, err := r.expectNamed(c)
	if err != nil {
		return err
	}
	if err := conn.DeleteExpect(key); err != nil {
		return noSuch(err)
	}
	r.done(1, "expectations", "deleted")
	return nil
}

// noSuch is what conntrack(8) says of an expectation that is not there.
func noSuch(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return &compat.Error{Status: 1, Text: "Operation failed: No such file or directory"}
	}
	return err
}
