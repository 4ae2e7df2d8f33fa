package lua

import (
	"context"
	"errors"
	"syscall"
	"time"

	lua "github.com/yuin/gopher-lua"

	"nfctl/internal/attrs"
	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/nl"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

// A ctObject is a conntrack object.
type ctObject struct {
	ud   *lua.LUserData
	flow *ct.Flow
	// lent is set while the object is a callback's argument: its flow belongs to
	// the handle, unless the callback steals it.
	lent bool
}

func (c *ctObject) alive() bool { return c.flow != nil }

func newCt(f *ct.Flow) *ctObject {
	c := &ctObject{flow: f}
	c.ud = newHandle(c)
	return c
}

// An expObject is an expectation.
type expObject struct {
	ud     *lua.LUserData
	expect *ct.Expect
	lent   bool
}

func (e *expObject) alive() bool { return e.expect != nil }

func newExp(x *ct.Expect) *expObject {
	e := &expObject{expect: x}
	e.ud = newHandle(e)
	return e
}

// Subsystems of a cthandle.
const (
	subConntrack = 1 << iota
	subExpect
)

var (
	subsystems    = []string{"conntrack", "expect", "both"}
	subscriptions = []string{"none", "new", "update", "destroy", "all"}
	messageTypes  = []string{"new", "update", "destroy", "all", "error", "none"}
	typeMasks     = []uint8{1 << ct.New, 1 << ct.Update, 1 << ct.Destroy, 1<<ct.New | 1<<ct.Update | 1<<ct.Destroy, 0,
		0}
	verdicts   = []string{"continue", "stolen", "stop", "failure"}
	queryTypes = []string{"create", "update", "destroy", "get", "flush", "dump", "dump-reset", "create-update"}
)

const (
	verdictContinue = iota
	verdictStolen
	verdictStop
	verdictFailure
)

// A callback of a handle, and the event types that it is for.
type callback struct {
	fn   *lua.LFunction
	mask uint8
}

// A cthandle is a subscription to events, and the sockets for requests.
type cthandle struct {
	ud       *lua.LUserData
	v        *vm
	conn     *nl.Conn
	recv     *nl.Receiver
	sub      int
	nonblock bool
	busy     bool // catch runs
	cbs      [2]callback

	n, at  int // datagrams of the last receive, and how many of them were looked at
	rest   []byte
	flow   *ct.Flow
	expect *ct.Expect
	now    uint64
	drops  uint32

	free []*ct.Conn // sockets for requests that none is using
}

func (h *cthandle) alive() bool { return h.conn != nil }

func (h *cthandle) close() {
	if h.conn == nil {
		return
	}
	_ = h.conn.Close()
	h.conn = nil
	for _, c := range h.free {
		_ = c.Close()
	}
	h.free = nil
	delete(h.v.cthandles, h)
}

// Buffers of a handle's receiver. An event is some hundred bytes.
const (
	eventSlots = 64
	eventSlot  = 8 << 10
)

func (v *vm) nfctFunctions() []function {
	u8, u16, u32, u64 := numType{bytes: 1}, numType{bytes: 2}, numType{bytes: 4}, numType{bytes: 8}
	n16, n32 := numType{2, true}, numType{4, true}
	return []function{
		{"open", v.ctOpen}, {"close", v.ctClose}, {"fd", v.ctFD}, {"setblocking", v.ctSetBlocking},
		{"ct_callback_register", v.ctRegister(0)}, {"exp_callback_register", v.ctRegister(1)},
		{"catch", v.ctCatch}, {"loop", v.ctLoop},
		{"new", ctNew}, {"destroy", ctDestroy}, {"tostring", ctToString},
		{"get_attr_u8", getNum(u8)}, {"get_attr_u16", getNum(u16)}, {"get_attr_u32", getNum(u32)}, {"get_attr_u64", getNum(u64)},
		{"get_attr_n16", getNum(n16)}, {"get_attr_n32", getNum(n32)}, {"get_attr_port", getNum(n16)},
		{"get_attr_ipv4", getAddr(4)}, {"get_attr_ipv6", getAddr(16)},
		{"get_attr_pf", getWord(families.Get)}, {"get_attr_ipproto", getWord(protocols.Get)},
		{"set_attr_u8", setNum(u8)}, {"set_attr_u16", setNum(u16)}, {"set_attr_u32", setNum(u32)}, {"set_attr_u64", setNum(u64)},
		{"set_attr_n16", setNum(n16)}, {"set_attr_n32", setNum(n32)}, {"set_attr_port", setNum(n16)},
		{"set_attr_ipv4", setAddr(4)}, {"set_attr_ipv6", setAddr(16)},
		{"set_attr_pf", setWord(families.Get)}, {"set_attr_ipproto", setWord(protocols.Get)},
		{"ntohs", swap16}, {"htons", swap16}, {"setobjopt", ctSetObjOpt}, {"query", v.ctQuery},
		{"exp_new", expNew}, {"exp_destroy", expDestroy}, {"exp_tostring", expToString}, {"exp_query", v.expQuery},
	}
}

func (v *vm) ctOpen(L *lua.LState) int {
	sub := option(L, 1, -1, subsystems) + 1
	var events uint32
	for n := 2; n <= L.GetTop(); n++ {
		switch o := option(L, n, 0, subscriptions); o {
		case 0:
		case 4:
			events |= 7
		default:
			events |= 1 << (o - 1)
		}
	}
	var groups uint32
	if sub&subConntrack != 0 {
		groups |= events // groups 1, 2 and 3
	}
	if sub&subExpect != 0 {
		groups |= events << 3
	}
	c := nl.Config{Groups: groups}
	if groups != 0 {
		c.Buffer = ct.DefaultBuffer()
	}
	conn, err := nl.Dial(c)
	if err != nil {
		return fail(L, err)
	}
	h := &cthandle{v: v, conn: conn, sub: sub, flow: &ct.Flow{}, expect: &ct.Expect{}}
	if h.recv, err = conn.NewReceiver(eventSlots, eventSlot); err != nil {
		_ = conn.Close()
		return fail(L, err)
	}
	h.drops, _ = conn.Drops()
	h.ud = newHandle(h)
	v.cthandles[h] = struct{}{}
	L.Push(h.ud)
	return 1
}

func cthandleArg(L *lua.LState) *cthandle { return handle[*cthandle](L, 1, "cthandle") }

func (v *vm) ctClose(L *lua.LState) int {
	cthandleArg(L).close()
	return 0
}

func (v *vm) ctFD(L *lua.LState) int {
	L.Push(lua.LNumber(cthandleArg(L).conn.FD()))
	return 1
}

func (v *vm) ctSetBlocking(L *lua.LState) int {
	h := cthandleArg(L)
	h.nonblock = !lua.LVAsBool(L.Get(2))
	L.Push(h.ud)
	return 1
}

// ctRegister is ct_callback_register and exp_callback_register.
func (v *vm) ctRegister(which int) lua.LGFunction {
	return func(L *lua.LState) int {
		h := cthandleArg(L)
		h.register(L, which, functionArg(L, 2), option(L, 3, 3, messageTypes))
		L.Push(h.ud)
		return 1
	}
}

func (h *cthandle) register(L *lua.LState, which int, fn *lua.LFunction, typ int) {
	if h.sub&(1<<which) == 0 {
		raise(L, "bad argument #1 (register failure, handle not open for this subsystem)")
	}
	h.cbs[which] = callback{fn, typeMasks[typ]}
}

func functionArg(L *lua.LState, n int) *lua.LFunction {
	fn, ok := L.Get(n).(*lua.LFunction)
	if !ok {
		argError(L, n, "function expected, got %s", typeName(L, n))
	}
	return fn
}

// ctLoop registers a callback and catches; its function and message type come in
// either order.
func (v *vm) ctLoop(L *lua.LState) int {
	h := cthandleArg(L)
	fn, typ := 2, 3
	if _, ok := L.Get(2).(*lua.LFunction); !ok {
		fn, typ = 3, 2
	}
	which := 0
	if h.sub == subExpect {
		which = 1
	}
	h.register(L, which, functionArg(L, fn), option(L, typ, 3, messageTypes))
	return h.catch(L)
}

func (v *vm) ctCatch(L *lua.LState) int { return cthandleArg(L).catch(L) }

func (h *cthandle) catch(L *lua.LState) int {
	if h.busy {
		raise(L, "catch is already running on this handle")
	}
	h.busy = true
	defer func() { h.busy = false }()
	for {
		m, err := h.next()
		switch {
		case errors.Is(err, nl.ErrOverrun):
			h.lost()
			continue
		case err != nil:
			return fail(L, err)
		case m == nil && h.nonblock:
			return failErrno(L, syscall.EAGAIN)
		case m == nil:
			continue
		}
		verdict := verdictContinue
		switch m.Subsys() {
		case nl.SubsysCt:
			if cb := &h.cbs[0]; cb.fn != nil && cb.mask != 0 {
				_ = h.flow.DecodeEvent(m) // what cannot be read is not there
				h.flow.Time = h.now
				if cb.mask&(1<<h.flow.Event) != 0 {
					verdict = h.giveFlow(L, cb.fn, h.flow)
				}
			}
		case nl.SubsysExpect:
			if cb := &h.cbs[1]; cb.fn != nil && cb.mask != 0 {
				_ = h.expect.DecodeEvent(m)
				h.expect.Time = h.now
				if cb.mask&(1<<h.expect.Event) != 0 {
					verdict = h.giveExpect(L, cb.fn, h.expect)
				}
			}
		}
		switch {
		case verdict == verdictStop:
			L.Push(h.ud)
			return 1
		case verdict == verdictFailure:
			return failErrno(L, syscall.ECANCELED)
		case !h.alive():
			L.Push(lua.LNil)
			L.Push(lua.LString("closed"))
			return 2
		}
	}
}

// next returns the next message, waiting for one unless the handle does not
// block; nil when none came.
func (h *cthandle) next() (*nl.Msg, error) {
	for {
		if m, rest, ok := nl.NextMsg(h.rest); ok {
			h.rest = rest
			return &m, nil
		}
		h.rest = nil
		if h.at < h.n {
			h.rest, _ = h.recv.Datagram(h.at)
			h.at++
			continue
		}
		wait := time.Duration(-1)
		if h.nonblock {
			wait = 0
		}
		n, err := h.recv.Recv(wait)
		if err != nil || n == 0 {
			return nil, err
		}
		h.n, h.at, h.now = n, 0, uint64(time.Now().UnixNano())
	}
}

// lost tells the user that events were lost; the loop goes on.
func (h *cthandle) lost() {
	drops, err := h.conn.Drops()
	if err != nil {
		h.v.warn("nfct.catch: events were lost: the receive buffer was full")
		return
	}
	h.v.warn("nfct.catch: %d events were lost: the receive buffer was full", drops-h.drops)
	h.drops = drops
}

var eventWords = [...]lua.LValue{ct.NoEvent: lua.LString("update"), ct.New: lua.LString("new"),
	ct.Update:  lua.LString("update"),
	ct.Destroy: lua.LString("destroy"), ct.Existing: lua.LString("update")}

// giveFlow calls a callback with a flow, which belongs to the handle, and returns
// its verdict.
func (h *cthandle) giveFlow(L *lua.LState, fn *lua.LFunction, f *ct.Flow) int {
	c := newCt(f)
	c.lent = true
	verdict := h.give(L, fn, f.Event, c.ud, func() { c.flow = nil })
	if verdict == verdictStolen && c.flow == f {
		c.flow, c.lent = f.Clone(), false
	} else {
		c.flow = nil
	}
	return verdict
}

func (h *cthandle) giveExpect(L *lua.LState, fn *lua.LFunction, x *ct.Expect) int {
	e := newExp(x)
	e.lent = true
	verdict := h.give(L, fn, x.Event, e.ud, func() { e.expect = nil })
	if verdict == verdictStolen && e.expect == x {
		e.expect, e.lent = x.Clone(), false
	} else {
		e.expect = nil
	}
	return verdict
}

// give calls a callback. After an error in it, lose takes the object back.
func (h *cthandle) give(L *lua.LState, fn *lua.LFunction, ev ct.Event, object *lua.LUserData, lose func()) int {
	done := false
	defer func() {
		if !done {
			lose()
		}
	}()
	L.Push(fn)
	L.Push(eventWords[ev])
	L.Push(object)
	L.Call(2, 1)
	verdict := verdictContinue
	if L.Get(-1) != lua.LNil {
		verdict = resultOption(L, -1, verdicts)
	}
	L.Pop(1)
	done = true
	return verdict
}

// resultOption returns the index in words of what a callback returned. The C
// modules find it at the third place of catch's stack, and so do their errors.
func resultOption(L *lua.LState, at int, words []string) int {
	var s string
	switch v := L.Get(at).(type) {
	case lua.LString:
		s = string(v)
	case lua.LNumber:
		s = v.String()
	default:
		argError(L, 3, "string expected, got %s", v.Type())
	}
	for i, w := range words {
		if w == s {
			return i
		}
	}
	argError(L, 3, "invalid option '%s'", s)
	return 0
}

func ctNew(L *lua.LState) int {
	L.Push(newCt(&ct.Flow{}).ud)
	return 1
}

func ctDestroy(L *lua.LState) int {
	c := handle[*ctObject](L, 1, "conntrack")
	if !c.lent { // a callback's argument is its handle's
		c.flow = nil
	}
	return 0
}

// heads are the events that give a line a head, by message type.
var heads = []ct.Event{ct.New, ct.Update, ct.Destroy, ct.NoEvent, ct.NoEvent, ct.NoEvent}

func ctToString(L *lua.LState) int {
	c := handle[*ctObject](L, 1, "conntrack")
	event := heads[option(L, 2, 5, messageTypes)]
	was := c.flow.Event
	c.flow.Event = event
	var buf [512]byte
	b := format.AppendFlow(buf[:0], c.flow, &plain)
	c.flow.Event = was
	L.Push(lua.LString(b))
	return 1
}

var plain format.Output

func ctSetObjOpt(L *lua.LState) int {
	c := handle[*ctObject](L, 1, "conntrack")
	s := text(L, 2)
	for _, o := range attrs.Options {
		if o.Name == s {
			o.Do(c.flow)
			L.Push(c.ud)
			return 1
		}
	}
	argError(L, 2, "invalid option '%s'", s)
	return 0
}

var flagWords = []string{"permanent", "inactive", "userspace"}

func expNew(L *lua.LState) int {
	master, expected, mask := handle[*ctObject](L, 1, "conntrack"), handle[*ctObject](L, 2, "conntrack"),
		handle[*ctObject](L, 3, "conntrack")
	x := &ct.Expect{Tuple: expected.flow.Orig, Mask: mask.flow.Orig, Master: master.flow.Orig,
		Timeout: uint32(integer(number(L, 4))), Present: ct.ExpectHasTimeout | ct.ExpectHasFlags}
	for n := 5; n <= L.GetTop(); n++ {
		if L.Get(n) != lua.LNil {
			x.Flags |= 1 << option(L, n, -1, flagWords)
		}
	}
	if master.flow.Has(ct.HasZone) {
		x.Zone, x.Present = master.flow.Zone, x.Present|ct.ExpectHasZone
	}
	L.Push(newExp(x).ud)
	return 1
}

func expDestroy(L *lua.LState) int {
	e := handle[*expObject](L, 1, "expectation")
	if !e.lent {
		e.expect = nil
	}
	return 0
}

func expToString(L *lua.LState) int {
	e := handle[*expObject](L, 1, "expectation")
	event := heads[option(L, 2, 5, messageTypes)]
	was := e.expect.Event
	e.expect.Event = event
	b := format.AppendExpect(nil, e.expect, &plain)
	e.expect.Event = was
	L.Push(lua.LString(b))
	return 1
}

// flush deletes the flows of a family, 0 for all.
func flush(c *ct.Conn, family uint8) error {
	if family != ct.IPv4 && family != ct.IPv6 {
		return c.Flush(family, ct.KernelFilter{})
	}
	word := value.Families.Word(uint64(family))
	choose, err := table.Flows(&table.Filter{Given: []table.Given{{Flag: "family", Text: word}}})
	if err != nil {
		return err
	}
	var failed error
	_, err = table.FlushOrDelete(context.Background(), choose, table.Edit[ct.Flow]{Failed: func(err error) {
		if failed == nil {
			failed = err
		}
	}})
	if err != nil {
		return err
	}
	return failed
}

// request runs f with a socket of the handle's that nothing else is using: a
// callback of a dump may make requests of its own.
func (h *cthandle) request(f func(c *ct.Conn) error) error {
	var c *ct.Conn
	if n := len(h.free); n > 0 {
		c, h.free = h.free[n-1], h.free[:n-1]
	} else {
		var err error
		if c, err = ct.Dial(); err != nil {
			return err
		}
	}
	err := f(c)
	var no syscall.Errno
	if err != nil && !errors.As(err, &no) || len(h.free) > 3 || !h.alive() {
		_ = c.Close() // what is still to be read of it is not known
		return err
	}
	h.free = append(h.free, c)
	return err
}

// A caught is what ended the delivery of a request's results before their end.
type caught struct {
	verdict int
	err     error // a Lua error in the callback
}

func (c *caught) Error() string { return "stopped" }

// results calls a callback with the results of a request; a Lua error in it is
// kept until the request has ended.
func (h *cthandle) results(L *lua.LState, call func() int) error {
	var verdict int
	L.Push(L.NewFunction(func(L *lua.LState) int { verdict = call(); return 0 }))
	if err := L.PCall(0, 0, nil); err != nil {
		return &caught{err: err}
	}
	if verdict == verdictStop || verdict == verdictFailure {
		return &caught{verdict: verdict}
	}
	return nil
}

// answer returns what a query returns.
func (h *cthandle) answer(L *lua.LState, err error) int {
	var stop *caught
	if errors.As(err, &stop) {
		var api *lua.ApiError
		switch {
		case errors.As(stop.err, &api):
			L.Error(api.Object, 0)
		case stop.verdict == verdictFailure:
			return failErrno(L, syscall.ECANCELED)
		}
		err = nil
	}
	if errors.Is(err, ct.ErrLabelsDropped) {
		h.v.warn("nfct.query: %v", err)
		err = nil
	}
	if err != nil {
		return fail(L, err)
	}
	L.Push(h.ud)
	return 1
}

// family returns the address family that a flush or dump is for: that of an
// object, or a name; 0: all.
func family(L *lua.LState) uint8 {
	switch x := L.Get(3).(type) {
	case lua.LString:
		return uint8(families.Get().lookup(L, 3))
	case *lua.LUserData:
		switch o := x.Value.(type) {
		case *ctObject:
			return handle[*ctObject](L, 3, "conntrack").flow.Family()
		case *expObject:
			return o.expectFamily(L)
		}
	case *lua.LNilType:
		return 0
	}
	argError(L, 3, "object or family expected, got %s", typeName(L, 3))
	return 0
}

func (e *expObject) expectFamily(L *lua.LState) uint8 {
	return handle[*expObject](L, 3, "expectation").expect.Family()
}

// queryArgs returns handle and operation of a query; the handle must be open for
// the subsystem.
func queryArgs(L *lua.LState, sub int) (*cthandle, string) {
	h := cthandleArg(L)
	q := queryTypes[option(L, 2, -1, queryTypes)]
	if h.sub&sub == 0 {
		argError(L, 1, "handle not open for this subsystem")
	}
	return h, q
}

// ctQuery is nfct.query(cthandle, qtype, ct): what is read goes to the callback
// for conntrack objects, as "update".
func (v *vm) ctQuery(L *lua.LState) int {
	h, q := queryArgs(L, subConntrack)
	give := func(f *ct.Flow) error {
		if h.cbs[0].fn == nil {
			return nil
		}
		return h.results(L, func() int { return h.giveFlow(L, h.cbs[0].fn, f) })
	}
	if q == "flush" || q == "dump" || q == "dump-reset" {
		fam := family(L)
		if q == "flush" {
			return h.answer(L, h.request(func(c *ct.Conn) error { return flush(c, fam) }))
		}
		o := ct.DumpOptions{Zero: q == "dump-reset"}
		if fam != 0 {
			o.Families = []uint8{fam}
		}
		_, err := ct.Dump(context.Background(), o, give)
		return h.answer(L, err)
	}
	f := handle[*ctObject](L, 3, "conntrack").flow
	return h.answer(L, h.request(func(c *ct.Conn) error {
		switch q {
		case "create":
			return c.Create(f, false)
		case "create-update":
			return c.Create(f, true)
		case "update":
			return c.Update(f, f)
		case "destroy":
			return c.Delete(f)
		}
		var got ct.Flow
		if err := c.Get(f, &got, false); err != nil {
			return err
		}
		got.Time = uint64(time.Now().UnixNano())
		return give(&got)
	}))
}

// expQuery is nfct.exp_query. Create is exclusive and leaves the timeout to the
// helper, as the kernel does; update and create-update set it.
func (v *vm) expQuery(L *lua.LState) int {
	h, q := queryArgs(L, subExpect)
	give := func(x *ct.Expect) error {
		if h.cbs[1].fn == nil {
			return nil
		}
		return h.results(L, func() int { return h.giveExpect(L, h.cbs[1].fn, x) })
	}
	if q == "flush" || q == "dump" || q == "dump-reset" {
		fam := family(L)
		return h.answer(L, h.request(func(c *ct.Conn) error {
			if q == "flush" {
				return c.FlushExpects()
			}
			_, err := c.Expects(context.Background(), fam, nil, give)
			return err
		}))
	}
	x := handle[*expObject](L, 3, "expectation").expect
	return h.answer(L, h.request(func(c *ct.Conn) error {
		switch q {
		case "create":
			once := *x
			once.Present &^= ct.ExpectHasTimeout
			_, err := c.CreateExpect(&once, false)
			return err
		case "create-update":
			_, err := c.CreateExpect(x, true)
			return err
		case "update":
			return c.UpdateExpect(x, x.Timeout)
		case "destroy":
			return c.DeleteExpect(x)
		}
		var got ct.Expect
		if err := c.GetExpect(x, &got); err != nil {
			return err
		}
		return give(&got)
	}))
}
