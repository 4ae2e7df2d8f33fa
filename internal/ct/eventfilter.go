package ct

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/field"
	"nfctl/internal/nl"
	"nfctl/internal/value"
)

// An EventFilter is a program that the kernel runs on each event before it takes
// it into the receive buffer (classic BPF, with netlink's extensions that find
// attributes: net/core/filter.c). It passes all that its conditions hold for, and
// may pass more: whoever watches checks again.
type EventFilter struct {
	Program []unix.SockFilter // empty: every event passes
	Exact   bool              // it passes nothing but what the conditions hold for
}

// FilterEvents makes the program that passes the flows for which all conditions
// hold, and what is no event about a flow. Conditions on what can change while
// a flow lives, its mark and status, are left out unless changing is set.
func FilterEvents(conds []field.Cond, changing bool) EventFilter {
	var b bpf
	out := EventFilter{Exact: true}
	// nlmsg_type is in the machine's order, and a load makes a big-endian number.
	b.load(unix.BPF_H, 4)
	b.op(unix.BPF_ALU|unix.BPF_AND, uint32(hostOrder16(0xff00)))
	b.jump(unix.BPF_JEQ, uint32(hostOrder16(nl.SubsysCt<<8)), next, pass)
	n := 0
	for _, c := range conds {
		if !b.cond(c, changing) {
			out.Exact = false
			continue
		}
		n++
	}
	if n > 0 {
		out.Program = b.finish()
	}
	return out
}

// eventsOf returns which events conditions leave.
func eventsOf(conds []field.Cond) Events {
	left := AllEvents
	for _, c := range conds {
		if len(c.Paths) != 1 || c.Paths[0] != "event" || c.Set.Mask != 0 {
			continue
		}
		var these Events
		for _, e := range []struct {
			event Event
			bit   Events
		}{{New, EventNew}, {Update, EventUpdate}, {Destroy, EventDestroy}} {
			for _, r := range c.Set.Nums {
				if uint64(e.event) >= r.Lo && uint64(e.event) <= r.Hi {
					these |= e.bit
				}
			}
		}
		if c.Set.Not {
			these = AllEvents &^ these
		}
		left &= these
	}
	return left
}

func hostOrder16(n uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], n)
	return binary.BigEndian.Uint16(b[:])
}

// A target is where a jump goes.
type target int

const (
	next target = -1 // the instruction behind
	pass target = 0
	drop target = 1
	// Labels from 2 on are made by bpf.label and placed by bpf.place.
)

// A bpf is a program under way. Jumps to labels are instructions of their own,
// whose distance has 32 bits, and are filled in at the end.
type bpf struct {
	code   []unix.SockFilter
	labels []int // where each label is
	far    []farJump
}

type farJump struct {
	at int
	to target
}

func (b *bpf) op(code uint16, k uint32) { b.code = append(b.code, unix.SockFilter{Code: code, K: k}) }

func (b *bpf) load(size uint16, at uint32) { b.op(unix.BPF_LD|size|unix.BPF_ABS, at) }

func (b *bpf) label() target {
	if b.labels == nil {
		b.labels = make([]int, 2) // pass, drop
	}
	b.labels = append(b.labels, -1)
	return target(len(b.labels) - 1)
}

func (b *bpf) place(t target) { b.labels[t] = len(b.code) }

func (b *bpf) jumpTo(t target) {
	b.far = append(b.far, farJump{len(b.code), t})
	b.op(unix.BPF_JMP|unix.BPF_JA, 0)
}

// jump compares what is loaded with k and goes on at yes or no, one of which is
// next.
func (b *bpf) jump(test uint16, k uint32, yes, no target) {
	i := unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k}
	far := yes
	if yes == next {
		i.Jt, far = 1, no
	} else {
		i.Jf = 1
	}
	b.code = append(b.code, i)
	b.jumpTo(far)
}

// finish ends the program: what came through all conditions passes.
func (b *bpf) finish() []unix.SockFilter {
	if b.labels == nil {
		b.label()
	}
	b.labels[pass] = len(b.code)
	b.op(unix.BPF_RET|unix.BPF_K, 1<<32-1)
	b.labels[drop] = len(b.code)
	b.op(unix.BPF_RET|unix.BPF_K, 0)
	for _, j := range b.far {
		b.code[j.at].K = uint32(b.labels[j.to] - j.at - 1)
	}
	return b.code
}

// A number is where an event has a number: one of the places, of which a message
// has one at most.
type number struct {
	places   []wire
	size     uint16 // unix.BPF_B, _H, _W
	changing bool
	zero     bool // without it, it is 0
}

// eventNumber returns where an event has the number of a field; false when it has
// none of its own.
func eventNumber(path string) (n number, ok bool) {
	switch path {
	case "proto", "proto_num":
		path = "orig.proto"
	case "mark":
		return number{places: []wire{{ctaMark}}, size: unix.BPF_W, changing: true, zero: true}, true
	case "status":
		return number{places: []wire{{ctaStatus}}, size: unix.BPF_W, changing: true}, true
	}
	dir, part, _ := strings.Cut(path, ".")
	top, ok := eventTuple(dir)
	if !ok {
		return n, false
	}
	for _, p := range []struct {
		part string
		size uint16
		nums []uint16
	}{
		{"proto", unix.BPF_B, []uint16{ctaProtoNum}},
		{"sport", unix.BPF_H, []uint16{ctaProtoSrcPort}},
		{"dport", unix.BPF_H, []uint16{ctaProtoDstPort}},
		{"type", unix.BPF_B, []uint16{ctaProtoICMPType, ctaProtoICMPv6Type}},
		{"code", unix.BPF_B, []uint16{ctaProtoICMPCode, ctaProtoICMPv6Code}},
		{"id", unix.BPF_H, []uint16{ctaProtoICMPID, ctaProtoICMPv6ID}},
	} {
		if p.part != part {
			continue
		}
		n.size = p.size
		for _, num := range p.nums {
			n.places = append(n.places, wire{top, ctaTupleProto, num})
		}
		return n, true
	}
	return n, false
}

// eventTuple returns the attribute of a direction's tuple.
func eventTuple(dir string) (uint16, bool) {
	switch dir {
	case "orig":
		return ctaTupleOrig, true
	case "reply":
		return ctaTupleReply, true
	}
	return 0, false
}

// cond appends the test of a condition, and reports whether it can be made. A
// value that an event lacks never matches, negated or not.
func (b *bpf) cond(c field.Cond, changing bool) bool {
	if c.Set.Not && len(c.Paths) != 1 || len(c.Set.Texts) > 0 {
		return false
	}
	paths := make([]string, len(c.Paths))
	for i, path := range c.Paths {
		r := FlowFields.Row(path)
		if r == nil || !b.can(r.Path, &c.Set, changing) {
			return false
		}
		paths[i] = r.Path
	}
	met := b.label()
	member, other := met, next // of a value in the set; of another one
	if c.Set.Not {
		member, other = drop, met
	}
	for _, path := range paths {
		if len(c.Set.Addrs) > 0 {
			b.addrs(path, c.Set.Addrs, member, other)
		} else {
			b.numbers(path, &c.Set, member, other)
		}
	}
	b.jumpTo(drop)
	b.place(met)
	return true
}

// can reports whether a field can be compared with a set.
func (b *bpf) can(path string, s *value.Set, changing bool) bool {
	if len(s.Addrs) > 0 {
		for _, r := range s.Addrs {
			if r.Lo.Is6() {
				if _, ok := prefixLen(r); !ok || r.Lo.Zone() != "" {
					return false
				}
			}
		}
		dir, part, _ := strings.Cut(path, ".")
		_, ok := eventTuple(dir)
		return ok && (part == "src" || part == "dst")
	}
	if len(s.Nums) == 0 {
		return false
	}
	if path == "family" {
		return s.Mask == 0
	}
	n, ok := eventNumber(path)
	return ok && (changing || !n.changing) && (s.Mask == 0 || s.Mask <= 1<<32-1)
}

// find appends the search for an attribute: the offset of its data is in X then.
// Where there is none it goes on at absent.
func (b *bpf) find(at wire, absent target) {
	b.op(unix.BPF_LD|unix.BPF_IMM, nl.HeaderLen)
	ext := uint32(extNetlinkAttr)
	for _, num := range at {
		b.op(unix.BPF_LDX|unix.BPF_IMM, uint32(num))
		b.load(unix.BPF_W, ext)
		b.jump(unix.BPF_JEQ, 0, absent, next)
		ext = extNetlinkNested
	}
	b.op(unix.BPF_MISC|unix.BPF_TAX, 0)
}

// Loads that search: A is where they begin, X the type, A then where the attribute
// is (SKF_AD_NLATTR and SKF_AD_NLATTR_NEST behind SKF_AD_OFF, linux/filter.h).
const (
	extNetlinkAttr   = 1<<32 - 0x1000 + 12
	extNetlinkNested = 1<<32 - 0x1000 + 16
)

// attrData is where an attribute's data is behind its beginning.
const attrData = 4

// numbers appends the test of a number: member when it is in the set, other when
// it is not; it goes on behind the test when the event has none.
func (b *bpf) numbers(path string, s *value.Set, member, other target) {
	if path == "family" {
		b.load(unix.BPF_B, nl.HeaderLen-4)
		b.ranges(s, member, other)
		return
	}
	n, _ := eventNumber(path)
	for _, at := range n.places {
		absent, done := b.label(), b.label()
		b.find(at, absent)
		b.op(unix.BPF_LD|n.size|unix.BPF_IND, attrData)
		if n.zero {
			compare := b.label()
			b.jumpTo(compare)
			b.place(absent)
			b.op(unix.BPF_LD|unix.BPF_IMM, 0)
			b.place(compare)
			b.ranges(s, member, other)
			b.place(done)
			continue
		}
		b.ranges(s, member, other)
		b.jumpTo(done)
		b.place(absent)
		b.place(done)
	}
}

// ranges appends the comparison of the number that is loaded.
func (b *bpf) ranges(s *value.Set, member, other target) {
	if s.Mask != 0 {
		b.op(unix.BPF_ALU|unix.BPF_AND, uint32(s.Mask))
	}
	for _, r := range s.Nums {
		b.between(r.Lo, r.Hi, member)
	}
	if other != next {
		b.jumpTo(other)
	}
}

// between appends the jump to member when what is loaded is in lo to hi, and goes
// on with it still loaded otherwise.
func (b *bpf) between(lo, hi uint64, member target) {
	const most = 1<<32 - 1
	switch {
	case lo > most:
	case lo == hi:
		b.jump(unix.BPF_JEQ, uint32(lo), member, next)
	case lo == 0 && hi >= most:
		b.jumpTo(member)
	case hi >= most:
		b.jump(unix.BPF_JGE, uint32(lo), member, next)
	case lo == 0:
		b.jump(unix.BPF_JGT, uint32(hi), next, member)
	default:
		out := b.label()
		b.jump(unix.BPF_JGE, uint32(lo), next, out)
		b.jump(unix.BPF_JGT, uint32(hi), next, member)
		b.place(out)
	}
}

// addrs appends the test of an address, as numbers does.
func (b *bpf) addrs(path string, ranges []value.AddrRange, member, other target) {
	dir, part, _ := strings.Cut(path, ".")
	top, _ := eventTuple(dir)
	v4, v6 := uint16(ctaIPv4Src), uint16(ctaIPv6Src)
	if part == "dst" {
		v4, v6 = ctaIPv4Dst, ctaIPv6Dst
	}
	for _, num := range []uint16{v4, v6} {
		absent := b.label()
		b.find(wire{top, ctaTupleIP, num}, absent)
		if num == v4 {
			b.op(unix.BPF_LD|unix.BPF_W|unix.BPF_IND, attrData)
		}
		for _, r := range ranges {
			switch {
			case r.Lo.Is4() && num == v4:
				b.between(word4(r.Lo), word4(r.Hi), member)
			case r.Lo.Is6() && num == v6:
				b.prefix(r, member)
			}
		}
		if other != next {
			b.jumpTo(other)
		}
		b.place(absent)
	}
}

func word4(a netip.Addr) uint64 {
	w := a.As4()
	return uint64(binary.BigEndian.Uint32(w[:]))
}

// prefix appends the jump to member when the IPv6 address at X is in the prefix.
func (b *bpf) prefix(r value.AddrRange, member target) {
	n, _ := prefixLen(r)
	lo := r.Lo.As16()
	out := b.label()
	for i := 0; i < 4 && n > 32*i; i++ {
		b.op(unix.BPF_LD|unix.BPF_W|unix.BPF_IND, attrData+uint32(4*i))
		if have := n - 32*i; have < 32 {
			b.op(unix.BPF_ALU|unix.BPF_AND, ^uint32(0)<<(32-have))
		}
		b.jump(unix.BPF_JEQ, binary.BigEndian.Uint32(lo[4*i:]), next, out)
	}
	b.jumpTo(member)
	b.place(out)
}

// prefixLen returns the length of the prefix that an IPv6 range is; false when it
// is none.
func prefixLen(r value.AddrRange) (int, bool) {
	lo, hi := r.Lo.As16(), r.Hi.As16()
	n := 0
	for n < 128 && (lo[n/8]^hi[n/8])>>(7-n%8)&1 == 0 {
		n++
	}
	ones := 0
	for i := range lo {
		if lo[i]&(lo[i]^hi[i]) != 0 {
			return 0, false
		}
		ones += bits.OnesCount8(lo[i] ^ hi[i])
	}
	return n, ones == 128-n
}
