package ct

import (
	"context"
	"errors"
	"time"

	"github.com/ti-mo/netfilter"
	"golang.org/x/sys/unix"

	"nfctl/internal/field"
	"nfctl/internal/nl"
)

// Events is a set of event types.
type Events uint8

const (
	EventNew Events = 1 << iota
	EventUpdate
	EventDestroy

	AllEvents = EventNew | EventUpdate | EventDestroy
)

// DefaultBuffer returns the receive buffer of a watch, in bytes: 64 MiB, room for
// some hundred thousand events, or 1/32 of the machine's memory where that is less.
// The kernel may take twice as much for it.
func DefaultBuffer() int {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return mostBuffer
	}
	return bufferFor(uint64(i.Totalram) * uint64(i.Unit))
}

const mostBuffer = 64 << 20

func bufferFor(memory uint64) int { return int(min(mostBuffer, memory/32)) }

// WatchOptions say what to watch, and how.
type WatchOptions struct {
	Flows   Events // event types of flows
	Expects Events // event types of expectations, which know no update
	Buffer  int    // receive buffer in bytes; 0: DefaultBuffer()

	// Reliable asks the kernel to keep what does not fit (nl.Conn.SetReliable):
	// every destroy of a flow arrives, late if need be; new and update that did
	// not fit fold into the flow's next event. Expectation events gain nothing.
	// Ended flows stay in memory until then, and whoever makes events is slowed.
	Reliable bool

	// Match are conditions on flows, all of which must hold. The kernel leaves out
	// what it can; whoever is told of flows checks them again.
	Match []field.Cond

	// Existing lists what is there at the beginning, merged into the stream: no
	// flow is missed, and none comes both ways.
	Existing bool
	// Resync lists the table again so often, and after a loss: see MarkResync. 0:
	// never.
	Resync time.Duration
	// Alive, when set, is called by the loop that reads the events, at least so often as
	// AliveEvery says.
	Alive      func()
	AliveEvery time.Duration
}

// Lost says that events were lost before what comes next.
type Lost struct {
	Time  uint64 // ns since the epoch
	Count uint64 // how many; with WatchOptions.Reliable: how many times one did not fit
	Known bool   // whether Count is known
}

// A Mark stands between events and says where a listing begins or ends.
type Mark struct {
	Kind MarkKind
	Time uint64 // ns since the epoch
	// Of the listing that ended: how many flows and expectations it had, and of
	// how many flows no event will come (see Watcher.EventsFrom).
	Flows, Expects, NoEvents uint64
}

// A MarkKind is a kind of Mark.
type MarkKind uint8

const (
	// MarkExisting ends the listing at the beginning.
	MarkExisting MarkKind = iota
	// MarkResync begins a listing of all that is there now.
	MarkResync
	// MarkResynced ends it: what was neither listed nor new since MarkResync is
	// gone.
	MarkResynced
)

// String returns the word for output: existing, resync, resynced.
func (k MarkKind) String() string { return [...]string{"existing", "resync", "resynced"}[k] }

// A Handler is told what a watch reads, all on one goroutine. Flows and
// expectations are reused: they are valid during the call. An error ends the
// watch; with nl.ErrStop it ends well. Functions that are nil are not called.
type Handler struct {
	Flow   func(*Flow) error
	Expect func(*Expect) error
	Lost   func(Lost) error
	Mark   func(Mark) error
	// Rest is called when there is nothing more to read for now: the time to
	// hand on what was gathered.
	Rest func() error
}

// A Watcher is a subscription to events.
type Watcher struct {
	o     WatchOptions
	c     *nl.Conn
	r     *nl.Receiver
	lists [2]*nl.Conn // for listings: flows, expectations
	get   *Conn

	// Buffer is the size in bytes that the receive buffer reached.
	Buffer int
	// EventsFrom tells which flows send events.
	EventsFrom Policy
	// Filtered says that the kernel leaves out events of flows that
	// WatchOptions.Match does not hold for; Unfiltered why it does not, if it was
	// asked to.
	Filtered   bool
	Unfiltered error

	h       Handler
	f       Flow
	e       Expect
	now     uint64
	drops   uint32 // the socket's counter as last reported
	overrun bool   // told by the socket since
	dropped bool   // the counter cannot be read
	losses  bool   // since the last listing
	owners  owners
	merge   merge
}

// A Policy says which flows send events: the setting
// net.netfilter.nf_conntrack_events of the namespace, and who listened before.
type Policy uint8

const (
	// PolicyUnknown: with the setting 2 a flow sends events when somebody
	// listened at its start, and somebody else listened already.
	PolicyUnknown Policy = iota
	// PolicyAll: all flows send events (setting 1).
	PolicyAll
	// PolicyNewer: only flows that begin from now on (setting 2, the default, and
	// nobody listened before).
	PolicyNewer
	// PolicyNone: no flow (setting 0).
	PolicyNone
)

// Buffers of the receiver. An event is some hundred bytes.
const (
	watchSlots = 128
	watchSlot  = 8 << 10
)

// OpenWatch subscribes, in the calling thread's network namespace. What happens
// from then on is read by Run.
func OpenWatch(o WatchOptions) (*Watcher, error) {
	if o.Buffer == 0 {
		o.Buffer = DefaultBuffer()
	}
	w := &Watcher{o: o, EventsFrom: policy()}
	var err error
	if w.c, err = nl.Dial(nl.Config{}); err != nil {
		return nil, err
	}
	fail := func(err error) (*Watcher, error) {
		w.Close()
		return nil, err
	}
	w.Buffer, _ = w.c.SetBuffer(o.Buffer) // what was reached is told
	if o.Reliable {
		if err := w.c.SetReliable(); err != nil {
			return fail(err)
		}
	}
	if o.Flows != 0 && len(o.Match) > 0 {
		// A listing is merged with what happens to its flows: it must see them change.
		f := FilterEvents(o.Match, !o.Existing && o.Resync == 0)
		if len(f.Program) > 0 {
			w.Unfiltered = w.c.SetFilter(f.Program)
			w.Filtered = w.Unfiltered == nil
		}
		o.Flows &= eventsOf(o.Match)
	}
	if w.r, err = w.c.NewReceiver(watchSlots, watchSlot); err != nil {
		return fail(err)
	}
	if o.Existing || o.Resync > 0 {
		for i, ev := range []Events{o.Flows, o.Expects} {
			if ev == 0 {
				continue
			}
			if w.lists[i], err = nl.Dial(nl.Config{}); err != nil {
				return fail(err)
			}
		}
		if w.get, err = Dial(); err != nil {
			return fail(err)
		}
	}
	for _, g := range []struct {
		wanted bool
		group  netfilter.NetlinkGroup
	}{
		{o.Flows&EventNew != 0, netfilter.GroupCTNew}, {o.Flows&EventUpdate != 0, netfilter.GroupCTUpdate}, {o.Flows&EventDestroy != 0, netfilter.GroupCTDestroy},
		{o.Expects&EventNew != 0, netfilter.GroupCTExpNew}, {o.Expects&EventUpdate != 0, netfilter.GroupCTExpUpdate}, {o.Expects&EventDestroy != 0, netfilter.GroupCTExpDestroy},
	} {
		if !g.wanted {
			continue
		}
		if err := w.c.JoinGroup(uint(g.group)); err != nil {
			return fail(err)
		}
	}
	if w.drops, err = w.c.Drops(); err != nil {
		w.dropped = true
	}
	return w, nil
}

// Close ends the subscription.
func (w *Watcher) Close() {
	for _, c := range []*nl.Conn{w.c, w.lists[0], w.lists[1]} {
		if c != nil {
			_ = c.Close()
		}
	}
	if w.get != nil {
		_ = w.get.Close()
	}
}

// AskResync has the table listed again as soon as can be, as after a loss. It wants
// WatchOptions.Resync, and is called before Run or from its handler.
func (w *Watcher) AskResync() { w.losses = true }

// Run reads events until ctx ends, and then what has already happened. It is to
// be called once, on a goroutine in the watched namespace.
func (w *Watcher) Run(ctx context.Context, h Handler) error {
	w.h = h
	stop := context.AfterFunc(ctx, w.r.Wake)
	defer stop()
	if err := w.run(ctx); err != nil && !errors.Is(err, nl.ErrStop) {
		return err
	}
	if err := w.rest(); !errors.Is(err, nl.ErrStop) {
		return err
	}
	return nil
}

func (w *Watcher) run(ctx context.Context) error {
	if w.o.Existing {
		if err := w.list(ctx, MarkExisting); err != nil {
			return err
		}
	}
	next := time.Time{}
	if w.o.Resync > 0 {
		next = time.Now().Add(w.o.Resync)
	}
	for {
		ending := ctx.Err() != nil
		if err := w.drain(); err != nil {
			return err
		}
		if ending {
			if err := w.lost(); err != nil {
				return err
			}
			if w.o.Existing && w.o.Resync > 0 {
				return w.list(context.Background(), MarkResync)
			}
			return nil
		}
		if w.o.Resync > 0 && (w.losses || !time.Now().Before(next)) {
			if err := w.list(ctx, MarkResync); err != nil {
				return err
			}
			next = time.Now().Add(w.o.Resync)
			continue
		}
		if err := w.rest(); err != nil {
			return err
		}
		wait := time.Duration(-1)
		if w.o.Resync > 0 {
			wait = max(time.Until(next), time.Millisecond)
		}
		if w.o.Alive != nil {
			w.o.Alive()
			if wait < 0 || wait > w.o.AliveEvery {
				wait = w.o.AliveEvery
			}
		}
		began := time.Now()
		n, err := w.r.Recv(wait)
		if err := w.events(n, err); err != nil {
			return err
		}
		if err == nil && n > 0 && w.Buffer >= gatherBuffer && time.Since(began) < gather {
			w.r.Pause(gather)
		}
	}
}

// Events that follow each other within gather are left to gather for as long
// before the next are read: to be woken, to read and to write for every few costs
// more than the events do. The buffer must have room for what comes meanwhile.
const (
	gather       = time.Millisecond
	gatherBuffer = 4 << 20
)

func (w *Watcher) rest() error {
	if w.h.Rest != nil {
		return w.h.Rest()
	}
	return nil
}

// Bounds of a drain: how many datagrams it reads where the kernel does not say how
// many there are, and the memory that one takes at least (sk_buff and data).
const (
	drainMost = 1 << 20
	drainSize = 512
)

// drain reads what is there when it begins, and more only until the socket is
// empty: events that come as fast as they are read do not hold it up.
func (w *Watcher) drain() error {
	left := drainMost
	if n, err := w.c.Queued(); err == nil {
		left = int(n)/drainSize + 1
	}
	for left > 0 {
		n, err := w.r.Recv(0)
		if n == 0 && err == nil {
			return w.lost()
		}
		if err := w.events(n, err); err != nil {
			return err
		}
		left -= max(n, 1)
	}
	return nil
}

// lost reports losses where the socket has run empty. The socket tells of an
// overrun before the messages that precede it, so that this is the first place
// of which it is known that what was lost came before.
func (w *Watcher) lost() error {
	if !w.overrun {
		return nil
	}
	w.overrun, w.losses = false, true
	l := Lost{Time: uint64(time.Now().UnixNano())}
	if drops, err := w.c.Drops(); err == nil && !w.dropped {
		l.Count, l.Known = uint64(drops-w.drops), true
		w.drops = drops
	}
	if w.h.Lost != nil {
		return w.h.Lost(l)
	}
	return nil
}

// events hands on the datagrams of one Recv.
func (w *Watcher) events(n int, err error) error {
	if err != nil {
		if errors.Is(err, nl.ErrOverrun) {
			w.overrun = true
			return nil
		}
		return nl.Error("watch", "events", err)
	}
	if n > 0 {
		w.now = uint64(time.Now().UnixNano())
	}
	for i := range n {
		b, whole := w.r.Datagram(i)
		for {
			m, rest, ok := nl.NextMsg(b)
			if !ok && !whole { // some attributes are missing then
				m, ok = nl.Cut(b)
				whole = true
			}
			if !ok {
				break
			}
			b = rest
			if err := w.event(&m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Watcher) event(m *nl.Msg) error {
	switch m.Subsys() {
	case nl.SubsysCt:
		_ = w.f.DecodeEvent(m) // what cannot be read is not there
		w.f.Time = w.now
		if m.Port != 0 {
			w.owners.find(&w.f.By, w.now)
		}
		if w.merge.on && !w.merge.event(&w.f) {
			return nil
		}
		if w.h.Flow != nil {
			return w.h.Flow(&w.f)
		}
	case nl.SubsysExpect:
		_ = w.e.DecodeEvent(m)
		w.e.Time = w.now
		if m.Port != 0 {
			w.owners.find(&w.e.By, w.now)
		}
		if w.merge.on {
			w.merge.expect(&w.e)
		}
		if w.h.Expect != nil {
			return w.h.Expect(&w.e)
		}
	}
	return nil
}

// policy finds out which flows send events, before this program listens.
func policy() Policy {
	n, err := setting("nf_conntrack_events")
	switch {
	case err != nil:
		return PolicyUnknown
	case n == 0:
		return PolicyNone
	case n == 1:
		return PolicyAll
	}
	socks, err := nl.Sockets()
	if err != nil {
		return PolicyUnknown
	}
	for _, s := range socks {
		if s.Groups&0x3f != 0 {
			return PolicyUnknown
		}
	}
	return PolicyNewer
}
