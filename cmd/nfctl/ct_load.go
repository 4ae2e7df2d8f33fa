package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/nl"
	"nfctl/internal/say"
	"nfctl/internal/table"
)

// ctLoadOptions are the flags of 'nfctl ct load'.
type ctLoadOptions struct {
	noun           string // what the command is about
	file           string // "-": standard input
	orUpdate       bool
	strict, dryRun bool
	createMaster   bool // of expectations
	labelmap       string
	zones          table.ZoneMap
}

func newCtLoad(a *app) *cobra.Command {
	return newLoad(a, &ctLoadOptions{noun: flowKind.noun}, &cobra.Command{
		Short: "Make the flows that 'ct save' wrote",
		Long: `Makes the flows that a file, or standard input, describes: lines of 'ct save', of
conntrack(8)'s -o save, and of -o json, also mixed, and the expectations among them,
as 'expect load' does; and what others list: conntrack -L, with -o extended or xml, and
/proc/net/nf_conntrack, of which less is known. Lines are applied in their order.
One that cannot be read, or that the kernel refuses, is reported with its number, and
the rest is loaded all the same; the status is 1 then. Flows that are there already
are left alone, but lines that begin with -I ask for a new one. A flow that another
one expected waits for that one, to the end of the input or the listing. Status bits
that only the kernel sets are passed over. Input from a slow pipe is loaded as its
lines arrive.

With --or-update a stream of 'ct watch -o json' is followed: what began or changed is
made or changed so, what ended is deleted. Records between the flows are passed over;
one that tells of lost events is told and counted. 'ct watch --not-by load' on the
other machine leaves out what a load there did, so that streams each way do not go
round in a circle.

A packet that refreshes a flow's timeout makes no event. So the copy of a UDP flow
ends after its timeout though the flow lives, and the copy of a TCP connection after
that of its state; 'ct watch --resync' lists the table again before that.`,
		Example: `  nfctl ct load flows
  nfctl --netns old ct save | nfctl --netns new ct load
  conntrack -L | nfctl --netns new ct load
  nfctl ct load flows --dry-run
  ssh router nfctl ct watch --with-existing --resync 20s -o json | nfctl ct load --or-update`,
	})
}

// newExpectLoad is 'ct load', which can make the masters of expectations.
func newExpectLoad(a *app) *cobra.Command {
	o := &ctLoadOptions{noun: expectKind.noun}
	c := newLoad(a, o, &cobra.Command{
		Short: "Make the expectations that 'expect save' wrote",
		Long: `Makes the expectations that a file, or standard input, describes: lines of 'expect
save' and of -o json, and the flows among them, as 'ct load' does, also mixed. A line
that cannot be read, or that the kernel refuses, is reported with its number, and the
rest is loaded all the same; the status is 1 then. What is there already is left
alone.

The master of an expectation must be in the table, or among the lines, and have its
helper; --create-master makes it otherwise.

With --or-update a stream of 'expect watch -o json' or 'nfctl watch -o json' is
followed: what began is made, what ended is deleted. Events do not tell an
expectation's zone: it is looked for where a flow like its master is.`,
		Example: `  nfctl expect load expectations
  nfctl expect save | nfctl --netns new expect load --create-master
  ssh router nfctl watch --with-existing -o json | nfctl expect load --or-update`,
	})
	c.Flags().BoolVar(&o.createMaster, "create-master", false,
		"make the master of an expectation, with the helper that its line names, when\n"+
			"neither the table nor the lines have it")
	return c
}

// newLoad adds to c what 'ct load' and 'expect load' have both.
func newLoad(a *app, o *ctLoadOptions, c *cobra.Command) *cobra.Command {
	c.Use, c.Aliases = "load [FILE]", []string{"restore"}
	c.Args, c.ValidArgsFunction = cobra.MaximumNArgs(1), completeFiles
	c.RunE = func(c *cobra.Command, args []string) error {
		if o.file = "-"; len(args) > 0 {
			o.file = args[0]
		}
		return a.ctLoad(c, o)
	}
	f := c.Flags()
	f.SortFlags = false
	f.BoolVar(&o.orUpdate, "or-update", false, "update "+o.noun+
		"s that exist, and delete those of which an\nevent says that they ended")
	f.BoolVar(&o.strict, "strict", false, "stop at the first line that fails")
	f.BoolVar(&o.dryRun, "dry-run", false, "only read the lines")
	zoneMapFlag(c, &o.zones)
	f.StringVar(&o.labelmap, "labelmap", "", "read the names of labels from this `file` (default "+ct.LabelFile+")")
	return c
}

func (a *app) ctLoad(c *cobra.Command, o *ctLoadOptions) error {
	if o.labelmap != "" {
		if err := ct.LoadLabels(o.labelmap); err != nil {
			return named("--labelmap", err)
		}
	}
	name, in, size := "standard input", a.in, int64(0)
	if o.file != "-" {
		f, err := os.Open(o.file)
		if errors.Is(err, os.ErrNotExist) {
			return usagef("%w", err)
		}
		if err != nil {
			return &statusError{code: exitFailed, err: err}
		}
		defer f.Close()
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			size = st.Size()
		}
		name, in = o.file, f
	}
	ctx, stop := a.interruptible(c, o.noun, "loaded")
	defer stop()
	bar, endBar := a.bar(name, size)
	failed := 0
	done, err := table.Load(ctx, in, table.LoadOptions{
		OrUpdate: o.orUpdate, Strict: o.strict, DryRun: o.dryRun, CreateMaster: o.createMaster, Progress: bar,
		Zones: o.zones,
		Applied: func(expect bool) {
			if expect {
				a.changed.expect()
			} else {
				a.changed.flow()
			}
		},
		Failed: func(bad *format.LineError) {
			if failed++; failed > maxFailures { // how many there were is said at the end
				return
			}
			if bad.Text != "" {
				a.line("nfctl: %s: %v", name, bad)
			} else {
				a.line("nfctl: %s: line %d: %v", name, bad.Line, bad.Err)
			}
		},
		Lost: func(line int, l format.Loss) {
			what := "events, nobody knows how many,"
			if l.Known {
				what = plural(l.Count, "event")
			}
			a.warn("%s: line %d: %s were lost here: flows may be missing, out of date or long gone", name, line, what)
		},
	})
	endBar()
	var refused *nl.OpError
	if errors.As(err, &refused) && done.Lines == 0 { // nothing was begun
		return err
	}
	if o.dryRun {
		a.total("%s read, %s failed", amount(flowKind.noun, done.Made+done.Deleted, done.Expects),
			plural(done.Failed, "line"))
	} else {
		a.total("%s", loadTotals(o, &done))
	}
	if done.Masters > 0 {
		a.total("%s made for expectations", plural(done.Masters, "master"))
	}
	if done.Evicted > 0 {
		a.warn("%s had to go: a helper's limit of expectations for a master is reached",
			plural(done.Evicted, "expectation"))
	}
	if done.LabelsDropped {
		a.warn("labels were not stored: no rule of this namespace uses them")
		a.hint("make a rule that does, as iptables -m connlabel or nft ct label set, and load again with --or-update")
	}
	if done.Untranslated {
		a.hint("some flows are translated (NAT), but no NAT chain is registered here, so that the kernel does not " +
			"translate their packets: load the firewall's rules first")
	}
	switch {
	case errors.Is(err, table.ErrStrict):
		return &statusError{code: exitFailed, err: fmt.Errorf("%s: %w (--strict)", name, err)}
	case err != nil && !errors.As(err, &refused) && ctx.Err() == nil:
		return fmt.Errorf("%s: %w", name, err)
	case err != nil:
		return ended(ctx, err)
	case done.Failed > 0:
		return &statusError{code: exitFailed, err: fmt.Errorf("%s: %d of %s failed", name, done.Failed,
			plural(done.Lines, "line")), hint: hintFor(done.First, exitCode(done.First))}
	}
	return nil
}

// loadTotals says what a load did.
func loadTotals(o *ctLoadOptions, done *table.Loaded) string {
	text := amount(flowKind.noun, done.Made, done.Expects) + " made"
	if o.orUpdate { // the kernel does not say which
		text += " or changed"
	}
	if done.Deleted > 0 {
		text += fmt.Sprintf(", %d deleted", done.Deleted)
	}
	if done.Gone > 0 {
		text += fmt.Sprintf(", %d gone already", done.Gone)
	}
	if done.There > 0 {
		text += fmt.Sprintf(", %d already there", done.There)
	}
	if done.Failed > 0 {
		text += ", " + plural(done.Failed, "line") + " failed"
	}
	switch {
	case done.LostMore:
		text += fmt.Sprintf(", %d or more events lost before they came here", done.Lost)
	case done.Lost > 0:
		text += ", " + plural(done.Lost, "event") + " lost before they came here"
	}
	return text
}

// bar shows on a terminal how far a long load is: it is told so at every tick of a
// clock. end takes it away.
func (a *app) bar(name string, size int64) (tick func(read int64), end func()) {
	if !isTerminal(a.err) || a.quiet {
		return nil, func() {}
	}
	show := func(s string) {
		if m, ok := a.err.(*say.Writer); ok {
			m.Raw([]byte(s))
		}
	}
	n := 0
	tick = func(read int64) {
		if n++; n > 4 { // short loads show nothing
			show("\r\x1b[K" + say.Harmless(name, false) + ": " + progress(read, size))
		}
	}
	return tick, func() {
		if n > 4 {
			show("\r\x1b[K")
		}
	}
}

// progress draws how much of size bytes was read; size 0: of what has no end.
func progress(read, size int64) string {
	if size <= 0 {
		return fmt.Sprintf("%d KiB", read>>10)
	}
	const width = 30
	read = min(read, size)
	full := int(read * width / size)
	return fmt.Sprintf("[%s%s] %d%%", strings.Repeat("=", full), strings.Repeat(" ", width-full), read*100/size)
}
