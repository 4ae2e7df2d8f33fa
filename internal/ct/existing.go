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
// The two are read in turns: a datagram of the listing, then all events that are
// there, then the datagram is handed on. The kernel fills a datagram when the one
// before is read, so that all events from before it was filled have been handed
// on by then, and perhaps later ones too. Of a flow that had an event since, the
// listing's word does not count: after new it is known, after destroy gone, and
// after an update it is read again by itself. Whatever is handed on later is
// newer.
type merge struct {
	on   bool
	born map[flowKey]bool // had their new event since the listing began
	seen window

	recent [2]map[flowKey]Event         // flows that had an event in the last two turns
	shown  [shownTurns]map[flowKey]bool // flows that were listed, the last turn first

	ebirth map[uint32]bool // expectations, by id
	edead  map[uint32]bool
}

// shownTurns is for how many datagrams of a listing it is remembered what was in
// them. The kernel puts a flow into the table first and then tells of it, and
// whoever makes the flow may have to wait for a processor in between.
const shownTurns = 64

func (m *merge) begin() {
	*m = merge{on: true, born: map[flowKey]bool{}, ebirth: map[uint32]bool{}, edead: map[uint32]bool{}}
	m.turn()
	m.turn()
}

// turn notes that a datagram of the listing is to be read.
func (m *merge) turn() {
	m.recent = [2]map[flowKey]Event{{}, m.recent[0]}
	copy(m.shown[1:], m.shown[:])
	m.shown[0] = map[flowKey]bool{}
	m.seen.turn()
}

// event notes an event and reports whether it is to be handed on: the new event of
// a flow that was listed before the event could be sent is not.
func (m *merge) event(f *Flow) bool {
	k := f.key()
	m.recent[0][k] = f.Event
	switch f.Event {
	case New:
		for _, listed := range m.shown {
			if listed[k] {
				return false
			}
		}
		m.born[k] = true
	case Destroy:
		delete(m.born, k)
		// The same flow made anew can have the same id.
		for _, listed := range m.shown {
			delete(listed, k)
		}
	}
	return true
}

// list reports whether the listing's f is to be handed on, and whether it must be
// read again first.
func (m *merge) list(f *Flow) (ok, again bool) {
	k := f.key()
	ev, had := m.recent[0][k]
	if !had {
		ev, had = m.recent[1][k]
	}
	if m.born[k] || had && ev == Destroy || m.seen.again(f) {
		return false, false
	}
	m.shown[0][k] = true
	return true, had && ev == Update
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
		w.merge.turn()
		n, err := c.Read(buf)
		if err != nil {
			return nl.Error("list", "table", err)
		}
		if err := w.drain(); err != nil {
			return err
		}
		for b := buf[:n]; ; {
			m, rest, ok := nl.NextMsg(b)
			if !ok {
				break
			}
			b = rest
			if m.Seq != seq || m.Port != c.PortID() {
				continue
			}
			if err, end := m.Status(); end {
				return nl.Error("list", "table", err)
			}
			if err := f(&m); err != nil {
				return err
			}
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
		ok, reread := w.merge.list(&f)
		if !ok {
			return nil
		}
		g := &f
		if reread {
			g = &again
			err := w.get.Get(&f, g, false)
			if errors.Is(err, syscall.ENOENT) || err == nil && g.key() != f.key() {
				return nil // its end is on the way
			}
			if err != nil {
				return err
			}
		}
		w.now = uint64(time.Now().UnixNano())
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
		w.now = uint64(time.Now().UnixNano())
		e.Event, e.Time = Existing, w.now
		count++
		if w.h.Expect != nil {
			return w.h.Expect(&e)
		}
		return nil
	})
	return count, err
}
