// Package held keeps packets that wait: until they are due, or until somebody decides
// on them. A Line says which one goes next, Sent finds again in a second queue what was
// handed to it, and Raw sends copies of packets that cannot wait in the kernel.
//
// It knows nothing of queues, rules or verdicts: a packet is what its caller says of it.
package held

import "math"

// A Ref names something that waits in a Line, until Pop returns it.
type Ref int32

// None is no Ref.
const None Ref = -1

// A Line is what waits, each thing until its time. Things of one flow leave in the order
// in which they came; of others that are due, the one that is due first goes first, and
// of those due at the same time the one that came first. Times are any numbers that
// grow, such as nanoseconds of a clock that nobody sets.
//
//	r := line.Add(due, flow, packet)    // it goes when it is due
//	r := line.Wait(flow, packet)        // it goes when somebody has decided:
//	line.Settle(r, due)                 // … in any order
//	for r := line.Pop(now); r != held.None; r = line.Pop(now) { use(line.At(r)); line.Free(r) }
//
// Nothing is allocated for a thing once the line has been as long before.
type Line[T any] struct {
	slots []slot[T]
	free  Ref   // the first of those that are free, chained by next
	heads []Ref // the last of a flow that has a hash, chained by same
	heap  []entry
	seq   uint64
	n     int
	open  int // of them, those that nobody has decided on
}

type slot[T any] struct {
	v       T
	flow    uint64
	due     int64
	seq     uint64
	next    Ref // behind it in its flow
	same    Ref // the next last one of a flow of this hash
	ordered bool
	settled bool
	first   bool // of its flow: it may go
}

// An entry of the heap is something that may go when it is due.
type entry struct {
	due int64
	seq uint64
	ref Ref
}

func (e entry) before(o entry) bool { return e.due < o.due || e.due == o.due && e.seq < o.seq }

// Unordered as a flow has a thing go when it is due, whatever came before it.
const Unordered = 0

// Add has v wait until due behind all else of a flow.
func (l *Line[T]) Add(due int64, flow uint64, v T) Ref {
	r := l.take(flow, v)
	s := &l.slots[r]
	s.due, s.settled = due, true
	if s.first {
		l.push(entry{due, s.seq, r})
	}
	return r
}

// Wait has v wait until Settle says when it is due.
func (l *Line[T]) Wait(flow uint64, v T) Ref {
	l.open++
	return l.take(flow, v)
}

// Settle says when something is due that nobody has decided on; false: somebody has.
func (l *Line[T]) Settle(r Ref, due int64) bool {
	s := &l.slots[r]
	if s.settled {
		return false
	}
	l.open--
	s.due, s.settled = due, true
	if s.first {
		l.push(entry{due, s.seq, r})
	}
	return true
}

// Holds reports whether something of a flow waits.
func (l *Line[T]) Holds(flow uint64) bool {
	if flow == Unordered || l.n == 0 {
		return false
	}
	_, r := l.last(flow)
	return r != None
}

// Len returns how many things wait.
func (l *Line[T]) Len() int { return l.n }

// Open returns for how many of them Settle is still to be called.
func (l *Line[T]) Open() int { return l.open }

// At returns what waits by a Ref. The pointer is good until the next Add or Wait.
func (l *Line[T]) At(r Ref) *T { return &l.slots[r].v }

// Next returns when the next thing may be due.
func (l *Line[T]) Next() (due int64, ok bool) {
	if len(l.heap) == 0 {
		return math.MaxInt64, false
	}
	return l.heap[0].due, true
}

// Pop takes the next thing that is due out of the line, None when there is nothing. It
// is the caller's until Free.
func (l *Line[T]) Pop(now int64) Ref {
	if len(l.heap) == 0 || l.heap[0].due > now {
		return None
	}
	r := l.heap[0].ref
	s := &l.slots[r]
	next := s.next
	if s.ordered && next == None { // the last of its flow
		at, _ := l.last(s.flow)
		*at = s.same
	}
	if next == None {
		l.pull()
	} else { // in its place
		n := &l.slots[next]
		n.first = true
		if n.settled {
			l.heap[0] = entry{max(n.due, s.due), n.seq, next}
			n.due = l.heap[0].due
			l.down(0)
		} else {
			l.pull()
		}
	}
	l.n--
	return r
}

// Free ends the use of what Pop returned.
func (l *Line[T]) Free(r Ref) {
	s := &l.slots[r]
	var zero T
	s.v, s.next = zero, l.free
	l.free = r
}

// take makes a slot the last of its flow.
func (l *Line[T]) take(flow uint64, v T) Ref {
	if len(l.slots) == 0 || l.free == None {
		l.grow()
	}
	r := l.free
	s := &l.slots[r]
	l.free = s.next
	l.seq++
	l.n++
	*s = slot[T]{v: v, flow: flow, seq: l.seq, next: None, same: None, ordered: flow != Unordered, first: true}
	if !s.ordered {
		return r
	}
	at, last := l.last(flow)
	if last != None {
		before := &l.slots[last]
		before.next, s.first, s.same = r, false, before.same
	}
	*at = r
	return r
}

// last finds the last of a flow, and where it is chained.
func (l *Line[T]) last(flow uint64) (at *Ref, r Ref) {
	at = &l.heads[flow&uint64(len(l.heads)-1)]
	for *at != None && l.slots[*at].flow != flow {
		at = &l.slots[*at].same
	}
	return at, *at
}

func (l *Line[T]) grow() {
	was := len(l.slots)
	slots := make([]slot[T], max(64, 2*was))
	copy(slots, l.slots)
	l.slots, l.free = slots, Ref(was)
	for i := was; i < len(slots); i++ {
		slots[i].next = Ref(i + 1)
	}
	slots[len(slots)-1].next = None
	old := l.heads
	l.heads = make([]Ref, len(slots))
	for i := range l.heads {
		l.heads[i] = None
	}
	for _, r := range old {
		for r != None {
			s := &l.slots[r]
			next := s.same
			at := &l.heads[s.flow&uint64(len(l.heads)-1)]
			s.same, *at = *at, r
			r = next
		}
	}
}

func (l *Line[T]) push(e entry) {
	l.heap = append(l.heap, e)
	i := len(l.heap) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(l.heap[up]) {
			break
		}
		l.heap[i] = l.heap[up]
		i = up
	}
	l.heap[i] = e
}

// pull takes the first entry out.
func (l *Line[T]) pull() {
	last := len(l.heap) - 1
	l.heap[0] = l.heap[last]
	l.heap = l.heap[:last]
	if last > 0 {
		l.down(0)
	}
}

func (l *Line[T]) down(i int) {
	e := l.heap[i]
	for {
		c := 2*i + 1
		if c >= len(l.heap) {
			break
		}
		if c+1 < len(l.heap) && l.heap[c+1].before(l.heap[c]) {
			c++
		}
		if !l.heap[c].before(e) {
			break
		}
		l.heap[i] = l.heap[c]
		i = c
	}
	l.heap[i] = e
}
