package main

import (
	"context"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

func newExpectUpdate(a *app) *cobra.Command {
	o := &choosing{}
	var sets []string
	c := &cobra.Command{
		Use:   "update [FLOW] --set timeout=DURATION",
		Short: "Change the timeout of expectations",
		Long: "Changes expectations that the pattern and all flags match. The kernel lets nobody change\nanything " +
			"but the timeout.",
		Example: "  nfctl expect update 'tcp > :5000' --set timeout=1m\n  nfctl expect update --helper ftp --set " +
			"timeout=10s",
		RunE: func(c *cobra.Command, args []string) error {
			choose, err := expectKind.chosen(o, args)
			if err != nil {
				return err
			}
			timeout, err := table.ExpectTimeout(sets)
			if err != nil {
				return err
			}
			return expectKind.change(a, c, choose, o, "updated",
				func(ctx context.Context, how table.Edit[ct.Expect]) (table.Edited, error) {
					return table.UpdateExpects(ctx, choose, timeout, how)
				})
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringArrayVar(&sets, "set", nil, "what to change: `timeout=30s`")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be changed, and change nothing")
	o.registerFailEmpty(c)
	expectKind.register(c, o)
	a.prints(c, format.ExpectFormats, paths(ct.ExpectFields))
	return c
}

func newExpectDelete(a *app) *cobra.Command {
	o := &choosing{}
	c := &cobra.Command{
		Use:     "delete [FLOW]",
		Aliases: []string{"del"},
		Short:   "Delete expectations",
		Long:    "Deletes expectations that the pattern and all flags match, and prints each.",
		Example: "  nfctl expect delete 'tcp > 10.0.0.2:5000'\n  nfctl expect delete --id 0x12345678\n  nfctl expect " +
			"delete --master 'tcp 10.0.0.1 > :21'\n  nfctl expect delete --helper ftp",
		RunE: func(c *cobra.Command, args []string) error {
			choose, err := expectKind.chosen(o, args)
			if err != nil {
				return err
			}
			if !o.filter.Any() && !o.dryRun {
				if err := a.confirm(o.all, "Delete all expectations of this network namespace?"); err != nil {
					return err
				}
			}
			return expectKind.change(a, c, choose, o, "deleted",
				func(ctx context.Context, how table.Edit[ct.Expect]) (table.Edited, error) {
					return table.DeleteExpects(ctx, choose, how)
				})
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.BoolVar(&o.all, "all", false, "delete all without asking, when nothing else is given")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be deleted, and delete nothing")
	o.registerFailEmpty(c)
	expectKind.register(c, o)
	a.prints(c, format.ExpectFormats, paths(ct.ExpectFields))
	return c
}

func newExpectFlush(a *app) *cobra.Command {
	var all, dryRun bool
	c := &cobra.Command{
		Use:     "flush",
		Short:   "Delete all expectations",
		Example: "  nfctl expect flush --all",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			everything := &table.Choice[ct.Expect]{}
			there, err := table.EachExpect(c.Context(), everything, func(*ct.Expect) error { return nil })
			if err != nil {
				return err
			}
			if dryRun {
				a.total("%s would be deleted", plural(there.Matched, "expectation"))
				return nil
			}
			if err := a.confirm(all, "Delete all expectations of this network namespace?"); err != nil {
				return err
			}
			if err := table.FlushExpects(); err != nil {
				return err
			}
			a.total("%s deleted", plural(there.Matched, "expectation"))
			return nil
		},
	}
	f := c.Flags()
	f.BoolVar(&all, "all", false, "do it without asking")
	f.BoolVar(&dryRun, "dry-run", false, "say how many there are, and delete nothing")
	return c
}
