package held

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/quick"

	"nfctl/internal/packet"
	"nfctl/internal/packet/packettest"
)

// plain is a Line as one would write it without thought of speed.
type plain struct{ list []*thing }

type thing struct {
	id      int
	due     int64
	flow    uint64
	settled bool
}

// pop takes the one out that is to go next: of the first of each flow the one that is due
// first, and no thing is due before one of its flow that left.
func (p *plain) pop(now int64) int {
	best := -1
	seen := map[uint64]bool{}
	for i, t := range p.list {
		if t.flow != Unordered {
			if seen[t.flow] {
				continue
			}
			seen[t.flow] = true
		}
		if t.settled && t.due <= now && (best < 0 || t.due < p.list[best].due) {
			best = i
		}
	}
	if best < 0 {
		return -1
	}
	t := p.list[best]
	p.list = slices.Delete(p.list, best, best+1)
	for _, o := range p.list {
		if o.flow == t.flow && o.flow != Unordered {
			if o.settled {
				o.due = max(o.due, t.due)
			}
			break
		}
	}
	return t.id
}

func TestLine(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var l Line[int]
		var p plain
		open := map[int]Ref{}
		things := map[int]*thing{}
		now := int64(0)
		flows := 1 + rnd.IntN(12)
		for id := range 400 {
			switch rnd.IntN(8) {
			case 0, 1, 2, 3:
				n := &thing{id: id, due: now + rnd.Int64N(40), flow: uint64(rnd.IntN(flows)) * 64, settled: true}
				p.list = append(p.list, n)
				l.Add(n.due, n.flow, id)
			case 4:
				n := &thing{id: id, flow: uint64(rnd.IntN(flows)) * 64}
				p.list = append(p.list, n)
				open[id], things[id] = l.Wait(n.flow, id), n
			case 5:
				for id, ref := range open {
					n := things[id]
					n.due, n.settled = now+rnd.Int64N(20), true
					if !l.Settle(ref, n.due) || l.Settle(ref, 0) {
						t.Fatal("settled twice, or not at all")
					}
					delete(open, id)
					break
				}
			default:
				now += rnd.Int64N(20)
			}
			for {
				ref, want := l.Pop(now), p.pop(now)
				if (ref == None) != (want < 0) {
					t.Fatalf("seed %d: popped %d, want %d", seed, ref, want)
				}
				if ref == None {
					break
				}
				if got := *l.At(ref); got != want {
					t.Fatalf("seed %d: popped %d, want %d", seed, got, want)
				}
				l.Free(ref)
			}
			if l.Len() != len(p.list) || l.Open() != len(open) {
				t.Fatalf("seed %d: %d and %d open, want %d and %d", seed, l.Len(), l.Open(), len(p.list), len(open))
			}
			for f := range uint64(flows) {
				want := slices.ContainsFunc(p.list, func(n *thing) bool { return n.flow == f*64 && f > 0 })
				if l.Len() > 0 && l.Holds(f*64) != want {
					t.Fatalf("seed %d: holds flow %d: %v", seed, f, !want)
				}
			}
		}
		for id, ref := range open {
			l.Settle(ref, now)
			things[id].settled, things[id].due = true, now
		}
		for {
			ref, want := l.Pop(math.MaxInt64), p.pop(math.MaxInt64)
			if ref == None {
				if want >= 0 {
					t.Fatal("left behind")
				}
				break
			}
			if *l.At(ref) != want {
				t.Fatal("at the end: another order")
			}
			l.Free(ref)
		}
	}
}

func TestLineAllocates(t *testing.T) {
	var l Line[[4]uint64]
	now := int64(0)
	round := func() {
		for i := range 1000 {
			l.Add(now+int64(i%7), uint64(i%50), [4]uint64{})
		}
		now += 5
		for r := l.Pop(now); r != None; r = l.Pop(now) {
			l.Free(r)
		}
	}
	for range 100 {
		round()
		now += 10
	}
	if n := testing.AllocsPerRun(100, func() { round(); now += 10 }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSent(t *testing.T) {
	var s Sent
	var lost []Ref
	lose := func(r Ref) { lost = append(lost, r) }
	if s.Came(1, lose) != None || s.Drop() != None {
		t.Error("somebody else's was ours")
	}
	next := Ref(0)
	for range 500 { // the ring turns, and grows
		for range 7 {
			s.Add(Print(next), next)
			next++
		}
		first := next - Ref(s.Len())
		if s.Came(Print(1<<40), lose) != None || len(lost) != 0 {
			t.Fatal("a stranger was taken for ours")
		}
		if r := s.Came(Print(first), lose); r != first || len(lost) != 0 {
			t.Fatalf("came %d, want %d", r, first)
		}
		if r := s.Came(Print(first+3), lose); r != first+3 || !slices.Equal(lost, []Ref{first + 1, first + 2}) {
			t.Fatalf("came %d, lost %v", r, lost)
		}
		lost = lost[:0]
		if r := s.Drop(); r != first+4 {
			t.Fatalf("dropped %d", r)
		}
	}
}

func TestPrint(t *testing.T) {
	b := bytes.Repeat([]byte{1}, PrintBytes)
	p := PrintOf(b, 100)
	if p != PrintOf(bytes.Clone(b), 100) {
		t.Error("the same packet has two prints")
	}
	for i := range b {
		o := bytes.Clone(b)
		o[i] ^= 0x80
		if PrintOf(o, 100) == p {
			t.Errorf("byte %d does not count", i)
		}
	}
	if PrintOf(b, 101) == p || PrintOf(b[:20], 100) == p {
		t.Error("the length does not count")
	}
}

func TestMemory(t *testing.T) {
	var m Memory
	f := func(sizes []uint16) bool {
		var lent [][]byte
		for i, n := range sizes {
			b := m.Copy(bytes.Repeat([]byte{byte(i)}, max(1, int(n))))
			lent = append(lent, b)
		}
		for i, b := range lent {
			if len(b) != max(1, int(sizes[i])) || !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, len(b))) {
				return false
			}
		}
		for _, b := range lent {
			m.Return(b)
		}
		return m.Lent() == 0
	}
	if err := quick.Check(f, nil); err != nil {
		t.Error(err)
	}
	b := make([]byte, 1500)
	if n := testing.AllocsPerRun(100, func() { m.Return(m.Copy(b)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func v4(proto uint8, l4 []byte) []byte {
	return packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: proto, L4: l4}.Bytes()
}

func TestFlowOf(t *testing.T) {
	of := func(b []byte) uint64 {
		var h packet.Headers
		h.Parse(b, 0)
		return FlowOf(&h)
	}
	there := v4(6, packettest.TCP(1000, 80, 2, nil, ""))
	if a, b := of(there), of(v4(6, packettest.TCP(1000, 80, 16, nil, "more"))); a != b || a == Unordered {
		t.Errorf("one flow is %d and %d", a, b)
	}
	for name, b := range map[string][]byte{
		"other port":     v4(6, packettest.TCP(1001, 80, 2, nil, "")),
		"other protocol": v4(17, packettest.UDP(1000, 80, "")),
		"back":           v4(6, packettest.TCP(80, 1000, 2, nil, "")),
		"IPv6":           packettest.Packet{Src: "fd00::1", Dst: "fd00::2", Proto: 6, L4: packettest.TCP(1000, 80, 2, nil, "")}.Bytes(),
	} {
		if of(b) == of(there) {
			t.Errorf("%s: the same flow", name)
		}
	}
	if of([]byte{1, 2, 3}) == Unordered {
		t.Error("what is no packet has no order")
	}
}
