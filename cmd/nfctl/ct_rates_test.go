package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// What flows grow by a second is what their counters grow between two listings, while
// known traffic runs; a flow that rests has none, and groups have the sum.
func TestCtRates(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	ns := nstest.New(t)
	nf := nstest.Build(t)
	ns.Run("sh", "-c", "echo 1 >/proc/sys/net/netfilter/nf_conntrack_acct")
	ns.Run("nft", "add table inet t; add chain inet t o { type filter hook output priority 0; }; add rule inet t o ct "+
		"state invalid drop")
	busy, quiet := ns.UDPEcho("127.0.0.1:1111"), ns.UDPEcho("127.0.0.1:2222")
	if _, ok := ns.Ask(quiet, "once", nstest.Patience); !ok {
		t.Fatal("no answer")
	}
	conn, err := ns.Dial("udp", busy, nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				_, _ = conn.Write(make([]byte, 972)) // 1,000 bytes with both headers, and as many back
			}
		}
	}()
	defer func() { close(stop); <-stopped; _ = conn.Close() }()
	nstest.Until(t, "traffic runs", func() bool {
		return strings.Contains(ns.Run(nf, "ct", "list", "--sort", "bytes:desc", "--limit", "1"), "dport=1111")
	})

	type object struct {
		Time  time.Time
		Orig  struct{ Dport int }
		Count uint64
		Bytes,
		Packets *float64
		Rate *struct{ Bytes, Packets float64 }
	}
	list := func(args ...string) (objects []object) {
		out := ns.Run(nf, append([]string{"ct", "list", "--interval", "400ms", "-o", "json"}, args...)...)
		for line := range strings.Lines(out) {
			var o object
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			objects = append(objects, o)
		}
		return objects
	}
	for _, args := range [][]string{
		{"--count", "4", "--sort", "rate.bytes:desc", "--fields", "time,orig.dport,bytes,packets,rate"},
		{"--count", "4", "--fields", "time,orig.dport,bytes,packets,rate"},
		{"--count", "4", "--group-by", "orig.dport", "--sort", "rate.bytes:desc"},
	} {
		var before *object
		seen := 0
		for _, o := range list(args...) {
			switch {
			case o.Rate == nil || o.Bytes == nil || o.Time.IsZero():
				t.Fatalf("%v: without rate, counters or time: %+v", args, o)
			case o.Orig.Dport == 2222:
				if o.Rate.Bytes != 0 || o.Rate.Packets != 0 {
					t.Errorf("%v: a flow that rests: %+v", args, *o.Rate)
				}
				continue
			}
			if seen++; before != nil {
				passed := o.Time.Sub(before.Time).Seconds()
				grown := (*o.Bytes - *before.Bytes) / passed
				if grown == 0 || math.Abs(o.Rate.Bytes-grown) > grown/4 {
					t.Errorf("%v: %v bytes/s, but %v in %v s", args, o.Rate.Bytes, *o.Bytes-*before.Bytes, passed)
				}
				if each := o.Rate.Bytes / o.Rate.Packets; math.Abs(each-1000) > 20 {
					t.Errorf("%v: %v bytes a packet", args, each)
				}
			}
			before = &o
		}
		if seen != 4 {
			t.Errorf("%v: %d listings", args, seen)
		}
	}
	// The largest one alone, by a filter on rates, and in a table.
	for _, o := range list("--count", "2", "--filter", "rate.bytes > 1000", "--sort", "orig.dport") {
		if o.Orig.Dport != 1111 {
			t.Errorf("a flow that rests: %+v", o)
		}
	}
	out := ns.Run(nf, "ct", "list", "--interval", "200ms", "--count", "2", "-o", "table", "--limit", "1", "--sort",
		"rate.packets:desc")
	if heads := strings.Count(out, "BYTES/S"); heads != 2 || strings.Count(out, ":1111") != 2 ||
		strings.Contains(out, ":2222") {
		t.Errorf("tables:\n%s", out)
	}
	if out := ns.Run(nf, "ct", "list", "--interval", "100ms", "--count", "3", "-o", "csv"); strings.Count(out,
		"time,proto,") != 1 || !strings.Contains(out, ",rate.bytes\n") {
		t.Errorf("csv:\n%s", out)
	}
	if out := ns.Run(nf, "ct", "list", "--interval", "100ms", "--count", "1"); !strings.Contains(out, " rate.bytes=") {
		t.Errorf("text:\n%s", out)
	}
	if out := ns.Run(nf, "ct", "list", "-o", "json"); strings.Contains(out, "rate") || strings.Contains(out, `"time"`) {
		t.Errorf("without --interval:\n%s", out)
	}
	for _, c := range [][]string{{"--interval", "--count", "3"}, {"--zero", "--interval", "1s", "--zero"},
		{"--interval", "--interval", "1s", "-o", "xml"}, {"soon", "--interval", "soon"}} {
		out, errs, status := ns.Exec(nf, append([]string{"ct", "list"}, c[1:]...)...)
		if status != exitUsage || out != "" || !strings.Contains(errs, c[0]) {
			t.Errorf("%q: status %d: %s%s", c[1:], status, out, errs)
		}
	}
	p := ns.Start(nf, "ct", "list", "--interval", "100ms", "-o", "csv")
	p.WaitOutput("1111")
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("SIGTERM: status %d: %s", status, p.Stderr())
	}
}
