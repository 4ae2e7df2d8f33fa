package main

import (
	"bytes"
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
			if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 100) }); e != nil || err != nil {
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
