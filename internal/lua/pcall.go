package lua

import (
	"errors"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// The interpreter's own pcall parts the closures of all active functions from
// their variables when it catches an error: what is assigned afterwards they do
// not see. So here each protected call has a thread of its own, whose end parts
// nothing else; threads of calls that went well are used again.

// deepest is how many protected calls and resumes may be nested, as in C Lua.
const deepest = 190

// protected calls fn with the values on L's stack behind the first skip ones.
// The results are pushed on L.
func (v *vm) protected(L *lua.LState, fn lua.LValue, skip int, handler *lua.LFunction) (n int, err error) {
	frames := v.enter(L)
	if frames == 0 {
		return 0, errTooDeep
	}
	var th *lua.LState
	if k := len(v.threads); k > 0 {
		th, v.threads = v.threads[k-1], v.threads[:k-1]
	} else {
		th = v.newThread(L)
	}
	args := L.GetTop() - skip
	th.Push(fn)
	for i := range args {
		th.Push(L.Get(skip + 1 + i))
	}
	running := L.G.CurrentThread
	defer func() {
		v.leave(frames)
		L.G.CurrentThread = running
	}()
	if err := th.PCall(args, lua.MultRet, handler); err != nil {
		// The interpreter writes a position before its own errors, also where
		// there is none.
		var api *lua.ApiError
		if f, ok := fn.(*lua.LFunction); ok && f.IsG && errors.As(err, &api) {
			if s, ok := api.Object.(lua.LString); ok && strings.HasPrefix(string(s), " ") {
				api.Object = s[1:]
			}
		}
		return 0, err // the thread's variables may still be looked at: it is not used again
	}
	n = th.GetTop()
	for i := range n {
		L.Push(th.Get(i + 1))
	}
	th.SetTop(0)
	if len(v.threads) < deepest {
		v.threads = append(v.threads, th)
	}
	return n, nil
}

var errTooDeep = errors.New("stack overflow (protected calls)")

// newThread makes a thread that ends when L's time is over, if it has a limit.
func (v *vm) newThread(L *lua.LState) *lua.LState {
	th, cancel := L.NewThread()
	if cancel != nil {
		cancel()
	}
	if v.limit != nil {
		th.SetContext(v.limit)
	}
	return th
}

func pushFailure(L *lua.LState, err error) int {
	L.Push(lua.LFalse)
	var api *lua.ApiError
	if errors.As(err, &api) && api.Object != nil {
		L.Push(api.Object)
	} else {
		L.Push(lua.LString(err.Error()))
	}
	return 2
}

func (v *vm) pcall(L *lua.LState) int {
	fn := L.CheckAny(1)
	if fn.Type() != lua.LTFunction && L.GetMetaField(fn, "__call").Type() != lua.LTFunction {
		L.Push(lua.LFalse)
		L.Push(lua.LString("attempt to call a " + fn.Type().String() + " value"))
		return 2
	}
	n, err := v.protected(L, fn, 1, nil)
	if err != nil {
		return pushFailure(L, err)
	}
	L.Insert(lua.LTrue, L.GetTop()-n+1)
	return n + 1
}

// raiseValue is error: a text gets the position of the function at its level.
func raiseValue(L *lua.LState) int {
	value, level := L.Get(1), L.OptInt(2, 1)
	if s, ok := value.(lua.LString); ok && level > 0 {
		if at := L.Where(level); at != "" && !strings.HasPrefix(at, "[G]") {
			value = lua.LString(at + " " + string(s))
		}
	}
	L.Error(value, 0)
	return 0
}

func (v *vm) xpcall(L *lua.LState) int {
	fn, handler := L.CheckAny(1), L.CheckFunction(2)
	n, err := v.protected(L, fn, L.GetTop(), handler)
	if err != nil {
		return pushFailure(L, err)
	}
	L.Insert(lua.LTrue, L.GetTop()-n+1)
	return n + 1
}

// limitCoroutines makes coroutines end when the time of a rule's call is over.
func (v *vm) limitCoroutines() {
	t, ok := v.L.GetGlobal("coroutine").(*lua.LTable)
	if !ok {
		return
	}
	create, resume := t.RawGetString("create"), t.RawGetString("resume")
	limited := func(L *lua.LState) *lua.LState {
		L.Push(create)
		L.Push(L.Get(1))
		L.Call(1, 1)
		th := L.CheckThread(L.GetTop())
		th.SetContext(v.limit)
		return th
	}
	t.RawSetString("create", v.L.NewFunction(func(L *lua.LState) int {
		limited(L)
		return 1
	}))
	t.RawSetString("wrap", v.L.NewFunction(func(L *lua.LState) int {
		th := limited(L)
		L.Push(L.NewFunction(func(L *lua.LState) int {
			args := L.GetTop()
			L.Push(resume)
			L.Push(th)
			for i := range args {
				L.Push(L.Get(i + 1))
			}
			L.Call(args+1, lua.MultRet)
			if L.Get(args+1) == lua.LFalse {
				L.Error(L.Get(args+2), 0)
			}
			return L.GetTop() - args - 1
		}))
		return 1
	}))
}
