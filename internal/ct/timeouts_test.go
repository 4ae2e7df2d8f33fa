package ct

import (
	"context"
	"os"
	"testing"
	"time"

	"nfctl/internal/nstest"
)

func TestIdle(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	for i, tt := range []struct {
		proto uint8
		set   []string
		idle  int // -1: unknown
	}{
		{UDP, []string{"timeout=20"}, 9},
		{UDP, []string{"timeout=70", "status=SEEN_REPLY,ASSURED"}, 49},
		{UDP, []string{"timeout=20", "status=SEEN_REPLY,ASSURED"}, -1}, // far below the setting
		{UDP, []string{"timeout=100"}, -1},
		{UDP, []string{"timeout=20", "status=FIXED_TIMEOUT"}, -1},
		{TCP, []string{"timeout=100", "state=SYN_SENT"}, 19}, // of 120
		{TCP, []string{"timeout=431900", "state=ESTABLISHED"}, 99},
		{TCP, []string{"timeout=3600", "state=ESTABLISHED"}, -1},
		{TCP, []string{"timeout=250", "state=ESTABLISHED"}, -1}, // perhaps it waits for an acknowledgement
		{ICMP, []string{"timeout=20"}, 9},
		{50, []string{"timeout=590"}, 9},
	} {
		if err := c.Flush(0, KernelFilter{}); err != nil {
			t.Fatal(err)
		}
		src, dst := "10.0.0.1", "10.0.0.2"
		if HasPorts(tt.proto) {
			src, dst = src+":1", dst+":2"
		}
		if err := c.Create(flow(t, src, dst, tt.proto, tt.set...), false); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err := Dump(context.Background(), DumpOptions{Idle: true}, func(f *Flow) error {
			got := -1
			if f.Has(HasIdle) {
				got = int(f.Idle)
			}
			slack := int(time.Since(start)/time.Second) + 1
			if tt.idle < 0 && got >= 0 || tt.idle >= 0 && (got < tt.idle || got > tt.idle+slack) {
				t.Errorf("%d: %v: idle %d, want %d", i, tt.set, got, tt.idle)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestIdleAndAge looks at flows whose age is known.
func TestIdleAndAge(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	if err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_timestamp", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	c := dial(t)
	f := flow(t, "10.0.0.1:1", "10.0.0.2:2", TCP, "timeout=431990", "state=ESTABLISHED")
	if err := c.Create(f, false); err != nil {
		t.Fatal(err)
	}
	ts := LoadTimeouts()
	var got Flow
	if err := c.Get(f, &got, false); err != nil {
		t.Fatal(err)
	}
	if _, ok := got.Age(); !ok {
		t.Fatal("no age")
	}
	if ts.SetIdle(&got); got.Has(HasIdle) {
		t.Errorf("idle for %d seconds, and made just now", got.Idle)
	}
	// As old as it is idle, it is.
	got.Start -= 20e9
	if ts.SetIdle(&got); !got.Has(HasIdle) || got.Idle < 8 || got.Idle > 20 {
		t.Errorf("idle %d, %v", got.Idle, got.Has(HasIdle))
	}
	// With an age it may be most of the setting.
	got.Timeout, got.Present, got.Start = 1000, got.Present&^HasIdle, got.Start-431000e9
	if ts.SetIdle(&got); got.Idle != 430999 {
		t.Errorf("idle %d, %v", got.Idle, got.Has(HasIdle))
	}
}

// TestIdleUnderPolicy makes a timeout policy, of which no flow tells.
func TestIdleUnderPolicy(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	ns := nstest.Enter(t)
	c := dial(t)
	f := flow(t, "10.0.0.1:1", "10.0.0.2:2", TCP, "timeout=431900", "state=ESTABLISHED")
	u := flow(t, "10.0.0.1:1", "10.0.0.2:2", UDP, "timeout=20")
	for _, f := range []*Flow{f, u} {
		if err := c.Create(f, false); err != nil {
			t.Fatal(err)
		}
	}
	known := func(f *Flow) bool {
		ts := LoadTimeouts()
		if err := ts.LoadPolicies(); err != nil {
			t.Fatal(err)
		}
		var got Flow
		if err := c.Get(f, &got, false); err != nil {
			t.Fatal(err)
		}
		ts.SetIdle(&got)
		return got.Has(HasIdle)
	}
	if !known(f) || !known(u) {
		t.Error("idle is not known without a policy")
	}
	ns.Run("nft", "table ip t { ct timeout short { protocol tcp; l3proto ip; policy = { established : 900 }; }; }")
	if known(f) {
		t.Error("idle is told of TCP, which has a policy")
	}
	if !known(u) {
		t.Error("idle is not told of UDP, which has no policy")
	}
}
