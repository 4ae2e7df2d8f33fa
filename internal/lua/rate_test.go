package lua

import (
	"context"
	"net"
	"testing"
	"time"

	"nfctl/internal/nstest"
	"nfctl/internal/queue"
)

// A callback that accepts everything keeps at least a third of the rate of a queue
// without rules: how long each takes for packets that wait already, in turns.
func TestRate(t *testing.T) {
	l := newLab(t)
	l.queue(0)
	const packets, turns = 1500, 8
	if _, err := l.try(`h = assert(nfq.open()) nfq.setblocking(h) accept = function() return "accept" end`); err !=
		nil {
		t.Fatal(err)
	}
	// Packets that wait count against their sender's buffer: so there are several.
	var senders []net.Conn
	for range packets / 100 {
		c, err := l.ns.Dial("udp", l.far.LocalAddr().String(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		senders = append(senders, c)
	}
	fill := func() {
		for i := range packets {
			if _, err := senders[i%len(senders)].Write(
				[]byte("some sixty bytes of payload, as small packets have them, say")); err != nil {
				t.Fatal(err)
			}
		}
	}
	script, err := l.v.compile([]byte(`nfq.catch(h, accept)`), "rate")
	if err != nil {
		t.Fatal(err)
	}
	withLua, without := time.Hour, time.Hour
	for range turns {
		if _, err := l.try(`q = assert(nfq.create_queue(h, 0)) nfq.set_mode(q, "packet", 128)`); err != nil {
			t.Fatal(err)
		}
		fill()
		began := time.Now()
		l.v.L.Push(script)
		l.v.L.Call(0, 0)
		withLua = min(withLua, time.Since(began))
		if _, err := l.try(`nfq.destroy_queue(q)`); err != nil {
			t.Fatal(err)
		}

		q, err := queue.Open(queue.Config{CopyRange: 128})
		if err != nil {
			t.Fatal(err)
		}
		fill()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		began = time.Now()
		go func() { ended <- queue.Serve(ctx, queue.Ending{}, q) }()
		for q.Stats().Total.Packets < packets {
			if time.Since(began) > nstest.Patience {
				t.Fatalf("%+v", q.Stats())
			}
			time.Sleep(20 * time.Microsecond)
		}
		without = min(without, time.Since(began))
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		_ = q.Close()
	}
	rate := func(d time.Duration) float64 { return packets / d.Seconds() }
	t.Logf("%.0f verdicts/s with a callback, %.0f without", rate(withLua), rate(without))
	if withLua > 3*without && !raceEnabled {
		t.Errorf("the callback keeps only %.2f of the rate", float64(without)/float64(withLua))
	}
}
