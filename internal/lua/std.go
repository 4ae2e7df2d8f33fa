package lua

import (
	"errors"
	"fmt"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"golang.org/x/sys/unix"
)

// fixLibraries teaches the interpreter's libraries what Lua 5.1's do otherwise.
func (v *vm) fixLibraries() {
	L := v.L
	L.SetGlobal("print", L.NewFunction(v.print))
	L.SetGlobal("pcall", L.NewFunction(v.pcall))
	L.SetGlobal("xpcall", L.NewFunction(v.xpcall))
	L.SetGlobal("error", L.NewFunction(raiseValue))
	if unpack, ok := L.GetGlobal("unpack").(*lua.LFunction); ok {
		L.SetGlobal("unpack", L.NewFunction(func(L *lua.LState) int {
			first := L.OptInt(2, 1)
			last := 0
			if t, ok := L.Get(1).(*lua.LTable); ok && L.Get(3) == lua.LNil {
				last = t.Len()
			} else {
				last = L.OptInt(3, 0)
			}
			if last >= first && uint(last-first) >= mostValues {
				raise(L, "too many results to unpack")
			}
			return unpack.GFunction(L)
		}))
	}
	v.fixStrings()
	v.fixLoaders()
	v.boundCoroutines()
	if v.o.Untrusted {
		return
	}
	// io.stdout:setvbuf"line": the interpreter's files have no line buffer, and
	// what is written without any is there no later.
	file, ok := L.GetTypeMetatable("FILE*").(*lua.LTable)
	if !ok {
		return
	}
	methods, ok := file.RawGetString("__index").(*lua.LTable)
	if !ok {
		return
	}
	if setvbuf, ok := methods.RawGetString("setvbuf").(*lua.LFunction); ok {
		methods.RawSetString("setvbuf", L.NewFunction(func(L *lua.LState) int {
			if L.GetTop() >= 2 && L.Get(2) == lua.LString("line") {
				L.Replace(2, lua.LString("no"))
			}
			return setvbuf.GFunction(L)
		}))
	}
	// A reader that goes away ends the script, as SIGPIPE does elsewhere.
	watch := func(t *lua.LTable) {
		if write, ok := t.RawGetString("write").(*lua.LFunction); ok {
			t.RawSetString("write", L.NewFunction(func(L *lua.LState) int {
				args := L.GetTop()
				L.Push(write)
				for i := 1; i <= args; i++ {
					L.Push(L.Get(i))
				}
				L.Call(args, lua.MultRet)
				n := L.GetTop() - args
				if n >= 2 && L.Get(-n) == lua.LNil &&
					strings.Contains(lua.LVAsString(L.Get(-n+1)), unix.EPIPE.Error()) {
					v.ended(L, unix.EPIPE)
				}
				return n
			}))
		}
	}
	watch(methods)
	if io, ok := L.GetGlobal("io").(*lua.LTable); ok {
		watch(io)
	}
}

func (v *vm) ended(L *lua.LState, err error) {
	v.out = fmt.Errorf("standard output: %w", err)
	L.RaiseError("%s", v.out.Error())
}

// boundChunks lets loadstring and load take no more code than the compiler, which
// cannot be cut off, is done with soon.
func (v *vm) boundChunks() {
	loadstring, ok := v.L.GetGlobal("loadstring").(*lua.LFunction)
	if !ok {
		return
	}
	v.L.SetGlobal("loadstring", v.L.NewFunction(func(L *lua.LState) int {
		if len(L.CheckString(1)) > ruleChunk {
			L.Push(lua.LNil)
			L.Push(lua.LString(fmt.Sprintf("code of more than %d KiB", ruleChunk>>10)))
			return 2
		}
		return loadstring.GFunction(L)
	}))
	v.L.SetGlobal("load", lua.LNil)
}

func (v *vm) print(L *lua.LState) int {
	var b []byte
	for i := 1; i <= L.GetTop(); i++ {
		if i > 1 {
			b = append(b, '\t')
		}
		b = append(b, L.ToStringMeta(L.Get(i)).String()...)
		if v.limit != nil && v.printed+len(b) > rulePrint {
			raise(L, "print: more than %d KiB for one packet", rulePrint>>10)
		}
	}
	v.printed += len(b)
	if v.o.Out == nil {
		return 0
	}
	if _, err := v.o.Out.Write(append(b, '\n')); err != nil {
		if errors.Is(err, unix.EPIPE) {
			err = unix.EPIPE
		}
		v.ended(L, err)
	}
	return 0
}
