// Package packettest makes packets for tests: right ones, and every kind of
// wrong one. Its checksums are computed the plain way, word by word, so that it
// can judge those of package packet.
package packettest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
)

var be = binary.BigEndian

// A Packet is a packet's headers in words; IP and its siblings make bytes of it.
type Packet struct {
	Src, Dst string // addresses of one family
	Proto    uint8
	Ext      []Ext // IPv6 extension headers, or IPv4 authentication headers
	Options  []byte
	L4       []byte // transport header and payload, its checksum not set
}

// An Ext is an extension header: its type, and its bytes after the first,
// which is the type of the next header.
type Ext struct {
	Type uint8
	Body []byte
}

// Bytes returns the packet with its lengths and checksums set.
func (p Packet) Bytes() []byte {
	src, dst := netip.MustParseAddr(p.Src), netip.MustParseAddr(p.Dst)
	var chain []byte
	first := p.Proto
	for i := len(p.Ext) - 1; i >= 0; i-- {
		x := append([]byte{first}, p.Ext[i].Body...)
		chain = append(x, chain...)
		first = p.Ext[i].Type
	}
	opt := append([]byte(nil), p.Options...)
	for len(opt)%4 != 0 {
		opt = append(opt, 0)
	}
	var b []byte
	if src.Is4() {
		b = make([]byte, 20, 20+len(opt)+len(chain)+len(p.L4))
		b[0] = 0x40 | byte(5+len(opt)/4)
		be.PutUint16(b[4:], 0x1234)
		b[6] = 0x40
		b[8], b[9] = 64, first
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
		b = append(b, opt...)
	} else {
		b = make([]byte, 40, 40+len(chain)+len(p.L4))
		b[0] = 0x60
		b[6], b[7] = first, 64
		copy(b[8:], src.AsSlice())
		copy(b[24:], dst.AsSlice())
	}
	b = append(append(b, chain...), p.L4...)
	if src.Is4() {
		if len(b) <= 0xffff {
			be.PutUint16(b[2:], uint16(len(b)))
		}
		be.PutUint16(b[10:], Checksum(b[:20+len(opt)]))
	} else if len(b)-40 <= 0xffff {
		be.PutUint16(b[4:], uint16(len(b)-40))
	}
	Seal(src, dst, p.Proto, b[len(b)-len(p.L4):])
	return b
}

// Seal sets the checksum of a transport message.
func Seal(src, dst netip.Addr, proto uint8, l4 []byte) {
	at, pseudo := checksumAt(proto)
	if at == 0 || at+2 > len(l4) || proto == 132 && len(l4) < 12 {
		return
	}
	if proto == 132 {
		be.PutUint32(l4[8:], 0)
		binary.LittleEndian.PutUint32(l4[8:], crc32.Checksum(l4, crc32.MakeTable(crc32.Castagnoli)))
		return
	}
	be.PutUint16(l4[at:], 0)
	c := Checksum(message(src, dst, proto, l4, pseudo))
	if c == 0 && (proto == 17 || proto == 136) {
		c = 0xffff
	}
	be.PutUint16(l4[at:], c)
}

func checksumAt(proto uint8) (at int, pseudo bool) {
	switch proto {
	case 1:
		return 2, false
	case 6:
		return 16, true
	case 17, 33, 136:
		return 6, true
	case 58:
		return 2, true
	case 132:
		return 8, false
	}
	return 0, false
}

// message returns what a transport checksum is computed over.
func message(src, dst netip.Addr, proto uint8, l4 []byte, pseudo bool) []byte {
	var m []byte
	if pseudo {
		m = append(append(m, src.AsSlice()...), dst.AsSlice()...)
		m = be.AppendUint32(m, uint32(len(l4)))
		m = append(m, 0, 0, 0, proto)
	}
	covered := l4
	if proto == 136 {
		if n := int(be.Uint16(l4[4:])); n >= 8 && n <= len(l4) {
			covered = l4[:n]
		}
	}
	if proto == 33 {
		if n := int(l4[4])*4 + (int(l4[5]&15)-1)*4; l4[5]&15 != 0 && n <= len(l4) {
			covered = l4[:n]
		}
	}
	return append(m, covered...)
}

// Checksum is the Internet checksum of b (RFC 1071).
func Checksum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(be.Uint16(b[i:]))
		s = s>>16 + s&0xffff
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// Verify checks the lengths and checksums of a whole packet, as its last
// receiver would: behind extension headers, without stops left to make.
func Verify(b []byte) error {
	var src, dst netip.Addr
	var proto uint8
	var l4 []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		ihl := int(b[0]&15) * 4
		if int(be.Uint16(b[2:])) != len(b) || ihl < 20 || ihl > len(b) {
			return fmt.Errorf("ip: total length %d, header %d, packet %d", be.Uint16(b[2:]), ihl, len(b))
		}
		if c := Checksum(b[:ihl]); c != 0 {
			return fmt.Errorf("ip: checksum off by %#04x", c)
		}
		if be.Uint16(b[6:])&0x3fff != 0 {
			return nil // a fragment
		}
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		proto, l4 = b[9], b[ihl:]
	case len(b) >= 40 && b[0]>>4 == 6:
		if n := int(be.Uint16(b[4:])); n+40 != len(b) && n != 0 {
			return fmt.Errorf("ip6: payload length %d, packet %d", n, len(b))
		}
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		proto, l4 = b[6], b[40:]
		for proto == 0 || proto == 43 || proto == 44 || proto == 60 {
			if len(l4) < 8 {
				return fmt.Errorf("ip6: extension header %d cut", proto)
			}
			n := (int(l4[1]) + 1) * 8
			if proto == 44 {
				if be.Uint16(l4[2:])&0xfff9 != 0 {
					return nil
				}
				n = 8
			}
			if n > len(l4) {
				return fmt.Errorf("ip6: extension header %d cut", proto)
			}
			proto, l4 = l4[0], l4[n:]
		}
	default:
		return fmt.Errorf("no IP packet: % x", b[:min(len(b), 8)])
	}
	at, pseudo := checksumAt(proto)
	if at == 0 {
		return nil
	}
	if len(l4) < at+2 || proto == 132 && len(l4) < 12 {
		return fmt.Errorf("protocol %d: header cut", proto)
	}
	switch proto {
	case 17:
		n := int(be.Uint16(l4[4:]))
		if n != 0 && (n < 8 || n > len(l4)) {
			return fmt.Errorf("udp: length %d of %d", n, len(l4))
		}
		if n != 0 {
			l4 = l4[:n]
		}
		if be.Uint16(l4[6:]) == 0 {
			if src.Is4() {
				return nil
			}
			return fmt.Errorf("udp: no checksum over IPv6")
		}
	case 132:
		m := append([]byte(nil), l4...)
		be.PutUint32(m[8:], 0)
		if got, want := binary.LittleEndian.Uint32(l4[8:]),
			crc32.Checksum(m, crc32.MakeTable(crc32.Castagnoli)); got != want {
			return fmt.Errorf("sctp: checksum %#x, want %#x", got, want)
		}
		return nil
	}
	if c := Checksum(message(src, dst, proto, l4, pseudo)); c != 0 {
		return fmt.Errorf("protocol %d: checksum off by %#04x", proto, c)
	}
	return nil
}

// UDP returns a UDP message.
func UDP(sport, dport uint16, payload string) []byte {
	b := be.AppendUint16(nil, sport)
	b = be.AppendUint16(b, dport)
	b = be.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// TCP returns a TCP segment with sequence number 1, acknowledgment 2 and
// window 65535. Options are padded.
func TCP(sport, dport, flags uint16, options []byte, payload string) []byte {
	options = append([]byte(nil), options...)
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	b := be.AppendUint16(nil, sport)
	b = be.AppendUint16(b, dport)
	b = be.AppendUint32(b, 1)
	b = be.AppendUint32(b, 2)
	b = be.AppendUint16(b, uint16(5+len(options)/4)<<12|flags)
	b = append(b, 0xff, 0xff, 0, 0, 0, 0)
	return append(append(b, options...), payload...)
}

// ICMP returns an ICMP or ICMPv6 message with identifier and sequence number.
func ICMP(typ, code uint8, id, seq uint16, payload string) []byte {
	b := []byte{typ, code, 0, 0}
	b = be.AppendUint16(b, id)
	b = be.AppendUint16(b, seq)
	return append(b, payload...)
}

// SCTP returns an SCTP packet with one DATA chunk.
func SCTP(sport, dport uint16, vtag uint32, payload string) []byte {
	b := be.AppendUint16(nil, sport)
	b = be.AppendUint16(b, dport)
	b = be.AppendUint32(b, vtag)
	b = append(b, 0, 0, 0, 0)
	b = append(b, 0, 3)
	b = be.AppendUint16(b, uint16(16+len(payload)))
	b = append(b, make([]byte, 12)...)
	b = append(b, payload...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Routing returns a routing header of type 0, 2 or 4 with a list of addresses,
// left of which are still to be visited. Type 4's list is reversed.
func Routing(typ, left uint8, addrs ...string) Ext {
	b := []byte{uint8(2 * len(addrs)), typ, left, 0, 0, 0, 0}
	if typ == 4 && len(addrs) > 0 {
		b[3] = uint8(len(addrs) - 1) // last entry
	}
	for _, a := range addrs {
		b = append(b, netip.MustParseAddr(a).AsSlice()...)
	}
	return Ext{43, b}
}

// Fragment returns an IPv6 fragment header; off is in bytes.
func Fragment(off uint16, more bool, id uint32) Ext {
	f := off &^ 7
	if more {
		f |= 1
	}
	b := be.AppendUint16([]byte{0}, f)
	return Ext{44, be.AppendUint32(b, id)}
}

// HopByHop returns a hop-by-hop options header, DstOpts one of destination
// options. Without options they are padding.
func HopByHop(options ...byte) Ext { return Ext{0, padded(options)} }

// DstOpts returns a destination options header.
func DstOpts(options ...byte) Ext { return Ext{60, padded(options)} }

func padded(options []byte) []byte {
	b := append([]byte{0}, options...)
	if pad := (8 - (1+len(b))%8) % 8; pad == 1 {
		b = append(b, 0)
	} else if pad > 1 {
		b = append(append(b, 1, byte(pad-2)), make([]byte, pad-2)...)
	}
	b[0] = byte((1+len(b))/8 - 1)
	return b
}

// AH returns an authentication header with a 12-byte check value.
func AH(spi, seq uint32) Ext {
	b := be.AppendUint32([]byte{4, 0, 0}, spi)
	b = be.AppendUint32(b, seq)
	return Ext{51, append(b, make([]byte, 12)...)}
}
