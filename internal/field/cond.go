package field

import "nfctl/internal/value"

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
