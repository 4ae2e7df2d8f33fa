package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/nstest"
)

// call runs a command line in this process: for commands that end by themselves.
func call(args ...string) (stdout, stderr string, status int) {
	var out, err bytes.Buffer
	status = run(append([]string{"nfctl"}, args...), strings.NewReader(""), &out, &err)
	return out.String(), err.String(), status
}

// asConntrack returns the path of a link to nfctl by the name conntrack.
func asConntrack(t *testing.T) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), "conntrack")
	if err := os.Symlink(nstest.Build(t), link); err != nil {
		t.Fatal(err)
	}
	return link
}

// sorted are the lines of s in order: that of a table is the kernel's, by a hash
// that differs from namespace to namespace.
func sorted(s string) string {
	lines := strings.Split(steady(s), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// uses are command lines that software issues, and what they are issued for.
var uses = []struct {
	who, line string
	status    int
	gone      string // which flows end
	shown     int    // how many lines are printed, when none end
	becomes   string // a part of the table that is there afterwards
}{
	// kube-proxy, when endpoints of UDP services go: the last is what it reads from
	// standard error when there was nothing.
	{"kube-proxy: cluster IP", "-D --orig-dst 10.96.0.10 -p udp", 0, "1 2", 0, ""},
	{"kube-proxy: endpoint", "-D --orig-dst 10.96.0.10 --dst-nat 10.244.2.7 -p udp", 0, "1", 0, ""},
	{"kube-proxy: node port", "-D -p udp --dport 30053 --dst-nat 10.244.2.7", 0, "4", 0, ""},
	{"kube-proxy: port", "-D -p udp --dport 30053", 0, "4", 0, ""},
	{"kube-proxy: IPv6", "-D --orig-dst fd96::a -p udp -f ipv6", 0, "5", 0, ""},
	{"kube-proxy: IPv6 endpoint", "-D --orig-dst fd96::a --dst-nat fd10::7 -p udp -f ipv6", 0, "5", 0, ""},
	{"kube-proxy: SCTP", "-D --orig-dst 10.0.0.8 -p sctp", 0, "17", 0, ""},
	{"kube-proxy: nothing", "-D --orig-dst 10.96.0.99 -p udp", 1, "", 0, ""},
	{"service balancer", "-D --reply-src 10.244.2.8", 0, "2", 0, ""},
	// neutron: security groups and firewalls, by zone and family.
	{"neutron: port", "-D -f ipv4 -d 10.0.0.6 -w 10", 0, "12 13 15", 0, ""},
	{"neutron: rule", "-D -f ipv4 -p tcp -s 10.0.0.5 -w 10", 0, "12", 0, ""},
	{"neutron: remote", "-D -f ipv4 -p udp -d 10.0.0.6 -w 10 -s 10.0.0.5", 0, "13", 0, ""},
	{"neutron: icmp", "-D -p icmp -f ipv4 -s 10.0.0.5 -w 10", 0, "15", 0, ""},
	{"neutron: nothing in zone", "-D -f ipv4 -d 10.0.0.6 -w 12", 1, "", 0, ""},
	{"neutron: firewall", "-D -p tcp -f ipv4 --dport 22", 0, "6 12 14", 0, ""},
	{"neutron: IPv6", "-D -f ipv6 -s fd00::5", 0, "16", 0, ""},
	{"neutron: floating address", "-D -d 192.0.2.2", 0, "4 6 7 8 18 19", 0, ""},
	{"neutron: state", "-D -q 192.0.2.2", 0, "9 10", 0, ""},
	{"ovs: all of a zone", "-D -w 11", 0, "14", 0, ""},
	// Those that ban.
	{"fail2ban, ufw: source", "-D -s 203.0.113.9", 0, "6 7", 0, ""},
	{"ban: destination", "-D -d 203.0.113.9", 1, "", 0, ""},
	{"ban: family", "-D -f ipv4 -s 203.0.113.10", 0, "8", 0, ""},
	{"ban: port of a source", "-D -p tcp --dport 443 --src 203.0.113.9", 0, "7", 0, ""},
	{"ban: network", "-D -s 203.0.113.0/24", 0, "6 7 8 18 19", 0, ""},
	{"ban: IPv6", "-D -f ipv6 -s fd00::5", 0, "16", 0, ""},
	// Policy routing over several links.
	{"mwan3: mark", "-D --mark 0x100/0xff00", 0, "7 20", 0, ""},
	{"mwan3: flush", "-F", 0, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", 0, ""},
	{"policy router: mark", "-D -f ipv4 --mark 1179648/16711680", 0, "9", 0, ""},
	{"policy router: mark of no IPv6 flow", "-D -f ipv6 --mark 1179648/16711680", 1, "", 0, ""},
	{"openvpn: server", "-D -p UDP -d 198.51.100.8", 0, "20", 0, ""},
	{"ipsec: IKE", "-D -s 192.168.1.21 -p udp --dport 500", 0, "10", 0, ""},
	{"ipsec: NAT-T", "-D -s 192.168.1.21 -p udp --dport 4500", 0, "11", 0, ""},
	{"mesh: peer", "-D -s 10.0.0.5 -d 10.0.0.6", 0, "12 13 14 15", 0, ""},
	{"clean-up: TIME_WAIT", "-D -p tcp --state TIME_WAIT", 0, "8", 0, ""},
	{"clean-up: CLOSE_WAIT", "-D -p tcp --state CLOSE_WAIT", 0, "18", 0, ""},
	{"clean-up: UDP", "-D -p udp", 0, "1 2 3 4 5 10 11 13 20", 0, ""},
	{"clean-up: SIP after a new address", "-D -p udp --dport 5060", 0, "20", 0, ""},
	{"dial-up: old address", "-D --src-nat 192.0.2.2", 0, "9 10", 0, ""},
	{"keepalived: notify", "--flush", 0, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", 0, ""},
	// calico's spelling.
	{"calico: workload", "--family ipv4 --delete --orig-src 10.244.1.5", 0, "1 3", 0, ""},
	{"calico: destination", "--family ipv4 --delete --orig-dst 10.96.0.11", 0, "3", 0, ""},
	{"calico: reply source", "--family ipv4 --delete --reply-src 10.244.2.7", 0, "1 4", 0, ""},
	{"calico: reply destination", "--family ipv6 --delete --reply-dst fd00::5", 0, "16", 0, ""},
	{"calico: gone already", "--family ipv4 --delete --orig-src 10.244.1.99", 1, "", 0, ""},
	// VyOS and vyatta.
	{"VyOS: show", "--dump --family ipv4 --output xml", 0, "", 21, ""},
	{"VyOS: translations", "--dump --family ipv4 --src-nat -o xml", 0, "", 5, ""},
	{"VyOS: IPv6", "-L -f ipv6 -o extended", 0, "", 2, ""},
	{"vyatta: delete one", "-D -p tcp --orig-src 203.0.113.9 --orig-port-src 6 --orig-dst 192.0.2.2 --orig-port-dst 22", 0, "6", 0, ""},
	{"SONiC: dump translations", "-L -j", 0, "", 6, ""},
	{"SONiC: age", "-U -s 203.0.113.9 -d 192.0.2.2 -p tcp --sport 6 --dport 22 -t 86400 -u ASSURED", 0, "", 1, "tcp 6 86400 ESTABLISHED"},
	{"SONiC: restore", "-I -n 192.0.2.2:99 -g 198.51.100.9:80 --protonum tcp --src 192.168.1.30 --dst 192.0.2.3 --sport 98 --dport 8080 --state ESTABLISHED -t 86400 -u ASSURED", 0, "", 0, "src=198.51.100.9 dst=192.0.2.2 sport=80 dport=99 [ASSURED]"},
	{"shaper: mark a client's flows", "-U -s 192.168.1.21 -p udp --mark 7", 0, "", 2, "sport=11 dport=4500 [UNREPLIED] src=198.51.100.7 dst=192.168.1.21 sport=4500 dport=11 mark=7"},
	// Monitors.
	{"monitor: count", "-C", 0, "", 1, ""},
	{"monitor: all", "-L", 0, "", 20, ""},
	{"monitor: established", "-L -p tcp --state ESTABLISHED", 0, "", 6, ""},
	{"monitor: new", "-L -p tcp --state SYN_SENT -o id", 0, "", 1, ""},
	{"monitor: unreplied", "-L -p udp -u UNREPLIED", 0, "", 9, ""},
	{"monitor: port", "-L -p udp --dport 53", 0, "", 5, ""},
	{"monitor: zone", "-L --zone 10 -f ipv4", 0, "", 3, ""},
	{"monitor: translated", "-L -n -o extended", 0, "", 2, ""},
	{"monitor: IPv6", "-L -f ipv6", 0, "", 2, ""},
}

// callWith is call with standard input.
func callWith(in string, args ...string) (stdout, stderr string, status int) {
	var out, err strings.Builder
	status = run(append([]string{"nfctl"}, args...), strings.NewReader(in), &out, &err)
	return out.String(), err.String(), status
}

// good runs a command that must end with 0 and returns its output.
func good(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, status := call(args...)
	if status != 0 {
		t.Fatalf("nfctl %s: status %d: %s", strings.Join(args, " "), status, errs)
	}
	return out
}

// loaded makes the flows of save lines, all of which must be good.
func loaded(t *testing.T, lines string) {
	t.Helper()
	if _, errs, status := callWith(lines, "ct", "load"); status != 0 {
		t.Fatalf("load: status %d: %s", status, errs)
	}
}

// useLabels makes a rule that uses labels, so that the kernel stores them.
func useLabels(t *testing.T, ns *nstest.NS) {
	t.Helper()
	nstest.Need(t, "iptables")
	ns.Run("iptables", "-w", "-A", "OUTPUT", "-m", "connlabel", "--label", "5")
}

// variedLines makes n lines of flows of all sorts, each with another tuple.
func variedLines(r *rand.Rand, n int, nat, labels bool) []string {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	var out []string
	for i := range n {
		v6 := r.IntN(3) == 0
		src, dst := fmt.Sprintf("10.0.%d.%d", r.IntN(4), 1+r.IntN(20)), fmt.Sprintf("10.9.0.%d", 1+r.IntN(9))
		to := fmt.Sprintf("192.0.2.%d", 1+r.IntN(4))
		icmp, word, ask := "icmp", "icmp", "8"
		if v6 {
			src, dst = fmt.Sprintf("fd00::%x:%x", r.IntN(4), 1+r.IntN(20)), fmt.Sprintf("fd09::%x", 1+r.IntN(9))
			to = fmt.Sprintf("2001:db8::%x", 1+r.IntN(4))
			icmp, word, ask = "icmpv6", "icmpv6", "128"
		}
		// The port or its like tells lines apart.
		proto := pick("tcp", "tcp", "tcp", "udp", "udp", "udplite", "sctp", icmp, "gre", "50")
		b := fmt.Sprintf("-A -p %s -s %s -d %s -t %d", proto, src, dst, (1+49*r.IntN(2))*1000+r.IntN(900))
		ports := false
		switch proto {
		case "tcp", "udp", "udplite", "sctp":
			b += fmt.Sprintf(" --sport %d --dport %s", 1024+i, pick("22", "53", "80", "443", "8080"))
			ports = true
		case icmp:
			b += fmt.Sprintf(" --%[1]s-type %[2]s --%[1]s-code 0 --%[1]s-id %[3]d", word, ask, i)
		case "gre":
			b += fmt.Sprintf(" --srckey %d --dstkey 7", i)
		case "50":
			b += fmt.Sprintf(" -w %d", 1+i%60000)
		}
		switch proto {
		case "tcp":
			b += " --state " + pick("SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK",
				"TIME_WAIT", "CLOSE")
			if r.IntN(4) == 0 {
				b += " --set tcp.wscale_orig=7 --set tcp.wscale_reply=3 --set tcp.flags_orig=WINDOW_SCALE --set " +
					"tcp.flags_reply=WINDOW_SCALE"
			}
		case "sctp":
			b += fmt.Sprintf(" --state ESTABLISHED --orig-vtag %d --reply-vtag %d", 1+r.IntN(9), r.Uint32())
		}
		b += pick("", " -u UNSET", " -u SEEN_REPLY", " -u SEEN_REPLY,ASSURED", " -u SEEN_REPLY,ASSURED,FIXED_TIMEOUT")
		if r.IntN(3) == 0 {
			b += " --mark " + pick("1", "2", "3", "256", "4294967295")
		}
		if proto != "50" && r.IntN(4) == 0 {
			b += pick(" -w 1", " -w 2", " --orig-zone 3", " --reply-zone 4")
		}
		if nat && ports && r.IntN(4) == 0 {
			b += pick(" --src-nat "+to, " --dst-nat "+to, " --src-nat "+to+" --dst-nat "+to)
		}
		if labels && r.IntN(4) == 0 {
			b += " --label-add " + pick("3", "5,127", "9")
		}
		if proto == "tcp" && r.IntN(10) == 0 {
			b += " --set helper-name=ftp"
		}
		out = append(out, b)
	}
	return out
}

// sortedLines splits output, sorted, and each changed by the expressions and
// what to put in their place.
func sortedLines(out string, replace ...string) []string {
	for i := 0; i < len(replace); i += 2 {
		out = regexp.MustCompile(replace[i]).ReplaceAllString(out, replace[i+1])
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	return lines
}

// differ says which lines only one of two sorted lists has.
func differ(t *testing.T, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	n := 0
	for i, list := range [][]string{got, want} {
		other := [][]string{want, got}[i]
		for _, l := range list {
			if _, ok := slices.BinarySearch(other, l); !ok && n < 10 {
				t.Errorf("%s: only %s: %s", what, []string{"got", "wanted"}[i], l)
				n++
			}
		}
	}
	t.Fatalf("%s: %d lines, want %d", what, len(got), len(want))
}

// timeouts returns the timeout of each saved line.
func timeouts(t *testing.T, saved string) map[string]uint64 {
	out := map[string]uint64{}
	re := regexp.MustCompile(`^-A -t (\d+) (.*)`)
	for line := range strings.SplitSeq(strings.TrimSpace(saved), "\n") {
		m := re.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("line %q", line)
		}
		out[m[2]], _ = strconv.ParseUint(m[1], 10, 64)
	}
	return out
}

// pipeTo runs a program inside ns with standard input.
func pipeTo(ns *nstest.NS, in, name string, args ...string) (stdout, stderr string, status int) {
	c := exec.Command(name, args...)
	c.Stdin = strings.NewReader(in)
	p := ns.StartCmd(c)
	status = p.Wait()
	return p.Stdout(), p.Stderr(), status
}

// answered reports whether a datagram from an address to another is echoed; a
// port that nobody listens on refuses it.
func answered(t *testing.T, ns *nstest.NS, from, to string) (ok bool) {
	t.Helper()
	ns.Do(func() {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)),
			net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for end := time.Now().Add(nstest.Patience); time.Now().Before(end); {
			_, _ = c.Write([]byte("hello"))
			_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			buf := make([]byte, 64)
			n, err := c.Read(buf)
			if err == nil && string(buf[:n]) == "hello" {
				ok = true
				return
			}
			if errors.Is(err, unix.ECONNREFUSED) {
				return
			}
		}
	})
	return ok
}

// pty opens a pseudo terminal.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		nstest.Lack(t, fmt.Errorf("no pseudo terminals: %w", err))
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		nstest.Lack(t, fmt.Errorf("no pseudo terminals: %w", err))
	}
	t.Cleanup(func() { _, _ = master.Close(), slave.Close() })
	return master, slave
}

// soon is less than the time after which TCP sends again what was lost.
const soon = 900 * time.Millisecond

// threeHosts makes a client (10.0.0.1), a router and a server (10.0.1.2).
func threeHosts(t *testing.T) (client, router, server *nstest.NS) {
	t.Helper()
	nstest.Need(t, "ip")
	client, router, server = nstest.New(t), nstest.New(t), nstest.New(t)
	nstest.Veth(t, client, router)
	// Older kernels rename no device that is up, and one that is down loses its addresses of IPv6.
	for _, line := range []string{"link set veth0 down", "link set veth0 name veth1", "link set veth1 up",
		"addr add fd00::2/64 dev veth1 nodad"} {
		router.Run("ip", strings.Fields(line)...)
	}
	nstest.Until(t, "veth1 is up", func() bool {
		return strings.Contains(router.Run("ip", "-o", "link", "show", "dev", "veth1"), "LOWER_UP")
	})
	nstest.Veth(t, server, router)
	for _, c := range []struct {
		ns    *nstest.NS
		lines string
	}{
		{router, "addr del 10.0.0.2/24 dev veth0;addr del fd00::2/64 dev veth0;addr add 10.0.1.1/24 dev veth0;addr add fd01::1/64 dev veth0 nodad"},
		{server, "addr del 10.0.0.1/24 dev veth0;addr del fd00::1/64 dev veth0;addr add 10.0.1.2/24 dev veth0;addr add fd01::2/64 dev veth0 nodad;route add default via 10.0.1.1;-6 route add default via fd01::1"},
		{client, "route add default via 10.0.0.2;-6 route add default via fd00::2"},
	} {
		for _, line := range strings.Split(c.lines, ";") {
			c.ns.Run("ip", strings.Fields(line)...)
		}
	}
	router.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	return client, router, server
}

// cameUp returns the JSON records of packets that came up.
func cameUp(p *nstest.Proc) []string {
	var list []string
	for _, line := range strings.Split(p.Stdout(), "\n") {
		if strings.Contains(line, `"kind":"packet"`) {
			list = append(list, line)
		}
	}
	return list
}

// echoes sends n bytes in pieces over an echo connection and reads them back.
func echoes(t *testing.T, c net.Conn, n int) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(nstest.Patience))
	b := make([]byte, 1000)
	for ; n > 0; n -= len(b) {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
	}
}

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

func nfctl(t *testing.T, ns *nstest.NS, args ...string) string {
	t.Helper()
	out, stderr, status := ns.Exec(nstest.Build(t), args...)
	if status != 0 {
		t.Fatalf("nfctl %s: status %d: %s%s", strings.Join(args, " "), status, out, stderr)
	}
	return out
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

// losses adds up what nfctl's totals say did not come through.
func losses(totals string) (least, most int) {
	least = counted(totals, "lost: queue full") + counted(totals, "lost: receive buffer full") +
		counted(totals, "vanished:")
	return least, least + counted(totals, "may also have vanished")
}

// bound reports whether any queue is bound inside ns.
func bound(ns *nstest.NS) bool {
	out, _, status := ns.Exec("cat", "/proc/thread-self/net/netfilter/nfnetlink_queue")
	return status == 0 && strings.TrimSpace(out) != ""
}

// startReady starts nfctl inside ns and waits for its ready file.
func startReady(t *testing.T, ns *nstest.NS, args ...string) *nstest.Proc {
	t.Helper()
	file := t.TempDir() + "/ready"
	p := ns.Start(nstest.Build(t), append(args, "--ready-file", file)...)
	nstest.Until(t, "nfctl is ready", func() bool {
		if p.Ended() {
			t.Fatalf("nfctl ended: %s", p.Stderr())
		}
		_, err := os.Stat(file)
		return err == nil
	})
	return p
}

// peak is the most memory that a process has had, in KiB.
func peak(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if w := strings.Fields(line); len(w) > 1 && w[0] == "VmHWM:" {
			n, _ := strconv.Atoi(w[1])
			return n
		}
	}
	return 0
}

// resident returns a process's memory in KiB, its descriptors and its threads.
func resident(t *testing.T, pid int) (kib, fds, threads int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		w := strings.Fields(line)
		switch {
		case len(w) < 2:
		case w[0] == "VmRSS:":
			kib, _ = strconv.Atoi(w[1])
		case w[0] == "Threads:":
			threads, _ = strconv.Atoi(w[1])
		}
	}
	dir, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return kib, len(dir), threads
}

// ordinaryUser returns a command that runs nfctl as user nobody with these
// capabilities, as setcap and systemd's AmbientCapabilities give them.
func ordinaryUser(t *testing.T, caps []uintptr, args ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("NFCTL_TEST_INNER") != "" {
		t.Skip("needs root to give root up")
	}
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755)
	}
	copied := filepath.Join(dir, "nfctl")
	if out, err := exec.Command("cp", nstest.Build(t), copied).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	c := exec.Command(copied, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: caps}
	return c
}

// capabilities writes a mask as /proc does.
func capabilities(caps ...int) string {
	var mask uint64
	for _, c := range caps {
		mask |= 1 << c
	}
	return fmt.Sprintf("%016x", mask)
}

// startQueue starts nfctl queue inside ns and waits until it is ready.
func startQueue(t *testing.T, ns *nstest.NS, args ...string) *nstest.Proc {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ready")
	p := ns.Start(nstest.Build(t), append([]string{"queue", "--ready-file", file}, args...)...)
	nstest.Until(t, "nfctl is ready", func() bool {
		if p.Ended() {
			t.Fatalf("nfctl ended: %s", p.Stderr())
		}
		_, err := os.Stat(file)
		return err == nil
	})
	return p
}

// opens reports whether a connection to addr can be made from inside ns.
func opens(ns *nstest.NS, addr string, patience time.Duration) bool {
	c, err := ns.Dial("tcp", addr, patience)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// sendNumbers sends numbered datagrams at rate a second until stop is closed, and
// returns how many it sent.
func sendNumbers(t *testing.T, c net.Conn, rate int, stop <-chan struct{}) uint32 {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var n uint32
	b := make([]byte, 4)
	for begun := time.Now(); ; {
		select {
		case <-stop:
			return n
		case <-tick.C:
		}
		for due := uint32(time.Since(begun).Seconds() * float64(rate)); n < due; {
			binary.BigEndian.PutUint32(b, n)
			if _, err := c.Write(b); err == nil {
				n++
			} else if !isTransient(err) {
				t.Errorf("send: %v", err)
				return n
			} else {
				break
			}
		}
	}
}

func isTransient(err error) bool {
	for _, e := range []error{unix.EAGAIN, unix.ENOBUFS, unix.EPERM} {
		if strings.Contains(err.Error(), e.Error()) {
			return true
		}
	}
	return false
}

// roomy gives a test's receiver so much buffer that what it loses was not lost
// there.
func roomy(t *testing.T, c net.PacketConn) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<20)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// collect reads numbered datagrams at once, until rest is called; that waits for
// those under way and returns which came.
func collect(c net.PacketConn) (rest func() map[uint32]bool) {
	seen := make(map[uint32]bool)
	end := receive(c, func(b []byte) {
		if len(b) == 4 {
			seen[binary.BigEndian.Uint32(b)] = true
		}
	})
	return func() map[uint32]bool {
		end()
		return seen
	}
}

// receive gives each datagram to f, until rest is called and nothing came for a while.
func receive(c net.PacketConn, f func([]byte)) (rest func()) {
	var ending atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2000)
		for {
			last := ending.Load()
			_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			n, _, err := c.ReadFrom(b)
			switch {
			case err == nil:
				f(b[:n])
			case last || !errors.Is(err, os.ErrDeadlineExceeded):
				return
			}
		}
	}()
	return func() {
		ending.Store(true)
		<-done
	}
}

// counted returns the number in front of words in nfctl's totals.
func counted(totals, words string) int {
	for line := range strings.Lines(totals) {
		if head, _, ok := strings.Cut(line, " "+words); ok {
			n, err := strconv.Atoi(head[strings.LastIndexByte(head, ' ')+1:])
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// hosts are where these tests listen.
var hosts = []string{"127.0.0.1", "[::1]"}

// endQueue ends nfctl, which must have had no trouble, and returns what it said.
func endQueue(t *testing.T, p *nstest.Proc) string {
	t.Helper()
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
	return p.Stderr()
}

// startPiped starts nfctl with its output to a pipe that lines is fed from: for
// output too long to keep.
func startPiped(t *testing.T, ns *nstest.NS, line func(string), args ...string) (p *nstest.Proc, end func()) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "out")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p = ns.StartCmd(exec.Command("sh", append([]string{"-c", `exec "$@" >` + fifo, "sh", nstest.Build(t)}, args...)...))
	f, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			line(s.Text())
		}
	}()
	return p, func() { <-done }
}

// udpFlow is a flow from src to a name server, to be made.
func udpFlow(src netip.Addr, dport uint16, timeout uint32) *ct.Flow {
	f := &ct.Flow{Present: ct.HasTimeout, Timeout: timeout}
	f.Orig = ct.Tuple{Family: unix.AF_INET, Proto: unix.IPPROTO_UDP, Src: src,
		Dst: netip.AddrFrom4([4]byte{10, 8, 0, 1}), Sport: 1000, Dport: dport,
		Present: ct.TupleProto | ct.TupleFamily | ct.TupleSport | ct.TupleDport}
	f.Reply = f.Orig.Reverse()
	return f
}

// fillFlows makes n flows from 10.0.0.0 on.
func fillFlows(t *testing.T, ns *nstest.NS, n int) {
	t.Helper()
	ns.Do(func() {
		c, err := ct.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		b := c.NewBatch(200, func(_ *ct.Flow, err error) {
			if err != nil {
				t.Error(err)
			}
		})
		for i := range n {
			if err := b.Create(udpFlow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 53, 6000),
				false); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Flush(); err != nil {
			t.Fatal(err)
		}
	})
}
