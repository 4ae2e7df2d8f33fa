package publish

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nfctl/fleet/internal/bus"
	"nfctl/fleet/internal/spool"
	"nfctl/fleet/internal/wire"
)

// A Sender sends a queue's batches, one at a time: the same one again until the
// server has it. Several in flight would change places when a server fails.
type Sender struct {
	Sent, Lines, Again atomic.Uint64 // messages, lines, tries that were repeated
	Skipped            atomic.Uint64 // messages of an earlier run that the stream has

	c           *bus.Conn
	q           *spool.Queue
	host, netns string
	epoch       uint64
	last        [2]uint64    // place in the stream of each subject's newest message
	had         [2]wire.Head // what it was before this run
	warn        func(string, ...any)
}

// ErrReplaced is another publisher of the same host and namespace.
var ErrReplaced = errors.New("another publisher sends in the name of this host and namespace")

// NewSender asks the server what it has of the table. It waits until there is an
// answer, and warn is told why there is none.
func NewSender(ctx context.Context, c *bus.Conn, q *spool.Queue, host, netns string, epoch uint64,
	warn func(string, ...any)) (*Sender, error) {
	s := &Sender{c: c, q: q, host: host, netns: netns, epoch: epoch, warn: warn}
	p := pause{warn: warn, what: "no answer from the stream"}
	for k := range s.last {
		for {
			var err error
			s.last[k], s.had[k], err = c.Last(ctx, wire.Subject(host, netns, wire.Kind(k)))
			if err == nil {
				break
			}
			if err := s.fatal(ctx, err); err != nil {
				return nil, err
			}
			p.wait(ctx, err)
		}
		if s.had[k].Epoch >= epoch {
			return nil, fmt.Errorf("the stream has lines of %s, %s from %s: the clock is behind that, or %w", host,
				netns,
				time.UnixMicro(int64(s.had[k].Epoch)).UTC().Format(time.RFC3339), ErrReplaced)
		}
	}
	return s, nil
}

// fatal returns what ends the sender: the end of its time, or a connection that is of
// no more use.
func (s *Sender) fatal(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case s.c.Err() != nil:
		return s.c.Err()
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: its configuration wants 'jetstream { … }'", err)
	}
	var format *wire.FormatError
	if errors.As(err, &format) {
		return err
	}
	return nil
}

// Run sends until ctx ends, and then nothing more.
func (s *Sender) Run(ctx context.Context) error {
	for {
		b, err := s.q.Take(ctx)
		if err != nil {
			return err
		}
		if err := s.send(ctx, b); err != nil {
			return err
		}
		s.q.Done()
	}
}

// Drained reports whether everything is sent.
func (s *Sender) Drained() bool {
	lines, _, _ := s.q.Lines()
	return lines == 0
}

// has reports whether the stream had a batch of an earlier run.
func (s *Sender) has(b *spool.Batch) bool {
	for _, h := range s.had {
		if h.Epoch > b.Head.Epoch || h.Epoch == b.Head.Epoch && h.First >= b.Head.First {
			return true
		}
	}
	return false
}

// send sends a batch until the server has it.
func (s *Sender) send(ctx context.Context, b *spool.Batch) error {
	if b.Head.Epoch != s.epoch && (s.has(b) || b.Head.Host != s.host || b.Head.Netns != s.netns) {
		s.Skipped.Add(1)
		return nil
	}
	m := &nats.Msg{Subject: wire.Subject(s.host, s.netns, b.Kind), Data: b.Data}
	p := pause{warn: s.warn, what: "nothing is acknowledged"}
	wrong := 0
	for try := 0; ; try++ {
		if try > 0 {
			s.Again.Add(1)
		}
		one, cancel := context.WithTimeout(ctx, bus.AskTimeout)
		ack, err := s.c.JS.PublishMsg(one, m, jetstream.WithMsgID(b.Head.ID()), jetstream.WithRetryAttempts(0),
			jetstream.WithExpectLastSequencePerSubject(s.last[b.Kind]))
		cancel()
		if err == nil {
			if ack.Duplicate && try == 0 {
				return fmt.Errorf("%w: the stream has message %s already", ErrReplaced, b.Head.ID())
			}
			s.last[b.Kind] = ack.Sequence
			s.Sent.Add(1)
			s.Lines.Add(uint64(b.Head.Count))
			p.over()
			return nil
		}
		if err := s.fatal(ctx, err); err != nil {
			return err
		}
		var api *jetstream.APIError
		if errors.As(err, &api) {
			switch api.ErrorCode {
			case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
				there, err := s.look(ctx, b)
				if err != nil {
					return err
				}
				if there {
					s.Sent.Add(1)
					s.Lines.Add(uint64(b.Head.Count))
					return nil
				}
				if wrong++; wrong < 3 {
					continue
				}
			case jetstream.JSErrCodeStreamMessageExceedsMaximum:
				return fmt.Errorf("%w: the stream's or server's limit is under %d bytes", err, len(b.Data))
			}
		}
		p.wait(ctx, err)
	}
}

// look finds out what the newest message of a batch's subject is, when it is not the
// one that was thought, and whether it is the batch: the acknowledgement was lost.
func (s *Sender) look(ctx context.Context, b *spool.Batch) (there bool, err error) {
	seq, head, err := s.c.Last(ctx, wire.Subject(s.host, s.netns, b.Kind))
	if err != nil {
		return false, s.fatal(ctx, err)
	}
	if seq != 0 && head.Epoch > b.Head.Epoch || seq != 0 && head.Epoch == b.Head.Epoch && head.First > b.Head.First {
		return false, fmt.Errorf("%w: since %s", ErrReplaced,
			time.UnixMicro(int64(head.Epoch)).UTC().Format(time.RFC3339))
	}
	s.last[b.Kind] = seq
	return seq != 0 && head.ID() == b.Head.ID(), nil
}

// A pause between tries grows. Who waits is told once a minute why.
type pause struct {
	warn  func(string, ...any)
	what  string
	d     time.Duration
	began time.Time
	told  time.Time
}

const (
	firstPause = 20 * time.Millisecond
	mostPause  = 2 * time.Second
	tellAfter  = 3 * time.Second
	tellEvery  = time.Minute
)

func (p *pause) wait(ctx context.Context, err error) {
	now := time.Now()
	if p.d == 0 {
		p.d, p.began = firstPause, now
	}
	if now.Sub(p.began) >= tellAfter && now.Sub(p.told) >= tellEvery {
		p.told = now
		p.warn("%s for %s: %v; trying on", p.what, now.Sub(p.began).Round(time.Second), err)
	}
	select {
	case <-time.After(p.d/2 + rand.N(p.d)):
	case <-ctx.Done():
	}
	p.d = min(2*p.d, mostPause)
}

func (p *pause) over() {
	if !p.told.IsZero() {
		p.warn("acknowledged again after %s", time.Since(p.began).Round(time.Second))
	}
}
