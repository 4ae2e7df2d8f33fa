package main

import (
	"slices"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// ctListOptions are the flags of 'nfctl ct list'.
type ctListOptions struct {
	choosing
	dying, unconfirmed bool
	zero               bool
	groupBy            []string
	top                uint64
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
			return a.ctList(c, o, args, "")
		},
	}
	f := c.Flags()
	flowKind.register(c, &o.choosing)
	f.StringSliceVar(&o.groupBy, "group-by", nil, "count flows by these `fields`: orig.src,orig.dport")
	f.Uint64Var(&o.top, "top", 0, "with --group-by, only the `N` groups with the most flows")
	f.BoolVar(&o.zero, "zero", false, "set the counters of what is listed to zero")
	f.BoolVar(&o.dying, "dying", false, "list flows that ended but are still held")
	f.BoolVar(&o.unconfirmed, "unconfirmed", false,
		"list flows that are not yet in the table; always empty since Linux 5.19 or so")
	o.registerFailEmpty(c)
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
			return a.ctList(c, o, args, a.saving())
		},
	}
	flowKind.register(c, &o.choosing)
	o.registerFailEmpty(c)
	a.prints(c, format.SaveFormats, paths(ct.FlowFields))
	return c
}

// ctList lists flows; form is the format when -o is not said.
func (a *app) ctList(c *cobra.Command, o *ctListOptions, args []string, form string) error {
	if err := o.filter.args(args); err != nil {
		return err
	}
	out, err := a.outputOr(form, false)
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	choose, err := table.Flows(&o.filter.Filter)
	if err != nil {
		return err
	}
	d := table.DumpOptions(choose)
	d.Idle = d.Idle || a.wants("idle") ||
		slices.Contains(o.groupBy, "idle")
	switch {
	case o.dying:
		d.Table = ct.Dying
	case o.unconfirmed:
		d.Table = ct.Unconfirmed
	}
	o.elsewhere = o.dying || o.unconfirmed
	did := ""
	if o.zero {
		did = "set to zero"
	}
	ctx, stop := a.interruptible(c, "flow", did)
	defer stop()
	if c.Flags().Changed("group-by") {
		return ended(ctx, a.ctGroups(ctx, o, out, choose, d))
	}
	how := table.Listing{Dump: d, Zero: o.zero}
	how.InOrder = out.Format == format.Table // its columns are aligned over all flows
	return flowKind.list(ctx, a, out, &o.choosing,
		func(reader func() func(*ct.Flow) error, failed func(error)) (uint64, ct.DumpResult, error) {
			how.Reader, how.Failed = reader, failed
			n, res, err := table.List(ctx, choose, how)
			if o.zero {
				err = cutShort(err)
			}
			if err == nil && n == 0 && o.unconfirmed {
				a.hint("the kernel keeps no list of unconfirmed flows since Linux 5.19 or so")
			}
			return n, res, err
		})
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
