package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nfctl/internal/nstest"
)

// A guarded is a server behind a firewall that lets in control connections and
// what belongs to connections that are there, and a client outside.
type guarded struct{ server, client *nstest.NS }

// newGuarded makes one. Control connections, to TCP port 2000, have the helper that
// is named.
func newGuarded(t *testing.T, helper string) guarded {
	t.Helper()
	nstest.Need(t, "ip", "iptables", "ip6tables")
	g := guarded{nstest.New(t), nstest.New(t)}
	nstest.Veth(t, g.client, g.server)
	for _, ipt := range []string{"iptables", "ip6tables"} {
		run := func(args ...string) { g.server.Run(ipt, append([]string{"-w"}, args...)...) }
		if ipt == "iptables" || helper != "irc" { // which knows no IPv6
			run("-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--dport", "2000", "-j", "CT", "--helper", helper)
		}
		run("-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT")
		run("-A", "INPUT", "-p", "tcp", "--dport", "2000", "-j", "ACCEPT")
		if ipt == "ip6tables" {
			run("-A", "INPUT", "-p", "icmpv6", "-j", "ACCEPT")
		}
		run("-P", "INPUT", "DROP")
	}
	return g
}

// short is how long a connection that a firewall drops is tried.
const short = 400 * time.Millisecond

// meets reports whether a data connection is let in.
func (g guarded) meets(proto, addr string, patience time.Duration) bool {
	if proto == "tcp" {
		return opens(g.client, addr, patience)
	}
	_, ok := g.client.Ask(addr, "hello", patience)
	return ok
}

func nfctl(t *testing.T, ns *nstest.NS, args ...string) string {
	t.Helper()
	out, stderr, status := ns.Exec(nstest.Build(t), args...)
	if status != 0 {
		t.Fatalf("nfctl %s: status %d: %s%s", strings.Join(args, " "), status, out, stderr)
	}
	return out
}

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

// TestExpectCommands tries every refusal of the kernel, its status and what is
// said of it, and what the commands do besides.
func TestExpectCommands(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	const m = "tcp 10.0.0.1:1000 > 10.0.0.2:21"
	const plain = "tcp 10.0.0.1:1001 > 10.0.0.2:80"
	const e = "tcp 10.0.0.1 > 10.0.0.2:5000"
	nstest.Need(t, "conntrack")
	ns.Run("conntrack", "-I", "-p", "tcp", "-s", "10.0.0.1", "-d", "10.0.0.2", "--sport", "1001", "--dport", "80",
		"--state", "ESTABLISHED", "-t", "100")
	create := func(args ...string) []string { return append([]string{"expect", "create"}, args...) }
	defer func() { // at the end: where no class is taken it is made
		out, stderr, status := ns.Exec(nstest.Build(t),
			create("--master", m, "tcp > 10.0.0.2:5001", "--class", "9", "--create-master", "--helper", "irc")...)
		if status == exitOK && strings.Contains(stderr, "made it of class 0") {
			t.Log("this kernel takes no class where no helper is named, as 5.10")
		} else if status != exitFailed || !strings.Contains(stderr, "beyond the helper's last") {
			t.Errorf("--class 9: status %d: %s%s", status, out, stderr)
		}
	}()
	for _, tt := range []struct {
		args   []string
		status int
		says   string // on either output
	}{
		{create("--master", m, e), 3, "master is not in the table"},
		{create("--master", plain, e), 6, "hint: with --create-master --helper ftp"},
		{create("--master", m, e, "--create-master", "--helper", "nosuch"), 6, "no such helper"},
		{create("--master", plain, e, "--create-master", "--helper", "ftp"), 4, "there without a helper"},
		{create("--master", m, e, "--create-master"), 2, "--helper NAME"},
		{create("--master", m, e, "--create-master", "--helper", "irc", "--dry-run"), 0, "would make the master"},
		{[]string{"ct", "get", m}, 3, "no such entry"},
		{create("--master", m, e, "--create-master", "--helper", "irc", "--timeout", "599995s"), 0, "59999"},
		{create("--master", m, e, "--create-master", "--helper", "ftp"), 4, "another helper, irc"},
		{create("--master", m, e), 4, "there already"},
		{create("--master", m, e, "--if-missing"), 0, "there already"},
		{create("--master", m, e, "--or-update", "--timeout", "70s"), 0, "70 proto=6"},
		{create("--master", m+" zone 7", e), 3, "master is not in the table"},
		{create("--master", m, "--zone", "7", e), 3, "master is not in the table"},
		{create("--master", m, "tcp 10.0.0.0/24 > 10.0.0.2:5000"), 4, "overlaps"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--fn", "nosuch"), 1, "no such function"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--helper", "sip"), 6, "no other helper than the master's, irc"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--nat", "10.0.0.9:1"), 2, "--nat-dir"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--nat", "fd00::1", "--nat-dir", "orig"), 2, "--nat"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--mask-src", "ffff::"), 2, "another address family"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--mask-dst", "255.255.255.0"), 2, "compares the destination whole"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--mask-port-dst", "0"), 2, "compares the destination whole"},
		{create("--master", m, "> 10.0.0.2:5001"), 2, "the protocol must be one"},
		{create("--master", m, "tcp > :5001"), 2, "the destination must be one"},
		{create("--master", m, "tcp > 10.0.0.2:5001-5002"), 2, "the destination port must be one"},
		{create("--master", m, "tcp 10.0.0.1-10.0.0.3 > 10.0.0.2:5001"), 2, "no mask says that range"},
		{create("--master", m, "tcp :1000-1002 > 10.0.0.2:5001"), 2, "a range that a mask says"},
		{create("--master", m, "tcp > [fd00::1]:5001"), 2, "one address family"},
		{create("--master", "tcp > :21", e), 2, "--master"},
		{create("--master", m), 2, "what to expect is missing"},
		{create(e), 2, "--master is missing"},
		{create("--master", m, "tcp"), 2, "must be quoted"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--timeout", "100ms"), 2, "whole seconds"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--timeout", "0"), 2, "more than nothing"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--userspace", "--permanent"), 0, "cleared the flag userspace"},
		{create("--master", m, "udp 10.0.0.0/24:1024-2047 > 10.0.0.2:5002"), 0, "mask-src=255.255.255.0 mask-dst=255.255.255.255 sport=64512 dport=65535"},
		{create("--master", m, "tcp 10.0.0.8 > 10.0.0.2:5003", "--nat", "10.0.0.9:77", "--nat-dir", "orig", "-o", "json"), 0, `"nat":{"dir":"orig","src":"10.0.0.9"`},
		{create("-p", "tcp", "--orig-src", "10.0.0.1", "--orig-dst", "10.0.0.2", "--sport", "1000", "--dport", "21",
			"--tuple-src", "10.0.0.4", "--tuple-dst", "10.0.0.5", "--tuple-port-src", "30", "--tuple-port-dst", "40",
			"--mask-src", "255.255.255.255", "--mask-dst", "255.255.255.255", "--mask-port-src", "65535",
			"--mask-port-dst", "65535", "-t", "60"), 0,
			" proto=6 src=10.0.0.4 dst=10.0.0.5 sport=30 dport=40 mask-src=255.255.255.255 mask-dst=255.255.255.255 " +
				"sport=65535 dport=65535 master-src=10.0.0.1"},
		{[]string{"expect", "get", "tcp 10.0.0.77:5 > 10.0.0.2:5001"}, 0, "PERMANENT"}, // any source meets it
		{[]string{"expect", "get", "tcp 10.0.0.1 > 10.0.0.2:5999"}, 3, "no such expectation"},
		{[]string{"expect", "count"}, 0, "5\n"},
		{[]string{"expect", "count", "--flags", "permanent"}, 0, "1\n"},
		{[]string{"expect", "list", "-q"}, 0, ""},
		{[]string{"expect", "list", "--master", m, "--filter", `tuple.proto == "udp"`}, 0, "dport=5002"},
		{[]string{"expect", "list", "--tuple-port-dst", "5000-5001", "-o", "json", "--fields", "tuple.dport"}, 0, `{"tuple":{"dport":500`},
		{[]string{"expect", "list", "-o", "save", "--id", "1"}, 0, ""},
		{[]string{"expect", "list", "-o", "flow"}, 2, "flow"},
		{[]string{"expect", "list", "--fail-empty", "--id", "1"}, 3, ""},
		{[]string{"expect", "count", "--fail-empty", "--id", "1"}, 3, "0"},
		{[]string{"expect", "list", "tcp"}, 2, "must be quoted"},
		{[]string{"expect", "update", "udp > :5002", "--set", "timeout=3609s"}, 0, "360"},
		{[]string{"expect", "update", "udp > :5002", "--set", "class=1"}, 2, "only the timeout"},
		{[]string{"expect", "update", "udp > :5002"}, 2, "--set timeout="},
		{[]string{"expect", "update", "udp > :9", "--set", "timeout=1h", "--fail-empty"}, 3, "0 expectations"},
		{[]string{"expect", "delete"}, 2, "--all"},
		{[]string{"expect", "flush"}, 2, "--all"},
		{[]string{"expect", "delete", "--helper", "irc", "--dry-run"}, 0, "5 expectations would be deleted"},
		{[]string{"expect", "delete", "udp > :5002"}, 0, "1 expectation deleted"},
		{[]string{"expect", "delete", "udp > :5002"}, 0, "0 expectations deleted"},
		{[]string{"expect", "delete", "--helper", "irc"}, 0, "4 expectations deleted"},
		{[]string{"expect", "stats"}, 0, "expect_create="},
		// A helper's limit: the oldest goes, and that is said.
		{create("--master", "tcp 10.0.0.1:1002 > 10.0.0.2:21 zone 5", "--create-master", "--helper", "ftp", e), 0, "proto=6"},
		{create("--master", "tcp 10.0.0.1:1002 > 10.0.0.2:21 zone 5", "tcp > 10.0.0.2:6000"), 0, "10.0.0.2:5000 (id "},
		// The kernel does not say an expectation's zone: it is found out.
		{[]string{"expect", "get", "tcp > 10.0.0.2:6000"}, 3, "no such expectation"},
		{[]string{"expect", "get", "tcp > 10.0.0.2:6000 zone 5"}, 0, "dport=6000"},
		{[]string{"expect", "delete", "tcp > :6000"}, 0, "1 expectation deleted"},
		{[]string{"expect", "count"}, 0, "0\n"},
		{[]string{"expect", "lst"}, 2, "did you mean"},
	} {
		out, stderr, status := ns.Exec(nstest.Build(t), tt.args...)
		if status != tt.status || !strings.Contains(out+stderr, tt.says) || tt.says == "" && out != "" {
			t.Errorf("nfctl %q: status %d, want %d and %q\n%s%s", tt.args, status, tt.status, tt.says, out, stderr)
		}
	}
}

// TestExpectFTP: what the kernel's helper makes of a real server and client is
// listed and watched.
func TestExpectFTP(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "vsftpd", "curl")
	if os.Geteuid() != 0 {
		t.Skip("vsftpd runs as root only")
	}
	g := newGuarded(t, "irc")
	g.server.Run("iptables", "-w", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--dport", "21", "-j", "CT",
		"--helper", "ftp")
	g.server.Run("iptables", "-w", "-A", "INPUT", "-p", "tcp", "--dport", "21", "-j", "ACCEPT")
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for d := root; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755)
	}
	conf := filepath.Join(dir, "vsftpd.conf")
	settings := "listen=YES\nlisten_ipv6=NO\nbackground=NO\nanonymous_enable=YES\nno_anon_password=YES\n" +
		"local_enable=NO\nanon_root=" + root +
		"\nsecure_chroot_dir=" + root +
		"\nseccomp_sandbox=NO\nisolate=NO\nisolate_network=NO\nconnect_from_port_20=YES\n" +
		"pasv_min_port=30000\npasv_max_port=30100\n"
	for name, text := range map[string]string{conf: settings, filepath.Join(root, "greeting"): "hello by ftp\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ftpd := g.server.Start("vsftpd", conf)
	nstest.Until(t, "vsftpd listens", func() bool {
		if ftpd.Ended() {
			t.Fatalf("vsftpd ended: %s%s", ftpd.Stdout(), ftpd.Stderr())
		}
		return opens(g.client, "10.0.0.2:21", short)
	})
	w := startWatch(t, g.server, "expect", "watch", "--events", "new", "-o", "json")
	get := func(flags ...string) {
		t.Helper()
		out, stderr, status := g.client.Exec("curl",
			append([]string{"-sS", "--max-time", "15", "ftp://10.0.0.2/greeting"}, flags...)...)
		if status != 0 || out != "hello by ftp\n" {
			t.Fatalf("curl %v: %q, status %d: %s\n%s", flags, out, status, stderr, w.Stdout())
		}
	}
	get("--disable-epsv")
	w.WaitOutput(`"src":"10.0.0.1","dst":"10.0.0.2","proto":"tcp","sport":0,"dport":30`)
	get("--ftp-port", "-", "--disable-eprt") // the server connects to the client
	w.WaitOutput(`"tuple":{"src":"10.0.0.2","dst":"10.0.0.1"`)
	for _, line := range strings.Split(strings.TrimSpace(w.Stdout()), "\n") {
		if !strings.Contains(line, `"event":"new"`) || !strings.Contains(line, `"helper":"ftp"`) ||
			strings.Contains(line, `"by"`) {
			t.Errorf("%s", line)
		}
	}
	// A passive connection that is announced and not made yet is in the list.
	c, err := g.client.Dial("tcp", "10.0.0.2:21", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	say := func(text, answer string) {
		t.Helper()
		if text != "" {
			fmt.Fprintf(c, "%s\r\n", text)
		}
		if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, answer) {
			t.Fatalf("%s: %q, %v", text, line, err)
		}
	}
	say("", "220")
	say("USER anonymous", "230")
	say("PASV", "227")
	if out := nfctl(t, g.server, "expect", "list", "--helper", "ftp", "--master",
		"tcp 10.0.0.1 > 10.0.0.2:21"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "helper=ftp") {
		t.Errorf("list: %q", out)
	}
}

// startWatch starts a watch inside ns and waits until it misses nothing any more.
func startWatch(t *testing.T, ns *nstest.NS, args ...string) *nstest.Proc {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ready")
	p := ns.StartCmd(exec.Command(nstest.Build(t), append(args, "--ready-file", file)...))
	nstest.Until(t, "the watch is ready", func() bool {
		if p.Ended() {
			t.Fatalf("nfctl ended: %s", p.Stderr())
		}
		_, err := os.Stat(file)
		return err == nil
	})
	return p
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
		if out := nfctl(t, g.server, "expect", "update", tt.key, "--set", "timeout=60s"); !strings.HasPrefix(out,
			"60 ") {
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
