package main

import (
	"slices"
	"strings"
	"time"

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
	sort               string
	limit              uint64
	interval           time.Duration
	stream             streamFlags
}

func newCtList(a *app) *cobra.Command {
	o := &ctListOptions{}
	c := &cobra.Command{
		Use: "list [FLOW]", Aliases: []string{"ls", "show"},
		Short: "List flows",
		Long: `Lists the flows of the connection tracking table, all or those that a flow in
words, flags and expressions choose. The order is the kernel's, or --sort's: what
lacks the field comes last, and flows that are alike in it are in the order of their
addresses. With --limit only the first are kept in memory; without it, all.

The kernel is asked to leave out what it can; what it sends is checked again, so
that the result does not depend on the kernel's version.

--group-by counts flows, packets and bytes for each combination of some fields;
packets and bytes are those of both directions, of flows that have counters
(net.netfilter.nf_conntrack_acct=1). An address may be cut to its network:
orig.src/24 for IPv4, orig.src/64 for IPv6, orig.src/24/64 for both. --sort then takes
those fields, count, packets and bytes.

With --interval the table is listed again and again, and each flow and group has what
it grew by a second since the listing before, as rate.packets and rate.bytes, and the
time of the listing. The first listing is only remembered. What a flow carried between
the last listing and its end is in none.`,
		Example: `  nfctl ct list 'tcp > :443'
  nfctl ct list -p udp --status UNREPLIED -o json
  nfctl ct list --src-nat 192.0.2.1:5000
  nfctl ct list --filter 'orig.bytes > "1MiB" and age < 60'
  nfctl ct list --sort bytes:desc --limit 20
  nfctl ct list --interval 2s --sort rate.bytes:desc --limit 20
  nfctl ct list --group-by orig.src,orig.dport --top 20
  nfctl ct list --group-by orig.src/24 --sort bytes:desc --limit 10`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.ctList(c, o, args, "")
		},
	}
	f := c.Flags()
	flowKind.register(c, &o.choosing)
	f.StringVar(&o.sort, "sort", "", "list in the order of these `fields`: bytes:desc,orig.src")
	f.Uint64Var(&o.limit, "limit", 0, "list only the first `N`")
	f.StringSliceVar(&o.groupBy, "group-by", nil, "count flows by these `fields`: orig.src/24,orig.dport")
	f.Uint64Var(&o.top, "top", 0, "with --group-by, only the first `N` groups: without --sort those\n"+
		"with the most flows")
	durationFlag(f, &o.interval, "interval", "list again and again, each time after this time, with rates")
	o.stream.repeats(f)
	f.BoolVar(&o.zero, "zero", false, "set the counters of what is listed to zero")
	f.BoolVar(&o.dying, "dying", false, "list flows that ended but are still held")
	f.BoolVar(&o.unconfirmed, "unconfirmed", false,
		"list flows that are not yet in the table; always empty since Linux 5.19 or so")
	o.registerFailEmpty(c)
	a.resolveFlag(c)
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
  nfctl ct save --zone 11 --zone-map 11:12 | nfctl ct load -`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := toStandardOutput(c, args); err != nil {
				return err
			}
			return a.ctList(c, o, args, a.saving())
		},
	}
	flowKind.register(c, &o.choosing)
	zoneMapFlag(c, &o.zoneMap)
	o.registerFailEmpty(c)
	a.prints(c, format.SaveFormats, paths(ct.FlowFields))
	return c
}

// toStandardOutput refuses the name of a file for a command that saves.
func toStandardOutput(c *cobra.Command, args []string) error {
	for _, arg := range args {
		if !strings.Contains(arg, ">") {
			return usagef("unexpected argument %q: it writes to standard output: nfctl %s >%s", arg, commandName(c),
				arg)
		}
	}
	return nil
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
	d.Idle = d.Idle || a.wants("idle") || o.wants("idle")
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
	if o.interval > 0 {
		return a.ctRates(c, o, out, choose, d)
	}
	ctx, stop := a.interruptible(c, "flow", did)
	defer stop()
	if c.Flags().Changed("group-by") {
		return ended(ctx, a.ctGroups(ctx, o, out, choose, d))
	}
	if !o.elsewhere {
		if err := flowKind.learn(ctx, a, choose); err != nil {
			return ended(ctx, err)
		}
	}
	how := table.Listing{Dump: d, Zero: o.zero}
	how.InOrder = out.Format == format.Table // its columns are aligned over all flows
	if o.sort != "" || o.limit > 0 {
		return ended(ctx, a.ctSorted(ctx, o, out, choose, how))
	}
	return flowKind.list(ctx, a, out, &o.choosing,
		func(reader func() func(*ct.Flow) error, failed func(error)) (uint64, ct.DumpResult, error) {
			how.Reader, how.Failed = reader, failed
			if reader != nil && len(o.zoneMap) > 0 {
				how.Reader = func() func(*ct.Flow) error {
					print := reader()
					return func(f *ct.Flow) error {
						o.zoneMap.Flow(f)
						return print(f)
					}
				}
			}
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

// wants reports whether flows are sorted or grouped by a field.
func (o *ctListOptions) wants(field string) bool {
	return slices.ContainsFunc(append(strings.Split(o.sort, ","), o.groupBy...), func(text string) bool {
		name, _, _ := strings.Cut(text, ":")
		return strings.TrimSpace(name) == field
	})
}

func (o *ctListOptions) check() error {
	if err := o.stream.repeated(o.interval); err != nil {
		return err
	}
	switch {
	case o.interval > 0 && (o.zero || o.dying || o.unconfirmed):
		return usagef("--interval does not go with --zero, --dying and --unconfirmed")
	case o.dying && o.unconfirmed:
		return usagef("--dying and --unconfirmed are two lists: one at a time")
	case o.zero && (o.dying || o.unconfirmed):
		return usagef("--zero goes with the table, not with --dying or --unconfirmed")
	case o.zero && len(o.groupBy) > 0:
		return usagef("--zero does not go with --group-by")
	case o.zero && o.limit > 0:
		return usagef("--zero does not go with --limit")
	case o.top > 0 && o.limit > 0:
		return usagef("--top and --limit say the same of groups: one of them")
	case o.top > 0 && len(o.groupBy) == 0:
		return usagef("--top goes with --group-by")
	}
	return nil
}

// zoneMapFlag adds --zone-map to a command that saves or loads.
func zoneMapFlag(c *cobra.Command, zones *table.ZoneMap) {
	c.Flags().Var(&ordered{kind: "zones", add: func(text string) (err error) {
		*zones, err = table.ParseZoneMap(text)
		return err
	}}, "zone-map", "put what is in one zone into another: 11:12 or 11:12,0:5; what is in other zones stays there")
}
