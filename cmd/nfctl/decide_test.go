package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// refusedBy connects, or for UDP asks, and returns how soon that was refused.
func refusedBy(ns *nstest.NS, network, addr string) (time.Duration, error) {
	began := time.Now()
	c, err := ns.Dial(network, addr, 3*time.Second)
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(began.Add(3 * time.Second))
		if _, err = c.Write([]byte("x")); err == nil {
			_, err = c.Read(make([]byte, 10))
		}
	}
	return time.Since(began), err
}

// TestReject refuses at each hook that can: the client learns it at once, by TCP and
// UDP, IPv4 and IPv6, and what is not to be refused gets through.
func TestReject(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		attach string
		at     int // 0: the client, 1: the server
	}{
		{"prerouting", 1}, {"prerouting raw", 1}, {"input", 1}, {"output", 0}, {"output raw", 0},
		{"output tcp >", 0}, {"input ip6", 1}, {"output priority 200", 0},
	} {
		for _, verdict := range []string{"reject", "reject flow"} {
			if strings.Contains(c.attach, "raw") && verdict == "reject flow" {
				continue
			}
			t.Run(c.attach+" "+verdict, func(t *testing.T) {
				t.Parallel()
				ends := [2]*nstest.NS{nstest.New(t), nstest.New(t)}
				nstest.Veth(t, ends[0], ends[1])
				refuse(t, ends[0], ends[1], ends[c.at], [2]string{"10.0.0.2", "fd00::2"}, c.attach, verdict)
			})
		}
	}
	for _, verdict := range []string{"reject", "reject flow"} {
		t.Run("forward "+verdict, func(t *testing.T) {
			t.Parallel()
			client, router, server := threeHosts(t)
			refuse(t, client, server, router, [2]string{"10.0.1.2", "fd01::2"}, "forward", verdict)
		})
	}
}

func refuse(t *testing.T, client, server, at *nstest.NS, hosts [2]string, attach, verdict string) {
	t.Helper()
	for _, host := range hosts {
		for _, port := range []string{"80", "81"} {
			server.TCPEcho(net.JoinHostPort(host, port))
			server.UDPEcho(net.JoinHostPort(host, port))
		}
		if _, err := refusedBy(client, "tcp", net.JoinHostPort(host, "80")); err != nil { // who is where is known then
			t.Fatal(err)
		}
	}
	p := startQueue(t, at, "--attach", attach, "--rule", verdict+" if dport == 81", "-o", "json")
	for i, host := range hosts {
		if strings.Contains(attach, "ip6") && i == 0 {
			continue
		}
		for _, network := range []string{"tcp", "udp"} {
			if strings.Contains(attach, "tcp") && network == "udp" {
				continue
			}
			if took, err := refusedBy(client, network,
				net.JoinHostPort(host, "81")); !errors.Is(err, unix.ECONNREFUSED) || took > soon {
				t.Errorf("%s %s: %v after %v, want refused at once", network, host, err, took)
			}
			if took, err := refusedBy(client, network, net.JoinHostPort(host, "80")); err != nil {
				t.Errorf("%s %s: the other port: %v after %v", network, host, err, took)
			}
		}
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
	if !strings.Contains(p.Stdout(), `"verdict":"reject"`) ||
		strings.Contains(p.Stdout(), `"scope":"flow"`) != strings.Contains(verdict, "flow") {
		t.Errorf("records:\n%s", p.Stdout())
	}
	if _, err := refusedBy(client, "tcp", net.JoinHostPort(hosts[1], "81")); err != nil {
		t.Errorf("still refused after nfctl ended: %v", err)
	}
}

// TestDecideUsage: what cannot be done is said before anything is.
func TestDecideUsage(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	for _, c := range []struct{ args, want string }{
		{"--num 0 --rule reject", "reject needs nfctl's own table: --attach 'input'; in a firewall of your own it is"},
		{"--num 0 --rule accept\x00flow", "a verdict for a whole flow needs nfctl's own table: --attach"},
		{"--attach postrouting --rule reject", "the kernel cannot reject at postrouting"},
		{"--attach postrouting --rule reject\x00flow", "the kernel cannot reject at postrouting"},
		{"--attach output\x00raw --rule drop\x00flow", "in front of connection tracking, where packets have no flow yet"},
		{"--attach prerouting\x00priority\x00-200 --rule accept\x00flow", "in front of connection tracking, where packets have no flow yet"},
		{"--attach output\x00raw --rule connmark\x001/1", "no flow to mark yet"},
		{"--attach output --rule accept\x00flow --rule mark\x000x40000000", "has bits that nfctl itself uses for verdicts"},
		{"--attach output --rule accept\x00flow --rule connmark\x000x40000000/0x40000000", "has bits that nfctl itself uses for verdicts"},
		{"--attach output --rule connmark\x001\x00stop", "stop skips what sets the connection's mark"},
		{"--attach output --flow-mark 0x30000000 --rule reject --rule connmark\x001/1 --rule connmark\x002/2", "they need 3 bits of its mark, and --flow-mark 0x30000000 has 2"},
		{"--attach output --flow-mark 0x50000000 --rule reject", "two bits or more side by side, as 0xf0000000"},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "\x00", " ")
		}
		_, words, status := ns.Exec(nstest.Build(t), append([]string{"queue", "--count", "1", "--duration", "1s"},
			args...)...)
		if status != exitUsage || !strings.Contains(words, c.want) {
			t.Errorf("%v: status %d, %s", args, status, words)
		}
	}
}

// TestAcceptFlow: of a flow that is accepted as a whole its first packet comes up, at
// each hook, and all of it arrives.
func TestAcceptFlow(t *testing.T) {
	t.Parallel()
	for _, attach := range []string{"prerouting", "prerouting priority -199", "input", "forward", "output",
		"postrouting", "postrouting priority 101", "output ip", "output ip6"} {
		t.Run(attach, func(t *testing.T) {
			t.Parallel()
			client, router, server := threeHosts(t)
			at := client
			switch strings.Fields(attach)[0] {
			case "prerouting", "input":
				at = server
			case "forward":
				at = router
			}
			p := startQueue(t, at, "--attach", attach, "--rule", "accept flow if sport != nil", "-o", "json")
			for _, host := range []string{"10.0.1.2", "fd01::2"} {
				if v6 := strings.Contains(host, ":"); strings.HasSuffix(attach, "ip") && v6 ||
					strings.HasSuffix(attach, "ip6") && !v6 {
					continue
				}
				for _, network := range []string{"tcp", "udp"} {
					addr := server.TCPEcho(net.JoinHostPort(host, "0"))
					if network == "udp" {
						addr = server.UDPEcho(net.JoinHostPort(host, "0"))
					}
					c, err := client.Dial(network, addr, nstest.Patience)
					if err != nil {
						t.Fatal(err)
					}
					echoes(t, c, 100_000)
					port := fmt.Sprintf(`port":%s,`, addr[strings.LastIndexByte(addr, ':')+1:])
					nstest.Until(t, "the flow comes up", func() bool { return strings.Contains(p.Stdout(), port) })
					came := 0
					for _, line := range cameUp(p) {
						if strings.Contains(line, port) && strings.Contains(line, host) {
							came++
							if !strings.Contains(line, `"verdict":"accept","scope":"flow","rule":1`) {
								t.Errorf("record %s", line)
							}
						}
					}
					if came < 1 || came > 2 {
						t.Errorf("%s %s: %d packets of the flow came up, want 1, at most 2", network, host, came)
					}
				}
			}
			p.Signal(unix.SIGTERM)
			if status := p.Wait(); status != 0 || !strings.Contains(p.Stderr(), "decided for the rest of their flows") {
				t.Errorf("status %d: %s", status, p.Stderr())
			}
			if left := at.Run(nstest.Build(t), "ct", "list", "--filter", "mark != 0"); left != "" {
				t.Errorf("marks are left behind: %s", left)
			}
		})
	}
}

// TestEndFlow drops or refuses a flow in its middle: nothing of it arrives from then on,
// who is refused learns it at once, and other flows go on.
func TestEndFlow(t *testing.T) {
	t.Parallel()
	for _, attach := range []string{"prerouting", "input", "forward", "output"} {
		for _, verdict := range []string{"drop flow", "reject flow", "reject"} {
			t.Run(attach+" "+verdict, func(t *testing.T) {
				t.Parallel()
				client, router, server := threeHosts(t)
				at := map[string]*nstest.NS{"prerouting": server, "input": server, "forward": router,
					"output": client}[attach]
				p := startQueue(t, at, "--attach", attach, "--rule", verdict+` if payload contains "bad"`, "-o", "json")
				for _, host := range []string{"10.0.1.2", "fd01::2"} {
					for _, network := range []string{"tcp", "udp"} {
						addr := server.TCPEcho(net.JoinHostPort(host, "0"))
						if network == "udp" {
							addr = server.UDPEcho(net.JoinHostPort(host, "0"))
						}
						var conns [2]net.Conn
						for i := range conns {
							c, err := client.Dial(network, addr, nstest.Patience)
							if err != nil {
								t.Fatal(err)
							}
							echoes(t, c, 2000)
							conns[i] = c
						}
						bad := conns[0]
						decided := func() int { return strings.Count(p.Stdout(), `"scope":"flow"`) }
						were, began := decided(), time.Now()
						_ = bad.SetDeadline(began.Add(soon))
						if _, err := bad.Write([]byte("bad")); err != nil {
							t.Fatal(err)
						}
						_, err := bad.Read(make([]byte, 10))
						switch {
						case err == nil:
							t.Errorf("%s %s: went through", network, host)
						case verdict == "drop flow" && !errors.Is(err, os.ErrDeadlineExceeded),
							verdict != "drop flow" && network == "tcp" && !errors.Is(err, unix.ECONNRESET),
							verdict != "drop flow" && network == "udp" && !errors.Is(err, unix.ECONNREFUSED):
							t.Errorf("%s %s: %v after %v", network, host, err, time.Since(began))
						}
						if network == "udp" && verdict != "reject" { // the flow is over, whatever it says
							// A refusal may arrive before nfctl has printed its record.
							nstest.Until(t, "the verdict is printed", func() bool { return decided() > were })
							before := strings.Count(p.Stdout(), `"udp":{`)
							_, _ = bad.Write([]byte("good"))
							_ = bad.SetDeadline(time.Now().Add(200 * time.Millisecond))
							if _, err := bad.Read(make([]byte, 10)); err == nil {
								t.Errorf("%s: what followed went through", host)
							}
							if n := strings.Count(p.Stdout(), `"udp":{`); n != before {
								t.Errorf("%s: %d packets came up after the verdict", host, n-before)
							}
						}
						echoes(t, conns[1], 2000)
					}
				}
			})
		}
	}
}

// TestRejectAllInItsMiddle: rules that refuse everything refuse what a host sends to
// itself too, in the middle of a flow, and leave the refusal alone.
func TestRejectAllInItsMiddle(t *testing.T) {
	t.Parallel()
	for _, attach := range []string{"prerouting", "input", "output", "input ip", "prerouting priority -150 ip6"} {
		for _, verdict := range []string{"reject", "reject flow"} {
			if testing.Short() && strings.Contains(attach, " ip") {
				continue
			}
			t.Run(attach+" "+verdict, func(t *testing.T) {
				t.Parallel()
				ns := nstest.New(t)
				rules := filepath.Join(t.TempDir(), "rules")
				write := func(text string) {
					if err := os.WriteFile(rules, []byte(text+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				write("accept")
				p := startQueue(t, ns, "--attach", attach, "--rules", rules, "-o", "json")
				conns := map[string]net.Conn{}
				for _, host := range []string{"127.0.0.1", "::1"} {
					if v6 := host == "::1"; strings.HasSuffix(attach, "ip") && v6 || strings.HasSuffix(attach,
						"ip6") && !v6 {
						continue
					}
					for _, network := range []string{"tcp", "udp"} {
						addr := ns.TCPEcho(net.JoinHostPort(host, "0"))
						if network == "udp" {
							addr = ns.UDPEcho(net.JoinHostPort(host, "0"))
						}
						c, err := ns.Dial(network, addr, nstest.Patience)
						if err != nil {
							t.Fatal(err)
						}
						echoes(t, c, 2000)
						conns[network+" "+host] = c
					}
				}
				write(verdict)
				p.Signal(unix.SIGHUP)
				nstest.Until(t, "the rules are reloaded", func() bool {
					return strings.Contains(p.Stderr(),
						"rules reloaded")
				})
				for name, c := range conns {
					_ = c.SetDeadline(time.Now().Add(soon))
					_, err := c.Write([]byte("x")) // an acknowledgement may have been refused before
					if err == nil {
						_, err = c.Read(make([]byte, 10))
					}
					if want := map[bool]error{true: unix.ECONNRESET,
						false: unix.ECONNREFUSED}[strings.HasPrefix(name, "tcp")]; !errors.Is(err, want) {
						t.Errorf("%s: %v, want %v", name, err, want)
					}
				}
			})
		}
	}
}

// TestForeignMarks: whatever mark a sender sets, its packets are asked about like all
// others, and what it sets elsewhere is kept.
func TestForeignMarks(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	addr := ns.UDPEcho("127.0.0.1:7000")
	p := startQueue(t, ns, "--attach", "output udp >", "--rule", "accept flow if dport == 1", "--rule",
		"drop flow if dport == 2",
		"--rule", "connmark 0x5/0xff accept flow if dport == 3", "--rule", "reject if dport == 4", "-o", "json")
	for code := range uint32(16) {
		var c net.Conn
		var err error
		ns.Do(func() {
			d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) {
					err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(code<<28|0x77))
				})
			}}
			c, err = d.Dial("udp", addr)
		})
		if err != nil {
			t.Fatal(err)
		}
		echoes(t, c, 5000)
		_ = c.Close()
	}
	nstest.Until(t, "all packets came up", func() bool { return len(cameUp(p)) == 16*5*2 })
	marked := 0
	for _, line := range cameUp(p) {
		if strings.Contains(line, `"mark":119,`) {
			marked++
		}
	}
	if marked != 16*5 {
		t.Errorf("%d packets came with their sender's other bits, want %d", marked, 16*5)
	}
	if left := ns.Run(nstest.Build(t), "ct", "list", "udp >", "--filter", "mark != 0"); left != "" {
		t.Errorf("connections are marked: %s", left)
	}
}

// TestConnmarkWithoutGlue marks connections through nfctl's own table, on any kernel:
// parts of a mark by several rules, other bits kept.
func TestConnmarkWithoutGlue(t *testing.T) {
	t.Parallel()
	for _, attach := range []string{"output udp >", "output ip udp >"} {
		ns := nstest.New(t)
		for _, port := range []string{"7001", "7002", "7003"} {
			ns.UDPEcho("127.0.0.1:" + port)
		}
		nfctl := nstest.Build(t)
		p := startQueue(t, ns, "--attach", attach, "--rule", "connmark 0x5/0xff if dport == 7001 || dport == 7002",
			"--rule", "connmark 0x300/0xf00 accept flow if dport == 7002", "--rule", "mark 9 if dport == 7003")
		for _, port := range []string{"7001", "7002", "7003"} {
			ns.Ask("127.0.0.1:"+port, "x", nstest.Patience)
		}
		for port, want := range map[string]string{"7001": "0x5", "7002": "0x40000305", "7003": "0x0"} {
			if got := strings.TrimSpace(ns.Run(nfctl, "ct", "list", "udp > :"+port, "--template",
				"{{printf \"0x%x\" .mark}}")); got != want {
				t.Errorf("%s: connection to %s has mark %s, want %s", attach, port, got, want)
			}
		}
		p.Signal(unix.SIGTERM)
		if status := p.Wait(); status != 0 {
			t.Errorf("status %d: %s", status, p.Stderr())
		}
		if got := strings.TrimSpace(ns.Run(nfctl, "ct", "list", "udp > :7002", "--template",
			"{{printf \"0x%x\" .mark}}")); got != "0x305" {
			t.Errorf("after the end the mark is %s, want what the rules set", got)
		}
	}
}

// TestFlowsStartAnew: kill -9 leaves no rule, and the next run is not ruled by what was
// decided then; nor are new rules at SIGHUP.
func TestFlowsStartAnew(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "nft")
	ns := nstest.New(t)
	addr := ns.UDPEcho("127.0.0.1:7000")
	c, err := ns.Dial("udp", addr, nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(t.TempDir(), "rules")
	write := func(text string) {
		if err := os.WriteFile(rules, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	passes := func() bool {
		_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		_, _ = c.Write([]byte("x"))
		_, err := c.Read(make([]byte, 10))
		return err == nil
	}
	start := func() *nstest.Proc { return startQueue(t, ns, "--attach", "output udp > :7000", "--rules", rules) }
	write("accept flow")
	p := start()
	if first, second := passes(), passes(); !first || !second {
		t.Fatal("not accepted")
	}
	p.Signal(unix.SIGKILL)
	p.Wait()
	if tables := ns.Run("nft", "list", "tables"); tables != "" {
		t.Errorf("after kill -9: %s", tables)
	}
	mark := func() string {
		return strings.TrimSpace(ns.Run(nstest.Build(t), "ct", "list", "udp > :7000", "--template",
			"{{printf \"0x%x\" .mark}}"))
	}
	if got := mark(); got != "0x40000000" {
		t.Errorf("after kill -9 the mark is %s", got)
	}
	ns.Run(nstest.Build(t), "ct", "update", "udp > :7000", "--set", "mark=0x70/0xf0")
	write("drop flow")
	p = start()
	if passes() {
		t.Error("a flow accepted by the run before was not asked about")
	}
	for i, step := range []struct {
		text string
		pass bool
	}{{"accept flow", true}, {"reject", false}, {"connmark 0x1/0xf accept flow", true}, {"drop flow", false},
		{"accept", true}} {
		write(step.text)
		p.Signal(unix.SIGHUP)
		nstest.Until(t, "the rules are reloaded", func() bool {
			return strings.Count(p.Stderr(), "rules reloaded") == i+1
		})
		_ = passes() // takes the error of a refusal
		for range 3 {
			if passes() != step.pass {
				t.Errorf("%s: passes %v", step.text, !step.pass)
			}
		}
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
	if got := mark(); got != "0x71" {
		t.Errorf("at the end the mark is %s, want the bits of others", got)
	}
}

// TestFlowDryRun changes nothing: no verdict, no mark.
func TestFlowDryRun(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	addr := ns.UDPEcho("127.0.0.1:7000")
	p := startQueue(t, ns, "--attach", "output udp >", "--dry-run", "--rule", "connmark 1/1 drop flow if dport == 7000",
		"-o", "json")
	for range 3 {
		if _, ok := ns.Ask(addr, "x", nstest.Patience); !ok {
			t.Error("no answer")
		}
	}
	nstest.Until(t, "all packets came up", func() bool { return len(cameUp(p)) == 6 })
	if n := len(cameUp(p)); n != 6 || !strings.Contains(p.Stdout(),
		`"verdict":"drop","scope":"flow","rule":1,"dry_run":true`) {
		t.Errorf("%d records: %s", n, p.Stdout())
	}
	if left := ns.Run(nstest.Build(t), "ct", "list", "--filter", "mark != 0"); left != "" {
		t.Errorf("connections are marked: %s", left)
	}
}

// TestDropFlowFromItsFirstPacket: the kernel keeps nothing of a flow whose first packet
// is dropped; nfctl does, until the rules are read again.
func TestDropFlowFromItsFirstPacket(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	addr := ns.UDPEcho("127.0.0.1:7000")
	rules := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(rules, []byte("drop flow limit 1/h burst 1 udp > :7000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startQueue(t, ns, "--attach", "output udp > :7000", "--rules", rules, "-o", "json")
	c, err := ns.Dial("udp", addr, nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // the limit is used up by the first
		_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
		_, _ = c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 10)); err == nil {
			t.Error("a packet of the flow went through")
		}
	}
	if _, ok := ns.Ask(addr, "x", nstest.Patience); !ok {
		t.Error("another flow did not get through")
	}
	if n := strings.Count(p.Stdout(), `"verdict":"drop","scope":"flow","rule":1`); n != 3 {
		t.Errorf("%d packets were dropped for their flow: %s", n, p.Stdout())
	}
	if err := os.WriteFile(rules, []byte("drop flow limit 1/h burst 1 udp > :7001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Signal(unix.SIGHUP)
	nstest.Until(t, "the rules are reloaded", func() bool { return strings.Contains(p.Stderr(), "rules reloaded") })
	_ = c.SetDeadline(time.Now().Add(nstest.Patience))
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 10)); err != nil {
		t.Errorf("after the rules were changed: %v", err)
	}
}
