package main

import (
	"bufio"
	"errors"
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

// byContent are rules that decide for flows by what one of their packets says.
var byContent = []string{"--rule", `drop flow if payload contains "bad"`, "--rule",
	`accept flow if payload contains "good"`, "-o", "json"}

// refusing are byContent with a word that has a flow refused.
var refusing = append([]string{"--rule", `reject flow if payload contains "worse"`}, byContent...)

// decidedBy reports how the far end sees flows that byContent or refusing rules decide:
// one that is accepted goes on without coming up, one that is dropped falls silent, and
// one that is refused is told at once.
func decidedBy(t *testing.T, p *nstest.Proc, client *nstest.NS, network, addr string, refuses bool) {
	t.Helper()
	decided := func() int { return strings.Count(p.Stdout(), `"scope":"flow"`) }
	say := func(word string) net.Conn {
		t.Helper()
		c, err := client.Dial(network, addr, nstest.Patience)
		if err != nil {
			t.Fatalf("%s %s: %v", network, addr, err)
		}
		echoes(t, c, 2000)
		before := decided()
		_ = c.SetDeadline(time.Now().Add(soon))
		if _, err := c.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		nstest.Until(t, "a flow is decided that says "+word, func() bool { return decided() > before })
		return c
	}
	c := say("good")
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Errorf("%s %s: accepted, but %v", network, addr, err)
		return
	}
	before := len(cameUp(p))
	echoes(t, c, 50_000)
	if n := len(cameUp(p)) - before; n > 1 { // one may be on its way at the verdict
		t.Errorf("%s %s: %d packets of an accepted flow came up", network, addr, n)
	}
	_ = c.Close()

	c = say("bad")
	_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s %s: of a dropped flow came %v", network, addr, err)
	}
	if !refuses {
		return
	}
	c = say("worse")
	if _, err := c.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s %s: a refused flow: %v", network, addr, err)
	}
}

// TestDecideBehindNAT decides for flows whose addresses are translated, in front of the
// translation and behind it.
func TestDecideBehindNAT(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	for _, nat := range []struct{ name, rule, v4, v6 string }{
		{"masquerade", "add rule inet n post oifname veth0 masquerade", "10.0.1.2:7000", "[fd01::2]:7000"},
		{"dnat", "add rule inet n pre iifname veth1 meta l4proto { tcp, udp } dnat ip to 10.0.1.2:7000; add rule inet n pre iifname veth1 meta l4proto { tcp, udp } dnat ip6 to [fd01::2]:7000",
			"10.0.0.2:80", "[fd00::2]:80"},
		{"redirect", "add rule inet n pre iifname veth1 meta l4proto { tcp, udp } redirect to :7000", "10.0.1.2:80", "[fd01::2]:80"},
	} {
		for _, attach := range []string{"prerouting priority -150", "prerouting", "forward", "input", "postrouting",
			"postrouting priority 101"} {
			local := nat.name == "redirect" // to the router itself
			if hook := strings.Fields(attach)[0]; hook == "forward" && local || hook == "input" && !local {
				continue
			}
			if testing.Short() && attach != "prerouting priority -150" && attach != "postrouting" {
				continue
			}
			t.Run(nat.name+" "+attach, func(t *testing.T) {
				t.Parallel()
				client, router, server := threeHosts(t)
				at := server
				if local {
					at = router
				}
				for _, host := range map[bool][]string{true: {"10.0.0.2", "fd00::2"}, false: {"10.0.1.2",
					"fd01::2"}}[local] {
					at.TCPEcho(net.JoinHostPort(host, "7000"))
					at.UDPEcho(net.JoinHostPort(host, "7000"))
				}
				router.Run("nft", "add table inet n; add chain inet n pre { type nat hook prerouting priority "+
					"-100; }; add chain inet n post { type nat hook postrouting priority 100; };"+nat.rule)
				refuses := !strings.Contains(attach, "postrouting")
				rules := byContent
				if refuses {
					rules = refusing
				}
				if local && strings.HasPrefix(attach, "postrouting") { // answers alone pass there
					attach = strings.Replace(attach, "postrouting", "output", 1)
				}
				p := startQueue(t, router, append([]string{"--attach", attach}, rules...)...)
				for _, addr := range []string{nat.v4, nat.v6} {
					for _, network := range []string{"tcp", "udp"} {
						decidedBy(t, p, client, network, addr, refuses)
					}
				}
			})
		}
	}
}

// TestDecideInZones decides for flows in a zone, and in a zone of one direction alone.
func TestDecideInZones(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	for name, rules := range map[string]string{
		"both directions":    "add rule inet z c ct zone set 5",
		"the reply alone":    "add rule inet z c iifname veth1 ct reply zone set 9; add rule inet z c iifname veth0 ct zone set 9",
		"the original alone": "add rule inet z c iifname veth1 ct original zone set 7",
	} {
		for _, attach := range []string{"forward", "prerouting priority -150", "postrouting"} {
			if testing.Short() && attach != "forward" {
				continue
			}
			t.Run(name+" "+attach, func(t *testing.T) {
				t.Parallel()
				client, router, server := threeHosts(t)
				router.Run("nft", "add table inet z; add chain inet z c { type filter hook prerouting priority "+
					"-300; };"+rules)
				for _, host := range []string{"10.0.1.2", "fd01::2"} {
					server.TCPEcho(net.JoinHostPort(host, "7000"))
					server.UDPEcho(net.JoinHostPort(host, "7000"))
				}
				refuses := attach != "postrouting"
				rules := byContent
				if refuses {
					rules = refusing
				}
				p := startQueue(t, router, append([]string{"--attach", attach}, rules...)...)
				for _, host := range []string{"10.0.1.2", "fd01::2"} {
					for _, network := range []string{"tcp", "udp"} {
						decidedBy(t, p, client, network, net.JoinHostPort(host, "7000"), refuses)
					}
				}
				p.Signal(unix.SIGTERM)
				if status := p.Wait(); status != 0 {
					t.Errorf("status %d: %s", status, p.Stderr())
				}
				if left := router.Run(nstest.Build(t), "ct", "list", "--filter", "mark != 0"); left != "" {
					t.Errorf("marks are left behind: %s", left)
				}
			})
		}
	}
}

// TestDecideRelated: a connection that a helper expects inherits what was decided for the
// one that announced it.
func TestDecideRelated(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	for _, verdict := range []string{"accept flow", "accept"} {
		t.Run(verdict, func(t *testing.T) {
			t.Parallel()
			client, router, server := threeHosts(t)
			if _, words, status := router.Exec("nft", `add table ip h; add ct helper ip h ftp { type "ftp" protocol tcp; };
				add chain ip h c { type filter hook prerouting priority 0; }; add rule ip h c tcp dport 21 ct helper set "ftp"`); status != 0 {
				nstest.Lack(t, fmt.Errorf("helpers: %s", words))
				return
			}
			data := server.TCPEcho("10.0.1.2:0")
			_, port, _ := net.SplitHostPort(data)
			n, _ := strconv.Atoi(port)
			control := server.ListenTCP("10.0.1.2:21")
			go func() { // as much of FTP as the helper reads
				for {
					c, err := control.Accept()
					if err != nil {
						return
					}
					_, _ = fmt.Fprint(c, "220 Ready\r\n")
					if _, err := c.Read(make([]byte, 100)); err == nil {
						_, _ = fmt.Fprintf(c, "227 Entering Passive Mode (10,0,1,2,%d,%d)\r\n", n>>8, n&0xff)
					}
				}
			}()
			p := startQueue(t, router, "--attach", "forward", "--rule", verdict+" if dport == 21 or sport == 21",
				"--rule", "log", "-o", "json")
			c, err := client.Dial("tcp", "10.0.1.2:21", nstest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(nstest.Patience))
			_, _ = c.Write([]byte("PASV\r\n"))
			lines := bufio.NewReader(c)
			for line := ""; !strings.HasPrefix(line, "227"); {
				if line, err = lines.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			if c, err = client.Dial("tcp", data, nstest.Patience); err != nil {
				t.Fatal(err)
			}
			echoes(t, c, 50_000)
			_ = c.Close()
			other := server.TCPEcho("10.0.1.2:0")
			if c, err = client.Dial("tcp", other, nstest.Patience); err != nil { // nobody expected it
				t.Fatal(err)
			}
			echoes(t, c, 1000)
			_, otherPort, _ := net.SplitHostPort(other)
			nstest.Until(t, "the other connection comes up", func() bool {
				return strings.Contains(p.Stdout(),
					`port":`+otherPort+",")
			})
			if up := strings.Contains(p.Stdout(), `port":`+port+","); up == (verdict == "accept flow") {
				t.Errorf("the expected connection came up: %v", up)
			}
		})
	}
}

// TestDecideAtSeveralHooks: what is decided at one hook holds at the others, and of two
// texts for one hook too; several queues share it.
func TestDecideAtSeveralHooks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		most int // packets of an accepted flow that come up
	}{
		{[]string{"--attach", "prerouting", "--attach", "forward", "--attach", "postrouting"}, 1},
		{[]string{"--attach", "postrouting", "--attach", "forward udp >", "--attach", "forward tcp >", "--attach", "prerouting priority -100 ip", "--attach", "prerouting priority -100 ip6"}, 1},
		{[]string{"--num", "20-23", "--attach", "forward"}, 1},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			client, router, server := threeHosts(t)
			for _, host := range []string{"10.0.1.2", "fd01::2"} {
				server.TCPEcho(net.JoinHostPort(host, "7000"))
				server.UDPEcho(net.JoinHostPort(host, "7000"))
			}
			p := startQueue(t, router, append(c.args, byContent...)...)
			for _, host := range []string{"10.0.1.2", "fd01::2"} {
				for _, network := range []string{"tcp", "udp"} {
					decidedBy(t, p, client, network, net.JoinHostPort(host, "7000"), false)
				}
			}
			p.Signal(unix.SIGTERM)
			if status := p.Wait(); status != 0 {
				t.Errorf("status %d: %s", status, p.Stderr())
			}
			if left := router.Run(nstest.Build(t), "ct", "list", "--filter", "mark != 0"); left != "" {
				t.Errorf("marks are left behind: %s", left)
			}
		})
	}
}

// TestDecideInSeveralQueues: packets of many flows, spread over queues by their
// addresses: each comes up once.
func TestDecideInSeveralQueues(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	p := startQueue(t, ns, "--num", "20-23", "--attach", "output udp >", "--rule", "accept flow", "-o", "json")
	const flows = 32
	for i := range flows {
		c, err := ns.Dial("udp", ns.UDPEcho(fmt.Sprintf("127.0.1.%d:7000", i+1)), nstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		echoes(t, c, 10_000)
	}
	nstest.Until(t, "all flows came up", func() bool { return len(cameUp(p)) >= flows })
	queues := map[string]bool{}
	for _, line := range cameUp(p) {
		_, rest, _ := strings.Cut(line, `"queue":`)
		queues[strings.SplitN(rest, ",", 2)[0]] = true
	}
	if n := len(cameUp(p)); n != flows || len(queues) < 2 {
		t.Errorf("%d packets of %d flows came up, in %d queues", n, flows, len(queues))
	}
}
