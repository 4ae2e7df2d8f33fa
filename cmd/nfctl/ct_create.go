package main

import (
	"cmp"
	"errors"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
)

// ctCreateOptions are the flags of 'nfctl ct create'.
type ctCreateOptions struct {
	flow      entryOptions
	orUpdate  bool
	ifMissing bool
	dryRun    bool
}

func newCtCreate(a *app) *cobra.Command {
	o := &ctCreateOptions{}
	c := &cobra.Command{
		Use:     "create FLOW",
		Aliases: []string{"add"},
		Short:   "Make a flow",
		Long: `Makes an entry of the table. What is not said is worked out: the reply is the
mirror of the original direction, a TCP connection is ESTABLISHED and has had
answers, the timeout is what a packet would give it. The entry is printed as the
kernel then keeps it.

Flags describe the new entry; lines of -o save without their -A are such flags.`,
		Example: `  nfctl ct create 'tcp 10.0.0.1:1000 > 10.0.0.2:22'
  nfctl ct create 'udp 10.0.0.1:1000 > 192.0.2.9:53' --dst-nat 10.0.0.2:5353 --timeout 5m
  nfctl ct create 'tcp 10.0.0.1:1000 > 10.0.0.2:21' --helper ftp --mark 7 --label 3
  nfctl ct create 'tcp 10.0.0.1:1000 > 10.0.0.2:21 zone 5' --state SYN_SENT`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.flow.args(a, args); err != nil {
				return err
			}
			return a.ctCreate(o)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	o.flow.register(c, false)
	f.BoolVar(&o.orUpdate, "or-update", false, "update the flow if it exists")
	f.BoolVar(&o.ifMissing, "if-missing", false, "leave the flow alone if it exists")
	f.BoolVar(&o.dryRun, "dry-run", false, "only print what would be made")
	a.prints(c, format.FlowFormats, paths(ct.FlowFields))
	return c
}

func (a *app) ctCreate(o *ctCreateOptions) error {
	if o.orUpdate && o.ifMissing {
		return usagef("--or-update and --if-missing: one of them")
	}
	f, err := o.flow.New()
	if err != nil {
		return err
	}
	w, err := flowKind.printer(a, a.quiet && !o.flow.q)
	if err != nil {
		return err
	}
	if o.dryRun {
		return cmp.Or(w.print(f), w.end())
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.KeepsPorts(f); err != nil {
		return err
	}
	err = conn.Create(f, o.orUpdate)
	switch {
	case errors.Is(err, unix.EEXIST) && o.ifMissing:
		a.warn("it is there already, and was left alone")
	case err != nil && !errors.Is(err, ct.ErrLabelsDropped):
		return err
	}
	got := &ct.Flow{}
	return cmp.Or(printStored(conn, f, got, w), w.end(), labelsDropped(err))
}

func printStored(conn *ct.Conn, f, got *ct.Flow, w *printer[ct.Flow]) error {
	if w == nil {
		return nil
	}
	if err := conn.Get(f, got, false); err != nil {
		return err
	}
	return w.print(got)
}

// labelsDropped gives the error about labels that were not stored its hint.
func labelsDropped(err error) error {
	if !errors.Is(err, ct.ErrLabelsDropped) {
		return nil
	}
	return &statusError{code: exitFailed, err: err,
		hint: "the flow was created all the same; make a rule that uses labels, as iptables -m connlabel or nft ct " +
			"label set, and repeat with --or-update"}
}
