package lua

import (
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// newCtLab is a lab whose namespace tracks connections. In scripts flow(sport,
// dport) makes an object for a UDP flow, connect(address) opens a TCP connection
// and says whether that worked, hangup() closes the one opened last.
func newCtLab(t *testing.T) *lab {
	l := newLab(t)
	l.ns.Run("iptables", "-w", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "ACCEPT")
	for name, v := range map[string]string{"nf_conntrack_acct": "1", "nf_conntrack_timestamp": "1",
		"nf_conntrack_events": "1"} {
		if err := os.WriteFile("/proc/sys/net/netfilter/"+name, []byte(v), 0); err != nil {
			nstest.Lack(t, err)
		}
	}
	var last net.Conn
	g := func(name string, f lua.LGFunction) { l.v.L.SetGlobal(name, l.v.L.NewFunction(f)) }
	g("connect", func(L *lua.LState) int {
		wait := nstest.Patience
		if L.ToBool(2) { // it should not work
			wait = 300 * time.Millisecond
		}
		c, err := l.ns.Dial("tcp", L.CheckString(1), wait)
		if err == nil {
			last = c
			sport := c.LocalAddr().(*net.TCPAddr).Port
			L.Push(lua.LNumber(sport))
		} else {
			L.Push(lua.LFalse)
		}
		return 1
	})
	g("hangup", func(*lua.LState) int {
		_ = last.Close()
		return 0
	})
	g("ping", func(*lua.LState) int { // an echo request to the loopback, which answers
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err == nil {
			defer unix.Close(fd)
			err = unix.Sendto(fd, []byte{8, 0, 0xf5, 0xfd, 2, 1, 0, 1}, 0,
				&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		}
		if err != nil {
			t.Error(err)
		}
		return 0
	})
	g("sleep", func(L *lua.LState) int {
		time.Sleep(time.Duration(float64(L.CheckNumber(1)) * float64(time.Second)))
		return 0
	})
	if _, err := l.try(`
		function flow(sport, dport, proto)
			local c = assert(nfct.new())
			nfct.set_attr_pf(c, "l3proto", "inet")
			nfct.set_attr_ipproto(c, "l4proto", proto or "udp")
			nfct.set_attr_ipv4(c, "ipv4-src", "10.1.0.1") nfct.set_attr_ipv4(c, "ipv4-dst", "10.1.0.2")
			nfct.set_attr_port(c, "port-src", sport) nfct.set_attr_port(c, "port-dst", dport)
			nfct.setobjopt(c, "setup-reply")
			nfct.set_attr_u32(c, "timeout", 100)
			return c
		end
		-- what is there to read, without waiting
		function events(h)
			nfct.setblocking(h)
			return nfct.catch(h)
		end`); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestConntrackHandles(t *testing.T) {
	l := newCtLab(t)
	l.expect(`
		h = assert(nfct.open("conntrack"))
		print(type(h), type(nfct.fd(h)), nfct.setblocking(h) == h)
		print(nfct.catch(h))
		print(pcall(nfct.exp_callback_register, h, print))
		print(pcall(nfct.exp_query, h, "create", nfct.new()))
		print(pcall(nfct.ct_callback_register, h, print, "bogus"))
		print(nfct.ct_callback_register(h, print) == h, nfct.ct_callback_register(h, print, "new") == h)
		print(nfct.close(h))
		print(pcall(nfct.catch, h))
		b = assert(nfct.open("both", "none", "new", "update", "destroy", "all"))
		print(nfct.ct_callback_register(b, print) == b, nfct.exp_callback_register(b, print) == b)
		print(pcall(nfct.exp_query, b, "create", nfct.new()))
		print(pcall(nfct.exp_query, b, "delete", nfct.new()))
		nfct.close(b)`, `
userdata	number	true
nil	timeout	11
false	bad argument #1 (register failure, handle not open for this subsystem)
false	bad argument #1 to '?' (handle not open for this subsystem)
false	bad argument #3 to '?' (invalid option 'bogus')
true	true

false	bad argument #1 to '?' (cthandle not provided)
true	true
false	bad argument #3 to '?' (expectation not provided)
false	bad argument #2 to '?' (invalid option 'delete')`)
}

func TestNotPermitted(t *testing.T) {
	l := newCtLab(t)
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	if err := unix.Capget(&hdr, &had[0]); err != nil {
		t.Fatal(err)
	}
	none := had
	none[0].Effective, none[1].Effective = 0, 0
	if err := unix.Capset(&hdr, &none[0]); err != nil { // of this thread alone
		t.Fatal(err)
	}
	defer func() { _ = unix.Capset(&hdr, &had[0]) }()
	l.expect(`print(nfct.open("conntrack", "all")) print(nfct.open("expect", "new"))
		h = nfq.open() if h then print(nfq.create_queue(h, 0)) end`,
		"nil\tOperation not permitted\t1\nnil\tOperation not permitted\t1\nnil\tOperation not permitted\t1")
}

func TestSubscriptions(t *testing.T) {
	l := newCtLab(t)
	l.expect(`
		q = assert(nfct.open("conntrack"))
		local function make(subscription, ...)
			local h = assert(nfct.open("conntrack", subscription))
			local seen = {}
			nfct.ct_callback_register(h, function(m) seen[#seen+1] = m end, ...)
			return function() events(h) local s = table.concat(seen, " ") seen = {} nfct.close(h) return s end
		end
		local hs = {make("all"), make("new"), make("update"), make("destroy"), make("none"), make("all", "new"), make("all", "destroy"),
			make("new", "update"), make("all", "error"), make("all", "none")}
		local c = flow(1000, 2000)
		print(nfct.query(q, "create", c) == q)
		print(nfct.query(q, "create", c))
		nfct.set_attr_u32(c, "mark", 7)
		print(nfct.query(q, "update", c) == q)
		print(nfct.query(q, "destroy", c) == q)
		print(nfct.query(q, "destroy", c))
		for i, f in ipairs(hs) do print(f()) end`, `
true
nil	File exists	17
true
true
nil	No such file or directory	2
new update destroy
new
update
destroy

new
destroy`)
}

// The events of connections, and what callbacks answer.
func TestEvents(t *testing.T) {
	l := newCtLab(t)
	l.ns.TCPEcho("127.0.0.1:2121")
	l.expect(`
		h = assert(nfct.open("conntrack", "all")) q = assert(nfct.open("conntrack"))
		local function brief(m, c)
			local s = nfct.tostring(c, m)
			assert(s:sub(1, 9) == ({new = "    [NEW]", update = " [UPDATE]", destroy = "[DESTROY]"})[m])
			if s:find("CLOSE_WAIT") then return end -- seen only when the other end is slow to close
			local state = s:match(" ([A-Z][A-Z_0-9]+) src=") or "-"
			if m == "destroy" then state = state:gsub("^TIME_WAIT$", "-") end -- which 5.10 does not say
			print(m, s:match("^.........[ ](%w+) "), state, s:match("%[UNREPLIED%]") or s:match("%[ASSURED%]") or "-")
			if m == "new" then mine = c return "stolen" end
			if s:find("TIME_WAIT") then return "stop" end
		end
		nfct.ct_callback_register(h, brief)
		assert(connect("127.0.0.1:2121")) hangup()
		assert(nfct.catch(h)) -- until TIME_WAIT
		assert(nfct.query(q, "destroy", mine)) events(h)
		ping()
		events(h) assert(nfct.query(q, "destroy", mine)) events(h)
		send("no answer") got(1)
		events(h) assert(nfct.query(q, "destroy", mine)) events(h)`, `
new	tcp	SYN_SENT	[UNREPLIED]
update	tcp	SYN_RECV	-
update	tcp	ESTABLISHED	[ASSURED]
update	tcp	FIN_WAIT	[ASSURED]
update	tcp	LAST_ACK	[ASSURED]
update	tcp	TIME_WAIT	[ASSURED]
destroy	tcp	-	[ASSURED]
new	icmp	-	[UNREPLIED]
update	icmp	-	-
destroy	icmp	-	-
new	udp	-	[UNREPLIED]
destroy	udp	-	[UNREPLIED]`)
	l.expect(`
		local function make(n) for i = 1, n do assert(nfct.query(q, "create", flow(i, 99))) end end
		local function clear(n) for i = 1, n do assert(nfct.query(q, "destroy", flow(i, 99))) end end
		nfct.close(h) h = assert(nfct.open("conntrack", "new"))
		local answer, kept = nil, {}
		nfct.ct_callback_register(h, function(m, c) kept[#kept+1] = c return answer end)
		make(3) print(events(h)) print(#kept, pcall(nfct.tostring, kept[1])) clear(3)
		answer = "continue" kept = {} make(3) print(events(h)) print(#kept) clear(3)
		answer = "stop" kept = {} make(3) print(nfct.catch(h) == h, #kept) print(nfct.catch(h) == h, #kept, nfct.catch(h) == h, #kept) clear(3)
		answer = "stolen" kept = {} make(3) print(events(h)) clear(3)
		print(#kept, nfct.get_attr_port(kept[1], "port-src"), nfct.get_attr_port(kept[3], "port-src"), nfct.destroy(kept[1]))
		print(pcall(nfct.tostring, kept[1]))
		print(nfct.tostring(kept[2], "new"):match("%[NEW%] udp +17 %d+ src=10.1.0.1"))
		answer = "failure" make(1) print(nfct.catch(h)) clear(1)
		answer = "bogus" make(1) print(pcall(nfct.catch, h)) clear(1)
		nfct.ct_callback_register(h, function() error("mine", 0) end) make(2) print(pcall(nfct.catch, h)) clear(2)
		nfct.ct_callback_register(h, function() return "stop" end) print(nfct.catch(h) == h) print(nfct.catch(h))
		-- the deprecated loop takes its arguments in both orders
		make(1) print(nfct.loop(h, "new", function(m) print(m) return "stop" end) == h) clear(1)
		make(1) print(nfct.loop(h, function(m) print(m) return "stop" end, "new") == h) clear(1)
		nfct.close(h) nfct.close(q)`, `
nil	timeout	11
3	false	bad argument #1 to '?' (conntrack not provided)
nil	timeout	11
3
true	1
true	2	true	3
nil	timeout	11
3	1	3
false	bad argument #1 to '?' (conntrack not provided)
[NEW] udp      17 100 src=10.1.0.1
nil	Operation canceled	125
false	bad argument #3 to '?' (invalid option 'bogus')
false	mine
true
nil	timeout	11
new
true
new
true`)
}

// What a message carries: counters and the duration come with destroy.
func TestDestroyEvent(t *testing.T) {
	l := newCtLab(t)
	l.expect(`
		h = assert(nfct.open("conntrack", "all")) q = assert(nfct.open("conntrack"))
		nfct.ct_callback_register(q, function(m, c) if nfct.get_attr_port(c, "port-dst") == port then print(m, nfct.get_attr_u64(c, "orig-counter-packets")) return "stolen" end end)
		send("one") send("two") got(1) got(1)
		nfct.ct_callback_register(h, function(m, c)
			if m == "destroy" then print((nfct.tostring(c, m):gsub("sport=%d+ dport=%d+", "PORTS"):gsub("delta%-time=%d+", "delta"):gsub("17 %d+ src", "17 src"))) end
			if m == "new" then mine = c return "stolen" end
		end)
		events(h)
		assert(nfct.query(q, "dump", "inet"))
		assert(nfct.query(q, "get", mine))
		assert(nfct.query(q, "destroy", mine))
		events(h)`, `
update	2
update	2
[DESTROY] udp      17 src=127.0.0.1 dst=127.0.0.1 PORTS packets=2 bytes=62 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 PORTS packets=0 bytes=0 delta`)
}

// Which attributes come with which message; an entry that had expired has no
// timeout in its destroy. A dump makes the kernel sweep such entries at once.
func TestWhatMessagesCarry(t *testing.T) {
	l := newCtLab(t)
	l.expect(`
		h = assert(nfct.open("conntrack", "all")) q = assert(nfct.open("conntrack"))
		local function carried(m, c)
			local all = {}
			for _, a in ipairs{"id", "status", "timeout", "use", "orig-counter-packets", "timestamp-start", "timestamp-stop"} do
				if nfct.get_attr_u64(c, a) ~= 0 then all[#all+1] = a end
			end
			print(m, table.concat(all, " "))
		end
		nfct.ct_callback_register(h, function(m, c) carried(m, c) if m == "destroy" then gone = true print((nfct.tostring(c, m):gsub("=%d+ dport=%d+", "=P"):gsub("delta%-time=%d+", "delta"))) end mine = c return "stolen" end)
		nfct.ct_callback_register(q, function(m, c) carried("dump", c) end)
		send("one") got(1) events(h)
		assert(nfct.query(q, "dump"))
		nfct.set_attr_u32(mine, "timeout", 1) nfct.set_attr_u32(mine, "mark", 7)
		assert(nfct.query(q, "update", mine))
		nfct.ct_callback_register(q, function() end)
		repeat sleep(0.05) nfct.query(q, "dump") events(h) until gone`, `
new	id status timeout
dump	id status timeout use orig-counter-packets timestamp-start
update	id status timeout
destroy	id status orig-counter-packets timestamp-start timestamp-stop
[DESTROY] udp      17 src=127.0.0.1 dst=127.0.0.1 sport=P packets=1 bytes=31 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=P packets=0 bytes=0 mark=7 delta`)
}

// A reader that was stopped while the receive buffer overflowed is told, and goes
// on.
func TestEventOverrun(t *testing.T) {
	l := newCtLab(t)
	l.expect(`
		h = assert(nfct.open("conntrack", "new")) q = assert(nfct.open("conntrack"))
		n = 0 nfct.ct_callback_register(h, function() n = n + 1 end)`, "")
	for h := range l.v.cthandles {
		if _, err := h.conn.SetBuffer(4096); err != nil {
			t.Fatal(err)
		}
	}
	l.expect(`
		for i = 1, 300 do assert(nfct.query(q, "create", flow(i, 5))) end
		print(events(h)) print(n > 0, n < 300)
		local before = n
		assert(nfct.query(q, "create", flow(301, 5)))
		print(events(h)) print(n - before)`, "nil\ttimeout\t11\ntrue\ttrue\nnil\ttimeout\t11\n1")
	if len(l.warn) == 0 || !regexp.MustCompile(`^nfct.catch: \d+ events were lost`).MatchString(l.warn[0]) {
		t.Errorf("%q", l.warn)
	}
}

// The eight operations on conntrack objects.
func TestQuery(t *testing.T) {
	l := newCtLab(t)
	l.expect(`
		q = assert(nfct.open("conntrack"))
		list = {}
		nfct.ct_callback_register(q, function(m, c) list[#list+1] = m.." "..nfct.get_attr_port(c, "port-src").." "..nfct.get_attr_u32(c, "mark") return answer end)
		local function show(...) print((...) == q, table.concat(list, ", ")) list = {} end
		for i = 1, 3 do assert(nfct.query(q, "create", flow(i, 9))) end
		local c = flow(2, 9) nfct.set_attr_u32(c, "mark", 5)
		show(nfct.query(q, "create-update", c)) show(nfct.query(q, "get", c))
		nfct.set_attr_u32(c, "mark", 0) show(nfct.query(q, "update", c)) show(nfct.query(q, "get", c))
		print(nfct.query(q, "get", flow(4, 9)))
		print(nfct.query(q, "update", flow(4, 9)))
		nfct.query(q, "dump") table.sort(list) show(q)
		nfct.query(q, "dump", c) print(#list) list = {}
		nfct.query(q, "dump", "inet6") print(#list)
		answer = "stop" print(nfct.query(q, "dump") == q, #list) list = {}
		answer = "failure" print(nfct.query(q, "dump")) list = {}
		answer = "bogus" print(pcall(nfct.query, q, "dump")) list = {} answer = nil
		nfct.ct_callback_register(q, function(m, c) assert(nfct.query(q, "destroy", c)) n = (n or 0) + 1 end)
		print(nfct.query(q, "dump-reset") == q, n)
		assert(nfct.query(q, "create", flow(7, 9))) print(nfct.query(q, "flush") == q)
		n = 0 nfct.query(q, "dump") print(n)
		print(pcall(nfct.query, q, "dump", 5))
		print(nfct.query(q, "create", nfct.new()))
		-- an ICMP type that has no answer
		local i = flow(1, 2, "icmp") nfct.set_attr_u8(i, "icmp-type", 11) nfct.setobjopt(i, "setup-reply") print(nfct.query(q, "create", i))`, `
true	
true	update 2 5
true	
true	update 2 0
nil	No such file or directory	2
nil	No such file or directory	2
true	update 1 0, update 2 0, update 3 0
3
0
true	1
nil	Operation canceled	125
false	bad argument #3 to '?' (invalid option 'bogus')
true	3
true
0
false	bad argument #3 to '?' (object or family expected, got number)
nil	Invalid argument	22
nil	Invalid argument	22`)
}

// Expectations on a master with a helper, with their effect on connections.
func TestExpectations(t *testing.T) {
	l := newCtLab(t)
	for _, r := range []string{"-t raw -A OUTPUT -p tcp --dport 21 -j CT --helper ftp",
		"-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
		"-A INPUT -p tcp --dport 21:22 -j ACCEPT", "-A INPUT -p tcp -j DROP"} {
		l.ns.Run("iptables", append([]string{"-w"}, strings.Fields(r)...)...)
	}
	for _, addr := range []string{"127.0.0.1:21", "127.0.0.1:22", "127.0.0.1:5001"} {
		l.ns.TCPEcho(addr)
	}
	l.expect(`
		function tuple(proto, sport, dport, all)
			local c = nfct.new()
			nfct.set_attr_pf(c, "l3proto", "inet") nfct.set_attr_ipproto(c, "l4proto", proto)
			nfct.set_attr_ipv4(c, "ipv4-src", all or "127.0.0.1") nfct.set_attr_ipv4(c, "ipv4-dst", all or "127.0.0.1")
			nfct.set_attr_port(c, "port-src", sport) nfct.set_attr_port(c, "port-dst", dport)
			return c
		end
		sport = assert(connect("127.0.0.1:21"))
		master = tuple("tcp", sport, 21)
		mask = tuple("tcp", 0, 65535, "255.255.255.255")
		function expectation(dport, ...) return nfct.exp_new(master, tuple("tcp", 0, dport), mask, "7", ...) end
		h = assert(nfct.open("expect", "all"))
		seen = {}
		nfct.exp_callback_register(h, function(m, e) seen[#seen+1] = nfct.exp_tostring(e, m):gsub("sport="..sport, "sport=S"):gsub("%] 299 ", "] 300 "):gsub("%] 6 ", "] 7 ") return answer end) -- a second may have begun
		function shown(m) local s = "" for _, x in ipairs(seen) do s = s..x.."\n" end seen = {} return s end
		e = expectation(5001)
		print(nfct.exp_query(h, "create", e) == h)
		print(nfct.exp_query(h, "create", e))
		nfct.exp_query(h, "get", e) print(shown())
		print(nfct.exp_query(h, "update", e) == h) nfct.exp_query(h, "dump") print(shown():match(" [67] proto") ~= nil)
		print(nfct.exp_query(h, "destroy", e) == h)
		print(nfct.exp_query(h, "destroy", e))
		print(nfct.exp_query(h, "get", e))
		events(h) print(shown())`, `
true
nil	File exists	17
 [UPDATE] 300 proto=6 src=127.0.0.1 dst=127.0.0.1 sport=0 dport=5001 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=127.0.0.1 master-dst=127.0.0.1 sport=S dport=21 class=0 helper=ftp

true
true
true
nil	No such file or directory	2
nil	No such file or directory	2
    [NEW] 300 proto=6 src=127.0.0.1 dst=127.0.0.1 sport=0 dport=5001 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=127.0.0.1 master-dst=127.0.0.1 sport=S dport=21 class=0 helper=ftp
[DESTROY] 7 proto=6 src=127.0.0.1 dst=127.0.0.1 sport=0 dport=5001 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=127.0.0.1 master-dst=127.0.0.1 sport=S dport=21 class=0 helper=ftp`)
	l.expect(`
		print("without", connect("127.0.0.1:5001", true))
		assert(nfct.exp_query(h, "create", expectation(5001)))
		print("expected", type(connect("127.0.0.1:5001")), "used up", connect("127.0.0.1:5001", true))
		assert(nfct.exp_query(h, "create", expectation(5001, "inactive")))
		print("inactive", connect("127.0.0.1:5001", true))
		assert(nfct.exp_query(h, "flush"))
		assert(nfct.exp_query(h, "create", expectation(5001, "permanent", nil, "userspace")))
		seen = {} nfct.exp_query(h, "dump", "inet") print(shown():match("PERMANENT.-$"):sub(1, 10))
		print("permanent", type(connect("127.0.0.1:5001")), type(connect("127.0.0.1:5001")))
		print(nfct.exp_query(h, "flush") == h, nfct.exp_query(h, "dump") == h, #seen)
		-- create-update sets the timeout
		print(nfct.exp_query(h, "create-update", expectation(5001)) == h, nfct.exp_query(h, "create-update", expectation(5001)) == h)
		seen = {} nfct.exp_query(h, "dump") print(#seen, seen[1]:match(" [67] proto") ~= nil)
		-- another protocol than the master's; ftp has room for one, the older goes
		u = nfct.exp_new(master, tuple("udp", 0, 5353), tuple("udp", 0, 65535, "255.255.255.255"), 9)
		print(nfct.exp_query(h, "create", u) == h) seen = {} nfct.exp_query(h, "dump") print(#seen, seen[1]:match("proto=17"))
		-- what the kernel refuses: overlap, a mask of another family; the destination's mask is always whole
		assert(nfct.exp_query(h, "flush"))
		local wide = tuple("tcp", 0, 0, "255.255.255.0") nfct.set_attr_ipv4(wide, "ipv4-dst", "0.0.0.0")
		assert(nfct.exp_query(h, "create", nfct.exp_new(master, tuple("tcp", 0, 5001), wide, 5)))
		seen = {} nfct.exp_query(h, "dump") print(seen[1]:match("mask%-src.-dport=%d+"))
		assert(nfct.exp_query(h, "flush") and nfct.exp_query(h, "create", expectation(5001)))
		local other = tuple("tcp", 0, 5001) nfct.set_attr_ipv4(other, "ipv4-src", "127.0.0.9")
		print(nfct.exp_query(h, "create", nfct.exp_new(master, other, wide, 5)))
		local six = nfct.new() nfct.set_attr_pf(six, "l3proto", "inet6") nfct.set_attr_ipproto(six, "l4proto", "tcp") nfct.set_attr_ipv6(six, "ipv6-src", "::1") nfct.set_attr_ipv6(six, "ipv6-dst", "::1")
		print(nfct.exp_query(h, "create", nfct.exp_new(master, tuple("tcp", 0, 5009), six, 5)))
		-- the master's end is theirs
		q = assert(nfct.open("conntrack")) assert(nfct.query(q, "destroy", master))
		seen = {} nfct.exp_query(h, "dump") print(#seen)
		print(nfct.exp_query(h, "create", e))
		-- a master without helper
		sport = assert(connect("127.0.0.1:22"))
		print(nfct.exp_query(h, "create", nfct.exp_new(tuple("tcp", sport, 22), tuple("tcp", 0, 5001), mask, 5, "userspace")))
		print(nfct.exp_query(h, "create", nfct.exp_new(nfct.new(), tuple("tcp", 0, 5001), mask, 5)))
		print(pcall(nfct.exp_query, h, "create", master))`, `
without	false
expected	number	used up	false
inactive	false
PERMANENT 
permanent	number	number
true	true	0
true	true
1	true
true
1	proto=17
mask-src=255.255.255.0 mask-dst=255.255.255.255 sport=0 dport=65535
nil	Device or resource busy	16
nil	Invalid argument	22
0
nil	No such file or directory	2
nil	Operation not supported	95
nil	Invalid argument	22
false	bad argument #3 to '?' (expectation not provided)`)
}

// The destroy of a used expectation comes before the new connection, which
// carries its master.
func TestBothSubsystems(t *testing.T) {
	l := newCtLab(t)
	l.ns.Run("iptables", "-w", "-t", "raw", "-A", "OUTPUT", "-p", "tcp", "--dport", "21", "-j", "CT", "--helper", "ftp")
	l.ns.TCPEcho("127.0.0.1:21")
	l.ns.TCPEcho("127.0.0.1:5001")
	l.expect(`
		local function tuple(sport, dport, all)
			local c = nfct.new()
			nfct.set_attr_pf(c, "l3proto", "inet") nfct.set_attr_ipproto(c, "l4proto", "tcp")
			nfct.set_attr_ipv4(c, "ipv4-src", all or "127.0.0.1") nfct.set_attr_ipv4(c, "ipv4-dst", all or "127.0.0.1")
			nfct.set_attr_port(c, "port-src", sport) nfct.set_attr_port(c, "port-dst", dport)
			return c
		end
		h = assert(nfct.open("both", "new", "destroy"))
		nfct.ct_callback_register(h, function(m, c) print("ct", m, nfct.get_attr_port(c, "port-dst"), nfct.get_attr_port(c, "master-port-dst")) end)
		nfct.exp_callback_register(h, function(m, e) print("exp", m) end)
		local sport = assert(connect("127.0.0.1:21"))
		assert(nfct.exp_query(h, "create", nfct.exp_new(tuple(sport, 21), tuple(0, 5001), tuple(0, 65535, "255.255.255.255"), 5)))
		assert(connect("127.0.0.1:5001"))
		events(h)`, `
ct	new	21	0
exp	new
exp	destroy
ct	new	5001	21`)
}
