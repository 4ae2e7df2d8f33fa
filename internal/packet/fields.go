package packet

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

const (
	ipMF = 1
	ipDF = 2
)

// ipFlags are the three bits over IPv4's fragment offset; IPv6's fragment
// header has only MF.
var ipFlags = value.NewNames("IP flag", 7,
	value.Name{Word: "MF", Num: ipMF}, value.Name{Word: "DF", Num: ipDF}, value.Name{Word: "RF", Num: 4})

// tcpFlags are the bits of the TCP header (RFC 9293 3.1, RFC 3540).
var tcpFlags = value.NewNames("TCP flag", 0x1ff,
	value.Name{Word: "FIN", Num: 1}, value.Name{Word: "SYN", Num: 2}, value.Name{Word: "RST", Num: 4},
	value.Name{Word: "PSH", Num: 8}, value.Name{Word: "ACK", Num: 16}, value.Name{Word: "URG", Num: 32},
	value.Name{Word: "ECE", Num: 64}, value.Name{Word: "CWR", Num: 128}, value.Name{Word: "NS", Num: 256})

// dscpNames are the code points of RFC 2474, 2597, 3246, 5865 and 8622.
var dscpNames = value.NewNames("DSCP", 63,
	value.Name{Word: "cs0", Num: 0}, value.Name{Word: "le", Num: 1}, value.Name{Word: "cs1", Num: 8},
	value.Name{Word: "af11", Num: 10}, value.Name{Word: "af12", Num: 12}, value.Name{Word: "af13", Num: 14},
	value.Name{Word: "cs2", Num: 16}, value.Name{Word: "af21", Num: 18}, value.Name{Word: "af22", Num: 20},
	value.Name{Word: "af23", Num: 22}, value.Name{Word: "cs3", Num: 24}, value.Name{Word: "af31", Num: 26},
	value.Name{Word: "af32", Num: 28}, value.Name{Word: "af33", Num: 30}, value.Name{Word: "cs4", Num: 32},
	value.Name{Word: "af41", Num: 34}, value.Name{Word: "af42", Num: 36}, value.Name{Word: "af43", Num: 38},
	value.Name{Word: "cs5", Num: 40}, value.Name{Word: "va", Num: 44}, value.Name{Word: "ef", Num: 46},
	value.Name{Word: "cs6", Num: 48}, value.Name{Word: "cs7", Num: 56})

// icmpTypes are words for the types of ICMP, as iptables and nft write them.
var icmpTypes = value.NewNames("ICMP type", 255,
	value.Name{Word: "echo-reply", Num: 0}, value.Name{Word: "pong", Num: 0},
	value.Name{Word: "destination-unreachable", Num: 3}, value.Name{Word: "unreachable", Num: 3},
	value.Name{Word: "source-quench", Num: 4}, value.Name{Word: "redirect", Num: 5},
	value.Name{Word: "echo-request", Num: 8}, value.Name{Word: "ping", Num: 8},
	value.Name{Word: "router-advertisement", Num: 9}, value.Name{Word: "router-solicitation", Num: 10},
	value.Name{Word: "time-exceeded", Num: 11}, value.Name{Word: "parameter-problem", Num: 12},
	value.Name{Word: "timestamp-request", Num: 13}, value.Name{Word: "timestamp-reply", Num: 14},
	value.Name{Word: "info-request", Num: 15}, value.Name{Word: "info-reply", Num: 16},
	value.Name{Word: "address-mask-request", Num: 17}, value.Name{Word: "address-mask-reply", Num: 18})

var icmpv6Types = value.NewNames("ICMPv6 type", 255,
	value.Name{Word: "destination-unreachable", Num: 1}, value.Name{Word: "unreachable", Num: 1},
	value.Name{Word: "packet-too-big", Num: 2}, value.Name{Word: "time-exceeded", Num: 3},
	value.Name{Word: "parameter-problem", Num: 4},
	value.Name{Word: "echo-request", Num: 128}, value.Name{Word: "ping", Num: 128},
	value.Name{Word: "echo-reply", Num: 129}, value.Name{Word: "pong", Num: 129},
	value.Name{Word: "mld-listener-query", Num: 130}, value.Name{Word: "mld-listener-report", Num: 131},
	value.Name{Word: "mld-listener-done", Num: 132},
	value.Name{Word: "router-solicitation", Num: 133}, value.Name{Word: "router-advertisement", Num: 134},
	value.Name{Word: "neighbour-solicitation", Num: 135}, value.Name{Word: "neighbor-solicitation", Num: 135},
	value.Name{Word: "neighbour-advertisement", Num: 136}, value.Name{Word: "neighbor-advertisement", Num: 136},
	value.Name{Word: "redirect", Num: 137}, value.Name{Word: "mld2-listener-report", Num: 143})

// icmpHasID reports whether messages of a type have an identifier and a
// sequence number.
func icmpHasID(proto, typ uint8) bool {
	if proto == ProtoICMPv6 {
		return typ == 128 || typ == 129
	}
	return typ == 0 || typ == 8 || typ >= 13 && typ <= 18
}

// namesOf reads numbers and ranges of them, or words.
func namesOf(n *value.Names) func(string) (value.Set, error) {
	numbers := value.Numbers(n.What, n.Max)
	return func(s string) (value.Set, error) {
		if set, err := numbers(s); err == nil {
			return set, nil
		}
		return n.ParseSet(s)
	}
}

type row = field.Row[Headers]

// u8, u16 and u32 load a number at an offset of the transport header.
func u8(proto uint8, off int) func(*Headers) (uint64, bool) {
	return func(h *Headers) (uint64, bool) {
		if b := h.header(proto, off+1); b != nil {
			return uint64(b[off]), true
		}
		return 0, false
	}
}

func u16(proto uint8, off int) func(*Headers) (uint64, bool) {
	return func(h *Headers) (uint64, bool) {
		if b := h.header(proto, off+2); b != nil {
			return uint64(binary.BigEndian.Uint16(b[off:])), true
		}
		return 0, false
	}
}

func u32(proto uint8, off int) func(*Headers) (uint64, bool) {
	return func(h *Headers) (uint64, bool) {
		if b := h.header(proto, off+4); b != nil {
			return uint64(binary.BigEndian.Uint32(b[off:])), true
		}
		return 0, false
	}
}

func port(proto uint8, path string, off int, doc string) row {
	return row{Path: path, Kind: field.Uint, Doc: doc, Max: 0xffff, Parse: value.Ports, Num: u16(proto, off)}
}

// QueryID returns the identifier of an echo or other query of ICMP or ICMPv6, which
// the answer has too.
func (h *Headers) QueryID() (id uint16, ok bool) {
	if b := h.header(h.l4, 8); b != nil && (h.l4 == ProtoICMP || h.l4 == ProtoICMPv6) && icmpHasID(h.l4, b[0]) {
		return binary.BigEndian.Uint16(b[4:]), true
	}
	return 0, false
}

// echo loads a number of those ICMP messages that have an identifier.
func echo(proto uint8, off int) func(*Headers) (uint64, bool) {
	return func(h *Headers) (uint64, bool) {
		if b := h.header(proto, 8); b != nil && icmpHasID(proto, b[0]) {
			return uint64(binary.BigEndian.Uint16(b[off:])), true
		}
		return 0, false
	}
}

// tclass returns IPv4's type of service or IPv6's traffic class.
func (h *Headers) tclass() (uint8, bool) {
	switch h.version {
	case 4:
		return h.Data[1], true
	case 6:
		return h.Data[0]<<4 | h.Data[1]>>4, true
	}
	return 0, false
}

func ipTTL(h *Headers) (uint64, bool) {
	switch h.version {
	case 4:
		return uint64(h.Data[8]), true
	case 6:
		return uint64(h.Data[7]), true
	}
	return 0, false
}

func ipID(h *Headers) (uint64, bool) {
	switch {
	case h.version == 4:
		return uint64(binary.BigEndian.Uint16(h.Data[4:])), true
	case h.fh != 0:
		return uint64(binary.BigEndian.Uint32(h.Data[h.fh+4:])), true
	}
	return 0, false
}

// frag returns the fragment offset in bytes and the flags.
func (h *Headers) frag() (off int, flags uint64, ok bool) {
	switch {
	case h.version == 4:
		f := binary.BigEndian.Uint16(h.Data[6:])
		return int(f&0x1fff) * 8, uint64(f >> 13), true
	case h.fh != 0:
		f := binary.BigEndian.Uint16(h.Data[h.fh+2:])
		return int(f &^ 7), uint64(f & 1), true
	}
	return 0, 0, false
}

// tcpOptionNum loads the number of size bytes at off in an option of a length.
func tcpOptionNum(kind byte, length, off, size int) func(*Headers) (uint64, bool) {
	return func(h *Headers) (uint64, bool) {
		v, ok := h.tcpOption(kind)
		if !ok || len(v) != length {
			return 0, false
		}
		var n uint64
		for _, c := range v[off : off+size] {
			n = n<<8 | uint64(c)
		}
		return n, true
	}
}

func greKey(h *Headers) (uint64, bool) {
	b := h.header(ProtoGRE, 4)
	if b == nil || b[0]&0x20 == 0 || b[1]&7 != 0 {
		return 0, false
	}
	off := 4
	if b[0]&0x80 != 0 {
		off = 8
	}
	if len(b) < off+4 {
		return 0, false
	}
	return uint64(binary.BigEndian.Uint32(b[off:])), true
}

func greCallID(h *Headers) (uint64, bool) {
	b := h.header(ProtoGRE, 8)
	if b == nil || b[1]&7 != 1 {
		return 0, false
	}
	return uint64(binary.BigEndian.Uint16(b[6:])), true
}

func ahNum(off int) func(*Headers) (uint64, bool) {
	return func(h *Headers) (uint64, bool) {
		if h.ah == 0 {
			return 0, false
		}
		return uint64(binary.BigEndian.Uint32(h.Data[int(h.ah)+off:])), true
	}
}

func isBit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// hex appends a number as people read keys and indexes: 0x3e8.
func hex(b []byte, n uint64) []byte { return strconv.AppendUint(append(b, "0x"...), n, 16) }

// Rows returns the fields of a packet's headers.
func Rows() []field.Row[Headers] {
	rows := rows()
	for i := range rows {
		rows[i].Asks |= AsksHeaders
	}
	return rows
}

// What the rows' Asks stand for: how much of a packet must be there, and whether
// many datagrams that come as one give another value than each by itself.
const (
	AsksHeaders = 1 << iota // its IP and transport headers
	AsksPayload             // all of it
	AsksApart               // to judge by it, datagrams one by one
)

func rows() []row {
	return withParts(append([]row{
		{Path: "ip.src", Kind: field.Addr, Doc: "source address", Parse: value.Addrs,
			IP: func(h *Headers) (netip.Addr, bool) { return h.Src() }},
		{
			Path:  "ip.dst",
			Kind:  field.Addr,
			Doc:   "destination address; under a routing header the next stop",
			Parse: value.Addrs,
			IP:    func(h *Headers) (netip.Addr, bool) { return h.Dst() },
		},
		{Path: "ip.proto", Kind: field.Enum, Names: value.Protocols, Max: 255,
			Doc: "protocol behind IPv6's extension headers; an authentication header is ah",
			Num: func(h *Headers) (uint64, bool) { p, ok := h.Proto(); return uint64(p), ok }},
		{
			Path:    "ip.ttl",
			Aliases: []string{"ip.hoplimit"},
			Kind:    field.Uint,
			Max:     255,
			Doc:     "time to live, or hop limit",
			Num:     ipTTL,
		},
		{
			Path:  "ip.dscp",
			Kind:  field.Uint,
			Max:   63,
			Parse: namesOf(dscpNames),
			Doc:   "differentiated services code point, as ef or 46",
			Num:   func(h *Headers) (uint64, bool) { t, ok := h.tclass(); return uint64(t >> 2), ok },
		},
		{Path: "ip.ecn", Kind: field.Uint, Max: 3, Doc: "explicit congestion notification; 3 is congestion experienced",
			Num: func(h *Headers) (uint64, bool) { t, ok := h.tclass(); return uint64(t & 3), ok }},
		{
			Path: "ip.id",
			Kind: field.Uint,
			Max:  1<<32 - 1,
			Doc:  "identification; IPv6 has it in fragments only",
			Num:  ipID,
		},
		{Path: "ip.flags", Kind: field.Flags, Names: ipFlags, Max: 7, Doc: "DF, MF, RF; IPv6 has MF in fragments only",
			Num: func(h *Headers) (uint64, bool) { _, f, ok := h.frag(); return f, ok }},
		{Path: "ip.fragment", Kind: field.Bool, Max: 1, Doc: "is a part of a larger packet",
			Num: func(h *Headers) (uint64, bool) { return isBit(h.Fragment()), h.version != 0 }},
		{
			Path: "ip.fragment_offset",
			Kind: field.Uint,
			Max:  0xfff8,
			Doc:  "of a fragment: its place in the larger packet, bytes",
			Num: func(h *Headers) (uint64, bool) {
				off, _, ok := h.frag()
				return uint64(off), ok && h.Fragment()
			},
		},
		{
			Path: "ip.length",
			Kind: field.Uint,
			Max:  40 + 1<<32 - 1,
			Asks: AsksApart,
			Doc:  "length of the packet by its IP header, bytes",
			Num:  func(h *Headers) (uint64, bool) { return uint64(h.total), h.version != 0 },
		},

		port(ProtoTCP, "tcp.sport", 0, "source port"),
		port(ProtoTCP, "tcp.dport", 2, "destination port"),
		{Path: "tcp.flags", Kind: field.Flags, Names: tcpFlags, Max: 0x1ff, Doc: "FIN SYN RST PSH ACK URG ECE CWR NS",
			Num: func(h *Headers) (uint64, bool) {
				if b := h.header(ProtoTCP, 14); b != nil {
					return uint64(binary.BigEndian.Uint16(b[12:]) & 0x1ff), true
				}
				return 0, false
			}},
		{Path: "tcp.seq", Kind: field.Uint, Max: 1<<32 - 1, Doc: "sequence number", Num: u32(ProtoTCP, 4)},
		{Path: "tcp.ack", Kind: field.Uint, Max: 1<<32 - 1, Doc: "acknowledgment number", Num: u32(ProtoTCP, 8)},
		{Path: "tcp.window", Kind: field.Uint, Max: 0xffff, Doc: "window as sent, not scaled", Num: u16(ProtoTCP, 14)},
		{
			Path: "tcp.mss",
			Kind: field.Uint,
			Max:  0xffff,
			Doc:  "option: maximum segment size, bytes",
			Num:  tcpOptionNum(optMSS, 2, 0, 2),
		},
		{
			Path: "tcp.wscale",
			Kind: field.Uint,
			Max:  255,
			Doc:  "option: window scale, bits",
			Num:  tcpOptionNum(optWScale, 1, 0, 1),
		},
		{
			Path: "tcp.sack_permitted",
			Kind: field.Bool,
			Max:  1,
			Doc:  "option of a SYN: selective acknowledgments may be used",
			Num: func(h *Headers) (uint64, bool) {
				b := h.header(ProtoTCP, 20)
				if b == nil || b[13]&2 == 0 {
					return 0, false
				}
				_, ok := h.tcpOption(optSACKPermitted)
				return isBit(ok), true
			},
		},
		{Path: "tcp.sack", Kind: field.Uint, Max: 4, Doc: "option: number of blocks acknowledged selectively",
			Num: func(h *Headers) (uint64, bool) { v, ok := h.tcpOption(optSACK); return uint64(len(v) / 8), ok }},
		{Path: "tcp.ts", Kind: field.Uint, Max: 1<<32 - 1, Doc: "option: timestamp", Num: tcpOptionNum(optTimestamps, 8, 0, 4)},
		{
			Path: "tcp.ts_echo",
			Kind: field.Uint,
			Max:  1<<32 - 1,
			Doc:  "option: timestamp echoed",
			Num:  tcpOptionNum(optTimestamps, 8, 4, 4),
		},

		port(ProtoUDP, "udp.sport", 0, "source port"),
		port(ProtoUDP, "udp.dport", 2, "destination port"),
		{
			Path: "udp.length",
			Kind: field.Uint,
			Max:  0xffff,
			Asks: AsksApart,
			Doc:  "length of header and payload, bytes",
			Num:  u16(ProtoUDP, 4),
		},

		{
			Path:  "icmp.type",
			Kind:  field.Uint,
			Max:   255,
			Parse: namesOf(icmpTypes),
			Doc:   "message type, as 8 or echo-request",
			Num:   u8(ProtoICMP, 0),
		},
		{Path: "icmp.code", Kind: field.Uint, Max: 255, Doc: "message code", Num: u8(ProtoICMP, 1)},
		{
			Path: "icmp.id",
			Kind: field.Uint,
			Max:  0xffff,
			Doc:  "identifier of an echo or other query",
			Num:  echo(ProtoICMP, 4),
		},
		{
			Path: "icmp.seq",
			Kind: field.Uint,
			Max:  0xffff,
			Doc:  "sequence number of an echo or other query",
			Num:  echo(ProtoICMP, 6),
		},

		{
			Path:  "icmpv6.type",
			Kind:  field.Uint,
			Max:   255,
			Parse: namesOf(icmpv6Types),
			Doc:   "message type, as 128 or echo-request",
			Num:   u8(ProtoICMPv6, 0),
		},
		{Path: "icmpv6.code", Kind: field.Uint, Max: 255, Doc: "message code", Num: u8(ProtoICMPv6, 1)},
		{Path: "icmpv6.id", Kind: field.Uint, Max: 0xffff, Doc: "identifier of an echo", Num: echo(ProtoICMPv6, 4)},
		{
			Path: "icmpv6.seq",
			Kind: field.Uint,
			Max:  0xffff,
			Doc:  "sequence number of an echo",
			Num:  echo(ProtoICMPv6, 6),
		},

		port(ProtoSCTP, "sctp.sport", 0, "source port"),
		port(ProtoSCTP, "sctp.dport", 2, "destination port"),
		{
			Path:      "sctp.vtag",
			Kind:      field.Uint,
			Max:       1<<32 - 1,
			Doc:       "verification tag",
			Num:       u32(ProtoSCTP, 4),
			AppendNum: hex,
		},

		port(ProtoDCCP, "dccp.sport", 0, "source port"),
		port(ProtoDCCP, "dccp.dport", 2, "destination port"),

		port(ProtoUDPLite, "udplite.sport", 0, "source port"),
		port(ProtoUDPLite, "udplite.dport", 2, "destination port"),

		{
			Path:      "gre.proto",
			Kind:      field.Uint,
			Max:       0xffff,
			Doc:       "protocol carried, an EtherType",
			Num:       u16(ProtoGRE, 2),
			AppendNum: hex,
		},
		{Path: "gre.key", Kind: field.Uint, Max: 1<<32 - 1, Doc: "key (version 0)", Num: greKey, AppendNum: hex},
		{Path: "gre.call_id", Kind: field.Uint, Max: 0xffff, Doc: "PPTP's call (version 1)", Num: greCallID},

		{
			Path:      "esp.spi",
			Kind:      field.Uint,
			Max:       1<<32 - 1,
			Doc:       "security parameters index",
			Num:       u32(ProtoESP, 0),
			AppendNum: hex,
		},
		{Path: "esp.seq", Kind: field.Uint, Max: 1<<32 - 1, Doc: "sequence number", Num: u32(ProtoESP, 4)},
		{
			Path:      "ah.spi",
			Kind:      field.Uint,
			Max:       1<<32 - 1,
			Doc:       "security parameters index",
			Num:       ahNum(4),
			AppendNum: hex,
		},
		{Path: "ah.seq", Kind: field.Uint, Max: 1<<32 - 1, Doc: "sequence number", Num: ahNum(8)},

		{
			Path:   "sport",
			Kind:   field.Uint,
			Max:    0xffff,
			Parse:  value.Ports,
			Hidden: true,
			Doc:    "source port of TCP, UDP, UDP-Lite, SCTP, DCCP",
			Num:    func(h *Headers) (uint64, bool) { s, _, ok := h.Ports(); return uint64(s), ok },
		},
		{
			Path:   "dport",
			Kind:   field.Uint,
			Max:    0xffff,
			Parse:  value.Ports,
			Hidden: true,
			Doc:    "destination port of TCP, UDP, UDP-Lite, SCTP, DCCP",
			Num:    func(h *Headers) (uint64, bool) { _, d, ok := h.Ports(); return uint64(d), ok },
		},
		{
			Path:   "payload",
			Kind:   field.Bytes,
			Hidden: true,
			Asks:   AsksPayload | AsksApart,
			Doc:    "the transport's payload, as far as it was captured",
			Data:   func(h *Headers) ([]byte, bool) { return h.Payload() },
		},
	}, applicationRows()...))
}

// withParts says of the rows of each transport header which that is, so that
// writers pass over those that a packet has not.
func withParts(rows []row) []row {
	parts := map[string]*field.Part[Headers]{}
	for word, proto := range map[string]uint8{
		"tcp":     ProtoTCP,
		"tls":     ProtoTCP,
		"udp":     ProtoUDP,
		"icmp":    ProtoICMP,
		"icmpv6":  ProtoICMPv6,
		"sctp":    ProtoSCTP,
		"dccp":    ProtoDCCP,
		"udplite": ProtoUDPLite,
		"gre":     ProtoGRE,
		"esp":     ProtoESP,
	} {
		parts[word] = &field.Part[Headers]{Has: func(h *Headers) bool { return h.l4 == proto }}
	}
	for i := range rows {
		word, _, _ := strings.Cut(rows[i].Path, ".")
		rows[i].Part = parts[word]
	}
	return rows
}
