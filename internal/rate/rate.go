// Package rate remembers the counters of flows from one listing to the next, and works
// out how much flows grow a second: in at most 64 bytes a flow.
package rate

import (
	"sync"
	"time"

	"nfctl/internal/ct"
)

// A Store is what is remembered. Each listing begins with Begin and ends with End; in
// between Add may be called on several goroutines.
type Store struct {
	shards [shards]shard
	began  time.Time // of the first listing
	round  uint32    // when this listing began, as at of an entry
	before uint32    // when the one before began; 0: there was none
}

// shards is how many parts the table has: each grows by itself, so that the room that
// growing takes is that of one part.
const shards = 256

type shard struct {
	mu      sync.Mutex
	entries []entry
	used    int
	fresh   uint64 // entries made in this listing
	_       [64]byte
}

// An entry is what is remembered of a flow.
type entry struct {
	key     uint64
	bytes   uint64
	packets uint32 // the lowest bits: a flow has no 2^32 packets between two listings
	at      uint32 // milliseconds since the first listing, from 1; 0: no entry
}

// Begin begins a listing, of about so many flows.
func (s *Store) Begin(now time.Time, flows uint64) {
	if s.began.IsZero() {
		s.began = now
	}
	s.before, s.round = s.round, max(s.since(now), s.round+1)
	for i := range s.shards {
		sh := &s.shards[i]
		sh.fresh = 0
		// Parts are not filled evenly: a few more than their share.
		if want := (int(flows)/shards*11/10 + 8) * 4 / 3; want > len(sh.entries) {
			sh.resize(want)
		}
	}
}

// since is how many milliseconds have passed, by a clock that may be set back.
func (s *Store) since(now time.Time) uint32 {
	return uint32(max(0, now.Sub(s.began)/time.Millisecond)) + 1
}

// Add remembers f's counters and, from the second listing on, sets its rates. A flow
// that the listing before did not have, or whose counters were set to zero since, has
// grown from nothing. A flow without counters has no rates.
func (s *Store) Add(f *ct.Flow) {
	bytes, hasBytes := f.Bytes()
	packets, hasPackets := f.Packets()
	key := f.Sum()
	at := max(s.since(time.Unix(0, int64(f.Time))), s.round)
	sh := &s.shards[key>>56]
	sh.mu.Lock()
	e := sh.find(key)
	var oldBytes, oldPackets uint64
	var old uint32
	if e.at != 0 {
		old, oldBytes, oldPackets = e.at, e.bytes, packets-uint64(uint32(packets)-e.packets)
	} else {
		e.key = key
		sh.used++
		sh.fresh++
	}
	e.bytes, e.packets, e.at = bytes, uint32(packets), at
	sh.mu.Unlock()
	if s.before == 0 || !hasBytes && !hasPackets {
		return
	}
	switch {
	case old == 0:
		old = s.before
	case old >= s.round: // the flow comes a second time
		return
	}
	if oldBytes > bytes || oldPackets > packets {
		oldBytes, oldPackets = 0, 0
	}
	passed := uint64(at - old)
	f.Rate = ct.Rate{Bytes: perSecond(bytes-oldBytes, passed), Packets: perSecond(packets-oldPackets, passed),
		Known: true}
}

func perSecond(n, ms uint64) uint64 { return uint64(float64(n)*1000/float64(ms) + 0.5) }

// End ends a listing: flows that it did not have are forgotten. It returns how many
// there are, and how many of them the listing before did not have, and how many of that
// one's are gone; flows that came and went in between are in none of these.
func (s *Store) End() (flows, began, ended uint64) {
	var live []entry
	for i := range s.shards {
		sh := &s.shards[i]
		began += sh.fresh
		live = live[:0]
		for _, e := range sh.entries {
			if e.at >= s.round {
				live = append(live, e)
			}
		}
		flows += uint64(len(live))
		if len(live) == sh.used {
			continue
		}
		ended += uint64(sh.used - len(live))
		if len(sh.entries) > 3*len(live)+64 { // most are gone
			sh.entries = make([]entry, len(live)*4/3+8)
		} else {
			clear(sh.entries)
		}
		sh.used = len(live)
		for _, e := range live {
			*sh.find(e.key) = e
		}
	}
	return flows, began, ended
}

// find returns the entry with a key, or one without a time that is to become it.
func (sh *shard) find(key uint64) *entry {
	if sh.used*4 >= len(sh.entries)*3 {
		sh.resize(len(sh.entries)*5/4 + 8)
	}
	n := uint64(len(sh.entries))
	i := key & 0xffffffff * n >> 32
	for {
		e := &sh.entries[i]
		if e.at == 0 || e.key == key {
			return e
		}
		if i++; i == n {
			i = 0
		}
	}
}

func (sh *shard) resize(n int) {
	old := sh.entries
	sh.entries = make([]entry, n)
	for _, e := range old {
		if e.at != 0 {
			*sh.place(e.key) = e
		}
	}
}

// place is find where there is room.
func (sh *shard) place(key uint64) *entry {
	n := uint64(len(sh.entries))
	i := key & 0xffffffff * n >> 32
	for sh.entries[i].at != 0 && sh.entries[i].key != key {
		if i++; i == n {
			i = 0
		}
	}
	return &sh.entries[i]
}

// Size returns how many bytes are remembered.
func (s *Store) Size() (n uint64) {
	for i := range s.shards {
		n += uint64(len(s.shards[i].entries)) * 24
	}
	return n
}
