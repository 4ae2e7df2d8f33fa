package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"nfctl/internal/format"
	"nfctl/internal/process"
	"nfctl/internal/queue"
)

// queueListOptions are the flags of 'nfctl queue list'.
type queueListOptions struct {
	interval time.Duration
	keep     bool
	stream   streamFlags
}

func newQueueList(a *app) *cobra.Command {
	o := &queueListOptions{}
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"stats", "ls", "show"},
		Short:   "Show every queue that is bound: depth, drops, copy mode, owner",
		Example: "  nfctl queue list\n  nfctl queue list --interval 1s --count 10 -o json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.queueList(c.Context(), o) },
	}
	f := c.Flags()
	f.SortFlags = false
	durationFlag(f, &o.interval, "interval", "print again and again, with rates a second")
	o.stream.repeats(f)
	keepPrivilegesFlag(f, &o.keep)
	a.prints(c, format.Generic, paths(queue.InfoFields))
	return c
}

func (a *app) queueList(ctx context.Context, o *queueListOptions) error {
	if err := o.stream.repeated(o.interval); err != nil {
		return err
	}
	out, err := a.outputOf(false)
	if err != nil {
		return err
	}
	p, k, err := printTo(a, format.Queues, out, format.Options{Stream: o.interval > 0})
	if err != nil {
		return err
	}
	var before []queue.Info
	then := time.Now()
	st := o.stream.start(a, ctx, func() {}, endPatience)
	defer st.Stop()
	for {
		list, err := queue.List()
		if errors.Is(err, os.ErrPermission) {
			return &statusError{exitPermission, err,
				"the kernel shows its queues to uid 0 and CAP_DAC_READ_SEARCH only; try sudo"}
		}
		if err != nil {
			return err
		}
		now := time.Now()
		if before != nil {
			queue.Rate(list, before, now.Sub(then).Seconds())
		}
		before, then = list, now
		st.Take()
		for i := range list {
			k.b = p.Append(k.b, &list[i])
			if list[i].Owner.PID == 0 && o.interval == 0 {
				a.hint("queue %d: the owner's process could not be seen; that takes root", list[i].Num)
			}
		}
		if o.interval == 0 {
			if len(list) == 0 {
				a.nothing("no queue is bound: packets that a rule sends to one are dropped, or pass where the rule " +
					"says bypass")
			}
			return finishPrint(p, k)
		}
		k.b = p.Flush(k.b)
		if err := k.flush(); err != nil {
			return err
		}
		if !o.keep {
			a.lessPrivileges(process.SeeOwners...)
			o.keep = true
		}
		select {
		case <-st.Done():
			return cmp.Or(finishPrint(p, k), o.stream.result(st))
		case <-time.After(o.interval):
		}
	}
}
