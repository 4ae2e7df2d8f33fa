package compat

import (
	"context"
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// A watching is a running -E.
type watching struct {
	r           *runner
	k           sink
	flush, end  func([]byte) []byte
	shown, lost atomic.Uint64
}

// watch shows events until the stream ends.
func (r *runner) watch(c *Command, out format.Output, expect bool) error {
	events := ct.AllEvents
	if c.Events != "" {
		var err error
		if events, err = table.ParseEvents(c.Events, "ALL, NEW, UPDATES, DESTROY"); err != nil {
			return err
		}
	}
	w := &watching{r: r, k: sink{w: r.Out}}
	o := ct.WatchOptions{Buffer: c.Buffer}
	var h ct.Handler
	what, opt := "flow events", format.Options{Stream: true}
	if expect {
		what = "expectation events"
		o.Expects = events
		p, err := expectPrinter(out, opt)
		if err != nil {
			return err
		}
		h.Expect = show(w, p, nil)
	} else {
		o.Flows = events
		choose, err := r.chooser(c)
		if err != nil {
			return err
		}
		p, err := format.New(flowForm('E'), out, opt)
		if err != nil {
			return &table.UsageError{Err: err}
		}
		h.Flow = show(w, p, choose.Match)
	}
	losses, err := format.NewAside(format.Losses, out)
	if err != nil {
		return &table.UsageError{Err: err}
	}
	h.Rest = w.rest
	h.Lost = func(l ct.Lost) error {
		w.lost.Add(l.Count)
		if !r.Discards {
			w.k.b = losses.Append(w.k.b, &format.Loss{Time: l.Time, Count: l.Count, Known: l.Known, Where: "socket",
				Queue: -1})
		}
		return nil
	}
	err = w.run(o, h, func() { r.done(w.shown.Load(), what, "shown") })
	if n := w.lost.Load(); n > 0 {
		r.Line("WARNING: We have hit ENOBUFS! %d events were lost: the netlink socket buffer is too small, see "+
			"--buffer-size.", n)
	}
	if errors.Is(err, unix.EPERM) {
		return &Error{1, "Can't open netlink socket: " + failed('E', err).Error()}
	}
	return err
}

// show returns what prints each object that choose, or nil, holds for. The head comes
// with the first.
func show[T any](w *watching, p *format.Printer[T], choose func(*T) bool) func(*T) error {
	w.flush, w.end = p.Flush, p.End
	return func(t *T) error {
		if choose != nil && !choose(t) {
			return nil
		}
		first := w.shown.Add(1) == 1
		if w.r.Discards {
			return nil
		}
		if first {
			w.k.b = p.Begin(w.k.b)
		}
		w.k.b = p.Append(w.k.b, t)
		if w.k.full() {
			return w.k.flush()
		}
		return nil
	}
}

// rest hands on what was gathered.
func (w *watching) rest() error {
	if w.r.Discards {
		return nil
	}
	w.k.b = w.flush(w.k.b)
	return w.k.flush()
}

func (w *watching) run(o ct.WatchOptions, h ct.Handler, totals func()) error {
	watcher, err := ct.OpenWatch(o)
	if err != nil {
		return err
	}
	defer watcher.Close()
	asked := o.Buffer
	if asked > 0 { // the kernel counts double what is asked for
		w.r.Line("NOTICE: Netlink socket buffer size has been set to %d bytes.", 2*watcher.Buffer)
	} else {
		asked = ct.DefaultBuffer()
	}
	if watcher.Buffer < asked {
		w.r.warn("receive buffer is %d bytes, not the %d asked for: more needs CAP_NET_ADMIN in the first user "+
			"namespace or a larger net.core.rmem_max", watcher.Buffer, asked)
	}
	if watcher.EventsFrom == ct.PolicyNone {
		w.r.warn("hint: no flow of this network namespace sends events: sysctl net.netfilter.nf_conntrack_events is 0")
	}
	var ctx context.Context
	ctx, stop, err := w.r.Stream(totals)
	if err != nil {
		return err
	}
	defer stop()
	err = watcher.Run(ctx, h)
	var broken *writeError
	if !w.r.Discards && !errors.As(err, &broken) {
		if w.shown.Load() > 0 {
			w.k.b = w.end(w.k.b)
		}
		err = errors.Join(err, w.k.flush())
	}
	totals()
	return err
}
