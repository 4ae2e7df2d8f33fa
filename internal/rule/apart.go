package rule

import (
	"slices"
	"strings"

	"nfctl/internal/field"
	"nfctl/internal/filter"
	"nfctl/internal/packet"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// The kernel may queue many segments as one packet (GSO). Those of TCP are pieces of
// a stream, and rules may well see them in one piece. Datagrams of UDP are not: a rule
// that looks at their payload or length, or changes that, judges each by itself. What
// counts packets counts those of the wire, of TCP too.

// NeedsToJudge is NeedsOf for fields that are not only shown, but decided by.
func NeedsToJudge(fields ...string) Needs {
	n := NeedsOf(fields...)
	for _, f := range fields {
		bits := queue.Fields.Asks(f)
		n.Apart = n.Apart || bits&queue.AsksApart != 0
		n.Uncut = n.Uncut || bits&queue.AsksUncut != 0
	}
	return n
}

// needs returns what the rule needs of packets.
func (r *Rule) needs(o Options) Needs {
	n, proto := r.asks, o.Proto
	n.Connmark = n.Connmark && !o.Table
	conds := r.conditions()
	for _, c := range conds {
		n = n.Add(NeedsToJudge(c.Paths...))
	}
	if r.expr != nil {
		for _, f := range r.expr.Fields() {
			if queue.Fields.Group(f) { // whether it is there
				n = n.Add(NeedsOf(f))
			} else {
				n = n.Add(NeedsToJudge(f))
			}
		}
		of, _ := r.expr.Conds()
		conds = append(slices.Clip(conds), of...)
	}
	for i := range r.actions {
		n = n.Add(r.actions[i].opener.Needs)
	}
	n.Apart = n.Apart && meets(datagrams, conds, proto) || r.counts() && meets(segmented, conds, proto)
	return n
}

// Counts reports whether rule n, from 1, counts packets or draws among them.
func (s *Set) Counts(n int) bool { return s.rules[n-1].counts() }

// counts reports whether the rule is about single packets: it counts them, or has each
// wait or go otherwise for itself.
func (r *Rule) counts() bool {
	return len(r.whens) > 0 || slices.ContainsFunc(r.actions, func(a action) bool { return a.kind == actHold })
}

// ExprNeeds returns what an expression needs that is no rule's, as --until.
func ExprNeeds(e *filter.Program[queue.Packet], proto uint8) Needs {
	return (&Rule{more: &more{expr: e}}).needs(Options{Proto: proto})
}

// datagrams are the protocols whose segments, where many come as one packet, are
// packets of their own: UDP, and tunnels that may carry it.
var datagrams = []uint8{packet.ProtoUDP, packet.ProtoIPIP, packet.ProtoIPv6, packet.ProtoGRE}

// segmented are all protocols of which many segments can come as one packet.
var segmented = []uint8{packet.ProtoTCP, packet.ProtoSCTP, packet.ProtoUDP, packet.ProtoIPIP, packet.ProtoIPv6,
	packet.ProtoGRE}

// meets reports whether packets that meet all conditions can be of one of some
// protocols, as far as that can be known.
func meets(protos []uint8, conds []field.Cond, proto uint8) bool {
	return slices.ContainsFunc(protos, func(p uint8) bool {
		return (proto == 0 || proto == p) && !slices.ContainsFunc(conds, func(c field.Cond) bool {
			return excludes(&c, p)
		})
	})
}

// excludes reports whether no packet of a protocol can meet a condition.
func excludes(c *field.Cond, proto uint8) bool {
	for _, path := range c.Paths {
		if path == "ip.proto" && c.Set.Mask == 0 {
			in := slices.ContainsFunc(c.Set.Nums, func(r value.Range) bool {
				return r.Lo <= uint64(proto) && uint64(proto) <= r.Hi
			})
			if in == c.Set.Not {
				continue
			}
			return false
		}
		head, _, of := strings.Cut(path, ".")
		own, transport := transportOf(head)
		if !of || !transport || own == proto {
			return false
		}
	}
	return true
}

// transportOf returns the protocol whose packets alone have a group of fields.
func transportOf(group string) (proto uint8, ok bool) {
	switch group {
	case "tcp", "tls":
		return packet.ProtoTCP, true
	case "udp":
		return packet.ProtoUDP, true
	case "udplite":
		return packet.ProtoUDPLite, true
	case "icmp":
		return packet.ProtoICMP, true
	case "icmpv6":
		return packet.ProtoICMPv6, true
	case "sctp":
		return packet.ProtoSCTP, true
	case "dccp":
		return packet.ProtoDCCP, true
	case "gre":
		return packet.ProtoGRE, true
	case "esp":
		return packet.ProtoESP, true
	}
	return 0, false
}
