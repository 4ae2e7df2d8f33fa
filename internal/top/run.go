package top

import (
	"context"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/table"
)

// interval is the least time from one listing to the next.
const interval = time.Second

// A listing is what one listing for 'ct top' found.
type listing struct {
	round table.Round
	most  uint64
	drops Drops
	took  time.Duration
	err   error
}

// Run shows the flows that choose chooses, which chosen says in words, on a terminal
// until a key or a signal ends it; SIGWINCH only says that the terminal has another size.
// The terminal is then as it was before. One that went away is ErrTerminal.
func Run(ctx context.Context, in, out *os.File, choose *table.Choice[ct.Flow], chosen string,
	signals <-chan os.Signal) error {
	var conns [2]*ct.Conn // one for the listings, which go on meanwhile, one to delete
	for i := range conns {
		conn, err := ct.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		conns[i] = conn
	}
	term, err := Open(in, out)
	if err != nil {
		return err
	}
	err = run(ctx, conns[0], conns[1], choose, chosen, term, signals)
	if e := term.Close(); err == nil {
		err = e
	}
	return err
}

func run(ctx context.Context, conn, remover *ct.Conn, choose *table.Choice[ct.Flow], chosen string, term *Terminal,
	signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys, dead, lists := make(chan []Key, 8), make(chan error, 1), make(chan listing, 1)
	go func() { dead <- term.Read(func(k []Key) { keys <- k }) }()
	screen := New(chosen)
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
			timer.Reset(max(interval, 3*l.took) - l.took)
			if again {
				if err := list(); err != nil {
					return err
				}
			}
		case pressed := <-keys:
			for _, k := range pressed {
				if k == Suspend {
					if err := suspend(term); err != nil {
						return err
					}
					continue
				}
				switch screen.Key(k) {
				case Quit:
					return nil
				case Redraw:
					term.Forget()
				case List:
					if err := list(); err != nil {
						return err
					}
				case Remove:
					screen.Deleted(remover.Delete(screen.Doomed()))
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
func suspend(term *Terminal) error {
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
type dropped struct{ first Drops }

func (l *dropped) read(conn *ct.Conn) (d Drops) {
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
