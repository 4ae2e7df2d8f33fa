package rule

import (
	"cmp"
	"sync/atomic"
	"time"

	"nfctl/internal/flows"
	"nfctl/internal/queue"
)

// ended remembers flows that a rule dropped or rejected as a whole. Of most of them the
// kernel knows nothing: an entry that is not confirmed goes with its first packet.
type ended struct {
	flows *flows.Table[endedFlow]
	any   atomic.Bool
}

type endedFlow struct {
	rule uint32 // from 1; 0: none
	seen uint32 // the last packet, in seconds since the epoch
}

// forget is how long a flow may be silent before it is a new one: as long as the kernel
// remembers a connection of TCP that got no answer.
const forget = int32(2 * time.Minute / time.Second)

func newEnded(limit int) *ended {
	return &ended{flows: flows.NewTable[endedFlow](cmp.Or(limit, DefaultMaxFlows))}
}

func (e *ended) remember(p *queue.Packet, rule int) {
	k, ok := flows.Of(p)
	if !ok {
		return
	}
	e.flows.Lock()
	*e.flows.At(&k) = endedFlow{uint32(rule), uint32(p.Time / int64(time.Second))}
	e.flows.Unlock()
	e.any.Store(true)
}

// decide decides on a packet of a flow that is remembered.
func (e *ended) decide(s *Set, p *queue.Packet, d *queue.Decision) bool {
	if !e.any.Load() {
		return false
	}
	k, ok := flows.Of(p)
	if !ok {
		return false
	}
	now := uint32(p.Time / int64(time.Second))
	e.flows.Lock()
	defer e.flows.Unlock()
	f := e.flows.Known(&k)
	if f == nil || int32(now-f.seen) > forget || p.Headers().ICMPError() {
		return false
	}
	f.seen = now
	d.Verdict, d.Flow, d.Rule = s.rules[f.rule-1].verdict, true, int(f.rule)
	return true
}
