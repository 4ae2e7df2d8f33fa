package filter

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// same compiles an expression and holds it equal to the oracle on the subjects.
func same(t *testing.T, text string, ss []*subject) {
	t.Helper()
	p, err := Compile(reg, text)
	if err != nil {
		t.Errorf("%s: %v", text, err)
		return
	}
	o := judge(t, text)
	if o == nil {
		t.Errorf("%s: no oracle", text)
	}
	for _, s := range ss {
		o.agrees(t, p, s)
	}
}

// TestExhaustive tries every operator on every pairing of three numbers, each
// absent, 0, 1 or 3, and of three truths.
func TestExhaustive(t *testing.T) {
	var ss []*subject
	values := []*uint64{nil, n(0), n(1), n(3)}
	truths := []*uint64{nil, n(0), n(1)}
	for _, a := range values {
		for _, b := range values {
			for _, c := range values {
				ss = append(ss, &subject{mark: a, zone: b, timeout: c, fragment: truths[len(ss)%3],
					offloaded: truths[len(ss)/3%3]})
			}
		}
	}
	operands := []string{"mark", "zone", "1", "(mark ?? 1)", "(fragment ? zone : timeout)", "mark + zone",
		"mark - zone", "zone * 2", "timeout / zone", "mark % timeout", "-zone"}
	for _, op := range []string{"==", "!=", "<", "<=", ">", ">="} {
		for i, a := range operands {
			for j, b := range operands {
				if (i+j)%2 == 0 || strings.Contains(a+b, "??") {
					same(t, a+" "+op+" "+b, ss)
				}
			}
			same(t, "not ("+a+" "+op+" 1)", ss)
		}
	}
	conds := []string{"mark == 1", "zone != 1", "fragment", "not offloaded", "timeout == nil", "mark in [0, 3]",
		"zone in 1..3", "true"}
	for _, a := range conds {
		for _, b := range conds {
			for _, c := range conds {
				same(t, "("+a+" and "+b+") or not ("+c+")", ss)
				same(t, "not ("+a+" or "+b+") and ("+c+")", ss)
				same(t, a+" ? "+b+" : "+c, ss)
			}
			same(t, "("+a+") == ("+b+")", ss)
			same(t, "("+a+") != ("+b+")", ss)
		}
	}
}

// generator makes expressions that are right, by a sequence of choices.
type generator struct{ choose func(n int) int }

func (g generator) pick(list ...string) string { return list[g.choose(len(list))] }

func (g generator) number(depth int) string {
	if depth <= 0 || g.choose(3) > 0 {
		return g.pick("mark", "zone", "timeout", "orig.packets", "reply.bytes", "tcp.dport", "udp.sport", "tcp.sport",
			"0", "1", "7", "53", "120",
			"len(helper)", "len(status)", "len(labels)", "len(payload)")
	}
	switch g.choose(6) {
	case 0:
		return "(" + g.cond(depth-1) + " ? " + g.number(depth-1) + " : " + g.number(depth-1) + ")"
	case 1:
		return "(" + g.number(depth-1) + " ?? " + g.number(depth-1) + ")"
	case 2:
		return "-(" + g.number(depth-1) + ")"
	}
	return "(" + g.number(depth-1) + " " + g.pick("+", "-", "*", "/") + " " + g.number(depth-1) + ")"
}

func (g generator) text() string {
	return g.pick("helper", "lower(helper)", "upper(helper)", "payload", "proto", "state", `(helper ?? "x")`)
}

func (g generator) cond(depth int) string {
	if depth > 0 && g.choose(3) > 0 {
		switch g.choose(6) {
		case 0:
			return "not (" + g.cond(depth-1) + ")"
		case 1:
			return "(" + g.cond(depth-1) + ") " + g.pick("==", "!=") + " (" + g.cond(depth-1) + ")"
		case 2:
			return "(" + g.cond(depth-1) + " ? " + g.cond(depth-1) + " : " + g.cond(depth-1) + ")"
		}
		return "(" + g.cond(depth-1) + " " + g.pick("and", "or", "&&", "||") + " " + g.cond(depth-1) + ")"
	}
	switch g.choose(10) {
	case 0:
		return g.number(depth) + " " + g.pick("==", "!=", "<", "<=", ">", ">=") + " " + g.number(depth)
	case 1:
		return g.pick("tcp.dport", "udp.dport", "(tcp.dport ?? udp.dport)") + " " + g.pick("in", "not in") + " " +
			g.pick("[22, 53]", `["ssh", 65535]`, "20..60", `"1-100"`, `["1-30,50-60", 5353]`)
	case 2:
		return g.pick("ip.src", "ip.dst") + " " + g.pick("in", "==", "!=") + " " +
			g.pick(`"10.0.0.0/8"`, `"fd00::/64"`, `"8.8.8.8"`, `"!10.0.0.1"`, `"10.0.0.1-10.0.0.9"`)
	case 3:
		return g.pick("ip.src", "ip.dst") + " in " +
			g.pick(`["10.0.0.1", "fd00::/8"]`, `["8.8.8.8", "192.168.0.0/16", "fd00::2"]`)
	case 4:
		return g.pick(`"ASSURED"`, `"UNREPLIED"`, `"!CONFIRMED"`, `"EXPECTED,ASSURED"`) + " " + g.pick("in", "not in") +
			" status"
	case 5:
		return g.pick("any", "all", "none") + "(" + g.pick("status", "labels", "tcp.flags") + ", " +
			g.pick(`# startsWith "w"`, `# contains "S"`, `len(#) > 3`, `lower(#) endsWith "k"`, `# matches "^[A-Z]+$"`,
				`# == helper`, "mark == 1", `not (# > "M")`) + ")"
	case 6:
		return g.text() + " " + g.pick("contains", "startsWith", "endsWith", "matches", "not contains") + " " +
			g.pick(`"1"`, `"0"`, `""`, `"2.0"`)
	case 7:
		return g.pick("tcp", "udp", "ip", "mark", "tcp.flags", "labels", "helper", "(tcp.dport ?? udp.dport)",
			"timeout / orig.packets") + " " + g.pick("==", "!=") + " nil"
	case 8:
		return g.pick("proto", "upper(proto)") + " " + g.pick("==", "!=") + " " + g.pick(`"TCP"`, `"UDP"`, `"ICMP"`)
	}
	return g.pick("fragment", "offloaded", "fragment == offloaded", "fragment != true", `proto in ["tcp", 17]`,
		`proto == "!tcp"`, `state in "ESTABLISHED,TIME_WAIT"`,
		"true", "false", `helper == "Dns"`, `payload == ""`, "ip.src == ip.dst", `lower(helper) < "e"`,
		`mark == "0x1/0x1"`, `orig.packets > "999"`)
}

func all() (ss []*subject) {
	for _, l := range letters {
		ss = append(ss, subjects[l.name])
	}
	return ss
}

func TestGenerated(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	g := generator{rnd.IntN}
	ss := all()
	for range 3000 {
		check(t, g.cond(3), ss)
	}
}

// check is same for generated expressions, which may compare nonsense: what is
// refused must be so for a reason that a generator cannot see.
func check(t *testing.T, text string, ss []*subject) {
	t.Helper()
	p, err := Compile(reg, text)
	if err != nil {
		for _, ok := range []string{"out of range", "cannot be computed", "is never", "does not go with matches",
			"not a whole number"} {
			if strings.Contains(err.Error(), ok) {
				return
			}
		}
		t.Errorf("%s: %v", text, err)
		return
	}
	o := judge(t, text)
	for _, s := range ss {
		p.Match(s)
		if p.Faults() == 0 || !strings.Contains(text, "*") { // the machine wraps around where we fault
			o.agrees(t, p, s)
		}
	}
}

// FuzzGenerated lets the fuzzer choose what the generator makes.
func FuzzGenerated(f *testing.F) {
	for i := range 8 {
		f.Add(fmt.Appendf(nil, "%d%d seed %d", i, i*7, i*i))
	}
	ss := all()
	f.Fuzz(func(t *testing.T, choices []byte) {
		i := 0
		g := generator{func(n int) int {
			if i >= len(choices) {
				return 1 % n // the end of an expression, at most choices
			}
			i++
			return int(choices[i-1]) % n
		}}
		check(t, g.cond(4), ss)
	})
}
