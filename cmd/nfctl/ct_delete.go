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

func newCtDelete(a *app) *cobra.Command {
	o := &choosing{}
	c := &cobra.Command{
		Use:   "delete [FLOW]",
		Short: "Delete flows",
		Long: `Deletes the flows that words, flags and expressions choose, and prints each. A
flow is deleted only if it is still the one that was read: its id is part of the
request.

With -q, where family, mark, status and zone say it all, the kernel deletes by
itself, if a try in a network namespace of nfctl's own shows that this kernel
honours them; it does not tell how many flows it deleted.`,
		Example: `  nfctl ct delete 'tcp 10.0.0.1 > :22'
  nfctl ct delete -p udp --status UNREPLIED --dry-run
  nfctl ct delete --filter 'idle > 3600' --dry-run   # see 'nfctl help timeouts'`,
		RunE: func(c *cobra.Command, args []string) error {
			choose, err := flowKind.chosen(o, args)
			if err != nil {
				return err
			}
			return a.ctDelete(c, choose, o)
		},
	}
	f := c.Flags()
	flowKind.register(c, o)
	f.BoolVar(&o.all, "all", false, "without a filter: delete everything without asking")
	f.BoolVar(&o.dryRun, "dry-run", false, "only print what would be deleted")
	o.registerFailEmpty(c)
	a.prints(c, format.FlowFormats, paths(ct.FlowFields))
	return c
}

func (a *app) ctDelete(c *cobra.Command, choose *table.Choice[ct.Flow], o *choosing) error {
	if !o.filter.Any() && !o.dryRun {
		if err := a.confirm(o.all, "Delete every flow of this network namespace?"); err != nil {
			return err
		}
	}
	remove := table.Delete
	if a.quiet && !o.failEmpty { // nobody asks how many, or which
		remove = table.FlushOrDelete
	}
	return flowKind.change(a, c, choose, o, "deleted",
		func(ctx context.Context, how table.Edit[ct.Flow]) (table.Edited, error) {
			return remove(ctx, choose, how)
		})
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
delete everything (Linux 6.1 ignores the zone): whether this one honours it is tried
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
	f.BoolVar(&o.all, "all", false, "delete everything without asking")
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
	choose, err := table.Flows(&o.filter.Filter)
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
		a.warn("this kernel is not known to honour the filter of a flush: deleting one by one")
	}
	return ended(ctx, flowKind.edit(a, nil, "deleted", false, func(how table.Edit[ct.Flow]) (table.Edited, error) {
		return table.Delete(ctx, choose, how)
	}))
}
