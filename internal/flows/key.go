// Package flows remembers something of each of many flows, or of each value of a
// field, in bounded memory: the least recently seen one is forgotten for a new one.
//
// A flow here is what two ends say to each other: packets of both directions have
// one Key. Where the kernel sends a packet's connection with it, that is the
// connection, whatever translates addresses. Else the packet's own tuple is all that
// is known, and where the addresses of only one direction are translated at the
// place of the queue (behind SNAT, before DNAT) the two directions are two flows. The
// id of a connection would not do: a connection whose first packet is dropped has
// another one at each retry.
package flows

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"net/netip"

	"nfctl/internal/ct"
	"nfctl/internal/packet"
	"nfctl/internal/queue"
)

// A Key names a flow, or a value. Keys of one kind are equal when what they name is;
// a flow is never equal to a value.
type Key struct {
	a, b [2]uint64 // addresses, or the value
	rest uint64    // the ports of a and b, zone, protocol, kind
}

// The kinds of Keys. Those of flows are the IP version.
const (
	ofNumber = 1 + iota
	ofAddr
	ofBytes
	_ = 4
	_ = 6
)

// end is one end of a flow.
type end struct {
	addr [2]uint64
	port uint16 // or the identifier of ICMP, at both ends
}

func (e *end) above(o *end) bool {
	return cmp.Or(cmp.Compare(e.addr[0], o.addr[0]), cmp.Compare(e.addr[1], o.addr[1]), cmp.Compare(e.port, o.port)) > 0
}

func key(x, y *end, zone uint16, proto, version uint8) Key {
	if x.above(y) {
		x, y = y, x
	}
	return Key{x.addr, y.addr,
		uint64(x.port)<<48 | uint64(y.port)<<32 | uint64(zone)<<16 | uint64(proto)<<8 | uint64(version)}
}

// Of returns the flow of a packet: by its connection where that came with it, by its
// original tuple and zone, else by the packet's own tuple: addresses, protocol, ports
// or the identifier of ICMP. False: the packet has no readable IP header. Fragments
// but the first have no ports, and so a flow of their own.
func Of(p *queue.Packet) (Key, bool) {
	if f := p.CT(); f != nil && f.Orig.Src.IsValid() && f.Orig.Dst.IsValid() {
		return ofConnection(f), true
	}
	return ofHeaders(p.Headers())
}

func ofHeaders(h *packet.Headers) (Key, bool) {
	proto, ok := h.Proto()
	if !ok {
		return Key{}, false
	}
	var x, y end
	switch b := h.Data; h.Version() {
	case 4:
		_ = b[19]
		x.addr[0] = uint64(binary.NativeEndian.Uint32(b[12:]))
		y.addr[0] = uint64(binary.NativeEndian.Uint32(b[16:]))
	default:
		_ = b[39]
		x.addr = [2]uint64{binary.NativeEndian.Uint64(b[8:]), binary.NativeEndian.Uint64(b[16:])}
		y.addr = [2]uint64{binary.NativeEndian.Uint64(b[24:]), binary.NativeEndian.Uint64(b[32:])}
	}
	if sport, dport, ok := h.Ports(); ok {
		x.port, y.port = sport, dport
	} else if id, ok := h.QueryID(); ok {
		x.port, y.port = id, id
	}
	return key(&x, &y, 0, proto, uint8(h.Version())), true
}

func ofConnection(f *ct.Flow) Key {
	t := &f.Orig
	x, y := end{halves(t.Src), t.Sport}, end{halves(t.Dst), t.Dport}
	if t.Has(ct.TupleID) {
		x.port, y.port = t.ID, t.ID
	}
	version := uint8(4)
	if t.Src.Is6() {
		version = 6
	}
	return key(&x, &y, cmp.Or(f.Zone, t.Zone), t.Proto, version)
}

// halves returns an address as ofHeaders has it.
func halves(a netip.Addr) [2]uint64 {
	if a.Is4() {
		b := a.As4()
		return [2]uint64{uint64(binary.NativeEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return [2]uint64{binary.NativeEndian.Uint64(b[:]), binary.NativeEndian.Uint64(b[8:])}
}

// OfNumber returns the Key of a field's number.
func OfNumber(n uint64) Key { return Key{a: [2]uint64{n}, rest: ofNumber} }

// OfAddr returns the Key of an address.
func OfAddr(a netip.Addr) Key {
	return Key{a: halves(a), b: [2]uint64{uint64(a.BitLen())}, rest: ofAddr}
}

// seeds are of the two halves by which texts are told apart.
var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// OfBytes returns the Key of a text: 128 bits that nobody outside can foretell, so
// that two texts with one Key do not come up.
func OfBytes(b []byte) Key {
	return Key{a: [2]uint64{maphash.Bytes(seeds[0], b), maphash.Bytes(seeds[1], b)}, b: [2]uint64{uint64(len(b))},
		rest: ofBytes}
}
