package packet_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"nfctl/internal/field"
	"nfctl/internal/packet"
	"nfctl/internal/packet/packettest"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

const (
	a4, b4 = "10.0.0.1", "10.0.0.2"
	a6, b6 = "fd00::1", "fd00::2"
)

func parse(b []byte) *packet.Headers {
	h := &packet.Headers{}
	h.Parse(b, 0)
	return h
}

var registry = field.New(packet.Rows)

// load writes a field's value as the test tables have it; "-" is absence.
func load(h *packet.Headers, path string) string {
	r := registry.Row(path)
	if r == nil {
		return "no such field"
	}
	switch {
	case r.IP != nil:
		if a, ok := r.IP(h); ok {
			return a.String()
		}
	case r.Data != nil:
		if b, ok := r.Data(h); ok {
			return fmt.Sprintf("%q", b)
		}
	case r.Num != nil:
		n, ok := r.Num(h)
		if !ok {
			break
		}
		switch r.Kind {
		case field.Enum:
			return string(r.Names.Append(nil, n))
		case field.Flags:
			var w []string
			for _, f := range r.Names.List() {
				if n&f.Num != 0 {
					w = append(w, f.Word)
				}
			}
			return strings.Join(w, ",")
		}
		if r.AppendNum != nil {
			return string(r.AppendNum(nil, n))
		}
		return fmt.Sprint(n)
	}
	return "-"
}

func pkt(proto uint8, l4 []byte, ext ...packettest.Ext) []byte {
	return packettest.Packet{Src: a4, Dst: b4, Proto: proto, L4: l4, Ext: ext}.Bytes()
}

func pkt6(proto uint8, l4 []byte, ext ...packettest.Ext) []byte {
	return packettest.Packet{Src: a6, Dst: b6, Proto: proto, L4: l4, Ext: ext}.Bytes()
}

func patched(b []byte, off int, bytes ...byte) []byte {
	copy(b[off:], bytes)
	return b
}

var options = []byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 1, 3, 3, 7}

// fieldTests has packets, and of each what its fields are: "path value …".
var fieldTests = []struct {
	name string
	b    []byte
	want string
	text string
}{
	{"tcp", pkt(6, packettest.TCP(40000, 22, 2, options, "")),
		`ip.src 10.0.0.1 ip.dst 10.0.0.2 ip.proto tcp ip.ttl 64 ip.hoplimit 64 ip.dscp 0 ip.ecn 0 ip.id 4660 ip.flags DF ip.fragment 0
		 ip.fragment_offset - ip.length 60 tcp.sport 40000 tcp.dport 22 tcp.flags SYN tcp.seq 1 tcp.ack 2 tcp.window 65535 tcp.mss 1460
		 tcp.wscale 7 tcp.sack_permitted 1 tcp.sack - tcp.ts 7 tcp.ts_echo 9 udp.sport - udp.dport - icmp.type - sport 40000 dport 22 payload ""`,
		"tcp 10.0.0.1:40000 > 10.0.0.2:22 [S] seq 1 win 65535 len 0"},
	{"tcp data", pkt(6, packettest.TCP(22, 40000, 0x118, []byte{1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4}, "data")),
		`tcp.flags PSH,ACK,NS tcp.mss - tcp.wscale - tcp.sack_permitted - tcp.sack 2 tcp.ts - payload "data"`,
		"tcp 10.0.0.1:22 > 10.0.0.2:40000 [P.e] seq 1 ack 2 win 65535 len 4"},
	{"tcp over IPv6", patched(pkt6(6, packettest.TCP(1, 2, 0x12, nil, "x")), 0, 0x6b, 0x9f),
		`ip.src fd00::1 ip.dst fd00::2 ip.proto tcp ip.ttl 64 ip.dscp 46 ip.ecn 1 ip.id - ip.flags - ip.fragment 0 ip.length 61
		 tcp.flags SYN,ACK tcp.sack_permitted 0 payload "x"`,
		"tcp [fd00::1]:1 > [fd00::2]:2 [S.] seq 1 ack 2 win 65535 len 1"},
	{"udp", patched(pkt(17, packettest.UDP(53, 5353, "query")), 1, 0xb9),
		`ip.proto udp ip.dscp 46 ip.ecn 1 udp.sport 53 udp.dport 5353 udp.length 13 tcp.dport - payload "query"`,
		"udp 10.0.0.1:53 > 10.0.0.2:5353 len 5"},
	{"udp with bytes behind", patched(pkt(17, packettest.UDP(53, 5353, "queryrest")), 24, 0, 13),
		`udp.length 13 payload "query"`, "udp 10.0.0.1:53 > 10.0.0.2:5353 len 5"},
	{"icmp", pkt(1, packettest.ICMP(8, 0, 513, 1, "ping")),
		`icmp.type 8 icmp.code 0 icmp.id 513 icmp.seq 1 icmpv6.type - payload "ping" sport -`,
		"icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513 seq 1 len 4"},
	{"icmp and padding", append(pkt(1, packettest.ICMP(8, 0, 513, 1, "ping")), 0, 0, 0),
		`ip.length 32 payload "ping"`, "icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513 seq 1 len 4"},
	{"ports behind the packet's end", patched(pkt(17, packettest.UDP(1, 2, "x")), 2, 0, 22),
		`udp.sport 1 udp.dport - sport - dport -`, "udp 10.0.0.1 > 10.0.0.2 [|udp]"},
	{"icmp error", pkt(1, packettest.ICMP(3, 1, 513, 1, "")),
		`icmp.type 3 icmp.code 1 icmp.id - icmp.seq -`, "icmp 10.0.0.1 > 10.0.0.2 type 3 code 1 len 0"},
	{"icmpv6", pkt6(58, packettest.ICMP(129, 0, 5, 6, "p")),
		`ip.proto icmpv6 icmpv6.type 129 icmpv6.code 0 icmpv6.id 5 icmpv6.seq 6 icmp.type - payload "p"`,
		"icmpv6 fd00::1 > fd00::2 type 129 code 0 id 5 seq 6 len 1"},
	{"sctp", pkt(132, packettest.SCTP(1000, 2000, 0xabcd, "12")),
		`ip.proto sctp sctp.sport 1000 sctp.dport 2000 sctp.vtag 0xabcd dport 2000`,
		"sctp 10.0.0.1:1000 > 10.0.0.2:2000 vtag 0xabcd len 20"},
	{"dccp", pkt(33, []byte{0, 5, 0, 6, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'd'}),
		`ip.proto dccp dccp.sport 5 dccp.dport 6 payload "d"`, "dccp 10.0.0.1:5 > 10.0.0.2:6 len 1"},
	{"udplite", pkt(136, packettest.UDP(7, 8, "lite")),
		`ip.proto udplite udplite.sport 7 udplite.dport 8 udp.dport - payload "lite"`, "udplite 10.0.0.1:7 > 10.0.0.2:8 len 4"},
	{"gre", pkt(47, []byte{0xa0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 3, 0xe8, 'i', 'p'}),
		`ip.proto gre gre.proto 0x800 gre.key 0x3e8 gre.call_id - payload "ip"`, "gre 10.0.0.1 > 10.0.0.2 proto 0x800 key 0x3e8 len 2"},
	{"pptp", pkt(47, []byte{0x30, 0x81, 0x88, 0x0b, 0, 2, 1, 0, 0, 0, 0, 1, 0, 0, 0, 2, 'p', 'p'}),
		`gre.key - gre.call_id 256 payload "pp"`, "gre 10.0.0.1 > 10.0.0.2 proto 0x880b call 256 len 2"},
	{"esp", pkt(50, []byte{0, 0, 1, 0, 0, 0, 0, 9, 'e'}),
		`ip.proto esp esp.spi 0x100 esp.seq 9 payload "e"`, "esp 10.0.0.1 > 10.0.0.2 spi 0x100 seq 9 len 1"},
	{"ah", pkt(6, packettest.TCP(40000, 22, 2, nil, "hi"), packettest.AH(0x200, 3)),
		`ip.proto ah ah.spi 0x200 ah.seq 3 tcp.dport 22 dport 22 payload "hi"`,
		"ah 10.0.0.1 > 10.0.0.2 spi 0x200 tcp 40000 > 22 [S] seq 1 win 65535 len 2"},
	{"unknown", pkt(99, []byte("any")), `ip.proto 99 payload "any" sport -`, "99 10.0.0.1 > 10.0.0.2 len 3"},
	{"extension headers", pkt6(17, packettest.UDP(1, 2, "x"), packettest.HopByHop(), packettest.DstOpts(5, 2, 0, 0),
		packettest.Routing(0, 0, a6, b6), packettest.Fragment(0, false, 77), packettest.DstOpts()),
		`ip.proto udp udp.dport 2 ip.id 77 ip.flags none ip.fragment 0 ip.fragment_offset - payload "x"`, "udp [fd00::1]:1 > [fd00::2]:2 len 1"},
	{"first fragment", patched(pkt(17, packettest.UDP(1, 2, "xy")), 6, 0x20, 0),
		`ip.fragment 1 ip.fragment_offset 0 ip.flags MF udp.dport 2 dport 2`, "udp 10.0.0.1:1 > 10.0.0.2:2 len 2 frag 0+"},
	{"last fragment", patched(pkt(17, packettest.UDP(1, 2, "")), 6, 0, 185),
		`ip.proto udp ip.fragment 1 ip.fragment_offset 1480 ip.flags none udp.dport - dport - payload "\x00\x01\x00\x02\x00\b\xeb\xd8"`,
		"udp 10.0.0.1 > 10.0.0.2 len 8 frag 1480"},
	{"IPv6 first fragment", pkt6(17, packettest.UDP(1, 2, "xy"), packettest.Fragment(0, true, 9)),
		`ip.fragment 1 ip.fragment_offset 0 ip.flags MF ip.id 9 udp.dport 2`, "udp [fd00::1]:1 > [fd00::2]:2 len 2 frag 0+"},
	{"IPv6 later fragment", pkt6(17, packettest.UDP(1, 2, "xy"), packettest.Fragment(1480, true, 9)),
		`ip.proto udp ip.fragment 1 ip.fragment_offset 1480 ip.flags MF udp.dport -`, "udp fd00::1 > fd00::2 len 10 frag 1480+"},
	{"two hundred headers", pkt6(17, packettest.UDP(1, 2, "x"), slicesOf(200, packettest.DstOpts())...),
		`ip.src fd00::1 ip.proto - udp.dport - dport - payload -`, "* fd00::1 > fd00::2 malformed length 1649"},
	{"bad header length", patched(pkt(17, packettest.UDP(1, 2, "x")), 0, 0x4f, 0),
		`ip.src 10.0.0.1 ip.proto udp udp.dport - payload -`, "udp 10.0.0.1 > 10.0.0.2 malformed length 29"},
	{"no IP", []byte{0, 1, 8, 0}, `ip.src - ip.proto - ip.length - ip.ttl - ip.dscp - ip.fragment - ip.id - payload -`, "packet length 4"},
}

func slicesOf(n int, x packettest.Ext) (out []packettest.Ext) {
	for range n {
		out = append(out, x)
	}
	return out
}

// check compares fields with "path value path value …"; values in quotes may
// hold spaces, "none" is an empty list of flags.
func check(t *testing.T, name string, h *packet.Headers, want string) {
	t.Helper()
	for want = strings.TrimSpace(want); want != ""; want = strings.TrimSpace(want) {
		path, rest := word(want)
		value, rest := word(rest)
		if strings.HasPrefix(value, `"`) {
			for strings.Count(value, `"`) < 2 {
				var more string
				more, rest = word(rest)
				value += " " + more
			}
		}
		if value == "none" {
			value = ""
		}
		if got := load(h, path); got != value {
			t.Errorf("%s: %s is %s, want %s", name, path, got, value)
		}
		want = rest
	}
}

// word splits text behind its first word.
func word(s string) (first, rest string) {
	if i := strings.IndexAny(s, " \n\t"); i >= 0 {
		return s[:i], strings.TrimSpace(s[i:])
	}
	return s, ""
}

func TestFields(t *testing.T) {
	for _, tt := range fieldTests {
		h := parse(tt.b)
		check(t, tt.name, h, tt.want)
		if got := string(packet.AppendText(nil, h)); got != tt.text {
			t.Errorf("%s: text\n got %s\nwant %s", tt.name, got, tt.text)
		}
	}
}

// A rows' parser must take what the row itself writes.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range registry.Rows() {
		if seen[r.Path] {
			t.Errorf("%s: twice", r.Path)
		}
		seen[r.Path] = true
		loaders := 0
		for _, l := range []bool{r.Num != nil, r.IP != nil, r.Data != nil} {
			if l {
				loaders++
			}
		}
		if loaders != 1 || r.Doc == "" {
			t.Errorf("%s: %d loaders, doc %q", r.Path, loaders, r.Doc)
		}
		if r.Num != nil && r.Max == 0 {
			t.Errorf("%s: no maximum", r.Path)
		}
		if r.Parse != nil && r.Num != nil {
			if s, err := r.Parse("7"); err != nil || s.Nums[0].Lo != 7 {
				t.Errorf("%s: parse 7: %v %v", r.Path, s, err)
			}
		}
	}
	for path, text := range map[string]string{"icmp.type": "Echo_Request", "ip.dscp": "EF", "tcp.dport": "ssh",
		"icmpv6.type": "1-3"} {
		if _, err := registry.Row(path).Parse(text); err != nil {
			t.Errorf("%s %s: %v", path, text, err)
		}
	}
}

func TestTruncatedCopies(t *testing.T) {
	b := pkt(6, packettest.TCP(40000, 22, 2, options, "payload"))
	h := &packet.Headers{}
	for _, tt := range []struct {
		n            int
		ports, flags bool
		payload      string
		text         string
	}{
		{0, false, false, "-", "packet length 67"},
		{19, false, false, "-", "packet length 67"},
		{20, false, false, "-", "tcp 10.0.0.1 > 10.0.0.2 [|tcp]"},
		{23, false, false, "-", "tcp 10.0.0.1 > 10.0.0.2 [|tcp]"},
		{24, true, false, "-", "tcp 10.0.0.1:40000 > 10.0.0.2:22 [|tcp]"},
		{34, true, true, "-", "tcp 10.0.0.1:40000 > 10.0.0.2:22 [|tcp]"},
		{59, true, true, "-", "tcp 10.0.0.1:40000 > 10.0.0.2:22 [S] seq 1 win 65535 [|tcp]"},
		{64, true, true, `"payl"`, "tcp 10.0.0.1:40000 > 10.0.0.2:22 [S] seq 1 win 65535 len 7"},
	} {
		h.Parse(b[:tt.n:tt.n], len(b))
		_, _, ports := h.Ports()
		flags := load(h, "tcp.flags") == "SYN"
		if ports != tt.ports || flags != tt.flags || load(h, "payload") != tt.payload || !h.Truncated() {
			t.Errorf("cut to %d: ports %v flags %v payload %s truncated %v", tt.n, ports, flags, load(h, "payload"),
				h.Truncated())
		}
		if h.Unreached() == ports {
			t.Errorf("cut to %d: unreached %v", tt.n, h.Unreached())
		}
		if got := string(packet.AppendText(nil, h)); got != tt.text {
			t.Errorf("cut to %d:\n got %s\nwant %s", tt.n, got, tt.text)
		}
	}
}

// touch uses everything that reads a packet.
func touch(h *packet.Headers) {
	for _, r := range registry.Rows() {
		r.Has(h)
	}
	packet.AppendText(nil, h)
	h.PayloadLen()
	h.Undecodable()
}

func TestMalformed(t *testing.T) {
	cases := packettest.Malformed()
	if len(cases) < 500 {
		t.Errorf("only %d cases", len(cases))
	}
	var ed packet.Editor
	edits := allEdits(t)
	for _, c := range cases {
		h := &packet.Headers{}
		h.Parse(c.Data, c.Length)
		touch(h)
		packet.AppendLayers(nil, c.Data)
		for _, e := range edits {
			h.Parse(bytes.Clone(c.Data), c.Length)
			meta := packet.Meta{}
			if ed.Apply(h, meta, e) == nil {
				if _, err := ed.Finish(h, meta); err == nil && ed.Changed() {
					t.Errorf("%s: %s: still changed", c.Name, e.Text)
				}
			}
			ed.Reset()
		}
	}
}

func TestLimits(t *testing.T) {
	for n, ok := range map[int]bool{1: true, 8: true, 31: true, 32: false, 200: false} {
		h := parse(pkt6(6, packettest.TCP(1, 22, 2, nil, ""), slicesOf(n, packettest.HopByHop())...))
		if _, dport, got := h.Ports(); got != ok || ok != (dport == 22) || h.Undecodable() == ok {
			t.Errorf("%d headers: ports %v, undecodable %v", n, got, h.Undecodable())
		}
	}
	for name, want := range map[string]string{
		"jumbogram": "72056", "big TCP over IPv6": "72060", "big TCP over IPv4": "72040",
		"jumbogram, copy cut to 100": "72056", "big TCP over IPv6, copy cut to 65531": "72060",
	} {
		found := false
		for _, c := range packettest.Malformed() {
			if c.Name == name {
				found = true
				h := &packet.Headers{}
				h.Parse(c.Data, c.Length)
				if got := load(h, "ip.length"); got != want || load(h, "dport") == "-" {
					t.Errorf("%s: length %s, want %s; dport %s", name, got, want, load(h, "dport"))
				}
			}
		}
		if !found {
			t.Errorf("no case %q", name)
		}
	}
}

func TestParseAllocates(t *testing.T) {
	b := pkt6(6, packettest.TCP(40000, 22, 2, options, "x"), packettest.HopByHop())
	var h packet.Headers
	var buf []byte
	if n := testing.AllocsPerRun(100, func() {
		h.Parse(b, 0)
		h.Ports()
		buf = packet.AppendText(buf[:0], &h)
		buf = packet.AppendHex(buf[:0], b)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestDumps(t *testing.T) {
	if got, want := string(packet.AppendHex(nil, []byte("GET / HTTP/1.1\r\n\x1b[2J"))),
		"\t0x0000:  4745 5420 2f20 4854 5450 2f31 2e31 0d0a  GET / HTTP/1.1..\n"+
			"\t0x0010:  1b5b 324a                                .[2J\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got, want := string(packet.AppendASCII(nil, []byte("GET /\r\nHost:\tx\n\n\x1b[2J\xff\r."))),
		"\tGET /\n\tHost:\tx\n\t\n\t.[2J...\n"; got != want {
		t.Errorf("got %q want %q", got, want)
	}
}

// judge compares what we read with what google/gopacket reads, where it reads
// the packet without an error.
func judge(t *testing.T, b []byte) {
	t.Helper()
	h := parse(b)
	if h.Undecodable() || h.Truncated() || load(h, "ip.length") != fmt.Sprint(len(b)) {
		return // behind hop-by-hop options gopacket reads past the packet's end
	}
	first := layers.LayerTypeIPv4
	if h.Version() == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(b, first, gopacket.DecodeOptions{NoCopy: true, Lazy: false})
	same := func(path, want string) {
		t.Helper()
		if got := load(h, path); got != want {
			t.Errorf("%s is %.40s, gopacket has %.40s: %x", path, got, want, b[:min(len(b), 120)])
		}
	}
	// Only the outermost of each: a tunnel's inner headers are not ours.
	for i, l := range p.Layers() {
		if len(l.LayerContents()) == 0 {
			return // gopacket gave up on it
		}
		switch l := l.(type) {
		case *layers.IPv4:
			if i != 0 {
				return
			}
			if len(b) > 0xffff {
				return // gopacket does not know BIG TCP
			}
			if l.FragOffset == 0 && l.Protocol == layers.IPProtocolIPv6HopByHop {
				return // an IPv6 header in IPv4: gopacket goes on, we do not
			}
			same("ip.src", addr(l.SrcIP))
			same("ip.dst", addr(l.DstIP))
			same("ip.ttl", fmt.Sprint(l.TTL))
			same("ip.id", fmt.Sprint(l.Id))
			same("ip.dscp", fmt.Sprint(l.TOS>>2))
			same("ip.length", fmt.Sprint(l.Length))
			same("ip.fragment", map[bool]string{true: "1", false: "0"}[l.FragOffset != 0 ||
				l.Flags&layers.IPv4MoreFragments != 0])
			switch l.Protocol {
			case layers.IPProtocolIPv6Routing, layers.IPProtocolIPv6Fragment, layers.IPProtocolIPv6Destination:
				return
			}
		case *layers.IPv6:
			if i != 0 {
				return
			}
			same("ip.src", addr(l.SrcIP))
			same("ip.dst", addr(l.DstIP))
			same("ip.hoplimit", fmt.Sprint(l.HopLimit))
			same("ip.dscp", fmt.Sprint(l.TrafficClass>>2))
			same("ip.ecn", fmt.Sprint(l.TrafficClass&3))
		case *layers.TCP:
			same("tcp.sport", fmt.Sprint(uint16(l.SrcPort)))
			same("tcp.dport", fmt.Sprint(uint16(l.DstPort)))
			same("tcp.seq", fmt.Sprint(l.Seq))
			same("tcp.ack", fmt.Sprint(l.Ack))
			same("tcp.window", fmt.Sprint(l.Window))
			var w []string
			for _, f := range []struct {
				on   bool
				name string
			}{{l.FIN, "FIN"}, {l.SYN, "SYN"}, {l.RST, "RST"}, {l.PSH, "PSH"}, {l.ACK, "ACK"}, {l.URG, "URG"},
				{l.ECE, "ECE"}, {l.CWR, "CWR"}, {l.NS, "NS"}} {
				if f.on {
					w = append(w, f.name)
				}
			}
			same("tcp.flags", strings.Join(w, ","))
			if len(l.Contents) == int(l.DataOffset)*4 { // else gopacket gave up
				same("payload", fmt.Sprintf("%q", l.Payload))
			}
			return
		case *layers.UDP:
			same("udp.sport", fmt.Sprint(uint16(l.SrcPort)))
			same("udp.dport", fmt.Sprint(uint16(l.DstPort)))
			same("udp.length", fmt.Sprint(l.Length))
			return
		case *layers.ICMPv4:
			same("icmp.type", fmt.Sprint(l.TypeCode.Type()))
			same("icmp.code", fmt.Sprint(l.TypeCode.Code()))
			return
		case *layers.ICMPv6:
			same("icmpv6.type", fmt.Sprint(l.TypeCode.Type()))
			return
		case *layers.SCTP:
			same("sctp.sport", fmt.Sprint(uint16(l.SrcPort)))
			same("sctp.dport", fmt.Sprint(uint16(l.DstPort)))
			return
		case *layers.IPv6HopByHop, *layers.IPv6Routing, *layers.IPv6Destination, *layers.IPv6Fragment:
			// their contents have no fields of ours
		default:
			return
		}
	}
}

func addr(b []byte) string {
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}

func TestAgainstGopacket(t *testing.T) {
	for _, tt := range fieldTests {
		t.Run(tt.name, func(t *testing.T) { judge(t, tt.b) })
	}
	for _, c := range packettest.Malformed() {
		if c.Length == len(c.Data) {
			t.Run(c.Name, func(t *testing.T) { judge(t, c.Data) })
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range fieldTests {
		f.Add(tt.b, len(tt.b))
	}
	for i, c := range packettest.Malformed() {
		if i%7 == 0 && len(c.Data) < 2000 {
			f.Add(c.Data, c.Length)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, length int) {
		h := &packet.Headers{}
		h.Parse(b, length)
		touch(h)
		judge(t, b)
	})
}

func BenchmarkParse(b *testing.B) {
	for _, tt := range []struct {
		name string
		b    []byte
	}{
		{"tcp4", pkt(6, packettest.TCP(40000, 22, 2, options, "x"))},
		{"udp6", pkt6(17, packettest.UDP(1, 22, "x"))},
		{"ext6", pkt6(17, packettest.UDP(1, 22, "x"), packettest.HopByHop(), packettest.DstOpts())},
	} {
		b.Run(tt.name, func(b *testing.B) {
			var h packet.Headers
			n := 0
			for b.Loop() {
				h.Parse(tt.b, 0)
				if _, dport, ok := h.Ports(); ok && dport == 22 {
					n++
				}
			}
			if n != b.N {
				b.Fatal("wrong")
			}
		})
	}
	h := parse(pkt(6, packettest.TCP(40000, 22, 2, options, "x")))
	b.Run("text", func(b *testing.B) {
		var buf []byte
		for b.Loop() {
			buf = packet.AppendText(buf[:0], h)
		}
	})
}
