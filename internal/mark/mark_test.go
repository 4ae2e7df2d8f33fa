package mark

import (
	"strings"
	"testing"
)

func TestCodes(t *testing.T) {
	c := &Codes{Mask: DefaultMask}
	if c.FlowMask() != 0xc0000000 || c.FlowBits(AcceptFlow) != 0x40000000 || c.FlowBits(RejectFlow) != 0xc0000000 ||
		c.FlowBits(Reject) != 0 {
		t.Errorf("%#x %#x %#x", c.FlowMask(), c.FlowBits(AcceptFlow), c.FlowBits(RejectFlow))
	}
	c, err := c.Add([]Code{{Verdict: Reject}, {Verdict: DropFlow}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Add([]Code{{Verdict: AcceptFlow, Value: 5, Mask: 0xff}, {Verdict: DropFlow}})
	if err != nil || len(d.List) != 3 {
		t.Fatalf("%v, %v", d, err)
	}
	for want, m := range map[uint32]Code{1 << 28: {Verdict: Reject}, 2 << 28: {Verdict: DropFlow},
		3 << 28: {Verdict: AcceptFlow, Value: 5, Mask: 0xff}} {
		if n, ok := d.Of(m); !ok || n != want {
			t.Errorf("%v: %#x %v, want %#x", m, n, ok, want)
		}
	}
	if _, ok := c.Of(Code{Verdict: AcceptFlow}); ok {
		t.Error("what nobody asked for has a code")
	}
	if !d.Flow() || (&Codes{Mask: DefaultMask, List: []Code{{Verdict: Reject}}}).Flow() || (*Codes)(nil).Flow() {
		t.Error("which decide on flows")
	}
	var many []Code
	for i := range uint32(16) {
		many = append(many, Code{Value: i, Mask: 0xff})
	}
	if _, err := (&Codes{Mask: DefaultMask}).Add(many[:15]); err != nil {
		t.Error(err)
	}
	if _, err := (&Codes{Mask: DefaultMask}).Add(many); err == nil ||
		!strings.Contains(err.Error(), "they need 5 bits of its mark, and --flow-mark 0xf0000000 has 4") {
		t.Errorf("16 codes in 4 bits: %v", err)
	}
	// What rules no longer ask for gives its number to others.
	e, err := d.Only([]Code{{Verdict: DropFlow}}).Add([]Code{{Value: 7, Mask: 0xff}})
	if err != nil || len(e.List) != 2 {
		t.Fatalf("%v, %v", e, err)
	}
	for want, m := range map[uint32]Code{1 << 28: {Value: 7, Mask: 0xff}, 2 << 28: {Verdict: DropFlow}} {
		if n, ok := e.Of(m); !ok || n != want {
			t.Errorf("%v: %#x %v, want %#x", m, n, ok, want)
		}
	}
	if _, ok := d.Only(nil).Of(Code{}); ok || len(d.List) != 3 {
		t.Errorf("a number without a meaning has one, or the codes before were changed: %v", d)
	}
	small := &Codes{Mask: 0x30}
	if small.FlowMask() != 0x30 || small.FlowBits(DropFlow) != 0x20 || small.Number(2) != 0x30 {
		t.Errorf("%#x %#x", small.FlowMask(), small.FlowBits(DropFlow))
	}
}

func TestParseMask(t *testing.T) {
	for text, want := range map[string]uint32{"0xf0000000": DefaultMask, "3": 3, "0x00ff0000": 0xff0000,
		"0xffffffff": 1<<32 - 1} {
		if got, err := ParseMask(text); err != nil || got != want {
			t.Errorf("%s: %#x, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "1", "0x5", "0x100000000", "x"} {
		if got, err := ParseMask(text); err == nil {
			t.Errorf("%q: %#x", text, got)
		}
	}
}
