package rule

import (
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"nfctl/internal/packet"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// A hold is an action that takes effect when a packet is finally accepted: it waits,
// goes twice or damaged. What is read of a rule makes one, which all queues share.
type hold struct {
	*delay
	*rate
	duplicate bool
	corrupt   *source
}

// A heldBy is a hold that met the packet at hand, and the number of its rule.
type heldBy struct {
	*hold
	rule int
}

// A delay lets packets wait for d, and jitter more or less.
type delay struct {
	d, jitter time.Duration
	reorder   bool
	source
}

// draw returns how long a packet waits.
func (y *delay) draw() int64 {
	if y.jitter == 0 {
		return int64(y.d)
	}
	n := int64(y.source.draw() % uint64(2*y.jitter+1))
	return max(0, int64(y.d-y.jitter)+n)
}

// A rate lets packets go one behind the other, as a link of so many bits a second does.
// It is kept as the time at which the last bit of what came has gone; with a burst,
// as much may go at once after a pause.
type rate struct {
	bits  uint64 // a second
	burst int64  // what the burst takes to go, in nanoseconds
	wait  int64  // what would wait longer is dropped; 0: nothing is
	busy  atomic.Int64
}

// take returns when a packet of so many bytes that comes at a time has gone; false: it
// would wait too long.
func (r *rate) take(at int64, bytes uint32) (int64, bool) {
	takes := int64(float64(bytes) * 8 / float64(r.bits) * 1e9)
	for {
		was := r.busy.Load()
		busy := max(was, at) + takes
		due := max(at, busy-r.burst)
		if r.wait > 0 && due-at > r.wait {
			return at, false
		}
		if r.busy.CompareAndSwap(was, busy) {
			return due, true
		}
	}
}

const maxDelay = 24 * time.Hour

// delayArgument takes a duration with its unit.
func (p *parser) delayArgument(word string) (time.Duration, error) {
	const valid = "a time with its unit, as 100ms or 1.5s, up to 24h"
	w, err := p.argument(word, valid)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(w)
	if err == nil && d >= 0 && d <= maxDelay && strings.Trim(w, "0123456789.") != "" {
		return d, nil
	}
	bad := &value.Error{What: word, Text: w, Valid: valid}
	if _, err := decimal(w); err == nil {
		bad.Near = w + "ms"
	}
	return 0, bad
}

func readDelay(p *parser, r *Rule, _ Options) error {
	y := &delay{}
	var err error
	if y.d, err = p.delayArgument("delay"); err != nil {
		return err
	}
	if p.peek() == "jitter" {
		p.next()
		if y.jitter, err = p.delayArgument("jitter"); err != nil {
			return err
		}
	}
	if p.peek() == "reorder" {
		p.next()
		y.reorder = true
	}
	r.actions = append(r.actions, action{kind: actHold, hold: &hold{delay: y}})
	return nil
}

var rateUnits = []struct {
	suffix string
	bits   float64
}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

// readBits reads a rate in bits a second.
func readBits(s string) (uint64, error) {
	bad := &value.Error{What: "rate", Text: s,
		Valid: "bits a second with their unit: 500kbit, 1mbit, 2.5gbit (powers of 1000)"}
	for _, u := range rateUnits {
		if n, ok := strings.CutSuffix(strings.ToLower(s), u.suffix); ok {
			f, err := decimal(n)
			if bits := math.Round(f * u.bits); err == nil && bits >= 1 && bits <= 1e15 {
				return uint64(bits), nil
			}
			return 0, bad
		}
	}
	if _, err := decimal(s); err == nil {
		bad.Near = s + "bit"
	}
	return 0, bad
}

func readRate(p *parser, r *Rule, _ Options) error {
	w, err := p.argument("rate", "bits a second with their unit, as 1mbit")
	if err != nil {
		return err
	}
	t := &rate{}
	if t.bits, err = readBits(w); err != nil {
		return err
	}
	for {
		switch p.peek() {
		case "burst":
			const valid = "a size with its unit, as 16KiB"
			if w, err = p.option("burst", valid); err != nil {
				return err
			}
			n, err := value.Size(w)
			if _, bare := strconv.ParseUint(w, 10, 64); err != nil || bare == nil || n == 0 {
				return &value.Error{What: "burst", Text: w, Valid: valid}
			}
			t.burst = int64(min(float64(n)*8/float64(t.bits)*1e9, float64(maxDelay)))
			continue
		case "wait":
			p.next()
			d, err := p.delayArgument("wait")
			if err != nil {
				return err
			}
			t.wait = max(1, int64(d))
			continue
		}
		break
	}
	r.actions = append(r.actions, action{kind: actHold, hold: &hold{rate: t}})
	return nil
}

func readDuplicate(_ *parser, r *Rule, _ Options) error {
	r.actions = append(r.actions, action{kind: actHold, hold: &hold{duplicate: true}})
	return nil
}

func readCorrupt(_ *parser, r *Rule, _ Options) error {
	r.actions = append(r.actions, action{kind: actHold, hold: &hold{corrupt: &source{}}})
	return nil
}

// seed has what is drawn begin with a number.
func (h *hold) seed(n uint64) {
	switch {
	case h.delay != nil:
		h.delay.n.Store(n)
	case h.corrupt != nil:
		h.corrupt.n.Store(n)
	}
}

// draws reports whether the action draws by chance.
func (h *hold) draws() bool { return h.delay != nil && h.delay.jitter > 0 || h.corrupt != nil }

// A Holds says which rules ask for what only packets that wait, or copies, can have: the
// first of each kind, from 1; 0: none.
type Holds struct{ Wait, Duplicate int }

// Holds returns which rules have packets wait or go twice.
func (s *Set) Holds() (h Holds) {
	for i := range s.rules {
		for k := range s.rules[i].actions {
			switch a := s.rules[i].actions[k].hold; {
			case a == nil:
			case a.duplicate && h.Duplicate == 0:
				h.Duplicate = i + 1
			case (a.delay != nil || a.rate != nil) && h.Wait == 0:
				h.Wait = i + 1
			}
		}
	}
	return h
}

// hold has a packet wait, go twice or damaged as the actions ask that met it, in their
// order.
func (e *Engine) hold(p *queue.Packet, d *queue.Decision) {
	if d.Verdict == queue.Drop || d.Verdict == queue.Reject {
		return
	}
	now := p.Now()
	at := now
	waits := false
	for _, h := range e.holds {
		switch {
		case h.delay != nil:
			at += h.delay.draw()
			waits = true
			d.Unordered = d.Unordered || h.delay.reorder
		case h.rate != nil:
			due, ok := h.rate.take(at, p.Length)
			if !ok {
				*d = queue.Decision{Verdict: queue.Drop, Rule: h.rule, Late: true, Log: d.Log, Matched: d.Matched}
				return
			}
			at = due
			waits = true
		case h.duplicate:
			d.Duplicate = true
		case h.corrupt != nil:
			if err := e.corrupt(p, d, h.corrupt); err != nil {
				*d = queue.Decision{Verdict: e.set.opts.OnUneditable, Rule: h.rule, Why: err, Log: d.Log,
					Matched: d.Matched}
				return
			}
		}
	}
	if waits {
		d.Due = at
	}
}

// corrupt flips a bit behind the IP header, and leaves the checksums as they are.
func (e *Engine) corrupt(p *queue.Packet, d *queue.Decision, s *source) error {
	if p.Truncated() {
		return packet.ErrNoCopy
	}
	h := p.Headers()
	from, to := h.Body()
	if from >= to {
		return nil
	}
	e.damaged = append(e.damaged[:0], p.Data...)
	if m := meta(p); d.Data == nil && m.CsumNotReady { // of what was damaged, the device would make it
		if err := packet.Fix(e.damaged, m); err != nil {
			return err
		}
	}
	n := s.draw() % uint64((to-from)*8)
	e.damaged[from+int(n/8)] ^= 1 << (n % 8)
	d.Data, p.Data = e.damaged, e.damaged
	return nil
}
