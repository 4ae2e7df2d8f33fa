package main

import (
	"context"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

func newCtUpdate(a *app) *cobra.Command {
	o := &choosing{}
	var sets, labelAdd, labelDel []string
	c := &cobra.Command{
		Use:   "update [FLOW] --set NAME=VALUE",
		Short: "Change flows",
		Long: `Changes the flows that words, flags and expressions choose, and prints them as
they then are. What changes is said by --set, --label-add and --label-del alone;
every other flag chooses. 'nfctl attr list' tells what can be changed.

Under a mask, --set mark=V/M changes only the mark's bits in M. A helper can only
be removed, by an empty name: '--set helper=', and Linux 7.3 removes none`,
		Example: `  nfctl ct update 'tcp > :22' --set mark=7
  nfctl ct update --mark 7 --set mark=0 --set timeout=1h
  nfctl ct update --src 10.0.0.0/8 --label-add internal --label-del 3`,
		RunE: func(c *cobra.Command, args []string) error {
			choose, err := flowKind.chosen(o, args)
			if err != nil {
				return err
			}
			ch, err := table.NewChange(sets, labelAdd, labelDel)
			if err != nil {
				return err
			}
			if err := ch.Check(); err != nil {
				return err
			}
			return flowKind.change(a, c, choose, o, "updated",
				func(ctx context.Context, how table.Edit[ct.Flow]) (table.Edited, error) {
					return table.Update(ctx, choose, ch, how)
				})
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringArrayVar(&sets, "set", nil, "change an attribute: `NAME=VALUE`")
	f.StringArrayVar(&labelAdd, "label-add", nil, "add these `labels`")
	f.StringArrayVar(&labelDel, "label-del", nil, "take these `labels` away, or 'all'")
	flowKind.register(c, o)
	f.BoolVar(&o.dryRun, "dry-run", false, "only print what would be changed, as it is")
	o.registerFailEmpty(c)
	a.prints(c, format.FlowFormats, paths(ct.FlowFields))
	return c
}
