package held

import (
	"encoding/binary"
	"hash/maphash"
)

// A Print tells packets apart that are handed from one queue to another: by length and
// first bytes.
type Print uint64

// PrintBytes is how many bytes of a packet a Print looks at: the headers of IPv6 and of
// what it most often carries.
const PrintBytes = 64

var printSeed = maphash.MakeSeed()

// PrintOf returns the Print of a packet of which data was copied, and whose length is
// known, or 0.
func PrintOf(data []byte, length uint32) Print {
	var b [PrintBytes + 4]byte
	n := copy(b[:PrintBytes], data)
	binary.NativeEndian.PutUint32(b[PrintBytes:], length)
	clear(b[n:PrintBytes])
	return Print(maphash.Bytes(printSeed, b[:]))
}

// Sent are the packets that were handed to a second queue and have not come there yet.
// They come in the order in which they were sent; some may be lost on the way, and
// others' packets may come between them.
type Sent struct {
	ring []sent
	at   int
	n    int
}

type sent struct {
	print Print
	ref   Ref
}

// Add notes that a packet was sent.
func (s *Sent) Add(p Print, r Ref) {
	if s.n == len(s.ring) {
		ring := make([]sent, max(64, 2*len(s.ring)))
		for i := range s.n {
			ring[i] = s.ring[(s.at+i)%len(s.ring)]
		}
		s.ring, s.at = ring, 0
	}
	s.ring[(s.at+s.n)&(len(s.ring)-1)] = sent{p, r}
	s.n++
}

// Len returns how many are on their way.
func (s *Sent) Len() int { return s.n }

// Came finds the packet that came. Those that were sent before it are lost, and handed to
// lost. None: nobody sent it.
func (s *Sent) Came(p Print, lost func(Ref)) Ref {
	for i := range s.n {
		e := s.ring[(s.at+i)&(len(s.ring)-1)]
		if e.print != p {
			continue
		}
		for range i {
			lost(s.Drop())
		}
		return s.Drop()
	}
	return None
}

// Drop takes the one out that was sent first; None: there is none.
func (s *Sent) Drop() Ref {
	if s.n == 0 {
		return None
	}
	r := s.ring[s.at].ref
	s.at = (s.at + 1) & (len(s.ring) - 1)
	s.n--
	return r
}
