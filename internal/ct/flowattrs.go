package ct

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unsafe"

	"nfctl/internal/field"
	"nfctl/internal/lazy"
	"nfctl/internal/value"
)

// integer is any width a number of a Flow has.
type integer interface {
	~uint8 | ~uint16 | ~uint32 | ~uint64
}

// A place is where a Flow holds a V, in bytes from its beginning: what a table of
// functions would be called for with every flow is worked out once.
type place[V any] uintptr

func placeOf[V any](at func(*Flow) *V) place[V] { return place[V](offset(&probe, at)) }

// offset is where an object holds a V, in bytes from its beginning.
func offset[T, V any](probe *T, at func(*T) *V) uintptr {
	return uintptr(unsafe.Pointer(at(probe))) - uintptr(unsafe.Pointer(probe))
}

func (p place[V]) of(f *Flow) *V { return (*V)(unsafe.Add(unsafe.Pointer(f), p)) }

var probe Flow // to see where functions point

// spareRows gives each row that says where its number stands in a message, but
// not where a Flow holds it, one of the flow's spare numbers.
func spareRows(t []Attr[Flow]) []Attr[Flow] {
	n := 0
	for i := range t {
		a := &t[i]
		if a.At == nil || a.mem.op != opNone || a.num != nil || n == maxSpare {
			continue
		}
		bit, slot := firstSpare<<n, n
		switch a.Bits {
		case 8:
			a.access = fnum(bit, func(f *Flow) *uint8 { return (*uint8)(unsafe.Pointer(&f.spare[slot])) })
		case 16:
			a.access = fnum(bit, func(f *Flow) *uint16 { return (*uint16)(unsafe.Pointer(&f.spare[slot])) })
		case 32:
			a.access = fnum(bit, func(f *Flow) *uint32 { return (*uint32)(unsafe.Pointer(&f.spare[slot])) })
		default:
			a.access = fnum(bit, func(f *Flow) *uint64 { return &f.spare[slot] })
		}
		n++
	}
	return t
}

// fnum is the access to a number of a flow whose presence is a bit of Has.
func fnum[N integer](bit Has, at func(*Flow) *N) access[Flow] {
	p := placeOf(at)
	return access[Flow]{
		need: uint64(bit),
		mem:  memory{numOp(unsafe.Sizeof(N(0))), uintptr(p), uint64(bit)},
		num: func(f *Flow) (uint64, bool) {
			if f.Present&bit == 0 {
				return 0, false
			}
			return uint64(*p.of(f)), true
		},
		setNum: func(f *Flow, n uint64) { *at(f) = N(n); f.Present |= bit },
	}
}

// tnum is the access to a number of one of a flow's tuples.
func tnum[N integer](tuple func(*Flow) *Tuple, bit TupleHas, at func(*Tuple) *N) access[Flow] {
	has := placeOf(func(f *Flow) *TupleHas { return &tuple(f).Present })
	value := placeOf(func(f *Flow) *N { return at(tuple(f)) })
	var need uint64
	switch tuple(&probe) {
	case &probe.Orig:
		need = uint64(bit) << origShift
	case &probe.Reply:
		need = uint64(bit) << replyShift
	}
	return access[Flow]{
		need: need,
		num: func(f *Flow) (uint64, bool) {
			if *has.of(f)&bit == 0 {
				return 0, false
			}
			return uint64(*value.of(f)), true
		},
		setNum: func(f *Flow, n uint64) { t := tuple(f); *at(t) = N(n); t.Present |= bit },
	}
}

func faddr(at func(*Flow) *netip.Addr) access[Flow] { return access[Flow]{addr: placeOf(at).of} }

func fdata(bit Has, at func(*Flow) *[]byte) access[Flow] {
	return access[Flow]{
		need:    uint64(bit),
		mem:     memory{opText, uintptr(placeOf(at)), uint64(bit)},
		data:    func(f *Flow) ([]byte, bool) { return *at(f), f.Present&bit != 0 },
		setData: func(f *Flow, d []byte) { *at(f) = d; f.Present |= bit },
	}
}

func flabels(bit Has, at func(*Flow) *[16]byte) access[Flow] {
	return access[Flow]{
		need:    uint64(bit),
		mem:     memory{opLabels, uintptr(placeOf(at)), uint64(bit)},
		data:    func(f *Flow) ([]byte, bool) { return at(f)[:], f.Present&bit != 0 },
		setData: func(f *Flow, d []byte) { p := at(f); *p = [16]byte{}; copy(p[:], d); f.Present |= bit },
	}
}

// presence are the bits that field.Row.Need is about: those of Has, and behind
// them those of both tuples.
func presence(f *Flow) uint64 {
	return uint64(f.Present) | uint64(f.Orig.Present)<<origShift | uint64(f.Reply.Present)<<replyShift
}

const (
	origShift  = 48
	replyShift = 56
)

func orig(f *Flow) *Tuple   { return &f.Orig }
func reply(f *Flow) *Tuple  { return &f.Reply }
func master(f *Flow) *Tuple { return &f.Master }

func tSport(t *Tuple) *uint16 { return &t.Sport }
func tDport(t *Tuple) *uint16 { return &t.Dport }
func tFamily(t *Tuple) *uint8 { return &t.Family }
func tProto(t *Tuple) *uint8  { return &t.Proto }
func tType(t *Tuple) *uint8   { return &t.Type }
func tCode(t *Tuple) *uint8   { return &t.Code }
func tID(t *Tuple) *uint16    { return &t.ID }
func tZone(t *Tuple) *uint16  { return &t.Zone }

// Where attributes are sent, and why some cannot be set.
const (
	inAll       = "dump, new, update, destroy"
	inProtoinfo = "dump; new and update when the protocol's state changed; not destroy"
	inState     = "dump; new and update when the protocol's state changed; destroy"
	inMaster    = "dump with status EXPECTED; new of a related connection"
	inCounters  = "dump and destroy, of flows that began with nf_conntrack_acct=1"
	inSeqadj    = "dump with status SEQ_ADJUST; update when it changed"
	inSynproxy  = "dump; new and update when changed"
	never       = "never"

	yes        = "yes"
	isKey      = "no: the kernel finds the flow by it"
	onlyRead   = "no: the kernel ignores it"
	createOnly = "no: the kernel takes it only when the flow is created (EOPNOTSUPP)"
	wholeAdj   = "yes, all three of a direction together"
	wholeMast  = "yes, the whole tuple, of a connection in the table"
	wholeSyn   = "yes, all three together"
	wscaleWhy  = "yes, both scales together, with WINDOW_SCALE in the flags and masks of both directions; " +
		"what is missing of that is added by the commands"
	flagsWhy = "yes, with the mask"
	maskWhy  = "yes, with the flags"
	dccpOld  = "yes, state and role together, by a kernel that tracks DCCP"
)

func key(a Attr[Flow]) Attr[Flow] {
	a.Create, a.Update, a.Since, a.Readable = yes, isKey, "2.6.14", inAll
	return a
}

// FlowAttrs returns the attribute table of flows. Its order is that of JSON and of
// every listing of fields.
func FlowAttrs() []Attr[Flow] { return flowTable.Get() }

var flowTable = lazy.Value[[]Attr[Flow]]{Make: flowAttrs}

// flowCodec reads and writes flows by their table. What AppendCreate and
// AppendUpdate write in their own way is not among what it asks.
var flowCodec = lazy.Value[*codec[Flow]]{Make: func() *codec[Flow] {
	return newCodec(FlowAttrs(), []object{
		{at: wire{ctaTupleOrig}, op: opTuple, place: offset(&probe, orig)},
		{at: wire{ctaTupleReply}, op: opTuple, place: offset(&probe, reply)},
		{at: wire{ctaTupleMaster}, op: opTuple, place: offset(&probe, master), asked: true},
		{at: wire{ctaNATSrc}, op: opNAT, place: offset(&probe, snat), has: uint64(HasSNATPort), asked: true},
		{at: wire{ctaNATDst}, op: opNAT, place: offset(&probe, dnat), has: uint64(HasDNATPort), asked: true},
	}, uint64(HasStatus|HasTimeout|HasMark|HasMarkMask|HasZone))
}}

func snat(f *Flow) *NAT { return &f.SNAT }
func dnat(f *Flow) *NAT { return &f.DNAT }

func flowAttrs() []Attr[Flow] {
	t := []Attr[Flow]{
		{
			Path:   "kind",
			Kind:   field.Enum,
			Names:  kindNames,
			Doc:    "always flow",
			access: access[Flow]{num: func(*Flow) (uint64, bool) { return 0, true }},
		},
		{
			Path:   "event",
			Kind:   field.Enum,
			Names:  EventNames,
			Doc:    "what happened: new, update, destroy; existing: it was there before the stream began",
			access: access[Flow]{num: func(f *Flow) (uint64, bool) { return uint64(f.Event), f.Event != NoEvent }},
		},
		{
			Path:  "time",
			Kind:  field.Time,
			Doc:   "when the event happened by the kernel's clock, else when it was read",
			Parse: parseTimes,
			access: access[Flow]{num: func(f *Flow) (uint64, bool) {
				if f.Has(HasEventTime) {
					return f.EventTime, true
				}
				return f.Time, f.Time != 0 && (f.Event != NoEvent || f.Listed)
			}},
		},
		{
			Name:     "timestamp-event",
			Number:   75,
			Path:     "event_time",
			Hidden:   true,
			Kind:     field.Time,
			Bits:     64,
			Netlink:  "CTA_TIMESTAMP_EVENT",
			At:       wire{ctaTimestampEv},
			Since:    "6.14",
			Readable: "new, update, destroy with nf_conntrack_timestamp=1",
			Create:   "no: the kernel refuses it",
			Update:   "no: the kernel refuses it",
			Parse:    parseTimes,
			Doc:      "when the event happened, by the kernel's clock",
			access:   fnum(HasEventTime, func(f *Flow) *uint64 { return &f.EventTime }),
		},
		key(Attr[Flow]{
			Name:    "orig-l3proto",
			Aliases: []string{"l3proto"},
			Number:  15,
			Path:    "family",
			Kind:    field.Enum,
			Bits:    8,
			Names:   value.Families,
			Parse:   value.Families.ParseSet,
			Netlink: "nfgenmsg.nfgen_family",
			Doc:     "address family",
			access:  tnum(orig, TupleFamily, tFamily),
		}),
		key(Attr[Flow]{
			Name:    "repl-l3proto",
			Number:  16,
			Path:    "reply.family",
			Hidden:  true,
			Kind:    field.Enum,
			Bits:    8,
			Names:   value.Families,
			Parse:   value.Families.ParseSet,
			Netlink: "nfgenmsg.nfgen_family",
			Doc:     "address family of the reply direction",
			access:  tnum(reply, TupleFamily, tFamily),
		}),
		key(Attr[Flow]{
			Name:    "orig-l4proto",
			Aliases: []string{"l4proto"},
			Number:  17,
			Path:    "proto",
			Kind:    field.Enum,
			Bits:    8,
			Names:   value.Protocols,
			Parse:   value.Protocols.ParseSet,
			Netlink: "CTA_TUPLE_ORIG/CTA_TUPLE_PROTO/CTA_PROTO_NUM",
			Doc:     "transport protocol",
			access:  tnum(orig, TupleProto, tProto),
		}),
		{
			Path:   "proto_num",
			Kind:   field.Uint,
			Bits:   8,
			Parse:  value.Protocols.ParseSet,
			Doc:    "transport protocol, as a number",
			access: access[Flow]{num: tnum(orig, TupleProto, tProto).num},
		},
		key(Attr[Flow]{
			Name:    "repl-l4proto",
			Number:  18,
			Path:    "reply.proto",
			Hidden:  true,
			Kind:    field.Enum,
			Bits:    8,
			Names:   value.Protocols,
			Parse:   value.Protocols.ParseSet,
			Netlink: "CTA_TUPLE_REPLY/CTA_TUPLE_PROTO/CTA_PROTO_NUM",
			Doc:     "transport protocol of the reply direction: the same as the original's",
			access:  tnum(reply, TupleProto, tProto),
		}),
		{
			Name:     "timeout",
			Number:   24,
			Path:     "timeout",
			Kind:     field.Uint,
			Bits:     32,
			Parse:    value.Seconds,
			Netlink:  "CTA_TIMEOUT",
			At:       wire{ctaTimeout},
			Since:    "2.6.14",
			Readable: "dump, new, update; destroy when not 0",
			Create:   "yes, required",
			Update:   yes,
			Doc:      "seconds until the flow ends when no packet comes",
			access:   fnum(HasTimeout, func(f *Flow) *uint32 { return &f.Timeout }),
			setText: func(f *Flow, s string) error {
				n, err := parseSeconds(s)
				if err == nil {
					f.Timeout, f.Present = n, f.Present|HasTimeout
				}
				return err
			},
		},
		{
			Path:    "state",
			Kind:    field.Enum,
			Names:   StateNames,
			Parse:   StateNames.ParseSet,
			Doc:     "state of the connection (TCP, SCTP, DCCP)",
			Create:  yes,
			Update:  "yes, of SCTP only with both verification tags",
			access:  access[Flow]{num: (*Flow).State},
			setText: setState,
		},
		{
			Name:     "tcp-state",
			Number:   19,
			Path:     "tcp.state",
			Hidden:   true,
			Kind:     field.Enum,
			Bits:     8,
			Names:    TCPStateNames,
			Parse:    TCPStateNames.ParseSet,
			Netlink:  "CTA_PROTOINFO/CTA_PROTOINFO_TCP/CTA_PROTOINFO_TCP_STATE",
			At:       wire{ctaProtoinfo, ctaProtoinfoTCP, ctaTCPState},
			Since:    "2.6.14",
			Readable: inState,
			Create:   yes,
			Update:   yes,
			Doc:      "TCP state",
			access:   fnum(HasTCPState, func(f *Flow) *uint8 { return &f.TCPState }),
		},
		{
			Name:     "sctp-state",
			Number:   52,
			Path:     "sctp.state",
			Hidden:   true,
			Kind:     field.Enum,
			Bits:     8,
			Names:    SCTPStateNames,
			Parse:    SCTPStateNames.ParseSet,
			Netlink:  "CTA_PROTOINFO/CTA_PROTOINFO_SCTP/CTA_PROTOINFO_SCTP_STATE",
			At:       wire{ctaProtoinfo, ctaProtoinfoSCTP, ctaSCTPState},
			Since:    "2.6.30",
			Readable: inState,
			Create:   yes,
			Update:   "yes, with both verification tags (alone: EINVAL)",
			Doc:      "SCTP state",
			access:   fnum(HasSCTPState, func(f *Flow) *uint8 { return &f.SCTPState }),
		},
		{
			Name:     "dccp-state",
			Number:   56,
			Path:     "dccp.state",
			Hidden:   true,
			Kind:     field.Enum,
			Bits:     8,
			Names:    DCCPStateNames,
			Parse:    DCCPStateNames.ParseSet,
			Netlink:  "CTA_PROTOINFO/CTA_PROTOINFO_DCCP/CTA_PROTOINFO_DCCP_STATE",
			At:       wire{ctaProtoinfo, ctaProtoinfoDCCP, ctaDCCPState},
			Since:    "2.6.30",
			Readable: "older kernels: dump, new, update",
			Create:   dccpOld,
			Update:   dccpOld,
			Doc:      "DCCP state",
			access:   fnum(HasDCCPState, func(f *Flow) *uint8 { return &f.DCCPState }),
		},
	}
	t = slices.Grow(t, 90) // for those that follow, at once
	t = append(t, direction("orig", "orig", "original direction", "CTA_TUPLE_ORIG", orig, [6]int{0, 1, 4, 5, 8, 9})...)
	t = append(t,
		key(Attr[Flow]{
			Name:    "icmp-type",
			Number:  12,
			Path:    "orig.type",
			Kind:    field.Uint,
			Bits:    8,
			Netlink: "CTA_TUPLE_ORIG/CTA_TUPLE_PROTO/CTA_PROTO_ICMP_TYPE (ICMPv6: CTA_PROTO_ICMPV6_TYPE)",
			Doc:     "ICMP type; set, it also sets the reply direction's to the type of the answer",
			access: access[Flow]{
				need: tnum(orig, TupleType, tType).need,
				num:  tnum(orig, TupleType, tType).num,
				setNum: func(f *Flow, n uint64) {
					f.Orig.Type, f.Orig.Present = uint8(n), f.Orig.Present|TupleType
					proto := f.Orig.Proto
					if proto == 0 && f.Orig.Family == IPv6 {
						proto = ICMPv6
					}
					f.Reply.Type, f.Reply.Present = ReplyType(proto, uint8(n)), f.Reply.Present|TupleType
				}},
		}),
		key(Attr[Flow]{
			Name:    "icmp-code",
			Number:  13,
			Path:    "orig.code",
			Kind:    field.Uint,
			Bits:    8,
			Netlink: "CTA_TUPLE_ORIG/CTA_TUPLE_PROTO/CTA_PROTO_ICMP_CODE (ICMPv6: CTA_PROTO_ICMPV6_CODE)",
			Doc:     "ICMP code; set, it also sets the reply direction's",
			access:  both(TupleCode, tCode),
		}),
		key(Attr[Flow]{
			Name:    "icmp-id",
			Number:  14,
			Path:    "orig.id",
			Kind:    field.Uint,
			Bits:    16,
			Network: true,
			Netlink: "CTA_TUPLE_ORIG/CTA_TUPLE_PROTO/CTA_PROTO_ICMP_ID (ICMPv6: CTA_PROTO_ICMPV6_ID)",
			Doc:     "ICMP identifier; set, it also sets the reply direction's",
			access:  both(TupleID, tID),
		}),
		counter("orig-counter-packets", 26, "orig.packets", "CTA_COUNTERS_ORIG/CTA_COUNTERS_PACKETS",
			wire{ctaCountersOrig, ctaCountersPackets}, "packets in the original direction", HasOrigPackets,
			func(f *Flow) *uint64 { return &f.OrigCounters.Packets }),
		counter("orig-counter-bytes", 28, "orig.bytes", "CTA_COUNTERS_ORIG/CTA_COUNTERS_BYTES",
			wire{ctaCountersOrig, ctaCountersBytes}, "bytes in the original direction, from the IP header on",
			HasOrigBytes,
			func(f *Flow) *uint64 { return &f.OrigCounters.Bytes }),
		dirZone("orig-zone", 68, "orig.zone", "CTA_TUPLE_ORIG/CTA_TUPLE_ZONE", "zone of the original direction only",
			orig),
	)
	t = append(t,
		direction("repl", "reply", "reply direction", "CTA_TUPLE_REPLY", reply, [6]int{2, 3, 6, 7, 10, 11})...)
	t = append(t,
		Attr[Flow]{
			Path:   "reply.type",
			Kind:   field.Uint,
			Bits:   8,
			Doc:    "ICMP type of the answer",
			access: tnum(reply, TupleType, tType),
		},
		Attr[Flow]{
			Path:   "reply.code",
			Kind:   field.Uint,
			Bits:   8,
			Doc:    "ICMP code of the answer",
			access: tnum(reply, TupleCode, tCode),
		},
		Attr[Flow]{
			Path:   "reply.id",
			Kind:   field.Uint,
			Bits:   16,
			Doc:    "ICMP identifier of the answer",
			access: tnum(reply, TupleID, tID),
		},
		counter("repl-counter-packets", 27, "reply.packets", "CTA_COUNTERS_REPLY/CTA_COUNTERS_PACKETS",
			wire{ctaCountersReply, ctaCountersPackets}, "packets in the reply direction", HasReplyPackets,
			func(f *Flow) *uint64 { return &f.ReplyCounters.Packets }),
		counter("repl-counter-bytes", 29, "reply.bytes", "CTA_COUNTERS_REPLY/CTA_COUNTERS_BYTES",
			wire{ctaCountersReply, ctaCountersBytes}, "bytes in the reply direction, from the IP header on",
			HasReplyBytes,
			func(f *Flow) *uint64 { return &f.ReplyCounters.Bytes }),
		dirZone("repl-zone", 69, "reply.zone", "CTA_TUPLE_REPLY/CTA_TUPLE_ZONE", "zone of the reply direction only",
			reply),

		Attr[Flow]{
			Path:  "nat.src",
			Kind:  field.Addr,
			Parse: value.Addrs,
			Doc:   "source address behind the translation of the source, also when only the port was changed",
			ip:    func(f *Flow) (netip.Addr, bool) { a, addr, _, port := f.SrcNAT(); return a, addr || port },
		},
		Attr[Flow]{
			Path:  "nat.dst",
			Kind:  field.Addr,
			Parse: value.Addrs,
			Doc:   "destination address behind the translation of the destination, also when only the port was changed",
			ip:    func(f *Flow) (netip.Addr, bool) { a, addr, _, port := f.DstNAT(); return a, addr || port },
		},
		Attr[Flow]{
			Path:  "nat.sport",
			Kind:  field.Uint,
			Bits:  16,
			Parse: value.Ports,
			Doc:   "source port behind the translation of the source, also when it was kept; for icmp the id",
			access: access[Flow]{num: func(f *Flow) (uint64, bool) {
				_, addr, p, port := f.SrcNAT()
				return uint64(p), (addr || port) && f.Reply.Present&(TupleDport|TupleID) != 0
			}},
		},
		Attr[Flow]{
			Path:  "nat.dport",
			Kind:  field.Uint,
			Bits:  16,
			Parse: value.Ports,
			Doc:   "destination port behind the translation of the destination, also when it was kept",
			access: access[Flow]{num: func(f *Flow) (uint64, bool) {
				_, addr, p, port := f.DstNAT()
				return uint64(p), (addr || port) && (f.Reply.Has(TupleSport) || port)
			}},
		},

		Attr[Flow]{
			Name:     "status",
			Number:   32,
			Path:     "status",
			Kind:     field.Flags,
			Bits:     32,
			Names:    StatusNames,
			Parse:    ParseStatus,
			Netlink:  "CTA_STATUS",
			At:       wire{ctaStatus},
			Since:    "2.6.14",
			Readable: inAll,
			Create:   "yes, SEEN_REPLY, ASSURED, FIXED_TIMEOUT, HELPER; the kernel ignores the NAT and offload bits",
			Update: "yes, SEEN_REPLY, ASSURED, FIXED_TIMEOUT, HELPER; SEEN_REPLY and ASSURED cannot be taken " +
				"away (EBUSY)",
			Doc:    "status bits",
			access: fnum(HasStatus, func(f *Flow) *uint32 { return &f.Status }),
		},
		Attr[Flow]{
			Name:     "mark",
			Number:   25,
			Path:     "mark",
			Kind:     field.Uint,
			Bits:     32,
			Parse:    value.Mark,
			Netlink:  "CTA_MARK",
			At:       wire{ctaMark},
			Since:    "2.6.14",
			Readable: "dump; events when not 0 or just changed",
			Create:   yes,
			Update:   "yes, with a mask: only its bits",
			Doc:      "mark (connmark)",
			access:   fnum(HasMark, func(f *Flow) *uint32 { return &f.Mark }),
			always:   func(f *Flow) (uint64, bool) { return uint64(f.Mark), true },
			setText:  setMark,
		},
		Attr[Flow]{
			Path:     "mark_mask",
			Hidden:   true,
			Kind:     field.Uint,
			Bits:     32,
			Hex:      true,
			Netlink:  "CTA_MARK_MASK",
			At:       wire{ctaMarkMask},
			Readable: never,
			Doc:      "bits of the mark to change",
			access:   fnum(HasMarkMask, func(f *Flow) *uint32 { return &f.MarkMask }),
		},
		Attr[Flow]{
			Name:     "zone",
			Number:   61,
			Path:     "zone",
			Kind:     field.Uint,
			Bits:     16,
			Parse:    value.Numbers("zone", 65535),
			Netlink:  "CTA_ZONE",
			At:       wire{ctaZone},
			Since:    "2.6.34",
			Readable: inAll + ", when not 0",
			Create:   yes,
			Update:   isKey,
			Doc:      "zone, of both directions",
			access:   fnum(HasZone, func(f *Flow) *uint16 { return &f.Zone }),
			always: func(f *Flow) (uint64, bool) {
				return uint64(f.Zone), f.Has(HasZone) || (f.Orig.Present|f.Reply.Present)&TupleZone == 0
			},
		},
		Attr[Flow]{
			Name:     "use",
			Number:   30,
			Path:     "use",
			Kind:     field.Uint,
			Bits:     32,
			Netlink:  "CTA_USE",
			At:       wire{ctaUse},
			Since:    "2.6.14",
			Readable: "dump",
			Create:   onlyRead,
			Update:   onlyRead,
			Doc:      "references held to the flow in the kernel",
			access:   fnum(HasUse, func(f *Flow) *uint32 { return &f.Use }),
		},
		Attr[Flow]{
			Name:     "id",
			Number:   31,
			Path:     "id",
			Kind:     field.Uint,
			Bits:     32,
			Netlink:  "CTA_ID",
			At:       wire{ctaID},
			Since:    "2.6.14",
			Readable: inAll,
			Create:   "no: the kernel picks it",
			Update:   "no: the kernel ignores it",
			Doc: "number of the flow, a hash of 32 bits: with the tuple and zone its own, alone another flow may " +
				"have it too",
			access: fnum(HasID, func(f *Flow) *uint32 { return &f.ID }),
		},
		Attr[Flow]{
			Name:     "helper-name",
			Number:   55,
			Path:     "helper",
			Kind:     field.String,
			Netlink:  "CTA_HELP/CTA_HELP_NAME",
			At:       wire{ctaHelp, ctaHelpName},
			Since:    "2.6.14",
			Readable: "dump, new, update",
			Create:   "yes, a helper for the flow's family and protocol (else EOPNOTSUPP)",
			Update: "yes, only empty, which removes the helper and its expectations (none yet, or Linux 7.3: " +
				"EOPNOTSUPP, another: EBUSY)",
			Doc:    "conntrack helper, at most 15 bytes",
			access: fdata(HasHelper, func(f *Flow) *[]byte { return &f.Helper }),
			setText: func(f *Flow, s string) error {
				if len(s) > 15 || strings.ContainsRune(s, 0) {
					return &value.Error{What: "helper", Text: s, Valid: "a name of at most 15 bytes"}
				}
				f.Helper, f.Present = []byte(s), f.Present|HasHelper
				return nil
			},
		},
		Attr[Flow]{
			Name:     "helper-info",
			Number:   65,
			Path:     "helper_info",
			Kind:     field.Bytes,
			Netlink:  "CTA_HELP/CTA_HELP_INFO",
			At:       wire{ctaHelp, ctaHelpInfo},
			Since:    "3.6",
			Readable: "dump, of helpers with data of their own",
			Create:   "yes, with helper-name",
			Update:   "yes, with the same helper-name",
			Doc:      "the helper's own data",
			access:   fdata(HasHelperInfo, func(f *Flow) *[]byte { return &f.HelperInfo }),
		},
		Attr[Flow]{
			Name:     "connlabels",
			Aliases:  []string{"label"},
			Number:   66,
			Path:     "labels",
			Kind:     field.Bits,
			Bits:     128,
			Bit:      LabelName,
			Parse:    ParseLabels,
			Netlink:  "CTA_LABELS",
			At:       wire{ctaLabels},
			Since:    "3.9",
			Readable: "dump when a bit is set; update when they changed",
			Create:   "yes, dropped silently unless a rule of the namespace uses labels",
			Update:   "yes, needs a rule of the namespace that uses labels (else ENOSPC)",
			Doc:      "connection labels, by the names of connlabel.conf",
			access:   flabels(HasLabels, func(f *Flow) *[16]byte { return &f.Labels }),
			setText:  func(f *Flow, s string) error { return setLabels(f, s, HasLabels, &f.Labels) },
		},
		Attr[Flow]{
			Name:     "connlabels-mask",
			Number:   67,
			Path:     "labels_mask",
			Hidden:   true,
			Kind:     field.Bits,
			Bits:     128,
			Netlink:  "CTA_LABELS_MASK",
			At:       wire{ctaLabelsMask},
			Since:    "3.9",
			Readable: never,
			Create:   yes,
			Update:   yes,
			Doc:      "which labels to change",
			access:   flabels(HasLabelsMask, func(f *Flow) *[16]byte { return &f.LabelsMask }),
			setText:  func(f *Flow, s string) error { return setLabels(f, s, HasLabelsMask, &f.LabelsMask) },
		},
		Attr[Flow]{
			Name:     "timestamp-start",
			Number:   63,
			Path:     "start",
			Kind:     field.Time,
			Bits:     64,
			Parse:    parseTimes,
			Netlink:  "CTA_TIMESTAMP/CTA_TIMESTAMP_START",
			At:       wire{ctaTimestamp, ctaTimestampStart},
			Since:    "2.6.39",
			Readable: "dump and destroy, of flows that began with nf_conntrack_timestamp=1",
			Create:   onlyRead,
			Update:   onlyRead,
			Doc:      "when the flow began",
			access:   fnum(HasStart, func(f *Flow) *uint64 { return &f.Start }),
		},
		Attr[Flow]{
			Name:     "timestamp-stop",
			Number:   64,
			Path:     "stop",
			Kind:     field.Time,
			Bits:     64,
			Parse:    parseTimes,
			Netlink:  "CTA_TIMESTAMP/CTA_TIMESTAMP_STOP",
			At:       wire{ctaTimestamp, ctaTimestampStop},
			Since:    "2.6.39",
			Readable: "destroy",
			Create:   onlyRead,
			Update:   onlyRead,
			Doc:      "when the flow ended",
			access:   fnum(HasStop, func(f *Flow) *uint64 { return &f.Stop }),
		},
		Attr[Flow]{
			Path:    "age",
			Aliases: []string{"delta-time"},
			Kind:    field.Uint,
			Parse:   value.Seconds,
			Doc:     "seconds since the flow began, until it ended; known with nf_conntrack_timestamp=1",
			access:  access[Flow]{num: func(f *Flow) (uint64, bool) { ns, ok := f.Age(); return ns / 1e9, ok }},
		},
		Attr[Flow]{
			Path:   "idle",
			Kind:   field.Uint,
			Bits:   32,
			Parse:  value.Seconds,
			Doc:    "seconds since the last packet, in lists, where the time left tells: see 'nfctl help timeouts'",
			access: access[Flow]{num: func(f *Flow) (uint64, bool) { return uint64(f.Idle), f.Has(HasIdle) }},
		},
		Attr[Flow]{
			Path:   "packets",
			Hidden: true,
			Kind:   field.Uint,
			Bits:   64,
			Doc:    "packets of both directions",
			access: access[Flow]{num: (*Flow).Packets},
		},
		Attr[Flow]{
			Path:   "bytes",
			Hidden: true,
			Kind:   field.Uint,
			Bits:   64,
			Parse:  value.Sizes,
			Doc:    "bytes of both directions, from the IP header on",
			access: access[Flow]{num: (*Flow).Bytes},
		},
		Attr[Flow]{
			Path:   "rate.packets",
			Kind:   field.Uint,
			Bits:   64,
			Doc:    "packets a second, of both directions, since the listing before",
			access: access[Flow]{num: func(f *Flow) (uint64, bool) { return f.Rate.Packets, f.Rate.Known }},
		},
		Attr[Flow]{
			Path:   "rate.bytes",
			Kind:   field.Uint,
			Bits:   64,
			Parse:  value.Sizes,
			Doc:    "bytes a second, of both directions, since the listing before",
			access: access[Flow]{num: func(f *Flow) (uint64, bool) { return f.Rate.Bytes, f.Rate.Known }},
		},

		protoNum("tcp-wscale-orig", 59, "tcp.wscale_orig",
			"CTA_PROTOINFO/CTA_PROTOINFO_TCP/CTA_PROTOINFO_TCP_WSCALE_ORIGINAL",
			wire{ctaProtoinfo, ctaProtoinfoTCP, ctaTCPWscaleOrig}, "2.6.23", wscaleWhy,
			"window scale of the original direction, a shift", HasTCPWscaleOrig,
			func(f *Flow) *uint8 { return &f.TCPWscaleOrig }),
		protoNum("tcp-wscale-repl", 60, "tcp.wscale_reply",
			"CTA_PROTOINFO/CTA_PROTOINFO_TCP/CTA_PROTOINFO_TCP_WSCALE_REPLY",
			wire{ctaProtoinfo, ctaProtoinfoTCP, ctaTCPWscaleReply}, "2.6.23", wscaleWhy,
			"window scale of the reply direction, a shift", HasTCPWscaleReply,
			func(f *Flow) *uint8 { return &f.TCPWscaleReply }),
		tcpFlags("tcp-flags-orig", 33, "tcp.flags_orig", "CTA_PROTOINFO_TCP_FLAGS_ORIGINAL", 1, ctaTCPFlagsOrig,
			flagsWhy, "flags of the original direction", HasTCPFlagsOrig, func(f *Flow) *uint8 {
				return &f.TCPFlagsOrig
			}),
		tcpFlags("tcp-flags-repl", 34, "tcp.flags_reply", "CTA_PROTOINFO_TCP_FLAGS_REPLY", 1, ctaTCPFlagsReply,
			flagsWhy, "flags of the reply direction", HasTCPFlagsReply, func(f *Flow) *uint8 {
				return &f.TCPFlagsReply
			}),
		tcpFlags("tcp-mask-orig", 35, "tcp.mask_orig", "CTA_PROTOINFO_TCP_FLAGS_ORIGINAL", 2, ctaTCPFlagsOrig,
			maskWhy, "which flags of the original direction to set", HasTCPMaskOrig, func(f *Flow) *uint8 {
				return &f.TCPMaskOrig
			}),
		tcpFlags("tcp-mask-repl", 36, "tcp.mask_reply", "CTA_PROTOINFO_TCP_FLAGS_REPLY", 2, ctaTCPFlagsReply,
			maskWhy, "which flags of the reply direction to set", HasTCPMaskReply, func(f *Flow) *uint8 {
				return &f.TCPMaskReply
			}),
		vtag("sctp-vtag-orig", 53, "sctp.vtag_orig",
			"CTA_PROTOINFO/CTA_PROTOINFO_SCTP/CTA_PROTOINFO_SCTP_VTAG_ORIGINAL",
			wire{ctaProtoinfo, ctaProtoinfoSCTP, ctaSCTPVtagOrig}, "verification tag of the original direction",
			HasSCTPVtagOrig,
			func(f *Flow) *uint32 { return &f.SCTPVtagOrig }),
		vtag("sctp-vtag-repl", 54, "sctp.vtag_reply", "CTA_PROTOINFO/CTA_PROTOINFO_SCTP/CTA_PROTOINFO_SCTP_VTAG_REPLY",
			wire{ctaProtoinfo, ctaProtoinfoSCTP, ctaSCTPVtagReply}, "verification tag of the reply direction",
			HasSCTPVtagReply,
			func(f *Flow) *uint32 { return &f.SCTPVtagReply }),
		Attr[Flow]{
			Name:     "dccp-role",
			Number:   57,
			Path:     "dccp.role",
			Kind:     field.Enum,
			Bits:     8,
			Names:    DCCPRoleNames,
			Parse:    DCCPRoleNames.ParseSet,
			Netlink:  "CTA_PROTOINFO/CTA_PROTOINFO_DCCP/CTA_PROTOINFO_DCCP_ROLE",
			At:       wire{ctaProtoinfo, ctaProtoinfoDCCP, ctaDCCPRole},
			Since:    "2.6.30",
			Readable: "older kernels",
			Create:   dccpOld,
			Update:   dccpOld,
			Doc:      "who opened the connection",
			With:     uint64(HasDCCPState),
			access:   fnum(HasDCCPRole, func(f *Flow) *uint8 { return &f.DCCPRole }),
		},
		Attr[Flow]{
			Name:     "dccp-handshake-seq",
			Number:   58,
			Path:     "dccp.handshake_seq",
			Kind:     field.Uint,
			Bits:     64,
			Netlink:  "CTA_PROTOINFO/CTA_PROTOINFO_DCCP/CTA_PROTOINFO_DCCP_HANDSHAKE_SEQ",
			At:       wire{ctaProtoinfo, ctaProtoinfoDCCP, ctaDCCPSeq},
			Since:    "2.6.31",
			Readable: "older kernels",
			Create:   dccpOld,
			Update:   dccpOld,
			Doc:      "sequence number of the handshake",
			access:   fnum(HasDCCPSeq, func(f *Flow) *uint64 { return &f.DCCPSeq }),
		},

		seqadj("orig-nat-seq-correction-pos", 46, "seqadj_orig.pos", "CTA_SEQ_ADJ_ORIG/CTA_SEQADJ_CORRECTION_POS",
			wire{ctaSeqAdjOrig, ctaSeqPos}, "sequence number at which the shift changes", HasSeqOrigPos,
			func(f *Flow) *uint32 { return &f.SeqOrig.Pos }),
		seqadj("orig-nat-seq-offset-before", 47, "seqadj_orig.before", "CTA_SEQ_ADJ_ORIG/CTA_SEQADJ_OFFSET_BEFORE",
			wire{ctaSeqAdjOrig, ctaSeqBefore}, "shift before that, signed, as 32 bits", HasSeqOrigBefore,
			func(f *Flow) *uint32 { return &f.SeqOrig.Before }),
		seqadj("orig-nat-seq-offset-after", 48, "seqadj_orig.after", "CTA_SEQ_ADJ_ORIG/CTA_SEQADJ_OFFSET_AFTER",
			wire{ctaSeqAdjOrig, ctaSeqAfter}, "shift behind that, signed, as 32 bits", HasSeqOrigAfter,
			func(f *Flow) *uint32 { return &f.SeqOrig.After }),
		seqadj("repl-nat-seq-correction-pos", 49, "seqadj_reply.pos", "CTA_SEQ_ADJ_REPLY/CTA_SEQADJ_CORRECTION_POS",
			wire{ctaSeqAdjReply, ctaSeqPos}, "sequence number at which the shift changes", HasSeqReplyPos,
			func(f *Flow) *uint32 { return &f.SeqReply.Pos }),
		seqadj("repl-nat-seq-offset-before", 50, "seqadj_reply.before", "CTA_SEQ_ADJ_REPLY/CTA_SEQADJ_OFFSET_BEFORE",
			wire{ctaSeqAdjReply, ctaSeqBefore}, "shift before that, signed, as 32 bits", HasSeqReplyBefore,
			func(f *Flow) *uint32 { return &f.SeqReply.Before }),
		seqadj("repl-nat-seq-offset-after", 51, "seqadj_reply.after", "CTA_SEQ_ADJ_REPLY/CTA_SEQADJ_OFFSET_AFTER",
			wire{ctaSeqAdjReply, ctaSeqAfter}, "shift behind that, signed, as 32 bits", HasSeqReplyAfter,
			func(f *Flow) *uint32 { return &f.SeqReply.After }),
		synproxy("synproxy-isn", 72, "synproxy.isn", "CTA_SYNPROXY/CTA_SYNPROXY_ISN", wire{ctaSynproxy, ctaSynISN},
			"initial sequence number", HasSynISN, func(f *Flow) *uint32 { return &f.SynISN }),
		synproxy("synproxy-its", 73, "synproxy.its", "CTA_SYNPROXY/CTA_SYNPROXY_ITS", wire{ctaSynproxy, ctaSynITS},
			"initial timestamp", HasSynITS, func(f *Flow) *uint32 { return &f.SynITS }),
		synproxy("synproxy-tsoff", 74, "synproxy.tsoff", "CTA_SYNPROXY/CTA_SYNPROXY_TSOFF",
			wire{ctaSynproxy, ctaSynTSOff}, "timestamp offset", HasSynTSOff,
			func(f *Flow) *uint32 { return &f.SynTSOff }),
	)
	t = append(t, masterAttrs()...)
	t = append(t,
		Attr[Flow]{
			Name:     "secmark",
			Number:   45,
			Path:     "secmark",
			Kind:     field.Uint,
			Bits:     32,
			Netlink:  "CTA_SECMARK",
			At:       wire{ctaSecmark},
			Since:    "2.6.21",
			Readable: "never on current kernels: see secctx",
			Create:   onlyRead,
			Update:   onlyRead,
			Doc:      "security mark, obsolete",
			access:   fnum(HasSecmark, func(f *Flow) *uint32 { return &f.Secmark }),
		},
		Attr[Flow]{
			Name:     "secctx",
			Number:   62,
			Path:     "secctx",
			Kind:     field.String,
			Netlink:  "CTA_SECCTX/CTA_SECCTX_NAME",
			At:       wire{ctaSecctx, ctaSecctxName},
			Since:    "2.6.37",
			Readable: "dump, new, update when a security module labels",
			Create:   "no: the security module sets it",
			Update:   "no: the security module sets it",
			Doc:      "security context",
			access:   fdata(HasSecctx, func(f *Flow) *[]byte { return &f.Secctx }),
		},
	)
	t = append(t, natAttrs()...)
	t = append(t,
		Attr[Flow]{
			Path:     "unknown",
			Kind:     field.String,
			Doc:      "attributes that this program does not know: number:bytes in hexadecimal",
			Readable: "newer kernels",
			access: access[Flow]{data: func(f *Flow) ([]byte, bool) {
				f.text = appendUnknown(f.text[:0], f.Unknown)
				return f.text, len(f.Unknown) > 0
			}},
		},
		Attr[Flow]{
			Path: "events",
			Kind: field.Bool,
			Doc: "false: the flow was there before; if it began when nobody listened, no event will come " +
				"when it ends",
			access: access[Flow]{num: func(f *Flow) (uint64, bool) { return 0, f.NoEvents }},
		},
		Attr[Flow]{
			Path: "by.portid",
			Kind: field.Uint,
			Bits: 32,
			Doc:  "netlink port of whoever caused the event; absent: traffic",
			access: access[Flow]{num: func(f *Flow) (uint64, bool) {
				return uint64(f.By.PortID), f.By.PortID != 0 && f.Event != NoEvent
			}},
		},
		Attr[Flow]{Path: "by.pid", Kind: field.Uint, Bits: 32, Doc: "the process that holds that port",
			access: access[Flow]{num: func(f *Flow) (uint64, bool) { return uint64(f.By.Pid), f.By.Pid != 0 }}},
		Attr[Flow]{Path: "by.comm", Kind: field.String, Doc: "the name of that process",
			access: access[Flow]{data: func(f *Flow) ([]byte, bool) { return f.By.Comm, f.By.Pid != 0 }}},
	)
	return spareRows(t)
}

var kindNames = value.NewWords("kind", 1, "flow", "expect")

// direction makes the address and port rows of a tuple. Numbers are those of the
// IPv4 source and destination, the IPv6 ones and the ports.
func direction(seed, path, doc, nla string, tuple func(*Flow) *Tuple, num [6]int) []Attr[Flow] {
	src := func(f *Flow) *netip.Addr { return &tuple(f).Src }
	dst := func(f *Flow) *netip.Addr { return &tuple(f).Dst }
	out := []Attr[Flow]{
		{
			Name:    seed + "-ipv4-src",
			Number:  num[0],
			Path:    path + ".src",
			Kind:    field.Addr,
			Bits:    32,
			Doc:     "source address, " + doc,
			Netlink: nla + "/CTA_TUPLE_IP/CTA_IP_V4_SRC",
			access:  faddr(src),
		},
		{
			Name:    seed + "-ipv6-src",
			Number:  num[2],
			Path:    path + ".src",
			Kind:    field.Addr,
			Bits:    128,
			Doc:     "source address, " + doc,
			Netlink: nla + "/CTA_TUPLE_IP/CTA_IP_V6_SRC",
			access:  faddr(src),
		},
		{
			Name:    seed + "-ipv4-dst",
			Number:  num[1],
			Path:    path + ".dst",
			Kind:    field.Addr,
			Bits:    32,
			Doc:     "destination address, " + doc,
			Netlink: nla + "/CTA_TUPLE_IP/CTA_IP_V4_DST",
			access:  faddr(dst),
		},
		{
			Name:    seed + "-ipv6-dst",
			Number:  num[3],
			Path:    path + ".dst",
			Kind:    field.Addr,
			Bits:    128,
			Doc:     "destination address, " + doc,
			Netlink: nla + "/CTA_TUPLE_IP/CTA_IP_V6_DST",
			access:  faddr(dst),
		},
		{
			Name:    seed + "-port-src",
			Number:  num[4],
			Path:    path + ".sport",
			Kind:    field.Uint,
			Bits:    16,
			Doc:     "source port, " + doc + "; for gre the key",
			Netlink: nla + "/CTA_TUPLE_PROTO/CTA_PROTO_SRC_PORT",
			Parse:   value.Ports,
			access:  tnum(tuple, TupleSport, tSport),
		},
		{
			Name:    seed + "-port-dst",
			Number:  num[5],
			Path:    path + ".dport",
			Kind:    field.Uint,
			Bits:    16,
			Doc:     "destination port, " + doc + "; for gre the key",
			Netlink: nla + "/CTA_TUPLE_PROTO/CTA_PROTO_DST_PORT",
			Parse:   value.Ports,
			access:  tnum(tuple, TupleDport, tDport),
		},
	}
	for i := range out {
		a := &out[i]
		a.Network = true
		if a.Kind == field.Addr {
			a.Parse = value.Addrs
		} else {
			a.setText = setPort(a.setNum)
		}
		*a = key(*a)
		if seed == "orig" {
			a.Aliases = []string{strings.TrimPrefix(a.Name, "orig-")}
		}
	}
	return out
}

func masterAttrs() []Attr[Flow] {
	out := direction("master", "master", "connection that expected this one", "CTA_TUPLE_MASTER", master,
		[6]int{37, 38, 39, 40, 41, 42})
	out = append(out,
		Attr[Flow]{
			Name:    "master-l3proto",
			Number:  43,
			Path:    "master.family",
			Kind:    field.Enum,
			Bits:    8,
			Names:   value.Families,
			Parse:   value.Families.ParseSet,
			Netlink: "nfgenmsg.nfgen_family",
			Doc:     "address family of the connection that expected this one",
			Hidden:  true,
			access:  tnum(master, TupleFamily, tFamily),
		},
		Attr[Flow]{
			Name:    "master-l4proto",
			Number:  44,
			Path:    "master.proto",
			Kind:    field.Enum,
			Bits:    8,
			Names:   value.Protocols,
			Parse:   value.Protocols.ParseSet,
			Netlink: "CTA_TUPLE_MASTER/CTA_TUPLE_PROTO/CTA_PROTO_NUM",
			Doc:     "transport protocol of the connection that expected this one",
			access:  tnum(master, TupleProto, tProto),
		})
	for i := range out {
		a := &out[i]
		a.Since, a.Readable, a.Create, a.Update = "2.6.23", inMaster, wholeMast, createOnly
	}
	return out
}

// natAttrs are the translations to ask for. The kernel never sends them.
func natAttrs() []Attr[Flow] {
	var out []Attr[Flow]
	for _, d := range []struct {
		name, nla, doc string
		num            [3]int
		bit            Has
		at             func(*Flow) *NAT
	}{
		{"snat", "CTA_NAT_SRC", "source", [3]int{20, 70, 22}, HasSNATPort, snat},
		{"dnat", "CTA_NAT_DST", "destination", [3]int{21, 71, 23}, HasDNATPort, dnat},
	} {
		at := d.at
		addr := func(f *Flow) *netip.Addr { return &at(f).Addr }
		rows := []Attr[Flow]{
			{
				Name:    d.name + "-ipv4",
				Number:  d.num[0],
				Path:    d.name + ".addr",
				Kind:    field.Addr,
				Bits:    32,
				Parse:   value.Addrs,
				Since:   "2.6.14",
				Netlink: d.nla + "/CTA_NAT_V4_MINIP, _MAXIP",
				Doc:     d.doc + " address to translate to, or a range of them",
				access:  faddr(addr),
			},
			{
				Name:    d.name + "-ipv6",
				Number:  d.num[1],
				Path:    d.name + ".addr",
				Kind:    field.Addr,
				Bits:    128,
				Parse:   value.Addrs,
				Since:   "3.7",
				Netlink: d.nla + "/CTA_NAT_V6_MINIP, _MAXIP",
				Doc:     d.doc + " address to translate to, or a range of them",
				access:  faddr(addr),
			},
			{
				Path:   d.name + ".addr_max",
				Kind:   field.Addr,
				Parse:  value.Addrs,
				Doc:    "last address of the range",
				access: faddr(func(f *Flow) *netip.Addr { return &at(f).AddrMax }),
			},
			{
				Name:    d.name + "-port",
				Number:  d.num[2],
				Path:    d.name + ".port",
				Kind:    field.Uint,
				Bits:    16,
				Parse:   value.Ports,
				Since:   "2.6.14",
				Netlink: d.nla + "/CTA_NAT_PROTO/CTA_PROTONAT_PORT_MIN, _MAX",
				Doc:     d.doc + " port to translate to, or a range of them; for icmp the id",
				access:  fnum(d.bit, func(f *Flow) *uint16 { return &at(f).Port }),
				setText: setNATPort(d.bit, at),
				more:    true,
			},
			{Path: d.name + ".port_max", Kind: field.Uint, Bits: 16, Parse: value.Ports, Doc: "last port of the range",
				access: access[Flow]{num: func(f *Flow) (uint64, bool) {
					n := at(f)
					return uint64(n.PortMax), f.Present&d.bit != 0 && n.PortMax != 0 && n.PortMax != n.Port
				}, setNum: func(f *Flow, n uint64) { at(f).PortMax = uint16(n) }}},
		}
		for i := range rows {
			a := &rows[i]
			a.Network, a.Readable, a.Create, a.Update = true, never, yes, createOnly
			if a.Bits > 16 {
				a.setText = setNATAddr(at, a.Bits)
			}
		}
		out = append(out, rows...)
	}
	return out
}

func both[N integer](bit TupleHas, at func(*Tuple) *N) access[Flow] {
	one := tnum(orig, bit, at)
	return access[Flow]{need: one.need, num: one.num, setNum: func(f *Flow, n uint64) {
		for _, t := range []*Tuple{&f.Orig, &f.Reply} {
			*at(t) = N(n)
			t.Present |= bit
		}
	}}
}

func counter(name string, num int, path, nla string, at wire, doc string, bit Has, of func(*Flow) *uint64) Attr[Flow] {
	parse := value.Numbers("number of packets", 1<<64-1)
	if strings.HasSuffix(name, "bytes") {
		parse = value.Sizes
	}
	return Attr[Flow]{
		Name:     name,
		Number:   num,
		Path:     path,
		Kind:     field.Uint,
		Bits:     64,
		Netlink:  nla,
		At:       at,
		Since:    "2.6.14",
		Readable: inCounters,
		Create:   onlyRead,
		Update:   onlyRead,
		Doc:      doc,
		Parse:    parse,
		access:   fnum(bit, of),
	}
}

func dirZone(name string, num int, path, nla, doc string, tuple func(*Flow) *Tuple) Attr[Flow] {
	return Attr[Flow]{
		Name:     name,
		Number:   num,
		Path:     path,
		Kind:     field.Uint,
		Bits:     16,
		Netlink:  nla,
		Since:    "4.3",
		Readable: inAll + ", when set",
		Create:   yes,
		Update:   isKey,
		Doc:      doc,
		Parse:    value.Numbers("zone", 65535),
		access:   tnum(tuple, TupleZone, tZone),
	}
}

func protoNum(name string, num int, path, nla string, at wire, since, why, doc string,
	bit Has, of func(*Flow) *uint8) Attr[Flow] {
	return Attr[Flow]{
		Name:     name,
		Number:   num,
		Path:     path,
		Kind:     field.Uint,
		Bits:     8,
		Netlink:  nla,
		At:       at,
		Since:    since,
		Readable: inProtoinfo,
		Create:   why,
		Update:   why,
		Doc:      doc,
		access:   fnum(bit, of),
	}
}

// tcpFlags is one byte of struct nf_ct_tcp_flags: the first are flags, the second their
// mask.
func tcpFlags(name string, num int, path, nla string, n int, typ uint16, why, doc string,
	bit Has, at func(*Flow) *uint8) Attr[Flow] {
	a := protoNum(name, num, path, fmt.Sprintf("CTA_PROTOINFO/CTA_PROTOINFO_TCP/%s, byte %d", nla, n-1),
		wire{ctaProtoinfo, ctaProtoinfoTCP, typ}, "2.6.23", why, doc, bit, at)
	a.Kind, a.Names, a.Byte = field.Flags, TCPFlagNames, n
	return a
}

func vtag(name string, num int, path, nla string, at wire, doc string, bit Has, of func(*Flow) *uint32) Attr[Flow] {
	return Attr[Flow]{
		Name:     name,
		Number:   num,
		Path:     path,
		Kind:     field.Uint,
		Bits:     32,
		Hex:      true,
		Netlink:  nla,
		At:       at,
		Since:    "2.6.30",
		Readable: inProtoinfo,
		Create:   yes,
		Update:   yes,
		Doc:      doc,
		access:   fnum(bit, of),
	}
}

func seqadj(name string, num int, path, nla string, at wire, doc string, bit Has, of func(*Flow) *uint32) Attr[Flow] {
	return Attr[Flow]{
		Name:     name,
		Number:   num,
		Path:     path,
		Kind:     field.Uint,
		Bits:     32,
		Netlink:  nla,
		At:       at,
		Since:    "2.6.14",
		Readable: inSeqadj,
		Create:   wholeAdj,
		Update:   wholeAdj,
		Doc:      doc,
		access:   fnum(bit, of),
	}
}

func synproxy(name string, num int, path, nla string, at wire, doc string, bit Has, of func(*Flow) *uint32) Attr[Flow] {
	return Attr[Flow]{
		Name:     name,
		Number:   num,
		Path:     path,
		Kind:     field.Uint,
		Bits:     32,
		Netlink:  nla,
		At:       at,
		Since:    "4.17",
		Readable: inSynproxy,
		Create:   wholeSyn,
		Update:   wholeSyn + "; ignored for a flow that has none",
		Doc:      doc,
		access:   fnum(bit, of),
	}
}
