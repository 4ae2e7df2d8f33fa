package pattern

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"nfctl/internal/value"
)

// describe writes a pattern's parts plainly, so that a table can hold them.
func describe(p *Pattern) string {
	var b strings.Builder
	if p.Has&Proto != 0 {
		fmt.Fprintf(&b, "proto=%d ", p.Proto)
	}
	for _, e := range []struct {
		name string
		end  *End
	}{{"src", &p.Src}, {"dst", &p.Dst}} {
		for _, a := range e.end.Addrs.Addrs {
			fmt.Fprintf(&b, "%s=%v-%v ", e.name, a.Lo, a.Hi)
		}
		for _, r := range e.end.Ports.Nums {
			fmt.Fprintf(&b, "%s:%d-%d ", e.name, r.Lo, r.Hi)
		}
	}
	for _, n := range []struct {
		has  Parts
		name string
		n    int
	}{{Type, "type", int(p.Type)}, {Code, "code", int(p.Code)}, {ID, "id", int(p.ID)}, {Zone, "zone", int(p.Zone)}} {
		if p.Has&n.has != 0 {
			fmt.Fprintf(&b, "%s=%d ", n.name, n.n)
		}
	}
	return strings.TrimSpace(b.String())
}

func TestParse(t *testing.T) {
	tests := []struct{ in, want string }{
		{">", ""},
		{"* > *", ""},
		{"* * > *", ""},
		{"tcp >", "proto=6"},
		{"TCP >", "proto=6"},
		{"6 >", "proto=6"},
		{"99 >", "proto=99"},
		{"tcp>", "proto=6"},
		{"tcp 10.0.0.1:1000 > 10.0.0.2:21", "proto=6 src=10.0.0.1-10.0.0.1 src:1000-1000 dst=10.0.0.2-10.0.0.2 dst:21-21"},
		{"  tcp\t10.0.0.1:1000>10.0.0.2:21 ", "proto=6 src=10.0.0.1-10.0.0.1 src:1000-1000 dst=10.0.0.2-10.0.0.2 dst:21-21"},
		{"tcp > :22", "proto=6 dst:22-22"},
		{"tcp > :ssh", "proto=6 dst:22-22"},
		{"tcp > *:22", "proto=6 dst:22-22"},
		{"tcp :1000-2000 > :22,80", "proto=6 src:1000-2000 dst:22-22 dst:80-80"},
		{"tcp > 10.0.0.1:*", "proto=6 dst=10.0.0.1-10.0.0.1"},
		{"tcp 10.0.0.0/8 > ", "proto=6 src=10.0.0.0-10.255.255.255"},
		{"tcp 10.0.0.0/255.0.0.0:1 > ", "proto=6 src=10.0.0.0-10.255.255.255 src:1-1"},
		{"udp 10.0.0.1-10.0.0.9 > 10.0.0.0/24:53", "proto=17 src=10.0.0.1-10.0.0.9 dst=10.0.0.0-10.0.0.255 dst:53-53"},
		{"udp [fd00::1]:53 > [fd00::2]:5353", "proto=17 src=fd00::1-fd00::1 src:53-53 dst=fd00::2-fd00::2 dst:5353-5353"},
		{"udp fd00::1 > [fd00::2]", "proto=17 src=fd00::1-fd00::1 dst=fd00::2-fd00::2"},
		{"udp fd00::/64 > [fd00::/127]:5", "proto=17 src=fd00::-fd00::ffff:ffff:ffff:ffff dst=fd00::-fd00::1 dst:5-5"},
		{"udp fd00::1-fd00::9 > ::1", "proto=17 src=fd00::1-fd00::9 dst=::1-::1"},
		{"10.0.0.1 > 10.0.0.2", "src=10.0.0.1-10.0.0.1 dst=10.0.0.2-10.0.0.2"},
		{":53 >", "src:53-53"},
		{"> 10.0.0.2", "dst=10.0.0.2-10.0.0.2"},
		{"> zone 5", "zone=5"},
		{"* > :22 zone 0", "dst:22-22 zone=0"},
		{"icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513", "proto=1 src=10.0.0.1-10.0.0.1 dst=10.0.0.2-10.0.0.2 type=8 code=0 id=513"},
		{"icmp > id 0x201 type 8", "proto=1 type=8 id=513"},
		{"icmpv6 > type 128", "proto=58 type=128"},
		{"gre 10.0.0.1:0x3e8 > 10.0.0.2:0x7d0", "proto=47 src=10.0.0.1-10.0.0.1 src:1000-1000 dst=10.0.0.2-10.0.0.2 dst:2000-2000"},
		{"gre > :2000 zone 65535", "proto=47 dst:2000-2000 zone=65535"},
		{"esp 10.0.0.1 > 10.0.0.2", "proto=50 src=10.0.0.1-10.0.0.1 dst=10.0.0.2-10.0.0.2"},
	}
	for _, tt := range tests {
		p, err := Parse(tt.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.in, err)
			continue
		}
		if got := describe(p); got != tt.want {
			t.Errorf("Parse(%q) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		in  string
		col int
		msg string
	}{
		{"", 0, `"" is not a valid flow: want a flow in words with '>' in it, and in quotes: 'tcp 10.0.0.1:1000 > 10.0.0.2:22'`},
		{"tcp", 0, `"tcp" is not a valid flow: want a flow in words with '>' in it`},
		{"tcp > > ", 7, "one '>'"},
		{"tpc > :22", 1, `"tpc" is not a valid protocol (did you mean "tcp"?)`},
		{"256 >", 1, `"256" is not a valid protocol`},
		{"mptcp >", 1, `"mptcp" is not a valid protocol of packets`},
		{"tcp 10.0.0 >", 5, `"10.0.0" is not a valid end of a flow`},
		{"tcp 10.0.0.1 10.0.0.2 >", 14, `"10.0.0.2" is not a valid part of a flow here`},
		{"tcp > 10.0.0.1:70000", 7, `"70000" is not a valid port`},
		{"tcp > 10.0.0.1:sssh", 7, `(did you mean "ssh"?)`},
		{"tcp > 10.0.0.1:", 7, `"" is not a valid port`},
		{"tcp > !10.0.0.1", 7, `"!10.0.0.1" is not a valid address of a flow`},
		{"tcp > 10.0.0.1,10.0.0.2", 7, `is not a valid address of a flow`},
		{"tcp > :!22", 7, `"!22" is not a valid port of a flow`},
		{"tcp > host:22", 7, `"host:22" is not a valid end of a flow`},
		{"tcp > [fd00::1:22", 7, "brackets"},
		{"tcp > [fd00::1]22", 7, "brackets"},
		{"tcp > [10.0.0.1]:22", 7, `"10.0.0.1" is not a valid IPv6 address`},
		{"tcp > []:22", 7, `"" is not a valid IPv6 address`},
		{"tcp > fe80::1%eth0", 7, "is not a valid end of a flow"},
		{"tcp 10.0.0.1 > fd00::1", 16, "both ends of one family"},
		{"esp 10.0.0.1:5 > ", 5, "esp has no ports"},
		{"icmp > 10.0.0.1:5", 8, "icmp has no ports"},
		{"icmp fd00::1 >", 6, "icmpv6 with this address"},
		{"icmpv6 > 10.0.0.1", 10, "icmp with this address"},
		{"tcp > type 8", 7, `"type" is not a valid word of this flow`},
		{"* > type 8", 5, `"type" is not a valid word of this flow`},
		{"icmp > type 256", 13, `"256" is not a valid type: want a number from 0 to 255`},
		{"icmp > id -1", 11, `"-1" is not a valid id: want a number from 0 to 65535`},
		{"icmp > type 8 type 8", 15, "each word once"},
		{"tcp > zone", 11, "a number after zone"},
		{"tcp > zone ssh", 12, `"ssh" is not a valid zone`},
		{"tcp > * zoen 1", 9, `(did you mean "zone"?)`},
		{"gre > :0x10000", 7, "gre key"},
		{"tcp > :0x16", 7, `"0x16" is not a valid port`},
		{"tcp é > zone x", 5, `"é" is not a valid end of a flow`},
		{"tcp :é > zone x", 5, `"é" is not a valid port`},
	}
	for _, tt := range tests {
		_, err := Parse(tt.in)
		var pe *Error
		var ve *value.Error
		if !errors.As(err, &pe) || !errors.As(err, &ve) || pe.Column != tt.col ||
			!strings.Contains(err.Error(), tt.msg) {
			t.Errorf("Parse(%q): %v; want column %d, %q", tt.in, err, tt.col, tt.msg)
		}
	}
}

func TestFlow(t *testing.T) {
	for _, s := range []string{
		"tcp 10.0.0.1:1000 > 10.0.0.2:21",
		"tcp 10.0.0.1:1000 > 10.0.0.2:21 zone 7",
		"udp [fd00::1]:53 > [fd00::2]:5353",
		"icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513",
		"icmpv6 fd00::1 > fd00::2 type 128 code 0 id 1 zone 2",
		"gre 10.0.0.1:0x3e8 > 10.0.0.2:0x7d0",
		"esp 10.0.0.1 > 10.0.0.2",
		"99 fd00::1 > ::",
		"sctp [::ffff:10.0.0.1]:1 > [fd00::]:2",
	} {
		f, err := ParseFlow(s)
		if err != nil {
			t.Errorf("ParseFlow(%q): %v", s, err)
			continue
		}
		if got := f.String(); got != s {
			t.Errorf("%q prints as %q", s, got)
		}
	}
	for in, want := range map[string]string{
		"tcp >":                                   "the source address and the destination address and the source port and the destination port",
		"> :22":                                   "the protocol and the source address",
		"tcp 10.0.0.1:1 > 10.0.0.2":               "want the destination port",
		"tcp 10.0.0.0/8:1 > 10.0.0.2:2":           "one source address",
		"tcp 10.0.0.1:1,2 > 10.0.0.2:2-3":         "one source port and one destination port",
		"icmp 10.0.0.1 > 10.0.0.2":                "type N and code N and id N",
		"icmp 10.0.0.1 > 10.0.0.2 type 8 code 0":  "want id N",
		"gre 10.0.0.1 > 10.0.0.2":                 "the source key and the destination key",
		"10.0.0.1:1 > 10.0.0.2:2":                 "want the protocol",
		"tcp 10.0.0.1-10.0.0.2:1 > 10.0.0.2:2":    "one source address",
		"tcp 10.0.0.1 10.0.0.1 > 10.0.0.2 zone 1": "column 14",
	} {
		if f, err := ParseFlow(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseFlow(%q) = %v, %v; want %q", in, f, err, want)
		}
	}
	if got := string(Append(nil, &Flow{Proto: 50, Src: netip.MustParseAddr("10.0.0.1"),
		Dst: netip.MustParseAddr("10.0.0.2"), SPort: 5, Has: Ports})); got != "esp 10.0.0.1 > 10.0.0.2" {
		t.Errorf("a protocol without ports prints %q", got)
	}
}

func TestAppendAllocs(t *testing.T) {
	f, err := ParseFlow("udp [fd00::1]:53 > [fd00::2]:5353 zone 9")
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 0, 200)
	if n := testing.AllocsPerRun(100, func() { b = Append(b[:0], &f) }); n != 0 {
		t.Errorf("Append allocates %v times", n)
	}
}

func TestConds(t *testing.T) {
	for in, want := range map[string]string{
		">":            "",
		"tcp > :22":    "[proto][{6 6}] [orig.dport][{22 22}] ",
		"> zone 3":     "[zone][{3 3}] ",
		"icmp >type 8": "[proto][{1 1}] [orig.type][{8 8}] ",
		"udp 10.0.0.1:53 > 10.0.0.0/8": "[proto][{17 17}] [orig.src][{10.0.0.1 10.0.0.1}] [orig.sport][{53 53}] " +
			"[orig.dst][{10.0.0.0 10.255.255.255}] ",
	} {
		p, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		conds, err := p.Conds(FlowPaths)
		if err != nil {
			t.Errorf("Conds(%q): %v", in, err)
		}
		var got string
		for _, c := range conds {
			got += fmt.Sprint(c.Paths)
			if len(c.Set.Nums) > 0 {
				got += fmt.Sprint(c.Set.Nums)
			}
			if len(c.Set.Addrs) > 0 {
				got += fmt.Sprint(c.Set.Addrs)
			}
			got += " "
		}
		if got != want {
			t.Errorf("Conds(%q) = %s, want %s", in, got, want)
		}
	}
	p, _ := Parse("tcp > :22 zone 1")
	none := FlowPaths
	none.Zone = nil
	if _, err := p.Conds(none); err == nil || !strings.Contains(err.Error(), "no zone") {
		t.Errorf("a subject without zone: %v", err)
	}
}

// FuzzParse: no panic, errors point into the text, and what prints reads back
// as the same flow.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"tcp 10.0.0.1:1000 > 10.0.0.2:21", "udp [fd00::1]:53 > [fd00::2]:5353 zone 3",
		"icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513", "gre 10.0.0.1:0x3e8 > 10.0.0.2:0x7d0", "* > *", "tcp > :22,80-90", "> >"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil {
			var pe *Error
			if !errors.As(err, &pe) || pe.Column < 0 || pe.Column > len([]rune(s))+1 {
				t.Fatalf("Parse(%q): %#v", s, err)
			}
			return
		}
		if _, err := p.Conds(FlowPaths); err != nil {
			t.Fatalf("Conds of %q: %v", s, err)
		}
		fl, err := p.Flow()
		if err != nil {
			return
		}
		out := fl.String()
		back, err := ParseFlow(out)
		if err != nil || back != fl {
			t.Fatalf("%q prints as %q, which reads as %+v, %v; want %+v", s, out, back, err, fl)
		}
	})
}

// FuzzFlow: every flow that can be put into words comes back from them.
func FuzzFlow(f *testing.F) {
	f.Add(uint8(6), []byte{10, 0, 0, 1}, []byte{10, 0, 0, 2}, uint16(1), uint16(2), uint8(8), uint8(0), uint16(3),
		uint16(4))
	f.Fuzz(func(t *testing.T, proto uint8, src, dst []byte, sport, dport uint16, typ, code uint8, id, zone uint16) {
		a, ok1 := netip.AddrFromSlice(src)
		b, ok2 := netip.AddrFromSlice(dst)
		if !ok1 || !ok2 || a.Is4() != b.Is4() || proto == protoICMP && !a.Is4() || proto == protoICMPv6 && a.Is4() {
			return
		}
		fl := Flow{Proto: proto, Src: a, Dst: b, Zone: zone, Has: Proto}
		if HasEnds(proto) {
			fl.SPort, fl.DPort, fl.Has = sport, dport, fl.Has|Ports
		}
		if HasICMP(proto) {
			fl.Type, fl.Code, fl.ID, fl.Has = typ, code, id, fl.Has|Type|Code|ID
		}
		if back, err := ParseFlow(fl.String()); err != nil || back != fl {
			t.Fatalf("%q reads as %+v, %v; want %+v", fl.String(), back, err, fl)
		}
	})
}
