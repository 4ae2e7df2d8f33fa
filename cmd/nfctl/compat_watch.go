package main

import (
	"errors"

	"golang.org/x/sys/unix"

	"nfctl/internal/compat"
	"nfctl/internal/ct"
	"nfctl/internal/format"
)

// watch shows events until a signal comes.
func (r *compatRun) watch(c *compat.Command, out format.Output, expect bool) error {
	events := ct.AllEvents
	if c.Events != "" {
		var err error
		if events, err = parseEvents(c.Events, "ALL, NEW, UPDATES, DESTROY"); err != nil {
			return err
		}
	}
	w := &watchRun{a: r.a, o: &watchFlags{buffer: uint64(c.Buffer)}}
	what := "flow events"
	if expect {
		what = "expectation events"
	}
	w.summary = func() { r.done(w.shown.Load(), what, "shown") }
	opt := format.Options{Stream: true}
	lost := w.lost.Load
	if expect {
		w.opt.Expects = events
		p, err := expectPrinter(out, opt)
		if err != nil {
			return err
		}
		watchInto(w, p, choice[ct.Expect]{}, &w.h.Expect)
	} else {
		choose, err := r.chooser(c)
		if err != nil {
			return err
		}
		w.opt.Flows = events
		p, err := format.New(flowForm('E'), out, opt)
		if err != nil {
			return &usageError{err}
		}
		watchInto(w, p, choice[ct.Flow]{show: choose.match}, &w.h.Flow)
	}
	if c.Buffer > 0 {
		w.opened = func(size int) { // the kernel counts double what is asked for
			r.a.line("NOTICE: Netlink socket buffer size has been set to %d bytes.", 2*size)
		}
	}
	err := w.run(r.cmd.Context(), out)
	if lost() > 0 {
		r.a.line("WARNING: We have hit ENOBUFS! %d events were lost: the netlink socket buffer is too small, see --buffer-size.", lost())
	}
	if errors.Is(err, unix.EPERM) {
		return &compat.Error{Status: 1, Text: "Can't open netlink socket: " + failed('E', err).Error()}
	}
	return err
}

// watchInto has a watch print objects as p does. Its head comes with the first.
func watchInto[T any](w *watchRun, p *format.Printer[T], c choice[T], handle *func(*T) error) {
	none := func(b []byte) []byte { return b }
	w.prints(none, p.Flush, func(b []byte) []byte {
		if w.shown.Load() == 0 {
			return b
		}
		return p.End(b)
	}, p.Err)
	show := watching(w, p, c)
	*handle = func(t *T) error {
		if w.shown.Load() == 0 && (c.show == nil || c.show(t)) {
			w.k.b = p.Begin(w.k.b)
		}
		return show(t)
	}
}
