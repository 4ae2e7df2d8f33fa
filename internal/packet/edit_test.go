package packet_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"nfctl/internal/packet"
	"nfctl/internal/packet/packettest"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func set(t testing.TB, text string) *packet.Edit {
	t.Helper()
	path, v, _ := strings.Cut(text, "=")
	e, err := packet.Set(path, v)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func replace(t testing.TB, old, new string, resize bool) *packet.Edit {
	t.Helper()
	e, err := packet.Replace([]byte(old), []byte(new), packet.Fit{Resize: resize})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func allEdits(t testing.TB) (out []*packet.Edit) {
	for _, path := range packet.Settable() {
		v := "5"
		switch path {
		case "ip.src", "ip.dst":
			out = append(out, set(t, path+"=fd00::77"))
			v = "10.9.8.7"
		case "ip.ecn":
			v = "2"
		case "ip.flags":
			v = "0"
		}
		out = append(out, set(t, path+"="+v))
	}
	return append(out, replace(t, "a", "b", false), replace(t, "p", "long", true), replace(t, "pay", "", false),
		strip(t, "mss,sack-permitted,timestamps,wscale"),
		regex(t, "(p)(a)", "${2}${1}", packet.Fit{}), regex(t, "[a-y]+", "-", packet.Fit{Pad: true, Byte: 'z'}),
		regex(t, "l*", "xx", packet.Fit{Resize: true}))
}

func strip(t testing.TB, list string) *packet.Edit {
	t.Helper()
	e, err := packet.StripOptions(list)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func regex(t testing.TB, match, with string, fit packet.Fit) *packet.Edit {
	t.Helper()
	e, err := packet.ReplaceRegexp(regexp.MustCompile(match), with, fit)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// apply makes edits on a copy of b.
func apply(b []byte, m packet.Meta, edits ...*packet.Edit) ([]byte, error) {
	var ed packet.Editor
	h := parse(bytes.Clone(b))
	for _, e := range edits {
		if err := ed.Apply(h, m, e); err != nil {
			return nil, err
		}
	}
	return ed.Finish(h, m)
}

// checksumsByGopacket computes a packet's checksums with google/gopacket and
// compares. It knows no extension headers.
func checksumsByGopacket(b []byte) error {
	first := layers.LayerTypeIPv4
	if b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(b, first, gopacket.Default)
	if p.Layer(layers.LayerTypeIPv6Fragment) != nil {
		return nil // which gopacket takes for a real one
	}
	if p.TransportLayer() == nil && p.Layer(layers.LayerTypeICMPv4) == nil && p.Layer(layers.LayerTypeICMPv6) == nil {
		return errors.New("gopacket finds no transport")
	}
	var list []gopacket.SerializableLayer
	for _, l := range p.Layers() {
		s, ok := l.(gopacket.SerializableLayer)
		if !ok {
			return nil
		}
		switch l := l.(type) {
		case *layers.TCP:
			l.SetNetworkLayerForChecksum(p.NetworkLayer())
		case *layers.UDP:
			l.SetNetworkLayerForChecksum(p.NetworkLayer())
		case *layers.ICMPv6:
			l.SetNetworkLayerForChecksum(p.NetworkLayer())
		}
		list = append(list, s)
		switch l.(type) {
		case *layers.TCP, *layers.UDP, *layers.ICMPv4, *layers.ICMPv6:
			list = append(list, gopacket.Payload(l.LayerPayload()))
			buf := gopacket.NewSerializeBuffer()
			if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
				list...); err != nil {
				return err
			}
			if !bytes.Equal(buf.Bytes(), b) {
				return fmt.Errorf("gopacket writes\n%x, not\n%x", buf.Bytes(), b)
			}
			return nil
		}
	}
	return nil
}

var editTests = []struct {
	name string
	b    []byte
	// FIELD=VALUE, or A→B, or A→B! with resize, or A→B/C padded, all with ~ in front as expressions, or -OPTIONS
	edits []string
	want  string // path value …
}{
	{"ttl", pkt(6, packettest.TCP(1, 2, 16, nil, "x")), []string{"ip.ttl=7"}, "ip.ttl 7"},
	{"hop limit", pkt6(6, packettest.TCP(1, 2, 16, nil, "x")), []string{"ip.hoplimit=7"}, "ip.ttl 7"},
	{"dscp", pkt(17, packettest.UDP(1, 2, "x")), []string{"ip.dscp=ef", "ip.ecn=1"}, "ip.dscp 46 ip.ecn 1"},
	{"dscp over IPv6", pkt6(17, packettest.UDP(1, 2, "x")), []string{"ip.ecn=3", "ip.dscp=af41", "ip.ecn=2"}, "ip.dscp 34 ip.ecn 2 udp.dport 2 ip.src fd00::1"},
	{"id and flags", pkt(17, packettest.UDP(1, 2, "x")), []string{"ip.id=0xffff", "ip.flags=0"}, "ip.id 65535 ip.flags none"},
	{"DF", patched(pkt(17, packettest.UDP(1, 2, "x")), 6, 0), []string{"ip.flags=DF"}, "ip.flags DF"},
	{"addresses", pkt(6, packettest.TCP(1, 2, 16, nil, "odd")), []string{"ip.src=192.0.2.1", "ip.dst=255.255.255.255"}, "ip.src 192.0.2.1 ip.dst 255.255.255.255"},
	{"addresses over IPv6", pkt6(17, packettest.UDP(1, 2, "odd")), []string{"ip.src=2001:db8::1", "ip.dst=::"}, "ip.src 2001:db8::1 ip.dst ::"},
	{"tcp", pkt(6, packettest.TCP(1, 2, 16, options, "data")),
		[]string{"tcp.sport=http", "tcp.dport=443", "tcp.seq=4294967295", "tcp.ack=0", "tcp.flags=SYN,ACK,NS", "tcp.window=0"},
		`tcp.sport 80 tcp.dport 443 tcp.seq 4294967295 tcp.ack 0 tcp.flags SYN,ACK,NS tcp.window 0 tcp.mss 1460 payload "data"`},
	{"udp", pkt(17, packettest.UDP(1, 2, "x")), []string{"udp.sport=5", "udp.dport=53"}, "udp.sport 5 udp.dport 53"},
	{"udp over IPv6", pkt6(17, packettest.UDP(1, 2, "x")), []string{"udp.dport=53"}, "udp.dport 53"},
	{"icmp", pkt(1, packettest.ICMP(8, 0, 1, 2, "x")), []string{"icmp.code=3", "icmp.id=500", "icmp.seq=65535"}, "icmp.code 3 icmp.id 500 icmp.seq 65535"},
	{"icmp type", pkt(1, packettest.ICMP(8, 0, 1, 2, "x")), []string{"icmp.type=echo-reply"}, "icmp.type 0"},
	{"icmpv6", pkt6(58, packettest.ICMP(128, 0, 1, 2, "xyz")), []string{"icmpv6.type=pong", "icmpv6.id=9", "icmpv6.seq=8", "ip.src=fd00::9"}, "icmpv6.type 129 icmpv6.id 9 icmpv6.seq 8"},
	{"sctp", pkt(132, packettest.SCTP(1, 2, 3, "chunk")), []string{"sctp.sport=10", "sctp.dport=20"}, "sctp.sport 10 sctp.dport 20"},
	{"sctp over IPv6", pkt6(132, packettest.SCTP(1, 2, 3, "chunk")), []string{"sctp.dport=20", "ip.dst=fd00::9", "chunk→CHUNK"}, "sctp.dport 20"},
	{"dccp", pkt(33, []byte{0, 5, 0, 6, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'd'}), []string{"dccp.dport=7", "d→e"}, `dccp.dport 7 payload "e"`},
	{"udplite", pkt(136, packettest.UDP(7, 8, "lite")), []string{"udplite.dport=9", "lit→LIT"}, `udplite.dport 9 payload "LITe"`},
	{"udplite, part covered", pkt(136, patched(packettest.UDP(7, 8, "lite"), 4, 0, 10)), []string{"udplite.dport=9", "lite→LITE"}, `udplite.dport 9 payload "LITE"`},
	{"same length", pkt(6, packettest.TCP(1, 2, 16, nil, "one two one")), []string{"one→six"}, `payload "six two six"`},
	{"overlap", pkt(17, packettest.UDP(1, 2, "aaaaa")), []string{"aa→ab"}, `payload "ababa"`},
	{"overlap again", pkt(17, packettest.UDP(1, 2, "aaaa")), []string{"aa→ba"}, `payload "baba"`},
	{"dccp, part covered", pkt(33, []byte{0, 5, 0, 6, 4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'c', 'o', 'v', 'd', 'n', 'o', 't'}), []string{"dccp.dport=7", "not→NOT"}, `dccp.dport 7 payload "covdNOT"`},
	{"grow twice", pkt(17, packettest.UDP(1, 2, "-a-")), []string{"-→--", "-→+-"}, `payload "+-+-a+-+-"`},
	{"grow udp", pkt(17, packettest.UDP(1, 2, "a name")), []string{"name→longer name"}, `payload "a longer name" udp.length 21 ip.length 41`},
	{"shrink udp", pkt6(17, packettest.UDP(1, 2, "a long name")), []string{" long→"}, `payload "a name" udp.length 14 ip.length 54`},
	{"empty udp", pkt6(17, packettest.UDP(1, 2, "x")), []string{"x→"}, `payload "" udp.length 8`},
	{"resize twice", pkt(17, packettest.UDP(1, 2, "a-b-c")), []string{"-→--", "b→", "udp.dport=9", "--→+"}, `payload "a++c" udp.dport 9 udp.length 12`},
	{"grow icmp", pkt(1, packettest.ICMP(8, 0, 1, 2, "ping")), []string{"ping→pingping"}, `payload "pingping" ip.length 36`},
	{"shrink icmpv6", pkt6(58, packettest.ICMP(128, 0, 1, 2, "ping")), []string{"ng→n"}, `payload "pin" ip.length 51`},
	{"resize tcp", pkt(6, packettest.TCP(1, 2, 16, options, "GET /a")), []string{"/a→/index!"}, `payload "GET /index" ip.length 70 tcp.seq 1`},
	{"extension headers", pkt6(17, packettest.UDP(1, 2, "abc"), packettest.HopByHop(), packettest.Routing(0, 0, "fd00::9"), packettest.DstOpts()),
		[]string{"ip.dst=fd00::3", "udp.dport=9", "abc→abcdefghi"}, `ip.dst fd00::3 udp.dport 9 payload "abcdefghi" ip.length 97`},
	{"atomic fragment", pkt6(6, packettest.TCP(1, 2, 2, nil, "x"), packettest.Fragment(0, false, 1)), []string{"tcp.dport=9", "x→y"}, "tcp.dport 9"},
	{"nothing", pkt(6, packettest.TCP(1, 2, 16, nil, "x")), []string{"ip.ttl=64", "no→on", "tcp.dport=2"}, "ip.ttl 64"},
	{"mss", pkt(6, packettest.TCP(1, 2, 2, options, "")), []string{"tcp.mss=1200"}, "tcp.mss 1200"},
	{"mss at an odd place", pkt6(6, packettest.TCP(1, 2, 2, []byte{1, 2, 4, 5, 180, 0, 0, 0}, "odd")), []string{"tcp.mss=536"}, "tcp.mss 536"},
	{"strip", pkt(6, packettest.TCP(1, 2, 2, options, "data")), []string{"-mss,8"}, `tcp.mss - tcp.ts - payload "data"`},
	{"strip over IPv6", pkt6(6, packettest.TCP(1, 2, 2, options, "odd")), []string{"-maxseg"}, `tcp.mss - payload "odd"`},
	{"expression", pkt(17, packettest.UDP(1, 2, "Get /a get /b")), []string{"~(?i)get /(.)→${1}!"}, `payload "a b" ip.length 31`},
	{"expression of the same length", pkt(6, packettest.TCP(1, 2, 16, nil, "ab ba")), []string{"~(a)(b)→${2}${1}"}, `payload "ba ba"`},
	{"padded", pkt6(6, packettest.TCP(1, 2, 16, nil, "one two")), []string{"~[a-z]+→x/."}, `payload "x.. x.."`},
	{"cut", pkt(6, packettest.TCP(1, 2, 16, nil, "one two")), []string{"~[a-z]+→long/ ", "lon→xy/-"}, `payload "xy- xy-"`},
	{"empty matches", pkt(17, packettest.UDP(1, 2, "ab")), []string{"~x*→-"}, `payload "-a-b-" udp.length 13`},
	{"IPv4 options", packettest.Packet{Src: a4, Dst: b4, Proto: 17, Options: []byte{7, 7, 4, 0, 0, 0, 0}, L4: packettest.UDP(1, 2, "x")}.Bytes(),
		[]string{"ip.dst=10.0.0.3", "x→yy"}, `ip.dst 10.0.0.3 payload "yy" ip.length 38`},
}

func compile(t testing.TB, texts []string) (out []*packet.Edit) {
	for _, text := range texts {
		if old, new, ok := strings.Cut(text, "→"); ok {
			new, resize := strings.CutSuffix(new, "!")
			fit := packet.Fit{Resize: resize}
			if before, with, ok := strings.Cut(new, "/"); ok && len(with) == 1 {
				new, fit = before, packet.Fit{Pad: true, Byte: with[0]}
			}
			if match, ok := strings.CutPrefix(old, "~"); ok {
				out = append(out, regex(t, match, new, fit))
				continue
			}
			e, err := packet.Replace([]byte(old), []byte(new), fit)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, e)
		} else if list, ok := strings.CutPrefix(text, "-"); ok {
			out = append(out, strip(t, list))
		} else {
			out = append(out, set(t, text))
		}
	}
	return out
}

func TestEdits(t *testing.T) {
	for _, tt := range editTests {
		if err := packettest.Verify(tt.b); err != nil {
			// Some were patched after they were made.
			if err := packet.Fix(tt.b, packet.Meta{}); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		for _, m := range []packet.Meta{{}, {CsumNotReady: true}} {
			b := bytes.Clone(tt.b)
			if m.CsumNotReady {
				spoil(b)
			}
			out, err := apply(b, m, compile(t, tt.edits)...)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			if tt.name == "nothing" {
				if !bytes.Equal(out, b) {
					t.Errorf("%s: changed", tt.name)
				}
				continue
			}
			if err := packettest.Verify(out); err != nil {
				t.Errorf("%s %v: %v", tt.name, m, err)
			}
			switch proto, _ := parse(out).Proto(); proto {
			case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6:
				if err := checksumsByGopacket(out); err != nil {
					t.Errorf("%s: %v", tt.name, err)
				}
			}
			h := parse(out)
			check(t, tt.name, h, tt.want)
		}
	}
}

// spoil makes the transport checksum of TCP or UDP as the kernel leaves it for a
// device: the sum of the pseudo-header, not complemented. That and the finished
// message add up to 0xffff.
func spoil(b []byte) {
	h := parse(b)
	payload, ok := h.Payload()
	if !ok || h.Fragment() {
		return
	}
	off := len(b) - len(payload)
	at := 0
	switch p, _ := h.Proto(); p {
	case packet.ProtoTCP:
		for n := 20; at == 0; n += 4 {
			if int(b[off-n+12]>>4)*4 == n {
				off, at = off-n, off-n+16
			}
		}
	case packet.ProtoUDP:
		off, at = off-8, off-2
	default:
		return
	}
	sum := packettest.Checksum(b[off:])
	b[at], b[at+1] = byte(sum>>8), byte(sum)
}

func TestEditErrors(t *testing.T) {
	udp := packettest.UDP(1, 2, "payload")
	first4 := patched(pkt(17, udp), 6, 0x20, 0)
	later4 := patched(pkt(17, udp), 6, 0, 9)
	long := strings.Repeat("x", 60000)
	for _, tt := range []struct {
		name string
		b    []byte
		meta packet.Meta
		edit string
		want error
	}{
		{"other protocol", pkt(17, udp), packet.Meta{}, "tcp.dport=1", packet.ErrAbsent},
		{"other family", pkt(17, udp), packet.Meta{}, "ip.src=fd00::1", packet.ErrAbsent},
		{"id over IPv6", pkt6(17, udp), packet.Meta{}, "ip.id=1", packet.ErrAbsent},
		{"error without id", pkt(1, packettest.ICMP(3, 0, 0, 0, "")), packet.Meta{}, "icmp.id=1", packet.ErrAbsent},
		{"no IP", []byte("none"), packet.Meta{}, "ip.ttl=1", packet.ErrAbsent},
		{"port of a later fragment", later4, packet.Meta{}, "udp.dport=1", packet.ErrAbsent},
		{"bad header", patched(pkt(17, udp), 0, 0x43), packet.Meta{}, "ip.ttl=1", packet.ErrMalformed},
		{"bad UDP length", patched(pkt(17, udp), 24, 0, 200), packet.Meta{}, "udp.dport=1", packet.ErrMalformed},
		{"payload of a first fragment", first4, packet.Meta{}, "pay→PAY", packet.ErrFragment},
		{"payload of a later fragment", later4, packet.Meta{}, "pay→PAY", packet.ErrFragment},
		{"fragment without the text", later4, packet.Meta{}, "none→NONE", nil},
		{"port of a fragment of SCTP", patched(pkt(132, packettest.SCTP(1, 2, 3, "x")), 6, 0x20), packet.Meta{}, "sctp.dport=1", packet.ErrFragment},
		{"fragment, not ready", first4, packet.Meta{CsumNotReady: true}, "udp.dport=1", packet.ErrFragment},
		{"authenticated port", pkt(17, udp, packettest.AH(1, 1)), packet.Meta{}, "udp.dport=1", packet.ErrAuthenticated},
		{"authenticated address", pkt(17, udp, packettest.AH(1, 1)), packet.Meta{}, "ip.src=10.9.9.9", packet.ErrAuthenticated},
		{"authenticated payload", pkt(17, udp, packettest.AH(1, 1)), packet.Meta{}, "pay→PAY", packet.ErrAuthenticated},
		{"authenticated packet's ttl", pkt(17, udp, packettest.AH(1, 1)), packet.Meta{}, "ip.ttl=1", nil},
		{"tcp of another length", pkt(6, packettest.TCP(1, 2, 16, nil, "abc")), packet.Meta{}, "abc→ab", packet.ErrNeedsResize},
		{"sctp of another length", pkt(132, packettest.SCTP(1, 2, 3, "abc")), packet.Meta{}, "abc→ab!", packet.ErrFixedLength},
		{"datagrams of another length", pkt(17, udp), packet.Meta{GSO: true}, "pay→pa", packet.ErrSegments},
		{"esp", pkt(50, []byte("12345678payload")), packet.Meta{}, "pay→PAY", packet.ErrProtocol},
		{"esp without the text", pkt(50, []byte("12345678payload")), packet.Meta{}, "none→NONE", nil},
		{"tunnel", pkt(4, pkt(6, packettest.TCP(1, 2, 2, nil, ""))), packet.Meta{CsumNotReady: true}, "ip.ttl=9", packet.ErrOffload},
		{"vxlan", patched(pkt(17, udp), 26, 0, 0), packet.Meta{CsumNotReady: true}, "ip.ttl=9", packet.ErrOffload},
		{"ospf", pkt6(89, []byte("ospf")), packet.Meta{}, "ip.src=fd00::9", packet.ErrProtocol},
		{"ospf ttl", pkt6(89, []byte("ospf")), packet.Meta{}, "ip.ttl=9", nil},
		{"too long", pkt(17, packettest.UDP(1, 2, long)), packet.Meta{}, "x→xx", packet.ErrTooLong},
		{"too long over IPv6", pkt6(17, packettest.UDP(1, 2, long)), packet.Meta{}, "x→xx", packet.ErrTooLong},
	} {
		if _, err := apply(tt.b, tt.meta, compile(t, []string{tt.edit})...); !errors.Is(err, tt.want) ||
			tt.want == nil && err != nil {
			t.Errorf("%s: %s: %v, want %v", tt.name, tt.edit, err, tt.want)
		}
	}
	// Cut copies, and what does not concern them.
	b := pkt(17, udp)
	for n := 0; n < len(b); n++ {
		for edit, want := range map[string]error{"ip.ttl=9": packet.ErrTruncated, "udp.dport=9": packet.ErrTruncated,
			"none→NONE": packet.ErrTruncated, "tcp.dport=9": packet.ErrAbsent} {
			if edit == "tcp.dport=9" && n < 20 {
				want = packet.ErrTruncated
			}
			var h packet.Headers
			h.Parse(b[:n:n], len(b))
			var ed packet.Editor
			if err := ed.Apply(&h, packet.Meta{}, compile(t, []string{edit})[0]); err != want {
				t.Errorf("cut to %d: %s: %v, want %v", n, edit, err, want)
			}
		}
	}
}

func TestSetErrors(t *testing.T) {
	for _, tt := range []struct{ path, text, want string }{
		{"ip.tll", "5", `"ip.tll" is not a valid field to set (did you mean "ip.ttl"?)`},
		{"ip.proto", "tcp", `"ip.proto" is not a valid field to set`},
		{"ip.ttl", "256", `"256" is not a valid ip.ttl to set: want a number from 0 to 255`},
		{"udp.dport", "http-x", `"http-x" is not a valid udp.dport to set: want a number from 0 to 65535 or a service name`},
		{"ip.ttl", "1-5", `"1-5" is not a valid ip.ttl to set: want one value`},
		{"ip.ttl", "!5", `"!5" is not a valid ip.ttl to set: want one value`},
		{"ip.src", "10.0.0.0/8", `"10.0.0.0/8" is not a valid ip.src to set: want one address`},
		{"ip.src", "host", `"host" is not a valid ip.src to set: want an address`},
		{"ip.flags", "MF", `"MF" is not a valid ip.flags to set: want DF, or 0`},
		{"ip.dscp", "64", `"64" is not a valid ip.dscp to set: want a name or a number from 0 to 63`},
		{"tcp.flags", "SYN,FOO", `"FOO" is not a valid tcp.flags to set`},
		{"tcp.dport", "70000", `"70000" is not a valid tcp.dport to set`},
		{"tcp.dport", "", `"" is not a valid tcp.dport to set`},
	} {
		_, err := packet.Set(tt.path, tt.text)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s=%s:\n got %v\nwant %s…", tt.path, tt.text, err, tt.want)
		}
	}
	if _, err := packet.Replace(nil, []byte("x"), packet.Fit{}); err == nil {
		t.Error("replacing nothing was taken")
	}
}

// A UDP packet that the kernel will segment carries the sum of its
// pseudo-header; anything else the full checksum.
func TestGSO(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		mk := pkt
		src, dst := netip.MustParseAddr(a4), netip.MustParseAddr(b4)
		if v6 {
			mk = pkt6
			src, dst = netip.MustParseAddr(a6), netip.MustParseAddr(b6)
		}
		payload := strings.Repeat("segment ", 1000)
		for _, edit := range []string{"ip.ttl=9", "udp.dport=99", "seg→SEG"} {
			out, err := apply(mk(17, packettest.UDP(1, 2, payload)), packet.Meta{GSO: true, CsumNotReady: true},
				compile(t, []string{edit})...)
			if err != nil {
				t.Fatal(err)
			}
			pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, 0, byte((len(payload)+8)>>8),
				byte(len(payload)+8), 0, 17)
			want := ^packettest.Checksum(pseudo)
			off := len(out) - len(payload) - 2
			if got := uint16(out[off])<<8 | uint16(out[off+1]); got != want {
				t.Errorf("IPv6 %v: %s: checksum %#04x, want %#04x", v6, edit, got, want)
			}
		}
		for _, edit := range []string{"ip.ttl=9", "tcp.dport=99", "seg→SEG"} {
			b := mk(6, packettest.TCP(1, 2, 16, nil, payload))
			spoil(b)
			out, err := apply(b, packet.Meta{GSO: true, CsumNotReady: true}, compile(t, []string{edit})...)
			if err != nil {
				t.Fatal(err)
			}
			if err := packettest.Verify(out); err != nil {
				t.Errorf("%s: %v", edit, err)
			}
		}
	}
}

// TestTunnels: what the kernel left for the device is not finished in the outer
// header's place: the packet cannot be edited as it came.
func TestTunnels(t *testing.T) {
	inner := pkt(6, packettest.TCP(1, 2, 16, nil, "x"))
	spoil(inner)
	carried := string(inner)
	none := pkt(17, packettest.UDP(1, 4789, "12345678"+carried))
	none[26], none[27] = 0, 0
	gre := append([]byte{0, 0, 8, 0}, inner...)
	for name, b := range map[string][]byte{
		"vxlan": pkt(17, packettest.UDP(1, 4789, "12345678"+carried)), "vxlan without a checksum": none,
		"vxlan over IPv6": pkt6(17, packettest.UDP(1, 4789, "12345678"+carried)),
		"ipip":            pkt(4, inner), "ip4 in ip6": pkt6(4, inner), "gre": pkt(47, gre), "gre over IPv6": pkt6(47, gre),
		"tcp with another checksum": pkt(6, packettest.TCP(1, 2, 16, nil, carried)),
	} {
		for _, edit := range []string{"ip.ttl=9", "ip.dscp=ef"} {
			if _, err := apply(b, packet.Meta{CsumNotReady: true}, set(t, edit)); !errors.Is(err, packet.ErrOffload) {
				t.Errorf("%s, %s: %v", name, edit, err)
			}
			if out, err := apply(b, packet.Meta{}, set(t, edit)); err != nil || !bytes.HasSuffix(out, inner) {
				t.Errorf("%s, %s, finished: %v", name, edit, err)
			}
			ttl := "ip.ttl=" + fmt.Sprint(b[8])
			if b[0]>>4 == 6 {
				ttl = "ip.ttl=" + fmt.Sprint(b[7])
			}
			if out, err := apply(b, packet.Meta{CsumNotReady: true}, set(t, ttl)); err != nil || !bytes.Equal(out, b) {
				t.Errorf("%s, no change: %v", name, err)
			}
		}
	}
}

func TestUDPZero(t *testing.T) {
	b := patched(pkt(17, packettest.UDP(1, 2, "x")), 26, 0, 0)
	out, err := apply(b, packet.Meta{}, set(t, "udp.dport=7"))
	if err != nil || out[26] != 0 || out[27] != 0 {
		t.Errorf("a checksum that was not there: %x %v", out, err)
	}
	b = patched(pkt6(17, packettest.UDP(1, 2, "x")), 46, 0, 0)
	out, err = apply(b, packet.Meta{}, set(t, "udp.dport=7"))
	if err == nil {
		err = packettest.Verify(out)
	}
	if err != nil {
		t.Error(err)
	}
	// A sum that comes out as 0 is sent as 0xffff.
	hit := 0
	for id := range 1 << 16 {
		out, err := apply(pkt(17, packettest.UDP(uint16(id), 2, "ab")), packet.Meta{}, set(t, "udp.dport=7"))
		if err != nil {
			t.Fatal(err)
		}
		if out[26] == 0 && out[27] == 0 {
			t.Fatalf("source port %d: checksum 0", id)
		}
		if out[26] == 0xff && out[27] == 0xff {
			hit++
		}
	}
	if hit == 0 {
		t.Error("no sum came out as 0")
	}
}

// Under a routing header with stops left, and for mobile nodes, the checksum
// covers the ends, not what the IP header holds now.
func TestPseudoEnds(t *testing.T) {
	const last = "fd00::99"
	for _, tt := range []struct {
		name     string
		ext      packettest.Ext
		src, dst string
	}{
		{"type 0", packettest.Routing(0, 2, "fd00::3", last), a6, last},
		{"type 2", packettest.Routing(2, 1, last), a6, last},
		{"segments", packettest.Routing(4, 1, last, "fd00::3"), a6, last},
		{"type 3", packettest.Ext{Type: 43, Body: []byte{1, 3, 1, 0xff, 0x60, 0, 0, 3, 0x99, 0, 0, 0, 0, 0, 0}}, a6, last},
		{"type 0, no stops left", packettest.Routing(0, 0, "fd00::3", last), a6, b6},
		{"home address", packettest.DstOpts(append([]byte{1, 2, 0, 0, 0xc9, 16}, netip.MustParseAddr(last).AsSlice()...)...), last, b6},
	} {
		b := pkt6(17, packettest.UDP(1, 2, "x"), tt.ext)
		l4 := b[len(b)-9:]
		out, err := apply(b, packet.Meta{}, set(t, "udp.dport=7"))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got := bytes.Clone(out[len(out)-9:])
		packettest.Seal(netip.MustParseAddr(tt.src), netip.MustParseAddr(tt.dst), 17, l4[:0:0])
		want := bytes.Clone(got)
		packettest.Seal(netip.MustParseAddr(tt.src), netip.MustParseAddr(tt.dst), 17, want)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %x, want %x", tt.name, got, want)
		}
	}
	// IPv4 source routes name the last stop in the option.
	b := packettest.Packet{Src: a4, Dst: b4, Proto: 17, Options: []byte{1, 131, 11, 4, 10, 0, 0, 8, 10, 0, 0, 9},
		L4: packettest.UDP(1, 2, "x")}.Bytes()
	out, err := apply(b, packet.Meta{}, set(t, "udp.dport=7"))
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(out[32:])
	packettest.Seal(netip.MustParseAddr(a4), netip.MustParseAddr("10.0.0.9"), 17, want)
	if !bytes.Equal(out[32:], want) {
		t.Errorf("source route: %x, want %x", out[32:], want)
	}
}

// Fragments of one datagram, edited one by one, make the datagram that an edit
// of the whole would have made.
func TestFragments(t *testing.T) {
	payload := strings.Repeat("fragments! ", 20)
	for _, tt := range []struct {
		proto uint8
		l4    []byte
		edits []string
	}{
		{17, packettest.UDP(1, 2, payload), []string{"udp.dport=99", "udp.sport=77"}},
		{6, packettest.TCP(1, 2, 16, nil, payload), []string{"tcp.seq=12345", "tcp.flags=SYN"}},
		{1, packettest.ICMP(8, 0, 1, 2, payload), []string{"icmp.id=999"}},
		{58, packettest.ICMP(128, 0, 1, 2, payload), []string{"icmpv6.seq=999"}},
	} {
		for _, v6 := range []bool{false, true} {
			if v6 && tt.proto == 1 || !v6 && tt.proto == 58 {
				continue
			}
			edits := append([]string{"ip.ttl=9"}, tt.edits...)
			p := packettest.Packet{Src: a4, Dst: b4, Proto: tt.proto, L4: tt.l4}
			if v6 {
				p.Src, p.Dst = a6, b6
				edits = append(edits, "ip.src=fd00::77", "ip.dst=2001:db8::1")
			} else {
				edits = append(edits, "ip.src=192.0.2.9", "ip.dst=198.51.100.1")
			}
			wholePacket := p.Bytes()
			whole, err := apply(wholePacket, packet.Meta{}, compile(t, edits)...)
			if err != nil {
				t.Fatal(err)
			}
			l4 := wholePacket[len(wholePacket)-len(tt.l4):]
			var got []byte
			for off := 0; off < len(l4); off += 64 {
				end := min(off+64, len(l4))
				var f []byte
				if v6 {
					f = pkt6(99, l4[off:end], packettest.Fragment(uint16(off), end < len(l4), 1))
					f[40] = tt.proto
				} else {
					f = pkt(99, l4[off:end])
					f[6], f[7], f[9] = 0, byte(off/8), tt.proto
					if end < len(l4) {
						f[6] = 0x20
					}
				}
				var h packet.Headers
				h.Parse(f, 0)
				var ed packet.Editor
				for _, e := range compile(t, edits) {
					if err := ed.Apply(&h, packet.Meta{}, e); err != nil && !(off > 0 && err == packet.ErrAbsent) {
						t.Fatal(err)
					}
				}
				out, err := ed.Finish(&h, packet.Meta{})
				if err != nil {
					t.Fatal(err)
				}
				if err := packettest.Verify(out); err != nil {
					t.Errorf("protocol %d fragment at %d: %v", tt.proto, off, err)
				}
				got = append(got, out[len(out)-(end-off):]...)
			}
			if want := whole[len(whole)-len(l4):]; !bytes.Equal(got, want) {
				t.Errorf("protocol %d IPv6 %v:\n got %x\nwant %x", tt.proto, v6, got, want)
			}
		}
	}
}

// Edits of any length at any offset give the checksum that the plain way gives.
func TestChecksumLengths(t *testing.T) {
	b := []byte(strings.Repeat("\xff\xfe\x01\x80checksum", 20))
	for n := range b {
		for _, proto := range []uint8{6, 17, 132, 1} {
			var l4 []byte
			switch proto {
			case 6:
				l4 = packettest.TCP(1, 2, 16, nil, string(b[:n]))
			case 17:
				l4 = packettest.UDP(1, 2, string(b[:n]))
			case 132:
				l4 = packettest.SCTP(1, 2, 3, string(b[:n]))
			case 1:
				l4 = packettest.ICMP(8, 0, 1, 2, string(b[:n]))
			}
			in := pkt(proto, l4)
			spoil(in)
			out, err := apply(in, packet.Meta{CsumNotReady: true}, set(t, "ip.ttl=9"))
			if err == nil {
				err = packettest.Verify(out)
			}
			if err != nil {
				t.Fatalf("protocol %d, %d bytes: %v", proto, n, err)
			}
		}
	}
}

func TestSetPayload(t *testing.T) {
	var ed packet.Editor
	for _, tt := range []struct {
		b    []byte
		want error
	}{
		{pkt(17, packettest.UDP(1, 2, "old")), nil},
		{pkt(17, packettest.UDP(1, 2, "")), nil},
		{pkt6(58, packettest.ICMP(128, 0, 1, 2, "new payload")), nil},
		{pkt(6, packettest.TCP(1, 2, 16, nil, "old")), packet.ErrNeedsResize},
		{pkt(6, packettest.TCP(1, 2, 16, nil, "old payload")), nil},
	} {
		h := parse(tt.b)
		if err := ed.SetPayload(h, packet.Meta{}, []byte("new payload"), false); err != tt.want {
			t.Errorf("%s: %v, want %v", packet.AppendText(nil, h), err, tt.want)
			continue
		} else if err != nil {
			ed.Reset()
			continue
		}
		out, err := ed.Finish(h, packet.Meta{})
		if err == nil {
			err = packettest.Verify(out)
		}
		if p, _ := h.Payload(); err != nil || string(p) != "new payload" {
			t.Errorf("%v %q", err, p)
		}
	}
}

func TestFix(t *testing.T) {
	for _, tt := range editTests {
		b := bytes.Clone(tt.b)
		h := parse(b)
		if p, _ := h.Payload(); len(p) > 0 {
			p[0] ^= 1
		}
		if h.Version() == 4 {
			b[8]--
		}
		if err := packet.Fix(b, packet.Meta{}); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if err := packettest.Verify(b); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestEditAllocates(t *testing.T) {
	orig := pkt6(17, packettest.UDP(1, 2, strings.Repeat("payload ", 100)), packettest.DstOpts())
	b := bytes.Clone(orig)
	edits := compile(t, []string{"ip.src=fd00::9", "udp.dport=9", "ip.ttl=1", "pay→PAY", "load→loading", "PAY→P"})
	var ed packet.Editor
	var h packet.Headers
	if n := testing.AllocsPerRun(100, func() {
		copy(b, orig)
		h.Parse(b, 0)
		for _, e := range edits {
			if err := ed.Apply(&h, packet.Meta{}, e); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ed.Finish(&h, packet.Meta{}); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzEdit(f *testing.F) {
	for i, tt := range editTests {
		f.Add(tt.b, uint64(1)<<(i%40), []byte("x"), []byte("yz"))
	}
	for i, c := range packettest.Malformed() {
		if i%11 == 0 && len(c.Data) < 2000 {
			f.Add(c.Data, uint64(i)*0x9e3779b97f4a7c15, []byte("pay"), []byte("P"))
		}
	}
	edits := allEdits(f)
	f.Fuzz(func(t *testing.T, b []byte, which uint64, old, new []byte) {
		m := packet.Meta{CsumNotReady: which&1 != 0}
		// Right before the edit, so that it must be right after it.
		sound := packet.Fix(b, packet.Meta{}) == nil
		h := parse(bytes.Clone(b))
		list := []*packet.Edit{}
		for i, e := range edits {
			if which>>(i+1)&1 != 0 {
				list = append(list, e)
			}
		}
		if e, err := packet.Replace(old, new, packet.Fit{Resize: true}); err == nil {
			list = append(list, e)
		}
		var ed packet.Editor
		for _, e := range list {
			if err := ed.Apply(h, m, e); err != nil && !errors.Is(err, packet.ErrAbsent) {
				return
			}
		}
		if !ed.Changed() {
			if !bytes.Equal(h.Data, b) {
				t.Fatalf("changed without saying so:\n%x\n%x", b, h.Data)
			}
			return
		}
		out, err := ed.Finish(h, m)
		if err != nil {
			return
		}
		if h2 := parse(out); h2.Undecodable() || h2.Truncated() || h2.Version() != h.Version() {
			t.Fatalf("does not decode: %x", out)
		}
		if !sound || h.Fragment() || !plain(h) {
			return
		}
		if err := packettest.Verify(out); err != nil {
			t.Fatalf("%v: %x", err, out)
		}
	})
}

// plain reports whether packettest.Verify judges a packet as its last receiver
// does: no stops left, no home address, no coverage, nothing behind the packet.
func plain(h *packet.Headers) bool {
	p, ok := h.Proto()
	b := h.Data
	switch {
	case !ok || p == packet.ProtoAH || p == packet.ProtoDCCP || p == packet.ProtoUDPLite:
		return false
	case h.Version() == 4:
		return b[0] == 0x45 && load(h, "ip.length") == fmt.Sprint(len(b))
	}
	return b[6] == p && load(h, "ip.length") == fmt.Sprint(len(b))
}

func BenchmarkEdit(b *testing.B) {
	for _, size := range []int{64, 1400, 60000} {
		for _, edit := range []string{"ip.ttl=9", "udp.dport=9", "ip.dst=10.9.9.9", "abc→ABC"} {
			b.Run(fmt.Sprintf("%s/%d", edit, size), func(b *testing.B) {
				orig := pkt(17, packettest.UDP(1, 2, "abc"+strings.Repeat("x", size-3)))
				e := compile(b, []string{edit})[0]
				var ed packet.Editor
				var h packet.Headers
				head := bytes.Clone(orig[:40])
				b.SetBytes(int64(len(orig)))
				for b.Loop() {
					copy(orig, head)
					h.Parse(orig, 0)
					if err := ed.Apply(&h, packet.Meta{}, e); err != nil {
						b.Fatal(err)
					}
					if _, err := ed.Finish(&h, packet.Meta{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// What is stripped leaves the packet's length, and other options where they were.
func TestStripKeepsPlaces(t *testing.T) {
	opts := []byte{2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7}
	b := pkt(6, packettest.TCP(1, 2, 2, opts, "x"))
	for list, want := range map[string][]byte{
		"sack-permitted":       {2, 4, 5, 180, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7},
		"timestamps,wscale":    {2, 4, 5, 180, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		"maxseg,sack-perm,3,8": {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		"sack,md5sig":          opts,
	} {
		out, err := apply(b, packet.Meta{}, strip(t, list))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out[40:60], want) || len(out) != len(b) {
			t.Errorf("%s: % x, want % x", list, out[40:60], want)
		}
		if err := packettest.Verify(out); err != nil {
			t.Errorf("%s: %v", list, err)
		}
	}
	// A receiver reads up to what is malformed, and so does this.
	bad := pkt(6, packettest.TCP(1, 2, 2, []byte{4, 2, 8, 0, 4, 2, 1, 1}, ""))
	out, err := apply(bad, packet.Meta{}, strip(t, "sack-permitted"))
	if err != nil || !bytes.Equal(out[40:48], []byte{1, 1, 8, 0, 4, 2, 1, 1}) {
		t.Errorf("% x %v", out, err)
	}
	for _, list := range []string{"", "0", "nop", "1", "256", "mss,", "tmestamps"} {
		if _, err := packet.StripOptions(list); err == nil {
			t.Errorf("%q is taken", list)
		}
	}
}

// The options of a first fragment count for the checksum of the whole.
func TestFragmentOptions(t *testing.T) {
	opts := []byte{2, 4, 5, 180, 4, 2, 1, 1}
	whole := packettest.TCP(1, 2, 2, opts, strings.Repeat("fragment", 4))
	packettest.Seal(netip.MustParseAddr(a4), netip.MustParseAddr(b4), 6, whole)
	frag := packettest.Packet{Src: a4, Dst: b4, Proto: 6, L4: whole}.Bytes()
	frag = frag[:20+len(whole)-16]
	frag[2], frag[3], frag[6], frag[7] = 0, byte(len(frag)), 0x20, 0
	for _, e := range []*packet.Edit{set(t, "tcp.mss=777"), strip(t, "sack-permitted,mss")} {
		out, err := apply(frag, packet.Meta{}, e)
		if err != nil {
			t.Fatal(err)
		}
		joined := append(bytes.Clone(out), whole[len(whole)-16:]...)
		joined[2], joined[3], joined[6] = 0, byte(len(joined)), 0
		joined[10], joined[11] = 0, 0
		c := packettest.Checksum(joined[:20])
		joined[10], joined[11] = byte(c>>8), byte(c)
		if err := packettest.Verify(joined); err != nil {
			t.Errorf("%s: %v", e.Text, err)
		}
	}
}

func TestReplaceRegexpGroups(t *testing.T) {
	match := regexp.MustCompile("(?P<word>a)(b)?")
	for template, want := range map[string]string{
		"${1}x": "", "$1 $2": "", "${word}": "", "$$5": "", "$0": "", "": "",
		"$1x": `want braces around the group, as ${1}x`, "${3}": "is not a valid group", "$": "is not a valid group", "${1": "a } behind ${",
		"$wrod": "is not a valid group",
	} {
		_, err := packet.ReplaceRegexp(match, template, packet.Fit{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", template, err, want)
		}
	}
}

// A change of TCP's length that only shows with the packet needs resize.
func TestRegexpNeedsResize(t *testing.T) {
	b := pkt(6, packettest.TCP(1, 2, 16, nil, "abc"))
	if _, err := apply(b, packet.Meta{}, regex(t, "b+", "xx", packet.Fit{})); !errors.Is(err, packet.ErrNeedsResize) {
		t.Errorf("%v", err)
	}
	long := pkt(17, packettest.UDP(1, 2, strings.Repeat("a", 60000)))
	if _, err := apply(long, packet.Meta{}, regex(t, "", "twenty bytes of text", packet.Fit{})); !errors.Is(err,
		packet.ErrTooLong) {
		t.Errorf("%v", err)
	}
}
