package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/table"
	"nfctl/internal/top"
)

func newCtTop(a *app) *cobra.Command {
	o := &choosing{}
	c := &cobra.Command{
		Use:   "top [FLOW]",
		Short: "Show the flows with the most traffic, live",
		Long: `Shows flows on the terminal, those that carry most first, and lists the table again
every second, or every three times as long as that takes. Above them stand how many
flows there are, how many began and ended, what the kernel dropped, and the traffic
of all flows chosen. '?' shows the keys.

Traffic is known where the kernel counts it (sysctl net.netfilter.nf_conntrack_acct=1).
Flows that begin and end between two listings are not seen. For other programs there
is 'ct list --interval'.`,
		Example: `  nfctl ct top
  nfctl ct top 'tcp > :443'
  nfctl ct top -p udp --filter 'rate.packets > 100'`,
		RunE: func(c *cobra.Command, args []string) error {
			choose, err := flowKind.chosen(o, args)
			if err != nil {
				return err
			}
			in, ok := a.in.(*os.File)
			out, ok2 := a.out.(*os.File)
			if !ok || !ok2 || !isTerminal(in) || !isTerminal(out) {
				return usagef("'ct top' wants a terminal; elsewhere: " +
					"nfctl ct list --interval 1s --sort rate.bytes:desc --limit 20")
			}
			return a.ctTop(c.Context(), choose, o, in, out)
		},
	}
	flowKind.register(c, o)
	return c
}

// topInterval is the least time from one listing to the next.
const topInterval = time.Second

func (a *app) ctTop(ctx context.Context, choose *table.Choice[ct.Flow], o *choosing, in, out *os.File) error {
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGWINCH)
	defer signal.Stop(signals)
	term, err := top.Open(in, out)
	if err != nil {
		return err
	}
	err = a.runTop(ctx, conn, choose, o, term, signals)
	if e := term.Close(); err == nil {
		err = e
	}
	if err == top.ErrTerminal {
		return &statusError{code: exitFailed, err: err}
	}
	return err
}

// A listing is what one listing for 'ct top' found.
type listing struct {
	round table.Round
	most  uint64
	drops top.Drops
	took  time.Duration
	err   error
}

func (a *app) runTop(ctx context.Context, conn *ct.Conn, choose *table.Choice[ct.Flow], o *choosing,
	term *top.Terminal, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys, dead, lists := make(chan []top.Key, 8), make(chan error, 1), make(chan listing, 1)
	go func() { dead <- term.Read(func(k []top.Key) { keys <- k }) }()
	screen := top.New(strings.Join(o.filter.words(), " "))
	repeat := &table.Repeat{Choose: choose, Dump: table.DumpOptions(choose)}
	var lost dropped
	running, again := false, false
	list := func() error {
		if again = running; running {
			return nil
		}
		if err := screen.Ask(repeat); err != nil {
			return err
		}
		running = true
		go func() {
			l := listing{}
			began := time.Now()
			l.round, l.err = repeat.Next(ctx, nil)
			l.took = time.Since(began)
			if _, most, err := conn.Count(); err == nil {
				l.most = uint64(most)
			}
			l.drops = lost.read(conn)
			lists <- l
		}()
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := term.Draw(screen.Screen(term.Size())); err != nil {
			return err
		}
		select {
		case <-timer.C:
			if screen.Paused() {
				continue
			}
			if err := list(); err != nil {
				return err
			}
		case l := <-lists:
			running = false
			if l.err != nil {
				return l.err
			}
			if !screen.Paused() {
				screen.Show(l.round, l.most, l.drops)
			}
			timer.Reset(max(topInterval, 3*l.took) - l.took)
			if again {
				if err := list(); err != nil {
					return err
				}
			}
		case pressed := <-keys:
			for _, k := range pressed {
				if k == top.Suspend {
					if err := suspend(term); err != nil {
						return err
					}
					continue
				}
				switch screen.Key(k) {
				case top.Quit:
					return nil
				case top.Redraw:
					term.Forget()
				case top.List:
					if err := list(); err != nil {
						return err
					}
				case top.Remove:
					screen.Deleted(conn.Delete(screen.Doomed()))
				}
			}
		case sig := <-signals:
			if sig != unix.SIGWINCH {
				return nil
			}
			term.Forget()
		case err := <-dead:
			return err
		}
	}
}

// suspend stops the program as Ctrl-Z does, with the terminal as it was before.
func suspend(term *top.Terminal) error {
	if err := term.Close(); err != nil {
		return err
	}
	on := make(chan os.Signal, 1)
	signal.Notify(on, unix.SIGCONT)
	defer signal.Stop(on)
	_ = unix.Kill(0, unix.SIGTSTP)
	select {
	case <-on:
	case <-time.After(time.Second): // nobody could have it go on: then it was not stopped
	}
	return term.Begin()
}

// A dropped is the kernel's counters of what it lost, since they were first read.
type dropped struct{ first, last top.Drops }

func (l *dropped) read(conn *ct.Conn) (d top.Drops) {
	cpus, err := conn.Stats()
	if err != nil {
		return d
	}
	values, known := ct.Total(cpus)
	for i, c := range ct.StatsCounters {
		if i >= len(values) || !known[i] {
			continue
		}
		switch c.Name {
		case "drop":
			d.Drop, d.Known = values[i], true
		case "early_drop":
			d.EarlyDrop = values[i]
		case "insert_failed":
			d.NoInsert = values[i]
		}
	}
	if !l.first.Known {
		l.first = d
	}
	d.Drop -= l.first.Drop
	d.EarlyDrop -= l.first.EarlyDrop
	d.NoInsert -= l.first.NoInsert
	return d
}
