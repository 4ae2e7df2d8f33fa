// Package mark has the codes by which a queue tells the table of nf_tables behind it
// what the kernel is to do with a packet: a number in some bits of the packet's mark,
// which that table reads and clears again. What is for a whole flow goes into the
// connection's mark from there.
package mark

import (
	"fmt"
	"math/bits"
	"slices"

	"nfctl/internal/value"
)

// DefaultMask are the bits that codes take unless told otherwise.
const DefaultMask = 0xf0000000

// A Verdict is what the kernel does with the packet that bears a code.
type Verdict uint8

const (
	Pass       Verdict = iota // it goes on
	AcceptFlow                // it goes on, and the rest of its flow too
	DropFlow
	RejectFlow
	Reject // the packet alone is refused
	Drop   // the packet alone is dropped, behind what is written to its connection

	// Translated is said by the table: the destination of the packet, which this host
	// sends, is not the one that its sender gave.
	Translated

	// Those from here on are said of copies that nfctl sends, which pass output first. They
	// are not queued up to a hook, where the packet was that they are copies of.
	CopyOutput
	CopyPostrouting
	CopyPrerouting
	CopyInput
)

// A Code is one meaning: a verdict, and bits for the connection's mark.
type Code struct {
	Verdict     Verdict
	Value, Mask uint32 // of the connection's mark; Mask 0: none
}

// Codes are the meanings of the numbers in the bits of Mask; the first has number 1. A
// number without a meaning has the Code{}.
type Codes struct {
	Mask uint32 // two bits or more, side by side
	List []Code
}

// ParseMask reads a mask for codes.
func ParseMask(s string) (uint32, error) {
	n, err := value.NumberIn("mask", s, 0, 1<<32-1)
	m := uint32(n)
	if err != nil || bits.OnesCount32(m) < 2 || m>>bits.TrailingZeros32(m)&(m>>bits.TrailingZeros32(m)+1) != 0 {
		return 0, &value.Error{What: "mask", Text: s, Valid: "two bits or more side by side, as 0xf0000000"}
	}
	return m, nil
}

// FlowMask returns the bits of a connection's mark in which a flow's verdict stands:
// the two highest of Mask.
func (c *Codes) FlowMask() uint32 { return 3 << (30 - bits.LeadingZeros32(c.Mask)) }

// FlowBits returns what a verdict on a flow is in those bits; 0 for the others.
func (c *Codes) FlowBits(v Verdict) uint32 {
	if v > RejectFlow {
		return 0
	}
	return uint32(v) << (30 - bits.LeadingZeros32(c.Mask))
}

// Number returns the bits of code i of the list.
func (c *Codes) Number(i int) uint32 { return uint32(i+1) << bits.TrailingZeros32(c.Mask) }

// Of returns the bits that a packet must bear for a meaning; false when it has no code.
func (c *Codes) Of(m Code) (uint32, bool) {
	for i := range c.List {
		if c.List[i] == m && m != (Code{}) {
			return c.Number(i), true
		}
	}
	return 0, false
}

// Has reports whether some code is of one of these verdicts.
func (c *Codes) Has(vs ...Verdict) bool {
	return c != nil && slices.ContainsFunc(c.List, func(m Code) bool { return slices.Contains(vs, m.Verdict) })
}

// Flow reports whether some code decides on whole flows.
func (c *Codes) Flow() bool { return c.Has(AcceptFlow, DropFlow, RejectFlow) }

// Only returns codes in which those of the list keep their numbers, and other numbers are
// free again.
func (c *Codes) Only(list []Code) *Codes {
	n := &Codes{Mask: c.Mask, List: slices.Clone(c.List)}
	for i, m := range n.List {
		if !slices.Contains(list, m) {
			n.List[i] = Code{}
		}
	}
	return n
}

// Add returns codes in which those of c keep their numbers and more follow. An error
// says how many bits are needed.
func (c *Codes) Add(more []Code) (*Codes, error) {
	n := &Codes{Mask: c.Mask, List: slices.Clone(c.List)}
	for _, m := range more {
		if slices.Contains(n.List, m) {
			continue
		}
		if free := slices.Index(n.List, Code{}); free >= 0 {
			n.List[free] = m
		} else {
			n.List = append(n.List, m)
		}
	}
	for len(n.List) > 0 && n.List[len(n.List)-1] == (Code{}) {
		n.List = n.List[:len(n.List)-1]
	}
	have := bits.OnesCount32(c.Mask)
	if need := bits.Len(uint(len(n.List))); need > have {
		return nil,
			fmt.Errorf("the rules have %d different ends for a packet (verdicts on flows, reject, connection marks "+
				"and what they make together): "+
				"they need %d bits of its mark, and --flow-mark %#x has %d", len(n.List), need, c.Mask, have)
	}
	return n, nil
}
