package rule

import (
	"testing"

	"nfctl/internal/packet"
	"nfctl/internal/packet/packettest"
	"nfctl/internal/queue"
)

// TestApart says of each list of rules whether datagrams of UDP must come apart for
// it, which costs TCP its large segments: only where a rule may judge one.
func TestApart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		apart int // the rule that asks
		proto uint8
		rules []string
	}{
		{0, 0, []string{"drop tcp > :22", "accept if dport == 53", "drop udp > :53", "mark 1"}},
		{0, 0, []string{"set ip.ttl=9", "set udp.dport=9", "drop if udp != nil", "drop if ip.ttl < 5 and udp.dport == 9"}},
		{1, 0, []string{`drop if payload contains "x"`}},
		{2, 0, []string{"accept", "drop if length > 500", `drop if payload contains "x"`}},
		{1, 0, []string{"drop if udp.length > 500"}},
		{1, 0, []string{"drop if ip.length > 500"}},
		{1, 0, []string{"drop if len(payload) > 5 or tcp.dport == 80"}},
		{1, 0, []string{`replace "a" "b"`}},
		{1, 0, []string{`replace "a" "bb" udp > :53`}},
		{1, 0, []string{`replace "a" "bb" > :53`}},
		{0, 0, []string{`replace "a" "bb" resize tcp > :80`, `drop tcp > if payload contains "x"`}},
		{0, 0, []string{`drop if tcp.dport == 80 and payload contains "x"`, "drop if ip.proto == 6 and length > 500", "drop icmp > if length > 500"}},
		{0, 0, []string{`drop if ip.proto in ["tcp", "icmp"] and length > 500`}},
		{1, 0, []string{"drop if ip.proto in 6..17 and length > 500"}},
		{1, 0, []string{"drop if ip.proto != 6 and length > 500"}},
		{1, 0, []string{"drop if not (ip.proto == 6) and length > 500"}},
		{1, 0, []string{"drop ipip > if length > 500"}},
		{1, 0, []string{"drop gre > if length > 500"}},
		{0, packet.ProtoTCP, []string{`replace "a" "b"`, "drop if length > 500"}},
		{1, packet.ProtoUDP, []string{`replace "a" "b"`}},
		{0, 0, []string{`drop if gso and payload contains "x"`}},
		{0, 0, []string{`drop if payload contains "x"`, "accept if gso"}},
	} {
		var rules []Rule
		for _, text := range tt.rules {
			r, err := Parse(text, Options{})
			if err != nil {
				t.Fatal(err)
			}
			rules = append(rules, r)
		}
		s, err := Compile(rules, Options{Proto: tt.proto})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Apart(); got != tt.apart {
			t.Errorf("%q: rule %d, want %d", tt.rules, got, tt.apart)
		}
		if c := s.Needs().Config(queue.Config{}); c.Apart != (tt.apart > 0) {
			t.Errorf("%q: Config.Apart %v", tt.rules, c.Apart)
		}
	}
}

// TestEditsAfterNone: a packet on which an edit changed nothing leaves no trace. The
// checksum of a first fragment is brought up to date from what that packet had.
func TestEditsAfterNone(t *testing.T) {
	t.Parallel()
	r, err := Parse("set ip.ttl=64 udp.dport=9", Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile([]Rule{r}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Engine()
	if err != nil {
		t.Fatal(err)
	}
	decide := func(b []byte) []byte {
		p := queue.Packet{Data: b, Length: uint32(len(b)), Has: queue.HasPayload | queue.HasLength}
		d := queue.Decision{Verdict: queue.Accept}
		e.Decide(&p, &d)
		return d.Data
	}
	mk := func(dport uint16, payload string) []byte {
		return packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: packet.ProtoUDP,
			L4: packettest.UDP(1, dport, payload)}.Bytes()
	}
	fragment := func() []byte {
		b := mk(7, "payload!")
		b[6] = 0x20
		if err := packet.Fix(b, packet.Meta{}); err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := decide(fragment())
	if want == nil {
		t.Fatal("not edited")
	}
	other := mk(7, "another!")
	other[6] = 0x20
	if decide(other) == nil { // what is kept of it is not the next fragment's
		t.Fatal("not edited")
	}
	same := mk(9, "payload!")
	if got := decide(same); got != nil {
		t.Fatalf("nothing to change: %x", got)
	}
	if got := decide(fragment()); string(got) != string(want) {
		t.Errorf("%x, want %x", got, want)
	}
}
