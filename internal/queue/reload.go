package queue

import (
	"errors"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
)

var errEnded = errors.New("the queue is no longer served")

// A reload is a change of rules that need more of each packet than those before.
type reload struct {
	decider Decider
	conf    Config
	room    *room // or what the one that there is lacks
	seq     uint32
	done    chan error
}

// Reload is SetDecider for rules that may need more of the packets: c's CopyRange,
// Conntrack, Connmark, UIDGID, SecCtx, Edits and Apart are asked of the kernel, where they are
// more than what is in force, and the rules are in force from the first packet on
// that comes with what they need. With an error, as those of Open, the rules
// before stay in force. One Reload at a time may be under way. Before Serve it waits
// for Serve.
func (q *Queue) Reload(d Decider, c Config) error {
	if q.ended.Load() {
		return nl.Error("reload", q.object(), errEnded)
	}
	r := &reload{decider: d, conf: c, done: make(chan error, 1)}
	room, err := q.prepare(&c, q.room)
	if err != nil {
		return err
	}
	if room != q.room {
		r.room = room
	}
	if !q.reload.CompareAndSwap(nil, r) {
		return nl.Error("reload", q.object(), unix.EBUSY)
	}
	if q.ended.Load() && q.reload.CompareAndSwap(r, nil) {
		return nl.Error("reload", q.object(), errEnded)
	}
	q.wake()
	return <-r.done
}

// askReload asks the kernel for what r needs. What it sends before the answer was
// copied by the old settings, and is decided by the old rules.
func (w *worker) askReload(r *reload) error {
	q := w.q
	w.asked = r
	was, now := q.conf, q.conf
	now.MaxLen = max(was.MaxLen, r.conf.MaxLen)
	now.CopyRange = min(max(was.CopyRange, r.conf.CopyRange), MaxCopy)
	now.Conntrack = was.Conntrack || r.conf.Conntrack
	now.Connmark = was.Connmark || r.conf.Connmark
	now.UIDGID = was.UIDGID || r.conf.UIDGID
	now.SecCtx = was.SecCtx || r.conf.SecCtx
	now.Edits = was.Edits || r.conf.Edits
	now.Apart = was.Apart || r.conf.Apart
	now.Codes, now.Hold = r.conf.Codes, r.conf.Hold
	r.conf = now
	var bits, mask uint32
	for _, f := range flags {
		if f.want(&now) != f.want(&was) {
			mask |= f.bit
			if f.want(&now) {
				bits |= f.bit
			}
		}
	}
	if mask == 0 && now.CopyRange == was.CopyRange && now.MaxLen == was.MaxLen {
		w.answerReload(nil)
		return nil
	}
	b := nl.AppendHeader(nil, msgConfig, nl.FlagAck, unix.AF_UNSPEC, q.conf.Num)
	if now.CopyRange != was.CopyRange {
		recv, err := q.conn.NewReceiver(slots, slotSize(now.CopyRange))
		if err != nil {
			return err
		}
		q.recvMu.Lock()
		q.recv = recv
		q.recvMu.Unlock()
		b = appendParams(b, now.CopyRange)
	}
	if now.MaxLen != was.MaxLen {
		b = nl.AppendU32(b, cfgMaxLen, now.MaxLen)
	}
	if mask != 0 {
		b = appendFlags(b, bits, mask)
	}
	var err error
	r.seq, err = q.conn.Request(nl.Finish(b, 0))
	return err
}

// answerReload puts the rules of the reload under way in force, or not.
func (w *worker) answerReload(err error) {
	r := w.asked
	w.asked = nil
	if err == nil {
		c := &w.q.conf // what other goroutines read of it stays as it is
		c.CopyRange, c.Conntrack, c.Connmark, c.UIDGID, c.SecCtx = r.conf.CopyRange, r.conf.Conntrack, r.conf.Connmark,
			r.conf.UIDGID, r.conf.SecCtx
		c.Edits, c.Apart = r.conf.Edits, r.conf.Apart || c.Apart
		c.Hold, c.MaxLen = r.conf.Hold, r.conf.MaxLen
		w.enter(r.room)
		c.Codes = r.conf.Codes // those before keep their numbers
		w.q.SetDecider(r.decider)
	} else {
		if r.room != nil {
			r.room.close()
		}
		err = w.refused(r, err)
	}
	// The batch under way is decided by the old rules to its end: only when that has
	// been answered nothing more comes of them.
	w.reloaded = func() {
		w.q.reload.CompareAndSwap(r, nil)
		r.done <- err
	}
	if !w.deciding {
		w.tellReloaded()
	}
}

// refused says what of a reload the kernel refused.
func (w *worker) refused(r *reload, err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		for _, f := range flags {
			if f.want(&r.conf) && !f.want(&w.q.conf) {
				return w.q.lacks(f.name, f.need, !r.conf.Conntrack)
			}
		}
		return err
	}
	return nl.Error("reload", w.q.object(), err)
}

// tellReloaded ends a reload.
func (w *worker) tellReloaded() {
	if f := w.reloaded; f != nil {
		w.reloaded = nil
		f()
	}
}
