package main

import (
	"errors"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

func newWatch(a *app) *cobra.Command {
	o, fo := &watchFlags{}, &filterOptions{}
	c := &cobra.Command{
		Use:   "watch [FLOW]",
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
			flows, expects, err := table.WatchBoth(&fo.Filter, o.stream.ends())
			if err != nil {
				return err
			}
			w := &watchRun{a: a, o: o, opt: ct.WatchOptions{Flows: o.events, Expects: o.events &^ ct.EventUpdate,
				Match: flows.Conds}}
			if err := o.stream.file.check(false); err != nil {
				return err
			}
			o.stream.file.divert(a)
			out, err := a.outputOf(true)
			if err != nil {
				return err
			}
			pf, pe, err := format.NewBoth(out, format.Options{Stream: true, Color: a.colored()})
			if err != nil {
				return &usageError{err}
			}
			w.prints(pf.Begin, pf.Flush, pf.End, func() error { return errors.Join(pf.Err(), pe.Err()) })
			w.h.Flow, w.h.Expect = watching(w, pf, flows), watching(w, pe, expects)
			return w.run(c.Context(), out)
		},
	}
	o.register(c, "new, update, destroy, all")
	registerFilter(c, nil, fo)
	a.resolveFlag(c)
	a.prints(c, format.MixedFormats, paths(ct.FlowFields))
	return c
}
