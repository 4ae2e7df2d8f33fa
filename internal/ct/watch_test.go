package ct

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"nfctl/internal/nl"
	"nfctl/internal/nstest"
)

func openWatch(t testing.TB, o WatchOptions) *Watcher {
	t.Helper()
	w, err := OpenWatch(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// run runs w until until is true, looked at where the socket is empty.
func run(t testing.TB, w *Watcher, h Handler, until func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nstest.Patience)
	defer cancel()
	rest := h.Rest
	h.Rest = func() error {
		if rest != nil {
			if err := rest(); err != nil {
				return err
			}
		}
		if until() {
			return nl.ErrStop
		}
		return nil
	}
	if err := w.Run(ctx, h); err != nil {
		t.Fatal(err)
	}
	if !until() {
		t.Fatal("what was waited for did not come")
	}
}

// TestEvents: what happens to real traffic comes as events, with who did it.
func TestEvents(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	ns.Run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
	sysctl(t, "nf_conntrack_timestamp", "1")
	sysctl(t, "nf_conntrack_acct", "1")
	c := dial(t)
	w := openWatch(t, WatchOptions{Flows: AllEvents, Expects: AllEvents})
	// A user namespace may not go over net.core.rmem_max.
	if w.Buffer < DefaultBuffer() && os.Getenv("NFCTL_TEST_INNER") == "" || w.Buffer == 0 {
		t.Errorf("receive buffer of %d bytes", w.Buffer)
	}
	tcp, udp := ns.TCPEcho("127.0.0.1:0"), ns.UDPEcho("127.0.0.1:0")
	if _, ok := ns.Ask(udp, "hello", nstest.Patience); !ok {
		t.Fatal("no echo")
	}
	conn, err := ns.Dial("tcp", tcp, nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	made := flow(t, "10.0.0.1:1", "10.0.0.2:2", UDP, "mark=7")
	if err := c.Create(made, false); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(0, KernelFilter{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	destroyed := 0
	run(t, w, Handler{Flow: func(f *Flow) error {
		b := fmt.Appendf(nil, "%s %s", EventNames.Word(uint64(f.Event)), Find(FlowAttrs(), "proto").AppendText(nil, f))
		if s, ok := f.State(); ok {
			b = append(append(b, ' '), StateNames.Word(s)...)
		}
		if f.Orig.Dport == 2 {
			b = fmt.Appendf(b, " mark %d by %d %s", f.Mark, f.By.Pid, f.By.Comm)
		} else if f.Event != Destroy && f.By.PortID != 0 {
			t.Errorf("traffic by port %d", f.By.PortID)
		}
		if f.Time == 0 || f.Event != Destroy && !f.Has(HasTimeout) {
			t.Errorf("no time, or no timeout: %+v", f)
		}
		if f.Event == Destroy {
			destroyed++
			if !f.Has(HasStop|HasStart|HasOrigCounters|HasReplyCounters) ||
				f.Orig.Dport != 2 && f.OrigCounters.Packets == 0 {
				t.Errorf("a destroy without start, stop, or counters: %+v", f)
			}
			if age, ok := f.Age(); !ok || age > uint64(time.Minute) {
				t.Errorf("age %d, %v", age, ok)
			}
		}
		got = append(got, string(b))
		return nil
	}}, func() bool { return destroyed == 3 })
	comm, _ := os.ReadFile("/proc/self/comm")
	by := fmt.Sprintf(" by %d %s", os.Getpid(), strings.TrimSpace(string(comm)))
	ended := "destroy tcp ESTABLISHED"
	if !slices.Contains(got, ended) && !nstest.Since(t, 6, 1) { // 5.10 ends flows without a word about their state
		ended = "destroy tcp"
	}
	for _, want := range []string{"new udp", "update udp", "destroy udp", "new tcp SYN_SENT", "update tcp SYN_RECV",
		"update tcp ESTABLISHED", ended,
		"new udp mark 7" + by, "destroy udp mark 7" + by} {
		if !slices.Contains(got, want) {
			t.Errorf("no event %q in %q", want, got)
		}
	}
}

// TestLostCount: what was lost and what was read add up to what was made, and the
// watch goes on.
func TestLostCount(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	w := openWatch(t, WatchOptions{Flows: EventNew, Buffer: 64 << 10})
	var seen, lost, made uint64
	places := 0
	for range 2 {
		fill(t, c, 3000)
		made += 3000
		before := seen
		run(t, w, Handler{
			Flow: func(f *Flow) error { seen++; return nil },
			Lost: func(l Lost) error {
				if !l.Known || l.Count == 0 || l.Time == 0 {
					t.Errorf("%+v", l)
				}
				lost += l.Count
				places++
				if seen == before {
					t.Error("the loss is told before the events that came before it")
				}
				return nil
			},
		}, func() bool { return seen+lost >= made })
		if err := c.Flush(0, KernelFilter{}); err != nil {
			t.Fatal(err)
		}
	}
	if seen+lost != made || lost == 0 || places != 2 {
		t.Errorf("%d made, %d read, %d lost at %d places", made, seen, lost, places)
	}
}

// TestMerge: of a flow that had an event while it was being listed, the newer word
// counts, and a new event that comes late does not tell of it again.
func TestMerge(t *testing.T) {
	var m merge
	m.begin()
	f := flow(t, "10.0.0.1:1", "10.0.0.2:2", UDP)
	f.ID, f.Present = 1, f.Present|HasID
	other := func(id uint32) *Flow { g := *f; g.ID = id; return &g }
	event := func(f *Flow, e Event) bool { f.Event = e; return m.event(f) }
	if ok, again := m.list(f); !ok || again {
		t.Error("a flow without events is not listed")
	}
	for range shownTurns - 1 {
		m.turn()
	}
	if event(f, New) {
		t.Error("new after it was listed")
	}
	if g := other(2); !event(g, New) {
		t.Error("the new event of a flow that was not listed is held back")
	} else if ok, _ := m.list(g); ok {
		t.Error("listed after its new event")
	}
	if g := other(3); !event(g, Update) {
		t.Error("an update is held back")
	} else if ok, again := m.list(g); !ok || !again {
		t.Error("after an update it is to be read again")
	}
	if g := other(4); !event(g, Destroy) {
		t.Error("a destroy is held back")
	} else if ok, _ := m.list(g); ok {
		t.Error("listed after its end")
	}
	g := other(5)
	event(g, Update)
	m.turn()
	if _, again := m.list(g); !again {
		t.Error("the kernel filled this datagram before the update")
	}
	m.turn()
	m.turn()
	if ok, again := m.list(other(6)); !ok || again {
		t.Error("not listed")
	}
}

// TestReliable: with a tiny buffer every destroy arrives, once.
func TestReliable(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	const n = 3000
	w := openWatch(t, WatchOptions{Flows: AllEvents, Buffer: 64 << 10, Reliable: true})
	fill(t, c, n)
	if err := c.Flush(0, KernelFilter{}); err != nil {
		t.Fatal(err)
	}
	gone := map[netip.Addr]int{}
	news := 0
	lost := uint64(0)
	run(t, w, Handler{Flow: func(f *Flow) error {
		switch f.Event {
		case Destroy:
			gone[f.Orig.Src]++
		case New:
			news++
		}
		return nil
	}, Lost: func(l Lost) error { lost += l.Count; return nil }}, func() bool { return len(gone) == n })
	for a, k := range gone {
		if k != 1 {
			t.Errorf("%d destroys of %v", k, a)
		}
	}
	if news >= n || lost == 0 {
		t.Errorf("%d news, %d did not fit: the buffer is too large for this test", news, lost)
	}
}

// table is what someone who replays a watch knows.
type table struct {
	flows  map[flowKey]Flow
	listed map[flowKey]bool // since the listing began; nil: none under way
	seen   map[flowKey]bool // existing or new
	t      testing.TB
}

func (r *table) flow(f *Flow) error {
	k := f.key()
	switch f.Event {
	case Existing, New:
		// A flow that sends no events may have ended untold, and its memory, which is
		// what its id is made of, serve the same flow made anew.
		old := r.flows[k]
		if r.seen[k] && r.listed == nil && !(f.Event == New && old.NoEvents) {
			r.t.Errorf("%s came twice", flowName(f))
		}
		r.seen[k] = true
		r.flows[k] = *f.Clone()
		if r.listed != nil {
			r.listed[k] = true
		}
	case Update:
		old, ok := r.flows[k]
		if !ok {
			old = *f.Clone()
		}
		old.Status = f.Status
		if f.Has(HasMark) {
			old.Mark = f.Mark
		}
		if f.Has(HasTCPState) {
			old.TCPState = f.TCPState
		}
		r.flows[k] = old
	case Destroy:
		delete(r.flows, k)
		delete(r.seen, k)
	}
	return nil
}

func (r *table) mark(m Mark) error {
	switch m.Kind {
	case MarkResync:
		r.listed = map[flowKey]bool{}
	case MarkResynced:
		for k := range r.flows {
			if !r.listed[k] {
				delete(r.flows, k)
				delete(r.seen, k)
			}
		}
		r.listed = nil
	}
	return nil
}

func (r *table) compare(t testing.TB) {
	t.Helper()
	now := 0
	for _, f := range dumpAll(t, DumpOptions{}) {
		now++
		g, ok := r.flows[f.key()]
		if !ok || g.Mark != f.Mark || g.Status != f.Status || g.TCPState != f.TCPState {
			t.Errorf("the table has %+v\nthe replay has %+v, %v", f, &g, ok)
		}
	}
	if now != len(r.flows) {
		t.Errorf("the table has %d flows, the replay %d", now, len(r.flows))
	}
}

// TestExisting: replaying a watch that began with a full table, while entries
// came, changed and went, gives the table at the end.
func TestExisting(t *testing.T) {
	t.Parallel()
	for _, events := range []string{"1", "2"} {
		t.Run("nf_conntrack_events="+events, func(t *testing.T) {
			t.Parallel()
			ns := nstest.Enter(t)
			if events == "2" && !ns.EventsAuto() {
				t.Skip("this kernel has no nf_conntrack_events=2")
			}
			sysctl(t, "nf_conntrack_events", events)
			c, churn := dial(t), dial(t)
			fill(t, c, 5000)
			o := WatchOptions{Flows: AllEvents, Existing: true}
			if events == "2" {
				o.Resync = time.Hour // at the end
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*nstest.Patience)
			defer cancel()
			done := make(chan struct{})
			w := openWatch(t, o)
			if want := map[string]Policy{"1": PolicyAll, "2": PolicyNewer}[events]; w.EventsFrom != want {
				t.Errorf("policy %d, want %d", w.EventsFrom, want)
			}
			go func() { // delete, make, and change, in an order of its own
				defer w.r.Wake()
				defer close(done)
				b := churn.NewBatch(20, nil)
				f := flow(t, "10.0.0.1:1", "10.0.0.2:53", UDP)
				change := &Flow{Present: HasMark}
				for i := range 12000 {
					n := i * 7919 % 5500
					f.Orig.Src = netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})
					f.Reply = f.Orig.Reverse()
					change.Mark = uint32(i)
					switch i % 3 {
					case 0:
						_ = b.Delete(f)
					case 1:
						_ = b.Create(f, false)
					case 2:
						_ = b.Update(f, change)
					}
				}
				_ = b.Flush()
			}()
			r := &table{flows: map[flowKey]Flow{}, seen: map[flowKey]bool{}, t: t}
			var marks []Mark
			finished := false
			err := w.Run(ctx, Handler{
				Flow: r.flow,
				Mark: func(m Mark) error { marks = append(marks, m); return r.mark(m) },
				Lost: func(l Lost) error { t.Errorf("lost %+v", l); return nil },
				Rest: func() error {
					if finished { // one more look at the socket since
						cancel()
					}
					select {
					case <-done:
						finished = true
						w.r.Wake() // the next drain sees all there was
					default:
					}
					return nil
				},
			})
			if err != nil || ctx.Err() != context.Canceled {
				t.Fatal(err, ctx.Err())
			}
			r.compare(t)
			if len(marks) == 0 || marks[0].Kind != MarkExisting || (events == "2") != (len(marks) == 3) {
				t.Errorf("marks %+v", marks)
			}
			if len(marks) > 0 && ((events == "2") != (marks[0].NoEvents > 0) || marks[0].Flows < 1000) {
				t.Errorf("mark %+v", marks[0])
			}
		})
	}
}

// TestResyncAfterLoss: after a loss the table is listed again.
func TestResyncAfterLoss(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	sysctl(t, "nf_conntrack_events", "1")
	c := dial(t)
	w := openWatch(t, WatchOptions{Flows: AllEvents, Buffer: 64 << 10, Existing: true, Resync: time.Hour})
	r := &table{flows: map[flowKey]Flow{}, seen: map[flowKey]bool{}, t: t}
	fill(t, c, 5000)
	var losses, resynced int
	run(t, w, Handler{Flow: r.flow, Lost: func(Lost) error { losses++; return nil }, Mark: func(m Mark) error {
		if m.Kind == MarkResynced {
			resynced++
		}
		return r.mark(m)
	}}, func() bool { return resynced == 1 })
	r.compare(t)
	if losses == 0 || len(r.flows) != 5000 {
		t.Errorf("%d losses, %d flows", losses, len(r.flows))
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	w := openWatch(t, WatchOptions{Flows: AllEvents})
	fill(t, c, 10)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // what has happened is still read
	n := 0
	if err := w.Run(ctx, Handler{Flow: func(*Flow) error { n++; return nil }}); err != nil || n != 10 {
		t.Errorf("%d events, %v", n, err)
	}
	boom := errors.New("boom")
	w = openWatch(t, WatchOptions{Flows: AllEvents})
	if err := c.Flush(0, KernelFilter{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Run(context.Background(), Handler{Flow: func(*Flow) error { return boom }}); !errors.Is(err, boom) {
		t.Errorf("a handler's error: %v", err)
	}
	w = openWatch(t, WatchOptions{Flows: AllEvents})
	fill(t, c, 1)
	if err := w.Run(context.Background(), Handler{Flow: func(*Flow) error { return nl.ErrStop }}); err != nil {
		t.Errorf("a handler's stop: %v", err)
	}
}

// TestGather: events that come fast are gathered, so that reading them does not
// take a wakeup each.
func TestGather(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	w := openWatch(t, WatchOptions{Flows: EventNew})
	w.Buffer = gatherBuffer // a user namespace may not have one as large: what is lost counts too
	const most = 20000
	f := flow(t, "10.0.0.1:1", "10.0.0.2:2", UDP)
	made := make(chan error, 1)
	go func() {
		for i := range most {
			f.Orig.Sport, f.Reply.Dport = uint16(i+1), uint16(i+1)
			if err := c.Create(f, false); err != nil {
				made <- err
				return
			}
		}
		made <- nil
	}()
	events, rests := 0, 0
	run(t, w, Handler{
		Flow: func(*Flow) error { events++; return nil },
		Lost: func(l Lost) error { events += int(l.Count); return nil },
		Rest: func() error { rests++; return nil },
	}, func() bool { return events == most })
	if err := <-made; err != nil {
		t.Error(err)
	}
	if rests > most/8 {
		t.Errorf("%d events were shown in %d goes", most, rests)
	}
	t.Logf("%d events were shown in %d goes", most, rests)
}

func TestBufferForMemory(t *testing.T) {
	for memory, want := range map[uint64]int{64 << 20: 2 << 20, 256 << 20: 8 << 20, 2 << 30: 64 << 20,
		1 << 40: 64 << 20} {
		if got := bufferFor(memory); got != want {
			t.Errorf("%d bytes of memory: %d, want %d", memory, got, want)
		}
	}
}
