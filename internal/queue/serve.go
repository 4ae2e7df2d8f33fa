package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"golang.org/x/sys/unix"

	"nfctl/internal/mark"
	"nfctl/internal/nl"
	"nfctl/internal/packet"
)

func errno(n uint64) error { return syscall.Errno(n) }

const (
	answerWait = 10 * time.Second
	// quiet is how long nothing must have come before a queue counts as drained.
	quiet = 50 * time.Millisecond
	// drainLimit bounds the draining of a queue that packets still come to.
	drainLimit = 5 * time.Second
	lossCheck  = int64(time.Second)
	sendTries  = 1000
)

// An Ending is what to do when the service ends, in the one order that loses
// nothing: the rules that feed the queues are deleted, the queues emptied and
// unbound, and then what held the rules may go. (Unregistering a hook makes the
// kernel drop everything that is queued in the namespace.)
type Ending struct {
	// DeleteRules stops packets from being queued; without it others' rules feed
	// the queues, and only what waits already is answered at the end.
	DeleteRules func() error
	Close       func() error
}

// Serve answers the packets of the queues, each on a thread of its own, until
// ctx ends or one of them fails; then it ends all of them in order. The queues
// are unbound then; Close closes them.
func Serve(ctx context.Context, e Ending, queues ...*Queue) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var errs []error
	fail := func(err error) {
		if err != nil {
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
			cancel()
		}
	}
	var workers sync.WaitGroup
	for _, q := range queues {
		workers.Go(func() { fail(q.work(fail)) })
	}
	<-ctx.Done()
	if e.DeleteRules != nil {
		fail(e.DeleteRules())
	}
	for _, q := range queues {
		q.drain.Store(e.DeleteRules != nil)
		q.ending.Store(true)
		q.wake()
	}
	workers.Wait()
	if e.Close != nil {
		fail(e.Close())
	}
	return errors.Join(errs...)
}

// A worker is what one service of a queue needs.
type worker struct {
	q       *Queue
	p       Packet
	d       Decision
	dflt    Verdict
	answers answers
	lastID  uint32
	haveID  bool

	rule      int // the counts of packets in a row that one rule decided
	rules     *ruleSet
	row       Count
	decided   int    // packets of this batch
	lost      uint64 // packets of this batch that the socket had no room for
	checked   int64  // when the losses of the queue were last looked for
	queueLost uint32
	asked     *reload // a change of settings that the kernel has not answered
	abandon   func(error)
	blind     bool // OnIdle has failed: nobody watches any more
	mayReturn int  // packets that may still be given back to the queue: see finishFirst
	deciding  bool // a batch is under way
	reloaded  func()

	translated bool // the table says so of the packet: see mark.Translated
}

// work serves q until it is to end, and unbinds it. abandon is told of what went
// wrong with the watching of packets: then all queues shall end, but in order.
func (q *Queue) work(abandon func(error)) error {
	runtime.LockOSThread()
	if q.conf.Pin {
		var set unix.CPUSet // the thread ends with this goroutine: no other is to be pinned
		set.Set(q.conf.CPU)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("%s: processor %d: %w", q.object(), q.conf.CPU, err)
		}
	} else {
		defer runtime.UnlockOSThread()
	}
	w := newWorker(q)
	w.abandon = abandon
	err := w.loop()
	w.tellReloaded()
	q.ended.Store(true)
	if r := q.reload.Swap(nil); r != nil {
		r.done <- nl.Error("reload", q.object(), errEnded)
	}
	if err != nil {
		err = nl.Error("serve", q.object(), err)
	}
	if e := q.Unbind(); err == nil && !errors.Is(e, os.ErrClosed) {
		err = e
	}
	return err
}

func newWorker(q *Queue) *worker {
	w := &worker{q: q, answers: answers{
		queue: q.conf.Num,
		out:   make([]byte, 0, answerSpace),
		ids:   make([]uint32, 0, 4*slots), dropped: make([]uint32, 0, 4*slots),
	}}
	w.dflt = Accept
	if q.conf.DefaultDrop {
		w.dflt = Drop
	}
	w.p.names = &q.names
	w.p.DryRun = q.conf.DryRun
	w.enter(q.room)
	return w
}

func (w *worker) loop() error {
	q := w.q
	if len(q.early) > 0 {
		early := q.early
		q.early = nil
		w.begin()
		for _, b := range early {
			if err := w.datagram(b); err != nil {
				return err
			}
		}
		if err := w.finish(); err != nil {
			return err
		}
	}
	wait := time.Duration(-1)
	var until time.Time
	left := int(q.conf.MaxLen)/slots + 2 // batches that the queue can hold
	for {
		n, err := w.recv(wait)
		if err != nil && !errors.Is(err, nl.ErrOverrun) {
			return err
		}
		if n > 0 {
			w.begin()
			for i := range n {
				b, _ := q.recv.Datagram(i)
				if err := w.datagram(b); err != nil {
					return err
				}
			}
			if err := w.finish(); err != nil {
				return err
			}
		} else if err := w.arrive(); err != nil {
			return err
		}
		if err := w.release(); err != nil {
			return err
		}
		if n < slots {
			w.idle()
		}
		if q.Alive != nil {
			q.Alive()
		}
		if r := q.reload.Load(); r != nil && r != w.asked {
			if err := w.askReload(r); err != nil {
				return err
			}
		}
		if !q.ending.Load() {
			continue
		}
		switch {
		case !q.drain.Load():
			// Others' rules go on feeding the queue: what was there is answered.
			if left--; wait == 0 && (n == 0 || left < 0) {
				return nil
			}
			wait = 0
		case until.IsZero():
			until = time.Now().Add(drainLimit)
			wait = quiet
		case n == 0 && err == nil:
			i, ok := q.kernelInfo()
			if !ok || i.Depth == 0 || time.Now().After(until) {
				return nil
			}
		case time.Now().After(until):
			return nil
		}
	}
}

func (w *worker) begin() {
	now := time.Now().UnixNano()
	w.q.names.now = now
	w.p.now = monotonic()
	w.rules = w.q.sets.acquire()
	w.answers.begin(w.q.room != nil && w.q.room.inFirst > 0)
	w.decided, w.lost = 0, 0
	w.deciding = true
}

// finish answers the batch and publishes its counts.
func (w *worker) finish() error {
	w.answers.finish()
	err := w.send()
	if err == nil {
		err = w.arrive()
	}
	w.publishHeld()
	w.deciding = false
	w.tellReloaded()
	w.flushCount()
	w.rule = 0
	w.q.sets.release()
	w.q.publish()
	if w.lost > 0 && w.q.OnLost != nil {
		w.q.OnLost(w.lost, "socket")
	}
	if w.decided > 0 && w.q.OnBatch != nil {
		w.q.OnBatch(w.decided)
	}
	return err
}

func (w *worker) send() error {
	if len(w.answers.out) == 0 {
		return nil
	}
	return sendAnswers(w.q.conn, &w.answers)
}

func sendAnswers(c *nl.Conn, a *answers) error {
	var err error
	for range sendTries {
		err = c.SendQuick(a.out)
		if err == nil || !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ENOMEM) {
			break
		}
		time.Sleep(time.Millisecond) // the machine is short of memory
	}
	a.out = a.out[:0]
	return err
}

// idle is called when the socket has nothing more.
func (w *worker) idle() {
	q := w.q
	if q.OnLost != nil && q.names.now-w.checked >= lossCheck {
		w.checked = q.names.now
		if i, ok := q.kernelInfo(); ok && i.QueueDropped != w.queueLost {
			n := i.QueueDropped - w.queueLost
			w.queueLost = i.QueueDropped
			q.OnLost(uint64(n), "queue")
		}
	}
	if q.OnIdle != nil && !w.blind {
		if err := q.OnIdle(); err != nil {
			w.blind = true
			w.abandon(err)
		}
	}
}

// datagram handles what the kernel sent: packets, each in a datagram of its own,
// and errors of verdicts.
func (w *worker) datagram(b []byte) error {
	for len(b) > 0 {
		m, rest, ok := nl.NextMsg(b)
		whole := ok
		if !ok {
			if m, ok = nl.Cut(b); !ok {
				w.q.local[cUnread]++
				return nil
			}
		}
		b = rest
		switch m.Type {
		case msgPacket:
			if err := w.packet(&m, whole); err != nil {
				return err
			}
		case unix.NLMSG_ERROR:
			w.verdictFailed(&m)
		}
	}
	return nil
}

func (w *worker) packet(m *nl.Msg, whole bool) error {
	q, p, d, n := w.q, &w.p, &w.d, &w.q.local
	p.Time = q.names.now
	if !p.decode(m, whole) {
		n[cUnread]++
		return nil
	}
	if w.haveID {
		gap := p.ID - w.lastID - 1
		if gap >= farID && !w.given(p.ID) {
			n[cUnread]++
			return nil
		}
		if gap > 0 && gap < 1<<31 {
			n[cSocketLost] += uint64(gap)
			w.lost += uint64(gap)
		}
	} else if p.ID > 1 { // ids begin at 1 with the binding
		if p.ID > farID && !w.given(p.ID) {
			n[cUnread]++
			return nil
		}
		n[cSocketLost] += uint64(p.ID - 1)
		w.lost += uint64(p.ID - 1)
	}
	w.lastID, w.haveID = p.ID, true

	if !w.decide() {
		return nil // it comes again
	}
	w.code(d)
	if !w.hold(p, d) {
		w.answers.add(p.ID, d)
	}
	if len(w.answers.out) >= sendAt {
		return w.send()
	}
	return nil
}

// decide decides on the packet at hand, and counts it. False: it is given back, to come
// again.
func (w *worker) decide() bool {
	q, p, d, n := w.q, &w.p, &w.d, &w.q.local
	*d = Decision{Verdict: w.dflt, Matched: d.Matched[:0]}
	w.fromTable(p)
	if p.Undecoded {
		n[cUndecoded]++
		p.Why = "malformed message of the kernel"
	} else {
		w.rules.decider.Decide(p, d)
	}
	if d.Why != nil && errors.Is(d.Why, packet.ErrOffload) && w.finishFirst() {
		n[cReturned]++
		return false
	}
	p.Verdict, p.Flow, p.Rule, p.Decided = d.Verdict, d.Flow, d.Rule, true
	p.Held = max(d.Due-p.now, 0)
	k := d.Verdict.Kind()
	if k >= Kinds {
		k = KindDrop
	}
	n[cKinds+int(k)]++
	n[cBytes+int(k)] += uint64(p.Length)
	w.count(d.Rule, uint64(p.Length))
	for _, rule := range d.Matched {
		if uint(rule) < uint(len(w.rules.counts)) {
			w.rules.counts[rule].add(Count{1, uint64(p.Length)})
		}
	}
	w.decided++
	if d.Why != nil {
		n[cUneditable]++
		p.Why = d.Why.Error()
		if q.OnUneditable != nil {
			q.OnUneditable(p, d)
		}
	}
	if p.ctRaw != nil {
		n[cWithCT]++
	}
	if d.Flow {
		n[cFlows]++
	}
	if d.Late {
		n[cLate]++
	}
	if p.Has&(HasPayload|HasLength) == HasPayload|HasLength && int(p.Length) > len(p.Data) {
		n[cTruncated]++
	}
	if d.Verdict != Drop {
		if d.SetMark && d.Mark != p.Mark {
			n[cMarked]++
		}
		if d.Data != nil {
			n[cEdited]++
		}
	}
	if q.OnPacket != nil && !w.blind {
		q.OnPacket(p, d)
	}
	if q.conf.DryRun {
		*d = Decision{Verdict: Accept, Matched: d.Matched}
	}
	return true
}

// code turns what the kernel does not do for a verdict into a code in the packet's mark,
// by which the table behind the queue does it.
func (w *worker) code(d *Decision) {
	c := w.q.conf.Codes
	if c != nil && (d.Flow || d.Verdict == Reject || d.SetConnmark) {
		m := mark.Code{Verdict: mark.Pass}
		switch {
		case d.Flow && d.Verdict == Accept:
			m.Verdict = mark.AcceptFlow
		case d.Flow && d.Verdict == Drop:
			m.Verdict = mark.DropFlow
		case d.Flow && d.Verdict == Reject:
			m.Verdict = mark.RejectFlow
		case d.Verdict == Reject:
			m.Verdict = mark.Reject
		case d.Verdict == Drop:
			m.Verdict = mark.Drop
		}
		marks := d.SetConnmark
		if marks {
			m.Mask = d.ConnmarkMask
			if m.Mask == 0 {
				m.Mask = ^uint32(0)
			}
			m.Value = d.Connmark & m.Mask
		}
		bits, ok := c.Of(m)
		if !ok && marks { // a script's mark, which the kernel's glue takes
			marks, m.Value, m.Mask = false, 0, 0
			bits, ok = c.Of(m)
		}
		if ok {
			if !d.SetMark {
				d.SetMark, d.Mark = true, w.p.Mark
			}
			d.Mark = d.Mark&^c.Mask | bits
			if d.Verdict == Drop || d.Verdict == Reject {
				d.Verdict = Accept
			}
			d.SetConnmark = d.SetConnmark && !marks
		}
	}
	if d.Verdict == Reject { // nobody behind the queue would do it
		d.Verdict = Drop
	}
}

// farID is how far an id is from the last before the kernel is asked about it: so
// many packets in a row are seldom lost.
const farID = 1 << 16

// given reports whether the kernel has given out an id yet: those of a queue are
// numbers in a row. An id that it cannot have given out would be answered for
// packets to come, and count as a loss of all up to it. Who may not read the
// kernel's list believes it.
func (w *worker) given(id uint32) bool {
	i, ok := w.q.kernelInfo()
	return !ok || int32(i.LastID-id) >= 0
}

// finishFirst gives a packet that is to be edited back to the queue, so that it comes
// again with its checksums finished: one that is left to the device and is a tunnel's
// inner one only the kernel can find. It finishes them where segments are not taken
// uncut, which is so from then on. False: that has been tried, or may not be.
//
// A packet can return only if it was on its way already when the kernel was asked,
// so that few do.
func (w *worker) finishFirst() bool {
	q := w.q
	switch {
	case q.conf.GSO || q.conn == nil:
		return false
	case !q.conf.Apart:
		q.conf.Apart = true
		w.mayReturn = int(q.conf.MaxLen) + 2*slots
		a := &w.answers
		at := len(a.out)
		a.out = nl.AppendHeader(a.out, msgConfig, 0, unix.AF_UNSPEC, q.conf.Num)
		a.out = nl.Finish(appendFlags(a.out, 0, nfqueue.NfQaCfgFlagGSO), at)
	}
	if w.mayReturn == 0 {
		return false
	}
	w.mayReturn--
	w.answers.add(w.p.ID, &Decision{Verdict: ToQueue(q.conf.Num, false)})
	return true
}

// count adds a packet to what a rule decided. Rules that decide many packets in
// a row touch their shared counters once.
func (w *worker) count(rule int, bytes uint64) {
	if uint(rule) >= uint(len(w.rules.counts)) {
		rule = 0
	}
	if rule != w.rule {
		w.flushCount()
		w.rule = rule
	}
	w.row.Packets++
	w.row.Bytes += bytes
}

func (w *worker) flushCount() {
	if w.row.Packets > 0 {
		w.rules.counts[w.rule].add(w.row)
		w.row = Count{}
	}
}

// verdictFailed handles the kernel's complaint about a verdict. It holds the
// verdict's header, in which the answers put id and number of packets.
func (w *worker) verdictFailed(m *nl.Msg) {
	n := &w.q.local
	if len(m.Data) < 20 {
		return
	}
	if r := w.asked; r != nil && binary.NativeEndian.Uint16(m.Data[8:]) == msgConfig &&
		binary.NativeEndian.Uint32(m.Data[12:]) == r.seq {
		err, _ := m.Status()
		w.answerReload(err)
		return
	}
	e := -int32(binary.NativeEndian.Uint32(m.Data))
	typ, port := binary.NativeEndian.Uint16(m.Data[8:]), binary.NativeEndian.Uint32(m.Data[16:])
	if e <= 0 || typ != msgVerdict && typ != msgVerdictBatch {
		return
	}
	count, behind := uint64(port&0xffff), uint64(port>>16)
	if r := w.q.room; r != nil && e == int32(unix.ENOENT) { // counted as it did not come
		known := min(r.debt, count)
		r.debt, count = r.debt-known, count-known
	}
	switch {
	case e != int32(unix.ENOENT):
		n[cRefused] += count
		n[cErrno] = uint64(e)
	case typ == msgVerdict:
		// Of the rest of its run nothing is known yet.
		n[cVanished] += count
		n[cVanishing] += behind
	default: // the rest, as a whole
		n[cVanished] += count
		n[cVanishing] -= min(count, n[cVanishing])
	}
}
