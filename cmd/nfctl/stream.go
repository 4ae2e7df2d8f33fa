package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
	"nfctl/internal/process"
)

// Why a stream ended: none but the last is a failure.
var (
	errSignal   = errors.New("signal")
	errCount    = errors.New("--count")
	errUntil    = errors.New("--until")
	errDuration = errors.New("--duration")
	errIdle     = errors.New("--idle")
	errReader   = errors.New("reader gone")
	errGone     = errors.New("the network namespace is gone")
)

// streamFlags say when a stream ends by itself.
type streamFlags struct {
	count          uint64
	until          string
	duration, idle time.Duration
}

func (s *streamFlags) register(f *pflag.FlagSet, what string) {
	f.Uint64Var(&s.count, "count", 0, "end after `N` "+what)
	f.StringVar(&s.until, "until", "", "end at the first of the "+what+
		" that an `expression` holds for, after printing it")
	durationFlag(f, &s.duration, "duration", "end after this time")
	durationFlag(f, &s.idle, "idle", "end when nothing has come for this time")
}

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

// A stream is one running stream: its context ends at a signal, after
// --duration or --idle, or when saw or met say that the last object was seen.
type stream struct {
	context.Context
	flags  streamFlags
	cancel context.CancelCauseFunc
	seen   atomic.Uint64
	last   atomic.Int64 // unix nanoseconds of the latest object

	a        *app
	patience time.Duration
}

// endPatience is how long a command that only reads may take to end after a signal:
// its reader may have stalled.
const endPatience = 500 * time.Millisecond

// start begins a stream. totals is called at SIGUSR1; a second SIGINT or SIGTERM
// ends the program at once, as does, with a patience, the first when that has
// passed: for what only reads. The caller calls stop in the end.
func (s streamFlags) start(a *app, parent context.Context, totals func(), patience time.Duration) *stream {
	ctx, cancel := context.WithCancelCause(parent)
	st := &stream{Context: ctx, flags: s, cancel: cancel, patience: patience, a: a}
	st.last.Store(time.Now().UnixNano())
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGUSR1)
	go st.wait(signals, totals)
	return st
}

func (s *stream) wait(signals chan os.Signal, totals func()) {
	var end, idle, late <-chan time.Time
	var first os.Signal
	if s.flags.duration > 0 {
		end = time.After(s.flags.duration)
	}
	if s.flags.idle > 0 {
		tick := time.NewTicker(max(s.flags.idle/10, 10*time.Millisecond))
		defer tick.Stop()
		idle = tick.C
	}
	for ended := false; ; {
		select {
		case sig := <-signals:
			switch {
			case sig == unix.SIGUSR1:
				totals()
			case ended:
				totals()
				s.a.exit(128 + int(sig.(unix.Signal)))
			default:
				ended, first = true, sig
				s.cancel(errSignal)
				if s.patience > 0 {
					late = time.After(s.patience)
				}
			}
		case <-late:
			totals()
			s.a.exit(128 + int(first.(unix.Signal)))
		case <-end:
			s.cancel(errDuration)
		case <-idle:
			if time.Since(time.Unix(0, s.last.Load())) >= s.flags.idle {
				s.cancel(errIdle)
			}
		}
	}
}

// take counts one more object and reports whether it is to be shown: with
// --count, the ones behind the last are not.
func (s *stream) take() bool {
	n := s.seen.Add(1)
	if s.flags.count == 0 {
		return true
	}
	if n >= s.flags.count {
		s.cancel(errCount)
	}
	return n <= s.flags.count
}

// touch tells that something came, for --idle.
func (s *stream) touch() { s.last.Store(time.Now().UnixNano()) }

// endWithReader ends the stream when w is a pipe or socket whose reader has gone,
// also while there is nothing to write that would fail.
func (s *stream) endWithReader(w io.Writer) {
	f, ok := w.(*os.File)
	if !ok {
		return
	}
	for s.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(f.Fd())}} // errors are always polled for
		switch _, err := unix.Poll(fds, 1000); {
		case err != nil && err != unix.EINTR:
			return
		case fds[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0:
			s.cancel(errReader)
			return
		}
	}
}

// endWithNamespace ends the stream when what --netns named is gone: nothing more
// will come, and the stream would keep the namespace and its interfaces alive.
func (s *stream) endWithNamespace(spec string) {
	if spec == "" {
		return
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if nl.NamespaceGone(spec) {
				s.cancel(errGone)
				return
			}
		case <-s.Done():
			return
		}
	}
}

// stop gives the stream's resources back.
func (s *stream) stop() { s.cancel(context.Canceled) }

// met ends the stream because --until's expression held.
func (s *stream) met() { s.cancel(errUntil) }

// result is the stream's status: 3 when --count or --until was asked for and
// something else ended the stream by itself.
func (s *stream) result() error {
	cause := context.Cause(s)
	if cause == errGone {
		return &statusError{code: exitFailed, err: errGone}
	}
	wanted := s.flags.count > 0 || s.flags.until != ""
	if wanted && (cause == errDuration || cause == errIdle) {
		return &statusError{code: exitNotFound}
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
