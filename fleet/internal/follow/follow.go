// Package follow reads a table's lines from the stream, each once and in order, and
// says what is missing where it is missing.
package follow

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"nfctl/fleet/internal/bus"
	"nfctl/fleet/internal/wire"
	"nfctl/internal/format"
)

// Options say what to follow.
type Options struct {
	Stream      string
	Host, Netns string    // Netns "": every namespace of the host
	Since       time.Time // zero: not asked for
	Seq         uint64    // place in the stream to begin at; 0: not asked for

	Warn  func(format string, args ...any) // is told of messages that nobody can read
	Began func()                           // is called when the stream is being read
}

// Why something is missing, beside what the publisher itself tells.
const (
	ByPublisher = "publisher" // it began anew, and nobody watched between
	ByStream    = "stream"    // the stream no longer has it, or never had
	BySnapshot  = "snapshot"  // a snapshot arrived other than it was sent
)

// A Handler is told what comes, on one goroutine. The first error ends the Follower.
type Handler interface {
	// Line is a line with its newline, valid during the call.
	Line(host, netns string, k wire.Kind, line []byte) error
	// Lost says that something is missing before the next line.
	Lost(host, netns string, l format.Loss) error
	// Rest is called behind each message: seq is its place in the stream.
	Rest(seq uint64) error
}

// Counts are what a Follower has seen.
type Counts struct {
	Messages, Lines, Gaps, Lost, Doubled, Snapshots, Epochs, Bad atomic.Uint64
	Seq                                                          atomic.Uint64 // of the newest message
	Behind                                                       atomic.Uint64 // messages that wait in the stream
}

// A Follower reads one host's messages.
type Follower struct {
	Counts
	c      *bus.Conn
	o      Options
	h      Handler
	tables map[string]*state // by namespace
}

// state is how far one table was read.
type state struct {
	epoch, next uint64
	listing     bool
	digest      wire.Digest
}

// New returns a Follower that is to be run.
func New(c *bus.Conn, o Options, h Handler) *Follower {
	return &Follower{c: c, o: o, h: h, tables: map[string]*state{}}
}

// Run reads until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	s, err := f.c.JS.Stream(ctx, f.o.Stream)
	if err != nil {
		return fmt.Errorf("stream %s: %w", f.o.Stream, err)
	}
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{wire.Pattern(f.o.Host, f.o.Netns)},
		DeliverPolicy: jetstream.DeliverNewPolicy}
	if !f.o.Since.IsZero() {
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &f.o.Since
	}
	if f.o.Seq != 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, f.o.Seq
	}
	if f.passed(s.CachedInfo().State) {
		if err := f.lost(f.o.Host, f.o.Netns, format.Loss{Where: ByStream}); err != nil {
			return err
		}
	}
	con, err := s.OrderedConsumer(ctx, cfg)
	if err != nil {
		return fmt.Errorf("stream %s: %w", f.o.Stream, err)
	}
	it, err := con.Messages(jetstream.PullMaxMessages(100))
	if err != nil {
		return fmt.Errorf("stream %s: %w", f.o.Stream, err)
	}
	defer it.Stop()
	if f.o.Began != nil {
		f.o.Began()
	}
	end := context.AfterFunc(ctx, it.Stop)
	defer end()
	for {
		m, err := it.Next()
		if ctx.Err() != nil {
			return nil
		}
		if err := f.c.Err(); err != nil {
			return err
		}
		if err != nil {
			if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
				return fmt.Errorf("stream %s: it is gone, or may not be read: %w", f.o.Stream, err)
			}
			continue // it asks again by itself
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("stream %s: %w", f.o.Stream, err)
		}
		f.Behind.Store(meta.NumPending)
		if err := f.Message(m.Subject(), meta.Sequence.Stream, m.Data()); err != nil {
			return err
		}
	}
}

// passed reports whether the stream has dropped messages that were asked for, of this
// host or another.
func (f *Follower) passed(s jetstream.StreamState) bool {
	if s.FirstSeq <= 1 {
		return false
	}
	return f.o.Seq != 0 && f.o.Seq < s.FirstSeq || !f.o.Since.IsZero() && f.o.Since.Before(s.FirstTime)
}

// Message reads one message.
func (f *Follower) Message(subject string, seq uint64, data []byte) error {
	f.Messages.Add(1)
	f.Seq.Store(seq)
	head, lines, err := wire.Parse(data)
	kind, ok := wire.KindOf(subject)
	if err == nil && (!ok || subject != wire.Subject(head.Host, head.Netns, kind)) {
		err = fmt.Errorf("it calls itself %s", wire.Subject(head.Host, head.Netns, kind))
	}
	if err != nil {
		var format *wire.FormatError
		if errors.As(err, &format) {
			return fmt.Errorf("%s, message %d: %w", subject, seq, err)
		}
		// What a publisher numbered and nobody can read is missed at the next number.
		f.Bad.Add(1)
		f.o.Warn("%s, message %d: %v", subject, seq, err)
		return f.h.Rest(seq)
	}
	t := f.tables[head.Netns]
	if t == nil {
		t = &state{epoch: head.Epoch, next: head.First}
		f.tables[head.Netns] = t
	}
	switch {
	case head.Epoch < t.epoch, head.Epoch == t.epoch && head.Next() <= t.next:
		f.Doubled.Add(uint64(head.Count)) // left behind by an earlier run, or sent twice
		return f.h.Rest(seq)
	case head.Epoch > t.epoch:
		f.Epochs.Add(1)
		*t = state{epoch: head.Epoch, next: head.First}
		if err := f.lost(head.Host, head.Netns, format.Loss{Where: ByPublisher}); err != nil {
			return err
		}
		if n := head.First - 1; n > 0 {
			if err := f.lost(head.Host, head.Netns, format.Loss{Where: ByStream, Count: n, Known: true}); err != nil {
				return err
			}
		}
	case head.First > t.next:
		t.listing = false
		if err := f.lost(head.Host, head.Netns, format.Loss{
			Where: ByStream,
			Count: head.First - t.next,
			Known: true,
		}); err != nil {
			return err
		}
	}
	number := head.First
	for line := range wire.Lines(lines) {
		if number >= t.next {
			if err := f.line(t, &head, kind, line); err != nil {
				return err
			}
		}
		number++
	}
	t.next = head.Next()
	return f.h.Rest(seq)
}

func (f *Follower) line(t *state, head *wire.Head, k wire.Kind, line []byte) error {
	f.Lines.Add(1)
	if k == wire.Snapshot {
		switch mark, digest := wire.MarkOf(line); mark {
		case wire.Begin:
			t.listing, t.digest = true, wire.Digest{}
		case wire.End:
			f.Snapshots.Add(1)
			if t.listing && digest != t.digest.String() {
				if err := f.lost(head.Host, head.Netns, format.Loss{Where: BySnapshot}); err != nil {
					return err
				}
			}
			t.listing = false
		default:
			t.digest.Add(line)
		}
	}
	return f.h.Line(head.Host, head.Netns, k, line)
}

func (f *Follower) lost(host, netns string, l format.Loss) error {
	f.Gaps.Add(1)
	f.Lost.Add(l.Count)
	l.Time, l.Queue = uint64(time.Now().UnixNano()), -1
	return f.h.Lost(host, netns, l)
}
