package lua

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What Lua 5.1 does, and the interpreter by itself does not.
func TestLanguage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, code, want string }{
		{"variables behind pcall", `local x = 1 local f = function() return x end pcall(error, "e") x = 2 print(f())`, "2"},
		{"variables behind xpcall", `local x = 1 local f = function() return x end xpcall(function() error("e") end, print) x = 2 print(f())`, "(command line):1: e\n2"},
		{"what a failed call left", `local g pcall(function() local y = 5 g = function() y = y + 1 return y end error("e") end) print(g(), g())`, "6\t7"},
		{"pcall", `print(pcall(function(...) return ... end, 1, nil, 3)) print(pcall(error)) print(pcall(error, {1}) == false, select("#", pcall(print))) print(pcall(nil))`,
			"true\t1\tnil\t3\nfalse\tnil\n\ntrue\t1\nfalse\tattempt to call a nil value"},
		{"xpcall", `print(xpcall(function() error("e", 0) end, function(m) return m.."!" end)) print(xpcall(function() return 1, 2 end, print))`, "false\te!\ntrue\t1\t2"},
		{"nested", `print(pcall(pcall, pcall, error, "e")) local function f() return pcall(f) end print(type(f()))`, "true\ttrue\tfalse\te\nboolean"},
		{"coroutines", `local co = coroutine.wrap(function(a) local b = coroutine.yield(a + 1) pcall(error) coroutine.yield(b * 2) error("end", 0) end)
			print(co(1), co(5), pcall(co))`, "2\t10\tfalse\tend"},
		{"deep", `local function f(n) if n == 0 then return 0 end return 1 + f(n - 1) end print(f(5000))`, "5000"},
		{"quoted", `print(string.format("%q", 'a"b\\c\0d\r\200e\nf')) print(loadstring("return "..string.format("%q", 'a"b\\c\0d\r\200e\nf'))() == 'a"b\\c\0d\r\200e\nf')`,
			"\"a\\\"b\\\\c\\000d\\r\xc8e\\\nf\"\ntrue"},
		{"formats", `print(("%d %5d|%-5d|%05d %x %X %o %c %i %u"):format(3.7, 42, 42, 42, 255, 255, 8, 65, -1, 7))
			print(("%s %5s|%-5s|%.2s %%"):format(nil, "ab", "ab", "abcdef")) print(("%g %g %.3f %e %5.1f"):format(0.1, 1e20, 1/3, 12345.678, 2.25))
			print(pcall(string.format, "%d", "x")) print(pcall(string.format, "%d")) print(pcall(string.format, "%y", 1)) print(("%d"):format("0x10"))`,
			"3    42|42   |00042 ff FF 10 A -1 7\nnil    ab|ab   |ab %\n0.1 1e+20 0.333 1.234568e+04   " +
				"2.2\nfalse\tbad argument #2 to '?' (number expected, got string)\n" +
				"false\tbad argument #2 to '?' (number expected, got no value)\nfalse\tinvalid option '%y' to " +
				"'format'\n16"},
		{"files", `print(io.stdout:setvbuf"line", io.stdout:setvbuf"no", io.stdout:setvbuf("line", 100)) print(io.write("") ~= nil)`, "true\ttrue\ttrue\ntrue"},
		{"old ways", `module("m", package.seeall) function f() return unpack{1, 2} end print((f()), select(2, f()), type(newproxy(true)), type(setfenv), type(io.popen))`, "1\t2\tuserdata\tfunction\tfunction"},
		{"modules", `print(require"nfct" == nfct, require"nfq" == nfq, package.loaded.nfct == nfct)`, "true\ttrue\ttrue"},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, c.code, c.want) })
	}
}

// write puts files into a new folder and returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestScripts(t *testing.T) {
	other := write(t, map[string]string{"far.lua": "return 'far'"})
	t.Setenv("LUA_PATH", other+"/?.lua;;")
	dir := write(t, map[string]string{
		"script.lua":    "#!/usr/bin/env -S nfctl lua\nprint(arg[0]:match('[^/]*$'), arg[1], arg[2], #arg, select('#', ...), (...))\nprint(require'near', require'sub.deep', require'pack', require'far')\nprint(pcall(require, 'nowhere') == false)",
		"near.lua":      "#!/bin/true\nreturn 'near'",
		"sub/deep.lua":  "return 'deep'",
		"pack/init.lua": "return 'pack'",
		"short.lua":     "if x then\n  x = 1\n",
		"bad.lua":       "\n\nx = = 1",
		"fails.lua":     "local function f()\n error('mine') end\nf()",
	})
	var out bytes.Buffer
	if err := Run(Options{File: dir + "/script.lua", Args: []string{"one", "two"}, Out: &out}); err != nil {
		t.Fatal(err)
	}
	if want := "script.lua\tone\ttwo\t2\t2\tone\nnear\tdeep\tpack\tfar\ntrue\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	out.Reset()
	if err := Run(Options{File: "-", In: strings.NewReader("#!x\nprint(arg[0], arg[1])"), Args: []string{"a"},
		Out: &out}); err != nil || out.String() != "-\ta\n" {
		t.Errorf("%v %q", err, out.String())
	}
	for _, c := range []struct{ file, want string }{{"bad.lua", "bad.lua line:3"},
		{"short.lua", "short.lua line:2 near '<eof>'"}, {"fails.lua", "fails.lua:2: mine\nstack traceback:"}, {"absent.lua", "no such file"}} {
		err := Run(Options{File: filepath.Join(dir, c.file), Out: &out})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.file, err, c.want)
		}
	}
	if err := Run(Options{Code: "pcall(print) while true do print() end", Out: broken{}}); !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, unix.EPIPE }

// An untrusted script reaches nothing outside its folder.
func TestUntrusted(t *testing.T) {
	t.Parallel()
	outside := write(t, map[string]string{"secret.lua": "return 'secret'"})
	dir := write(t, map[string]string{
		"script.lua": `
			print(os, io, debug, dofile, loadfile, package.loadlib, package.path)
			print(require"inside", require"sub.more")
			for _, name in ipairs{"link", "../` + filepath.Base(outside) + `/secret", "` + outside + `/secret", "linked.secret"} do print((pcall(require, name))) end
			package.path = "` + outside + `/?.lua" print((pcall(require, "secret")))
			print(type(nfct.open), #string.format("%q", "x"), pcall(error, "e"))`,
		"inside.lua":   "return 'inside'",
		"sub/more.lua": "return 'more'",
	})
	for link, to := range map[string]string{"link.lua": outside + "/secret.lua", "linked": outside} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := Run(Options{File: dir + "/script.lua", Untrusted: true, Out: &out}); err != nil {
		t.Fatal(err)
	}
	if want := "nil\tnil\tnil\tnil\tnil\tnil\tnil\ninside\tmore\nfalse\nfalse\nfalse\nfalse\n" +
		"false\nfunction\t3\tfalse\te\n"; out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
