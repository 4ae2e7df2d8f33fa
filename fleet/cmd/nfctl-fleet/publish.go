package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/fleet/internal/bus"
	"nfctl/fleet/internal/publish"
	"nfctl/fleet/internal/spool"
	"nfctl/fleet/internal/wire"
	"nfctl/internal/nl"
	"nfctl/internal/process"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

type publishFlags struct {
	host     string
	netns    []string
	spool    string
	memory   string
	buffer   string
	snapshot time.Duration
	filter   table.Filter
	reliable bool
	expects  bool
	patience time.Duration
	replicas int
	age      time.Duration
	bytes    string
	ready    string
}

// defaultNetns is the name of the network namespace that the program was started in.
const defaultNetns = "default"

func newPublish(a *app) *cobra.Command {
	o := &publishFlags{}
	c := &cobra.Command{
		Use:   "publish --to URLS ['PATTERN']",
		Short: "Send this host's events and snapshots to the stream",
		Long: `Sends each event of this host's connection tracking table to the stream, and a
snapshot of the table at the start, after each loss, and every --snapshot.

A message that the server has not acknowledged is sent again. While no server is
there, lines wait in memory and then in --spool; what finds no room is counted, a
line of the stream says how many there were, and a snapshot follows. What waits in
memory dies with the program; what is in the spool is sent by its next run.

The stream is made if it is not there.`,
		Example: `  nfctl-fleet publish --to nats://10.0.0.5
  nfctl-fleet publish --to tls://a.example.net,tls://b.example.net --creds /etc/nfctl/fleet.creds \
      --spool /var/lib/nfctl/spool,1GiB 'tcp > :443'`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("want one pattern at most, in quotes; got %q too", args[1])
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.filter.Pattern = args[0]
			}
			return a.publish(c.Context(), c, o)
		},
	}
	a.conn.register(c, "to")
	f := c.Flags()
	f.StringVar(&o.host, "host", "", "`NAME` of this host in the stream (default: the hostname up to its first dot)")
	f.StringSliceVar(&o.netns, "netns", nil,
		"network namespaces to read: NAME, PID or PATH, as [NAME=]SPEC; default is the one\n"+
			"that the program is in, as "+
			defaultNetns)
	f.StringVar(&o.spool, "spool", "", "`DIR[,SIZE]` for what does not fit in memory (SIZE: 1GiB)")
	f.StringVar(&o.memory, "memory", "64MiB", "`SIZE` of what may wait in memory, for each namespace")
	f.DurationVar(&o.snapshot, "snapshot", time.Minute, "how often the whole table is sent")
	f.StringArrayVar(&o.filter.Exprs, "filter", nil,
		"send only flows that the `expression` holds for; see 'nfctl help expressions'")
	f.BoolVar(&o.expects, "expects", true, "send expectations, too")
	f.BoolVar(&o.reliable, "reliable", true, "have the kernel deliver late what does not fit the receive buffer")
	f.StringVar(&o.buffer, "buffer", "",
		"`SIZE` of the receive buffer (default 64MiB, or 1/32 of the machine's memory)")
	f.DurationVar(&o.patience, "end-timeout", 5*time.Second,
		"at the end, how long to wait until everything is acknowledged")
	f.IntVar(&o.replicas, "replicas", 1, "if the stream has to be made: on how many servers each message is stored")
	f.DurationVar(&o.age, "max-age", 24*time.Hour, "if the stream has to be made: how long messages stay; 0: for ever")
	f.StringVar(&o.bytes, "max-bytes", "", "if the stream has to be made: its most `SIZE`; the oldest go first")
	f.StringVar(&o.ready, "ready-file", "", "make this `file` when all subscriptions are open")
	return c
}

// A job is one namespace's way to the stream.
type job struct {
	name, spec string
	q          *spool.Queue
	source     *publish.Source
	sender     *publish.Sender
	mu         sync.Mutex // of sender
}

func size(flag, text string) (int64, error) {
	n, err := value.Size(text)
	if err != nil || n > 1<<62 {
		return 0, usagef("--%s: %q is no size: want for example 64MiB", flag, text)
	}
	return int64(n), nil
}

func (o *publishFlags) jobs() ([]*job, error) {
	if len(o.netns) == 0 {
		return []*job{{name: defaultNetns}}, nil
	}
	var jobs []*job
	seen := map[string]bool{}
	for _, text := range o.netns {
		name, spec, ok := strings.Cut(text, "=")
		if !ok {
			name, spec = filepath.Base(text), text
		}
		if err := wire.CheckName("--netns", name); err != nil {
			return nil, usagef("%w, or NAME=%s", err, spec)
		}
		if seen[name] {
			return nil, usagef("--netns: %s twice", name)
		}
		seen[name] = true
		jobs = append(jobs, &job{name: name, spec: spec})
	}
	return jobs, nil
}

func (a *app) publish(ctx context.Context, c *cobra.Command, o *publishFlags) error {
	host, err := hostName(o.host)
	if err != nil {
		return err
	}
	jobs, err := o.jobs()
	if err != nil {
		return err
	}
	if o.snapshot < time.Second {
		return usagef("--snapshot: want 1s or more")
	}
	if o.replicas < 1 || o.replicas > 5 {
		return usagef("--replicas: want 1 to 5")
	}
	memory, err := size("memory", o.memory)
	if err != nil {
		return err
	}
	if memory < wire.MaxBytes || memory > 1<<40 {
		return usagef("--memory: want 256KiB to 1TiB")
	}
	so := publish.Options{Expects: o.expects, Snapshot: o.snapshot, Reliable: o.reliable}
	if o.buffer != "" {
		n, err := size("buffer", o.buffer)
		if err != nil || n > 1<<30 {
			return usagef("--buffer: want a size up to 1GiB")
		}
		so.Buffer = int(n)
	}
	stream := bus.Stream{Replicas: o.replicas, MaxAge: o.age}
	if o.bytes != "" {
		if stream.MaxBytes, err = size("max-bytes", o.bytes); err != nil {
			return err
		}
	}
	if so.Flows, err = table.WatchFlows(&o.filter, table.Ends{}); err != nil {
		return &usageError{err}
	}
	dir, most := o.spool, int64(1<<30)
	if at, text, ok := strings.Cut(o.spool, ","); ok {
		dir = at
		if most, err = size("spool", text); err != nil {
			return err
		}
	}
	if err := process.Prepare(o.ready); err != nil {
		return usagef("--ready-file %s: %w", o.ready, err)
	}
	conn, err := a.connect(ctx, c, "to", true)
	if err != nil {
		return err
	}
	defer conn.Close()

	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	epoch := uint64(time.Now().UnixMicro())
	work, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var wait, reading sync.WaitGroup
	reads, stop := context.WithCancel(work)
	defer stop()
	opened := make(chan error, len(jobs))
	for _, j := range jobs {
		qo := spool.Options{
			Host:   host,
			Netns:  j.name,
			Boot:   strings.TrimSpace(string(boot)),
			Epoch:  epoch,
			Memory: int(memory),
		}
		if dir != "" {
			qo.Dir, qo.Disk = filepath.Join(dir, host+"."+j.name), most
		}
		if j.q, err = spool.Open(qo); err != nil {
			return err
		}
		mine := so
		mine.Full = func() {
			why := ""
			if err := j.q.Failed(); err != nil {
				why = ": " + err.Error()
			}
			a.warn("netns %s: nothing more fits in memory or spool%s; what comes now is counted and lost", j.name, why)
		}
		reading.Go(func() {
			if err := j.read(reads, mine, opened); err != nil {
				cancel(fmt.Errorf("netns %s: %w", j.name, err))
			}
		})
		wait.Go(func() {
			if err := j.send(work, conn, stream, host, epoch, a.warn); err != nil && work.Err() == nil {
				cancel(err)
			}
		})
	}
	for range jobs {
		if err := <-opened; err != nil {
			stop()
			reading.Wait()
			return err
		}
	}
	var ready process.Ready
	defer ready.End()
	if err := a.readied(&ready, o.ready); err != nil {
		return err
	}
	reports := func() (out []report) {
		for _, j := range jobs {
			out = append(out, report{Kind: "publish", Host: host, Netns: j.name, Counters: j.counters()})
		}
		return out
	}
	if sub, err := answer(conn, reports); err == nil {
		defer func() { _ = sub.Unsubscribe() }()
	}
	totals := make(chan os.Signal, 1)
	signal.Notify(totals, unix.SIGUSR1)
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-conn.Ended():
			cancel(conn.Err())
			ended = true
		case <-work.Done():
			ended = true
		case <-totals:
			a.totals(jobs)
		}
	}
	stop() // what has happened is read to its end
	reading.Wait()
	if work.Err() == nil {
		a.drain(jobs, o.patience)
	}
	failed := context.Cause(work)
	cancel(context.Canceled)
	wait.Wait()
	for _, j := range jobs {
		lost, err := j.q.Close()
		lost += j.source.Lost()
		failed = errors.Join(failed, err)
		if lost > 0 {
			failed = errors.Join(failed,
				fmt.Errorf("netns %s: %d lines were not acknowledged and are lost", j.name, lost))
		}
	}
	a.totals(jobs)
	return failed
}

// read reads a namespace's events on a thread inside it.
func (j *job) read(ctx context.Context, o publish.Options, opened chan<- error) error {
	runtime.LockOSThread() // not unlocked where it has moved: the thread ends with the goroutine
	var err error
	if j.spec != "" {
		var f *os.File
		if f, err = nl.OpenNamespace(j.spec); err == nil {
			if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				err = fmt.Errorf("enter network namespace %s: %w", j.spec, err)
			}
			_ = f.Close()
		}
	}
	if err == nil {
		j.source, err = publish.NewSource(o, j.q)
	}
	opened <- err
	if err != nil {
		return err
	}
	defer j.source.Close()
	return j.source.Run(ctx)
}

func (j *job) send(ctx context.Context, c *bus.Conn, s bus.Stream, host string, epoch uint64,
	warn func(string, ...any)) error {
	for told := false; ; {
		info, err := c.Ensure(ctx, s)
		if err == nil {
			if want := "s2"; info.Config.Compression.String() != want && !told {
				warn("the stream is not compressed: the server is older than NATS 2.10, or the stream was made without")
			}
			break
		}
		if c.Err() != nil {
			return c.Err()
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !told {
			warn("%v; trying on", err)
			told = true
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	sender, err := publish.NewSender(ctx, c, j.q, host, j.name, epoch, warn)
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.sender = sender
	j.mu.Unlock()
	return sender.Run(ctx)
}

// drain waits until everything is acknowledged, but no longer than patience.
func (a *app) drain(jobs []*job, patience time.Duration) {
	end := time.Now().Add(patience)
	for _, j := range jobs {
		for {
			lines, _, _ := j.q.Lines()
			if lines == 0 || time.Now().After(end) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func (j *job) counters() map[string]uint64 {
	s := j.source
	lines, memory, disk := j.q.Lines()
	m := map[string]uint64{"events": s.Events.Load(), "listed": s.Listed.Load(), "snapshots": s.Snapshots.Load(),
		"flows": s.FlowsInSnapshot.Load(), "expects": s.ExpectsInSnapshot.Load(),
		"socket_lost": s.SocketLost.Load(), "socket_gaps": s.SocketGaps.Load(),
		"spool_lost": s.SpoolLost.Load(), "spool_gaps": s.SpoolGaps.Load(),
		"waiting": lines, "memory_bytes": uint64(memory), "spool_bytes": uint64(disk)}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.sender != nil {
		m["sent"], m["messages"], m["again"] = j.sender.Lines.Load(), j.sender.Sent.Load(), j.sender.Again.Load()
	}
	return m
}

func (a *app) totals(jobs []*job) {
	for _, j := range jobs {
		m := j.counters()
		a.warn("netns %s: %d events, %d lines of %d snapshots; %d lines acknowledged in %d messages, "+
			"%d tries again, %d wait; lost: %d at the socket, %d without room", j.name, m["events"], m["listed"],
			m["snapshots"], m["sent"], m["messages"], m["again"], m["waiting"], m["socket_lost"], m["spool_lost"])
	}
}

// readied says that the program works: by a file, and to the service manager. The
// caller ends it.
func (a *app) readied(r *process.Ready, path string) error {
	if err := r.Say(path); err != nil {
		return fmt.Errorf("--ready-file: %w", err)
	}
	if err := process.Notify(); err != nil {
		a.warn("systemd is not told that nfctl-fleet is ready: %v", err)
	}
	return nil
}
