package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// counting has the kernel count the packets of flows, or not.
func counting(ns *nstest.NS, on bool) {
	ns.Run("sh", "-c", fmt.Sprintf("echo %d >/proc/sys/net/netfilter/nf_conntrack_acct", map[bool]int{true: 1}[on]))
}

// TestAttachFirst: of each flow its first packets come up, both directions counted, and
// the rest passes without.
func TestAttachFirst(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		attach string
		most   int // packets of a flow that come up at the hook, of the first 6
	}{
		{"prerouting", 6}, {"prerouting priority -199 ip", 6}, {"prerouting ip6", 6}, {"input", 3}, {"forward", 6}, {"output", 3}, {"postrouting priority 101", 3},
		{"prerouting tcp > :7000", 3}, {"prerouting > :7000", 3},
	} {
		t.Run(c.attach, func(t *testing.T) {
			t.Parallel()
			client, router, server := threeHosts(t)
			at := router
			switch strings.Fields(c.attach)[0] {
			case "input":
				at = server
			case "output", "postrouting":
				at = client
			}
			counting(at, true)
			// What rules decide for a flow goes with it: here for one that never comes.
			echo := map[string]string{} // listeners, which stay
			for _, host := range []string{"10.0.1.2", "fd01::2"} {
				addr := net.JoinHostPort(host, "7000")
				echo["tcp "+host], echo["udp "+host] = server.TCPEcho(addr), server.UDPEcho(addr)
			}
			p := startQueue(t, at, "--attach", c.attach+" first 6", "--rule", "accept flow if sport == 1", "-o", "json")
			for _, host := range []string{"10.0.1.2", "fd01::2"} {
				if v6 := strings.Contains(host, ":"); strings.HasSuffix(c.attach, "ip") && v6 ||
					strings.HasSuffix(c.attach, "ip6") && !v6 {
					continue
				}
				for _, network := range []string{"udp", "tcp"} {
					if network == "udp" && strings.Contains(c.attach, "tcp") {
						continue
					}
					addr := echo[network+" "+host]
					before := flowPackets(p)
					for range 2 { // each flow counts by itself
						conn, err := client.Dial(network, addr, nstest.Patience)
						if err != nil {
							t.Fatal(err)
						}
						echoes(t, conn, 20_000)
						_ = conn.Close()
					}
					nstest.Until(t, "the flows come up", func() bool { return flowPackets(p)-before >= 2*c.most })
					if n := flowPackets(p) - before; n != 2*c.most {
						t.Errorf("%s %s: %d packets of two flows came up, want %d", network, host, n, 2*c.most)
					}
				}
			}
			p.Signal(unix.SIGTERM)
			if status := p.Wait(); status != 0 {
				t.Errorf("status %d: %s", status, p.Stderr())
			}
		})
	}
}

// flowPackets returns how many packets to or from port 7000 came up.
func flowPackets(p *nstest.Proc) (n int) {
	for _, line := range cameUp(p) {
		if strings.Contains(line, `port":7000,`) {
			n++
		}
	}
	return n
}

// TestAttachFirstWithoutCounters: where the kernel does not count, nothing is attached
// and the setting stays; flows from before it counted come up whole, those that it
// counted count from their beginning, and what has no flow comes up always.
func TestAttachFirstWithoutCounters(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	ns := nstest.New(t)
	// Tracked, but for port 7001.
	ns.Run("nft", `add table inet t; add chain inet t c { type filter hook output priority -300; }; add chain inet t d { type filter hook prerouting priority -300; };
		add rule inet t c udp dport 7001 notrack; add rule inet t c udp sport 7001 notrack; add rule inet t d udp dport 7001 notrack; add rule inet t d udp sport 7001 notrack;
		add chain inet t e { type filter hook output priority 100; }; add rule inet t e ct state invalid`)
	var conns []net.Conn
	dial := func(port string) {
		t.Helper()
		c, err := ns.Dial("udp", "127.0.0.1:"+port, nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	ns.UDPEcho("127.0.0.1:7000")
	ns.UDPEcho("127.0.0.1:7001")
	counting(ns, false)
	dial("7000")
	echoes(t, conns[0], 10_000)

	args := []string{"queue", "--attach", "output udp > :7000,7001 first 2", "-o", "json"}
	_, words, status := ns.Exec(nstest.Build(t), append(args, "--duration", "1s")...)
	if status != exitNotSupported || !strings.Contains(words, "sysctl -w net.netfilter.nf_conntrack_acct=1") {
		t.Errorf("status %d: %s", status, words)
	}
	if got := strings.TrimSpace(ns.Run("cat", "/proc/sys/net/netfilter/nf_conntrack_acct")); got != "0" {
		t.Errorf("nf_conntrack_acct is %s afterwards", got)
	}
	if tables := ns.Run("nft", "list", "tables"); strings.Contains(tables, "nfctl") {
		t.Errorf("left: %s", tables)
	}

	counting(ns, true)
	dial("7000")
	echoes(t, conns[1], 10_000)
	dial("7000")
	dial("7001")
	p := startQueue(t, ns, args[1:]...)
	for i, want := range []int{10, 0, 1, 10} { // of the first two of a flow, one goes to the port
		before := len(cameUp(p))
		echoes(t, conns[i], 10_000)
		nstest.Until(t, "packets come up", func() bool { return len(cameUp(p))-before >= want })
		if n := len(cameUp(p)) - before; n != want {
			t.Errorf("flow %d: %d packets came up, want %d", i+1, n, want)
		}
	}
}
