package ct

import (
	"context"
	"errors"
	"syscall"
	"time"

	"nfctl/internal/nl"
)

// merge joins a listing to the events that come meanwhile.
//
// The two are read in turns. The kernel fills a datagram of the listing when the
// one before is read, so what it says may be as old as that: an event handed on
// since is newer. Of a flow that had one, the listing's word does not count:
// when the event was new or destroy the flow is known or gone, and after an
// update it is read again by itself. Events that come later are newer than what
// was listed, or older, and then what they say is followed by what the listing
// said again.
type merge struct {
	on     bool
	born   map[flowKey]bool  // had their new event since the listing began
	recent map[flowKey]Event // had this event since the last datagram of the listing
	seen   window

	ebirth map[uint32]bool // expectations, by id
	edead  map[uint32]bool
}

func (m *merge) begin() {
	*m = merge{on: true, born: map[flowKey]bool{}, recent: map[flowKey]Event{}, ebirth: map[uint32]bool{}, edead: map[uint32]bool{}}
}

// turn notes that a datagram of the listing was read.
func (m *merge) turn() {
	clear(m.recent)
	m.seen.turn()
}

func (m *merge) event(f *Flow) {
	k := f.key()
	switch f.Event {
	case New:
		m.born[k] = true
	case Destroy:
		delete(m.born, k)
	}
	m.recent[k] = f.Event
}

func (m *merge) expect(e *Expect) {
	switch e.Event {
	case New:
		m.ebirth[e.ID] = true
	case Destroy:
		delete(m.ebirth, e.ID)
		m.edead[e.ID] = true
	}
}

// list hands on what is there now as events of type Existing, and the events
// that come meanwhile, and then the mark.
func (w *Watcher) list(ctx context.Context, kind MarkKind) error {
	if kind == MarkResync {
		if err := w.mark(Mark{Kind: MarkResync}); err != nil {
			return err
		}
		kind = MarkResynced
	}
	w.losses = false
	end := Mark{Kind: kind}
	w.merge.begin()
	var err error
	if w.lists[0] != nil {
		end.Flows, end.NoEvents, err = w.listFlows(ctx)
	}
	if err == nil && w.lists[1] != nil {
		end.Expects, err = w.listExpects(ctx)
	}
	w.merge = merge{}
	if err != nil {
		return err
	}
	return w.mark(end)
}

func (w *Watcher) mark(m Mark) error {
	m.Time = uint64(time.Now().UnixNano())
	if w.h.Mark != nil {
		return w.h.Mark(m)
	}
	return nil
}

// chunks reads a dump datagram by datagram, and the events between them.
func (w *Watcher) chunks(ctx context.Context, c *nl.Conn, req []byte, f func(*nl.Msg) error) error {
	seq, err := c.Request(req)
	if err != nil {
		return nl.Error("list", "table", err)
	}
	buf := make([]byte, streamSize)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nl.Error("list", "table", err)
		}
		w.now = uint64(time.Now().UnixNano())
		for b := buf[:n]; ; {
			m, rest, ok := nl.NextMsg(b)
			if !ok {
				break
			}
			b = rest
			if m.Seq != seq {
				continue
			}
			if err, end := m.Status(); end {
				return nl.Error("list", "table", err)
			}
			if err := f(&m); err != nil {
				return err
			}
		}
		w.merge.turn()
		if err := w.drain(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nl.ErrStop
		}
	}
}

func (w *Watcher) listFlows(ctx context.Context) (count, noEvents uint64, err error) {
	var f, again Flow
	o := DumpOptions{}
	err = w.chunks(ctx, w.lists[0], o.request(0), func(m *nl.Msg) error {
		_ = f.Decode(m)
		g := &f
		k := f.key()
		ev, ok := w.merge.recent[k]
		switch {
		case w.merge.born[k], ok && ev == Destroy, w.merge.seen.again(&f):
			return nil
		case ok && ev == Update:
			g = &again
			err := w.get.Get(&f, g, false)
			if errors.Is(err, syscall.ENOENT) || err == nil && g.key() != k {
				return nil
			}
			if err != nil {
				return err
			}
		}
		g.Event, g.Time = Existing, w.now
		if w.EventsFrom == PolicyNone || w.EventsFrom == PolicyNewer {
			g.NoEvents = true
			noEvents++
		}
		count++
		if w.h.Flow != nil {
			return w.h.Flow(g)
		}
		return nil
	})
	return count, noEvents, err
}

func (w *Watcher) listExpects(ctx context.Context) (count uint64, err error) {
	var e Expect
	err = w.chunks(ctx, w.lists[1], appendExpectDump(nil, 0, nil), func(m *nl.Msg) error {
		_ = e.Decode(m)
		if w.merge.ebirth[e.ID] || w.merge.edead[e.ID] {
			return nil
		}
		e.Event, e.Time = Existing, w.now
		count++
		if w.h.Expect != nil {
			return w.h.Expect(&e)
		}
		return nil
	})
	return count, err
}
