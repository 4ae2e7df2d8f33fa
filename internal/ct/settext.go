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
		return &value.Error{What: "state", Text: s, Why: "only tcp, sctp and dccp have a state"}
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

// flipMark sets how the mark is to change: "V" flips V's bits, "V/M" clears the bits
// in M first. It is what the kernel does: (mark &^ CTA_MARK_MASK) ^ CTA_MARK.
func flipMark(f *Flow, s string) error {
	v, m, masked := strings.Cut(s, "/")
	if !masked {
		m = "0"
	}
	bits, err := strconv.ParseUint(v, 0, 32)
	mask, err2 := strconv.ParseUint(m, 0, 32)
	if err != nil || err2 != nil {
		return &value.Error{What: "mark", Text: s, Valid: "the bits to flip: 0x1, or with bits to clear first 0x1/0xff"}
	}
	f.Mark, f.MarkMask, f.Present = uint32(bits), uint32(mask), f.Present|HasMark|HasMarkMask
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
			return &value.Error{What: "address to translate to", Text: s,
				Valid: "an address or a range of the flow's family"}
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
				return value.Set{}, &value.Error{What: "status", Text: word,
					Valid: "a status bit by name, or a number from 1 to 65535"}
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

// CheckStatus returns an error that names those of the status bits that no request
// can set. CONFIRMED is always there; EXPECTED has an entry that is made with a
// master.
func CheckStatus(bits uint32, master bool) error {
	allowed := uint32(StatusChangeable | StatusConfirmed)
	if master {
		allowed |= StatusExpected
	}
	if no := bits &^ allowed; no != 0 {
		return &value.Error{What: "status to set", Text: string(AppendFlags(nil, StatusNames, uint64(no), ',')),
			Valid: "SEEN_REPLY, ASSURED, FIXED_TIMEOUT or HELPER: " +
				"the kernel alone sets the others (EXPECTED where a master is given)"}
	}
	return nil
}

// SetChange sets an attribute of change from "NAME=VALUE", as Set does for an
// update, of a flow of the protocol in change.Orig. One of another protocol is
// refused: the kernel would ignore it.
func SetChange(change *Flow, text string) error {
	name, _, _ := strings.Cut(text, "=")
	if err := CheckProto(strings.TrimSpace(name), change.Orig.Proto); err != nil {
		return err
	}
	return Set(FlowAttrs(), change, text, true)
}

// CheckProto returns an error when an attribute is one of another protocol.
func CheckProto(name string, proto uint8) error {
	if a := Find(FlowAttrs(), name); a != nil {
		owner, _, _ := strings.Cut(a.Path, ".")
		if p := map[string]uint8{"tcp": TCP, "sctp": SCTP, "dccp": DCCP}[owner]; p != 0 && p != proto {
			return &value.Error{What: "attribute to set", Text: name, Valid: "one that the flow's protocol has"}
		}
	}
	return nil
}

// MaskFlags gives the TCP flags of f, which are to be set, the mask that the kernel
// wants with them and does not send: that of their own bits.
func (f *Flow) MaskFlags() {
	if f.Has(HasTCPFlagsOrig) && f.TCPMaskOrig == 0 {
		f.TCPMaskOrig, f.Present = f.TCPFlagsOrig, f.Present|HasTCPMaskOrig
	}
	if f.Has(HasTCPFlagsReply) && f.TCPMaskReply == 0 {
		f.TCPMaskReply, f.Present = f.TCPFlagsReply, f.Present|HasTCPMaskReply
	}
}

// tcpBeLiberal is IP_CT_TCP_FLAG_BE_LIBERAL: any sequence number is in the window.
const tcpBeLiberal = 8

// BeLiberal has the kernel not look at the windows of both directions of f, which is
// to be made: where their scales are not known it would take packets of a running
// connection for INVALID ones.
func (f *Flow) BeLiberal() {
	f.TCPFlagsOrig, f.TCPFlagsReply = f.TCPFlagsOrig|tcpBeLiberal, f.TCPFlagsReply|tcpBeLiberal
	f.TCPMaskOrig, f.TCPMaskReply = f.TCPMaskOrig|tcpBeLiberal, f.TCPMaskReply|tcpBeLiberal
	f.Present |= HasTCPFlagsOrig | HasTCPFlagsReply | HasTCPMaskOrig | HasTCPMaskReply
}

// Complete adds to f, which is to be set, what the kernel would ignore or refuse
// parts of it without, as the flow now has it: to TCP flags their mask, to a window
// scale that of the other direction and WINDOW_SCALE in the flags of both, to a DCCP
// state the role.
func (f *Flow) Complete(now *Flow) {
	f.MaskFlags()
	if f.Present&(HasTCPWscaleOrig|HasTCPWscaleReply) != 0 {
		if !f.Has(HasTCPWscaleOrig) {
			f.TCPWscaleOrig = now.TCPWscaleOrig
		}
		if !f.Has(HasTCPWscaleReply) {
			f.TCPWscaleReply = now.TCPWscaleReply
		}
		for _, flags := range []*uint8{&f.TCPFlagsOrig, &f.TCPMaskOrig, &f.TCPFlagsReply, &f.TCPMaskReply} {
			*flags |= tcpWindowScale
		}
		f.Present |= hasTCP &^ HasTCPState
	}
	if !f.Has(HasDCCPRole) {
		f.DCCPRole = now.DCCPRole
	}
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
