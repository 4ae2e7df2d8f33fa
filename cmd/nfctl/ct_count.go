package main

import (
	"context"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

func newCtCount(a *app) *cobra.Command {
	o := &choosing{}
	c := &cobra.Command{
		Use:   "count [FLOW]",
		Short: "Count flows; say how many there may be",
		Long: `Counts the flows of the table, and says how many there may be
(net.netfilter.nf_conntrack_max) and how full it is. With a filter it counts the
flows that match.`,
		Example: `  nfctl ct count
  nfctl ct count -o json
  nfctl ct count --status UNREPLIED`,
		RunE: func(c *cobra.Command, args []string) error {
			choose, err := flowKind.chosen(o, args)
			if err != nil {
				return err
			}
			return flowKind.count(a, c,
				o.failEmpty, func(ctx context.Context) (n, most uint64, res ct.DumpResult, err error) {
					if choose.Match == nil {
						n, most, err = table.Count()
					} else {
						n, res, err = table.List(ctx, choose, table.Listing{Dump: table.DumpOptions(choose)})
					}
					return n, most, res, err
				})
		},
	}
	flowKind.register(c, o)
	o.registerFailEmpty(c)
	a.prints(c, format.Generic, paths(format.Counts.Fields), paths(ct.FlowFields))
	return c
}
