package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// TestQueueEditsSegments edits datagrams that leave their sender as one (UDP
// GSO), by every kind of rule that edits: each arrives whole and edited at the far
// end of a link. Linux before 6.11 loses them unless nfctl has them cut.
func TestQueueEditsSegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	script := write("upper.lua", `return function(p) p.payload = p.payload:gsub("a", "b") end`)
	later := write("later", "accept udp > :9\n")
	for _, tt := range []struct {
		name   string
		args   []string
		reload bool
	}{
		{"replace", []string{"--rule", `replace "a" "b"`}, false},
		{"a script", []string{"--rule", "lua " + script}, false},
		{"rules that edit only since SIGHUP", []string{"--rules", later}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := nstest.New(t), nstest.New(t)
			nstest.Need(t, "ip")
			nstest.Veth(t, a, b)
			c := b.ListenUDP("10.0.0.2:7000")
			p := startQueue(t, a, append([]string{"--attach", "output udp > :7000"}, tt.args...)...)
			if tt.reload {
				write("later", `replace "a" "b"`)
				p.Signal(unix.SIGHUP)
				p.WaitOutput("rules reloaded")
			}
			out, err := a.Dial("udp", "10.0.0.2:7000", nstest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := out.(*net.UDPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if e := raw.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 100)
			}); e != nil || err != nil {
				t.Fatal(e, err)
			}
			if _, err := out.Write(bytes.Repeat([]byte("a"), 950)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 2000)
			for left := 950; left > 0; {
				want := min(left, 100)
				_ = c.SetReadDeadline(time.Now().Add(nstest.Patience))
				n, _, err := c.ReadFrom(buf)
				if err != nil || string(buf[:n]) != strings.Repeat("b", want) {
					t.Fatalf("%d bytes to come: %q, %v", left, buf[:n], err)
				}
				left -= want
			}
			p.Signal(unix.SIGTERM)
			if status := p.Wait(); status != 0 {
				t.Errorf("status %d: %s", status, p.Stderr())
			}
		})
	}
}

// TestQueueDatagrams sends ten datagrams as one (UDP_SEGMENT), as QUIC and WireGuard
// do: rules that look at their payloads or lengths, or change those, judge each by
// itself, where connections are tracked and where they are not. With --gso, and
// where a rule looks at gso, they are judged as they come.
func TestQueueDatagrams(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "ip", "iptables")
	script := filepath.Join(t.TempDir(), "longer.lua")
	if err := os.WriteFile(script, []byte(`return function(p) p.payload = p.payload:gsub("evil", "excellent") end`),
		0o644); err != nil {
		t.Fatal(err)
	}
	edited := func(with string) func(int, string) string {
		return func(_ int, s string) string { return strings.Replace(s, "evil", with, 1) }
	}
	all := func(_ int, s string) string { return s }
	but := func(n int) func(int, string) string {
		return func(i int, s string) string { return map[bool]string{true: s}[i != n] }
	}
	none := func(int, string) string { return "" }
	for _, tt := range []struct {
		name string
		args []string
		want func(i int, sent string) string // "": it does not arrive
		says string                          // in the totals
	}{
		{"longer", []string{"--rule", `replace "evil" "excellent"`}, edited("excellent"), "10 edited"},
		{"shorter", []string{"--rule", `replace "evil" "e"`}, edited("e"), "10 edited"},
		{"same length", []string{"--rule", `replace "evil" "good"`}, edited("good"), "10 edited"},
		{"a script", []string{"--rule", "lua " + script}, edited("excellent"), "10 edited"},
		{"payload", []string{"--drop-if", `payload contains "7-evil"`}, but(7), "drop 1"},
		{"payload over two", []string{"--drop-if", `payload contains "x7-evil"`}, all, "accept 10"},
		{"length", []string{"--drop-if", "length > 500"}, all, "accept 10"},
		{"length of UDP", []string{"--drop-if", "udp.length > 500"}, all, "accept 10"},
		{"header alone", []string{"--rule", "set ip.ttl=9"}, all, "edited"},
		{"no rule", nil, all, ""},
		{"uncut by --gso", []string{"--gso", "--drop-if", `payload contains "7-evil"`}, none, "drop 1"},
		{"uncut by a rule", []string{"--drop-if", `gso and payload contains "7-evil"`}, none, "drop 1"},
		{"cut by --no-gso", []string{"--no-gso", "--drop-if", "gso"}, all, "accept 10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, tracked := range []bool{false, true} {
				for _, host := range []string{"10.0.0.2", "[fd00::2]"} {
					a, b := nstest.New(t), nstest.New(t)
					nstest.Veth(t, a, b)
					if tracked {
						for _, program := range []string{"iptables", "ip6tables"} {
							a.Run(program, "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID")
						}
					}
					c := b.ListenUDP(host + ":7000")
					p := startQueue(t, a, append([]string{"-q", "--attach", "output udp > :7000"}, tt.args...)...)
					out, err := a.Dial("udp", host+":7000", nstest.Patience)
					if err != nil {
						t.Fatal(err)
					}
					raw, err := out.(*net.UDPConn).SyscallConn()
					if err != nil {
						t.Fatal(err)
					}
					segment := func(n int) {
						if e := raw.Control(func(fd uintptr) {
							err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, n)
						}); e != nil || err != nil {
							t.Fatal(e, err)
						}
					}
					segment(100)
					var text, want []string
					for i := range 10 {
						s := fmt.Sprintf("%d-evil-", i)
						s += strings.Repeat("x", 100-len(s))
						text = append(text, s)
						if w := tt.want(i, s); w != "" {
							want = append(want, w)
						}
					}
					if _, err := out.Write([]byte(strings.Join(text, ""))); err != nil {
						t.Fatal(err)
					}
					segment(0)
					if _, err := out.Write([]byte("end")); err != nil {
						t.Fatal(err)
					}
					buf := make([]byte, 2000)
					for i := 0; ; i++ {
						_ = c.SetReadDeadline(time.Now().Add(nstest.Patience))
						n, _, err := c.ReadFrom(buf)
						if err != nil {
							t.Fatalf("tracked %v, %s: %d datagrams of %d arrived: %v\n%s", tracked, host, i, len(want),
								err, p.Stderr())
						}
						if got := string(buf[:n]); got == "end" {
							if i != len(want) {
								t.Errorf("tracked %v, %s: %d datagrams, want %d", tracked, host, i, len(want))
							}
							break
						} else if i >= len(want) || got != want[i] {
							t.Errorf("tracked %v, %s: datagram %d is %q", tracked, host, i, got)
						}
					}
					p.Signal(unix.SIGTERM)
					if status := p.Wait(); status != 0 ||
						!strings.Contains(strings.Replace(p.Stderr(), "accept 11", "accept 10", 1), tt.says) {
						t.Errorf("tracked %v, %s: status %d, want %q in %s", tracked, host, status, tt.says, p.Stderr())
					}
				}
			}
		})
	}
}
