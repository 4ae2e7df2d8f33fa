package rule

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"nfctl/internal/filter"
	"nfctl/internal/pattern"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// udp makes a packet of a UDP (or, by proto, other) datagram.
func udp(src, dst string, proto byte, sport, dport uint16, payload string) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	l4 := []byte{byte(sport >> 8), byte(sport), byte(dport >> 8), byte(dport), 0, byte(8 + len(payload)), 0, 0}
	if proto == 6 {
		l4 = append(l4[:4], 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0)
	}
	l4 = append(l4, payload...)
	if s.Is4() {
		n := 20 + len(l4)
		b := []byte{0x45, 0, byte(n >> 8), byte(n), 0, 1, 0, 0, 64, proto, 0, 0}
		return append(append(append(b, s.AsSlice()...), d.AsSlice()...), l4...)
	}
	b := []byte{0x60, 0, 0, 0, byte(len(l4) >> 8), byte(len(l4)), proto, 64}
	return append(append(append(b, s.AsSlice()...), d.AsSlice()...), l4...)
}

func packetOf(data []byte) *queue.Packet {
	return &queue.Packet{Data: data, Length: uint32(len(data)), Has: queue.HasPayload | queue.HasLength}
}

func mustParse(t testing.TB, o Options, lines ...string) []Rule {
	t.Helper()
	var rules []Rule
	for _, l := range lines {
		r, err := Parse(l, o)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	return rules
}

func engine(t testing.TB, o Options, rules ...Rule) *Engine {
	t.Helper()
	s, err := Compile(rules, o)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Engine()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func flag(t testing.TB, action, what, text string) Rule {
	t.Helper()
	r, err := Flag(action, what, text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDecide(t *testing.T) {
	tcp22 := udp("10.0.0.1", "10.0.0.2", 6, 40000, 22, "")
	udp53 := udp("10.0.0.1", "10.0.0.2", 17, 53, 5353, "query")
	v6 := udp("fd00::1", "fd00::2", 17, 1000, 2000, "")
	for _, c := range []struct {
		rules []string
		data  []byte
		want  string
	}{
		{[]string{"drop tcp > *:22"}, tcp22, "drop 1"},
		{[]string{"drop tcp > *:22"}, udp53, "accept 0"},
		{[]string{"accept tcp > *:22", "drop"}, tcp22, "accept 1"},
		{[]string{"accept tcp > *:22", "drop"}, udp53, "drop 2"},
		{[]string{"drop if tcp.dport == 22"}, tcp22, "drop 1"},
		{[]string{"drop udp > * if payload contains \"que\""}, udp53, "drop 1"},
		{[]string{"drop 10.0.0.0/8 > *", "accept udp > *"}, udp53, "drop 1"},
		{[]string{"drop 10.0.0.0/8 > *", "accept udp > *"}, v6, "accept 2"},
		{[]string{"drop [fd00::]:1000-1010 > *"}, v6, "accept 0"},
		{[]string{"drop fd00::/64 > *"}, v6, "drop 1"},
		{[]string{"queue 5 bypass udp > *"}, udp53, "queue 5 bypass 1"},
		{[]string{"stop"}, udp53, "stop 1"},
		{[]string{"mark 0x1 repeat"}, udp53, "repeat 1"},
		{[]string{"mark 0x10/0xf0", "drop if mark == 0x10"}, udp53, "drop 2"},
		{[]string{"log udp > *", "accept"}, udp53, "accept 2"},
		{[]string{"drop icmp > *"}, udp53, "accept 0"},
		{[]string{"drop if not (tcp != nil)"}, udp53, "drop 1"},
		{[]string{"drop 'tcp > *:22'"}, tcp22, "drop 1"},
	} {
		e := engine(t, Options{}, mustParse(t, Options{}, c.rules...)...)
		d := queue.Decision{Verdict: queue.Accept}
		e.Decide(packetOf(c.data), &d)
		if got := fmt.Sprintf("%v %d", d.Verdict, d.Rule); got != c.want {
			t.Errorf("%q: %s, want %s", c.rules, got, c.want)
		}
	}
}

func TestFlag(t *testing.T) {
	p := udp("10.0.0.1", "10.0.0.2", 17, 53, 5353, "query")
	for _, c := range []struct {
		what, text string
		match      bool
	}{
		{"port", "53", true}, {"port", "5353", true}, {"port", "80,5000-6000", true}, {"port", "80", false},
		{"port", "!53", false}, {"port", "!80", true},
		{"sport", "domain", true}, {"sport", "5353", false}, {"dport", "5353", true}, {"dport", "53", false},
		{"proto", "udp", true}, {"proto", "tcp", false}, {"proto", "17", true},
		{"src", "10.0.0.0/30", true}, {"src", "10.0.0.2", false}, {"dst", "10.0.0.2", true}, {"src", "fd00::/8", false},
		{"src", "!fd00::/8", true}, {"", "udp > *:5353", true}, {"if", "udp.sport == 53", true}, {"if", "tcp.sport != 53", false},
	} {
		for _, action := range []string{"accept", "drop"} {
			e := engine(t, Options{}, flag(t, action, c.what, c.text))
			d := queue.Decision{Verdict: queue.Stop}
			e.Decide(packetOf(p), &d)
			want := queue.Stop
			if c.match {
				if want = queue.Accept; action == "drop" {
					want = queue.Drop
				}
			}
			if d.Verdict != want {
				t.Errorf("--%s-%s %s: %v, want %v", action, c.what, c.text, d.Verdict, want)
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "rule '': \"\" is not a valid rule: want an action: accept, drop, reject, repeat, stop, queue, mark, connmark, set, replace, option, delay, rate, duplicate, corrupt, log, expect, lua"},
		{"dorp tcp > *:22", `rule 'dorp tcp > *:22': "dorp" is not a valid action (did you mean "drop"?): want one of accept, drop, reject, repeat, stop, queue, mark, connmark, set, replace, option, delay, rate, duplicate, corrupt, log, expect, lua`},
		{"repeat", "rule 'repeat': repeat wants a mark other than 0 in the same rule, by which the rule that queues leaves the packet out: repeat mark 0x10/0x10"},
		{"mark 0 repeat", "rule 'mark 0 repeat': repeat wants a mark other than 0 in the same rule, by which the rule that queues leaves the packet out: repeat mark 0x10/0x10"},
		{"stop flow", `rule 'stop flow': "flow" is not a valid word here: want flow right behind accept, drop, reject`},
		{"queue 5 flow udp >", `rule 'queue 5 flow udp >': "flow" is not a valid word here: want flow right behind accept, drop, reject`},
		{"accept drop", `rule 'accept drop': "drop" is not a valid second verdict: want one of accept, drop, reject, repeat, stop and queue in a rule`},
		{"deny tcp > :80", `rule 'deny tcp > :80': "deny" is not a valid action (did you mean "drop"?)`},
		{"permit", `rule 'permit': "permit" is not a valid action (did you mean "accept"?)`},
		{"queue", `rule 'queue': "" is not a valid queue: want the number of a queue, 0 to 65535`},
		{"queue 70000", `rule 'queue 70000': "70000" is not a valid queue: want the number of a queue, 0 to 65535`},
		{"mark", `rule 'mark': "" is not a valid mark: want a mark, as 0x1 or 0x1/0xff`},
		{"mark x", `rule 'mark x': "x" is not a valid mark: want a 32-bit number as 7, 0x10 or, with a mask, 0x1/0xff`},
		{"set", `rule 'set': "" is not a valid change: want FIELD=VALUE, as ip.ttl=64`},
		{"set ip.ttl=256", `rule 'set ip.ttl=256': "256" is not a valid ip.ttl to set: want a number from 0 to 255`},
		{`replace "a`, "rule 'replace \"a': \"\\\"a\" is not a valid text to replace: want a text in double quotes, as \"GET\" or \"\\x00\\xff\""},
		{`replace "a" b`, "rule 'replace \"a\" b': \"b\" is not a valid replacement: want a text in double quotes, as \"GET\" or \"\\x00\\xff\""},
		{`replace "a" "b" pad`, `rule 'replace "a" "b" pad': "" is not a valid byte to pad with: want one byte in double quotes, as " " or "\x00"`},
		{`replace "a" "b" pad "xy"`, `rule 'replace "a" "b" pad "xy"': "\"xy\"" is not a valid byte to pad with`},
		{`replace regex "a(" "b"`, `rule 'replace regex "a(" "b"': "a(" is not a valid regular expression: want one of RE2's (error parsing regexp: missing closing )`},
		{`replace regex a "b"`, `rule 'replace regex a "b"': "a" is not a valid regular expression to replace: want a text in quotes`},
		{`replace regex "a"`, `rule 'replace regex "a"': "" is not a valid replacement: want a text in quotes`},
		{`replace regex "(a)" "$1x"`, `rule 'replace regex "(a)" "$1x"': "1x" is not a valid group of the expression: want braces around the group, as ${1}x`},
		{"option", `rule 'option': "" is not a valid option: want strip and TCP options`},
		{"option stirp mss", `rule 'option stirp mss': "stirp" is not a valid option (did you mean "strip"?)`},
		{"option strip", `rule 'option strip': "" is not a valid TCP option`},
		{"option strip timstamps", `rule 'option strip timstamps': "timstamps" is not a valid TCP option (did you mean "timestamps"?)`},
		{"set ip.ttl=-1", `rule 'set ip.ttl=-1': "-1" is not a valid ip.ttl to set: want a number from 0 to 255`},
		{"set tcp.dport=1-2", `rule 'set tcp.dport=1-2': "1-2" is not a valid tcp.dport to set`},
		{"set tcp.dport=sssh", `rule 'set tcp.dport=sssh': "sssh" is not a valid tcp.dport to set (did you mean "ssh"?)`},
		{"set ip.ttl=ip.tll+1", `rule 'set ip.ttl=ip.tll+1': ip.ttl to set: column 1: "ip.tll" is not a field (did you mean "ip.ttl"?)`},
		{`set ip.ttl="ip.ttl % 2"`, `rule 'set ip.ttl="ip.ttl % 2"': ip.ttl to set: column 8: "%" is not used here: whole numbers, number fields, + - * /, min and max`},
		{`set ip.ttl="mix(ip.ttl, 2)"`, `rule 'set ip.ttl="mix(ip.ttl, 2)"': ip.ttl to set: column 1: "mix" is not a function (did you mean "min"?)`},
		{`set ip.ttl="min(ip.ttl)"`, `rule 'set ip.ttl="min(ip.ttl)"': ip.ttl to set: column 1: "min" is given one value`},
		{`set ip.ttl="min()"`, `rule 'set ip.ttl="min()"': ip.ttl to set: column 1: "min" is given no value`},
		{`set ip.ttl=ip.src+1`, `rule 'set ip.ttl=ip.src+1': ip.ttl to set: column 1: "ip.src" is an address, not a number`},
		{`set ip.src=ip.dst`, `rule 'set ip.src=ip.dst': "ip.dst" is not a valid ip.src to set`},
		{"drop fi tcp.dport == 22", `rule 'drop fi tcp.dport == 22': "fi" is not a valid word here (did you mean "if"?): want an action, chance, every, limit, first, a flow in words, or if and an expression`},
		{"drop if", `rule 'drop if': "if" is not a valid condition: want an expression behind if`},
		{"drop if tcp.dprt == 22", `rule 'drop if tcp.dprt == 22': column`},
		{"drop if verdict == \"drop\"", "rule 'drop if verdict == \"drop\"': column"},
		{"drop tcp > *:70000", `rule 'drop tcp > *:70000': flow 'tcp > *:70000': column`},
		{"drop tcp > * zone 5", `rule 'drop tcp > * zone 5': "tcp > * zone 5" is not a valid pattern here: want no zone`},
		{"lua x.lua", `rule 'lua x.lua': "lua" is not a valid action here: want another action`},
	} {
		_, err := Parse(c.text, Options{})
		var e *Error
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || !errors.As(err, &e) {
			t.Errorf("%q:\n got %v\nwant %s", c.text, err, c.want)
		}
	}
	_, err := Parse("drop if ip.src == \"300.1.1.1\"", Options{})
	var fe *filter.Error
	if !errors.As(err, &fe) {
		t.Errorf("%v", err)
	}
	_, err = Parse("drop tcp > 1.2.3", Options{})
	var pe *pattern.Error
	var ve *value.Error
	if !errors.As(err, &pe) && !errors.As(err, &ve) {
		t.Errorf("%v", err)
	}
}

func TestParseFile(t *testing.T) {
	in := `# rules
drop tcp > *:22   # ssh
  accept if payload contains "#1" # and "more"

replace "#a" "'b" udp > *
`
	rules, err := ParseFile(strings.NewReader(in), "f", Options{})
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, r := range rules {
		texts = append(texts, r.Text)
	}
	if got := strings.Join(texts,
		"|"); got != `drop tcp > *:22|accept if payload contains "#1"|replace "#a" "'b" udp > *` {
		t.Errorf("%s", got)
	}
	if _, err := ParseFile(strings.NewReader("accept\n\nfoo\n"), "f", Options{}); err == nil ||
		!strings.HasPrefix(err.Error(), "f:3: ") {
		t.Errorf("%v", err)
	}
}

func TestNeeds(t *testing.T) {
	for _, c := range []struct {
		rule string
		want Needs
	}{
		{"accept", Needs{}}, {"mark 1", Needs{}}, {"drop if mark == 1", Needs{}},
		{"drop tcp > *:22", Needs{CopyRange: headerCopy}}, {"drop if ip.ttl < 3", Needs{CopyRange: headerCopy}},
		{"drop if tcp != nil", Needs{CopyRange: headerCopy}},
		{"drop if payload contains \"x\"", Needs{CopyRange: queue.MaxCopy, Apart: true}}, {"set ip.ttl=1", Needs{CopyRange: queue.MaxCopy, Edits: true}},
		{"replace \"a\" \"b\"", Needs{CopyRange: queue.MaxCopy, Edits: true, Apart: true}}, {"connmark 1", Needs{Connmark: true}},
		{"drop if uid == 0", Needs{UIDGID: true}}, {"drop if ct.mark == 1", Needs{Conntrack: true}},
		{"drop if length > 100", Needs{CopyRange: 1, Apart: true}},
	} {
		s, err := Compile(mustParse(t, Options{}, c.rule), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Needs(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.rule, got, c.want)
		}
	}
}

// TestRuns holds tables against rules tried one by one.
func TestRuns(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	addr := func() string {
		if r.IntN(3) == 0 {
			return fmt.Sprintf("fd00::%x", r.IntN(16))
		}
		return fmt.Sprintf("10.0.0.%d", r.IntN(16))
	}
	for range 400 {
		var rules []Rule
		for range 2 + r.IntN(12) {
			action := []string{"accept", "drop"}[r.IntN(2)]
			lo := r.IntN(20)
			ports := []string{fmt.Sprint(lo), fmt.Sprintf("%d-%d", lo, lo+r.IntN(10)),
				fmt.Sprintf("%d,%d", lo, r.IntN(20)), fmt.Sprintf("!%d", lo)}[r.IntN(4)]
			switch r.IntN(8) {
			case 0:
				rules = append(rules, flag(t, action, "port", ports))
			case 1:
				rules = append(rules, flag(t, action, "sport", ports))
			case 2:
				rules = append(rules, flag(t, action, "dport", ports))
			case 3:
				rules = append(rules, flag(t, action, "src", addr()))
			case 4:
				rules = append(rules, flag(t, action, "dst",
					fmt.Sprintf("10.0.0.%d/%d,fd00::%x/%d", r.IntN(16), 28+r.IntN(5), r.IntN(16), 124+r.IntN(5))))
			case 5:
				rules = append(rules, flag(t, action, "proto", []string{"tcp", "udp", "icmp"}[r.IntN(3)]))
			case 6:
				rules = append(rules, flag(t, action, "",
					fmt.Sprintf("%s > *:%d", []string{"tcp", "udp"}[r.IntN(2)], lo)))
			case 7:
				rules = append(rules, flag(t, action, "", "udp "+fmt.Sprintf("10.0.0.%d", r.IntN(16))+" > *"))
			}
		}
		fast := engine(t, Options{}, rules...)
		for range 60 {
			a, b := addr(), addr()
			if strings.Contains(a, ":") != strings.Contains(b, ":") {
				continue
			}
			data := udp(a, b, []byte{6, 17}[r.IntN(2)], uint16(r.IntN(32)), uint16(r.IntN(32)), "")
			want := queue.Decision{Verdict: queue.Stop}
			for i := range rules {
				m, err := rules[i].matcher()
				if err != nil {
					t.Fatal(err)
				}
				if m(packetOf(data)) {
					want.Verdict, want.Rule = rules[i].verdict, i+1
					break
				}
			}
			got := queue.Decision{Verdict: queue.Stop}
			fast.Decide(packetOf(data), &got)
			if got.Verdict != want.Verdict || got.Rule != want.Rule {
				t.Fatalf("%v\npacket %x: %v %d, want %v %d", fast.set.rules, data, got.Verdict, got.Rule, want.Verdict,
					want.Rule)
			}
		}
	}
}

// TestFirst holds the flattening of overlapping spans against a search.
func TestFirst(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		var spans []span
		for i := range r.IntN(8) {
			lo := uint64(r.IntN(24))
			spans = append(spans, span{num128{0, lo}, num128{0, lo + uint64(r.IntN(8))}, uint32(i)})
		}
		all := append([]span(nil), spans...)
		pieces := first(spans)
		for n := uint64(0); n < 40; n++ {
			want, got := none, none
			for _, s := range all {
				if s.lo.lo <= n && n <= s.hi.lo {
					want = min(want, s.rule)
				}
			}
			for _, p := range pieces {
				if p.from.lo <= n {
					got = p.rule
				}
			}
			if got != want {
				t.Fatalf("%v: %d: %d, want %d (%v)", all, n, got, want, pieces)
			}
		}
	}
	ends := first([]span{{num128{}, num128{^uint64(0), ^uint64(0)}, 3}})
	if len(ends) != 1 || ends[0].rule != 3 {
		t.Error(ends)
	}
}

func tenRules(t testing.TB) []Rule {
	var rules []Rule
	for _, f := range [][2]string{{"port", "22"}, {"port", "23"}, {"src", "192.0.2.0/24"}, {"dport", "135-139"},
		{"dst", "198.51.100.7"},
		{"sport", "19"}, {"port", "445"}, {"src", "2001:db8::/32"}, {"dst", "203.0.113.0/24"}, {"proto", "sctp"}} {
		rules = append(rules, flag(t, "drop", f[0], f[1]))
	}
	return rules
}

func TestAllocs(t *testing.T) {
	rules := append(tenRules(t), mustParse(t, Options{}, `drop if tcp.dport == 22 && ip.src in "10.0.0.0/8"`,
		"mark 0x7/0xff udp > *",
		`drop if payload contains "zzz"`, "set ip.ttl=9 ip.dscp=ef", `replace "query" "QUERY"`, "log",
		"accept udp > *")...)
	e := engine(t, Options{}, rules...)
	data := udp("10.0.0.1", "10.0.0.2", 17, 1000, 2000, "query")
	p, d := packetOf(nil), new(queue.Decision)
	n := testing.AllocsPerRun(200, func() {
		*p = queue.Packet{Data: data, Length: uint32(len(data)), Has: queue.HasPayload | queue.HasLength}
		*d = queue.Decision{Verdict: queue.Accept, Matched: d.Matched[:0]}
		e.Decide(p, d)
		if d.Rule != len(rules) {
			t.Fatalf("%+v", d)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func benchDecide(b *testing.B, rules ...Rule) {
	e := engine(b, Options{}, rules...)
	data := udp("127.0.0.1", "127.0.0.1", 17, 40000, 9999, "0123456789012345678901234567890123456789")
	p, d := packetOf(nil), new(queue.Decision)
	b.ReportAllocs()
	for b.Loop() {
		*p = queue.Packet{Data: data, Length: uint32(len(data)), Has: queue.HasPayload | queue.HasLength}
		*d = queue.Decision{Verdict: queue.Accept, Matched: d.Matched[:0]}
		e.Decide(p, d)
	}
}

func BenchmarkDecide(b *testing.B) {
	b.Run("none", func(b *testing.B) { benchDecide(b) })
	b.Run("ten", func(b *testing.B) { benchDecide(b, tenRules(b)...) })
	b.Run("expression", func(b *testing.B) {
		benchDecide(b, mustParse(b, Options{}, `drop if tcp.dport == 22 && ip.src in "10.0.0.0/8"`)...)
	})
	for _, n := range []int{1, 10, 100, 10000} {
		b.Run(fmt.Sprintf("ports-%d", n), func(b *testing.B) {
			var rules []Rule
			for i := range n {
				rules = append(rules, flag(b, "drop", "dport", fmt.Sprint(10000+i)))
			}
			benchDecide(b, rules...)
		})
		b.Run(fmt.Sprintf("addresses-%d", n), func(b *testing.B) {
			var rules []Rule
			for i := range n {
				rules = append(rules, flag(b, "drop", "src", fmt.Sprintf("10.%d.%d.1", i/256, i%256)))
			}
			benchDecide(b, rules...)
		})
	}
	b.Run("edit", func(b *testing.B) { benchDecide(b, mustParse(b, Options{}, "set ip.ttl=63")...) })
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"drop tcp > *:22", "mark 1 repeat",
		`replace "a" "b" resize udp > * if payload contains "x"`, "set ip.ttl=64 tcp.window=1",
		"queue 5 bypass", `accept if ip.src in "10.0.0.0/8"`, "log # x", `drop 'tcp > *:22'`, "connmark 1/1"} {
		f.Add(s)
	}
	data := udp("10.0.0.1", "10.0.0.2", 17, 1000, 2000, "query")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s, Options{})
		if err != nil {
			return
		}
		set, err := Compile([]Rule{r, r}, Options{})
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		e, err := set.Engine()
		if err != nil {
			t.Fatal(err)
		}
		var d queue.Decision
		e.Decide(packetOf(append([]byte(nil), data...)), &d)
	})
}

// Rules that repeat need one test by which the firewall leaves out all their
// packets: the bits that they have in common.
func TestRepeatMark(t *testing.T) {
	for _, c := range []struct {
		rules      []string
		mark, mask uint32
		bad        bool
	}{
		{[]string{"accept", "mark 1"}, 0, 0, false},
		{[]string{"repeat mark 0x10/0x10"}, 0x10, 0x10, false},
		{[]string{"mark 0x10 repeat"}, 0x10, 0xffffffff, false},
		{[]string{"repeat mark 0x30/0x30 udp > :666", "repeat mark 0x10/0x10"}, 0x10, 0x10, false},
		{[]string{"repeat mark 0x10/0x10", "repeat mark 0x30/0x30"}, 0x10, 0x10, false},
		{[]string{"repeat mark 0x10/0xff", "repeat mark 0x11/0xff"}, 0x10, 0xfe, false},
		{[]string{"mark 0x20/0x20 mark 0x10/0x10 repeat", "mark 0x31/0x31 mark 0/1 repeat"}, 0x30, 0x30, false},
		{[]string{"repeat mark 0x10/0x10", "repeat mark 0x20/0x20"}, 0, 0, true},
		{[]string{"repeat mark 0x10/0x30", "repeat mark 0x20/0x30"}, 0, 0, true},
		{[]string{"repeat mark 0x30/0x30", "repeat mark 0x10/0x10", "repeat mark 0x20/0x20"}, 0, 0, true},
	} {
		s, err := Compile(mustParse(t, Options{}, c.rules...), Options{})
		if err != nil {
			t.Fatal(err)
		}
		mark, mask, err := s.RepeatMark()
		if mark != c.mark || mask != c.mask || (err != nil) != c.bad {
			t.Errorf("%q: %#x/%#x, %v", c.rules, mark, mask, err)
		}
		if err != nil && !strings.Contains(err.Error(), "repeat mark 0x10/0x10") {
			t.Errorf("%q: %v: does not show how", c.rules, err)
		}
		if err == nil && !s.Bears(mark, mask) {
			t.Errorf("%q: does not bear its own mark", c.rules)
		}
	}
	s, _ := Compile(mustParse(t, Options{}, "repeat mark 0x30/0x30"), Options{})
	for mark, want := range map[uint32]bool{0x10: true, 0x20: true, 0x40: false} {
		if s.Bears(mark, mark) != want {
			t.Errorf("bears %#x: %v", mark, !want)
		}
	}
	if s.Bears(0, 0x10) || s.Bears(0x10, 0x50) {
		t.Error("bears what it does not")
	}
}

// Every row says what a user has to know, and its word is taken.
func TestActions(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range Actions() {
		if a.Word == "" || a.Doc == "" || seen[a.Word] {
			t.Errorf("%+v", a)
		}
		seen[a.Word] = true
		_, err := Parse(a.Word+" x", Options{})
		if err != nil && strings.Contains(err.Error(), "not a valid action (") || err == nil && a.Args != "" {
			t.Errorf("%s: %v", a.Word, err)
		}
	}
}

// An edit that no packet of its rule can ever have is refused, any other is not.
func TestNever(t *testing.T) {
	const longer = `replace "evil" "excellent" `
	for _, c := range []struct {
		rule  string
		proto uint8 // of all packets that come
		never bool
	}{
		{longer + "tcp > :80", 0, true}, {longer + "if tcp.dport == 80", 0, true}, {longer + "if tcp.dport != 80 and ip.ttl > 3", 0, true},
		{longer, 6, true}, {longer + "if ip.proto == 6", 0, true}, {longer + "sctp > :80", 0, true},
		{longer, 0, false}, {longer + "udp >", 0, false}, {longer, 17, false}, {longer + "if not (tcp.dport == 80)", 0, false},
		{longer + "if tcp.dport == 80 or udp.dport == 80", 0, false}, {longer + "if tcp == nil", 0, false}, {longer + "if ip.ttl == 3", 0, false},
		{longer + "if ip.proto != 6", 0, false}, {longer + "if ip.proto in [6, 17]", 0, false}, {longer + "if sport == 80", 0, false},
		{`replace "evil" "excellent" resize tcp > :80`, 0, false}, {`replace "evil" "good" tcp > :80`, 0, false}, {`replace "evil" "good" sctp > :80`, 0, false},
		{`replace "a" "b" esp >`, 0, true}, {"set udp.dport=53 tcp >", 0, true}, {"set tcp.dport=53 tcp >", 0, false}, {"set ip.ttl=3 esp >", 0, false},
		{"set ip.dst=10.0.0.1 tcp >", 0, false}, {"set tcp.window=5 if udp.dport == 5", 0, true}, {"set tcp.window=5", 17, true},
	} {
		o := Options{Proto: c.proto}
		_, err := Compile(mustParse(t, o, "accept", c.rule), o)
		var e *Error
		if (err != nil) != c.never || err != nil &&
			(!errors.As(err, &e) || !strings.Contains(err.Error(), "can never be done on ")) {
			t.Errorf("%s (of %d): %v", c.rule, c.proto, err)
		}
	}
}

// Numbers computed: within the field's bounds, unchanged where they cannot be.
func TestSetNumbers(t *testing.T) {
	for _, c := range []struct {
		rule, field string
		want        uint64
		faults      uint64
	}{
		{"set ip.ttl=ip.ttl+1", "ip.ttl", 65, 0},
		{"set ip.ttl=ip.ttl*4", "ip.ttl", 255, 0},
		{"set ip.ttl=ip.ttl-65", "ip.ttl", 0, 0},
		{`set ip.ttl="min(ip.ttl, 9)"`, "ip.ttl", 9, 0},
		{`set ip.ttl='max(ip.ttl / 7, 2, udp.dport - 5350)'`, "ip.ttl", 9, 0},
		{"set ip.hoplimit=(ip.ttl+7)/2", "ip.ttl", 35, 0},
		{"set udp.sport=udp.dport udp.dport=udp.sport+1", "udp.dport", 5354, 0},
		{"set ip.ttl=ip.ttl*9223372036854775807*ip.ttl", "ip.ttl", 255, 0},
		{"set ip.ttl=-ip.ttl*9223372036854775807*ip.ttl", "ip.ttl", 0, 0},
		{"set ip.ttl=ip.ttl/(udp.sport-53)", "ip.ttl", 64, 1},
		{"set ip.ttl=tcp.mss+1", "ip.ttl", 64, 1},
		{`set tcp.mss="min(tcp.mss, 1200)"`, "ip.ttl", 64, 0}, // not for this packet
		{`set ip.dscp=ip.dscp+100`, "ip.dscp", 63, 0},
	} {
		e := engine(t, Options{}, mustParse(t, Options{}, c.rule)...)
		p := packetOf(udp("10.0.0.1", "10.0.0.2", 17, 53, 5353, "query"))
		d := queue.Decision{Verdict: queue.Accept}
		e.Decide(p, &d)
		if got, _ := queue.Fields.Row(c.field).Num(p); got != c.want || e.set.Uncomputed() != c.faults {
			t.Errorf("%s: %s %d, %d faults; want %d, %d", c.rule, c.field, got, e.set.Uncomputed(), c.want, c.faults)
		}
	}
	e := engine(t, Options{}, mustParse(t, Options{}, `set udp.sport="min(udp.sport + 1, 60000)"`)...)
	p := packetOf(udp("10.0.0.1", "10.0.0.2", 17, 53, 5353, "query"))
	d := queue.Decision{Verdict: queue.Accept}
	if n := testing.AllocsPerRun(100, func() { e.Decide(p, &d) }); n != 0 {
		t.Errorf("a computed number costs %v allocations a packet", n)
	}
}
