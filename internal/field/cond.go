package field

import (
	"strconv"
	"strings"

	"nfctl/internal/value"
)

// A Cond says that a field has one of a set of values; of several paths, that
// any of them has. It is the neutral form of what patterns, flags and
// expressions ask for: a predicate is compiled from it, and a kernel filter
// mapped from it.
//
// A field that the subject does not have never matches, negated or not. With
// Set.Not and several paths, at least one must be there, and none may have a
// value of the set.
//
// What a set's members are depends on the field's kind: numbers for Uint, Enum,
// Flags, Time and Bool (under Set.Mask, so that one flag is Nums {b, b} with
// Mask b, and "any of these flags" is Nums {1, b|c} with Mask b|c), addresses
// for Addr, texts for String and Bytes. For Bits Set.Nums are bit numbers, of
// which one must be set.
type Cond struct {
	Paths []string
	Set   value.Set
}

// ParseSet reads what a user types beside the field: with Parse when the row
// has one, else by Kind, with lists and a leading '!' where they make sense.
func (r *Row[T]) ParseSet(s string) (value.Set, error) {
	if r.Parse != nil {
		return r.Parse(s)
	}
	rest, not := strings.CutPrefix(s, "!")
	switch r.Kind {
	case Uint:
		return value.Numbers(r.Path, r.Limit())(s)
	case Enum:
		return r.Names.ParseSet(s)
	case Flags:
		bits, err := r.Names.ParseBits(rest)
		return value.Set{Nums: []value.Range{{Lo: 1, Hi: bits}}, Mask: bits, Not: not}, err
	case Bits:
		return r.parseBits(s, rest, not)
	case Addr:
		return value.Addrs(s)
	case Time:
		n, err := value.Time(rest)
		set := value.Single(n)
		set.Not = not
		return set, err
	case Bool:
		set := value.Single(0)
		switch rest {
		case "true", "1":
			set = value.Single(1)
		case "false", "0":
		default:
			return value.Set{}, &value.Error{What: r.Path, Text: s, Valid: "true or false"}
		}
		set.Not = not
		return set, nil
	}
	return value.Set{Texts: strings.Split(rest, ","), Not: not}, nil
}

func (r *Row[T]) parseBits(s, rest string, not bool) (value.Set, error) {
	out := value.Set{Not: not}
	for one := range strings.SplitSeq(rest, ",") {
		one = strings.TrimSpace(one)
		n, err := strconv.ParseUint(one, 10, 64)
		if err != nil || n > r.Limit() {
			n = r.Limit() + 1
			var words []string
			for i := 0; r.Bit != nil && uint64(i) <= r.Limit(); i++ {
				if words = append(words, r.Bit(i)); strings.EqualFold(r.Bit(i), one) {
					n = uint64(i)
					break
				}
			}
			if n > r.Limit() {
				return value.Set{}, &value.Error{What: r.Path, Text: one, Near: value.Nearest(one, words),
					Valid: "a name, or a bit from 0 to " + strconv.FormatUint(r.Limit(), 10)}
			}
		}
		out.Nums = append(out.Nums, value.Range{Lo: n, Hi: n})
	}
	return out, nil
}

// Limit returns the largest number that the field can hold; of Bits, the
// highest bit (127 when the row does not say).
func (r *Row[T]) Limit() uint64 {
	switch {
	case r.Max != 0:
		return r.Max
	case r.Kind == Bits:
		return 127
	case r.Kind == Bool:
		return 1
	case r.Kind == Enum && r.Names != nil:
		return r.Names.Max
	}
	return 1<<64 - 1
}
