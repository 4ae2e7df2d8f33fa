package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
	"nfctl/internal/queue"
)

// A train is datagrams that bear their number and the time at which they were sent.
type train struct {
	out  net.Conn
	in   net.PacketConn
	came chan arrival
}

// An arrival is a datagram that came.
type arrival struct {
	n     int
	taken time.Duration // from its sending to its coming
	at    time.Duration
}

func newTrain(t *testing.T, from, to *nstest.NS, host string) *train {
	t.Helper()
	in := to.ListenUDP(net.JoinHostPort(host, "7000"))
	roomy(t, in)
	out, err := from.Dial("udp", net.JoinHostPort(host, "7000"), nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	tr := &train{out, in, make(chan arrival, 1<<16)}
	go func() {
		defer close(tr.came)
		b := make([]byte, 2048)
		for {
			if _, _, err := in.ReadFrom(b); err != nil {
				return
			}
			now := time.Since(trainsBegan)
			sent := time.Duration(binary.BigEndian.Uint64(b[8:]))
			tr.came <- arrival{int(binary.BigEndian.Uint64(b)), now - sent, now}
		}
	}()
	return tr
}

// send sends datagrams from one number up to another, of so many bytes.
func (tr *train) send(t *testing.T, from, to, size int, apart time.Duration) {
	t.Helper()
	// From one processor: the kernel lets packets of two overtake each other.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if unix.SchedGetaffinity(0, &all) == nil {
		for i := range 1024 {
			if all.IsSet(i) {
				one.Set(i)
				break
			}
		}
		_ = unix.SchedSetaffinity(0, &one)
		defer func() { _ = unix.SchedSetaffinity(0, &all) }()
	}
	b := make([]byte, max(size, 16))
	for i := from; i < to; i++ {
		for {
			binary.BigEndian.PutUint64(b, uint64(i))
			binary.BigEndian.PutUint64(b[8:], uint64(time.Since(trainsBegan)))
			if _, err := tr.out.Write(b); err == nil {
				break
			} else if !isTransient(err) {
				t.Fatal(err)
			}
		}
		if apart > 0 {
			time.Sleep(apart)
		}
	}
}

var trainsBegan = time.Now()

// take returns the next n datagrams, or those that come until nothing has for quiet.
func (tr *train) take(n int, quiet time.Duration) (list []arrival) {
	for len(list) < n {
		select {
		case a, ok := <-tr.came:
			if !ok {
				return list
			}
			list = append(list, a)
		case <-time.After(quiet):
			return list
		}
	}
	return list
}

func inOrder(list []arrival) bool {
	return slices.IsSortedFunc(list, func(a, b arrival) int { return a.n - b.n })
}

// holdPlace is where packets wait on their way from one host to another.
type holdPlace struct {
	attach       string
	from, to, at *nstest.NS
	hosts        [2]string
}

func holdPlaces(t *testing.T) []holdPlace {
	client, router, server := threeHosts(t)
	hosts := [2]string{"10.0.1.2", "fd01::2"}
	return []holdPlace{
		{"output", client, server, client, hosts},
		{"postrouting", client, server, client, hosts},
		{"prerouting", client, server, server, hosts},
		{"input", client, server, server, hosts},
		{"forward", client, server, router, hosts},
		{"postrouting priority 150", client, server, router, hosts},
	}
}

// TestDelay: everything arrives, once, in order, and never early, at each hook, by
// IPv4 and IPv6, edited and marked too.
func TestDelay(t *testing.T) {
	t.Parallel()
	const d, n = 60 * time.Millisecond, 300
	for _, rules := range [][]string{
		{"delay 60ms udp > :7000"},
		{"delay 20ms", "delay 40ms accept udp > :7000"},
		{"delay 60ms set ip.ttl=9 mark 0x5/0xff udp > :7000"},
		{"delay 60ms replace \"ping\" \"a longer pong\" udp > :7000"},
	} {
		t.Run(rules[0], func(t *testing.T) {
			t.Parallel()
			for _, place := range holdPlaces(t) {
				args := []string{"-q", "--attach", place.attach + " udp > :7000"}
				for _, r := range rules {
					args = append(args, "--rule", r)
				}
				for _, host := range place.hosts {
					p := startQueue(t, place.at, args...)
					tr := newTrain(t, place.from, place.to, host)
					tr.send(t, 0, n, 100, 0)
					got := tr.take(n, nstest.Patience)
					if len(got) != n || !inOrder(got) {
						t.Errorf("%s %s: %d of %d came, in order: %v\n%s", place.attach, host, len(got), n,
							inOrder(got), p.Stderr())
					}
					for _, a := range got {
						if a.taken < d {
							t.Errorf("%s %s: datagram %d came after %v", place.attach, host, a.n, a.taken)
							break
						}
					}
					if more := tr.take(1, 20*time.Millisecond); len(more) > 0 {
						t.Errorf("%s %s: %d came twice", place.attach, host, more[0].n)
					}
					_ = tr.in.Close()
					words := endQueue(t, p)
					if !strings.Contains(words, fmt.Sprintf("%d had to wait", n)) ||
						strings.Contains(words, "vanished") || strings.Contains(words, "not sent") {
						t.Errorf("%s %s: %s", place.attach, host, words)
					}
				}
			}
		})
	}
}

// TestDelayJitter: within the bounds, in order unless that is not asked.
func TestDelayJitter(t *testing.T) {
	t.Parallel()
	const n = 2000
	for _, place := range holdPlaces(t)[2:5] {
		for _, reorder := range []bool{false, true} {
			rule := "delay 30ms jitter 20ms"
			if reorder {
				rule += " reorder"
			}
			p := startQueue(t, place.at, "-q", "--seed", "3", "--attach", place.attach+" udp > :7000", "--rule", rule)
			tr := newTrain(t, place.from, place.to, place.hosts[0])
			tr.send(t, 0, n, 60, 20*time.Microsecond)
			got := tr.take(n, nstest.Patience)
			if len(got) != n || inOrder(got) == reorder {
				t.Errorf("%s, %s: %d came, in order: %v", place.attach, rule, len(got), inOrder(got))
			}
			var times []time.Duration
			for _, a := range got {
				if a.taken < 10*time.Millisecond {
					t.Errorf("%s, %s: datagram %d came after %v", place.attach, rule, a.n, a.taken)
					break
				}
				times = append(times, a.taken)
			}
			slices.Sort(times)
			if reorder && len(times) == n && times[n*95/100]-times[n/20] < 15*time.Millisecond {
				t.Errorf("%s, %s: %v to %v", place.attach, rule, times[n/20], times[n*95/100])
			}
			_ = tr.in.Close()
			endQueue(t, p)
		}
	}
}

// TestRate: so many bits a second arrive, a burst at once; what would wait too long is
// dropped, and counted.
func TestRate(t *testing.T) {
	t.Parallel()
	const size = 972 // 1,000 bytes with IPv4's header
	for _, place := range holdPlaces(t)[:5] {
		for _, c := range []struct {
			rule     string
			n, least int
			low, hi  time.Duration
		}{
			{"rate 2mbit", 100, 100, 390 * time.Millisecond, 0},
			{"rate 50kbit burst 100KiB", 100, 100, 0, 10 * time.Second},
			{"rate 2mbit wait 100ms", 100, 25, 90 * time.Millisecond, 0},
		} {
			p := startQueue(t, place.at, "-q", "--attach", place.attach+" udp > :7000", "--rule", c.rule)
			tr := newTrain(t, place.from, place.to, place.hosts[0])
			begun := time.Since(trainsBegan)
			tr.send(t, 0, c.n, size, 0)
			got := tr.take(c.n, 500*time.Millisecond)
			took := time.Duration(0)
			if len(got) > 0 {
				took = got[len(got)-1].at - begun
			}
			_ = tr.in.Close()
			words := endQueue(t, p)
			late := 0
			if m := regexp.MustCompile(`(\d+) dropped: they`).FindStringSubmatch(words); m != nil {
				late, _ = strconv.Atoi(m[1])
			}
			if len(got) < c.least || len(got)+late != c.n || !inOrder(got) || took < c.low || took > c.hi && c.hi > 0 {
				t.Errorf("%s, %s: %d came and %d were late of %d, the last after %v\n%s", place.attach, c.rule,
					len(got), late, c.n, took, words)
			}
		}
	}
}

// TestDelayPing: echoes wait on both ways.
func TestDelayPing(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "ping")
	for _, place := range holdPlaces(t)[:5] {
		for i, host := range place.hosts {
			proto := []string{"icmp", "icmpv6"}[i]
			p := startQueue(t, place.at, "-q", "--attach", place.attach, "--rule", "delay 40ms "+proto+" >")
			words := place.from.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", host)
			least := 40.0
			if place.attach == "forward" { // both ways pass there
				least = 80
			}
			times := regexp.MustCompile(`time=([\d.]+) ms`).FindAllStringSubmatch(words, -1)
			if len(times) != 3 || strings.Contains(words, "DUP") {
				t.Errorf("%s %s: %s", place.attach, host, words)
			}
			for _, m := range times {
				if ms, _ := strconv.ParseFloat(m[1], 64); ms < least {
					t.Errorf("%s %s: %v ms", place.attach, host, ms)
				}
			}
			endQueue(t, p)
		}
	}
}

// TestHeldAtTheEnd: what waits when nfctl is to end arrives at once, in order.
func TestHeldAtTheEnd(t *testing.T) {
	t.Parallel()
	const n = 10000
	for _, place := range holdPlaces(t) {
		p := startQueue(t, place.at, "-q", "--attach", place.attach+" udp > :7000", "--rule", "delay 1h")
		tr := newTrain(t, place.from, place.to, place.hosts[0])
		tr.send(t, 0, n, 60, 0)
		nstest.Until(t, "all wait", func() bool {
			p.Signal(unix.SIGUSR1)
			return strings.Contains(p.Stderr(), fmt.Sprintf("%d wait still", n))
		})
		if early := tr.take(1, 10*time.Millisecond); len(early) > 0 {
			t.Errorf("%s: %d did not wait", place.attach, early[0].n)
		}
		words := endQueue(t, p)
		if got := tr.take(n, time.Second); len(got) != n || !inOrder(got) {
			t.Errorf("%s: %d of %d came, in order: %v\n%s", place.attach, len(got), n, inOrder(got), words)
		}
		_ = tr.in.Close()
	}
}

// TestHeldFull: what does not fit is counted, the rest arrives; others pass.
func TestHeldFull(t *testing.T) {
	t.Parallel()
	const n, room = 5000, 1000
	places := holdPlaces(t)[:5]
	echo := places[0].to.UDPEcho(net.JoinHostPort(places[0].hosts[0], "7001"))
	for _, place := range places {
		p := startQueue(t, place.at, "-q", "--max-len", strconv.Itoa(room),
			"--attach", place.attach+" udp > :7000,7001", "--rule", "delay 400ms udp > :7000")
		tr := newTrain(t, place.from, place.to, place.hosts[0])
		tr.send(t, 0, n, 60, 0)
		if place.attach == "output" || place.attach == "postrouting" {
			// Only copies wait there; in the other hooks the first queue is full as well.
			if answer, ok := place.from.Ask(echo, "passes", nstest.Patience); !ok || answer != "passes" {
				t.Errorf("%s: what need not wait did not pass: %q", place.attach, answer)
			}
		}
		got := tr.take(n, time.Second)
		if answer, ok := place.from.Ask(echo, "passes", nstest.Patience); !ok || answer != "passes" {
			t.Errorf("%s: what need not wait does not pass afterwards: %q", place.attach, answer)
		}
		_ = tr.in.Close()
		words := endQueue(t, p)
		lost := 0
		for _, m := range regexp.MustCompile(`(\d+) lost: `).FindAllStringSubmatch(words, -1) {
			k, _ := strconv.Atoi(m[1])
			lost += k
		}
		if len(got)+lost != n || len(got) < room || lost == 0 || !inOrder(got) {
			t.Errorf("%s: %d came and %d were lost of %d, in order: %v\n%s", place.attach, len(got), lost, n,
				inOrder(got), words)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestHeldReload: new rules hold others, what waited by the old ones goes when it was to.
func TestHeldReload(t *testing.T) {
	t.Parallel()
	const n = 500
	for _, place := range holdPlaces(t)[3:5] {
		rules := t.TempDir() + "/rules"
		write(t, rules, "accept udp > :9\n")
		p := startQueue(t, place.at, "--attach", place.attach+" udp > :7000", "--rules", rules, "-o", "json")
		tr := newTrain(t, place.from, place.to, place.hosts[0])
		reload := func(text string, times int) {
			t.Helper()
			write(t, rules, text)
			p.Signal(unix.SIGHUP)
			nstest.Until(t, "rules are reloaded", func() bool {
				return strings.Count(p.Stderr(), "rules reloaded") == times
			})
		}
		// The second queue is bound at the first rule by which packets wait.
		reload("delay 2s udp > :7000\n", 1)
		tr.send(t, 0, n, 60, 0)
		nstest.Until(t, "all are decided on", func() bool { return strings.Count(p.Stdout(), "\n") == n })
		reload("accept udp > :9\n", 2)
		tr.send(t, n, n+1, 60, 0)
		got := tr.take(n+1, nstest.Patience)
		if len(got) != n+1 || got[0].n != n || !inOrder(got[1:]) || got[1].taken < 2*time.Second {
			t.Errorf("%s: %d came, %+v first\n%s", place.attach, len(got), got[:min(len(got), 2)], p.Stderr())
		}
		reload("delay 30ms udp > :7000\n", 3)
		tr.send(t, 0, n, 60, 0)
		if got := tr.take(n, nstest.Patience); len(got) != n || !inOrder(got) || got[0].taken < 30*time.Millisecond {
			t.Errorf("%s: after the third reload %d came", place.attach, len(got))
		}
		_ = tr.in.Close()
		endQueue(t, p)
	}
}

// TestHeldWithoutASecondQueue: where all numbers are taken packets wait in the queue
// that they are in, and the others pass them.
func TestHeldWithoutASecondQueue(t *testing.T) {
	t.Parallel()
	const n = 2000
	place := holdPlaces(t)[3]
	place.at.Do(func() {
		for num := 0xffff; num > 0xffff-200; num-- {
			q, err := queue.Open(queue.Config{Num: uint16(num), MaxLen: 1})
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = q.Close() })
		}
	})
	p := startQueue(t, place.at, "-q", "--num", "5", "--attach", place.attach+" udp > :7000,7001", "--rule",
		"delay 2s jitter 100ms set ip.ttl=9 udp > :7000")
	tr := newTrain(t, place.from, place.to, place.hosts[0])
	echo := place.to.UDPEcho(net.JoinHostPort(place.hosts[0], "7001"))
	for i := range 20 {
		tr.send(t, i*n/20, (i+1)*n/20, 60, 0)
		if _, ok := place.from.Ask(echo, "passes", time.Second); !ok {
			t.Errorf("what need not wait does not pass at once")
		}
	}
	got := tr.take(n, nstest.Patience)
	if len(got) != n || !inOrder(got) || got[0].taken < 1900*time.Millisecond {
		t.Errorf("%d came, in order: %v", len(got), inOrder(got))
	}
	endQueue(t, p)
}
