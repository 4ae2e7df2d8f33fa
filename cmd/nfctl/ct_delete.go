package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
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
	if !o.filter.any() && !o.dryRun {
		if err := a.confirm(o.all, "Delete every flow of this network namespace?"); err != nil {
			return err
		}
	}
	w, out, err := a.flowPrinter()
	if err != nil {
		return err
	}
	a.idleNote(choose)
	done := "deleted"
	if o.dryRun {
		done = ""
	}
	ctx, stop := a.interruptible(c, done)
	defer stop()
	if o.dryRun {
		return a.only(ctx, choose, w, "deleted", o.failEmpty)
	}
	if a.quiet && !o.failEmpty {
		done, err := a.kernelFlush(choose)
		if done && err == nil {
			a.total("the kernel deleted what matched")
		}
		if done {
			return err
		}
	}
	if w != nil { // deleteEach writes; this only begins
		if err := w.flush(); err != nil {
			return err
		}
	}
	return ended(ctx, a.deleteEach(ctx, choose, out, o.failEmpty))
}

// kernelFlush has the kernel delete what was chosen, where its filter says all of
// it and a probe showed that this kernel heeds it. It reports whether it did.
func (a *app) kernelFlush(choose *chooser[ct.Flow]) (done bool, err error) {
	family, k, exact := flushFilter(choose)
	if !exact {
		return false, nil
	}
	conn, err := ct.Dial()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if family != 0 || !k.IsZero() {
		if ok, err := ct.CanFlush(family != 0, k); err != nil || !ok {
			return false, nil // by hand, then
		}
	}
	return true, conn.Flush(family, k)
}

// flushFilter returns the filter of a flush that says all that was chosen.
func flushFilter(choose *chooser[ct.Flow]) (family uint8, k ct.KernelFilter, exact bool) {
	if choose.tests > 0 {
		return 0, k, false
	}
	seen := map[string]bool{}
	for _, c := range choose.conds {
		if len(c.Paths) != 1 || c.Set.Not || seen[c.Paths[0]] {
			return 0, k, false
		}
		switch path := c.Paths[0]; path {
		case "mark", "status", "zone", "family":
			if _, single := c.Set.Num(); !single {
				return 0, k, false
			}
			seen[path] = true
		default:
			return 0, k, false
		}
	}
	k, families := ct.FilterFrom(choose.conds)
	if len(families) == 1 {
		family = families[0]
	} else if seen["family"] {
		return 0, k, false
	}
	// What was said must be in the filter, which cannot say zone 0.
	return family, k, k.MarkMask != 0 == seen["mark"] && k.StatusMask != 0 == seen["status"] && k.Zone != 0 == seen["zone"]
}

// deleteEach reads what was chosen and deletes it, flow by flow.
func (a *app) deleteEach(ctx context.Context, choose *chooser[ct.Flow], out format.Output, failEmpty bool) error {
	matched, deleted, err := a.deleteListed(ctx, &lister{a: a, choose: choose, out: out, silent: a.quiet})
	a.total("%s deleted", flows(deleted))
	return cmp.Or(err, notFound(failEmpty, matched))
}

// deleteListed deletes what l would list, and prints it as l would. One dump is
// read for it, not one for each family side by side: the kernel deletes one flow
// at a time anyway, and reading goes on meanwhile.
func (a *app) deleteListed(ctx context.Context, l *lister) (matched, deleted uint64, err error) {
	conn, err := ct.Dial()
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	bad := &failures{a: a}
	w := newDeleter(conn, l.worker(), l.choose, bad)
	l.result, err = ct.Dump(ctx, dumpOptions(l.choose), w.flow)
	err = cmp.Or(err, w.batch.Flush())
	err = cmp.Or(cutShort(cmp.Or(err, w.failed)), l.end())
	a.dumpNote(l.result)
	if err == nil {
		err = bad.result()
	}
	return w.matched, w.deleted, err
}

// A deleter deletes flows and prints those that it deleted.
type deleter struct {
	batch            *ct.Batch
	choose           *chooser[ct.Flow]
	failed           error
	matched, deleted uint64
}

func newDeleter(conn *ct.Conn, print *listWorker, choose *chooser[ct.Flow], bad *failures) *deleter {
	print.keep = nil
	w := &deleter{choose: choose}
	w.batch = conn.NewBatch(batchSize, func(f *ct.Flow, err error) {
		switch {
		case err == nil:
			w.deleted++
			bad.a.changed.Add(1)
			w.failed = cmp.Or(w.failed, print.Flow(f))
		case !gone(err):
			bad.add(err)
		}
	})
	return w
}

func (w *deleter) flow(f *ct.Flow) error {
	if !w.choose.keep(f) {
		return nil
	}
	w.matched++
	return cmp.Or(w.batch.Delete(f), w.failed)
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
	var some []filterFlag[ct.Flow]
	for _, ff := range flowFlags {
		if slices.Contains([]string{"family", "zone", "mark", "status"}, ff.name) {
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
	if o.all && o.filter.any() {
		return usagef("--all deletes everything: it does not go with a filter")
	}
	done := "deleted"
	if o.dryRun {
		done = ""
	}
	ctx, stop := a.interruptible(c, done)
	defer stop()
	if o.dryRun {
		n, err := a.each(ctx, choose, func(*ct.Flow) error { return nil })
		if err == nil {
			a.total("%s would be deleted", flows(n))
		}
		return ended(ctx, err)
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if !o.filter.any() {
		n, _, err := conn.Count()
		if err != nil {
			return err
		}
		if err := a.confirm(o.all, fmt.Sprintf("Delete all of %s of this network namespace?", flows(uint64(n)))); err != nil {
			return err
		}
		if err := conn.Flush(0, ct.KernelFilter{}); err != nil {
			return err
		}
		a.total("flushed, of %s", flows(uint64(n)))
		return nil
	}
	if done, err := a.kernelFlush(choose); done || err != nil {
		if err == nil {
			a.total("flushed what matched")
		}
		return err
	}
	if a.verbose > 0 {
		a.warn("this kernel is not known to heed the filter of a flush: deleting one by one")
	}
	a.quiet = true
	return ended(ctx, a.deleteEach(ctx, choose, format.Output{Format: format.Text}, false))
}
