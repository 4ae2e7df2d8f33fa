package nft

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// portProtocols are those that a port without a protocol means.
var portProtocols = []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_DCCP, unix.IPPROTO_SCTP,
	unix.IPPROTO_UDPLITE}

// A rule is the expressions that a packet must meet, as they go into
// NFTA_RULE_EXPRESSIONS, without the one that queues.
type rule []byte

// rules returns rules of which any queues what the Spec means: expressions of one
// rule are all to be met, so lists become several rules.
func (s *Spec) rules() []rule { return s.rulesFrom(nil) }

// rulesFrom is rules with what a packet must meet besides.
func (s *Spec) rulesFrom(base rule) []rule {
	if s.SkipMask != 0 {
		base = base.meta(unix.NFT_META_MARK)
		base = base.mask(binary.NativeEndian.AppendUint32(nil, s.SkipMask))
		base = base.cmp(unix.NFT_CMP_NEQ, binary.NativeEndian.AppendUint32(nil, s.SkipMark&s.SkipMask))
	}
	p := s.Pattern
	if p == nil {
		return []rule{base}
	}
	if p.Has&pattern.Zone != 0 {
		base = base.ct(unix.NFT_CT_ZONE)
		base = base.cmp(unix.NFT_CMP_EQ, binary.NativeEndian.AppendUint16(nil, p.Zone))
	}
	protos := []uint8{p.Proto}
	ports := len(p.Src.Ports.Nums)+len(p.Dst.Ports.Nums) > 0
	if p.Has&pattern.Proto == 0 {
		protos = nil
		if ports {
			protos = portProtocols
		}
	}
	any := []value.Range{{Lo: 0, Hi: 0xffff}}
	sports, dports := p.Src.Ports.Nums, p.Dst.Ports.Nums
	if len(sports) == 0 {
		sports = any
	}
	if len(dports) == 0 {
		dports = any
	}
	srcs, dsts := addrs(&p.Src), addrs(&p.Dst)

	var out []rule
	rest := func(r rule) {
		for _, src := range srcs {
			for _, dst := range dsts {
				r := r.addr(src, 12, 8).addr(dst, 16, 24)
				for _, sp := range sports {
					for _, dp := range dports {
						out = append(out, r.port(sp, 0).port(dp, 2))
					}
				}
			}
		}
	}
	if protos == nil {
		rest(base)
	}
	for _, proto := range protos {
		r := base.meta(unix.NFT_META_L4PROTO).cmp(unix.NFT_CMP_EQ, []byte{proto})
		if p.Has&pattern.Type != 0 {
			r = r.transport(0, 1).cmp(unix.NFT_CMP_EQ, []byte{p.Type})
		}
		if p.Has&pattern.Code != 0 {
			r = r.transport(1, 1).cmp(unix.NFT_CMP_EQ, []byte{p.Code})
		}
		if p.Has&pattern.ID != 0 {
			r = r.transport(4, 2).cmp(unix.NFT_CMP_EQ, binary.BigEndian.AppendUint16(nil, p.ID))
		}
		rest(r)
	}
	return out
}

// addrs returns an end's address ranges, one invalid one for any address.
func addrs(e *pattern.End) []value.AddrRange {
	if len(e.Addrs.Addrs) == 0 {
		return []value.AddrRange{{}}
	}
	return e.Addrs.Addrs
}

// expr returns r with one more expression, which f appends. r itself stays as it
// is: many rules begin alike.
func (r rule) expr(name string, f func([]byte) []byte) rule {
	b := append(make([]byte, 0, len(r)+128), r...)
	b, elem := nl.Begin(b, unix.NFTA_LIST_ELEM)
	b = nl.AppendString(b, unix.NFTA_EXPR_NAME, name)
	b, data := nl.Begin(b, unix.NFTA_EXPR_DATA)
	b = nl.End(f(b), data)
	return nl.End(b, elem)
}

// meta loads something that the kernel knows of the packet, in its byte order.
func (r rule) meta(key uint32) rule {
	return r.expr("meta", func(b []byte) []byte {
		b = nl.AppendU32(b, unix.NFTA_META_DREG, unix.NFT_REG_1)
		return nl.AppendU32(b, unix.NFTA_META_KEY, key)
	})
}

// ct loads something of the packet's connection, in the machine's order. A packet
// without one meets no rule that does.
func (r rule) ct(key uint32) rule {
	return r.expr("ct", func(b []byte) []byte {
		b = nl.AppendU32(b, unix.NFTA_CT_DREG, unix.NFT_REG_1)
		return nl.AppendU32(b, unix.NFTA_CT_KEY, key)
	})
}

func (r rule) payload(base, offset, n uint32) rule {
	return r.expr("payload", func(b []byte) []byte {
		b = nl.AppendU32(b, unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
		b = nl.AppendU32(b, unix.NFTA_PAYLOAD_BASE, base)
		b = nl.AppendU32(b, unix.NFTA_PAYLOAD_OFFSET, offset)
		return nl.AppendU32(b, unix.NFTA_PAYLOAD_LEN, n)
	})
}

func (r rule) transport(offset, n uint32) rule {
	return r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, n)
}

// mask keeps those bits of what was loaded that are set in m.
func (r rule) mask(m []byte) rule { return r.bits(m, make([]byte, len(m))) }

// bits keeps those bits of what was loaded that are set in m, and then flips those
// that are set in x.
func (r rule) bits(m, x []byte) rule {
	return r.expr("bitwise", func(b []byte) []byte {
		b = nl.AppendU32(b, unix.NFTA_BITWISE_SREG, unix.NFT_REG_1)
		b = nl.AppendU32(b, unix.NFTA_BITWISE_DREG, unix.NFT_REG_1)
		b = nl.AppendU32(b, unix.NFTA_BITWISE_LEN, uint32(len(m)))
		b = data(b, unix.NFTA_BITWISE_MASK, m)
		return data(b, unix.NFTA_BITWISE_XOR, x)
	})
}

// cmp compares what was loaded with v, byte by byte: numbers of the wire in their
// order.
func (r rule) cmp(op uint32, v []byte) rule {
	return r.expr("cmp", func(b []byte) []byte {
		b = nl.AppendU32(b, unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		b = nl.AppendU32(b, unix.NFTA_CMP_OP, op)
		return data(b, unix.NFTA_CMP_DATA, v)
	})
}

func data(b []byte, typ uint16, v []byte) []byte {
	b, at := nl.Begin(b, typ)
	return nl.End(nl.AppendAttr(b, unix.NFTA_DATA_VALUE, v), at)
}

// between compares what was loaded with a closed range.
func (r rule) between(lo, hi []byte) rule {
	if string(lo) == string(hi) {
		return r.cmp(unix.NFT_CMP_EQ, lo)
	}
	return r.cmp(unix.NFT_CMP_GTE, lo).cmp(unix.NFT_CMP_LTE, hi)
}

// addr matches an address in the network header, at the family's offset.
func (r rule) addr(a value.AddrRange, offset4, offset6 uint32) rule {
	if a.Lo == (netip.Addr{}) {
		return r
	}
	offset, n := offset6, uint32(16)
	if a.Lo.Is4() {
		offset, n = offset4, 4
	}
	return r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, n).between(a.Lo.AsSlice(), a.Hi.AsSlice())
}

// port matches a port in the transport header; later fragments have none and
// never match.
func (r rule) port(p value.Range, offset uint32) rule {
	if p.Lo == 0 && p.Hi >= 0xffff {
		return r
	}
	return r.transport(offset, 2).between(binary.BigEndian.AppendUint16(nil, uint16(p.Lo)),
		binary.BigEndian.AppendUint16(nil, uint16(p.Hi)))
}

// Bits of what the kernel says of a packet's state (NF_CT_STATE_INVALID_BIT,
// NF_CT_STATE_UNTRACKED_BIT, linux/netfilter/nf_conntrack_common.h).
const ctInvalid, ctUntracked = 1 << 0, 1 << 6

// first returns rules for the packets of r that are among the first n of their flow,
// both directions counted, and for those that have no flow; n 0: all of r's.
//
//	ct packets <= n
//	ct state invalid,untracked
//
// Of a flow without counters the kernel says 0.
func (r rule) first(n uint32) []rule {
	if n == 0 {
		return []rule{r}
	}
	counted := r.ct(unix.NFT_CT_PKTS).expr("byteorder", func(b []byte) []byte { // numbers are compared byte by byte
		b = nl.AppendU32(b, unix.NFTA_BYTEORDER_SREG, unix.NFT_REG_1)
		b = nl.AppendU32(b, unix.NFTA_BYTEORDER_DREG, unix.NFT_REG_1)
		b = nl.AppendU32(b, unix.NFTA_BYTEORDER_OP, unix.NFT_BYTEORDER_HTON)
		b = nl.AppendU32(b, unix.NFTA_BYTEORDER_LEN, 8)
		return nl.AppendU32(b, unix.NFTA_BYTEORDER_SIZE, 8)
	}).cmp(unix.NFT_CMP_LTE, binary.BigEndian.AppendUint64(nil, uint64(n)))
	return []rule{counted, r.ct(unix.NFT_CT_STATE).mask(native(ctInvalid|ctUntracked)).cmp(unix.NFT_CMP_NEQ, native(0))}
}

// queue hands the packet to one of the queues, chosen by its addresses
// or, with fanout, by the processor it is on: by
// nf_tables' own statement, or by iptables' NFQUEUE target through nft_compat.
func (r rule) queue(compat bool, q Queues, bypass, fanout bool) rule {
	var flags uint16
	if bypass {
		flags = 1 // NFT_QUEUE_FLAG_BYPASS, NFQ_FLAG_BYPASS
	}
	if fanout {
		flags |= 2 // NFT_QUEUE_FLAG_CPU_FANOUT, NFQ_FLAG_CPU_FANOUT
	}
	total := q.Last - q.First + 1
	if !compat {
		return r.expr("queue", func(b []byte) []byte {
			b = nl.AppendU16(b, unix.NFTA_QUEUE_NUM, q.First)
			b = nl.AppendU16(b, unix.NFTA_QUEUE_TOTAL, total)
			return nl.AppendU16(b, unix.NFTA_QUEUE_FLAGS, flags)
		})
	}
	return r.expr("target", func(b []byte) []byte {
		b = nl.AppendString(b, unix.NFTA_TARGET_NAME, "NFQUEUE")
		b = nl.AppendU32(b, unix.NFTA_TARGET_REV, 3)
		// struct xt_NFQ_info_v3 in the machine's order, padded to 8 bytes.
		info := binary.NativeEndian.AppendUint16(nil, q.First)
		info = binary.NativeEndian.AppendUint16(info, total)
		info = binary.NativeEndian.AppendUint16(info, flags)
		return nl.AppendAttr(b, unix.NFTA_TARGET_INFO, append(info, 0, 0))
	})
}
