package ct

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"nfctl/internal/field"
	"nfctl/internal/filter"
	"nfctl/internal/nl"
	"nfctl/internal/value"
)

// A sieve is a socket with a filter of events: what the kernel does with a message
// that another program would get.
type sieve struct{ in, out int }

func newSieve(t testing.TB, program []unix.SockFilter) *sieve {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(program) > 0 {
		if err := unix.SetsockoptSockFprog(fds[1], unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}); err != nil {
			t.Fatalf("the kernel refuses %d instructions: %v", len(program), err)
		}
	}
	return &sieve{fds[0], fds[1]}
}

func (s *sieve) close() { _, _ = unix.Close(s.in), unix.Close(s.out) }

// passes reports whether the message comes through.
func (s *sieve) passes(t testing.TB, msg []byte) bool {
	t.Helper()
	// A message that the filter drops is EPERM to whoever sends it (sock_filter).
	if _, err := unix.Write(s.in, msg); err != nil && err != unix.EPERM {
		t.Fatal(err)
	}
	var b [4096]byte
	n, err := unix.Read(s.out, b[:])
	if err != nil && err != unix.EAGAIN {
		t.Fatal(err)
	}
	return n > 0
}

// eventMessage is the kernel's message of an event.
func eventMessage(f *Flow, msg uint8, flags uint16) []byte {
	b := nl.AppendHeader(nil, nl.Type(nl.SubsysCt, msg), flags, f.Orig.Family, 0)
	return nl.Finish(f.AppendAttrs(b), 0)
}

func randomFlow(r *rand.Rand) *Flow {
	f := &Flow{Present: HasID | HasStatus, ID: r.Uint32(), Status: r.Uint32N(1 << 10)}
	family := []uint8{IPv4, IPv6}[r.IntN(2)]
	addr := func() netip.Addr {
		n := byte(r.IntN(6))
		if family == IPv4 {
			return netip.AddrFrom4([4]byte{10, 0, n, byte(r.IntN(4))})
		}
		return netip.AddrFrom16([16]byte{0xfd, 0, 0, 0, n, 15: byte(r.IntN(4))})
	}
	proto := []uint8{TCP, UDP, ICMP, ICMPv6, GRE, SCTP, DCCP, 50}[r.IntN(8)]
	for _, t := range []*Tuple{&f.Orig, &f.Reply} {
		*t = Tuple{Src: addr(), Dst: addr(), Family: family, Proto: proto, Present: TupleFamily | TupleProto}
		switch proto {
		case ICMP, ICMPv6:
			t.Type, t.Code, t.ID = uint8(r.IntN(20)), uint8(r.IntN(3)), uint16(r.IntN(5))
			t.Present |= TupleType | TupleCode | TupleID
		case 50:
		default:
			t.Sport, t.Dport = uint16(r.IntN(8)*r.IntN(9000)), uint16(r.IntN(100))
			t.Present |= TupleSport | TupleDport
		}
	}
	if r.IntN(2) == 0 {
		f.Mark, f.Present = r.Uint32N(4)<<r.IntN(31), f.Present|HasMark
	}
	if r.IntN(3) == 0 {
		f.Present &^= HasStatus
	}
	if r.IntN(2) == 0 {
		f.Timeout, f.Present = 30, f.Present|HasTimeout
	}
	return f
}

// randomCond returns a condition on what a filter can be made of, in the main.
func randomCond(r *rand.Rand) field.Cond {
	type choice struct {
		paths []string
		max   uint64
	}
	choices := []choice{
		{[]string{"family"}, 12}, {[]string{"proto"}, 140}, {[]string{"orig.sport"}, 65535}, {[]string{"orig.dport"}, 100}, {[]string{"reply.dport"}, 100},
		{[]string{"orig.sport", "orig.dport", "reply.sport", "reply.dport"}, 9000}, {[]string{"orig.type"}, 20}, {[]string{"orig.code"}, 3},
		{[]string{"reply.id"}, 5}, {[]string{"mark"}, 1<<32 - 1}, {[]string{"status"}, 1 << 10}, {[]string{"timeout"}, 60},
	}
	if r.IntN(3) == 0 {
		paths := [][]string{{"orig.src"}, {"orig.dst"}, {"reply.src"}, {"reply.dst"},
			{"orig.src", "orig.dst", "reply.src", "reply.dst"}}[r.IntN(5)]
		var s value.Set
		for range 1 + r.IntN(3) {
			text := fmt.Sprintf("10.0.%d.0/%d", r.IntN(6), 22+r.IntN(11))
			if r.IntN(2) == 0 {
				text = fmt.Sprintf("fd00:0:%d00::/%d", r.IntN(6), 30+r.IntN(99))
			}
			one, err := value.Addrs(text)
			if err != nil {
				panic(err)
			}
			s.Addrs = append(s.Addrs, one.Addrs...)
		}
		s.Not = r.IntN(4) == 0
		return field.Cond{Paths: paths, Set: s}
	}
	c := choices[r.IntN(len(choices))]
	s := value.Set{Not: r.IntN(4) == 0}
	for range 1 + r.IntN(3) {
		lo := r.Uint64N(c.max + 1)
		hi := lo
		if r.IntN(2) == 0 {
			hi = lo + r.Uint64N(c.max-lo+1)
		}
		s.Nums = append(s.Nums, value.Range{Lo: lo, Hi: hi})
	}
	if c.max > 1<<20 && r.IntN(2) == 0 {
		s.Mask = 1<<r.IntN(32) | 3
		s.Nums = []value.Range{{Lo: 1, Hi: s.Mask}}
	}
	return field.Cond{Paths: c.paths, Set: s}
}

// TestFilterEvents holds the kernel's choice to that of the predicate, over random
// conditions and flows: never too little, and no more where it is said to be
// exact.
func TestFilterEvents(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	passed, kept, exact := 0, 0, 0
	for range 300 {
		var conds []field.Cond
		for range 1 + r.IntN(3) {
			conds = append(conds, randomCond(r))
		}
		match, err := filter.Conds(FlowFields, conds...)
		if err != nil {
			t.Fatal(err)
		}
		f := FilterEvents(conds, true)
		if f.Exact {
			exact++
		}
		s := newSieve(t, f.Program)
		for range 100 {
			flow := randomFlow(r)
			msg := eventMessage(flow, []uint8{msgNew, msgDelete}[r.IntN(2)], 0)
			// What the watch would see is what it decodes.
			var seen Flow
			m, _, _ := nl.NextMsg(msg)
			if err := seen.Decode(&m); err != nil {
				t.Fatal(err)
			}
			want, got := match(&seen), s.passes(t, msg)
			switch {
			case want && !got:
				t.Fatalf("%+v: kept back %s (mark %d, %v)", conds, flowName(flow), flow.Mark, flow.Has(HasMark))
			case got && !want && f.Exact:
				t.Fatalf("%+v: passed %s (mark %d, %v)", conds, flowName(flow), flow.Mark, flow.Has(HasMark))
			case got:
				passed++
			default:
				kept++
			}
		}
		s.close()
	}
	if passed < 1000 || kept < 1000 || exact < 100 {
		t.Errorf("%d passed, %d kept back, %d of 300 exact: too few to say anything", passed, kept, exact)
	}
}

// TestFilterEventsPassesOthers: what is no event about a flow passes.
func TestFilterEventsPassesOthers(t *testing.T) {
	f := FilterEvents([]field.Cond{{Paths: []string{"proto"}, Set: value.Single(TCP)}}, true)
	s := newSieve(t, f.Program)
	defer s.close()
	udp := &Flow{Orig: Tuple{Family: IPv4, Proto: UDP, Present: TupleFamily | TupleProto}}
	if msg := eventMessage(udp, msgNew, 0); s.passes(t, msg) {
		t.Error("an event of UDP passes a filter for TCP")
	}
	for name, msg := range map[string][]byte{
		"expectation":   nl.Finish(nl.AppendHeader(nil, nl.Type(nl.SubsysExpect, msgNew), 0, IPv4, 0), 0),
		"error":         nl.Finish(nl.AppendHeader(nil, unix.NLMSG_ERROR, 0, 0, 0), 0),
		"done":          nl.Finish(nl.AppendHeader(nil, unix.NLMSG_DONE, 0, 0, 0), 0),
		"only a header": nl.Finish(nl.AppendHeader(nil, nl.Type(nl.SubsysExpect, msgDelete), 0, 0, 0)[:16], 0),
	} {
		if !s.passes(t, msg) {
			t.Errorf("%s: kept back", name)
		}
	}
}

// TestFilterEventsLimits: what changes while a flow lives is left to the watch
// where asked; what cannot be compared lets everything pass.
func TestFilterEventsLimits(t *testing.T) {
	mark := field.Cond{Paths: []string{"mark"}, Set: value.Single(1)}
	if f := FilterEvents([]field.Cond{mark}, false); len(f.Program) != 0 || f.Exact {
		t.Errorf("a mark that may change: %d instructions, exact %v", len(f.Program), f.Exact)
	}
	if f := FilterEvents([]field.Cond{mark}, true); len(f.Program) == 0 || !f.Exact {
		t.Errorf("a mark: %d instructions, exact %v", len(f.Program), f.Exact)
	}
	v6, err := value.Addrs("fd00::1-fd00::9")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []field.Cond{
		{Paths: []string{"helper"}, Set: value.Set{Texts: []string{"ftp"}}},
		{Paths: []string{"orig.src"}, Set: v6},
		{Paths: []string{"orig.sport", "orig.dport"}, Set: value.Set{Nums: []value.Range{{Lo: 1, Hi: 2}}, Not: true}},
	} {
		if f := FilterEvents([]field.Cond{c}, true); len(f.Program) != 0 || f.Exact {
			t.Errorf("%v: %d instructions, exact %v", c, len(f.Program), f.Exact)
		}
	}
}
