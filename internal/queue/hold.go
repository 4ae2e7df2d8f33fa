package queue

import (
	"errors"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/held"
	"nfctl/internal/mark"
	"nfctl/internal/nl"
)

// A Hold says that packets may wait (Decision.Due), and how.
type Hold struct {
	// Raw has raw sockets opened, for Decision.Duplicate and Copies: that takes
	// CAP_NET_RAW. Copies come by the hooks again, with a code by which the table behind
	// Config.Codes leaves them out.
	Raw bool
	// Copies are the hooks, a bit each, at which packets of local senders wait as copies:
	// the packet itself is dropped at once, so that its sender does not take it for
	// unsent.
	Copies uint8
}

// HeldMaxLen returns how many packets may wait in a queue where rules have packets wait,
// unless somebody says: 65,535, or as many as fit 1/32 of the machine's memory at 2.5 kB
// each, which is what one of 1,400 bytes takes of the kernel's.
func HeldMaxLen() uint32 {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return DefaultMaxLen
	}
	return heldMaxLen(uint64(i.Totalram) * uint64(i.Unit))
}

func heldMaxLen(memory uint64) uint32 { return uint32(max(1, min(65535, memory/32/2500))) }

// A room is where the packets of a queue wait. It is the worker's alone.
//
// They wait in a second queue, into which a verdict of the first hands them: there are no
// verdicts in batches over packets that wait, and those that wait go on in batches
// themselves where they leave in order. Where no second queue could be bound, or while it is full, they wait in the
// first, the packets of which are answered one by one meanwhile. What may not wait in
// the kernel waits as a copy of ours.
type room struct {
	second *Queue // nil: there is none
	limit  int    // packets in it, and copies
	raw    *held.Raw
	copies uint8

	line    held.Line[waiting]
	sent    held.Sent
	memory  held.Memory
	answers answers
	p       Packet
	lost    func(held.Ref)
	d       Decision

	inSecond, inFirst, copied int
	head, tail                held.Ref // of those in the second queue, by id

	run   []uint32 // ids that the batch verdict under way settles
	rund  Decision
	freed []held.Ref
	debt  uint64 // lost on their way, of which the first queue's errors may tell as well
}

// A waiting packet.
type waiting struct {
	place         place
	id            uint32 // in its queue
	before, after held.Ref

	verdict      Verdict
	setMark      bool
	setConnmark  bool
	local        bool
	mark         uint32
	connmark     uint32
	connmarkMask uint32
	out          uint32
	data         []byte // of a copy, or what replaces a packet in the first queue
}

type place uint8

const (
	onTheWay place = iota // to the second queue
	inSecond
	inFirst
	asCopy      // in the packet's place
	asDuplicate // beside it
	gone
)

// start is what the times of Packet.Now count from.
var start = time.Now()

func monotonic() int64 { return int64(time.Since(start)) + 1 }

// Now returns when the packet was read, in nanoseconds of a clock that nobody sets: what
// Decision.Due is measured by. It is above 0.
func (p *Packet) Now() int64 { return p.now }

// prepare returns a room for what h says, made of one that there is, or else anew.
func (q *Queue) prepare(c *Config, was *room) (*room, error) {
	h := c.Hold
	if h == nil || c.DryRun {
		return was, nil
	}
	n := &room{head: held.None, tail: held.None, limit: int(max(q.conf.MaxLen, c.MaxLen))}
	if was != nil {
		n = was
	} else {
		conf := Config{MaxLen: max(q.conf.MaxLen, c.MaxLen), Buffer: q.conf.Buffer,
			CopyRange: min(c.CopyRange, held.PrintBytes), whoever: true}
		n.second = openFree(conf, q.conf.Num)
	}
	if h.Raw && n.raw == nil {
		raw, err := held.OpenRaw(q.conn.InterfaceName, monotonic)
		if err != nil {
			if was == nil {
				n.close()
			}
			return nil, nl.Error("copies of packets", q.object(), &RawError{err})
		}
		// Of a room in use only the worker changes what it uses: see reload.
		if was != nil {
			n = &room{raw: raw}
		} else {
			n.raw = raw
		}
	}
	return n, nil
}

// secondNumbers is how many numbers are tried for a second queue.
const secondNumbers = 128

// A RawError says why the raw sockets could not be opened by which copies are sent.
type RawError struct{ Err error }

func (e *RawError) Error() string { return e.Err.Error() }
func (e *RawError) Unwrap() error { return e.Err }

// openFree binds a number that nothing has bound, from the highest downwards, nil where
// there is none.
func openFree(c Config, but uint16) *Queue {
	for num := 0xffff; num > 0xffff-secondNumbers; num-- {
		c.Num = uint16(num)
		if c.Num == but {
			continue
		}
		if q, err := Open(c); err == nil {
			return q
		} else if !errors.Is(err, os.ErrPermission) {
			return nil
		}
	}
	return nil
}

// Prepare binds and opens what Config.Hold asks for. It is to be called between Open and
// Serve, when all queues are bound whose numbers are fixed. An error is of the raw
// sockets; where no second queue is free, packets wait in the first.
func (q *Queue) Prepare() error {
	r, err := q.prepare(&q.conf, q.room)
	if err != nil {
		return err
	}
	q.room = r
	if r != nil && q.conf.Hold != nil {
		r.copies = q.conf.Hold.Copies
	}
	return nil
}

func (r *room) close() {
	if r.second != nil {
		_ = r.second.Unbind()
		_ = r.second.Close()
		r.second = nil
	}
	if r.raw != nil {
		_ = r.raw.Close()
		r.raw = nil
	}
}

// enter has the worker use a room.
func (w *worker) enter(r *room) {
	if r == nil {
		return
	}
	if w.q.room != nil && w.q.room != r { // more for the one that there is
		w.q.room.raw = r.raw
		r = w.q.room
	}
	if h := w.q.conf.Hold; h != nil {
		r.copies = h.Copies
	}
	w.q.room = r
	if r.lost != nil {
		return
	}
	// To the microsecond; a thread's slack is 50 otherwise.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	r.answers.out = make([]byte, 0, answerSpace)
	if r.second != nil {
		r.answers.queue = r.second.conf.Num
	}
	r.p.names = &w.q.names
	r.lost = func(ref held.Ref) {
		r.line.At(ref).place = gone
		w.q.local[cVanished]++
		r.debt++
	}
}

// recv waits for packets, and for those that wait to be due.
func (w *worker) recv(wait time.Duration) (int, error) {
	r := w.q.room
	if wait < 0 && w.q.Alive != nil {
		wait = w.q.AliveEvery
	}
	if r == nil {
		return w.q.recv.Recv(wait)
	}
	due, some := r.line.Next()
	if !some {
		if wait < 0 {
			wait = time.Second // others' packets may have come to the second queue
		}
		return w.q.recv.Recv(wait)
	}
	until := time.Duration(due - monotonic())
	if wait >= 0 {
		until = min(until, wait)
	}
	return w.q.recv.RecvWithin(until)
}

// hold has a packet wait that was decided; false: it goes on now.
func (w *worker) hold(p *Packet, d *Decision) bool {
	r, n := w.q.room, &w.q.local
	if r == nil || d.Due == 0 && !d.Duplicate {
		return false
	}
	due := max(d.Due, p.now)
	var flow uint64 = held.Unordered
	if !d.Unordered {
		flow = held.FlowOf(p.Headers())
	}
	data, length := p.Data, p.Length
	if d.Data != nil {
		data, length = d.Data, uint32(len(d.Data))
	}
	waits := due > p.now || r.line.Holds(flow)
	if waits {
		v := waiting{verdict: d.Verdict, setMark: d.SetMark, mark: d.Mark, out: p.Out,
			before: held.None, after: held.None}
		n[cHeldAll]++
		if w.local(p) {
			n[cLocal]++ // unless as a copy
		}
		switch {
		case r.copies&(1<<p.Hook) != 0 && w.copyable(p, d, data):
			if r.copied >= r.limit {
				n[cHeldFull]++
			} else {
				r.copied++
				n[cLocal]--
				v.place, v.local = asCopy, true
				v.mark = w.copyMark(p, d)
				v.data = r.memory.Copy(data)
				r.line.Add(due, flow, v)
			}
			w.answers.add(p.ID, &Decision{Verdict: Drop})
		case r.second != nil && r.inSecond+r.sent.Len() < r.limit:
			r.sent.Add(held.PrintOf(data[:min(len(data), r.print())], length), r.line.Add(due, flow, v))
			to := Decision{Verdict: ToQueue(r.second.conf.Num, false), Data: d.Data, SetConnmark: d.SetConnmark,
				Connmark: d.Connmark, ConnmarkMask: d.ConnmarkMask}
			w.answers.add(p.ID, &to)
		default:
			w.answers.oneByOne()
			v.place, v.id = inFirst, p.ID
			v.setConnmark, v.connmark, v.connmarkMask = d.SetConnmark, d.Connmark, d.ConnmarkMask
			if d.Data != nil {
				v.data = r.memory.Copy(d.Data)
			}
			r.inFirst++
			r.line.Add(due, flow, v)
		}
	}
	if d.Duplicate {
		if r.raw != nil && !p.Truncated() && p.SkbInfo&(GSO|CsumNotReady) == 0 && r.copied < r.limit &&
			r.raw.Takes(data, p.Out) {
			r.copied++
			n[cDuplicated]++
			v := waiting{place: asDuplicate, out: p.Out, mark: w.copyMark(p, d), data: r.memory.Copy(data),
				local: w.local(p)}
			r.line.Add(due, held.Unordered, v)
		} else {
			n[cUndoubled]++
		}
	}
	return waits
}

// print returns how many bytes are compared.
func (r *room) print() int { return int(r.second.conf.CopyRange) }

const hookPrerouting, hookInput, hookOutput, hookPostrouting = 0, 1, 3, 4

// local reports whether this host sends the packet.
func (w *worker) local(p *Packet) bool {
	return p.Hook == hookOutput || p.Hook == hookPostrouting && p.In == 0
}

// copyable reports whether a copy can go in the place of a local sender's packet.
func (w *worker) copyable(p *Packet, d *Decision, data []byte) bool {
	r, c := w.q.room, w.q.conf.Codes
	if r.raw == nil || c == nil || !w.local(p) {
		return false
	}
	if w.translated || d.Verdict != Accept || d.SetConnmark || d.SetMark && d.Mark&c.Mask != 0 ||
		p.Truncated() || p.SkbInfo&(GSO|CsumNotReady) != 0 || !r.raw.Takes(data, p.Out) {
		return false
	}
	return true
}

// copyMark returns the mark of a copy: the packet's, and a code by which it is left out
// of the queue up to where the packet was.
func (w *worker) copyMark(p *Packet, d *Decision) uint32 {
	m := p.Mark
	if d.SetMark {
		m = d.Mark
	}
	c := w.q.conf.Codes
	if c == nil {
		return m
	}
	m &^= c.Mask
	v := mark.CopyOutput
	switch p.Hook {
	case hookPostrouting:
		v = mark.CopyPostrouting
	case hookPrerouting:
		v = mark.CopyPrerouting
	case hookInput:
		v = mark.CopyInput
	}
	bits, _ := c.Of(mark.Code{Verdict: v})
	return m | bits
}

// arrive finds those again that have come to the second queue. Whatever was sent there
// has come or is lost: a verdict's packet is in the next queue before its send returns.
func (w *worker) arrive() error {
	r := w.q.room
	if r == nil || r.second == nil {
		return nil
	}
	for {
		n, err := r.second.recv.Recv(0)
		if err != nil && !errors.Is(err, nl.ErrOverrun) {
			return err
		}
		if n == 0 && err == nil {
			break
		}
		for i := range n {
			b, whole := r.second.recv.Datagram(i)
			for len(b) > 0 {
				m, rest, ok := nl.NextMsg(b)
				whole = whole && ok
				if !ok {
					if m, ok = nl.Cut(b); !ok {
						break
					}
				}
				b = rest
				switch m.Type {
				case msgPacket:
					w.came(&m, whole)
				case unix.NLMSG_ERROR:
					w.verdictFailed(&m)
				}
			}
		}
	}
	for ref := r.sent.Drop(); ref != held.None; ref = r.sent.Drop() {
		r.lost(ref)
	}
	return w.sendSecond()
}

// came handles a packet of the second queue.
func (w *worker) came(m *nl.Msg, whole bool) {
	r := w.q.room
	if !r.p.decode(m, whole) {
		return
	}
	ref := held.None
	if !r.p.Undecoded {
		ref = r.sent.Came(held.PrintOf(r.p.Data[:min(len(r.p.Data), r.print())], r.p.Length), r.lost)
	}
	if ref == held.None { // another's, who took the number for free
		w.q.local[cStrangers]++
		r.answers.one(r.p.ID, &Decision{Verdict: w.dflt})
		return
	}
	v := r.line.At(ref)
	v.place, v.id = inSecond, r.p.ID
	v.before = r.tail
	if r.tail == held.None {
		r.head = ref
	} else {
		r.line.At(r.tail).after = ref
	}
	r.tail = ref
	r.inSecond++
}

// atOnce is how many packets go at the end before those behind them get time: a device's
// backlog (net.core.netdev_max_backlog) holds 1,000.
const atOnce = 256

// release has those go on that are due; at the end all of them, in order.
func (w *worker) release() error {
	r := w.q.room
	if r == nil || r.line.Len() == 0 {
		return nil
	}
	now := int64(math.MaxInt64)
	if !w.q.ending.Load() {
		now = monotonic()
	}
	last := gone
	for n := 1; ; n++ {
		ref := r.line.Pop(now)
		if ref == held.None {
			break
		}
		if n%atOnce == 0 && now == math.MaxInt64 {
			if err := w.flushHeld(); err != nil {
				return err
			}
			w.q.recv.Pause(time.Millisecond)
		}
		v := r.line.At(ref)
		// What waits in different places is sent by different ways, in order.
		if v.place != last && v.place < asDuplicate {
			if err := w.flushHeld(); err != nil {
				return err
			}
			last = v.place
		}
		switch v.place {
		case inSecond:
			w.goOn(v, ref)
		case inFirst:
			r.inFirst--
			r.d = Decision{Verdict: v.verdict, SetMark: v.setMark, Mark: v.mark, SetConnmark: v.setConnmark,
				Connmark: v.connmark, ConnmarkMask: v.connmarkMask, Data: v.data}
			w.answers.one(v.id, &r.d)
			if len(w.answers.out) >= sendAt {
				if err := w.send(); err != nil {
					return err
				}
			}
			if v.data != nil {
				r.memory.Return(v.data)
			}
		case asCopy, asDuplicate:
			r.copied--
			w.copyFailed(r.raw.Add(v.data, v.mark, v.out, v.local))
			r.freed = append(r.freed, ref) // its memory is in use until the flush
			continue
		}
		r.line.Free(ref)
	}
	err := w.flushHeld()
	w.publishHeld()
	w.q.publish()
	return err
}

// goOn answers a packet of the second queue: those that are first in it, in order, go
// with one verdict.
func (w *worker) goOn(v *waiting, ref held.Ref) {
	r := w.q.room
	first := ref == r.head
	if v.before == held.None {
		r.head = v.after
	} else {
		r.line.At(v.before).after = v.after
	}
	if v.after == held.None {
		r.tail = v.before
	} else {
		r.line.At(v.after).before = v.before
	}
	r.inSecond--
	d := Decision{Verdict: v.verdict, SetMark: v.setMark, Mark: v.mark}
	if o := &r.rund; len(r.run) > 0 &&
		(!first || d.Verdict != o.Verdict || d.SetMark != o.SetMark || d.Mark != o.Mark) {
		r.endRun()
	}
	if first {
		r.rund = d
		r.run = append(r.run, v.id)
		return
	}
	r.d = d
	r.answers.one(v.id, &r.d)
}

func (r *room) endRun() {
	r.d = r.rund
	r.answers.settle(r.run, &r.d)
	r.run = r.run[:0]
}

// flushHeld sends what was released.
func (w *worker) flushHeld() error {
	r := w.q.room
	if err := w.sendSecond(); err != nil {
		return err
	}
	if err := w.send(); err != nil {
		return err
	}
	if r.raw != nil {
		w.copyFailed(r.raw.Flush())
	}
	for _, ref := range r.freed {
		r.memory.Return(r.line.At(ref).data)
		r.line.Free(ref)
	}
	r.freed = r.freed[:0]
	return nil
}

func (w *worker) copyFailed(n int, err error) {
	if n > 0 {
		w.q.local[cCopyFailed] += uint64(n)
		var e unix.Errno
		if errors.As(err, &e) {
			w.q.local[cErrno] = uint64(e)
		}
	}
}

func (w *worker) sendSecond() error {
	r := w.q.room
	r.endRun()
	if len(r.answers.out) == 0 {
		return nil
	}
	return sendAnswers(r.second.conn, &r.answers)
}

// oneByOne has packets answered one by one from here on, in this batch.
func (a *answers) oneByOne() {
	if !a.single {
		a.finish()
		a.single = true
	}
}

// fromTable takes what the table in front of the queue says of a packet out of its mark.
func (w *worker) fromTable(p *Packet) {
	c := w.q.conf.Codes
	if c == nil || p.Mark&c.Mask == 0 {
		w.translated = false
		return
	}
	bits, ok := c.Of(mark.Code{Verdict: mark.Translated})
	if w.translated = ok && p.Mark&c.Mask == bits; w.translated {
		p.Mark &^= c.Mask
	}
}

// publishHeld makes visible what waits.
func (w *worker) publishHeld() {
	if r := w.q.room; r != nil {
		w.q.local[cHeld] = uint64(r.inSecond + r.inFirst + r.copied)
	}
}
