package lua

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"nfctl/internal/packet"
	"nfctl/internal/packet/packettest"
	"nfctl/internal/queue"
)

// ruleFile writes a file and opens it as a rule.
func ruleFile(t testing.TB, code string, o RuleOptions) (*RuleFile, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rule.lua")
	if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	return OpenRule(file, o)
}

func action(t testing.TB, code string, o RuleOptions) *RuleAction {
	t.Helper()
	f, err := ruleFile(t, code, o)
	if err != nil {
		t.Fatal(err)
	}
	a, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.v.close)
	return a
}

func udpPacket(text string) *queue.Packet {
	data := packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: packet.ProtoUDP,
		L4: packettest.UDP(1000, 53, text)}.Bytes()
	return &queue.Packet{Data: data, Length: uint32(len(data)), Has: queue.HasPayload | queue.HasLength, Mark: 5,
		Hook: 3, Family: 2}
}

// act runs a file's function on a packet.
func act(t testing.TB, a *RuleAction, p *queue.Packet) (d queue.Decision, decided bool, err error) {
	t.Helper()
	var e packet.Editor
	d.Verdict = queue.Stop // recognizable, where none is given
	decided, err = a.Act(p, &d, &e)
	if e.Changed() {
		data, ferr := e.Finish(p.Headers(), packet.Meta{})
		if ferr != nil {
			t.Fatal(ferr)
		}
		d.Data = data
	}
	return d, decided, err
}

func TestRuleDecides(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		body    string
		decided bool
		verdict queue.Verdict
		mark    uint32
		setMark bool
	}{
		{`return "accept"`, true, queue.Accept, 0, false},
		{`return "drop"`, true, queue.Drop, 0, false},
		{`return "stop"`, true, queue.Stop, 0, false},
		{`return "repeat", 7`, true, queue.Repeat, 7, true},
		{`return "queue 9"`, true, queue.ToQueue(9, false), 0, false},
		{`return "queue 9 bypass", "0x10"`, true, queue.ToQueue(9, true), 16, true},
		{`return`, false, queue.Stop, 0, false},
		{`return nil, 3`, false, queue.Stop, 3, true},
		{`p.mark = p.mark + 1`, false, queue.Stop, 6, true},
		{`if p.udp and not p.tcp and p.udp.dport == 53 and p.ip.src == "10.0.0.1" and p.hook == "output" and p.payload == "text" then return "drop" end`, true, queue.Drop, 0, false},
	} {
		a := action(t, "return function(p) "+c.body+" end", RuleOptions{})
		d, decided, err := act(t, a, udpPacket("text"))
		if err != nil || decided != c.decided || d.Verdict != c.verdict || d.SetMark != c.setMark || d.Mark != c.mark {
			t.Errorf("%s: %v %+v, %v", c.body, decided, d, err)
		}
		if failed, cut := a.f.Errors(); failed+cut != 0 {
			t.Errorf("%s: %d failures, %d cut off", c.body, failed, cut)
		}
	}
}

func TestRuleEdits(t *testing.T) {
	t.Parallel()
	a := action(t, `return function(p) p.ip.ttl = 7 p.payload = p.payload:upper().."!" return "accept" end`,
		RuleOptions{})
	d, decided, err := act(t, a, udpPacket("text"))
	if err != nil || !decided || d.Data == nil {
		t.Fatal(decided, d, err)
	}
	var h packet.Headers
	h.Parse(d.Data, 0)
	payload, _ := h.Payload()
	if err := packettest.Verify(d.Data); err != nil {
		t.Error(err)
	}
	if string(payload) != "TEXT!" || d.Data[8] != 7 {
		t.Errorf("%q, TTL %d", payload, d.Data[8])
	}
	// A cut copy cannot be edited; a header that is not there is left alone.
	p := udpPacket("text")
	p.Length += 10
	if _, _, err := act(t, a, p); !errors.Is(err, packet.ErrTruncated) {
		t.Errorf("cut copy: %v", err)
	}
	if failed, _ := a.f.Errors(); failed != 0 {
		t.Errorf("%d failures", failed)
	}
}

// An edit for which a file's list of fields asks too little of the packet is
// explained once.
func TestRuleLacksCopy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ list, want string }{
		{`, {"udp.dport"}`, `: ip.ttl cannot be set: the packet was not copied whole; put "payload" in the list of fields`}, {`, {"udp.dport", "payload"}`, ""}, {"", ""},
	} {
		var warned []string
		a := action(t, `return function(p) p.ip.ttl = 7 return "accept" end`+c.list, RuleOptions{Warn: func(s string) {
			warned = append(warned, s)
		}})
		for range 2 {
			p := udpPacket("text")
			p.Length += 10
			if _, _, err := act(t, a, p); !errors.Is(err, packet.ErrTruncated) {
				t.Errorf("%s: %v", c.list, err)
			}
		}
		if got := strings.Join(warned, "\n"); c.want == "" && got != "" || !strings.Contains(got, c.want) ||
			len(warned) > 1 {
			t.Errorf("%s: %q, want %q", c.list, warned, c.want)
		}
	}
}

// A number taken from a packet as a table's key takes little memory.
func TestRuleSparseTable(t *testing.T) {
	var before, after runtime.MemStats
	a := action(t,
		`local seen = {} return function(p) seen[60000000] = true seen[6e7 + 1] = 1 return seen[6e7] and #seen == 0 and "drop" end`, RuleOptions{})
	runtime.ReadMemStats(&before)
	d, decided, err := act(t, a, udpPacket("text"))
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; err != nil || !decided || d.Verdict != queue.Drop ||
		took > 64<<20 {
		t.Errorf("%v %v, %v; %d bytes", decided, d.Verdict, err, took)
	}
}

// What goes wrong in a script is counted, told, and passes the packet on.
func TestRuleFailures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ body, want string }{
		{`error("mine")`, "mine"},
		{`return "perhaps"`, `"perhaps" is no verdict`},
		{`return 5`, "not a number"},
		{`return true`, "not a boolean"},
		{`return "repeat"`, "must come with a mark"},
		{`return "drop", -1`, "no 32-bit number"},
		{`return "queue 70000"`, "is no verdict"},
		{`return p.udp.dprt`, `packets have no field "udp.dprt" (did you mean "dport"?)`},
		{`return p.tcp.dport`, "nil"},
		{`p.udp.dport = "https!"`, "dport"},
		{`p.id = 5`, "id"},
		{`p.payload = {}`, "cannot be set to a table"},
		{`return string.rep("x", 1e9)`, "too large"},
		{`for i = 1, 9 do print(("x"):rep(1e4)) end`, "print: more than 64 KiB for one packet"},
		{`local s = ("x"):rep(1e6) print(s, s, s)`, "print: more than 64 KiB for one packet"},
		{`error(select(2, loadstring(("x=1 "):rep(1e4))))`, "code of more than 16 KiB"},
		{`load(print)`, "non-function"},
		{`local function f() return 1 + f() end return f()`, "overflow"},
	} {
		var warned []string
		a := action(t, "return function(p) p.mark = 0 "+c.body+" end",
			RuleOptions{Timeout: time.Minute, Warn: func(s string) { warned = append(warned, s) }})
		for range 3 {
			p := udpPacket("text")
			d, decided, err := act(t, a, p)
			if err != nil || decided || d.SetMark || p.Mark != 5 || d.Verdict != queue.Stop {
				t.Errorf("%s: %v %+v, %v", c.body, decided, d, err)
			}
		}
		if failed, cut := a.f.Errors(); failed != 3 || cut != 0 {
			t.Errorf("%s: %d failures, %d cut off", c.body, failed, cut)
		}
		if len(warned) != 3 || !strings.Contains(warned[0], c.want) {
			t.Errorf("%s: %q, want %q", c.body, warned, c.want)
		}
	}
}

// A script that does not end is cut off, also where it catches that; then it works
// on.
func TestRuleRunaway(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"while true do end", "while true do pcall(function() while true do end end) end",
		"local t = {} while true do t[#t+1] = 1 end", "for i in function() return 1 end do end"} {
		a := action(t, "return function(p) if p.payload == 'go' then "+body+" end return 'drop' end",
			RuleOptions{Timeout: 30 * time.Millisecond})
		for round := range 2 {
			began := time.Now()
			d, decided, err := act(t, a, udpPacket("go"))
			if took := time.Since(began); err != nil || decided || d.Verdict != queue.Stop || took > 10*time.Second {
				t.Errorf("%s: %v %v, after %v", body, decided, err, took)
			}
			if d, decided, err := act(t, a, udpPacket("no")); err != nil || !decided || d.Verdict != queue.Drop {
				t.Errorf("%s: then %v %+v, %v", body, decided, d, err)
			}
			if failed, cut := a.f.Errors(); failed != 0 || int(cut) != round+1 {
				t.Errorf("%s: %d failures, %d cut off", body, failed, cut)
			}
		}
	}
}

func TestRuleFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ code, want string }{
		{"return 5", "must return a function"}, {"return", "must return a function"}, {"return function( end", "rule.lua line:1"},
		{"local x = 1\nreturn function()\n  if x then\nend\n\n", "rule.lua line:4 near '<eof>'"}, {"\n\nif x then\n", "rule.lua line:3 near '<eof>'"}, {"#!x\nreturn 'a", "rule.lua line:2 near '<eof>':   unterminated string"},
		{"error('early')", "early"}, {"return function() end, {'tcp.dprt'}", `no field "tcp.dprt"`}, {"return function() end, 5", "list of field names"},
	} {
		if _, err := ruleFile(t, c.code, RuleOptions{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.code, err, c.want)
		}
	}
	f, err := ruleFile(t, "#!/usr/bin/env x\nreturn function() end, {'tcp.dport', 'ct', 'uid'}", RuleOptions{})
	if err != nil || strings.Join(f.Fields(), " ") != "tcp.dport ct uid" {
		t.Errorf("%v, %v", f, err)
	}
	if _, err := OpenRule(filepath.Join(t.TempDir(), "absent"), RuleOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// Each queue's interpreter has its own variables.
func TestRuleInterpreters(t *testing.T) {
	t.Parallel()
	f, err := ruleFile(t, "local n = 0 return function() n = n + 1 return 'accept', n end", RuleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := f.Open()
	b, _ := f.Open()
	for i, x := range []*RuleAction{a, a, b} {
		if d, _, _ := act(t, x, udpPacket("")); d.Mark != []uint32{1, 2, 1}[i] {
			t.Errorf("call %d: %d", i, d.Mark)
		}
	}
}

func BenchmarkRule(b *testing.B) {
	a := action(b, "return function(p) if p.udp and p.udp.dport == 22 then return 'drop' end end", RuleOptions{})
	p := udpPacket("text")
	var e packet.Editor
	var d queue.Decision
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Act(p, &d, &e); err != nil {
			b.Fatal(err)
		}
	}
}
