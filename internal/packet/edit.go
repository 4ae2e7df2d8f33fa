package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"nfctl/internal/lazy"
	"nfctl/internal/value"
)

// ErrAbsent says that an edit is not for this packet: it has no such header, or
// is of the other family. The packet is unchanged.
var ErrAbsent = errors.New("the packet does not have the field")

// Errors for packets that cannot be sent back edited.
var (
	ErrTruncated     = errors.New("the copy of the packet is cut")
	ErrMalformed     = errors.New("the packet is malformed")
	ErrFragment      = errors.New("the packet is a fragment")
	ErrAuthenticated = errors.New("the field is protected by an authentication header")
	ErrOffload       = errors.New("an inner packet's checksum is left to the device")
	ErrNoCopy        = errors.New("nothing of the packet was copied")
	ErrNeedsResize   = errors.New("another length of TCP's payload, which only resize allows")
	ErrFixedLength   = errors.New("another length of a payload whose protocol cannot have one")
	ErrSegments      = errors.New("the packet is many datagrams at once (GSO), whose lengths may not change")
	ErrTooLong       = errors.New("the packet would get too long")
	ErrProtocol      = errors.New("the checksum of this protocol is not known")
)

// maxPacket is the longest packet that a verdict can carry: a netlink
// attribute's length field has 16 bits and counts its own header.
const maxPacket = 0xffff - 4

// Meta is what the kernel says of a packet's checksum (NFQA_SKB_INFO).
type Meta struct {
	GSO          bool // many segments that will be cut apart later
	CsumNotReady bool // the transport checksum is left to the device
}

// An Edit is one change, compiled. It is safe for concurrent use.
type Edit struct {
	Text string // as in a rule: ip.ttl=64, replace "A" "B"

	places   []place
	bits     uint32
	addr     netip.Addr
	old, new []byte         // new: of a regular expression the template
	match    *regexp.Regexp // nil: old as it is
	fit      Fit
	strip    *optionSet
}

// A Fit says what becomes of a replacement that is not as long as what it replaces.
// The zero value leaves it as it is.
type Fit struct {
	Resize bool // TCP payloads, too, get the length that results
	Pad    bool // it is filled with Byte at its right end, or cut
	Byte   byte
}

// A place is where a settable field lies.
type place struct {
	version uint8 // 4, 6; 0: in the transport header
	proto   uint8 // of that transport header
	off     uint8
	width   uint8  // bytes: 1, 2, 4, or an address's 4 or 16
	shift   uint8  // of the value within them
	mask    uint32 // of the bits that belong to the field
	changes change
	mutable bool  // an authentication header does not cover it
	option  uint8 // kind of the TCP option whose value it is in; 0: in a header
}

type change uint8

const (
	chIP        change = 1 << iota // the IP header
	chTransport                    // what the transport checksum covers
)

type settableField struct {
	path   string
	parse  func(string) (value.Set, error)
	places []place
}

func num(what string, max uint64) func(string) (value.Set, error) { return value.Numbers(what, max) }

func bitsOf(n *value.Names) func(string) (value.Set, error) {
	return func(s string) (value.Set, error) {
		b, err := n.ParseBits(s)
		return value.Single(b), err
	}
}

func in(proto, off, width uint8) []place {
	return []place{{proto: proto, off: off, width: width, mask: 1<<(8*width) - 1, changes: chTransport}}
}

// settable are the fields that Set takes, in the order of the headers.
var settable = lazy.Value[[]settableField]{Make: func() []settableField {
	return []settableField{
		{"ip.src", value.Addrs, []place{
			{version: 4, off: 12, width: 4, changes: chIP | chTransport},
			{version: 6, off: 8, width: 16, changes: chIP | chTransport}}},
		{"ip.dst", value.Addrs, []place{
			{version: 4, off: 16, width: 4, changes: chIP | chTransport},
			{version: 6, off: 24, width: 16, changes: chIP | chTransport}}},
		{"ip.ttl", num("TTL", 255), []place{
			{version: 4, off: 8, width: 1, mask: 0xff, changes: chIP, mutable: true},
			{version: 6, off: 7, width: 1, mask: 0xff, changes: chIP, mutable: true}}},
		{"ip.dscp", dscpNames.ParseSet, []place{
			{version: 4, off: 1, width: 1, shift: 2, mask: 0xfc, changes: chIP, mutable: true},
			{version: 6, off: 0, width: 2, shift: 6, mask: 0x0fc0, changes: chIP, mutable: true}}},
		{"ip.ecn", num("ECN", 3), []place{
			{version: 4, off: 1, width: 1, mask: 0x03, changes: chIP, mutable: true},
			{version: 6, off: 0, width: 2, shift: 4, mask: 0x0030, changes: chIP, mutable: true}}},
		{"ip.id", num("identification", 0xffff), []place{
			{version: 4, off: 4, width: 2, mask: 0xffff, changes: chIP}}},
		{"ip.flags", bitsOf(ipFlags), []place{
			{version: 4, off: 6, width: 2, shift: 13, mask: ipDF << 13, changes: chIP, mutable: true}}},
		{"tcp.sport", value.Ports, in(ProtoTCP, 0, 2)},
		{"tcp.dport", value.Ports, in(ProtoTCP, 2, 2)},
		{"tcp.seq", num("sequence number", 1<<32-1), in(ProtoTCP, 4, 4)},
		{"tcp.ack", num("acknowledgment number", 1<<32-1), in(ProtoTCP, 8, 4)},
		{"tcp.flags", bitsOf(tcpFlags), []place{
			{proto: ProtoTCP, off: 12, width: 2, mask: 0x1ff, changes: chTransport}}},
		{"tcp.window", num("window", 0xffff), in(ProtoTCP, 14, 2)},
		{"tcp.mss", num("maximum segment size", 0xffff), []place{
			{proto: ProtoTCP, option: optMSS, width: 2, mask: 0xffff, changes: chTransport}}},
		{"udp.sport", value.Ports, in(ProtoUDP, 0, 2)},
		{"udp.dport", value.Ports, in(ProtoUDP, 2, 2)},
		{"udplite.sport", value.Ports, in(ProtoUDPLite, 0, 2)},
		{"udplite.dport", value.Ports, in(ProtoUDPLite, 2, 2)},
		{"icmp.type", icmpTypes.ParseSet, in(ProtoICMP, 0, 1)},
		{"icmp.code", num("ICMP code", 255), in(ProtoICMP, 1, 1)},
		{"icmp.id", num("ICMP identifier", 0xffff), in(ProtoICMP, 4, 2)},
		{"icmp.seq", num("ICMP sequence number", 0xffff), in(ProtoICMP, 6, 2)},
		{"icmpv6.type", icmpv6Types.ParseSet, in(ProtoICMPv6, 0, 1)},
		{"icmpv6.code", num("ICMPv6 code", 255), in(ProtoICMPv6, 1, 1)},
		{"icmpv6.id", num("ICMPv6 identifier", 0xffff), in(ProtoICMPv6, 4, 2)},
		{"icmpv6.seq", num("ICMPv6 sequence number", 0xffff), in(ProtoICMPv6, 6, 2)},
		{"sctp.sport", value.Ports, in(ProtoSCTP, 0, 2)},
		{"sctp.dport", value.Ports, in(ProtoSCTP, 2, 2)},
		{"dccp.sport", value.Ports, in(ProtoDCCP, 0, 2)},
		{"dccp.dport", value.Ports, in(ProtoDCCP, 2, 2)},
	}
}}

// Settable returns the paths that Set takes.
func Settable() []string {
	var out []string
	for _, f := range settable.Get() {
		out = append(out, f.path)
	}
	return out
}

// Field returns the path of the field that the edit sets, "" when it sets none.
func (e *Edit) Field() string {
	if len(e.places) == 0 {
		return ""
	}
	path, _, _ := strings.Cut(e.Text, "=")
	return path
}

// Set compiles the change of a header field to one value, read as the field's
// filter reads it. Of ip.flags only DF can be set or (with 0) cleared.
// Errors are of type *value.Error.
func Set(path, text string) (*Edit, error) {
	name := path
	if name == "ip.hoplimit" {
		name = "ip.ttl"
	}
	for _, f := range settable.Get() {
		if f.path != name {
			continue
		}
		set, err := f.parse(text)
		var bad *value.Error
		if errors.As(err, &bad) { // of what a filter takes, one value
			valid, _, _ := strings.Cut(bad.Valid, ", a range")
			valid, _, _ = strings.Cut(valid, ", a prefix")
			valid = strings.Replace(valid, ", a service", " or a service", 1)
			part := text
			if strings.Contains(text, ",") { // which of the words it is
				part = bad.Text
			}
			return nil, &value.Error{What: path + " to set", Text: part, Near: bad.Near, Valid: valid}
		}
		if err != nil {
			return nil, err
		}
		e := &Edit{Text: path + "=" + text, places: f.places}
		if f.places[0].mask == 0 {
			a, ok := set.Addr()
			if !ok {
				return nil, &value.Error{What: path + " to set", Text: text, Valid: "one address"}
			}
			e.addr = a
			return e, nil
		}
		n, ok := set.Num()
		if !ok {
			return nil, &value.Error{What: path + " to set", Text: text, Valid: "one value"}
		}
		e.bits = uint32(n)
		if p := f.places[0]; uint64(n)<<p.shift&^uint64(p.mask) != 0 {
			valid := "a value that fits"
			if name == "ip.flags" {
				valid = "DF, or 0 to clear it"
			}
			return nil, &value.Error{What: path + " to set", Text: text, Valid: valid}
		}
		return e, nil
	}
	return nil, &value.Error{What: "field to set", Text: path, Near: value.Nearest(path, Settable()),
		Valid: strings.Join(Settable(), ", ")}
}

// SetNumber compiles the change of a header field to a number that each packet
// gets of its own, with Editor.ApplyNumber; max is the largest that fits. ok is
// false where no number can be set: there is no such field, or it is an address or
// flags.
func SetNumber(path, text string) (e *Edit, max uint64, ok bool) {
	if path == "ip.hoplimit" {
		path = "ip.ttl"
	}
	for _, f := range settable.Get() {
		if p := f.places[0]; f.path == path && p.mask != 0 && !strings.HasSuffix(path, ".flags") {
			return &Edit{Text: path + "=" + text, places: f.places}, uint64(p.mask >> p.shift), true
		}
	}
	return nil, 0, false
}

// For reports whether the packet has the field that an Edit of SetNumber changes.
func (ed *Edit) For(h *Headers) bool {
	return slices.ContainsFunc(ed.places, func(p place) bool {
		switch {
		case p.version != 0:
			return p.version == h.version
		case p.option != 0:
			_, ok := h.tcpOption(p.option)
			return ok
		}
		return h.header(p.proto, int(p.off)+int(p.width)) != nil
	})
}

// Replace compiles the change of every occurrence of old in the transport's
// payload, from its beginning on and without overlaps, to new. With texts of
// different length, UDP, ICMP and ICMPv6 get the length that results; so does
// TCP with fit.Resize, whose sequence numbers then no longer fit: neither they nor
// the acknowledgments that come back are repaired.
func Replace(old, new []byte, fit Fit) (*Edit, error) {
	if len(old) == 0 {
		return nil, &value.Error{What: "text to replace", Valid: "at least one byte"}
	}
	text := "replace " + strconv.Quote(string(old)) + " " + strconv.Quote(string(new))
	return &Edit{Text: text, old: bytes.Clone(old), new: fit.append(nil, len(old), new), fit: fit}, nil
}

// ReplaceRegexp is Replace for what a regular expression of Go matches, in whose
// template ${1} and ${name} stand for groups. A name that is no group of the
// expression is a *value.Error: it would always be empty.
func ReplaceRegexp(match *regexp.Regexp, template string, fit Fit) (*Edit, error) {
	for rest := template; ; {
		_, after, ok := strings.Cut(rest, "$")
		if !ok {
			break
		}
		if rest, ok = strings.CutPrefix(after, "$"); ok {
			continue
		}
		n := 0
		for n < len(after) && (after[n] == '_' || after[n]|32 >= 'a' && after[n]|32 <= 'z' ||
			after[n] >= '0' && after[n] <= '9') {
			n++
		}
		name := after[:n]
		if after, ok := strings.CutPrefix(after, "{"); ok {
			if name, rest, ok = strings.Cut(after, "}"); !ok {
				return nil, &value.Error{What: "replacement", Text: template,
					Valid: "a } behind ${, or $$ for a dollar sign"}
			}
		} else {
			rest = after[n:]
		}
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i <= match.NumSubexp() || match.SubexpIndex(name) > 0 {
			continue
		}
		valid := "$$ for a dollar sign, or a group of the expression, as ${1}"
		if digits := strings.TrimRight(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"); digits != "" &&
			digits != name {
			valid = "braces around the group, as ${" + digits + "}" + name[len(digits):]
		}
		return nil, &value.Error{What: "group of the expression", Text: name, Valid: valid}
	}
	return &Edit{Text: "replace regex " + strconv.Quote(match.String()) + " " + strconv.Quote(template),
		match: match, new: []byte(template), fit: fit}, nil
}

// append appends with to b, which replaces n bytes.
func (f Fit) append(b []byte, n int, with []byte) []byte {
	if !f.Pad {
		return append(b, with...)
	}
	b = append(b, with[:min(len(with), n)]...)
	for range n - len(with) {
		b = append(b, f.Byte)
	}
	return b
}

// An Editor applies edits to one packet at a time and then puts its lengths and
// checksums right. It holds buffers that are reused; it is not for concurrent
// use. The zero value is ready.
//
// Edits change the packet where it lies, in h.Data, and h follows: a rule that
// comes later sees the packet as it now is. A payload of another length moves
// the packet to a buffer of the editor, which is valid until the editor's next
// packet but one is resized; h.Data then points there.
type Editor struct {
	changed change
	begun   bool
	inner   bool   // the checksum that is left to the device is not the transport's own
	old     uint64 // of a first fragment: Headers.headerSum before the first change
	buf     [2][]byte
}

// Reset forgets the packet at hand. Finish does it too.
func (e *Editor) Reset() { e.changed, e.begun, e.inner = 0, false, false }

// Changed reports that an edit has changed the packet at hand: it then needs
// Finish, and its bytes must go with the verdict.
func (e *Editor) Changed() bool { return e.changed != 0 }

// Apply makes one edit. With ErrAbsent the edit is not for this packet, and it
// is as it was. Any other error means that this packet cannot be edited: call
// Reset, and do not send h.Data. Setting what is already so is no change.
func (e *Editor) Apply(h *Headers, m Meta, ed *Edit) error { return e.apply(h, m, ed, ed.bits) }

// ApplyNumber is Apply for an Edit of SetNumber: n, which must fit, is the number.
func (e *Editor) ApplyNumber(h *Headers, m Meta, ed *Edit, n uint64) error {
	return e.apply(h, m, ed, uint32(n))
}

func (e *Editor) apply(h *Headers, m Meta, ed *Edit, bits uint32) error {
	switch {
	case h.version == 0 && h.Truncated():
		return ErrTruncated
	case h.version == 0:
		return ErrAbsent
	case ed.strip != nil:
		return e.stripOptions(h, m, ed.strip)
	case ed.match != nil:
		return e.replaceMatches(h, m, ed)
	case ed.places == nil:
		return e.replace(h, m, ed)
	}
	for i := range ed.places {
		p := &ed.places[i]
		var b []byte
		switch {
		case p.version == 0:
			n := int(p.off) + int(p.width)
			if p.option != 0 {
				n = 20
			}
			if b = h.header(p.proto, n); b == nil {
				if h.Truncated() && (h.l4 == p.proto || h.body == 0 && h.version != 0 && h.state&stBad == 0) {
					return ErrTruncated
				}
				continue
			}
			if p.option != 0 {
				v, ok := h.tcpOption(p.option)
				if !ok || len(v) != int(p.width) {
					continue
				}
				b = v
			}
			if (p.proto == ProtoICMP || p.proto == ProtoICMPv6) && p.off >= 4 && !icmpHasID(p.proto, b[0]) {
				continue
			}
		case p.version == h.version:
			b = h.Data
			if h.state&stBad != 0 {
				return ErrMalformed
			}
		default:
			continue
		}
		if p.mask == 0 && ed.addr.BitLen() != int(p.width)*8 {
			continue
		}
		if h.Truncated() {
			return ErrTruncated
		}
		if h.state&stAH != 0 && !p.mutable {
			return ErrAuthenticated
		}
		if h.Fragment() && p.version == 0 && h.l4 == ProtoSCTP {
			return ErrFragment // a CRC over all fragments
		}
		e.begin(h, m)
		if ed.store(p, b[p.off:], bits) {
			e.changed |= p.changes
		}
		return nil
	}
	return ErrAbsent
}

func (e *Editor) begin(h *Headers, m Meta) {
	h.forget()
	if !e.begun {
		e.begun = true
		e.inner = m.CsumNotReady && !m.GSO && !h.Fragment() && !h.unfinished()
		if h.Fragment() {
			e.old = h.headerSum()
		}
	}
}

// store writes the edit's address or bits to b and reports whether that changed it.
func (ed *Edit) store(p *place, b []byte, bits uint32) bool {
	if p.mask == 0 {
		a := ed.addr.As16()
		v := a[16-int(p.width):]
		if bytes.Equal(b[:p.width], v) {
			return false
		}
		copy(b, v)
		return true
	}
	v := bits << p.shift
	switch p.width {
	case 1:
		n := uint32(b[0])&^p.mask | v
		if n == uint32(b[0]) {
			return false
		}
		b[0] = byte(n)
	case 2:
		was := uint32(binary.BigEndian.Uint16(b))
		n := was&^p.mask | v
		if n == was {
			return false
		}
		binary.BigEndian.PutUint16(b, uint16(n))
	case 4:
		if binary.BigEndian.Uint32(b) == v {
			return false
		}
		binary.BigEndian.PutUint32(b, v)
	}
	return true
}

func (e *Editor) replace(h *Headers, m Meta, ed *Edit) error {
	from, to, err := payloadToEdit(h)
	if err != nil {
		return err
	}
	p := h.Data[from:to]
	at := bytes.Index(p, ed.old)
	if at < 0 || bytes.Equal(ed.old, ed.new) {
		return nil
	}
	if err := payloadFixed(h, m, len(ed.old) != len(ed.new), ed.fit.Resize); err != nil {
		return err
	}
	e.begin(h, m)
	if len(ed.old) == len(ed.new) {
		for at >= 0 {
			copy(p[at:], ed.new)
			p = p[at+len(ed.old):]
			at = bytes.Index(p, ed.old)
		}
		e.changed |= chTransport
		return nil
	}
	buf := append(e.buf[1][:0], h.Data[:from]...)
	for ; at >= 0; at = bytes.Index(p, ed.old) {
		buf = append(append(buf, p[:at]...), ed.new...)
		p = p[at+len(ed.old):]
	}
	return e.resized(h, to, append(buf, p...))
}

// replaceMatches is replace for a regular expression. Matches cost memory, which
// package regexp allots.
func (e *Editor) replaceMatches(h *Headers, m Meta, ed *Edit) error {
	from, to, err := payloadToEdit(h)
	if err != nil {
		return err
	}
	p := h.Data[from:to]
	found := ed.match.FindAllSubmatchIndex(p, -1)
	if found == nil {
		return nil
	}
	buf := append(e.buf[1][:0], h.Data[:from]...)
	at := 0
	for _, x := range found {
		buf = append(buf, p[at:x[0]]...)
		mark := len(buf)
		buf = ed.match.Expand(buf, ed.new, p, x)
		if n, with := x[1]-x[0], buf[mark:]; ed.fit.Pad && len(with) != n {
			buf = ed.fit.append(buf[:mark], n, with)
		}
		if at = x[1]; len(buf) > maxPacket {
			return ErrTooLong
		}
	}
	buf = append(buf, p[at:]...)
	e.buf[1] = buf
	with := buf[from:]
	if bytes.Equal(with, p) {
		return nil
	}
	if err := payloadFixed(h, m, len(with) != len(p), ed.fit.Resize); err != nil {
		return err
	}
	e.begin(h, m)
	if len(with) == len(p) {
		copy(p, with)
		e.changed |= chTransport
		return nil
	}
	return e.resized(h, to, buf)
}

// SetPayload replaces the transport's payload as a whole, under Replace's
// rules for a change of length.
func (e *Editor) SetPayload(h *Headers, m Meta, payload []byte, resize bool) error {
	from, to, err := payloadToEdit(h)
	if err != nil {
		return err
	}
	if bytes.Equal(h.Data[from:to], payload) {
		return nil
	}
	if err := payloadFixed(h, m, len(payload) != to-from, resize); err != nil {
		return err
	}
	e.begin(h, m)
	if len(payload) == to-from {
		copy(h.Data[from:to], payload)
		e.changed |= chTransport
		return nil
	}
	buf := append(e.buf[1][:0], h.Data[:from]...)
	return e.resized(h, to, append(buf, payload...))
}

// payloadToEdit returns the place of the payload, all of which must be there.
func payloadToEdit(h *Headers) (from, to int, err error) {
	if h.Truncated() {
		return 0, 0, ErrTruncated
	}
	from, to, ok := h.payload()
	if !ok || h.l4 == 0 && h.state&stLater == 0 {
		return 0, 0, ErrAbsent
	}
	return from, to, nil
}

// payloadFixed says why a payload cannot be changed, if it cannot.
func payloadFixed(h *Headers, m Meta, resized, allowed bool) error {
	switch _, size := checksumAt(h.l4); {
	case h.Fragment():
		return ErrFragment
	case h.state&stAH != 0:
		return ErrAuthenticated
	case size == 0:
		return ErrProtocol
	case !resized:
		return nil
	}
	switch h.l4 {
	case ProtoTCP:
		if !allowed {
			return ErrNeedsResize
		}
		return nil
	case ProtoUDP:
		if m.GSO {
			return ErrSegments
		}
		return nil
	case ProtoICMP, ProtoICMPv6:
		return nil
	}
	return ErrFixedLength
}

// Never returns why an edit can be made on no packet of a transport protocol, or
// nil where it can on some.
func (ed *Edit) Never(proto uint8) error {
	for _, p := range ed.places {
		if p.version != 0 || p.proto == proto {
			return nil
		}
	}
	if ed.places != nil {
		return ErrAbsent
	}
	switch {
	case ed.strip != nil && proto != ProtoTCP:
		return ErrAbsent
	case ed.strip != nil:
		return nil
	}
	return payloadFixed(&Headers{l4: proto}, Meta{}, ed.match == nil && len(ed.old) != len(ed.new), ed.fit.Resize)
}

// resized makes buf, which is e.buf[1] with headers and a new payload, the
// packet. The old payload ended at to.
func (e *Editor) resized(h *Headers, to int, buf []byte) error {
	buf = append(buf, h.Data[to:h.end]...)
	e.buf[1] = buf
	diff := len(buf) - int(h.end)
	total := h.total + diff
	if len(buf) > maxPacket || h.version == 6 && total-40 > 0xffff {
		return ErrTooLong
	}
	if h.version == 4 {
		binary.BigEndian.PutUint16(buf[2:], uint16(total))
	} else {
		binary.BigEndian.PutUint16(buf[4:], uint16(total-40))
	}
	if h.l4 == ProtoUDP {
		l := buf[h.body+4:]
		if n := int(binary.BigEndian.Uint16(l)); n != 0 {
			binary.BigEndian.PutUint16(l, uint16(n+diff))
		}
	}
	// The packet now lies in buf: what comes next is built in the other buffer.
	e.buf[0], e.buf[1] = e.buf[1], e.buf[0]
	h.Data, h.Length, h.total, h.end = buf, len(buf), total, int32(len(buf))
	e.changed |= chIP | chTransport
	return nil
}

// Finish puts the packet's checksums right and returns its bytes, h.Data. With
// an error the packet cannot be sent back edited.
//
// The kernel takes a packet that comes back as one with nothing left to do for
// the device, so the transport checksum is computed even if only the IP header
// was edited, when the kernel said that it was not ready. A UDP packet of many
// segments gets the sum of its pseudo-header, not complemented, on which the
// kernel builds those of the segments; all others get the full checksum.
func (e *Editor) Finish(h *Headers, m Meta) ([]byte, error) {
	changed, inner := e.changed, e.inner
	e.Reset()
	if changed == 0 {
		return h.Data, nil
	}
	if inner {
		return nil, ErrOffload
	}
	if changed&chIP != 0 {
		h.fixIP()
	}
	switch {
	case h.state&stLater != 0: // the checksum is in the first fragment
	case h.Fragment():
		if m.CsumNotReady {
			return nil, ErrFragment
		}
		if changed&chTransport != 0 {
			if err := h.fixFragment(e.old); err != nil {
				return nil, err
			}
		}
	case changed&chTransport != 0 || m.CsumNotReady || m.GSO:
		if changed&chTransport != 0 && h.addressed() {
			return nil, ErrProtocol
		}
		if err := h.fixTransport(m); err != nil {
			return nil, err
		}
	}
	return h.Data, nil
}

// Fix puts the checksums of a whole packet right that was written otherwise;
// its length fields must be.
func Fix(data []byte, m Meta) error {
	var h Headers
	h.Parse(data, 0)
	switch {
	case h.Undecodable():
		return ErrMalformed
	case h.Truncated():
		return ErrTruncated
	}
	h.fixIP()
	if h.Fragment() {
		return nil
	}
	return h.fixTransport(m)
}

// Finish computes the transport's checksum of a whole packet of which it was left to
// the device. ErrOffload: it is another one, of a packet in a tunnel.
func Finish(data []byte) error {
	var h Headers
	h.Parse(data, 0)
	switch {
	case h.Undecodable():
		return ErrMalformed
	case h.Truncated():
		return ErrTruncated
	case h.Fragment():
		return ErrFragment
	case !h.unfinished():
		return ErrOffload
	}
	return h.fixTransport(Meta{})
}
