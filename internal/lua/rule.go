package lua

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime/metrics"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	lua "github.com/yuin/gopher-lua"

	"nfctl/internal/packet"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// RuleOptions say how a rule's file runs.
type RuleOptions struct {
	Timeout time.Duration // of one packet; 0: DefaultTimeout
	Out     io.Writer     // print's; nil: nowhere
	Warn    func(text string)
}

// DefaultTimeout is how long a rule's function may think about one packet.
const DefaultTimeout = 100 * time.Millisecond

// A RuleFile is a Lua file that decides on packets. The file returns a function,
// and may return behind it a list of the fields that it uses, by the names of
// JSON: then only what these need is copied of each packet.
//
// The function is called with a packet, whose fields are read as those of a table
// (packet.ip.ttl; nil when there is none) and some of which can be set:
//
//	packet.ip.ttl = 64     header fields, as the rule action set
//	packet.payload = text  the transport's payload
//	packet.mark = 7        the packet's mark
//
// Checksums and lengths are put right. It returns a verdict ("accept", "drop",
// "repeat", "stop", "queue N", "queue N bypass") and may return a mark behind it;
// without a verdict the next rule is tried.
type RuleFile struct {
	name   string
	proto  *lua.FunctionProto
	o      RuleOptions
	fields []string
	errs   atomic.Uint64
	cut    atomic.Uint64

	explained atomic.Bool
}

// OpenRule reads a file and runs it once, to see that it returns a function.
func OpenRule(file string, o RuleOptions) (*RuleFile, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	code, err := readScript(file, true)
	if err != nil {
		return nil, fmt.Errorf("lua: %w", err)
	}
	proto, err := compile(code, file)
	if err != nil {
		return nil, err
	}
	f := &RuleFile{name: file, proto: proto, o: o}
	a, err := f.Open()
	if err != nil {
		return nil, err
	}
	f.fields = a.fields
	a.v.close()
	return f, nil
}

// Fields returns the fields that the file says it uses; by default everything
// that needs no special support of the kernel: the whole packet.
func (f *RuleFile) Fields() []string { return f.fields }

// Errors returns how many packets the file's function failed on, and of how many
// it was cut off because it took too long. They passed on to the next rule.
func (f *RuleFile) Errors() (failed, cut uint64) { return f.errs.Load(), f.cut.Load() }

const (
	loadTime  = 10 * time.Second // how long the file itself may run
	ruleText  = 1 << 20          // the longest text that a library function makes
	ruleChunk = 16 << 10         // the longest code for loadstring
	rulePrint = 64 << 10         // the most that is printed for one packet
)

// A RuleAction is a RuleFile's function in an interpreter of its own, for one
// queue.
type RuleAction struct {
	f      *RuleFile
	v      *vm
	fn     *lua.LFunction
	fields []string
	limit  limit
	pkt    *lua.LUserData
	edits  map[string]*packet.Edit

	// Of the packet at hand.
	p    *queue.Packet
	d    *queue.Decision
	e    *packet.Editor
	fail error // an edit that could not be made
}

// Open makes an interpreter and runs the file in it.
func (f *RuleFile) Open() (*RuleAction, error) {
	o := &Options{Out: f.o.Out, Warn: f.o.Warn}
	a := &RuleAction{f: f, v: newVM(o, filepath.Dir(f.name), ruleDepth), edits: map[string]*packet.Edit{}}
	L := a.v.L
	a.v.longest = ruleText
	a.v.boundChunks()
	a.limit.done, a.limit.tick = make(chan struct{}), min(max(f.o.Timeout/10, time.Millisecond), mostTick)
	a.limit.memory.Store(loadMemory)
	a.limit.start(max(f.o.Timeout, loadTime))
	defer func() {
		a.limit.stop()
		a.limit.memory.Store(ruleMemory)
	}()
	a.v.limit = &a.limit
	L.SetContext(&a.limit)
	a.v.limitCoroutines()
	L.Push(L.NewFunctionFromProto(f.proto))
	if err := L.PCall(0, 2, nil); err != nil {
		a.v.close()
		return nil, a.v.failure(err)
	}
	fn, ok := L.Get(-2).(*lua.LFunction)
	if !ok {
		a.v.close()
		return nil, &Error{Text: f.name + ": a rule's file must return a function"}
	}
	a.fn, a.fields = fn, []string{"payload"}
	switch list := L.Get(-1).(type) {
	case *lua.LNilType:
	case *lua.LTable:
		a.fields = nil
		for i := 1; i <= list.Len(); i++ {
			name := lua.LVAsString(list.RawGetInt(i))
			if queue.Fields.Row(name) == nil && !queue.Fields.Group(name) {
				a.v.close()
				return nil, &Error{Text: fmt.Sprintf("%s: packets have no field %q", f.name, name)}
			}
			a.fields = append(a.fields, name)
		}
	default:
		a.v.close()
		return nil, &Error{Text: f.name + ": behind the function there may be a list of field names"}
	}
	L.Pop(2)
	a.pkt = a.object(fields.Get())
	return a, nil
}

// object makes the userdata by which a script reads an object of the packet.
func (a *RuleAction) object(n *node) *lua.LUserData {
	L := a.v.L
	kids := map[string]*lua.LUserData{}
	mt := L.NewTable()
	mt.RawSetString("__index", L.NewFunction(func(L *lua.LState) int {
		key, _ := L.Get(2).(lua.LString)
		k := n.at[string(key)]
		switch {
		case a.p == nil:
			L.RaiseError("the packet is gone")
		case k == nil:
			L.RaiseError("%s", unknownField(n, string(key)))
		case k.row != nil:
			L.Push(rowValue(L, k.row, a.p))
		case !k.has(a.p):
			L.Push(lua.LNil)
		default:
			if kids[k.key] == nil {
				kids[k.key] = a.object(k)
			}
			L.Push(kids[k.key])
		}
		return 1
	}))
	mt.RawSetString("__newindex", L.NewFunction(func(L *lua.LState) int {
		key, _ := L.Get(2).(lua.LString)
		k := n.at[string(key)]
		switch {
		case a.p == nil:
			L.RaiseError("the packet is gone")
		case k == nil:
			L.RaiseError("%s", unknownField(n, string(key)))
		}
		a.set(L, k, L.Get(3))
		return 0
	}))
	u := newHandle(n)
	u.Metatable = mt
	return u
}

func unknownField(n *node, key string) string {
	words := make([]string, len(n.kids))
	for i, k := range n.kids {
		words[i] = k.key
	}
	s := fmt.Sprintf("packets have no field %q", strings.TrimPrefix(n.path+"."+key, "."))
	if near := value.Nearest(key, words); near != "" {
		s += fmt.Sprintf(" (did you mean %q?)", near)
	}
	return s
}

// mostEdits bounds how many different edits are kept compiled.
const mostEdits = 1024

// set changes a field of the packet. That it cannot be edited is kept for Act; a
// value or a field that never can be is an error of the script.
func (a *RuleAction) set(L *lua.LState, k *node, v lua.LValue) {
	p := a.p
	text := ""
	switch v := v.(type) {
	case lua.LString:
		text = string(v)
	case lua.LNumber:
		text = v.String()
	default:
		L.RaiseError("%s: cannot be set to a %s", k.path, v.Type())
	}
	if k.path == "mark" {
		n, ok := toNumber(v)
		if !ok || n < 0 || n >= 1<<32 {
			L.RaiseError("mark: %q is no 32-bit number", text)
		}
		p.Mark = uint32(n)
		a.d.Mark, a.d.SetMark = p.Mark, true
		return
	}
	if a.fail != nil {
		return
	}
	var edit *packet.Edit
	if k.path != "payload" {
		name := k.path + "=" + text
		if edit = a.edits[name]; edit == nil {
			var err error
			if edit, err = packet.Set(k.path, text); err != nil {
				L.RaiseError("%s: %s", k.path, err.Error())
			}
			if len(a.edits) >= mostEdits {
				clear(a.edits)
			}
			a.edits[name] = edit
		}
	}
	meta := packet.Meta{GSO: p.SkbInfo&queue.GSO != 0, CsumNotReady: p.SkbInfo&queue.CsumNotReady != 0}
	var err error
	switch {
	case p.Has&queue.HasPayload == 0:
		err = packet.ErrTruncated
	case edit != nil:
		err = a.e.Apply(p.Headers(), meta, edit)
	default:
		err = a.e.SetPayload(p.Headers(), meta, []byte(text), false)
	}
	if err != nil && !errors.Is(err, packet.ErrAbsent) {
		a.fail = err
		a.explain(k.path)
	}
}

// explain says, once a file, what a file's list of fields lacks that a packet whose
// copy is cut was to be edited.
func (a *RuleAction) explain(path string) {
	whole := !a.p.Truncated() || slices.Contains(a.fields, "payload")
	if !whole && a.f.o.Warn != nil && a.f.explained.CompareAndSwap(false, true) {
		a.f.o.Warn(fmt.Sprintf("%s: %s cannot be set: the packet was not copied whole; put \"payload\" in the list of "+
			"fields behind the function", a.f.name, path))
	}
}

// Act calls the function with p. It implements the rule engine's extension: the
// error says that the packet was to be edited and cannot be. A failure of the
// script is counted, and the packet passes on.
func (a *RuleAction) Act(p *queue.Packet, d *queue.Decision, e *packet.Editor) (decided bool, err error) {
	L := a.v.L
	a.p, a.d, a.e, a.fail = p, d, e, nil
	before := *d
	mark := p.Mark
	a.v.printed = 0
	a.limit.start(a.f.o.Timeout)
	L.Push(a.fn)
	L.Push(a.pkt)
	failure := L.PCall(1, 2, nil)
	cut := a.limit.stop()
	a.p = nil
	if a.fail != nil {
		if failure == nil {
			L.Pop(2)
		}
		return false, a.fail
	}
	if failure == nil {
		verdict, m := L.Get(-2), L.Get(-1)
		L.Pop(2)
		if failure = decide(d, p, verdict, m); failure == nil {
			return verdict != lua.LNil, nil
		}
	}
	// An edit made before the failure stays, as that of an earlier rule would;
	// what was decided does not.
	*d, p.Mark = before, mark
	if cut {
		a.f.cut.Add(1)
		failure = fmt.Errorf("cut off after %v", a.f.o.Timeout)
		if a.limit.greedy {
			failure = errGreedy
		}
	} else {
		a.f.errs.Add(1)
	}
	if a.f.o.Warn != nil {
		if e := a.v.failure(failure); e != nil {
			var le *Error
			if errors.As(e, &le) {
				a.f.o.Warn(le.Text)
			}
		}
	}
	return false, nil
}

// decide carries what the function returned into d.
func decide(d *queue.Decision, p *queue.Packet, verdict, mark lua.LValue) error {
	if mark != lua.LNil {
		n, ok := toNumber(mark)
		if !ok || n < 0 || n >= 1<<32 {
			return fmt.Errorf("the mark %s is no 32-bit number", mark)
		}
		d.SetMark, d.Mark = true, uint32(n)
		p.Mark = d.Mark
	}
	if verdict == lua.LNil {
		return nil
	}
	word, ok := verdict.(lua.LString)
	if !ok {
		return fmt.Errorf("a verdict is a text, not a %s", verdict.Type())
	}
	switch word {
	case lAccept:
		d.Verdict = queue.Accept
	case lDrop:
		d.Verdict = queue.Drop
	case "stop":
		d.Verdict = queue.Stop
	case "repeat":
		if !d.SetMark || d.Mark == 0 {
			return errors.New(
				`"repeat" must come with a mark other than 0, by which the rule that queues can leave the packet out`)
		}
		d.Verdict = queue.Repeat
	default:
		words := strings.Fields(string(word))
		if len(words) >= 2 && words[0] == "queue" && (len(words) == 2 || len(words) == 3 && words[2] == "bypass") {
			if nums, err := value.Queues(words[1]); err == nil && len(nums) == 1 {
				d.Verdict = queue.ToQueue(nums[0], len(words) == 3)
				return nil
			}
		}
		return fmt.Errorf("%q is no verdict: accept, drop, repeat, stop, queue N", string(word))
	}
	return nil
}

// A limit is a context that ends when a call takes too long. The interpreter asks
// for Done at each instruction, so it is no more than a field; a watcher looks at
// the clock, and ends when no call has been made for some time.
type limit struct {
	context.Context // never used: all methods are here

	done    chan struct{}
	tick    time.Duration // how often the watcher looks
	started atomic.Int64  // when the call under way began; 0: none, late: cut off
	most    atomic.Int64
	watched atomic.Bool
	memory  atomic.Int64 // bytes by which the heap may grow beyond twice what it was
	greedy  bool         // cut off for the memory that it took; set before done is closed
}

const late = -1

// The watcher looks at least so often, and ends a call under which the heap grows to
// more than twice what it was before, which garbage alone may do, and so many bytes.
const (
	mostTick   = 10 * time.Millisecond
	ruleMemory = 64 << 20
	loadMemory = 512 << 20 // while a file is loaded
)

var errGreedy = errors.New("cut off: it took too much memory")

func (l *limit) Done() <-chan struct{}       { return l.done }
func (l *limit) Deadline() (time.Time, bool) { return time.Time{}, false }
func (l *limit) Value(any) any               { return nil }

// Err is asked for when Done is closed.
func (l *limit) Err() error {
	if l.greedy {
		return errGreedy
	}
	return errLate
}

// AfterFunc lets contexts be made of this one without a goroutine each; what the
// interpreter makes of it is replaced by it.
func (l *limit) AfterFunc(func()) (stop func() bool) { return func() bool { return false } }

var errLate = errors.New("cut off: it took too long")

var epoch = time.Now()

func (l *limit) start(most time.Duration) {
	l.most.Store(int64(most))
	l.started.Store(int64(time.Since(epoch)) + 1)
	if !l.watched.Load() && l.watched.CompareAndSwap(false, true) {
		go l.watch()
	}
}

// over reports whether the call under way is to end.
func (l *limit) over() bool { return l != nil && l.started.Load() == late }

// stop ends a call and reports whether it was cut off.
func (l *limit) stop() bool {
	if l.started.Swap(0) != late {
		return false
	}
	<-l.done
	l.done = make(chan struct{})
	return true
}

// idleTicks is how often the watcher looks without seeing a call before it ends.
const idleTicks = 50

func (l *limit) watch() {
	tick := time.NewTicker(l.tick)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	heap := func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	last := heap()
	var before uint64 // the heap when the call under way was first seen
	var watched int64 // when that call began
	for idle := 0; ; {
		<-tick.C
		began, now, was := l.started.Load(), heap(), last
		last = now
		if began == 0 {
			if idle++; idle < idleTicks {
				continue
			}
			l.watched.Store(false)
			if l.started.Load() == 0 || !l.watched.CompareAndSwap(false, true) {
				return
			}
			idle = 0
			continue
		}
		idle = 0
		if began == late {
			continue
		}
		if began != watched {
			before, watched = min(was, now), began
		}
		greedy := now > 2*before+uint64(l.memory.Load())
		if (greedy || int64(time.Since(epoch))-began > l.most.Load()) && l.started.CompareAndSwap(began, late) {
			l.greedy = greedy
			close(l.done)
		}
	}
}
