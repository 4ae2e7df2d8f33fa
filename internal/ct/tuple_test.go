package ct

import (
	"errors"
	"net/netip"
	"reflect"
	"syscall"
	"testing"

	"nfctl/internal/nl"
	"nfctl/internal/nstest"
)

// tupleProtos are the protocols whose tuples have parts, and one whose have none.
var tupleProtos = []uint8{TCP, UDP, UDPLite, SCTP, DCCP, GRE, ICMP, ICMPv6, 50}

// TestRequestsHaveWholeTuples: whatever a tuple leaves open is zero in the message.
func TestRequestsHaveWholeTuples(t *testing.T) {
	host := netip.MustParseAddr("10.0.0.1")
	check := func(what string, proto uint8, got *Tuple, dport uint16) {
		t.Helper()
		want := Tuple{Src: host, Dst: netip.IPv4Unspecified(), Dport: dport, Proto: proto, Family: IPv4,
			Present: TupleFamily | TupleProto | protoParts(proto)}
		if protoParts(proto)&TupleDport == 0 {
			want.Dport = 0
		}
		if *got != want {
			t.Errorf("%s of protocol %d:\n%+v, want\n%+v", what, proto, *got, want)
		}
	}
	for _, proto := range tupleProtos {
		part := Tuple{Src: host, Proto: proto, Dport: 80, Present: TupleProto}
		if protoParts(proto)&TupleDport != 0 {
			part.Present |= TupleDport
		}
		var f Flow
		read := func(req []byte) {
			t.Helper()
			m, _, ok := nl.NextMsg(req)
			if !ok || f.Decode(&m) != nil {
				t.Fatal("no message")
			}
		}
		read((&Flow{Orig: part, Reply: part, Master: part}).AppendCreate(nil, false))
		check("create", proto, &f.Orig, 80)
		check("create, reply", proto, &f.Reply, 80)
		check("create, master", proto, &f.Master, 80)
		read((&Flow{Orig: part}).AppendUpdate(nil, &Flow{Master: part}))
		check("update", proto, &f.Orig, 80)
		check("update, master", proto, &f.Master, 80)
		read((&Flow{Orig: part}).AppendDelete(nil))
		check("delete", proto, &f.Orig, 80)
		read((&Flow{Orig: part}).AppendGet(nil, true))
		check("get", proto, &f.Orig, 80)

		// A mask and a translation that do not say their family have the expectation's.
		loose := Tuple{Src: host, Proto: proto, Present: TupleProto}
		bare := Tuple{Proto: proto, Present: TupleProto}
		x := Expect{Tuple: part, Mask: loose, Master: part, NATTuple: loose, Present: ExpectHasNATDir}
		var e Expect
		m, _, _ := nl.NextMsg(x.appendNew(nil, 0))
		if err := e.Decode(&m); err != nil {
			t.Fatal(err)
		}
		check("expectation", proto, &e.Tuple, 80)
		check("mask", proto, &e.Mask, 0)
		check("master", proto, &e.Master, 80)
		check("translation", proto, &e.NATTuple, 0)
		x.Mask = bare
		m, _, _ = nl.NextMsg(x.appendNew(nil, 0))
		if _ = e.Decode(&m); e.Mask.Src != netip.IPv4Unspecified() {
			t.Errorf("mask without address: %+v", e.Mask)
		}
		m, _, _ = nl.NextMsg(nl.Finish((&Expect{Tuple: part}).appendKey(nl.AppendHeader(nil, 0, 0, IPv4, 0)), 0))
		if err := e.Decode(&m); err != nil {
			t.Fatal(err)
		}
		check("key", proto, &e.Tuple, 80)
	}
	// The mask of ICMP is sent with the type expected: of 255, which the kernel
	// lists, it says EINVAL.
	x := Expect{Tuple: Tuple{Src: host, Dst: host, Proto: ICMP, Type: 8, ID: 7,
		Present: TupleProto | TupleType | TupleCode | TupleID}}
	x.Mask = x.Tuple
	x.Mask.Type, x.Mask.Code, x.Mask.ID = 255, 255, 0xff00
	var e Expect
	m, _, _ := nl.NextMsg(x.appendNew(nil, 0))
	if _ = e.Decode(&m); e.Mask.Type != 8 || e.Mask.Code != 0 || e.Mask.ID != 0xff00 {
		t.Errorf("mask of ICMP: %+v", e.Mask)
	}
	// A flow is found by the tuple that names it.
	f := Flow{Orig: Tuple{Src: host, Proto: UDP, Present: TupleProto}}
	f.Reply = Tuple{Src: host, Dst: host, Proto: UDP, Present: TupleProto}
	var g Flow
	m, _, _ = nl.NextMsg(f.AppendGet(nil, false))
	if _ = g.Decode(&m); !g.Orig.IsZero() || g.Reply.Dst != host || m.Family() != IPv4 {
		t.Errorf("found by %+v and %+v", g.Orig, g.Reply)
	}
}

// TestFlowsOfParts: flows of which not all is said are made with zeros, and found
// by the same words.
func TestFlowsOfParts(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	for _, proto := range []uint8{TCP, UDP, SCTP, GRE, ICMP, 50} {
		f := flow(t, "10.0.0.1:7", "10.0.0.2:8", proto)
		if proto == SCTP {
			f.SCTPState, f.SCTPVtagOrig, f.SCTPVtagReply, f.Present = SCTPEstablished, 1, 2,
				f.Present|HasSCTPState|HasSCTPVtagOrig|HasSCTPVtagReply
		}
		f.Orig.Present &^= TupleSport | TupleCode | TupleID
		var got Flow
		if err := c.Create(f, false); err != nil {
			t.Errorf("protocol %d: %v", proto, err)
		} else if err := c.Get(f, &got, false); err != nil || got.Orig.Sport|got.Orig.ID != 0 || got.Orig.Lacks() != 0 {
			t.Errorf("protocol %d: %+v, %v", proto, got.Orig, err)
		} else if err := c.Delete(f); err != nil {
			t.Errorf("protocol %d: %v", proto, err)
		}
	}
}

// TestExpectProtocols makes, finds, changes, lists and deletes an expectation of
// each protocol, and sees its events.
func TestExpectProtocols(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	w := openWatch(t, WatchOptions{Expects: AllEvents})
	var events, seen []Expect
	for i, proto := range tupleProtos {
		from, to := "10.0.0.1:7", "10.0.0.2:6667"
		if proto == ICMPv6 {
			from, to = "[fd00::1]:7", "[fd00::2]:21" // irc knows no IPv6
		}
		master := flow(t, from, to, TCP, "state=ESTABLISHED",
			map[bool]string{true: "helper-name=irc", false: "helper-name=ftp"}[proto != ICMPv6])
		if err := c.Create(master, true); err != nil {
			t.Fatal(err)
		}
		dst := flow(t, from, to, proto).Orig
		if protoParts(proto)&TupleDport != 0 {
			dst.Sport, dst.Dport = 0x1111, uint16(0x2220+i)
		} else {
			dst.Sport, dst.Dport = 0, 0
		}
		e := &Expect{Master: master.Orig, Tuple: dst, Mask: Tuple{Proto: proto, Present: TupleProto | protoParts(proto),
			Sport: 0xff00, ID: 0xffff}}
		e.Tuple.Src = netip.Addr{} // any
		made, err := c.CreateExpect(e, false)
		if err != nil {
			t.Errorf("protocol %d: %v", proto, err)
			continue
		}
		s := made.Stored
		if s != nil && s.Tuple.Lacks() != 0 { // a kernel that does not track the protocol
			dst.Sport, dst.Dport = 0, 0
		}
		if s == nil || s.Tuple.Proto != proto || s.Tuple.Sport != dst.Sport || s.Tuple.Dport != dst.Dport ||
			s.Tuple.Type != dst.Type || s.Tuple.ID != dst.ID || s.Master != master.Orig {
			t.Errorf("protocol %d: stored %+v", proto, s)
			continue
		}
		if _, err := c.CreateExpect(e, false); !errors.Is(err, syscall.EEXIST) {
			t.Errorf("protocol %d: again: %v", proto, err)
		}
		if again, err := c.CreateExpect(e, true); err != nil || again.Stored == nil || again.Stored.ID != s.ID {
			t.Errorf("protocol %d: again, or update: %+v, %v", proto, again, err)
		}
		var got Expect
		if err := c.GetExpect(e, &got); err != nil || got.Tuple != s.Tuple || got.ID != s.ID {
			t.Errorf("protocol %d: got %+v, %v", proto, got, err)
		}
		if err := c.UpdateExpect(s, 99); err != nil { // as the kernel lists it
			t.Errorf("protocol %d: update: %v", proto, err)
		}
		if err := c.GetExpect(e, &got); err != nil || got.Timeout > 99 || got.Timeout < 90 {
			t.Errorf("protocol %d: timeout %d, %v", proto, got.Timeout, err)
		}
		if protoParts(proto) != 0 && s.Tuple.Lacks() == 0 {
			other := *s
			other.Tuple.Dport, other.Tuple.Code = other.Tuple.Dport+1, other.Tuple.Code+1
			if err := c.DeleteExpect(&other); !errors.Is(err, syscall.ENOENT) {
				t.Errorf("protocol %d: delete of another: %v", proto, err)
			}
		}
		if err := c.DeleteExpect(s); err != nil {
			t.Errorf("protocol %d: delete: %v", proto, err)
		}
		events = append(events, Expect{Event: New, Tuple: s.Tuple}, Expect{Event: Destroy, Tuple: s.Tuple})
	}
	run(t, w, Handler{Expect: func(e *Expect) error {
		seen = append(seen, Expect{Event: e.Event, Tuple: e.Tuple})
		return nil
	}}, func() bool { return len(seen) >= len(events) })
	if !reflect.DeepEqual(seen, events) {
		t.Errorf("%d events, want %d", len(seen), len(events))
		for i := range min(len(seen), len(events)) {
			if seen[i].Event != events[i].Event || seen[i].Tuple != events[i].Tuple {
				t.Errorf("event %d: %+v, want %+v", i, seen[i].Tuple, events[i].Tuple)
			}
		}
	}
	none := flow(t, "10.0.0.1", "10.0.0.2", ICMP, "icmp-type=3")
	_, making := c.CreateExpect(&Expect{Tuple: none.Orig, Mask: none.Orig,
		Master: flow(t, "10.0.0.1:7", "10.0.0.2:6667", TCP).Orig}, false)
	for what, err := range map[string]error{
		"get of a flow":            c.Get(none, &Flow{}, false),
		"delete of a flow":         c.Delete(none),
		"get of an expectation":    c.GetExpect(&Expect{Tuple: none.Orig}, &Expect{}),
		"delete of an expectation": c.DeleteExpect(&Expect{Tuple: none.Orig}),
		"making of an expectation": making,
	} {
		var r *Refusal
		if !errors.As(err, &r) || r.Why != whyUnanswered {
			t.Errorf("%s with an ICMP type without answer: %v", what, err)
		}
	}
}
