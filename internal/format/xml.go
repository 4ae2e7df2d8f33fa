package format

import (
	"math/bits"
	"strconv"
	"time"

	"nfctl/internal/ct"
	"nfctl/internal/value"
)

// xmlBegin returns how a document begins; root is conntrack or expect.
func xmlBegin(root string) string {
	return "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<" + root + ">\n"
}

func xmlEnd(root string) string { return "</" + root + ">\n" }

// appendXMLText appends character data. What XML cannot hold becomes U+FFFD.
func appendXMLText[S string | []byte](b []byte, s S) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '<':
			b = append(b, "&lt;"...)
		case c == '>':
			b = append(b, "&gt;"...)
		case c == '&':
			b = append(b, "&amp;"...)
		case c >= 0x80:
			r, n := decodeRune(s[i:])
			if r == 0xfffe || r == 0xffff {
				r = 0xfffd
			}
			b = append(b, string(r)...)
			i += n
			continue
		case c < 0x20 && c != '\t' && c != '\n':
			b = append(b, "\ufffd"...)
		default:
			b = append(b, c)
		}
		i++
	}
	return b
}

func xmlNum(b []byte, name string, n uint64) []byte {
	b = append(append(append(b, '<'), name...), '>')
	b = strconv.AppendUint(b, n, 10)
	return append(append(append(b, "</"...), name...), '>')
}

func xmlText[S string | []byte](b []byte, name string, s S) []byte {
	b = append(append(append(b, '<'), name...), '>')
	b = appendXMLText(b, s)
	return append(append(append(b, "</"...), name...), '>')
}

func xmlLayer(b []byte, layer string, num uint8, word string) []byte {
	b = append(append(b, '<'), layer...)
	b = strconv.AppendUint(append(b, ` protonum="`...), uint64(num), 10)
	return append(append(append(b, `" protoname="`...), word...), `">`...)
}

func xmlAddrs(b []byte, t *ct.Tuple) []byte {
	b = append(b, "<src>"...)
	if t.Family != 0 || t.Src.IsValid() {
		b = appendAddr(b, t.Src, t.Family)
	}
	b = append(b, "</src><dst>"...)
	if t.Family != 0 || t.Dst.IsValid() {
		b = appendAddr(b, t.Dst, t.Family)
	}
	return append(b, "</dst>"...)
}

// xmlPorts appends a tuple's ports or keys; ICMP's numbers are not written by
// conntrack(8).
func xmlPorts(b []byte, t *ct.Tuple, proto uint8) []byte {
	switch proto {
	case ct.TCP, ct.UDP, ct.UDPLite, ct.SCTP, ct.DCCP:
		b = xmlNum(b, "sport", uint64(t.Sport))
		b = xmlNum(b, "dport", uint64(t.Dport))
	case ct.GRE:
		b = append(value.AppendHex(append(b, "<srckey>"...), uint64(t.Sport)), "</srckey>"...)
		b = append(value.AppendHex(append(b, "<dstkey>"...), uint64(t.Dport)), "</dstkey>"...)
	}
	return b
}

func xmlDirection(b []byte, name string, t *ct.Tuple, proto uint8, c *ct.Counters) []byte {
	b = append(append(append(b, `<meta direction="`...), name...), `">`...)
	b = xmlLayer(b, "layer3", t.Family, familyWord(t.Family))
	b = append(xmlAddrs(b, t), "</layer3>"...)
	b = xmlLayer(b, "layer4", proto, protoWord(proto))
	b = append(xmlPorts(b, t, proto), "</layer4>"...)
	if t.Has(ct.TupleZone) {
		b = xmlNum(b, "zone", uint64(t.Zone))
	}
	if c != nil {
		b = xmlNum(append(b, "<counters>"...), "packets", c.Packets)
		b = append(xmlNum(b, "bytes", c.Bytes), "</counters>"...)
	}
	return append(b, "</meta>"...)
}

func xmlHead(b []byte, e ct.Event) []byte {
	if e == ct.NoEvent {
		return append(b, "<flow>"...)
	}
	b = append(b, `<flow type="`...)
	return append(ct.EventNames.Append(b, uint64(e)), `">`...)
}

// xmlTail appends who caused an event. conntrack(8) writes it as text behind the
// element, where XML has no place for it.
func xmlTail(b []byte, by *ct.By) []byte {
	if by.PortID != 0 {
		b = xmlNum(append(b, "<userspace>"...), "portid", uint64(by.PortID))
		if len(by.Comm) > 0 {
			b = xmlText(b, "progname", by.Comm)
		}
		b = append(b, "</userspace>"...)
	}
	return append(b, "</flow>\n"...)
}

// xmlWhen appends the local time of an event, for the modifier timestamp.
func xmlWhen(b []byte, ns uint64) []byte {
	t := time.Unix(int64(ns/1e9), 0)
	two := func(b []byte, name string, n int) []byte {
		b = append(append(append(b, '<'), name...), '>')
		b = append(b, '0'+byte(n/10), '0'+byte(n%10))
		return append(append(append(b, "</"...), name...), '>')
	}
	b = xmlNum(append(b, "<when>"...), "hour", uint64(t.Hour()))
	b = two(two(b, "min", t.Minute()), "sec", t.Second())
	b = xmlNum(b, "wday", uint64(t.Weekday())+1)
	b = xmlNum(b, "day", uint64(t.Day()))
	b = xmlNum(b, "month", uint64(t.Month()))
	return append(xmlNum(b, "year", uint64(t.Year())), "</when>"...)
}

func flowXML(o *Output) func([]byte, *ct.Flow) []byte {
	mods := *o
	return func(b []byte, f *ct.Flow) []byte { return appendFlowXML(b, f, &mods) }
}

func appendFlowXML(b []byte, f *ct.Flow, o *Output) []byte {
	proto := f.Orig.Proto
	b = xmlHead(b, f.Event)
	var orig, reply *ct.Counters
	if f.Has(ct.HasOrigCounters) {
		orig = &f.OrigCounters
	}
	if f.Has(ct.HasReplyCounters) {
		reply = &f.ReplyCounters
	}
	b = xmlDirection(b, "original", &f.Orig, proto, orig)
	b = xmlDirection(b, "reply", &f.Reply, f.Reply.Proto, reply)
	const meta = ct.HasTCPState | ct.HasSCTPState | ct.HasDCCPState | ct.HasTimeout | ct.HasMark | ct.HasSecmark |
		ct.HasZone |
		ct.HasUse | ct.HasID | ct.HasStatus | ct.HasLabels | ct.HasSecctx | ct.HasStart | ct.HasStop
	if f.Present&meta != 0 {
		b = append(b, `<meta direction="independent">`...)
		if w := stateWord(f); w != "" {
			b = xmlText(b, "state", w)
		}
		if f.Has(ct.HasTimeout) {
			b = xmlNum(b, "timeout", uint64(f.Timeout))
		}
		if f.Has(ct.HasMark) {
			b = xmlNum(b, "mark", uint64(f.Mark))
		}
		if o.Labels && f.Has(ct.HasLabels) {
			b = xmlLabels(b, &f.Labels)
		}
		if f.Has(ct.HasSecmark) {
			b = xmlNum(b, "secmark", uint64(f.Secmark))
		}
		if f.Has(ct.HasSecctx) {
			b = xmlText(b, "secctx", f.Secctx)
		}
		if f.Has(ct.HasZone) {
			b = xmlNum(b, "zone", uint64(f.Zone))
		}
		if f.Has(ct.HasUse) {
			b = xmlNum(b, "use", uint64(f.Use))
		}
		if f.Has(ct.HasID) {
			b = xmlNum(b, "id", uint64(f.ID))
		}
		if f.Has(ct.HasStatus) && f.Status&ct.StatusAssured != 0 {
			b = append(b, "<assured/>"...)
		}
		if f.Has(ct.HasStatus) && f.Status&ct.StatusSeenReply == 0 {
			b = append(b, "<unreplied/>"...)
		}
		if o.KTimestamp && f.Present&(ct.HasStart|ct.HasStop) != 0 {
			b = append(b, "<timestamp>"...)
			if f.Has(ct.HasStart) {
				b = xmlNum(b, "start", f.Start)
			}
			if f.Has(ct.HasStop) {
				b = xmlNum(b, "stop", f.Stop)
			}
			b = append(b, "</timestamp>"...)
		}
		if f.Has(ct.HasStart) {
			delta := seconds(f)
			if f.Stop != 0 { // of both times here, not of their whole seconds as in text
				delta = (f.Stop - f.Start) / 1e9
			}
			b = xmlNum(b, "deltatime", delta)
		}
		b = append(b, "</meta>"...)
	}
	if o.Timestamp && f.Event != ct.NoEvent {
		b = xmlWhen(b, f.Time)
	}
	if f.Has(ct.HasHelper) {
		b = xmlText(b, "helper", f.Helper)
	}
	return xmlTail(b, &f.By)
}

func xmlLabels(b []byte, labels *[16]byte) []byte {
	open := len(b)
	b = append(b, "<labels>"...)
	start := len(b)
	for k, octet := range labels {
		for ; octet != 0; octet &= octet - 1 {
			n := 8*k + bits.TrailingZeros8(octet)
			if w := ct.LabelName(n); w != "" {
				b = xmlText(b, "label", w)
			} else {
				b = xmlNum(b, "label", uint64(n))
			}
		}
	}
	if len(b) == start {
		return b[:open]
	}
	return append(b, "</labels>"...)
}

func expectXML(o *Output) func([]byte, *ct.Expect) []byte {
	mods := *o
	return func(b []byte, e *ct.Expect) []byte { return appendExpectXML(b, e, &mods) }
}

func appendExpectXML(b []byte, e *ct.Expect, o *Output) []byte {
	proto := e.Tuple.Proto
	tuples := [...]struct {
		name string
		t    *ct.Tuple
	}{{"expected", &e.Tuple}, {"mask", &e.Mask}, {"master", &e.Master}}
	b = xmlHead(b, e.Event)
	b = xmlLayer(b, "layer3", e.Tuple.Family, familyWord(e.Tuple.Family))
	for _, p := range tuples {
		b = append(append(append(b, '<'), p.name...), '>')
		b = append(append(append(xmlAddrs(b, p.t), "</"...), p.name...), '>')
	}
	b = xmlLayer(append(b, "</layer3>"...), "layer4", proto, protoWord(proto))
	for _, p := range tuples {
		b = append(append(append(b, '<'), p.name...), '>')
		b = append(append(append(xmlPorts(b, p.t, p.t.Proto), "</"...), p.name...), '>')
	}
	b = append(b, "</layer4><meta>"...)
	if e.Has(ct.ExpectHasHelper) {
		b = xmlText(b, "helper-name", e.Helper)
	}
	if e.Has(ct.ExpectHasTimeout) {
		b = xmlNum(b, "timeout", uint64(e.Timeout))
	}
	if e.Has(ct.ExpectHasClass) {
		b = xmlNum(b, "class", uint64(e.Class))
	}
	if e.Has(ct.ExpectHasZone) && e.Zone != 0 {
		b = xmlNum(b, "zone", uint64(e.Zone))
	}
	if o.Timestamp && e.Time != 0 {
		b = xmlWhen(b, e.Time)
	}
	for i, w := range [...]string{"<permanent/>", "<inactive/>", "<userspace/>"} {
		if e.Flags>>i&1 != 0 {
			b = append(b, w...)
		}
	}
	return xmlTail(append(b, "</meta>"...), &e.By)
}
