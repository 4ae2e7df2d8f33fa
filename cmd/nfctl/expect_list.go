package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

func newExpectList(a *app) *cobra.Command {
	fo := &filterOptions{}
	failEmpty := false
	c := &cobra.Command{
		Use:   "list ['PATTERN']",
		Short: "List expectations",
		Long: `Lists the expectations of all zones. A pattern, --src, --dst, --sport and --dport are
about the connection expected, as it is stored: what may be anything is 0 there.
--master and --orig-… are about the connection that expects it.`,
		Example: "  nfctl expect list\n  nfctl expect list --master 'tcp > :21' -o json\n  nfctl expect list 'tcp > " +
			":5000-6000'",
		RunE: func(c *cobra.Command, args []string) error { return a.expectList(c, fo, args, "", failEmpty) },
	}
	c.Flags().SortFlags = false
	registerExpectFilter(c, fo)
	c.Flags().BoolVar(&failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	a.prints(c, format.ExpectFormats, paths(ct.ExpectFields))
	return c
}

// newExpectSave is 'expect list -o save' under the name that goes with 'expect load'.
func newExpectSave(a *app) *cobra.Command {
	fo := &filterOptions{}
	failEmpty := false
	c := &cobra.Command{
		Use:   "save ['PATTERN']",
		Short: "Write expectations as lines that 'expect load' reads",
		Long: `Writes expectations, all or those chosen, as lines: "-A expect", then the arguments
of 'nfctl expect create' that make it. With -o json they are JSON Lines, which
'expect load' reads as well. Their masters are flows: 'nfctl ct save' writes them.`,
		Example: `  nfctl expect save > expectations
  (nfctl ct save; nfctl expect save) > table; nfctl --netns new ct load table`,
		RunE: func(c *cobra.Command, args []string) error {
			form := "save"
			if a.template != "" {
				form = ""
			}
			return a.expectList(c, fo, args, form, failEmpty)
		},
	}
	c.Flags().SortFlags = false
	registerExpectFilter(c, fo)
	c.Flags().BoolVar(&failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	a.prints(c, format.SaveFormats, paths(ct.ExpectFields))
	return c
}

// expectList lists expectations; form is the format when -o is not said.
func (a *app) expectList(c *cobra.Command, fo *filterOptions, args []string, form string, failEmpty bool) error {
	flt, err := expectFilter(fo, args)
	if err != nil {
		return err
	}
	out, err := a.outputOr(form, false)
	if err != nil {
		return err
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	p, k, err := printTo(a, format.Expects, out, format.Options{})
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible(c, "flow", "")
	defer stop()
	n := uint64(0)
	res, err := table.EachExpect(ctx, conn, flt, func(e *ct.Expect) error {
		if n++; a.quiet {
			return ctx.Err()
		}
		if k.b = p.Append(k.b, e); k.full() {
			return k.flush()
		}
		return ctx.Err()
	})
	if err = errors.Join(err, finishPrint(p, k)); err != nil {
		return ended(ctx, err)
	}
	a.dumpNote(res)
	if a.quiet || a.verbose > 0 {
		a.total("%s", plural(n, "expectation"))
	}
	return notFound(failEmpty, n)
}

func (a *app) expectPrinter() (*format.Printer[ct.Expect], *sink, error) {
	out, err := a.outputOf(false)
	if err != nil {
		return nil, nil, err
	}
	return printTo(a, format.Expects, out, format.Options{})
}

// printExpects prints expectations, unless -q was given.
func (a *app) printExpects(list ...*ct.Expect) error {
	p, k, err := a.expectPrinter()
	if err != nil {
		return err
	}
	for _, e := range list {
		if !a.quiet {
			k.b = p.Append(k.b, e)
		}
	}
	return finishPrint(p, k)
}

func newExpectCount(a *app) *cobra.Command {
	fo := &filterOptions{}
	c := &cobra.Command{
		Use:     "count ['PATTERN']",
		Short:   "Count expectations",
		Example: "  nfctl expect count\n  nfctl expect count --helper ftp",
		RunE: func(c *cobra.Command, args []string) error {
			flt, err := expectFilter(fo, args)
			if err != nil {
				return err
			}
			conn, err := ct.Dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			ctx, stop := a.interruptible(c, "flow", "")
			defer stop()
			n := format.Count{Of: "expectations"}
			if _, err := table.EachExpect(ctx, conn, flt, func(*ct.Expect) error {
				n.Count++
				return nil
			}); err != nil {
				return ended(ctx, err)
			}
			if !fo.Any() {
				n.Max = ct.ExpectMax()
			}
			return printAll(a, format.Counts, n)
		},
	}
	c.Flags().SortFlags = false
	registerExpectFilter(c, fo)
	a.prints(c, format.Generic, paths(format.Counts.Fields), paths(ct.ExpectFields))
	return c
}

// expectWords names an expectation in messages.
func expectWords(e *ct.Expect) string {
	b := ct.AppendTuple([]byte("expectation "), &e.Tuple)
	if e.Has(ct.ExpectHasID) {
		b = fmt.Appendf(b, " (id %d)", e.ID)
	}
	return string(b)
}

func newExpectStats(a *app) *cobra.Command {
	o := &ctStatsOptions{}
	var doc strings.Builder
	for _, k := range ct.ExpectCounters {
		fmt.Fprintf(&doc, "  %-8s %s\n", k.Name, k.Doc)
	}
	c := &cobra.Command{
		Use:   "stats",
		Short: "Print the kernel's counters of expectations, for each processor and together",
		Long: `Prints what the kernel counts of expectations, for each processor and all together.
With --interval it prints again and again, with what each grew by a second.

` + doc.String(),
		Example: "  nfctl expect stats\n  nfctl expect stats --interval 1s -o json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.stats(c, o, format.ExpectStats(), ct.ExpectCounters, (*ct.Conn).ExpectStats)
		},
	}
	o.register(c.Flags())
	a.prints(c, format.Generic, paths(format.ExpectStats().Fields))
	return c
}
