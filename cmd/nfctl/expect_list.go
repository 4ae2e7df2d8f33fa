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
	c := &cobra.Command{
		Use:     "list ['PATTERN']",
		Short:   "List expectations",
		Long:    "Lists the expectations of all zones. A pattern is about the connection expected, as it is\nstored: what may be anything is 0 there. --master is about the connection that expects it.",
		Example: "  nfctl expect list\n  nfctl expect list --master 'tcp > :21' -o json\n  nfctl expect list 'tcp > :5000-6000'",
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
			p, k, err := a.expectPrinter()
			if err != nil {
				return err
			}
			n := uint64(0)
			res, err := table.EachExpect(c.Context(), conn, &fo.Filter, flt, func(e *ct.Expect) error {
				if n++; a.quiet {
					return nil
				}
				k.b = p.Append(k.b, e)
				if k.full() {
					return k.flush()
				}
				return nil
			})
			if err = errors.Join(err, finishPrint(p, k)); err != nil {
				return err
			}
			a.dumpNote(res)
			if a.quiet {
				a.total("%s", plural(n, "expectation"))
			}
			return nil
		},
	}
	c.Flags().SortFlags = false
	registerExpectFilter(c, fo)
	a.prints(c, format.ExpectFormats, paths(ct.ExpectFields))
	return c
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
			n := format.Count{Of: "expectations"}
			if _, err := table.EachExpect(c.Context(), conn, &fo.Filter, flt, func(*ct.Expect) error { n.Count++; return nil }); err != nil {
				return err
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
