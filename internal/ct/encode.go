package ct

import (
	"encoding/binary"
	"net/netip"

	"nfctl/internal/nl"
)

// AppendAttrs appends all that f knows as netlink attributes, also what no
// request can set: Decode reads it back. Requests are made with AppendCreate and
// AppendUpdate.
func (f *Flow) AppendAttrs(b []byte) []byte {
	b = appendTuples(b, f)
	b = appendNum32(b, f, HasStatus, ctaStatus, f.Status)
	b = appendNum32(b, f, HasTimeout, ctaTimeout, f.Timeout)
	b = appendNum32(b, f, HasMark, ctaMark, f.Mark)
	b = appendNum32(b, f, HasMarkMask, ctaMarkMask, f.MarkMask)
	b = f.appendCounters(b, ctaCountersOrig, &f.OrigCounters, HasOrigPackets, HasOrigBytes)
	b = f.appendCounters(b, ctaCountersReply, &f.ReplyCounters, HasReplyPackets, HasReplyBytes)
	b = f.appendExtras(b)
	b = f.appendZone(b)
	b = appendNum32(b, f, HasUse, ctaUse, f.Use)
	b = appendNum32(b, f, HasID, ctaID, f.ID)
	b = appendNum32(b, f, HasSecmark, ctaSecmark, f.Secmark)
	if f.Has(HasSecctx) {
		var at int
		b, at = nl.Begin(b, ctaSecctx)
		b = nl.End(appendText(b, ctaSecctxName, f.Secctx), at)
	}
	if f.Present&(HasStart|HasStop) != 0 {
		var at int
		b, at = nl.Begin(b, ctaTimestamp)
		b = appendNum64(b, f, HasStart, ctaTimestampStart, f.Start)
		b = appendNum64(b, f, HasStop, ctaTimestampStop, f.Stop)
		b = nl.End(b, at)
	}
	b = appendNum64(b, f, HasEventTime, ctaTimestampEv, f.EventTime)
	for _, u := range f.Unknown {
		b = nl.AppendAttr(b, u.Type, u.Data)
	}
	return b
}

// appendExtras appends what the kernel takes on create and update alike.
func (f *Flow) appendExtras(b []byte) []byte {
	b = f.appendProtoinfo(b)
	if f.Present&(HasHelper|HasHelperInfo) != 0 {
		var at int
		b, at = nl.Begin(b, ctaHelp)
		if f.Has(HasHelper) {
			b = appendText(b, ctaHelpName, f.Helper)
		}
		if f.Has(HasHelperInfo) {
			b = nl.AppendAttr(b, ctaHelpInfo, f.HelperInfo)
		}
		b = nl.End(b, at)
	}
	b = f.appendNAT(b, ctaNATSrc, &f.SNAT, HasSNATPort)
	b = f.appendNAT(b, ctaNATDst, &f.DNAT, HasDNATPort)
	if !f.Master.IsZero() {
		b = f.Master.append(b, ctaTupleMaster)
	}
	b = f.appendSeqAdj(b, ctaSeqAdjOrig, &f.SeqOrig, HasSeqOrigPos, HasSeqOrigBefore, HasSeqOrigAfter)
	b = f.appendSeqAdj(b, ctaSeqAdjReply, &f.SeqReply, HasSeqReplyPos, HasSeqReplyBefore, HasSeqReplyAfter)
	if f.Has(HasLabels) {
		b = nl.AppendAttr(b, ctaLabels, f.Labels[:])
	}
	if f.Has(HasLabelsMask) {
		b = nl.AppendAttr(b, ctaLabelsMask, f.LabelsMask[:])
	}
	if f.Present&HasSynproxy != 0 {
		var at int
		b, at = nl.Begin(b, ctaSynproxy)
		b = appendNum32(b, f, HasSynISN, ctaSynISN, f.SynISN)
		b = appendNum32(b, f, HasSynITS, ctaSynITS, f.SynITS)
		b = appendNum32(b, f, HasSynTSOff, ctaSynTSOff, f.SynTSOff)
		b = nl.End(b, at)
	}
	return b
}

func (f *Flow) appendZone(b []byte) []byte {
	if f.Has(HasZone) {
		b = nl.AppendU16(b, ctaZone, f.Zone)
	}
	return b
}

func appendTuples(b []byte, f *Flow) []byte {
	if !f.Orig.IsZero() {
		b = f.Orig.append(b, ctaTupleOrig)
	}
	if !f.Reply.IsZero() {
		b = f.Reply.append(b, ctaTupleReply)
	}
	return b
}

// appendText appends a string with its final NUL, which the kernel asks for.
func appendText(b []byte, typ uint16, s []byte) []byte {
	if i := len(b); len(s) < 256 {
		b = nl.AppendAttr(b, typ, s)
		if len(s)%4 == 0 { // no padding to serve as the NUL
			b = append(b, 0, 0, 0, 0)
		}
		binary.NativeEndian.PutUint16(b[i:], uint16(4+len(s)+1))
		return b
	}
	return nl.AppendString(b, typ, string(s))
}

func appendNum32(b []byte, f *Flow, bit Has, typ uint16, n uint32) []byte {
	if f.Has(bit) {
		b = nl.AppendU32(b, typ, n)
	}
	return b
}

func appendNum64(b []byte, f *Flow, bit Has, typ uint16, n uint64) []byte {
	if f.Has(bit) {
		b = nl.AppendU64(b, typ, n)
	}
	return b
}

func appendNum8(b []byte, f *Flow, bit Has, typ uint16, n uint8) []byte {
	if f.Has(bit) {
		b = nl.AppendU8(b, typ, n)
	}
	return b
}

func appendAddr(b []byte, v4, v6 uint16, p netip.Addr) []byte {
	switch {
	case p.Is4():
		d := p.As4()
		return nl.AppendAttr(b, v4, d[:])
	case p.Is6():
		d := p.As16()
		return nl.AppendAttr(b, v6, d[:])
	}
	return b
}

// append appends the tuple as attribute typ. A protocol that is not known is
// left out, as are addresses.
func (t *Tuple) append(b []byte, typ uint16) []byte {
	b, at := nl.Begin(b, typ)
	if t.Src.IsValid() || t.Dst.IsValid() {
		var ip int
		b, ip = nl.Begin(b, ctaTupleIP)
		b = appendAddr(b, ctaIPv4Src, ctaIPv6Src, t.Src)
		b = appendAddr(b, ctaIPv4Dst, ctaIPv6Dst, t.Dst)
		b = nl.End(b, ip)
	}
	if t.Present&(TupleProto|TupleSport|TupleDport|TupleType|TupleCode|TupleID) != 0 {
		b = t.appendProto(b)
	}
	if t.Has(TupleZone) {
		b = nl.AppendU16(b, ctaTupleZone, t.Zone)
	}
	return nl.End(b, at)
}

func (t *Tuple) appendProto(b []byte) []byte {
	b, at := nl.Begin(b, ctaTupleProto)
	if t.Has(TupleProto) {
		b = nl.AppendU8(b, ctaProtoNum, t.Proto)
	}
	if t.Has(TupleSport) {
		b = nl.AppendU16(b, ctaProtoSrcPort, t.Sport)
	}
	if t.Has(TupleDport) {
		b = nl.AppendU16(b, ctaProtoDstPort, t.Dport)
	}
	var v6 uint16
	if t.Proto == ICMPv6 {
		v6 = ctaProtoICMPv6ID - ctaProtoICMPID
	}
	if t.Has(TupleID) {
		b = nl.AppendU16(b, ctaProtoICMPID+v6, t.ID)
	}
	if t.Has(TupleType) {
		b = nl.AppendU8(b, ctaProtoICMPType+v6, t.Type)
	}
	if t.Has(TupleCode) {
		b = nl.AppendU8(b, ctaProtoICMPCode+v6, t.Code)
	}
	return nl.End(b, at)
}

func (f *Flow) appendProtoinfo(b []byte) []byte {
	if f.Present&(hasTCP|hasSCTP|hasDCCP) == 0 {
		return b
	}
	b, at := nl.Begin(b, ctaProtoinfo)
	var in int
	if f.Present&hasTCP != 0 {
		b, in = nl.Begin(b, ctaProtoinfoTCP)
		b = appendNum8(b, f, HasTCPState, ctaTCPState, f.TCPState)
		b = appendNum8(b, f, HasTCPWscaleOrig, ctaTCPWscaleOrig, f.TCPWscaleOrig)
		b = appendNum8(b, f, HasTCPWscaleReply, ctaTCPWscaleReply, f.TCPWscaleReply)
		if f.Has(HasTCPFlagsOrig | HasTCPMaskOrig) {
			b = nl.AppendAttr(b, ctaTCPFlagsOrig, []byte{f.TCPFlagsOrig, f.TCPMaskOrig})
		}
		if f.Has(HasTCPFlagsReply | HasTCPMaskReply) {
			b = nl.AppendAttr(b, ctaTCPFlagsReply, []byte{f.TCPFlagsReply, f.TCPMaskReply})
		}
		b = nl.End(b, in)
	}
	if f.Present&hasDCCP != 0 {
		b, in = nl.Begin(b, ctaProtoinfoDCCP)
		b = appendNum8(b, f, HasDCCPState, ctaDCCPState, f.DCCPState)
		if f.Present&(HasDCCPState|HasDCCPRole) != 0 { // the kernel takes both or neither; 0 is the client's
			b = nl.AppendU8(b, ctaDCCPRole, f.DCCPRole)
		}
		b = appendNum64(b, f, HasDCCPSeq, ctaDCCPSeq, f.DCCPSeq)
		b = nl.End(b, in)
	}
	if f.Present&hasSCTP != 0 {
		b, in = nl.Begin(b, ctaProtoinfoSCTP)
		b = appendNum8(b, f, HasSCTPState, ctaSCTPState, f.SCTPState)
		b = appendNum32(b, f, HasSCTPVtagOrig, ctaSCTPVtagOrig, f.SCTPVtagOrig)
		b = appendNum32(b, f, HasSCTPVtagReply, ctaSCTPVtagReply, f.SCTPVtagReply)
		b = nl.End(b, in)
	}
	return nl.End(b, at)
}

func (f *Flow) appendCounters(b []byte, typ uint16, c *Counters, packets, bytes Has) []byte {
	if f.Present&(packets|bytes) == 0 {
		return b
	}
	b, at := nl.Begin(b, typ)
	b = appendNum64(b, f, packets, ctaCountersPackets, c.Packets)
	b = appendNum64(b, f, bytes, ctaCountersBytes, c.Bytes)
	return nl.End(b, at)
}

func (f *Flow) appendSeqAdj(b []byte, typ uint16, s *SeqAdj, pos, before, after Has) []byte {
	if f.Present&(pos|before|after) == 0 {
		return b
	}
	b, at := nl.Begin(b, typ)
	b = appendNum32(b, f, pos, ctaSeqPos, s.Pos)
	b = appendNum32(b, f, before, ctaSeqBefore, s.Before)
	b = appendNum32(b, f, after, ctaSeqAfter, s.After)
	return nl.End(b, at)
}

func (f *Flow) appendNAT(b []byte, typ uint16, r *NAT, port Has) []byte {
	if !r.Addr.IsValid() && !r.AddrMax.IsValid() && !f.Has(port) {
		return b
	}
	b, at := nl.Begin(b, typ)
	b = appendAddr(b, ctaNATv4Min, ctaNATv6Min, r.Addr)
	b = appendAddr(b, ctaNATv4Max, ctaNATv6Max, r.AddrMax)
	if f.Has(port) {
		var in int
		b, in = nl.Begin(b, ctaNATProto)
		b = nl.AppendU16(b, ctaProtoNATMin, r.Port)
		if r.PortMax != 0 {
			b = nl.AppendU16(b, ctaProtoNATMax, r.PortMax)
		}
		b = nl.End(b, in)
	}
	return nl.End(b, at)
}

// AppendAttrs appends all that e knows as netlink attributes; Decode reads it
// back.
func (e *Expect) AppendAttrs(b []byte) []byte {
	for _, t := range []struct {
		typ   uint16
		tuple *Tuple
	}{{ctaExpMaster, &e.Master}, {ctaExpTuple, &e.Tuple}, {ctaExpMask, &e.Mask}} {
		if !t.tuple.IsZero() {
			b = t.tuple.append(b, t.typ)
		}
	}
	for _, n := range []struct {
		bit ExpectHas
		typ uint16
		n   uint32
	}{{ExpectHasTimeout, ctaExpTimeout, e.Timeout}, {ExpectHasID, ctaExpID, e.ID}, {ExpectHasFlags, ctaExpFlags, e.Flags}, {ExpectHasClass, ctaExpClass, e.Class}} {
		if e.Has(n.bit) {
			b = nl.AppendU32(b, n.typ, n.n)
		}
	}
	if e.Has(ExpectHasZone) {
		b = nl.AppendU16(b, ctaExpZone, e.Zone)
	}
	if e.Has(ExpectHasHelper) {
		b = appendText(b, ctaExpHelpName, e.Helper)
	}
	if e.Has(ExpectHasFn) {
		b = appendText(b, ctaExpFn, e.Fn)
	}
	if e.Has(ExpectHasNATDir) || !e.NATTuple.IsZero() {
		var at int
		b, at = nl.Begin(b, ctaExpNAT)
		if e.Has(ExpectHasNATDir) {
			b = nl.AppendU32(b, ctaExpNATDir, e.NATDir)
		}
		if !e.NATTuple.IsZero() {
			b = e.NATTuple.append(b, ctaExpNATTuple)
		}
		b = nl.End(b, at)
	}
	for _, u := range e.Unknown {
		b = nl.AppendAttr(b, u.Type, u.Data)
	}
	return b
}
