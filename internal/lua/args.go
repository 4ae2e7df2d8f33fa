package lua

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"

	lua "github.com/yuin/gopher-lua"

	"nfctl/internal/queue"
)

// raise raises an error at the caller's position, as luaL_error does: none when
// the caller is no Lua function.
func raise(L *lua.LState, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if at := L.Where(1); at != "" && !strings.HasPrefix(at, "[G]") {
		text = at + " " + text
	}
	L.Error(lua.LString(text), 0)
}

// argError raises the error of argument n, in the words of Lua's own library: the
// function is called what its caller calls it, and '?' when no name is known.
func argError(L *lua.LState, n int, format string, args ...any) {
	name := "?"
	if d, ok := L.GetStack(0); ok && calledByLua(L) {
		if _, err := L.GetInfo("n", d, lua.LNil); err == nil && d.Name != "" && d.Name[0] != '(' && d.Name[0] != '<' {
			name = d.Name[strings.LastIndexAny(d.Name, ".:")+1:]
		}
	}
	raise(L, "bad argument #%d to '%s' (%s)", n, name, fmt.Sprintf(format, args...))
}

// calledByLua reports whether a Lua function called the function that runs.
func calledByLua(L *lua.LState) bool {
	_, ok := L.GetStack(1)
	return ok
}

func typeName(L *lua.LState, n int) string {
	if n > L.GetTop() {
		return "no value"
	}
	return L.Get(n).Type().String()
}

// number returns a number argument, which may be given as text.
func number(L *lua.LState, n int) float64 {
	f, ok := toNumber(L.Get(n))
	if !ok {
		argError(L, n, "number expected, got %s", typeName(L, n))
	}
	return f
}

// toNumber converts as Lua does: text must be a number as a whole.
func toNumber(v lua.LValue) (float64, bool) {
	switch v := v.(type) {
	case lua.LNumber:
		return float64(v), true
	case lua.LString:
		s := strings.TrimSpace(string(v))
		if f, err := strconv.ParseFloat(s, 64); err == nil && !strings.ContainsAny(s, "_pP") {
			return f, true
		}
		if n, err := strconv.ParseInt(s, 0, 64); err == nil && len(s) > 1 && strings.ContainsAny(s, "xX") {
			return float64(n), true
		}
	}
	return 0, false
}

// integer converts a number to the bits that C would store of it.
func integer(f float64) uint64 {
	if f >= 1<<63 {
		return uint64(f)
	}
	return uint64(int64(f))
}

// whole converts a number to an int. What an int cannot hold becomes the nearest
// that it can; not a number is 0.
func whole(f float64) int {
	switch {
	case f >= math.MaxInt:
		return math.MaxInt
	case f <= math.MinInt:
		return math.MinInt
	case f != f:
		return 0
	}
	return int(f)
}

// text returns a string argument; a number is its decimal text.
func text(L *lua.LState, n int) string {
	switch v := L.Get(n).(type) {
	case lua.LString:
		return string(v)
	case lua.LNumber:
		return v.String()
	}
	argError(L, n, "string expected, got %s", typeName(L, n))
	return ""
}

// option returns the index of an argument in a list of words. With def >= 0 it
// may be missing.
func option(L *lua.LState, n, def int, words []string) int {
	if def >= 0 && L.Get(n) == lua.LNil {
		return def
	}
	s := text(L, n)
	for i, w := range words {
		if w == s {
			return i
		}
	}
	argError(L, n, "invalid option '%s'", s)
	return 0
}

// fail returns what a failed function returns: nil, text and number.
func fail(L *lua.LState, err error) int {
	var no syscall.Errno
	switch {
	case errors.As(err, &no):
	case errors.Is(err, queue.ErrBusy): // what the kernel says of it
		no = syscall.EPERM
	default:
		no = syscall.EINVAL
	}
	return failErrno(L, no)
}

func failErrno(L *lua.LState, no syscall.Errno) int {
	L.Push(lua.LNil)
	L.Push(lua.LString(strerror(no)))
	L.Push(lua.LNumber(no))
	return 3
}

// strerror returns the C library's text, but for EAGAIN's, which is "timeout".
func strerror(no syscall.Errno) string {
	switch s := no.Error(); {
	case no == syscall.EAGAIN:
		return "timeout"
	case no == 0:
		return "Success"
	default:
		return strings.ToUpper(s[:1]) + s[1:]
	}
}

// handle returns the thing behind a handle; alive says whether it is still there.
func handle[T interface{ alive() bool }](L *lua.LState, n int, what string) T {
	if u, ok := L.Get(n).(*lua.LUserData); ok {
		if t, ok := u.Value.(T); ok && t.alive() {
			return t
		}
	}
	argError(L, n, "%s not provided", what)
	var none T
	return none
}

// newHandle makes the one userdata of a thing.
func newHandle(value any) *lua.LUserData {
	return &lua.LUserData{Value: value, Metatable: lua.LNil}
}
