package ct

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"nfctl/internal/field"
	"nfctl/internal/nl"
	"nfctl/internal/value"
)

// A KernelFilter is what the kernel can be asked to leave out of a dump: exact
// matches only. The zero value leaves nothing out. A kernel may ignore or refuse
// any of it; whoever lists flows checks them again.
type KernelFilter struct {
	// Orig and Reply are matched in the parts that are known (Linux 5.8). Ports
	// need a protocol.
	Orig, Reply Tuple

	Mark, MarkMask     uint32 // MarkMask 0: no mark filter. Linux 2.6.35
	Status, StatusMask uint32 // StatusMask 0: no status filter. Linux 5.15
	Zone               uint16 // 0: no zone filter. Linux 6.8
}

// IsZero reports whether the filter leaves nothing out.
func (k *KernelFilter) IsZero() bool { return *k == KernelFilter{} }

// FilterFrom takes from conditions, all of which must hold, what the kernel can
// check, and the families that it leaves.
//
// The zone is left out when it is 0: the kernel would leave out flows that have
// a zone in one direction only, whose zone is shown as 0. IPv6 addresses are
// left out too: the kernel compares them the wrong way round and leaves out just
// the flows that have them (ctnetlink_filter_match_tuple, seen on Linux 6.18).
func FilterFrom(conds []field.Cond) (k KernelFilter, families []uint8) {
	family := uint8(0)
	for _, c := range conds {
		if len(c.Paths) != 1 || c.Set.Not {
			continue
		}
		path := c.Paths[0]
		if r := FlowFields.Row(path); r != nil {
			path = r.Path
		}
		if a, ok := c.Set.Addr(); ok {
			if at := k.addr(path); at != nil {
				if family = familyOf(a); family == IPv4 {
					*at = a
				}
			}
			continue
		}
		n, ok := c.Set.Num()
		if !ok {
			continue
		}
		switch {
		case path == "mark":
			k.Mark, k.MarkMask = uint32(n), mask32(c.Set)
		case path == "status" && c.Set.Mask != 0:
			k.Status, k.StatusMask = uint32(n), uint32(c.Set.Mask)
		case c.Set.Mask != 0:
		case path == "zone":
			k.Zone = uint16(n)
		case path == "family" && (n == IPv4 || n == IPv6):
			family = uint8(n)
		default:
			k.num(path, n)
		}
	}
	k.Orig.Present &= k.withProto(&k.Orig)
	k.Reply.Present &= k.withProto(&k.Reply)
	if family != 0 {
		return k, []uint8{family}
	}
	return k, nil
}

// withProto gives t the protocol that ports and ICMP words go with, and returns
// the parts that can be kept: none without a protocol.
func (k *KernelFilter) withProto(t *Tuple) TupleHas {
	if !k.Orig.Has(TupleProto) {
		return 0
	}
	if t.Present != 0 {
		t.Proto, t.Present = k.Orig.Proto, t.Present|TupleProto
	}
	return ^TupleHas(0)
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

func mask32(s value.Set) uint32 {
	if s.Mask == 0 {
		return 1<<32 - 1
	}
	return uint32(s.Mask)
}

func (k *KernelFilter) addr(path string) *netip.Addr {
	switch path {
	case "orig.src":
		return &k.Orig.Src
	case "orig.dst":
		return &k.Orig.Dst
	case "reply.src":
		return &k.Reply.Src
	case "reply.dst":
		return &k.Reply.Dst
	}
	return nil
}

// num takes a number that is matched as part of a tuple.
func (k *KernelFilter) num(path string, n uint64) {
	t := &k.Orig
	dir, part, _ := strings.Cut(path, ".")
	switch {
	case dir == "reply":
		t = &k.Reply
	case path == "proto" || path == "proto_num":
		part = "proto"
	case dir != "orig":
		return
	}
	switch part {
	case "proto":
		k.Orig.Proto, k.Orig.Present = uint8(n), k.Orig.Present|TupleProto
	case "sport":
		t.Sport, t.Present = uint16(n), t.Present|TupleSport
	case "dport":
		t.Dport, t.Present = uint16(n), t.Present|TupleDport
	case "type":
		t.Type, t.Present = uint8(n), t.Present|TupleType
	case "code":
		t.Code, t.Present = uint8(n), t.Present|TupleCode
	case "id":
		t.ID, t.Present = uint16(n), t.Present|TupleID
	}
}

// Bits of CTA_FILTER_ORIG_FLAGS and _REPLY_FLAGS, which are 32 bits in the
// machine's order (net/netfilter/nf_internals.h).
const (
	filterSrc    = 1 << 0
	filterDst    = 1 << 1
	filterZone   = 1 << 2
	filterProto  = 1 << 3
	filterSport  = 1 << 4
	filterDport  = 1 << 5
	filterType   = 1 << 6
	filterCode   = 1 << 7
	filterID     = 1 << 8
	filterICMPv6 = 3 // the same for ICMPv6 so many bits on
)

func filterFlags(t *Tuple) (flags uint32) {
	if t.Src.IsValid() {
		flags |= filterSrc
	}
	if t.Dst.IsValid() {
		flags |= filterDst
	}
	var icmp uint32
	for _, p := range []struct {
		bit  TupleHas
		flag uint32
	}{{TupleType, filterType}, {TupleCode, filterCode}, {TupleID, filterID}} {
		if t.Has(p.bit) {
			icmp |= p.flag
		}
	}
	if t.Proto == ICMPv6 {
		icmp <<= filterICMPv6
	}
	for _, p := range []struct {
		bit  TupleHas
		flag uint32
	}{{TupleProto, filterProto}, {TupleSport, filterSport}, {TupleDport, filterDport}, {TupleZone, filterZone}} {
		if t.Has(p.bit) {
			flags |= p.flag
		}
	}
	return flags | icmp
}

// tuples reports whether the filter looks into tuples. The kernel then wants a
// family in the request.
func (k *KernelFilter) tuples() bool { return !k.Orig.IsZero() || !k.Reply.IsZero() }

// append appends the attributes that ask for the filter. In flushes the kernel
// takes only mark, status and zone.
func (k *KernelFilter) append(b []byte) []byte {
	b = k.appendFlush(b)
	if !k.tuples() {
		return b
	}
	for _, t := range []struct {
		typ   uint16
		tuple *Tuple
	}{{ctaTupleOrig, &k.Orig}, {ctaTupleReply, &k.Reply}} {
		if !t.tuple.IsZero() {
			b = t.tuple.append(b, t.typ)
		}
	}
	b, at := nl.Begin(b, ctaFilter)
	b = appendFlags(b, ctaFilterOrig, filterFlags(&k.Orig))
	b = appendFlags(b, ctaFilterReply, filterFlags(&k.Reply))
	return nl.End(b, at)
}

func appendFlags(b []byte, typ uint16, flags uint32) []byte {
	b = nl.AppendU32(b, typ, 0)
	binary.NativeEndian.PutUint32(b[len(b)-4:], flags)
	return b
}

func (k *KernelFilter) appendFlush(b []byte) []byte {
	if k.MarkMask != 0 {
		b = nl.AppendU32(b, ctaMark, k.Mark)
		b = nl.AppendU32(b, ctaMarkMask, k.MarkMask)
	}
	if k.StatusMask != 0 {
		b = nl.AppendU32(b, ctaStatus, k.Status)
		b = nl.AppendU32(b, ctaStatusMask, k.StatusMask)
	}
	if k.Zone != 0 {
		b = nl.AppendU16(b, ctaZone, k.Zone)
	}
	return b
}
