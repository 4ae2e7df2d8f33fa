package packet

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"

	"nfctl/internal/lazy"
)

// The sums below are Internet checksums (RFC 1071) over little-endian words of
// 64 bits: one's complement addition does not care for the order of bytes, as
// long as the result is stored the way the words were loaded.

// add is one's complement addition.
func add(a, b uint64) uint64 {
	s, c := bits.Add64(a, b, 0)
	return s + c
}

// sum adds b to s. Of several pieces only the last may have an odd length.
func sum(b []byte, s uint64) uint64 {
	var c uint64
	for len(b) >= 64 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), 0)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[8:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[24:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[32:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[40:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[48:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[56:]), c)
		s += c
		b = b[64:]
	}
	for len(b) >= 8 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), 0)
		s += c
		b = b[8:]
	}
	if len(b) > 0 {
		var t [8]byte
		copy(t[:], b)
		s = add(s, binary.LittleEndian.Uint64(t[:]))
	}
	return s
}

// fold returns a sum in 16 bits, to be stored little-endian.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	t := uint32(s)
	t = t>>16 + t&0xffff
	t = t>>16 + t&0xffff
	return uint16(t)
}

// castagnoli is made when first needed: its tables take time to fill.
var castagnoli = lazy.Value[*crc32.Table]{Make: func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }}

// pseudoEnds returns the addresses that count for the transport's checksum: the
// real ends of the way, where the IP header may hold the next stop.
func (h *Headers) pseudoEnds() (src, dst []byte) {
	d := h.Data
	if h.version == 4 {
		return d[12:16], sourceRouted(d[20:max(20, min(int(d[0]&15)*4, len(d)))], d[16:20])
	}
	src, dst = d[8:24], d[24:40]
	off, next := 40, d[6]
	for off < int(h.body) && off+8 <= len(d) {
		size := (int(d[off+1]) + 1) * 8
		if next == ProtoFragment {
			size = 8
		} else if next == ProtoAH {
			size = (int(d[off+1]) + 2) * 4
		}
		if off+size > int(h.body) {
			break
		}
		x := d[off : off+size]
		switch next {
		case ProtoRouting:
			dst = finalStop(x, dst)
		case ProtoDstOpts:
			// Mobile IPv6's home address option (RFC 6275, 6.3).
			if home := findOption(x[2:], 0xc9); len(home) == 16 {
				src = home
			}
		}
		next = x[0]
		off += size
	}
	return src, dst
}

// finalStop returns the last destination in a routing header, or dst when there
// are no more stops. Types: 0 (RFC 5095), 2 (RFC 6275), 3 (RFC 6554), 4 (RFC 8754).
func finalStop(x, dst []byte) []byte {
	if x[3] == 0 { // segments left
		return dst
	}
	switch x[2] {
	case 0, 2:
		if len(x) >= 24 {
			return x[len(x)-16:]
		}
	case 4: // the list is reversed
		if len(x) >= 24 {
			return x[8:24]
		}
	case 3: // addresses share their first bytes with the destination's
		inner, last, pad := 16-int(x[4]>>4), 16-int(x[4]&15), int(x[5]>>4)
		list := len(x) - 8 - pad
		if list >= last && (list-last)%inner == 0 {
			full := make([]byte, 16)
			copy(full, dst)
			copy(full[16-last:], x[8+list-last:8+list])
			return full
		}
	}
	return dst
}

// sourceRouted returns the last destination of an IPv4 source route option that
// still has stops, or dst.
func sourceRouted(opt, dst []byte) []byte {
	for len(opt) >= 2 && opt[0] != 0 {
		if opt[0] == 1 { // no operation
			opt = opt[1:]
			continue
		}
		n := int(opt[1])
		if n < 2 || n > len(opt) {
			break
		}
		if t := opt[0]; (t == 131 || t == 137) && n >= 7 && n%4 == 3 && int(opt[2]) <= n {
			return opt[n-4 : n]
		}
		opt = opt[n:]
	}
	return dst
}

// pseudo returns the sum of the pseudo-header of a transport message of length
// bytes (RFC 9293 3.1, RFC 8200 8.1).
func (h *Headers) pseudo(length int) uint64 {
	src, dst := h.pseudoEnds()
	s := uint64(h.l4)<<8 + uint64(bits.ReverseBytes32(uint32(length)))
	return sum(dst, sum(src, s))
}

// fixIP sets the checksum of an IPv4 header.
func (h *Headers) fixIP() {
	if h.version != 4 {
		return
	}
	b := h.Data[:int(h.Data[0]&15)*4]
	binary.LittleEndian.PutUint16(b[10:], 0)
	binary.LittleEndian.PutUint16(b[10:], ^fold(sum(b, 0)))
}

// checksumAt returns the offset of the checksum in a transport header and the
// length that the header has at least; 0, 0 when the protocol is not known.
func checksumAt(proto uint8) (off, size int) {
	switch proto {
	case ProtoTCP:
		return 16, 20
	case ProtoUDP, ProtoUDPLite:
		return 6, 8
	case ProtoICMP, ProtoICMPv6:
		return 2, 8
	case ProtoDCCP:
		return 6, 12
	case ProtoSCTP:
		return 8, 12
	}
	return 0, 0
}

// addressed reports whether the transport is one whose checksum covers the
// addresses, but is not known here: OSPF and PIM over IPv6, VRRP, mobility.
func (h *Headers) addressed() bool {
	switch h.l4 {
	case 89, 103, 135:
		return h.version == 6
	case 112:
		return true
	}
	return false
}

// unfinished reports whether the checksum of the transport header is one that was
// left to the device. TCP and UDP then hold the sum of the pseudo-header in its place,
// not complemented. What a tunnel carries may have been left so instead: then the
// outer header has a checksum, or none. (A finished one of UDP is taken for unfinished
// once in 65,536 packets: it may have any value.)
func (h *Headers) unfinished() bool {
	at, size := checksumAt(h.l4)
	if size == 0 {
		return false
	}
	b := h.header(h.l4, size)
	if b == nil {
		return true // malformed: another error's
	}
	n := len(b)
	switch h.l4 {
	case ProtoTCP:
	case ProtoUDP:
		if l := int(binary.BigEndian.Uint16(b[4:])); l != 0 {
			n = l
		}
	default:
		return true // no tunnel is carried by it
	}
	return binary.LittleEndian.Uint16(b[at:]) == fold(h.pseudo(n))
}

// fixTransport computes the checksum of a whole packet's transport message anew.
func (h *Headers) fixTransport(m Meta) error {
	at, size := checksumAt(h.l4)
	if size == 0 {
		if m.CsumNotReady {
			return ErrOffload // of an inner packet, which is not looked into
		}
		return nil
	}
	b := h.header(h.l4, size)
	if b == nil {
		if h.l4 == ProtoICMP || h.l4 == ProtoICMPv6 {
			if b = h.header(h.l4, 4); b == nil {
				return ErrMalformed
			}
		} else {
			return ErrMalformed
		}
	}
	field := b[at : at+2]
	covered := b
	switch h.l4 {
	case ProtoSCTP:
		binary.LittleEndian.PutUint32(b[8:], 0)
		binary.LittleEndian.PutUint32(b[8:], crc32.Update(0, castagnoli.Get(), b))
		return nil
	case ProtoICMP:
		binary.LittleEndian.PutUint16(field, 0)
		binary.LittleEndian.PutUint16(field, ^fold(sum(b, 0)))
		return nil
	case ProtoUDP:
		n := int(binary.BigEndian.Uint16(b[4:]))
		if n == 0 && h.version == 6 {
			n = len(b)
		}
		if n < 8 || n > len(b) {
			return ErrMalformed
		}
		covered = b[:n]
		if binary.LittleEndian.Uint16(field) == 0 {
			if m.CsumNotReady || m.GSO {
				return ErrOffload // a tunnel's outer header: the checksum to come is an inner one
			}
			if h.version == 4 {
				return nil // its sender chose to have none
			}
		}
		if m.GSO {
			// The kernel's UDP segmentation goes on from the sum of the
			// pseudo-header (net/ipv4/udp_offload.c, __udp_gso_segment).
			binary.LittleEndian.PutUint16(field, fold(h.pseudo(n)))
			return nil
		}
	case ProtoUDPLite:
		n := int(binary.BigEndian.Uint16(b[4:])) // coverage; 0: all (RFC 3828)
		if n == 0 {
			n = len(b)
		}
		if n < 8 || n > len(b) {
			return ErrMalformed
		}
		covered = b[:n]
	case ProtoDCCP:
		if cov := int(b[5] & 15); cov != 0 { // RFC 4340, 9.2
			n := int(b[4])*4 + (cov-1)*4
			if n < 12 || n > len(b) {
				return ErrMalformed
			}
			covered = b[:n]
		}
	}
	length := len(b)
	if h.l4 == ProtoUDP {
		length = len(covered)
	}
	binary.LittleEndian.PutUint16(field, 0)
	c := ^fold(sum(covered, h.pseudo(length)))
	if c == 0 && (h.l4 == ProtoUDP || h.l4 == ProtoUDPLite) {
		c = 0xffff // 0 would mean that there is none (RFC 768)
	}
	binary.LittleEndian.PutUint16(field, c)
	return nil
}

// headerSum is the sum of what an edit of a first fragment may change: the
// pseudo-header's addresses and the transport header.
func (h *Headers) headerSum() uint64 {
	at, size := checksumAt(h.l4)
	if size == 0 || h.l4 == ProtoSCTP {
		return 0
	}
	b := h.header(h.l4, at+2)
	if b == nil {
		return 0
	}
	if h.l4 == ProtoTCP && len(b) > 12 {
		size = max(size, int(b[12]>>4)*4) // with its options
	}
	s := sum(b[:min(len(b), size)], 0)
	if h.l4 != ProtoICMP {
		s = add(s, h.pseudo(0))
	}
	return s
}

// fixFragment brings the checksum of a first fragment's transport header up to
// date with what changed since headerSum was old (RFC 1624): the rest of the
// message is in other fragments.
func (h *Headers) fixFragment(old uint64) error {
	at, size := checksumAt(h.l4)
	if size == 0 || h.l4 == ProtoSCTP {
		return nil
	}
	b := h.header(h.l4, at+2)
	if b == nil {
		return ErrFragment
	}
	field := b[at : at+2]
	check := binary.LittleEndian.Uint16(field)
	if check == 0 && h.l4 == ProtoUDP {
		return nil
	}
	// Before the edit the field was part of both sums, so it cancels out.
	c := ^fold(add(add(uint64(^check), h.headerSum()), ^old))
	if c == 0 && (h.l4 == ProtoUDP || h.l4 == ProtoUDPLite) {
		c = 0xffff
	}
	binary.LittleEndian.PutUint16(field, c)
	return nil
}
