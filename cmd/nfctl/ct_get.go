package main

import (
	"cmp"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
)

// ctGetOptions are the flags of 'nfctl ct get'.
type ctGetOptions struct {
	flow entryOptions
	zero bool
}

func newCtGet(a *app) *cobra.Command {
	o := &ctGetOptions{}
	c := &cobra.Command{
		Use:   "get FLOW",
		Short: "Print the flow with this tuple, of either direction",
		Long: `Asks the kernel for one flow, by its original or its reply tuple. Without a zone
it is looked for in zone 0. A flow that is not there ends with status 3.`,
		Example: `  nfctl ct get 'tcp 10.0.0.1:1000 > 10.0.0.2:22'
  nfctl ct get 'icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513' -o json`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.flow.args(a, args); err != nil {
				return err
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
	if err := conn.Get(f, got, o.zero); err != nil {
		return err
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
