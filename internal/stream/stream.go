// Package stream ends what runs until something ends it: a signal, a limit, a reader or a
// network namespace that has gone.
package stream

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
)

// Why a stream ended otherwise than it was asked to, see Result.
var (
	ErrGone  = errors.New("the network namespace is gone")
	ErrShort = errors.New("ended before all had come")
	ErrFail  = errors.New("what is a failure has come")
)

// Why a stream ended as it was asked to.
var (
	errSignal = errors.New("signal")
	errCount  = errors.New("count")
	errMet    = errors.New("met")
	errReader = errors.New("reader gone")
)

// Options say when a stream ends by itself, and what it does at signals.
type Options struct {
	Count     uint64        // objects; 0: any number
	Duration  time.Duration // of the whole; 0: without end
	Idle      time.Duration // since something came; 0: it may be idle
	Namespace string        // a network namespace by name, process id or path; "": this one

	Totals func() // is called at SIGUSR1
	// Patience is how long the stream may take to end after a signal: its reader may have
	// stalled. 0: for ever, or until a second signal.
	Patience time.Duration
	// Hangup is called at SIGHUP; nil: that ends the program, or is somebody else's.
	Hangup func()
	// Exit ends the program at once, with a status.
	Exit func(status int)
}

// A Stream is one running stream: its context ends at SIGINT and SIGTERM, after Duration
// or Idle, or when Take or Met say that the last object was seen.
type Stream struct {
	context.Context
	o      Options
	cancel context.CancelCauseFunc
	seen   atomic.Uint64
	failed atomic.Bool
	last   atomic.Int64 // unix nanoseconds of the latest object
}

// Start begins a stream. A second SIGINT or SIGTERM ends the program at once, as does
// the first when Patience has passed. The caller calls Stop in the end.
func Start(parent context.Context, o Options) *Stream {
	ctx, cancel := context.WithCancelCause(parent)
	s := &Stream{Context: ctx, o: o, cancel: cancel}
	s.Touch()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGUSR1)
	if o.Hangup != nil {
		signal.Notify(signals, unix.SIGHUP)
	}
	go s.wait(signals)
	if o.Namespace != "" {
		go s.endWithNamespace()
	}
	return s
}

func statusOf(sig os.Signal) int { return 128 + int(sig.(unix.Signal)) }

func (s *Stream) wait(signals <-chan os.Signal) {
	var end, idle, late <-chan time.Time
	var first os.Signal
	if s.o.Duration > 0 {
		end = time.After(s.o.Duration)
	}
	if s.o.Idle > 0 {
		tick := time.NewTicker(max(s.o.Idle/10, 10*time.Millisecond))
		defer tick.Stop()
		idle = tick.C
	}
	for ended := false; ; {
		select {
		case sig := <-signals:
			switch {
			case sig == unix.SIGUSR1:
				s.o.Totals()
			case sig == unix.SIGHUP:
				s.o.Hangup()
			case ended:
				s.o.Totals()
				s.o.Exit(statusOf(sig))
			default:
				ended, first = true, sig
				s.cancel(errSignal)
				if s.o.Patience > 0 {
					late = time.After(s.o.Patience)
				}
			}
		case <-late:
			s.o.Totals()
			s.o.Exit(statusOf(first))
		case <-end:
			s.cancel(ErrShort)
		case <-idle:
			if time.Since(time.Unix(0, s.last.Load())) >= s.o.Idle {
				s.cancel(ErrShort)
			}
		}
	}
}

// Take counts one more object and reports whether it is to be shown: the ones behind the
// last of Count are not.
func (s *Stream) Take() bool {
	n := s.seen.Add(1)
	if s.o.Count == 0 {
		return true
	}
	if n >= s.o.Count {
		s.cancel(errCount)
	}
	return n <= s.o.Count
}

// Touch tells that something came, for Idle.
func (s *Stream) Touch() { s.last.Store(time.Now().UnixNano()) }

// EndWithReader ends the stream when w is a pipe or socket whose reader has gone,
// also while there is nothing to write that would fail.
func (s *Stream) EndWithReader(w io.Writer) {
	if f, ok := w.(*os.File); ok {
		go s.endWithReader(f)
	}
}

func (s *Stream) endWithReader(f *os.File) {
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

// endWithNamespace ends the stream when what Namespace names is gone: nothing more
// will come, and the stream would keep the namespace and its interfaces alive.
func (s *Stream) endWithNamespace() {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if nl.NamespaceGone(s.o.Namespace) {
				s.cancel(ErrGone)
				return
			}
		case <-s.Done():
			return
		}
	}
}

// Stop gives the stream's resources back.
func (s *Stream) Stop() { s.cancel(context.Canceled) }

// Met ends the stream because what it waited for has come.
func (s *Stream) Met() { s.cancel(errMet) }

// Signalled reports whether a signal ended the stream.
func (s *Stream) Signalled() bool { return context.Cause(s) == errSignal }

// Fail ends the stream because what is a failure has come.
func (s *Stream) Fail() {
	s.failed.Store(true) // also where the same object is the last of Count
	s.cancel(ErrFail)
}

// Result returns ErrGone, ErrShort or ErrFail, where the namespace, the time or Fail ended
// the stream, and else nil.
func (s *Stream) Result() error {
	if s.failed.Load() {
		return ErrFail
	}
	if cause := context.Cause(s); cause == ErrGone || cause == ErrShort {
		return cause
	}
	return nil
}

// Interruptible returns a context that SIGINT and SIGTERM end. Where what it is for does
// not end in turn, because whoever reads its output has stalled, late is called, with
// the status for the end of the program: when patience has passed or, if that is 0, at a
// second signal. stop gives the resources back.
func Interruptible(
	parent context.Context, patience time.Duration, late func(status int),
) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	stopped := make(chan struct{})
	go func() {
		var sig os.Signal
		select {
		case sig = <-signals:
		case <-stopped:
			return
		}
		cancel()
		var passed <-chan time.Time
		again := signals
		if patience > 0 {
			passed, again = time.After(patience), nil
		}
		select {
		case <-passed:
		case sig = <-again:
		case <-stopped:
			return
		}
		late(statusOf(sig))
	}()
	return ctx, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(stopped)
		cancel()
	})
}
