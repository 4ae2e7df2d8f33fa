package lua

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
)

// The interpreter's compiler walks a chunk by recursion, and its calls from Go into Lua
// nest Go's stack, which ends the process where it ends: no recover helps. So what
// could nest without bound is refused before.

const (
	// mostNested is how deep brackets, blocks, prefixed operators, .. and ^ may be
	// nested, as in C Lua (LUAI_MAXCCALLS).
	mostNested = 200
	// mostJoined is how many operators, calls and indexes one expression may join from
	// left to right, and how many elseifs an if may have: C Lua does these in a loop.
	mostJoined = 1000
	// mostFrames is how many calls may be under way on all threads that wait for
	// another one, by protected calls and coroutines.
	mostFrames = 24 << 10
)

// A level is what is open in a chunk: a bracket, or a block.
type level struct {
	right  int // .. and ^ of the expression at hand
	joined int // its depth otherwise, at most
	most   int // the largest joined of an expression that is over
	elses  int // elseifs, those of the levels around included
}

func (l *level) over() {
	l.most = max(l.most, l.joined)
	l.right, l.joined = 0, 0
}

// nested refuses a chunk that is nested too deep. What else may be wrong with it is
// the parser's to say.
func nested(code []byte, name string) error {
	scanner := parse.NewScanner(bytes.NewReader(code), name)
	open := make([]level, 1, mostNested+1)
	prefix, ended := 0, false // operators before an operand; an operand is over
	for {
		tok, err := scanner.Scan(&parse.Lexer{})
		if err != nil || tok.Type < 0 {
			return nil
		}
		l := &open[len(open)-1]
		began, ends, before := false, false, false
		switch tok.Type {
		case '(', '[', '{':
			l.joined++
			began = true
		case ')', ']', '}', parse.TEnd, parse.TUntil:
			l.over()
			if n := len(open) - 1; n > 0 {
				open[n-1].joined += l.most
				open = open[:n]
				l = &open[n-1]
			}
			ends = tok.Type != parse.TUntil
		case parse.TFunction:
			if ended { // another statement
				l.over()
			}
			began = true
		case parse.TIf, parse.TDo, parse.TRepeat:
			l.over()
			began = true
		case parse.TElseIf:
			l.over()
			l.elses++
		case ',', ';', '=', parse.TLocal, parse.TReturn, parse.TThen, parse.TElse, parse.TWhile, parse.TFor,
			parse.TBreak, parse.TGoto, parse.TIn:
			l.over()
		case parse.TIdent:
			if ended { // another statement
				l.over()
			}
			ends = true
		case parse.TString:
			if ended { // a call
				l.joined++
			}
			ends = true
		case parse.TNumber, parse.TNil, parse.TTrue, parse.TFalse, parse.T3Comma:
			ends = true
		case parse.TNot, '#':
			before = true
		case '-':
			if before = !ended; ended {
				l.joined++
			}
		case parse.T2Comma, '^':
			l.right++
		default:
			l.joined++
		}
		if prefix++; !before {
			prefix = 0
		}
		ended = ends
		if began {
			if len(open) > mostNested {
				return tooNested(name, tok.Pos.Line, mostNested, "levels")
			}
			open = append(open, level{elses: l.elses})
		}
		switch {
		case prefix > mostNested || l.right > mostNested:
			return tooNested(name, tok.Pos.Line, mostNested, "levels")
		case l.joined > mostJoined || l.elses > mostJoined:
			return tooNested(name, tok.Pos.Line, mostJoined, "operators, calls or branches in a row")
		}
	}
}

func tooNested(name string, line, most int, what string) error {
	return &Error{Text: fmt.Sprintf("%s line:%d:   chunk has too many syntax levels (more than %d %s)", name, line,
		most, what)}
}

// enter counts a call from L that has a thread of its own; leave ends it with what
// enter returned. 0: there are too many under way.
func (v *vm) enter(L *lua.LState) int {
	frames := 64 // or as many more as it takes, to a power of two
	for _, ok := L.GetStack(frames); ok; _, ok = L.GetStack(frames) {
		frames *= 2
	}
	if v.depth >= deepest || v.frames+frames > mostFrames {
		return 0
	}
	v.depth++
	v.frames += frames
	return frames
}

func (v *vm) leave(frames int) {
	v.depth--
	v.frames -= frames
}

// boundCoroutines counts resumes as nested calls.
func (v *vm) boundCoroutines() {
	t := v.L.GetGlobal("coroutine").(*lua.LTable)
	bounded := func(f *lua.LFunction, refuse func(L *lua.LState) int) {
		resume := f.GFunction
		f.GFunction = func(L *lua.LState) int {
			frames := v.enter(L)
			if frames == 0 {
				return refuse(L)
			}
			defer v.leave(frames)
			return resume(L)
		}
	}
	bounded(t.RawGetString("resume").(*lua.LFunction), func(L *lua.LState) int {
		L.Push(lua.LFalse)
		L.Push(lua.LString(errResumes))
		return 2
	})
	wrap := t.RawGetString("wrap").(*lua.LFunction)
	native := wrap.GFunction
	wrap.GFunction = func(L *lua.LState) int {
		n := native(L)
		bounded(L.Get(-1).(*lua.LFunction), func(L *lua.LState) int { raise(L, "%s", errResumes); return 0 })
		return n
	}
}

const errResumes = "stack overflow (coroutines)"

// fixLoaders has everything that makes code of a text go through compile.
func (v *vm) fixLoaders() {
	L := v.L
	load := func(L *lua.LState, code []byte, name string) int {
		fn, err := v.compile(code, name)
		if err != nil {
			L.Push(lua.LNil)
			L.Push(lua.LString(strings.TrimPrefix(err.Error(), "lua: ")))
			return 2
		}
		L.Push(fn)
		return 1
	}
	file := func(L *lua.LState) (code []byte, name string, err error) {
		if L.Get(1) == lua.LNil {
			code, err = readAll(os.Stdin, "standard input")
			return code, "<stdin>", err
		}
		name = text(L, 1)
		code, err = readScript(name, false)
		return code, name, err
	}
	set := func(name string, f lua.LGFunction) { L.SetGlobal(name, L.NewFunction(f)) }
	set("loadstring", func(L *lua.LState) int { return load(L, []byte(text(L, 1)), L.OptString(2, "<string>")) })
	set("load", func(L *lua.LState) int {
		fn, name := L.CheckFunction(1), L.OptString(2, "?")
		var code []byte
		for {
			L.Push(fn)
			L.Call(0, 1)
			piece := L.Get(-1)
			L.Pop(1)
			if piece == lua.LNil || piece == lua.LString("") {
				return load(L, code, name)
			}
			if !lua.LVCanConvToString(piece) {
				L.Push(lua.LNil)
				L.Push(lua.LString("reader function must return a string"))
				return 2
			}
			if code = append(code, lua.LVAsString(piece)...); len(code) > biggestScript {
				L.Push(lua.LNil)
				L.Push(lua.LString(fmt.Sprintf("code of more than %d MiB", biggestScript>>20)))
				return 2
			}
		}
	})
	set("loadfile", func(L *lua.LState) int {
		code, name, err := file(L)
		if err != nil {
			L.Push(lua.LNil)
			L.Push(lua.LString("can not open file: " + name))
			return 2
		}
		return load(L, code, name)
	})
	set("dofile", func(L *lua.LState) int {
		top := L.GetTop()
		code, name, err := file(L)
		if err != nil {
			L.Error(lua.LString(err.Error()), 0)
		}
		if load(L, code, name) == 2 {
			L.Error(L.Get(-1), 0)
		}
		L.Call(0, lua.MultRet)
		return L.GetTop() - top
	})
	pkg := L.GetGlobal("package").(*lua.LTable)
	pkg.RawGetString("loaders").(*lua.LTable).RawSetInt(2, L.NewFunction(func(L *lua.LState) int {
		path, ok := L.GetField(pkg, "path").(lua.LString)
		if !ok {
			raise(L, "package.path must be a string")
		}
		module := strings.ReplaceAll(text(L, 1), ".", string(os.PathSeparator))
		var missed []string
		for pattern := range strings.SplitSeq(string(path), ";") {
			name := strings.ReplaceAll(pattern, "?", module)
			if _, err := os.Stat(name); err != nil {
				missed = append(missed, err.Error())
				continue
			}
			code, err := readScript(name, false)
			if err == nil {
				if load(L, code, name) == 1 {
					return 1
				}
				L.RaiseError("%s", lua.LVAsString(L.Get(-1)))
			}
			L.RaiseError("%s", err.Error())
		}
		L.Push(lua.LString(strings.Join(missed, "\n\t")))
		return 1
	}))
}
