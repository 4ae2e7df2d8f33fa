package lua

import (
	"errors"
	"time"

	lua "github.com/yuin/gopher-lua"

	"nfctl/internal/nl"
	"nfctl/internal/queue"
)

// A qhandle is a socket that holds queues.
type qhandle struct {
	ud       *lua.LUserData
	v        *vm
	sock     *queue.Socket
	nonblock bool
	busy     bool
	queues   map[uint16]*queueObject
	data     qdata
}

func (h *qhandle) alive() bool { return h.sock != nil }

func (h *qhandle) close() {
	if h.sock == nil {
		return
	}
	_ = h.sock.Close()
	h.sock = nil
	for _, q := range h.queues {
		q.h = nil
	}
	delete(h.v.qhandles, h)
}

// A queueObject is a queue of a handle.
type queueObject struct {
	ud  *lua.LUserData
	h   *qhandle // nil: destroyed
	num uint16
	fn  *lua.LFunction // its own callback, or nil
}

func (q *queueObject) alive() bool { return q.h != nil }

// A qdata is the packet given to a callback; a handle has one for all of them.
type qdata struct {
	ud *lua.LUserData
	p  *queue.Packet // nil outside the callback
}

func (v *vm) nfqFunctions() []function {
	return []function{
		{"open", v.qOpen}, {"close", v.qClose}, {"fd", v.qFD}, {"setblocking", v.qSetBlocking},
		{"unbind_pf", v.qBindPF}, {"bind_pf", v.qBindPF},
		{"create_queue", v.qCreate}, {"destroy_queue", v.qDestroy}, {"set_mode", v.qSetMode},
		{"catch", v.qCatch}, {"loop", v.qLoop}, {"get_payload", qPayload}, {"packet", qPacket},
	}
}

func (v *vm) open() (*qhandle, error) {
	s, err := queue.OpenSocket(0)
	if err != nil {
		return nil, err
	}
	h := &qhandle{v: v, sock: s, queues: map[uint16]*queueObject{}}
	h.ud = newHandle(h)
	h.data.ud = newHandle(&h.data)
	v.qhandles[h] = struct{}{}
	return h, nil
}

func (v *vm) qOpen(L *lua.LState) int {
	h, err := v.open()
	if err != nil {
		return fail(L, err)
	}
	L.Push(h.ud)
	return 1
}

func qhandleArg(L *lua.LState) *qhandle { return handle[*qhandle](L, 1, "qhandle") }

func (v *vm) qClose(L *lua.LState) int {
	qhandleArg(L).close()
	return 0
}

func (v *vm) qFD(L *lua.LState) int {
	L.Push(lua.LNumber(qhandleArg(L).sock.FD()))
	return 1
}

func (v *vm) qSetBlocking(L *lua.LState) int {
	h := qhandleArg(L)
	h.nonblock = !lua.LVAsBool(L.Get(2))
	L.Push(h.ud)
	return 1
}

// qBindPF is bind_pf and unbind_pf, which have done nothing since Linux 3.8: a
// queue gets the packets of all families.
func (v *vm) qBindPF(L *lua.LState) int {
	h := qhandleArg(L)
	families.Get().lookup(L, 2)
	L.Push(h.ud)
	return 1
}

func (v *vm) qCreate(L *lua.LState) int {
	h := qhandleArg(L)
	num := uint16(integer(number(L, 2)))
	var fn *lua.LFunction
	if L.Get(3) != lua.LNil {
		fn = functionArg(L, 3)
	}
	q, err := h.create(num)
	if errors.Is(err, queue.ErrBound) {
		return failErrno(L, 0) // scripts know it by this: the C library sets no error
	}
	if err != nil {
		return fail(L, err)
	}
	q.fn = fn
	L.Push(q.ud)
	return 1
}

func (h *qhandle) create(num uint16) (*queueObject, error) {
	if err := h.sock.Bind(num); err != nil {
		return nil, err
	}
	q := &queueObject{h: h, num: num}
	q.ud = newHandle(q)
	h.queues[num] = q
	return q, nil
}

func (v *vm) qDestroy(L *lua.LState) int {
	q := handle[*queueObject](L, 1, "queue")
	_ = q.h.sock.Unbind(q.num)
	delete(q.h.queues, q.num)
	q.h = nil
	return 0
}

var copyModes = []string{"none", "meta", "packet"}

func (v *vm) qSetMode(L *lua.LState) int {
	q := handle[*queueObject](L, 1, "queue")
	mode := option(L, 2, queue.CopyPacket, copyModes)
	n := uint64(0xffff)
	if L.Get(3) != lua.LNil {
		n = integer(number(L, 3))
	}
	if err := q.h.sock.SetCopy(q.num, uint8(mode), uint32(n)); err != nil {
		return fail(L, err)
	}
	L.Push(q.ud)
	return 1
}

func (v *vm) qCatch(L *lua.LState) int {
	h := qhandleArg(L)
	var fn *lua.LFunction
	if L.Get(2) != lua.LNil || !h.ownCallbacks() {
		fn = functionArg(L, 2)
	}
	var until time.Time
	if L.Get(3) != lua.LNil {
		// more than fits differs by processor)
		until = time.Now().Add(time.Duration(min(number(L, 3), 1e9) * float64(time.Second)))
	}
	return h.catch(L, fn, until)
}

func (h *qhandle) ownCallbacks() bool {
	for _, q := range h.queues {
		if q.fn == nil {
			return false
		}
	}
	return len(h.queues) > 0
}

// Verdicts of a queue's callback.
const (
	lAccept = lua.LString("accept")
	lDrop   = lua.LString("drop")
)

// catch calls back for each packet, until the time is over, if one is set, or
// reading fails. Verdicts of packets that were read together are sent together,
// within a millisecond.
func (h *qhandle) catch(L *lua.LState, fn *lua.LFunction, until time.Time) int {
	if h.busy {
		raise(L, "catch is already running on this handle")
	}
	h.busy = true
	// A Lua error in the callback passes through here.
	defer func() {
		h.busy = false
		if h.data.p != nil {
			h.data.p = nil
			if h.sock != nil {
				h.sock.Leave()
			}
		}
	}()
	var d queue.Decision
	for {
		wait := time.Duration(-1)
		if !until.IsZero() {
			wait = max(time.Until(until), 0)
		}
		over := wait == 0
		if h.nonblock {
			wait = 0
		}
		p, err := h.sock.Next(wait)
		switch {
		case errors.Is(err, nl.ErrOverrun):
			h.v.warn("nfq.catch: %d packets were lost: the receive buffer was full", h.sock.Lost())
			continue
		case err != nil:
			return fail(L, err)
		case p == nil && over:
			L.Push(h.ud)
			return 1
		case p == nil && h.nonblock:
			return failErrno(L, 11)
		case p == nil:
			continue
		}
		q := h.queues[p.Queue]
		if q == nil {
			continue
		}
		cb := fn
		if q.fn != nil {
			cb = q.fn
		}
		if cb == nil {
			cb = nilCallback
		}
		d = queue.Decision{Verdict: queue.Accept}
		h.data.p = p
		L.Push(cb)
		L.Push(h.data.ud)
		L.Call(1, 3)
		if v := L.Get(-3); v != lAccept && v != lua.LNil {
			if resultOption(L, -3, packetVerdicts) == 1 {
				d.Verdict = queue.Drop
			}
		}
		if d.Verdict == queue.Accept {
			if data := L.Get(-2); data != lua.LNil {
				switch data := data.(type) {
				case lua.LString:
					d.Data = []byte(data)
				case lua.LNumber:
					d.Data = []byte(data.String())
				default:
					argError(L, 4, "string expected, got %s", data.Type())
				}
			}
			if mark := L.Get(-1); mark != lua.LNil {
				n, ok := toNumber(mark)
				if !ok {
					argError(L, 5, "number expected, got %s", mark.Type())
				}
				d.SetMark, d.Mark = true, uint32(integer(n))
			}
		}
		L.Pop(3)
		h.data.p = nil
		if h.sock == nil {
			L.Push(lua.LNil)
			L.Push(lua.LString("closed"))
			return 2
		}
		if err := h.sock.Answer(&d); err != nil {
			return fail(L, err)
		}
	}
}

var packetVerdicts = []string{"accept", "drop"}

// nilCallback accepts what comes on a queue that has no callback.
var nilCallback = &lua.LFunction{IsG: true, GFunction: func(*lua.LState) int { return 0 }}

// qLoop is nfq.loop(cb, [copy]): queue 0, whole packets, in one call.
func (v *vm) qLoop(L *lua.LState) int {
	fn := functionArg(L, 1)
	mode := option(L, 2, queue.CopyPacket, copyModes)
	h, err := v.open()
	failed := func(err error) int {
		fail(L, err)
		L.Pop(1)
		return 2
	}
	if err != nil {
		return failed(err)
	}
	defer h.close()
	q, err := h.create(0)
	if err == nil {
		err = h.sock.SetCopy(q.num, uint8(mode), 0xffff)
	}
	if err != nil {
		return failed(err)
	}
	if n := h.catch(L, fn, time.Time{}); n < 3 {
		return n
	}
	L.Pop(1)
	return 2
}

func qdataArg(L *lua.LState) *queue.Packet {
	if u, ok := L.Get(1).(*lua.LUserData); ok {
		if d, ok := u.Value.(*qdata); ok && d.p != nil {
			return d.p
		}
	}
	argError(L, 1, "qdata not provided")
	return nil
}

func qPayload(L *lua.LState) int {
	p := qdataArg(L)
	if p.Has&queue.HasPayload == 0 {
		raise(L, "bad argument #1 (nfqdata not available)")
	}
	L.Push(lua.LString(p.Data))
	return 1
}

// qPacket is nfq.packet(qdata): the packet as a table, with the names of JSON.
func qPacket(L *lua.LState) int {
	p := qdataArg(L)
	t := L.NewTable()
	fields.Get().fill(L, t, p)
	L.Push(t)
	return 1
}
