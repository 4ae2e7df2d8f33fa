// Package resolve finds the names of addresses and ports, without ever holding up who
// asks: what is not known yet is looked up beside, and is there when it is asked again.
package resolve

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"nfctl/internal/value"
)

const (
	most      = 1 << 16 // addresses that are remembered, and as many of before
	waiting   = 1 << 14 // addresses that wait for a worker
	workers   = 16
	patience  = 2 * time.Second  // with one address
	keepNamed = 10 * time.Minute // an address's name may change
	keepNone  = time.Minute
)

// A Resolver remembers names. It is for any number of goroutines.
type Resolver struct {
	lookup func(ctx context.Context, addr string) ([]string, error)

	mu       sync.Mutex
	now, old map[netip.Addr]entry // old: of before now was full
	queue    []netip.Addr
	running  int // workers
	idle     chan struct{}
}

type entry struct {
	name  []byte // nil: none, or not known yet
	until time.Time
	asked bool // it is being looked up
}

// New returns a resolver that asks the servers of resolv.conf(5), after hosts(5).
func New() *Resolver {
	dns := &net.Resolver{PreferGo: true} // without cgo, whose look-ups nothing interrupts
	return &Resolver{lookup: dns.LookupAddr, now: map[netip.Addr]entry{}}
}

// Host returns the name of an address if it is known, and otherwise nil. Then it has it
// looked up, unless too many wait already. The name is the caller's to read only.
func (r *Resolver) Host(a netip.Addr) []byte {
	if !a.IsValid() || a.IsUnspecified() {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.now[a]
	if !ok {
		if e, ok = r.old[a]; ok {
			r.put(a, e)
		}
	}
	if e.asked || ok && time.Now().Before(e.until) {
		return e.name
	}
	if len(r.queue) >= waiting {
		return e.name
	}
	e.asked = true // what it was called is its name until it is known to have changed
	r.put(a, e)
	r.queue = append(r.queue, a)
	if r.running < workers {
		r.running++
		if r.idle == nil {
			r.idle = make(chan struct{})
		}
		go r.work()
	}
	return e.name
}

func (r *Resolver) put(a netip.Addr, e entry) {
	if len(r.now) >= most {
		r.now, r.old = map[netip.Addr]entry{}, r.now
	}
	r.now[a] = e
}

// work looks up what waits.
func (r *Resolver) work() {
	for {
		r.mu.Lock()
		if len(r.queue) == 0 {
			if r.running--; r.running == 0 {
				close(r.idle)
				r.idle = nil
			}
			r.mu.Unlock()
			return
		}
		a := r.queue[len(r.queue)-1] // the latest: it is what is seen now
		r.queue = r.queue[:len(r.queue)-1]
		r.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		names, err := r.lookup(ctx, a.String())
		cancel()
		e := entry{until: time.Now().Add(keepNone)}
		if err == nil {
			for _, n := range names {
				if n = strings.TrimSuffix(n, "."); harmless(n) {
					e.name, e.until = []byte(n), time.Now().Add(keepNamed)
					break
				}
			}
		}
		r.mu.Lock()
		r.put(a, e)
		r.mu.Unlock()
	}
}

// Wait waits until nothing is being looked up, or for so long.
func (r *Resolver) Wait(ctx context.Context, most time.Duration) {
	r.mu.Lock()
	idle := r.idle
	r.mu.Unlock()
	if idle == nil {
		return
	}
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-idle:
	case <-t.C:
	case <-ctx.Done():
	}
}

// Service returns the name of a port of a protocol in services(5), or "".
func (*Resolver) Service(proto uint8, port uint16) string { return value.ServiceName(proto, port) }

// harmless reports whether a name is one of a host: whoever owns an address says what
// its name is, and that is not to steer a terminal or look like something else.
func harmless(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	// A name that is an address would pass for one.
	_, err := netip.ParseAddr(name)
	return err != nil
}
