package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"nfctl/internal/nstest"
)

// TestExpectRule: a server answers on its control port with a number and then
// serves that port; nothing but nfctl's rule lets the client in.
func TestExpectRule(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, "irc")
	control := g.server.ListenTCP("10.0.0.2:2000")
	ports := make(chan net.Listener, 200)
	g.server.Do(func() {
		for range 100 {
			l, err := net.Listen("tcp", "10.0.0.2:0")
			if err != nil {
				t.Fatal(err)
			}
			ports <- l
		}
	})
	go func() {
		for {
			c, err := control.Accept()
			if err != nil {
				return
			}
			l := <-ports
			go func() {
				if d, err := l.Accept(); err == nil {
					_, _ = io.WriteString(d, "data")
					_ = d.Close()
				}
			}()
			fmt.Fprintf(c, "port %d\r\n", l.Addr().(*net.TCPAddr).Port)
		}
	}()
	q := startQueue(t, g.server, "--attach", "output tcp :2000 >", "--rule", `expect "port ([0-9]+)\r" timeout 30s`,
		"-q")
	g.client.Run("ip", "addr", "add", "10.0.0.3/24", "dev", "veth0")
	for i := range 100 {
		c, err := g.client.Dial("tcp", "10.0.0.2:2000", nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		var port int
		if _, serr := fmt.Sscanf(line, "port %d", &port); err != nil || serr != nil {
			t.Fatalf("control connection %d: %q, %v", i, line, err)
		}
		addr := fmt.Sprintf("10.0.0.2:%d", port)
		if i < 2 { // somebody else
			var stranger net.Conn
			g.client.Do(func() {
				d := net.Dialer{Timeout: short, LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 3)}}
				stranger, _ = d.Dial("tcp", addr)
			})
			if stranger != nil {
				t.Errorf("connection %d: another address was let in", i)
				_ = stranger.Close()
			}
		}
		d, err := g.client.Dial("tcp", addr, nstest.Patience)
		if err != nil {
			t.Fatalf("data connection %d: %v\n%s", i, err, q.Stderr())
		}
		if b, err := io.ReadAll(d); string(b) != "data" || err != nil {
			t.Fatalf("data connection %d: %q, %v", i, b, err)
		}
		_ = d.Close()
		_ = c.Close()
	}
	q.Signal(os.Interrupt)
	if status := q.Wait(); status != 0 || !strings.Contains(q.Stderr(),
		"expect: 100 made, 0 there already, 0 removed by the kernel to make room, 0 failed") {
		t.Errorf("status %d, totals: %s", status, q.Stderr())
	}
}

// TestExpectRuleFails: what cannot be expected is counted, and the queue goes on.
func TestExpectRuleFails(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	addr := ns.TCPEcho("127.0.0.1:0") // whose connections have no helper
	_, port, _ := net.SplitHostPort(addr)
	q := startQueue(t, ns, "--attach", "output tcp > :"+port, "--rule", `expect "port (\d+)"`, "-o", "json")
	ns.Run("iptables", "-w", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
	c, err := ns.Dial("tcp", addr, nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16)
	for _, text := range []string{"port 5000", "port 70000", "port 0"} {
		_ = c.SetDeadline(time.Now().Add(nstest.Patience))
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b); err != nil || string(b[:n]) != text {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
	q.Signal(os.Interrupt)
	if status := q.Wait(); status != 0 || !strings.Contains(q.Stderr(),
		"expect: 0 made, 0 there already, 0 removed by the kernel to make room, 3 failed") ||
		!strings.Contains(q.Stderr(), "no conntrack helper") {
		t.Errorf("status %d: %s", status, q.Stderr())
	}
	for _, bad := range []struct{ rule, says string }{
		{`expect`, "expect"}, {`expect "port [0-9]+"`, "group"}, {`expect "("`, "regular expression"},
		{`expect "(1)" timeout soon`, "soon"}, {`expect "(1)" timeout 100ms`, "whole seconds"}, {`expect "(1)" proto icmp`, "ports"},
	} {
		if _, stderr, status := ns.Exec(nstest.Build(t), "queue", "--rule", bad.rule); status != 2 ||
			!strings.Contains(stderr, bad.says) {
			t.Errorf("--rule %s: status %d, %s", bad.rule, status, stderr)
		}
	}
}
