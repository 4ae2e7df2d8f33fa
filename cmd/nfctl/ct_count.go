package main

import (
	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// ctCountOptions are the flags of 'nfctl ct count'.
type ctCountOptions struct {
	filter    filterOptions
	failEmpty bool
}

func newCtCount(a *app) *cobra.Command {
	o := &ctCountOptions{}
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
			if err := o.filter.args(args); err != nil {
				return err
			}
			return a.ctCount(c, o)
		},
	}
	c.Flags().SortFlags = false
	registerFlowFilter(c, &o.filter)
	c.Flags().BoolVar(&o.failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	a.prints(c, format.Generic, paths(format.Counts.Fields), paths(ct.FlowFields))
	return c
}

func (a *app) ctCount(c *cobra.Command, o *ctCountOptions) error {
	if _, err := a.outputOf(false); err != nil {
		return err
	}
	choose, err := flowFilter(&o.filter)
	if err != nil {
		return err
	}
	count := format.Count{Of: "flows"}
	if choose.Match == nil {
		conn, err := ct.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		n, most, err := conn.Count()
		if err != nil {
			return err
		}
		count.Count, count.Max = uint64(n), uint64(most)
	} else {
		ctx, stop := a.interruptible(c, "flow", "")
		defer stop()
		n, res, err := table.List(ctx, choose, table.Listing{Dump: table.DumpOptions(choose)})
		if err != nil {
			return ended(ctx, err)
		}
		a.dumpNote(res)
		count.Count = n
	}
	if err := printAll(a, format.Counts, count); err != nil {
		return err
	}
	return notFound(o.failEmpty, count.Count)
}
