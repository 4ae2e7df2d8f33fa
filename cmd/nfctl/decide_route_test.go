package main

import (
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// TestRouteByConnection runs what the guide says of routing by a connection's mark: of two
// hosts with one address connections come to that which the rules choose, from their
// first packet on, and stay there.
func TestRouteByConnection(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft", "ip")
	client, one, two := nstest.New(t), nstest.New(t), nstest.New(t)
	nstest.Veth(t, client, one)
	for _, line := range []string{"link set veth0 down", "link set veth0 name veth1", "link set veth1 up"} {
		client.Run("ip", strings.Fields(line)...)
	}
	nstest.Veth(t, client, two)
	run := func(ns *nstest.NS, lines string) {
		for _, line := range strings.Split(lines, ";") {
			ns.Run("ip", strings.Fields(line)...)
		}
	}
	run(client, "addr del 10.0.0.1/24 dev veth0;addr add 10.0.1.1/24 dev veth0;route add 10.9.9.9 via 10.0.0.2")
	run(one, "addr add 10.9.9.9/32 dev lo")
	run(two, "addr del 10.0.0.2/24 dev veth0;addr add 10.0.1.2/24 dev veth0;addr add 10.9.9.9/32 dev lo;route "+
		"add 10.0.0.0/24 dev veth0")
	for ns, name := range map[*nstest.NS]string{one: "one", two: "two"} {
		for _, port := range []string{"25", "80"} {
			l := ns.ListenTCP("10.9.9.9:" + port)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = c.Write([]byte(name))
					_ = c.Close()
				}
			}()
		}
	}
	guide, err := os.ReadFile("../../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(guide), "## Route by what a connection is\n")
	blocks := strings.Split(section, "```")
	if len(blocks) < 4 {
		t.Fatal("the guide has no second block for this")
	}
	commands := strings.ReplaceAll(strings.TrimPrefix(blocks[3], "sh"), "via 192.0.2.1", "via 10.0.1.2")
	if !strings.Contains(commands, "10.0.1.2") {
		t.Fatalf("no route in %s", commands)
	}
	client.Run("sh", "-ec", commands)
	p := startQueue(t, client, "--attach", "output tcp >", "--rule", "connmark 0x1/0xf accept flow if tcp.dport == 25",
		"--rule", "accept flow", "-q")
	if !strings.Contains(blocks[1], `--attach 'output tcp >' --rule 'connmark 0x1/0xf accept flow if tcp.dport == 25' --rule 'accept flow'`) {
		t.Errorf("the guide says something else: %s", blocks[1])
	}
	for port, want := range map[string]string{"25": "two", "80": "one"} {
		c, err := client.Dial("tcp", net.JoinHostPort("10.9.9.9", port), nstest.Patience)
		if err != nil {
			t.Errorf("port %s: %v", port, err)
			continue
		}
		b := make([]byte, 10)
		n, err := c.Read(b)
		if got := string(b[:n]); got != want {
			t.Errorf("port %s came to host %q (%v), want %s", port, got, err, want)
		}
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
}
