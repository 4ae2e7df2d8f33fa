package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
)

// ctStatsOptions are the flags of 'nfctl ct stats'.
type ctStatsOptions struct {
	interval time.Duration
	keep     bool
	stream   streamFlags
}

func newCtStats(a *app) *cobra.Command {
	o := &ctStatsOptions{}
	var doc strings.Builder
	for _, k := range ct.StatsCounters {
		fmt.Fprintf(&doc, "  %-15s %s\n", k.Name, k.Doc)
	}
	c := &cobra.Command{
		Use:   "stats",
		Short: "Print the kernel's counters, for each processor and together",
		Long: `Prints the counters that the kernel keeps of connection tracking, for each
processor and all together. With --interval it prints again and again, with what
each grew by a second. The kernel's counters wrap at 32 bits.

` + doc.String(),
		Example: `  nfctl ct stats
  nfctl ct stats --interval 1s`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.ctStats(c, o) },
	}
	o.register(c.Flags())
	a.prints(c, format.Generic, paths(format.FlowStats().Fields))
	return c
}

func (o *ctStatsOptions) register(f *pflag.FlagSet) {
	f.SortFlags = false
	durationFlag(f, &o.interval, "interval", "print again after this time, with what the counters grew by a second")
	o.stream.repeats(f)
	keepPrivilegesFlag(f, &o.keep)
}

func (a *app) ctStats(c *cobra.Command, o *ctStatsOptions) error {
	return a.stats(c, o, format.FlowStats(), ct.StatsCounters, (*ct.Conn).Stats)
}

// stats prints counters, once or again and again.
func (a *app) stats(c *cobra.Command, o *ctStatsOptions, s *format.Subject[format.Stats], counters []ct.Counter,
	read func(*ct.Conn) ([]ct.CPUStats, error)) error {
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
	p, k, err := printTo(a, s, out, format.Options{})
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
		cpus, err := read(conn)
		if errors.Is(err, unix.EPERM) { // any user may read some of them in /proc
			if some, e := ct.ProcStats(counters); e == nil {
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
