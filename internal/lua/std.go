package lua

import (
	"errors"
	"fmt"
	"math"
	"strconv"
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
	L.SetField(L.GetGlobal("string"), "format", L.NewFunction(stringFormat))
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
				if n >= 2 && L.Get(-n) == lua.LNil && strings.Contains(lua.LVAsString(L.Get(-n+1)), unix.EPIPE.Error()) {
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

func (v *vm) print(L *lua.LState) int {
	var b []byte
	for i := 1; i <= L.GetTop(); i++ {
		if i > 1 {
			b = append(b, '\t')
		}
		b = append(b, L.ToStringMeta(L.Get(i)).String()...)
	}
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

// stringFormat is string.format of Lua 5.1: C's conversions, and %q as Lua reads
// it back.
func stringFormat(L *lua.LState) int {
	format := text(L, 1)
	var b []byte
	arg := 1
	for i := 0; i < len(format); i++ {
		c := format[i]
		if c != '%' {
			b = append(b, c)
			continue
		}
		if i++; i < len(format) && format[i] == '%' {
			b = append(b, '%')
			continue
		}
		start := i
		for i < len(format) && strings.IndexByte("-+ #0", format[i]) >= 0 {
			i++
		}
		for i < len(format) && (format[i] >= '0' && format[i] <= '9' || format[i] == '.') {
			i++
		}
		spec := format[start:i]
		if len(spec) > 12 {
			raise(L, "invalid format (width or precision too long)")
		}
		verb := byte(0)
		if i < len(format) {
			verb = format[i]
		}
		arg++
		switch verb {
		case 'c':
			b = append(b, byte(integer(number(L, arg))))
		case 'd', 'i':
			b = fmt.Appendf(b, "%"+precise(spec)+"d", int64(number(L, arg)))
		case 'u':
			b = fmt.Appendf(b, "%"+precise(spec)+"d", integer(number(L, arg)))
		case 'o', 'x', 'X':
			b = fmt.Appendf(b, "%"+precise(spec)+string(verb), integer(number(L, arg)))
		case 'e', 'E', 'f', 'g', 'G':
			f := number(L, arg)
			switch {
			case math.IsInf(f, 0) || math.IsNaN(f):
				w := strings.ToLower(strconv.FormatFloat(f, 'g', -1, 64))
				b = append(b, strings.TrimPrefix(w, "+")...)
			case (verb == 'g' || verb == 'G') && !strings.Contains(spec, "."):
				b = fmt.Appendf(b, "%"+spec+".6"+string(verb), f)
			default:
				b = fmt.Appendf(b, "%"+spec+string(verb), f)
			}
		case 'q':
			b = appendQuoted(b, text(L, arg))
		case 's':
			if arg > L.GetTop() {
				argError(L, arg, "string expected, got no value")
			}
			b = appendText(b, spec, L.ToStringMeta(L.Get(arg)).String())
		default:
			raise(L, "invalid option '%%%s' to 'format'", strings.TrimRight(string(verb), "\x00"))
		}
	}
	L.Push(lua.LString(b))
	return 1
}

// precise drops a '0' flag beside a precision, which C ignores for integers.
func precise(spec string) string {
	if strings.Contains(spec, ".") {
		return strings.TrimLeft(spec, "0")
	}
	return spec
}

// appendText is %s; width and precision count bytes, as in C.
func appendText(b []byte, spec, s string) []byte {
	width, precision, cut := strings.TrimLeft(spec, "-+ #0"), "", false
	if width, precision, cut = strings.Cut(width, "."); cut {
		n, _ := strconv.Atoi(precision)
		s = s[:min(n, len(s))]
	}
	n, _ := strconv.Atoi(width)
	pad := strings.Repeat(" ", max(n-len(s), 0))
	if strings.Contains(strings.TrimRight(spec, "0123456789."), "-") {
		return append(append(b, s...), pad...)
	}
	return append(append(b, pad...), s...)
}

// appendQuoted is %q.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\', '\n':
			b = append(b, '\\', c)
		case '\r':
			b = append(b, `\r`...)
		case 0:
			b = append(b, `\000`...)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
