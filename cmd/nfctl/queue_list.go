package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"nfctl/internal/format"
	"nfctl/internal/queue"
)

func newQueueList(a *app) *cobra.Command {
	var interval time.Duration
	var keep bool
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"stats"},
		Short:   "Show every queue that is bound: depth, drops, copy mode, owner",
		Example: "  nfctl queue list\n  nfctl queue list --interval 1s -o json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.queueList(c.Context(), interval, keep) },
	}
	durationFlag(c.Flags(), &interval, "interval", "print again and again, with rates a second")
	keepPrivilegesFlag(c.Flags(), &keep)
	a.prints(c, format.Generic, paths(queue.InfoFields))
	return c
}

func (a *app) queueList(ctx context.Context, interval time.Duration, keep bool) error {
	out, err := a.outputOf(false)
	if err != nil {
		return err
	}
	p, k, err := printTo(a, format.Queues, out, format.Options{})
	if err != nil {
		return err
	}
	var before []queue.Info
	then := time.Now()
	st := streamFlags{}.start(ctx, func() {})
	defer st.stop()
	for {
		list, err := queue.List()
		if errors.Is(err, os.ErrPermission) {
			return &statusError{exitPermission, err, "the kernel shows its queues to uid 0 and CAP_DAC_READ_SEARCH only; try sudo"}
		}
		if err != nil {
			return err
		}
		now := time.Now()
		if before != nil {
			queue.Rate(list, before, now.Sub(then).Seconds())
		}
		before, then = list, now
		for i := range list {
			k.b = p.Append(k.b, &list[i])
			if list[i].Owner.PID == 0 && interval == 0 {
				a.hint("queue %d: the owner's process could not be seen; that takes root", list[i].Num)
			}
		}
		if interval == 0 {
			return finishPrint(p, k)
		}
		k.b = p.Flush(k.b)
		if err := k.flush(); err != nil {
			return err
		}
		if !keep {
			a.lessPrivileges(seeOwners...)
			keep = true
		}
		select {
		case <-st.Done():
			return finishPrint(p, k)
		case <-time.After(interval):
		}
	}
}

// numbers writes queue numbers as people type them.
func numbers(nums []uint16) string {
	var b []byte
	for i := 0; i < len(nums); {
		j := i
		for j+1 < len(nums) && nums[j+1] == nums[j]+1 {
			j++
		}
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = fmt.Append(b, nums[i])
		if j > i {
			b = fmt.Appendf(b, "-%d", nums[j])
		}
		i = j + 1
	}
	return string(b)
}
