package lua

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
)

// Options say what to run, and with what around it.
type Options struct {
	File string   // script; "-": In
	Code string   // what to run instead, without File
	Args []string // arg[1] and so on, and the chunk's "..."

	// Untrusted takes os, io, debug, dofile and loadfile away, and lets require
	// load nothing from outside the script's folder.
	Untrusted bool

	In       io.Reader
	Out, Err io.Writer
	// Warn is told of what scripts cannot be told: losses that a loop survived.
	// Nil: written to Err.
	Warn func(text string)
	// Loaded is called when the script was read, before it runs. May be nil.
	Loaded func()
}

// An Error is a script that could not be read or that ended with an error.
type Error struct {
	Text  string // position and message
	Trace string // stack traceback, or ""
	err   error
}

func (e *Error) Error() string {
	if e.Trace == "" {
		return "lua: " + e.Text
	}
	return "lua: " + e.Text + "\n" + e.Trace
}

// Unwrap returns the failure of standard output that ended the script, if one did.
func (e *Error) Unwrap() error { return e.err }

// Run runs a script to its end.
func Run(o Options) error {
	name, folder, code := "(command line)", ".", []byte(o.Code)
	switch o.File {
	case "":
	case "-":
		b, err := readAll(o.In, "standard input")
		if err != nil {
			return fmt.Errorf("lua: standard input: %w", err)
		}
		name, code = "stdin", b
	default:
		b, err := readScript(o.File, false)
		if err != nil {
			return fmt.Errorf("lua: script: %w", err)
		}
		name, folder, code = o.File, filepath.Dir(o.File), b
	}
	if o.Untrusted && (o.File == "" || o.File == "-") {
		folder = ""
	}
	v := newVM(&o, folder, callDepth)
	defer v.close()
	arg := v.L.NewTable()
	arg.RawSetInt(-2, lua.LString("nfctl"))
	arg.RawSetInt(-1, lua.LString("lua"))
	arg.RawSetInt(0, lua.LString(map[bool]string{true: o.File, false: "-e"}[o.File != ""]))
	for i, a := range o.Args {
		arg.RawSetInt(i+1, lua.LString(a))
	}
	v.L.SetGlobal("arg", arg)
	fn, err := v.compile(code, name)
	if err != nil {
		return err
	}
	if o.Loaded != nil {
		o.Loaded()
	}
	v.L.Push(fn)
	for _, a := range o.Args {
		v.L.Push(lua.LString(a))
	}
	return v.failure(v.L.PCall(len(o.Args), 0, nil))
}

// A vm is an interpreter with the modules.
type vm struct {
	L    *lua.LState
	o    *Options
	root *os.Root // where untrusted modules may come from; nil: nowhere
	out  error    // standard output failed

	threads []*lua.LState // for protected calls, unused now
	depth   int           // protected calls and resumes under way
	frames  int           // calls of the threads that wait for them, at most
	limit   *limit        // of a rule; nil: none
	longest int           // of a text that a library function makes
	printed int           // bytes by a rule's function for the packet at hand

	qhandles  map[*qhandle]struct{}
	cthandles map[*cthandle]struct{}
}

// Sizes of an interpreter's stacks: nested calls, and values. A script that needs
// more gets an error.
const (
	callDepth   = 8 << 10 // an error costs the square of its depth
	ruleDepth   = 1 << 10
	stackValues = 2 << 10
	stackMost   = 1 << 20
	longestText = 256 << 20
)

// The interpreter keeps the values at whole numbers below this in an array that has
// all places up to the highest, so that t[n] = 1 takes 16 bytes times n: 64 MiB at
// most, and not 1 GiB. The array, and #t, end there.
const arrayMost = 4 << 20

func init() { lua.MaxArrayIndex = arrayMost }

// newVM makes an interpreter; folder is the script's, "" for none.
func newVM(o *Options, folder string, depth int) *vm {
	v := &vm{o: o, longest: longestText, qhandles: map[*qhandle]struct{}{}, cthandles: map[*cthandle]struct{}{},
		L: lua.NewState(lua.Options{SkipOpenLibs: true, CallStackSize: depth, RegistrySize: stackValues,
			RegistryMaxSize: stackMost, MinimizeStackMemory: true})}
	libs := []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable},
		{lua.StringLibName, lua.OpenString}, {lua.MathLibName, lua.OpenMath}, {lua.CoroutineLibName, lua.OpenCoroutine},
		{lua.IoLibName, lua.OpenIo}, {lua.OsLibName, lua.OpenOs}, {lua.DebugLibName, lua.OpenDebug},
	}
	if o.Untrusted {
		libs = libs[:6]
	}
	for _, l := range libs {
		v.L.Push(v.L.NewFunction(l.open))
		v.L.Push(lua.LString(l.name))
		v.L.Call(1, 0)
	}
	v.fixLibraries()
	if o.Untrusted {
		v.restrict(folder)
	} else {
		v.searchBeside(folder)
	}
	v.addModule("nfq", v.nfqFunctions())
	v.addModule("nfct", v.nfctFunctions())
	return v
}

func (v *vm) close() {
	for h := range v.qhandles {
		h.close()
	}
	for h := range v.cthandles {
		h.close()
	}
	if v.root != nil {
		_ = v.root.Close()
	}
	v.L.Close()
}

// A function of a module.
type function struct {
	name string
	f    lua.LGFunction
}

// addModule makes a module what require returns, and a global.
func (v *vm) addModule(name string, functions []function) {
	t := v.L.NewTable()
	for _, f := range functions {
		t.RawSetString(f.name, v.L.NewFunction(f.f))
	}
	v.L.SetField(v.L.GetField(v.L.GetGlobal("package"), "loaded"), name, t)
	v.L.SetGlobal(name, t)
}

func (v *vm) compile(code []byte, name string) (*lua.LFunction, error) {
	proto, err := compile(code, name)
	if err != nil {
		return nil, err
	}
	return v.L.NewFunctionFromProto(proto), nil
}

// compile reads a chunk, whose first line may be one for the kernel.
func compile(code []byte, name string) (proto *lua.FunctionProto, err error) {
	code = withoutHashBang(code)
	if err := nested(code, name); err != nil {
		return nil, err
	}
	defer func() {
		// The compiler is not ours: whatever it may trip over is a wrong chunk.
		if e := recover(); e != nil {
			proto, err = nil, &Error{Text: fmt.Sprintf("%s:   cannot be compiled: %v", name, e)}
		}
	}()
	chunk, err := parse.Parse(bytes.NewReader(code), name)
	var at *parse.Error
	if errors.As(err, &at) && at.Pos.Line == parse.EOF {
		return nil, &Error{Text: fmt.Sprintf("%s line:%d near '<eof>':   %s", name,
			bytes.Count(bytes.TrimRight(code, " \t\r\n"), []byte("\n"))+1, at.Message)}
	}
	if err == nil {
		boundConcat(chunk)
		proto, err = lua.Compile(chunk, name)
	}
	if err != nil {
		return nil, &Error{Text: strings.TrimSpace(err.Error())}
	}
	return proto, nil
}

func withoutHashBang(code []byte) []byte {
	if !bytes.HasPrefix(code, []byte("#")) {
		return code
	}
	if i := bytes.IndexByte(code, '\n'); i >= 0 {
		return code[i:] // the newline stays, so that line numbers are right
	}
	return nil
}

// failure makes the interpreter's error ours.
func (v *vm) failure(err error) error {
	if err == nil {
		return nil
	}
	var api *lua.ApiError
	if !errors.As(err, &api) {
		return &Error{Text: err.Error(), err: v.out}
	}
	e := &Error{Trace: strings.TrimRight(api.StackTrace, "\n"), err: v.out}
	switch {
	case api.Type == lua.ApiErrorFile:
		e.Text, e.Trace = strings.TrimSpace(api.Object.String()), ""
	default:
		e.Text = api.Object.String()
	}
	return e
}

// warn tells the user of what the script is not told.
func (v *vm) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch {
	case v.o.Warn != nil:
		v.o.Warn(text)
	case v.o.Err != nil:
		fmt.Fprintf(v.o.Err, "nfctl: lua: %s\n", text)
	}
}

// searchBeside lets require look beside the script first, then where LUA_PATH
// says.
func (v *vm) searchBeside(folder string) {
	const standard = "./?.lua;/usr/local/share/lua/5.1/?.lua;/usr/local/share/lua/5.1/?/init.lua;" +
		"/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua"
	path := os.Getenv("LUA_PATH")
	if path == "" {
		path = standard
	} else {
		path = strings.Trim(strings.ReplaceAll(";"+path+";", ";;", ";"+standard+";"), ";")
		if !strings.Contains(os.Getenv("LUA_PATH"), ";;") {
			path = os.Getenv("LUA_PATH")
		}
	}
	if folder != "" {
		path = filepath.Join(folder, "?.lua") + ";" + filepath.Join(folder, "?", "init.lua") + ";" + path
	}
	v.L.SetField(v.L.GetGlobal("package"), "path", lua.LString(path))
}

// restrict takes away what reaches outside, and replaces require's searchers by
// one that cannot leave the folder, neither by its name nor by a link.
func (v *vm) restrict(folder string) {
	for _, name := range []string{"dofile", "loadfile", "_printregs"} {
		v.L.SetGlobal(name, lua.LNil)
	}
	pkg := v.L.GetGlobal("package").(*lua.LTable)
	for _, name := range []string{"loadlib", "path", "cpath", "config"} {
		pkg.RawSetString(name, lua.LNil)
	}
	if folder != "" {
		v.root, _ = os.OpenRoot(folder)
	}
	loaders := pkg.RawGetString("loaders").(*lua.LTable)
	loaders.RawSetInt(2, v.L.NewFunction(v.loadInside))
	for n := loaders.Len(); n > 2; n-- {
		loaders.RawSetInt(n, lua.LNil)
	}
}

func (v *vm) loadInside(L *lua.LState) int {
	name := L.CheckString(1)
	file := strings.ReplaceAll(name, ".", "/")
	var missed []string
	for _, path := range []string{file + ".lua", file + "/init.lua"} {
		code, err := v.readInside(path)
		if err != nil {
			missed = append(missed, err.Error())
			continue
		}
		fn, err := v.compile(code, path)
		if err != nil {
			L.RaiseError("%s", strings.TrimPrefix(err.Error(), "lua: "))
		}
		L.Push(fn)
		return 1
	}
	L.Push(lua.LString(strings.Join(missed, "\n\t")))
	return 1
}

func (v *vm) readInside(path string) ([]byte, error) {
	if v.root == nil {
		return nil, fmt.Errorf("no file '%s'", path)
	}
	f, err := v.root.Open(path)
	if err != nil {
		return nil, fmt.Errorf("no file '%s'", path)
	}
	defer f.Close()
	return readAll(f, path)
}
