package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/format"
	"nfctl/internal/value"
)

// ctListOptions are the flags of 'nfctl ct list'.
type ctListOptions struct {
	filter             filterOptions
	dying, unconfirmed bool
	zero               bool
	groupBy            []string
	top                uint64
	failEmpty          bool
}

func newCtList(a *app) *cobra.Command {
	o := &ctListOptions{}
	c := &cobra.Command{
		Use:   "list [FLOW]",
		Short: "List flows",
		Long: `Lists the flows of the connection tracking table, all or those that a flow in
words, flags and expressions choose. The order is the kernel's.

The kernel is asked to leave out what it can; what it sends is checked again, so
that the result does not depend on the kernel's version.

--group-by counts flows, packets and bytes for each combination of some fields;
packets and bytes are those of both directions, of flows that have counters
(net.netfilter.nf_conntrack_acct=1).`,
		Example: `  nfctl ct list 'tcp > :443'
  nfctl ct list -p udp --status UNREPLIED -o json
  nfctl ct list --src-nat 192.0.2.1:5000
  nfctl ct list --filter 'orig.bytes > "1MiB" and age < 60'
  nfctl ct list --group-by orig.src,orig.dport --top 20`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.filter.args(args); err != nil {
				return err
			}
			return a.ctList(c, o, "ct list")
		},
	}
	f := c.Flags()
	f.SortFlags = false
	registerFlowFilter(c, &o.filter)
	f.StringSliceVar(&o.groupBy, "group-by", nil, "count flows by these `fields`: orig.src,orig.dport")
	f.Uint64Var(&o.top, "top", 0, "with --group-by, only the `N` groups with the most flows")
	f.BoolVar(&o.zero, "zero", false, "set the counters of what is listed to zero")
	f.BoolVar(&o.dying, "dying", false, "list flows that ended but are still held")
	f.BoolVar(&o.unconfirmed, "unconfirmed", false, "list flows that are not yet in the table; always empty since Linux 5.19 or so")
	f.BoolVar(&o.failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	return c
}

// newCtSave is 'ct list -o save' under the name that goes with 'ct load'.
func newCtSave(a *app) *cobra.Command {
	o := &ctListOptions{}
	c := &cobra.Command{
		Use:   "save [FLOW]",
		Short: "Write flows as lines that 'ct load' reads",
		Long: `Writes flows, all or those chosen, as conntrack(8)'s -o save lines, followed by
what those lose: mark, labels, helper, sequence adjustment and so on. Where that
loses nothing, conntrack -R reads them too. With -o json they are JSON Lines,
which 'ct load' reads as well.

What nobody can set is not restored: counters, times, id and use.`,
		Example: `  nfctl ct save > flows
  nfctl --netns old ct save | nfctl --netns new ct load -
  nfctl ct save --zone 11 | sed 's/-w 11/-w 12/' | nfctl ct load -`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.filter.args(args); err != nil {
				return err
			}
			if a.output == "" {
				a.output = "save"
			}
			return a.ctList(c, o, "ct save")
		},
	}
	c.Flags().SortFlags = false
	registerFlowFilter(c, &o.filter)
	c.Flags().BoolVar(&o.failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	return c
}

func (a *app) ctList(c *cobra.Command, o *ctListOptions, command string) error {
	out, err := a.outputOf(command, false)
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	if c.Flags().Changed("group-by") && (len(o.groupBy) == 0 || slices.Contains(o.groupBy, "")) {
		return usagef("--group-by: want names of fields, as orig.src,orig.dport")
	}
	choose, err := flowFilter(&o.filter)
	if err != nil {
		return err
	}
	d := dumpOptions(choose)
	d.Idle = d.Idle || slices.Contains(out.Fields, "idle") || strings.Contains(out.Template, ".idle") || slices.Contains(o.groupBy, "idle")
	switch {
	case o.dying:
		d.Table = ct.Dying
	case o.unconfirmed:
		d.Table = ct.Unconfirmed
	}
	ctx, stop := interruptible(c)
	defer stop()
	if len(o.groupBy) > 0 {
		return ended(ctx, a.ctGroups(ctx, o, out, choose, d))
	}
	l := &lister{a: a, choose: choose, out: out, silent: a.quiet}
	if err := l.begin(); err != nil {
		return err
	}
	switch {
	case o.zero && choose.match != nil:
		err = l.zero(ctx, d)
	case out.Format == format.Table: // columns are aligned over all flows
		err = l.one(ctx, d)
	default:
		d.Zero = o.zero
		err = l.parallel(ctx, d)
	}
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	err = cmp.Or(err, l.end())
	if err != nil {
		return ended(ctx, err)
	}
	a.dumpNote(l.result)
	if a.quiet || a.verbose > 0 {
		a.total("%s", flows(l.count))
	}
	if o.unconfirmed && l.count == 0 {
		a.hint("the kernel keeps no list of unconfirmed flows since Linux 5.19 or so")
	}
	return notFound(o.failEmpty, l.count)
}

func (o *ctListOptions) check() error {
	switch {
	case o.dying && o.unconfirmed:
		return usagef("--dying and --unconfirmed are two lists: one at a time")
	case o.zero && (o.dying || o.unconfirmed):
		return usagef("--zero goes with the table, not with --dying or --unconfirmed")
	case o.zero && len(o.groupBy) > 0:
		return usagef("--zero does not go with --group-by")
	case o.top > 0 && len(o.groupBy) == 0:
		return usagef("--top goes with --group-by")
	}
	return nil
}

// A lister lists flows, on several goroutines where it can.
type lister struct {
	a      *app
	choose *chooser[ct.Flow]
	out    format.Output
	silent bool
	bare   bool                     // neither head nor end
	form   *format.Subject[ct.Flow] // nil: format.Flows

	mu      sync.Mutex // standard output
	workers []*listWorker
	result  ct.DumpResult
	count   uint64
}

// A listWorker prints the flows of one dump.
type listWorker struct {
	flowPrinter
	keep  func(*ct.Flow) bool
	quiet bool
	n     uint64
}

func (l *lister) worker() *listWorker {
	p, _ := format.New(cmp.Or(l.form, format.Flows), l.out, format.Options{Color: l.a.colored()}) // begin tried it
	w := &listWorker{flowPrinter: flowPrinter{p, &sink{w: l.a.out, mu: &l.mu}}, keep: l.choose.match, quiet: l.silent}
	l.workers = append(l.workers, w)
	return w
}

// Flow implements ct.Worker.
func (w *listWorker) Flow(f *ct.Flow) error {
	if w.keep != nil && !w.keep(f) {
		return nil
	}
	w.n++
	if w.quiet {
		return nil
	}
	return w.print(f)
}

// Rest implements ct.Worker.
func (w *listWorker) Rest() error { return nil }

// begin writes what stands before the first flow.
func (l *lister) begin() error {
	p, k, err := printTo(l.a, format.Flows, l.out, format.Options{})
	if err != nil || l.silent {
		return err
	}
	if l.out.Format == format.Table {
		return nil
	}
	_ = p
	return k.flush()
}

// end writes what is held back, and what stands behind the last flow.
func (l *lister) end() error {
	if len(l.workers) == 0 {
		l.worker() // also an empty document has its end
	}
	for i, w := range l.workers {
		l.count += w.n
		if l.silent {
			continue
		}
		if l.bare || i < len(l.workers)-1 {
			w.b = w.p.Flush(w.b)
		} else {
			w.b = w.p.End(w.b)
		}
		if err := w.flush(); err != nil {
			return err
		}
		if err := w.p.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) parallel(ctx context.Context, d ct.DumpOptions) (err error) {
	l.result, err = ct.DumpParallel(ctx, d, func() ct.Worker { return l.worker() })
	return err
}

func (l *lister) one(ctx context.Context, d ct.DumpOptions) (err error) {
	l.result, err = ct.Dump(ctx, d, l.worker().Flow)
	return err
}

// zero reads without zeroing, and then each flow that matches by itself: what the
// kernel sent before it set the counters to zero is what is printed.
func (l *lister) zero(ctx context.Context, d ct.DumpOptions) error {
	w := l.worker()
	c, err := ct.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	bad := &failures{a: l.a}
	var failed error
	b := c.NewBatch(batchSize, func(_ *ct.Flow, err error) {
		if err != nil && !gone(err) {
			bad.add(err)
		}
	})
	w.keep = nil
	b.Reply(func(f *ct.Flow) { failed = cmp.Or(failed, w.Flow(f)) })
	l.result, err = ct.Dump(ctx, d, func(f *ct.Flow) error {
		if !l.choose.keep(f) {
			return failed
		}
		return cmp.Or(b.Get(f, true), failed)
	})
	return cmp.Or(err, b.Flush(), failed, bad.result())
}

// batchSize is how many requests are sent to the kernel at once.
const batchSize = 100

// ctCountOptions are the flags of 'nfctl ct count'.
type ctCountOptions struct {
	filter    filterOptions
	failEmpty bool
}

func newCtCount(a *app) *cobra.Command {
	o := &ctCountOptions{}
	c := &cobra.Command{
		Use:   "count [FLOW]",
		Short: "Count flows; say how many there may be",
		Long: `Counts the flows of the table, and says how many there may be
(net.netfilter.nf_conntrack_max) and how full it is. With a filter it counts the
flows that match.`,
		Example: `  nfctl ct count
  nfctl ct count -o json
  nfctl ct count --status UNREPLIED`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.filter.args(args); err != nil {
				return err
			}
			return a.ctCount(c, o)
		},
	}
	c.Flags().SortFlags = false
	registerFlowFilter(c, &o.filter)
	c.Flags().BoolVar(&o.failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	return c
}

func (a *app) ctCount(c *cobra.Command, o *ctCountOptions) error {
	if _, err := a.outputOf("ct count", false); err != nil {
		return err
	}
	choose, err := flowFilter(&o.filter)
	if err != nil {
		return err
	}
	count := format.Count{Of: "flows"}
	if choose.match == nil {
		conn, err := ct.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		n, most, err := conn.Count()
		if err != nil {
			return err
		}
		count.Count, count.Max = uint64(n), uint64(most)
	} else {
		l := &lister{a: a, choose: choose, silent: true}
		ctx, stop := interruptible(c)
		defer stop()
		if err := cmp.Or(l.parallel(ctx, dumpOptions(choose)), l.end()); err != nil {
			return ended(ctx, err)
		}
		a.dumpNote(l.result)
		count.Count = l.count
	}
	if err := printAll(a, format.Counts, "ct count", count); err != nil {
		return err
	}
	return notFound(o.failEmpty, count.Count)
}

// ctStatsOptions are the flags of 'nfctl ct stats'.
type ctStatsOptions struct {
	interval time.Duration
	keep     bool
	stream   streamFlags
}

func newCtStats(a *app) *cobra.Command {
	o := &ctStatsOptions{}
	var doc strings.Builder
	for _, k := range ct.StatsCounters {
		fmt.Fprintf(&doc, "  %-15s %s\n", k.Name, k.Doc)
	}
	c := &cobra.Command{
		Use:   "stats",
		Short: "Print the kernel's counters, for each processor and together",
		Long: `Prints the counters that the kernel keeps of connection tracking, for each
processor and all together. With --interval it prints again and again, with what
each grew by a second. The kernel's counters wrap at 32 bits.

` + doc.String(),
		Example: `  nfctl ct stats
  nfctl ct stats --interval 1s`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.ctStats(c, o) },
	}
	o.register(c.Flags())
	return c
}

func (o *ctStatsOptions) register(f *pflag.FlagSet) {
	f.SortFlags = false
	durationFlag(f, &o.interval, "interval", "print again after this time, with what the counters grew by a second")
	f.Uint64Var(&o.stream.count, "count", 0, "with --interval, end after `N` times")
	durationFlag(f, &o.stream.duration, "duration", "with --interval, end after this time")
	keepPrivilegesFlag(f, &o.keep)
}

func (a *app) ctStats(c *cobra.Command, o *ctStatsOptions) error {
	return a.stats(c, o, "ct stats", format.FlowStats(), (*ct.Conn).Stats)
}

// stats prints counters, once or again and again.
func (a *app) stats(c *cobra.Command, o *ctStatsOptions, command string, s *format.Subject[format.Stats], read func(*ct.Conn) ([]ct.CPUStats, error)) error {
	if o.interval == 0 && (o.stream.count > 0 || o.stream.duration > 0) {
		return usagef("--count and --duration go with --interval")
	}
	out, err := a.outputOf(command, o.interval > 0)
	if err != nil {
		return err
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	p, k, err := printTo(a, s, out, format.Options{})
	if err != nil {
		return err
	}
	st := o.stream.start(c.Context(), func() {})
	defer st.stop()
	if o.interval > 0 && !o.keep {
		a.lessPrivileges(unix.CAP_NET_ADMIN) // asked for with every request
	}
	var before []ct.CPUStats
	var at time.Time
	for {
		cpus, err := read(conn)
		if err != nil {
			return err
		}
		now := time.Now()
		if st.take() && !a.quiet {
			for _, line := range statLines(cpus, before, now.Sub(at)) {
				k.b = p.Append(k.b, &line)
			}
			k.b = p.Flush(k.b)
			if err := k.flush(); err != nil {
				return err
			}
		}
		before, at = cpus, now
		if o.interval == 0 {
			break
		}
		select {
		case <-st.Done():
		case <-time.After(o.interval):
			continue
		}
		break
	}
	return cmp.Or(finishPrint(p, k), st.result())
}

// statLines makes a line for each processor and one for all, with what they grew
// by a second since before, if there was one.
func statLines(cpus, before []ct.CPUStats, passed time.Duration) (lines []format.Stats) {
	for i, c := range cpus {
		line := format.Stats{CPU: c.CPU, Known: c.Known, Values: make([]uint64, len(c.Values))}
		for j, n := range c.Values {
			line.Values[j] = uint64(n)
		}
		if i < len(before) && before[i].CPU == c.CPU {
			line.Rates = make([]uint64, len(c.Values))
			for j, n := range c.Values { // the difference is right where a counter wrapped, too
				line.Rates[j] = uint64(float64(n-before[i].Values[j])/passed.Seconds() + 0.5)
			}
		}
		lines = append(lines, line)
	}
	total := format.Stats{CPU: -1}
	total.Values, total.Known = ct.Total(cpus)
	for _, l := range lines {
		if l.Rates == nil {
			total.Rates = nil
			break
		}
		if total.Rates == nil {
			total.Rates = make([]uint64, len(l.Rates))
		}
		for j, n := range l.Rates {
			total.Rates[j] += n
		}
	}
	return append(lines, total)
}

// groupFields reads --group-by.
func groupFields(names []string) (by []*field.Row[ct.Flow], err error) {
	for _, name := range names {
		r, err := ct.FlowFields.Find(strings.TrimSpace(name))
		if err != nil {
			return nil, named("--group-by", err)
		}
		if r.Path == "kind" || slices.Contains(by, r) {
			return nil, named("--group-by", &value.Error{What: "field", Text: name, Valid: "fields of flows, each once"})
		}
		by = append(by, r)
	}
	return by, nil
}

// A flowGroup is a group and what tells it from others.
type flowGroup struct {
	key string
	format.Group
}

// A grouper counts the flows of one dump by group.
type grouper struct {
	keep   func(*ct.Flow) bool
	by     []*field.Row[ct.Flow]
	groups map[string]*flowGroup
	key    []byte
}

// Flow implements ct.Worker.
func (w *grouper) Flow(f *ct.Flow) error {
	if w.keep != nil && !w.keep(f) {
		return nil
	}
	w.key = w.key[:0]
	for _, r := range w.by {
		w.key = appendKey(w.key, r, f)
	}
	g := w.groups[string(w.key)]
	if g == nil {
		g = &flowGroup{key: string(w.key)}
		for _, r := range w.by {
			g.Values = append(g.Values, valueOf(r, f))
		}
		w.groups[g.key] = g
	}
	g.Count++
	g.Counted = g.Counted || f.Present&(ct.HasOrigCounters|ct.HasReplyCounters) != 0
	g.Packets += f.OrigCounters.Packets + f.ReplyCounters.Packets
	g.Bytes += f.OrigCounters.Bytes + f.ReplyCounters.Bytes
	return nil
}

// Rest implements ct.Worker.
func (w *grouper) Rest() error { return nil }

func valueOf(r *field.Row[ct.Flow], f *ct.Flow) (v format.GroupValue) {
	switch {
	case r.Num != nil:
		v.Num, v.OK = r.Num(f)
	case r.IP != nil:
		v.Addr, v.OK = r.IP(f)
	case r.Data != nil:
		d, ok := r.Data(f)
		v.Data, v.OK = bytes.Clone(d), ok
	}
	return v
}

// appendKey appends a field's value so that values that differ do so in bytes,
// whatever comes before and behind.
func appendKey(b []byte, r *field.Row[ct.Flow], f *ct.Flow) []byte {
	switch {
	case r.Num != nil:
		if n, ok := r.Num(f); ok {
			return binary.BigEndian.AppendUint64(append(b, 1), n)
		}
	case r.IP != nil:
		if a, ok := r.IP(f); ok {
			d := a.As16()
			return append(append(b, byte(a.BitLen())), d[:]...)
		}
	case r.Data != nil:
		if d, ok := r.Data(f); ok {
			return append(binary.BigEndian.AppendUint32(append(b, 2), uint32(len(d))), d...)
		}
	}
	return append(b, 0)
}

func (a *app) ctGroups(ctx context.Context, o *ctListOptions, out format.Output, choose *chooser[ct.Flow], d ct.DumpOptions) error {
	by, err := groupFields(o.groupBy)
	if err != nil {
		return err
	}
	subject, by := format.Groups(by...)
	if _, err := format.New(subject, out, format.Options{}); err != nil {
		return &usageError{err}
	}
	var workers []*grouper
	res, err := ct.DumpParallel(ctx, d, func() ct.Worker {
		w := &grouper{keep: choose.match, by: by, groups: map[string]*flowGroup{}}
		workers = append(workers, w)
		return w
	})
	if err != nil {
		return err
	}
	a.dumpNote(res)
	all := map[string]*flowGroup{}
	for _, w := range workers {
		for key, g := range w.groups {
			if have := all[key]; have != nil {
				have.Count, have.Packets, have.Bytes = have.Count+g.Count, have.Packets+g.Packets, have.Bytes+g.Bytes
				have.Counted = have.Counted || g.Counted
			} else {
				all[key] = g
			}
		}
	}
	list := make([]*flowGroup, 0, len(all))
	for _, g := range all {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *flowGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.key, b.key))
	})
	groups := len(list)
	if o.top > 0 && uint64(groups) > o.top {
		list = list[:o.top]
	}
	p, k, err := printTo(a, subject, out, format.Options{})
	if err != nil {
		return err
	}
	if a.quiet {
		a.total("%d groups", groups)
		return notFound(o.failEmpty, uint64(groups))
	}
	for _, g := range list {
		k.b = p.Append(k.b, &g.Group)
		if k.full() {
			if err := k.flush(); err != nil {
				return err
			}
		}
	}
	return cmp.Or(finishPrint(p, k), notFound(o.failEmpty, uint64(groups)))
}

// ctGetOptions are the flags of 'nfctl ct get'.
type ctGetOptions struct {
	flow entryOptions
	zero bool
}

func newCtGet(a *app) *cobra.Command {
	o := &ctGetOptions{}
	c := &cobra.Command{
		Use:   "get FLOW",
		Short: "Print the flow with this tuple, of either direction",
		Long: `Asks the kernel for one flow, by its original or its reply tuple. Without a zone
it is looked for in zone 0. A flow that is not there ends with status 3.`,
		Example: `  nfctl ct get 'tcp 10.0.0.1:1000 > 10.0.0.2:22'
  nfctl ct get 'icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513' -o json`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.flow.args(a, args); err != nil {
				return err
			}
			if o.flow.flow == "" && len(o.flow.given) == 0 {
				return usagef("which flow? in words, quoted, as 'tcp 10.0.0.1:1000 > 10.0.0.2:22'; or by flags, as -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1000 --dport 22")
			}
			return a.ctGet(o)
		},
	}
	c.Flags().SortFlags = false
	o.flow.register(c, true)
	c.Flags().BoolVar(&o.zero, "zero", false, "set its counters to zero after reading them")
	return c
}

func (a *app) ctGet(o *ctGetOptions) error {
	f, err := o.flow.read()
	if err != nil {
		return err
	}
	w, out, err := a.flowPrinter("ct get")
	if err != nil {
		return err
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	got := &ct.Flow{}
	if err := conn.Get(f, got, o.zero); err != nil {
		return err
	}
	if slices.Contains(out.Fields, "idle") || strings.Contains(out.Template, ".idle") {
		ct.LoadTimeouts().SetIdle(got)
	}
	return cmp.Or(w.print(got), w.end())
}
