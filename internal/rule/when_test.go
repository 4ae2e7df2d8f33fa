package rule

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"nfctl/internal/queue"
)

// decides returns whether the first rule decides on a packet.
func decides(e *Engine, p *queue.Packet) bool {
	d := queue.Decision{Verdict: queue.Accept}
	e.Decide(p, &d)
	return d.Rule == 1
}

// ask is a packet of one flow, answer one of its other direction.
func ask(src string, n int) *queue.Packet {
	return packetOf(udp(src, "10.0.0.2", 17, 1000, 53, strings.Repeat("x", n)))
}
func answer(dst string, n int) *queue.Packet {
	return packetOf(udp("10.0.0.2", dst, 17, 53, 1000, strings.Repeat("x", n)))
}

func TestEvery(t *testing.T) {
	e := engine(t, Options{}, mustParse(t, Options{}, "drop every 10 udp > :53 if ip.src == \"10.0.0.1\"")...)
	met := 0
	for i := 1; i <= 2000; i++ {
		if decides(e, ask("10.0.0.3", 1)) || decides(e, answer("10.0.0.1", 1)) {
			t.Fatal("a packet of another flow")
		}
		got := decides(e, ask("10.0.0.1", 1))
		if got != (i%10 == 0) {
			t.Fatalf("packet %d: %v", i, got)
		}
		if got {
			met++
		}
	}
	if met != 200 {
		t.Errorf("%d of 2000", met)
	}
}

// Of several whens each counts what those before it chose.
func TestWhensInOrder(t *testing.T) {
	for rule, want := range map[string]string{
		"drop every 2 every 3": "6 12 18 24", "drop every 3 first 2": "3 6", "drop first 7 every 3": "3 6",
		"drop every 5 chance 100%": "5 10 15 20", "drop chance 0% every 1": "",
	} {
		e := engine(t, Options{}, mustParse(t, Options{}, rule)...)
		var got []string
		for i := 1; i <= 24; i++ {
			if decides(e, ask("10.0.0.1", 1)) {
				got = append(got, fmt.Sprint(i))
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", rule, s, want)
		}
	}
}

// choices draws n times.
func choices(t testing.TB, seed uint64, n int, rule string) []bool {
	t.Helper()
	o := Options{Seed: seed}
	e := engine(t, o, mustParse(t, o, rule)...)
	p := ask("10.0.0.1", 1)
	out := make([]bool, n)
	for i := range out {
		out[i] = decides(e, p)
	}
	return out
}

func TestChance(t *testing.T) {
	const n = 100_000
	for seed := range uint64(3) {
		for _, percent := range []float64{0, 0.1, 20, 50, 99, 100} {
			got := choices(t, seed, n, fmt.Sprintf("drop chance %v%%", percent))
			met, pairs := 0, 0
			for i, is := range got {
				if is {
					met++
					if i > 0 && got[i-1] {
						pairs++
					}
				}
			}
			p := percent / 100
			if sigma := math.Sqrt(n * p * (1 - p)); math.Abs(float64(met)-n*p) > 3*sigma {
				t.Errorf("seed %d, %v %%: %d of %d, more than three sigma (%.0f) off", seed, percent, met, n, sigma)
			}
			// What one packet met says nothing of the next. (Pairs overlap, so the
			// deviation is somewhat above that of n independent ones.)
			if off := math.Abs(float64(pairs) - n*p*p); off > 5*math.Sqrt(n*p*p)*math.Sqrt(1-p*p)+1 {
				t.Errorf("seed %d, %v %%: %d pairs, want about %.0f", seed, percent, pairs, n*p*p)
			}
		}
	}
}

// One seed draws the same again, another something else, and so do two rules.
func TestSeed(t *testing.T) {
	same := func(a, b []bool) bool { return fmt.Sprint(a) == fmt.Sprint(b) }
	a := choices(t, 7, 200, "drop chance 20%")
	if !same(a, choices(t, 7, 200, "drop chance 20%")) || same(a, choices(t, 8, 200, "drop chance 20%")) {
		t.Error("choices do not follow the seed")
	}
	if twice := choices(t, 7, 200, "drop chance 20% chance 100%"); !same(a, twice) {
		t.Error("a second chance of 100 % changes the first")
	}
	two := choices(t, 7, 10000, "drop chance 50% chance 50%")
	if n := strings.Count(fmt.Sprint(two), "true"); n < 2300 || n > 2700 {
		t.Errorf("two chances of 50 %%: %d of 10000", n)
	}
}

func TestChanceBurst(t *testing.T) {
	const n = 400_000
	for _, c := range []struct{ percent, burst float64 }{{20, 5}, {1, 10}, {10, 1}, {50, 1}, {90, 9}, {5, 2.5},
		{30, 3}} {
		got := choices(t, 1, n, fmt.Sprintf("drop chance %v%% burst %v", c.percent, c.burst))
		met, runs := 0, 0
		for i, is := range got {
			if is {
				met++
				if i == 0 || !got[i-1] {
					runs++
				}
			}
		}
		// Runs have a deviation of sqrt(N(N-1)), and so have, about, the gaps between them
		// in proportion to their mean.
		mean := float64(met) / float64(runs)
		if off := 4 * math.Sqrt(c.burst*(c.burst-1)/float64(runs)); math.Abs(mean-c.burst) > off+1e-9 {
			t.Errorf("%+v: runs of %.2f on average, more than %.2f off", c, mean, off)
		}
		if share := 100 * float64(met) / n; math.Abs(share-c.percent) > 6*c.percent/math.Sqrt(float64(runs)) {
			t.Errorf("%+v: %.2f %%", c, share)
		}
	}
}

// limited returns how many of n packets, apart from each other, a rule chooses.
func limited(e *Engine, p *queue.Packet, from, n int, apart time.Duration) (met int) {
	for i := range n {
		p.Time = int64(time.Hour) + int64(from+i)*int64(apart)
		if decides(e, p) {
			met++
		}
	}
	return met
}

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		rule  string
		n     int
		apart time.Duration
		want  int
	}{
		{"10/s", 1000, 0, 5},                       // at once
		{"10/s", 1001, 10 * time.Millisecond, 105}, // in 10 s: five, and then each tenth of a second one
		{"10/s burst 1", 1001, 10 * time.Millisecond, 101},
		{"10/s burst 30", 1000, 0, 30},
		{"1000/s", 1000, 0, 100}, // a tenth of a second's
		{"10/second", 1000, 0, 5},
		{"60/m burst 1", 600, time.Second / 10, 60},
		{"1/h burst 2", 7201, time.Second, 4},
		{"10/s", 100, 100 * time.Millisecond, 100}, // just so fast
		{"3/s burst 1", 3000, time.Second / 300, 30},
		{"1000000/s burst 1", 1000, time.Microsecond / 2, 500},
	} {
		for _, over := range []bool{false, true} {
			rule, want := "drop limit "+c.rule, c.want
			if over {
				rule, want = "drop limit over "+c.rule, c.n-c.want
			}
			e := engine(t, Options{}, mustParse(t, Options{}, rule)...)
			if got := limited(e, ask("10.0.0.1", 1), 0, c.n, c.apart); got != want {
				t.Errorf("%s, %d packets %v apart: %d, want %d", rule, c.n, c.apart, got, want)
			}
		}
	}
}

// A packet of the last second that comes late does not fill the bucket, and a clock
// that is put back does not close it.
func TestLimitAgainstTheClock(t *testing.T) {
	e := engine(t, Options{}, mustParse(t, Options{}, "drop limit 10/s burst 5")...)
	p := ask("10.0.0.1", 1)
	if got := limited(e, p, 0, 10, 0); got != 5 {
		t.Fatal(got)
	}
	for i := range 1000 {
		p.Time = int64(time.Hour) - int64(i%2)*int64(900*time.Millisecond)
		if decides(e, p) {
			t.Fatal("packets out of order fill the bucket")
		}
	}
	for i, want := range []int{5, 0} {
		met := 0
		for range 10 {
			p.Time = int64(time.Minute)
			if decides(e, p) {
				met++
			}
		}
		if met != want {
			t.Errorf("%d: %d after the clock was put back, want %d", i, met, want)
		}
	}
}

func TestLimitPer(t *testing.T) {
	for _, rule := range []string{"drop limit 10/s burst 3 per ip.src", "drop limit 10/s per ip.src burst 3"} {
		e := engine(t, Options{}, mustParse(t, Options{}, rule)...)
		for i := range 100 {
			if got := limited(e, ask(fmt.Sprintf("10.0.1.%d", i), 1), 0, 10, 0); got != 3 {
				t.Errorf("%s: source %d: %d", rule, i, got)
			}
		}
	}
	v6 := packetOf(udp("fd00::1", "fd00::2", 17, 1000, 53, "x"))
	tcp := packetOf(udp("10.0.0.1", "10.0.0.2", 6, 1000, 80, ""))
	for rule, want := range map[string]string{ // of v6, tcp, a datagram of 2 bytes, of 3, of 3 again
		"drop limit 1/s burst 1 per udp.sport":      "true false false false false", // TCP has none
		"drop limit over 1/s burst 1 per udp.sport": "false false true true true",
		"drop limit 1/s burst 1 per payload":        "true true true true false",
		"drop limit 1/s burst 1 per ip.proto":       "true true false false false",
	} {
		e := engine(t, Options{}, mustParse(t, Options{}, rule)...)
		got := fmt.Sprint(decides(e, v6), decides(e, tcp), decides(e, ask("10.0.0.1", 2)),
			decides(e, ask("10.0.0.1", 3)), decides(e, ask("10.0.0.1", 3)))
		if got != want {
			t.Errorf("%s: %s, want %s", rule, got, want)
		}
	}
}

func TestFirstOfFlow(t *testing.T) {
	one := engine(t, Options{}, mustParse(t, Options{}, "drop first 4 udp >")...)
	for i := range 3 {
		src := fmt.Sprintf("10.0.0.%d", 10+i)
		got := ""
		for range 3 {
			got += fmt.Sprint(decides(one, ask(src, 1)), decides(one, answer(src, 1)), " ")
		}
		if got != "true true true true false false " {
			t.Errorf("%s: %s", src, got)
		}
	}
	// Headers are 28 bytes: of packets of 128 bytes the fourth begins behind 300.
	bytes := engine(t, Options{}, mustParse(t, Options{}, "drop first 300B")...)
	got := fmt.Sprint(decides(bytes, ask("10.0.0.1", 100)), decides(bytes, answer("10.0.0.1", 100)),
		decides(bytes, ask("10.0.0.1", 100)), decides(bytes, ask("10.0.0.1", 100)))
	if got != "true true true false" {
		t.Errorf("first 300B: %s", got)
	}
	if decides(one, packetOf(nil)) {
		t.Error("a packet without headers has a flow")
	}
	// Only what reaches the when is counted.
	late := engine(t, Options{}, mustParse(t, Options{}, "drop first 1 if udp.length > 50")...)
	if decides(late, ask("10.0.0.1", 1)) || !decides(late, ask("10.0.0.1", 100)) ||
		decides(late, ask("10.0.0.1", 100)) {
		t.Error("first counts what the expression does not match")
	}
}

func TestMaxFlows(t *testing.T) {
	o := Options{MaxFlows: 2}
	s, err := Compile(mustParse(t, o, "drop first 1"), o)
	if err != nil {
		t.Fatal(err)
	}
	e, _ := s.Engine()
	for i, c := range []struct {
		src string
		met bool
	}{{"10.0.0.1", true}, {"10.0.0.2", true}, {"10.0.0.1", false}, {"10.0.0.3", true}, {"10.0.0.1", false},
		{"10.0.0.2", true}} {
		if got := decides(e, packetOf(udp(c.src, "10.0.0.9", 17, 1, 2, ""))); got != c.met {
			t.Errorf("%d: %v", i, got)
		}
	}
	if n := s.Forgotten(); n != 2 {
		t.Errorf("%d forgotten", n)
	}
}

// All queues count together.
func TestWhensAreShared(t *testing.T) {
	const queues, each = 4, 25000
	for rule, want := range map[string]int{"drop every 10": queues * each / 10, "drop first 1000": 1000,
		"drop limit 1/h burst 70":            70,
		"drop limit 1/h burst 70 per ip.src": 70, "drop chance 100%": queues * each, "drop chance 0% burst 3": 0} {
		s, err := Compile(mustParse(t, Options{}, rule), Options{})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		met := make([]int, queues)
		for q := range queues {
			e, err := s.Engine()
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				p, n := ask("10.0.0.1", 1), 0
				for range each {
					if decides(e, p) {
						n++
					}
				}
				met[q] = n
			})
		}
		wg.Wait()
		sum := 0
		for _, n := range met {
			sum += n
		}
		if sum != want {
			t.Errorf("%s: %d, want %d", rule, sum, want)
		}
	}
}

// New rules go on counting where their texts are those of old ones.
func TestContinue(t *testing.T) {
	compile := func(lines ...string) *Set {
		s, err := Compile(mustParse(t, Options{}, lines...), Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	// met returns which rule decides on each of some packets.
	met := func(s *Set, n int) (got string) {
		e, err := s.Engine()
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			d := queue.Decision{Verdict: queue.Accept}
			e.Decide(ask("10.0.0.1", 1), &d)
			got += fmt.Sprint(d.Rule)
		}
		return got
	}
	old := compile("drop first 2", "accept tcp >", "drop every 3")
	if got := met(old, 4); got != "1100" {
		t.Fatal(got)
	}
	same := compile("drop every 3", "drop first 2")
	same.Continue(old)
	if got := met(same, 4); got != "1001" {
		t.Errorf("unchanged rules: %s", got)
	}
	other := compile("drop first 3", "drop every 3", "drop every 3")
	other.Continue(same)
	if got := met(other, 6); got != "111002" {
		t.Errorf("changed rules: %s", got)
	}
}

func TestWhenErrors(t *testing.T) {
	for _, c := range []struct{ rule, names string }{
		{"drop chance", `"" is not a valid chance`}, {"drop chance 20", `"20" is not a valid chance (did you mean "20%"?)`}, {"drop chance 101%", `"101%"`},
		{"drop chance -1%", `"-1%"`}, {"drop chance x%", `"x%"`}, {"drop chance 1e1%", `"1e1%"`}, {"drop chance NaN%", `"NaN%"`}, {"drop chance %", `"%"`}, {"drop chance 1.2.3%", `"1.2.3%"`},
		{"drop chance 20% burst", `"" is not a valid burst`}, {"drop chance 20% burst 0", `"0" is not a valid burst`}, {"drop chance 20% burst 0.5", `"0.5"`},
		{"drop chance 20% burst x", `"x"`}, {"drop chance 90% burst 8", `"8" is not a valid burst: want runs of at least 9 for chance 90%`}, {"drop chance 60% burst 1", "at least 1.5 for chance 60%"},
		{"drop chance 100% burst 3", "less than chance 100%"},
		{"drop every", `"" is not a valid every`}, {"drop every 0", `"0" is not a valid every`}, {"drop every -1", `"-1"`}, {"drop every 2.5", `"2.5"`}, {"drop every if", `"if" is not a valid every`},
		{"drop every 99999999999999999999", `"99999999999999999999"`},
		{"drop limit", `"" is not a valid limit`}, {"drop limit 10", `"10" is not a valid limit: want packets a second, minute or hour, as 10/s`}, {"drop limit 10/d", `"10/d"`}, {"drop limit 0/s", `"0/s"`},
		{"drop limit over", `"" is not a valid limit`}, {"drop limit over over 1/s", `"over"`}, {"drop limit 1000001/s", `"1000001/s"`}, {"drop limit /s", `"/s"`}, {"drop limit 1/s/s", `"1/s/s"`},
		{"drop limit 1.5/s", `"1.5/s"`}, {"drop limit 10/s burst 0", `"0" is not a valid burst`}, {"drop limit 10/s burst", `"" is not a valid burst`}, {"drop limit 10/s burst 1000001", `"1000001"`},
		{"drop limit 10/s per", `"" is not a valid per`}, {"drop limit 10/s per ip.scr", `"ip.scr" is not a valid field (did you mean "ip.src"?)`}, {"drop limit 10/s per verdict", `"verdict" is not a valid field here`},
		{"drop limit 10/s per tcp", `"tcp" is not a valid field`},
		{"drop first", `"" is not a valid first`}, {"drop first 0", `"0" is not a valid first`}, {"drop first 0KiB", `"0KiB"`}, {"drop first x", `"x"`}, {"drop first -8", `"-8"`}, {"drop first 8XB", `"8XB"`},
		{"chance 20% drop", `"chance" is not a valid action: want an action in front of it, as drop chance`}, {"drop chance 20% log", `"log" is not a valid word here: want all actions in front of chance`},
		{"drop udp > :53 every 10", `"every" is not a valid word here: want every behind the actions and in front of the flow`}, {"drop evry 10", `did you mean "every"?`},
		{"drop limit 10/s burst 5 burst 6", "burst"},
	} {
		_, err := Parse(c.rule, Options{})
		if err == nil || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: %v, want %s", c.rule, err, c.names)
		}
	}
	for _, rule := range []string{"drop chance 20%", "drop chance 0.05% burst 1", "drop chance 50% burst 1",
		"drop chance 100%", "mark 1 every 3 tcp > :80 if ip.ttl > 3", "set ip.ttl=3 first 2 if tcp.dport == 80",
		"log limit 1/m", "queue 5 bypass first 64KiB udp >", "drop first 8 'tcp > :22'", "repeat mark 1/1 chance 3%", `replace "a" "b" resize every 2`, "drop limit over 10/hour burst 3 per ct.mark"} {
		if _, err := Parse(rule, Options{}); err != nil {
			t.Error(err)
		}
	}
}

// What counts packets needs those of the wire, unless no others can come.
func TestWhensNeed(t *testing.T) {
	for _, c := range []struct {
		rule  string
		proto uint8
		apart bool
		copy  uint32
	}{
		{"drop every 2", 0, true, 0}, {"drop every 2", 6, true, 0}, {"drop every 2", 1, false, 0}, {"drop every 2 tcp > :80", 0, true, headerCopy}, {"drop every 2 icmp >", 0, false, headerCopy},
		{"drop chance 1%", 0, true, 0}, {"drop limit 1/s", 0, true, 0}, {"drop limit 1/s per ip.src", 0, true, headerCopy}, {"drop limit 1/s per mark", 0, true, 0},
		{"drop limit 1/s per payload", 0, true, queue.MaxCopy}, {"drop first 1", 0, true, headerCopy}, {"drop first 1KiB", 0, true, headerCopy}, {"drop tcp > :80", 0, false, headerCopy},
	} {
		o := Options{Proto: c.proto}
		s, err := Compile(mustParse(t, o, c.rule), o)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Needs(); n.Apart != c.apart || n.CopyRange != c.copy || n.Conntrack {
			t.Errorf("%s (of %d): %+v", c.rule, c.proto, n)
		}
	}
}

// Every row says what a user has to know, and its word is taken.
func TestWhens(t *testing.T) {
	for _, w := range Whens() {
		if w.Word == "" || w.Args == "" || w.Doc == "" || actionOf(w.Word) != nil {
			t.Errorf("%+v", w)
		}
		if _, err := Parse("drop "+w.Word+" x", Options{}); err == nil ||
			!strings.Contains(err.Error(), `"x" is not a valid `+w.Word+": want ") {
			t.Errorf("%s: %v", w.Word, err)
		}
	}
}

// An SSH session is not said to be dropped by a rule that drops some packets.
func TestForeseeWhens(t *testing.T) {
	s, err := Compile(mustParse(t, Options{}, "drop chance 50%", "drop every 1", "accept first 1", "stop"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if v, n := s.Foresee(ask("10.0.0.1", 1), queue.Accept); v != queue.Stop || n != 4 {
		t.Errorf("%v by rule %d", v, n)
	}
}

// manyFlows are rules with whens and packets of n flows.
func manyFlows(t testing.TB, n int, rule string) (*Engine, []*queue.Packet) {
	e := engine(t, Options{}, mustParse(t, Options{}, rule)...)
	packets := make([]*queue.Packet, n)
	for i := range packets {
		packets[i] = packetOf(udp(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), "10.0.0.2", 17, 1000, 53, "x"))
	}
	return e, packets
}

var whenRules = []struct{ name, rule string }{
	{"none", "drop udp > :53"}, {"chance", "drop chance 20% udp > :53"}, {"burst", "drop chance 20% burst 5 udp > :53"}, {"every", "drop every 10 udp > :53"},
	{"limit", "drop limit 1000/s udp > :53"}, {"per", "drop limit over 1000/s per ip.src udp > :53"}, {"first", "drop first 8 udp > :53"},
	{"bytes", "drop first 64KiB udp > :53"}, {"text", "drop limit 1/s per payload udp > :53"},
}

func TestWhensAllocate(t *testing.T) {
	for _, c := range whenRules {
		e, packets := manyFlows(t, 1000, c.rule)
		i, d := 0, new(queue.Decision)
		next := func() {
			p := packets[i%len(packets)]
			p.Time = int64(i) * 1000
			*d = queue.Decision{Verdict: queue.Accept, Matched: d.Matched[:0]}
			e.Decide(p, d)
			i++
		}
		for range packets { // tables grow up to their bound
			next()
		}
		if n := testing.AllocsPerRun(2000, next); n != 0 {
			t.Errorf("%s: %v allocations a packet", c.rule, n)
		}
	}
}

func BenchmarkWhen(b *testing.B) {
	for _, c := range whenRules {
		b.Run(c.name, func(b *testing.B) {
			e, packets := manyFlows(b, 50000, c.rule)
			d := new(queue.Decision)
			i := 0
			for _, p := range packets { // all flows are remembered then
				e.Decide(p, d)
			}
			b.ReportAllocs()
			for b.Loop() {
				p := packets[i%len(packets)]
				i++
				p.Time = int64(i) * 1000
				*d = queue.Decision{Verdict: queue.Accept, Matched: d.Matched[:0]}
				e.Decide(p, d)
			}
		})
	}
}
