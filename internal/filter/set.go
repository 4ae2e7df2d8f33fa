package filter

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"nfctl/internal/field"
	"nfctl/internal/lazy"
	"nfctl/internal/value"
)

// Conds compiles conditions, all of which must hold, to one predicate. It
// allocates nothing when called, and is safe for concurrent use. Without
// conditions everything matches.
func Conds[T any](reg *field.Registry[T], conds ...field.Cond) (func(*T) bool, error) {
	tests := make([]func(*T) bool, 0, len(conds))
	for i := range conds {
		test, err := cond(reg, &conds[i])
		if err != nil {
			return nil, err
		}
		tests = append(tests, test)
	}
	return allOf(tests), nil
}

func cond[T any](reg *field.Registry[T], c *field.Cond) (func(*T) bool, error) {
	var tests, has []func(*T) bool
	for _, path := range c.Paths {
		row, err := reg.Find(path)
		if err != nil {
			return nil, err
		}
		set := c.Set
		if len(c.Paths) > 1 {
			set.Not = false // of several fields none may be in the set
		}
		tests = append(tests, member(row, set))
		has = append(has, row.Has)
	}
	if len(tests) == 1 {
		return tests[0], nil
	}
	one := anyOf(tests)
	if !c.Set.Not {
		return one, nil
	}
	there := anyOf(has)
	return func(t *T) bool { return there(t) && !one(t) }, nil
}

// allOf joins tests with "and", anyOf with "or".
func allOf[T any](tests []func(*T) bool) func(*T) bool {
	switch len(tests) {
	case 0:
		return func(*T) bool { return true }
	case 1:
		return tests[0]
	case 2:
		a, b := tests[0], tests[1]
		return func(t *T) bool { return a(t) && b(t) }
	case 3:
		a, b, c := tests[0], tests[1], tests[2]
		return func(t *T) bool { return a(t) && b(t) && c(t) }
	}
	return func(t *T) bool {
		for _, f := range tests {
			if !f(t) {
				return false
			}
		}
		return true
	}
}

func anyOf[T any](tests []func(*T) bool) func(*T) bool {
	switch len(tests) {
	case 1:
		return tests[0]
	case 2:
		a, b := tests[0], tests[1]
		return func(t *T) bool { return a(t) || b(t) }
	}
	return func(t *T) bool {
		for _, f := range tests {
			if f(t) {
				return true
			}
		}
		return false
	}
}

// member compiles "the row's value is in the set". An absent field is in no set,
// negated or not.
func member[T any](row *field.Row[T], s value.Set) func(*T) bool {
	switch {
	case row.Num != nil:
		return memberNum(row.Num, s, row.Limit())
	case row.IP != nil:
		return memberAddr(row.IP, s)
	case row.Data != nil && row.Kind == field.Bits:
		return memberBits(row.Data, s)
	case row.Data != nil:
		return memberText(row.Data, s)
	}
	return func(*T) bool { return false }
}

func memberNum[T any](load func(*T) (uint64, bool), s value.Set, limit uint64) func(*T) bool {
	not, mask := s.Not, s.Mask
	if mask == 0 {
		mask = ^uint64(0)
	}
	ranges := merged(s.Nums)
	if len(ranges) == 1 {
		lo, span := ranges[0].Lo, ranges[0].Hi-ranges[0].Lo
		switch {
		case span == 0 && s.Mask == 0 && !not:
			return func(t *T) bool { n, ok := load(t); return ok && n == lo }
		case span == 0 && s.Mask == 0:
			return func(t *T) bool { n, ok := load(t); return ok && n != lo }
		}
		return func(t *T) bool { n, ok := load(t); return ok && (n&mask-lo <= span) != not }
	}
	if limit <= 65535 && len(ranges) > 2 {
		bits := new([1024]uint64)
		for _, r := range ranges {
			for n := r.Lo; n <= min(r.Hi, 65535); n++ {
				bits[n/64] |= 1 << (n % 64)
			}
		}
		return func(t *T) bool {
			n, ok := load(t)
			n &= mask
			return ok && (n < 65536 && bits[n/64%1024]>>(n%64)&1 != 0) != not
		}
	}
	return func(t *T) bool {
		n, ok := load(t)
		return ok && within(ranges, n&mask) != not
	}
}

// within reports whether n is in one of the ranges, which are sorted and apart.
func within(ranges []value.Range, n uint64) bool {
	lo, hi := 0, len(ranges) // the first range that ends at or behind n is in [lo, hi]
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); ranges[mid].Hi < n {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(ranges) && ranges[lo].Lo <= n
}

// merged returns the ranges sorted, and joined where they touch.
func merged(in []value.Range) []value.Range {
	r := slices.Clone(in)
	slices.SortFunc(r, func(a, b value.Range) int { return cmp.Compare(a.Lo, b.Lo) })
	out := r[:0]
	for _, x := range r {
		if n := len(out); n > 0 && (x.Lo <= out[n-1].Hi || x.Lo == out[n-1].Hi+1) {
			out[n-1].Hi = max(out[n-1].Hi, x.Hi)
			continue
		}
		out = append(out, x)
	}
	return out
}

// addr6 is an IPv6 address as a number.
type addr6 struct{ hi, lo uint64 }

func (a addr6) less(b addr6) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

type range6 struct{ lo, hi addr6 }

func num4(a netip.Addr) uint64 {
	v := a.As4()
	return uint64(binary.BigEndian.Uint32(v[:]))
}

func num6(a netip.Addr) addr6 {
	v := a.As16()
	return addr6{binary.BigEndian.Uint64(v[:8]), binary.BigEndian.Uint64(v[8:])}
}

func memberAddr[T any](load func(*T) (netip.Addr, bool), s value.Set) func(*T) bool {
	not := s.Not
	if len(s.Addrs) == 1 && s.Addrs[0].Lo == s.Addrs[0].Hi {
		want := s.Addrs[0].Lo
		return func(t *T) bool { a, ok := load(t); return ok && (a == want) != not }
	}
	var v4 []value.Range
	var v6 []range6
	for _, r := range s.Addrs {
		if r.Lo.Is4() {
			v4 = append(v4, value.Range{Lo: num4(r.Lo), Hi: num4(r.Hi)})
		} else {
			v6 = append(v6, range6{num6(r.Lo), num6(r.Hi)})
		}
	}
	v4, v6 = merged(v4), merged6(v6)
	if len(v4) == 1 && len(v6) == 0 {
		lo, span := v4[0].Lo, v4[0].Hi-v4[0].Lo
		return func(t *T) bool {
			a, ok := load(t)
			return ok && (a.Is4() && num4(a)-lo <= span) != not
		}
	}
	return func(t *T) bool {
		a, ok := load(t)
		if !ok {
			return false
		}
		if a.Is4() {
			return within(v4, num4(a)) != not
		}
		return a.IsValid() && within6(v6, num6(a)) != not
	}
}

func within6(ranges []range6, n addr6) bool {
	lo, hi := 0, len(ranges)
	for lo < hi {
		if mid := int(uint(lo+hi) >> 1); ranges[mid].hi.less(n) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(ranges) && !n.less(ranges[lo].lo)
}

func merged6(r []range6) []range6 {
	slices.SortFunc(r, func(a, b range6) int {
		return cmp.Or(cmp.Compare(a.lo.hi, b.lo.hi), cmp.Compare(a.lo.lo, b.lo.lo))
	})
	out := r[:0]
	for _, x := range r {
		if n := len(out); n > 0 && !out[n-1].hi.less(x.lo) {
			if out[n-1].hi.less(x.hi) {
				out[n-1].hi = x.hi
			}
			continue
		}
		out = append(out, x)
	}
	return out
}

func memberText[T any](load func(*T) ([]byte, bool), s value.Set) func(*T) bool {
	not := s.Not
	if len(s.Texts) <= 8 {
		texts := slices.Clone(s.Texts)
		return func(t *T) bool {
			d, ok := load(t)
			if !ok {
				return false
			}
			for _, x := range texts {
				if string(d) == x {
					return !not
				}
			}
			return not
		}
	}
	texts := make(map[string]struct{}, len(s.Texts))
	for _, x := range s.Texts {
		texts[x] = struct{}{}
	}
	return func(t *T) bool {
		d, ok := load(t)
		if !ok {
			return false
		}
		_, in := texts[string(d)]
		return in != not
	}
}

// memberBits: Nums are bit numbers of which one must be set.
func memberBits[T any](load func(*T) ([]byte, bool), s value.Set) func(*T) bool {
	not := s.Not
	var mask []byte
	for _, r := range s.Nums {
		for n := r.Lo; n <= r.Hi && n < 8192; n++ {
			mask = setBit(mask, int(n))
		}
	}
	return func(t *T) bool {
		d, ok := load(t)
		return ok && overlap(d, mask) != not
	}
}

// setBit sets bit n of a bit string, making it longer if need be. Bit n is bit
// n%8 of byte n/8.
func setBit(b []byte, n int) []byte {
	if len(b) <= n/8 {
		b = append(b, make([]byte, n/8+1-len(b))...)
	}
	b[n/8] |= 1 << (n % 8)
	return b
}

func overlap(a, b []byte) bool {
	for i := range min(len(a), len(b)) {
		if a[i]&b[i] != 0 {
			return true
		}
	}
	return false
}

// fold is a map of bytes, to compare texts as lower or upper would make them;
// nil: as they are. Only ASCII letters change: what is compared is names and
// bytes, whose encoding nobody knows.
type fold *[256]byte

func folding(from, to byte) fold {
	var f [256]byte
	for i := range f {
		f[i] = byte(i)
		if c := byte(i); c >= from && c < from+26 {
			f[i] = c - from + to
		}
	}
	return &f
}

var (
	lowerFold = lazy.Value[fold]{Make: func() fold { return folding('A', 'a') }}
	upperFold = lazy.Value[fold]{Make: func() fold { return folding('a', 'A') }}
)

func hasPrefix(d []byte, f fold, p []byte) bool {
	if f == nil {
		return bytes.HasPrefix(d, p)
	}
	if len(d) < len(p) {
		return false
	}
	for i, c := range p {
		if f[d[i]] != c {
			return false
		}
	}
	return true
}

func hasSuffix(d []byte, f fold, p []byte) bool {
	return len(d) >= len(p) && hasPrefix(d[len(d)-len(p):], f, p)
}

func contains(d []byte, f fold, p []byte) bool {
	if f == nil {
		return bytes.Contains(d, p)
	}
	for i := 0; i+len(p) <= len(d); i++ {
		if hasPrefix(d[i:], f, p) {
			return true
		}
	}
	return false
}

// compareText orders two texts by bytes, each as its fold makes it.
func compareText(a []byte, fa fold, b []byte, fb fold) int {
	if fa == nil && fb == nil {
		return bytes.Compare(a, b)
	}
	for i := range min(len(a), len(b)) {
		x, y := a[i], b[i]
		if fa != nil {
			x = fa[x]
		}
		if fb != nil {
			y = fb[y]
		}
		if x != y {
			return cmp.Compare(x, y)
		}
	}
	return cmp.Compare(len(a), len(b))
}
