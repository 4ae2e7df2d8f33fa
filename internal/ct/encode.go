package ct

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"nfctl/internal/nl"
)

// AppendAttrs appends all that f knows as netlink attributes, also what no
// request can set: Decode reads it back. Requests are made with AppendCreate and
// AppendUpdate.
func (f *Flow) AppendAttrs(b []byte) []byte {
	b = appendSteps(b, unsafe.Pointer(f), uint64(f.Present), flowCodec.Get().whole)
	for _, u := range f.Unknown {
		b = nl.AppendAttr(b, u.Type, u.Data)
	}
	return b
}

// appendExtras appends what the kernel takes on create and update alike; family is
// that of a master that does not say its own.
func (f *Flow) appendExtras(b []byte, family uint8) []byte {
	if m := f.Master.whole(family); !f.Master.IsZero() && m != f.Master {
		filled := *f
		filled.Master = m
		f = &filled
	}
	return appendSteps(b, unsafe.Pointer(f), uint64(f.Present), flowCodec.Get().asked)
}

func (f *Flow) appendZone(b []byte) []byte {
	if f.Has(HasZone) {
		b = nl.AppendU16(b, ctaZone, f.Zone)
	}
	return b
}

// appendWhole appends the tuple of a request, unless nothing of it is known.
func (t *Tuple) appendWhole(b []byte, typ uint16, family uint8) []byte {
	if t.IsZero() {
		return b
	}
	w := t.whole(family)
	return w.append(b, typ)
}

// appendText appends a string with its final NUL, which the kernel asks for.
func appendText(b []byte, typ uint16, s []byte) []byte {
	if i := len(b); len(s) < 256 {
		b = nl.AppendAttr(b, typ, s)
		if len(s)%4 == 0 { // no padding to serve as the NUL
			b = append(b, 0, 0, 0, 0)
		}
		binary.NativeEndian.PutUint16(b[i:], uint16(4+len(s)+1))
		return b
	}
	return nl.AppendString(b, typ, string(s))
}

func appendNum32(b []byte, f *Flow, bit Has, typ uint16, n uint32) []byte {
	if f.Has(bit) {
		b = nl.AppendU32(b, typ, n)
	}
	return b
}

func appendAddr(b []byte, v4, v6 uint16, p netip.Addr) []byte {
	switch {
	case p.Is4():
		d := p.As4()
		return nl.AppendAttr(b, v4, d[:])
	case p.Is6():
		d := p.As16()
		return nl.AppendAttr(b, v6, d[:])
	}
	return b
}

// append appends what is known of the tuple as attribute typ: in filters the rest
// is not looked at. Requests about one object take whole tuples.
func (t *Tuple) append(b []byte, typ uint16) []byte {
	b, at := nl.Begin(b, typ)
	if t.Src.IsValid() || t.Dst.IsValid() {
		var ip int
		b, ip = nl.Begin(b, ctaTupleIP)
		b = appendAddr(b, ctaIPv4Src, ctaIPv6Src, t.Src)
		b = appendAddr(b, ctaIPv4Dst, ctaIPv6Dst, t.Dst)
		b = nl.End(b, ip)
	}
	if t.Present&(TupleProto|TupleSport|TupleDport|TupleType|TupleCode|TupleID) != 0 {
		b = t.appendProto(b)
	}
	if t.Has(TupleZone) {
		b = nl.AppendU16(b, ctaTupleZone, t.Zone)
	}
	return nl.End(b, at)
}

func (t *Tuple) appendProto(b []byte) []byte {
	b, at := nl.Begin(b, ctaTupleProto)
	if t.Has(TupleProto) {
		b = nl.AppendU8(b, ctaProtoNum, t.Proto)
	}
	if t.Has(TupleSport) {
		b = nl.AppendU16(b, ctaProtoSrcPort, t.Sport)
	}
	if t.Has(TupleDport) {
		b = nl.AppendU16(b, ctaProtoDstPort, t.Dport)
	}
	var v6 uint16
	if t.Proto == ICMPv6 {
		v6 = ctaProtoICMPv6ID - ctaProtoICMPID
	}
	if t.Has(TupleID) {
		b = nl.AppendU16(b, ctaProtoICMPID+v6, t.ID)
	}
	if t.Has(TupleType) {
		b = nl.AppendU8(b, ctaProtoICMPType+v6, t.Type)
	}
	if t.Has(TupleCode) {
		b = nl.AppendU8(b, ctaProtoICMPCode+v6, t.Code)
	}
	return nl.End(b, at)
}

// append appends the translation, if there is one, as attribute typ; port says
// whether it has a port.
func (r *NAT) append(b []byte, typ uint16, port bool) []byte {
	if !r.Addr.IsValid() && !r.AddrMax.IsValid() && !port {
		return b
	}
	b, at := nl.Begin(b, typ)
	b = appendAddr(b, ctaNATv4Min, ctaNATv6Min, r.Addr)
	b = appendAddr(b, ctaNATv4Max, ctaNATv6Max, r.AddrMax)
	if port {
		var in int
		b, in = nl.Begin(b, ctaNATProto)
		b = nl.AppendU16(b, ctaProtoNATMin, r.Port)
		if r.PortMax != 0 {
			b = nl.AppendU16(b, ctaProtoNATMax, r.PortMax)
		}
		b = nl.End(b, in)
	}
	return nl.End(b, at)
}

// AppendAttrs appends all that e knows as netlink attributes; Decode reads it
// back. Requests are made of whole tuples.
func (e *Expect) AppendAttrs(b []byte) []byte {
	b = appendSteps(b, unsafe.Pointer(e), uint64(e.Present), expectCodec.Get().whole)
	for _, u := range e.Unknown {
		b = nl.AppendAttr(b, u.Type, u.Data)
	}
	return b
}
