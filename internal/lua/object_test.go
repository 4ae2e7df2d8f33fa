package lua

import (
	"fmt"
	"strings"
	"testing"

	"nfctl/internal/ct"
	"nfctl/internal/value"
)

// tcp makes a conntrack object in the variable c.
const tcp = `
local c = nfct.new()
nfct.set_attr_pf(c, "l3proto", "inet")
nfct.set_attr_ipproto(c, "l4proto", "tcp")
nfct.set_attr_ipv4(c, "ipv4-src", "1.2.3.4")
nfct.set_attr_ipv4(c, "ipv4-dst", "5.6.7.8")
nfct.set_attr_port(c, "port-src", 1234)
nfct.set_attr_port(c, "port-dst", 80)
`

// native is what a number read in the processor's own order looks like: in memory it
// is in the network's.
func native(little, big string) string {
	if bigEndian {
		return big
	}
	return little
}

// What calls on objects return, without the kernel.
func TestObjects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, code, want string }{
		{"addresses", tcp + `print(nfct.get_attr_u32(c,"orig-ipv4-src"), nfct.get_attr_n32(c,"orig-ipv4-src"), nfct.get_attr_ipv4(c,"orig-ipv4-src"))`,
			native("67305985", "16909060") + "\t16909060\t1.2.3.4"},
		{"ports", tcp + `print(nfct.get_attr_u16(c,"port-src"), nfct.get_attr_n16(c,"port-src"), nfct.get_attr_port(c,"port-src"))`, native("53764", "1234") + "\t1234\t1234"},
		{"tostring", tcp + `nfct.set_attr_u32(c,"timeout",120) nfct.set_attr_u8(c,"tcp-state",3) nfct.setobjopt(c,"setup-reply")
			nfct.set_attr_u32(c,"status",6) nfct.set_attr_u32(c,"mark",42) print(nfct.tostring(c))`,
			"tcp      6 120 ESTABLISHED src=1.2.3.4 dst=5.6.7.8 sport=1234 dport=80 src=5.6.7.8 dst=1.2.3.4 sport=80 dport=1234 [ASSURED] mark=42"},
		{"state out of range", tcp + `nfct.set_attr_u8(c,"tcp-state",10) print(nfct.tostring(c))`, "tcp      6 NONE src=1.2.3.4 dst=5.6.7.8 sport=1234 dport=80"},
		{"status", tcp + `for _,s in ipairs{0,2,6} do nfct.set_attr_u32(c,"status",s) print((nfct.tostring(c):gsub("^.*dport=80",""))) end`,
			" [UNREPLIED]\n\n [ASSURED]"},
		{"heads", tcp + `for _,m in ipairs{"new","update","destroy","all","error","none"} do print(nfct.tostring(c,m):sub(1,14)) end print(nfct.tostring(c,nil):sub(1,3))`,
			"[NEW] tcp \n [UPDATE] tcp \n[DESTROY] tcp \ntcp      6 src\ntcp      6 src\ntcp      6 src\ntcp"},
		{"family alias", tcp + `nfct.set_attr_pf(c,"repl-l3proto","unix") print(nfct.get_attr_pf(c,"repl-l3proto"))`, "local"},
		{"family route", tcp + `nfct.set_attr_pf(c,"repl-l3proto","route") print(nfct.get_attr_pf(c,"repl-l3proto"), nfct.get_attr_u8(c,"repl-l3proto"))`, "netlink\t16"},
		{"inet", tcp + `print(nfct.get_attr_pf(c,"l3proto"), nfct.get_attr_ipproto(c,"l4proto"))`, "inet\ttcp"},
		{"numbers without a name", `local c = nfct.new() nfct.set_attr_u8(c,"l4proto",99) nfct.set_attr_u8(c,"l3proto",200)
			print(nfct.get_attr_ipproto(c,"l4proto"), nfct.get_attr_pf(c,"l3proto"))`, "99\t200"},
		{"not set", `local c = nfct.new() print(nfct.get_attr_u8(c,"l4proto"), nfct.get_attr_u32(c,"mark"), nfct.get_attr_port(c,"port-src"),
			nfct.get_attr_pf(c,"l3proto"), nfct.get_attr_ipproto(c,"l4proto"))`, "0\t0\t0\tunspec\tip"},
		{"address not set", `local c = nfct.new() print(nfct.get_attr_ipv4(c,"ipv4-src")) print(nfct.get_attr_ipv6(c,"ipv6-src"))`,
			"nil\tNo data available\t61\nnil\tNo data available\t61"},
		{"wrong width", `local c = nfct.new() nfct.set_attr_port(c,"port-src",258) print(nfct.get_attr_ipv4(c,"port-src"))`, "1.2.0.0"},
		{"truncation", `local c = nfct.new() nfct.set_attr_u8(c,"tcp-state",300) nfct.set_attr_port(c,"port-src",70000) nfct.set_attr_u32(c,"mark",-1)
			print(nfct.get_attr_u8(c,"tcp-state"), nfct.get_attr_port(c,"port-src"), nfct.get_attr_u32(c,"mark"))`, "44\t4464\t4294967295"},
		{"chains", tcp + `print(nfct.set_attr_u32(c,"mark",1) == c, nfct.setobjopt(c,"setup-reply") == c, type(c), nfct.set_attr_ipv4(c,"ipv4-src","1.1.1.1") == c)`, "true\ttrue\tuserdata\ttrue"},
		{"identity", `local a, b = nfct.new(), nfct.new() print(a == b, a == a, getmetatable(a))`, "false\ttrue\tnil"},
		{"bad address", tcp + `print(nfct.set_attr_ipv4(c,"ipv4-src","300.1.1.1")) print(nfct.set_attr_ipv4(c,"ipv4-src",0xffffffff)) print(nfct.get_attr_ipv4(c,"ipv4-src"))`,
			"nil\tInvalid argument\t22\nnil\tInvalid argument\t22\n1.2.3.4"},
		{"ipv6", `local c = nfct.new() nfct.set_attr_ipv6(c,"ipv6-src","fd00::1") print(nfct.get_attr_ipv6(c,"orig-ipv6-src"))`, "fd00::1"},
		{"numbers as text", tcp + `nfct.set_attr_port(c,"port-dst","80") nfct.set_attr_u32(c,"timeout","15") nfct.set_attr_u32(c,"mark","0x10")
			print(nfct.get_attr_port(c,"port-dst"), nfct.get_attr_u32(c,"timeout"), nfct.get_attr_u32(c,"mark"))`, "80\t15\t16"},
		{"byte order", `print(nfct.htons(80), nfct.ntohs(20480), nfct.ntohs(65616), nfct.htons("80"))`, native("20480\t80\t20480\t20480", "80\t20480\t80\t80")},
		{"counters cannot be set", tcp + `nfct.set_attr_u32(c,"use",7) nfct.set_attr_u32(c,"orig-counter-packets",9) nfct.set_attr_u32(c,"id",5)
			print(nfct.get_attr_u32(c,"use"), nfct.get_attr_u32(c,"orig-counter-packets"), nfct.get_attr_u32(c,"id"))
			print((nfct.tostring(c):match("use=%d+")))`, "0\t0\t5\nuse=0"},
		{"64 bits", `local c = nfct.new() nfct.set_attr_u64(c,"timestamp-start",1700000000123456768) print(string.format("%d",nfct.get_attr_u64(c,"timestamp-start")), nfct.get_attr_u32(c,"timestamp-start"))`,
			"1700000000123456768\t" + native(fmt.Sprint(uint32(1700000000123456768&0xffffffff)), fmt.Sprint(1700000000123456768>>32))},
		{"network order set", tcp + `nfct.set_attr_n16(c,"port-src",1234) nfct.set_attr_n32(c,"ipv4-src",16909060)
			print((nfct.tostring(c):match("src=%S+")), (nfct.tostring(c):match("sport=%d+")))`, "src=1.2.3.4\tsport=1234"},
		{"groups", tcp + `print(nfct.get_attr_n32(c,"grp-orig-ipv4")) nfct.set_attr_port(c,"grp-orig-port",1,2) print(nfct.get_attr_port(c,"grp-orig-port"))
			print(nfct.get_attr_ipv4(c,"grp-orig-ipv4")) print(nfct.get_attr_u32(c,"grp-max"))`, "16909060\t84281096\n1\t2\n1.2.3.4\t5.6.7.8\n0"},
		{"empty", `print(nfct.tostring(nfct.new()))`, "unknown  0 src=0.0.0.0 dst=0.0.0.0"},
		{"icmp", `local c = nfct.new() nfct.set_attr_pf(c,"l3proto","inet") nfct.set_attr_ipproto(c,"l4proto","icmp")
			nfct.set_attr_ipv4(c,"ipv4-src","10.99.0.1") nfct.set_attr_ipv4(c,"ipv4-dst","10.99.0.2") nfct.set_attr_u8(c,"icmp-type",8) nfct.set_attr_u8(c,"icmp-code",0)
			nfct.set_attr_n16(c,"icmp-id",14675) nfct.setobjopt(c,"setup-reply") nfct.set_attr_u32(c,"timeout",2) nfct.set_attr_u32(c,"status",0) print(nfct.tostring(c,"new"))`,
			"[NEW] icmp     1 2 src=10.99.0.1 dst=10.99.0.2 type=8 code=0 id=14675 [UNREPLIED] src=10.99.0.2 " +
				"dst=10.99.0.1 type=0 code=0 id=14675"},
		{"gre", `local c = nfct.new() nfct.set_attr_pf(c,"l3proto","inet") nfct.set_attr_ipproto(c,"l4proto","gre")
			nfct.set_attr_ipv4(c,"ipv4-src","10.0.0.1") nfct.set_attr_ipv4(c,"ipv4-dst","10.0.0.2") nfct.set_attr_port(c,"port-src",1000) nfct.set_attr_port(c,"port-dst",2000)
			nfct.setobjopt(c,"setup-reply") nfct.set_attr_u32(c,"timeout",30) print(nfct.tostring(c))`,
			"gre      47 30 src=10.0.0.1 dst=10.0.0.2 srckey=0x3e8 dstkey=0x7d0 src=10.0.0.2 dst=10.0.0.1 " +
				"srckey=0x7d0 dstkey=0x3e8"},
		{"ICMPv6 answers", `for _, t in ipairs{128, 3} do
			local c = nfct.new() nfct.set_attr_pf(c,"l3proto","inet6") nfct.set_attr_ipproto(c,"l4proto","icmpv6") nfct.set_attr_u8(c,"icmp-type",t) nfct.set_attr_u8(c,"icmp-code",0)
			nfct.set_attr_ipv6(c,"ipv6-src","fd00::1") nfct.set_attr_ipv6(c,"ipv6-dst","fd00::2") nfct.set_attr_n16(c,"icmp-id",1) nfct.setobjopt(c,"setup-reply") print(nfct.tostring(c)) end`,
			"icmpv6   58 src=fd00::1 dst=fd00::2 type=128 code=0 id=1 src=fd00::2 dst=fd00::1 type=129 code=0 id=1\n" +
				"icmpv6   58 src=fd00::1 dst=fd00::2 type=3 code=0 id=1 src=fd00::2 dst=fd00::1 type=255 code=0 id=1"},
		{"ports of every protocol", `for _, p in ipairs{"tcp","udp","udplite","sctp","dccp"} do
			local c = nfct.new() nfct.set_attr_pf(c,"l3proto","inet") nfct.set_attr_ipproto(c,"l4proto",p) nfct.set_attr_ipv4(c,"ipv4-src","10.0.0.1") nfct.set_attr_ipv4(c,"ipv4-dst","10.0.0.2")
			nfct.set_attr_port(c,"port-src",1) nfct.set_attr_port(c,"port-dst",2) nfct.setobjopt(c,"setup-reply") print(nfct.tostring(c)) end`,
			"tcp      6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1\n" +
				"udp      17 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1\n" +
				"udplite  136 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1\n" +
				"sctp     132 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1\n" +
				"dccp     33 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1"},
		{"a protocol without a name", `local c = nfct.new() nfct.set_attr_pf(c,"l3proto","inet") nfct.set_attr_u8(c,"l4proto",50) nfct.set_attr_u32(c,"timeout",9) print(nfct.tostring(c))`,
			"unknown  50 9 src=0.0.0.0 dst=0.0.0.0"},
		{"order of the fields", tcp + `nfct.set_attr_u32(c,"use",1) nfct.set_attr_u16(c,"zone",7) nfct.set_attr_u32(c,"secmark",3) nfct.set_attr_u32(c,"mark",42)
			nfct.set_attr_u32(c,"status",6) nfct.set_attr_u32(c,"timeout",5) nfct.setobjopt(c,"setup-reply") print(nfct.tostring(c,"update"))
			for _, s in ipairs{16384+6, 32768+16384+6, 32768+6, 4, 0} do nfct.set_attr_u32(c,"status",s) print((nfct.tostring(c):gsub("^.*dport=1234",""):gsub(" mark.*$",""))) end`,
			"[UPDATE] tcp      6 5 src=1.2.3.4 dst=5.6.7.8 sport=1234 dport=80 src=5.6.7.8 dst=1.2.3.4 sport=80 " +
				"dport=1234 [ASSURED] mark=42 secmark=3 zone=7 use=0\n" +
				" [OFFLOAD]\n [HW_OFFLOAD]\n [HW_OFFLOAD]\n [ASSURED]\n"},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, c.code, c.want) })
	}
}

// The six options of setobjopt on one translated flow.
func TestSetObjOpt(t *testing.T) {
	t.Parallel()
	const flow = `
local function make()
	local c = nfct.new()
	nfct.set_attr_pf(c, "orig-l3proto", "inet") nfct.set_attr_ipproto(c, "orig-l4proto", "udp")
	nfct.set_attr_pf(c, "repl-l3proto", "inet") nfct.set_attr_ipproto(c, "repl-l4proto", "udp")
	nfct.set_attr_ipv4(c, "orig-ipv4-src", "10.0.0.1") nfct.set_attr_port(c, "orig-port-src", 1111)
	nfct.set_attr_ipv4(c, "orig-ipv4-dst", "10.0.0.2") nfct.set_attr_port(c, "orig-port-dst", 2222)
	nfct.set_attr_ipv4(c, "repl-ipv4-src", "10.0.0.3") nfct.set_attr_port(c, "repl-port-src", 3333)
	nfct.set_attr_ipv4(c, "repl-ipv4-dst", "10.0.0.4") nfct.set_attr_port(c, "repl-port-dst", 4444)
	return c
end
local function tuple(c, d)
	return nfct.get_attr_ipv4(c, d.."-ipv4-src")..":"..nfct.get_attr_port(c, d.."-port-src").." > "..nfct.get_attr_ipv4(c, d.."-ipv4-dst")..":"..nfct.get_attr_port(c, d.."-port-dst")
end
local c = make()
assert(nfct.setobjopt(c, arg[1]) == c)
print(tuple(c, "orig")) print(tuple(c, "repl"))
print((nfct.get_attr_ipv4(c,"snat-ipv4")), (nfct.get_attr_ipv4(c,"dnat-ipv4")), nfct.get_attr_port(c,"snat-port"), nfct.get_attr_port(c,"dnat-port"))`
	const orig, none = "10.0.0.1:1111 > 10.0.0.2:2222", "nil\tnil\t0\t0"
	for _, c := range []struct{ option, orig, reply, nat string }{
		{"undo-snat", orig, "10.0.0.3:3333 > 10.0.0.1:4444", "10.0.0.4\tnil\t0\t0"},
		{"undo-dnat", orig, "10.0.0.2:3333 > 10.0.0.4:4444", "nil\t10.0.0.3\t0\t0"},
		{"undo-spat", orig, "10.0.0.3:3333 > 10.0.0.4:1111", "nil\tnil\t4444\t0"},
		{"undo-dpat", orig, "10.0.0.3:2222 > 10.0.0.4:4444", "nil\tnil\t0\t3333"},
		{"setup-reply", orig, "10.0.0.2:2222 > 10.0.0.1:1111", none},
		{"setup-original", "10.0.0.4:4444 > 10.0.0.3:3333", "10.0.0.3:3333 > 10.0.0.4:4444", none},
	} {
		got, err := run(t, flow, c.option)
		if want := c.orig + "\n" + c.reply + "\n" + c.nat + "\n"; err != nil || got != want {
			t.Errorf("%s: %v\n%swant\n%s", c.option, err, got, want)
		}
	}
	// Without a family the address options do nothing; with inet6 they move IPv6
	// addresses.
	expect(t, `local c = nfct.new() nfct.setobjopt(c,"undo-snat") print(nfct.tostring(c), (nfct.get_attr_ipv4(c,"snat-ipv4")))
		nfct.set_attr_pf(c,"orig-l3proto","inet6") nfct.set_attr_pf(c,"repl-l3proto","inet6")
		nfct.set_attr_ipv6(c,"orig-ipv6-src","fd00::1") nfct.set_attr_ipv6(c,"repl-ipv6-dst","fd00::9") nfct.setobjopt(c,"undo-snat")
		print(nfct.get_attr_ipv6(c,"snat-ipv6"), nfct.get_attr_ipv6(c,"repl-ipv6-dst"))`,
		"unknown  0 src=0.0.0.0 dst=0.0.0.0\tnil\nfd00::9\tfd00::1")
}

// Raised errors, in the words of the C modules. Through pcall no name is known.
func TestArgumentErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ call, want string }{
		{`nfct.open, "conntrack", "bogus"`, "bad argument #2 to '?' (invalid option 'bogus')"},
		{`nfct.open, "Conntrack"`, "bad argument #1 to '?' (invalid option 'Conntrack')"},
		{`nfct.get_attr_u8, 5, "mark"`, "bad argument #1 to '?' (conntrack not provided)"},
		{`nfct.tostring`, "bad argument #1 to '?' (conntrack not provided)"},
		{`nfct.set_attr_u8, nfct.new(), "mark", "http"`, "bad argument #3 to '?' (number expected, got string)"},
		{`nfct.set_attr_u8, nfct.new(), "mark"`, "bad argument #3 to '?' (number expected, got no value)"},
		{`nfct.set_attr_u8, nfct.new(), "mark", nil`, "bad argument #3 to '?' (number expected, got nil)"},
		{`nfct.set_attr_port, nfct.new(), "port-src", "ssh"`, "bad argument #3 to '?' (number expected, got string)"},
		{`nfct.get_attr_u8, nfct.new(), "Mark"`, "bad argument #2 to '?' (invalid option 'Mark')"},
		{`nfct.get_attr_u8, nfct.new(), "orig.src"`, "bad argument #2 to '?' (invalid option 'orig.src')"},
		{`nfct.get_attr_u8, nfct.new(), "exp-timeout"`, "bad argument #2 to '?' (invalid option 'exp-timeout')"},
		{`nfct.set_attr_pf, nfct.new(), "l3proto", "ipv4"`, "bad argument #3 to '?' (invalid option 'ipv4')"},
		{`nfct.set_attr_ipproto, nfct.new(), "l4proto", "icmp6"`, "bad argument #3 to '?' (invalid option 'icmp6')"},
		{`nfct.set_attr_ipproto, nfct.new(), "l4proto", 6`, "bad argument #3 to '?' (invalid option '6')"},
		{`nfct.setobjopt, nfct.new(), "bogus"`, "bad argument #2 to '?' (invalid option 'bogus')"},
		{`nfct.tostring, nfct.new(), "bogus"`, "bad argument #2 to '?' (invalid option 'bogus')"},
		{`nfq.close, nfct.new()`, "bad argument #1 to '?' (qhandle not provided)"},
		{`nfq.get_payload, nil`, "bad argument #1 to '?' (qdata not provided)"},
		{`nfct.exp_new, nfct.new(), nfct.new(), nfct.new()`, "bad argument #4 to '?' (number expected, got no value)"},
		{`nfct.exp_new, nfct.new(), nfct.new(), nfct.new(), 1, "forever"`, "bad argument #5 to '?' (invalid option 'forever')"},
	} {
		expect(t, "print(pcall("+c.call+"))", "false\t"+c.want)
	}
	expect(t, `print(pcall(function() nfct.open("conntrack", "bogus") end))`,
		"false\t(command line):1: bad argument #2 to 'open' (invalid option 'bogus')")
	expect(t, `local c = nfct.new() nfct.destroy(c) print(pcall(nfct.tostring, c))`,
		"false\tbad argument #1 to '?' (conntrack not provided)")
}

// Every name of the attribute tables and of the C modules is one.
func TestNames(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("local c = nfct.new()\n")
	n := 0
	for i := range ct.FlowAttrs() {
		a := &ct.FlowAttrs()[i]
		if a.Name == "" {
			continue
		}
		n++
		fmt.Fprintf(&b, "assert(type(nfct.get_attr_u32(c, %q)) == 'number')\n", a.Name)
	}
	for _, name := range strings.Fields(`ipv4-src ipv4-dst ipv6-src ipv6-dst port-src port-dst l3proto l4proto
		grp-orig-ipv4 grp-repl-ipv4 grp-orig-ipv6 grp-repl-ipv6 grp-orig-port grp-repl-port grp-icmp grp-master-ipv4 grp-master-ipv6
		grp-master-port grp-orig-counters grp-repl-counters grp-orig-addr-src grp-orig-addr-dst grp-repl-addr-src grp-repl-addr-dst grp-max`) {
		fmt.Fprintf(&b, "assert(type(nfct.get_attr_u32(c, %q)) == 'number')\n", name)
	}
	b.WriteString("local e = nfct.exp_new(c, c, c, 7, 'permanent')\nassert(nfct.get_attr_u32(e, 'exp-timeout') == 7 " +
		"and nfct.get_attr_u32(e, 'exp-flags') == 1)\n")
	for _, f := range value.Families.List() {
		if f.Word != "ipv4" && f.Word != "ipv6" {
			fmt.Fprintf(&b, "nfct.set_attr_pf(c, 'l3proto', %q) assert(nfct.get_attr_u8(c, 'l3proto') == %d)\n", f.Word,
				f.Num)
		}
	}
	for _, p := range value.Protocols.List() {
		if p.Num < 256 {
			fmt.Fprintf(&b, "nfct.set_attr_ipproto(c, 'l4proto', %q) assert(nfct.get_attr_u8(c, 'l4proto') == %d)\n",
				p.Word, p.Num)
		}
	}
	for _, name := range strings.Fields(
		`open close fd setblocking unbind_pf bind_pf create_queue destroy_queue set_mode catch loop get_payload packet`) {
		fmt.Fprintf(&b, "assert(type(nfq.%s) == 'function')\n", name)
	}
	for _, name := range strings.Fields(`open close fd setblocking ct_callback_register exp_callback_register catch loop new destroy tostring
		get_attr_u8 get_attr_u16 get_attr_u32 get_attr_u64 get_attr_n16 get_attr_n32 get_attr_port get_attr_ipv4 get_attr_ipv6 get_attr_pf get_attr_ipproto
		set_attr_u8 set_attr_u16 set_attr_u32 set_attr_u64 set_attr_n16 set_attr_n32 set_attr_port set_attr_ipv4 set_attr_ipv6 set_attr_pf set_attr_ipproto
		ntohs htons setobjopt exp_new exp_destroy exp_tostring exp_query query`) {
		fmt.Fprintf(&b, "assert(type(nfct.%s) == 'function')\n", name)
	}
	if got, err := run(t, b.String()); err != nil {
		t.Errorf("%v\n%s", err, got)
	}
	if n < 76 {
		t.Errorf("%d attributes", n)
	}
}

func TestExpectationText(t *testing.T) {
	t.Parallel()
	expect(t, tcp+`local e = nfct.exp_new(c, c, c, 300, "permanent", nil, "inactive", "userspace")
		print(nfct.exp_tostring(e)) print(nfct.exp_tostring(e, "new"):sub(1,9)) print(type(e), nfct.exp_destroy(e)) print(pcall(nfct.exp_tostring, e))`,
		`300 proto=6 src=1.2.3.4 dst=5.6.7.8 sport=1234 dport=80 mask-src=1.2.3.4 mask-dst=5.6.7.8 sport=1234 dport=80 master-src=1.2.3.4 master-dst=5.6.7.8 sport=1234 dport=80 PERMANENT,INACTIVE,USERSPACE
    [NEW]
userdata
false	bad argument #1 to '?' (expectation not provided)`)
}
