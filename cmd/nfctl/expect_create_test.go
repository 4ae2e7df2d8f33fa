package main

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"nfctl/internal/nstest"
)

// TestExpectLetsIn sees at the far end what an expectation does: a connection that
// the firewall drops is let in as often as the expectation says.
func TestExpectLetsIn(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"tcp", "udp"} {
		for _, family := range []string{"ipv4", "ipv6"} {
			t.Run(proto+" "+family, func(t *testing.T) {
				t.Parallel()
				g := newGuarded(t, "ftp")
				client, server := "10.0.0.1", "10.0.0.2"
				if family == "ipv6" {
					client, server = "[fd00::1]", "[fd00::2]"
				}
				g.server.TCPEcho(server + ":2000")
				data := server + ":5000"
				if proto == "tcp" {
					g.server.TCPEcho(data)
				} else {
					g.server.UDPEcho(data)
				}
				c, err := g.client.Dial("tcp", server+":2000", nstest.Patience)
				if err != nil {
					t.Fatal(err)
				}
				master := fmt.Sprintf("tcp %s > %s:2000", c.LocalAddr(), server)
				what := fmt.Sprintf("%s %s > %s", proto, strings.Trim(client, "[]"), data)
				if family == "ipv6" {
					what = fmt.Sprintf("%s %s > %s", proto, client, data)
				}
				create := func(flags ...string) {
					t.Helper()
					nfctl(t, g.server, append([]string{"expect", "create", "--master", master, what}, flags...)...)
				}
				want := func(when string, in bool) {
					t.Helper()
					patience := short
					if in {
						patience = nstest.Patience
					}
					if got := g.meets(proto, data, patience); got != in {
						t.Errorf("%s: let in: %v, want %v", when, got, in)
					}
				}
				want("without expectation", false)
				create()
				want("expected once", true)
				want("used up", false)
				create("--permanent")
				want("permanent", true)
				want("permanent, again", true)
				nfctl(t, g.server, "expect", "delete", "-q", proto+" > :5000")
				want("deleted", false)
				create("--inactive")
				want("inactive", false)
				nfctl(t, g.server, "expect", "flush", "--all")
				create("--permanent", "--timeout", "1s")
				nstest.Until(t, "the expectation times out", func() bool {
					return nfctl(t, g.server, "expect", "count") == "0\n"
				})
				want("timed out", false)
			})
		}
	}
}

// TestExpectRaw: expectations of protocols without ports, by the names that each of
// their parts has, and what they let in at the far end.
func TestExpectRaw(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, "irc")
	watch := startWatch(t, g.server, "expect", "watch") // what nobody watches from its birth has no events
	control := g.server.ListenTCP("10.0.0.2:2000")
	c, err := g.client.Dial("tcp", "10.0.0.2:2000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	master := fmt.Sprintf("tcp %s > 10.0.0.2:2000", c.LocalAddr())
	raw := func(ns *nstest.NS, network, addr string) *net.IPConn {
		t.Helper()
		var conn net.PacketConn
		ns.Do(func() { conn, err = net.ListenPacket(network, addr) })
		if err != nil {
			nstest.Lack(t, err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn.(*net.IPConn)
	}
	client := raw(g.client, "ip4:gre", "10.0.0.1")
	ping, server := raw(g.client, "ip4:icmp", "10.0.0.1"), raw(g.server, "ip4:gre", "10.0.0.2")
	// arrives sends a packet and reports whether a byte string comes in time.
	arrives := func(from, at *net.IPConn, packet, answer []byte, patience time.Duration) bool {
		t.Helper()
		if _, err := from.WriteTo(packet, &net.IPAddr{IP: net.IPv4(10, 0, 0, 2)}); err != nil {
			t.Fatal(err)
		}
		_ = at.SetReadDeadline(time.Now().Add(patience))
		for b := make([]byte, 1500); ; {
			n, _, err := at.ReadFrom(b)
			if err != nil {
				return false
			}
			if strings.HasPrefix(string(b[:n]), string(answer)) {
				return true
			}
		}
	}
	for _, tt := range []struct {
		words, key string
		from, at   *net.IPConn
		packet     string
		answer     string
		text, mask string
	}{
		// An echo request of id 7, and its answer.
		{"icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 7", "icmp > type 8 id 7", ping, ping, "\x08\x00\xf7\xf7\x00\x07\x00\x01", "\x00\x00\xff\xf7\x00\x07\x00\x01",
			" type=8 code=0 id=7 mask-src=255.255.255.255 mask-dst=255.255.255.255 type=255 code=255 id=65535 master-src=10.0.0.1 master-dst=10.0.0.2 sport=", `"id":65535`},
		// A packet of plain GRE, whose keys are 0.
		{"gre 10.0.0.1 > 10.0.0.2:0", "gre > :0", client, server, "\x00\x00\x08\x00hello", "\x00\x00\x08\x00hello",
			" srckey=0x0 dstkey=0x0 mask-src=255.255.255.255 mask-dst=255.255.255.255 srckey=0x0 dstkey=0xffff master-src=10.0.0.1 master-dst=10.0.0.2 sport=", `"dport":65535`},
	} {
		packet := []byte(tt.packet)
		if arrives(tt.from, tt.at, packet, []byte(tt.answer), short) {
			t.Errorf("%s: let in without expectation", tt.words)
		}
		out := nfctl(t, g.server, "expect", "create", "--master", master, tt.words)
		if !strings.Contains(out, tt.text) {
			t.Errorf("%s: created %s", tt.words, out)
		}
		for _, args := range [][]string{{"get", strings.Replace(tt.words, "10.0.0.1 >", "10.0.0.1:0 >",
			map[bool]int{true: 1}[tt.at == server])}, {"list", tt.key}} {
			if out := nfctl(t, g.server, append(append([]string{"expect"}, args...), "-o",
				"json")...); !strings.Contains(out, tt.mask) {
				t.Errorf("%q: %s", args, out)
			}
		}
		if !arrives(tt.from, tt.at, packet, []byte(tt.answer), nstest.Patience) {
			t.Errorf("%s: was not let in", tt.words)
		}
		for _, head := range []string{"    [NEW] ", "[DESTROY] "} {
			nstest.Until(t, tt.words+head, func() bool {
				return slices.ContainsFunc(strings.Split(watch.Stdout(), "\n"), func(line string) bool {
					return strings.HasPrefix(line, head) && strings.Contains(line, tt.text)
				})
			})
		}
		nfctl(t, g.server, "ct", "delete", "-q", tt.key)
		if arrives(tt.from, tt.at, packet, []byte(tt.answer), short) {
			t.Errorf("%s: let in twice", tt.words)
		}
		nfctl(t, g.server, "expect", "create", "--master", master, tt.words, "--permanent")
		if out := nfctl(t, g.server, "expect", "update", tt.key, "--set", "timeout=6009s"); !strings.HasPrefix(out,
			"600") {
			t.Errorf("%s: updated %s", tt.words, out)
		}
		nfctl(t, g.server, "expect", "delete", "-q", tt.key)
		if out := nfctl(t, g.server, "expect", "list"); out != "" {
			t.Errorf("%s: left %s", tt.words, out)
		}
	}
	for args, says := range map[string]string{
		"icmp 10.0.0.1 > 10.0.0.2":               "type and code must be",
		"icmp 10.0.0.1 > 10.0.0.2 type 3 code 0": "has no answer",
		"gre 10.0.0.1 > 10.0.0.2":                "the destination key must be one key",
	} {
		if _, errs, status := g.server.Exec(nstest.Build(t), "expect", "create", "--master", master,
			args); status == 0 || !strings.Contains(errs, says) || strings.Contains(errs, "argument\n") {
			t.Errorf("%s: status %d: %s", args, status, errs)
		}
	}
}
