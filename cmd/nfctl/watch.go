package main

import (
	"errors"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/filter"
	"nfctl/internal/format"
	"nfctl/internal/pattern"
	"nfctl/internal/table"
)

func newWatch(a *app) *cobra.Command {
	o, fo := &watchFlags{}, &filterOptions{}
	c := &cobra.Command{
		Use:   "watch ['PATTERN']",
		Short: "Show events of connections and expectations in one stream",
		Long: `Shows what happens to connections and to expectations, in the order in which the
kernel told of it. A pattern is about a connection's original direction; of an
expectation, about the connection expected or the one that expects it.
Expressions know the fields of both.` + "\n" + watchHelp,
		Example: `  nfctl watch
  nfctl watch 'tcp > :21' -o json
  nfctl watch --filter 'helper == "ftp" or master != nil'`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := fo.args(args); err != nil {
				return err
			}
			flows, expects, err := chooseEither(fo, o.stream.until)
			if err != nil {
				return err
			}
			w := &watchRun{a: a, o: o, opt: ct.WatchOptions{Flows: o.events, Expects: o.events &^ ct.EventUpdate, Match: flows.conds}}
			out, err := a.outputOf(true)
			if err != nil {
				return err
			}
			pf, pe, err := eitherPrinters(out, a.colored())
			if err != nil {
				return err
			}
			w.prints(pf.Begin, pf.Flush, pf.End, func() error { return errors.Join(pf.Err(), pe.Err()) })
			w.h.Flow, w.h.Expect = watching(w, pf, flows), watching(w, pe, expects)
			return w.run(c.Context(), out)
		},
	}
	o.register(c, "new, update, destroy, all")
	registerFilter[either](c, nil, fo)
	a.prints(c, format.MixedFormats, paths(ct.FlowFields))
	return c
}

// chooseEither reads the choices of a watch of flows and expectations.
func chooseEither(fo *filterOptions, until string) (flows choice[ct.Flow], expects choice[ct.Expect], err error) {
	reg := eitherFields()
	words := fo.Pattern
	fo.Pattern = ""
	flt, err := table.Compile(reg, nil, pattern.Paths{}, &fo.Filter)
	if err != nil {
		return flows, expects, err
	}
	both, err := chosen(reg, flt, until)
	if err != nil {
		return flows, expects, err
	}
	e := &either{} // reused: a watch is one goroutine
	ofFlow := func(test func(*either) bool) func(*ct.Flow) bool {
		if test == nil {
			return nil
		}
		return func(f *ct.Flow) bool { e.flow, e.expect = f, nil; return test(e) }
	}
	ofExpect := func(test func(*either) bool) func(*ct.Expect) bool {
		if test == nil {
			return nil
		}
		return func(x *ct.Expect) bool { e.flow, e.expect = nil, x; return test(e) }
	}
	flows = choice[ct.Flow]{both.conds, ofFlow(both.show), ofFlow(both.until)}
	expects = choice[ct.Expect]{both.conds, ofExpect(both.show), ofExpect(both.until)}
	if words == "" {
		return flows, expects, nil
	}
	p, err := pattern.Parse(words)
	if err != nil {
		return flows, expects, err
	}
	conds, err := p.Conds(pattern.FlowPaths)
	if err != nil {
		return flows, expects, err
	}
	flow, err := filter.Conds(ct.FlowFields, conds...)
	if err != nil {
		return flows, expects, err
	}
	tuple, err := expectPredicate(p, table.ExpectPaths("tuple"))
	if err != nil {
		return flows, expects, err
	}
	master, err := expectPredicate(p, table.ExpectPaths("master"))
	if err != nil {
		return flows, expects, err
	}
	flows.show, flows.conds = table.And(flow, flows.show), append(conds, flows.conds...)
	expects.show = table.And(func(x *ct.Expect) bool { return tuple(x) || master(x) }, expects.show)
	return flows, expects, nil
}

func expectPredicate(p *pattern.Pattern, paths pattern.Paths) (func(*ct.Expect) bool, error) {
	conds, err := p.Conds(paths)
	if err != nil {
		return nil, err
	}
	return filter.Conds(ct.ExpectFields, conds...)
}

// eitherPrinters are printers of flows and expectations whose output is one
// stream. Of --fields each is given those that its objects have.
func eitherPrinters(out format.Output, color bool) (*format.Printer[ct.Flow], *format.Printer[ct.Expect], error) {
	names := out.Fields
	known := func(has func(string) error) (out []string) {
		for _, n := range names {
			if has(n) == nil {
				out = append(out, n)
			}
		}
		if len(names) > 0 && len(out) == 0 {
			out = []string{"kind"}
		}
		return out
	}
	flow := func(n string) error { _, err := format.SelectRows(ct.FlowFields, []string{n}); return err }
	expect := func(n string) error { _, err := format.SelectRows(ct.ExpectFields, []string{n}); return err }
	for _, n := range names {
		if err := flow(n); err != nil && expect(n) != nil {
			return nil, nil, named("--fields", err)
		}
	}
	opt := format.Options{Stream: true, Color: color}
	of, oe := out, out
	of.Fields = known(flow)
	oe.Fields = known(expect)
	opt.Others = func(path string) bool { return ct.ExpectFields.Row(path) != nil || ct.ExpectFields.Group(path) }
	pf, err := format.New(format.Flows, of, opt)
	if err != nil {
		return nil, nil, &usageError{err}
	}
	opt.Others = func(path string) bool { return ct.FlowFields.Row(path) != nil || ct.FlowFields.Group(path) }
	pe, err := format.New(format.Expects, oe, opt)
	if err != nil {
		return nil, nil, &usageError{err}
	}
	return pf, pe, nil
}

// either is a flow or an expectation: what the expressions of a watch of both are
// about.
type either struct {
	flow   *ct.Flow
	expect *ct.Expect
}

// eitherFields returns the fields of flows and those of expectations. One that
// both have, of the same kind, is one field.
func eitherFields() *field.Registry[either] {
	rows := field.Lift("", ct.FlowFields.Rows(), func(e *either) *ct.Flow { return e.flow })
	at := make(map[string]int, len(rows))
	for i := range rows {
		rows[i].Part = nil
		at[rows[i].Path] = i
	}
	for _, x := range field.Lift("", ct.ExpectFields.Rows(), func(e *either) *ct.Expect { return e.expect }) {
		x.Part = nil
		i, both := at[x.Path]
		if !both {
			rows = append(rows, x)
			continue
		}
		rows[i].Num = first(rows[i].Num, x.Num)
		rows[i].IP = first(rows[i].IP, x.IP)
		rows[i].Data = first(rows[i].Data, x.Data)
		rows[i].Aliases = append(rows[i].Aliases[:len(rows[i].Aliases):len(rows[i].Aliases)], x.Aliases...)
	}
	return field.New(func() []field.Row[either] { return rows })
}

// first joins two loaders of one field: what a has, or else b.
func first[V any](a, b func(*either) (V, bool)) func(*either) (V, bool) {
	if a == nil || b == nil {
		return a
	}
	return func(e *either) (V, bool) {
		if e.flow != nil {
			return a(e)
		}
		return b(e)
	}
}
