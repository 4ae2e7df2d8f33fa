package lua

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
	"nfctl/internal/queue"
)

// What the functions for texts return is what Lua 5.1 returns: the script says
// how the checksums were made, and how to see which result differs.
func TestStringsAsLua51(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("testdata/strings.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Run(Options{File: "testdata/strings.lua", Out: &out}); err != nil {
		t.Fatal(err)
	}
	got, lines := strings.Split(out.String(), "\n"), strings.Split(string(want), "\n")
	if len(got) != len(lines) {
		t.Fatalf("%d lines, want %d", len(got), len(lines))
	}
	for i := range lines {
		if got[i] != lines[i] {
			t.Errorf("got %s, Lua 5.1 %s", got[i], lines[i])
		}
	}
}

// twin has the interpreter's own library in "theirs" beside ours in "string".
func twin(t testing.TB) *vm {
	t.Helper()
	v := newVM(&Options{}, "", callDepth)
	t.Cleanup(v.close)
	ours := v.L.GetGlobal("string")
	v.L.Push(v.L.NewFunction(lua.OpenString))
	v.L.Call(0, 1)
	v.L.SetGlobal("theirs", v.L.Get(-1))
	v.L.SetGlobal("string", ours)
	v.L.Pop(1)
	fn, err := v.compile([]byte(`
		local function call(lib, text, pattern)
			local all, n = {}, 0
			for a, b in lib.gmatch(text, pattern) do
				n = n + 1
				all[n] = tostring(a)..":"..tostring(b)
			end
			return table.concat({tostring(lib.find(text, pattern)), tostring((select(2, lib.find(text, pattern)))), tostring((select(3, lib.find(text, pattern)))),
				tostring((lib.match(text, pattern))), table.concat(all, ","),
				tostring(lib.gsub(text, pattern, "<%0>")), tostring(select(2, lib.gsub(text, pattern, "<%0>"))),
				tostring(lib.gsub(text, pattern, function(a) return "{"..a.."}" end))}, " / ")
		end
		return function(text, pattern) return call(string, text, pattern), call(theirs, text, pattern) end`), "twin")
	if err != nil {
		t.Fatal(err)
	}
	v.L.Push(fn)
	v.L.Call(0, 1)
	v.L.SetGlobal("both", v.L.Get(-1))
	v.L.Pop(1)
	return v
}

func both(v *vm, text, pattern string) (ours, theirs string, err error) {
	v.L.Push(v.L.GetGlobal("both"))
	v.L.Push(lua.LString(text))
	v.L.Push(lua.LString(pattern))
	if err := v.L.PCall(2, 2, nil); err != nil {
		return "", "", err
	}
	defer v.L.Pop(2)
	return v.L.Get(-2).String(), v.L.Get(-1).String(), nil
}

// randomPattern returns a pattern that the interpreter's own matcher takes as Lua
// 5.1 does: no frontiers, no odd sets, no repetition of what is empty.
func randomPattern(r *rand.Rand) string {
	items := []string{"a", "b", "c", "1", " ", ".", "%a", "%d", "%s", "%w", "%A", "%D", "%.", "%%", "[ab]", "[^ab]",
		"[a-c]", "[%d%s]", "[^%w]"}
	var b strings.Builder
	open := false
	if r.IntN(6) == 0 {
		b.WriteByte('^')
	}
	for range 1 + r.IntN(5) {
		switch n := r.IntN(12); {
		case n == 0 && !open:
			b.WriteByte('(')
			open = true
		case n == 1 && !open:
			b.WriteString("%b()")
		}
		b.WriteString(items[r.IntN(len(items))])
		b.WriteString([]string{"", "", "*", "+", "-", "?"}[r.IntN(6)])
		if open && r.IntN(2) == 0 {
			b.WriteByte(')')
			open = false
		}
	}
	if open {
		b.WriteByte(')')
	}
	if r.IntN(6) == 0 {
		b.WriteByte('$')
	}
	return b.String()
}

// Two matchers that share no code agree on random patterns and texts.
func TestPatternsAsInterpreter(t *testing.T) {
	t.Parallel()
	v := twin(t)
	r := rand.New(rand.NewPCG(1, 2))
	matched := 0
	for range 20000 {
		text := make([]byte, r.IntN(12))
		for i := range text {
			text[i] = "aabbc1 .%()"[r.IntN(11)]
		}
		pattern := randomPattern(r)
		ours, theirs, err := both(v, string(text), pattern)
		if err != nil {
			t.Fatalf("%q, %q: %v", text, pattern, err)
		}
		if ours != theirs {
			t.Errorf("%q, %q:\n%s, the interpreter's\n%s", text, pattern, ours, theirs)
		}
		if !strings.HasPrefix(ours, "nil") {
			matched++
		}
	}
	if matched < 5000 {
		t.Errorf("only %d matched", matched)
	}
}

// slow are calls that would take for ever, or more memory than there is.
var slow = []string{
	`local t = ("a"):rep(40) return t:find(("a-"):rep(20).."b")`,
	`return (("a"):rep(40)):match(("a*"):rep(20).."b")`,
	`for _ in (("a"):rep(40)):gmatch(("a?"):rep(40).."b") do end`,
	`return (("a"):rep(40)):gsub(("(a*)"):rep(20).."b", "")`,
	`return (("x"):rep(2^19)):find(".-%d")`,
	`return (("x"):rep(2^19)):gsub(("."):rep(1000).."y", "")`,
	`return (("x"):rep(2^19)):find(".-[" .. ("y"):rep(1000) .. "]")`,
	`return (("x"):rep(2^19)):find("(.*)(.*)%1%2y")`,
	`return (("("):rep(2^19)):find("%b()")`,
	`return (("x"):rep(2^18)):find(".-%f[" .. ("z"):rep(1000) .. "]")`,
}

// A call that does not end is cut off, as instructions are.
func TestSlowCalls(t *testing.T) {
	t.Parallel()
	for _, call := range slow {
		var warned string
		a := action(t, "return function(p) if p.payload == 'go' then "+call+" end return 'drop' end",
			RuleOptions{Timeout: 20 * time.Millisecond, Warn: func(s string) { warned = s }})
		began := time.Now()
		_, decided, err := act(t, a, udpPacket("go"))
		if took := time.Since(began); err != nil || decided || took > 10*time.Second ||
			!strings.Contains(warned, "cut off") {
			t.Errorf("%s: %v %v %q after %v", call, decided, err, warned, took)
		}
		nstest.Until(t, "it works on", func() bool { // a busy machine may cut this off as well
			d, decided, _ := act(t, a, udpPacket("no"))
			return decided && d.Verdict == queue.Drop
		})
	}
}

// TestGreedyCalls: what a rule takes of memory is bounded, however it takes it, and
// the rule works on. Not in parallel: the bound is on the process's heap.
func TestGreedyCalls(t *testing.T) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	heap := func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	for _, call := range []string{
		`local s = "x" while true do s = s .. s end`,
		`local s = "x" while true do s = s .. s .. s .. s .. s .. s .. s .. s end`,
		`local t = {} while true do t[#t+1] = ("x"):rep(2^20) end`,
		`local t = {} while true do t[#t+1] = {} end`,
		`local t, s = {}, "x" local function f() while true do s = s .. s t[#t+1] = s end end while true do pcall(f) s = "x" .. #t end`,
		`local s = "x" coroutine.wrap(function() while true do s = s .. s end end)()`,
		`local t = {} while true do t[#t+1] = ("x"):rep(2^19) .. #t end`,
	} {
		runtime.GC()
		before, most, done := heap(), uint64(0), make(chan struct{})
		var warned string
		a := action(t, "return function(p) if p.payload == 'go' then "+call+" end return 'drop' end",
			RuleOptions{Timeout: time.Minute, Warn: func(s string) { warned = s }})
		go func() {
			defer close(done)
			_, decided, err := act(t, a, udpPacket("go"))
			if err != nil || decided || !strings.Contains(warned, errGreedy.Error()) &&
				!strings.Contains(warned, "resulting string too large") {
				t.Errorf("%s: %v %v %q", call, decided, err, warned)
			}
		}()
		for waiting := true; waiting; {
			select {
			case <-done:
				waiting = false
			case <-time.After(time.Millisecond):
				most = max(most, heap())
			}
		}
		if most > before+512<<20 {
			t.Errorf("%s: the heap grew by %d MiB", call, (most-before)>>20)
		}
		t.Logf("%s: %d MiB", call, (max(most, before)-before)>>20)
		if d, decided, _ := act(t, a, udpPacket("no")); !decided || d.Verdict != queue.Drop {
			t.Errorf("%s: it does not work on", call)
		}
	}
	file := filepath.Join(t.TempDir(), "greedy.lua")
	if err := os.WriteFile(file, []byte(`t = {} while true do t[#t+1] = ("x"):rep(2^20) end`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRule(file, RuleOptions{}); err == nil || !strings.Contains(err.Error(), errGreedy.Error()) {
		t.Errorf("a file: %v", err)
	}
}

// Texts that would be too long are an error, for rules of 1 MiB, else of 256.
func TestLongTexts(t *testing.T) {
	t.Parallel()
	calls := []string{`("x"):rep(%d)`, `("xyz"):rep(1e18)`, `("x"):rep(1/0)`,
		`table.concat({("x"):rep(%d/2), ("x"):rep(%[1]d/2)}, "sep")`,
		`(("x"):rep(%d/4)):gsub("x", "12345")`, `(("x"):rep(%d/4)):gsub("x", function() return "12345" end)`,
		`("%%s%%s"):format(("x"):rep(%d/2), ("x"):rep(%[1]d/2).."x")`}
	for _, c := range calls {
		if strings.Contains(c, "%d") || strings.Contains(c, "%[1]d") {
			c = fmt.Sprintf(c, 1<<20+4)
		}
		a := action(t, `return function() local ok, err = pcall(function() return `+c+
			` end) return "accept", err:find("resulting string too large") and 1 or 0 end`,
			RuleOptions{Timeout: time.Minute})
		if d, _, _ := act(t, a, udpPacket("")); d.Mark != 1 {
			t.Errorf("%s: %+v", c, d)
		}
	}
	expect(t, `print(pcall(string.gsub, ("a"):rep(1e6), ".*", ("%0"):rep(5e3)))`, "false\tresulting string too large")
	expect(t,
		`print(pcall(unpack, {}, 1, 1e8)) print(pcall(string.byte, ("a"):rep(1e5), 1, -1)) print(select("#", unpack({}, 1, 7000)))`,
		"false\ttoo many results to unpack\nfalse\tstring slice too long\n7000")
	expect(t, `print(pcall(string.rep, "x", 2^40)) print(#("x"):rep(2^21), #("\200"):rep(3), (""):rep(2^60) == "")`,
		"false\tresulting string too large\n2097152\t3\ttrue")
	expect(t, `print(pcall(string.find, ("a"):rep(1e4), ("a?"):rep(1e4)))`, "false\tpattern too complex")
}

// The first SIGTERM ends a script in the midst of such a call, and a queue whose
// rule makes it.
func TestSlowCallsEnd(t *testing.T) {
	ns, bin := exampleLab(t)
	p := ns.Start(bin, "lua", "-e", `io.write("begun\n") `+slow[0])
	p.WaitOutput("begun")
	p.Signal(unix.SIGTERM)
	p.Wait()

	dir := write(t, map[string]string{"slow.lua": "return function() " + slow[0] + " end"})
	far := ns.ListenUDP("127.0.0.1:0")
	near, err := ns.Dial("udp", far.LocalAddr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	p = ns.Start(bin, "queue", "--attach", "output udp > *", "--rule", "lua "+dir+"/slow.lua", "--ready-file",
		dir+"/ready")
	nstest.WaitFile(t, dir+"/ready")
	for range 3 { // each passes on, after 100 ms
		if _, err := near.Write([]byte("text")); err != nil {
			t.Fatal(err)
		}
	}
	p.WaitOutput("accept")
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 || !strings.Contains(p.Stderr(), "cut off") {
		t.Errorf("status %d\n%s", status, p.Stderr())
	}
	for range 3 {
		_ = far.SetReadDeadline(time.Now().Add(nstest.Patience))
		if _, _, err := far.ReadFrom(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzPattern looks for patterns that end otherwise than with a result or an
// error of their own.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"", "a-b$", "(a*(.)%w(%s*))", "%f[%w]%w+", "[^%a-z]", "%b()", "[]", "%", "((", "%1"} {
		f.Add("hello (world) 12", s)
	}
	v := newVM(&Options{}, "", callDepth)
	var l limit
	l.done, l.tick = make(chan struct{}), time.Millisecond
	v.limit = &l
	known := []string{"unfinished capture", "invalid capture index", "invalid pattern capture", "malformed pattern",
		"missing '['", "unbalanced pattern",
		"too many captures", "pattern too complex", errLate.Error()}
	f.Fuzz(func(t *testing.T, text, pattern string) {
		for _, name := range []string{"find", "match", "gsub"} {
			l.memory.Store(1 << 40)
			l.start(20 * time.Millisecond)
			v.L.Push(v.L.GetField(v.L.GetGlobal("string"), name))
			v.L.Push(lua.LString(text))
			v.L.Push(lua.LString(pattern))
			v.L.Push(lua.LString("1"))
			err := v.L.PCall(3, 0, nil)
			l.stop()
			if err == nil {
				continue
			}
			fine := false
			for _, k := range known {
				fine = fine || strings.Contains(err.Error(), k)
			}
			if !fine {
				t.Errorf("%s(%q, %q): %v", name, text, pattern, err)
			}
		}
	})
}

// TestConcat: the operator .. is as the interpreter's, up to the longest text.
func TestConcat(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := Run(Options{Out: &out, Code: `
		local function two() return "a", "b" end
		local function all(...) return "x" .. ... end
		local m = setmetatable({}, {__concat = function(a, b) return (type(a) == "table" and "M" or a) .. "+" .. (type(b) == "table" and "M" or b) end})
		print("a" .. 1 .. "b" .. 2.5, two() .. two(), "x" .. two(), all("p", "q"), ({two() .. two()})[2])
		print(m .. "a", "a" .. m, "a" .. "b" .. m .. "c" .. "d", 1 .. m, m .. m)
		print(pcall(function() local x return "a" .. x end))
		print(pcall(function() return {} .. "a" end))
		local function own(s, n) if n then s = s .. "0" end local u = s .. "1" n = (s .. u) return s, u, n, s .. n end
		print(own("s", true))
		print((function(...) local t = {"a" .. "b", "c" .. ...} t["k" .. "l"] = "v" .. "w" return #t, t[2], t.kl, "y" .. "z" end)("d", "e"))
		print(not ("a" .. "b"), "a" .. "b" == "ab", #("a" .. "b"), "1" .. "2" + 3, ("a" .. "b"):upper(), "a" .. "b" < "b" and "c" .. "d" or "e" .. "f")
		for i = 1, 2 do print(i .. ":") end
		setfenv(1, {print = print, s = "env"}) print(s .. s)
	`})
	const want = "a1b2.5\taa\txa\txp\tnil\nM+a\ta+M\tabM+cd\t1+M\tM+M\n" +
		"false\t(command line):7: cannot perform concat operation between string and nil\n" +
		"false\t(command line):8: cannot perform concat operation between table and string\n" +
		"s0\ts01\ts0s01\ts0s0s01\n2\tcd\tvw\tyz\nfalse\ttrue\t2\t15\tAB\tcd\n1:\n2:\nenvenv\n"
	if err != nil || out.String() != want {
		t.Errorf("%v\n%s", err, out.String())
	}
}
