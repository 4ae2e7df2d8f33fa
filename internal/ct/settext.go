package ct

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"nfctl/internal/value"
)

// Readers of typed values that need more than a number or a name.

func parseSeconds(s string) (uint32, error) {
	d, err := value.Duration(s)
	if err == nil && d%time.Second != 0 || d/time.Second > 1<<32-1 {
		err = &value.Error{What: "timeout", Text: s, Valid: "whole seconds, or with a unit: 30s, 5m, 2h, 1d"}
	}
	return uint32(d / time.Second), err
}

// parseTimes reads a time to match: one, or a range "A..B" of two.
func parseTimes(s string) (value.Set, error) {
	rest, not := strings.CutPrefix(s, "!")
	lo, hi, isRange := strings.Cut(rest, "..")
	a, err := value.Time(lo)
	if err != nil {
		return value.Set{}, err
	}
	b := a
	if isRange {
		if b, err = value.Time(hi); err != nil {
			return value.Set{}, err
		}
	}
	if a > b {
		return value.Set{}, &value.Error{What: "time range", Text: s, Valid: "the earlier time first"}
	}
	return value.Set{Nums: []value.Range{{Lo: a, Hi: b}}, Not: not}, nil
}

// setState sets the state of the flow's protocol, which must be known.
func setState(f *Flow, s string) error {
	var names *value.Names
	var bit Has
	var at *uint8
	switch f.Orig.Proto {
	case TCP:
		names, bit, at = TCPStateNames, HasTCPState, &f.TCPState
	case SCTP:
		names, bit, at = SCTPStateNames, HasSCTPState, &f.SCTPState
	case DCCP:
		names, bit, at = DCCPStateNames, HasDCCPState, &f.DCCPState
	default:
		return &value.Error{What: "state", Text: s, Valid: "no state: only tcp, sctp and dccp have one"}
	}
	n, err := names.Parse(s)
	if err == nil {
		*at = uint8(n)
		f.Present |= bit
	}
	return err
}

func setMark(f *Flow, s string) error {
	v, m, err := value.MarkMask(s)
	if err != nil {
		return err
	}
	f.Mark, f.Present = v, f.Present|HasMark
	if m != 1<<32-1 {
		f.MarkMask, f.Present = m, f.Present|HasMarkMask
	}
	return nil
}

// setPort sets a port by number or name, or a GRE key, which may be in
// hexadecimal.
func setPort(set func(*Flow, uint64)) func(*Flow, string) error {
	return func(f *Flow, s string) error {
		if strings.HasPrefix(s, "0x") {
			if n, err := strconv.ParseUint(s, 0, 16); err == nil {
				set(f, n)
				return nil
			}
		}
		p, err := value.Port(s)
		if err == nil {
			set(f, uint64(p))
		}
		return err
	}
}

func setNATAddr(at func(*Flow) *NAT, bits int) func(*Flow, string) error {
	return func(f *Flow, s string) error {
		set, err := value.Addrs(s)
		if err != nil {
			return err
		}
		if set.Not || len(set.Addrs) != 1 || set.Addrs[0].Lo.BitLen() != bits {
			return &value.Error{What: "address to translate to", Text: s, Valid: "an address or a range of the flow's family"}
		}
		at(f).Addr, at(f).AddrMax = set.Addrs[0].Lo, set.Addrs[0].Hi
		return nil
	}
}

func setNATPort(bit Has, at func(*Flow) *NAT) func(*Flow, string) error {
	return func(f *Flow, s string) error {
		set, err := value.Ports(s)
		if err != nil {
			return err
		}
		if set.Not || len(set.Nums) != 1 {
			return &value.Error{What: "port to translate to", Text: s, Valid: "a port or a range of ports"}
		}
		at(f).Port, at(f).PortMax = uint16(set.Nums[0].Lo), uint16(set.Nums[0].Hi)
		f.Present |= bit
		return nil
	}
}

// ParseStatus reads status bits to match: words or numbers, joined by ',': a
// flow matches when it has one of them. UNREPLIED is a flow without SEEN_REPLY,
// UNSET one without any of SEEN_REPLY, ASSURED, EXPECTED, FIXED_TIMEOUT. A '!'
// before the list turns it round.
func ParseStatus(s string) (value.Set, error) {
	rest, not := strings.CutPrefix(s, "!")
	// Each alternative is: status & mask == want.
	type alt struct{ mask, want uint64 }
	var alts []alt
	var all uint64
	for word := range strings.SplitSeq(rest, ",") {
		word = strings.TrimSpace(word)
		var a alt
		switch strings.ToUpper(word) {
		case "UNREPLIED":
			a = alt{StatusSeenReply, 0}
		case "UNSET":
			a = alt{StatusSeenReply | StatusAssured | StatusExpected | StatusFixedTimeout, 0}
		default:
			n, err := StatusNames.Parse(word)
			if err != nil {
				return value.Set{}, err
			}
			if n == 0 || n > 1<<16-1 {
				return value.Set{}, &value.Error{What: "status", Text: word, Valid: "a status bit by name, or a number from 1 to 65535"}
			}
			a = alt{n, n}
		}
		alts, all = append(alts, a), all|a.mask
	}
	// The union of the alternatives, as numbers under one mask: at most 2^16.
	out := value.Set{Mask: all, Not: not}
	for sub := uint64(0); ; sub = (sub - all) & all {
		for _, a := range alts {
			if sub&a.mask == a.want {
				if n := len(out.Nums); n > 0 && out.Nums[n-1].Hi+1 == sub {
					out.Nums[n-1].Hi = sub
				} else {
					out.Nums = append(out.Nums, value.Range{Lo: sub, Hi: sub})
				}
				break
			}
		}
		if sub == all {
			break
		}
	}
	return out, nil
}

func appendUnknown(b []byte, u []Unknown) []byte {
	for i, a := range u {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(strconv.AppendUint(b, uint64(a.Type), 10), ':')
		b = hex.AppendEncode(b, a.Data)
	}
	return b
}
