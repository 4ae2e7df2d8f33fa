package nft

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
	"nfctl/internal/pattern"
)

// unreachable4 and unreachable6 are the types of the errors by which ICMP and ICMPv6
// refuse.
const unreachable4, unreachable6 = 3, 1

// meetsRefusals reports whether what the spec queues can be the answer of a rule
// that rejects: a reset of TCP or an ICMP error that this host made. Those pass
// output and postrouting and, sent to the host itself, prerouting and input.
func (s *Spec) meetsRefusals() bool {
	if s.Hook == Forward {
		return false
	}
	p := s.Pattern
	if p == nil || p.Has&pattern.Proto == 0 {
		return true
	}
	switch p.Proto {
	case unix.IPPROTO_TCP:
		return true
	case unix.IPPROTO_ICMP:
		return p.Has&pattern.Type == 0 || p.Type == unreachable4
	case unix.IPPROTO_ICMPV6:
		return p.Has&pattern.Type == 0 || p.Type == unreachable6
	}
	return false
}

// ctReply is IP_CT_DIR_REPLY, ctConfirmed the bit IPS_CONFIRMED
// (linux/netfilter/nf_conntrack_common.h, nf_conntrack_tuple_common.h).
const (
	ctReply     = 1
	ctConfirmed = 1 << 3
)

// refusal lets pass what a rule that rejects sends back while the connection of
// the packet that it answers is not confirmed:
//
//	ct direction reply ct status & confirmed == 0 accept
//
// Such a packet shares that connection, and the kernel drops, instead of queueing,
// what shares an unconfirmed one (nf_ct_drop_unconfirmed, nfnetlink_queue.c). No
// other packet is a reply on a connection that is not confirmed.
func refusal() rule {
	var r rule
	r = r.ct(unix.NFT_CT_DIRECTION).cmp(unix.NFT_CMP_EQ, []byte{ctReply})
	r = r.ct(unix.NFT_CT_STATUS).mask(binary.NativeEndian.AppendUint32(nil, ctConfirmed))
	r = r.cmp(unix.NFT_CMP_EQ, make([]byte, 4))
	return r.verdict(nfAccept, "")
}

// A place is a chain of a table.
type place struct {
	family       uint8
	table, chain string
}

// unguarded returns which of the rules, as of list, queue refusals that nothing in
// front of them lets pass: along the way from the base chains at output and
// postrouting. What a rule looks at otherwise is taken to hold for a refusal.
func unguarded(rules []kernelRule, bases []place) map[int]bool {
	chains := map[place][]int{}
	for i, r := range rules {
		chains[r.place] = append(chains[r.place], i)
	}
	out := map[int]bool{}
	seen := map[place]bool{}
	var walk func(p place)
	walk = func(p place) {
		if seen[p] {
			return
		}
		seen[p] = true
		for _, i := range chains[p] {
			l := look(rules[i].exprs)
			switch {
			case l.guards && l.leaves:
				return
			case !l.refusal:
			case l.queues:
				out[i] = true
			case l.to != "":
				walk(place{p.family, p.table, l.to})
			}
		}
	}
	for _, b := range bases {
		walk(b)
	}
	return out
}

// A looked is what of a rule matters for refusals.
type looked struct {
	refusal bool   // a refusal may meet it
	guards  bool   // it is for replies on connections that are not confirmed
	leaves  bool   // and they go no further in this chain
	queues  bool   // it queues
	to      string // the chain that it goes on to
}

// Match flags of struct xt_conntrack_mtinfo3, and where they lie in it
// (linux/netfilter/xt_conntrack.h).
const (
	xtState, xtStatus, xtDirection                  = 1 << 0, 1 << 6, 1 << 12
	xtMatchFlags, xtInvertFlags, xtStateMask        = 146, 148, 150
	ctRelated                                uint32 = 1 << 2 // NF_CT_STATE_BIT(IP_CT_RELATED): a refusal's state
)

// numbersIn returns the numbers among an expression's attributes.
func numbersIn(data []byte) map[uint16]uint32 {
	num := map[uint16]uint32{}
	for a := range nl.Attrs(data) {
		num[a.Type], _ = a.U32()
	}
	return num
}

// look reads a rule's expressions, as nft and iptables-nft write them.
func look(exprs []byte) looked {
	l := looked{refusal: true}
	var loaded string // what register 1 holds
	var key, mask uint32
	direction, status := false, false
	for e := range nl.Attrs(exprs) {
		name, data := expression(e.Data)
		num := numbersIn(data)
		switch name {
		case "meta":
			loaded, key, mask = name, num[unix.NFTA_META_KEY], 0
		case "ct":
			loaded, key, mask = name, num[unix.NFTA_CT_KEY], 0
			direction = direction || key == unix.NFT_CT_DIRECTION
			status = status || key == unix.NFT_CT_STATUS
		case "payload":
			loaded = ""
			// The answer goes to the port that was sent from; its flags are a reset's.
			if num[unix.NFTA_PAYLOAD_BASE] == unix.NFT_PAYLOAD_TRANSPORT_HEADER && num[unix.NFTA_PAYLOAD_OFFSET] > 0 {
				l.refusal = false
			}
		case "bitwise":
			if m := dataOf(data, unix.NFTA_BITWISE_MASK); loaded == "ct" && len(m) == 4 {
				mask = binary.NativeEndian.Uint32(m)
			}
		case "cmp":
			v, eq := dataOf(data, unix.NFTA_CMP_DATA), num[unix.NFTA_CMP_OP] == unix.NFT_CMP_EQ
			switch {
			case loaded == "meta" && key == unix.NFT_META_L4PROTO && eq && len(v) == 1:
				if !slices.Contains([]byte{unix.IPPROTO_TCP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6}, v[0]) {
					l.refusal = false
				}
			case loaded == "ct" && key == unix.NFT_CT_STATE && !eq && mask != 0 && mask&ctRelated == 0:
				l.refusal = false
			}
		case "match":
			l.match(data, &direction, &status)
		case "queue":
			l.queues = true
		case "target":
			_, l.queues = queueTarget(data)
		case "immediate":
			for a := range nl.Attrs(data) {
				if a.Type == unix.NFTA_IMMEDIATE_DATA {
					l.verdict(a.Data)
				}
			}
		}
	}
	l.guards = direction && status
	return l
}

// match reads a match of iptables.
func (l *looked) match(data []byte, direction, status *bool) {
	var name string
	var info []byte
	for a := range nl.Attrs(data) {
		switch a.Type {
		case unix.NFTA_MATCH_NAME:
			name = string(a.Text())
		case unix.NFTA_MATCH_INFO:
			info = a.Data
		}
	}
	switch {
	case name == "conntrack" && len(info) >= xtStateMask+4:
		u16 := func(at int) uint16 { return binary.NativeEndian.Uint16(info[at:]) }
		flags := u16(xtMatchFlags)
		*direction = *direction || flags&xtDirection != 0
		*status = *status || flags&xtStatus != 0
		if flags&xtState != 0 && u16(xtInvertFlags)&xtState == 0 && uint32(u16(xtStateMask))&ctRelated == 0 {
			l.refusal = false
		}
	case name == "tcp" || name == "icmp" || name == "icmp6":
		l.refusal = false // ports, flags or types: most likely not a refusal's
	}
}

// verdict reads what an immediate expression decides.
func (l *looked) verdict(data []byte) {
	for a := range nl.Attrs(data) {
		if a.Type != unix.NFTA_DATA_VERDICT {
			continue
		}
		for v := range nl.Attrs(a.Data) {
			switch v.Type {
			case unix.NFTA_VERDICT_CODE:
				code, _ := v.U32()
				n := int32(code)
				l.leaves = n != unix.NFT_CONTINUE && n != unix.NFT_JUMP
			case unix.NFTA_VERDICT_CHAIN:
				l.to = string(v.Text())
			}
		}
	}
}

// dataOf returns the bytes of an attribute that holds data.
func dataOf(data []byte, typ uint16) []byte {
	for a := range nl.Attrs(data) {
		if a.Type == typ {
			for v := range nl.Attrs(a.Data) {
				if v.Type == unix.NFTA_DATA_VALUE {
					return v.Data
				}
			}
		}
	}
	return nil
}
