package packettest

import (
	"bytes"
	"fmt"
	"strings"
)

// A Case is a packet that some program would not expect.
type Case struct {
	Name string
	Data []byte
	// Length is the packet's length in the kernel; more than len(Data) means
	// that the copy was cut.
	Length int
}

const (
	a4, b4 = "10.0.0.1", "10.0.0.2"
	a6, b6 = "fd00::1", "fd00::2"
)

// Malformed returns packets that are wrong or strange in every way that we
// know: what a reader of packets must survive, and a queue must give a verdict.
func Malformed() []Case {
	var out []Case
	// Each case has bytes of its own: edits are made in place.
	add := func(name string, b []byte) { out = append(out, Case{name, bytes.Clone(b), len(b)}) }
	edit := func(name string, b []byte, f func(b []byte)) {
		b = bytes.Clone(b)
		f(b)
		add(name, b)
	}
	cut := func(name string, b []byte, n int) {
		out = append(out, Case{fmt.Sprintf("%s, copy cut to %d", name, n), bytes.Clone(b[:n]), len(b)})
	}
	tcp4 := Packet{Src: a4, Dst: b4, Proto: 6, L4: TCP(40000, 22, 2, []byte{2, 4, 5, 180, 4, 2, 1, 3, 3, 7},
		"hello")}.Bytes()
	udp4 := Packet{Src: a4, Dst: b4, Proto: 17, L4: UDP(40000, 53, "payload")}.Bytes()
	tcp6 := Packet{Src: a6, Dst: b6, Proto: 6, L4: TCP(40000, 22, 2, nil, "hello")}.Bytes()
	udp6 := Packet{Src: a6, Dst: b6, Proto: 17, L4: UDP(40000, 53, "payload")}.Bytes()
	ext6 := Packet{Src: a6, Dst: b6, Proto: 17, Ext: []Ext{HopByHop(), DstOpts(), Routing(0, 0, a6),
		Fragment(0, false, 7), DstOpts()},
		L4: UDP(40000, 53, "payload")}.Bytes()

	// Not IP at all.
	add("empty", nil)
	for _, n := range []byte{0x00, 0x10, 0x4f, 0x45, 0x60, 0xf0} {
		add(fmt.Sprintf("one byte %#02x", n), []byte{n})
	}
	add("version 0", make([]byte, 64))
	edit("version 5", tcp4, func(b []byte) { b[0] = 0x55 })
	edit("version 15", tcp4, func(b []byte) { b[0] = 0xf5 })
	edit("version 6 in an IPv4 packet", tcp4, func(b []byte) { b[0] = 0x65 })
	edit("version 4 in an IPv6 packet", tcp6, func(b []byte) { b[0] = 0x45 })
	add("ARP", []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2})
	add("all ones", []byte(strings.Repeat("\xff", 100)))

	// Copies that end anywhere.
	for _, p := range []struct {
		name string
		b    []byte
	}{{"tcp4", tcp4}, {"udp4", udp4}, {"tcp6", tcp6}, {"ext6", ext6}} {
		for n := range len(p.b) {
			cut(p.name, p.b, n)
			add(fmt.Sprintf("%s, packet ends at %d", p.name, n), p.b[:n])
		}
	}

	// IPv4 lengths and options.
	for ihl := range byte(16) {
		if ihl != 5 {
			edit(fmt.Sprintf("header length %d", ihl*4), tcp4, func(b []byte) { b[0] = 0x40 | ihl })
		}
	}
	for _, total := range []uint16{0, 1, 19, 20, 21, 39, 0xffff, uint16(len(tcp4)) - 1, uint16(len(tcp4)) + 1} {
		edit(fmt.Sprintf("total length %d", total), tcp4, func(b []byte) { be.PutUint16(b[2:], total) })
	}
	for _, o := range []struct {
		name string
		opt  []byte
	}{
		{"of length 0", []byte{7, 0, 1, 1}},
		{"of length 1", []byte{7, 1, 1, 1}},
		{"longer than the header", []byte{7, 40, 4, 0}},
		{"over one another", []byte{131, 11, 4, 131, 11, 4, 10, 0, 0, 1, 0, 0}},
		{"source route past its end", []byte{137, 7, 200, 10, 0, 0, 9, 0}},
		{"source route to go", []byte{131, 7, 4, 10, 0, 0, 9, 0}},
		{"forty bytes", append([]byte{68, 40, 5, 0}, make([]byte, 36)...)},
		{"no more than a type", []byte{1, 1, 1, 7}},
	} {
		add("IPv4 options "+o.name, Packet{Src: a4, Dst: b4, Proto: 17, Options: o.opt, L4: UDP(1, 2, "x")}.Bytes())
	}
	for _, p := range []byte{0, 41, 43, 44, 59, 60, 61, 99, 143, 253, 254, 255} {
		edit(fmt.Sprintf("IPv4 protocol %d", p), udp4, func(b []byte) { b[9] = p })
		edit(fmt.Sprintf("IPv6 next header %d", p), udp6, func(b []byte) { b[6] = p })
	}

	// Fragments.
	for _, f := range []struct {
		name string
		bits uint16
	}{{"first", 0x2000}, {"tiny offset", 1}, {"middle", 0x2001}, {"last", 185}, {"beyond 64 KiB", 0x1fff},
		{"reserved flag", 0x8000}, {"all bits", 0xffff}} {
		edit("IPv4 fragment, "+f.name, udp4, func(b []byte) { be.PutUint16(b[6:], f.bits) })
	}
	edit("IPv4 first fragment of eight bytes of TCP", tcp4[:28], func(b []byte) {
		be.PutUint16(b[2:], 28)
		be.PutUint16(b[6:], 0x2000)
	})
	for _, f := range []struct {
		name string
		x    []Ext
	}{
		{"atomic", []Ext{Fragment(0, false, 1)}}, {"first", []Ext{Fragment(0, true, 1)}}, {"last", []Ext{Fragment(1480, false, 1)}},
		{"beyond 64 KiB", []Ext{Fragment(0xfff8, true, 1)}}, {"twice", []Ext{Fragment(0, true, 1), Fragment(8, true, 2)}},
		{"later, in destination options", []Ext{Fragment(8, true, 1), DstOpts()}},
	} {
		add("IPv6 fragment, "+f.name, Packet{Src: a6, Dst: b6, Proto: 17, Ext: f.x,
			L4: UDP(40000, 53, "payload")}.Bytes())
	}

	// IPv6 extension headers.
	for _, n := range []int{8, 31, 32, 33, 200} {
		for _, typ := range []uint8{0, 43, 44, 60, 51} {
			x := make([]Ext, n)
			for i := range x {
				switch x[i] = DstOpts(); typ {
				case 51:
					x[i] = AH(1, uint32(i))
				case 44:
					x[i] = Fragment(0, false, uint32(i))
				default:
					x[i].Type = typ
				}
			}
			add(fmt.Sprintf("%d headers of type %d", n, typ),
				Packet{Src: a6, Dst: b6, Proto: 6, Ext: x, L4: TCP(40000, 22, 2, nil, "")}.Bytes())
		}
	}
	for _, at := range []int{1, 8, 255} {
		edit(fmt.Sprintf("hop-by-hop options of %d bytes", (at+1)*8), ext6, func(b []byte) { b[41] = byte(at) })
	}
	chain := func(name string, x ...Ext) {
		add(name, Packet{Src: a6, Dst: b6, Proto: 17, Ext: x, L4: UDP(40000, 53, "payload")}.Bytes())
	}
	chain("hop-by-hop behind others", DstOpts(), HopByHop())
	chain("option over the header's end", HopByHop(5, 200, 0, 0))
	chain("routing without addresses", Routing(0, 5))
	chain("routing type 0 to go", Routing(0, 1, "fd00::9"))
	chain("routing type 2 to go", Routing(2, 1, "fd00::9"))
	chain("routing type 3 to go", Ext{43, []byte{2, 3, 1, 0x88, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
		15, 16}})
	chain("routing type 3, absurd compression", Ext{43, []byte{0, 3, 1, 0xff, 0xff, 0xff, 0xff}})
	chain("segment routing to go", Routing(4, 1, "fd00::9", "fd00::8"))
	chain("routing of an unknown type", Routing(77, 3, "fd00::9"))
	chain("mobility", Ext{135, make([]byte, 7)})
	chain("no next header", Ext{59, make([]byte, 7)})
	chain("HIP and shim6", Ext{139, make([]byte, 7)}, Ext{140, make([]byte, 7)})
	chain("home address", DstOpts(append([]byte{0xc9, 16}, make([]byte, 16)...)...))
	chain("authentication header", AH(1, 2))
	edit("authentication header of length 0", Packet{Src: a6, Dst: b6, Proto: 17, Ext: []Ext{AH(1, 2)},
		L4: UDP(1, 2, "x")}.Bytes(), func(b []byte) { b[41] = 0 })
	edit("authentication header of length 255", Packet{Src: a4, Dst: b4, Proto: 17, Ext: []Ext{AH(1, 2)},
		L4: UDP(1, 2, "x")}.Bytes(), func(b []byte) { b[21] = 255 })
	for _, n := range []uint16{0, 1, 7, 0xffff} {
		edit(fmt.Sprintf("payload length %d", n), udp6, func(b []byte) { be.PutUint16(b[4:], n) })
	}

	// Jumbograms (RFC 2675), right and wrong.
	big := strings.Repeat("jumbo ", 12000)
	jumbogram := Packet{Src: a6, Dst: b6, Proto: 17, Ext: []Ext{HopByHop(0xc2, 4, 0, 1, 0x19, 0x90)},
		L4: UDP(40000, 53, big)}.Bytes()
	be.PutUint32(jumbogram[44:], uint32(len(jumbogram)-40))
	be.PutUint16(jumbogram[4:], 0)
	be.PutUint16(jumbogram[52:], 0)
	add("jumbogram", jumbogram)
	cut("jumbogram", jumbogram, 100)
	edit("jumbogram that is short", jumbogram[:100], func([]byte) {})
	edit("jumbogram of a small length", jumbogram[:100], func(b []byte) { be.PutUint32(b[44:], 60) })
	edit("jumbogram of length 2^32-1", jumbogram[:100], func(b []byte) { be.PutUint32(b[44:], 0xffffffff) })
	edit("jumbo option beside a payload length", jumbogram[:100], func(b []byte) { be.PutUint16(b[4:], 60) })
	bigTCP := Packet{Src: a6, Dst: b6, Proto: 6, L4: TCP(40000, 22, 16, nil, big)}.Bytes()
	add("big TCP over IPv6", bigTCP)
	cut("big TCP over IPv6", bigTCP, 65531)
	bigTCP4 := Packet{Src: a4, Dst: b4, Proto: 6, L4: TCP(40000, 22, 16, nil, big)}.Bytes()
	add("big TCP over IPv4", bigTCP4)
	cut("big TCP over IPv4", bigTCP4, 65531)

	// Transport headers.
	for off := range byte(16) {
		if off != 5 {
			edit(fmt.Sprintf("TCP data offset %d", off*4), tcp4, func(b []byte) { b[32] = off << 4 })
		}
	}
	for _, o := range []struct {
		name string
		opt  []byte
	}{
		{"of length 0", []byte{2, 0, 5, 180}}, {"of length 1", []byte{3, 1, 7, 0}},
		{"longer than the header", []byte{8, 10, 0, 0}}, {"MSS of a wrong length", []byte{2, 3, 5, 0}},
		{"SACK of no block", []byte{5, 2, 0, 0}}, {"SACK of half a block", []byte{5, 6, 0, 0, 0, 1}},
		{"a type and no length", []byte{1, 1, 1, 8}}, {"twice", []byte{2, 4, 1, 1, 2, 4, 2, 2}},
		{"behind the end", []byte{0, 2, 4, 5, 180, 0, 0, 0}},
	} {
		add("TCP options "+o.name, Packet{Src: a4, Dst: b4, Proto: 6, L4: TCP(1, 2, 2, o.opt, "")}.Bytes())
	}
	for _, f := range []uint16{0, 1, 3, 6, 0x1ff, 0xfff} {
		add(fmt.Sprintf("TCP flags %#03x", f), Packet{Src: a4, Dst: b4, Proto: 6, L4: TCP(1, 2, f, nil, "")}.Bytes())
	}
	for _, n := range []uint16{0, 1, 7, 8, 9, 14, 16, 0xffff} {
		edit(fmt.Sprintf("UDP length %d", n), udp4, func(b []byte) { be.PutUint16(b[24:], n) })
		edit(fmt.Sprintf("UDP length %d over IPv6", n), udp6, func(b []byte) { be.PutUint16(b[44:], n) })
	}
	edit("UDP without checksum", udp4, func(b []byte) { be.PutUint16(b[26:], 0) })
	edit("UDP without checksum over IPv6", udp6, func(b []byte) { be.PutUint16(b[46:], 0) })
	add("port 0", Packet{Src: a4, Dst: b4, Proto: 17, L4: UDP(0, 0, "")}.Bytes())
	add("port 0 of TCP", Packet{Src: a6, Dst: b6, Proto: 6, L4: TCP(0, 0, 2, nil, "")}.Bytes())
	add("from itself to itself", Packet{Src: a4, Dst: a4, Proto: 6, L4: TCP(7, 7, 2, nil, "")}.Bytes())
	add("broadcast source", Packet{Src: "255.255.255.255", Dst: b4, Proto: 17, L4: UDP(1, 2, "x")}.Bytes())
	add("addresses of zeros", Packet{Src: "0.0.0.0", Dst: "0.0.0.0", Proto: 17, L4: UDP(1, 2, "x")}.Bytes())
	add("mapped addresses", Packet{Src: "::ffff:10.0.0.1", Dst: "::ffff:10.0.0.2", Proto: 17,
		L4: UDP(1, 2, "x")}.Bytes())
	for _, p := range []struct {
		name  string
		proto uint8
	}{{"ICMP", 1}, {"DCCP", 33}, {"GRE", 47}, {"ESP", 50}, {"ICMPv6", 58}, {"SCTP", 132}, {"UDP-Lite", 136}} {
		for n := range 17 {
			l4 := []byte(strings.Repeat("\xff", n))
			src, dst := a4, b4
			if p.proto == 58 {
				src, dst = a6, b6
			}
			add(fmt.Sprintf("%d bytes of %s", n, p.name), Packet{Src: src, Dst: dst, Proto: p.proto, L4: l4}.Bytes())
		}
	}
	add("ICMP error about nothing", Packet{Src: a4, Dst: b4, Proto: 1, L4: ICMP(3, 3, 0, 0, "")}.Bytes())
	add("ICMP error about an error", Packet{Src: a4, Dst: b4, Proto: 1, L4: ICMP(3, 3, 0, 0,
		string(Packet{Src: b4, Dst: a4, Proto: 1, L4: ICMP(3, 3, 0, 0, string(tcp4))}.Bytes()))}.Bytes())
	nested := tcp4
	for range 50 {
		nested = Packet{Src: a4, Dst: b4, Proto: 4, L4: nested}.Bytes()
	}
	add("fifty tunnels", nested)
	add("padding behind the packet", append(append([]byte(nil), udp4...), make([]byte, 18)...))
	return out
}
