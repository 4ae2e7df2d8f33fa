package main

import (
	"context"
	"errors"
	"net/netip"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

func newExpectUpdate(a *app) *cobra.Command {
	fo := &filterOptions{}
	var sets []string
	var dryRun, failEmpty bool
	c := &cobra.Command{
		Use:     "update ['PATTERN'] --set timeout=DURATION",
		Short:   "Change the timeout of expectations",
		Long:    "Changes expectations that the pattern and all flags match. The kernel lets nobody change\nanything but the timeout.",
		Example: "  nfctl expect update 'tcp > :5000' --set timeout=1m\n  nfctl expect update --helper ftp --set timeout=10s",
		RunE: func(c *cobra.Command, args []string) error {
			flt, err := expectFilter(fo, args)
			if err != nil {
				return err
			}
			var change ct.Expect
			if len(sets) == 0 {
				return usagef("--set timeout=DURATION is missing: what to change")
			}
			if err := table.OnceEach(ct.ExpectAttrs(), sets); err != nil {
				return err
			}
			for _, s := range sets {
				if err := ct.Set(ct.ExpectAttrs(), &change, s, true); err != nil {
					return named("--set", err)
				}
			}
			conn, err := ct.Dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			return a.changeExpects(c.Context(), conn, "update", fo, flt, dryRun, failEmpty, func(e *ct.Expect) error {
				if err := conn.UpdateExpect(e, change.Timeout); err != nil {
					return err
				}
				e.Timeout = change.Timeout
				return nil
			})
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringArrayVar(&sets, "set", nil, "what to change: `timeout=30s`")
	f.BoolVar(&dryRun, "dry-run", false, "print what would be changed, and change nothing")
	f.BoolVar(&failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	registerExpectFilter(c, fo)
	a.prints(c, format.ExpectFormats, paths(ct.ExpectFields))
	return c
}

func newExpectDelete(a *app) *cobra.Command {
	fo := &filterOptions{}
	var all, dryRun, failEmpty bool
	c := &cobra.Command{
		Use:     "delete ['PATTERN']",
		Aliases: []string{"del"},
		Short:   "Delete expectations",
		Long:    "Deletes expectations that the pattern and all flags match, and prints each.",
		Example: "  nfctl expect delete 'tcp > 10.0.0.2:5000'\n  nfctl expect delete --id 0x12345678\n  nfctl expect delete --master 'tcp 10.0.0.1 > :21'\n  nfctl expect delete --helper ftp",
		RunE: func(c *cobra.Command, args []string) error {
			flt, err := expectFilter(fo, args)
			if err != nil {
				return err
			}
			if !fo.Any() && !dryRun {
				if err := a.confirm(all, "Delete all expectations of this network namespace?"); err != nil {
					return err
				}
			}
			conn, err := ct.Dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			return a.changeExpects(c.Context(), conn, "delete", fo, flt, dryRun, failEmpty, conn.DeleteExpect)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.BoolVar(&all, "all", false, "delete all without asking, when nothing else is given")
	f.BoolVar(&dryRun, "dry-run", false, "print what would be deleted, and delete nothing")
	f.BoolVar(&failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	registerExpectFilter(c, fo)
	a.prints(c, format.ExpectFormats, paths(ct.ExpectFields))
	return c
}

// changeExpects makes one request about each chosen expectation and prints those
// that were there. One that is gone meanwhile was not chosen.
func (a *app) changeExpects(ctx context.Context, conn *ct.Conn, op string, fo *filterOptions, flt *table.Choice[ct.Expect], dryRun, failEmpty bool, request func(*ct.Expect) error) error {
	p, k, err := a.expectPrinter()
	if err != nil {
		return err
	}
	list, err := table.ChosenExpects(ctx, conn, &fo.Filter, flt)
	if err != nil {
		return err
	}
	n := 0
	var failed error
	for _, e := range list {
		if !dryRun {
			if err := inZones(conn, e, request); errors.Is(err, unix.ENOENT) {
				continue
			} else if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		n++
		if !a.quiet {
			k.b = p.Append(k.b, e)
		}
	}
	if err := errors.Join(failed, finishPrint(p, k)); err != nil {
		return err
	}
	done := op + "d"
	if dryRun {
		done = "would be " + done
	}
	a.total("%s %s", plural(uint64(n), "expectation"), done)
	return notFound(failEmpty, uint64(n))
}

// inZones makes a request about an expectation as it was read: in zone 0 and, when
// it is not there, in the zones in which its master is. The kernel does not say an
// expectation's zone.
func inZones(conn *ct.Conn, e *ct.Expect, request func(*ct.Expect) error) error {
	err := request(e)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	zones := map[uint16]bool{0: true}
	masters, derr := ct.Dial()
	if derr != nil {
		return errors.Join(err, derr)
	}
	defer masters.Close()
	_, derr = ct.Dump(context.Background(), ct.DumpOptions{Filter: masterOnly(e)}, func(f *ct.Flow) error {
		if sameEnds(&f.Orig, &e.Master) {
			zones[f.Zone] = true
		}
		return nil
	})
	if derr != nil {
		return derr
	}
	delete(zones, 0)
	for z := range zones {
		e.Zone, e.Present = z, e.Present|ct.ExpectHasZone
		if err = request(e); !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return err
}

// masterOnly asks the kernel for flows with the tuple of e's master. It compares
// IPv6 addresses wrongly, so that those are left to us.
func masterOnly(e *ct.Expect) ct.KernelFilter {
	t := e.Master
	if !t.Src.Is4() {
		t.Src, t.Dst = netip.Addr{}, netip.Addr{}
	}
	return ct.KernelFilter{Orig: t}
}

func sameEnds(a, b *ct.Tuple) bool {
	return a.Proto == b.Proto && a.Src == b.Src && a.Dst == b.Dst && a.Sport == b.Sport && a.Dport == b.Dport
}

func newExpectFlush(a *app) *cobra.Command {
	var all, dryRun bool
	c := &cobra.Command{
		Use:     "flush",
		Short:   "Delete all expectations",
		Example: "  nfctl expect flush --all",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			conn, err := ct.Dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			list, err := table.ChosenExpects(c.Context(), conn, &table.Filter{}, &table.Choice[ct.Expect]{})
			if err != nil {
				return err
			}
			if dryRun {
				a.total("%s would be deleted", plural(uint64(len(list)), "expectation"))
				return nil
			}
			if err := a.confirm(all, "Delete all expectations of this network namespace?"); err != nil {
				return err
			}
			if err := conn.FlushExpects(); err != nil {
				return err
			}
			a.total("%s deleted", plural(uint64(len(list)), "expectation"))
			return nil
		},
	}
	f := c.Flags()
	f.BoolVar(&all, "all", false, "do it without asking")
	f.BoolVar(&dryRun, "dry-run", false, "say how many there are, and delete nothing")
	return c
}
