package nft

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"nfctl/internal/mark"
	"nfctl/internal/nl"
)

// A chain of a table, with its rules.
type chain struct {
	place
	base     bool // packets enter it from the hook
	hook     Hook
	priority int32
	feeds    bool // its rules queue
	rules    []rule
}

// A layout is the chains of a table.
//
// Without codes each Spec has one chain. With them all specs of a hook and priority
// share one, so that none undoes what another's packets were told, and each has a
// second one behind the queue, at the next priority:
//
//	in front: let pass copies of packets that were here before, in which nfctl set our bits;
//	          clear our bits in the packet's mark, whoever set them;
//	          let pass what rejects answer; do with decided flows what was decided;
//	          queue
//	behind:   put the code's bits into the connection's mark; drop or reject; clear
type layout struct {
	t     *Table
	codes *mark.Codes
	list  []chain
	last  map[Hook]int32 // the priority of a hook's last chain
}

// families returns in which tables a spec has its rules.
func (l *layout) families(s *Spec, inet bool) []uint8 {
	switch {
	case inet:
		return []uint8{unix.NFPROTO_INET}
	case s.Family == unix.AF_INET || s.Family == unix.AF_INET6:
		return []uint8{s.Family} // NFPROTO_IPV4, NFPROTO_IPV6: the same numbers
	case l.t.way.pair:
		return []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}
	}
	return []uint8{unix.NFPROTO_INET}
}

func (l *layout) chains(specs []Spec, q Queues) {
	// One table for all where one spec is of both families, so that their chains
	// stand in one order.
	inet := l.codes != nil && !l.t.way.pair && slices.ContainsFunc(specs, func(s Spec) bool { return s.Family == 0 })
	l.last = map[Hook]int32{}
	for i := range specs {
		s := &specs[i]
		if p, ok := l.last[s.Hook]; !ok || s.Priority > p {
			l.last[s.Hook] = s.Priority
		}
	}
	for i := range specs {
		s := &specs[i]
		for _, f := range l.families(s, inet) {
			c := l.front(s, f, i)
			if s.meetsRefusals() && !l.t.way.bare && l.codes == nil {
				c.rules = append(c.rules, refusal())
			}
			var base rule
			if f == unix.NFPROTO_INET && s.Family != 0 {
				base = base.meta(unix.NFT_META_NFPROTO).cmp(unix.NFT_CMP_EQ, []byte{s.Family})
			}
			for _, r := range s.rulesFrom(base) {
				for _, r := range r.first(s.First) {
					c.rules = append(c.rules, r.queue(l.t.Compat, q, s.Bypass, s.Fanout))
				}
			}
		}
	}
	if l.codes == nil {
		return
	}
	// Of chains with one priority the kernel asks the one first that came last: those
	// behind a queue must precede others' in front of theirs.
	for i := range len(l.list) {
		l.behind(&l.list[i])
	}
	if l.codes.Has(mark.Reject, mark.RejectFlow) {
		var families []uint8
		for i := range l.list {
			if f := l.list[i].family; !slices.Contains(families, f) {
				families = append(families, f)
			}
		}
		for _, f := range families {
			l.list = append(l.list, chain{place: l.at(f, refuseFlow), rules: l.refuse(f, false)},
				chain{place: l.at(f, refusePacket), rules: l.refuse(f, true)})
		}
	}
}

func (l *layout) at(family uint8, name string) place { return place{family, l.t.Name, name} }

// front returns the chain in which a spec's rules go.
func (l *layout) front(s *Spec, f uint8, i int) *chain {
	if l.codes != nil {
		for k := range l.list {
			if c := &l.list[k]; c.family == f && c.hook == s.Hook && c.priority == s.Priority {
				return c
			}
		}
	}
	l.list = append(l.list, chain{place: l.at(f, fmt.Sprintf("%s-%d", s.Hook, i+1)), base: true, hook: s.Hook,
		priority: s.Priority, feeds: true})
	c := &l.list[len(l.list)-1]
	if l.codes == nil {
		return c
	}
	var r rule
	if s.SkipMask != 0 { // what was sent through the hook again bears its code still
		r = r.meta(unix.NFT_META_MARK).mask(native(s.SkipMask)).cmp(unix.NFT_CMP_NEQ, native(s.SkipMark&s.SkipMask))
	}
	r = r.meta(unix.NFT_META_MARK).mask(native(l.codes.Mask)).cmp(unix.NFT_CMP_NEQ, native(0))
	c.rules = append(c.rules, l.copies(s.Hook, s.Priority == l.last[s.Hook], true)...)
	c.rules = append(c.rules, r.clear(l.codes.Mask))
	if s.SkipMask != 0 { // and that can only be one for its connection's mark
		for i, m := range l.codes.List {
			if m.Verdict != mark.Pass {
				c.rules = append(c.rules, l.bears(l.codes.Number(i)).clear(l.codes.Mask))
			}
		}
	}
	c.rules = append(c.rules, l.translated(s)...)
	if s.Hook != Forward {
		c.rules = append(c.rules, refusal())
		if l.codes.Has(mark.Reject, mark.RejectFlow) {
			c.rules = append(c.rules, answers(rule(nil).meta(unix.NFT_META_L4PROTO).cmp(unix.NFT_CMP_EQ,
				[]byte{unix.IPPROTO_TCP})))
		}
	}
	for v, do := range map[mark.Verdict]rule{
		mark.AcceptFlow: rule(nil).verdict(nfAccept, ""), mark.DropFlow: rule(nil).verdict(nfDrop, ""), mark.RejectFlow: rule(nil).verdict(unix.NFT_GOTO, refuseFlow),
	} {
		if l.codes.Has(v) {
			r := rule(nil).ct(unix.NFT_CT_MARK).mask(native(l.codes.FlowMask())).cmp(unix.NFT_CMP_EQ,
				native(l.codes.FlowBits(v)))
			c.rules = append(c.rules, append(slices.Clip(r), do...))
		}
	}
	return c
}

// copyWay is where copies come by, in order: their codes are in the same order.
var copyWay = []Hook{Output, Postrouting, Prerouting, Input}

// copies lets pass copies that are not to be queued at a hook yet. The code of those for
// which it is the last hook is gone from the mark behind it.
func (l *layout) copies(at Hook, last, front bool) (rules []rule) {
	here := slices.Index(copyWay, at)
	for i, m := range l.codes.List {
		if m.Verdict < mark.CopyOutput || here < 0 || here > int(m.Verdict-mark.CopyOutput) {
			continue
		}
		r := rule(nil).meta(unix.NFT_META_MARK).mask(native(l.codes.Mask)).cmp(unix.NFT_CMP_EQ,
			native(l.codes.Number(i)))
		if last && here == int(m.Verdict-mark.CopyOutput) {
			if !front { // the rules in front are gone, at the end
				continue
			}
			r = r.clear(l.codes.Mask)
		}
		rules = append(rules, r.verdict(nfAccept, ""))
	}
	return rules
}

// natDestination is NF_IP_PRI_NAT_DST (linux/netfilter_ipv4.h).
const natDestination = -100

// ctSourceTranslated, ctDestinationTranslated are the bits IPS_SRC_NAT and IPS_DST_NAT
// (linux/netfilter/nf_conntrack_common.h); ctOriginal is IP_CT_DIR_ORIGINAL.
const ctOriginal, ctSourceTranslated, ctDestinationTranslated = 0, 1 << 4, 1 << 5

// translated has packets bear a code that this host sends to another destination than
// their sender gave:
//
//	ct direction original ct status & dnat != 0 meta mark set …
//	ct direction reply ct status & snat != 0 meta mark set …
//
// A copy of them would be of another connection.
func (l *layout) translated(s *Spec) (rules []rule) {
	i := slices.IndexFunc(l.codes.List, func(m mark.Code) bool { return m.Verdict == mark.Translated })
	if i < 0 || s.Hook != Output && s.Hook != Postrouting || s.Hook == Output && s.Priority < natDestination {
		return nil
	}
	for _, d := range []struct {
		direction byte
		status    uint32
	}{{ctOriginal, ctDestinationTranslated}, {ctReply, ctSourceTranslated}} {
		r := rule(nil).ct(unix.NFT_CT_DIRECTION).cmp(unix.NFT_CMP_EQ, []byte{d.direction})
		r = r.ct(unix.NFT_CT_STATUS).mask(native(d.status)).cmp(unix.NFT_CMP_NEQ, native(0))
		rules = append(rules, r.set(l.codes.Mask, l.codes.Number(i)))
	}
	return rules
}

// Chains that refuse: packets of refused flows, and packets of which that was said.
const refuseFlow, refusePacket = "refuse-flow", "refuse-packet"

// bears is for packets with a number in the bits of codes.
func (l *layout) bears(n uint32) rule {
	return rule(nil).meta(unix.NFT_META_MARK).mask(native(l.codes.Mask)).cmp(unix.NFT_CMP_EQ, native(n))
}

// behindSuffix ends the names of chains behind a queue.
const behindSuffix = "-behind"

// behind appends the chain behind the queue of c.
func (l *layout) behind(c *chain) {
	b := chain{place: l.at(c.family, c.chain+behindSuffix), base: true, hook: c.hook, priority: c.priority + 1}
	bears := l.bears
	b.rules = append(b.rules, bears(0).verdict(nfAccept, ""))
	b.rules = append(b.rules, l.copies(c.hook, c.priority == l.last[c.hook], false)...)
	var ends []rule
	for i, m := range l.codes.List {
		if m == (mark.Code{}) || m.Verdict >= mark.Translated {
			continue
		}
		n := l.codes.Number(i)
		v, bits := m.Value&m.Mask, m.Mask
		if flow := l.codes.FlowBits(m.Verdict); flow != 0 {
			v, bits = v&^l.codes.FlowMask()|flow, bits|l.codes.FlowMask()
		} else if l.codes.Flow() { // a mark without bits of ours leaves these alone
			v, bits = v&^l.codes.FlowMask(), bits&^l.codes.FlowMask()
		}
		if bits != 0 {
			b.rules = append(b.rules, bears(n).ct(unix.NFT_CT_MARK).bits(native(^bits),
				native(v)).expr("ct", func(b []byte) []byte {
				b = nl.AppendU32(b, unix.NFTA_CT_SREG, unix.NFT_REG_1)
				return nl.AppendU32(b, unix.NFTA_CT_KEY, unix.NFT_CT_MARK)
			}))
		}
		// A rule of its own: a packet without a connection meets no rule that loads its mark.
		switch m.Verdict {
		case mark.Drop, mark.DropFlow:
			ends = append(ends, bears(n).verdict(nfDrop, ""))
		case mark.Reject, mark.RejectFlow:
			to := refusePacket
			if c.hook == Output { // the answer to a packet that was sent passes here itself
				to = refuseFlow
			}
			ends = append(ends, bears(n).verdict(unix.NFT_GOTO, to))
		}
	}
	b.rules = append(b.rules, ends...)
	b.rules = append(b.rules, rule(nil).clear(l.codes.Mask))
	l.list = append(l.list, b)
}

// refuse returns the rules that refuse a packet: TCP by a reset, all else by an ICMP
// error. They let pass what answers a packet that was refused: with alone only resets
// and what this host sends to itself, since ICMP errors of others belong to a flow too.
func (l *layout) refuse(family uint8, alone bool) []rule {
	tcp := rule(nil).meta(unix.NFT_META_L4PROTO).cmp(unix.NFT_CMP_EQ, []byte{unix.IPPROTO_TCP})
	pass := []rule{answers(nil)}
	if alone {
		loopback := binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_LOOPBACK)
		self := rule(nil).meta(unix.NFT_META_IIFTYPE).cmp(unix.NFT_CMP_EQ, loopback)
		pass = []rule{answers(tcp), answers(self)}
	}
	const reset = 1 // NFT_REJECT_TCP_RST
	typ, code := uint32(2), uint8(1)
	switch family { // linux/netfilter/nf_tables.h: NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMP_UNREACH
	case unix.NFPROTO_IPV4:
		typ, code = 0, 3 // ICMP_PORT_UNREACH
	case unix.NFPROTO_IPV6:
		typ, code = 0, 4 // ICMPV6_PORT_UNREACH
	}
	rules := []rule{rule(nil).clear(l.codes.Mask)} // the answer may take the mark over (fwmark_reflect)
	rules = append(rules, pass...)
	return append(rules, tcp.reject(reset, 0), rule(nil).reject(typ, code))
}

// ctExpected is the bit IPS_EXPECTED (linux/netfilter/nf_conntrack_common.h).
const ctExpected = 1 << 0

// answers lets pass what a rule that rejects sends back on a connection that is
// confirmed. The kernel calls it related to that connection, as an ICMP error, but
// nothing expected it:
//
//	ct state related ct status & expected == 0 accept
func answers(of rule) rule {
	r := of.ct(unix.NFT_CT_STATE).mask(native(ctRelated)).cmp(unix.NFT_CMP_NEQ, native(0))
	r = r.ct(unix.NFT_CT_STATUS).mask(native(ctExpected)).cmp(unix.NFT_CMP_EQ, native(0))
	return r.verdict(nfAccept, "")
}

func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// Verdicts of linux/netfilter.h.
const nfDrop, nfAccept = 0, 1

// verdict ends the rule, for a jump or goto with a chain.
func (r rule) verdict(code int32, chain string) rule {
	return r.expr("immediate", func(b []byte) []byte {
		b = nl.AppendU32(b, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		b, data := nl.Begin(b, unix.NFTA_IMMEDIATE_DATA)
		b, verdict := nl.Begin(b, unix.NFTA_DATA_VERDICT)
		b = nl.AppendU32(b, unix.NFTA_VERDICT_CODE, uint32(code))
		if chain != "" {
			b = nl.AppendString(b, unix.NFTA_VERDICT_CHAIN, chain)
		}
		return nl.End(nl.End(b, verdict), data)
	})
}

// clear clears bits of the packet's mark.
func (r rule) clear(mask uint32) rule { return r.set(mask, 0) }

// set sets bits of the packet's mark.
func (r rule) set(mask, bits uint32) rule {
	return r.meta(unix.NFT_META_MARK).bits(native(^mask), native(bits)).expr("meta", func(b []byte) []byte {
		b = nl.AppendU32(b, unix.NFTA_META_SREG, unix.NFT_REG_1)
		return nl.AppendU32(b, unix.NFTA_META_KEY, unix.NFT_META_MARK)
	})
}

// reject drops the packet and answers it.
func (r rule) reject(typ uint32, code uint8) rule {
	return r.expr("reject", func(b []byte) []byte {
		b = nl.AppendU32(b, unix.NFTA_REJECT_TYPE, typ)
		return nl.AppendAttr(b, unix.NFTA_REJECT_ICMP_CODE, []byte{code})
	})
}
