package packet

import (
	"encoding/binary"
	"strconv"

	"nfctl/internal/value"
)

// AppendText appends a packet's headers as one line without a newline: its
// ends as a flow in words has them, then what tcpdump would tell of it:
//
//	tcp 10.0.0.1:40000 > 10.0.0.2:22 [S] seq 1 win 65535 len 0
//	udp [fd00::1]:53 > [fd00::2]:5353 len 100
//	icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513 seq 1 len 56
//
// [|tcp] says that the header was not captured as a whole.
func AppendText(b []byte, h *Headers) []byte {
	if h.version == 0 {
		return strconv.AppendInt(append(b, "packet length "...), int64(h.Length), 10)
	}
	proto, ok := h.Proto()
	if ok {
		b = value.Protocols.Append(b, uint64(proto))
	} else {
		b = append(b, '*')
	}
	sport, dport, ports := h.Ports()
	src, _ := h.Src()
	dst, _ := h.Dst()
	b = append(b, ' ')
	if ports && proto != ProtoAH {
		b = appendEnd(b, h, src.AppendTo, sport)
		b = append(b, " > "...)
		b = appendEnd(b, h, dst.AppendTo, dport)
	} else {
		b = append(src.AppendTo(b), " > "...)
		b = dst.AppendTo(b)
	}
	if h.state&stAH != 0 {
		spi, _ := ahNum(4)(h)
		b = hex(append(b, " spi "...), spi)
		if h.l4 != 0 {
			b = value.Protocols.Append(append(b, ' '), uint64(h.l4))
			if ports {
				b = strconv.AppendUint(append(b, ' '), uint64(sport), 10)
				b = strconv.AppendUint(append(b, " > "...), uint64(dport), 10)
			}
		}
	}
	switch {
	case h.state&stBad != 0:
		b = append(b, " malformed length "...)
		return strconv.AppendInt(b, int64(h.Length), 10)
	case h.body == 0:
		return append(b, " [|ip]"...)
	case h.state&stLater != 0:
		return appendFragment(appendLen(b, h), h)
	}
	b = h.appendTransport(b)
	if h.Fragment() {
		b = appendFragment(b, h)
	}
	return b
}

func appendEnd(b []byte, h *Headers, addr func([]byte) []byte, port uint16) []byte {
	if h.version == 6 {
		b = append(addr(append(b, '[')), ']')
	} else {
		b = addr(b)
	}
	return strconv.AppendUint(append(b, ':'), uint64(port), 10)
}

func appendLen(b []byte, h *Headers) []byte {
	n, ok := h.PayloadLen()
	if !ok {
		b = append(b, " [|"...)
		return append(value.Protocols.Append(b, uint64(h.l4)), ']')
	}
	return strconv.AppendInt(append(b, " len "...), int64(n), 10)
}

func appendFragment(b []byte, h *Headers) []byte {
	off, flags, _ := h.frag()
	b = strconv.AppendInt(append(b, " frag "...), int64(off), 10)
	if flags&ipMF != 0 {
		b = append(b, '+')
	}
	return b
}

// flagLetters are tcpdump's letters for the TCP flags, by bit.
const flagLetters = "FSRP.UEWe"

func (h *Headers) appendTransport(b []byte) []byte {
	number := func(label string, n uint32) {
		b = strconv.AppendUint(append(b, label...), uint64(n), 10)
	}
	switch h.l4 {
	case ProtoTCP:
		t := h.header(ProtoTCP, 20)
		if t == nil {
			break
		}
		flags := binary.BigEndian.Uint16(t[12:]) & 0x1ff
		b = append(b, " ["...)
		at := len(b)
		for i := range len(flagLetters) {
			if flags>>i&1 != 0 {
				b = append(b, flagLetters[i])
			}
		}
		if len(b) == at {
			b = append(b, "none"...)
		}
		b = append(b, ']')
		number(" seq ", binary.BigEndian.Uint32(t[4:]))
		if flags&16 != 0 {
			number(" ack ", binary.BigEndian.Uint32(t[8:]))
		}
		number(" win ", uint32(binary.BigEndian.Uint16(t[14:])))
	case ProtoICMP, ProtoICMPv6:
		t := h.header(h.l4, 2)
		if t == nil {
			break
		}
		number(" type ", uint32(t[0]))
		number(" code ", uint32(t[1]))
		if len(t) >= 8 && icmpHasID(h.l4, t[0]) {
			number(" id ", uint32(binary.BigEndian.Uint16(t[4:])))
			number(" seq ", uint32(binary.BigEndian.Uint16(t[6:])))
		}
	case ProtoSCTP:
		if t := h.header(ProtoSCTP, 12); t != nil {
			b = hex(append(b, " vtag "...), uint64(binary.BigEndian.Uint32(t[4:])))
		}
	case ProtoGRE:
		if t := h.header(ProtoGRE, 4); t != nil {
			b = hex(append(b, " proto "...), uint64(binary.BigEndian.Uint16(t[2:])))
			if key, ok := greKey(h); ok {
				b = hex(append(b, " key "...), key)
			} else if id, ok := greCallID(h); ok {
				number(" call ", uint32(id))
			}
		}
	case ProtoESP:
		if t := h.header(ProtoESP, 8); t != nil {
			b = hex(append(b, " spi "...), uint64(binary.BigEndian.Uint32(t)))
			number(" seq ", binary.BigEndian.Uint32(t[4:]))
		}
	}
	return appendLen(b, h)
}

const hexDigits = "0123456789abcdef"

// AppendHex appends data as lines of 16 bytes in hex and in ASCII, each with
// its offset, ending in a newline:
//
//	0x0000:  4500 003c 1c46 4000 4006 b1e6 ac10 0a63  E..<.F@.@......c
func AppendHex(b, data []byte) []byte {
	for off := 0; off < len(data); off += 16 {
		line := data[off:min(off+16, len(data))]
		b = append(b, "\t0x"...)
		for shift := 12; shift >= 0; shift -= 4 {
			b = append(b, hexDigits[off>>shift&15])
		}
		b = append(b, ": "...)
		for i := range 16 {
			if i%2 == 0 {
				b = append(b, ' ')
			}
			if i < len(line) {
				b = append(b, hexDigits[line[i]>>4], hexDigits[line[i]&15])
			} else {
				b = append(b, "  "...)
			}
		}
		b = append(b, "  "...)
		for _, c := range line {
			b = append(b, printable(c))
		}
		b = append(b, '\n')
	}
	return b
}

func printable(c byte) byte {
	if c < ' ' || c > '~' {
		return '.'
	}
	return c
}

// AppendASCII appends data as lines of text behind a tab each, ending in a
// newline. Bytes that are not printable ASCII become dots, so that what comes
// off the wire cannot steer a terminal.
func AppendASCII(b, data []byte) []byte {
	for len(data) > 0 {
		b = append(b, '\t')
		for len(data) > 0 {
			c := data[0]
			data = data[1:]
			if c == '\n' || c == '\r' && len(data) > 0 && data[0] == '\n' {
				if c == '\r' {
					data = data[1:]
				}
				break
			}
			if c != '\t' {
				c = printable(c)
			}
			b = append(b, c)
		}
		b = append(b, '\n')
	}
	return b
}
