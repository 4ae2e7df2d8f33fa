package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// ctListOptions are the flags of 'nfctl ct list'.
type ctListOptions struct {
	format             string // when -o is not said; "": the usual one
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
			return a.ctList(c, o)
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
	a.prints(c, format.FlowFormats, paths(ct.FlowFields))
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
			if a.template == "" {
				o.format = "save"
			}
			return a.ctList(c, o)
		},
	}
	c.Flags().SortFlags = false
	registerFlowFilter(c, &o.filter)
	c.Flags().BoolVar(&o.failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	a.prints(c, format.SaveFormats, paths(ct.FlowFields))
	return c
}

func (a *app) ctList(c *cobra.Command, o *ctListOptions) error {
	out, err := a.outputOr(o.format, false)
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
	d := table.DumpOptions(choose)
	d.Idle = d.Idle || slices.Contains(out.Fields, "idle") || strings.Contains(out.Template, ".idle") || slices.Contains(o.groupBy, "idle")
	switch {
	case o.dying:
		d.Table = ct.Dying
	case o.unconfirmed:
		d.Table = ct.Unconfirmed
	}
	did := ""
	if o.zero {
		did = "set to zero"
	}
	ctx, stop := a.interruptible(c, did)
	defer stop()
	if len(o.groupBy) > 0 {
		return ended(ctx, a.ctGroups(ctx, o, out, choose, d))
	}
	l := &lister{a: a, choose: choose, out: out, silent: a.quiet}
	if err := l.begin(); err != nil {
		return err
	}
	switch {
	case o.zero && choose.Match != nil:
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
	choose *table.Choice[ct.Flow]
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
	w := &listWorker{flowPrinter: flowPrinter{p, &sink{w: l.a.out, mu: &l.mu}}, keep: l.choose.Match, quiet: l.silent}
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
	w.keep = nil
	bad := &failures{a: l.a}
	done, err := table.Zero(ctx, l.choose, d, table.Edit{Done: w.Flow, Failed: bad.add})
	if l.result, err = done.Dump, cutShort(err); err == nil {
		err = bad.result()
	}
	return err
}
