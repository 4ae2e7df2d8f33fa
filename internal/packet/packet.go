// Package packet reads the headers of IP packets in place, edits them, and
// writes them as people read them.
//
// Everything here starts at the IP header, as NFQUEUE delivers packets, and
// takes bytes from the wire: no input makes it panic, and what cannot be read
// is absent, never zero.
package packet

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Protocol numbers of the headers that this package knows (linux/in.h).
const (
	ProtoHopByHop = unix.IPPROTO_HOPOPTS
	ProtoICMP     = unix.IPPROTO_ICMP
	ProtoIPIP     = unix.IPPROTO_IPIP
	ProtoTCP      = unix.IPPROTO_TCP
	ProtoUDP      = unix.IPPROTO_UDP
	ProtoDCCP     = unix.IPPROTO_DCCP
	ProtoIPv6     = unix.IPPROTO_IPV6
	ProtoRouting  = unix.IPPROTO_ROUTING
	ProtoFragment = unix.IPPROTO_FRAGMENT
	ProtoGRE      = unix.IPPROTO_GRE
	ProtoESP      = unix.IPPROTO_ESP
	ProtoAH       = unix.IPPROTO_AH
	ProtoICMPv6   = unix.IPPROTO_ICMPV6
	ProtoNone     = unix.IPPROTO_NONE
	ProtoDstOpts  = unix.IPPROTO_DSTOPTS
	ProtoSCTP     = unix.IPPROTO_SCTP
	ProtoUDPLite  = unix.IPPROTO_UDPLITE
)

// maxHeaders bounds the walk along IPv6 extension headers. RFC 8200 has use for
// about seven; a longer chain is there to cost time, and its transport header
// is taken as undecodable.
const maxHeaders = 32

type state uint8

const (
	stTruncated state = 1 << iota // the copy ends before the packet does
	stBad                         // the IP header or the chain behind it is malformed
	stFragment                    // part of a larger packet
	stLater                       // a fragment other than the first
	stAH                          // has an authentication header
	stPorts                       // the transport header begins with two captured ports
)

// Headers says where the headers of one packet are. Parse fills it; the zero
// value is a packet of which nothing is known.
type Headers struct {
	Data   []byte // what was captured, from the IP header on
	Length int    // of the packet in the kernel, in bytes; at least len(Data)

	total int   // length by the IP header
	body  int32 // offset of the first byte behind the IP headers; 0: not known
	end   int32 // offset of the first byte in Data that is not the packet's
	fh    int32 // offset of the IPv6 fragment header; 0: none
	ah    int32 // offset of the last authentication header; 0: none

	version uint8 // 4, 6; 0: no IP header
	proto   uint8 // behind IPv6's hop-by-hop, routing, fragment and destination options
	l4      uint8 // protocol of the transport header at body; 0: none there
	state   state

	application *application // nil: never asked
}

// Parse reads the headers of a packet of which data was captured. length is the
// packet's length in the kernel (NFQA_CAP_LEN), or 0 when data is all of it.
// h keeps data; nothing is copied.
func (h *Headers) Parse(data []byte, length int) {
	application := h.application
	*h = Headers{}
	h.Data, h.Length, h.application = data, max(length, len(data)), application
	h.forget()
	if h.Length > len(data) {
		h.state = stTruncated
	}
	switch {
	case len(data) >= 20 && data[0]>>4 == 4:
		h.parse4(data)
	case len(data) >= 40 && data[0]>>4 == 6:
		h.parse6(data)
	}
}

func (h *Headers) parse4(data []byte) {
	_ = data[19]
	h.version, h.proto = 4, data[9]
	ihl := int(data[0]&15) * 4
	h.total = int(binary.BigEndian.Uint16(data[2:]))
	if h.total == 0 && h.Length > 0xffff {
		h.total = h.Length // a GSO packet too long for the field (BIG TCP)
	}
	if h.total > len(data) {
		h.state |= stTruncated
	}
	h.end = int32(min(h.total, len(data)))
	frag := binary.BigEndian.Uint16(data[6:])
	if frag&0x3fff != 0 {
		h.state |= stFragment
		if frag&0x1fff != 0 {
			h.state |= stLater
		}
	}
	if ihl < 20 || ihl > h.total {
		h.state |= stBad
		return
	}
	if ihl > len(data) {
		return
	}
	h.body = int32(ihl)
	if h.state&stLater != 0 {
		return
	}
	if h.proto == ProtoAH {
		h.walk(ihl, ProtoAH)
		return
	}
	h.transport(h.proto)
}

func (h *Headers) parse6(data []byte) {
	_ = data[39]
	h.version = 6
	payload := int(binary.BigEndian.Uint16(data[4:]))
	h.total = 40 + payload
	if payload == 0 {
		switch n := jumbo(data); {
		case n != 0:
			h.total = 40 + n
		case h.Length > 40+0xffff:
			h.total = h.Length // a GSO packet too long for the field (BIG TCP)
		}
	}
	if h.total > len(data) {
		h.state |= stTruncated
	}
	h.end = int32(min(h.total, len(data)))
	switch next := data[6]; next {
	case ProtoTCP, ProtoUDP, ProtoICMPv6:
		h.proto, h.body = next, 40
		h.transport(next)
	default:
		h.walk(40, next)
	}
}

// jumbo returns the length in a hop-by-hop jumbo payload option (RFC 2675) of a
// packet with a payload length of 0, or 0.
func jumbo(data []byte) int {
	if data[6] != ProtoHopByHop || len(data) < 48 {
		return 0
	}
	opt := data[42:min(len(data), 40+(int(data[41])+1)*8)]
	if v := findOption(opt, 0xc2); len(v) == 4 && binary.BigEndian.Uint32(v) > 0xffff {
		return int(binary.BigEndian.Uint32(v))
	}
	return 0
}

// findOption returns the value of the first option of a type in the options of a
// hop-by-hop or destination options header, or nil.
func findOption(opt []byte, typ byte) []byte {
	for len(opt) >= 2 {
		if opt[0] == 0 { // Pad1 has no length
			opt = opt[1:]
			continue
		}
		n := 2 + int(opt[1])
		if n > len(opt) {
			return nil
		}
		if opt[0] == typ {
			return opt[2:n]
		}
		opt = opt[n:]
	}
	return nil
}

// walk follows the chain of extension headers from the one of type next at off.
func (h *Headers) walk(off int, next uint8) {
	data, end := h.Data, int(h.end)
	for range maxHeaders {
		var size int
		switch {
		case next == ProtoAH:
			size = 12
		case next == ProtoFragment && h.version == 6,
			(next == ProtoHopByHop || next == ProtoRouting || next == ProtoDstOpts) && h.version == 6:
			size = 8
		default:
			if off > end {
				h.cut()
				return
			}
			h.body = int32(off)
			if h.state&stAH == 0 {
				h.proto = next
			}
			h.transport(next)
			return
		}
		if off+size > end {
			h.cut()
			return
		}
		switch next {
		case ProtoAH:
			if h.state&stAH == 0 {
				h.proto = ProtoAH
			}
			h.state |= stAH
			h.ah = int32(off)
			size = (int(data[off+1]) + 2) * 4
			if size < 12 {
				h.state |= stBad
				h.body = 0
				return
			}
		case ProtoFragment:
			h.fh = int32(off)
			frag := binary.BigEndian.Uint16(data[off+2:])
			if frag&0xfff9 != 0 {
				h.state |= stFragment
			}
			if frag&0xfff8 != 0 {
				h.state |= stLater
				h.body = int32(off + 8)
				if h.state&stAH == 0 {
					h.proto = data[off]
				}
				return
			}
		default:
			size = (int(data[off+1]) + 1) * 8
		}
		next = data[off]
		off += size
	}
	h.state |= stBad
	h.body = 0
}

// cut records that the chain of headers leaves what there is of the packet: it
// was cut off by the copy, or the packet is malformed.
func (h *Headers) cut() {
	h.body = 0
	if h.state&stTruncated == 0 || h.total == int(h.end) {
		h.state |= stBad
	}
}

// transport records that a transport header of a protocol is at body.
func (h *Headers) transport(proto uint8) {
	h.l4 = proto
	switch proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP, ProtoDCCP, ProtoUDPLite:
		if h.body+4 <= h.end {
			h.state |= stPorts
		}
	}
}

// Version returns 4 or 6, or 0 when there is no whole IP header.
func (h *Headers) Version() int { return int(h.version) }

// Undecodable reports that the packet has no IP header that could be read, or a
// malformed one, or a chain of extension headers that is malformed or too long.
func (h *Headers) Undecodable() bool { return h.version == 0 || h.state&stBad != 0 }

// Truncated reports that the copy holds less than the packet: such a packet
// cannot be edited.
func (h *Headers) Truncated() bool { return h.state&stTruncated != 0 }

// Unreached reports that the copy ended before the transport's ports could be
// read, so that rules about them saw nothing: with a larger copy they might.
func (h *Headers) Unreached() bool {
	if h.state&stTruncated == 0 || h.state&(stPorts|stLater|stBad) != 0 {
		return false
	}
	switch h.l4 {
	case ProtoTCP, ProtoUDP, ProtoSCTP, ProtoDCCP, ProtoUDPLite:
		return true
	}
	return h.body == 0
}

// Fragment reports that the packet is a part of a larger one.
func (h *Headers) Fragment() bool { return h.state&stFragment != 0 }

// Body returns where in Data what the IP headers carry begins and ends; 0 and 0 where
// that is not known.
func (h *Headers) Body() (from, to int) {
	if h.body == 0 {
		return 0, 0
	}
	return int(h.body), max(int(h.body), int(h.end))
}

// Proto returns the protocol that the packet carries: what IPv4's header says,
// or what follows IPv6's hop-by-hop, routing, fragment and destination options
// headers. It is known for all fragments. An authentication header counts as
// the protocol, and the transport header behind it can still be read.
func (h *Headers) Proto() (proto uint8, ok bool) {
	return h.proto, h.version == 4 || h.version == 6 && h.body != 0
}

// Ports returns the ports of TCP, UDP, UDP-Lite, SCTP and DCCP. Fragments other
// than the first have none.
func (h *Headers) Ports() (sport, dport uint16, ok bool) {
	if h.state&stPorts == 0 {
		return 0, 0, false
	}
	b := h.Data[h.body:]
	if len(b) < 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), true
}

// ICMPError reports whether the packet is an ICMP error, which tells of another packet.
func (h *Headers) ICMPError() bool {
	if b := h.header(ProtoICMP, 1); b != nil {
		return b[0] == 3 || b[0] == 4 || b[0] == 5 || b[0] == 11 || b[0] == 12
	}
	b := h.header(ProtoICMPv6, 1)
	return b != nil && b[0] < 128
}

// Src returns the source address.
func (h *Headers) Src() (netip.Addr, bool) {
	switch h.version {
	case 4:
		return netip.AddrFrom4([4]byte(h.Data[12:16])), true
	case 6:
		return netip.AddrFrom16([16]byte(h.Data[8:24])), true
	}
	return netip.Addr{}, false
}

// Dst returns the destination address of the IP header. Under a routing header
// that is the next stop, not the last.
func (h *Headers) Dst() (netip.Addr, bool) {
	switch h.version {
	case 4:
		return netip.AddrFrom4([4]byte(h.Data[16:20])), true
	case 6:
		return netip.AddrFrom16([16]byte(h.Data[24:40])), true
	}
	return netip.Addr{}, false
}

// header returns the captured bytes from the transport header on when it is one
// of proto and at least its first n bytes are there, else nil.
func (h *Headers) header(proto uint8, n int) []byte {
	if h.l4 != proto || h.body == 0 || int(h.body)+n > int(h.end) {
		return nil
	}
	return h.Data[h.body:h.end]
}

// payload returns the offsets where the transport's payload begins and ends in
// Data. A fragment other than the first is payload as a whole.
func (h *Headers) payload() (from, to int, ok bool) {
	if h.body == 0 {
		return 0, 0, false
	}
	from, to = int(h.body), int(h.end)
	if h.state&stLater != 0 {
		return from, to, from <= to
	}
	b := h.Data[from:max(from, to)]
	switch h.l4 {
	case ProtoTCP:
		if len(b) < 20 || b[12]>>4 < 5 {
			return 0, 0, false
		}
		from += int(b[12]>>4) * 4
	case ProtoUDP:
		if len(b) < 8 {
			return 0, 0, false
		}
		if n := int(binary.BigEndian.Uint16(b[4:])); n >= 8 && n < len(b) {
			to = from + n // what follows is not UDP's
		}
		from += 8
	case ProtoUDPLite, ProtoICMP, ProtoICMPv6, ProtoESP:
		from += 8
	case ProtoSCTP:
		from += 12
	case ProtoDCCP:
		if len(b) < 12 || b[4] < 3 {
			return 0, 0, false
		}
		from += int(b[4]) * 4
	case ProtoGRE:
		n := greLen(b)
		if n == 0 {
			return 0, 0, false
		}
		from += n
	}
	return from, to, from <= to
}

// greLen returns the length of the GRE header in b, or 0 (RFC 2784, 2890, 2637).
func greLen(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	n := 4
	for _, bit := range [...]byte{0x80, 0x20, 0x10} { // checksum, key, sequence number
		if b[0]&bit != 0 {
			n += 4
		}
	}
	if b[1]&7 == 1 && b[1]&0x80 != 0 { // version 1: acknowledgment number
		n += 4
	}
	return n
}

// Payload returns the captured part of the transport's payload: what follows
// the transport header, or all of a fragment other than the first.
func (h *Headers) Payload() ([]byte, bool) {
	from, to, ok := h.payload()
	if !ok {
		return nil, false
	}
	return h.Data[from:to:to], true
}

// PayloadLen returns the length of the transport's payload in the packet, which
// may be more than was captured.
func (h *Headers) PayloadLen() (int, bool) {
	from, to, ok := h.payload()
	if !ok {
		return 0, false
	}
	if to == int(h.end) {
		return max(h.total, to) - from, true
	}
	return to - from, true
}

// TotalLength returns the length of a packet by its IP header, in bytes; 0: it is not
// there, or the header does not say it.
func TotalLength(data []byte) int {
	switch {
	case len(data) >= 20 && data[0]>>4 == 4:
		return int(binary.BigEndian.Uint16(data[2:]))
	case len(data) >= 40 && data[0]>>4 == 6:
		if n := int(binary.BigEndian.Uint16(data[4:])); n > 0 {
			return 40 + n
		}
	}
	return 0
}
