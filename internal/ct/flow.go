// Package ct reads and changes the kernel's connection tracking table: flows
// and expectations, their attributes, dumps, events and statistics.
//
// The attribute table (FlowAttrs, ExpectAttrs) says everything there is to know
// about an attribute once; field registries, typed values, the attribute
// commands and the Lua modules are made from it.
package ct

import (
	"cmp"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// Transport protocols that the kernel tracks with more than addresses
// (linux/in.h).
const (
	ICMP    = unix.IPPROTO_ICMP
	TCP     = unix.IPPROTO_TCP
	UDP     = unix.IPPROTO_UDP
	DCCP    = unix.IPPROTO_DCCP
	GRE     = unix.IPPROTO_GRE
	ICMPv6  = unix.IPPROTO_ICMPV6
	SCTP    = unix.IPPROTO_SCTP
	UDPLite = unix.IPPROTO_UDPLITE
)

// Address families as in the netlink header (linux/socket.h).
const (
	IPv4 = 2
	IPv6 = 10
)

// An Event says how a flow or an expectation came to be read.
type Event uint8

const (
	NoEvent  Event = iota // a dump or the answer to a request
	New                   // it was just made
	Update                // some of it changed; only flows
	Destroy               // it is gone
	Existing              // it was there before the stream began, or is shown again after a loss
)

// TupleHas tells which parts of a Tuple are known besides its addresses, which
// are known when they are valid.
type TupleHas uint8

const (
	TupleFamily TupleHas = 1 << iota
	TupleProto
	TupleSport
	TupleDport
	TupleType
	TupleCode
	TupleID
	TupleZone
)

// A Tuple is one direction of a connection (CTA_TUPLE_*).
//
// Ports are host numbers. The keys of GRE stand in Sport and Dport. ICMP and
// ICMPv6 have Type, Code and ID in place of ports.
type Tuple struct {
	Src, Dst     netip.Addr
	Sport, Dport uint16
	ID           uint16 // ICMP identifier, as a host number
	Zone         uint16 // conntrack zone of this direction only (CTA_TUPLE_ZONE)
	Family       uint8  // IPv4 or IPv6; from the message's header
	Proto        uint8
	Type, Code   uint8 // ICMP
	Present      TupleHas
}

// Has reports whether all of the parts are known.
func (t *Tuple) Has(parts TupleHas) bool { return t.Present&parts == parts }

// IsZero reports whether nothing of the tuple is known.
func (t *Tuple) IsZero() bool { return t.Present == 0 && !t.Src.IsValid() && !t.Dst.IsValid() }

// protoParts returns the parts that the kernel keeps of a protocol's tuples
// beside the protocol: it takes a tuple only with all of them
// (net/netfilter/nf_conntrack_proto_*.c).
func protoParts(proto uint8) TupleHas {
	switch {
	case pattern.HasEnds(proto):
		return TupleSport | TupleDport
	case pattern.HasICMP(proto):
		return TupleType | TupleCode | TupleID
	}
	return 0
}

// Lacks returns the parts that the tuple's protocol has and the tuple does not.
func (t *Tuple) Lacks() TupleHas { return protoParts(t.Proto) &^ t.Present }

// Complete returns a *value.Error that names the parts that the tuple's protocol
// has and the tuple does not: a flow that lacks them is no flow that anybody meant.
// DCCP and UDP-Lite may have no ports at all, as in kernels that do not track them.
func (t *Tuple) Complete() error {
	lacks := t.Lacks()
	if lacks == 0 || !t.Has(TupleProto) || (t.Proto == DCCP || t.Proto == UDPLite) && lacks == TupleSport|TupleDport {
		return nil
	}
	word := pattern.PortWord(t.Proto)
	var missing []string
	for _, p := range []struct {
		part TupleHas
		what string
	}{{TupleSport, "a source " + word}, {TupleDport, "a destination " + word}, {TupleType, "a type"},
		{TupleCode, "a code"}, {TupleID, "an id"}} {
		if lacks&p.part != 0 {
			missing = append(missing, p.what)
		}
	}
	what := "flow of " + string(value.Protocols.Append(nil, uint64(t.Proto)))
	return &value.Error{What: what, Text: string(AppendTuple(nil, t)), Valid: strings.Join(missing, " and ")}
}

// whole returns the tuple as it is sent in requests, and as libnetfilter_conntrack
// sends it: with every part that its family and protocol have, zero where nothing
// is known. The family is the one given when the tuple does not say.
func (t *Tuple) whole(family uint8) Tuple {
	w := *t
	w.Family = cmp.Or(t.family(), family)
	var zero netip.Addr
	switch w.Family {
	case IPv4:
		zero = netip.IPv4Unspecified()
	case IPv6:
		zero = netip.IPv6Unspecified()
	}
	if !w.Src.IsValid() {
		w.Src = zero
	}
	if !w.Dst.IsValid() {
		w.Dst = zero
	}
	if !t.Has(TupleProto) {
		w.Proto = 0
	}
	if !t.Has(TupleSport) {
		w.Sport = 0
	}
	if !t.Has(TupleDport) {
		w.Dport = 0
	}
	if !t.Has(TupleType) {
		w.Type = 0
	}
	if !t.Has(TupleCode) {
		w.Code = 0
	}
	if !t.Has(TupleID) {
		w.ID = 0
	}
	w.Present |= TupleFamily | TupleProto | protoParts(w.Proto)
	return w
}

// HasPorts reports whether flows of the protocol have ports, which the keys of GRE
// are not.
func HasPorts(proto uint8) bool {
	switch proto {
	case TCP, UDP, UDPLite, SCTP, DCCP:
		return true
	}
	return false
}

// Reverse returns the tuple of the answers to t. The answer to an ICMP type is
// known for echo, timestamp, information, address mask and (ICMPv6) echo and
// node information; for others it is 255, which the kernel refuses.
func (t *Tuple) Reverse() Tuple {
	r := *t
	r.Src, r.Dst = t.Dst, t.Src
	r.Sport, r.Dport = t.Dport, t.Sport
	r.Present &^= TupleSport | TupleDport | TupleZone
	if t.Has(TupleSport) {
		r.Present |= TupleDport
	}
	if t.Has(TupleDport) {
		r.Present |= TupleSport
	}
	r.Zone = 0
	if t.Has(TupleType) {
		r.Type = ReplyType(t.Proto, t.Type)
	}
	return r
}

// ReplyType returns the ICMP (or, for ICMPv6, ICMPv6) type that answers typ,
// and 255 when none does (net/netfilter/nf_conntrack_proto_icmp.c).
func ReplyType(proto, typ uint8) uint8 {
	if proto == ICMPv6 {
		switch typ {
		case 128, 139:
			return typ + 1
		case 129, 140:
			return typ - 1
		}
		return 255
	}
	switch typ {
	case 8:
		return 0
	case 0:
		return 8
	case 13, 15, 17:
		return typ + 1
	case 14, 16, 18:
		return typ - 1
	}
	return 255
}

// unanswered reports whether the tuple is of an ICMP type that no flow has.
func (t *Tuple) unanswered() bool { return t.Has(TupleType) && ReplyType(t.Proto, t.Type) == 255 }

// Has tells which attributes of a Flow are known, apart from its tuples.
type Has uint64

const (
	HasStatus Has = 1 << iota
	HasTimeout
	HasMark
	HasMarkMask
	HasUse
	HasID
	HasZone
	HasSecmark
	HasSecctx
	HasHelper
	HasHelperInfo
	HasLabels
	HasLabelsMask
	HasStart
	HasStop
	HasEventTime
	HasOrigPackets
	HasOrigBytes
	HasReplyPackets
	HasReplyBytes
	HasTCPState
	HasTCPWscaleOrig
	HasTCPWscaleReply
	HasTCPFlagsOrig
	HasTCPFlagsReply
	HasTCPMaskOrig
	HasTCPMaskReply
	HasSCTPState
	HasSCTPVtagOrig
	HasSCTPVtagReply
	HasDCCPState
	HasDCCPRole
	HasDCCPSeq
	HasSeqOrigPos
	HasSeqOrigBefore
	HasSeqOrigAfter
	HasSeqReplyPos
	HasSeqReplyBefore
	HasSeqReplyAfter
	HasSynISN
	HasSynITS
	HasSynTSOff
	HasSNATPort
	HasDNATPort
	HasIdle

	// The bits behind, up to those of the tuples, are for rows without a field of
	// their own: see spare.
	firstSpare

	HasOrigCounters  = HasOrigPackets | HasOrigBytes
	HasReplyCounters = HasReplyPackets | HasReplyBytes
	HasSeqOrig       = HasSeqOrigPos | HasSeqOrigBefore | HasSeqOrigAfter
	HasSeqReply      = HasSeqReplyPos | HasSeqReplyBefore | HasSeqReplyAfter
	HasSynproxy      = HasSynISN | HasSynITS | HasSynTSOff
	hasTCP           = HasTCPState | HasTCPWscaleOrig | HasTCPWscaleReply | HasTCPFlagsOrig | HasTCPFlagsReply |
		HasTCPMaskOrig | HasTCPMaskReply
	hasSCTP = HasSCTPState | HasSCTPVtagOrig | HasSCTPVtagReply
	hasDCCP = HasDCCPState | HasDCCPRole | HasDCCPSeq
)

// maxSpare is how many rows without a field of their own there can be.
const maxSpare = 3

// Counters are a direction's packets and bytes, lengths from the IP header on.
type Counters struct{ Packets, Bytes uint64 }

// SeqAdj is how a direction's TCP sequence numbers are shifted (CTA_SEQ_ADJ_*):
// by Before up to the sequence number Pos, by After behind it. Offsets are
// signed; they are kept as the kernel sends them, 32 bits of two's complement.
type SeqAdj struct{ Pos, Before, After uint32 }

// NAT is a translation to ask the kernel for when a flow is made (CTA_NAT_SRC,
// CTA_NAT_DST): an address, or one of the range up to AddrMax, and a port, or
// one of the range up to PortMax. The kernel never sends it.
type NAT struct {
	Addr, AddrMax netip.Addr // AddrMax: not valid means Addr
	Port, PortMax uint16     // PortMax: 0 means Port
}

// An Unknown is an attribute that this program does not know, of a newer
// kernel. Data is valid as long as the flow's other byte strings.
type Unknown struct {
	Type uint16 // without its flag bits
	Data []byte
}

// By is who caused an event: the netlink port of the request, 0 for traffic.
// Pid and Comm are known only when that process really holds the socket.
type By struct {
	PortID uint32
	Pid    uint32
	Comm   []byte
}

// Loader reports whether it was a program that DialLoader opened a socket for.
func (b *By) Loader() bool { return b.PortID&^0xffff == loaderPorts }

// A Rate is how much a flow grew a second, from one listing to the next.
type Rate struct {
	Bytes, Packets uint64
	Known          bool
}

// A Flow is an entry of the connection tracking table, or an event about one.
// It is made to be reused: Decode resets it without allocating. Numbers are in
// host order. The byte strings (Helper, HelperInfo, Secctx, Unknown) point into
// the message that was decoded and are valid until its buffer is reused; Clone
// copies them.
type Flow struct {
	Present Has
	Orig    Tuple
	Reply   Tuple
	Master  Tuple // the connection that this one was expected by

	OrigCounters, ReplyCounters Counters

	Status   uint32 // StatusNames
	Timeout  uint32 // seconds
	Mark     uint32
	MarkMask uint32 // which bits of the mark to change, or to compare
	Use      uint32
	ID       uint32
	Secmark  uint32
	Zone     uint16

	TCPState                      uint8
	TCPWscaleOrig, TCPWscaleReply uint8
	TCPFlagsOrig, TCPFlagsReply   uint8 // TCPFlagNames
	TCPMaskOrig, TCPMaskReply     uint8
	SCTPState                     uint8
	DCCPState                     uint8
	DCCPRole                      uint8
	SCTPVtagOrig, SCTPVtagReply   uint32
	DCCPSeq                       uint64
	SeqOrig, SeqReply             SeqAdj
	SynISN, SynITS, SynTSOff      uint32
	Start, Stop, EventTime        uint64 // ns since the epoch, by the kernel's clock
	SNAT, DNAT                    NAT
	Labels, LabelsMask            [16]byte // bit n is bit n%8 of byte n/8 on little-endian machines
	Helper, HelperInfo, Secctx    []byte
	Unknown                       []Unknown

	// What is known of the message rather than of the entry.
	Event    Event
	Time     uint64 // ns since the epoch when it was read; 0: not said
	By       By
	Idle     uint32 // seconds since the last packet, with HasIdle
	NoEvents bool   // an existing flow that may send no event when it ends
	Rate     Rate
	Listed   bool // by one of several listings: Time is an attribute of the flow

	sum   uint64           // see Sum; 0: not worked out
	spare [maxSpare]uint64 // numbers of rows without a field of their own
	text  []byte           // scratch of the Unknown field
}

// Has reports whether all of the attributes are known.
func (f *Flow) Has(h Has) bool { return f.Present&h == h }

// Family returns the address family of the original direction: IPv4, IPv6 or
// 0 when unknown.
func (f *Flow) Family() uint8 { return f.Orig.Family }

// Reset forgets everything but keeps memory for reuse.
func (f *Flow) Reset() {
	unknown, text := f.Unknown[:0], f.text[:0]
	*f = Flow{}
	f.Unknown, f.text = unknown, text
}

// Clone returns a copy that shares no memory with f.
func (f *Flow) Clone() *Flow {
	c := *f
	c.Helper, c.HelperInfo, c.Secctx = clone(f.Helper), clone(f.HelperInfo), clone(f.Secctx)
	c.By.Comm, c.Unknown, c.text = clone(f.By.Comm), cloneUnknown(f.Unknown), nil
	return &c
}

func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

func cloneUnknown(u []Unknown) []Unknown {
	var out []Unknown
	for _, a := range u {
		out = append(out, Unknown{a.Type, clone(a.Data)})
	}
	return out
}

// Copy makes f a copy of another flow that shares no memory with it, and uses f's own
// memory again.
func (f *Flow) Copy(of *Flow) {
	helper, info, ctx, comm, unknown := f.Helper, f.HelperInfo, f.Secctx, f.By.Comm, f.Unknown
	*f = *of
	f.Helper = append(helper[:0], of.Helper...)
	f.HelperInfo = append(info[:0], of.HelperInfo...)
	f.Secctx = append(ctx[:0], of.Secctx...)
	f.By.Comm = append(comm[:0], of.By.Comm...)
	f.Unknown, f.text = unknown[:0], nil
	for _, u := range of.Unknown {
		f.Unknown = append(f.Unknown, Unknown{u.Type, clone(u.Data)})
	}
}

// State returns the number of the flow's protocol state in StateNames, and
// false when the flow has none. States of several protocols with the same word
// share the number.
func (f *Flow) State() (uint64, bool) {
	switch {
	case f.Has(HasTCPState):
		return stateOf(tcpStates.Get(), f.TCPState), true
	case f.Has(HasSCTPState):
		return stateOf(sctpStates.Get(), f.SCTPState), true
	case f.Has(HasDCCPState):
		return stateOf(dccpStates.Get(), f.DCCPState), true
	}
	return 0, false
}

// Packets returns the packets of both directions, where one of them is counted.
func (f *Flow) Packets() (uint64, bool) {
	return f.OrigCounters.Packets + f.ReplyCounters.Packets, f.Present&(HasOrigPackets|HasReplyPackets) != 0
}

// Bytes returns the bytes of both directions, where one of them is counted.
func (f *Flow) Bytes() (uint64, bool) {
	return f.OrigCounters.Bytes + f.ReplyCounters.Bytes, f.Present&(HasOrigBytes|HasReplyBytes) != 0
}

// SrcNAT returns where the flow's source is translated to: the address and port
// to which replies go, for ICMP their identifier. Each is reported only where it
// was changed.
func (f *Flow) SrcNAT() (addr netip.Addr, addrOK bool, port uint16, portOK bool) {
	if f.Status&(StatusSrcNAT|StatusSrcNATDone) == 0 || !f.Reply.Dst.IsValid() {
		return
	}
	port, portOK = f.Reply.Dport, f.Reply.Has(TupleDport) && f.Orig.Has(TupleSport) && f.Reply.Dport != f.Orig.Sport
	if f.hasID() {
		port, portOK = f.Reply.ID, f.Reply.ID != f.Orig.ID
	}
	return f.Reply.Dst, f.Reply.Dst != f.Orig.Src, port, portOK
}

// DstNAT returns where the flow's destination is translated to: the address and
// port from which replies come. Each is reported only where it was changed. An
// ICMP identifier that was changed is reported as the source's where that is
// translated, too: a packet has one.
func (f *Flow) DstNAT() (addr netip.Addr, addrOK bool, port uint16, portOK bool) {
	if f.Status&(StatusDstNAT|StatusDstNATDone) == 0 || !f.Reply.Src.IsValid() {
		return
	}
	port, portOK = f.Reply.Sport, f.Reply.Has(TupleSport) && f.Orig.Has(TupleDport) && f.Reply.Sport != f.Orig.Dport
	if f.hasID() && f.Status&(StatusSrcNAT|StatusSrcNATDone) == 0 {
		port, portOK = f.Reply.ID, f.Reply.ID != f.Orig.ID
	}
	return f.Reply.Src, f.Reply.Src != f.Orig.Dst, port, portOK
}

// hasID reports whether the flow has ICMP identifiers, in both directions.
func (f *Flow) hasID() bool { return f.Orig.Has(TupleID) && f.Reply.Has(TupleID) }

// Age returns the nanoseconds from the flow's start to its stop or, when it has
// not stopped, to when it was read. It is known only with
// net.netfilter.nf_conntrack_timestamp=1 at the flow's start.
func (f *Flow) Age() (uint64, bool) {
	end := f.Time
	if f.Has(HasStop) {
		end = f.Stop
	}
	if !f.Has(HasStart) || end == 0 {
		return 0, false
	}
	return max(end, f.Start) - f.Start, true
}

// UndoSNAT, UndoDNAT, UndoSPAT and UndoDPAT turn a translation that was done
// into one to ask for, so that an entry that was read can be made elsewhere: the
// reply tuple becomes the mirror of the original in that part, and what it held
// moves to SNAT or DNAT. They do not look whether there was a translation.
func (f *Flow) UndoSNAT() {
	if f.Reply.Dst.IsValid() {
		f.SNAT.Addr, f.SNAT.AddrMax = f.Reply.Dst, f.Reply.Dst
		f.Reply.Dst = f.Orig.Src
	}
}

// UndoDNAT is described at UndoSNAT.
func (f *Flow) UndoDNAT() {
	if f.Reply.Src.IsValid() {
		f.DNAT.Addr, f.DNAT.AddrMax = f.Reply.Src, f.Reply.Src
		f.Reply.Src = f.Orig.Dst
	}
}

// UndoSPAT is described at UndoSNAT.
func (f *Flow) UndoSPAT() {
	if at := &f.SNAT; f.hasID() {
		at.Port, at.PortMax, f.Reply.ID = f.Reply.ID, f.Reply.ID, f.Orig.ID
	} else {
		at.Port, at.PortMax, f.Reply.Dport = f.Reply.Dport, f.Reply.Dport, f.Orig.Sport
	}
	f.Present |= HasSNATPort
}

// UndoDPAT is described at UndoSNAT.
func (f *Flow) UndoDPAT() {
	if at := &f.DNAT; f.hasID() {
		at.Port, at.PortMax, f.Reply.ID = f.Reply.ID, f.Reply.ID, f.Orig.ID
	} else {
		at.Port, at.PortMax, f.Reply.Sport = f.Reply.Sport, f.Reply.Sport, f.Orig.Dport
	}
	f.Present |= HasDNATPort
}

// AskNAT undoes the translations that the flow's tuples show, each only when
// there is one.
func (f *Flow) AskNAT() {
	_, sa, _, sp := f.SrcNAT()
	_, da, _, dp := f.DstNAT()
	if sa {
		f.UndoSNAT()
	}
	if sp {
		f.UndoSPAT()
	}
	if da {
		f.UndoDNAT()
	}
	if dp {
		f.UndoDPAT()
	}
}

// SetupReply makes the reply tuple the mirror of the original one, SetupOrig the
// other way round. A direction's zone stays as it is.
func (f *Flow) SetupReply() { f.Reply = mirror(&f.Orig, &f.Reply) }

// SetupOrig is described at SetupReply.
func (f *Flow) SetupOrig() { f.Orig = mirror(&f.Reply, &f.Orig) }

func mirror(from, to *Tuple) Tuple {
	r := from.Reverse()
	r.Zone, r.Present = to.Zone, r.Present|to.Present&TupleZone
	return r
}
