package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"nfctl/internal/capture"
	"nfctl/internal/format"
	"nfctl/internal/queue"
	"nfctl/internal/rule"
	"nfctl/internal/value"
)

// A readOptions says of which capture the packets come, instead of from queues.
type readOptions struct {
	path string // "": none; "-": standard input
	hook uint64
}

func (o *readOptions) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&o.path, "read", "r", "", "take the packets from this capture `file` (pcap or pcapng; - is standard "+
		"input), as if they had been queued; needs no privileges, and changes nothing")
	o.hook, _ = queue.Hooks.Lookup("forward")
	varFlag(f, &o.hook, "read-hook", "hook", "forward", queue.Hooks.Parse,
		"where packets of a capture count as queued, of which it does not say it")
}

// notWithRead are flags that say what the kernel is asked.
var notWithRead = []string{"num", "attach", "netns", "max-len", "buffer", "fail-open", "no-gso", "gso", "uid-gid",
	"secctx",
	"conntrack", "meta", "flow-mark", "ready-file", "user", "cpu"}

// checkRead refuses what does not go together, before anything is done.
func (o *queueOptions) checkRead(c *cobra.Command) error {
	changed := func(name string) bool { f := c.Flag(name); return f != nil && f.Changed }
	if o.read.path == "" {
		if changed("read") {
			return usagef("--read: %w", &value.Error{What: "file", Valid: "a capture's name, or - for standard input"})
		}
		if changed("read-hook") {
			return usagef("--read-hook says where packets of --read count as queued: it wants that too")
		}
		return nil
	}
	for _, name := range notWithRead {
		if changed(name) {
			return usagef("--%s is about the kernel's queues: it does not go with --read", name)
		}
	}
	if changed("snaplen") && o.write.path == "" {
		return usagef("--snaplen with --read bounds what --write writes: it wants that too")
	}
	return nil
}

// replay opens the capture, and decides on its packets.
func (r *queueRun) replay(c *cobra.Command, out format.Output, extra format.Options, silent bool,
	openFiles func() error) error {
	o := r.o
	path, in := o.read.path, r.a.in
	if path == "-" {
		path = "standard input"
		if f, ok := in.(*os.File); ok && isTerminal(f) {
			return usagef("--read -: standard input is a terminal: let a program write it, as 'tcpdump -w - | " +
				"nfctl queue -r -'")
		}
	} else {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("--read: %w", err)
		}
		defer f.Close()
		in = f
		if was, err := f.Stat(); err == nil && o.write.path != "" {
			if is, err := os.Stat(o.write.path); err == nil && os.SameFile(was, is) {
				return usagef("--write %s: it is the file that is read", o.write.path)
			}
		}
	}
	capt, err := capture.NewReader(in)
	if err != nil {
		return fmt.Errorf("--read: %s: %w", path, err)
	}
	capt.Hook = uint8(o.read.hook)
	set := r.Set()
	if set.Needs().Conntrack || set.Needs().SecCtx {
		r.a.warn("captures have neither connections nor security contexts: what rules say of them matches no packet")
	}
	q := queue.Played(o.config(rule.Needs{}), capt.Device)
	r.Queues, o.Nums = []*queue.Queue{q}, []uint16{0}
	if err := openFiles(); err != nil {
		return err
	}
	r.begun = time.Now()
	r.stream = o.stream.start(r.a, c.Context(), r.totals, endPatience)
	defer r.stream.Stop()
	end, err := r.observe(q, out, extra, silent, true)
	if err != nil {
		return err
	}
	d, err := r.decider(set)
	if err != nil {
		return err
	}
	q.SetDecider(d)
	err = q.Play(r.stream, r.played(capt, set, path), capt.Waiting)
	err = errors.Join(err, end(), r.capture.close(), o.stream.file.close())
	r.totals()
	if capt.Others > 0 {
		r.a.total("%s that are not IP passed over", plural(capt.Others, "packet"))
	}
	if err != nil {
		return err
	}
	return r.o.stream.result(r.stream)
}

// played returns what gives the capture's packets to the queue.
func (r *queueRun) played(capt *capture.Reader, set *rule.Set, path string) func(*queue.Packet) error {
	told := !set.Needs().UIDGID
	return func(p *queue.Packet) error {
		switch err := capt.Next(p); {
		case err == io.EOF:
			return err
		case err != nil:
			return fmt.Errorf("--read: %s: %w", path, err)
		}
		if !told && p.Has&(queue.HasUID|queue.HasGID) == 0 {
			told = true
			r.a.warn("packet %d of the capture has no user and group, and others may not either: "+
				"what rules say of them does not match", p.ID)
		}
		return nil
	}
}
