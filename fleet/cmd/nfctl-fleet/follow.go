package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/fleet/internal/follow"
	"nfctl/fleet/internal/wire"
	"nfctl/internal/format"
	"nfctl/internal/process"
)

type followFlags struct {
	hosts     []string
	netns     string
	since     string
	seq       uint64
	positions bool
	events    bool
	count     uint64
	duration  time.Duration
	ready     string
}

func newFollow(a *app) *cobra.Command {
	o := &followFlags{}
	c := &cobra.Command{
		Use:   "follow --from URLS --of HOST",
		Short: "Read a host's events from the stream",
		Long: `Reads a host's lines from the stream as 'nfctl ct watch -o json' prints them there:
events, snapshots between 'resync' and 'resynced', and 'lost' where something is
missing. Where of a loss is
  socket     the host's receive buffer was full
  spool      the publisher had no room while no server was there
  publisher  it was not running; a snapshot follows
  stream     the stream has dropped it (--max-age, --max-bytes), or never had it
  snapshot   a snapshot arrived other than it was sent

Of several hosts, each line begins with the keys host and netns.

Without --since and --seq what comes from now on is read.`,
		Example: `  nfctl-fleet follow --from nats://10.0.0.5 --of router1
  nfctl-fleet follow --from nats://10.0.0.5 --of router1,router2 --since 10m`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.follow(c.Context(), c, o) },
	}
	a.conn.register(c, "from")
	f := c.Flags()
	f.StringSliceVar(&o.hosts, "of", nil, "`HOSTS` to follow, several with commas")
	f.StringVar(&o.netns, "netns", "", "only this network namespace of the host, by its `name` in the stream")
	f.StringVar(&o.since, "since", "", "begin at this `time`: RFC 3339, or how long ago, as 10m")
	f.Uint64Var(&o.seq, "seq", 0, "begin at this message of the stream")
	f.BoolVar(&o.positions, "positions", false,
		"after the lines of each message, a line with its place in the stream:\n"+
			"a reader that was ended cuts what stands behind the last one, and goes on with --seq")
	f.BoolVar(&o.events, "events-only", false, "leave snapshots out")
	f.Uint64Var(&o.count, "count", 0, "end after `N` lines")
	f.DurationVar(&o.duration, "duration", 0, "end after this time; with --count, 3 if it came first")
	f.StringVar(&o.ready, "ready-file", "", "make this `file` when the stream is being read")
	return c
}

// A printer writes the lines of one or more followers.
type printer struct {
	mu     sync.Mutex
	w      *bufio.Writer
	o      *followFlags
	many   bool
	losses *format.Printer[format.Loss]
	lines  atomic.Uint64
	buf    []byte
}

var errCount = errors.New("--count")

// one is what a follower of one host is handed.
type one struct{ *printer }

func (p one) Line(host, netns string, k wire.Kind, line []byte) error {
	if p.o.events && k == wire.Snapshot {
		return nil
	}
	return p.write(host, netns, line)
}

func (p *printer) write(host, netns string, line []byte) error {
	if p.o.count > 0 && p.lines.Load() >= p.o.count {
		return errCount
	}
	if p.many {
		p.buf = append(p.buf[:0], `{"host":"`...)
		p.buf = append(append(append(append(p.buf, host...), `","netns":"`...), netns...), `",`...)
		line = append(p.buf, line[1:]...)
		p.buf = line
	}
	_, err := p.w.Write(line)
	p.lines.Add(1)
	return err
}

func (p one) Lost(host, netns string, l format.Loss) error {
	return p.write(host, netns, p.losses.Append(nil, &l))
}

func (p one) Rest(seq uint64) error {
	if p.o.positions {
		if _, err := p.w.WriteString(`{"kind":"position","seq":` + strconv.FormatUint(seq, 10) + "}\n"); err != nil {
			return err
		}
	}
	return p.w.Flush()
}

// since reads a time, or how long ago.
func since(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	return time.Time{}, usagef("--since: %q is no time: want for example 2026-01-31T12:00:00Z or 10m", text)
}

func (a *app) follow(ctx context.Context, c *cobra.Command, o *followFlags) error {
	if len(o.hosts) == 0 {
		return usagef("--of: which host? 'nfctl-fleet status' lists them")
	}
	for i, h := range o.hosts {
		if err := wire.CheckName("--of", h); err != nil {
			return &usageError{err}
		}
		for _, other := range o.hosts[:i] {
			if h == other {
				return usagef("--of: %s twice", h)
			}
		}
	}
	if o.netns != "" {
		if err := wire.CheckName("--netns", o.netns); err != nil {
			return &usageError{err}
		}
	}
	from, err := since(o.since)
	if err != nil {
		return err
	}
	if !from.IsZero() && o.seq != 0 {
		return usagef("--since and --seq: one of them, please")
	}
	if o.positions && len(o.hosts) > 1 {
		return usagef("--positions: of one host, please: each has its own place in the stream")
	}
	losses, err := format.NewAside(format.Losses, format.Output{Format: format.JSON})
	if err != nil {
		return err
	}
	if err := process.Prepare(o.ready); err != nil {
		return usagef("--ready-file %s: %w", o.ready, err)
	}
	conn, err := a.connect(ctx, c, "from", false)
	if err != nil {
		return err
	}
	defer conn.Close()
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &printer{w: bufio.NewWriterSize(a.out, 64<<10), o: o, many: len(o.hosts) > 1, losses: losses}
	var wait sync.WaitGroup
	var all []*follow.Follower
	opened := make(chan struct{}, len(o.hosts))
	for _, h := range o.hosts {
		f := follow.New(conn, follow.Options{Stream: a.conn.Stream, Host: h, Netns: o.netns, Since: from, Seq: o.seq,
			Warn: a.warn, Began: func() { opened <- struct{}{} }}, &locked{one{p}})
		all = append(all, f)
		wait.Go(func() {
			if err := f.Run(work); err != nil {
				cancel(err)
			}
		})
	}
	reports := func() (out []report) {
		for i, f := range all {
			out = append(out, report{Kind: "follow", Host: o.hosts[i], Netns: o.netns, Counters: counters(f)})
		}
		return out
	}
	if sub, err := answer(conn, reports); err == nil {
		defer func() { _ = sub.Unsubscribe() }()
	}
	var late <-chan time.Time
	if o.duration > 0 {
		late = time.After(o.duration)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGUSR1)
	var ready process.Ready
	defer ready.End()
	var failed error
	for began, ended := 0, false; !ended; {
		select {
		case <-opened:
			if began++; began == len(all) {
				failed = a.readied(&ready, o.ready)
				ended = failed != nil
			}
		case <-late:
			ended = true
			if o.count > 0 {
				failed = errNothing
			}
		case <-conn.Ended():
			failed, ended = conn.Err(), true
		case <-work.Done():
			if err := context.Cause(work); ctx.Err() == nil && !errors.Is(err, errCount) {
				failed = err
			}
			ended = true
		case <-signals:
			a.followed(o, all)
		}
	}
	cancel(context.Canceled)
	wait.Wait()
	a.followed(o, all)
	return errors.Join(failed, p.w.Flush())
}

// locked is a handler of several followers' lines: those of a message stay together.
type locked struct{ one }

func (l *locked) Line(host, netns string, k wire.Kind, line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.one.Line(host, netns, k, line)
}

func (l *locked) Lost(host, netns string, loss format.Loss) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.one.Lost(host, netns, loss)
}

func (l *locked) Rest(seq uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.one.Rest(seq)
}

func counters(f *follow.Follower) map[string]uint64 {
	return map[string]uint64{"lines": f.Lines.Load(), "messages": f.Messages.Load(), "gaps": f.Gaps.Load(),
		"lost": f.Counts.Lost.Load(), "doubled": f.Doubled.Load(), "snapshots": f.Snapshots.Load(), "bad": f.Bad.Load(),
		"epochs": f.Epochs.Load(), "seq": f.Seq.Load(), "behind": f.Behind.Load()}
}

func (a *app) followed(o *followFlags, all []*follow.Follower) {
	for i, f := range all {
		m := counters(f)
		a.warn("%s: %d lines in %d messages, %d snapshots; %d gaps with %d lines known to be lost, "+
			"%d doubled lines left out; at message %d, %d behind", o.hosts[i], m["lines"], m["messages"],
			m["snapshots"], m["gaps"], m["lost"], m["doubled"], m["seq"], m["behind"])
	}
}
