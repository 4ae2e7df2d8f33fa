package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// ctDeleteOptions are the flags of 'nfctl ct delete'.
type ctDeleteOptions struct {
	filter            filterOptions
	all               bool
	dryRun, failEmpty bool
}

func newCtDelete(a *app) *cobra.Command {
	o := &ctDeleteOptions{}
	c := &cobra.Command{
		Use:   "delete [FLOW]",
		Short: "Delete flows",
		Long: `Deletes the flows that words, flags and expressions choose, and prints each. A
flow is deleted only if it is still the one that was read: its id is part of the
request.

With -q, where family, mark, status and zone say it all, the kernel deletes by
itself, if a try in a network namespace of nfctl's own shows that this kernel
heeds them; it does not tell how many flows it deleted.`,
		Example: `  nfctl ct delete 'tcp 10.0.0.1 > :22'
  nfctl ct delete -p udp --status UNREPLIED --dry-run
  nfctl ct delete --filter 'idle > 3600' --dry-run   # see 'nfctl help timeouts'`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.filter.args(args); err != nil {
				return err
			}
			return a.ctDelete(c, o)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	registerFlowFilter(c, &o.filter)
	f.BoolVar(&o.all, "all", false, "without a filter: delete everything, unasked")
	f.BoolVar(&o.dryRun, "dry-run", false, "only print what would be deleted")
	f.BoolVar(&o.failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	a.prints(c, format.FlowFormats, paths(ct.FlowFields))
	return c
}

func (a *app) ctDelete(c *cobra.Command, o *ctDeleteOptions) error {
	choose, err := flowFilter(&o.filter)
	if err != nil {
		return err
	}
	if !o.filter.Any() && !o.dryRun {
		if err := a.confirm(o.all, "Delete every flow of this network namespace?"); err != nil {
			return err
		}
	}
	w, _, err := a.flowPrinter(a.quiet)
	if err != nil {
		return err
	}
	a.idleNote(choose)
	did := "deleted"
	if o.dryRun {
		did = ""
	}
	ctx, stop := a.interruptible(c, "flow", did)
	defer stop()
	if o.dryRun {
		return a.only(ctx, choose, w, "deleted", o.failEmpty)
	}
	if a.quiet && !o.failEmpty {
		done, err := table.Flush(choose)
		if done && err == nil {
			a.total("the kernel deleted what matched")
		}
		if done {
			return err
		}
	}
	return ended(ctx, a.deleteEach(ctx, choose, w, o.failEmpty))
}

// deleteEach reads what was chosen and deletes it, flow by flow; w prints what was
// deleted.
func (a *app) deleteEach(ctx context.Context, choose *table.Choice[ct.Flow], w *flowPrinter, failEmpty bool) error {
	bad := &failures{a: a}
	done, err := table.Delete(ctx, choose, table.Edit{Edited: a.edit, Done: w.print, Failed: bad.add})
	a.dumpNote(done.Dump)
	err = a.edited(err, w, bad)
	a.total("%s deleted", flows(done.Done))
	if err != nil {
		return err
	}
	return notFound(failEmpty, done.Matched)
}

// ctFlushOptions are the flags of 'nfctl ct flush'.
type ctFlushOptions struct {
	filter      filterOptions
	all, dryRun bool
}

func newCtFlush(a *app) *cobra.Command {
	o := &ctFlushOptions{}
	c := &cobra.Command{
		Use:   "flush --all | --family F | --zone N | --mark V[/M] | --status S",
		Short: "Delete all flows, or those of a family, zone, mark or status, by one request",
		Long: `Deletes all flows of the network namespace, or those of a family, a zone, a mark
or a status, by one request to the kernel. Kernels that ignore such a filter would
delete everything (Linux 6.1 ignores the zone): whether this one heeds it is tried
first, in a network namespace of nfctl's own, and where it does not, or where that
cannot be tried, the flows are read and deleted one by one.`,
		Example: `  nfctl ct flush --all
  nfctl ct flush --family ipv6
  nfctl ct flush --zone 11`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.ctFlush(c, o) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.BoolVar(&o.all, "all", false, "delete everything, unasked")
	var some []ct.Flag
	for _, ff := range ct.FlowFlags {
		if slices.Contains([]string{"family", "zone", "mark", "status"}, ff.Name) {
			some = append(some, ff)
		}
	}
	registerFlags(c, some, &o.filter)
	f.BoolVar(&o.dryRun, "dry-run", false, "only say how many flows would be deleted")
	return c
}

func (a *app) ctFlush(c *cobra.Command, o *ctFlushOptions) error {
	choose, err := flowFilter(&o.filter)
	if err != nil {
		return err
	}
	if o.all && o.filter.Any() {
		return usagef("--all deletes everything: it does not go with a filter")
	}
	did := "deleted"
	if o.dryRun {
		did = ""
	}
	ctx, stop := a.interruptible(c, "flow", did)
	defer stop()
	if o.dryRun {
		got, err := table.Each(ctx, choose, func(*ct.Flow) error { return nil })
		a.dumpNote(got.Dump)
		if err == nil {
			a.total("%s would be deleted", flows(got.Matched))
		}
		return ended(ctx, err)
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if !o.filter.Any() {
		n, _, err := conn.Count()
		if err != nil {
			return err
		}
		if err := a.confirm(o.all, fmt.Sprintf("Delete all of %s of this network namespace?",
			flows(uint64(n)))); err != nil {
			return err
		}
		if err := conn.Flush(0, ct.KernelFilter{}); err != nil {
			return err
		}
		a.total("flushed, of %s", flows(uint64(n)))
		return nil
	}
	if done, err := table.Flush(choose); done || err != nil {
		if err == nil {
			a.total("flushed what matched")
		}
		return err
	}
	if a.verbose > 0 {
		a.warn("this kernel is not known to heed the filter of a flush: deleting one by one")
	}
	return ended(ctx, a.deleteEach(ctx, choose, nil, false))
}
