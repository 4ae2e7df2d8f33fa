package lua

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Chunks whose nesting has no bound, from what a token needs: each must be refused
// before the compiler sees it, in all places where code comes in.
var endless = []struct{ name, head, body, tail string }{
	{"not", "return ", "not ", "1"},
	{"minus", "return ", "- ", "1"},
	{"length", "return ", "#", "x"},
	{"parentheses", "return ", "(", ""},
	{"tables", "return ", "{", ""},
	{"indexes", "return a", "[a", ""},
	{"calls in calls", "return f", "(f", ""},
	{"calls in a row", "f", "()", ""},
	{"strings in a row", "f", "''", ""},
	{"fields", "return a", ".b", ""},
	{"methods", "a", ":b()", ""},
	{"joined", "return a", "..a", ""},
	{"powers", "return 2", "^2", ""},
	{"powers of negatives", "return 2", "^-2", ""},
	{"sums", "return 1", "+1", ""},
	{"differences", "return 1", "-1", ""},
	{"and", "return a", " and a", ""},
	{"sums inside of sums", "return " + strings.Repeat("(", 150) + "1", strings.Repeat("+1", 500) + ")", ""},
	{"functions", "", "return function() ", ""},
	{"do", "", "do ", ""},
	{"if", "", "if a then ", ""},
	{"else", "", "if a then else ", ""},
	{"elseif", "if a then ", "elseif a then ", "end"},
	{"elseif in elseif", "", "if a then " + strings.Repeat("elseif a then ", 50), ""},
	{"while", "", "while a do ", ""},
	{"repeat", "", "repeat ", ""},
}

func TestEndlessNesting(t *testing.T) {
	t.Parallel()
	for _, c := range endless {
		code := c.head + strings.Repeat(c.body, 4<<20/len(c.body)) + c.tail
		began := time.Now()
		_, err := compile([]byte(code), "chunk")
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "too many syntax levels") ||
			took > 5*time.Second {
			t.Errorf("%s: %.200v after %v", c.name, err, took)
		}
	}
	folder := t.TempDir()
	deep := filepath.Join(folder, "deep.lua")
	if err := os.WriteFile(deep, []byte("return "+strings.Repeat("not ", 1<<20)+"1"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, fmt.Sprintf(`package.path = %q
		local code = "return " .. ("not "):rep(2^18) .. "1"
		local function said(...) local ok, why = ... return select("#", ...) == 2 and not ok and why:find("too many syntax levels") ~= nil end
		print(said(loadstring(code)), said(load(function() local c = code code = nil return c end)), said(loadfile(%q)), said(pcall(dofile, %[2]q)), said(pcall(require, "deep")))`,
		filepath.Join(folder, "?.lua"), deep), "true\ttrue\ttrue\ttrue\ttrue")
	if _, err := OpenRule(deep, RuleOptions{}); err == nil || !strings.Contains(err.Error(), "too many syntax levels") {
		t.Errorf("as a rule: %.200v", err)
	}
}

// What people and programs write is no nesting.
func TestLongChunks(t *testing.T) {
	t.Parallel()
	many := func(n int, f string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, f, i)
		}
		return b.String()
	}
	for name, code := range map[string]string{
		"calls":       many(20000, "print('%d')\n"),
		"assignments": "local t = {}\n" + many(20000, "t.a = t.b .. 'x' .. %d\n"),
		"one line":    many(20000, "f(%d) g{1} h'x' "),
		"a table":     "return {" + many(20000, "{%d, -1, a.b.c, 'x'..'y', f(1)},\n") + "}",
		"pairs":       "return {" + many(20000, "x%d = function() return 1 end;\n") + "}",
		"functions":   many(20000, "function m.f%d(a) return a + 1 - 2 end\n"),
		"or":          "return a == 0" + many(400, " or a == %d"),
		"elseif":      "if a then" + many(900, " elseif a == %d then x = 1") + " end",
		"joined":      "return 'a'" + many(190, " .. %d"),
		"methods":     "return a" + many(400, ":b(%d)"),
		"brackets":    "return " + strings.Repeat("(", 190) + "1" + strings.Repeat(")", 190),
	} {
		if err := nested([]byte(code), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(code) < 1<<17 { // of more constants than a function may have the compiler tells
			if _, err := compile([]byte(code), name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// Calls from the library into the script nest Go's stack: every way to nest them, alone
// and together, ends with an error that can be caught.
func TestEndlessCalls(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]string{
		"resume":     `local function f() local c = coroutine.create(f) local ok, e = coroutine.resume(c) if not ok then error(e, 0) end end`,
		"wrap":       `local function f() coroutine.wrap(f)() end`,
		"pcall":      `local function f() local ok, e = pcall(f) if not ok then error(e, 0) end end`,
		"index":      `local t = setmetatable({}, {__index = function(t, k) return t[k] end}) local function f() return t.x end`,
		"newindex":   `local t = setmetatable({}, {__newindex = function(t, k, v) t[k] = v end}) local function f() t.x = 1 end`,
		"call":       `local t = setmetatable({}, {}) getmetatable(t).__call = function() return 1 + t() end local function f() return t() end`,
		"concat":     `local t = setmetatable({}, {}) getmetatable(t).__concat = function() return t .. t end local function f() return t .. t end`,
		"equal":      `local m = {} m.__eq = function(a, b) return a == b end local a, b = setmetatable({}, m), setmetatable({}, m) local function f() return a == b end`,
		"less":       `local m = {} m.__lt = function(a, b) return a < b end local a, b = setmetatable({}, m), setmetatable({}, m) local function f() return a < b end`,
		"tostring":   `local t = setmetatable({}, {__tostring = function(t) return tostring(t) end}) local function f() return tostring(t) end`,
		"format":     `local t = setmetatable({}, {__tostring = function(t) return ("%s"):format(t) end}) local function f() return ("%s"):format(t) end`,
		"gsub":       `local function f() return ("x"):gsub("x", f) end`,
		"gsub table": `local t = setmetatable({}, {}) getmetatable(t).__index = function() return (("x"):gsub("x", t)) end local function f() return ("x"):gsub("x", t) end`,
		"sort":       `local function f() table.sort({1, 2, 3}, f) end`,
		"load":       `local function f() return load(f) end`,
		"loadstring": `g = function() return loadstring("return 1 + g()")() end local function f() return g() end`,
		"xpcall":     `local function f() local ok, e = xpcall(f, function(e) return e end) if not ok then error(e, 0) end end`,
		"require":    `package.loaders[1] = function(n) require(n .. "x") end local function f() require("x") end`,
		"index, pcall": `local t t = setmetatable({}, {__index = function(_, k)
			if k > 0 then return 1 + t[k-1] end
			local ok, e = pcall(function() return t[3000] end) if not ok then error(e, 0) end return 1 end})
			local function f() return t[3000] end`,
		"gsub, resume": `local n = 0
			local function f() n = n + 1
				if n % 2000 ~= 0 then return (("x"):gsub("x", f)) end
				local ok, e = coroutine.resume(coroutine.create(f)) if not ok then error(e, 0) end end`,
	} {
		got := make(chan string, 1)
		go func() {
			var b strings.Builder
			err := Run(Options{Out: &b, Err: &b, Code: code + `
				local ok, e = pcall(f) assert(not ok)
				print(tostring(e):find("overflow") and "overflow" or tostring(e):sub(1, 300), coroutine.wrap(function() return "goes on" end)())`})
			got <- strings.TrimSpace(b.String() + fmt.Sprint(err))
		}()
		select {
		case s := <-got:
			if !strings.HasPrefix(s, "overflow\tgoes on") {
				t.Errorf("%s: %.300s", name, s)
			}
		case <-time.After(2 * time.Minute):
			t.Errorf("%s: goes on for 2 minutes", name)
		}
	}
}

// FuzzCompile looks for chunks that the compiler does not take as an error.
func FuzzCompile(f *testing.F) {
	for _, c := range endless {
		f.Add(c.head+strings.Repeat(c.body, 3)+c.tail, uint16(300))
	}
	f.Add("local a <const> = 1 goto x ::x:: for i=1,2 do local function f(...) return ... end end", uint16(1))
	f.Fuzz(func(t *testing.T, code string, times uint16) {
		if len(code)*int(times) > 1<<20 {
			return
		}
		_, _ = compile([]byte(code), "fuzz")
		_, _ = compile([]byte(strings.Repeat(code, int(times))), "fuzz")
	})
}

// FuzzRule runs a rule's function of any text: it ends, and the program goes on.
func FuzzRule(f *testing.F) {
	for _, c := range slow {
		f.Add(c)
	}
	f.Add(`local function f() coroutine.wrap(f)() end f()`)
	f.Add(
		`local t = setmetatable({}, {__index = function(t, k) return pcall(function() return t[k] end) end}) return t.x`)
	f.Add(`return ("accept"):gsub("x", string.rep), table.concat({p.payload, 1}), tostring(p), p.ip.ttl`)
	f.Fuzz(func(t *testing.T, code string) {
		file := filepath.Join(t.TempDir(), "rule.lua")
		if err := os.WriteFile(file, []byte("return function(p) "+code+"\nend"), 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := OpenRule(file, RuleOptions{Timeout: 10 * time.Millisecond})
		if err != nil {
			return
		}
		a, err := r.Open()
		if err != nil {
			return
		}
		began := time.Now()
		_, _, _ = act(t, a, udpPacket("x"))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%v", took)
		}
	})
}
