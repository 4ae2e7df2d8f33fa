package lua

import (
	"fmt"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"

	"nfctl/internal/nstest"
)

// newHelperLab is a lab for expectations. In scripts master(proto, sport, helper)
// makes an entry that has a helper from its birth and returns an object for it,
// expected(proto, dport, src) one for a tuple, or for a mask where proto is nil.
func newHelperLab(t *testing.T) *lab {
	l := newCtLab(t)
	l.v.L.SetGlobal("nfctl", lua.LString(nstest.Build(t)))
	if _, err := l.try(`
		function master(proto, sport, helper)
			local more = proto == "tcp" and {"--state", "ESTABLISHED"} or {}
			if helper then more[#more+1] = "--helper" more[#more+1] = helper end
			sh(nfctl, "ct", "create", proto.." 10.1.0.1:"..sport.." > 10.1.0.2:99", "--timeout", "100", unpack(more))
			return flow(sport, 99, proto)
		end
		function tuple(proto, sport, dport, addr)
			local c = nfct.new()
			nfct.set_attr_pf(c, "l3proto", "inet") nfct.set_attr_ipproto(c, "l4proto", proto)
			nfct.set_attr_ipv4(c, "ipv4-src", addr or "10.1.0.2") nfct.set_attr_ipv4(c, "ipv4-dst", addr or "10.1.0.1")
			nfct.set_attr_port(c, "port-src", sport) nfct.set_attr_port(c, "port-dst", dport)
			return c
		end
		function expectation(m, proto, dport, class, ...)
			local e = nfct.exp_new(m, tuple(proto, 0, dport), tuple(proto, 0, 65535, "255.255.255.255"), 77, ...)
			if class and class >= 0 then nfct.set_attr_u32(e, "exp-class", class) end
			return e
		end
		function name(word) local n = 0 for i = #word, 1, -1 do n = n * 256 + word:byte(i) end return n end -- as bytes of a number
		h = assert(nfct.open("expect"))
		q = assert(nfct.open("conntrack"))
		nfct.exp_callback_register(h, function(m, e)
			local text = nfct.exp_tostring(e)
			seen[#seen+1] = {text = text, port = tonumber(text:match("dport=(%d+)"))}
		end)
		function dump() seen = {} assert(nfct.exp_query(h, "dump")) return seen end
	`); err != nil {
		t.Fatal(err)
	}
	return l
}

// How many expectations a helper's policy allows, and for how long: one more
// makes the oldest go, silently. The timeout given is not looked at.
func TestHelperLimits(t *testing.T) {
	l := newHelperLab(t)
	const made = 40
	for i, c := range []struct {
		proto, helper string
		class         int // -1: none given
		limit         int
		seconds       int
	}{
		{"tcp", "ftp", -1, 1, 300}, {"udp", "tftp", -1, 1, 300}, {"tcp", "sane", -1, 1, 300}, {"tcp", "pptp", -1, 2, 300}, {"udp", "amanda", -1, 4, 180},
		{"tcp", "irc", -1, 8, 300}, {"tcp", "Q.931", -1, 20, 240}, {"udp", "H.245", -1, 18, 240}, {"udp", "RAS", -1, 32, 240}, {"udp", "snmp", -1, 1, 30},
		{"udp", "netbios-ns", -1, 1, 3}, {"udp", "snmp_trap", -1, made, 180},
		{"udp", "sip", 0, 1, 180}, {"udp", "sip", 1, 4, 180}, {"udp", "sip", 2, 4, 180}, {"udp", "sip", 3, 2, 180}, {"tcp", "sip", -1, 1, 180},
	} {
		// A second or two may pass before they are read.
		l.expect(fmt.Sprintf(`
			local proto, helper, class, limit, seconds = %q, %q, %d, %d, %d
			local m = master(proto, %d, helper)
			for n = 1, %d do assert(nfct.exp_query(h, "create", expectation(m, proto, 5000 + n, class))) end
			local all, last = dump(), 0
			for _, x in ipairs(all) do
				last = math.max(last, x.port)
				assert(x.port > 5000 + %[7]d - limit, x.text)
				local left = tonumber(x.text:match("^%%d+"))
				assert(left <= seconds and left >= seconds - math.min(60, seconds - 1), x.text)
				assert(x.text:find("helper="..helper, 1, true), x.text)
			end
			print(helper, #all == limit or seconds < 10, last)
			assert(nfct.exp_query(h, "flush") and nfct.query(q, "destroy", m))`, c.proto, c.helper, c.class, c.limit, c.seconds, 1000+i, made),
			fmt.Sprintf("%s\ttrue\t%d", c.helper, 5000+made))
	}
}

// What the kernel requires of an expectation's master and of its parts.
func TestExpectationRefusals(t *testing.T) {
	l := newHelperLab(t)
	unlooked := "Invalid argument	22"
	if !nstest.Since(t, 6, 1) { // 5.10 looks at neither class nor flags
		unlooked = "made"
	}
	l.expect(`
		local ftp, plain = master("tcp", 1, "ftp"), master("tcp", 2)
		local function create(e)
			local made, text, number = nfct.exp_query(h, "create", e)
			if made then assert(nfct.exp_query(h, "destroy", e)) print("made") else print(text, number) end
		end
		-- a master in another zone, one without a helper, whatever is named
		local far = flow(1, 99, "tcp") nfct.set_attr_u16(far, "zone", 5)
		create(expectation(far, "tcp", 5001))
		create(expectation(plain, "tcp", 5001))
		create(expectation(plain, "tcp", 5001, nil, "userspace"))
		local e = expectation(plain, "tcp", 5001) nfct.set_attr_u64(e, "exp-helper-name", name"ftp")
		create(e)
		-- no tuple, mask or master
		local none = nfct.new()
		create(nfct.exp_new(none, tuple("tcp", 0, 5001), tuple("tcp", 0, 65535), 5))
		create(nfct.exp_new(ftp, none, tuple("tcp", 0, 65535), 5))
		create(nfct.exp_new(ftp, tuple("tcp", 0, 5001), none, 5))
		-- a class that the helper has not, unknown flags, no direction for an address, a function that is none
		create(expectation(ftp, "tcp", 5001, 1))
		e = expectation(ftp, "tcp", 5001) nfct.set_attr_u32(e, "exp-flags", 8) create(e)
		e = expectation(ftp, "tcp", 5001) nfct.set_attr_u64(e, "exp-fn", name"bogus") create(e)
		print(#dump())`, `
No such file or directory	2
Operation not supported	95
Operation not supported	95
Operation not supported	95
Invalid argument	22
Invalid argument	22
Invalid argument	22
`+unlooked+`
`+unlooked+`
Invalid argument	22
0`)
	// A helper is there from birth: it can be taken away, but neither added nor
	// replaced.
	l.expect(`
		local function helper(m, word) nfct.set_attr_u64(m, "helper-name", name(word)) print(select(2, nfct.query(q, "update", m))) end
		ftp, plain = master("tcp", 11, "ftp"), master("tcp", 12)
		helper(plain, "ftp") helper(ftp, "irc") helper(ftp, "ftp")
		assert(nfct.exp_query(h, "create", expectation(ftp, "tcp", 5001))) print(#dump())`, `
Operation not supported	95
Device or resource busy	16

1`)
	took, err := l.try(`
		nfct.set_attr_u64(ftp, "helper-name", name("")) print(select(2, nfct.query(q, "update", ftp))) print(#dump())
		print(select(2, nfct.exp_query(h, "create", expectation(ftp, "tcp", 5002))))`)
	switch got := strings.TrimSpace(took); {
	case err == nil && got == "0\nOperation not supported	95":
	case err == nil && got == "Operation not supported	95\n1" && nstest.Since(t, 7, 0):
		t.Log("this kernel takes a helper from no entry")
	case err == nil && got == "0" && !nstest.Since(t, 6, 1):
		t.Log("this kernel makes expectations of an entry whose helper was taken away")
	default:
		t.Errorf("an empty helper: %q, %v", got, err)
	}
	// Created with a timeout, it has the helper's; the second message sets it.
	l.expect(`
		local m = master("udp", 21, "tftp")
		local e = expectation(m, "udp", 5001)
		local function left() return tonumber(dump()[1].text:match("^%d+")) end
		assert(nfct.exp_query(h, "create", e)) print(left() > 200)
		print(nfct.exp_query(h, "create", e)) print(left() > 200)
		assert(nfct.exp_query(h, "update", e)) print(left() <= 77)
		nfct.set_attr_u32(e, "exp-timeout", 50) assert(nfct.exp_query(h, "create-update", e)) print(left() <= 50)
		assert(nfct.query(q, "destroy", m)) print(#dump())`, `
true
nil	File exists	17
true
true
true
0`)
}
