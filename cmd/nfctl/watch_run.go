package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/nl"
	"nfctl/internal/process"
	"nfctl/internal/stream"
	"nfctl/internal/table"
)

// A watchRun is a running watch.
type watchRun struct {
	a      *app
	o      *watchFlags
	opt    ct.WatchOptions
	h      ct.Handler
	k      sink
	stream *stream.Stream
	silent bool
	nat    *natRun // nil: it keeps no log of translations
	news   bool    // something was shown since the last rest

	begin, flush, end func([]byte) []byte
	failed            func() error

	summary func()         // prints what was seen; nil: totals
	opened  func(size int) // is told of the buffer's size; nil: nobody

	begun                             time.Time
	filtered                          bool // by the kernel
	events, listed, shown, lost, gaps atomic.Uint64
	unknown                           atomic.Bool

	busy *table.Summary // nil: not asked for
	exec *watchExec     // nil: not asked for
}

// prints sets what frames the output.
func (w *watchRun) prints(begin, flush, end func([]byte) []byte, failed func() error) {
	w.begin, w.flush, w.end, w.failed = begin, flush, end, failed
	w.k.w = w.a.out
	w.silent = w.a.quiet || process.Discards(w.a.out)
}

// watching returns what is done with each object of one kind.
func watching[T any](w *watchRun, p *format.Printer[T], c table.Watch[T]) func(*T) error {
	existing := isExisting[T]()
	by, notBy := causedBy[T](), table.NotBy(w.o.notBy)
	all := len(w.o.notBy) == 0
	count := func(*T) {}
	var hand func(*T) // to --exec; nil: nothing was yet
	if w.o.summary || w.a.verbose > 0 {
		if w.busy == nil {
			w.busy = &table.Summary{}
		}
		count = table.AddTo[T](w.busy)
	}
	return func(t *T) error {
		if existing(t) {
			w.listed.Add(1)
		} else {
			w.events.Add(1)
		}
		if !all && !notBy(by(t)) || c.Show != nil && !c.Show(t) {
			return nil
		}
		if !w.stream.Take() {
			return nl.ErrStop
		}
		w.news = true
		count(t)
		if w.exec != nil {
			if hand == nil {
				hand = handing[T](w)
			}
			hand(t)
		}
		n := w.shown.Add(1)
		if !w.silent {
			w.k.b = p.Append(w.k.b, t)
			if w.k.full() {
				w.stream.Touch()
				if err := w.k.flush(); err != nil {
					return err
				}
			}
		}
		if c.Fail != nil && c.Fail(t) {
			w.stream.Fail()
			return nl.ErrStop
		}
		if c.Until != nil && c.Until(t) {
			w.stream.Met()
			return nl.ErrStop
		}
		if n == w.o.stream.count {
			return nl.ErrStop
		}
		return nil
	}
}

// isExisting returns the test for objects of a listing.
func isExisting[T any]() func(*T) bool {
	return func(t *T) bool {
		switch x := any(t).(type) {
		case *ct.Flow:
			return x.Event == ct.Existing
		case *ct.Expect:
			return x.Event == ct.Existing
		}
		return false
	}
}

// causedBy returns what tells who caused an event.
func causedBy[T any]() func(*T) *ct.By {
	return func(t *T) *ct.By {
		switch x := any(t).(type) {
		case *ct.Flow:
			return &x.By
		case *ct.Expect:
			return &x.By
		}
		return &ct.By{}
	}
}

// rest hands on what was gathered: there is nothing more to read.
func (w *watchRun) rest() error {
	if w.news {
		w.stream.Touch()
		w.news = false
	}
	if w.nat != nil {
		return w.writeNat()
	}
	if w.silent {
		return nil
	}
	w.k.b = w.flush(w.k.b)
	return w.k.flush()
}

func (w *watchRun) run(ctx context.Context, out format.Output) error {
	losses, err := format.NewAside(format.Losses, out)
	if err != nil {
		return &usageError{err}
	}
	marks, err := format.NewAside(format.Marks, out)
	if err != nil {
		return &usageError{err}
	}
	w.h.Rest = w.rest
	w.h.Lost = func(l ct.Lost) error {
		w.gaps.Add(1)
		w.lost.Add(l.Count)
		if !l.Known {
			w.unknown.Store(true)
		}
		if !w.silent {
			w.k.b = losses.Append(w.k.b, &format.Loss{Time: l.Time, Count: l.Count, Known: l.Known, Where: "socket",
				Queue: -1})
		}
		return nil
	}
	var watcher *ct.Watcher
	told := false
	w.h.Mark = func(m ct.Mark) error {
		if m.NoEvents > 0 && !told {
			told = true
			w.olderFlows(watcher.EventsFrom, m.NoEvents)
		}
		if !w.silent {
			w.k.b = marks.Append(w.k.b, &format.Mark{Kind: m.Kind.String(), Time: m.Time, Flows: m.Flows,
				Expects: m.Expects, NoEvents: m.NoEvents})
		}
		return nil
	}
	if err := w.a.notReady(w.o.ready); err != nil {
		return err
	}
	head := w.begin
	if w.nat != nil {
		head = w.nat.head
		w.natHandlers()
	}
	if err := w.o.stream.file.open(w.a, head, string(w.end(nil)), out.Format == format.XML); err != nil {
		return err
	}
	inFile := w.o.stream.file.out != nil
	defer w.a.ready.End()
	if err := w.startExec(); err != nil {
		return err
	}
	defer func() { w.exec.close(true) }()
	w.opt.Buffer, w.opt.Reliable, w.opt.Existing, w.opt.Resync = int(min(w.o.buffer, 1<<30)), w.o.reliable,
		w.o.existing, w.o.resync
	if dog := w.a.watchdog(1); dog != nil {
		w.opt.Alive, w.opt.AliveEvery = func() { dog.Beat(0) }, dog.Every()
	}
	if watcher, err = ct.OpenWatch(w.opt); err != nil {
		return err
	}
	defer watcher.Close()
	if w.opened != nil {
		w.opened(watcher.Buffer)
	}
	asked := w.opt.Buffer
	if asked == 0 {
		asked = ct.DefaultBuffer()
	}
	switch {
	case watcher.Buffer < asked:
		w.a.warn("receive buffer is %d bytes, not the %d asked for: more needs CAP_NET_ADMIN in the first user "+
			"namespace or a larger net.core.rmem_max", watcher.Buffer, asked)
	case w.a.verbose > 0:
		w.a.warn("receive buffer is %d bytes", watcher.Buffer)
	}
	if w.filtered = watcher.Filtered; w.a.verbose > 0 && watcher.Unfiltered != nil {
		w.a.warn("the kernel does not filter the events, nfctl does: %v", watcher.Unfiltered)
	}
	if watcher.EventsFrom == ct.PolicyNone {
		w.a.hint("no flow of this network namespace sends events: sysctl net.netfilter.nf_conntrack_events is 0")
	}
	w.begun = time.Now()
	if w.summary == nil {
		w.summary = w.totals
	}
	patience := endPatience
	if w.o.existing && w.o.resync > 0 { // it lists once more
		patience = 20 * endPatience
	}
	patience += w.exec.patience()
	w.stream = w.o.stream.start(w.a, ctx, w.summary, patience)
	defer w.stream.Stop()
	if !w.silent {
		if !inFile {
			w.k.b = w.begin(w.k.b)
		}
		w.stream.EndWithReader(w.a.out)
	}
	if w.nat != nil {
		w.k.b = w.nat.log.Start(w.k.b, uint64(time.Now().UnixNano()))
	}
	if err := w.a.readyNow(w.o.ready); err != nil {
		return err
	}
	if !w.o.keep {
		w.a.lessPrivileges(w.needs()...)
	}
	err = watcher.Run(w.stream, w.h)
	if w.nat != nil {
		w.k.b = w.nat.log.Stop(w.k.b, uint64(time.Now().UnixNano()))
	}
	if !w.silent {
		if inFile {
			w.k.b = w.flush(w.k.b)
		} else {
			w.k.b = w.end(w.k.b)
		}
		var broken writeError
		if !errors.As(err, &broken) {
			err = errors.Join(err, w.k.flush())
		}
	}
	w.exec.close(w.stream.Signalled())
	err = errors.Join(err, w.o.stream.file.close())
	w.summary()
	if err = errors.Join(err, w.failed()); err != nil {
		return err
	}
	return w.o.stream.result(w.stream)
}

// needs are the capabilities that the watch cannot go on without. Events come
// without any; listing the table takes one, and so does looking which process
// holds a socket, to say who changed a flow.
func (w *watchRun) needs() (caps []int) {
	if w.o.existing || w.o.resync > 0 {
		caps = append(caps, unix.CAP_NET_ADMIN)
	}
	if !w.silent || len(w.o.notBy) > 0 {
		caps = append(caps, process.SeeOwners...)
	}
	return caps
}

// olderFlows tells of flows that may send no event.
func (w *watchRun) olderFlows(p ct.Policy, n uint64) {
	why := "they may have begun when nobody listened (net.netfilter.nf_conntrack_events is 2; 1 makes all flows send " +
		"events from their start)"
	if p == ct.PolicyNone {
		why = "net.netfilter.nf_conntrack_events is 0"
	}
	w.a.warn("%s of the listing may send no event: %s", flows(n), why)
	if w.o.resync == 0 {
		w.a.hint("--resync 30s lists the table again every 30 seconds, and so tells when they are gone")
	}
}

// totals prints what was seen. It may be called beside the watch.
func (w *watchRun) totals() {
	secs := time.Since(w.begun).Seconds()
	b := fmt.Appendf(nil, "nfctl: %s", plural(w.events.Load(), "event"))
	if w.filtered {
		b = append(b, " (the kernel left out others)"...)
	}
	b = fmt.Appendf(b, " in %.1f s", secs)
	if n := w.listed.Load(); n > 0 {
		b = fmt.Appendf(b, ", %d listed", n)
	}
	b = fmt.Appendf(b, ": %d shown", w.shown.Load())
	n := w.lost.Load()
	switch {
	case w.unknown.Load():
		b = fmt.Appendf(b, ", lost: %d or more, not all could be counted", n)
	case w.o.reliable && n > 0:
		b = fmt.Appendf(b, ", %d times an event did not fit and was delivered late or with the flow's next", n)
	default:
		b = fmt.Appendf(b, ", %d lost", n)
	}
	if g := w.gaps.Load(); g > 1 {
		b = fmt.Appendf(b, " in %d places", g)
	}
	b = append(b, '\n')
	if n > 0 && !w.o.reliable {
		b = append(b, "nfctl: hint: raise --buffer, watch fewer --events, or see --reliable\n"...)
	}
	if w.busy != nil {
		b = w.busy.Busy(5).AppendText(b, secs)
	}
	b = w.exec.appendTotals(b)
	_, _ = w.a.err.Write(b)
}
