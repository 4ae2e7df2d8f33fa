package value

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func TestAppendAddr(t *testing.T) {
	for in, want := range map[string]string{
		"0.0.0.0": "", "255.255.255.255": "", "10.0.0.1": "", "1.22.133.9": "", "::": "", "::1": "", "fe80::1": "",
		"2001:db8::1:0:0:1": "", "2001:db8:0:1:1:1:1:1": "", "1:0:0:2::3": "", "ffff::": "", "1::": "", "a:bb:ccc:dddd:1:2:3:4": "",
		"::ffff:1.2.3.4": "", "64:ff9b::1.2.3.4": "64:ff9b::102:304",
		"::102:304": "::1.2.3.4", "::1:0:0": "", "::ffff:0:0": "::ffff:0.0.0.0",
	} {
		a := netip.MustParseAddr(in)
		if want == "" {
			want = in
		}
		if got := string(AppendAddr([]byte("x"), a)); got != "x"+want {
			t.Errorf("AppendAddr(%s) = %s, want %s", in, got, want)
		}
	}
	if got := AppendAddr(nil, netip.Addr{}); len(got) != 0 {
		t.Errorf("no address: %q", got)
	}
	// Any other address must read as in net/netip.
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100000 {
		var v [16]byte
		for i := range v {
			if rnd.IntN(3) == 0 {
				v[i] = byte(rnd.Uint32())
			}
		}
		a := netip.AddrFrom16(v)
		got := string(AppendAddr(nil, a))
		if back, err := netip.ParseAddr(got); err != nil || back != a {
			t.Fatalf("AppendAddr(%s) = %s: %v", a, got, err)
		}
		if v[0]|v[1] != 0 && got != a.String() {
			t.Fatalf("AppendAddr(%s) = %s", a, got)
		}
	}
}

func TestAppendTime(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 100000 {
		ns := rnd.Uint64() >> 1
		if i == 0 {
			ns = 951782399e9 // 2000-02-28, a day before the leap day
		}
		want := time.Unix(0, int64(ns)).UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
		if got := string(AppendTime(nil, ns)); got != want {
			t.Fatalf("AppendTime(%d) = %s, want %s", ns, got, want)
		}
	}
}

func BenchmarkAppendAddr(b *testing.B) {
	for _, s := range []string{"10.0.0.1", "2001:db8:1:2:3:4:5:6", "fd00::1"} {
		a := netip.MustParseAddr(s)
		b.Run(s, func(b *testing.B) {
			buf := make([]byte, 0, 64)
			for b.Loop() {
				buf = AppendAddr(buf[:0], a)
			}
		})
	}
}
