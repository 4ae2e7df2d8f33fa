package ct

import (
	"errors"
	"math/bits"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
)

// errMalformed says that a message ended inside an attribute. What came before
// it was read.
var errMalformed = errors.New("malformed message")

// Decode resets f and reads a flow from a message of the kernel: an element of a
// dump or the answer to a request. f points into m's data. It allocates nothing,
// unless an unknown attribute is met for the first time.
func (f *Flow) Decode(m *nl.Msg) error { return f.DecodeAttrs(m.Family(), m.Body()) }

// DecodeEvent is Decode for a message of a multicast group: it also sets Event
// and By.PortID.
func (f *Flow) DecodeEvent(m *nl.Msg) error {
	err := f.Decode(m)
	f.Event, f.By.PortID = eventOf(m), m.Port
	return err
}

func eventOf(m *nl.Msg) Event {
	switch {
	case m.Msg() == msgDelete:
		return Destroy
	case m.Flags&(unix.NLM_F_CREATE|unix.NLM_F_EXCL) != 0:
		return New
	}
	return Update
}

// decodeOther reads an attribute by its row; without one it is unknown. nest is
// what it is nested in, a byte for each number, and 0 for nothing.
//
//go:noinline
func (f *Flow) decodeOther(family uint8, a nl.Attr, nest uint32) {
	c := flowCodec.Get()
	if nest == 0 {
		c.top.slot(a.Type).read(unsafe.Pointer(f), (*uint64)(&f.Present), family, a, &f.Unknown)
		return
	}
	v := &c.top
	for shift := (bits.Len32(nest) - 1) &^ 7; shift >= 0; shift -= 8 {
		v = v[nest>>shift&0xff%maxAttr].in
	}
	v.slot(a.Type).read(unsafe.Pointer(f), (*uint64)(&f.Present), family, a, nil)
}

func addr4(b []byte) (p netip.Addr) {
	if len(b) >= 4 {
		p = netip.AddrFrom4([4]byte(b))
	}
	return p
}

func addr16(b []byte) (p netip.Addr) {
	if len(b) >= 16 {
		p = netip.AddrFrom16([16]byte(b))
	}
	return p
}

func (t *Tuple) decode(family uint8, b []byte) {
	t.Family, t.Present = family, t.Present|TupleFamily
	for a, b, ok := nl.NextAttr(b); ok; a, b, ok = nl.NextAttr(b) {
		switch a.Type {
		case ctaTupleIP:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				switch n.Type {
				case ctaIPv4Src:
					t.Src = addr4(n.Data)
				case ctaIPv4Dst:
					t.Dst = addr4(n.Data)
				case ctaIPv6Src:
					t.Src = addr16(n.Data)
				case ctaIPv6Dst:
					t.Dst = addr16(n.Data)
				}
			}
		case ctaTupleProto:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				switch n.Type {
				case ctaProtoNum:
					t.u8(n, TupleProto, &t.Proto)
				case ctaProtoSrcPort:
					t.u16(n, TupleSport, &t.Sport)
				case ctaProtoDstPort:
					t.u16(n, TupleDport, &t.Dport)
				case ctaProtoICMPID, ctaProtoICMPv6ID:
					t.u16(n, TupleID, &t.ID)
				case ctaProtoICMPType, ctaProtoICMPv6Type:
					t.u8(n, TupleType, &t.Type)
				case ctaProtoICMPCode, ctaProtoICMPv6Code:
					t.u8(n, TupleCode, &t.Code)
				}
			}
		case ctaTupleZone:
			t.u16(a, TupleZone, &t.Zone)
		}
	}
}

func (t *Tuple) u8(a nl.Attr, bit TupleHas, to *uint8) {
	if len(a.Data) > 0 {
		*to = a.Data[0]
		t.Present |= bit
	}
}

func (t *Tuple) u16(a nl.Attr, bit TupleHas, to *uint16) {
	if n, ok := a.U16(); ok {
		*to = n
		t.Present |= bit
	}
}

// decode reads a translation and reports whether it has a port.
func (r *NAT) decode(b []byte) (port bool) {
	for a, b, ok := nl.NextAttr(b); ok; a, b, ok = nl.NextAttr(b) {
		switch a.Type {
		case ctaNATv4Min:
			r.Addr = addr4(a.Data)
		case ctaNATv4Max:
			r.AddrMax = addr4(a.Data)
		case ctaNATv6Min:
			r.Addr = addr16(a.Data)
		case ctaNATv6Max:
			r.AddrMax = addr16(a.Data)
		case ctaNATProto:
			for n, b, ok := nl.NextAttr(a.Data); ok; n, b, ok = nl.NextAttr(b) {
				p, ok := n.U16()
				switch {
				case ok && n.Type == ctaProtoNATMin:
					r.Port, port = p, true
				case ok && n.Type == ctaProtoNATMax:
					r.PortMax = p
				}
			}
		}
	}
	if !port {
		r.PortMax = 0
	}
	return port
}

// Decode resets e and reads an expectation from a message of the kernel, as
// Flow.Decode does.
func (e *Expect) Decode(m *nl.Msg) error {
	e.Reset()
	if !expectCodec.Get().top.decode(unsafe.Pointer(e), (*uint64)(&e.Present), m.Family(), m.Body(), &e.Unknown) {
		return errMalformed
	}
	return nil
}

// DecodeEvent is Decode for a message of a multicast group: it also sets Event
// and By.PortID.
func (e *Expect) DecodeEvent(m *nl.Msg) error {
	err := e.Decode(m)
	e.Event, e.By.PortID = eventOf(m), m.Port
	return err
}
