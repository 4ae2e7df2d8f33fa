package ct

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
)

// errMalformed says that a message ended inside an attribute. What came before
// it was read.
var errMalformed = errors.New("malformed message")

// Decode resets f and reads a flow from a message of the kernel: an element of a
// dump or the answer to a request. f points into m's data. It allocates nothing,
// unless an unknown attribute is met for the first time.
func (f *Flow) Decode(m *nl.Msg) error { return f.DecodeAttrs(m.Family(), m.Body()) }

// DecodeEvent is Decode for a message of a multicast group: it also sets Event
// and By.PortID.
func (f *Flow) DecodeEvent(m *nl.Msg) error {
	err := f.Decode(m)
	f.Event, f.By.PortID = eventOf(m), m.Port
	return err
}

func eventOf(m *nl.Msg) Event {
	switch {
	case m.Msg() == msgDelete:
		return Destroy
	case m.Flags&(unix.NLM_F_CREATE|unix.NLM_F_EXCL) != 0:
		return New
	}
	return Update
}

// DecodeAttrs is Decode for attributes without a header, as a queue's packet
// carries them (NFQA_CT).
func (f *Flow) DecodeAttrs(family uint8, b []byte) error {
	f.Reset()
	for len(b) > 0 {
		a, rest, ok := nl.NextAttr(b)
		if !ok {
			return errMalformed
		}
		b = rest
		switch a.Type {
		case ctaTupleOrig:
			f.Orig.decode(family, a.Data)
		case ctaTupleReply:
			f.Reply.decode(family, a.Data)
		case ctaTupleMaster:
			f.Master.decode(family, a.Data)
		case ctaStatus:
			u32(a, f, HasStatus, &f.Status)
		case ctaTimeout:
			u32(a, f, HasTimeout, &f.Timeout)
		case ctaMark:
			u32(a, f, HasMark, &f.Mark)
		case ctaMarkMask:
			u32(a, f, HasMarkMask, &f.MarkMask)
		case ctaUse:
			u32(a, f, HasUse, &f.Use)
		case ctaID:
			u32(a, f, HasID, &f.ID)
		case ctaSecmark:
			u32(a, f, HasSecmark, &f.Secmark)
		case ctaZone:
			if n, ok := a.U16(); ok {
				f.Zone, f.Present = n, f.Present|HasZone
			}
		case ctaProtoinfo:
			f.decodeProtoinfo(a.Data)
		case ctaCountersOrig:
			f.decodeCounters(a.Data, &f.OrigCounters, HasOrigPackets, HasOrigBytes)
		case ctaCountersReply:
			f.decodeCounters(a.Data, &f.ReplyCounters, HasReplyPackets, HasReplyBytes)
		case ctaHelp:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				switch n.Type {
				case ctaHelpName:
					f.Helper, f.Present = n.Text(), f.Present|HasHelper
				case ctaHelpInfo:
					f.HelperInfo, f.Present = n.Data, f.Present|HasHelperInfo
				}
			}
		case ctaNATSrc:
			f.SNAT.decode(a.Data, f, HasSNATPort)
		case ctaNATDst:
			f.DNAT.decode(a.Data, f, HasDNATPort)
		case ctaSeqAdjOrig:
			f.decodeSeqAdj(a.Data, &f.SeqOrig, HasSeqOrigPos, HasSeqOrigBefore, HasSeqOrigAfter)
		case ctaSeqAdjReply:
			f.decodeSeqAdj(a.Data, &f.SeqReply, HasSeqReplyPos, HasSeqReplyBefore, HasSeqReplyAfter)
		case ctaSecctx:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				if n.Type == ctaSecctxName {
					f.Secctx, f.Present = n.Text(), f.Present|HasSecctx
				}
			}
		case ctaTimestamp:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				switch n.Type {
				case ctaTimestampStart:
					u64(n, f, HasStart, &f.Start)
				case ctaTimestampStop:
					u64(n, f, HasStop, &f.Stop)
				}
			}
		case ctaTimestampEv:
			u64(a, f, HasEventTime, &f.EventTime)
		case ctaLabels:
			f.Labels, f.Present = [16]byte{}, f.Present|HasLabels
			copy(f.Labels[:], a.Data)
		case ctaLabelsMask:
			f.LabelsMask, f.Present = [16]byte{}, f.Present|HasLabelsMask
			copy(f.LabelsMask[:], a.Data)
		case ctaSynproxy:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				switch n.Type {
				case ctaSynISN:
					u32(n, f, HasSynISN, &f.SynISN)
				case ctaSynITS:
					u32(n, f, HasSynITS, &f.SynITS)
				case ctaSynTSOff:
					u32(n, f, HasSynTSOff, &f.SynTSOff)
				}
			}
		default:
			f.Unknown = append(f.Unknown, Unknown{a.Type, a.Data})
		}
	}
	return nil
}

func u32(a nl.Attr, f *Flow, bit Has, to *uint32) {
	if n, ok := a.U32(); ok {
		*to = n
		f.Present |= bit
	}
}

func u64(a nl.Attr, f *Flow, bit Has, to *uint64) {
	if n, ok := a.U64(); ok {
		*to = n
		f.Present |= bit
	}
}

func u8(a nl.Attr, f *Flow, bit Has, to *uint8) {
	if len(a.Data) > 0 {
		*to = a.Data[0]
		f.Present |= bit
	}
}

func addr4(b []byte) (p netip.Addr) {
	if len(b) >= 4 {
		p = netip.AddrFrom4([4]byte(b))
	}
	return p
}

func addr16(b []byte) (p netip.Addr) {
	if len(b) >= 16 {
		p = netip.AddrFrom16([16]byte(b))
	}
	return p
}

func (t *Tuple) decode(family uint8, b []byte) {
	t.Family, t.Present = family, t.Present|TupleFamily
	for a, b, ok := nl.NextAttr(b); ok; a, b, ok = nl.NextAttr(b) {
		switch a.Type {
		case ctaTupleIP:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				switch n.Type {
				case ctaIPv4Src:
					t.Src = addr4(n.Data)
				case ctaIPv4Dst:
					t.Dst = addr4(n.Data)
				case ctaIPv6Src:
					t.Src = addr16(n.Data)
				case ctaIPv6Dst:
					t.Dst = addr16(n.Data)
				}
			}
		case ctaTupleProto:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				switch n.Type {
				case ctaProtoNum:
					t.u8(n, TupleProto, &t.Proto)
				case ctaProtoSrcPort:
					t.u16(n, TupleSport, &t.Sport)
				case ctaProtoDstPort:
					t.u16(n, TupleDport, &t.Dport)
				case ctaProtoICMPID, ctaProtoICMPv6ID:
					t.u16(n, TupleID, &t.ID)
				case ctaProtoICMPType, ctaProtoICMPv6Type:
					t.u8(n, TupleType, &t.Type)
				case ctaProtoICMPCode, ctaProtoICMPv6Code:
					t.u8(n, TupleCode, &t.Code)
				}
			}
		case ctaTupleZone:
			t.u16(a, TupleZone, &t.Zone)
		}
	}
}

func (t *Tuple) u8(a nl.Attr, bit TupleHas, to *uint8) {
	if len(a.Data) > 0 {
		*to = a.Data[0]
		t.Present |= bit
	}
}

func (t *Tuple) u16(a nl.Attr, bit TupleHas, to *uint16) {
	if n, ok := a.U16(); ok {
		*to = n
		t.Present |= bit
	}
}

func (f *Flow) decodeProtoinfo(b []byte) {
	for a, b, ok := nl.NextAttr(b); ok; a, b, ok = nl.NextAttr(b) {
		switch a.Type {
		case ctaProtoinfoTCP:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				switch n.Type {
				case ctaTCPState:
					u8(n, f, HasTCPState, &f.TCPState)
				case ctaTCPWscaleOrig:
					u8(n, f, HasTCPWscaleOrig, &f.TCPWscaleOrig)
				case ctaTCPWscaleReply:
					u8(n, f, HasTCPWscaleReply, &f.TCPWscaleReply)
				case ctaTCPFlagsOrig: // struct nf_ct_tcp_flags
					if len(n.Data) >= 2 {
						f.TCPFlagsOrig, f.TCPMaskOrig = n.Data[0], n.Data[1]
						f.Present |= HasTCPFlagsOrig | HasTCPMaskOrig
					}
				case ctaTCPFlagsReply:
					if len(n.Data) >= 2 {
						f.TCPFlagsReply, f.TCPMaskReply = n.Data[0], n.Data[1]
						f.Present |= HasTCPFlagsReply | HasTCPMaskReply
					}
				}
			}
		case ctaProtoinfoSCTP:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				switch n.Type {
				case ctaSCTPState:
					u8(n, f, HasSCTPState, &f.SCTPState)
				case ctaSCTPVtagOrig:
					u32(n, f, HasSCTPVtagOrig, &f.SCTPVtagOrig)
				case ctaSCTPVtagReply:
					u32(n, f, HasSCTPVtagReply, &f.SCTPVtagReply)
				}
			}
		case ctaProtoinfoDCCP:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				switch n.Type {
				case ctaDCCPState:
					u8(n, f, HasDCCPState, &f.DCCPState)
				case ctaDCCPRole:
					u8(n, f, HasDCCPRole, &f.DCCPRole)
				case ctaDCCPSeq:
					u64(n, f, HasDCCPSeq, &f.DCCPSeq)
				}
			}
		}
	}
}

func (f *Flow) decodeCounters(b []byte, c *Counters, packets, bytes Has) {
	for n, b, ok := nl.NextAttr(b); ok; n, b, ok = nl.NextAttr(b) {
		switch n.Type {
		case ctaCountersPackets:
			u64(n, f, packets, &c.Packets)
		case ctaCountersBytes:
			u64(n, f, bytes, &c.Bytes)
		}
	}
}

func (f *Flow) decodeSeqAdj(b []byte, s *SeqAdj, pos, before, after Has) {
	for n, b, ok := nl.NextAttr(b); ok; n, b, ok = nl.NextAttr(b) {
		switch n.Type {
		case ctaSeqPos:
			u32(n, f, pos, &s.Pos)
		case ctaSeqBefore:
			u32(n, f, before, &s.Before)
		case ctaSeqAfter:
			u32(n, f, after, &s.After)
		}
	}
}

func (r *NAT) decode(b []byte, f *Flow, port Has) {
	for a, b, ok := nl.NextAttr(b); ok; a, b, ok = nl.NextAttr(b) {
		switch a.Type {
		case ctaNATv4Min:
			r.Addr = addr4(a.Data)
		case ctaNATv4Max:
			r.AddrMax = addr4(a.Data)
		case ctaNATv6Min:
			r.Addr = addr16(a.Data)
		case ctaNATv6Max:
			r.AddrMax = addr16(a.Data)
		case ctaNATProto:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				p, ok := n.U16()
				switch {
				case ok && n.Type == ctaProtoNATMin:
					r.Port, f.Present = p, f.Present|port
				case ok && n.Type == ctaProtoNATMax:
					r.PortMax = p
				}
			}
		}
	}
	if !f.Has(port) {
		r.PortMax = 0
	}
}

// Decode resets e and reads an expectation from a message of the kernel, as
// Flow.Decode does.
func (e *Expect) Decode(m *nl.Msg) error {
	e.Reset()
	family := m.Family()
	for b := m.Body(); len(b) > 0; {
		a, rest, ok := nl.NextAttr(b)
		if !ok {
			return errMalformed
		}
		b = rest
		switch a.Type {
		case ctaExpMaster:
			e.Master.decode(family, a.Data)
		case ctaExpTuple:
			e.Tuple.decode(family, a.Data)
		case ctaExpMask:
			e.Mask.decode(family, a.Data)
		case ctaExpTimeout:
			e.u32(a, ExpectHasTimeout, &e.Timeout)
		case ctaExpID:
			e.u32(a, ExpectHasID, &e.ID)
		case ctaExpFlags:
			e.u32(a, ExpectHasFlags, &e.Flags)
		case ctaExpClass:
			e.u32(a, ExpectHasClass, &e.Class)
		case ctaExpZone:
			if n, ok := a.U16(); ok {
				e.Zone, e.Present = n, e.Present|ExpectHasZone
			}
		case ctaExpHelpName:
			e.Helper, e.Present = a.Text(), e.Present|ExpectHasHelper
		case ctaExpFn:
			e.Fn, e.Present = a.Text(), e.Present|ExpectHasFn
		case ctaExpNAT:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				switch n.Type {
				case ctaExpNATDir:
					e.u32(n, ExpectHasNATDir, &e.NATDir)
				case ctaExpNATTuple:
					e.NATTuple.decode(family, n.Data)
				}
			}
		default:
			e.Unknown = append(e.Unknown, Unknown{a.Type, a.Data})
		}
	}
	return nil
}

// DecodeEvent is Decode for a message of a multicast group: it also sets Event
// and By.PortID.
func (e *Expect) DecodeEvent(m *nl.Msg) error {
	err := e.Decode(m)
	e.Event, e.By.PortID = eventOf(m), m.Port
	return err
}

func (e *Expect) u32(a nl.Attr, bit ExpectHas, to *uint32) {
	if n, ok := a.U32(); ok {
		*to = n
		e.Present |= bit
	}
}
