package value

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// setOf reads a list "a,b,…" with an optional leading '!' (meaning: not these),
// one item at a time. Empty lists and empty items are errors.
func setOf(s, what, valid string, item func(string, *Set) error) (Set, error) {
	var out Set
	rest, not := negated(s)
	out.Not = not
	for one := range strings.SplitSeq(rest, ",") {
		one = strings.TrimSpace(one)
		if one == "" {
			return Set{}, &Error{What: what, Text: s, Valid: valid}
		}
		if err := item(one, &out); err != nil {
			return Set{}, err
		}
	}
	out.Nums = mergeRanges(out.Nums)
	return out, nil
}

const portValid = "a number from 0 to 65535, a service name, a range 1000-2000 or a list 22,80"

// Port reads one port: a number or a service name of any protocol.
func Port(s string) (uint16, error) {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		return uint16(n), nil
	}
	if p, ok := service(s); ok {
		return p, nil
	}
	return 0, &Error{What: "port", Text: s, Valid: portValid, Near: nearestService(s)}
}

// Ports reads ports: numbers, service names, ranges and lists of them, with '!'
// in front for every other port. A range may also be written with ':', as
// iptables does.
func Ports(s string) (Set, error) {
	return setOf(s, "port", portValid, func(one string, out *Set) error {
		if p, err := Port(one); err == nil { // names may hold a '-'
			out.Nums = append(out.Nums, Range{uint64(p), uint64(p)})
			return nil
		}
		lo, hi, isRange := cutRange(one)
		if !isRange || lo == "" || hi == "" {
			_, err := Port(one)
			return err
		}
		a, err := Port(lo)
		if err != nil {
			return err
		}
		b, err := Port(hi)
		if err != nil {
			return err
		}
		if a > b {
			return &Error{What: "port range", Text: one, Valid: "the lower port first"}
		}
		out.Nums = append(out.Nums, Range{uint64(a), uint64(b)})
		return nil
	})
}

func cutRange(s string) (lo, hi string, ok bool) {
	if lo, hi, ok = strings.Cut(s, ":"); ok {
		return lo, hi, true
	}
	return strings.Cut(s, "-")
}

// Numbers returns a reader of numbers up to max (decimal, 0x… or 0…), ranges and lists
// of them, with '!' in front for every other number.
func Numbers(what string, max uint64) func(string) (Set, error) {
	valid := "a number from 0 to " + strconv.FormatUint(max, 10) + ", a range or a list"
	number := func(s string) (uint64, error) {
		n, err := strconv.ParseUint(s, 0, 64)
		if err != nil || n > max {
			return 0, &Error{What: what, Text: s, Valid: valid}
		}
		return n, nil
	}
	return scalars(what, valid, number)
}

// scalars reads lists and ranges of what one reads.
func scalars(what, valid string, one func(string) (uint64, error)) func(string) (Set, error) {
	return func(s string) (Set, error) {
		return setOf(s, what, valid, func(item string, out *Set) error {
			n, err := one(item)
			if err == nil {
				out.Nums = append(out.Nums, Range{n, n})
				return nil
			}
			lo, hi, ok := strings.Cut(item, "-")
			if !ok {
				return err
			}
			a, err := one(lo)
			if err != nil {
				return &Error{What: what, Text: s, Valid: valid}
			}
			b, err := one(hi)
			if err != nil {
				return &Error{What: what, Text: s, Valid: valid}
			}
			if a > b {
				return &Error{What: what + " range", Text: item, Valid: "the lower end first"}
			}
			out.Nums = append(out.Nums, Range{a, b})
			return nil
		})
	}
}

// ParseSet reads words of the table (or numbers), lists of them, with '!' in
// front for every other value.
func (n *Names) ParseSet(s string) (Set, error) {
	return setOf(s, n.What, "", func(one string, out *Set) error {
		num, err := n.Parse(one)
		out.Nums = append(out.Nums, Range{num, num})
		return err
	})
}

// ParseBits reads words of a table whose numbers are bits, and joins them to
// one mask. A plain number is taken as a mask.
func (n *Names) ParseBits(s string) (uint64, error) {
	var bits uint64
	for one := range strings.SplitSeq(s, ",") {
		b, err := n.Parse(strings.TrimSpace(one))
		if err != nil {
			return 0, err
		}
		bits |= b
	}
	return bits, nil
}

const addrValid = "an address, a prefix 10.0.0.0/8, a range 10.0.0.1-10.0.0.9 or a list of them"

// Address reads one IPv4 or IPv6 address, without a zone.
func Address(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, &Error{What: "address", Text: s, Valid: "an IPv4 or IPv6 address"}
	}
	return a, nil
}

// Addrs reads addresses, prefixes (10.0.0.0/8, also 10.0.0.0/255.0.0.0), ranges
// and lists of them, with '!' in front for every other address.
func Addrs(s string) (Set, error) {
	return setOf(s, "address", addrValid, func(one string, out *Set) error {
		r, ok := addrRange(one)
		if !ok {
			return &Error{What: "address", Text: one, Valid: addrValid}
		}
		out.Addrs = append(out.Addrs, r)
		return nil
	})
}

func addrRange(s string) (AddrRange, bool) {
	if a, err := Address(s); err == nil {
		return AddrRange{a, a}, true
	}
	if base, bits, ok := strings.Cut(s, "/"); ok {
		a, err := Address(base)
		if err != nil {
			return AddrRange{}, false
		}
		n, err := strconv.ParseUint(bits, 10, 8)
		if err != nil {
			m, err := netip.ParseAddr(bits)
			if err != nil || m.BitLen() != a.BitLen() {
				return AddrRange{}, false
			}
			ones, ok := maskBits(m)
			if !ok {
				return AddrRange{}, false
			}
			n = uint64(ones)
		}
		p, err := a.Prefix(int(n))
		if err != nil {
			return AddrRange{}, false
		}
		return PrefixRange(p), true
	}
	if lo, hi, ok := strings.Cut(s, "-"); ok {
		a, err1 := Address(lo)
		b, err2 := Address(hi)
		if err1 != nil || err2 != nil || a.BitLen() != b.BitLen() || b.Less(a) {
			return AddrRange{}, false
		}
		return AddrRange{a, b}, true
	}
	return AddrRange{}, false
}

// maskBits returns the number of leading ones of a netmask written as an
// address, and false when it has holes.
func maskBits(m netip.Addr) (int, bool) {
	ones, ended := 0, false
	for _, b := range m.AsSlice() {
		for i := 7; i >= 0; i-- {
			switch {
			case b>>i&1 == 0:
				ended = true
			case ended:
				return 0, false
			default:
				ones++
			}
		}
	}
	return ones, true
}

// PrefixRange returns the addresses of a prefix.
func PrefixRange(p netip.Prefix) AddrRange {
	p = p.Masked()
	hi := p.Addr().AsSlice()
	for i := p.Bits(); i < len(hi)*8; i++ {
		hi[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(hi)
	return AddrRange{p.Addr(), last}
}

// Prefix returns the prefix that holds exactly the range's addresses, and false
// when there is none.
func (r AddrRange) Prefix() (netip.Prefix, bool) {
	for bits := r.Lo.BitLen(); bits >= 0; bits-- {
		p, err := r.Lo.Prefix(bits)
		if err != nil || p.Addr() != r.Lo {
			return netip.Prefix{}, false
		}
		if PrefixRange(p).Hi == r.Hi {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

const markValid = "a 32-bit number as 7, 0x10 or, with a mask, 0x1/0xff"

// MarkMask reads "V" or "V/M" (decimal or 0x…, 32 bits). Without a mask all bits
// count: 0xffffffff. A value with bits outside its mask is refused: it could
// never match.
func MarkMask(s string) (mark, mask uint32, err error) {
	v, m, has := strings.Cut(s, "/")
	n, err := strconv.ParseUint(v, 0, 32)
	k := uint64(1<<32 - 1)
	if err == nil && has {
		k, err = strconv.ParseUint(m, 0, 32)
	}
	if err != nil {
		return 0, 0, &Error{What: "mark", Text: s, Valid: markValid}
	}
	if n&^k != 0 {
		return 0, 0, &Error{What: "mark", Text: s, Valid: "a value within its mask"}
	}
	return uint32(n), uint32(k), nil
}

// Mark reads a mark to match, "V" or "V/M", with '!' in front for every other.
func Mark(s string) (Set, error) {
	rest, not := negated(s)
	v, m, err := MarkMask(rest)
	if err != nil {
		return Set{}, err
	}
	out := Single(uint64(v))
	out.Not = not
	if m != 1<<32-1 {
		out.Mask = uint64(m)
		if m == 0 {
			out = Set{Nums: []Range{{0, 1<<32 - 1}}, Not: not}
		}
	}
	return out, nil
}

// Duration reads "30s", "1m30s", "5ms"; a plain integer is seconds. Negative
// durations are refused.
func Duration(s string) (time.Duration, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, &Error{What: "duration", Text: s,
			Valid: "a number of seconds, or with a unit: 500ms, 30s, 5m, 2h, 1d"}
	}
	return d, nil
}

// Seconds reads durations as whole seconds to match: "30s", "1m-5m", lists.
func Seconds(s string) (Set, error) {
	return scalars("duration", "whole seconds, or with a unit: 30s, 5m, 2h, 1d", func(s string) (uint64, error) {
		d, err := Duration(s)
		if err == nil && d%time.Second != 0 {
			err = &Error{What: "duration", Text: s, Valid: "whole seconds"}
		}
		return uint64(d / time.Second), err
	})(s)
}

var sizeUnits = []struct {
	suffix string
	shift  uint
}{{"KIB", 10}, {"MIB", 20}, {"GIB", 30}, {"TIB", 40}, {"K", 10}, {"M", 20}, {"G", 30}, {"T", 40}, {"B", 0}}

// Size reads a number of bytes: "4096", "64KiB", "8M", "1GiB" (powers of 1024).
func Size(s string) (uint64, error) {
	num, shift := strings.ToUpper(s), uint(0)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(num, u.suffix); ok {
			num, shift = strings.TrimSpace(rest), u.shift
			break
		}
	}
	n, err := strconv.ParseUint(num, 10, 64)
	if err != nil || n > (1<<63-1)>>shift {
		return 0, &Error{What: "size", Text: s, Valid: "bytes, or with a unit: 64KiB, 8MiB, 1GiB"}
	}
	return n << shift, nil
}

// Sizes reads sizes to match: one, a range "1KiB-1MiB" or a list.
func Sizes(s string) (Set, error) {
	return scalars("size", "bytes, or with a unit: 64KiB, 8MiB, 1GiB", Size)(s)
}

// Queues reads queue numbers: "0", "0,3", "0-3" or, as iptables writes it,
// "0:3". Each number comes once, in ascending order.
func Queues(s string) ([]uint16, error) {
	bad := &Error{What: "queue number", Text: s, Valid: "a number from 0 to 65535, a list 0,3 or a range 0-3"}
	set, err := setOf(s, bad.What, bad.Valid, func(one string, out *Set) error {
		lo, hi, ok := cutRange(one)
		if !ok {
			hi = lo
		}
		a, err1 := strconv.ParseUint(lo, 10, 16)
		b, err2 := strconv.ParseUint(hi, 10, 16)
		if err1 != nil || err2 != nil || a > b {
			return bad
		}
		out.Nums = append(out.Nums, Range{a, b})
		return nil
	})
	if err != nil || set.Not {
		return nil, bad
	}
	var out []uint16
	for _, r := range set.Nums {
		for n := r.Lo; n <= r.Hi; n++ {
			out = append(out, uint16(n))
		}
	}
	return out, nil
}

// Time reads an absolute time in RFC 3339, or Unix seconds with an optional
// fraction, as nanoseconds since the epoch.
func Time(s string) (uint64, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil && t.UnixNano() >= 0 {
		return uint64(t.UnixNano()), nil
	}
	sec, frac, _ := strings.Cut(s, ".")
	n, err := strconv.ParseUint(sec, 10, 33)
	if err == nil && len(frac) <= 9 {
		var ns uint64
		if frac != "" {
			ns, err = strconv.ParseUint(frac+strings.Repeat("0", 9-len(frac)), 10, 64)
		}
		if err == nil {
			return n*1e9 + ns, nil
		}
	}
	return 0, &Error{What: "time", Text: s, Valid: "RFC 3339 as 2026-01-02T15:04:05Z, or seconds since the epoch"}
}

// AppendHex appends n as 0x… in lower case.
func AppendHex(b []byte, n uint64) []byte { return strconv.AppendUint(append(b, "0x"...), n, 16) }

// WholeSeconds returns a duration in seconds, which is what the kernel counts timeouts
// in. It must be whole ones, and one at least.
func WholeSeconds(d time.Duration) (uint32, error) {
	if d%time.Second != 0 || d < time.Second || d/time.Second >= 1<<32 {
		return 0, &Error{What: "duration here", Text: d.String(), Valid: "whole seconds, as 30s"}
	}
	return uint32(d / time.Second), nil
}

// NumberIn reads a whole number from lo to hi.
func NumberIn(what, s string, lo, hi uint64) (uint64, error) {
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil || n < lo || n > hi {
		return 0, &Error{What: what, Text: s, Valid: fmt.Sprintf("a number from %d to %d", lo, hi)}
	}
	return n, nil
}

// QueueRanges writes sorted queue numbers as Queues reads them: "0-3,7".
func QueueRanges(nums []uint16) string {
	var b []byte
	for i := 0; i < len(nums); {
		j := i
		for j+1 < len(nums) && nums[j+1] == nums[j]+1 {
			j++
		}
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = fmt.Append(b, nums[i])
		if j > i {
			b = fmt.Appendf(b, "-%d", nums[j])
		}
		i = j + 1
	}
	return string(b)
}
