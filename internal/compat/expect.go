package compat

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/pattern"
	"nfctl/internal/table"
	"nfctl/internal/value"
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
		return nil, &table.UsageError{Err: err}
	}
	return p, nil
}

func (r *runner) listExpects(ctx context.Context, c *Command, out format.Output) error {
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
	k, n := &sink{w: r.Out}, uint64(0)
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
func expectOptionsOf(c *Command) (*table.NewExpect, error) {
	o := &table.NewExpect{}
	for _, f := range c.Entry {
		switch f.Name {
		case "timeout":
			d, err := value.NumberIn("timeout", f.Text, 1, 1<<32-1)
			if err != nil {
				return nil, err
			}
			o.Timeout = time.Duration(d) * time.Second
		default:
			o.Words = append(o.Words, table.Given{Flag: f.Name, Text: f.Text})
		}
	}
	if n, err := strconv.ParseUint(c.Proto, 10, 8); err == nil && pattern.HasICMP(uint8(n)) {
		o.Behind = " type 0 code 0 id 0" // conntrack(8) has no options for them here
	}
	return o, nil
}

func (r *runner) createExpect(c *Command) error {
	o, err := expectOptionsOf(c)
	if err != nil {
		return err
	}
	e, err := o.Read(nil)
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
func (r *runner) expectNamed(c *Command) (*ct.Expect, *ct.Conn, error) {
	o, err := expectOptionsOf(c)
	if err != nil {
		return nil, nil, err
	}
	key, err := table.ExpectKey(o.Flow("orig-"))
	if err != nil {
		return nil, nil, err
	}
	conn, err := r.dial()
	return key, conn, err
}

func (r *runner) getExpect(c *Command, out format.Output) error {
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
	k := &sink{w: r.Out}
	k.b = p.Append(p.Begin(k.b), &got)
	return finishPrint(p, k)
}

func (r *runner) deleteExpect(c *Command) error {
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
		return &Error{Status: 1, Text: "Operation failed: No such file or directory"}
	}
	return err
}
