package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// numbered sends n numbered datagrams, and after them "end", which the rules must let
// pass, and returns which of them arrived.
func numbered(t *testing.T, ns *nstest.NS, host string, n int) []bool {
	t.Helper()
	in := ns.ListenUDP(host + ":7000")
	defer in.Close()
	roomy(t, in)
	out, err := ns.Dial("udp", host+":7000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	b := make([]byte, 4)
	for i := range n {
		binary.BigEndian.PutUint32(b, uint32(i))
		for {
			if _, err := out.Write(b); err == nil {
				break
			} else if !isTransient(err) {
				t.Fatal(err)
			}
		}
	}
	if _, err := out.Write([]byte("end")); err != nil {
		t.Fatal(err)
	}
	seen := make([]bool, n)
	for {
		_ = in.SetReadDeadline(time.Now().Add(nstest.Patience))
		m, _, err := in.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		if m == 3 {
			return seen
		}
		seen[binary.BigEndian.Uint32(b)] = true
	}
}

// fromPayload leaves the last datagram out: it is shorter.
const fromPayload = " udp > :7000 if udp.length == 12"

func TestQueueEvery(t *testing.T) {
	t.Parallel()
	for _, host := range hosts {
		ns := nstest.New(t)
		p := startQueue(t, ns, "-q", "--attach", "output udp > :7000", "--rule", "drop every 10"+fromPayload)
		dropped := 0
		for i, came := range numbered(t, ns, host, 2000) {
			if came == ((i+1)%10 == 0) {
				t.Fatalf("%s: packet %d: %v", host, i+1, came)
			}
			if !came {
				dropped++
			}
		}
		if words := endQueue(t, p); dropped != 200 ||
			!strings.Contains(words, "drop every 10"+fromPayload+"): 200 packets") {
			t.Errorf("%s: %d dropped\n%s", host, dropped, words)
		}
	}
}

func TestQueueChance(t *testing.T) {
	t.Parallel()
	const n = 4000
	for _, host := range hosts {
		run := func(args ...string) (string, []bool) {
			ns := nstest.New(t)
			p := startQueue(t, ns, append([]string{"-q", "-v", "--attach", "output udp > :7000"}, args...)...)
			seen := numbered(t, ns, host, n)
			return endQueue(t, p), seen
		}
		words, seen := run("--seed", "5", "--rule", "drop chance 20%"+fromPayload)
		met := 0
		for _, came := range seen {
			if !came {
				met++
			}
		}
		if sigma := math.Sqrt(n * 0.2 * 0.8); math.Abs(float64(met)-n*0.2) > 3*sigma ||
			!strings.Contains(words, "--seed 5\n") {
			t.Errorf("%s: %d of %d dropped\n%s", host, met, n, words)
		}
		if _, again := run("--seed", "5", "--rule",
			"drop chance 20%"+fromPayload); fmt.Sprint(again) != fmt.Sprint(seen) {
			t.Errorf("%s: the same seed, and others are dropped", host)
		}
		// Without --seed another is drawn, and told: it draws the same again.
		words, seen = run("--rule", "drop chance 20% burst 5"+fromPayload)
		seed := regexp.MustCompile(`--seed ([0-9]+)\n`).FindStringSubmatch(words)
		if seed == nil {
			t.Fatalf("%s: no seed told: %s", host, words)
		}
		if _, again := run("--seed", seed[1], "--rule",
			"drop chance 20% burst 5"+fromPayload); fmt.Sprint(again) != fmt.Sprint(seen) {
			t.Errorf("%s: the seed that was told, and others are dropped", host)
		}
		met, runs := 0, 0
		for i, came := range seen {
			if !came {
				met++
				if i == 0 || seen[i-1] {
					runs++
				}
			}
		}
		mean := float64(met) / float64(max(runs, 1))
		if math.Abs(mean-5) > 4*math.Sqrt(20/float64(max(runs, 1))) {
			t.Errorf("%s: %d dropped in %d runs, %.2f each", host, met, runs, mean)
		}
	}
}

// limit against a clock, for each source by itself.
func TestQueueLimit(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "ip")
	const rate, burst = 50, 10
	for _, sources := range [][]string{{"127.0.0.1", "127.0.0.2", "127.0.0.3"}, {"::1", "fd00::1", "fd00::2"}} {
		ns := nstest.New(t)
		if strings.Contains(sources[0], ":") {
			for _, a := range sources[1:] {
				ns.Run("ip", "addr", "add", a+"/128", "dev", "lo", "nodad")
			}
		}
		in := ns.ListenUDP(net.JoinHostPort(sources[0], "7000"))
		roomy(t, in)
		p := startQueue(t, ns, "-q", "--attach", "output udp > :7000", "--rule",
			fmt.Sprintf("drop limit over %d/s burst %d per ip.src udp > :7000", rate, burst))
		came := make(chan map[string]int)
		go func() {
			seen := map[string]int{}
			b := make([]byte, 16)
			for {
				_, from, err := in.ReadFrom(b)
				if err != nil {
					came <- seen
					return
				}
				seen[from.(*net.UDPAddr).IP.String()]++
			}
		}()
		var conns []net.Conn
		for _, a := range sources {
			ns.Do(func() {
				d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(a)}}
				c, err := d.Dial("udp", net.JoinHostPort(sources[0], "7000"))
				if err != nil {
					t.Error(err)
					return
				}
				conns = append(conns, c)
			})
		}
		if len(conns) != len(sources) {
			t.FailNow()
		}
		begun := time.Now()
		sent := 0
		for time.Since(begun) < 3*time.Second {
			for _, c := range conns {
				_, _ = c.Write([]byte("x"))
			}
			sent++
			time.Sleep(time.Millisecond)
		}
		took := time.Since(begun)
		words := endQueue(t, p) // what waited is answered
		_ = in.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		seen := <-came
		// A source never gets more than its burst and what the time gives. It gets less
		// where the machine did not let this test send for longer than a burst lasts.
		most := burst + rate*took.Seconds() + 1
		for _, a := range sources {
			if n := float64(seen[a]); n > most || n < 0.6*most {
				t.Errorf("%s: %v of %d in %v, want at most %.0f and about that\n%s", a, n, sent, took, most, words)
			}
		}
	}
}

// The first packets of each flow are those of both directions.
func TestQueueFirst(t *testing.T) {
	t.Parallel()
	for _, host := range hosts {
		for _, tt := range []struct {
			when    string
			answers int
		}{{"first 6", 3}, {"first 1", 0}, {"first 300B", 3}} { // a packet has 48 bytes: seven begin within
			ns := nstest.New(t)
			ns.UDPEcho(host + ":7000")
			text := strings.Repeat("x", 20)
			if host == "[::1]" {
				text = ""
			}
			p := startQueue(t, ns, "-q", "--attach", "output udp >", "--rule", "accept "+tt.when, "--default", "drop")
			for flow := range 3 {
				c, err := ns.Dial("udp", host+":7000", nstest.Patience)
				if err != nil {
					t.Fatal(err)
				}
				answers := 0
				b := make([]byte, 64)
				for range tt.answers {
					if _, err := c.Write([]byte(text)); err != nil {
						t.Fatal(err)
					}
					_ = c.SetReadDeadline(time.Now().Add(nstest.Patience))
					if _, err := c.Read(b); err != nil {
						t.Fatalf("%s %s: flow %d: %v after %d answers", host, tt.when, flow, err, answers)
					}
					answers++
				}
				_, _ = c.Write([]byte(text))
				_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				if _, err := c.Read(b); err == nil {
					t.Errorf("%s %s: flow %d: more than %d answers", host, tt.when, flow, tt.answers)
				}
				_ = c.Close()
			}
			endQueue(t, p)
		}
	}
}

// Several queues count together, and rules whose text is unchanged go on counting
// after SIGHUP.
func TestQueueCountsOn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "rules")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range hosts {
		ns := nstest.New(t)
		write("drop every 10 udp > :7000\n")
		p := startQueue(t, ns, "-q", "--num", "3-6", "--attach", "output udp > :7000", "--rules", file)
		in := ns.ListenUDP(host + ":7000")
		roomy(t, in)
		arrived := collect(in)
		n := uint32(0)
		send := func(flows, each int) {
			for range flows { // of other ports, so of other queues
				c, err := ns.Dial("udp", host+":7000", nstest.Patience)
				if err != nil {
					t.Fatal(err)
				}
				for range each {
					if _, err := c.Write(binary.BigEndian.AppendUint32(nil, n)); err != nil {
						t.Fatal(err)
					}
					n++
				}
				_ = c.Close()
			}
		}
		send(65, 23) // 1495
		// All are decided before the rules change.
		nstest.Until(t, "the queues are empty", func() bool {
			return strings.Count(ns.Run(nstest.Build(t), "queue", "list", "-o", "json"), `"depth":0,`) == 4
		})
		write("accept udp > :7001\ndrop every 10 udp > :7000\n")
		p.Signal(unix.SIGHUP)
		p.WaitOutput("rules reloaded")
		send(1, 5)
		words := endQueue(t, p)
		seen := arrived()
		if len(seen) != 1350 { // 149 of 1495, and the one after 5 more
			t.Errorf("%s: %d of %d arrived, want nine of ten\n%s", host, len(seen), n, words)
		}
	}
}

// Ten datagrams that come as one (UDP_SEGMENT) are ten, and -v says why large
// segments are cut.
func TestQueueCountsDatagrams(t *testing.T) {
	t.Parallel()
	for _, host := range hosts {
		for _, tt := range []struct {
			gso  bool
			want int
		}{{false, 5}, {true, 10}} {
			ns := nstest.New(t)
			in := ns.ListenUDP(host + ":7000")
			args := []string{"-q", "-v", "--attach", "output udp > :7000", "--rule", "drop every 2"}
			if tt.gso {
				args = append(args, "--gso")
			}
			p := startQueue(t, ns, args...)
			c, err := ns.Dial("udp", host+":7000", nstest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := c.(*net.UDPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if e := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 100)
			}); e != nil || err != nil {
				t.Fatal(e, err)
			}
			if _, err := c.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			nstest.Until(t, "the packets are decided", func() bool {
				return strings.Contains(ns.Run(nstest.Build(t), "queue", "list", "-o", "json"), `"depth":0,`)
			})
			words := endQueue(t, p)
			got := 0
			b := make([]byte, 2000)
			for {
				_ = in.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				n, _, err := in.ReadFrom(b)
				if err != nil {
					break
				}
				got += (n + 99) / 100
			}
			if got != tt.want || strings.Contains(words, "counts packets one by one") == tt.gso {
				t.Errorf("%s, --gso %v: %d datagrams arrived, want %d\n%s", host, tt.gso, got, tt.want, words)
			}
		}
	}
}

// Of more flows than are remembered the least recently seen are forgotten, and begin
// anew; the totals tell how many were.
func TestQueueForgetsFlows(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	p := startQueue(t, ns, "-q", "--max-flows", "100", "--attach", "output udp > :7000", "--rule",
		"drop first 1 udp > :7000")
	out := ns.ListenUDP("127.0.0.1:0")
	send := func(i int) {
		to := &net.UDPAddr{IP: net.IPv4(127, 0, byte(1+i>>8), byte(i)), Port: 7000}
		if _, err := out.WriteTo([]byte("x"), to); err != nil && !isTransient(err) {
			t.Fatal(err)
		}
	}
	for i := range 1000 {
		send(i)
	}
	for i := 900; i < 1000; i++ { // remembered
		send(i)
	}
	send(0)
	words := endQueue(t, p)
	if !strings.Contains(words, "accept 100") || !strings.Contains(words, "drop 1001") ||
		!strings.Contains(words, "rules forgot 901 flows or values of fields for others, see --max-flows\n") {
		t.Error(words)
	}
}
