package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/stream"
)

func newCt(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "conntrack",
		Aliases: []string{"ct"},
		Short:   "The connection tracking table: list, change, watch, save and load",
		Long: `Works on the kernel's connection tracking table of this network namespace, or of
the one that --netns names.

Flows are chosen by words, by flags and by expressions, all of which must hold.
Flows in words have a '>' in them and must be quoted. Of a list of values any may
be the flow's; '!' before a value means every other.`,
		Example: `  nfctl ct list 'tcp 10.0.0.0/8 > :22,443' --status '!ASSURED' --filter 'age > 60'
  nfctl ct delete --host 10.0.0.7
  nfctl ct watch --events new,destroy -o json`,
	}
	c.AddCommand(a.choose(1, []maker{
		{"list ls show", newCtList}, {"get", newCtGet}, {"create", newCtCreate}, {"update", newCtUpdate}, {"delete", newCtDelete},
		{"flush", newCtFlush}, {"count", newCtCount}, {"top", newCtTop}, {"stats", newCtStats}, {"watch", newCtWatch}, {"who", newCtWho}, {"save", newCtSave}, {"load restore", newCtLoad},
	})...)
	return c
}

// total prints how a command went, also with -q.
func (a *app) total(format string, args ...any) {
	a.line(a.me()+": "+format, args...)
}

// flows says how many there are.
func flows(n uint64) string { return plural(n, "flow") }

func plural(n uint64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// interruptible returns a context that SIGINT and SIGTERM end. Where the command
// does not end in turn, because whoever reads its output has stalled, the program
// ends: soon, when it only reads; at a second signal, when it changes something, and
// then it says how much it has changed. noun is what the command is about, done what it
// does to them: "deleted"; "" when it only reads.
func (a *app) interruptible(c *cobra.Command, noun, done string) (context.Context, func()) {
	patience := time.Duration(0)
	if done == "" {
		patience = endPatience
	}
	return stream.Interruptible(c.Context(), patience, func(status int) {
		if done != "" {
			a.total("%s %s so far", amount(noun, a.changed.flows.Load(), a.changed.expects.Load()), done)
		}
		a.line("nfctl: interrupted: output was not read to its end")
		a.exit(status)
	})
}

// A tally is what a command has changed so far, for who interrupts.
type tally struct{ flows, expects atomic.Uint64 }

func (c *tally) flow()   { c.flows.Add(1) }
func (c *tally) expect() { c.expects.Add(1) }

// amount says how many flows and expectations something is about; noun is what it is
// about when there are none.
func amount(noun string, flows, expects uint64) string {
	switch {
	case expects == 0 && flows == 0:
		return plural(0, noun)
	case expects == 0:
		return plural(flows, "flow")
	case flows == 0:
		return plural(expects, "expectation")
	}
	return plural(flows, "flow") + " and " + plural(expects, "expectation")
}

// cutShort makes an error of a reader that has gone, where that kept a command from
// changing all that it was to change.
func cutShort(err error) error {
	if errors.Is(err, unix.EPIPE) {
		return &statusError{code: exitFailed, err: errors.New("standard output was closed: not all was done")}
	}
	return err
}

// ended is what a command that was interrupted returns: what was asked for was
// done in part only.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return &statusError{code: exitFailed, err: errors.New("interrupted")}
	}
	return err
}

// A failures gathers what went wrong with single objects of many.
type failures struct {
	a     *app
	noun  string
	n     uint64
	first error
}

// maxFailures is how many are printed one by one.
const maxFailures = 20

func (x *failures) add(err error) {
	if x.n++; x.first == nil {
		x.first = err
	}
	if x.n <= maxFailures {
		x.a.line("%s: %v", x.a.me(), err)
	}
}

// result is the command's error: that of the first failure, with how many there
// were.
func (x *failures) result() error {
	if x.n == 0 {
		return nil
	}
	code := exitCode(x.first)
	if code == exitOK || code == exitUsage { // the command line was right
		code = exitFailed
	}
	return &statusError{code: code, err: fmt.Errorf("%s failed", plural(x.n, x.noun)),
		hint: hintFor(x.first, code)}
}

// dumpNote says what a dump could not promise.
func (a *app) dumpNote(r ct.DumpResult) {
	if r.Incomplete {
		a.warn("the kernel resized its table meanwhile: flows may be missing")
	}
}

// notFound is the status of --fail-empty when nothing matched.
func notFound(failEmpty bool, n uint64) error {
	if failEmpty && n == 0 {
		return &statusError{code: exitNotFound}
	}
	return nil
}

// confirm asks the terminal whether to do what cannot be undone, unless all says
// so already. Without a terminal it refuses.
func (a *app) confirm(all bool, question string) error {
	in, ok := a.in.(*os.File)
	switch {
	case all:
		return nil
	case !ok || !isTerminal(in) || !isTerminal(a.err):
		return usagef("this deletes everything: say --all, or choose what to delete")
	}
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	var answer string
	_, _ = fmt.Fscanln(in, &answer)
	if answer != "y" && answer != "Y" && answer != "yes" {
		return &statusError{code: exitFailed, err: errors.New("nothing was deleted")}
	}
	return nil
}
