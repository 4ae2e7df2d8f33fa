package rate

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"nfctl/internal/ct"
)

func flow(i int, at time.Time, packets, bytes uint64) *ct.Flow {
	f := &ct.Flow{Present: ct.HasOrigCounters | ct.HasReplyCounters | ct.HasID, Time: uint64(at.UnixNano())}
	f.Orig.Src = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(i))))
	f.Orig.Dst, f.Orig.Proto, f.ID = netip.AddrFrom4([4]byte{10, 0, 0, 1}), ct.UDP, uint32(i)*7
	f.OrigCounters = ct.Counters{Packets: packets / 2, Bytes: bytes / 3}
	f.ReplyCounters = ct.Counters{Packets: packets - packets/2, Bytes: bytes - bytes/3}
	return f
}

func TestRates(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	var s Store
	list := func(at time.Time, flows ...*ct.Flow) [3]uint64 {
		s.Begin(at, uint64(len(flows)))
		for _, f := range flows {
			s.Add(f)
		}
		a, b, c := s.End()
		return [3]uint64{a, b, c}
	}
	rate := func(what string, f *ct.Flow, packets, bytes uint64) {
		t.Helper()
		if want := (ct.Rate{Packets: packets, Bytes: bytes, Known: true}); f.Rate != want {
			t.Errorf("%s: %+v, want %+v", what, f.Rate, want)
		}
	}
	if got := list(start, flow(1, start, 10, 1000), flow(2, start, 1<<32-1, 5)); got != [3]uint64{2, 2, 0} {
		t.Errorf("first: %v", got)
	}
	later := start.Add(2 * time.Second)
	a, b, c := flow(1, later, 30, 5000), flow(2, later, 1<<32+3, 105), flow(3, later, 4, 400)
	again := flow(1, later, 30, 5000)
	if got := list(later, a, b, c, again); got != [3]uint64{3, 1, 0} {
		t.Errorf("second: %v", got)
	}
	rate("grown", a, 10, 2000)
	rate("over 32 bits", b, 2, 50)
	rate("new", c, 2, 200)
	if again.Rate.Known {
		t.Errorf("a second time in a listing: %+v", again.Rate)
	}
	none := flow(4, later, 0, 0)
	none.Present = ct.HasID
	zeroed := flow(1, later.Add(time.Second), 3, 300)
	if got := list(later.Add(time.Second), zeroed, none); got != [3]uint64{2, 1, 2} {
		t.Errorf("third: %v", got)
	}
	rate("zeroed", zeroed, 3, 300)
	if none.Rate.Known {
		t.Errorf("without counters: %+v", none.Rate)
	}
	// A clock that is set back gives no rates of other flows, and no crash.
	back := flow(1, start.Add(-time.Hour), 4, 400)
	list(start.Add(-time.Hour), back)
	rate("clock set back", back, 1000, 100_000)
}

// Any number of flows that come and go: rates are right, and at most 64 bytes a flow
// are remembered.
func TestManyFlows(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	var s Store
	have := map[int]uint64{}
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 12 {
		at = at.Add(time.Second)
		before := have
		have = map[int]uint64{}
		hint := uint64(0)
		if round%2 == 0 {
			hint = uint64(len(before))
		}
		s.Begin(at, hint)
		n := []int{20000, 60000, 61000, 150000, 30000, 1000, 0, 5, 90000, 90000, 90000, 10}[round]
		for range n {
			i := r.IntN(200_000)
			if _, ok := have[i]; ok {
				continue
			}
			grown := uint64(r.IntN(1000))
			have[i] = before[i] + grown
			f := flow(i, at, have[i], have[i]*10)
			s.Add(f)
			if round > 0 && f.Rate != (ct.Rate{Packets: grown, Bytes: grown * 10, Known: true}) {
				t.Fatalf("round %d, flow %d: %+v, want %d", round, i, f.Rate, grown)
			}
		}
		began, ended := 0, 0
		for i := range have {
			if _, ok := before[i]; !ok {
				began++
			}
		}
		for i := range before {
			if _, ok := have[i]; !ok {
				ended++
			}
		}
		flows, b, e := s.End()
		if flows != uint64(len(have)) || b != uint64(began) || e != uint64(ended) {
			t.Errorf("round %d: %d %d %d, want %d %d %d", round, flows, b, e, len(have), began, ended)
		}
		if size := s.Size(); len(have) > 10_000 && size > 64*uint64(len(have)) {
			t.Errorf("round %d: %d bytes for %d flows", round, size, len(have))
		}
	}
}

// A table that has room for as many flows as before is not made anew.
func TestBeginAgain(t *testing.T) {
	var s Store
	at := time.Unix(1_700_000_000, 0)
	s.Begin(at, 1_000_000)
	if n := testing.AllocsPerRun(10, func() { s.Begin(at, 1_000_000) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAddAllocatesNothing(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	var s Store
	f := flow(1, at, 1, 1)
	s.Begin(at, 10)
	if n := testing.AllocsPerRun(100, func() { s.Add(f) }); n != 0 {
		t.Errorf("%v allocations a flow", n)
	}
}
