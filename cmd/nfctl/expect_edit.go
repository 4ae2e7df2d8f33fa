package main

import (
	"errors"

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
		Use:   "update ['PATTERN'] --set timeout=DURATION",
		Short: "Change the timeout of expectations",
		Long: "Changes expectations that the pattern and all flags match. The kernel lets nobody change\nanything " +
			"but the timeout.",
		Example: "  nfctl expect update 'tcp > :5000' --set timeout=1m\n  nfctl expect update --helper ftp --set " +
			"timeout=10s",
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
			return a.changeExpects(c, conn, "update", flt, dryRun, failEmpty, func(e *ct.Expect) error {
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
		Example: "  nfctl expect delete 'tcp > 10.0.0.2:5000'\n  nfctl expect delete --id 0x12345678\n  nfctl expect " +
			"delete --master 'tcp 10.0.0.1 > :21'\n  nfctl expect delete --helper ftp",
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
			return a.changeExpects(c, conn, "delete", flt, dryRun, failEmpty, conn.DeleteExpect)
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
func (a *app) changeExpects(c *cobra.Command, conn *ct.Conn, op string, flt *table.Choice[ct.Expect],
	dryRun, failEmpty bool, request func(*ct.Expect) error) error {
	p, k, err := a.expectPrinter()
	if err != nil {
		return err
	}
	did := op + "d"
	if dryRun {
		did = ""
	}
	ctx, stop := a.interruptible(c, "expectation", did)
	defer stop()
	list, err := table.ChosenExpects(ctx, conn, flt)
	if err != nil {
		return ended(ctx, err)
	}
	n := uint64(0)
	bad := &failures{a: a, what: "expectation"}
	for _, e := range list {
		if err = ctx.Err(); err != nil {
			break
		}
		if !dryRun {
			if err := request(e); errors.Is(err, unix.ENOENT) {
				continue
			} else if err != nil {
				bad.add(err)
				continue
			}
			a.edit()
		}
		n++
		if a.quiet {
			continue
		}
		if k.b = p.Append(k.b, e); k.full() {
			if err = cutShort(k.flush()); err != nil {
				break
			}
		}
	}
	err = errors.Join(err, finishPrint(p, k))
	if dryRun {
		did = "would be " + op + "d"
	}
	a.total("%s %s", plural(n, "expectation"), did)
	if err != nil {
		return ended(ctx, err)
	}
	if err := bad.result(); err != nil {
		return err
	}
	return notFound(failEmpty, n)
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
			list, err := table.ChosenExpects(c.Context(), conn, &table.Choice[ct.Expect]{})
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
