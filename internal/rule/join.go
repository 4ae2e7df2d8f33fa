package rule

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"

	"nfctl/internal/field"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// Rules of one shape, which compare the same fields in the same way with differing
// values, are found by their values with one lookup.

// A part is a field of a key, and what of it counts.
type part struct {
	row  *field.Row[queue.Packet]
	mask uint64 // of a number
	bits int    // of an address: the length of the prefix; of v4 or v6
	v4   bool
}

// minJoin is the smallest number of rules of one shape that are worth a table.
const minJoin = 4

// keyed splits the conditions of a rule: those of them that a key stands for, as the
// text of their shape, its parts and the key's bytes. rest says that there are others,
// too. Without parts there is no key.
func (r *Rule) keyed() (name string, parts []part, bytes string, rest bool) {
	if r.shape != nil && r.expr == nil {
		return r.shape.name, r.shape.parts, r.key, false
	}
	conds := r.conditions()
	if r.expr != nil {
		of, exact := r.expr.Conds()
		conds, rest = append(slices.Clip(conds), of...), !exact
	}
	text, key := make([]byte, 0, 96), make([]byte, 0, 64)
	parts = make([]part, 0, len(conds))
	for i := range conds {
		c := &conds[i]
		p, longer, ok := partOf(c, key)
		if !ok {
			rest = true
			continue
		}
		key = longer
		parts = append(parts, p)
		text = append(text, p.row.Path...)
		text = strconv.AppendInt(append(text, '/'), int64(p.bits), 10)
		text = strconv.AppendUint(append(text, '/'), p.mask, 16)
		text = append(strconv.AppendBool(text, p.v4), ' ')
	}
	return string(text), parts, string(key), rest
}

// A shape is what rules have in common that compare the same fields in the same way.
type shape struct {
	name  string
	parts []part
}

// alike are rules that need the same of packets.
type alike struct {
	shape *shape
	proto int
}

// proto returns the protocol that a rule of the shape begins with, or -1.
func (s *shape) proto(key string) int {
	if s.parts[0].row.Path != "ip.proto" {
		return -1
	}
	return int(key[0])<<8 | int(key[1])
}

// conds returns the conditions that a key stands for.
func (s *shape) conds(key string) []field.Cond {
	out := make([]field.Cond, len(s.parts))
	b := []byte(key)
	for i := range s.parts {
		p := &s.parts[i]
		c := &out[i]
		c.Paths = []string{p.row.Path}
		switch {
		case p.row.Num != nil:
			var n uint64
			if p.row.Limit() <= 0xffff {
				n, b = uint64(binary.BigEndian.Uint16(b)), b[2:]
			} else {
				n, b = binary.BigEndian.Uint64(b), b[8:]
			}
			c.Set = value.Single(n)
			if p.mask != ^uint64(0) {
				c.Set.Mask = p.mask
			}
		case p.row.IP != nil:
			size := 16
			if p.v4 {
				size = 4
			}
			a, _ := netip.AddrFromSlice(b[:size])
			b = b[size:]
			c.Set.Addrs = []value.AddrRange{{Lo: a, Hi: last(netip.PrefixFrom(a, p.bits))}}
		default:
			n, used := binary.Uvarint(b)
			c.Set.Texts = []string{string(b[used:][:n])}
			b = b[used:][n:]
		}
	}
	return out
}

// shapes are those that rules of a list have.
type shapes struct {
	byName map[string]*shape
	last   *shape
}

// pack keeps a rule's conditions as shape and key, where these are all there is to
// them.
func (s *shapes) pack(r *Rule) {
	if s == nil || len(r.conds) == 0 || r.expr != nil {
		return
	}
	if key, ok := s.last.keyOf(r.conds); ok { // mostly, in a long list
		r.shape, r.key, r.conds = s.last, key, nil
		return
	}
	name, parts, key, rest := r.keyed()
	if rest {
		return
	}
	if s.byName[name] == nil {
		s.byName[name] = &shape{name, parts}
	}
	s.last = s.byName[name]
	r.shape, r.key, r.conds = s.last, key, nil
}

// keyOf returns the key of conditions of this shape.
func (s *shape) keyOf(conds []field.Cond) (string, bool) {
	if s == nil || len(conds) != len(s.parts) {
		return "", false
	}
	key := make([]byte, 0, 64)
	for i := range conds {
		p, longer, ok := partOf(&conds[i], key)
		if !ok || p != s.parts[i] {
			return "", false
		}
		key = longer
	}
	return string(key), true
}

// partOf appends the value that a condition asks for to a key, where it is one.
func partOf(c *field.Cond, key []byte) (part, []byte, bool) {
	s := &c.Set
	if len(c.Paths) != 1 || s.Not || len(s.Nums)+len(s.Addrs)+len(s.Texts) != 1 {
		return part{}, key, false
	}
	p := part{row: queue.Fields.Row(c.Paths[0])}
	switch {
	case p.row == nil || p.row.Kind == field.Bits:
		return part{}, key, false
	case len(s.Nums) == 1 && p.row.Num != nil:
		if p.mask = s.Mask; p.mask == 0 {
			p.mask = ^uint64(0)
		}
		n := s.Nums[0].Lo
		return p, p.number(key, n), n == s.Nums[0].Hi && n <= p.row.Limit()
	case len(s.Addrs) == 1 && p.row.IP != nil:
		lo, hi := s.Addrs[0].Lo, s.Addrs[0].Hi
		for p.v4, p.bits = lo.Is4(), lo.BitLen(); p.bits >= 0; p.bits-- {
			x, err := lo.Prefix(p.bits)
			if err != nil || x.Addr() != lo {
				break
			}
			if last(x) == hi {
				return p, p.addr(key, lo), true
			}
		}
	case len(s.Texts) == 1 && p.row.Data != nil:
		return p, p.text(key, []byte(s.Texts[0])), true
	}
	return part{}, key, false
}

// last returns the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	for i := p.Bits() + 128 - p.Addr().BitLen(); i < 128; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		return a.Unmap()
	}
	return a
}

func (p *part) number(key []byte, n uint64) []byte {
	if limit := p.row.Limit(); limit <= 0xffff && n <= 0xffff {
		return binary.BigEndian.AppendUint16(key, uint16(n))
	}
	return binary.BigEndian.AppendUint64(key, n)
}

func (p *part) addr(key []byte, a netip.Addr) []byte {
	if p.v4 {
		b := a.As4()
		return binary.BigEndian.AppendUint32(key, binary.BigEndian.Uint32(b[:])&^(1<<(32-p.bits)-1))
	}
	n := num6(a)
	if p.bits <= 64 {
		n.hi, n.lo = n.hi&^(1<<(64-p.bits)-1), 0
	} else {
		n.lo &^= 1<<(128-p.bits) - 1
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(key, n.hi), n.lo)
}

func (p *part) text(key, s []byte) []byte {
	return append(binary.AppendUvarint(key, uint64(len(s))), s...)
}

// append appends a packet's value; false: it has none that could be a rule's.
func (p *part) append(key []byte, pk *queue.Packet) ([]byte, bool) {
	switch {
	case p.row.Num != nil:
		n, ok := p.row.Num(pk)
		return p.number(key, n&p.mask), ok
	case p.row.IP != nil:
		a, ok := p.row.IP(pk)
		if !ok || a.Is4() != p.v4 {
			return key, false
		}
		return p.addr(key, a), true
	}
	s, ok := p.row.Data(pk)
	return p.text(key, s), ok
}

// A join finds the first of many rules of one shape by the key of a packet.
type join struct {
	parts   []part
	seed    maphash.Seed
	slots   []uint32 // of entries, from 1, by hash; 0: free. A power of 2
	entries []entry
	keys    []byte
}

// An entry is a rule under its key, in the order of rules.
type entry struct {
	key, end uint32 // in keys
	rule     uint32
	next     uint32                   // of the same key, from 1; 0: none
	test     func(*queue.Packet) bool // what else must hold; nil: nothing
}

func newJoin(parts []part, rules int) *join {
	size := 4
	for size < 2*rules {
		size *= 2
	}
	return &join{parts: parts, seed: maphash.MakeSeed(), slots: make([]uint32, size), entries: make([]entry, 0, rules)}
}

// find returns the slot of a key, or where it is to go.
func find[K string | []byte](j *join, hash uint64, key K) *uint32 {
	mask := uint64(len(j.slots) - 1)
	for i := hash; ; i++ {
		slot := &j.slots[i&mask]
		if *slot == 0 {
			return slot
		}
		if e := &j.entries[*slot-1]; string(j.keys[e.key:e.end]) == string(key) {
			return slot
		}
	}
}

// add adds a rule, which stands behind those that were added before.
func (j *join) add(key string, rule uint32, test func(*queue.Packet) bool) {
	slot := find(j, maphash.String(j.seed, key), key)
	e := entry{rule: rule, test: test}
	for n := *slot; n != 0; n = j.entries[n-1].next {
		before := &j.entries[n-1]
		if before.test == nil {
			return // it never comes to this rule
		}
		e.key, e.end = before.key, before.end
		slot = &before.next
	}
	if e.end == 0 {
		e.key = uint32(len(j.keys))
		j.keys = append(j.keys, key...)
		e.end = uint32(len(j.keys))
	}
	j.entries = append(j.entries, e)
	*slot = uint32(len(j.entries))
}

// match returns the index of the first rule that is for a packet, and before limit.
func (j *join) match(p *queue.Packet, scratch *[]byte, limit uint32) uint32 {
	key, ok := (*scratch)[:0], false
	for i := range j.parts {
		if key, ok = j.parts[i].append(key, p); !ok {
			return none
		}
	}
	*scratch = key
	for n := *find(j, maphash.Bytes(j.seed, key), key); n != 0; {
		e := &j.entries[n-1]
		if e.rule >= limit {
			return none
		}
		if e.test == nil || e.test(p) {
			return e.rule
		}
		n = e.next
	}
	return none
}
