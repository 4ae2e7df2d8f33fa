package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// setMark sets the mark of what a socket sends.
func setMark(t *testing.T, c net.Conn, mark uint32) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK,
			int(mark))
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
}

// marksOf returns the marks of the flows to a port, in hexadecimal.
func marksOf(t *testing.T, ns *nstest.NS, flow string) string {
	t.Helper()
	return strings.Join(strings.Fields(ns.Run(nstest.Build(t), "ct", "list", flow, "--template",
		`{{printf "0x%x" .mark}}`)), " ")
}

// TestDecideBeside: two nfctl at one place, with bits of their own, decide each for
// itself; with the same bits the second is refused, and the first goes on undisturbed.
func TestDecideBeside(t *testing.T) {
	t.Parallel()
	seconds := []string{"output udp >", "output priority 1 udp >", "postrouting udp >", "output priority -1 ip udp >"}
	if testing.Short() {
		seconds = seconds[:2]
	}
	for _, second := range seconds {
		t.Run(second, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			ns.UDPEcho("127.0.0.1:7000")
			nfctl := nstest.Build(t)
			a := startQueue(t, ns, "--attach", "output udp >", "--rule", `accept flow if payload contains "good"`,
				"--rule", `connmark 0x5/0xf drop flow if payload contains "bad"`, "-o", "json")
			b := startQueue(t, ns, "--attach", second, "--flow-mark", "0x0f000000", "--rule",
				`accept flow if payload contains "fine"`,
				"--rule", `connmark 0x60/0xf0 drop flow if payload contains "evil"`, "-o", "json")
			passes := func(c net.Conn, word string, patience time.Duration) bool {
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = c.Write([]byte(word))
				_, err := c.Read(make([]byte, 100))
				return err == nil
			}
			for _, words := range []struct {
				said   []string
				passes bool
				a, b   int // packets that come up, both directions of what passes
				mark   string
			}{
				{[]string{"x"}, true, 2, 2, "0x0"},
				{[]string{"good", "x"}, true, 1, 4, "0x40000000"},
				{[]string{"fine", "x"}, true, 4, 1, "0x4000000"},
				{[]string{"good", "fine", "x"}, true, 1, 3, "0x44000000"},
				{[]string{"x", "bad", "x"}, false, 3, 2, "0x80000005"},
				{[]string{"good", "evil", "x"}, false, 1, 3, "0x48000060"},
			} {
				a0, b0 := len(cameUp(a)), len(cameUp(b))
				c, err := ns.Dial("udp", "127.0.0.1:7000", nstest.Patience)
				if err != nil {
					t.Fatal(err)
				}
				ok, patience := true, nstest.Patience
				for _, word := range words.said {
					if word == "bad" || word == "evil" {
						patience = 200 * time.Millisecond
					}
					ok = passes(c, word, patience)
				}
				if ok != words.passes {
					t.Errorf("%v: passes %v", words.said, ok)
				}
				// What is dropped at one may have been seen by the other before, or not.
				order := !words.passes
				nstest.Until(t, "packets come up", func() bool {
					return order || len(cameUp(a))-a0 >= words.a && len(cameUp(b))-b0 >= words.b
				})
				if na, nb := len(cameUp(a))-a0, len(cameUp(b))-b0; !order && (na != words.a || nb != words.b) {
					t.Errorf("%v: %d and %d packets came up, want %d and %d", words.said, na, nb, words.a, words.b)
				}
				_, port, _ := net.SplitHostPort(c.LocalAddr().String())
				if got := marksOf(t, ns, "udp :"+port+" > :7000"); got != words.mark {
					t.Errorf("%v: mark %s, want %s", words.said, got, words.mark)
				}
			}
			before := marksOf(t, ns, "udp > :7000")
			for _, attach := range []string{"output udp >", "forward"} { // flows pass both
				_, words, status := ns.Exec(nfctl, "queue", "--attach", attach, "--rule", "drop flow", "--duration",
					"1s")
				if status != exitExists || !strings.Contains(words, "another nfctl's") || !strings.Contains(words,
					"--flow-mark 0xf00000") {
					t.Errorf("the same bits: status %d: %s", status, words)
				}
			}
			if got := marksOf(t, ns, "udp > :7000"); got != before {
				t.Errorf("marks were changed: %s to %s", before, got)
			}
			if _, words, status := ns.Exec(nfctl, "queue", "--attach", "input", "--rule", "reject if dport == 1",
				"--duration", "10ms"); status != 0 {
				t.Errorf("no packet is under way in both: status %d: %s", status, words)
			}
			b.Signal(unix.SIGTERM)
			if status := b.Wait(); status != 0 {
				t.Errorf("status %d: %s", status, b.Stderr())
			}
			if got, want := marksOf(t, ns, "udp > :7000"), func() string {
				var marks []string
				for _, m := range strings.Fields(before) {
					var n uint32
					_, _ = fmt.Sscanf(m, "0x%x", &n)
					marks = append(marks, fmt.Sprintf("0x%x", n&^0xc000000))
				}
				return strings.Join(marks, " ")
			}(); got != want {
				t.Errorf("at the end of one: marks %s, want %s", got, want)
			}
			out := ns.Run(nfctl, "doctor", "-o", "json")
			if !strings.Contains(out, "in force (inet) at output priority 0") && !strings.Contains(out,
				"in force (ip, ip6) at output priority 0") ||
				!strings.Contains(out, "uses bits 0xf0000000 of packets' marks, keeps verdicts on flows in bits "+
					"0xc0000000 of connections' marks, sets bits 0xf of connections' marks") {
				t.Errorf("doctor:\n%s", out)
			}
		})
	}
}

// TestForgedMarks: nothing that sets marks, a sender or a rule of the host, decides for a
// flow, changes its mark or keeps its packets from being asked about; bits that are not
// nfctl's pass through it, and none of nfctl's leaves it.
func TestForgedMarks(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	for _, attach := range []string{"prerouting", "input", "forward", "output", "postrouting"} {
		t.Run(attach, func(t *testing.T) {
			t.Parallel()
			client, router, server := threeHosts(t)
			at := map[string]*nstest.NS{"prerouting": router, "input": server, "forward": router, "output": client,
				"postrouting": client}[attach]
			for _, host := range []string{"10.0.1.2", "fd01::2"} {
				server.UDPEcho(net.JoinHostPort(host, "7000"))
			}
			rules := []string{"--attach", attach + " udp > :7000", "--rule",
				"accept flow if payload contains \"good\"", "--rule", "connmark 0x5/0xf accept flow if payload contains \"mark\"",
				"--rule", "drop flow if payload contains \"bad\"", "-o", "json"}
			if attach != "postrouting" {
				rules = append(rules, "--rule", "reject if payload contains \"worse\"")
			}
			p := startQueue(t, at, rules...)
			// Behind nfctl's chains: its bits, and the others.
			at.Run("nft", "add table inet w; add chain inet w b { type filter hook "+attach+" priority -300; }; "+
				"add chain inet w c { type filter hook "+attach+" priority 2; };"+
				"add counter inet w ours; add counter inet w others; add rule inet w c meta mark & 0xf0000000 != "+
				"0 counter name ours; add rule inet w c meta mark 0x77 counter name others")
			sent := 0
			for _, host := range []string{"10.0.1.2", "fd01::2"} {
				for code := range uint32(16) {
					if testing.Short() && code > 2 && code < 15 {
						continue
					}
					forged := code<<28 | 0x77
					if attach == "output" || attach == "postrouting" {
						forged = code << 28 // by the socket
					} else {
						at.Run("nft", fmt.Sprintf("flush chain inet w b; add rule inet w b meta l4proto udp meta "+
							"mark set %#x", forged))
					}
					for _, first := range []struct{ word, mark string }{{"x", "0x0"}, {"good", "0x40000000"},
						{"mark", "0x40000005"}} {
						c, err := client.Dial("udp", net.JoinHostPort(host, "7000"), nstest.Patience)
						if err != nil {
							t.Fatal(err)
						}
						setMark(t, c, code<<28|0x77)
						before := len(cameUp(p))
						for i, word := range []string{first.word, "x", "x"} {
							_ = c.SetDeadline(time.Now().Add(nstest.Patience))
							if _, err := c.Write([]byte(word)); err != nil {
								t.Fatal(err)
							}
							if _, err := c.Read(make([]byte, 10)); err != nil {
								t.Fatalf("mark %#x, packet %d behind %s: %v", forged, i+1, first.word, err)
							}
							sent++
						}
						want := 1
						if first.word == "x" {
							want = 3
						}
						nstest.Until(t, "packets come up", func() bool { return len(cameUp(p))-before >= want })
						if n := len(cameUp(p)) - before; n != want {
							t.Errorf("mark %#x, behind %s: %d packets came up, want %d", forged, first.word, n, want)
						}
						if got := marksOf(t, at, "udp "+c.LocalAddr().String()+" > :7000"); got != first.mark {
							t.Errorf("mark %#x, behind %s: the connection's is %s", forged, first.word, got)
						}
						_ = c.Close()
					}
				}
			}
			if n := counter(t, at, "ours"); n != 0 {
				t.Errorf("%d packets left with bits of nfctl's", n)
			}
			if n := counter(t, at, "others"); n < sent {
				t.Errorf("%d of %d packets left with the other bits of their mark", n, sent)
			}
		})
	}
}

// TestForgedRepeats: the mark by which packets come again keeps what bears it from being
// asked about, but says nothing else.
func TestForgedRepeats(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	for _, port := range []string{"7000", "7001"} {
		ns.UDPEcho("127.0.0.1:" + port)
	}
	p := startQueue(t, ns, "--attach", "output udp > :7000,7001", "--rule", "repeat mark 0x100/0x100 udp > :7001",
		"--rule", "reject if dport == 1",
		"--rule", "drop flow if dport == 2", "--rule", "reject flow if dport == 3", "--rule",
		"accept flow if dport == 4", "-o", "json")
	for code := range uint32(16) {
		c, err := ns.Dial("udp", "127.0.0.1:7000", nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		setMark(t, c, code<<28|0x100)
		echoes(t, c, 2000)
	}
	if got := strings.ReplaceAll(marksOf(t, ns, "udp > :7000"), "0x0", ""); strings.TrimSpace(got) != "" {
		t.Errorf("connections are marked: %s", got)
	}
	c, err := ns.Dial("udp", "127.0.0.1:7001", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	echoes(t, c, 2000)
	nstest.Until(t, "packets come up", func() bool { return strings.Count(p.Stdout(), `"verdict":"repeat"`) == 2 })
}

// counter returns the packets that a counter of table w has seen.
func counter(t *testing.T, ns *nstest.NS, name string) (n int) {
	t.Helper()
	out := ns.Run("nft", "list", "counter", "inet", "w", name)
	_, rest, _ := strings.Cut(out, "packets ")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return n
}

// TestDecideReloads: a hundred reloads under load, each with other rules. As soon as new
// rules are reported no packet is decided by what others before decided, and a flow bears
// the mark of the rules in force.
func TestDecideReloads(t *testing.T) {
	t.Parallel()
	reloads := 100
	if testing.Short() {
		reloads = 8 // in an emulated VM a reload takes seconds
	}
	ns := nstest.New(t)
	rules := filepath.Join(t.TempDir(), "rules")
	write := func(i int) {
		text := fmt.Sprintf("connmark %#x/0xffff accept flow udp > :7000\n", i)
		if i%3 == 1 {
			text = fmt.Sprintf("connmark %#x/0xffff drop flow udp > :7000\naccept\n", i)
		}
		if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	var mu sync.Mutex
	arrived := map[string]bool{}
	for _, port := range []string{"7000", "7001"} {
		server := ns.ListenUDP("127.0.0.1:" + port)
		go func() {
			b := make([]byte, 100)
			for {
				n, from, err := server.ReadFrom(b)
				if err != nil {
					return
				}
				mu.Lock()
				arrived[string(b[:n])] = true
				mu.Unlock()
				_, _ = server.WriteTo(b[:n], from)
			}
		}()
	}
	p := startQueue(t, ns, "--attach", "output udp > :7000,7001", "--num", "30-31", "--rules", rules, "-q")
	var conns []net.Conn
	for range 8 {
		c, err := ns.Dial("udp", "127.0.0.1:7000", nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	fence, err := ns.Dial("udp", "127.0.0.1:7001", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	// The load: new flows all the time, and old ones that go on.
	ns.ListenUDP("127.0.0.2:7000") // nobody reads it
	stop := make(chan struct{})
	var load sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); load.Wait() })
	defer end()
	for range 2 {
		load.Go(func() {
			for {
				var list []net.Conn
				ns.Do(func() {
					for range 50 {
						if c, err := net.Dial("udp", "127.0.0.2:7000"); err == nil {
							list = append(list, c)
						}
					}
				})
				for range 20 {
					for _, c := range list {
						_, _ = c.Write([]byte("load"))
					}
				}
				for _, c := range list {
					_ = c.Close()
				}
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
	nfctl := nstest.Build(t)
	for i := 1; i <= reloads; i++ {
		write(i)
		p.Signal(unix.SIGHUP)
		nstest.Until(t, "the rules are reloaded", func() bool {
			return strings.Count(p.Stderr(),
				"rules reloaded") == i
		})
		ask := func() {
			for k, c := range conns {
				if _, err := fmt.Fprintf(c, "%d of %d", i, k); err != nil && !isTransient(err) {
					t.Fatal(err)
				}
			}
		}
		if i%3 == 1 { // dropped, as is seen at the end
			for range 5 {
				ask()
			}
			// What comes to that queue later is not decided sooner.
			nstest.Until(t, "the rules have decided", func() bool {
				if _, err := fmt.Fprintf(fence, "fence %d", i); err != nil && !isTransient(err) {
					t.Fatal(err)
				}
				mu.Lock()
				defer mu.Unlock()
				return arrived[fmt.Sprintf("fence %d", i)]
			})
			continue
		}
		nstest.Until(t, "flows go on", func() bool {
			ask() // a full queue may lose some
			mu.Lock()
			defer mu.Unlock()
			for k := range conns {
				if !arrived[fmt.Sprintf("%d of %d", i, k)] {
					return false
				}
			}
			return true
		})
		if i%10 == 0 || testing.Short() {
			for _, c := range conns {
				_, port, _ := net.SplitHostPort(c.LocalAddr().String())
				out := strings.TrimSpace(ns.Run(nfctl, "ct", "list", "udp :"+port+" > :7000", "--template",
					"{{.mark}}"))
				var mark uint32
				if _, err := fmt.Sscan(out, &mark); err != nil || mark != 0x40000000|uint32(i) {
					t.Errorf("reload %d: mark %#x of a flow (%s)", i, mark, out)
				}
			}
		}
	}
	end()
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
	mu.Lock()
	defer mu.Unlock()
	for i := 1; i <= reloads; i += 3 {
		for k := range conns {
			if arrived[fmt.Sprintf("%d of %d", i, k)] {
				t.Errorf("reload %d: flow %d passed by rules that are gone", i, k)
			}
		}
	}
}

// TestManyMarksAreCleared: what a run before decided for 100,000 flows is gone within a
// second, and other bits are kept.
func TestManyMarksAreCleared(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("speed is looked at outside of VMs")
	}
	const flows = 100_000
	ns := nstest.New(t)
	nfctl := nstest.Build(t)
	file := filepath.Join(t.TempDir(), "flows")
	var b []byte
	for i := range flows {
		b = fmt.Appendf(b, "-A -t 600 -m %d -s 10.%d.%d.%d -d 10.255.0.1 -r 10.255.0.1 -q 10.%[2]d.%[3]d.%[4]d "+
			"-p udp --sport 1000 --dport 53 --reply-port-src 53 --reply-port-dst 1000\n",
			uint32(0x80000005), i>>16, i>>8&0xff, i&0xff)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	best := time.Hour
	for range 3 {
		ns.Run(nfctl, "ct", "load", "--or-update", file)
		if n := strings.TrimSpace(ns.Run(nfctl, "ct", "count", "--filter",
			"mark == 0x80000005")); n != fmt.Sprint(flows) {
			t.Fatalf("%s flows are marked", n)
		}
		began := time.Now()
		p := startQueue(t, ns, "--attach", "output udp >", "--rule", "accept flow", "-q")
		took := time.Since(began)
		if n := strings.TrimSpace(ns.Run(nfctl, "ct", "count", "--filter", "mark == 5")); n != fmt.Sprint(flows) {
			t.Errorf("%s flows have the bits of others alone", n)
		}
		p.Signal(unix.SIGTERM)
		if status := p.Wait(); status != 0 {
			t.Errorf("status %d: %s", status, p.Stderr())
		}
		// The machine may be busy with others' work: then what nfctl itself has used of it.
		state := p.Cmd.ProcessState
		if best = min(best, took, state.UserTime()+state.SystemTime()); best < time.Second/2 {
			break
		}
	}
	t.Logf("cleared in %v", best)
	if best > time.Second {
		t.Errorf("%v", best)
	}
}

// TestDecideOverwritten: a rule of the host that writes whole marks of connections takes
// what was decided away, and nfctl says so.
func TestDecideOverwritten(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	ns := nstest.New(t)
	addr := ns.UDPEcho("127.0.0.1:7000")
	ns.Run("nft", "add table inet t; add chain inet t c { type filter hook postrouting priority 0; }; "+
		"add rule inet t c ct mark set meta mark")
	p := startQueue(t, ns, "--attach", "output udp >", "--rule", "accept flow", "-o", "json")
	c, err := ns.Dial("udp", addr, nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	echoes(t, c, 3000)
	nstest.Until(t, "all packets come up", func() bool { return len(cameUp(p)) == 6 })
	want := "rules in inet table t, chain c, write bits 0xffffffff of connections' marks: what was decided"
	if !strings.Contains(p.Stderr(), want) {
		t.Errorf("%s", p.Stderr())
	}
}
