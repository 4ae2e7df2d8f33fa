package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// TestCopiesOfTCP: what this host sends waits as copies, which the kernel takes for the
// packets: connections are tracked and translated, marks stay, streams arrive whole.
func TestCopiesOfTCP(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft", "ip")
	client, _, server := threeHosts(t)
	client.Run("nft", `table inet t {
		chain post { type nat hook postrouting priority 100; ip daddr 10.0.1.2 tcp dport 7002 masquerade; }
		chain out { type nat hook output priority -100; ip daddr 10.0.1.77 dnat to 10.0.1.2; ip6 daddr fd01::77 dnat to fd01::2; }
		chain seen { type filter hook output priority 5; ct state invalid counter name "invalid"
			meta mark and 0xff == 0x7 counter name "marked"; }
		chain left { type filter hook postrouting priority 5; meta mark and 0xf0000000 != 0 counter name "left"; }
		counter invalid {}
		counter marked {}
		counter left {}
	}`)
	data := bytes.Repeat([]byte("all of this, in order; "), 20000)
	for _, attach := range []string{"output", "postrouting", "output priority -150", "output raw"} {
		for _, to := range []struct {
			addr   string
			dnated bool
		}{
			{"10.0.1.2:7001", false}, {"[fd01::2]:7001", false}, {"10.0.1.2:7002", false}, {"10.0.1.77:7001", true},
			{"[fd01::77]:7001", true},
		} {
			if to.dnated && strings.Contains(attach, "-150") {
				continue // in front of the translation it is as any other
			}
			host, port, _ := net.SplitHostPort(to.addr)
			listen := "10.0.1.2"
			if strings.Contains(host, ":") {
				listen = "fd01::2"
			}
			l := server.ListenTCP(net.JoinHostPort(listen, port))
			got := make(chan []byte, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					got <- nil
					return
				}
				_ = c.SetDeadline(time.Now().Add(nstest.Patience))
				b, _ := io.ReadAll(c)
				_, _ = c.Write([]byte("thanks"))
				_ = c.Close()
				got <- b
			}()
			p := startQueue(t, client, "-q", "--attach", attach+" tcp >", "--rule", "mark 0x7/0xff delay 15ms")
			begun := time.Now()
			c, err := client.Dial("tcp", to.addr, nstest.Patience)
			if err != nil {
				t.Fatalf("%s %s: %v\n%s", attach, to.addr, err, p.Stderr())
			}
			if took := time.Since(begun); took < 15*time.Millisecond || took > 900*time.Millisecond {
				t.Errorf("%s %s: connected after %v", attach, to.addr, took)
			}
			_ = c.SetDeadline(time.Now().Add(nstest.Patience))
			send := data
			if to.dnated && !strings.Contains(attach, "raw") {
				send = data[:20000] // which the kernel counts as not sent
			}
			if _, err := c.Write(send); err != nil {
				t.Errorf("%s %s: %v", attach, to.addr, err)
			}
			_ = c.(*net.TCPConn).CloseWrite()
			if b := <-got; !bytes.Equal(b, send) {
				t.Errorf("%s %s: %d of %d bytes arrived", attach, to.addr, len(b), len(send))
			}
			if b, err := io.ReadAll(c); string(b) != "thanks" {
				t.Errorf("%s %s: %q, %v", attach, to.addr, b, err)
			}
			_ = c.Close()
			_ = l.Close()
			words := endQueue(t, p)
			held := strings.Contains(words, "counts them as not sent")
			if want := to.dnated && !strings.Contains(attach, "raw"); held != want ||
				strings.Contains(words, "vanished") ||
				strings.Contains(words, "not taken") || !strings.Contains(words, "had to wait") {
				t.Errorf("%s %s: %s", attach, to.addr, words)
			}
		}
	}
	list := client.Run("nft", "list", "counters")
	counter := func(name string) int {
		m := regexp.MustCompile(`counter ` + name + ` \{\s+packets (\d+)`).FindStringSubmatch(list)
		if m == nil {
			t.Fatalf("no counter %s: %s", name, list)
		}
		n, _ := strconv.Atoi(m[1])
		return n
	}
	if counter("invalid") != 0 || counter("left") != 0 || counter("marked") < 500 {
		t.Errorf("invalid %d, with a code of ours %d, marked %d", counter("invalid"), counter("left"),
			counter("marked"))
	}
}

// TestCopiesThatCannotBe: datagrams above the MTU and to groups wait in the kernel, and
// arrive; the totals say so.
func TestCopiesThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, place := range holdPlaces(t)[:2] {
		for _, host := range place.hosts {
			p := startQueue(t, place.at, "-q", "--attach", place.attach+" udp > :7000", "--rule", "delay 30ms")
			tr := newTrain(t, place.from, place.to, host)
			tr.send(t, 0, 10, 1900, 0)
			tr.send(t, 10, 20, 100, 0)
			got := tr.take(20, nstest.Patience)
			if len(got) != 20 || !inOrder(got) || got[0].taken < 30*time.Millisecond {
				t.Errorf("%s %s: %d came, in order: %v", place.attach, host, len(got), inOrder(got))
			}
			_ = tr.in.Close()
			if words := endQueue(t, p); !strings.Contains(words, " 10 of local senders waited in the kernel") {
				t.Errorf("%s %s: %s", place.attach, host, words)
			}
		}
	}
}

// TestDuplicate: each datagram comes twice, at each hook, and no more often.
func TestDuplicate(t *testing.T) {
	t.Parallel()
	const n = 100
	for _, place := range holdPlaces(t)[:5] {
		for _, host := range place.hosts {
			for _, rules := range [][]string{{"duplicate"}, {"duplicate", "delay 20ms"}} {
				args := []string{"-q", "--attach", place.attach + " udp > :7000"}
				for _, r := range rules {
					args = append(args, "--rule", r)
				}
				p := startQueue(t, place.at, args...)
				tr := newTrain(t, place.from, place.to, host)
				tr.send(t, 0, n, 100, 0)
				got := tr.take(2*n, nstest.Patience)
				got = append(got, tr.take(1, 50*time.Millisecond)...)
				seen := map[int]int{}
				for _, a := range got {
					seen[a.n]++
					if len(rules) > 1 && a.taken < 20*time.Millisecond {
						t.Errorf("%s %s: %d came after %v", place.attach, host, a.n, a.taken)
					}
				}
				for i := range n {
					if seen[i] != 2 {
						t.Errorf("%s %s %v: datagram %d came %d times\n%s", place.attach, host, rules, i, seen[i],
							p.Stderr())
						break
					}
				}
				_ = tr.in.Close()
				if words := endQueue(t, p); !strings.Contains(words, fmt.Sprintf("%d went twice", n)) ||
					strings.Contains(words, "not taken") {
					t.Errorf("%s %s: %s", place.attach, host, words)
				}
			}
		}
	}
	// What cannot be copied goes once.
	place := holdPlaces(t)[0]
	p := startQueue(t, place.at, "-q", "--attach", "output udp > :7000", "--rule", "duplicate")
	tr := newTrain(t, place.from, place.to, place.hosts[0])
	tr.send(t, 0, 5, 1900, 0)
	if got := tr.take(6, 300*time.Millisecond); len(got) != 5 {
		t.Errorf("%d came", len(got))
	}
	if words := endQueue(t, p); !strings.Contains(words, "5 could not be copied") {
		t.Error(words)
	}
}

// TestCorrupt: one bit of each datagram is another, which its receiver notices.
func TestCorrupt(t *testing.T) {
	t.Parallel()
	const n = 300
	for _, place := range holdPlaces(t)[:5] {
		for i, host := range place.hosts {
			p := startQueue(t, place.at, "-q", "--seed", "1", "--attach", place.attach+" udp > :7000", "--rule",
				"corrupt", "--rule", "delay 10ms")
			name := []string{"UdpInCsumErrors", "Udp6InCsumErrors"}[i]
			errs := func() int {
				for line := range strings.Lines(place.to.Run("nstat", "-asz", name)) {
					if f := strings.Fields(line); len(f) > 1 && f[0] == name {
						k, _ := strconv.Atoi(f[1])
						return k
					}
				}
				return -1
			}
			tr := newTrain(t, place.from, place.to, host)
			before := errs()
			tr.send(t, 0, n, 500, 0)
			got := tr.take(n, 300*time.Millisecond)
			// Some bits are of the ports: nobody listens there.
			if bad := errs() - before; bad < n*9/10 || len(got) > n/50 {
				t.Errorf("%s %s: %d of %d arrived whole, %d with a bad checksum", place.attach, host, len(got), n, bad)
			}
			_ = tr.in.Close()
			if words := endQueue(t, p); strings.Contains(words, "vanished") || strings.Contains(words, "not editable") {
				t.Errorf("%s %s: %s", place.attach, host, words)
			}
		}
	}
}

// TestHoldRefused: what cannot be is said at the start.
func TestHoldRefused(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nfctl := nstest.Build(t)
	for _, c := range []struct {
		args  []string
		words string
	}{
		{[]string{"--rule", "delay"}, "a time with its unit"},
		{[]string{"--rule", "delay 100 udp > :7000"}, `did you mean "100ms"`},
		{[]string{"--rule", "delay 100ms jitter 5"}, `did you mean "5ms"`},
		{[]string{"--rule", "delay -1s"}, "a time with its unit"},
		{[]string{"--rule", "delay 25h"}, "up to 24h"},
		{[]string{"--rule", "rate 5"}, `did you mean "5bit"`},
		{[]string{"--rule", "rate 0mbit"}, "bits a second"},
		{[]string{"--rule", "rate 1mbit wait 5"}, "a time with its unit"},
		{[]string{"--rule", "rate 1mbit burst 16"}, "a size with its unit"},
		{[]string{"--rule", "chance 5% delay 10ms"}, "an action in front of it"},
		{[]string{"--rule", "duplicate"}, "--attach"},
		{[]string{"--attach", "postrouting priority 100", "--rule", "duplicate"}, "take a priority below 100"},
	} {
		_, stderr, status := ns.Exec(nfctl, append([]string{"queue"}, c.args...)...)
		if status != exitUsage || !strings.Contains(stderr, c.words) {
			t.Errorf("%v: status %d: %s", c.args, status, stderr)
		}
	}
	if _, _, status := ns.Exec("nft", "-f", "/dev/null"); status == 0 {
		ns.Run("iptables", "-A", "OUTPUT", "-p", "tcp", "-j", "NFQUEUE", "--queue-num", "3")
		_, stderr, status := ns.Exec(nfctl, "queue", "--num", "3", "--rule", "delay 10ms")
		if status != exitUsage || !strings.Contains(stderr, "chain OUTPUT of table filter") {
			t.Errorf("fed at output: status %d: %s", status, stderr)
		}
	}
}

// TestHoldWithoutRaw: copies without CAP_NET_RAW are refused, and at SIGHUP the old rules
// stay in force.
func TestHoldWithoutRaw(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "setpriv")
	ns := nstest.New(t)
	_, stderr, status := ns.Exec("setpriv", "--bounding-set", "-net_raw", nstest.Build(t), "queue", "--attach",
		"output udp > :7000", "--rule", "delay 10ms")
	if status != exitPermission || !strings.Contains(stderr, "CAP_NET_RAW") {
		t.Errorf("status %d: %s", status, stderr)
	}
	rules := t.TempDir() + "/rules"
	write(t, rules, "drop udp > :7000\n")
	p := startQueue(t, ns, "-q", "--attach", "output udp > :7000", "--rules", rules)
	write(t, rules, "delay 10ms\n")
	p.Signal(unix.SIGHUP)
	nstest.Until(t, "the rules are refused", func() bool {
		return strings.Contains(p.Stderr(), "the old ones stay in force") && strings.Contains(p.Stderr(), "CAP_NET_RAW")
	})
	in := ns.ListenUDP("127.0.0.1:7000")
	c, err := ns.Dial("udp", "127.0.0.1:7000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	_ = in.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, _, err := in.ReadFrom(make([]byte, 10)); err == nil {
		t.Error("the old rules are not in force")
	}
	endQueue(t, p)
}
