package main

import (
	"context"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// ctUpdateOptions are the flags of 'nfctl ct update'.
type ctUpdateOptions struct {
	filter             filterOptions
	sets               []string
	labelAdd, labelDel []string
	dryRun, failEmpty  bool
}

func newCtUpdate(a *app) *cobra.Command {
	o := &ctUpdateOptions{}
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
			if err := o.filter.args(args); err != nil {
				return err
			}
			return a.ctUpdate(c, o)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringArrayVar(&o.sets, "set", nil, "change an attribute: `NAME=VALUE`")
	f.StringArrayVar(&o.labelAdd, "label-add", nil, "add these `labels`")
	f.StringArrayVar(&o.labelDel, "label-del", nil, "take these `labels` away, or 'all'")
	registerFlowFilter(c, &o.filter)
	f.BoolVar(&o.dryRun, "dry-run", false, "only print what would be changed, as it is")
	f.BoolVar(&o.failEmpty, "fail-empty", false, "end with status 3 when nothing matched")
	a.prints(c, format.FlowFormats, paths(ct.FlowFields))
	return c
}

func (a *app) ctUpdate(c *cobra.Command, o *ctUpdateOptions) error {
	choose, err := flowFilter(&o.filter)
	if err != nil {
		return err
	}
	ch, err := table.NewChange(o.sets, o.labelAdd, o.labelDel)
	if err != nil {
		return err
	}
	if err := ch.Check(); err != nil {
		return err
	}
	w, _, err := a.flowPrinter(a.quiet)
	if err != nil {
		return err
	}
	a.idleNote(choose)
	did := "updated"
	if o.dryRun {
		did = ""
	}
	ctx, stop := a.interruptible(c, "flow", did)
	defer stop()
	if o.dryRun {
		return a.only(ctx, choose, w, "changed", o.failEmpty)
	}
	bad := &failures{a: a}
	how := table.Edit{Edited: a.edit, Failed: bad.add}
	if w != nil {
		how.Done = w.print
	}
	done, err := table.Update(ctx, choose, ch, how)
	a.dumpNote(done.Dump)
	err = a.edited(err, w, bad)
	a.total("%s updated", flows(done.Done))
	if err != nil {
		return ended(ctx, err)
	}
	return notFound(o.failEmpty, done.Matched)
}

// edited ends the output of an edit, and returns what went wrong: the edit as a whole,
// the output, or single flows.
func (a *app) edited(err error, w *flowPrinter, bad *failures) error {
	err = cutShort(err)
	if e := w.end(); err == nil {
		err = e
	}
	if err == nil {
		err = bad.result()
	}
	return err
}

// edit counts a flow that was edited, for who interrupts.
func (a *app) edit() { a.changed.Add(1) }

// only prints what was chosen, and says that it would be changed or deleted.
func (a *app) only(ctx context.Context, choose *table.Choice[ct.Flow], w *flowPrinter, done string,
	failEmpty bool) error {
	got, err := table.Each(ctx, choose, w.print)
	a.dumpNote(got.Dump)
	if e := w.end(); err == nil {
		err = e
	}
	if err != nil {
		return ended(ctx, err)
	}
	a.total("%s would be %s", flows(got.Matched), done)
	return notFound(failEmpty, got.Matched)
}
