// Package pattern reads and writes flows in words: 'tcp 10.0.0.1:1000 >
// 10.0.0.2:22'. A pattern may leave any part out and may hold prefixes, ranges
// and lists of ports; an exact flow has every part once.
//
//	flow  = [proto] [end] ">" [end] {("type" | "code" | "id" | "zone" | "orig-zone" | "reply-zone") N}
//	proto = name, number or *
//	end   = HOST, [HOST]:PORT, [V6], [V6]:PORT or *
//	HOST  = address, prefix or range
//	PORT  = number, service name, range or list; for gre a key, also 0x…
package pattern

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// Protocol numbers with ports, keys or ICMP words (linux/in.h).
const (
	protoICMP    = unix.IPPROTO_ICMP
	protoTCP     = unix.IPPROTO_TCP
	protoUDP     = unix.IPPROTO_UDP
	protoDCCP    = unix.IPPROTO_DCCP
	protoGRE     = unix.IPPROTO_GRE
	protoICMPv6  = unix.IPPROTO_ICMPV6
	protoSCTP    = unix.IPPROTO_SCTP
	protoUDPLite = unix.IPPROTO_UDPLITE
)

// HasEnds reports whether a flow in words has ports of a protocol, or for gre keys.
func HasEnds(proto uint8) bool {
	switch proto {
	case protoTCP, protoUDP, protoDCCP, protoGRE, protoSCTP, protoUDPLite:
		return true
	}
	return false
}

// PortWord is what the ports of a protocol are called.
func PortWord(proto uint8) string {
	if proto == protoGRE {
		return "key"
	}
	return "port"
}

// HasICMP reports whether conntrack keeps type, code and id of a protocol.
func HasICMP(proto uint8) bool { return proto == protoICMP || proto == protoICMPv6 }

// Parts says which of a pattern's or a flow's numbers are given.
type Parts uint16

const (
	Proto Parts = 1 << iota
	Type
	Code
	ID
	Zone
	OrigZone
	ReplyZone
	Ports // of a Flow: both ports, or both keys
)

// An End is one side of a flow. A set without members stands for any.
type End struct {
	Addrs value.Set
	Ports value.Set // keys when the protocol is gre
}

// A Pattern is a flow in words of which parts may be missing.
type Pattern struct {
	Text  string // as typed
	Has   Parts  // which of the following numbers are given
	Proto uint8
	Type  uint8
	Code  uint8
	ID    uint16
	Zone  uint16 // of both directions

	OrigZone, ReplyZone uint16 // of one direction alone
	Src, Dst            End
}

// A Flow is an exact flow: one direction of a connection. Ports and ICMP words
// count when Has says so.
type Flow struct {
	Proto        uint8
	Src, Dst     netip.Addr
	SPort, DPort uint16 // host byte order; gre: keys
	Type, Code   uint8
	ID           uint16 // host byte order
	Zone         uint16 // 0: the default zone

	OrigZone, ReplyZone uint16 // of one direction alone; 0: Zone is of both
	Has                 Parts
}

// An Error is a text that is no flow in words. It unwraps to a *value.Error.
type Error struct {
	Text   string // the whole text
	Column int    // where it goes wrong, in characters from 1; 0: as a whole
	Err    error  // what is wrong, naming the word
}

func (e *Error) Error() string {
	if e.Column == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("flow '%s': column %d: %v", e.Text, e.Column, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// What the messages say would have been right.
const (
	example    = "'tcp 10.0.0.1:1000 > 10.0.0.2:22'"
	validHost  = "an address, a prefix 10.0.0.0/8 or a range 10.0.0.1-10.0.0.9"
	validEnd   = validHost + ", with :PORT behind it (an IPv6 address in brackets then), or *"
	validWords = "type N, code N, id N, zone N, orig-zone N or reply-zone N"
)

// A word is a part of the text with its place, in bytes.
type word struct {
	text string
	at   int
}

// fields splits s, which begins at byte at, at white space.
func fields(s string, at int) []word {
	var out []word
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if isSpace(r) {
			i += n
			continue
		}
		j := i
		for j < len(s) {
			r, n := utf8.DecodeRuneInString(s[j:])
			if isSpace(r) {
				break
			}
			j += n
		}
		out = append(out, word{s[i:j], at + i})
		i = j
	}
	return out
}

func isSpace(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' }

// Parse reads a pattern. Any part may be missing, but not the '>'.
func Parse(s string) (*Pattern, error) {
	p := &Pattern{Text: s}
	fail := func(at int, err error) (*Pattern, error) {
		return nil, &Error{Text: s, Column: utf8.RuneCountInString(s[:at]) + 1, Err: err}
	}
	left, right, ok := strings.Cut(s, ">")
	if !ok {
		return nil, &Error{Text: s, Err: &value.Error{What: "flow", Text: s,
			Valid: "a flow in words with '>' in it, and in quotes: " + example}}
	}
	if i := strings.IndexByte(right, '>'); i >= 0 {
		return fail(len(left)+1+i, &value.Error{What: "flow", Text: s, Valid: "one '>', as in " + example})
	}

	lw := fields(left, 0)
	if len(lw) > 0 && (len(lw) > 1 || !isEnd(lw[0].text)) {
		if err := p.proto(lw[0].text); err != nil {
			return fail(lw[0].at, err)
		}
		lw = lw[1:]
	}
	if len(lw) > 1 {
		return fail(lw[1].at, &value.Error{What: "part of a flow here", Text: lw[1].text,
			Valid: "'>' after the source, as in " + example})
	}
	if len(lw) == 1 {
		if err := p.end(&p.Src, lw[0].text); err != nil {
			return fail(lw[0].at, err)
		}
	}

	rw := fields(right, len(left)+1)
	if len(rw) > 0 && part(rw[0].text) == 0 {
		if err := p.end(&p.Dst, rw[0].text); err != nil {
			return fail(rw[0].at, err)
		}
		if a, b := p.Src.Addrs.Addrs, p.Dst.Addrs.Addrs; len(a) > 0 && len(b) > 0 && a[0].Lo.Is4() != b[0].Lo.Is4() {
			return fail(rw[0].at, &value.Error{What: "destination here", Text: rw[0].text,
				Valid: "both ends of one family"})
		}
		rw = rw[1:]
	}
	for ; len(rw) > 0; rw = rw[2:] {
		w := part(rw[0].text)
		if w == 0 {
			return fail(rw[0].at, &value.Error{What: "word of a flow", Text: rw[0].text, Valid: validWords,
				Near: value.Nearest(rw[0].text, []string{"type", "code", "id", "zone", "orig-zone", "reply-zone"})})
		}
		if p.Has&w != 0 {
			return fail(rw[0].at, &value.Error{What: "word of a flow here", Text: rw[0].text, Valid: "each word once"})
		}
		if w&(Zone|OrigZone|ReplyZone) == 0 && !(p.Has&Proto != 0 && HasICMP(p.Proto)) {
			return fail(rw[0].at, &value.Error{What: "word of this flow", Text: rw[0].text,
				Valid: "type, code and id with icmp or icmpv6"})
		}
		if len(rw) == 1 {
			return fail(len(s), &value.Error{What: rw[0].text, Text: "", Valid: "a number after " + rw[0].text})
		}
		if err := p.number(w, rw[0].text, rw[1].text); err != nil {
			return fail(rw[1].at, err)
		}
	}
	return p, nil
}

// isEnd reports whether the only word before '>' is an end, not a protocol.
func isEnd(s string) bool { return strings.ContainsAny(s, ".:[/") }

func part(s string) Parts {
	switch s {
	case "type":
		return Type
	case "code":
		return Code
	case "id":
		return ID
	case "zone":
		return Zone
	case "orig-zone":
		return OrigZone
	case "reply-zone":
		return ReplyZone
	}
	return 0
}

func (p *Pattern) proto(s string) error {
	if s == "*" {
		return nil
	}
	n, err := value.Protocols.Parse(s)
	if err != nil {
		return err
	}
	if n > 255 { // mptcp: a socket's protocol, in no packet
		return &value.Error{What: "protocol of packets", Text: s, Valid: "a name, or a number from 0 to 255"}
	}
	p.Proto, p.Has = uint8(n), p.Has|Proto
	return nil
}

func (p *Pattern) end(e *End, s string) error {
	if s == "*" {
		return nil
	}
	host, port, hasPort := s, "", false
	switch {
	case s[0] == '[':
		i := strings.IndexByte(s, ']')
		if i < 0 || i+1 < len(s) && s[i+1] != ':' {
			return &value.Error{What: "end of a flow", Text: s, Valid: "an IPv6 address in brackets, as [fd00::1]:53"}
		}
		host, port, hasPort = s[1:i], s[min(i+2, len(s)):], i+1 < len(s)
		if !strings.Contains(host, ":") {
			return &value.Error{What: "IPv6 address", Text: host, Valid: "brackets around IPv6 addresses only"}
		}
	case strings.Count(s, ":") == 1:
		host, port, hasPort = strings.Cut(s, ":")
	}
	if host != "" && host != "*" {
		if strings.ContainsAny(host, ",!") {
			return &value.Error{What: "address of a flow", Text: host, Valid: validHost}
		}
		set, err := value.Addrs(host)
		if err != nil {
			return &value.Error{What: "end of a flow", Text: s, Valid: validEnd}
		}
		if v4 := set.Addrs[0].Lo.Is4(); p.Has&Proto != 0 &&
			(p.Proto == protoICMP && !v4 || p.Proto == protoICMPv6 && v4) {
			near := "icmp"
			if !v4 {
				near = "icmpv6"
			}
			return &value.Error{What: "address for " + value.Protocols.Word(uint64(p.Proto)), Text: host,
				Valid: near + " with this address"}
		}
		e.Addrs = set
	}
	if !hasPort || port == "*" {
		return nil
	}
	if p.Has&Proto != 0 && !HasEnds(p.Proto) {
		return &value.Error{What: "end of a flow", Text: s,
			Why: string(value.Protocols.Append(nil, uint64(p.Proto))) + " has no ports"}
	}
	read := value.Ports
	if p.Has&Proto != 0 && p.Proto == protoGRE {
		read = value.Numbers("gre key", 65535)
	}
	if strings.HasPrefix(port, "!") {
		return &value.Error{What: "port of a flow", Text: port, Valid: "a number, a name, a range or a list"}
	}
	set, err := read(port)
	if err != nil {
		return err
	}
	e.Ports = set
	return nil
}

func (p *Pattern) number(w Parts, name, s string) error {
	bits := 16
	if w == Type || w == Code {
		bits = 8
	}
	base, digits := 10, s
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		base, digits = 16, hex
	}
	n, err := strconv.ParseUint(digits, base, bits)
	if err != nil {
		return &value.Error{What: name, Text: s, Valid: "a number from 0 to " + strconv.Itoa(1<<bits-1)}
	}
	switch w {
	case Type:
		p.Type = uint8(n)
	case Code:
		p.Code = uint8(n)
	case ID:
		p.ID = uint16(n)
	case Zone:
		p.Zone = uint16(n)
	case OrigZone:
		p.OrigZone = uint16(n)
	case ReplyZone:
		p.ReplyZone = uint16(n)
	}
	p.Has |= w
	return nil
}

// ParseFlow reads an exact flow: what its protocol needs must be there, and
// every part must stand for one value. Without "zone" it is in zone 0.
func ParseFlow(s string) (Flow, error) {
	p, err := Parse(s)
	if err != nil {
		return Flow{}, err
	}
	return p.Flow()
}

// Flow returns the exact flow that the pattern stands for, or an error that
// says what is missing or stands for more than one value.
func (p *Pattern) Flow() (Flow, error) {
	f := Flow{Proto: p.Proto, Type: p.Type, Code: p.Code, ID: p.ID, Zone: p.Zone, OrigZone: p.OrigZone,
		ReplyZone: p.ReplyZone}
	var missing, many []string
	need := func(ok bool, what string) {
		if !ok {
			missing = append(missing, what)
		}
	}
	addr := func(s *value.Set, what string) netip.Addr {
		a, ok := s.Addr()
		if need(len(s.Addrs) > 0, "the "+what); !ok && len(s.Addrs) > 0 {
			many = append(many, what)
		}
		return a
	}
	port := func(s *value.Set, what string) uint16 {
		n, ok := s.Num()
		if need(len(s.Nums) > 0, "the "+what); !ok && len(s.Nums) > 0 {
			many = append(many, what)
		}
		return uint16(n)
	}
	need(p.Has&Proto != 0, "the protocol")
	f.Src = addr(&p.Src.Addrs, "source address")
	f.Dst = addr(&p.Dst.Addrs, "destination address")
	ports := len(p.Src.Ports.Nums)+len(p.Dst.Ports.Nums) > 0
	if p.Has&Proto != 0 && HasEnds(p.Proto) || ports {
		word := PortWord(p.Proto)
		f.SPort = port(&p.Src.Ports, "source "+word)
		f.DPort = port(&p.Dst.Ports, "destination "+word)
		f.Has |= Ports
	}
	f.Has |= Proto
	if HasICMP(p.Proto) {
		need(p.Has&Type != 0, "type N")
		need(p.Has&Code != 0, "code N")
		need(p.Has&ID != 0, "id N")
		f.Has |= Type | Code | ID
	}
	if len(many) > 0 {
		return Flow{}, &Error{Text: p.Text, Err: &value.Error{What: "exact flow", Text: p.Text,
			Valid: "one " + strings.Join(many, " and one ")}}
	}
	if len(missing) > 0 {
		return Flow{}, &Error{Text: p.Text, Err: &value.Error{What: "exact flow", Text: p.Text,
			Valid: strings.Join(missing, " and ")}}
	}
	return f, nil
}

// Append appends an exact flow in the words that ParseFlow reads.
func Append(b []byte, f *Flow) []byte {
	b = value.Protocols.Append(b, uint64(f.Proto))
	b = append(b, ' ')
	b = appendEnd(b, f, f.Src, f.SPort)
	b = append(b, " > "...)
	b = appendEnd(b, f, f.Dst, f.DPort)
	if HasICMP(f.Proto) && f.Has&(Type|Code|ID) != 0 {
		b = strconv.AppendUint(append(b, " type "...), uint64(f.Type), 10)
		b = strconv.AppendUint(append(b, " code "...), uint64(f.Code), 10)
		b = strconv.AppendUint(append(b, " id "...), uint64(f.ID), 10)
	}
	if f.Zone != 0 {
		b = strconv.AppendUint(append(b, " zone "...), uint64(f.Zone), 10)
	}
	if f.OrigZone != 0 {
		b = strconv.AppendUint(append(b, " orig-zone "...), uint64(f.OrigZone), 10)
	}
	if f.ReplyZone != 0 {
		b = strconv.AppendUint(append(b, " reply-zone "...), uint64(f.ReplyZone), 10)
	}
	return b
}

func appendEnd(b []byte, f *Flow, a netip.Addr, port uint16) []byte {
	if f.Has&Ports == 0 || !HasEnds(f.Proto) {
		return a.AppendTo(b)
	}
	if a.Is4() {
		b = append(a.AppendTo(b), ':')
	} else {
		b = append(a.AppendTo(append(b, '[')), "]:"...)
	}
	if f.Proto == protoGRE {
		return value.AppendHex(b, uint64(port))
	}
	return strconv.AppendUint(b, uint64(port), 10)
}

// String returns the flow in words.
func (f Flow) String() string { return string(Append(nil, &f)) }

// Paths names the fields of a subject that a pattern speaks of. Of several
// names any may match; none: the subject has no such field.
type Paths struct {
	Proto, Src, Dst, SPort, DPort, Type, Code, ID, Zone, OrigZone, ReplyZone []string
}

// FlowPaths are the fields of conntrack's flows, in the original direction.
var FlowPaths = Paths{
	Proto: []string{"proto"}, Src: []string{"orig.src"}, Dst: []string{"orig.dst"},
	SPort: []string{"orig.sport"}, DPort: []string{"orig.dport"},
	Type: []string{"orig.type"}, Code: []string{"orig.code"}, ID: []string{"orig.id"},
	Zone: []string{"zone"}, OrigZone: []string{"orig.zone"}, ReplyZone: []string{"reply.zone"},
}

// Conds returns what the pattern asks of a subject with these fields, all of
// which must hold; none when it leaves everything open.
func (p *Pattern) Conds(paths Paths) ([]field.Cond, error) {
	out := make([]field.Cond, 0, 4)
	var err error
	add := func(names []string, what string, set value.Set) {
		if len(names) == 0 && err == nil {
			err = &Error{Text: p.Text, Err: &value.Error{What: "pattern here", Text: p.Text, Valid: "no " + what}}
		}
		out = append(out, field.Cond{Paths: slices.Clip(names), Set: set})
	}
	num := func(w Parts, names []string, what string, n uint64) {
		if p.Has&w != 0 {
			add(names, what, value.Single(n))
		}
	}
	num(Proto, paths.Proto, "protocol", uint64(p.Proto))
	for _, e := range []struct {
		names []string
		what  string
		set   *value.Set
	}{
		{paths.Src, "source address", &p.Src.Addrs}, {paths.SPort, "source port", &p.Src.Ports},
		{paths.Dst, "destination address", &p.Dst.Addrs}, {paths.DPort, "destination port", &p.Dst.Ports},
	} {
		if len(e.set.Addrs)+len(e.set.Nums) > 0 {
			add(e.names, e.what, *e.set)
		}
	}
	num(Type, paths.Type, "type", uint64(p.Type))
	num(Code, paths.Code, "code", uint64(p.Code))
	num(ID, paths.ID, "id", uint64(p.ID))
	num(Zone, paths.Zone, "zone", uint64(p.Zone))
	num(OrigZone, paths.OrigZone, "orig-zone", uint64(p.OrigZone))
	num(ReplyZone, paths.ReplyZone, "reply-zone", uint64(p.ReplyZone))
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}
