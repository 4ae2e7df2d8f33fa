package queue

import (
	"context"
	"errors"
	"io"
)

// Played makes a queue that no kernel stands behind: its packets come by Play. Of c
// heed is given to what is decided (DefaultDrop, DryRun), not to what the kernel is
// asked. device knows interfaces by their numbers.
func Played(c Config, device func(index uint32) (name string, ok bool)) *Queue {
	q := &Queue{conf: c, names: ifNames{lookup: device, m: map[uint32]*ifName{}}}
	q.SetDecider(None{})
	return q
}

// Play decides on the packets that next makes, until that returns io.EOF or ctx ends.
// Verdicts are counted and told as those of Serve are, and given to nobody. Before each
// call the packet is one of which nothing is known; its queue's number and id are next's
// to set, too.
//
// waiting reports that a call may have to wait: what was gathered is written first.
func (q *Queue) Play(ctx context.Context, next func(*Packet) error, waiting func() bool) error {
	w := newWorker(q)
	var failed error
	w.abandon = func(err error) { failed = errors.Join(failed, err) }
	var err error
	for err == nil && failed == nil && ctx.Err() == nil {
		w.begin()
		for range slots {
			w.p.reset()
			if err = next(&w.p); err != nil {
				break
			}
			w.p.now = max(w.p.Time, 1) // rates go by the packets' own time
			w.decide()
			if waiting() {
				break
			}
		}
		w.deciding = false
		w.flushCount()
		w.rule = 0
		q.sets.release()
		q.publish()
		if w.decided > 0 && q.OnBatch != nil {
			q.OnBatch(w.decided)
		}
		if err != nil || waiting() {
			w.idle()
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, failed)
}
