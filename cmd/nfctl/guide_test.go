package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nft"
	"nfctl/internal/nstest"
)

// A recipe is a section of a page with a block to run.
type recipe struct {
	title, text string
	background  bool
}

func recipes(t *testing.T, page string) (out []recipe) {
	t.Helper()
	b, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	for section := range strings.SplitSeq(string(b), "\n## ") {
		title, rest, _ := strings.Cut(section, "\n")
		_, block, ok := strings.Cut(rest, "```sh")
		if !ok {
			continue
		}
		head, text, _ := strings.Cut(block, "\n")
		text, _, _ = strings.Cut(text, "```")
		out = append(out, recipe{title, text, strings.TrimSpace(head) == "background"})
	}
	return out
}

// try is the stage that a recipe plays on.
type try struct {
	*testing.T
	ns    *nstest.NS
	nfctl string
	dir   string // in which the recipe runs
}

// do runs nfctl, which must succeed, and returns what it printed.
func (t *try) do(args ...string) string {
	t.Helper()
	return t.ns.Run(t.nfctl, args...)
}

// connects reports whether a TCP connection inside comes about.
func (t *try) connects(addr string) bool {
	c, err := t.ns.Dial("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// answered sends n questions to an echo, each from a port of its own where ports says
// so, and returns how many answers come.
func (t *try) answered(addr string, n int, ports bool) (got int) {
	t.Helper()
	b := make([]byte, 16)
	for left := n; left > 0; {
		c, err := t.ns.Dial("udp", addr, nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		these := min(left, 100) // they and their answers find room in sockets' buffers
		if ports {
			these = 1
		}
		for range these {
			if _, err := c.Write([]byte("hello")); err != nil && !isTransient(err) {
				t.Fatal(err)
			}
		}
		for want := these; want > 0; want-- {
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := c.Read(b); err != nil {
				break
			}
			got++
		}
		_ = c.Close()
		left -= these
	}
	return got
}

// A stage says of a recipe what must be there before it, what happens while it runs,
// and what must be so of its output, or, of one in the background, of what happens.
type stage struct {
	before, during func(t *try)
	prefix, suffix string // run by the shell of the recipe, before and after it
	after          func(t *try, out string)
	events         bool // one in the background listens to events, not to a queue
}

// stages are those of docs/guide.md.
var stages = map[string]stage{
	"Drop a port": {during: func(t *try) {
		if t.connects("127.0.0.1:23") || !t.connects("127.0.0.1:80") || !t.connects("127.0.0.1:22") {
			t.Error("want no connection to port 23, and one to ports 80 and 22")
		}
	}},
	"Wait for a connection": {during: func(t *try) { t.connects("127.0.0.1:22") }, after: func(t *try, out string) {
		if !strings.Contains(out, "[NEW]") || !strings.Contains(out, "somebody is at the door") {
			t.Errorf("%s", out)
		}
	}},
	"Who is behind this NAT": {before: func(t *try) {
		t.do("ct", "create", "udp 10.0.0.5:1234 > 198.51.100.9:53", "--src-nat", "192.0.2.1:4000", "--timeout", "1m")
		t.do("ct", "create", "udp 10.0.0.6:1234 > 198.51.100.9:53", "--timeout", "1m")
	}, after: func(t *try, out string) {
		if !strings.Contains(out, "10.0.0.5\t1234\t198.51.100.9\t53\n") || strings.Contains(out, "10.0.0.6") {
			t.Errorf("%s", out)
		}
	}},
	"Kill a client's flows": {before: func(t *try) {
		t.do("ct", "create", "udp 10.0.0.7:1 > 10.0.0.9:53", "--timeout", "1m")
		t.do("ct", "create", "udp 10.0.0.9:2 > 10.0.0.7:53", "--timeout", "1m")
		t.do("ct", "create", "udp 10.0.0.8:3 > 10.0.0.9:53", "--timeout", "1m")
	}, after: func(t *try, out string) {
		if left := t.do("ct", "list", "-o", "flow"); left != "udp 10.0.0.8:3 > 10.0.0.9:53\n" ||
			strings.Count(out, "10.0.0.7") < 4 {
			t.Errorf("%s left:\n%s", out, left)
		}
	}},
	"Copy a table between namespaces": {
		prefix: "ip netns add old; ip netns add new; nfctl --netns old ct create 'tcp 10.0.0.1:1000 > 10.0.0.2:22' " +
			"--mark 7 >/dev/null",
		suffix: "nfctl --netns new ct list",
		after: func(t *try, out string) {
			if !strings.Contains(out, "dport=22 ") || !strings.Contains(out, "mark=7") {
				t.Errorf("%s", out)
			}
		}},
	"Log NEW and DESTROY to jq": {during: func(t *try) {
		t.do("ct", "create", "tcp 10.0.0.1:1000 > 10.0.0.2:22")
		t.do("ct", "delete", "tcp > :22")
	}, after: func(t *try, out string) {
		if !strings.Contains(out, "\tnew\ttcp\t10.0.0.1\t10.0.0.2\t22") || !strings.Contains(out, "\tdestroy\ttcp") {
			t.Errorf("%s", out)
		}
	}},
	"Rewrite UDP answers": {before: func(t *try) { t.ns.UDPEcho("127.0.0.1:5353") }, during: func(t *try) {
		if got, ok := t.ns.Ask("127.0.0.1:5353", "say hello", nstest.Patience); !ok || got != "say good day" {
			t.Errorf("answer %q", got)
		}
	}},
	"Make segments of TCP fit a tunnel": {during: func(t *try) {
		c, err := t.ns.Dial("tcp", "127.0.0.1:80", nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var mss int
		if e := raw.Control(func(fd uintptr) {
			mss, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG)
		}); e != nil || err != nil {
			t.Fatal(e, err)
		}
		if mss > 1200 || mss < 1100 {
			t.Errorf("segments of %d", mss)
		}
	}},
	"Drop what asks for a name": {before: func(t *try) { nameServer(t.ns, "127.0.0.1:53") }, during: func(t *try) {
		if asks(t.ns, "127.0.0.1", "ads.example") || asks(t.ns, "127.0.0.1", "x.ads.example") ||
			!asks(t.ns, "127.0.0.1", "www.example") {
			t.Error("want no answer about ads.example, and one about www.example")
		}
	}},
	"Drop a server by the name in TLS": {before: func(t *try) {
		webServer(t, t.ns, "127.0.0.1:443")
	}, during: func(t *try) {
		if browses(t.ns, "127.0.0.1", "ads.example") || !browses(t.ns, "127.0.0.1", "www.example") {
			t.Error("want no page of ads.example, and one of www.example")
		}
	}},
	"Refuse instead of dropping": {before: func(t *try) { t.ns.TCPEcho("127.0.0.1:23") }, during: func(t *try) {
		if _, err := t.ns.Dial("tcp", "127.0.0.1:23", time.Second); !errors.Is(err, unix.ECONNREFUSED) ||
			!t.connects("127.0.0.1:80") {
			t.Errorf("want a refusal of port 23 and a connection to port 80: %v", err)
		}
	}},
	"Look at what connections begin with": {before: func(t *try) {
		counting(t.ns, true)
		webServer(t, t.ns, "127.0.0.1:443")
	}, during: func(t *try) {
		if !browses(t.ns, "127.0.0.1", "www.example") {
			t.Error("no page")
		}
	}, after: func(t *try, out string) {
		if out != "tcp.dport\ttls.sni\n443\twww.example\n" {
			t.Errorf("%q", out)
		}
	}},
	"Look at each connection once": {before: func(t *try) { t.ns.TCPEcho("127.0.0.1:23") }, during: func(t *try) {
		if _, err := t.ns.Dial("tcp", "127.0.0.1:23", time.Second); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("port 23: %v", err)
		}
		c, err := t.ns.Dial("tcp", "127.0.0.1:80", nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		echoes(t.T, c, 100_000)
	}, after: func(t *try, out string) {
		if n := strings.Count(out, ":80 "); n < 1 || n > 4 {
			t.Errorf("%d packets of the connection came up:\n%s", n, out)
		}
	}},
	"Let through by name, and look no further": {before: func(t *try) {
		webServer(t, t.ns, "127.0.0.1:443")
	}, during: func(t *try) {
		if browses(t.ns, "127.0.0.1", "ads.example") || !browses(t.ns, "127.0.0.1", "good.example") ||
			!browses(t.ns, "127.0.0.1", "www.good.example") {
			t.Error("want pages of good.example, and none of ads.example")
		}
	}},
	"Route by what a connection is": {before: func(t *try) { t.ns.TCPEcho("127.0.0.1:25") }, during: func(t *try) {
		for _, port := range []string{"25", "80"} {
			if _, err := t.ns.Dial("tcp", "127.0.0.1:"+port, nstest.Patience); err != nil {
				t.Fatal(err)
			}
		}
	}, after: func(t *try, _ string) {
		if marked := t.do("ct", "list", "--filter", "mark != 0", "-o", "flow"); !strings.Contains(marked, ":25") ||
			strings.Contains(marked, ":80") {
			t.Errorf("marked: %s", marked)
		}
	}},
	"Expectations for an unknown protocol": {after: func(t *try, _ string) {
		if out := t.do("expect", "list", "-o", "json"); !strings.Contains(out, `"dport":5000`) ||
			!strings.Contains(out, `"sport":40000`) {
			t.Errorf("%s", out)
		}
	}},
	"Count by destination": {before: func(t *try) {
		for _, f := range []string{"udp 10.0.0.1:1 > 10.0.0.9:53", "udp 10.0.0.2:1 > 10.0.0.9:53",
			"udp 10.0.0.2:1 > 10.0.0.8:99"} {
			t.do("ct", "create", f, "--timeout", "1m")
		}
	}, after: func(t *try, out string) {
		if first, _, _ := strings.Cut(out, "10.0.0.8"); !strings.Contains(first, "10.0.0.9") {
			t.Errorf("%s", out)
		}
	}},
	"A rate limit for each source": {before: func(t *try) { t.ns.UDPEcho("127.0.0.1:53") }, during: func(t *try) {
		if n := t.answered("127.0.0.1:53", 100, false); n < 5 || n > 25 {
			t.Errorf("%d of 100 questions at once have an answer, want 10 or little more", n)
		}
	}},
	"Look at one flow in a hundred": {before: func(t *try) { t.ns.UDPEcho("127.0.0.1:9000") }, during: func(t *try) {
		if n := t.answered("127.0.0.1:9000", 250, true); n != 250 {
			t.Errorf("%d of 250 questions have an answer", n)
		}
	}, after: func(t *try, out string) {
		if n := strings.Count(out, "\n"); n != 2 {
			t.Errorf("%d lines of 250 flows, want 2\n%s", n, out)
		}
	}},
	"Random loss": {before: func(t *try) { t.ns.UDPEcho("127.0.0.1:9000") }, during: func(t *try) {
		if n := t.answered("127.0.0.1:9000", 500, false); n < 350 || n > 495 {
			t.Errorf("%d of 500 questions have an answer, want nine of ten", n)
		}
	}},
	"A slow mobile link": {before: func(t *try) { t.ns.UDPEcho("127.0.0.1:9000") }, during: func(t *try) {
		answers := 0
		for range 100 {
			begun := time.Now()
			if _, ok := t.ns.Ask("127.0.0.1:9000", "x", 2*time.Second); !ok {
				continue
			}
			answers++
			if took := time.Since(begun); took < 40*time.Millisecond {
				t.Fatalf("an answer after %v", took)
			}
		}
		if answers < 80 {
			t.Errorf("%d of 100 questions have an answer", answers)
		}
	}},
	"Verdicts by user": {during: func(t *try) {
		if _, _, status := t.ns.Exec("setpriv", "--reuid", "1000", "--clear-groups", "true"); status != 0 {
			t.Skip("this user namespace has no user 1000")
		}
		as := func(uid string) int {
			_, _, status := t.ns.Exec("setpriv", "--reuid", uid, "--clear-groups", "timeout", "1", "bash", "-c",
				"exec 3<>/dev/tcp/127.0.0.1/80")
			return status
		}
		if as("1000") == 0 || as("1001") != 0 {
			t.Error("want no connection of user 1000, and one of user 1001")
		}
	}},
}

// Each recipe of the guide does what it says, run as it is written.
func TestGuide(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "bash", "jq", "dig", "curl", "iptables", "ip", "setpriv", "unshare")
	playAll(t, "guide.md", stages)
}

func playAll(t *testing.T, page string, stages map[string]stage) {
	t.Helper()
	all := recipes(t, page)
	if len(all) != len(stages) {
		t.Errorf("%d recipes, %d stages", len(all), len(stages))
	}
	for _, r := range all {
		t.Run(r.title, func(t *testing.T) {
			t.Parallel()
			stage, ok := stages[r.title]
			if !ok {
				t.Fatal("no stage for this recipe")
			}
			s := &try{t, nstest.Enter(t), nstest.Build(t), t.TempDir()}
			// makes the kernel track
			s.ns.Run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "ACCEPT")
			s.ns.TCPEcho("127.0.0.1:22")
			s.ns.TCPEcho("127.0.0.1:80")
			if stage.before != nil {
				stage.before(s)
			}
			// /run is the recipe's own, so that named namespaces are.
			shell := "mount -t tmpfs tmpfs /run; mkdir /run/netns\n" + stage.prefix + "\n"
			if r.background {
				shell += "exec " // signals are for nfctl
			}
			cmd := exec.Command("unshare", "--mount", "bash", "-euo", "pipefail", "-c",
				shell+strings.TrimSpace(r.text)+"\n"+stage.suffix)
			cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(s.nfctl)+":"+os.Getenv("PATH"))
			cmd.Dir = s.dir
			p := s.ns.StartCmd(cmd)
			if stage.during != nil {
				s.listening(r.background && !stage.events, p)
				stage.during(s)
			}
			if r.background {
				p.Signal(os.Interrupt)
			}
			status := p.Wait()
			if status != 0 {
				t.Errorf("status %d\n%s%s", status, p.Stdout(), p.Stderr())
			}
			if stage.after != nil {
				stage.after(s, p.Stdout())
			}
			if t.Failed() {
				t.Logf("%s%s", p.Stdout(), p.Stderr())
			}
		})
	}
}

// listening waits until nfctl has bound its queue, or listens to events.
func (t *try) listening(queue bool, p *nstest.Proc) {
	t.Helper()
	nstest.Until(t, "nfctl at work", func() bool {
		if p.Ended() {
			t.Fatalf("it ended: %s%s", p.Stdout(), p.Stderr())
		}
		if queue {
			fed, err := nft.Feeders()
			if err != nil {
				t.Fatal(err)
			}
			return len(fed) > 0 && strings.Contains(t.do("queue", "list", "-o", "json"), `"kind":"queue"`)
		}
		b, err := os.ReadFile("/proc/thread-self/net/netlink")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 3 && f[1] == "12" && f[3] != "00000000" {
				return true // a netfilter socket with groups
			}
		}
		return false
	})
}
