package lua

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// seedDecoder is a decoder for the seed's conntracker: a server names, behind the
// word DATA, the port at which it expects its client.
const seedDecoder = `
local function word(s, at) return s:byte(at) * 256 + s:byte(at + 1) end
local function host(s, at) return table.concat({ s:byte(at, at + 3) }, ".") end
return { decode = function(ip)
	local tcp = ip:byte(1) % 16 * 4
	local payload = ip:sub(tcp + math.floor(ip:byte(tcp + 13) / 16) * 4 + 1)
	local port = payload:match("^DATA (%d+)")
	if port then -- from server to client, of which the connection is the other way round
		exptrack.expect(host(ip, 17), host(ip, 13), word(ip, tcp + 3), word(ip, tcp + 1), tonumber(port), 30, "permanent")
	end
end }
`

// TestSeed runs the scripts of netfilter-lua as they are. NFCTL_SEED names a
// checkout of it (github.com/sam-github/netfilter-lua); none of it is here.
// TestPartsOfTuples and the examples hold the same without it.
func TestSeed(t *testing.T) {
	seed := os.Getenv("NFCTL_SEED")
	if seed == "" {
		t.Skip("NFCTL_SEED names no checkout of netfilter-lua")
	}
	ns, bin := exampleLab(t)
	script := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(bin, append([]string{"lua", filepath.Join(seed, name)}, args...)...)
		c.Env = append(os.Environ(), "LUA_PATH="+t.TempDir()+"/?.lua;;")
		return c
	}
	run := func(c *exec.Cmd) *nstest.Proc {
		p := ns.StartCmd(c)
		p.Wait()
		return p
	}
	status := func(p *nstest.Proc) int { return p.Cmd.ProcessState.ExitCode() }

	if p := run(script("nfct-test")); status(p) != 0 || p.Stdout()+p.Stderr() != "" {
		t.Errorf("nfct-test: status %d: %s%s", status(p), p.Stdout(), p.Stderr())
	}
	watch := ns.StartCmd(script("nfct-events", "both", "all"))
	nstest.Until(t, "events have a listener", func() bool { return listeners(t, watch.Cmd.Process.Pid) })

	// The server at port 21 answers with where its data port is.
	control := ns.ListenTCP("127.0.0.1:21")
	go func() {
		for {
			c, err := control.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 100)
			if n, err := c.Read(b); err == nil {
				_, _ = c.Write(b[:n])
			}
		}
	}()
	ns.TCPEcho("127.0.0.1:5001")
	ns.TCPEcho("127.0.0.1:5002")
	lets := func(port string, patience time.Duration) bool {
		c, err := ns.Dial("tcp", "127.0.0.1:"+port, patience)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	const short = 300 * time.Millisecond
	c, err := ns.Dial("tcp", "127.0.0.1:21", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(sport string, more ...string) *nstest.Proc {
		return run(script("nfct-expect-create-userspace",
			append([]string{"expect=5001", "src=127.0.0.1", "dst=127.0.0.1", "sport=" + sport, "dport=21",
				"timeout=10"}, more...)...))
	}
	if p := expect("1"); status(p) != 1 || !strings.Contains(p.Stderr(), "No such file or directory") {
		t.Errorf("without master: status %d: %s", status(p), p.Stderr())
	}
	sport := portOf(c.LocalAddr())
	if lets("5001", short) {
		t.Error("let in without expectation")
	}
	const tuple = "src=127.0.0.1 dst=127.0.0.1 sport=0 dport=5001 mask-src=255.255.255.255 mask-dst=255.255.255.255 " +
		"sport=0 dport=65535 master-src=127.0.0.1 master-dst=127.0.0.1 sport="
	if p := expect(sport); status(p) != 0 || !strings.Contains(p.Stdout(),
		"exp=10 proto=6 "+tuple+sport+" dport=21 ") ||
		!strings.Contains(p.Stdout(), "ct=tcp      6 src=127.0.0.1 dst=127.0.0.1 sport=0 dport=5001 ") {
		t.Errorf("with master: status %d: %s%s", status(p), p.Stdout(), p.Stderr())
	}
	if out := ns.Run(bin, "expect", "list"); !strings.Contains(out, tuple+sport+" dport=21 class=0 helper=ftp\n") {
		t.Errorf("listed: %s", out)
	}
	if p := expect(sport); status(p) != 0 { // it is there already
		t.Errorf("again: status %d: %s", status(p), p.Stderr())
	}
	if !lets("5001", nstest.Patience) || lets("5001", short) {
		t.Error("not exactly one connection was let in")
	}
	if p := expect(sport, "flag=permanent"); status(p) != 0 || !lets("5001", nstest.Patience) ||
		!lets("5001", nstest.Patience) {
		t.Errorf("permanent: status %d: %s", status(p), p.Stderr())
	}
	ns.Run(bin, "expect", "flush", "--all")
	for _, line := range []string{`^ct\t    \[NEW\] tcp      6 120 SYN_SENT src=127.0.0.1 `,
		`^exp\t    \[NEW\] [23]\d\d proto=6 ` + tuple + sport, `^exp\t\[DESTROY\] [23]\d\d proto=6 ` + tuple + sport} {
		re := regexp.MustCompile("(?m)" + line)
		nstest.Until(t, line, func() bool { return re.MatchString(watch.Stdout()) })
	}

	// conntracker sees what the server says and makes the expectation before the
	// client has read it.
	cmd := script("conntracker", "method=queue", "decode=ours")
	dir := strings.TrimSuffix(strings.TrimPrefix(cmd.Env[len(cmd.Env)-1], "LUA_PATH="), "/?.lua;;")
	if err := os.WriteFile(dir+"/ours.lua", []byte(seedDecoder), 0o600); err != nil {
		t.Fatal(err)
	}
	tracker := ns.StartCmd(cmd)
	nstest.Until(t, "a queue", func() bool {
		return strings.Contains(ns.Run(bin, "queue", "list", "-o", "json"), `"queue":0`)
	})
	ns.Run("iptables", "-w", "-I", "OUTPUT", "1", "-p", "tcp", "--sport", "21", "-j", "NFQUEUE", "--queue-num", "0")
	if _, err := c.Write([]byte("DATA 5002\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(nstest.Patience))
	if n, err := c.Read(b); err != nil || string(b[:n]) != "DATA 5002\n" {
		t.Fatalf("the client's answer: %q, %v", b[:n], err)
	}
	if out := ns.Run(bin, "expect", "list"); !strings.Contains(out,
		" proto=6 src=127.0.0.1 dst=127.0.0.1 sport=0 dport=5002 mask-src=0.0.0.0 mask-dst=255.255.255.255 sport=0 "+
			"dport=65535 master-src=127.0.0.1 master-dst=127.0.0.1 sport="+sport+
			" dport=21 PERMANENT class=0 helper=ftp\n") {
		t.Errorf("conntracker made %s", out)
	}
	first, second := lets("5002", nstest.Patience), lets("5002", nstest.Patience) // it is permanent
	if !first || !second || lets("5001", short) {
		t.Error("what conntracker made lets in other connections than were meant")
	}
	if tracker.Ended() {
		t.Error("conntracker ended")
	}
	tracker.Signal(unix.SIGTERM)
	watch.Signal(unix.SIGTERM)
}

// listeners reports whether a process has a netlink socket that listens to all
// events of flows and expectations.
func listeners(t *testing.T, pid int) bool {
	t.Helper()
	const groups = "0000003f"
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/netlink")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), " "+groups+" ")
}

// TestPartsOfTuples: scripts that set of a tuple only what they are about reach the
// kernel with the rest zero, as by the C modules.
func TestPartsOfTuples(t *testing.T) {
	l := newCtLab(t)
	for _, r := range []string{"-t raw -A OUTPUT -p tcp --dport 21 -j CT --helper ftp",
		"-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
		"-A INPUT -p tcp --dport 21 -j ACCEPT", "-A INPUT -p tcp -j DROP"} {
		l.ns.Run("iptables", append([]string{"-w"}, strings.Fields(r)...)...)
	}
	l.ns.TCPEcho("127.0.0.1:21")
	l.ns.TCPEcho("127.0.0.1:5001")
	l.expect(`
		-- a conntrack of the attributes that are named
		function of(pf, proto, addrs, ports)
			local c = nfct.new()
			nfct.set_attr_pf(c, "l3proto", pf) nfct.set_attr_ipproto(c, "l4proto", proto)
			local set = pf == "inet" and nfct.set_attr_ipv4 or nfct.set_attr_ipv6
			for k, v in pairs(addrs) do set(c, (pf == "inet" and "ipv4-" or "ipv6-")..k, v) end
			for k, v in pairs(ports or {}) do nfct.set_attr_port(c, "port-"..k, v) end
			return c
		end
		here = { src = "127.0.0.1", dst = "127.0.0.1" }
		sport = assert(connect("127.0.0.1:21"))
		master = of("inet", "tcp", here, { src = sport, dst = 21 })
		h = assert(nfct.open("expect"))
		nfct.exp_callback_register(h, function(m, e)
			print((nfct.exp_tostring(e):gsub("sport="..sport, "sport=S"):gsub("^%d+ ", "")))
		end)
		function try(what, mask)
			local e = nfct.exp_new(master, what, mask, 10, "permanent")
			print(nfct.exp_query(h, "create", e) == h)
			nfct.exp_query(h, "get", e) nfct.exp_query(h, "dump")
			return e
		end
		-- the port alone, of a mask not even that; addresses that are none set nothing
		local mask = of("inet", "tcp", { src = 0xffffffff, dst = 0xffffffff }, { dst = 5001 })
		local e = try(of("inet", "tcp", here, { dst = 5001 }), mask)
		print(type(connect("127.0.0.1:5001")), type(connect("127.0.0.1:5001")))
		print(nfct.exp_query(h, "destroy", e) == h, connect("127.0.0.1:5001", true))
		-- no source at all
		e = try(of("inet", "tcp", { dst = "127.0.0.1" }, { dst = 5001 }), of("inet", "tcp", {}))
		print(type(connect("127.0.0.1:5001")), nfct.exp_query(h, "destroy", e) == h)
		-- keys, and ICMP
		e = try(of("inet", "gre", here, { dst = 6 }), of("inet", "gre", {})) print(nfct.exp_query(h, "destroy", e) == h)
		local ping = of("inet", "icmp", here) nfct.set_attr_u8(ping, "icmp-type", 8)
		e = try(ping, of("inet", "icmp", here)) print(nfct.exp_query(h, "destroy", e) == h, nfct.exp_query(h, "destroy", e))
		print(nfct.exp_query(h, "create", nfct.exp_new(of("inet", "tcp", here, { dst = 21 }), ping, mask, 5)))`, `
true
proto=6 src=127.0.0.1 dst=127.0.0.1 sport=0 dport=5001 mask-src=0.0.0.0 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=127.0.0.1 master-dst=127.0.0.1 sport=S dport=21 PERMANENT class=0 helper=ftp
proto=6 src=127.0.0.1 dst=127.0.0.1 sport=0 dport=5001 mask-src=0.0.0.0 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=127.0.0.1 master-dst=127.0.0.1 sport=S dport=21 PERMANENT class=0 helper=ftp
number	number
true	false
true
proto=6 src=0.0.0.0 dst=127.0.0.1 sport=0 dport=5001 mask-src=0.0.0.0 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=127.0.0.1 master-dst=127.0.0.1 sport=S dport=21 PERMANENT class=0 helper=ftp
proto=6 src=0.0.0.0 dst=127.0.0.1 sport=0 dport=5001 mask-src=0.0.0.0 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=127.0.0.1 master-dst=127.0.0.1 sport=S dport=21 PERMANENT class=0 helper=ftp
number	true
true
proto=47 src=127.0.0.1 dst=127.0.0.1 srckey=0x0 dstkey=0x6 mask-src=0.0.0.0 mask-dst=255.255.255.255 srckey=0x0 dstkey=0xffff master-src=127.0.0.1 master-dst=127.0.0.1 sport=S dport=21 PERMANENT class=0 helper=ftp
proto=47 src=127.0.0.1 dst=127.0.0.1 srckey=0x0 dstkey=0x6 mask-src=0.0.0.0 mask-dst=255.255.255.255 srckey=0x0 dstkey=0xffff master-src=127.0.0.1 master-dst=127.0.0.1 sport=S dport=21 PERMANENT class=0 helper=ftp
true
true
proto=1 src=127.0.0.1 dst=127.0.0.1 type=8 code=0 id=0 mask-src=127.0.0.1 mask-dst=255.255.255.255 type=255 code=255 id=0 master-src=127.0.0.1 master-dst=127.0.0.1 sport=S dport=21 PERMANENT class=0 helper=ftp
proto=1 src=127.0.0.1 dst=127.0.0.1 type=8 code=0 id=0 mask-src=127.0.0.1 mask-dst=255.255.255.255 type=255 code=255 id=0 master-src=127.0.0.1 master-dst=127.0.0.1 sport=S dport=21 PERMANENT class=0 helper=ftp
true	nil	No such file or directory	2
nil	No such file or directory	2`)
	l.expect(`
		q = assert(nfct.open("conntrack"))
		nfct.ct_callback_register(q, function(m, c) print((nfct.tostring(c):gsub(" packets=0 bytes=0", ""):match("src=.*dport=%d+") or nfct.tostring(c):match("src=.*key=0x%d"):gsub(" packets=0 bytes=0", ""))) end)
		for _, proto in ipairs{ "udp", "gre", "sctp" } do
			local f = of("inet", proto, { src = "10.0.0.1", dst = "10.0.0.2" }, { dst = 9 })
			nfct.set_attr_u32(f, "timeout", 600)
			nfct.setobjopt(f, "setup-reply")
			if proto == "sctp" then
				nfct.set_attr_u8(f, "sctp-state", 4) nfct.set_attr_u32(f, "sctp-vtag-orig", 1) nfct.set_attr_u32(f, "sctp-vtag-repl", 2)
			end
			print(nfct.query(q, "create", f) == q) nfct.query(q, "get", f)
			print(nfct.query(q, "destroy", f) == q, nfct.query(q, "destroy", f))
		end`, `
true
src=10.0.0.1 dst=10.0.0.2 sport=0 dport=9 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=9 dport=0
true	nil	No such file or directory	2
true
src=10.0.0.1 dst=10.0.0.2 srckey=0x0 dstkey=0x9 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 srckey=0x9 dstkey=0x0
true	nil	No such file or directory	2
true
src=10.0.0.1 dst=10.0.0.2 sport=0 dport=9 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=9 dport=0
true	nil	No such file or directory	2`)
}
