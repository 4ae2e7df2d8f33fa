package lua

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

const examples = "../../examples/lua/"

// exampleLab is a namespace that tracks connections; those to port 21 have a
// helper, and only port 21, 22 and what is related to a connection gets in.
func exampleLab(t *testing.T) (ns *nstest.NS, bin string) {
	t.Helper()
	nstest.Need(t, "iptables")
	ns = nstest.Enter(t)
	bin = nstest.Build(t)
	t.Setenv("XTABLES_LOCKFILE", t.TempDir()+"/lock")
	for _, r := range []string{"-t raw -A OUTPUT -p tcp --dport 21 -j CT --helper ftp",
		"-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
		"-A INPUT -p tcp --dport 21:22 -j ACCEPT", "-A INPUT -p tcp -j DROP"} {
		ns.Run("iptables", append([]string{"-w"}, strings.Fields(r)...)...)
	}
	return ns, bin
}

func portOf(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}

func TestExampleEvents(t *testing.T) {
	ns, bin := exampleLab(t)
	ns.TCPEcho("127.0.0.1:21")
	all := map[string]*nstest.Proc{}
	for _, subsys := range []string{"conntrack", "expect", "both"} {
		all[subsys] = ns.Start(bin, "lua", examples+"events.lua", subsys)
		all[subsys].WaitOutput("watching")
	}
	c, err := ns.Dial("tcp", "127.0.0.1:21", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	out := ns.Run(bin, "lua", examples+"expect.lua", "127.0.0.1", portOf(c.LocalAddr()), "127.0.0.1", "21", "5001")
	if !strings.Contains(out, "[NEW] 30 proto=6 src=127.0.0.1 dst=127.0.0.1 sport=0 dport=5001") {
		t.Errorf("%q", out)
	}
	ct, exp := "conntrack\t    [NEW] tcp      6 ", "expect\t    [NEW] 300 proto=6 src=127.0.0.1"
	for subsys, p := range all {
		if subsys != "expect" {
			p.WaitOutput(ct)
			p.WaitOutput("ESTABLISHED")
		}
		if subsys != "conntrack" {
			p.WaitOutput(exp)
		}
		p.Signal(unix.SIGTERM)
		p.Wait()
		if got := p.Stdout(); strings.Contains(got, ct) != (subsys != "expect") ||
			strings.Contains(got, exp) != (subsys != "conntrack") {
			t.Errorf("%s:\n%s", subsys, got)
		}
	}
}

// The expectation that the example makes lets one connection in.
func TestExampleExpect(t *testing.T) {
	ns, bin := exampleLab(t)
	ns.TCPEcho("127.0.0.1:21")
	ns.TCPEcho("127.0.0.1:22")
	ns.TCPEcho("127.0.0.1:5001")
	connects := func() bool {
		_, err := ns.Dial("tcp", "127.0.0.1:5001", nstest.Patience)
		return err == nil
	}
	filtered := func() bool {
		_, err := ns.Dial("tcp", "127.0.0.1:5001", 300*time.Millisecond)
		return err != nil
	}
	c, err := ns.Dial("tcp", "127.0.0.1:21", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	if !filtered() {
		t.Fatal("not filtered")
	}
	script := func(sport, dport, expected string, more ...string) (string, int) {
		_, stderr, status := ns.Exec(bin, append([]string{"lua", examples + "expect.lua", "127.0.0.1", sport,
			"127.0.0.1", dport, expected}, more...)...)
		return stderr, status
	}
	if stderr, status := script(portOf(c.LocalAddr()), "21", "5001"); status != 0 {
		t.Fatal(stderr)
	}
	if !connects() || !filtered() {
		t.Error("not exactly one connection was let in")
	}
	if stderr, status := script(portOf(c.LocalAddr()), "21", "5001", "15", "permanent"); status != 0 {
		t.Fatal(stderr)
	}
	if first, second := connects(), connects(); !first || !second {
		t.Error("a permanent expectation was used up")
	}
	plain, err := ns.Dial("tcp", "127.0.0.1:22", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	if stderr, status := script(portOf(plain.LocalAddr()), "22", "5002"); status != 1 ||
		!strings.Contains(stderr, "Operation not supported") {
		t.Errorf("master without helper: %d %s", status, stderr)
	}
	if stderr, status := script("1", "21", "5002"); status != 1 ||
		!strings.Contains(stderr, "No such file or directory") {
		t.Errorf("absent master: %d %s", status, stderr)
	}
}

// What the rewriting handler sends on has the new TTL and payload, and the kernel
// takes its checksums for right.
func TestExampleRewrite(t *testing.T) {
	ns, bin := exampleLab(t)
	far := ns.ListenUDP("127.0.0.1:0")
	raw, err := far.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTTL, 1) })
	if err != nil {
		t.Fatal(err)
	}
	p := ns.Start(bin, "lua", examples+"rewrite.lua", "5", "evil", "good")
	p.WaitOutput("ready")
	ns.Run("iptables", "-w", "-A", "OUTPUT", "-p", "udp", "-j", "NFQUEUE", "--queue-num", "5")
	near, err := ns.Dial("udp", far.LocalAddr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for sent, want := range map[string]string{"no evil, evil": "no good, good", "odd": "odd",
		strings.Repeat("evil", 2000): strings.Repeat("good", 2000)} {
		if _, err := near.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		b, oob := make([]byte, 1<<16), make([]byte, 100)
		_ = far.SetReadDeadline(time.Now().Add(nstest.Patience))
		n, m, _, _, err := far.(*net.UDPConn).ReadMsgUDP(b, oob)
		if err != nil {
			t.Fatal(err)
		}
		if string(b[:n]) != want {
			t.Errorf("%.40q arrived as %.40q", sent, b[:n])
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:m])
		if err != nil || len(msgs) != 1 || binary.NativeEndian.Uint32(msgs[0].Data) != 7 {
			t.Errorf("TTL: %v, %v", msgs, err)
		}
	}
}

// The tracker lets the data connections of the echo service in, and survives what
// it cannot make.
func TestExampleTracker(t *testing.T) {
	ns, bin := exampleLab(t)
	ns.TCPEcho("127.0.0.1:21")
	ns.TCPEcho("127.0.0.1:22")
	ns.TCPEcho("127.0.0.1:5001")
	p := ns.Start(bin, "lua", examples+"tracker.lua", "echo", "3")
	p.WaitOutput("ready")
	ns.Run("iptables", "-w", "-I", "INPUT", "1", "-p", "tcp", "--dport", "21:22", "-j", "NFQUEUE", "--queue-num", "3")
	say := func(c net.Conn, text string) {
		t.Helper()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(text))
		_ = c.SetReadDeadline(time.Now().Add(nstest.Patience))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
			t.Fatalf("echo of %q: %q, %v", text, b, err)
		}
	}
	data := func(wait time.Duration) (net.Conn, error) { return ns.Dial("tcp", "127.0.0.1:5001", wait) }
	const short = 300 * time.Millisecond
	plain, err := ns.Dial("tcp", "127.0.0.1:22", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	say(plain, "ECHO 5001\n") // no helper: refused
	p.WaitOutput("expect tcp 5001 Operation not supported")
	if _, err := data(short); err == nil {
		t.Fatal("not filtered")
	}
	control, err := ns.Dial("tcp", "127.0.0.1:21", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		say(control, "ECHO 5001\n")
		p.WaitOutput("expect tcp 5001 made")
		c, err := data(nstest.Patience)
		if err != nil {
			t.Fatal("the data connection was not let in: ", err)
		}
		say(c, "through the data connection")
		if _, err := data(short); err == nil {
			t.Error("a second one was let in")
		}
	}
}

// A rule's file on the kernel: verdicts, edits, marks, and a script that fails or
// does not end.
func TestRuleOnKernel(t *testing.T) {
	ns, bin := exampleLab(t)
	dir := t.TempDir()
	rule := dir + "/rule.lua"
	if err := os.WriteFile(rule, []byte(`return function(p)
		local text = p.payload
		if text == "drop" then return "drop" end
		if text == "error" then error("mine") end
		if text == "hang" then while true do end end
		if text == "mark" then return "accept", 0x20 end
		if text:find("evil") then p.payload = text:gsub("evil", "better") end
		if text == "pass" then return end
		return "accept"
	end`), 0o600); err != nil {
		t.Fatal(err)
	}
	far := ns.ListenUDP("127.0.0.1:0")
	near, err := ns.Dial("udp", far.LocalAddr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ns.Run("iptables", "-w", "-t", "mangle", "-A", "POSTROUTING", "-m", "mark", "--mark", "0x20", "-j", "DROP")
	p := ns.Start(bin, "queue", "--num", "2", "--rule", "lua "+rule, "--rule", `drop if payload == "pass"`,
		"--ready-file", dir+"/ready", "--lua-timeout", "50ms")
	nstest.WaitFile(t, dir+"/ready")
	ns.Run("iptables", "-w", "-A", "OUTPUT", "-p", "udp", "-j", "NFQUEUE", "--queue-num", "2")
	for _, c := range []struct{ sent, want string }{
		{"plain", "plain"}, {"drop", ""}, {"error", "error"}, {"hang", "hang"}, {"mark", ""}, {"no evil", "no better"}, {"pass", ""}, {"again", "again"},
	} {
		if _, err := near.Write([]byte(c.sent)); err != nil {
			t.Fatal(err)
		}
		if c.want == "" {
			continue // what comes next shows that this one did not
		}
		b := make([]byte, 100)
		_ = far.SetReadDeadline(time.Now().Add(nstest.Patience))
		n, _, err := far.ReadFrom(b)
		if err != nil || string(b[:n]) != c.want {
			t.Errorf("%q: %q, %v", c.sent, b[:n], err)
		}
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if want := "lua: scripts failed on 1 packets and were cut off on 1"; !strings.Contains(p.Stderr(), want) ||
		!strings.Contains(p.Stderr(), "rule.lua:4: mine") {
		t.Errorf("no %q in\n%s", want, p.Stderr())
	}
}

// The limiting example drops what is too much.
func TestExampleLimit(t *testing.T) {
	ns, bin := exampleLab(t)
	far := ns.ListenUDP("127.0.0.1:0")
	near, err := ns.Dial("udp", far.LocalAddr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ready := t.TempDir() + "/ready"
	p := ns.Start(bin, "queue", "--attach", "input udp > :"+portOf(far.LocalAddr()), "--rule",
		"lua "+examples+"limit.lua", "--ready-file", ready, "-o", "json")
	nstest.WaitFile(t, ready)
	for i := range 100 {
		if _, err := fmt.Fprintf(near, "packet %d with some text to make it long", i); err != nil {
			t.Fatal(err)
		}
	}
	p.WaitOutput(`"id":100`)
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d\n%s", status, p.Stderr())
	}
	n := 0
	for ; ; n++ {
		_ = far.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, _, err := far.ReadFrom(make([]byte, 100)); err != nil {
			break
		}
	}
	if n < 10 || n > 90 {
		t.Errorf("%s packets passed", strconv.Itoa(n))
	}
}
