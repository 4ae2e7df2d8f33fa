package lua

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// fixStrings replaces what the interpreter's libraries do with texts by what Lua
// 5.1's do, so that it can be cut off, and makes no text of more bytes than
// v.longest.
func (v *vm) fixStrings() {
	L := v.L
	t, ok := L.GetGlobal("string").(*lua.LTable)
	if !ok {
		return
	}
	for name, f := range map[string]lua.LGFunction{
		"find": v.stringFind, "match": v.stringMatch, "gmatch": v.stringGmatch, "gfind": v.stringGmatch, "gsub": v.stringGsub,
		"byte": stringByte, "format": v.stringFormat, "rep": v.stringRep, "lower": mapBytes('A', 'Z'), "upper": mapBytes('a', 'z'),
	} {
		t.RawSetString(name, L.NewFunction(f))
	}
	hidden, meta := L.NewTable(), L.NewTable() // behind the table string, for pairs does not show it
	hidden.RawSetString(concatName, L.NewFunction(v.concat))
	meta.RawSetString("__index", hidden)
	t.Metatable = meta
	if t, ok := L.GetGlobal("table").(*lua.LTable); ok {
		t.RawSetString("concat", L.NewFunction(v.tableConcat))
	}
}

// fits raises an error when a text of n bytes is more than v makes.
func (v *vm) fits(L *lua.LState, n int) {
	if n > v.longest {
		raise(L, "resulting string too large")
	}
}

// place returns a place in a text of length bytes that argument n gives: counted
// from 1 or, below 0, from the end; 0 lies before it.
func place(L *lua.LState, n, missing, length int) int {
	at := missing
	if L.Get(n) != lua.LNil {
		at = whole(number(L, n))
	}
	if at < 0 {
		at = max(at+length+1, 0)
	}
	return at
}

// start returns the index where a search begins that argument 3 gives.
func start(L *lua.LState, length int) int { return min(max(place(L, 3, 1, length)-1, 0), length) }

func (v *vm) stringFind(L *lua.LState) int {
	m := v.newMatcher(L)
	from := start(L, len(m.src))
	if lua.LVAsBool(L.Get(4)) || !strings.ContainsAny(m.pat, "^$*+?.([%-") {
		i := strings.Index(m.src[from:], m.pat)
		if i < 0 {
			L.Push(lua.LNil)
			return 1
		}
		L.Push(lua.LNumber(from + i + 1))
		L.Push(lua.LNumber(from + i + len(m.pat)))
		return 2
	}
	s, e := m.search(from)
	if e < 0 {
		L.Push(lua.LNil)
		return 1
	}
	L.Push(lua.LNumber(s + 1))
	L.Push(lua.LNumber(e))
	if m.level == 0 {
		return 2
	}
	return 2 + m.pushResults(s, e)
}

func (v *vm) stringMatch(L *lua.LState) int {
	m := v.newMatcher(L)
	s, e := m.search(start(L, len(m.src)))
	if e < 0 {
		L.Push(lua.LNil)
		return 1
	}
	return m.pushResults(s, e)
}

// search finds the first match at from or behind it.
func (m *matcher) search(from int) (s, e int) {
	p, last := 0, len(m.src)
	if strings.HasPrefix(m.pat, "^") {
		p, last = 1, from
	}
	for s := from; s <= last; s++ {
		if e := m.at(s, p); e >= 0 {
			return s, e
		}
	}
	return -1, -1
}

// stringGmatch is string.gmatch, where a "^" is itself.
func (v *vm) stringGmatch(L *lua.LState) int {
	m, from := v.newMatcher(L), 0
	L.Push(L.NewFunction(func(L *lua.LState) int {
		m.L = L
		for s := from; s <= len(m.src); s++ {
			if e := m.at(s, 0); e >= 0 {
				if from = e; e == s {
					from++
				}
				return m.pushResults(s, e)
			}
		}
		return 0
	}))
	return 1
}

func (v *vm) stringGsub(L *lua.LState) int {
	m := v.newMatcher(L)
	by := L.Get(3)
	switch by.(type) {
	case lua.LString, lua.LNumber, *lua.LTable, *lua.LFunction:
	default:
		argError(L, 3, "string/function/table expected")
	}
	most := len(m.src) + 1
	if L.Get(4) != lua.LNil {
		most = whole(number(L, 4))
	}
	p := 0
	if strings.HasPrefix(m.pat, "^") {
		p = 1
	}
	var b []byte
	n, kept := 0, 0 // replaced, and copied up to where
	for s := 0; n < most; {
		e := m.at(s, p)
		if e >= 0 {
			n++
			b = append(b, m.src[kept:s]...)
			b = m.appendReplacement(b, by, s, e)
			kept = e
			v.fits(L, len(b))
		}
		if p == 1 || e <= s && s == len(m.src) {
			break
		}
		s = max(e, s+1)
	}
	if n == 0 {
		L.Push(lua.LString(m.src))
	} else {
		v.fits(L, len(b)+len(m.src)-kept)
		L.Push(lua.LString(append(b, m.src[kept:]...)))
	}
	L.Push(lua.LNumber(n))
	return 2
}

// appendReplacement appends what replaces the match from s to e.
func (m *matcher) appendReplacement(b []byte, by lua.LValue, s, e int) []byte {
	L := m.L
	var value lua.LValue
	switch by := by.(type) {
	case *lua.LTable:
		value = L.GetTable(by, m.result(0, s, e))
	case *lua.LFunction:
		L.Push(by)
		L.Call(m.pushResults(s, e), 1)
		value = L.Get(-1)
		L.Pop(1)
	default:
		r := lua.LVAsString(by)
		for i := 0; i < len(r); i++ {
			switch {
			case len(b) > m.most:
				raise(L, "resulting string too large")
			case r[i] != '%':
				b = append(b, r[i])
			case i+1 == len(r):
				b = append(b, 0)
			default:
				if i++; !isDigit(r[i]) {
					b = append(b, r[i])
				} else if r[i] == '0' {
					b = append(b, m.src[s:e]...)
				} else {
					b = append(b, lua.LVAsString(m.result(int(r[i]-'1'), s, e))...)
				}
			}
		}
		return b
	}
	switch {
	case lua.LVIsFalse(value):
		return append(b, m.src[s:e]...)
	case !lua.LVCanConvToString(value):
		raise(L, "invalid replacement value (a %s)", value.Type())
	}
	return append(b, lua.LVAsString(value)...)
}

func (v *vm) stringRep(L *lua.LState) int {
	s, n := text(L, 1), number(L, 2)
	if !(n > 0) || s == "" {
		L.Push(lua.LString(""))
		return 1
	}
	v.fits(L, whole(float64(len(s))*n))
	L.Push(lua.LString(strings.Repeat(s, int(n))))
	return 1
}

// mostValues bounds what one call returns, about as in Lua 5.1 (LUAI_MAXCSTACK):
// the interpreter takes time in proportion to the square of it.
const mostValues = 7990

func stringByte(L *lua.LState) int {
	s := text(L, 1)
	i := place(L, 2, 1, len(s))
	j := min(place(L, 3, i, len(s)), len(s))
	i = max(i, 1)
	if j-i >= mostValues {
		raise(L, "string slice too long")
	}
	for at := i; at <= j; at++ {
		L.Push(lua.LNumber(s[at-1]))
	}
	return max(j-i+1, 0)
}

// mapBytes is string.lower or upper: letters from first to last change their case,
// other bytes stay.
func mapBytes(first, last byte) lua.LGFunction {
	return func(L *lua.LState) int {
		b := []byte(text(L, 1))
		for i, c := range b {
			if first <= c && c <= last {
				b[i] = c ^ 0x20
			}
		}
		L.Push(lua.LString(b))
		return 1
	}
}

func (v *vm) tableConcat(L *lua.LState) int {
	sep := ""
	if L.Get(2) != lua.LNil {
		sep = text(L, 2)
	}
	t, ok := L.Get(1).(*lua.LTable)
	if !ok {
		argError(L, 1, "table expected, got %s", typeName(L, 1))
	}
	i, j := 1, t.Len()
	if L.Get(3) != lua.LNil {
		i = whole(number(L, 3))
	}
	if L.Get(4) != lua.LNil {
		j = whole(number(L, 4))
	}
	var b []byte
	for at := i; at <= j; at++ {
		value := t.RawGet(lua.LNumber(at))
		if !lua.LVCanConvToString(value) {
			raise(L, "invalid value (%s) at index %d in table for 'concat'", value.Type(), at)
		}
		if at > i {
			b = append(b, sep...)
		}
		b = append(b, lua.LVAsString(value)...)
		v.fits(L, len(b))
	}
	L.Push(lua.LString(b))
	return 1
}

// stringFormat is string.format of Lua 5.1: C's conversions, and %q as Lua reads
// it back.
func (v *vm) stringFormat(L *lua.LState) int {
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
		spec := formatSpec(L, format[i:])
		i += len(spec)
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
		v.fits(L, len(b))
	}
	L.Push(lua.LString(b))
	return 1
}

// formatSpec returns the flags, width and precision that s begins with: no more of
// them than in C Lua, so that one conversion stays short.
func formatSpec(L *lua.LState, s string) string {
	rest := strings.TrimLeft(s, "-+ #0")
	if len(s)-len(rest) > 5 {
		raise(L, "invalid format (repeated flags)")
	}
	digits := func() {
		for n := 0; n < 2 && rest != "" && isDigit(rest[0]); n++ {
			rest = rest[1:]
		}
	}
	digits()
	if strings.HasPrefix(rest, ".") {
		rest = rest[1:]
		digits()
	}
	if rest != "" && isDigit(rest[0]) {
		raise(L, "invalid format (width or precision too long)")
	}
	return s[:len(s)-len(rest)]
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
