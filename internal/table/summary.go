package table

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"nfctl/internal/ct"
	"nfctl/internal/value"
)

// mostCounted bounds the keys of a Busiest.
const mostCounted = 4096

// A Busiest finds the keys that come most often, in bounded memory (Misra and Gries): a
// key that makes up more than 1/4096 of all is among them, and what is told of it is too
// low by no more than that, see Short. The zero value is empty.
type Busiest[K comparable] struct {
	counts map[K]uint64
	short  uint64
}

// Add counts a key.
func (b *Busiest[K]) Add(k K) {
	if b.counts == nil {
		b.counts = make(map[K]uint64, mostCounted)
	}
	if n, ok := b.counts[k]; ok || len(b.counts) < mostCounted {
		b.counts[k] = n + 1
		return
	}
	// There is no room: this key and one of each other are left out.
	b.short++
	for k, n := range b.counts {
		if n == 1 {
			delete(b.counts, k)
		} else {
			b.counts[k] = n - 1
		}
	}
}

// Short is by how much at most a count is too low: 0, they are exact.
func (b *Busiest[K]) Short() uint64 { return b.short }

// A Counted is a key and how often it came.
type Counted[K comparable] struct {
	Key   K
	Count uint64
}

// Top returns the n keys that came most often, those with equal counts in the order that
// less says.
func (b *Busiest[K]) Top(n int, less func(x, y K) int) []Counted[K] {
	all := make([]Counted[K], 0, len(b.counts))
	for k, c := range b.counts {
		all = append(all, Counted[K]{k, c})
	}
	slices.SortFunc(all, func(x, y Counted[K]) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), less(x.Key, y.Key))
	})
	return all[:min(n, len(all))]
}

// A Port is a port of a protocol.
type Port struct {
	Proto uint8
	Port  uint16
}

// Compare orders ports by protocol and number.
func (p Port) Compare(q Port) int {
	return cmp.Or(cmp.Compare(p.Proto, q.Proto), cmp.Compare(p.Port, q.Port))
}

// A Summary gathers what a watch shows. It is for any number of goroutines.
type Summary struct {
	mu     sync.Mutex
	kinds  [ct.Existing + 1]uint64
	src    Busiest[netip.Addr]
	dst    Busiest[netip.Addr]
	dports Busiest[Port]
}

// add counts a flow or an expectation.
func (s *Summary) add(event ct.Event, t *ct.Tuple) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kinds[event]++
	s.src.Add(t.Src)
	s.dst.Add(t.Dst)
	if t.Has(ct.TupleDport) && t.Proto != ct.GRE {
		s.dports.Add(Port{t.Proto, t.Dport})
	}
}

// AddTo returns what counts an object of one kind in s.
func AddTo[T any](s *Summary) func(*T) {
	return func(t *T) {
		switch x := any(t).(type) {
		case *ct.Flow:
			s.add(x.Event, &x.Orig)
		case *ct.Expect:
			s.add(x.Event, &x.Tuple)
		}
	}
}

// A Busy is what a Summary says at one moment.
type Busy struct {
	Kinds    [ct.Existing + 1]uint64 // by ct.Event
	Src, Dst []Counted[netip.Addr]
	Dports   []Counted[Port]
	Short    uint64 // by how much at most a count of these is too low
}

// Busy returns the n busiest sources, destinations and destination ports.
func (s *Summary) Busy(n int) *Busy {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Busy{Kinds: s.kinds, Src: s.src.Top(n, netip.Addr.Compare), Dst: s.dst.Top(n, netip.Addr.Compare),
		Dports: s.dports.Top(n, Port.Compare), Short: max(s.src.Short(), s.dst.Short(), s.dports.Short())}
}

// AppendText appends lines of what was counted in so many seconds.
func (y *Busy) AppendText(b []byte, secs float64) []byte {
	words := false
	for e, n := range y.Kinds {
		if n == 0 {
			continue
		}
		if !words {
			b = append(b, "nfctl: shown: "...)
		} else {
			b = append(b, ", "...)
		}
		words = true
		b = fmt.Appendf(b, "%s %d", strings.ToLower(ct.EventNames.Word(uint64(e))), n)
		if ct.Event(e) != ct.Existing {
			b = fmt.Appendf(b, " (%.1f/s)", float64(n)/max(secs, 1e-3))
		}
	}
	if words {
		b = append(b, '\n')
	}
	b = appendBusiest(b, "sources", y.Src, func(a netip.Addr) string { return a.String() })
	b = appendBusiest(b, "destinations", y.Dst, func(a netip.Addr) string { return a.String() })
	b = appendBusiest(b, "destination ports", y.Dports, func(p Port) string {
		return fmt.Sprintf("%s %d", value.Protocols.Append(nil, uint64(p.Proto)), p.Port)
	})
	if y.Short > 0 {
		b = fmt.Appendf(b, "nfctl: busiest: each count may be too low by up to %d\n", y.Short)
	}
	return b
}

func appendBusiest[K comparable](b []byte, what string, list []Counted[K], word func(K) string) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(append(append(b, "nfctl: busiest "...), what...), ':')
	for i, c := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, " %s (%d)", word(c.Key), c.Count)
	}
	return append(b, '\n')
}
