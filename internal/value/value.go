package value

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// An Error is a text that could not be read as a value.
type Error struct {
	What  string // kind of value: "port"
	Text  string // what was typed
	Valid string // what would have been valid: "a number from 0 to 65535, …"
	Near  string // the nearest valid word, or ""
	Why   string // what is wrong, where no other value would be valid: "it cannot be set"
}

// errorText bounds how much of a text an error quotes, in bytes: a file that was
// named by mistake may be one long line.
const errorText = 200

func (e *Error) Error() string {
	text := e.Text
	if len(text) > errorText {
		text = text[:errorText] + "…"
	}
	if e.Why != "" {
		return fmt.Sprintf("%s %q: %s", e.What, text, e.Why)
	}
	s := fmt.Sprintf("%q is not a valid %s", text, e.What)
	if e.Near != "" && e.Near != e.Text { // what is right elsewhere may be wrong where it stands
		s += fmt.Sprintf(" (did you mean %q?)", e.Near)
	}
	if e.Valid != "" {
		s += ": want " + e.Valid
	}
	return s
}

// A Range is a closed range of numbers.
type Range struct{ Lo, Hi uint64 }

// An AddrRange is a closed range of addresses of one family. A prefix is the
// range from its first to its last address.
type AddrRange struct{ Lo, Hi netip.Addr }

// A Set is what a typed value stands for: the values a field may have. Just one
// of Nums, Addrs and Texts is used, as the field's kind says.
//
// With Mask set, a number is a member when number&Mask is (a mark's mask, or
// status bits); Mask 0 means all bits.
type Set struct {
	Nums  []Range     // sorted, merged
	Addrs []AddrRange // as typed; families may be mixed
	Texts []string
	Mask  uint64
	Not   bool // typed with a leading '!': every value but these
}

// Num returns the set's number when it stands for exactly one.
func (s *Set) Num() (uint64, bool) {
	if len(s.Nums) == 1 && s.Nums[0].Lo == s.Nums[0].Hi && !s.Not {
		return s.Nums[0].Lo, true
	}
	return 0, false
}

// Addr returns the set's address when it stands for exactly one.
func (s *Set) Addr() (netip.Addr, bool) {
	if len(s.Addrs) == 1 && s.Addrs[0].Lo == s.Addrs[0].Hi && !s.Not {
		return s.Addrs[0].Lo, true
	}
	return netip.Addr{}, false
}

// Single returns a set of one number.
func Single(n uint64) Set { return Set{Nums: []Range{{n, n}}} }

// mergeRanges sorts and joins overlapping or touching ranges.
func mergeRanges(r []Range) []Range {
	slices.SortFunc(r, func(a, b Range) int {
		switch {
		case a.Lo < b.Lo:
			return -1
		case a.Lo > b.Lo:
			return 1
		}
		return 0
	})
	out := r[:0]
	for _, x := range r {
		if n := len(out); n > 0 && (out[n-1].Hi == ^uint64(0) || x.Lo <= out[n-1].Hi+1) {
			out[n-1].Hi = max(out[n-1].Hi, x.Hi)
			continue
		}
		out = append(out, x)
	}
	return out
}

// negated cuts a leading '!' off s.
func negated(s string) (string, bool) { return strings.CutPrefix(s, "!") }
