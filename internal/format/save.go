package format

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/lazy"
	"nfctl/internal/value"
)

// savedStatus are the status bits that conntrack(8) saves, in its order.
const savedStatus = ct.StatusExpected | ct.StatusSeenReply | ct.StatusAssured | ct.StatusFixedTimeout

// AppendSave appends a flow as the command that makes it: conntrack(8)'s
// -o save line, followed by what that loses, and a newline. What the kernel lets
// nobody set is left out: counters, times, id and use.
func AppendSave(b []byte, f *ct.Flow) []byte {
	proto := f.Orig.Proto
	b = append(b, "-A "...)
	if f.Has(ct.HasTimeout) {
		b = appendNum(b, "-t ", uint64(f.Timeout))
	}
	if f.Has(ct.HasStatus) {
		b = append(b, "-u "...)
		if f.Status&savedStatus == 0 {
			b = append(b, "UNSET,"...)
		}
		for s := f.Status & savedStatus; s != 0; s &= s - 1 {
			b = append(append(b, ct.StatusNames.Word(uint64(s&-s))...), ',')
		}
		b[len(b)-1] = ' '
	}
	if f.Has(ct.HasSecmark) {
		b = appendNum(b, "-c ", uint64(f.Secmark))
	}
	if f.Has(ct.HasZone) {
		b = appendNum(b, "-w ", uint64(f.Zone))
	}
	if f.Orig.Has(ct.TupleZone) {
		b = appendNum(b, "--orig-zone ", uint64(f.Orig.Zone))
	}
	if f.Reply.Has(ct.TupleZone) {
		b = appendNum(b, "--reply-zone ", uint64(f.Reply.Zone))
	}
	_, snat, sport, spat := f.SrcNAT()
	_, dnat, dport, dpat := f.DstNAT()
	b = saveAddr(b, "-s ", f.Orig.Src)
	b = saveAddr(b, "-d ", f.Orig.Dst)
	if dnat {
		b = saveAddr(b, "-g ", f.Reply.Src)
	} else {
		b = saveAddr(b, "-r ", f.Reply.Src)
	}
	if snat {
		b = saveAddr(b, "-n ", f.Reply.Dst)
	} else {
		b = saveAddr(b, "-q ", f.Reply.Dst)
	}
	b = append(b, "-p "...)
	if protoHead[proto] != "" {
		b = append(append(b, protoWord(proto)...), ' ')
	} else {
		b = appendNum(b, "", uint64(proto))
	}
	b = saveProto(b, f, proto)
	// From here on what conntrack(8) does not write.
	if f.Mark != 0 && f.Has(ct.HasMark) {
		b = appendNum(b, "--mark ", uint64(f.Mark))
	}
	if f.Has(ct.HasLabels) && f.Labels != [16]byte{} {
		b = append(b, "--label-add "...)
		start := len(b)
		b = append(quoteWord(appendBits(b, f.Labels[:], ct.LabelName), start), ' ')
	}
	id := f.Reply.Has(ct.TupleID) // no flag of conntrack(8) stands for that of a reply
	if spat && (!snat || id) {
		b = appendNum(b, "--set snat-port=", uint64(sport))
	}
	if dpat && (!dnat || id) {
		b = appendNum(b, "--set dnat-port=", uint64(dport))
	}
	if f.SNAT.Addr.IsValid() || f.Has(ct.HasSNATPort) {
		b = saveNAT(b, "snat", &f.SNAT, f.Has(ct.HasSNATPort))
	}
	if f.DNAT.Addr.IsValid() || f.Has(ct.HasDNATPort) {
		b = saveNAT(b, "dnat", &f.DNAT, f.Has(ct.HasDNATPort))
	}
	if f.Present&^inLine != 0 || f.TCPWscaleOrig|f.TCPWscaleReply|f.TCPFlagsOrig|f.TCPFlagsReply != 0 ||
		!f.Master.IsZero() {
		b = saveExtras(b, f)
	}
	b[len(b)-1] = '\n'
	return b
}

// inLine are the attributes that a line has words of its own for, or that nobody
// can set. All others that a new flow can be given follow as --set, by their rows.
const inLine = ct.HasStatus | ct.HasTimeout | ct.HasMark | ct.HasMarkMask | ct.HasUse | ct.HasID | ct.HasZone |
	ct.HasSecmark |
	ct.HasSecctx | ct.HasLabels | ct.HasLabelsMask | ct.HasStart | ct.HasStop | ct.HasEventTime | ct.HasOrigCounters |
	ct.HasReplyCounters | ct.HasTCPState | ct.HasTCPWscaleOrig | ct.HasTCPWscaleReply | ct.HasTCPFlagsOrig |
	ct.HasTCPFlagsReply |
	ct.HasTCPMaskOrig | ct.HasTCPMaskReply | ct.HasSCTPState | ct.HasSCTPVtagOrig | ct.HasSCTPVtagReply |
	ct.HasDCCPState |
	ct.HasDCCPRole | ct.HasSNATPort | ct.HasDNATPort | ct.HasIdle

// savedRows are the rows of those others, numbers first, by the objects that they
// are part of.
var savedRows = lazy.Value[[]savedObject]{Make: func() (out []savedObject) {
	rows := ct.FlowAttrs()
	for _, text := range []bool{false, true} {
		last := ""
		for i := range rows {
			a := &rows[i]
			if ok, _ := a.Settable(false); !ok || a.Presence()&^inLine == 0 ||
				(a.Kind == field.String || a.Kind == field.Bytes) != text {
				continue
			}
			object, _, ok := strings.Cut(a.Path, ".")
			if !ok || object != last {
				out = append(out, savedObject{})
			}
			last = object
			o := &out[len(out)-1]
			o.rows, o.bits = append(o.rows, a), o.bits|a.Presence()
		}
	}
	return out
}}

// A savedObject are rows that the kernel takes only together, or one alone.
type savedObject struct {
	rows []*ct.Attr[ct.Flow]
	bits ct.Has
}

// saveNAT appends a translation that is to be asked for; the kernel sends none.
func saveNAT(b []byte, name string, n *ct.NAT, port bool) []byte {
	if n.Addr.IsValid() {
		family := "-ipv4="
		if n.Addr.Is6() {
			family = "-ipv6="
		}
		b = value.AppendAddr(append(append(append(b, "--set "...), name...), family...), n.Addr)
		if n.AddrMax.IsValid() && n.AddrMax != n.Addr {
			b = value.AppendAddr(append(b, '-'), n.AddrMax)
		}
		b = append(b, ' ')
	}
	if port {
		b = strconv.AppendUint(append(append(append(b, "--set "...), name...), "-port="...), uint64(n.Port), 10)
		if n.PortMax > n.Port {
			b = strconv.AppendUint(append(b, '-'), uint64(n.PortMax), 10)
		}
		b = append(b, ' ')
	}
	return b
}

func saveAddr(b []byte, word string, a netip.Addr) []byte {
	if !a.IsValid() {
		return b
	}
	return append(value.AppendAddr(append(b, word...), a), ' ')
}

func saveProto(b []byte, f *ct.Flow, proto uint8) []byte {
	switch proto {
	case ct.TCP, ct.UDP, ct.UDPLite, ct.SCTP, ct.DCCP:
		b = savePart(b, "--sport ", &f.Orig, ct.TupleSport, f.Orig.Sport)
		b = savePart(b, "--dport ", &f.Orig, ct.TupleDport, f.Orig.Dport)
		b = savePart(b, "--reply-port-src ", &f.Reply, ct.TupleSport, f.Reply.Sport)
		b = savePart(b, "--reply-port-dst ", &f.Reply, ct.TupleDport, f.Reply.Dport)
	case ct.GRE:
		b = savePart(b, "--srckey ", &f.Orig, ct.TupleSport, f.Orig.Sport)
		b = savePart(b, "--dstkey ", &f.Orig, ct.TupleDport, f.Orig.Dport)
		b = savePart(b, "--reply-key-src ", &f.Reply, ct.TupleSport, f.Reply.Sport)
		b = savePart(b, "--reply-key-dst ", &f.Reply, ct.TupleDport, f.Reply.Dport)
	case ct.ICMP:
		b = savePart(b, "--icmp-type ", &f.Orig, ct.TupleType, uint16(f.Orig.Type))
		b = savePart(b, "--icmp-code ", &f.Orig, ct.TupleCode, uint16(f.Orig.Code))
		b = savePart(b, "--icmp-id ", &f.Orig, ct.TupleID, f.Orig.ID)
	case ct.ICMPv6:
		b = savePart(b, "--icmpv6-type ", &f.Orig, ct.TupleType, uint16(f.Orig.Type))
		b = savePart(b, "--icmpv6-code ", &f.Orig, ct.TupleCode, uint16(f.Orig.Code))
		b = savePart(b, "--icmpv6-id ", &f.Orig, ct.TupleID, f.Orig.ID)
	}
	if w := stateWord(f); w != "" {
		b = append(append(append(b, "--state "...), w...), ' ')
	}
	if f.Has(ct.HasSCTPVtagOrig) {
		b = appendNum(b, "--orig-vtag ", uint64(swapped(f.SCTPVtagOrig)))
	}
	if f.Has(ct.HasSCTPVtagReply) {
		b = appendNum(b, "--reply-vtag ", uint64(swapped(f.SCTPVtagReply)))
	}
	if f.Has(ct.HasDCCPRole) {
		b = append(ct.DCCPRoleNames.Append(append(b, "--role "...), uint64(f.DCCPRole)), ' ')
	}
	return b
}

// swapped turns a verification tag into the number that conntrack(8) writes for
// it, and back: libnetfilter_conntrack takes the four octets of the message,
// which are in network byte order, for a number of the host's.
func swapped(tag uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], tag)
	return binary.NativeEndian.Uint32(b[:])
}

func savePart(b []byte, word string, t *ct.Tuple, part ct.TupleHas, n uint16) []byte {
	if !t.Has(part) {
		return b
	}
	return appendNum(b, word, uint64(n))
}

// saveExtras appends --set for the attributes that no flag of conntrack(8)
// stands for. Those of one object, which the kernel takes only together, are
// written together, and left out when all are zero.
func saveExtras(b []byte, f *ct.Flow) []byte {
	set := func(name string, has ct.Has, n uint64) {
		if f.Has(has) {
			b = appendNum(append(append(append(b, "--set "...), name...), '='), "", n)
		}
	}
	if f.TCPWscaleOrig|f.TCPWscaleReply|f.TCPFlagsOrig|f.TCPFlagsReply != 0 && f.Has(ct.HasTCPState) {
		if f.TCPWscaleOrig|f.TCPWscaleReply != 0 {
			set("tcp-wscale-orig", ct.HasTCPWscaleOrig, uint64(f.TCPWscaleOrig))
			set("tcp-wscale-repl", ct.HasTCPWscaleReply, uint64(f.TCPWscaleReply))
		}
		b = saveFlags(b, f, "tcp-flags-orig", ct.HasTCPFlagsOrig, f.TCPFlagsOrig)
		b = saveFlags(b, f, "tcp-flags-repl", ct.HasTCPFlagsReply, f.TCPFlagsReply)
	}
	if f.Present&^inLine != 0 {
		b = saveObjects(b, f)
	}
	if m := &f.Master; !m.IsZero() {
		v := "ipv4"
		if m.Src.Is6() {
			v = "ipv6"
		}
		b = append(value.Protocols.Append(append(b, "--set master-l4proto="...), uint64(m.Proto)), ' ')
		b = saveAddr(b, "--set master-"+v+"-src=", m.Src)
		b = saveAddr(b, "--set master-"+v+"-dst=", m.Dst)
		b = savePart(b, "--set master-port-src=", m, ct.TupleSport, m.Sport)
		b = savePart(b, "--set master-port-dst=", m, ct.TupleDport, m.Dport)
	}
	return b
}

// saveObjects appends what has no words in the line, by its rows.
func saveObjects(b []byte, f *ct.Flow) []byte {
	for _, o := range savedRows.Get() {
		if f.Present&o.bits == 0 || o.zero(f) {
			continue
		}
		for _, a := range o.rows {
			if a.Has(f) {
				start := len(b) + len("--set ")
				b = append(append(append(b, "--set "...), a.Name...), '=')
				b = append(quoteWord(a.AppendText(b, f), start), ' ')
			}
		}
	}
	return b
}

// zero reports whether f says of the object what a new flow has anyway: 0, or
// nothing.
func (o *savedObject) zero(f *ct.Flow) bool {
	for _, a := range o.rows {
		if n, ok := a.Num(f); ok && n != 0 {
			return false
		}
		if d, ok := a.Data(f); ok && len(d) > 0 {
			return false
		}
	}
	return true
}

func saveFlags(b []byte, f *ct.Flow, name string, has ct.Has, flags uint8) []byte {
	if !f.Has(has) {
		return b
	}
	b = append(append(append(b, "--set "...), name...), '=')
	if flags == 0 {
		b = append(b, '0')
	}
	for n := flags; n != 0; n &= n - 1 {
		if n != flags {
			b = append(b, ',')
		}
		b = ct.TCPFlagNames.Append(b, uint64(1)<<bits.TrailingZeros8(n))
	}
	return append(b, ' ')
}

// quoteWord puts the word from start on into quotes when Split would not read
// it as one word.
func quoteWord(b []byte, start int) []byte {
	for _, c := range b[start:] {
		if c <= ' ' || c == '\'' || c == '"' || c == '\\' || c == '#' || c == 0x7f {
			word := string(b[start:])
			b = append(b[:start], '"')
			for i := range len(word) {
				switch c := word[i]; {
				case c == '"' || c == '\\':
					b = append(b, '\\', c)
				case c < ' ':
					b = append(b, '?') // no name has one
				default:
					b = append(b, c)
				}
			}
			return append(b, '"')
		}
	}
	return b
}

// flowWords appends a flow in the words that patterns are written in.
func flowWords(b []byte, f *ct.Flow) []byte {
	return append(ct.AppendFlow(b, f), '\n')
}
