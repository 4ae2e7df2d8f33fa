// Package publish reads a table's events and sends them to the stream: a Source for
// each network namespace fills a spool.Queue, a Sender empties it.
package publish

import (
	"bytes"
	"context"
	"sync/atomic"
	"time"

	"nfctl/fleet/internal/spool"
	"nfctl/fleet/internal/wire"
	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// chunk is how many bytes of lines are gathered before they go to the queue at once.
const chunk = 64 << 10

// Options say what a Source reads.
type Options struct {
	Flows    table.Watch[ct.Flow]
	Expects  bool // expectations, too
	Snapshot time.Duration
	Buffer   int  // of the socket, in bytes; 0: ct.DefaultBuffer()
	Reliable bool // see ct.WatchOptions

	// Full is told of each time that the queue has no room.
	Full func()
}

// Counts are what a Source has done.
type Counts struct {
	Events, Listed    atomic.Uint64 // lines
	Snapshots         atomic.Uint64
	SocketLost        atomic.Uint64 // events, as far as they could be counted
	SocketGaps        atomic.Uint64
	SpoolLost         atomic.Uint64 // events
	SpoolGaps         atomic.Uint64
	FlowsInSnapshot   atomic.Uint64
	ExpectsInSnapshot atomic.Uint64
}

// A Source is one table's events on their way to a queue.
type Source struct {
	Counts
	o Options
	q *spool.Queue
	w *ct.Watcher

	flows   *format.Printer[ct.Flow]
	expects *format.Printer[ct.Expect]
	losses  *format.Printer[format.Loss]
	marks   *format.Printer[format.Mark]

	buf     []byte
	n       int
	kind    wire.Kind
	digest  wire.Digest
	full    bool   // the queue has no room, and nobody was told of it yet
	dropped uint64 // events that have found none since
}

// NewSource opens the subscription, in the calling thread's network namespace. Run is
// to be called there too.
func NewSource(o Options, q *spool.Queue) (*Source, error) {
	s := &Source{o: o, q: q, buf: make([]byte, 0, chunk+8<<10)}
	out := format.Output{Format: format.JSON}
	var err error
	if s.flows, err = format.New(format.Flows, out, format.Options{Stream: true}); err != nil {
		return nil, err
	}
	if s.expects, err = format.New(format.Expects, out, format.Options{Stream: true}); err != nil {
		return nil, err
	}
	if s.losses, err = format.NewAside(format.Losses, out); err != nil {
		return nil, err
	}
	if s.marks, err = format.NewAside(format.Marks, out); err != nil {
		return nil, err
	}
	w := ct.WatchOptions{Flows: ct.AllEvents, Match: o.Flows.Conds, Buffer: o.Buffer, Reliable: o.Reliable,
		Resync: o.Snapshot}
	if o.Expects {
		w.Expects = ct.EventNew | ct.EventDestroy
	}
	if s.w, err = ct.OpenWatch(w); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends the subscription.
func (s *Source) Close() { s.w.Close() }

// Run reads until ctx ends, and what has happened by then. The first lines are a
// snapshot.
func (s *Source) Run(ctx context.Context) error {
	s.w.AskResync()
	return s.w.Run(ctx, ct.Handler{Flow: s.flow, Expect: s.expect, Lost: s.lost, Mark: s.mark, Rest: s.rest})
}

func (s *Source) flow(f *ct.Flow) error {
	if s.o.Flows.Show != nil && !s.o.Flows.Show(f) {
		return nil
	}
	k := s.begin(f.Event == ct.Existing)
	start := len(s.buf)
	s.buf = s.flows.Append(s.buf, f)
	s.end(k, start)
	return nil
}

func (s *Source) expect(e *ct.Expect) error {
	k := s.begin(e.Event == ct.Existing)
	start := len(s.buf)
	s.buf = s.expects.Append(s.buf, e)
	s.end(k, start)
	return nil
}

// begin makes ready for a line, of a listing or an event.
func (s *Source) begin(listed bool) wire.Kind {
	k := wire.Events
	if listed {
		k = wire.Snapshot
	}
	if s.n > 0 && (s.kind != k || s.n == wire.MaxLines || len(s.buf) >= chunk) {
		s.flush()
	}
	s.kind = k
	return k
}

func (s *Source) end(k wire.Kind, start int) {
	s.n++
	if k == wire.Snapshot {
		s.Listed.Add(1)
		s.digest.Add(s.buf[start:])
	} else {
		s.Events.Add(1)
	}
}

func (s *Source) lost(l ct.Lost) error {
	s.SocketGaps.Add(1)
	s.SocketLost.Add(l.Count)
	s.begin(false)
	s.buf = s.losses.Append(s.buf, &format.Loss{
		Time:  l.Time,
		Count: l.Count,
		Known: l.Known,
		Where: "socket",
		Queue: -1,
	})
	s.n++
	return nil
}

func (s *Source) mark(m ct.Mark) error {
	s.begin(true)
	start := len(s.buf)
	s.buf = s.marks.Append(s.buf, &format.Mark{Kind: m.Kind.String(), Time: m.Time, Flows: m.Flows, Expects: m.Expects,
		NoEvents: m.NoEvents})
	s.n++
	if m.Kind == ct.MarkResync {
		s.digest = wire.Digest{}
		return nil
	}
	s.Snapshots.Add(1)
	s.FlowsInSnapshot.Store(m.Flows)
	s.ExpectsInSnapshot.Store(m.Expects)
	s.buf = append(s.buf[:start], wire.AppendDigest(bytes.Clone(s.buf[start:]), &s.digest)...)
	return nil
}

func (s *Source) rest() error {
	s.flush()
	return nil
}

// flush hands over the lines that were gathered. Events that find no room are counted;
// a line says so as soon as there is some, and a snapshot follows. Of a snapshot that
// is cut nothing is counted: its digest tells.
func (s *Source) flush() {
	if s.n == 0 {
		return
	}
	if s.full && s.q.Room() {
		l := format.Loss{Time: uint64(time.Now().UnixNano()), Count: s.dropped, Known: true, Where: "spool", Queue: -1}
		if s.dropped == 0 || s.q.Push(wire.Events, s.losses.Append(nil, &l), 1) {
			s.full, s.dropped = false, 0
			s.w.AskResync()
		}
	}
	if s.full || !s.q.Push(s.kind, s.buf, s.n) {
		if !s.full {
			s.full = true
			s.SpoolGaps.Add(1)
			if s.o.Full != nil {
				s.o.Full()
			}
		}
		if s.kind == wire.Events {
			s.dropped += uint64(s.n)
			s.SpoolLost.Add(uint64(s.n))
		}
	}
	s.buf, s.n = s.buf[:0], 0
}

// Lost returns how many events found no room and are told of by no line.
func (s *Source) Lost() uint64 { return s.dropped }

// Buffer returns the size in bytes of the socket's receive buffer.
func (s *Source) Buffer() int { return s.w.Buffer }
