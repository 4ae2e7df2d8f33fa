package flows

import (
	"hash/maphash"
	"sync"
)

// A Table remembers a V of each of at most max Keys. What was seen least recently is
// forgotten first. It is safe for the goroutines of several queues that hold its lock:
//
//	t.Lock()
//	v := t.At(&key) // *v is the zero V of a Key that is new
//	…
//	t.Unlock()
//
// It grows with what it holds, by doubling, and does not shrink; a V of 8 bytes makes
// 68 bytes a Key. Within max nothing is allocated for a Key.
type Table[V any] struct {
	sync.Mutex
	max  int
	seed maphash.Seed
	// heads has where the entries of a hash begin; 0: none. The first entry is nobody's:
	// it closes the ring of all by age.
	heads     []uint32
	entries   []entry[V]
	forgotten uint64
}

type entry[V any] struct {
	key          Key
	hash         uint32
	next         uint32 // of those with the same head
	newer, older uint32
	v            V
}

// NewTable makes a Table for at most limit Keys, at least 1.
func NewTable[V any](limit int) *Table[V] {
	return &Table[V]{max: max(limit, 1), seed: maphash.MakeSeed(), heads: make([]uint32, 64),
		entries: make([]entry[V], 1, 64)}
}

// At returns what is remembered of a Key, which counts as seen now. Who calls it holds
// the lock, and may use the pointer until Unlock.
func (t *Table[V]) At(k *Key) *V {
	hash := uint32(maphash.Comparable(t.seed, *k))
	i := t.heads[hash&uint32(len(t.heads)-1)]
	for i != 0 {
		e := &t.entries[i]
		if e.hash == hash && e.key == *k {
			if t.entries[0].older != i {
				t.unlink(e)
				t.link(i, e)
			}
			return &e.v
		}
		i = e.next
	}
	return t.add(k, hash)
}

// Known returns what is remembered of a Key, as At does, or nil when it is new.
func (t *Table[V]) Known(k *Key) *V {
	if len(t.entries) == 1 {
		return nil
	}
	hash := uint32(maphash.Comparable(t.seed, *k))
	for i := t.heads[hash&uint32(len(t.heads)-1)]; i != 0; i = t.entries[i].next {
		if e := &t.entries[i]; e.hash == hash && e.key == *k {
			return t.At(k)
		}
	}
	return nil
}

// The ring: entries[0].older is the newest of all, entries[0].newer the oldest.

func (t *Table[V]) unlink(e *entry[V]) {
	t.entries[e.newer].older, t.entries[e.older].newer = e.older, e.newer
}

// link makes entry i the newest.
func (t *Table[V]) link(i uint32, e *entry[V]) {
	e.newer, e.older = 0, t.entries[0].older
	t.entries[e.older].newer = i
	t.entries[0].older = i
}

func (t *Table[V]) add(k *Key, hash uint32) *V {
	var i uint32
	if len(t.entries) <= t.max {
		if len(t.entries) == len(t.heads) {
			t.grow()
		}
		i = uint32(len(t.entries))
		t.entries = append(t.entries, entry[V]{})
	} else {
		i = t.entries[0].newer
		old := &t.entries[i]
		t.unlink(old)
		at := &t.heads[old.hash&uint32(len(t.heads)-1)]
		for *at != i {
			at = &t.entries[*at].next
		}
		*at = old.next
		t.forgotten++
	}
	e, head := &t.entries[i], &t.heads[hash&uint32(len(t.heads)-1)]
	*e = entry[V]{key: *k, hash: hash, next: *head}
	*head = i
	t.link(i, e)
	return &e.v
}

func (t *Table[V]) grow() {
	t.heads = make([]uint32, 2*len(t.heads))
	for i := 1; i < len(t.entries); i++ {
		e := &t.entries[i]
		head := &t.heads[e.hash&uint32(len(t.heads)-1)]
		e.next, *head = *head, uint32(i)
	}
}

// Len returns how many Keys are remembered. Who calls it holds the lock.
func (t *Table[V]) Len() int { return len(t.entries) - 1 }

// Forgotten returns how many Keys were forgotten for others. Who calls it holds the
// lock.
func (t *Table[V]) Forgotten() uint64 { return t.forgotten }
