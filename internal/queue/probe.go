package queue

import (
	"errors"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
)

// A Feature is something that a queue can be asked for.
type Feature struct {
	Name string
	Need string // what a kernel that lacks it would need
	OK   bool   // this kernel takes it
}

// Features binds a queue that nobody holds, asks the kernel for each of a queue's
// features and unbinds it again, in the calling thread's network namespace.
func Features() ([]Feature, error) {
	c, err := nl.Dial(nl.Config{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var q Queue
	const first, last = 0xffff, 0xff00
	for q.conf.Num = first; ; q.conf.Num-- {
		err = c.Do(q.command(nfqnlBind))
		if err == nil {
			break
		}
		// EPERM: held by somebody, or no privilege; EBUSY by newer kernels.
		if q.conf.Num == last || !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EBUSY) {
			return nil, nl.Error("bind", "a free queue", err)
		}
	}
	var out []Feature
	for _, f := range flags {
		b := nl.AppendHeader(nil, msgConfig, nl.FlagAck, unix.AF_UNSPEC, q.conf.Num)
		err := c.Do(nl.Finish(appendFlags(b, f.bit, f.bit), 0))
		out = append(out, Feature{Name: f.name, Need: f.need, OK: err == nil})
	}
	return out, nl.Error("unbind", q.object(), c.Do(q.command(nfqnlUnbind)))
}
