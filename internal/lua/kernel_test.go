package lua

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
	"nfctl/internal/queue"
)

// A lab is a namespace with an interpreter in it, whose scripts can send and
// receive, and run programs.
type lab struct {
	t    *testing.T
	ns   *nstest.NS
	v    *vm
	out  bytes.Buffer
	warn []string
	far  net.PacketConn // where send sends to
	near net.Conn
}

// newLab enters a namespace. In scripts send(text) sends a datagram to the far
// end, got() returns the next one that has arrived there, or nil; sh(...) runs a
// program; port is the far end's port.
func newLab(t *testing.T) *lab {
	t.Helper()
	nstest.Need(t, "iptables")
	l := &lab{t: t, ns: nstest.Enter(t)}
	t.Setenv("XTABLES_LOCKFILE", t.TempDir()+"/lock")
	l.far = l.ns.ListenUDP("127.0.0.1:0")
	var err error
	if l.near, err = l.ns.Dial("udp", l.far.LocalAddr().String(), time.Second); err != nil {
		t.Fatal(err)
	}
	l.v = newVM(&Options{Out: &l.out, Warn: func(s string) { l.warn = append(l.warn, s) }}, ".", callDepth)
	t.Cleanup(l.v.close)
	g := func(name string, f lua.LGFunction) { l.v.L.SetGlobal(name, l.v.L.NewFunction(f)) }
	g("send", func(L *lua.LState) int {
		if _, err := l.near.Write([]byte(L.CheckString(1))); err != nil {
			t.Error(err)
		}
		return 0
	})
	g("got", func(L *lua.LState) int {
		wait := 50 * time.Millisecond
		if L.GetTop() > 0 { // something must come
			wait = nstest.Patience
		}
		_ = l.far.SetReadDeadline(time.Now().Add(wait))
		b := make([]byte, 1<<16)
		n, _, err := l.far.ReadFrom(b)
		if err != nil {
			L.Push(lua.LNil)
		} else {
			L.Push(lua.LString(b[:n]))
		}
		return 1
	})
	g("sh", func(L *lua.LState) int {
		var words []string
		for i := 1; i <= L.GetTop(); i++ {
			words = append(words, L.CheckString(i))
		}
		L.Push(lua.LString(l.ns.Run(words[0], words[1:]...)))
		return 1
	})
	l.v.L.SetGlobal("port", lua.LNumber(l.far.LocalAddr().(*net.UDPAddr).Port))
	return l
}

// queue sends what goes to the far end to a queue.
func (l *lab) queue(num int) {
	l.ns.Run("iptables", "-w", "-A", "OUTPUT", "-p", "udp", "--dport", l.port(), "-j", "NFQUEUE", "--queue-num",
		strconv.Itoa(num))
}

func (l *lab) port() string { return strconv.Itoa(l.far.LocalAddr().(*net.UDPAddr).Port) }

func (l *lab) try(code string) (string, error) {
	l.t.Helper()
	l.out.Reset()
	fn, err := l.v.compile([]byte(code), "test")
	if err == nil {
		l.v.L.Push(fn)
		err = l.v.failure(l.v.L.PCall(0, 0, nil))
	}
	return strings.TrimSpace(l.out.String()), err
}

// expect runs code and compares what it prints.
func (l *lab) expect(code, want string) {
	l.t.Helper()
	got, err := l.try(code)
	if err != nil {
		l.t.Fatalf("%v\nafter\n%s", err, got)
	}
	if want = strings.TrimSpace(want); got != want {
		l.t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestQueueHandles(t *testing.T) {
	l := newLab(t)
	l.expect(`
		h = assert(nfq.open())
		print(type(h), type(nfq.fd(h)), nfq.setblocking(h) == h)
		print(nfq.catch(h, print))
		for _, f in ipairs{"inet", "inet6", "unix", "bluetooth"} do
			assert(nfq.unbind_pf(h, f) == h and nfq.bind_pf(h, f) == h and nfq.bind_pf(h, f) == h)
		end
		print(pcall(nfq.bind_pf, h, "ipv4"))
		q = assert(nfq.create_queue(h, 65536 + 7))
		print(type(q), nfq.set_mode(q) == q, nfq.set_mode(q, "meta") == q, nfq.set_mode(q, "packet", "100") == q)
		print(nfq.create_queue(h, 7))
		h2 = assert(nfq.open())
		print(nfq.create_queue(h2, 7))
		print(nfq.destroy_queue(q))
		q = assert(nfq.create_queue(h2, 7))
		print(pcall(nfq.set_mode, q, "all"))
		nfq.close(h2)
		print(pcall(nfq.set_mode, q)) nfq.close(h)
		print(pcall(nfq.fd, h))`, `
userdata	number	true
nil	timeout	11
false	bad argument #2 to '?' (invalid option 'ipv4')
userdata	true	true	true
nil	Success	0
nil	Operation not permitted	1

false	bad argument #2 to '?' (invalid option 'all')
false	bad argument #1 to '?' (queue not provided)
false	bad argument #1 to '?' (qhandle not provided)`)
}

// open makes a handle that does not block, with one queue.
const openQueue = `
h = assert(nfq.open())
nfq.setblocking(h)
q = assert(nfq.create_queue(h, 0))
nfq.set_mode(q, "packet")
`

func TestVerdicts(t *testing.T) {
	l := newLab(t)
	l.queue(0)
	l.expect(openQueue+`
		local function try(text, fn) send(text) print(nfq.catch(h, fn)) return got() end
		print(try("nothing", function() end))
		print(try("nil", function() return nil end))
		print(try("accept", function() return "accept" end))
		print(try("drop", function() return "drop" end))
		print(try("hello", function(d)
			local p = nfq.get_payload(d)
			print(#p, p:byte(1,4))
			return "accept", p:sub(1,26).."\0\0"..p:sub(29):upper()
		end))
		-- longer, with its lengths and checksum put right
		print(try("hello", function(d)
			local p = nfq.get_payload(d).."EXTRA"
			local function be(n) return string.char(math.floor(n/256), n%256) end
			local head = p:sub(1,2)..be(#p)..p:sub(5,10).."\0\0"..p:sub(13,20)
			local sum = 0
			for i = 1, 20, 2 do sum = sum + head:byte(i)*256 + head:byte(i+1) end
			while sum > 65535 do sum = sum % 65536 + math.floor(sum/65536) end
			return "accept", head:sub(1,10)..be(65535-sum)..head:sub(13)..p:sub(21,24)..be(#p-20).."\0\0"..p:sub(29)
		end))
		print(try("shorter by far", function(d)
			local p = nfq.get_payload(d)
			local function be(n) return string.char(math.floor(n/256), n%256) end
			p = p:sub(1,2)..be(33)..p:sub(5,10).."\0\0"..p:sub(13,33)
			local sum = 0
			for i = 1, 20, 2 do sum = sum + p:byte(i)*256 + p:byte(i+1) end
			while sum > 65535 do sum = sum % 65536 + math.floor(sum/65536) end
			return "accept", p:sub(1,10)..be(65535-sum)..p:sub(13,24)..be(13).."\0\0"..p:sub(29)
		end))
		print(try("bad checksum", function(d) local p = nfq.get_payload(d) return "accept", p:sub(1,26).."\1\1"..p:sub(29) end))
		print(try("number", function() return "accept", 12345 end))
		print(try("dropped", function(d) return "drop", nfq.get_payload(d) end))`, `
nil	timeout	11
nothing
nil	timeout	11
nil
nil	timeout	11
accept
nil	timeout	11
nil
33	69	0	0	33
nil	timeout	11
HELLO
nil	timeout	11
helloEXTRA
nil	timeout	11
short
nil	timeout	11
nil
nil	timeout	11
nil
nil	timeout	11
nil`)
	l.expect(`
		send("a") print(pcall(nfq.catch, h, function() return "repeat" end))
		send("b") print(pcall(nfq.catch, h, function() error("mine", 0) end))
		send("c") print(pcall(nfq.catch, h, function() error({1}) end) == false)
		kept = nil
		send("d") nfq.catch(h, function(d) kept = d end)
		print(got(1), got())
		print(pcall(nfq.get_payload, kept))
		nfq.close(h)
		print(got())`, `
false	bad argument #3 to '?' (invalid option 'repeat')
false	mine
true
d	nil
false	bad argument #1 to '?' (qdata not provided)
nil`)
	if want := "bad argument #3 to 'catch' (invalid option 'repeat')"; true {
		_, err := l.try(openQueue + `send("x") nfq.catch(h, function() return "repeat" end)`)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A packet that is sent on with a wrong checksum does not arrive; one that is
// right again does.
func TestReplacementChecksums(t *testing.T) {
	l := newLab(t)
	l.ns.Run("iptables", "-w", "-A", "OUTPUT", "-p", "icmp", "--icmp-type", "echo-request", "-j", "NFQUEUE",
		"--queue-num", "0")
	l.queue(0)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	g := func(name string, f lua.LGFunction) { l.v.L.SetGlobal(name, l.v.L.NewFunction(f)) }
	g("ask", func(*lua.LState) int { // an echo request to the loopback
		if err := unix.Sendto(fd, []byte{8, 0, 0xf5, 0xfd, 2, 1, 0, 1}, 0,
			&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Error(err)
		}
		return 0
	})
	g("answered", func(L *lua.LState) int {
		wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
		if L.GetTop() > 0 { // an answer must come
			wait = unix.NsecToTimeval(int64(nstest.Patience))
		}
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
		b := make([]byte, 100)
		for {
			n, _, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				L.Push(lua.LFalse)
				return 1
			}
			if n >= 28 && b[20] == 0 { // not the request, which the socket gets as well
				L.Push(lua.LNumber(n))
				return 1
			}
		}
	})
	l.expect(openQueue+`
		local function try(fn) ask() assert(select(2, nfq.catch(h, function(d) return "accept", fn(nfq.get_payload(d)) end)) == "timeout") end
		try(function(p) return p end) print("as it was", answered(1))
		try(function(p) return p:sub(1, 22).."\1\1"..p:sub(25) end) print("ICMP checksum", answered())
		try(function(p) return p:sub(1, 10).."\1\1"..p:sub(13) end) print("IP checksum", answered())
		-- other data, and its checksum put right: what went up by 1 there goes down here
		try(function(p) return p:sub(1, 22).."\245\252"..p:sub(25, 27)..string.char(p:byte(28) + 1) end) print("put right", answered(1))
		send("udp") nfq.catch(h, function(d) local p = nfq.get_payload(d) return "accept", p:sub(1, 10).."\1\1"..p:sub(13) end) print("UDP, IP checksum", got())
		nfq.close(h)`, `
as it was	28
ICMP checksum	false
IP checksum	false
put right	28
UDP, IP checksum	nil`)
}

func TestCopyModes(t *testing.T) {
	l := newLab(t)
	l.queue(0)
	l.expect(openQueue+`
		nfq.set_mode(q, "none")
		send("lost") print(nfq.catch(h, function() print"never" end)) print(got())
		nfq.set_mode(q, "meta")
		send("meta") print(nfq.catch(h, function(d) print(pcall(nfq.get_payload, d)) return "drop" end)) print(got())
		send("meta") nfq.catch(h, function(d) return "accept" end) print(got(1))
		nfq.set_mode(q, "packet", 30)
		send("whole all the same") nfq.catch(h, function(d) print(#nfq.get_payload(d)) end) print(got(1))
		nfq.set_mode(q, "packet", 0)
		send("everything") nfq.catch(h, function(d) print(nfq.get_payload(d):sub(29)) end) print(got(1))
		nfq.destroy_queue(q) nfq.close(h)`, `
nil	timeout	11
nil
false	bad argument #1 (nfqdata not available)
nil	timeout	11
nil
meta
30
whole all the same
everything
everything`)
}

// Packets of more than 4 KiB, and a receive buffer that was full, end nothing.
func TestQueueGoesOn(t *testing.T) {
	l := newLab(t)
	l.queue(0)
	l.expect(openQueue+`
		for _, n in ipairs{3000, 4200, 60000} do
			send(string.rep("x", n))
			nfq.catch(h, function(d) io.write("") print(#nfq.get_payload(d)) end)
			print(#got(1))
		end
		nfq.close(h)`, "3028\n3000\n4228\n4200\n60028\n60000")
}

func TestQueueOverrun(t *testing.T) {
	l := newLab(t)
	l.queue(0)
	if _, err := l.try(`h = assert(nfq.open()) nfq.setblocking(h)`); err != nil {
		t.Fatal(err)
	}
	for h := range l.v.qhandles { // one with next to no buffer
		_ = h.sock.Close()
		var err error
		if h.sock, err = queue.OpenSocket(4096); err != nil {
			t.Fatal(err)
		}
	}
	l.expect(`
		q = assert(nfq.create_queue(h, 0)) nfq.set_mode(q)
		for i = 1, 200 do send(string.rep("x", 500)) end
		n = 0 print(nfq.catch(h, function() n = n + 1 end)) print(n > 0, n < 200)
		local before = n send("last") print(nfq.catch(h, function() n = n + 1 end)) print(n - before)
		for i = 1, n - 1 do assert(#got(1) == 500) end print(got(1), got())`, "nil\ttimeout\t11\ntrue\ttrue\nnil\ttimeout\t11\n1\nlast\tnil")
	if len(l.warn) == 0 || !strings.Contains(l.warn[0], "packets were lost") {
		t.Errorf("%q", l.warn)
	}
}

func TestBothFamilies(t *testing.T) {
	l := newLab(t)
	nstest.Need(t, "ip6tables")
	l.queue(0)
	l.ns.Run("ip6tables", "-w", "-A", "OUTPUT", "-p", "udp", "--dport", "9", "-j", "NFQUEUE", "--queue-num", "0")
	six, err := l.ns.Dial("udp", "[::1]:9", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := six.Write([]byte("six")); err != nil {
		t.Fatal(err)
	}
	_, err = l.try(openQueue)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := six.Write([]byte("six")); err != nil {
		t.Fatal(err)
	}
	l.expect(`send("four") nfq.catch(h, function(d) print(math.floor(nfq.get_payload(d):byte(1) / 16)) end)`, "6\n4")
}

// What this adds to the C module.
func TestQueueAdditions(t *testing.T) {
	l := newLab(t)
	l.queue(3)
	l.ns.Run("iptables", "-w", "-I", "OUTPUT", "1", "-p", "udp", "--dport", l.port(), "-m", "mark", "--mark", "0", "-m",
		"string", "--string", "four", "--algo", "bm", "-j", "NFQUEUE", "--queue-num", "4")
	l.ns.Run("iptables", "-w", "-A", "POSTROUTING", "-t", "mangle", "-m", "mark", "--mark", "0x20", "-j", "DROP")
	l.expect(`
		h = assert(nfq.open())
		local function named(n) return function(d) print(n, nfq.packet(d).queue) return "accept", nil, n == "own" and 0x20 or 0x10 end end
		q3 = assert(nfq.create_queue(h, 3)) nfq.set_mode(q3)
		q4 = assert(nfq.create_queue(h, 4, named"own")) nfq.set_mode(q4)
		send("three") send("four")
		local began = os.time()
		print(nfq.catch(h, named"default", 0.2) == h, os.time() - began < 10)
		print(got(1), got())
		send("look")
		nfq.setblocking(h)
		nfq.catch(h, function(d)
			local p = nfq.packet(d)
			print(p.queue, p.hook, p.family, p.outdev, p.ip.src, p.ip.proto, p.ip.ttl, p.udp.dport == port, p.payload, p.tcp, p.verdict)
		end)
		print(pcall(nfq.catch, h, nil))
		nfq.close(h)`, `
default	3
own	4
true	true
three	nil
3	output	ipv4	lo	127.0.0.1	udp	64	true	look	nil	nil
false	bad argument #2 to '?' (function expected, got nil)`)
}

// Verdicts are sent before the callback can wait for their effect elsewhere: a
// packet answered a millisecond ago does not wait for the ones behind it.
func TestVerdictsAreNotHeldBack(t *testing.T) {
	l := newLab(t)
	l.queue(0)
	l.expect(openQueue+`
		for i = 1, 3 do send("packet "..i) end
		local n, seen = 0, nil
		nfq.catch(h, function()
			n = n + 1
			if n == 1 then local t = os.clock() while os.clock() - t < 0.005 do end end
			if n == 2 then seen = got(1) end
		end)
		print(n, seen, got(1), got(1))
		nfq.close(h)`, "3\tpacket 1\tpacket 2\tpacket 3")
}

// A packet left by an error stays unanswered, whatever happens to those behind it.
func TestLeftPacketStays(t *testing.T) {
	l := newLab(t)
	l.queue(0)
	l.expect(openQueue+`
		for i = 1, 30 do send("n"..i) end
		local n = 0
		print(pcall(nfq.catch, h, function() n = n + 1 if n == 5 then error("five", 0) end end))
		print(nfq.catch(h, function() n = n + 1 end))
		local all = {}
		while true do local x = got() if not x then break end all[#all+1] = x end
		print(n, #all, table.concat(all, " "):find("n5 ", 1, true), all[5])
		nfq.close(h)`, "false\tfive\nnil\ttimeout\t11\n30\t29\tnil\tn6")
}

func TestQueueLoop(t *testing.T) {
	l := newLab(t)
	l.queue(0)
	l.expect(`
		local fed
		-- a queue's packets wait for whoever binds it next only when it was bound
		print(pcall(nfq.loop, "x"))
		h = nfq.open() q = nfq.create_queue(h, 0)
		print(nfq.loop(function() end))
		nfq.close(h)`, `
false	bad argument #1 to '?' (function expected, got string)
nil	Operation not permitted`)
	bin := nstest.Build(t)
	dir := t.TempDir()
	script := dir + "/loop.lua"
	if err := os.WriteFile(script,
		[]byte(
			`require"nfq" print(nfq.loop(function(d) io.write(nfq.get_payload(d):sub(29), "\n") return "accept" end))`),
		0o600); err != nil {
		t.Fatal(err)
	}
	p := l.ns.Start(bin, "lua", script)
	nstest.Until(t, "the loop answers", func() bool {
		_, err := l.try(`send("looped") r = got()`)
		return err == nil && l.v.L.GetGlobal("r") != lua.LNil
	})
	p.WaitOutput("looped")
}

// A million callbacks leave nothing behind: neither memory nor descriptors.
func TestCallbacksLeakNothing(t *testing.T) {
	l := newLab(t)
	l.queue(0)
	rounds := 40 // of 1000 packets; NFCTL_LUA_CALLBACKS=1000000 for the whole million
	if n, err := strconv.Atoi(os.Getenv("NFCTL_LUA_CALLBACKS")); err == nil {
		rounds = n / 1000
	}
	if _, err := l.try(openQueue + `
		n, bytes = 0, 0
		function round()
			for i = 1, 100 do send("some payload") end
			nfq.catch(h, function(d) n = n + 1 bytes = bytes + #nfq.get_payload(d) return "drop" end)
		end`); err != nil {
		t.Fatal(err)
	}
	after := func(rounds int) (heap uint64, fds int) {
		if _, err := l.try(fmt.Sprintf("for i = 1, %d do round() end collectgarbage()", 10*rounds)); err != nil {
			t.Fatal(err)
		}
		return liveHeap(), openFiles(t)
	}
	heap, fds := after(5)
	grown, fdsNow := after(rounds)
	if n := l.v.L.GetGlobal("n"); n != lua.LNumber(1000*(rounds+5)) {
		t.Errorf("%v callbacks", n)
	}
	if grown > heap+256<<10 || fdsNow != fds {
		t.Errorf("heap grew from %d to %d bytes, descriptors from %d to %d", heap, grown, fds, fdsNow)
	}
	t.Logf("%d callbacks: live heap %d, then %d bytes", 1000*(rounds+5), heap, grown)
}
