package filter

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// plainMember says what a set holds, one member after another.
func plainMember(r *field.Row[subject], set value.Set, s *subject) bool {
	in := false
	switch {
	case r.Kind == field.Bits:
		d, ok := r.Data(s)
		if !ok {
			return false
		}
		for _, x := range set.Nums {
			for n := x.Lo; n <= x.Hi; n++ {
				in = in || int(n)/8 < len(d) && d[n/8]>>(n%8)&1 != 0
			}
		}
	case r.Num != nil:
		n, ok := r.Num(s)
		if !ok {
			return false
		}
		if set.Mask != 0 {
			n &= set.Mask
		}
		for _, x := range set.Nums {
			in = in || x.Lo <= n && n <= x.Hi
		}
	case r.IP != nil:
		a, ok := r.IP(s)
		if !ok {
			return false
		}
		for _, x := range set.Addrs {
			in = in || a.BitLen() == x.Lo.BitLen() && !a.Less(x.Lo) && !x.Hi.Less(a)
		}
	default:
		d, ok := r.Data(s)
		if !ok {
			return false
		}
		for _, x := range set.Texts {
			in = in || string(d) == x
		}
	}
	return in != set.Not
}

// TestCondsRandom holds the compiled sets equal to plain loops, on sets of every
// size and members at and beside every edge.
func TestCondsRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	addr := func(n uint64) netip.Addr {
		if n&1 == 0 {
			var v [4]byte
			binary.BigEndian.PutUint32(v[:], uint32(n>>1)+10<<24-100)
			return netip.AddrFrom4(v)
		}
		var v [16]byte
		v[0] = 0xfd
		binary.BigEndian.PutUint64(v[8:], n>>1-100) // wraps, so that the upper half differs too
		return netip.AddrFrom16(v)
	}
	for round := range 3000 {
		var set value.Set
		path := []string{"tcp.dport", "mark", "ip.src", "helper", "large", "labels", "status"}[round%7]
		r := reg.Row(path)
		size := []int{1, 1, 2, 3, 5, 20}[rnd.IntN(6)]
		for range size {
			n := uint64(rnd.IntN(400))
			span := uint64(rnd.IntN(3)) * uint64(rnd.IntN(5))
			switch path {
			case "ip.src":
				lo, hi := addr(n), addr(n+2*span)
				if hi.Less(lo) {
					lo, hi = hi, lo
				}
				set.Addrs = append(set.Addrs, value.AddrRange{Lo: lo, Hi: hi})
			case "helper":
				set.Texts = append(set.Texts, fmt.Sprint(n))
			case "tcp.dport":
				set.Nums = append(set.Nums, value.Range{Lo: 65500 - n, Hi: min(65500-n+span, 65535)})
			case "large":
				set.Nums = append(set.Nums, value.Range{Lo: -n - 1 - span, Hi: -n - 1})
			case "labels":
				set.Nums = append(set.Nums, value.Range{Lo: n % 20, Hi: n%20 + span%3})
			default:
				set.Nums = append(set.Nums, value.Range{Lo: n, Hi: n + span})
			}
		}
		set.Not = rnd.IntN(3) == 0
		if r.Kind == field.Flags || path == "mark" && rnd.IntN(2) == 0 {
			set.Mask = uint64(rnd.IntN(16) + 1)
		}
		test, err := Conds(reg, field.Cond{Paths: []string{path}, Set: set})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 450 {
			v := uint64(i)
			s := &subject{src: addr(v), helper: fmt.Append(nil, i), tcp: &ports{dport: uint16(65535 - i)}, mark: &v,
				large: n(-v - 1), status: &v, labels: []byte{byte(i), byte(i >> 1), byte(i >> 3)}[:i%4%3+1]}
			if got, want := test(s), plainMember(r, set, s); got != want {
				t.Fatalf("%s in %+v: value %d: %v, want %v", path, set, i, got, want)
			}
		}
		if test(&subject{}) {
			t.Fatalf("%s in %+v: absent matches", path, set)
		}
	}
}

func TestConds(t *testing.T) {
	set := func(path, s string) field.Cond {
		v, err := reg.Row(path).ParseSet(s)
		if err != nil {
			t.Fatal(err)
		}
		return field.Cond{Paths: []string{path}, Set: v}
	}
	either := func(s string, paths ...string) field.Cond {
		c := set(paths[0], s)
		c.Paths = paths
		return c
	}
	for _, tt := range []struct {
		conds []field.Cond
		match string
	}{
		{nil, "sdpoe"},
		{[]field.Cond{set("proto", "tcp")}, "s"},
		{[]field.Cond{set("proto", "!tcp")}, "dpo"},
		{[]field.Cond{set("l4proto", "tcp")}, "s"}, // an alias
		{[]field.Cond{set("proto", "tcp,udp"), set("mark", "1")}, "s"},
		{[]field.Cond{set("status", "ASSURED")}, "s"},
		{[]field.Cond{set("status", "!ASSURED")}, "dpo"},
		{[]field.Cond{set("status", "UNREPLIED")}, "dpo"},
		{[]field.Cond{set("status", "SEEN_REPLY,CONFIRMED")}, "sd"},
		{[]field.Cond{set("labels", "web,mail")}, "sp"},
		{[]field.Cond{set("labels", "!web")}, "dp"},
		{[]field.Cond{set("helper", "Dns,ftp")}, "d"},
		{[]field.Cond{set("helper", "!Dns")}, "po"},
		{[]field.Cond{set("fragment", "true")}, "d"},
		{[]field.Cond{set("fragment", "!true")}, "s"},
		{[]field.Cond{set("start", "1767366245")}, "s"},
		{[]field.Cond{either("22,53", "tcp.dport", "udp.dport")}, "sd"},
		{[]field.Cond{either("!22", "tcp.dport", "udp.dport")}, "do"},
		{[]field.Cond{either("!22", "tcp.sport", "tcp.dport")}, "o"},
		{[]field.Cond{either("10.0.0.2", "ip.src", "ip.dst")}, "s"},
		{[]field.Cond{either("!10.0.0.2", "ip.src", "ip.dst")}, "dp"},
	} {
		test, err := Conds(reg, tt.conds...)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		for _, l := range letters {
			s := subjects[l.name]
			if test(s) {
				got += l.letter
			}
			if n := testing.AllocsPerRun(1, func() { test(s) }); n != 0 {
				t.Errorf("%+v allocates", tt.conds)
			}
		}
		if got != tt.match {
			t.Errorf("%+v matches %q, want %q", tt.conds, got, tt.match)
		}
	}
	if _, err := Conds(reg, field.Cond{Paths: []string{"tcp.dprot"}}); err == nil ||
		!strings.Contains(err.Error(), "tcp.dport") {
		t.Errorf("an unknown path: %v", err)
	}
}

// addresses makes an expression over n addresses: singles and prefixes, both
// families, some beside each other.
func addresses(n int) string {
	list := make([]string, 0, n)
	for i := range n {
		switch i % 4 {
		case 0:
			list = append(list, fmt.Sprintf(`"10.%d.%d.%d"`, i>>13&255, i>>5&255, i*8&255))
		case 1:
			list = append(list, fmt.Sprintf(`"172.%d.%d.0/25"`, i>>8&255, i&255))
		case 2:
			list = append(list, fmt.Sprintf(`"fd00::%x:1"`, i&0xffff))
		case 3:
			list = append(list, fmt.Sprintf(`"192.%d.%d.9"`, i>>8&255, i&255))
		}
	}
	return "ip.src in [" + strings.Join(list, ", ") + "]"
}

func TestManyAddresses(t *testing.T) {
	p, err := Compile(reg, addresses(10000))
	if err != nil {
		t.Fatal(err)
	}
	if conds, exact := p.Conds(); !exact || len(conds) != 1 || len(conds[0].Set.Addrs) != 10000 {
		t.Errorf("%d conditions, exact %v", len(conds), exact)
	}
	for in, want := range map[string]bool{"10.0.0.0": true, "10.1.56.96": true, "10.1.56.97": false,
		"172.0.1.127": true, "172.0.1.128": false,
		"fd00::2:1": true, "fd00::2:2": false, "192.39.15.9": true, "192.39.15.8": false, "9.9.9.9": false, "255.255.255.255": false} {
		if got := p.Match(&subject{src: netip.MustParseAddr(in)}); got != want {
			t.Errorf("%s: %v, want %v", in, got, want)
		}
	}
}

func bench(b *testing.B, text string, s *subject) {
	p, err := Compile(reg, text)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Match(s)
	}
}

func BenchmarkMatch(b *testing.B) {
	s := subjects["ssh"]
	for _, text := range []string{
		`tcp.dport == 22`,
		`tcp.dport == 22 && ip.src in "10.0.0.0/8"`,
		`tcp.dport in [1, 3, 5, 7, 22, 80]`,
		`"ASSURED" in status and mark == "0x1/0xff"`,
		`proto == "tcp" and tcp.dport == 22 and ip.dst == "10.0.0.2" and "SYN" in tcp.flags`,
		`payload contains "SSH"`,
		`payload matches "^SSH-[12]"`,
		`orig.bytes / orig.packets > 1000`,
		`any(labels, # startsWith "w")`,
	} {
		b.Run(text, func(b *testing.B) { bench(b, text, s) })
	}
	b.Run("loads alone", func(b *testing.B) {
		port, src := reg.Row("tcp.dport").Num, reg.Row("ip.src").IP
		for b.Loop() {
			port(s)
			src(s)
		}
	})
}

func BenchmarkAddresses(b *testing.B) {
	for _, n := range []int{10, 100, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, err := Compile(reg, addresses(n))
			if err != nil {
				b.Fatal(err)
			}
			rnd := rand.New(rand.NewPCG(1, 2))
			var ss [256]subject
			for i := range ss {
				var v [4]byte
				binary.BigEndian.PutUint32(v[:], uint32(10<<24)|uint32(rnd.IntN(1<<19)))
				ss[i].src = netip.AddrFrom4(v)
			}
			i := 0
			for b.Loop() {
				p.Match(&ss[i%256])
				i++
			}
		})
	}
}
