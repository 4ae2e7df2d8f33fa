package nft

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
	"nfctl/internal/nstest"
	"nfctl/internal/value"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv("NFT_TEST_ATTACH"); spec != "" {
		attachChild(spec)
	}
	os.Exit(nstest.Main(m))
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text     string
		hook     Hook
		priority int32
		family   uint8
		pattern  string
		bypass   bool
		rules    int
	}{
		{"input", Input, 0, 0, "", false, 1},
		{"OUTPUT", Output, 0, 0, "", false, 1},
		{"prerouting raw", Prerouting, -300, 0, "", false, 1},
		{"forward priority mangle bypass", Forward, -150, 0, "", true, 1},
		{"postrouting priority -5 ip6", Postrouting, -5, unix.AF_INET6, "", false, 1},
		{"input filter ip tcp > :22", Input, 0, unix.AF_INET, "tcp > :22", false, 1},
		{"input tcp 10.0.0.0/8 > :22 bypass", Input, 0, unix.AF_INET, "tcp 10.0.0.0/8 > :22", true, 1},
		{"input udp [fd00::1]:53 > *", Input, 0, unix.AF_INET6, "udp [fd00::1]:53 > *", false, 1},
		{"input icmp > type 8", Input, 0, unix.AF_INET, "icmp > type 8", false, 1},
		{"input icmpv6 > type 128", Input, 0, unix.AF_INET6, "icmpv6 > type 128", false, 1},
		{"input > :80,443", Input, 0, 0, "> :80,443", false, 10},
		{"output first 3", Output, 0, 0, "", false, 1},
		{"output ip6 tcp > :443 first 4294967295 bypass", Output, 0, unix.AF_INET6, "tcp > :443", true, 1},
		{"output tcp > fanout bypass first 1", Output, 0, 0, "tcp >", true, 1},
		{"output tcp > bypass first 1", Output, 0, 0, "tcp >", true, 1},
		{"input tcp :1,3 > :80,443,1000-2000", Input, 0, 0, "tcp :1,3 > :80,443,1000-2000", false, 6},
	} {
		s, err := Parse(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		pattern := ""
		if s.Pattern != nil {
			pattern = s.Pattern.Text
		}
		if s.Hook != c.hook || s.Priority != c.priority || s.Family != c.family || pattern != c.pattern ||
			s.Bypass != c.bypass ||
			len(s.rules()) != c.rules || s.Text != c.text {
			t.Errorf("%s: %+v, %d rules", c.text, s, len(s.rules()))
		}
	}
	var ports []string
	for i := range 40 {
		ports = append(ports, fmt.Sprint(2*i+1))
	}
	list := strings.Join(ports, ",")
	for text, want := range map[string]string{
		"":                                   grammar,
		"inptu":                              "input",
		"ingress":                            strings.Join(Hooks, ", "),
		"input priority":                     "raw, mangle, filter or a number",
		"input priority high":                "raw, mangle, filter or a number",
		"input priority 99999999999":         "raw, mangle, filter or a number",
		"input tcp":                          grammar,
		"input bypas":                        "bypass",
		"input bypass tcp > :22":             `"bypass"`,
		"input ip > [fd00::1]:22":            "an IPv4 flow after ip",
		"input ip6 10.0.0.1 >":               "an IPv6 flow after ip6",
		"input ip6 icmp >":                   "an IPv6 flow after ip6",
		"input gre > :5":                     "without keys",
		"input tcp > :99999":                 "99999",
		"input tcp first 3 bypass":           `did you mean "input tcp > first 3 bypass"`,
		"input first":                        "'first 10'",
		"input first 0":                      "from 1 to 4294967295",
		"input first 64KiB":                  "from 1 to 4294967295",
		"input first 4294967296":             "from 1 to 4294967295",
		"input first 3 tcp >":                "at the end",
		"input first 3 first 3":              "at the end",
		"output raw first 3":                 "above -200",
		"prerouting priority -200 first 3":   "above -200",
		"input tcp :" + list + " > :" + list: "1024 is the most",
	} {
		_, err := Parse(text)
		var bad *value.Error
		if err == nil || !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
}

// A consumer binds a queue and gives every packet the same verdict.
type consumer struct {
	t    *testing.T
	c    *nl.Conn
	r    *nl.Receiver
	mu   sync.Mutex
	n    int            // packets seen
	from map[uint16]int // of these, segments of TCP over IPv4 by source port
	done chan struct{}
}

const (
	drop   = 0 // NF_DROP
	accept = 1
	hold   = 99 // no verdict
)

// consume must be called from the test's goroutine, in its namespace.
func consume(t *testing.T, queue uint16, verdict uint32) *consumer {
	t.Helper()
	return consumeMarking(t, queue, verdict, nil)
}

// consumeMarking is consume with the mark that a packet gets, by what it carries.
func consumeMarking(t *testing.T, queue uint16, verdict uint32, mark func(packet []byte) uint32) *consumer {
	t.Helper()
	c, err := nl.Dial(nl.Config{})
	if err != nil {
		t.Fatal(err)
	}
	bind := nl.AppendAttr(nl.AppendHeader(nil, nl.Type(nl.SubsysQueue, 2), 0, unix.AF_UNSPEC, queue), 1,
		[]byte{1, 0, 0, 0})
	if err := c.Do(bind); err != nil {
		t.Fatalf("bind: %v", err)
	}
	copyAll := nl.AppendAttr(nl.AppendHeader(nil, nl.Type(nl.SubsysQueue, 2), 0, unix.AF_UNSPEC, queue), 2,
		[]byte{0, 0, 255, 255, 2})
	if err := c.Do(copyAll); err != nil {
		t.Fatalf("copy: %v", err)
	}
	r, err := c.NewReceiver(16, 70000)
	if err != nil {
		t.Fatal(err)
	}
	q := &consumer{t: t, c: c, r: r, done: make(chan struct{}), from: map[uint16]int{}}
	go q.loop(queue, verdict, mark)
	t.Cleanup(q.close)
	return q
}

func (q *consumer) loop(queue uint16, verdict uint32, mark func([]byte) uint32) {
	defer close(q.done)
	var out []byte
	for {
		n, err := q.r.Recv(-1)
		if err != nil {
			return
		}
		out = out[:0]
		for i := range n {
			b, _ := q.r.Datagram(i)
			m, _, _ := nl.NextMsg(b)
			var id uint32
			var p []byte
			for a := range nl.Attrs(m.Body()) {
				switch a.Type {
				case 1: // NFQA_PACKET_HDR
					id, _ = a.U32()
				case nfqaPayload:
					p = a.Data
				}
			}
			if len(p) > 22 && p[0] == 0x45 && p[9] == unix.IPPROTO_TCP {
				q.mu.Lock()
				q.from[uint16(p[20])<<8|uint16(p[21])]++
				q.mu.Unlock()
			}
			if id == 0 || verdict == hold {
				continue
			}
			at := len(out)
			out = nl.AppendHeader(out, nl.Type(nl.SubsysQueue, 1), 0, unix.AF_UNSPEC, queue)
			out = nl.AppendAttr(out, 2, []byte{0, 0, 0, byte(verdict), byte(id >> 24), byte(id >> 16),
				byte(id >> 8), byte(id)})
			if mark != nil {
				out = nl.AppendU32(out, 3, mark(p)) // NFQA_MARK
			}
			out = nl.Finish(out, at)
		}
		q.mu.Lock()
		q.n += n
		q.mu.Unlock()
		if q.c.Send(out) != nil {
			return
		}
	}
}

func (q *consumer) close() {
	_ = q.c.Close()
	<-q.done
}

func (q *consumer) segments(from uint16) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.from[from]
}

func (q *consumer) seen() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}

func parse(t *testing.T, text string) Spec {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustAttach(t *testing.T, q Queues, ways []way, texts ...string) *Table {
	t.Helper()
	var specs []Spec
	for _, text := range texts {
		specs = append(specs, parse(t, text))
	}
	tab, err := attach(specs, q, nil, ways)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tab.Close() })
	return tab
}

// tables lists the names of the namespace's tables of all families.
func tables(t *testing.T) string {
	t.Helper()
	c, err := nl.Dial(nl.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var names []string
	_, err = c.Dump(nl.AppendHeader(nil, nl.Type(nl.SubsysTables, unix.NFT_MSG_GETTABLE), 0, unix.AF_UNSPEC,
		0), func(m *nl.Msg) error {
		for a := range nl.Attrs(m.Body()) {
			if a.Type == unix.NFTA_TABLE_NAME {
				names = append(names, fmt.Sprintf("%d:%s", m.Family(), a.Text()))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// loadTarget has the kernel load the NFQUEUE target, if it is a module: a rule in a
// table of ip does, one in a table of inet finds it only when it is there.
func loadTarget(t *testing.T) {
	t.Helper()
	tab, err := attach([]Spec{parse(t, "forward ip")}, Queues{0, 0}, nil, []way{{compat: true, pair: true}})
	if err != nil {
		t.Fatal(err)
	}
	if err := tab.Close(); err != nil {
		t.Fatal(err)
	}
}

// owners reports whether the kernel has tables with an owner (Linux 5.12), and says
// when it has none.
func owners(t *testing.T) bool {
	t.Helper()
	conn, err := nl.Dial(nl.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tab := &Table{Name: "owned", conn: conn}
	_, err = conn.Commit(nl.SubsysTables, tab.newTable(unix.AF_INET, true)) // which goes with its socket
	if err != nil && !lacks(err) {
		t.Fatal(err)
	}
	if err != nil {
		t.Logf("this kernel has no tables with an owner: %v", err)
	}
	return err == nil
}

const nfqaPayload = 10 // NFQA_PAYLOAD (linux/netfilter/nfnetlink_queue.h)

const short = 150 * time.Millisecond // for what must not arrive

// TestForms queues packets of both families by every form of table that this
// kernel has; the packets are looked at where they arrive.
func TestForms(t *testing.T) {
	t.Parallel()
	for _, w := range ways {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			ns := nstest.Enter(t)
			if w.owned && !owners(t) {
				t.Skip("see the forms without an owner")
			}
			loadTarget(t)
			tab, err := attach([]Spec{parse(t, "output udp > :7000-7009")}, Queues{0, 0}, nil, []way{w})
			if err != nil && !w.compat && errors.Is(err, unix.EOPNOTSUPP) {
				t.Skipf("this kernel has no queue statement: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer tab.Close()
			if tab.Compat != w.compat || tab.Owned != w.owned ||
				len(tab.Families) != map[bool]int{false: 1, true: 2}[w.pair] {
				t.Errorf("%+v", tab)
			}
			for _, addr := range []string{"127.0.0.1:7000", "[::1]:7009"} {
				if _, ok := ns.Ask(ns.UDPEcho(addr), "x", short); ok {
					t.Errorf("%s: arrived with nobody at the queue", addr)
				}
			}
			q := consume(t, 0, accept)
			for i, addr := range []string{"127.0.0.1:7001", "[::1]:7008"} {
				if _, ok := ns.Ask(ns.UDPEcho(addr), "x", nstest.Patience); !ok {
					t.Errorf("%s: accepted, and did not arrive", addr)
				}
				if n := q.seen(); n != i+1 {
					t.Errorf("%s: %d packets queued, want %d", addr, n, i+1)
				}
			}
			for _, addr := range []string{"127.0.0.1:6999", "[::1]:7010"} { // beside the range
				if _, ok := ns.Ask(ns.UDPEcho(addr), "x", nstest.Patience); !ok || q.seen() != 2 {
					t.Errorf("%s: arrived %v, %d queued", addr, ok, q.seen())
				}
			}
		})
	}
}

// TestBest is what Attach chooses here.
func TestBest(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	owned := owners(t)
	tab := mustAttach(t, Queues{3, 3}, ways, "input", "output ip6", "forward tcp 10.0.0.1 > :80")
	want := fmt.Sprintf("1:%[1]s 10:%[1]s 2:%[1]s", tab.Name)
	if got := tables(t); tab.Owned != owned || got != want {
		t.Errorf("owned %v, want %v; tables %q, want %q", tab.Owned, owned, got, want)
	}
	if tab.Name != fmt.Sprintf("nfctl-%d", os.Getpid()) {
		t.Errorf("name %s", tab.Name)
	}
	second := mustAttach(t, Queues{4, 4}, ways, "input")
	if second.Name != tab.Name+"-2" {
		t.Errorf("second name %s", second.Name)
	}
	for range 2 {
		if err := tab.Close(); err != nil {
			t.Error(err)
		}
	}
	if got, want := tables(t), "1:"+second.Name; got != want {
		t.Errorf("tables %q, want %q", got, want)
	}
	if err := tab.DeleteRules(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestPatterns sends packets of every kind from a to b and looks at the queue.
func TestPatterns(t *testing.T) {
	t.Parallel()
	udp4 := func(sport int) (string, string) { return fmt.Sprintf("10.0.0.1:%d", sport), "10.0.0.2:5353" }
	udp6 := func(sport int) (string, string) { return fmt.Sprintf("[fd00::1]:%d", sport), "[fd00::2]:5353" }
	for text, want := range map[string]string{
		"output":                                "udp4:1000 udp4:2000 udp6:1000 udp6:2000",
		"output ip":                             "udp4:1000 udp4:2000",
		"output ip6":                            "udp6:1000 udp6:2000",
		"output tcp >":                          "",
		"output udp >":                          "udp4:1000 udp4:2000 udp6:1000 udp6:2000",
		"output udp :1000 > :5353":              "udp4:1000 udp6:1000",
		"output > :5353":                        "udp4:1000 udp4:2000 udp6:1000 udp6:2000",
		"output > :5354":                        "",
		"output :1-999,1001-3000 >":             "udp4:2000 udp6:2000",
		"output ip udp :2000,3000 > :5353":      "udp4:2000",
		"output 10.0.0.0/24 > 10.0.0.2":         "udp4:1000 udp4:2000",
		"output 10.0.0.2 > 10.0.0.1":            "",
		"output 10.0.0.0-10.0.0.1 >":            "udp4:1000 udp4:2000",
		"output > 10.0.0.3-10.0.0.9":            "",
		"output fd00::/64 > [fd00::2]:5353":     "udp6:1000 udp6:2000",
		"output fd00::2-fd00::9 >":              "",
		"output udp 0.0.0.0/0 > :1-5353 zone 0": "udp4:1000 udp4:2000",
		"output udp > zone 5":                   "",
		"input udp >":                           "",
		"postrouting priority 100 udp >":        "udp4:1000 udp4:2000 udp6:1000 udp6:2000",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			a, b := nstest.Enter(t), nstest.New(t)
			nstest.Veth(t, a, b)
			far := map[string]net.PacketConn{"10.0.0.2:5353": b.ListenUDP("10.0.0.2:5353"),
				"[fd00::2]:5353": b.ListenUDP("[fd00::2]:5353")}
			mustAttach(t, Queues{7, 7}, ways, text)
			q := consume(t, 7, accept)
			// The neighbours' own packets are queued too, by "output ip6" and such.
			for _, to := range []string{"10.0.0.2:5353", "[fd00::2]:5353"} {
				c, err := a.Dial("udp", to, nstest.Patience)
				if err != nil {
					t.Fatal(err)
				}
				send(t, c, far[to])
			}
			var got []string
			for i, f := range []func(int) (string, string){udp4, udp6} {
				for _, sport := range []int{1000, 2000} {
					from, to := f(sport)
					local, _ := net.ResolveUDPAddr("udp", from)
					var c net.Conn
					var err error
					a.Do(func() { c, err = (&net.Dialer{LocalAddr: local}).Dial("udp", to) })
					if err != nil {
						t.Fatal(err)
					}
					before := q.seen()
					send(t, c, far[to])
					if q.seen() > before {
						got = append(got, fmt.Sprintf("udp%d:%d", 4+2*i, sport))
					}
				}
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("queued %q, want %q", s, want)
			}
		})
	}
}

// send sends a datagram and waits for it at the far end.
func send(t *testing.T, c net.Conn, far net.PacketConn) {
	t.Helper()
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = far.SetReadDeadline(time.Now().Add(nstest.Patience))
	if n, _, err := far.ReadFrom(make([]byte, 100)); n != 5 || err != nil {
		t.Fatalf("at the far end: %d, %v", n, err)
	}
}

// TestICMP matches type, code and id of an echo request.
func TestICMP(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"output icmp > type 8":               1,
		"output icmp > type 8 code 0 id 513": 1,
		"output icmp > type 8 code 1":        0,
		"output icmp > id 514":               0,
		"output icmp > type 0":               1, // the answer
		"output icmp >":                      2,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			ns := nstest.Enter(t)
			mustAttach(t, Queues{1, 1}, ways, text)
			q := consume(t, 1, accept)
			c, err := net.ListenPacket("ip4:icmp", "127.0.0.1")
			if err != nil {
				nstest.Lack(t, err) // CAP_NET_RAW
			}
			defer c.Close()
			_ = ns
			echo := []byte{8, 0, 0, 0, 2, 1, 0, 1}
			sum := ^uint16(0x800 + 0x201 + 0x1)
			echo[2], echo[3] = byte(sum>>8), byte(sum)
			if _, err := c.WriteTo(echo, &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(nstest.Patience))
			for b := make([]byte, 100); ; { // the request arrives here too
				n, _, err := c.ReadFrom(b)
				if err != nil {
					t.Fatal(err)
				}
				if n == len(echo) && b[0] == 0 {
					break
				}
			}
			if got := q.seen(); got != want {
				t.Errorf("%d packets queued, want %d", got, want)
			}
		})
	}
}

func TestBypass(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	mustAttach(t, Queues{5, 5}, ways, "output udp > :7000 bypass")
	addr := ns.UDPEcho("127.0.0.1:7000")
	if _, ok := ns.Ask(addr, "x", nstest.Patience); !ok {
		t.Error("nobody at the queue, and the packet did not pass")
	}
	q := consume(t, 5, drop)
	if _, ok := ns.Ask(addr, "x", short); ok || q.seen() != 1 {
		t.Errorf("dropped: arrived %v, queued %d", ok, q.seen())
	}
}

// TestSpread sees packets of many addresses in every queue of a range.
func TestSpread(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	mustAttach(t, Queues{10, 12}, ways, "output udp > :7000")
	var qs []*consumer
	for i := range 3 {
		qs = append(qs, consume(t, uint16(10+i), accept))
	}
	const n = 60
	for i := range n {
		addr := fmt.Sprintf("127.0.0.%d:7000", i+1)
		if _, ok := ns.Ask(ns.UDPEcho(addr), "x", nstest.Patience); !ok {
			t.Fatalf("%s does not answer", addr)
		}
	}
	total := 0
	for i, q := range qs {
		if total += q.seen(); q.seen() == 0 {
			t.Errorf("queue %d got nothing", 10+i)
		}
	}
	if total != n {
		t.Errorf("%d packets queued, want %d", total, n)
	}
}

// TestPriority puts a rule that drops a marked packet before and after.
func TestPriority(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	for priority, want := range map[string]int{"-11": 1, "-9": 0, "raw": 1, "mangle": 1, "filter": 0} {
		t.Run(priority, func(t *testing.T) {
			t.Parallel()
			ns := nstest.Enter(t)
			ns.Run("nft", "add table inet t; add chain inet t c { type filter hook output priority -10; }; add rule "+
				"inet t c udp dport 7000 drop")
			mustAttach(t, Queues{0, 0}, ways, "output priority "+priority+" udp > :7000")
			q := consume(t, 0, accept)
			if _, ok := ns.Ask(ns.UDPEcho("127.0.0.1:7000"), "x", short); ok {
				t.Error("arrived")
			}
			if q.seen() != want {
				t.Errorf("%d packets queued, want %d", q.seen(), want)
			}
		})
	}
}

func TestSkipMark(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	s := parse(t, "output udp > :7000")
	s.SkipMark, s.SkipMask = 0x57, 0xf0 // 0x7: outside the mask
	tab, err := Attach([]Spec{s}, Queues{0, 0}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	q := consume(t, 0, accept)
	addr := ns.UDPEcho("127.0.0.1:7000")
	want := 0
	for mark, queued := range map[int]bool{0: true, 0x50: false, 0x150: false, 0x51: false, 0x60: true, 0x5: true} {
		if queued {
			want++
		}
		c, err := ns.Dial("udp", addr, nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := c.(*net.UDPConn).SyscallConn()
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("x"))
		_ = c.SetReadDeadline(time.Now().Add(nstest.Patience))
		if _, err := c.Read(make([]byte, 10)); err != nil {
			t.Errorf("mark %#x: %v", mark, err)
		}
		if q.seen() != want {
			t.Errorf("mark %#x: %d packets queued, want %d", mark, q.seen(), want)
			want = q.seen()
		}
	}
}

// TestEnding holds a packet in the queue: deleting the rules leaves it there, and
// it can still be accepted.
func TestEnding(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	tab := mustAttach(t, Queues{0, 0}, ways, "output udp > :7000")
	q := consume(t, 0, hold)
	far := ns.ListenUDP("127.0.0.1:7000")
	c, err := ns.Dial("udp", "127.0.0.1:7000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("held"))
	nstest.Until(t, "the packet is queued", func() bool { return q.seen() == 1 })
	if err := tab.DeleteRules(); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("free"))
	read := func() string {
		_ = far.SetReadDeadline(time.Now().Add(nstest.Patience))
		b := make([]byte, 10)
		n, _, _ := far.ReadFrom(b)
		return string(b[:n])
	}
	if s := read(); s != "free" {
		t.Fatalf("after the rules are gone: %q", s)
	}
	v := nl.AppendHeader(nil, nl.Type(nl.SubsysQueue, 1), 0, unix.AF_UNSPEC, 0)
	if err := q.c.Send(nl.Finish(nl.AppendAttr(v, 2, []byte{0, 0, 0, accept, 0, 0, 0, 1}), 0)); err != nil {
		t.Fatal(err)
	}
	if s := read(); s != "held" {
		t.Fatalf("accepted after the rules are gone: %q", s)
	}
	if got := tables(t); got == "" {
		t.Error("deleting rules deleted the table")
	}
	if err := tab.Close(); err != nil || tables(t) != "" {
		t.Errorf("after Close: %q, %v", tables(t), err)
	}
}

// attachChild is TestKill's program: it attaches and waits to be killed.
func attachChild(spec string) {
	s, err := Parse(spec)
	if err == nil {
		_, err = Attach([]Spec{s}, Queues{0, 0}, nil)
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println("attached")
	time.Sleep(time.Hour)
}

// TestKill sees the table go with a process that had no chance to remove it, and
// packets pass again.
func TestKill(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	owned := owners(t)
	c := exec.Command(fmt.Sprintf("/proc/%d/exe", os.Getpid()))
	c.Env = append(os.Environ(), "NFT_TEST_ATTACH=output udp > :7000")
	p := ns.StartCmd(c)
	p.WaitOutput("attached")
	addr := ns.UDPEcho("127.0.0.1:7000")
	if _, ok := ns.Ask(addr, "x", short); ok {
		t.Error("arrived in spite of the rule")
	}
	if got, want := tables(t), fmt.Sprintf("1:nfctl-%d", c.Process.Pid); got != want {
		t.Errorf("tables %q, want %q", got, want)
	}
	p.Signal(unix.SIGKILL)
	p.Wait()
	if !owned { // it stays, which doctor warns of
		if got, want := tables(t), fmt.Sprintf("1:nfctl-%d", c.Process.Pid); got != want {
			t.Errorf("tables %q, want %q", got, want)
		}
		return
	}
	nstest.Until(t, "the table goes", func() bool { return tables(t) == "" })
	if _, ok := ns.Ask(addr, "x", nstest.Patience); !ok {
		t.Error("no answer after the table is gone")
	}
}

// TestOwned: nobody else can change the table.
func TestOwned(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	if !owners(t) {
		t.Skip("anybody with CAP_NET_ADMIN can change the table")
	}
	tab := mustAttach(t, Queues{0, 0}, ways, "output")
	other, err := nl.Dial(nl.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := (&Table{Name: tab.Name, Families: tab.Families, feeds: tab.feeds,
		conn: other}).DeleteRules(); !errors.Is(err, unix.EPERM) {
		t.Errorf("another socket: %v", err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	for _, q := range []Queues{{5, 4}, {0, 65535}} {
		if _, err := Attach([]Spec{parse(t, "input")}, q, nil); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%v: %v", q, err)
		}
	}
	// Every form refused: the error says what would be needed, and what was said.
	_, err := Attach([]Spec{{Hook: 77}}, Queues{}, nil)
	if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "CONFIG_NFT_QUEUE") ||
		!strings.Contains(err.Error(), "table inet") {
		t.Errorf("%v", err)
	}
	if got := tables(t); got != "" {
		t.Errorf("tables left behind: %q", got)
	}
}

// TestMany makes the most rules there can be.
func TestMany(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	var list []string
	for i := range 32 {
		list = append(list, fmt.Sprintf("%d-%d", 10*i+1, 10*i+5))
	}
	ports := strings.Join(list, ",")
	mustAttach(t, Queues{0, 0}, ways, "output tcp [fd00::1-fd00::9]:"+ports+" > [fd00::11-fd00::19]:"+ports)
}

// FuzzParse: whatever is typed, Parse returns, and what it takes makes rules.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"input", "output priority raw ip tcp 10.0.0.1:1-5 > :22 bypass",
		"input icmp > type 8 code 0 id 1 zone 3", "forward > [fd00::/8]:80,443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := Parse(s)
		if err != nil {
			return
		}
		rules := spec.rules()
		if len(rules) == 0 || len(rules) > maxRules {
			t.Fatalf("%d rules", len(rules))
		}
		for _, r := range rules {
			r = r.queue(true, Queues{}, spec.Bypass, false)
			n := 0
			for a := range nl.Attrs(r) {
				n += 4 + (len(a.Data)+3)&^3
			}
			if n != len(r) {
				t.Fatal("a rule is malformed")
			}
		}
	})
}
