package ct

import (
	"context"
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
		{UDP, []string{"timeout=20", "status=SEEN_REPLY,ASSURED"}, 99},
		{UDP, []string{"timeout=100"}, -1},
		{UDP, []string{"timeout=20", "status=FIXED_TIMEOUT"}, -1},
		{TCP, []string{"timeout=100", "state=SYN_SENT"}, 19},
		{TCP, []string{"timeout=431900", "state=ESTABLISHED"}, 99},
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
