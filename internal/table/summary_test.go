package table

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"testing"

	"nfctl/internal/ct"
)

// What comes often is found among more keys than there is room for, and its count is not
// further off than is told.
func TestBusiest(t *testing.T) {
	var b Busiest[int]
	exact := map[int]uint64{}
	r := rand.New(rand.NewPCG(1, 2))
	const n = 1_000_000
	for range n {
		k := r.IntN(500_000) + 100 // most come twice
		if r.IntN(10) == 0 {
			k = r.IntN(5) // and five often
		}
		b.Add(k)
		exact[k]++
	}
	if len(b.counts) > mostCounted {
		t.Errorf("%d keys", len(b.counts))
	}
	if b.Short() > n/mostCounted+1 {
		t.Errorf("short by %d", b.Short())
	}
	top := b.Top(5, cmp.Compare)
	for _, c := range top {
		if c.Key >= 5 || c.Count > exact[c.Key] || c.Count+b.Short() < exact[c.Key] {
			t.Errorf("key %d: %d, truly %d, short by %d", c.Key, c.Count, exact[c.Key], b.Short())
		}
	}
	var few Busiest[int]
	for _, k := range []int{3, 1, 3, 2, 1, 3} {
		few.Add(k)
	}
	top = few.Top(2, cmp.Compare)
	if few.Short() != 0 || len(top) != 2 || top[0] != (Counted[int]{3, 3}) || top[1].Key != 1 {
		t.Errorf("%v, short by %d", top, few.Short())
	}
}

func TestSummaryAllocates(t *testing.T) {
	var s Summary
	add := AddTo[ct.Flow](&s)
	f := &ct.Flow{Event: ct.New}
	f.Orig = ct.Tuple{Family: ct.IPv4, Proto: ct.TCP, Dport: 443, Present: ct.TupleProto | ct.TupleDport,
		Dst: netip.MustParseAddr("10.0.0.1")}
	f.Orig.Src = netip.MustParseAddr("10.0.0.0")
	next := func() {
		f.Orig.Src = f.Orig.Src.Next()
		f.Orig.Dport++
		add(f)
	}
	for range 3 * mostCounted {
		next()
	}
	if n := testing.AllocsPerRun(10*mostCounted, next); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}
