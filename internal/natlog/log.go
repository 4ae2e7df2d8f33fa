package natlog

import (
	"net/netip"
	"sync"

	"nfctl/internal/ct"
)

// A Log makes the records of a watch. Its methods may be called from several goroutines;
// a record is valid during the call of emit.
type Log struct {
	// Emit appends a record to b, in the log's format.
	Emit func(b []byte, r *Record) []byte

	mu      sync.Mutex
	alive   map[key]entry
	round   uint8  // of listings
	listing bool   // not all is known until one ends
	lost    bool   // something since the last one began
	written uint64 // when all records before had been written
	emitted uint64 // time of the last record
	last    uint64 // of the last that is written
	clean   uint64 // when nothing had been lost: some time ago, since losses are told late
	cleaner uint64 // what becomes that
	rec     Record
}

// A key tells living flows apart: ids are hashes, of which two may be alike.
type key struct {
	id           uint32
	sport, dport uint16
	zone         uint16
	proto        uint8
	family       uint8
}

// An entry is a living flow that is translated. It has no pointers: there may be
// millions.
type entry struct {
	since                  uint64
	osrc, odst, rsrc, rdst [16]byte
	osp, odp, rsp, rdp     uint16
	src, dst               bool
	round                  uint8
}

func keyOf(f *ct.Flow) key {
	return key{f.ID, f.Orig.Sport ^ f.Orig.ID, f.Orig.Dport, f.Zone, f.Orig.Proto, f.Orig.Family}
}

func entryOf(f *ct.Flow, since uint64) (entry, bool) {
	src, dst := ends(f)
	if !src && !dst {
		return entry{}, false
	}
	o, r := &f.Orig, &f.Reply
	e := entry{since: since, osrc: o.Src.As16(), odst: o.Dst.As16(), rsrc: r.Src.As16(), rdst: r.Dst.As16(),
		osp: o.Sport, odp: o.Dport, rsp: r.Sport, rdp: r.Dport, src: src, dst: dst}
	if o.Has(ct.TupleID) {
		e.osp, e.odp, e.rsp, e.rdp = o.ID, o.ID, r.ID, r.ID
	}
	return e, true
}

func place(a *[16]byte, port uint16, family uint8) Place {
	addr := netip.AddrFrom16(*a)
	if family == ct.IPv4 {
		addr = addr.Unmap()
	}
	return Place{addr, port}
}

// records appends the translations of a flow, of which l.rec says the rest.
func (l *Log) records(b []byte, k key, e *entry) []byte {
	r := &l.rec
	r.ID, r.Zone, r.Proto, r.Family, r.Since = k.id, k.zone, k.proto, k.family, e.since
	osrc, odst := place(&e.osrc, e.osp, k.family), place(&e.odst, e.odp, k.family)
	rsrc, rdst := place(&e.rsrc, e.rsp, k.family), place(&e.rdst, e.rdp, k.family)
	if e.src {
		r.Of, r.Inside, r.Outside, r.To = Source, osrc, rdst, rsrc
		b = l.emit(b, r)
	}
	if e.dst {
		r.Of, r.Inside, r.Outside, r.To = Destination, rsrc, odst, osrc
		b = l.emit(b, r)
	}
	return b
}

func (l *Log) emit(b []byte, r *Record) []byte {
	l.emitted = r.Time
	return l.Emit(b, r)
}

// Start appends the record that a log is begun, or gone on with.
func (l *Log) Start(b []byte, now uint64) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alive = map[key]entry{}
	l.written, l.clean, l.cleaner = now, now, now
	l.listing, l.lost = true, false
	return l.emit(b, &Record{Time: now, Event: Start})
}

// Flow appends what an event of a flow tells; shown is false when that is nothing.
func (l *Log) Flow(b []byte, f *ct.Flow) (out []byte, shown bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch f.Event {
	case ct.New, ct.Existing:
		k := keyOf(f)
		if known, ok := l.alive[k]; ok {
			known.round = l.round
			l.alive[k] = known
			return b, false
		}
		since, event := f.Start, Alive
		if f.Event == ct.New {
			event = Begin
			since = f.Time
		}
		e, ok := entryOf(f, since)
		if !ok {
			return b, false
		}
		e.round = l.round
		l.alive[k] = e
		l.rec = Record{Time: f.Time, Event: event}
		e.since = since
		if event == Begin {
			e.since = 0 // it is the record's time
		}
		return l.records(b, k, &e), true
	case ct.Destroy:
		k := keyOf(f)
		e, known := l.alive[k]
		if known {
			delete(l.alive, k)
		} else if e, known = entryOf(f, f.Start); !known {
			return b, false
		}
		l.rec = Record{Time: f.Time, Event: End}
		if f.Has(ct.HasOrigCounters | ct.HasReplyCounters) {
			l.rec.Counted = true
			l.rec.Packets = f.OrigCounters.Packets + f.ReplyCounters.Packets
			l.rec.Bytes = f.OrigCounters.Bytes + f.ReplyCounters.Bytes
		}
		return l.records(b, k, &e), true
	}
	return b, false
}

// Lost appends that events are missing; a listing is to follow.
func (l *Log) Lost(b []byte, x ct.Lost) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listing, l.lost = true, true
	return l.emit(b, &Record{Time: x.Time, Event: Lost, Since: l.clean, Count: x.Count, CountKnown: x.Known})
}

// Mark appends what the end of a listing tells: that all is known, and which translations
// have ended meanwhile.
func (l *Log) Mark(b []byte, m ct.Mark) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch m.Kind {
	case ct.MarkResync:
		l.round++
		l.lost = false
		return b
	case ct.MarkResynced:
		for k, e := range l.alive {
			if e.round != l.round {
				delete(l.alive, k)
				l.rec = Record{Time: m.Time, Event: End, Unsure: true}
				b = l.records(b, k, &e)
			}
		}
	}
	if !l.listing || l.lost { // what began behind the listing's back is still missing
		return b
	}
	l.listing = false
	return l.emit(b, &Record{Time: m.Time, Event: Synced})
}

// late is how long after a loss it is told at most: when the socket has run empty.
const late = 1e9

// Written notes that all records up to now are written, and that nothing more was there
// to read.
func (l *Log) Written(now uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written, l.last = now, l.emitted
	if !l.listing && now >= l.cleaner+late {
		l.clean, l.cleaner = l.cleaner, now
	}
}

// Piece appends the beginning of another file: the translations that are alive. Records
// that are made and not yet written may be among them once more.
func (l *Log) Piece(b []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.alive == nil {
		return b // Start comes
	}
	emitted := l.emitted // what is not written yet follows
	defer func() { l.emitted = max(emitted, l.written) }()
	b = l.emit(b, &Record{Time: l.written, Event: Piece, Since: l.last})
	for k, e := range l.alive {
		l.rec = Record{Time: l.written, Event: Alive}
		b = l.records(b, k, &e)
	}
	if l.listing {
		b = l.emit(b, &Record{Time: l.written, Event: Lost, Since: l.clean})
	}
	return b
}

// Stop appends the end of the log.
func (l *Log) Stop(b []byte, now uint64) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.emit(b, &Record{Time: now, Event: Stop})
}
