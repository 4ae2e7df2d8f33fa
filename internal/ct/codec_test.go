package ct

import (
	"net/netip"
	"reflect"
	"testing"

	"nfctl/internal/nl"
)

// full returns a flow that has everything that fits together.
func full() *Flow {
	f := &Flow{}
	for i := range FlowAttrs() {
		a := &FlowAttrs()[i]
		switch {
		case a.Path == "family" || a.Path == "reply.family" || a.Path == "master.family":
			a.SetNum(f, IPv4)
		case a.setNum != nil:
			a.SetNum(f, uint64(i+1))
		case a.addr != nil && a.Bits != 128:
			a.SetAddr(f, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
		case a.setData != nil && a.Bits == 128:
			a.SetData(f, []byte{1, 2, 3, 15: 4})
		case a.setData != nil:
			a.SetData(f, []byte(a.Path[:min(len(a.Path), 8)])) // lengths around the padding's edge
		}
	}
	f.Unknown = append(f.Unknown, Unknown{100, []byte{1, 2, 3}})
	return f
}

func TestRoundTrip(t *testing.T) {
	f := full()
	var g Flow
	if err := g.DecodeAttrs(IPv4, f.AppendAttrs(nil)); err != nil {
		t.Fatal(err)
	}
	for i := range FlowAttrs() {
		a := &FlowAttrs()[i]
		want, got := string(a.AppendText(nil, f)), string(a.AppendText(nil, &g))
		if want != got {
			t.Errorf("%s: %q came back as %q", a.word(), want, got)
		}
		if a.Has(f) != a.Has(&g) {
			t.Errorf("%s: presence %v came back as %v", a.word(), a.Has(f), a.Has(&g))
		}
		if a.setNum != nil && !a.Has(&g) {
			t.Errorf("%s: was set, is absent", a.word())
		}
	}
	if !reflect.DeepEqual(f.Clone(), g.Clone()) {
		t.Errorf("\n%+v came back as\n%+v", f, &g)
	}
}

func TestRoundTripExpect(t *testing.T) {
	e := &Expect{}
	for i := range ExpectAttrs() {
		a := &ExpectAttrs()[i]
		switch {
		case a.Path == "family":
			a.SetNum(e, IPv6)
		case a.setNum != nil:
			a.SetNum(e, uint64(i+1))
		case a.addr != nil:
			a.SetAddr(e, netip.AddrFrom16([16]byte{0xfd, 15: byte(i)}))
		case a.setData != nil:
			a.SetData(e, []byte(a.Path))
		}
	}
	var g Expect
	if err := g.Decode(&nl.Msg{Data: append([]byte{IPv6, 0, 0, 0}, e.AppendAttrs(nil)...)}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(e.Clone(), g.Clone()) {
		t.Errorf("\n%+v came back as\n%+v", e, &g)
	}
}

func TestDecodeAllocs(t *testing.T) {
	b := full().AppendAttrs(nil)
	var f Flow
	if n := testing.AllocsPerRun(100, func() { _ = f.DecodeAttrs(IPv4, b) }); n != 0 {
		t.Errorf("decoding allocates %v times", n)
	}
	out := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { out = f.AppendAttrs(out[:0]) }); n != 0 {
		t.Errorf("encoding allocates %v times", n)
	}
}

// TestReverse holds the mirror of a tuple to its meaning.
func TestReverse(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	tcp := Tuple{Src: a, Dst: b, Proto: TCP, Sport: 1, Dport: 2, Zone: 3,
		Present: TupleProto | TupleSport | TupleDport | TupleZone}
	if got, want := tcp.Reverse(), (Tuple{Src: b, Dst: a, Proto: TCP, Sport: 2, Dport: 1,
		Present: TupleProto | TupleSport | TupleDport}); got != want {
		t.Errorf("%+v", got)
	}
	ping := Tuple{Src: a, Dst: b, Proto: ICMP, Type: 8, ID: 7, Present: TupleProto | TupleType | TupleID | TupleCode}
	if got := ping.Reverse(); got.Type != 0 || got.ID != 7 || got.Src != b {
		t.Errorf("%+v", got)
	}
	for _, tt := range [][3]uint8{{ICMP, 13, 14}, {ICMP, 18, 17}, {ICMP, 3, 255}, {ICMPv6, 128, 129},
		{ICMPv6, 140, 139}, {ICMPv6, 1, 255}} {
		if got := ReplyType(tt[0], tt[1]); got != tt[2] {
			t.Errorf("answer to type %d of %d = %d, want %d", tt[1], tt[0], got, tt[2])
		}
	}
}

// TestUndoNAT: what was translated becomes what to ask for.
func TestUndoNAT(t *testing.T) {
	p := netip.MustParseAddr
	f := Flow{Present: HasStatus, Status: StatusSrcNAT | StatusDstNAT | StatusSrcNATDone | StatusDstNATDone,
		Orig: Tuple{Src: p("10.0.0.1"), Dst: p("10.0.0.2"), Sport: 1111, Dport: 2222, Proto: UDP,
			Present: TupleProto | TupleSport | TupleDport},
		Reply: Tuple{Src: p("10.0.0.3"), Dst: p("10.0.0.4"), Sport: 3333, Dport: 4444, Proto: UDP,
			Present: TupleProto | TupleSport | TupleDport}}
	for path, want := range map[string]string{"nat.src": "10.0.0.4", "nat.dst": "10.0.0.3", "nat.sport": "4444",
		"nat.dport": "3333"} {
		if got := string(Find(FlowAttrs(), path).AppendText(nil, &f)); got != want {
			t.Errorf("%s = %s, want %s", path, got, want)
		}
	}
	f.AskNAT()
	if f.Reply != f.Orig.Reverse() {
		t.Errorf("the reply tuple is no mirror: %+v", f.Reply)
	}
	for name, want := range map[string]string{"snat-ipv4": "10.0.0.4", "dnat-ipv4": "10.0.0.3", "snat-port": "4444",
		"dnat-port": "3333"} {
		if got := string(Find(FlowAttrs(), name).AppendText(nil, &f)); got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint8(IPv4), full().AppendAttrs(nil))
	f.Add(uint8(IPv6), []byte{8, 0, 1, 0x80, 4, 0, 1, 0x80})
	f.Add(uint8(0), []byte{5, 0, 3, 0, 1})
	f.Fuzz(func(t *testing.T, family uint8, b []byte) {
		if len(b) > 4096 {
			return
		}
		var x, y Flow
		_ = x.DecodeAttrs(family, b)
		for i := range FlowAttrs() {
			FlowAttrs()[i].AppendText(nil, &x)
		}
		if err := y.DecodeAttrs(family, x.AppendAttrs(nil)); err != nil {
			t.Fatalf("what was encoded is malformed: %v", err)
		}
		if g, w := y.Clone(), x.Clone(); !reflect.DeepEqual(g, w) {
			t.Fatalf("\n%+v came back as\n%+v", w, g)
		}
	})
}

func FuzzDecodeExpect(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 8, 0, 4, 0, 0, 0, 1, 44})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			return
		}
		var x, y Expect
		_ = x.Decode(&nl.Msg{Data: b})
		for i := range ExpectAttrs() {
			ExpectAttrs()[i].AppendText(nil, &x)
		}
		var family byte
		if len(b) >= 4 {
			family = b[0]
		}
		if err := y.Decode(&nl.Msg{Data: append([]byte{family, 0, 0, 0}, x.AppendAttrs(nil)...)}); err != nil {
			t.Fatalf("what was encoded is malformed: %v", err)
		}
		if g, w := y.Clone(), x.Clone(); !reflect.DeepEqual(g, w) {
			t.Fatalf("\n%+v came back as\n%+v", w, g)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	f := &Flow{Present: HasStatus | HasTimeout | HasMark | HasUse | HasID | HasTCPState,
		Orig: Tuple{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
			Proto: TCP, Sport: 1, Dport: 2, Present: TupleProto | TupleSport | TupleDport}}
	f.Reply = f.Orig.Reverse()
	msg := f.AppendAttrs(nil)
	b.ReportAllocs()
	for b.Loop() {
		_ = f.DecodeAttrs(IPv4, msg)
	}
}
