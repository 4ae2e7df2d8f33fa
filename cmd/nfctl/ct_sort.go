package main

import (
	"context"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/nl"
	"nfctl/internal/table"
)

// ctSorted lists flows in the order of --sort, the first of --limit.
func (a *app) ctSorted(ctx context.Context, o *ctListOptions, out format.Output, choose *table.Choice[ct.Flow],
	how table.Listing) error {
	var order *table.Order[ct.Flow]
	if o.sort != "" {
		var err error
		if order, err = table.FlowOrder(o.sort); err != nil {
			return err
		}
	}
	return flowKind.list(ctx, a, out, &o.choosing,
		func(reader func() func(*ct.Flow) error, failed func(error)) (uint64, ct.DumpResult, error) {
			how.Failed = failed
			print := func(*ct.Flow) error { return nil }
			if reader != nil {
				print = reader()
			}
			if order == nil {
				return listFirst(ctx, choose, how, o.limit, print)
			}
			how.InOrder = false
			var keepers []*table.Keeper[ct.Flow]
			how.Reader = func() func(*ct.Flow) error {
				k := table.NewFlowKeeper(order, o.limit)
				keepers = append(keepers, k)
				return k.Add
			}
			_, res, err := table.List(ctx, choose, how)
			if o.zero {
				err = cutShort(err)
			}
			sorted := table.Sorted(keepers...)
			for i := 0; i < len(sorted) && err == nil; i++ {
				err = print(sorted[i])
			}
			return uint64(len(sorted)), res, err
		})
}

// listFirst lists the first flows of the kernel's order.
func listFirst(ctx context.Context, choose *table.Choice[ct.Flow], how table.Listing, limit uint64,
	print func(*ct.Flow) error) (n uint64, res ct.DumpResult, err error) {
	how.InOrder = true
	how.Reader = func() func(*ct.Flow) error {
		return func(f *ct.Flow) error {
			if err := print(f); err != nil {
				return err
			}
			if n++; n == limit {
				return nl.ErrStop
			}
			return nil
		}
	}
	_, res, err = table.List(ctx, choose, how)
	return n, res, err
}
