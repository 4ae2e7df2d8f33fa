package ct

import "net/netip"

// ExpectHas tells which attributes of an Expect are known, apart from its tuples.
type ExpectHas uint64

const (
	ExpectHasTimeout ExpectHas = 1 << iota
	ExpectHasID
	ExpectHasHelper
	ExpectHasZone
	ExpectHasFlags
	ExpectHasClass
	ExpectHasNATDir
	ExpectHasFn
)

// Flags of an expectation (linux/netfilter/nf_conntrack_common.h).
const (
	Permanent = 1 // stays until its timeout or its master's end, whatever matches
	Inactive  = 2 // stored but never matched
	Userspace = 4 // accepted and cleared by current kernels
)

// An Expect is an expectation: a connection that the kernel will take as related
// to its master when it comes, or an event about one. It is reused as a Flow is,
// and its byte strings live as long.
type Expect struct {
	Present  ExpectHas
	Tuple    Tuple // the connection expected
	Mask     Tuple // which bits of the tuple's source count; the kernel always takes the destination whole
	Master   Tuple // the original direction of the master
	NATTuple Tuple // source to give the expected connection, with NATDir

	Timeout uint32 // seconds
	ID      uint32
	Flags   uint32 // Permanent, Inactive, Userspace
	Class   uint32
	NATDir  uint32 // 0: orig, 1: reply
	Zone    uint16 // never sent by the kernel: see FindZones

	Helper, Fn []byte
	Unknown    []Unknown

	Event    Event
	Time     uint64 // as in Flow
	By       By
	NoEvents bool

	text []byte
}

// Has reports whether all of the attributes are known.
func (e *Expect) Has(h ExpectHas) bool { return e.Present&h == h }

// Family returns the address family: IPv4, IPv6 or 0 when unknown.
func (e *Expect) Family() uint8 { return e.Tuple.Family }

// Reset forgets everything but keeps memory for reuse.
func (e *Expect) Reset() {
	unknown, text := e.Unknown[:0], e.text[:0]
	*e = Expect{}
	e.Unknown, e.text = unknown, text
}

// Clone returns a copy that shares no memory with e.
func (e *Expect) Clone() *Expect {
	c := *e
	c.Helper, c.Fn, c.By.Comm = clone(e.Helper), clone(e.Fn), clone(e.By.Comm)
	c.Unknown, c.text = cloneUnknown(e.Unknown), nil
	return &c
}

// PrefixMask returns the mask of a prefix of so many of all bits, 32 or 128.
func PrefixMask(bits, all int) netip.Addr {
	b := make([]byte, all/8)
	for i := range bits {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
