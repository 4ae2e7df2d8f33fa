package main

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// watchFlags are the flags that every watch has.
type watchFlags struct {
	events   ct.Events
	reliable bool
	existing bool
	resync   time.Duration
	buffer   uint64
	ready    string
	notBy    []string
	keep     bool // all privileges
	summary  bool
	exec     execFlags
	stream   streamFlags
}

func (o *watchFlags) register(c *cobra.Command, words string) {
	f := c.Flags()
	f.SortFlags = false
	o.events = ct.AllEvents
	events := func(s string) (ct.Events, error) { return table.ParseEvents(s, words) }
	f.VarP(&parsed[ct.Events]{dst: &o.events, parse: events, text: "all", kind: "events"}, "events", "e",
		"event types to watch: "+words)
	f.VarPF(f.Lookup("events").Value, "event-mask", "", "").Hidden = true
	f.BoolVar(&o.existing, "with-existing", false,
		"list what is there first, merged with the events: nothing is missed or doubled")
	durationFlag(f, &o.resync, "resync", "list the table again every `DURATION`, after losses, and at the end with "+
		"--with-existing")
	f.BoolVar(&o.reliable, "reliable", false,
		"have the kernel deliver late what does not fit the buffer: every destroy arrives;\n"+
			"new and update fold into the flow's next event; expectation events are not helped;\n"+
			"ended flows stay in kernel memory until delivered; traffic may slow down")
	f.StringSliceVar(&o.notBy, "not-by", nil,
		"leave out events that these `programs` caused: load (every 'nfctl ct load'),\n"+
			"process ids, names of processes")
	size := func(s string) (uint64, error) { return sizeUpTo(s, 1<<30) }
	f.VarP(&parsed[uint64]{dst: &o.buffer, parse: size, kind: "size"}, "buffer", "b",
		"receive buffer: room for what comes faster than it is read (default 64MiB,\n"+
			"or 1/32 of the machine's memory where that is less)")
	f.StringVar(&o.ready, "ready-file", "", "create this `file` once subscribed")
	keepPrivilegesFlag(f, &o.keep)
	f.BoolVar(&o.summary, "summary", false,
		"totals tell events by kind and rate, and the busiest sources, destinations "+
			"and\ndestination ports of what was shown; so they do with -v")
	o.exec.register(c)
	o.stream.register(f, "events")
}

const watchHelp = `
Each event is written at once when traffic is slow, and in large pieces when it
is fast. Events that came faster than they were read and did not fit the receive
buffer are lost; how many were lost stands where they are missing, and in the
totals on standard error at the end and at SIGUSR1.

What a pattern and filters say of events, family, protocol, addresses, ports, mark
and status is also told to the kernel, which then leaves other events out of the
buffer, and out of the totals. --with-existing and --resync need to see all changes
of a flow: with them mark and status are not.
`

func newCtWatch(a *app) *cobra.Command {
	o, fo, nat := &watchFlags{}, &filterOptions{}, false
	c := &cobra.Command{
		Use:   "watch [FLOW]",
		Short: "Show connections as they are made, change and end",
		Long: `Shows the kernel's events about connections: new, update and destroy. The
pattern and flags are those of 'nfctl ct list'.` + "\n" + watchHelp,
		Example: `  nfctl ct watch
  nfctl ct watch --events new,destroy -o json 'tcp > :443'
  nfctl ct watch --count 1 --duration 5s 'tcp > :22'   # wait for a connection
  nfctl ct watch --with-existing --resync 1m -o json
  nfctl ct watch --nat-log -o json --output-file nat.log --rotate 64MiB --compress`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := fo.args(args); err != nil {
				return err
			}
			flows, err := table.WatchFlows(&fo.Filter, o.stream.ends())
			if err != nil {
				return err
			}
			if slices.ContainsFunc(fo.Given, func(g table.Given) bool { return g.Flag == "timeout" }) {
				a.warn("--timeout chooses flows by the time that they have left; to end the watch after some " +
					"time say " +
					"--duration")
			}
			w := &watchRun{a: a, o: o, opt: ct.WatchOptions{Flows: o.events, Match: flows.Conds}}
			if nat {
				return w.natLog(c, flows)
			}
			return watchOne(w, c, format.Flows, flows, &w.h.Flow)
		},
	}
	o.register(c, "new, update, destroy, all")
	c.Flags().BoolVar(&nat, "nat-log", false, "keep a log of address translations, begun and ended, for 'nfctl "+
		"ct who'; "+
		"lists what there is first, and again after losses")
	flowKind.registerFilter(c, fo)
	a.resolveFlag(c)
	a.prints(c, format.FlowEventFormats, paths(ct.FlowFields))
	return c
}

func newExpectWatch(a *app) *cobra.Command {
	o, fo := &watchFlags{}, &filterOptions{}
	c := &cobra.Command{
		Use:   "watch [FLOW]",
		Short: "Show expectations as they are made and end",
		Long: `Shows the kernel's events about expectations: new and destroy. The pattern and
flags are those of 'nfctl expect list'.` + "\n" + watchHelp,
		Example: `  nfctl expect watch
  nfctl expect watch --helper ftp -o json
  nfctl expect watch --events new --count 1 --duration 10s 'tcp > :5000'`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := fo.args(args); err != nil {
				return err
			}
			expects, err := table.WatchExpects(&fo.Filter, o.stream.ends())
			if err != nil {
				return err
			}
			if o.events&^ct.EventUpdate == 0 {
				return usagef("--events: expectations send no update: new, destroy")
			}
			w := &watchRun{a: a, o: o, opt: ct.WatchOptions{Expects: o.events &^ ct.EventUpdate}}
			return watchOne(w, c, format.Expects, expects, &w.h.Expect)
		},
	}
	o.register(c, "new, destroy, all")
	expectKind.registerFilter(c, fo)
	a.resolveFlag(c)
	a.prints(c, format.ExpectEventFormats, paths(ct.ExpectFields))
	return c
}

// watchOne runs a watch of objects of one kind, which handle hands on.
func watchOne[T any](w *watchRun, c *cobra.Command, s *format.Subject[T], ch table.Watch[T],
	handle *func(*T) error) error {
	if err := w.o.stream.file.check(false); err != nil {
		return err
	}
	w.o.stream.file.divert(w.a)
	out, err := w.a.outputOf(true)
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
