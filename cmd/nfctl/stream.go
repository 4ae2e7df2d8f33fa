package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"nfctl/internal/process"
	"nfctl/internal/stream"
	"nfctl/internal/table"
)

// streamFlags say when a stream ends by itself.
type streamFlags struct {
	count          uint64
	until, failIf  string
	duration, idle time.Duration
	file           fileFlags
}

func (s *streamFlags) register(f *pflag.FlagSet, what string) {
	f.Uint64Var(&s.count, "count", 0, "end after `N` "+what)
	f.StringVar(&s.until, "until", "", "end at the first of the "+what+
		" that an `expression` holds for, after printing it")
	f.StringVar(&s.failIf, "fail-if", "", "end with status 1 at the first of the "+what+
		" that an `expression` holds for, after printing it")
	durationFlag(f, &s.duration, "duration", "end after this time")
	durationFlag(f, &s.idle, "idle", "end when nothing has come for this time")
	s.file.register(f)
}

// ends are the expressions that end a watch.
func (s *streamFlags) ends() table.Ends { return table.Ends{Until: s.until, FailIf: s.failIf} }

// repeats adds the flags of commands that print again and again with --interval.
func (s *streamFlags) repeats(f *pflag.FlagSet) {
	f.Uint64Var(&s.count, "count", 0, "with --interval, end after `N` times")
	durationFlag(f, &s.duration, "duration", "with --interval, end after this time")
}

// repeated refuses those flags without an interval.
func (s *streamFlags) repeated(interval time.Duration) error {
	if interval == 0 && (s.count > 0 || s.duration > 0) {
		return usagef("--count and --duration go with --interval")
	}
	return nil
}

// endPatience is how long a command that only reads may take to end after a signal:
// its reader may have stalled.
const endPatience = 500 * time.Millisecond

// start begins a stream; see stream.Options for totals and patience.
func (s *streamFlags) start(a *app, parent context.Context, totals func(), patience time.Duration) *stream.Stream {
	if s.file.out != nil { // which no reader stalls
		patience = 0
	}
	return stream.Start(parent, stream.Options{Count: s.count, Duration: s.duration, Idle: s.idle, Namespace: a.netns,
		Totals: totals, Patience: patience, Hangup: s.file.hangup(a), Exit: a.exit})
}

// errFailIf says that a stream ended because it was to fail.
var errFailIf = errors.New("ended by --fail-if")

// result is the status of a stream that has ended: 3 when --count or --until was asked
// for and something else ended it by itself.
func (s *streamFlags) result(st *stream.Stream) error {
	switch err := st.Result(); {
	case errors.Is(err, stream.ErrFail):
		return &statusError{code: exitFailed, err: errFailIf}
	case errors.Is(err, stream.ErrShort) && (s.count > 0 || s.until != ""):
		return &statusError{code: exitNotFound}
	case errors.Is(err, stream.ErrGone):
		return &statusError{code: exitFailed, err: err}
	}
	return nil
}

// notReady takes a file away that an earlier run has left to say that it was ready.
func (a *app) notReady(path string) error {
	switch err := process.Prepare(path); {
	case errors.Is(err, process.ErrNoFile):
		return usagef("--ready-file %s: %w", path, err)
	case err != nil:
		return fmt.Errorf("--ready-file: %w", err)
	}
	return nil
}

// watchdog returns what tells systemd that so many loops go on; nil: it did not ask.
func (a *app) watchdog(loops int) *process.Watchdog {
	w, err := process.NewWatchdog(loops)
	if err != nil {
		a.warn("systemd's watchdog is not answered: %v", err)
	}
	return w
}

// readyNow tells whoever started nfctl that it works: a file that it names is made,
// which goes at the end, and systemd is notified when it asked to be.
func (a *app) readyNow(path string) error {
	if err := a.ready.Say(path); err != nil {
		return fmt.Errorf("--ready-file: %w", err)
	}
	if err := process.Notify(); err != nil {
		a.warn("systemd is not told that nfctl is ready: %v", err)
	}
	return nil
}
