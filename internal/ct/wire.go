package ct

import (
	"encoding/binary"
	"slices"
	"unsafe"

	"nfctl/internal/field"
	"nfctl/internal/nl"
)

// A wire is where an attribute stands in a message: the numbers of the
// attributes that it is nested in, outermost first, and its own
// (linux/netfilter/nfnetlink_conntrack.h).
type wire []uint16

// An op is how an attribute is read and written.
type op uint8

const (
	opNone   op = iota
	opNum8      // numbers of so many bits, in network byte order
	opNum16     //
	opNum32     //
	opNum64     //
	opPair      // two bytes, of two rows (struct nf_ct_tcp_flags)
	opText      // a string that ends with a NUL
	opBytes     // bytes as they are
	opLabels    // sixteen bytes, zero where the message has fewer
	opNest      // attributes
	opTuple     // a Tuple
	opNAT       // a NAT of a Flow; the bit tells whether it has a port
)

// A memory is where an object holds the value of an attribute, in bytes from its
// beginning, and the bit of its presence.
type memory struct {
	op  op
	at  uintptr
	bit uint64
}

// numOp is how numbers of a width are read and written.
func numOp(bytes uintptr) op {
	switch bytes {
	case 1:
		return opNum8
	case 2:
		return opNum16
	case 4:
		return opNum32
	}
	return opNum64
}

// maxAttr is beyond the highest number of an attribute that has a row.
const maxAttr = 64

// A level is what to do with the attributes of one nesting, by their numbers.
// Decoding looks there for each attribute of a message: what stands in the rows
// is worked out once.
type level [maxAttr]slot

type slot struct {
	presence uint64 // bits to set
	in       *level // opNest
	at, at2  uint16 // where the object holds it, in bytes; at2: the second of a pair
	op       op
	least    uint8 // bytes that there must be
}

// leastOf are the bytes that an attribute must have at least.
var leastOf = [...]uint8{opNum8: 1, opNum16: 2, opNum32: 4, opNum64: 8, opPair: 2, opNAT: 0}

// A step writes one attribute. The inner steps behind one of opNest are nested in
// it.
type step struct {
	op      op
	typ     uint16
	any     uint64 // bits one of which the object must have; 0: what follows says whether it is there
	all     uint64 // bits all of which it must have
	at, at2 uintptr
	inner   int
}

// A codec reads and writes the attributes of a T that have a row. T is Flow or
// Expect.
type codec[T any] struct {
	top   level
	whole []step // all attributes
	asked []step // those of a request, but for what Create and Update write themselves
}

// newCodec makes the codec of a table's rows and of the attributes that are
// objects of their own.
func newCodec[T any](table []Attr[T], objects []object, own uint64) *codec[T] {
	c := &codec[T]{}
	leaves := make([]leaf, 0, len(table)+len(objects))
	for i := range objects {
		o := &objects[i]
		leaves = append(leaves, leaf{at: o.at, op: o.op, places: [2]uintptr{o.place}, bits: o.has, asked: o.asked})
	}
	for i := range table {
		a := &table[i]
		if a.At == nil || a.mem.op == opNone {
			continue
		}
		if a.Kind == field.Bytes {
			a.mem.op = opBytes
		}
		l := leaf{at: a.At, op: a.mem.op, places: [2]uintptr{a.mem.at}, bits: a.mem.bit, with: a.With}
		create, _ := a.Settable(false)
		update, _ := a.Settable(true)
		l.asked = (create || update) && a.mem.bit&own == 0
		switch a.Byte {
		case 1:
			l.op = opPair
		case 2: // the row of the first stands before
			first := slices.IndexFunc(leaves, func(o leaf) bool { return o.op == opPair && slices.Equal(o.at, a.At) })
			leaves[first].places[1], leaves[first].bits = a.mem.at, leaves[first].bits|a.mem.bit
			continue
		}
		leaves = append(leaves, l)
	}
	for _, l := range leaves {
		c.top.add(l.at, l)
	}
	c.whole = steps(nil, leaves, 0)
	c.asked = steps(nil, requested(leaves), 0)
	return c
}

// An object is an attribute that is a structure of its own: a tuple, a translation.
type object struct {
	at    wire
	op    op
	place uintptr
	has   uint64 // opNAT: that it has a port
	asked bool   // part of a request's attributes beside those of the key
}

// A leaf is an attribute that holds a value, as the rows have it.
type leaf struct {
	at     wire
	op     op
	places [2]uintptr
	bits   uint64
	with   uint64 // also written, as zero, when the object has one of these
	asked  bool
}

func requested(leaves []leaf) (out []leaf) {
	for _, l := range leaves {
		if l.asked {
			out = append(out, l)
		}
	}
	return out
}

// add puts what a leaf says into the level, at the end of its path from here.
func (v *level) add(path wire, l leaf) {
	s := &v[path[0]%maxAttr]
	if len(path) == 1 {
		*s = slot{op: l.op, at: uint16(l.places[0]), at2: uint16(l.places[1]), presence: l.bits, least: leastOf[l.op]}
		return
	}
	if s.in == nil {
		*s = slot{op: opNest, in: &level{}}
	}
	s.in.add(path[1:], l)
}

// steps appends the writing of leaves, which share the first depth numbers of
// their paths. Attributes of one nesting are written together, where the first of
// them stands.
func steps(out []step, leaves []leaf, depth int) []step {
	done := make([]bool, len(leaves))
	for i, l := range leaves {
		if done[i] {
			continue
		}
		if len(l.at) == depth+1 {
			s := step{op: l.op, typ: l.at[depth], any: l.bits | l.with, at: l.places[0], at2: l.places[1]}
			if l.op == opPair {
				s.all = l.bits
			}
			out = append(out, s)
			continue
		}
		var inner []leaf
		look := false
		nest := step{op: opNest, typ: l.at[depth]}
		for j := i; j < len(leaves); j++ {
			if m := leaves[j]; !done[j] && len(m.at) > depth+1 && m.at[depth] == l.at[depth] {
				done[j] = true
				inner = append(inner, m)
				nest.any |= m.bits | m.with
				look = look || m.op == opTuple
			}
		}
		if look {
			nest.any = 0
		}
		at := len(out)
		out = steps(append(out, nest), inner, depth+1)
		out[at].inner = len(out) - at - 1
	}
	return out
}

// decode reads the attributes in b into the object at p, whose bits of presence
// are at present. Those without a row are appended to unknown, if there is one.
// It reports false when b ends inside an attribute.
func (v *level) decode(p unsafe.Pointer, present *uint64, family uint8, b []byte, unknown *[]Unknown) bool {
	for len(b) > 0 {
		a, rest, ok := nl.NextAttr(b)
		if !ok {
			return false
		}
		b = rest
		v.slot(a.Type).read(p, present, family, a, unknown)
	}
	return true
}

func (v *level) slot(typ uint16) *slot {
	if int(typ) < len(v) {
		return &v[typ]
	}
	return &noSlot
}

// read reads one attribute.
func (s *slot) read(p unsafe.Pointer, present *uint64, family uint8, a nl.Attr, unknown *[]Unknown) {
	at := unsafe.Add(p, s.at)
	if len(a.Data) < int(s.least) {
		return
	}
	switch s.op {
	case opNum8:
		*(*uint8)(at) = a.Data[0]
	case opNum16:
		*(*uint16)(at) = binary.BigEndian.Uint16(a.Data)
	case opNum32:
		*(*uint32)(at) = binary.BigEndian.Uint32(a.Data)
	case opNum64:
		*(*uint64)(at) = binary.BigEndian.Uint64(a.Data)
	case opPair:
		*(*uint8)(at), *(*uint8)(unsafe.Add(p, s.at2)) = a.Data[0], a.Data[1]
	case opText:
		*(*[]byte)(at) = a.Text()
	case opBytes:
		*(*[]byte)(at) = a.Data
	case opLabels:
		*(*[16]byte)(at) = [16]byte{}
		copy((*[16]byte)(at)[:], a.Data)
	case opNest:
		s.in.decode(p, present, family, a.Data, nil)
	case opTuple:
		(*Tuple)(at).decode(family, a.Data)
	case opNAT:
		if !(*NAT)(at).decode(a.Data) {
			return
		}
	default:
		if unknown != nil {
			*unknown = append(*unknown, Unknown{a.Type, a.Data})
		}
	}
	*present |= s.presence
}

var noSlot slot

// appendSteps appends the attributes that the steps write of the object at p.
func appendSteps(b []byte, p unsafe.Pointer, present uint64, steps []step) []byte {
	for i := 0; i < len(steps); i++ {
		s := &steps[i]
		at := unsafe.Add(p, s.at)
		switch s.op {
		case opTuple:
			if t := (*Tuple)(at); !t.IsZero() {
				b = t.append(b, s.typ)
			}
			continue
		case opNAT:
			b = (*NAT)(at).append(b, s.typ, present&s.any != 0)
			continue
		case opNest:
			if s.any == 0 || present&s.any != 0 {
				start, empty := 0, 0
				b, start = nl.Begin(b, s.typ)
				empty = len(b)
				if b = appendSteps(b, p, present, steps[i+1:i+1+s.inner]); len(b) == empty {
					b = b[:start]
				} else {
					b = nl.End(b, start)
				}
			}
			i += s.inner
			continue
		}
		if present&s.any == 0 || present&s.all != s.all {
			continue
		}
		switch s.op {
		case opNum8:
			b = nl.AppendU8(b, s.typ, *(*uint8)(at))
		case opNum16:
			b = nl.AppendU16(b, s.typ, *(*uint16)(at))
		case opNum32:
			b = nl.AppendU32(b, s.typ, *(*uint32)(at))
		case opNum64:
			b = nl.AppendU64(b, s.typ, *(*uint64)(at))
		case opPair:
			b = nl.AppendAttr(b, s.typ, []byte{*(*uint8)(at), *(*uint8)(unsafe.Add(p, s.at2))})
		case opText:
			b = appendText(b, s.typ, *(*[]byte)(at))
		case opBytes:
			b = nl.AppendAttr(b, s.typ, *(*[]byte)(at))
		case opLabels:
			b = nl.AppendAttr(b, s.typ, (*[16]byte)(at)[:])
		}
	}
	return b
}
