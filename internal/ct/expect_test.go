package ct

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"nfctl/internal/nstest"
)

// expectOf makes an expectation of master: any source, destination port.
func expectOf(master *Flow, port uint16, set ...func(*Expect)) *Expect {
	e := &Expect{Master: master.Orig}
	t := &e.Tuple
	*t = Tuple{Family: master.Orig.Family, Src: master.Orig.Src, Dst: master.Orig.Dst, Proto: TCP, Dport: port,
		Present: TupleFamily | TupleProto | TupleSport | TupleDport}
	ones := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	e.Mask = Tuple{Family: t.Family, Src: ones, Dst: ones, Proto: TCP, Dport: 0xffff, Present: t.Present}
	if master.Has(HasZone) {
		e.Zone, e.Present = master.Zone, ExpectHasZone
	}
	for _, s := range set {
		s(e)
	}
	return e
}

func TestExpect(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	// first: what nobody listens to sends no events later
	w := openWatch(t, WatchOptions{Flows: EventNew, Expects: AllEvents})
	master := flow(t, "10.0.0.1:7", "10.0.0.2:6667", TCP, "state=ESTABLISHED", "helper-name=irc", "zone=3")
	if err := c.Create(master, false); err != nil {
		t.Fatal(err)
	}
	e := expectOf(master, 5000, func(e *Expect) {
		e.Timeout, e.Flags, e.Present = 42, Permanent|Userspace, e.Present|ExpectHasTimeout|ExpectHasFlags
	})
	made, err := c.CreateExpect(e, false)
	if err != nil {
		t.Fatal(err)
	}
	s := made.Stored
	if s == nil || s.Timeout > 42 || s.Timeout < 40 || s.Flags != Permanent || string(s.Helper) != "irc" ||
		s.Tuple.Dport != 5000 || s.Master.Dport != 6667 || len(made.Evicted) != 0 {
		t.Fatalf("stored %+v", s)
	}
	s.Zone, s.Present = 3, s.Present|ExpectHasZone // the kernel does not send it
	if _, err := c.CreateExpect(e, false); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("again: %v", err)
	}
	if again, err := c.CreateExpect(e, true); err != nil || !again.Updated || again.Stored == nil {
		t.Errorf("again, or update: %+v, %v", again, err)
	}
	if err := c.UpdateExpect(s, 99); err != nil {
		t.Error(err)
	}
	var got Expect
	if err := c.GetExpect(s, &got); err != nil || got.Timeout > 99 || got.Timeout < 95 || got.ID != s.ID {
		t.Errorf("%+v, %v", got, err)
	}
	wrong := *s
	wrong.ID++
	if err := c.DeleteExpect(&wrong); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("another id: %v", err)
	}
	if err := c.DeleteExpect(s); err != nil {
		t.Error(err)
	}
	if err := c.GetExpect(s, &got); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("deleted: %v", err)
	}
	var events []Event
	run(t, w, Handler{Expect: func(e *Expect) error {
		events = append(events, e.Event)
		if e.Tuple.Dport != 5000 || e.By.PortID == 0 {
			t.Errorf("event %+v", e)
		}
		return nil
	}}, func() bool { return len(events) >= 2 })
	if events[0] != New || events[len(events)-1] != Destroy {
		t.Errorf("events %v", events)
	}
}

// TestExpectEviction: which expectation went to make room is told.
func TestExpectEviction(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	master := flow(t, "10.0.0.1:7", "10.0.0.2:21", TCP, "state=ESTABLISHED", "helper-name=ftp")
	if err := c.Create(master, false); err != nil {
		t.Fatal(err)
	}
	first, err := c.CreateExpect(expectOf(master, 5000), false)
	if err != nil || len(first.Evicted) != 0 {
		t.Fatal(err, first.Evicted)
	}
	second, err := c.CreateExpect(expectOf(master, 5001), false)
	if err != nil || len(second.Evicted) != 1 || second.Evicted[0].Tuple.Dport != 5000 ||
		second.Stored.Tuple.Dport != 5001 {
		t.Errorf("evicted %+v, %v", second.Evicted, err)
	}
	if err := c.DeleteExpectsOf("ftp"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteExpectsOf(""); err == nil {
		t.Error("no helper named: the kernel would delete all; want an error")
	}
	if res, err := c.Expects(context.Background(), 0, nil, func(*Expect) error { return nil }); err != nil ||
		res.Flows != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	if err := c.FlushExpects(); err != nil {
		t.Error(err)
	}
}

// TestExpectRefusals: each of the kernel's refusals has its reason.
func TestExpectRefusals(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	master := flow(t, "10.0.0.1:7", "10.0.0.2:6667", TCP, "state=ESTABLISHED", "helper-name=irc")
	plain := flow(t, "10.0.0.1:8", "10.0.0.2:80", TCP, "state=ESTABLISHED")
	for _, f := range []*Flow{master, plain} {
		if err := c.Create(f, false); err != nil {
			t.Fatal(err)
		}
	}
	absent := flow(t, "10.9.9.9:8", "10.0.0.2:80", TCP)
	if _, err := c.CreateExpect(expectOf(master, 5000), false); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		e    *Expect
		no   syscall.Errno
		why  string
	}{
		{"no such master", expectOf(absent, 5001), syscall.ENOENT, whyNoMaster},
		{"another zone", expectOf(master, 5001, func(e *Expect) { e.Zone, e.Present = 9, e.Present|ExpectHasZone }), syscall.ENOENT, whyNoMaster},
		{"master without helper", expectOf(plain, 5001), syscall.EOPNOTSUPP, whyNoHelper},
		{"helper that is none", expectOf(master, 5001, func(e *Expect) { e.Helper, e.Present = []byte("nosuch"), e.Present|ExpectHasHelper }), syscall.EOPNOTSUPP, "helper"},
		{"no master", expectOf(master, 5001, func(e *Expect) { e.Master = Tuple{} }), syscall.EINVAL, "needs a master"},
		{"no mask", expectOf(master, 5001, func(e *Expect) { e.Mask = Tuple{} }), syscall.EINVAL, "needs a master"},
		{"mask of another family", expectOf(master, 5001, func(e *Expect) {
			e.Mask.Src, e.Mask.Dst = netip.IPv6Unspecified(), netip.IPv6Unspecified()
		}), syscall.EINVAL, "another address family"},
		{"class", expectOf(master, 5001, func(e *Expect) { e.Class, e.Present = 9, e.Present|ExpectHasClass }), syscall.EINVAL, "beyond the helper's last"},
		{"flags", expectOf(master, 5001, func(e *Expect) { e.Flags, e.Present = 8, e.Present|ExpectHasFlags }), syscall.EINVAL, "flags other than"},
		{"nat without direction", expectOf(master, 5001, func(e *Expect) { e.NATTuple = master.Orig }), syscall.EINVAL, "a tuple and a direction"},
		{"fn", expectOf(master, 5001, func(e *Expect) { e.Fn, e.Present = []byte("nosuch"), e.Present|ExpectHasFn }), syscall.EINVAL, "no such function"},
		{"exists", expectOf(master, 5000), syscall.EEXIST, whyThere},
		{"overlaps", expectOf(master, 5000, func(e *Expect) {
			e.Tuple.Src, e.Mask.Src = netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("255.255.255.0")
		}), syscall.EBUSY, whyOverlap},
	} {
		made, err := c.CreateExpect(tt.e, false)
		if err == nil && (tt.name == "class" || tt.name == "flags") && !nstest.Since(t, 6, 1) {
			// 5.10 looks at neither, and takes a class only where a helper is named.
			if made.Stored == nil || made.Stored.Class != 0 || c.DeleteExpect(made.Stored) != nil {
				t.Errorf("%s: stored %+v", tt.name, made.Stored)
			}
			continue
		}
		var r *Refusal
		if !errors.Is(err, tt.no) || !errors.As(err, &r) || !strings.Contains(r.Why, tt.why) {
			t.Errorf("%s: %v; want %v: %s", tt.name, err, tt.no, tt.why)
		}
	}
	if err := c.DeleteExpect(expectOf(master, 6000)); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("delete of a missing one: %v", err)
	}
	if err := c.DeleteExpect(&Expect{}); err == nil {
		t.Error("delete of nothing in particular would delete all: want an error")
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	fill(t, c, 30)
	n, most, err := c.Count()
	if err != nil || n != 30 || most == 0 {
		t.Errorf("count %d of %d, %v", n, most, err)
	}
	cpus, err := c.Stats()
	if err != nil || len(cpus) == 0 {
		t.Fatal(err)
	}
	_, known := Total(cpus)
	for i, want := range map[int]bool{3: true, 8: true, 9: true, 13: true, 14: nstest.Since(t, 5, 15), 0: false} {
		if known[i] != want {
			t.Errorf("%s: known %v", StatsCounters[i].Name, known[i])
		}
	}
	master := flow(t, "10.0.0.1:7", "10.0.0.2:6667", TCP, "state=ESTABLISHED", "helper-name=irc")
	if err := c.Create(master, false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateExpect(expectOf(master, 5000), false); err != nil {
		t.Fatal(err)
	}
	cpus, err = c.ExpectStats()
	total, _ := Total(cpus)
	if err != nil || len(total) != 3 || total[1] != 1 {
		t.Errorf("expectation statistics %v, %v", total, err)
	}
}
