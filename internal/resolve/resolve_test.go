package resolve

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func answering(lookup func(ctx context.Context, addr string) ([]string, error)) *Resolver {
	r := New()
	r.lookup = lookup
	return r
}

func TestHost(t *testing.T) {
	r := answering(func(_ context.Context, addr string) ([]string, error) {
		switch addr {
		case "10.0.0.1":
			return []string{"a.example."}, nil
		case "10.0.0.2":
			return []string{"bad\x1b[2J.example.", "192.0.2.7.", strings.Repeat("a", 254), "good.example."}, nil
		case "10.0.0.3":
			return []string{"bad name.example."}, nil
		}
		return nil, errors.New("no such host")
	})
	want := map[string]string{"10.0.0.1": "a.example", "10.0.0.2": "good.example", "10.0.0.3": "", "::1": "",
		"0.0.0.0": ""}
	for a := range want {
		if got := r.Host(netip.MustParseAddr(a)); got != nil {
			t.Errorf("%s is known at once: %s", a, got)
		}
	}
	r.Wait(t.Context(), 20*time.Second)
	for a, w := range want {
		if got := string(r.Host(netip.MustParseAddr(a))); got != w {
			t.Errorf("%s: %q, want %q", a, got, w)
		}
	}
	a := netip.MustParseAddr("10.0.0.1")
	if n := testing.AllocsPerRun(100, func() { r.Host(a) }); n != 0 {
		t.Errorf("%v allocations for a known name", n)
	}
}

// A server that says nothing holds nobody up, is asked for a bounded number of
// addresses, and they are remembered within bounds.
func TestSilent(t *testing.T) {
	var asked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	r := answering(func(c context.Context, _ string) ([]string, error) {
		asked.Add(1)
		select {
		case <-ctx.Done():
		case <-c.Done():
		}
		return nil, ctx.Err()
	})
	begun := time.Now()
	a := netip.MustParseAddr("10.0.0.0")
	for range 3 * most {
		r.Host(a)
		a = a.Next()
	}
	if d := time.Since(begun); d > patience {
		t.Errorf("%d addresses took %v", 3*most, d)
	}
	r.mu.Lock()
	if len(r.queue) > waiting || len(r.now) > most || len(r.old) > most || r.running > workers {
		t.Errorf("%d wait, %d and %d are remembered, %d workers", len(r.queue), len(r.now), len(r.old), r.running)
	}
	r.mu.Unlock()
	begun = time.Now()
	r.Wait(t.Context(), 10*time.Millisecond)
	if d := time.Since(begun); d > patience {
		t.Errorf("waited %v", d)
	}
	cancel()
	r.Wait(t.Context(), 20*time.Second)
}

// The memory is bounded also while names are found.
func TestBounded(t *testing.T) {
	r := answering(func(context.Context, string) ([]string, error) { return []string{"a.example"}, nil })
	a := netip.MustParseAddr("10.0.0.0")
	for range 3 * most {
		r.Host(a)
		a = a.Next()
	}
	r.Wait(t.Context(), 20*time.Second)
	if len(r.now) > most || len(r.old) > most {
		t.Errorf("%d and %d are remembered", len(r.now), len(r.old))
	}
}
