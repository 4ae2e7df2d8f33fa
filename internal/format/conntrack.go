package format

import (
	"net/netip"
	"strconv"
	"time"

	"nfctl/internal/ct"
	"nfctl/internal/value"
)

// The lines and the XML of conntrack(8) and of libnetfilter_conntrack, which the
// program's lines come from, octet for octet as of 1.4.7 and 1.0.9.

// protoHead is how a line of a protocol begins: its name in eight columns and
// its number. The library knows these; all others are "unknown".
var protoHead = [256]string{ct.TCP: "tcp      6 ", ct.UDP: "udp      17 ", ct.UDPLite: "udplite  136 ",
	ct.ICMP:   "icmp     1 ",
	ct.ICMPv6: "icmpv6   58 ", ct.SCTP: "sctp     132 ", ct.GRE: "gre      47 ", ct.DCCP: "dccp     33 "}

func appendProto(b []byte, proto uint8, n Namer) []byte {
	if w := protoHead[proto]; w != "" {
		return append(b, w...)
	}
	if w := value.Protocols.Word(uint64(proto)); n != nil && w != "" {
		for b = append(b, w...); len(w) < 8; w += " " {
			b = append(b, ' ')
		}
		return appendNum(b, " ", uint64(proto))
	}
	return appendNum(b, "unknown  ", uint64(proto))
}

func protoWord(proto uint8) string {
	if protoHead[proto] == "" {
		return "unknown"
	}
	return value.Protocols.Word(uint64(proto))
}

func familyWord(family uint8) string {
	switch family {
	case ct.IPv4:
		return "ipv4"
	case ct.IPv6:
		return "ipv6"
	}
	return "unknown"
}

func appendFamily(b []byte, family uint8) []byte {
	b = append(b, (familyWord(family) + "        ")[:8]...)
	return append(strconv.AppendUint(append(b, ' '), uint64(family), 10), ' ')
}

var eventHead = [...]string{ct.NoEvent: "", ct.New: "    [NEW] ", ct.Update: " [UPDATE] ", ct.Destroy: "[DESTROY] ",
	ct.Existing: " [EXISTS] "}

// stateWord returns the word for the flow's state, NONE for a number without a
// word, and nothing when the flow has no state.
func stateWord(f *ct.Flow) string {
	var w string
	switch {
	case f.Has(ct.HasTCPState):
		w = ct.TCPStateNames.Word(uint64(f.TCPState))
	case f.Has(ct.HasSCTPState):
		w = ct.SCTPStateNames.Word(uint64(f.SCTPState))
	case f.Has(ct.HasDCCPState):
		w = ct.DCCPStateNames.Word(uint64(f.DCCPState))
	default:
		return ""
	}
	if w == "" {
		return "NONE"
	}
	return w
}

// appendAddr appends an address of a tuple; one that is not known is that of
// all zeros, as in the library.
func appendAddr(b []byte, a netip.Addr, family uint8) []byte {
	if a.IsValid() {
		return value.AppendAddr(b, a)
	}
	if family == ct.IPv6 {
		return append(b, "::"...)
	}
	return append(b, "0.0.0.0"...)
}

// appendTuple appends "src=… dst=… sport=… dport=… " with the given words before
// src and dst.
func appendTuple(b []byte, t *ct.Tuple, proto uint8, src, dst string, n Namer) []byte {
	b = append(appendHost(append(b, src...), t.Src, t.Family, n), ' ')
	b = append(appendHost(append(b, dst...), t.Dst, t.Family, n), ' ')
	switch proto {
	case ct.TCP, ct.UDP, ct.UDPLite, ct.SCTP, ct.DCCP:
		b = appendService(append(b, "sport="...), proto, t.Sport, n)
		b = appendService(append(b, " dport="...), proto, t.Dport, n)
		b = append(b, ' ')
	case ct.ICMP, ct.ICMPv6:
		b = strconv.AppendUint(append(b, "type="...), uint64(t.Type), 10)
		b = strconv.AppendUint(append(b, " code="...), uint64(t.Code), 10)
		b = strconv.AppendUint(append(b, " id="...), uint64(t.ID), 10)
		b = append(b, ' ')
	case ct.GRE:
		b = value.AppendHex(append(b, "srckey="...), uint64(t.Sport))
		b = value.AppendHex(append(b, " dstkey="...), uint64(t.Dport))
		b = append(b, ' ')
	}
	return b
}

func appendCounters(b []byte, c *ct.Counters) []byte {
	b = strconv.AppendUint(append(b, "packets="...), c.Packets, 10)
	b = strconv.AppendUint(append(b, " bytes="...), c.Bytes, 10)
	return append(b, ' ')
}

func appendNum(b []byte, word string, n uint64) []byte {
	return append(strconv.AppendUint(append(b, word...), n, 10), ' ')
}

// seconds returns the whole seconds from the flow's start to its stop, or to
// when it was read.
func seconds(f *ct.Flow) uint64 {
	end := f.Stop / 1e9
	if end == 0 {
		if end = f.Time / 1e9; end == 0 {
			end = uint64(time.Now().Unix())
		}
	}
	return end - f.Start/1e9
}

func appendCtime(b []byte, ns uint64) []byte {
	return time.Unix(int64(ns/1e9), 0).AppendFormat(b, "Mon Jan _2 15:04:05 2006")
}

// AppendFlow appends a flow as libnetfilter_conntrack writes it, with the head
// of its event if it is one, and without a newline. Of o it looks at Extended,
// ID, KTimestamp, Labels and Names.
func AppendFlow(b []byte, f *ct.Flow, o *Output) []byte {
	proto := f.Orig.Proto
	b = append(b, eventHead[f.Event]...)
	if o.Extended {
		b = appendFamily(b, f.Family())
	}
	b = appendProto(b, proto, o.Names)
	if f.Has(ct.HasTimeout) {
		b = appendNum(b, "", uint64(f.Timeout))
	}
	if f.Present&(ct.HasTCPState|ct.HasSCTPState|ct.HasDCCPState) != 0 {
		b = append(append(b, stateWord(f)...), ' ')
	}
	b = appendTuple(b, &f.Orig, proto, "src=", "dst=", o.Names)
	if f.Orig.Has(ct.TupleZone) {
		b = appendNum(b, "zone-orig=", uint64(f.Orig.Zone))
	}
	if f.Has(ct.HasOrigCounters) {
		b = appendCounters(b, &f.OrigCounters)
	}
	if f.Has(ct.HasStatus) && f.Status&ct.StatusSeenReply == 0 {
		b = append(b, "[UNREPLIED] "...)
	}
	if f.Reply.Family != 0 || !f.Reply.IsZero() {
		b = appendTuple(b, &f.Reply, proto, "src=", "dst=", o.Names)
	}
	if f.Reply.Has(ct.TupleZone) {
		b = appendNum(b, "zone-reply=", uint64(f.Reply.Zone))
	}
	if f.Has(ct.HasReplyCounters) {
		b = appendCounters(b, &f.ReplyCounters)
	}
	if f.Has(ct.HasStatus) {
		switch {
		case f.Status&ct.StatusHWOffload != 0:
			b = append(b, "[HW_OFFLOAD] "...)
		case f.Status&ct.StatusOffload != 0:
			b = append(b, "[OFFLOAD] "...)
		case f.Status&ct.StatusAssured != 0:
			b = append(b, "[ASSURED] "...)
		}
	}
	if f.Has(ct.HasMark) {
		b = appendNum(b, "mark=", uint64(f.Mark))
	}
	if f.Present&(ct.HasSecmark|ct.HasSecctx|ct.HasZone|ct.HasStart|ct.HasStop|ct.HasHelper) != 0 {
		b = appendRare(b, f, o)
	}
	if f.Has(ct.HasUse) {
		b = appendNum(b, "use=", uint64(f.Use))
	}
	if o.ID && f.Has(ct.HasID) {
		b = appendNum(b, "id=", uint64(f.ID))
	}
	if o.Labels && f.Has(ct.HasLabels) {
		word := len(b)
		b = append(b, "labels="...)
		start := len(b)
		if b = appendBits(b, f.Labels[:], ct.LabelName); len(b) == start {
			b = b[:word]
		} else {
			b = append(printable(b, start), ' ')
		}
	}
	return b[:len(b)-1]
}

// appendRare appends what stands between mark and use.
func appendRare(b []byte, f *ct.Flow, o *Output) []byte {
	if f.Has(ct.HasSecmark) {
		b = appendNum(b, "secmark=", uint64(f.Secmark))
	}
	if f.Has(ct.HasSecctx) {
		b = append(b, "secctx="...)
		start := len(b)
		b = append(printable(append(b, f.Secctx...), start), ' ')
	}
	if f.Has(ct.HasZone) {
		b = appendNum(b, "zone=", uint64(f.Zone))
	}
	if f.Has(ct.HasStart) {
		b = appendNum(b, "delta-time=", seconds(f))
	}
	if o.KTimestamp && f.Has(ct.HasStart) {
		b = append(appendCtime(append(b, "[start="...), f.Start), "] "...)
	}
	if o.KTimestamp && f.Has(ct.HasStop) {
		b = append(appendCtime(append(b, "[stop="...), f.Stop), "] "...)
	}
	if f.Has(ct.HasHelper) {
		b = append(b, "helper="...)
		start := len(b)
		b = append(printable(append(b, f.Helper...), start), ' ')
	}
	return b
}

// AppendExpect appends an expectation as libnetfilter_conntrack writes it, with
// the head of its event if it is one, and without a newline. Extended and ID put
// the family in front and the id behind; conntrack(8) ignores them here.
func AppendExpect(b []byte, e *ct.Expect, o *Output) []byte {
	proto := e.Tuple.Proto
	b = append(b, eventHead[e.Event]...)
	if o.Extended {
		b = appendFamily(b, e.Family())
	}
	b = appendNum(b, "", uint64(e.Timeout))
	b = appendNum(b, "proto=", uint64(proto))
	b = appendTuple(b, &e.Tuple, proto, "src=", "dst=", o.Names)
	b = appendTuple(b, &e.Mask, e.Mask.Proto, "mask-src=", "mask-dst=", nil)
	b = appendTuple(b, &e.Master, e.Master.Proto, "master-src=", "master-dst=", o.Names)
	if e.Has(ct.ExpectHasZone) && e.Zone != 0 {
		b = appendNum(b, "zone=", uint64(e.Zone))
	}
	if e.Flags&7 != 0 {
		for i, w := range [...]string{"PERMANENT,", "INACTIVE,", "USERSPACE,"} {
			if e.Flags>>i&1 != 0 {
				b = append(b, w...)
			}
		}
		b[len(b)-1] = ' '
	}
	if e.Has(ct.ExpectHasClass) {
		b = appendNum(b, "class=", uint64(e.Class))
	}
	if e.Has(ct.ExpectHasHelper) {
		b = append(b, "helper="...)
		start := len(b)
		b = append(printable(append(b, e.Helper...), start), ' ')
	}
	if o.ID && e.Has(ct.ExpectHasID) {
		b = appendNum(b, "id=", uint64(e.ID))
	}
	return b[:len(b)-1]
}

// appendStamp appends what conntrack(8) puts before an event with -o timestamp.
func appendStamp(b []byte, ns uint64) []byte {
	b = strconv.AppendUint(append(b, '['), ns/1e9, 10)
	us := ns % 1e9 / 1e3
	for div := uint64(1e5); div > 0; div /= 10 {
		if div == 1e5 {
			b = append(b, '.')
		}
		b = append(b, '0'+byte(us/div%10))
	}
	return append(b, "]\t"...)
}

// appendBy appends who caused an event, as conntrack(8) does.
func appendBy(b []byte, by *ct.By) []byte {
	if by.PortID == 0 {
		return b
	}
	b = strconv.AppendUint(append(b, " [USERSPACE] portid="...), uint64(by.PortID), 10)
	if len(by.Comm) > 0 {
		b = append(b, " progname="...)
		start := len(b)
		b = printable(append(b, by.Comm...), start)
	}
	return b
}

// flowText returns the writer of conntrack(8)'s lines.
func flowText(o *Output) func([]byte, *ct.Flow) []byte {
	mods := *o
	return func(b []byte, f *ct.Flow) []byte {
		if f.Event == ct.NoEvent {
			b = AppendFlow(b, f, &mods)
			if f.Rate.Known {
				b = strconv.AppendUint(append(b, " rate.packets="...), f.Rate.Packets, 10)
				b = strconv.AppendUint(append(b, " rate.bytes="...), f.Rate.Bytes, 10)
			}
			return append(b, '\n')
		}
		if mods.Timestamp {
			b = appendStamp(b, f.Time)
		}
		return append(appendBy(AppendFlow(b, f, &mods), &f.By), '\n')
	}
}

func expectText(o *Output) func([]byte, *ct.Expect) []byte {
	mods := *o
	return func(b []byte, e *ct.Expect) []byte {
		if mods.Timestamp && e.Time != 0 { // lists of expectations have it, too
			b = appendStamp(b, e.Time)
		}
		b = AppendExpect(b, e, &mods)
		if e.Event != ct.NoEvent {
			b = appendBy(b, &e.By)
		}
		return append(b, '\n')
	}
}
