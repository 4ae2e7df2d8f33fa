package rule

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"nfctl/internal/queue"
)

// randomRules makes rules of few shapes and few values, so that they meet.
func randomRules(t testing.TB, r *rand.Rand, n int) []Rule {
	addr := func() string {
		if r.IntN(3) == 0 {
			return fmt.Sprintf("fd00::%x", r.IntN(6))
		}
		return fmt.Sprintf("10.0.0.%d", r.IntN(6))
	}
	end := func() string { // without a family of its own
		switch r.IntN(5) {
		case 0:
			return fmt.Sprintf("10.0.0.%d/%d", r.IntN(8), 29+r.IntN(4))
		case 1:
			return fmt.Sprintf("10.0.0.%d-10.0.0.%d", r.IntN(4), 4+r.IntN(4))
		}
		return fmt.Sprintf("10.0.0.%d", r.IntN(6))
	}
	port := func() string {
		return []string{fmt.Sprint(r.IntN(6)), fmt.Sprintf("%d-%d", r.IntN(4), 3+r.IntN(4)),
			fmt.Sprintf("%d,%d", r.IntN(6), r.IntN(6))}[max(0, r.IntN(6)-3)]
	}
	proto := func() string { return []string{"tcp", "udp"}[r.IntN(2)] }
	var rules []Rule
	for range n {
		text := []string{"accept", "drop", "stop", "queue 7"}[r.IntN(4)]
		switch r.IntN(12) {
		case 0, 1, 2:
			text += fmt.Sprintf(" %s %s > :%s", proto(), end(), port())
		case 3:
			text += fmt.Sprintf(" %s %s:%s > %s:%s", proto(), end(), port(), end(), port())
		case 4:
			text += fmt.Sprintf(" udp fd00::%x > :%s", r.IntN(6), port())
		case 5:
			text += fmt.Sprintf(` if ip.src == "%s" and udp.dport == %d`, addr(), r.IntN(6))
		case 6:
			text += fmt.Sprintf(` if ip.dst in "%s" and ip.ttl > %d`, addr(), 60+r.IntN(8))
		case 7:
			text += fmt.Sprintf(` %s %s > :%s if "ACK" in tcp.flags`, proto(), end(), port())
		case 8:
			text += fmt.Sprintf(` if payload == "%c" and ip.proto == "%s"`, 'a'+r.IntN(3), proto())
		case 9:
			text += fmt.Sprintf(` if mark == "0x%x/0x3"`, r.IntN(4))
		case 10:
			text += fmt.Sprintf(" %s > :%s", proto(), port())
		case 11:
			text = "mark " + fmt.Sprint(r.IntN(4)) + fmt.Sprintf(" udp %s > :%s", end(), port())
		}
		rule, err := Parse(text, Options{})
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, rule)
	}
	return rules
}

// TestPacked: the conditions that a list keeps as keys are those of the text.
func TestPacked(t *testing.T) {
	packed := 0
	for _, text := range []string{"drop tcp 10.0.0.1 > :22", "drop > 10.0.0.0/8", "drop udp fd00::/65 > [fd00::1]:53",
		"drop udp ::/0 > 0::1:2",
		"drop 99 10.0.0.1 > 0.0.0.0/0", "drop icmp > type 8 id 513", "drop sctp :0 > :65535", "drop tcp :1-2 > :22", "drop tcp > :1,2", "drop >"} {
		rules, err := ParseFile(strings.NewReader(text), "list", Options{})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		want, err := Parse(text, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(rules[0].conditions()); got != fmt.Sprint(want.conds) {
			t.Errorf("%s: %s, want %v", text, got, want.conds)
		}
		if rules[0].shape != nil {
			packed++
		}
	}
	if packed != 7 {
		t.Errorf("%d are packed", packed)
	}
}

// judgeSingly decides by trying rule after rule.
func judgeSingly(t testing.TB, rules []Rule, p *queue.Packet) (v queue.Verdict, number int) {
	for i := range rules {
		m, err := rules[i].matcher()
		if err != nil {
			t.Fatal(err)
		}
		if m != nil && !m(p) {
			continue
		}
		if rules[i].decides {
			return rules[i].verdict, i + 1
		}
		mark, mask := rules[i].marks()
		p.Mark = p.Mark&^mask | mark
	}
	return queue.Accept, 0
}

func holdJoins(t testing.TB, seed uint64, n int) (joined int) {
	r := rand.New(rand.NewPCG(seed, 9))
	rules := randomRules(t, r, n)
	var list strings.Builder
	for i := range rules {
		list.WriteString(rules[i].Text + "\n")
	}
	packed, err := ParseFile(strings.NewReader(list.String()), "list", Options{}) // keeps conditions as keys
	if err != nil {
		t.Fatal(err)
	}
	e := engine(t, Options{}, packed...)
	for i := range e.set.steps {
		if run := e.set.steps[i].run; run != nil {
			joined += len(run.joins)
		}
	}
	for range 40 {
		src, dst := fmt.Sprintf("10.0.0.%d", r.IntN(8)), fmt.Sprintf("10.0.0.%d", r.IntN(8))
		if r.IntN(3) == 0 {
			src, dst = fmt.Sprintf("fd00::%x", r.IntN(8)), fmt.Sprintf("fd00::%x", r.IntN(8))
		}
		data := udp(src, dst, []byte{6, 17, 1}[r.IntN(3)], uint16(r.IntN(8)), uint16(r.IntN(8)),
			strings.Repeat("abcd"[r.IntN(4):][:1], r.IntN(2)))
		mark := uint32(r.IntN(5))
		one, other := packetOf(data), packetOf(data)
		one.Mark, other.Mark = mark, mark
		v, number := judgeSingly(t, rules, one)
		d := queue.Decision{Verdict: queue.Accept}
		e.Decide(other, &d)
		if d.Verdict != v || d.Rule != number {
			var texts []string
			for i := range rules {
				texts = append(texts, fmt.Sprintf("%d %s", i+1, rules[i].Text))
			}
			t.Fatalf("%s\npacket %x mark %d: %v by rule %d; one by one %v by rule %d", strings.Join(texts, "\n"), data,
				mark, d.Verdict, d.Rule, v, number)
		}
		foreseen := packetOf(data)
		foreseen.Mark = mark
		if v, n := e.set.Foresee(foreseen, queue.Accept); v != d.Verdict || n != d.Rule {
			t.Fatalf("foreseen %v by %d, decided %v by %d", v, n, d.Verdict, d.Rule)
		}
	}
	return joined
}

// TestJoins holds rules that are looked up against rules tried one by one.
func TestJoins(t *testing.T) {
	joined := 0
	for seed := range uint64(300) {
		joined += holdJoins(t, seed, 4+int(seed%60))
	}
	if joined < 150 {
		t.Errorf("%d joins: too few to tell", joined)
	}
}

// FuzzJoins does what TestJoins does, for longer.
func FuzzJoins(f *testing.F) {
	f.Add(uint64(1), uint8(30))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) { holdJoins(t, seed, int(n)) })
}

// manyRules are rules of one shape, as a list of endpoints makes them.
func manyRules(t testing.TB, n int) []Rule {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "drop udp 10.%d.%d.%d > :%d\n", i>>16&255, i>>8&255, i&255, 1000+i%50000)
	}
	rules, err := ParseFile(strings.NewReader(b.String()), "list", Options{})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestJoinAllocates(t *testing.T) {
	e := engine(t, Options{}, manyRules(t, 1000)...)
	p := packetOf(udp("10.0.3.231", "10.0.0.2", 17, 53, 1999, "query"))
	d := queue.Decision{}
	e.Decide(p, &d)
	if d.Verdict != queue.Drop || d.Rule != 1000 {
		t.Errorf("%v by rule %d", d.Verdict, d.Rule)
	}
	if n := testing.AllocsPerRun(100, func() { e.Decide(p, &d) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// BenchmarkJoin: the cost of a packet that no rule is for, of ten rules and of many.
func BenchmarkJoin(b *testing.B) {
	for _, n := range []int{10, 10000, 1000000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := engine(b, Options{}, manyRules(b, n)...)
			var packets []*queue.Packet
			for i := range 256 {
				packets = append(packets, packetOf(udp(fmt.Sprintf("10.0.%d.%d", i%40, i), "10.0.0.2", 17, 53, 7,
					"query")))
			}
			d := queue.Decision{Verdict: queue.Accept}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				e.Decide(packets[i&255], &d)
				i++
			}
		})
	}
}

// BenchmarkLoad reads and compiles a million rules.
func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		if _, err := Compile(manyRules(b, 1000000), Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
