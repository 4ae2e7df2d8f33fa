package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/nstest"
)

// churn makes and deletes flows, count at a time, until stop is closed; it
// returns how many it made.
func churn(t *testing.T, ns *nstest.NS, count int, stop <-chan struct{}) (made uint64) {
	ns.Do(func() {
		c, err := ct.Dial()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		var failed error
		b := c.NewBatch(100, func(_ *ct.Flow, err error) {
			if err != nil && failed == nil {
				failed = err
			}
		})
		for failed == nil {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			for _, do := range []func(f *ct.Flow) error{func(f *ct.Flow) error {
				return b.Create(f, false)
			}, b.Delete} {
				for i := range count {
					if err := do(udpFlow(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 53, 600)); err != nil {
						t.Error(err)
						return
					}
				}
				if err := b.Flush(); err != nil {
					t.Error(err)
					return
				}
			}
			made += uint64(count)
		}
		t.Errorf("churn: %v", failed)
	})
	return made
}

// TestSoak lets a queue, a watch and listing after listing run side by side under
// mixed load, for NFCTL_SOAK (5s). Memory, descriptors and threads stay flat, and
// every packet, event and flow is accounted for.
func TestSoak(t *testing.T) {
	t.Parallel()
	long := 5 * time.Second
	if s := os.Getenv("NFCTL_SOAK"); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	const still = 2000
	nstest.Need(t, "iptables")
	ns := nstest.New(t)
	ns.Run("iptables", "-w", "-A", "OUTPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
	fillFlows(t, ns, still)

	in := ns.ListenUDP("127.0.0.1:7000")
	roomy(t, in)
	var arrived atomic.Int64
	go func() {
		b := make([]byte, 64)
		for {
			n, _, err := in.ReadFrom(b)
			if err != nil {
				return
			}
			if n == 4 {
				arrived.Add(1)
			}
		}
	}()

	var printed, made, gone atomic.Int64
	ready := t.TempDir()
	queue, queueEnd := startPiped(t, ns, func(string) {
		printed.Add(1)
	}, "queue", "--attach", "output udp > :7000,7001", "--max-len", "100000", "--buffer", "64MiB",
		"--drop-dport", "7001", "--rule", "mark 7", "--drop-if", `payload contains "nothing of this kind"`,
		"--ready-file", ready+"/queue", "-o", "json")
	watch, watchEnd := startPiped(t, ns, func(line string) {
		var e struct{ Event string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("watch: %s: %v", line, err)
		}
		switch e.Event {
		case "new":
			made.Add(1)
		case "destroy":
			gone.Add(1)
		default:
			t.Errorf("watch: %s", line)
		}
	}, "ct", "watch", "--events", "new,destroy", "--ready-file", ready+"/watch", "-o", "json", "udp 10.9.0.0/16 >")
	nstest.WaitFile(t, ready+"/queue")
	nstest.WaitFile(t, ready+"/watch")

	stop := make(chan struct{})
	sentA, sentB, churned := make(chan uint32, 1), make(chan uint32, 1), make(chan uint64, 1)
	for i, c := range []chan uint32{sentA, sentB} {
		out, err := ns.Dial("udp", fmt.Sprintf("127.0.0.1:%d", 7000+i), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		go func() { c <- sendNumbers(t, out, 4000/(1+3*i), stop) }()
	}
	go func() { churned <- churn(t, ns, 200, stop) }()

	// A third of the time to warm up; from then on nothing may grow.
	type use struct{ kib, fds, threads int }
	var before, after [2]use
	lists := 0
	measure := func(u *[2]use) {
		for i, p := range []*nstest.Proc{queue, watch} {
			u[i].kib, u[i].fds, u[i].threads = resident(t, p.Cmd.Process.Pid)
		}
	}
	begun, warm := time.Now(), false
	for time.Since(begun) < long {
		if !warm && time.Since(begun) > long/3 {
			measure(&before)
			warm = true
		}
		if list := ns.Run(nstest.Build(t), "ct", "list", "-o", "flow",
			"udp 10.0.0.0/16 > :53"); strings.Count(list, "\n") != still {
			t.Fatalf("list %d: %d flows, want %d", lists, strings.Count(list, "\n"), still)
		}
		lists++
		if queue.Ended() || watch.Ended() {
			t.Fatalf("ended: %s%s", queue.Stderr(), watch.Stderr())
		}
	}
	measure(&after)
	close(stop)
	a, b, c := int64(<-sentA), int64(<-sentB), int64(<-churned)
	nstest.Until(t, fmt.Sprintf("%d packets arrive", a), func() bool { return arrived.Load() >= a })
	nstest.Until(t, fmt.Sprintf("%d destroy events", c), func() bool { return gone.Load() >= c })
	for _, p := range []*nstest.Proc{queue, watch} {
		p.Signal(unix.SIGTERM)
		if status := p.Wait(); status != 0 {
			t.Errorf("status %d", status)
		}
		for _, word := range []string{"queue full", "buffer full", "vanished", "refused"} {
			if strings.Contains(p.Stderr(), word) {
				t.Errorf("totals tell of losses:\n%s", p.Stderr())
			}
		}
	}
	queueEnd()
	watchEnd()

	if got := int64(counted(queue.Stderr(), "packet")); got != a+b || printed.Load() != a+b || arrived.Load() != a {
		t.Errorf("sent %d and %d: %d decided, %d printed, %d arrived", a, b, got, printed.Load(), arrived.Load())
	}
	if made.Load() != c || gone.Load() != c {
		t.Errorf("%d flows made and deleted: %d new, %d destroy", c, made.Load(), gone.Load())
	}
	for i, name := range []string{"queue", "watch"} {
		if before[i].fds != after[i].fds || after[i].threads > before[i].threads+2 ||
			after[i].kib > before[i].kib+4<<10 {
			t.Errorf("%s: KiB, descriptors, threads: %v, later %v", name, before[i], after[i])
		}
	}
	t.Logf("%v: %d packets, %d flows made and deleted, %d lists of %d; KiB, descriptors, threads: queue %v %v, "+
		"watch %v %v",
		long, a+b, c, lists, still, before[0], after[0], before[1], after[1])
}
