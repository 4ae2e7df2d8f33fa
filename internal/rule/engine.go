package rule

import (
	"errors"
	"slices"
	"sync/atomic"

	"nfctl/internal/filter"
	"nfctl/internal/packet"
	"nfctl/internal/queue"
)

// A Set is a list of rules, compiled. It is shared by the engines of all queues
// and not changed by them.
type Set struct {
	rules []Rule
	steps []step
	opts  Options
	needs Needs
	apart int // the first rule that needs datagrams apart, from 1; 0: none
	logs  bool

	ended *ended // nil: no rule drops or rejects flows

	uncomputed atomic.Uint64
	added      map[alike]bool // rules alike need the same
}

// A step is a run of rules that tables serve, or else one rule.
type step struct {
	run   *run
	rule  *Rule
	index int                      // the rule's number, from 1
	match func(*queue.Packet) bool // nil: every packet
	ext   int                      // where the rule's extensions begin among the engine's

	choosers []chooser // the rule's whens
}

// minRun is the shortest run for which tables are made.
const minRun = 2

// Compile makes a Set of rules.
func Compile(rules []Rule, o Options) (*Set, error) {
	s := &Set{rules: rules, opts: o}
	exts, tried := 0, 0
	for i := 0; i < len(rules); {
		n := i
		for n < len(rules) && rules[n].plain() {
			n++
		}
		if n-i >= minRun && i >= tried {
			r, err := newRun(rules[i:n], i)
			if err != nil {
				return nil, err
			}
			if r != nil {
				for ; i < n; i++ {
					s.add(i)
				}
				s.steps = append(s.steps, step{run: r})
				continue
			}
			tried = n // one by one
		}
		r := &rules[i]
		if err := r.never(o.Proto); err != nil {
			return nil, &Error{Text: r.Text, File: r.File, Line: r.Line, Err: err}
		}
		s.add(i)
		st := step{rule: r, index: i + 1, ext: exts, choosers: r.choosers(&o, i+1)}
		for k := range r.actions {
			switch r.actions[k].kind {
			case actHold:
				r.actions[k].hold.seed(mix(o.Seed) + mix(uint64(i+1)<<32|1<<31|uint64(k)))
			case actExtension:
				exts++
			case actLog:
				s.logs = true
			}
		}
		var err error
		if st.match, err = r.matcher(); err != nil {
			return nil, err
		}
		s.steps = append(s.steps, st)
		i++
	}
	if slices.ContainsFunc(rules, func(r Rule) bool { return r.flow && (o.Simulated || r.verdict != queue.Accept) }) {
		s.ended = newEnded(o.MaxFlows)
	}
	return s, nil
}

// add adds what rule i needs.
func (s *Set) add(i int) {
	if r := &s.rules[i]; r.shape != nil && r.more == &nothing {
		same := alike{r.shape, r.shape.proto(r.key)}
		if s.added == nil {
			s.added = map[alike]bool{}
		}
		if s.added[same] {
			return
		}
		s.added[same] = true
	}
	n := s.rules[i].needs(s.opts)
	s.needs = s.needs.Add(n)
	if n.Apart && s.apart == 0 {
		s.apart = i + 1
	}
}

// Apart returns the first rule for which datagrams of UDP must come apart, from 1; 0:
// there is none, or a rule looks at gso itself.
func (s *Set) Apart() int {
	if s.needs.Uncut {
		return 0
	}
	return s.apart
}

// matcher compiles the rule's condition.
func (r *Rule) matcher() (func(*queue.Packet) bool, error) {
	var conds func(*queue.Packet) bool
	if list := r.conditions(); len(list) > 0 {
		var err error
		if conds, err = filter.Conds(queue.Fields, list...); err != nil {
			return nil, err
		}
	}
	switch {
	case r.expr == nil:
		return conds, nil
	case conds == nil:
		return r.expr.Match, nil
	}
	expr := r.expr.Match
	return func(p *queue.Packet) bool { return conds(p) && expr(p) }, nil
}

// Needs returns what the rules must be given of each packet.
func (s *Set) Needs() Needs { return s.needs }

// Logs reports whether a rule's action is log: then the packets to show are those
// whose Decision says so, and else all.
func (s *Set) Logs() bool { return s.logs }

// Loops names the first rule that hands packets of queue num to that
// same queue, from which they would come again, for ever; or "".
func (s *Set) Loops(num uint16) string {
	for i, r := range s.rules {
		if r.decides && (r.verdict == queue.ToQueue(num, false) || r.verdict == queue.ToQueue(num, true)) {
			return s.rules[i].name().String()
		}
	}
	return ""
}

// Foresee returns the verdict on a packet that is not there yet, and the rule's
// number: 0 when no rule decides. Actions are not carried out but mark, scripts are
// not asked, and a rule with a when is taken as one that does not choose it.
func (s *Set) Foresee(p *queue.Packet, dflt queue.Verdict) (v queue.Verdict, rule int) {
	var scratch []byte
	for i := range s.steps {
		st := &s.steps[i]
		if st.run != nil {
			if n := st.run.match(p, &scratch); n != none {
				return s.rules[n].verdict, int(n) + 1
			}
			continue
		}
		if st.match != nil && !st.match(p) || len(st.choosers) > 0 {
			continue
		}
		if st.rule.decides {
			return st.rule.verdict, st.index
		}
		mark, mask := st.rule.marks()
		p.Mark = p.Mark&^mask | mark
	}
	return dflt, 0
}

// Name names rule n, from 1.
func (s *Set) Name(n int) queue.RuleName { return s.rules[n-1].name() }

// NeedsOf returns what rule n, from 1, must be given of each packet.
func (s *Set) NeedsOf(n int) Needs { return s.rules[n-1].needs(s.opts) }

// Len returns the number of rules.
func (s *Set) Len() int { return len(s.rules) }

// Uncomputed returns how often a field was left as it was because what it was to be
// set to could not be computed: a field that the packet has not, or a division by 0.
func (s *Set) Uncomputed() uint64 { return s.uncomputed.Load() }

// Faults returns how often an expression's number could not be computed.
func (s *Set) Faults() (n uint64) {
	for i := range s.rules {
		if e := s.rules[i].expr; e != nil {
			n += e.Faults()
		}
	}
	return n
}

// An Engine decides on the packets of one queue by the rules of a Set. It
// implements queue.Decider.
type Engine struct {
	set     *Set
	edit    packet.Editor
	key     []byte // memory for lookups
	exts    []Extension
	holds   []heldBy // what met the packet at hand
	damaged []byte   // memory for corrupt
	by      int      // the rule that edited the packet at hand last
}

// Engine makes an engine for one queue.
func (s *Set) Engine() (*Engine, error) {
	e := &Engine{set: s}
	for i := range s.rules {
		for k := range s.rules[i].actions {
			if a := &s.rules[i].actions[k]; a.kind == actExtension {
				x, err := a.opener.Open()
				if err != nil {
					return nil, err
				}
				e.exts = append(e.exts, x)
			}
		}
	}
	return e, nil
}

// Rules implements queue.Decider.
func (e *Engine) Rules() int { return len(e.set.rules) }

// Rule implements queue.Decider.
func (e *Engine) Rule(n int) queue.RuleName { return e.set.Name(n) }

// Decide tries the rules on p until one decides.
func (e *Engine) Decide(p *queue.Packet, d *queue.Decision) {
	e.holds = e.holds[:0]
	if e.set.ended != nil && e.set.ended.decide(e.set, p, d) {
		return
	}
	for i := range e.set.steps {
		s := &e.set.steps[i]
		if s.run != nil {
			if n := s.run.match(p, &e.key); n != none {
				d.Verdict, d.Flow, d.Rule = e.set.rules[n].verdict, e.set.rules[n].flow, int(n)+1
				break
			}
			continue
		}
		if s.match != nil && !s.match(p) || len(s.choosers) > 0 && !s.choose(p) {
			continue
		}
		if len(s.rule.actions) > 0 {
			if decided := e.act(s, p, d); decided {
				break
			}
		}
		if s.rule.decides {
			d.Verdict, d.Flow, d.Rule = s.rule.verdict, s.rule.flow, s.index
			break
		}
		d.Matched = append(d.Matched, s.index)
	}
	if d.Flow && p.Headers().ICMPError() {
		d.Flow = false
	}
	if d.Flow && (d.Verdict != queue.Accept || e.set.opts.Simulated) {
		e.set.ended.remember(p, d.Rule)
	}
	if e.set.needs.Edits {
		if e.edit.Changed() {
			e.finish(p, d)
		} else {
			e.edit.Reset() // of a packet on which an edit changed nothing
		}
	}
	if len(e.holds) > 0 {
		e.hold(p, d)
	}
}

// act carries out a rule's actions; true when one decided.
func (e *Engine) act(s *step, p *queue.Packet, d *queue.Decision) bool {
	ext := s.ext
	for i := range s.rule.actions {
		a := &s.rule.actions[i]
		switch a.kind {
		case actMark:
			if mark := p.Mark&^a.mask | a.mark; mark != p.Mark {
				p.Mark = mark
				d.Mark, d.SetMark = mark, true
			}
		case actConnmark:
			if d.SetConnmark {
				d.Connmark = d.Connmark&^a.mask | a.mark
				d.ConnmarkMask |= a.mask
			} else {
				d.SetConnmark, d.Connmark, d.ConnmarkMask = true, a.mark, a.mask
			}
		case actLog:
			d.Log = true
		case actHold:
			e.holds = append(e.holds, heldBy{a.hold, s.index})
		case actSet, actNumber, actReplace:
			if p.Has&queue.HasPayload == 0 {
				return e.uneditable(s, d, packet.ErrNoCopy)
			}
			if err := e.change(a, p); err != nil && !errors.Is(err, packet.ErrAbsent) {
				return e.uneditable(s, d, err)
			}
			e.by = s.index
		case actExtension:
			x := e.exts[ext]
			ext++
			decided, err := x.Act(p, d, &e.edit)
			if err != nil {
				return e.uneditable(s, d, err)
			}
			e.by = s.index
			if decided {
				d.Rule = s.index
				return true
			}
		}
	}
	return false
}

// change makes an edit.
func (e *Engine) change(a *action, p *queue.Packet) error {
	h := p.Headers()
	if a.kind != actNumber {
		return e.edit.Apply(h, meta(p), a.edit)
	}
	n, ok := a.number.Value(p)
	if !ok {
		if a.edit.For(h) {
			e.set.uncomputed.Add(1)
		}
		return nil
	}
	return e.edit.ApplyNumber(h, meta(p), a.edit, min(uint64(max(n, 0)), a.most))
}

// uneditable decides on a packet that cannot be edited.
func (e *Engine) uneditable(s *step, d *queue.Decision, why error) bool {
	e.edit.Reset()
	d.Verdict, d.Flow, d.Rule, d.Why, d.Data = e.set.opts.OnUneditable, false, s.index, why, nil
	return true
}

// finish puts an edited packet right, so that it can go with the verdict.
func (e *Engine) finish(p *queue.Packet, d *queue.Decision) {
	if d.Verdict == queue.Drop || d.Verdict == queue.Reject {
		e.edit.Reset()
		return
	}
	h := p.Headers()
	data, err := e.edit.Finish(h, meta(p))
	if err != nil {
		e.edit.Reset()
		d.Verdict, d.Flow, d.Rule, d.Why, d.Data = e.set.opts.OnUneditable, false, e.by, err, nil
		return
	}
	d.Data = data
	p.Data, p.Length = h.Data, uint32(len(h.Data))
}

func meta(p *queue.Packet) packet.Meta {
	return packet.Meta{GSO: p.SkbInfo&queue.GSO != 0, CsumNotReady: p.SkbInfo&queue.CsumNotReady != 0}
}
