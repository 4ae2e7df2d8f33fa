package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
)

// statsOptions are the flags of 'nfctl ct stats' and 'nfctl expect stats', and what each
// is about.
type statsOptions struct {
	counters []ct.Counter
	subject  func() *format.Subject[format.Stats]
	read     func(*ct.Conn) ([]ct.CPUStats, error)

	interval time.Duration
	keep     bool
	stream   streamFlags
}

func newCtStats(a *app) *cobra.Command {
	return newStats(a, &statsOptions{counters: ct.StatsCounters, subject: format.FlowStats, read: (*ct.Conn).Stats},
		&cobra.Command{
			Short: "Print the kernel's counters, for each processor and together",
			Long: `Prints the counters that the kernel keeps of connection tracking, for each
processor and all together. With --interval it prints again and again, with what
each grew by a second. The kernel's counters wrap at 32 bits.`,
			Example: `  nfctl ct stats
  nfctl ct stats --interval 1s`,
		})
}

func newExpectStats(a *app) *cobra.Command {
	return newStats(a, &statsOptions{counters: ct.ExpectCounters, subject: format.ExpectStats,
		read: (*ct.Conn).ExpectStats},
		&cobra.Command{
			Short: "Print the kernel's counters of expectations, for each processor and together",
			Long: `Prints what the kernel counts of expectations, for each processor and all together.
With --interval it prints again and again, with what each grew by a second.`,
			Example: "  nfctl expect stats\n  nfctl expect stats --interval 1s -o json",
		})
}

// newStats adds to c what both have.
func newStats(a *app, o *statsOptions, c *cobra.Command) *cobra.Command {
	width := 0
	for _, k := range o.counters {
		width = max(width, len(k.Name)+1)
	}
	c.Long += "\n\n"
	for _, k := range o.counters {
		c.Long += fmt.Sprintf("  %-*s %s\n", width, k.Name, k.Doc)
	}
	c.Use, c.Args = "stats", noArgs
	c.RunE = func(c *cobra.Command, _ []string) error { return a.stats(c, o) }
	f := c.Flags()
	f.SortFlags = false
	durationFlag(f, &o.interval, "interval", "print again after this time, with what the counters grew by a second")
	o.stream.repeats(f)
	keepPrivilegesFlag(f, &o.keep)
	a.prints(c, format.Generic, paths(o.subject().Fields))
	return c
}

// stats prints counters, once or again and again.
func (a *app) stats(c *cobra.Command, o *statsOptions) error {
	if err := o.stream.repeated(o.interval); err != nil {
		return err
	}
	out, err := a.outputOf(o.interval > 0)
	if err != nil {
		return err
	}
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	p, k, err := printTo(a, o.subject(), out, format.Options{})
	if err != nil {
		return err
	}
	st := o.stream.start(a, c.Context(), func() {}, endPatience)
	defer st.Stop()
	if o.interval > 0 && !o.keep {
		a.lessPrivileges(unix.CAP_NET_ADMIN) // asked for with every request
	}
	var before []ct.CPUStats
	var at time.Time
	for {
		cpus, err := o.read(conn)
		if errors.Is(err, unix.EPERM) { // any user may read some of them in /proc
			if some, e := ct.ProcStats(o.counters); e == nil {
				cpus, err = some, nil
			}
		}
		if err != nil {
			return err
		}
		now := time.Now()
		if st.Take() && !a.quiet {
			for _, line := range format.StatLines(cpus, before, now.Sub(at)) {
				k.b = p.Append(k.b, &line)
			}
			k.b = p.Flush(k.b)
			if err := k.flush(); err != nil {
				return err
			}
		}
		before, at = cpus, now
		if o.interval == 0 {
			break
		}
		select {
		case <-st.Done():
		case <-time.After(o.interval):
			continue
		}
		break
	}
	return cmp.Or(finishPrint(p, k), o.stream.result(st))
}
