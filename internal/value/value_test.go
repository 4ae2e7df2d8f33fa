package value

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestPorts(t *testing.T) {
	tests := []struct {
		in   string
		want []Range
		not  bool
	}{
		{"22", []Range{{22, 22}}, false},
		{"ssh", []Range{{22, 22}}, false},
		{"SSH", []Range{{22, 22}}, false},
		{"ftp-data", []Range{{20, 20}}, false},
		{"1000-2000", []Range{{1000, 2000}}, false},
		{"1000:2000", []Range{{1000, 2000}}, false},
		{"80,22", []Range{{22, 22}, {80, 80}}, false},
		{"22,23", []Range{{22, 23}}, false},
		{"1-10,5-20", []Range{{1, 20}}, false},
		{"!22", []Range{{22, 22}}, true},
		{"ssh-http", []Range{{22, 80}}, false},
		{"0", []Range{{0, 0}}, false},
	}
	for _, tt := range tests {
		got, err := Ports(tt.in)
		if err != nil || got.Not != tt.not || len(got.Nums) != len(tt.want) {
			t.Errorf("Ports(%q) = %+v, %v; want %v", tt.in, got, err, tt.want)
			continue
		}
		for i := range got.Nums {
			if got.Nums[i] != tt.want[i] {
				t.Errorf("Ports(%q) = %v, want %v", tt.in, got.Nums, tt.want)
			}
		}
	}
	for _, bad := range []string{"", ",", "22,", "65536", "-1", "99999", "http:", "2000-1000", "nosuchservice", "22 80",
		"0x16", "1e3", "!"} {
		_, err := Ports(bad)
		var ve *Error
		if !errors.As(err, &ve) {
			t.Errorf("Ports(%q) = %v, want an *Error", bad, err)
		}
	}
	if _, err := Port("sssh"); err == nil || !strings.Contains(err.Error(), `"ssh"`) {
		t.Errorf("Port(sssh): %v, want a hint at ssh", err)
	}
}

func TestAddrs(t *testing.T) {
	a := netip.MustParseAddr
	tests := []struct {
		in     string
		lo, hi netip.Addr
	}{
		{"10.0.0.1", a("10.0.0.1"), a("10.0.0.1")},
		{"10.1.2.3/8", a("10.0.0.0"), a("10.255.255.255")},
		{"10.1.2.3/255.255.0.0", a("10.1.0.0"), a("10.1.255.255")},
		{"10.0.0.1-10.0.0.9", a("10.0.0.1"), a("10.0.0.9")},
		{"fd00::/64", a("fd00::"), a("fd00::ffff:ffff:ffff:ffff")},
		{"::/0", a("::"), a("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")},
	}
	for _, tt := range tests {
		got, err := Addrs(tt.in)
		if err != nil || len(got.Addrs) != 1 || got.Addrs[0].Lo != tt.lo || got.Addrs[0].Hi != tt.hi {
			t.Errorf("Addrs(%q) = %+v, %v", tt.in, got, err)
		}
		if strings.Contains(tt.in, "/") {
			if p, ok := got.Addrs[0].Prefix(); !ok || PrefixRange(p) != got.Addrs[0] {
				t.Errorf("Prefix of %q = %v, %v", tt.in, p, ok)
			}
		}
	}
	if r := (AddrRange{a("10.0.0.1"), a("10.0.0.9")}); true {
		if p, ok := r.Prefix(); ok {
			t.Errorf("%v is no prefix, got %v", r, p)
		}
	}
	for _, bad := range []string{"", "10.0.0", "10.0.0.1/33", "10.0.0.0/255.0.255.0", "10.0.0.9-10.0.0.1",
		"fe80::1%eth0", "10.0.0.1-fd00::1", "10.0.0.1,", "/8", "host"} {
		if got, err := Addrs(bad); err == nil {
			t.Errorf("Addrs(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestMark(t *testing.T) {
	for in, want := range map[string][2]uint32{"7": {7, 1<<32 - 1}, "0x1/0xff": {1, 255}, "0": {0, 1<<32 - 1},
		"0xffffffff": {1<<32 - 1, 1<<32 - 1}, "0/0": {0, 0}} {
		v, m, err := MarkMask(in)
		if err != nil || v != want[0] || m != want[1] {
			t.Errorf("MarkMask(%q) = %#x, %#x, %v", in, v, m, err)
		}
	}
	for _, bad := range []string{"", "abc", "99999999999", "-1", "1/", "/1", "0x100/0xff", "1/2/3"} {
		if _, err := Mark(bad); err == nil {
			t.Errorf("Mark(%q): want an error", bad)
		}
	}
}

func TestScalars(t *testing.T) {
	for in, want := range map[string]time.Duration{"30": 30 * time.Second, "1m30s": 90 * time.Second,
		"5ms": 5 * time.Millisecond, "2d": 48 * time.Hour, "0": 0} {
		if got, err := Duration(in); err != nil || got != want {
			t.Errorf("Duration(%q) = %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "-5", "-5s", "abc", "5x", "1.5.2s"} {
		if _, err := Duration(bad); err == nil {
			t.Errorf("Duration(%q): want an error", bad)
		}
	}
	for in, want := range map[string]uint64{"4096": 4096, "64KiB": 65536, "8M": 8 << 20, "1GiB": 1 << 30, "10B": 10,
		"8 MiB": 8 << 20} {
		if got, err := Size(in); err != nil || got != want {
			t.Errorf("Size(%q) = %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "8XB", "-1", "KiB", "99999999999GiB", "1.5M"} {
		if _, err := Size(bad); err == nil {
			t.Errorf("Size(%q): want an error", bad)
		}
	}
	if got, err := Queues("0:3,7,1"); err != nil || len(got) != 5 || got[4] != 7 {
		t.Errorf("Queues = %v, %v", got, err)
	}
	for _, bad := range []string{"", "65536", "3-1", "!1", "a", "1,,2", "0-"} {
		if got, err := Queues(bad); err == nil {
			t.Errorf("Queues(%q) = %v, want an error", bad, got)
		}
	}
	if s, err := Seconds("1m-5m"); err != nil || s.Nums[0] != (Range{60, 300}) {
		t.Errorf("Seconds = %v, %v", s, err)
	}
	if ns, err := Time("2026-01-02T15:04:05.000000001Z"); err != nil ||
		string(AppendTime(nil, ns)) != "2026-01-02T15:04:05.000000001Z" {
		t.Errorf("Time = %v, %v", ns, err)
	}
}

func TestNames(t *testing.T) {
	if n, err := Protocols.Parse("TCP"); n != 6 || err != nil {
		t.Errorf("Parse(TCP) = %d, %v", n, err)
	}
	if n, err := Families.Parse("inet6"); n != 10 || err != nil {
		t.Errorf("Parse(inet6) = %d, %v", n, err)
	}
	if w := string(Families.Append(nil, 10)); w != "ipv6" {
		t.Errorf("family 10 = %s", w)
	}
	if w := string(Protocols.Append(nil, 99)); w != "99" {
		t.Errorf("protocol 99 = %s", w)
	}
	if _, err := Protocols.Parse("tpc"); err == nil || !strings.Contains(err.Error(), `"tcp"`) {
		t.Errorf("Parse(tpc): %v", err)
	}
	if _, err := Protocols.Parse("256"); err == nil {
		t.Error("Parse(256): want an error")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"22,80", "!ssh", "10.0.0.0/8", "0x1/0xff", "30s", "8MiB", "0:3", "1-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 100 {
			return
		}
		_, _ = Ports(s)
		_, _ = Mark(s)
		_, _ = Duration(s)
		_, _ = Size(s)
		_, _ = Time(s)
		_, _ = Seconds(s)
		if q, err := Queues(s); err == nil && len(q) == 0 {
			t.Errorf("Queues(%q): nothing, and no error", s)
		}
		set, err := Addrs(s)
		if err != nil {
			return
		}
		for _, r := range set.Addrs {
			if r.Hi.Less(r.Lo) || r.Lo.BitLen() != r.Hi.BitLen() {
				t.Errorf("Addrs(%q) = %v", s, r)
			}
		}
	})
}

func TestErrorSays(t *testing.T) {
	for want, e := range map[string]Error{
		`"x" is not a valid port: want a number`:                           {What: "port", Text: "x", Valid: "a number"},
		`state "x": only tcp has one`:                                      {What: "state", Text: "x", Why: "only tcp has one"},
		`"x" is not a valid word (did you mean "xx"?): want "xx" or "xxx"`: {What: "word", Text: "x", Near: "xx", Valid: `"xx" or "xxx"`},
	} {
		if got := e.Error(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
