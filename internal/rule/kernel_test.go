package rule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
	"nfctl/internal/queue"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// A pair is two namespaces joined by a link. Packets that leave the first go
// through a queue there.
type pair struct {
	t    testing.TB
	a, b *nstest.NS
	q    *queue.Queue
}

// newPair makes one; packets are queued in a's OUTPUT, or in b's PREROUTING.
func newPair(t testing.TB, c queue.Config, atB bool) *pair {
	t.Helper()
	p := &pair{t: t, a: nstest.New(t), b: nstest.New(t)}
	nstest.Need(t, "iptables", "ip6tables", "ip")
	nstest.Veth(t, p.a, p.b)
	where, chain := p.a, "OUTPUT"
	if atB {
		where, chain = p.b, "PREROUTING"
	}
	for _, ipt := range []string{"iptables", "ip6tables"} {
		// Neighbour discovery is left out: the link's carrier wants it at once.
		for _, proto := range []string{"udp", "tcp", "icmp"} {
			args := []string{"-w", "-t", "mangle", "-A", chain, "-p", proto, "-j", "NFQUEUE", "--queue-num", "0"}
			if proto == "icmp" && ipt == "ip6tables" {
				args = []string{"-w", "-t", "mangle", "-A", chain, "-p", "icmpv6", "-m", "icmp6", "--icmpv6-type",
					"128", "-j", "NFQUEUE", "--queue-num", "0"}
			}
			where.Run(ipt, args...)
		}
	}
	var err error
	where.Do(func() { p.q, err = queue.Open(c) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- queue.Serve(ctx, queue.Ending{}, p.q) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		_ = p.q.Close()
	})
	return p
}

// rules puts rules in force.
func (p *pair) rules(o Options, lines ...string) {
	p.t.Helper()
	p.q.SetDecider(engine(p.t, o, mustParse(p.t, o, lines...)...))
}

// checksumErrors is the sum of the kernel's counters of bad checksums.
func (p *pair) checksumErrors() int {
	p.t.Helper()
	sum := 0
	for _, ns := range []*nstest.NS{p.a, p.b} {
		out := ns.Run("cat", "/proc/net/snmp")
		lines := strings.Split(out, "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, nums := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for k, n := range names {
				if n == "InCsumErrors" || n == "InHdrErrors" {
					var v int
					fmt.Sscan(nums[k], &v)
					sum += v
				}
			}
		}
		for line := range strings.Lines(ns.Run("cat", "/proc/net/snmp6")) {
			f := strings.Fields(line)
			if len(f) == 2 && (strings.HasSuffix(f[0], "InCsumErrors") || f[0] == "Ip6InHdrErrors") {
				var v int
				fmt.Sscan(f[1], &v)
				sum += v
			}
		}
	}
	return sum
}

// good fails the test when the kernel has seen a bad checksum.
func (p *pair) good() {
	p.t.Helper()
	if n := p.checksumErrors(); n != 0 {
		p.t.Errorf("%d packets with bad checksums", n)
	}
	if s := p.q.Stats(); s.Refused+s.Vanished != 0 {
		p.t.Errorf("%+v", s)
	}
}

// receive reads a datagram.
func receive(t testing.TB, c net.PacketConn, patience time.Duration) (string, bool) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 65536)
	n, _, err := c.ReadFrom(b)
	return string(b[:n]), err == nil
}

func ifThen(c bool, a, b string) string {
	if c {
		return a
	}
	return b
}

func TestEditUDP(t *testing.T) {
	t.Parallel()
	for _, atB := range []bool{false, true} {
		t.Run(ifThen(atB, "prerouting", "output"), func(t *testing.T) {
			p := newPair(t, queue.Config{CopyRange: queue.MaxCopy, MaxLen: 100}, atB)
			for _, v6 := range []bool{false, true} {
				host := ifThen(v6, "[fd00::2]", "10.0.0.2")
				c := p.b.ListenUDP(host + ":7000")
				other := p.b.ListenUDP(host + ":7001")
				out, err := p.a.Dial("udp", host+":7000", nstest.Patience)
				if err != nil {
					t.Fatal(err)
				}
				for _, k := range []struct{ rule, send, want string }{
					{"accept", "hello", "hello"},
					{`replace "hello" "HELLO"`, "hello world, hello", "HELLO world, HELLO"},
					{`replace "hello" "bye"`, "hello world, hello", "bye world, bye"},
					{`replace "o" "000000"`, "hello world, hello", "hell000000 w000000rld, hell000000"},
					{`replace "hello" ""`, "hello", ""},
					{`set ip.ttl=9 ip.dscp=ef`, "hello", "hello"},
					{`replace "\x00\xff" "\xff\x00"`, "\x00\xff.", "\xff\x00."},
					{`replace "x" "y" udp > *:1`, "x", "x"},
					{`replace "hello" "bye" pad "."`, "hello world", "bye.. world"},
					{`replace "lo" "longer" pad "."`, "hello world", "hello world"},
					{`replace regex "(?i)(HEL)LO (w)" "${2}${1}"`, "hello world, Hello", "whelorld, Hello"},
					{`replace regex "[a-z]+" "x" pad "\x00"`, "hello w", "x\x00\x00\x00\x00 x"},
					{`set ip.ttl=ip.ttl/2-1 ip.dscp="max(ip.dscp, 46)"`, "hello", "hello"},
					{`replace "` + strings.Repeat("x", 20) + `" "y"`, strings.Repeat("x", 1000), strings.Repeat("y", 50)},
					{`replace "a" "` + strings.Repeat("b", 15) + `"`, strings.Repeat("a", 200), strings.Repeat("b", 3000)}, // beyond the MTU
				} {
					p.rules(Options{}, k.rule)
					if _, err := out.Write([]byte(k.send)); err != nil {
						t.Fatal(err)
					}
					if got, ok := receive(t, c, nstest.Patience); got != k.want || !ok {
						t.Errorf("%s %s: %q, want %q", host, k.rule, got, k.want)
					}
				}
				if !atB { // several edits, by several rules
					p.rules(Options{}, `replace "one" "three"`, `set udp.dport=7001 if payload contains "three"`,
						`replace "three" "2"`)
					if _, err := out.Write([]byte("one")); err != nil {
						t.Fatal(err)
					}
					if got, ok := receive(t, other, nstest.Patience); got != "2" || !ok {
						t.Errorf("%s: %q on the other port", host, got)
					}
				}
			}
			p.good()
		})
	}
}

// TestEditSegments edits datagrams that leave the sender as one (UDP GSO), and
// ones behind an extension header.
func TestEditSegments(t *testing.T) {
	t.Parallel()
	p := newPair(t, queue.Config{CopyRange: queue.MaxCopy, Edits: true}, false)
	for _, host := range []string{"10.0.0.2", "[fd00::2]"} {
		c := p.b.ListenUDP(host + ":7000")
		out, err := p.a.Dial("udp", host+":7000", nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := out.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		control := func(f func(fd int) error) {
			var err error
			if e := raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil || err != nil {
				t.Fatal(e, err)
			}
		}
		control(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 100) })
		p.rules(Options{}, `replace "aaaa" "bbbb"`, "set ip.ttl=7", ifThen(p.q.GSO(), "accept if gso", "drop if gso"),
			ifThen(p.q.GSO(), "drop", "accept"))
		if _, err := out.Write(bytes.Repeat([]byte("a"), 950)); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			want := strings.Repeat("b", ifThenInt(i == 9, 50, 100))
			if i == 9 { // 950 is no multiple of 4
				want = want[:48] + "aa"
			}
			if got, ok := receive(t, c, nstest.Patience); got != want || !ok {
				t.Errorf("%s: segment %d: %q", host, i, got)
			}
		}
		if p.q.GSO() { // else they come cut, and are edited as any other
			// A change of length would have to be made to every segment: refused.
			p.rules(Options{}, `replace "aaaa" "b"`)
			before := p.q.Stats().Uneditable
			if _, err := out.Write(bytes.Repeat([]byte("a"), 950)); err != nil {
				t.Fatal(err)
			}
			nstest.Until(t, "it is not editable", func() bool { return p.q.Stats().Uneditable == before+1 })
		}
		control(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 0) })
		if host != "10.0.0.2" {
			control(func(fd int) error {
				return unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS,
					"\x00\x00\x01\x04\x00\x00\x00\x00")
			})
			p.rules(Options{}, `replace "aaaa" "b" udp > *:7000`)
			if _, err := out.Write([]byte("aaaa")); err != nil {
				t.Fatal(err)
			}
			if got, ok := receive(t, c, nstest.Patience); got != "b" || !ok {
				t.Errorf("extension header: %q", got)
			}
		}
	}
	p.good()
}

func ifThenInt(c bool, a, b int) int {
	if c {
		return a
	}
	return b
}

// TestEditTCP rewrites a stream, uncut and cut by the kernel.
func TestEditTCP(t *testing.T) {
	t.Parallel()
	for _, noGSO := range []bool{false, true} {
		t.Run(ifThen(noGSO, "cut", "gso"), func(t *testing.T) {
			p := newPair(t, queue.Config{CopyRange: queue.MaxCopy, NoGSO: noGSO}, false)
			p.rules(Options{}, `replace "A" "b" tcp > *:7000`, "set ip.dscp=ef")
			large := false
			for _, host := range []string{"10.0.0.2", "[fd00::2]"} {
				l := p.b.ListenTCP(host + ":7000")
				const size = 2 << 20
				got := make(chan []byte, 1)
				go func() {
					c, err := l.Accept()
					if err != nil {
						got <- nil
						return
					}
					defer c.Close()
					all, _ := io.ReadAll(c)
					got <- all
				}()
				c, err := p.a.Dial("tcp", host+":7000", nstest.Patience)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.Write(bytes.Repeat([]byte("AcAd"), size/4)); err != nil {
					t.Fatal(err)
				}
				_ = c.Close()
				all := <-got
				if !bytes.Equal(all, bytes.Repeat([]byte("bcbd"), size/4)) {
					t.Errorf("%s: %d bytes of %d arrived, %d of them unedited", host, len(all), size,
						bytes.Count(all, []byte("A")))
				}
			}
			s := p.q.Stats()
			large = s.Total.Bytes/s.Total.Packets > 1600
			if large == noGSO {
				t.Errorf("GSO off: %v, %d bytes a packet", noGSO, s.Total.Bytes/s.Total.Packets)
			}
			p.good()
		})
	}
}

// TestEditOptions changes the options of a SYN: the far end says what it took.
func TestEditOptions(t *testing.T) {
	t.Parallel()
	const timestamps, sack, wscale = 1, 2, 4 // TCPI_OPT_… (linux/tcp.h)
	p := newPair(t, queue.Config{CopyRange: queue.MaxCopy}, false)
	for _, host := range []string{"10.0.0.2", "[fd00::2]"} {
		l := p.b.ListenTCP(host + ":7000")
		for _, k := range []struct {
			rule string
			mss  uint32 // at most, timestamps included
			opts uint8
		}{
			{"accept", 65535, timestamps | sack | wscale},
			{"set tcp.mss=700", 700, timestamps | sack | wscale},
			{`set tcp.mss="min(tcp.mss, 600)"`, 600, timestamps | sack | wscale},
			{"set tcp.mss=tcp.mss-560", 900, timestamps | sack | wscale},
			{"option strip timestamps", 65535, sack | wscale},
			{"option strip sack-perm,window", 65535, timestamps},
			{"option strip maxseg,3,4,8", uint32(ifThenInt(host[0] == '[', 1220, 536)), 0}, // RFC 9293 3.7.1
		} {
			p.rules(Options{}, k.rule)
			out, err := p.a.Dial("tcp", host+":7000", nstest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			in, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			raw, err := in.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var info *unix.TCPInfo
			var bad error
			if err := raw.Control(func(fd uintptr) {
				info, bad = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			}); err != nil || bad != nil {
				t.Fatal(err, bad)
			}
			if got := info.Options & (timestamps | sack | wscale); got != k.opts {
				t.Errorf("%s %s: options %#x, want %#x", host, k.rule, got, k.opts)
			}
			mss := info.Snd_mss
			if mss > k.mss || mss < min(k.mss, 1200)-40 {
				t.Errorf("%s %s: segments of %d, want %d", host, k.rule, mss, k.mss)
			}
			_ = out.Close()
			_ = in.Close()
		}
	}
	p.good()
}

// TestEditICMP edits echo requests: the answer echoes what arrived.
func TestEditICMP(t *testing.T) {
	t.Parallel()
	p := newPair(t, queue.Config{CopyRange: queue.MaxCopy}, false)
	p.rules(Options{}, `replace "AAAA" "BBBBBB"`, "set ip.ttl=77")
	for _, v6 := range []bool{false, true} {
		network, host := "ip4:icmp", "10.0.0.2"
		m := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1, 'A', 'A', 'A', 'A', 'A'}
		if v6 { // the kernel makes the checksum
			network, host = "ip6:ipv6-icmp", "fd00::2"
			m[0] = 128
		} else {
			var sum uint32
			for i, b := range m {
				sum += uint32(b) << (8 * (1 - i%2))
			}
			sum = ^(sum>>16 + sum&0xffff)
			m[2], m[3] = byte(sum>>8), byte(sum)
		}
		c, err := p.a.Dial(network, host, nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(m); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(nstest.Patience))
		b := make([]byte, 1500)
		for {
			n, _, err := c.(*net.IPConn).ReadFrom(b) // Read would leave the IPv4 header in place
			if err != nil {
				t.Fatal(err)
			}
			if b[0] != ifThenByte(v6, 129, 0) {
				continue // neighbour discovery
			}
			if got := string(b[8:n]); got != "BBBBBBA" {
				t.Errorf("%s: %q", host, got)
			}
			break
		}
	}
	// Counts are published behind the verdict.
	nstest.Until(t, "two edits are counted", func() bool { return p.q.Stats().Edited == 2 })
	p.good()
}

func ifThenByte(c bool, a, b byte) byte { return byte(ifThenInt(c, int(a), int(b))) }

// TestUneditable never sends back a packet whose copy is cut.
func TestUneditable(t *testing.T) {
	t.Parallel()
	p := newPair(t, queue.Config{CopyRange: 64}, false)
	c := p.b.ListenUDP("10.0.0.2:7000")
	out, err := p.a.Dial("udp", "10.0.0.2:7000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("hello ", 200)
	for i, k := range []struct {
		verdict queue.Verdict
		send    string
		want    string
	}{
		{queue.Accept, long, long},
		{queue.Accept, "hello", "HELLO"},
		{queue.Drop, "hello", "HELLO"},
		{queue.Drop, long, ""},
	} {
		p.rules(Options{OnUneditable: k.verdict}, `replace "hello" "HELLO"`, "accept")
		before := p.q.Stats()
		if _, err := out.Write([]byte(k.send)); err != nil {
			t.Fatal(err)
		}
		nstest.Until(t, "it is decided", func() bool { return p.q.Stats().Total.Packets > before.Total.Packets })
		s := p.q.Stats()
		if (s.Uneditable > before.Uneditable) != (len(k.send) > 64) {
			t.Errorf("%d: %+v", i, s)
		}
		if k.want == "" {
			continue
		}
		if got, ok := receive(t, c, nstest.Patience); got != k.want || !ok {
			t.Errorf("%d: %q", i, got)
		}
	}
	if got, ok := receive(t, c, 100*time.Millisecond); ok {
		t.Errorf("%q arrived", got)
	}
	p.good()
}

// TestMarkRepeat has a mark exempt packets from the rule that queues them, and
// one that a later chain sees.
func TestMarkRepeat(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	q, err := queue.Open(queue.Config{CopyRange: 128})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	q.SetDecider(engine(t, Options{}, mustParse(t, Options{}, "mark 0x100/0xf00 repeat udp > *:7000",
		"mark 0x2/0xf if mark == 0", "accept")...))
	ns.Run("iptables", "-w", "-t", "mangle", "-A", "OUTPUT", "-p", "udp", "-m", "mark", "!", "--mark", "0x100/0xf00",
		"-j", "NFQUEUE", "--queue-num", "0")
	ns.Run("iptables", "-w", "-A", "OUTPUT", "-m", "mark", "--mark", "2", "-j", "DROP")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- queue.Serve(ctx, queue.Ending{}, q) }()
	a, b := ns.ListenUDP("127.0.0.1:7000"), ns.ListenUDP("127.0.0.1:7001")
	for _, c := range []net.PacketConn{a, b} {
		out, err := ns.Dial("udp", c.LocalAddr().String(), nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok := receive(t, a, nstest.Patience); got != "x" || !ok {
		t.Error("the repeated packet is lost")
	}
	if _, ok := receive(t, b, 100*time.Millisecond); ok {
		t.Error("the marked packet was not seen as marked")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s := q.Stats(); s.Total.Packets != 2 || s.Verdicts[queue.KindRepeat].Packets != 1 || s.Rules[0].Packets != 1 ||
		s.Rules[2].Packets != 1 {
		t.Errorf("%+v", s)
	}
}

// TestReload puts rules in force that need more of each packet than those before:
// under load, no packet is decided by rules that it was not copied for.
func TestReload(t *testing.T) {
	t.Parallel()
	p := newPair(t, queue.Config{CopyRange: 40}, false)
	c := p.b.ListenUDP("10.0.0.2:7000")
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20)
	out, err := p.a.Dial("udp", "10.0.0.2:7000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{OnUneditable: queue.Drop}
	set, err := Compile(mustParse(t, o, `replace "hello" "HELLO"`), o)
	if err != nil {
		t.Fatal(err)
	}
	e, err := set.Engine()
	if err != nil {
		t.Fatal(err)
	}
	// Packets are sent until some time after the rules have changed, however long
	// that takes, and no more at a time than all buffers hold.
	text, last := strings.Repeat("hello ", 100), "the last"
	const under, after = 200, 1000
	room, reloaded := make(chan struct{}, under), make(chan struct{})
	go func() {
		for left := after; left > 0; {
			room <- struct{}{}
			_, _ = out.Write([]byte(text))
			select {
			case <-reloaded:
				left--
			default:
			}
		}
		_, _ = out.Write([]byte(last))
	}()
	failed := make(chan error, 1)
	go func() {
		defer close(reloaded)
		for p.q.Stats().Total.Packets <= under {
			time.Sleep(time.Millisecond)
		}
		failed <- p.q.Reload(e, set.Needs().Config(queue.Config{}))
	}()
	plain, edited := 0, 0
	for more := true; more; {
		got, ok := receive(t, c, nstest.Patience)
		switch {
		case !ok:
			t.Fatalf("%d unedited and %d edited arrive; %+v", plain, edited, p.q.Stats())
		case got == last:
			more = false
			continue
		case got == text:
			if plain++; edited > 0 {
				t.Fatal("an unedited packet after an edited one")
			}
		case got == strings.ToUpper(text):
			edited++
		default:
			t.Fatalf("%q", got)
		}
		<-room
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	// which comes behind the verdicts
	nstest.Until(t, "all are counted", func() bool { return p.q.Stats().Total.Packets > uint64(plain+edited) })
	if s := p.q.Stats(); plain == 0 || edited == 0 || s.Uneditable != 0 || s.Edited != uint64(edited) ||
		s.Rules[0].Packets != uint64(edited+1) || s.Total.Packets != uint64(plain+edited+1) {
		t.Errorf("%d unedited, %d edited: %+v", plain, edited, s)
	}
	if err := p.q.Reload(e, queue.Config{Conntrack: true}); err != nil && !errors.Is(err, queue.ErrNotSupported) {
		t.Error(err)
	}
	p.good()
}
