package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// TestQueueTunnels edits the outer packets of tunnels, whose inner checksum is often
// left unfinished: connections through the tunnel work, and no packet arrives with
// a broken checksum. What the kernel has no tunnel of is tested where it has.
func TestQueueTunnels(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "ip", "nft")
	for i, tt := range []struct {
		kind    string
		v6      bool   // of the outer packets
		link    string // what stands behind 'ip link add t0 type'
		carries string // 4, 6 or both
		match   string // what --attach queues
	}{
		{"vxlan", false, "vxlan id 7 local L remote R dstport 4789", "46", "udp > :4789"},
		{"vxlan without a checksum", false, "vxlan id 7 local L remote R dstport 4789 noudpcsum", "46", "udp > :4789"},
		{"vxlan over IPv6", true, "vxlan id 7 local L remote R dstport 4789", "46", "udp > :4789"},
		{"geneve", false, "geneve id 7 remote R", "46", "udp > :6081"},
		{"geneve over IPv6", true, "geneve id 7 remote R", "46", "udp > :6081"},
		{"gre", false, "gre local L remote R", "46", "gre >"},
		{"gre with a checksum", false, "gre local L remote R csum", "4", "gre >"},
		{"gre over IPv6", true, "ip6gre local L remote R", "46", "gre >"},
		{"ipip", false, "ipip local L remote R", "4", "4 >"},
		{"sit", false, "sit local L remote R", "6", "41 >"},
		{"ipip and ip6ip6 over IPv6", true, "ip6tnl mode any local L remote R", "46", ""},
	} {
		hooks := []string{"output", "postrouting", "forward"}
		if testing.Short() { // on an emulated processor: one for each kind
			hooks = hooks[i%3 : i%3+1]
		}
		for _, hook := range hooks {
			t.Run(tt.kind+", "+hook, func(t *testing.T) {
				t.Parallel()
				a, r, b := nstest.New(t), nstest.New(t), nstest.New(t)
				join := func(x, y *nstest.NS, net string) { // x is .1, y is .2
					x.Run("ip", "link", "add", "to"+net, "type", "veth", "peer", "name", "to"+net, "netns", y.Path())
					for i, n := range []*nstest.NS{x, y} {
						n.Run("ip", "address", "add", fmt.Sprintf("10.0.%s.%d/24", net, i+1), "dev", "to"+net)
						n.Run("ip", "address", "add", fmt.Sprintf("fd00:%s::%d/64", net, i+1), "dev", "to"+net, "nodad")
						n.Run("ip", "link", "set", "to"+net, "up")
					}
				}
				join(a, r, "1")
				join(r, b, "2")
				r.Run("sh", "-c",
					"echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
				for _, w := range [][2]string{{"10.0.2.0/24", "10.0.1.2"}, {"fd00:2::/64", "fd00:1::2"}} {
					a.Run("ip", "route", "add", w[0], "via", w[1])
				}
				for _, w := range [][2]string{{"10.0.1.0/24", "10.0.2.1"}, {"fd00:1::/64", "fd00:2::1"}} {
					b.Run("ip", "route", "add", w[0], "via", w[1])
				}
				ends := [2]string{"10.0.1.1", "10.0.2.2"}
				if tt.v6 {
					ends = [2]string{"fd00:1::1", "fd00:2::2"}
				}
				for i, n := range []*nstest.NS{a, b} {
					link := strings.NewReplacer(" L", " "+ends[i], " R", " "+ends[1-i]).Replace(tt.link)
					if _, stderr, status := n.Exec("ip",
						append([]string{"link", "add", "t0", "type"}, strings.Fields(link)...)...); status != 0 {
						if os.Getenv("NFCTL_TEST_VM") == "" {
							t.Skipf("this kernel has no such tunnel: %s", stderr)
						}
						t.Fatalf("%s: %s", link, stderr)
					}
					n.Run("ip", "link", "set", "t0", "up", "mtu", "1400")
					n.Run("ip", "address", "add", fmt.Sprintf("10.9.0.%d/24", i+1), "dev", "t0")
					if strings.Contains(tt.carries, "6") {
						n.Run("ip", "address", "add", fmt.Sprintf("fd09::%d/64", i+1), "dev", "t0", "nodad")
					}
				}
				b.Run("nft", "add table inet t; add chain inet t c { type filter hook prerouting priority -500; }; "+
					"add rule inet t c ip ttl 39-40 counter; add rule inet t c ip6 hoplimit 39-40 counter")
				at := a
				if hook == "forward" {
					at = r
				}
				// Neighbours are found with hop limit 255 alone.
				p := startQueue(t, at, "--attach", strings.TrimSpace(hook+" "+tt.match), "--rule",
					`set ip.ttl=40 if ip.proto != "icmpv6"`, "-q")
				for _, host := range []string{"10.9.0.2", "[fd09::2]"} {
					if family := map[bool]string{true: "4",
						false: "6"}[host == "10.9.0.2"]; !strings.Contains(tt.carries, family) {
						continue
					}
					began := time.Now()
					c := b.ListenUDP(host + ":7000")
					out, err := a.Dial("udp", host+":7000", nstest.Patience)
					if err != nil {
						t.Fatal(err)
					}
					buf := make([]byte, 2000)
					for _, size := range []int{1, 500, 1200} { // the first of all too
						want := bytes.Repeat([]byte{byte(size)}, size)
						if _, err := out.Write(want); err != nil {
							t.Fatal(err)
						}
						_ = c.SetReadDeadline(time.Now().Add(nstest.Patience))
						if n, _, err := c.ReadFrom(buf); err != nil || !bytes.Equal(buf[:n], want) {
							t.Fatalf("%s: UDP, %d bytes: %d came, %v\n%s", host, size, n, err, p.Stderr())
						}
					}
					if hook != "forward" { // many datagrams at once
						raw, _ := out.(*net.UDPConn).SyscallConn()
						_ = raw.Control(func(fd uintptr) {
							err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 100)
						})
						if err != nil {
							t.Fatal(err)
						}
						if _, err := out.Write(bytes.Repeat([]byte("u"), 1000)); err != nil {
							t.Fatal(err)
						}
						for i := range 10 {
							_ = c.SetReadDeadline(time.Now().Add(nstest.Patience))
							if n, _, err := c.ReadFrom(buf); err != nil || n != 100 {
								t.Fatalf("%s: datagram %d of many: %d bytes, %v", host, i, n, err)
							}
						}
					}
					l := b.ListenTCP(host + ":7000")
					const size = 300_000
					got := make(chan []byte, 1)
					go func() {
						defer close(got)
						if c, err := l.Accept(); err == nil {
							defer c.Close()
							all, _ := io.ReadAll(c)
							got <- all
						}
					}()
					tcp, err := a.Dial("tcp", host+":7000", nstest.Patience)
					if err != nil {
						t.Fatalf("%s: %v\n%s", host, err, p.Stderr())
					}
					text := bytes.Repeat([]byte("inner segments, "), size/16)
					if _, err := tcp.Write(text); err != nil {
						t.Error(err)
					}
					_ = tcp.Close()
					select {
					case all := <-got:
						if !bytes.Equal(all, text) {
							t.Errorf("%s: %d bytes of %d arrived", host, len(all), len(text))
						}
					case <-time.After(nstest.Patience):
						t.Fatalf("%s: TCP hangs\n%s", host, p.Stderr())
					}
					t.Logf("%s: %v", host, time.Since(began))
				}
				for _, file := range []string{"snmp", "snmp6", "netstat"} {
					text := b.Run("cat", "/proc/net/"+file)
					for _, m := range broken(text) {
						t.Errorf("%s", m)
					}
				}
				if list := b.Run("nft", "list", "ruleset"); !regexp.MustCompile(`40 counter packets [1-9]`).MatchString(
					list) {
					t.Errorf("nothing was edited: %s", list)
				}
				p.Signal(unix.SIGTERM)
				if status := p.Wait(); status != 0 || strings.Contains(p.Stderr(), "not editable") {
					t.Errorf("status %d: %s", status, p.Stderr())
				}
			})
		}
	}
}

// broken returns the counters of broken checksums in a file of /proc/net that are
// not 0. Lines come in pairs, names and numbers, or hold one of each.
func broken(text string) (out []string) {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) == 2 && strings.Contains(f[0], "InCsumErrors") && f[1] != "0" {
			out = append(out, line)
		}
		if i+1 == len(lines) {
			break
		}
		next := strings.Fields(lines[i+1])
		for k, name := range f {
			if name == "InCsumErrors" && k < len(next) && next[k] != "0" {
				out = append(out, f[0]+" "+name+" "+next[k])
			}
		}
	}
	return out
}
