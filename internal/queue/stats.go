package queue

import (
	"slices"
	"sync"
	"sync/atomic"
)

// A Count is a number of packets and of their bytes; bytes are not known, and
// 0, where the kernel does not say them (a copy range of 0).
type Count struct{ Packets, Bytes uint64 }

func (c *Count) add(o Count) { c.Packets += o.Packets; c.Bytes += o.Bytes }

// RuleStats is what one rule decided, under the number that packets were printed
// with.
type RuleStats struct {
	Number int
	RuleName
	Former bool // no rule of this number and text is in force any more
	Count
}

// Stats is what became of a queue's packets since it was bound.
type Stats struct {
	Queue    uint16
	Total    Count        // packets decided
	Verdicts [Kinds]Count // by verdict
	Default  Count        // no rule decided
	Rules    []RuleStats  // in order; behind them former rules that decided something

	Marked     uint64 // went on with a mark of their own
	Edited     uint64 // went on with other contents
	Uneditable uint64 // ought to have been edited and could not be
	// came twice: at first with the checksum of a tunnel's inner packet unfinished; counted here alone then
	Returned  uint64
	Truncated uint64 // copied in part
	Undecoded uint64 // malformed messages, decided by default
	Unread    uint64 // messages without so much as an id; not answered
	WithCT    uint64 // came with their connection
	Flows     uint64 // decided for the rest of their flows

	// Losses. Vanished counts packets that the kernel no longer had when they
	// were answered: something unregistered a hook or flushed the queue. Up to
	// Vanishing more may have gone the same way, 7 each time, under load 63.
	SocketLost uint64 // did not fit the receive buffer; with FailOpen they went on unseen
	Vanished   uint64
	Vanishing  uint64
	Refused    uint64 // verdicts that the kernel refused for another reason
	LastError  error  // that reason

	// Of packets that wait (Decision.Due).
	Held       uint64 // that wait now
	HeldAll    uint64 // that had to wait
	HeldFull   uint64 // of local senders, dropped: as many copies as may be waited
	Late       uint64 // dropped since they would have had to wait too long
	Duplicated uint64 // copies that were to go beside their packet
	Undoubled  uint64 // that were to go twice and could not be copied
	Local      uint64 // of local senders, that waited in the kernel
	CopyFailed uint64 // copies that the kernel did not take
	Strangers  uint64 // others' packets in the queue of those that wait, decided by default

	// Of the kernel's list; known when Kernel is.
	Kernel      bool
	Depth       uint32 // packets waiting
	QueueLost   uint32 // did not fit the full queue: dropped (with FailOpen: not counted)
	UserDropped uint32 // the kernel's count of SocketLost
}

// plain counters are the worker's own; it publishes them once a batch.
type plain [nCounters]uint64

const (
	cMarked = iota
	cEdited
	cUneditable
	cTruncated
	cReturned
	cUndecoded
	cUnread
	cWithCT
	cFlows
	cSocketLost
	cVanished
	cVanishing
	cRefused
	cErrno
	cHeld
	cHeldAll
	cHeldFull
	cLate
	cDuplicated
	cLocal
	cUndoubled
	cCopyFailed
	cStrangers
	cKinds                          // packets of each kind
	cBytes    = cKinds + int(Kinds) // bytes of each kind
	nCounters = cBytes + int(Kinds)
)

type counters struct {
	local  plain
	last   plain // what is published
	public [nCounters]atomic.Uint64
}

// publish makes the counters of a batch visible. Only the worker calls it.
func (c *counters) publish() {
	for i, n := range c.local {
		if n != c.last[i] {
			c.public[i].Store(n)
			c.last[i] = n
		}
	}
}

// A ruleSet is a decider with its counters: rule 0 is the default.
type ruleSet struct {
	decider Decider
	counts  []ruleCount
}

type ruleCount struct{ packets, bytes atomic.Uint64 }

func (c *ruleCount) add(n Count) {
	c.packets.Add(n.Packets)
	c.bytes.Add(n.Bytes)
}

func (c *ruleCount) load() Count { return Count{c.packets.Load(), c.bytes.Load()} }

// sets holds the rules in force, and the counts of those before.
type sets struct {
	current atomic.Pointer[ruleSet]
	using   atomic.Pointer[ruleSet] // the worker's, while it decides a batch

	mu      sync.Mutex
	old     []*ruleSet // replaced, but perhaps still in use
	retired []RuleStats
	index   map[ruleKey]int // in retired
	dflt    Count
}

// A ruleKey tells rules of all sets apart: one that has moved is another, since it
// is printed with another number.
type ruleKey struct {
	number int
	text   string
}

// SetDecider replaces the rules, from the next batch of packets on: every packet
// is decided by the old rules as a whole or by the new ones. d belongs to this
// queue alone.
func (q *Queue) SetDecider(d Decider) {
	n := &ruleSet{decider: d, counts: make([]ruleCount, d.Rules()+1)}
	s := &q.sets
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.current.Swap(n); before != nil {
		s.old = append(s.old, before)
	}
	s.retire()
}

// acquire returns the rules for a batch. They are in use until release.
func (s *sets) acquire() *ruleSet {
	for {
		r := s.current.Load()
		s.using.Store(r)
		if s.current.Load() == r {
			return r
		}
	}
}

func (s *sets) release() { s.using.Store(nil) }

// retire adds up the counts of rules that nothing uses any more.
func (s *sets) retire() {
	using := s.using.Load()
	s.old = slices.DeleteFunc(s.old, func(r *ruleSet) bool {
		if r == using {
			return false
		}
		s.addUp(r, func(o RuleStats) {
			if s.index == nil {
				s.index = map[ruleKey]int{}
			}
			k := ruleKey{o.Number, o.Text}
			if i, ok := s.index[k]; ok {
				s.retired[i].add(o.Count)
				return
			}
			s.index[k] = len(s.retired)
			s.retired = append(s.retired, o)
		}, &s.dflt)
		return true
	})
}

func (s *sets) addUp(r *ruleSet, f func(RuleStats), dflt *Count) {
	dflt.add(r.counts[0].load())
	for n := 1; n < len(r.counts); n++ {
		if c := r.counts[n].load(); c.Packets > 0 {
			f(RuleStats{Number: n, RuleName: r.decider.Rule(n), Former: true, Count: c})
		}
	}
}

// Stats returns the counts so far. It may be called while the queue is served;
// it is exact for all batches that were finished by then.
func (q *Queue) Stats() Stats {
	var n plain
	for i := range n {
		n[i] = q.public[i].Load()
	}
	s := Stats{Queue: q.conf.Num, Marked: n[cMarked], Edited: n[cEdited], Uneditable: n[cUneditable],
		Returned: n[cReturned], Truncated: n[cTruncated],
		Undecoded: n[cUndecoded], Unread: n[cUnread], WithCT: n[cWithCT], Flows: n[cFlows], SocketLost: n[cSocketLost],
		Vanished: n[cVanished], Vanishing: n[cVanishing], Refused: n[cRefused],
		Held: n[cHeld], HeldAll: n[cHeldAll], HeldFull: n[cHeldFull], Late: n[cLate], Duplicated: n[cDuplicated],
		Undoubled: n[cUndoubled], Local: n[cLocal], CopyFailed: n[cCopyFailed], Strangers: n[cStrangers]}
	if n[cErrno] != 0 {
		s.LastError = errno(n[cErrno])
	}
	for k := range s.Verdicts {
		s.Verdicts[k] = Count{n[cKinds+k], n[cBytes+k]}
		s.Total.add(s.Verdicts[k])
	}
	q.ruleStats(&s)
	if i, ok := q.kernelInfo(); ok {
		s.Kernel, s.Depth, s.QueueLost, s.UserDropped = true, i.Depth, i.QueueDropped, i.UserDropped
	}
	return s
}

func (q *Queue) ruleStats(s *Stats) {
	t := &q.sets
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retire()
	r := t.current.Load()
	s.Default = t.dflt
	s.Default.add(r.counts[0].load())
	inForce := len(r.counts) - 1
	s.Rules = make([]RuleStats, inForce, inForce+len(t.retired))
	for i := range s.Rules {
		s.Rules[i] = RuleStats{Number: i + 1, RuleName: r.decider.Rule(i + 1), Count: r.counts[i+1].load()}
	}
	former := map[ruleKey]int{}
	add := func(o RuleStats) {
		k := ruleKey{o.Number, o.Text}
		i, ok := former[k]
		if o.Number <= inForce && s.Rules[o.Number-1].Text == o.Text {
			i, ok = o.Number-1, true
		}
		if !ok {
			former[k] = len(s.Rules)
			s.Rules = append(s.Rules, o)
			return
		}
		s.Rules[i].add(o.Count)
	}
	for _, o := range t.retired {
		add(o)
	}
	for _, o := range t.old { // in use by the worker just now
		t.addUp(o, add, &s.Default)
	}
}

// kernelInfo returns the queue's line of the kernel's list; of a queue that was
// unbound, the last one.
func (q *Queue) kernelInfo() (i Info, ok bool) {
	q.infoMu.Lock()
	defer q.infoMu.Unlock()
	if q.last != nil {
		return *q.last, true
	}
	i, q.info, ok = readInfo(q.proc, q.info, q.conf.Num)
	return i, ok && i.Owner.Port == q.conn.PortID()
}

// keepInfo keeps the line before it goes.
func (q *Queue) keepInfo() {
	if i, ok := q.kernelInfo(); ok {
		q.infoMu.Lock()
		q.last = &i
		q.infoMu.Unlock()
	}
}
