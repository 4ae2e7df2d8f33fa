package main

import (
	"cmp"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

// ctGetOptions are the flags of 'nfctl ct get'.
type ctGetOptions struct {
	flow entryOptions
	id   string
	zero bool
}

func newCtGet(a *app) *cobra.Command {
	o := &ctGetOptions{}
	c := &cobra.Command{
		Use:   "get FLOW",
		Short: "Print the flow with this tuple, of either direction",
		Long: `Asks the kernel for one flow, by its original or its reply tuple. Without a zone
it is looked for in zone 0. A flow that is not there ends with status 3. With --id
alone the table is read for the flow of that id, of any zone; beside a tuple the
flow must have it, and is not another one that took its place.`,
		Example: `  nfctl ct get 'tcp 10.0.0.1:1000 > 10.0.0.2:22'
  nfctl ct get 'icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513' -o json`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.flow.args(a, args); err != nil {
				return err
			}
			if o.id != "" && o.flow.Flow == "" && len(o.flow.Given) == 0 {
				return a.ctGetByID(c, o)
			}
			if o.flow.Flow == "" && len(o.flow.Given) == 0 {
				return usagef("which flow? in words, quoted, as 'tcp 10.0.0.1:1000 > 10.0.0.2:22'; or by " +
					"flags, as -p " +
					"tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1000 --dport 22")
			}
			return a.ctGet(o)
		},
	}
	c.Flags().SortFlags = false
	o.flow.register(c, true)
	c.Flags().StringVar(&o.id, "id", "", "the flow's `number`")
	c.Flags().BoolVar(&o.zero, "zero", false, "set its counters to zero after reading them")
	a.resolveFlag(c)
	a.prints(c, format.FlowFormats, paths(ct.FlowFields))
	return c
}

func (a *app) ctGet(o *ctGetOptions) error {
	f, err := o.flow.Read()
	if err != nil {
		return err
	}
	if err := f.Orig.Complete(); err != nil {
		return &usageError{err}
	}
	id, err := o.number()
	if err != nil {
		return err
	}
	w, err := flowKind.printer(a, a.quiet && !o.flow.q)
	if err != nil {
		return err
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	got := &ct.Flow{}
	if err := conn.Get(f, got, o.zero && o.id == ""); err != nil {
		return err
	}
	if o.id != "" {
		if got.ID != id {
			return &statusError{code: exitNotFound, err: fmt.Errorf("the flow with this tuple is another: its id is %d",
				got.ID)}
		}
		if o.zero {
			if err := conn.Get(f, got, true); err != nil {
				return err
			}
		}
	}
	if a.wants("idle") {
		t := ct.LoadTimeouts()
		if err := t.LoadPolicies(); err != nil {
			return err
		}
		t.SetIdle(got)
	}
	flowKind.learnOne(a.running.Context(), a, got)
	return cmp.Or(w.print(got), w.end())
}

// number reads --id, 0 where it is not given.
func (o *ctGetOptions) number() (uint32, error) {
	if o.id == "" {
		return 0, nil
	}
	n, err := value.NumberIn("id", o.id, 0, math.MaxUint32)
	if err != nil {
		return 0, &usageError{err}
	}
	return uint32(n), nil
}

// ctGetByID prints the flow of an id: all, where a hash of 32 bits has met twice.
func (a *app) ctGetByID(c *cobra.Command, o *ctGetOptions) error {
	if o.zero {
		return usagef("--zero wants the flow's tuple, or 'nfctl ct list --zero --id %s'", o.id)
	}
	if _, err := o.number(); err != nil {
		return err
	}
	choose, err := table.Flows(&table.Filter{Given: []table.Given{{Flag: "id", Text: o.id}}})
	if err != nil {
		return err
	}
	w, err := flowKind.printer(a, a.quiet)
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible(c, flowKind.noun, "")
	defer stop()
	got, err := table.Each(ctx, choose, func(f *ct.Flow) error {
		flowKind.learnOne(ctx, a, f)
		return w.print(f)
	})
	a.dumpNote(got.Dump)
	if err := cmp.Or(err, w.end()); err != nil {
		return ended(ctx, err)
	}
	if got.Matched == 0 {
		return &statusError{code: exitNotFound, err: fmt.Errorf("no flow has the id %s", o.id)}
	}
	return nil
}
