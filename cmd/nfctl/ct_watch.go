package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/filter"
	"nfctl/internal/format"
	"nfctl/internal/nl"
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// watchFlags are the flags that every watch has.
type watchFlags struct {
	events   ct.Events
	reliable bool
	existing bool
	resync   time.Duration
	buffer   uint64
	ready    string
	keep     bool // all privileges
	stream   streamFlags
}

func (o *watchFlags) register(c *cobra.Command, words string) {
	f := c.Flags()
	f.SortFlags = false
	o.events = ct.AllEvents
	events := func(s string) (ct.Events, error) { return parseEvents(s, words) }
	f.VarP(&parsed[ct.Events]{dst: &o.events, parse: events, text: "all", kind: "events"}, "events", "e", "event types to watch: "+words)
	f.VarPF(f.Lookup("events").Value, "event-mask", "", "").Hidden = true
	f.BoolVar(&o.existing, "with-existing", false, "list what is there first, merged with the events: nothing is missed or doubled")
	durationFlag(f, &o.resync, "resync", "list the table again so often, after losses, and with --with-existing at the end")
	f.BoolVar(&o.reliable, "reliable", false, "have the kernel deliver late what does not fit the buffer: every destroy arrives;\n"+
		"new and update fold into the flow's next event; expectation events gain nothing;\n"+
		"ended flows stay in memory until then, and whoever makes events is slowed")
	size := func(s string) (uint64, error) { return sizeUpTo(s, 1<<30) }
	f.VarP(&parsed[uint64]{dst: &o.buffer, parse: size, text: "64MiB", kind: "size"}, "buffer", "b", "receive buffer: room for what comes faster than it is read")
	f.StringVar(&o.ready, "ready-file", "", "make this `file` when nothing that happens is missed any more")
	keepPrivilegesFlag(f, &o.keep)
	o.stream.register(f, "events")
}

// parseEvents reads event types, ours and as conntrack(8) spells them.
func parseEvents(s, words string) (ct.Events, error) {
	var e ct.Events
	for _, w := range strings.Split(s, ",") {
		switch strings.ToLower(strings.TrimSpace(w)) {
		case "new":
			e |= ct.EventNew
		case "update", "updates":
			e |= ct.EventUpdate
		case "destroy":
			e |= ct.EventDestroy
		case "all":
			e |= ct.AllEvents
		default:
			return 0, &value.Error{What: "event type", Text: w, Valid: words, Near: value.Nearest(strings.ToLower(w), strings.FieldsFunc(words, func(r rune) bool { return r == ',' || r == ' ' }))}
		}
	}
	return e, nil
}

// A choice is which objects of one kind a watch shows, and which ends it.
type choice[T any] struct {
	show  func(*T) bool // nil: all
	until func(*T) bool // nil: none
}

// chosen returns the choice of a compiled filter and --until's expression.
func chosen[T any](reg *field.Registry[T], c *chooser[T], until string) (choice[T], error) {
	out := choice[T]{show: c.match}
	if until == "" {
		return out, nil
	}
	p, err := filter.Compile(reg, until)
	if err != nil {
		return out, named("--until", err)
	}
	out.until = p.Match
	return out, nil
}

const watchHelp = `
Each event is written at once when traffic is slow, and in large pieces when it
is fast. Events that came faster than they were read and did not fit the receive
buffer are lost; how many were lost stands where they are missing, and in the
totals on standard error at the end and at SIGUSR1.
`

func newCtWatch(a *app) *cobra.Command {
	o, fo := &watchFlags{}, &filterOptions{}
	c := &cobra.Command{
		Use:   "watch ['PATTERN']",
		Short: "Show connections as they are made, change and end",
		Long: `Shows the kernel's events about connections: new, update and destroy. The
pattern and flags are those of 'nfctl ct list'.` + "\n" + watchHelp,
		Example: `  nfctl ct watch
  nfctl ct watch --events new,destroy -o json 'tcp > :443'
  nfctl ct watch --count 1 --duration 5s 'tcp > :22'   # wait for a connection
  nfctl ct watch --with-existing --resync 1m -o json`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := fo.args(args); err != nil {
				return err
			}
			flt, err := flowFilter(fo)
			if err != nil {
				return err
			}
			flows, err := chosen(ct.FlowFields, flt, o.stream.until)
			if err != nil {
				return err
			}
			w := &watchRun{a: a, o: o, opt: ct.WatchOptions{Flows: o.events}}
			return watchOne(w, c, "ct watch", format.Flows, flows, &w.h.Flow)
		},
	}
	o.register(c, "new, update, destroy, all")
	registerFlowFilter(c, fo)
	return c
}

func newExpectWatch(a *app) *cobra.Command {
	o, fo := &watchFlags{}, &filterOptions{}
	c := &cobra.Command{
		Use:   "watch ['PATTERN']",
		Short: "Show expectations as they are made and end",
		Long: `Shows the kernel's events about expectations: new and destroy. The pattern and
flags are those of 'nfctl expect list'.` + "\n" + watchHelp,
		Example: `  nfctl expect watch
  nfctl expect watch --helper ftp -o json
  nfctl expect watch --events new --count 1 --duration 10s 'tcp > :5000'`,
		RunE: func(c *cobra.Command, args []string) error {
			flt, err := expectFilter(fo, args)
			if err != nil {
				return err
			}
			expects, err := chosen(ct.ExpectFields, flt, o.stream.until)
			if err != nil {
				return err
			}
			if o.events&^ct.EventUpdate == 0 {
				return usagef("--events: expectations send no update: new, destroy")
			}
			w := &watchRun{a: a, o: o, opt: ct.WatchOptions{Expects: o.events &^ ct.EventUpdate}}
			return watchOne(w, c, "expect watch", format.Expects, expects, &w.h.Expect)
		},
	}
	o.register(c, "new, destroy, all")
	registerExpectFilter(c, fo)
	return c
}

// watchOne runs a watch of objects of one kind, which handle hands on.
func watchOne[T any](w *watchRun, c *cobra.Command, command string, s *format.Subject[T], ch choice[T], handle *func(*T) error) error {
	out, err := w.a.outputOf(command, true)
	if err != nil {
		return err
	}
	p, err := format.New(s, out, format.Options{Stream: true, Color: w.a.colored()})
	if err != nil {
		return &usageError{err}
	}
	w.prints(p.Begin, p.Flush, p.End, p.Err)
	*handle = watching(w, p, ch)
	return w.run(c.Context(), out)
}

func newWatch(a *app) *cobra.Command {
	o, fo := &watchFlags{}, &filterOptions{}
	c := &cobra.Command{
		Use:   "watch ['PATTERN']",
		Short: "Show events of connections and expectations in one stream",
		Long: `Shows what happens to connections and to expectations, in the order in which the
kernel told of it. A pattern is about a connection's original direction; of an
expectation, about the connection expected or the one that expects it.
Expressions know the fields of both.` + "\n" + watchHelp,
		Example: `  nfctl watch
  nfctl watch 'tcp > :21' -o json
  nfctl watch --filter 'helper == "ftp" or master != nil'`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := fo.args(args); err != nil {
				return err
			}
			flows, expects, err := chooseEither(fo, o.stream.until)
			if err != nil {
				return err
			}
			w := &watchRun{a: a, o: o, opt: ct.WatchOptions{Flows: o.events, Expects: o.events &^ ct.EventUpdate}}
			out, err := a.outputOf("watch", true)
			if err != nil {
				return err
			}
			pf, pe, err := eitherPrinters(out, a.colored())
			if err != nil {
				return err
			}
			w.prints(pf.Begin, pf.Flush, pf.End, func() error { return errors.Join(pf.Err(), pe.Err()) })
			w.h.Flow, w.h.Expect = watching(w, pf, flows), watching(w, pe, expects)
			return w.run(c.Context(), out)
		},
	}
	o.register(c, "new, update, destroy, all")
	registerFilter[either](c, nil, fo)
	return c
}

// chooseEither reads the choices of a watch of flows and expectations.
func chooseEither(fo *filterOptions, until string) (flows choice[ct.Flow], expects choice[ct.Expect], err error) {
	reg := eitherFields()
	words := fo.pattern
	fo.pattern = ""
	flt, err := compileFilter(reg, nil, pattern.Paths{}, fo)
	if err != nil {
		return flows, expects, err
	}
	both, err := chosen(reg, flt, until)
	if err != nil {
		return flows, expects, err
	}
	e := &either{} // reused: a watch is one goroutine
	ofFlow := func(test func(*either) bool) func(*ct.Flow) bool {
		if test == nil {
			return nil
		}
		return func(f *ct.Flow) bool { e.flow, e.expect = f, nil; return test(e) }
	}
	ofExpect := func(test func(*either) bool) func(*ct.Expect) bool {
		if test == nil {
			return nil
		}
		return func(x *ct.Expect) bool { e.flow, e.expect = nil, x; return test(e) }
	}
	flows = choice[ct.Flow]{ofFlow(both.show), ofFlow(both.until)}
	expects = choice[ct.Expect]{ofExpect(both.show), ofExpect(both.until)}
	if words == "" {
		return flows, expects, nil
	}
	p, err := pattern.Parse(words)
	if err != nil {
		return flows, expects, err
	}
	flow, err := patternPredicate(ct.FlowFields, p, pattern.FlowPaths)
	if err != nil {
		return flows, expects, err
	}
	tuple, err := patternPredicate(ct.ExpectFields, p, expectPaths("tuple"))
	if err != nil {
		return flows, expects, err
	}
	master, err := patternPredicate(ct.ExpectFields, p, expectPaths("master"))
	if err != nil {
		return flows, expects, err
	}
	flows.show = and(flow, flows.show)
	expects.show = and(func(x *ct.Expect) bool { return tuple(x) || master(x) }, expects.show)
	return flows, expects, nil
}

func patternPredicate[T any](reg *field.Registry[T], p *pattern.Pattern, paths pattern.Paths) (func(*T) bool, error) {
	conds, err := p.Conds(paths)
	if err != nil {
		return nil, err
	}
	return filter.Conds(reg, conds...)
}

// and joins two predicates, each of which may be nil.
func and[T any](a, b func(*T) bool) func(*T) bool {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return func(t *T) bool { return a(t) && b(t) }
}

// eitherPrinters are printers of flows and expectations whose output is one
// stream. Of --fields each is given those that its objects have.
func eitherPrinters(out format.Output, color bool) (*format.Printer[ct.Flow], *format.Printer[ct.Expect], error) {
	names := out.Fields
	known := func(has func(string) error) (out []string) {
		for _, n := range names {
			if has(n) == nil {
				out = append(out, n)
			}
		}
		if len(names) > 0 && len(out) == 0 {
			out = []string{"kind"}
		}
		return out
	}
	flow := func(n string) error { _, err := format.SelectRows(ct.FlowFields, []string{n}); return err }
	expect := func(n string) error { _, err := format.SelectRows(ct.ExpectFields, []string{n}); return err }
	for _, n := range names {
		if err := flow(n); err != nil && expect(n) != nil {
			return nil, nil, named("--fields", err)
		}
	}
	opt := format.Options{Stream: true, Color: color}
	of, oe := out, out
	of.Fields = known(flow)
	oe.Fields = known(expect)
	opt.Others = func(path string) bool { return ct.ExpectFields.Row(path) != nil || ct.ExpectFields.Group(path) }
	pf, err := format.New(format.Flows, of, opt)
	if err != nil {
		return nil, nil, &usageError{err}
	}
	opt.Others = func(path string) bool { return ct.FlowFields.Row(path) != nil || ct.FlowFields.Group(path) }
	pe, err := format.New(format.Expects, oe, opt)
	if err != nil {
		return nil, nil, &usageError{err}
	}
	return pf, pe, nil
}

// either is a flow or an expectation: what the expressions of a watch of both are
// about.
type either struct {
	flow   *ct.Flow
	expect *ct.Expect
}

// eitherFields returns the fields of flows and those of expectations. One that
// both have, of the same kind, is one field.
func eitherFields() *field.Registry[either] {
	rows := field.Lift("", ct.FlowFields.Rows(), func(e *either) *ct.Flow { return e.flow })
	at := make(map[string]int, len(rows))
	for i := range rows {
		rows[i].Part = nil
		at[rows[i].Path] = i
	}
	for _, x := range field.Lift("", ct.ExpectFields.Rows(), func(e *either) *ct.Expect { return e.expect }) {
		x.Part = nil
		i, both := at[x.Path]
		if !both {
			rows = append(rows, x)
			continue
		}
		rows[i].Num = first(rows[i].Num, x.Num)
		rows[i].IP = first(rows[i].IP, x.IP)
		rows[i].Data = first(rows[i].Data, x.Data)
		rows[i].Aliases = append(rows[i].Aliases[:len(rows[i].Aliases):len(rows[i].Aliases)], x.Aliases...)
	}
	return field.New(func() []field.Row[either] { return rows })
}

// first joins two loaders of one field: what a has, or else b.
func first[V any](a, b func(*either) (V, bool)) func(*either) (V, bool) {
	if a == nil || b == nil {
		return a
	}
	return func(e *either) (V, bool) {
		if e.flow != nil {
			return a(e)
		}
		return b(e)
	}
}

// A watchRun is a running watch.
type watchRun struct {
	a      *app
	o      *watchFlags
	opt    ct.WatchOptions
	h      ct.Handler
	k      sink
	stream *stream
	silent bool
	news   bool // something was shown since the last rest

	begin, flush, end func([]byte) []byte
	failed            func() error

	summary func()         // prints what was seen; nil: totals
	opened  func(size int) // is told of the buffer's size; nil: nobody

	begun                             time.Time
	events, listed, shown, lost, gaps atomic.Uint64
	unknown                           atomic.Bool
}

// prints sets what frames the output.
func (w *watchRun) prints(begin, flush, end func([]byte) []byte, failed func() error) {
	w.begin, w.flush, w.end, w.failed = begin, flush, end, failed
	w.k.w = w.a.out
	w.silent = w.a.quiet || discards(w.a.out)
}

// watching returns what is done with each object of one kind.
func watching[T any](w *watchRun, p *format.Printer[T], c choice[T]) func(*T) error {
	existing := isExisting[T]()
	return func(t *T) error {
		if existing(t) {
			w.listed.Add(1)
		} else {
			w.events.Add(1)
		}
		if c.show != nil && !c.show(t) {
			return nil
		}
		if !w.stream.take() {
			return nl.ErrStop
		}
		w.news = true
		n := w.shown.Add(1)
		if !w.silent {
			w.k.b = p.Append(w.k.b, t)
			if w.k.full() {
				w.stream.touch()
				if err := w.k.flush(); err != nil {
					return err
				}
			}
		}
		if c.until != nil && c.until(t) {
			w.stream.met()
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

// rest hands on what was gathered: there is nothing more to read.
func (w *watchRun) rest() error {
	if w.news {
		w.stream.touch()
		w.news = false
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
			w.k.b = losses.Append(w.k.b, &format.Loss{Time: l.Time, Count: l.Count, Known: l.Known, Where: "socket", Queue: -1})
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
			w.k.b = marks.Append(w.k.b, &format.Mark{Kind: m.Kind.String(), Time: m.Time, Flows: m.Flows, Expects: m.Expects, NoEvents: m.NoEvents})
		}
		return nil
	}
	w.opt.Buffer, w.opt.Reliable, w.opt.Existing, w.opt.Resync = int(w.o.buffer), w.o.reliable, w.o.existing, w.o.resync
	if watcher, err = ct.OpenWatch(w.opt); err != nil {
		return err
	}
	defer watcher.Close()
	if w.opened != nil {
		w.opened(watcher.Buffer)
	}
	asked := w.opt.Buffer
	if asked == 0 {
		asked = ct.DefaultBuffer
	}
	switch {
	case watcher.Buffer < asked:
		w.a.warn("receive buffer is %d bytes, not the %d asked for: more needs CAP_NET_ADMIN in the first user namespace or a larger net.core.rmem_max", watcher.Buffer, asked)
	case w.a.verbose > 0:
		w.a.warn("receive buffer is %d bytes", watcher.Buffer)
	}
	if watcher.EventsFrom == ct.PolicyNone {
		w.a.hint("no flow of this network namespace sends events: sysctl net.netfilter.nf_conntrack_events is 0")
	}
	w.begun = time.Now()
	if w.summary == nil {
		w.summary = w.totals
	}
	w.stream = w.o.stream.start(ctx, w.summary)
	defer w.stream.stop()
	if !w.silent {
		w.k.b = w.begin(w.k.b)
		go w.stream.endWithReader(w.a.out)
	}
	if err := ready(w.o.ready); err != nil {
		return err
	}
	if !w.o.keep {
		w.a.lessPrivileges(w.needs()...)
	}
	err = watcher.Run(w.stream, w.h)
	if !w.silent {
		w.k.b = w.end(w.k.b)
		var broken writeError
		if !errors.As(err, &broken) {
			err = errors.Join(err, w.k.flush())
		}
	}
	w.summary()
	if err = errors.Join(err, w.failed()); err != nil {
		return err
	}
	return w.stream.result()
}

// needs are the capabilities that the watch cannot go on without. Events come
// without any; listing the table takes one, and so does looking which process
// holds a socket, to say who changed a flow.
func (w *watchRun) needs() (caps []int) {
	if w.o.existing || w.o.resync > 0 {
		caps = append(caps, unix.CAP_NET_ADMIN)
	}
	if !w.silent {
		caps = append(caps, seeOwners...)
	}
	return caps
}

// olderFlows tells of flows that may send no event.
func (w *watchRun) olderFlows(p ct.Policy, n uint64) {
	why := "they may have begun when nobody listened (net.netfilter.nf_conntrack_events is 2; 1 makes all flows send events from their start)"
	if p == ct.PolicyNone {
		why = "net.netfilter.nf_conntrack_events is 0"
	}
	w.a.warn("%d flows of the listing may send no event: %s", n, why)
	if w.o.resync == 0 {
		w.a.hint("--resync 30s lists the table again so often, and so tells when they are gone")
	}
}

// totals prints what was seen. It may be called beside the watch.
func (w *watchRun) totals() {
	secs := time.Since(w.begun).Seconds()
	b := fmt.Appendf(nil, "nfctl: %d events in %.1f s", w.events.Load(), secs)
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
	_, _ = w.a.err.Write(b)
}
