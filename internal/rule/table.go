package rule

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"net/netip"
	"slices"

	"nfctl/internal/packet"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// none is behind every rule's index: no rule matches.
const none = ^uint32(0)

// A span says that the rule of an index is for the values from lo to hi. Ports,
// protocols and IPv4 addresses have hi words of 0.
type span struct {
	lo, hi num128
	rule   uint32
}

// num128 is a number of 128 bits: an IPv6 address.
type num128 struct{ hi, lo uint64 }

func (a num128) cmp(b num128) int { return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo)) }

func (a num128) next() num128 {
	a.lo++
	if a.lo == 0 {
		a.hi++
	}
	return a
}

func num6(a netip.Addr) num128 {
	v := a.As16()
	return num128{binary.BigEndian.Uint64(v[:8]), binary.BigEndian.Uint64(v[8:])}
}

func num4(a netip.Addr) num128 {
	v := a.As4()
	return num128{0, uint64(binary.BigEndian.Uint32(v[:]))}
}

// A piece begins where another rule than before is the first for a value.
type piece struct {
	from num128
	rule uint32
}

// first flattens spans that may overlap to pieces in which the first rule of all
// that are for a value stands. It takes n log n steps.
func first(spans []span) []piece {
	slices.SortFunc(spans, func(a, b span) int { return a.lo.cmp(b.lo) })
	ends := make([]num128, 0, len(spans))
	maxed := num128{^uint64(0), ^uint64(0)}
	for _, s := range spans {
		if s.hi != maxed {
			ends = append(ends, s.hi.next())
		}
	}
	slices.SortFunc(ends, num128.cmp)
	var out []piece
	var active spanHeap
	put := func(at num128) {
		for len(active) > 0 && active[0].hi.cmp(at) < 0 {
			heap.Pop(&active)
		}
		rule := none
		if len(active) > 0 {
			rule = active[0].rule
		}
		n := len(out)
		switch {
		case n > 0 && out[n-1].from == at:
			out[n-1].rule = rule
			if n > 1 && out[n-2].rule == rule {
				out = out[:n-1]
			}
		case n == 0 && rule != none || n > 0 && out[n-1].rule != rule:
			out = append(out, piece{at, rule})
		}
	}
	for i, j := 0, 0; i < len(spans) || j < len(ends); {
		var at num128
		if j == len(ends) || i < len(spans) && spans[i].lo.cmp(ends[j]) <= 0 {
			at = spans[i].lo
		} else {
			at = ends[j]
		}
		for ; i < len(spans) && spans[i].lo == at; i++ {
			heap.Push(&active, spans[i])
		}
		for j < len(ends) && ends[j] == at {
			j++
		}
		put(at)
	}
	return out
}

// spanHeap has the span of the first rule on top.
type spanHeap []span

func (h spanHeap) Len() int           { return len(h) }
func (h spanHeap) Less(i, j int) bool { return h[i].rule < h[j].rule }
func (h spanHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *spanHeap) Push(x any)        { *h = append(*h, x.(span)) }
func (h *spanHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// A subject is the field that a table looks up.
type subject uint8

const (
	subSport subject = iota
	subDport
	subProto
	subSrc
	subDst
)

// subjects are the fields that a table can find by.
var subjects = [...]string{subSport: "sport", subDport: "dport", subProto: "ip.proto", subSrc: "ip.src",
	subDst: "ip.dst"}

// A table finds the first rule of a run that is for a packet's port, protocol or
// address: one lookup for any number of rules.
type table struct {
	sub   subject
	proto int16 // the rules are for packets of this protocol; -1: of any

	small *[256]*[256]uint32 // ports by high and low byte, protocols by low byte; nil pages: none
	v4    []uint32           // where pieces begin; the first at 0
	rule4 []uint32
	v6    []num128
	rule6 []uint32

	numbers, addrs4, addrs6 []span // until built
}

func (t *table) build() {
	if t.sub <= subProto {
		t.small = new([256]*[256]uint32)
		pieces := first(t.numbers)
		for i, p := range pieces {
			end := uint64(1 << 16)
			if i+1 < len(pieces) {
				end = min(end, pieces[i+1].from.lo)
			}
			for n := p.from.lo; n < end && p.rule != none; n++ {
				page := t.small[n>>8]
				if page == nil {
					page = new([256]uint32)
					for i := range page {
						page[i] = none
					}
					t.small[n>>8] = page
				}
				page[n&255] = p.rule
			}
		}
	}
	if len(t.addrs4) > 0 {
		t.v4, t.rule4 = []uint32{0}, []uint32{none}
		for _, p := range first(t.addrs4) {
			if p.from.lo > 1<<32-1 {
				break
			}
			if p.from.lo == 0 {
				t.rule4[0] = p.rule
				continue
			}
			t.v4, t.rule4 = append(t.v4, uint32(p.from.lo)), append(t.rule4, p.rule)
		}
	}
	if len(t.addrs6) > 0 {
		t.v6, t.rule6 = []num128{{}}, []uint32{none}
		for _, p := range first(t.addrs6) {
			if p.from == (num128{}) {
				t.rule6[0] = p.rule
				continue
			}
			t.v6, t.rule6 = append(t.v6, p.from), append(t.rule6, p.rule)
		}
	}
	t.numbers, t.addrs4, t.addrs6 = nil, nil, nil
}

// add adds the values of a rule's set, which is not negated and has no mask.
func (t *table) add(s *value.Set, rule uint32) {
	for _, r := range s.Nums {
		t.numbers = append(t.numbers, span{num128{0, r.Lo}, num128{0, r.Hi}, rule})
	}
	for _, r := range s.Addrs {
		if r.Lo.Is4() {
			t.addrs4 = append(t.addrs4, span{num4(r.Lo), num4(r.Hi), rule})
		} else {
			t.addrs6 = append(t.addrs6, span{num6(r.Lo), num6(r.Hi), rule})
		}
	}
}

func (t *table) number(n uint32) uint32 {
	if page := t.small[n>>8&255]; page != nil {
		return page[n&255]
	}
	return none
}

func (t *table) addr4(a uint32) uint32 {
	if len(t.v4) == 0 {
		return none
	}
	lo, hi := 0, len(t.v4) // the last piece that begins at a or before is in [lo, hi)
	for hi-lo > 1 {
		if mid := int(uint(lo+hi) >> 1); t.v4[mid] <= a {
			lo = mid
		} else {
			hi = mid
		}
	}
	return t.rule4[lo]
}

func (t *table) addr6(a num128) uint32 {
	if len(t.v6) == 0 {
		return none
	}
	lo, hi := 0, len(t.v6)
	for hi-lo > 1 {
		if mid := int(uint(lo+hi) >> 1); t.v6[mid].cmp(a) <= 0 {
			lo = mid
		} else {
			hi = mid
		}
	}
	return t.rule6[lo]
}

func (t *table) addr(a netip.Addr) uint32 {
	if a.Is4() {
		v := a.As4()
		return t.addr4(binary.BigEndian.Uint32(v[:]))
	}
	return t.addr6(num6(a))
}

// A run is a row of rules that only decide. Those by one port, protocol or address,
// perhaps of one transport protocol, and those of one shape of which there are many,
// are looked up; of the others those are tried that stand before what was found.
type run struct {
	tables []table
	ports  bool // some table looks up a port
	joins  []*join
	singly []single
}

// A single is a rule of a run that is tried by itself.
type single struct {
	rule uint32
	test func(*queue.Packet) bool // nil: every packet
}

// match returns the index of the first rule of the run that is for a packet. scratch
// is memory for keys.
func (r *run) match(p *queue.Packet, scratch *[]byte) uint32 {
	found := none
	if len(r.tables) > 0 {
		found = r.lookup(p.Headers())
	}
	for _, j := range r.joins {
		found = min(found, j.match(p, scratch, found))
	}
	for i := range r.singly {
		s := &r.singly[i]
		if s.rule >= found {
			break
		}
		if s.test == nil || s.test(p) {
			return s.rule
		}
	}
	return found
}

// lookup asks the tables.
func (r *run) lookup(h *packet.Headers) uint32 {
	found := none
	var sport, dport uint16
	var havePorts bool
	if r.ports {
		sport, dport, havePorts = h.Ports()
	}
	proto, haveProto := h.Proto()
	for i := range r.tables {
		t := &r.tables[i]
		if t.proto >= 0 && (!haveProto || int16(proto) != t.proto) {
			continue
		}
		n := none
		switch t.sub {
		case subSport:
			if havePorts {
				n = t.number(uint32(sport))
			}
		case subDport:
			if havePorts {
				n = t.number(uint32(dport))
			}
		case subProto:
			if haveProto {
				n = t.number(uint32(proto))
			}
		case subSrc:
			if a, ok := h.Src(); ok {
				n = t.addr(a)
			}
		case subDst:
			if a, ok := h.Dst(); ok {
				n = t.addr(a)
			}
		}
		found = min(found, n)
	}
	return found
}

// plain reports whether a rule does nothing but decide, by what the packet is.
func (r *Rule) plain() bool {
	return !(!r.decides || len(r.actions) > 0 || len(r.whens) > 0 || r.verdict == queue.Repeat)
}

// simple reports whether a rule can be part of a run: the subjects that it looks
// up, any of which may match, the values, and the protocol or -1.
func (r *Rule) simple() (subs []subject, set *value.Set, proto int16, ok bool) {
	if !r.plain() || r.expr != nil {
		return nil, nil, 0, false
	}
	if r.shape != nil && (len(r.shape.parts) > 2 || len(r.shape.parts) == 2 && r.shape.proto(r.key) < 0) {
		return nil, nil, 0, false
	}
	conds := r.conditions()
	proto = -1
	if len(conds) == 2 && len(conds[0].Paths) == 1 && conds[0].Paths[0] == "ip.proto" {
		n, one := conds[0].Set.Num()
		if !one || n > 255 {
			return nil, nil, 0, false
		}
		proto, conds = int16(n), conds[1:]
	}
	if len(conds) != 1 {
		return nil, nil, 0, false
	}
	c := &conds[0]
	if c.Set.Not || c.Set.Mask != 0 || len(c.Set.Texts) > 0 {
		return nil, nil, 0, false
	}
	for _, path := range c.Paths {
		s := slices.Index(subjects[:], path)
		if s < 0 {
			return nil, nil, 0, false
		}
		subs = append(subs, subject(s))
	}
	return subs, &c.Set, proto, len(subs) > 0
}

// A shared is what rules of one shape in a run have together.
type shared struct {
	rules int
	join  *join
}

// newRun makes a run of rules, the first of which has an index. It is nil where
// nothing can be looked up.
func newRun(rules []Rule, first int) (*run, error) {
	r := &run{}
	shapes := map[string]*shared{}
	packed := map[*shape]*shared{} // quicker, for those of lists
	sharedBy := func(rule *Rule) (*shared, []part, string, bool) {
		if s := packed[rule.shape]; s != nil {
			return s, rule.shape.parts, rule.key, false
		}
		name, parts, key, rest := rule.keyed()
		s := shapes[name]
		if s == nil {
			s = &shared{}
			shapes[name] = s
		}
		if rule.shape != nil && !rest {
			packed[rule.shape] = s
		}
		return s, parts, key, rest
	}
	for i := range rules {
		if _, _, _, ok := rules[i].simple(); !ok {
			s, _, _, _ := sharedBy(&rules[i])
			s.rules++
		}
	}
	for i := range rules {
		rule, index := &rules[i], uint32(first+i)
		if _, _, _, ok := rule.simple(); ok {
			r.add(rule, index)
			continue
		}
		of, parts, key, rest := sharedBy(rule)
		joined := len(parts) > 0 && of.rules >= minJoin
		var test func(*queue.Packet) bool
		if rest || !joined {
			var err error
			if test, err = rule.matcher(); err != nil {
				return nil, err
			}
		}
		if !joined {
			r.singly = append(r.singly, single{index, test})
			continue
		}
		if of.join == nil {
			of.join = newJoin(parts, of.rules)
			r.joins = append(r.joins, of.join)
		}
		of.join.add(key, index, test)
	}
	if len(r.tables)+len(r.joins) == 0 {
		return nil, nil
	}
	for i := range r.tables {
		r.tables[i].build()
	}
	return r, nil
}

// add makes a rule part of the run.
func (r *run) add(rule *Rule, index uint32) {
	subs, set, proto, _ := rule.simple()
	for _, s := range subs {
		i := slices.IndexFunc(r.tables, func(t table) bool { return t.sub == s && t.proto == proto })
		if i < 0 {
			i = len(r.tables)
			r.tables = append(r.tables, table{sub: s, proto: proto})
		}
		r.tables[i].add(set, index)
		r.ports = r.ports || s == subSport || s == subDport
	}
}
