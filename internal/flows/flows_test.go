package flows

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"

	"nfctl/internal/ct"
	"nfctl/internal/packet"
	"nfctl/internal/queue"
)

// headers makes the headers of a packet; of ICMP and ICMPv6 sport is the type, dport
// the identifier.
func headers(src, dst string, proto uint8, sport, dport uint16) *packet.Headers {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	l4 := make([]byte, 20)
	l4[0], l4[1], l4[2], l4[3], l4[12] = byte(sport>>8), byte(sport), byte(dport>>8), byte(dport), 5<<4
	if proto == packet.ProtoICMP || proto == packet.ProtoICMPv6 {
		l4 = []byte{byte(sport), 0, 0, 0, byte(dport >> 8), byte(dport), 0, 0}
	}
	b := []byte{6 << 4, 0, 0, 0, 0, byte(len(l4)), proto, 64}
	if s.Is4() {
		b = []byte{4<<4 | 5, 0, 0, byte(20 + len(l4)), 0, 0, 0, 0, 64, proto, 0, 0}
	}
	b = slices.Concat(b, s.AsSlice(), d.AsSlice(), l4)
	h := new(packet.Headers)
	h.Parse(b, 0)
	return h
}

func keyOf(t testing.TB, src, dst string, proto uint8, sport, dport uint16) Key {
	t.Helper()
	p := &queue.Packet{Data: headers(src, dst, proto, sport, dport).Data, Has: queue.HasPayload | queue.HasLength}
	p.Length = uint32(len(p.Data))
	k, ok := Of(p)
	if !ok {
		t.Fatal("no flow")
	}
	return k
}

// Both directions are one flow, and nothing else is.
func TestOf(t *testing.T) {
	seen := map[Key]string{}
	for _, c := range []struct {
		src, dst     string
		proto        uint8
		sport, dport uint16
	}{
		{"10.0.0.1", "10.0.0.2", 17, 1000, 53}, {"10.0.0.1", "10.0.0.2", 17, 1001, 53}, {"10.0.0.1", "10.0.0.2", 17, 53, 1000},
		{"10.0.0.1", "10.0.0.2", 6, 1000, 53}, {"10.0.0.3", "10.0.0.2", 17, 1000, 53}, {"10.0.0.1", "10.0.0.1", 17, 1000, 53},
		{"10.0.0.1", "10.0.0.2", packet.ProtoESP, 1, 1}, {"10.0.0.1", "10.0.0.2", packet.ProtoGRE, 1, 1},
		{"fd00::1", "fd00::2", 17, 1000, 53}, {"fd00::1", "fd00:1::2", 17, 1000, 53}, {"::a00:1", "::a00:2", 17, 1000, 53}, {"::ffff:10.0.0.1", "::ffff:10.0.0.2", 17, 1000, 53},
	} {
		k := keyOf(t, c.src, c.dst, c.proto, c.sport, c.dport)
		if back := keyOf(t, c.dst, c.src, c.proto, c.dport, c.sport); back != k {
			t.Errorf("%v: the other direction is another flow", c)
		}
		if who, ok := seen[k]; ok {
			t.Errorf("%v is the flow %s", c, who)
		}
		seen[k] = fmt.Sprint(c)
	}
	for _, c := range []struct {
		a, b        string
		proto       uint8
		ask, answer uint16
		unreachable uint16
	}{{"10.0.0.1", "10.0.0.2", packet.ProtoICMP, 8, 0, 3}, {"fd00::1", "fd00::2", packet.ProtoICMPv6, 128, 129, 1}} {
		k := keyOf(t, c.a, c.b, c.proto, c.ask, 7)
		if keyOf(t, c.b, c.a, c.proto, c.answer, 7) != k {
			t.Errorf("%v: the answer is another flow", c)
		}
		if keyOf(t, c.a, c.b, c.proto, c.ask, 8) == k || keyOf(t, c.a, c.b, c.proto, c.unreachable, 7) == k {
			t.Errorf("%v: another identifier or none is the same flow", c)
		}
	}
	if _, ok := Of(&queue.Packet{}); ok {
		t.Error("a packet without a header has a flow")
	}
}

// A connection is known by its original tuple and zone, which is not one of packets
// by the same addresses.
func TestOfConnection(t *testing.T) {
	has := ct.TupleFamily | ct.TupleProto | ct.TupleSport | ct.TupleDport
	f := &ct.Flow{Orig: ct.Tuple{Family: ct.IPv4, Proto: 17, Src: netip.MustParseAddr("10.0.0.1"),
		Dst: netip.MustParseAddr("10.0.0.2"), Sport: 1000, Dport: 53, Present: has}}
	k := ofConnection(f)
	if k != keyOf(t, "10.0.0.2", "10.0.0.1", 17, 53, 1000) {
		t.Error("a connection without a zone is not its packets' flow")
	}
	g := *f
	g.Zone = 3
	if ofConnection(&g) == k {
		t.Error("another zone is the same flow")
	}
	g.Zone, g.Orig.Zone = 0, 3
	if ofConnection(&g) == k {
		t.Error("another zone of one direction is the same flow")
	}
	six := &ct.Flow{Orig: ct.Tuple{Family: ct.IPv6, Proto: ct.ICMPv6, Src: netip.MustParseAddr("fd00::1"),
		Dst: netip.MustParseAddr("fd00::2"), ID: 7, Type: 128,
		Present: ct.TupleFamily | ct.TupleProto | ct.TupleID | ct.TupleType}}
	if ofConnection(six) != keyOf(t, "fd00::2", "fd00::1", packet.ProtoICMPv6, 129, 7) {
		t.Error("an echo's connection is not its packets' flow")
	}
}

func TestValues(t *testing.T) {
	a4, a6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("::a00:1")
	keys := []Key{OfNumber(0), OfNumber(1), OfAddr(a4), OfAddr(a6), OfBytes(nil), OfBytes([]byte("a")),
		OfBytes([]byte("b")), {}}
	for i, k := range keys {
		if slices.Index(keys, k) != i {
			t.Errorf("%d: equal to another", i)
		}
	}
	if one, other := OfBytes([]byte("lo")), OfBytes([]byte("lo")); one != other ||
		OfAddr(a6) != OfAddr(netip.MustParseAddr("::10.0.0.1")) {
		t.Error("one value has two keys")
	}
}

// Against a plain map and a list by age.
func TestTable(t *testing.T) {
	for _, limit := range []int{1, 2, 63, 64, 65, 1000} {
		table := NewTable[int](limit)
		was := map[Key]int{}
		var byAge []Key // the newest last
		forgotten := uint64(0)
		r := rand.New(rand.NewPCG(1, uint64(limit)))
		for range 20000 {
			k := OfNumber(r.Uint64N(uint64(limit)*3/2 + 2))
			if known, ok := table.Known(&k), slices.Contains(byAge, k); (known != nil) != ok || ok && *known != was[k] {
				t.Fatalf("limit %d: known %v, want %v", limit, known, ok)
			}
			v := table.At(&k)
			if *v != was[k] {
				t.Fatalf("limit %d: %d of a key, want %d", limit, *v, was[k])
			}
			*v++
			was[k]++
			if i := slices.Index(byAge, k); i >= 0 {
				byAge = slices.Delete(byAge, i, i+1)
			}
			byAge = append(byAge, k)
			if len(byAge) > limit {
				delete(was, byAge[0])
				byAge = byAge[1:]
				forgotten++
			}
			if table.Len() != len(byAge) || table.Forgotten() != forgotten {
				t.Fatalf("limit %d: %d remembered and %d forgotten, want %d and %d", limit, table.Len(),
					table.Forgotten(), len(byAge), forgotten)
			}
		}
	}
}

// A million flows pass through a table of 65,536 without more memory than that.
func TestTableIsBounded(t *testing.T) {
	table := NewTable[uint64](65536)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range uint64(1_000_000) {
		k := OfNumber(i)
		*table.At(&k) = i
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if table.Len() != 65536 || table.Forgotten() != 1_000_000-65536 {
		t.Errorf("%d remembered, %d forgotten", table.Len(), table.Forgotten())
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 12<<20 {
		t.Errorf("%d bytes for %d flows", grown, 65536)
	}
	i := uint64(0)
	if n := testing.AllocsPerRun(1000, func() {
		k := OfNumber(i % (2 * 65536))
		table.At(&k)
		i++
	}); n != 0 {
		t.Errorf("%v allocations a flow", n)
	}
	runtime.KeepAlive(table)
}

// Several queues count in one table.
func TestTableIsShared(t *testing.T) {
	table := NewTable[int](100)
	const queues, each = 4, 20000
	var wg sync.WaitGroup
	for range queues {
		wg.Go(func() {
			for i := range uint64(each) {
				k := OfNumber(i % 100)
				table.Lock()
				*table.At(&k)++
				table.Unlock()
			}
		})
	}
	wg.Wait()
	for i := range uint64(100) {
		k := OfNumber(i)
		if n := *table.At(&k); n != queues*each/100 {
			t.Errorf("%d: counted %d", i, n)
		}
	}
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []uint64{1, 50000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := NewTable[uint64](65536)
			var h [1024]*packet.Headers
			i := uint64(0)
			for j := range h {
				h[j] = headers("10.0.0.1", "10.0.0.2", 17, uint16(j), 53)
			}
			r := rand.New(rand.NewPCG(1, 1))
			b.ReportAllocs()
			for b.Loop() {
				k, _ := ofHeaders(h[i%1024])
				k.b[1] = r.Uint64N(n)
				table.Lock()
				*table.At(&k)++
				table.Unlock()
				i++
			}
		})
	}
}
