package main

import (
	"context"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

func newExpectList(a *app) *cobra.Command {
	o := &choosing{}
	c := &cobra.Command{
		Use: "list [FLOW]", Aliases: []string{"ls", "show"},
		Short: "List expectations",
		Long: `Lists the expectations of all zones. A pattern, --src, --dst, --sport and --dport are
about the connection expected, as it is stored: what may be anything is 0 there.
--master and --orig-… are about the connection that expects it.`,
		Example: "  nfctl expect list\n  nfctl expect list --master 'tcp > :21' -o json\n  nfctl expect list 'tcp > " +
			":5000-6000'",
		RunE: func(c *cobra.Command, args []string) error { return a.expectList(c, o, args, "") },
	}
	expectKind.register(c, o)
	o.registerFailEmpty(c)
	a.resolveFlag(c)
	a.prints(c, format.ExpectFormats, paths(ct.ExpectFields))
	return c
}

// newExpectSave is 'expect list -o save' under the name that goes with 'expect load'.
func newExpectSave(a *app) *cobra.Command {
	o := &choosing{}
	c := &cobra.Command{
		Use:   "save [FLOW]",
		Short: "Write expectations as lines that 'expect load' reads",
		Long: `Writes expectations, all or those chosen, as lines: "-A expect", then the arguments
of 'nfctl expect create' that make it. With -o json they are JSON Lines, which
'expect load' reads as well. Their masters are flows: 'nfctl ct save' writes them.`,
		Example: `  nfctl expect save > expectations
  (nfctl ct save; nfctl expect save) > table; nfctl --netns new ct load table`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := toStandardOutput(c, args); err != nil {
				return err
			}
			return a.expectList(c, o, args, a.saving())
		},
	}
	expectKind.register(c, o)
	zoneMapFlag(c, &o.zoneMap)
	o.registerFailEmpty(c)
	a.prints(c, format.SaveFormats, paths(ct.ExpectFields))
	return c
}

// expectList lists expectations; form is the format when -o is not said.
func (a *app) expectList(c *cobra.Command, o *choosing, args []string, form string) error {
	choose, err := expectKind.chosen(o, args)
	if err != nil {
		return err
	}
	out, err := a.outputOr(form, false)
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible(c, expectKind.noun, "")
	defer stop()
	if err := expectKind.learn(ctx, a, choose); err != nil {
		return ended(ctx, err)
	}
	return expectKind.list(ctx, a, out, o,
		func(reader func() func(*ct.Expect) error, _ func(error)) (uint64, ct.DumpResult, error) {
			show := func(*ct.Expect) error { return nil }
			if reader != nil {
				print := reader()
				show = func(e *ct.Expect) error {
					o.zoneMap.Expect(e)
					return print(e)
				}
			}
			got, err := table.EachExpect(ctx, choose, show)
			return got.Matched, got.Dump, err
		})
}

func newExpectCount(a *app) *cobra.Command {
	o := &choosing{}
	c := &cobra.Command{
		Use:     "count [FLOW]",
		Short:   "Count expectations",
		Example: "  nfctl expect count\n  nfctl expect count --helper ftp",
		RunE: func(c *cobra.Command, args []string) error {
			choose, err := expectKind.chosen(o, args)
			if err != nil {
				return err
			}
			return expectKind.count(a, c,
				o.failEmpty, func(ctx context.Context) (n, most uint64, res ct.DumpResult, err error) {
					got, err := table.EachExpect(ctx, choose, func(*ct.Expect) error { return nil })
					if !o.filter.Any() {
						most = ct.ExpectMax()
					}
					return got.Matched, most, got.Dump, err
				})
		},
	}
	expectKind.register(c, o)
	o.registerFailEmpty(c)
	a.prints(c, format.Generic, paths(format.Counts.Fields), paths(ct.ExpectFields))
	return c
}
