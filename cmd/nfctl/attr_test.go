package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"

	"nfctl/internal/attrs"
	"nfctl/internal/ct"
	"nfctl/internal/nstest"
)

func TestAttrWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args   string // separated by '|'
		status int
		out    string // the whole of standard output; "~…": a part of it
		err    string // a part of standard error
	}{
		{"encode|port-dst|80", 0, "0050\n", ""},
		{"encode|port-dst|ssh", 0, "0016\n", ""},
		{"encode|ipv4-src|1.2.3.4", 0, "01020304\n", ""},
		{"encode|ipv6-src|fd00::1", 0, "fd000000000000000000000000000001\n", ""},
		{"encode|tcp-state|ESTABLISHED", 0, "03\n", ""},
		{"encode|mark|0x10", 0, "10000000\n", ""},
		{"encode|l4proto|tcp", 0, "06\n", ""},
		{"encode|exp-timeout|30s", 0, "1e000000\n", ""},
		{"encode|port-dst|70000", 2, "", `"70000"`},
		{"encode|exp-master|x", 2, "", ""},
		{"encode|nonsense|1", 2, "", "nfctl attr list"},
		{"encode|mark", 2, "", "takes"},
		{"encode|mark|1|2", 2, "", `unexpected argument "2"`},
		{"decode|port-dst|0050", 0, "80\n", ""},
		{"decode|port-dst|0x0016", 0, "22\n", ""},
		{"decode|ipv4-src|01:02:03:04", 0, "1.2.3.4\n", ""},
		{"decode|mark|10000000", 0, "16\n", ""},
		{"decode|mark|10", 2, "", "4 bytes"},
		{"decode|mark|zz", 2, "", "hexadecimal"},
		{"decode|status|06000000", 0, "SEEN_REPLY,ASSURED\n", ""},
		{"values|dccp-role", 0, "0      client\n1      server\n", ""},
		{"values|tcp-state", 0, "~3      ESTABLISHED\n", ""},
		{"values|l3proto", 0, "~10     inet6\n", ""},
		{"values|orig-l4proto", 0, "~136    udplite\n", ""},
		{"values|status|-o|json", 0, `~{"kind":"value","of":"status","name":"ASSURED","number":4}`, ""},
		{"values|tcp-stat", 2, "", `did you mean "tcp-state"?`},
		{"values|-o|json", 2, "", "name an attribute"},
		{"show|ipv4-src", 0, "~name      orig-ipv4-src\naliases   ipv4-src\n", ""},
		{"show|grp-icmp", 0, "~icmp-id and icmp-code and icmp-type", ""},
		{"show|tcp-stat", 2, "", `did you mean "tcp-state"?`},
		{"show", 2, "", "the name of an attribute"},
		{"list|x", 2, "", `"x"`},
		{"list|-o|save", 2, "", "save"},
		{"lst", 2, "", `did you mean "nfctl attr list"?`},
		{"build|bogus=1", 2, "", "bogus"},
		{"build|mark", 2, "", "NAME=VALUE"},
		{"build|exp-timeout=3", 2, "", "expectation"},
		{"build|mark=1|--opt|undo-snat,", 2, "", "setup-reply"},
		{"build|mark=1|--opt|setup-repl", 2, "", `did you mean "setup-reply"?`},
		{"get|tcp > :22|mark", 2, "", "tcp > :22"},
		{"set|tcp 10.0.0.1:1 > 10.0.0.2:2|id=3", 2, "", "the kernel ignores it"},
		{"set|tcp 10.0.0.1:1 > 10.0.0.2:2|port-dst=3", 2, "", "the kernel finds the flow by it"},
		{"set|tcp 10.0.0.1:1 > 10.0.0.2:2|mark", 2, "", "NAME=VALUE"},
		{"get|tcp 10.0.0.1:1 > 10.0.0.2:2|mark|-o|json", 2, "", "prints no objects"},
		{"get|tcp 10.0.0.1:1 > 10.0.0.2:2|exp-class", 2, "", "expectation"},
	} {
		out, err, status := call(append([]string{"attr"}, strings.Split(c.args, "|")...)...)
		part, isPart := strings.CutPrefix(c.out, "~")
		if status != c.status || !isPart && out != c.out || isPart && !strings.Contains(out, part) ||
			!strings.Contains(err, c.err) {
			t.Errorf("attr %s: %d\n%s%s\nwant %d, %q, %q", c.args, status, out, err, c.status, c.out, c.err)
		}
	}
}

// Every attribute, alias, family and protocol of libnetfilter_conntrack and of
// netfilter-lua is known by that spelling.
func TestAttrSpellings(t *testing.T) {
	t.Parallel()
	table, err := os.ReadFile("../../internal/ct/testdata/attributes.tsv")
	if err != nil {
		t.Fatal(err)
	}
	list, _, status := call("attr", "list", "-o", "json")
	if status != 0 {
		t.Fatal(list)
	}
	type row struct{ Name, Aliases, Create, Update string }
	known := map[string]row{}
	for line := range strings.Lines(list) {
		var r row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		known[r.Name] = r
	}
	settable, _, _ := call("attr", "list", "--settable", "-o", "json")
	n := 0
	for line := range strings.Lines(string(table)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || len(f) < 7 {
			continue
		}
		n++
		r, ok := known[f[0]]
		if !ok || !strings.Contains(","+r.Aliases, ","+f[1]) {
			t.Errorf("%s: aliases %q, want %q", f[0], r.Aliases, f[1])
		}
		for _, c := range [][2]string{{r.Create, f[5]}, {r.Update, f[6]}} {
			if strings.HasPrefix(c[0], "yes") != (c[1] == "yes") {
				t.Errorf("%s: %q, want %s", f[0], c[0], c[1])
			}
		}
		if in := strings.Contains(settable, `"name":"`+f[0]+`"`); in != (f[5] == "yes" || f[6] == "yes") {
			t.Errorf("%s: --settable lists it: %v", f[0], in)
		}
	}
	if n < 80 || !strings.Contains(list, `"name":"grp-orig-addr-src"`) {
		t.Errorf("%d attributes in the table", n)
	}
	for _, c := range []struct{ of, words string }{
		{"l3proto", "unspec local unix file inet ax25 ipx appletalk netrom bridge atmpvc x25 inet6 rose decnet netbeui security key netlink route packet ash econet atmsvc rds sna irda pppox wanpipe llc can tipc bluetooth iucv rxrpc isdn phonet ieee802154"},
		{"l4proto", "ip hopopts icmp igmp ipip tcp egp pup udp idp tp dccp ipv6 routing fragment rsvp gre esp ah icmpv6 none dstopts mtp encap pim comp sctp udplite raw"},
	} {
		out, _, _ := call("attr", "values", c.of)
		for w := range strings.FieldsSeq(c.words) {
			if !strings.Contains(out, " "+w+"\n") {
				t.Errorf("%s: no %s", c.of, w)
			}
		}
	}
}

// Twice the same attribute, by whatever names, is a mistake.
func TestAttrTwice(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"attr", "build", "proto=tcp", "proto=udp"},
		{"attr", "build", "l4proto=tcp", "orig-l4proto=udp"}, {"attr", "set", "tcp 10.0.0.1:1 > 10.0.0.2:2", "mark=1", "mark=2"}} {
		if _, words, status := call(args...); status != exitUsage || !strings.Contains(words, "is set twice") {
			t.Errorf("%q: status %d: %s", args, status, words)
		}
	}
}

// The values before and after libnetfilter_conntrack's options of an object.
func TestAttrBuild(t *testing.T) {
	t.Parallel()
	const (
		start = "l3proto=inet l4proto=udp ipv4-src=10.0.0.1 ipv4-dst=10.0.0.2 port-src=1111 port-dst=2222 " +
			"repl-ipv4-src=10.0.0.3 repl-ipv4-dst=10.0.0.4 repl-port-src=3333 repl-port-dst=4444"
		orig = "udp      17 src=10.0.0.1 dst=10.0.0.2 sport=1111 dport=2222 "
	)
	for _, c := range []struct{ attrs, opt, format, want string }{
		{start, "", "text", orig + "src=10.0.0.3 dst=10.0.0.4 sport=3333 dport=4444\n"},
		{start, "undo-snat", "text", orig + "src=10.0.0.3 dst=10.0.0.1 sport=3333 dport=4444\n"},
		{start, "undo-dnat", "text", orig + "src=10.0.0.2 dst=10.0.0.4 sport=3333 dport=4444\n"},
		{start, "undo-spat", "text", orig + "src=10.0.0.3 dst=10.0.0.4 sport=3333 dport=1111\n"},
		{start, "undo-dpat", "text", orig + "src=10.0.0.3 dst=10.0.0.4 sport=2222 dport=4444\n"},
		{start, "setup-reply", "text", orig + "src=10.0.0.2 dst=10.0.0.1 sport=2222 dport=1111\n"},
		{start, "setup-original", "text", "udp      17 src=10.0.0.4 dst=10.0.0.3 sport=4444 dport=3333 src=10.0.0.3 dst=10.0.0.4 sport=3333 dport=4444\n"},
		{"l4proto=tcp ipv4-src=1.2.3.4 ipv4-dst=5.6.7.8 port-src=1234 port-dst=80 timeout=120 status=6 tcp-state=3 mark=42", "setup-reply", "text",
			"tcp      6 120 ESTABLISHED src=1.2.3.4 dst=5.6.7.8 sport=1234 dport=80 src=5.6.7.8 dst=1.2.3.4 sport=80 dport=1234 [ASSURED] mark=42\n"},
		{"l4proto=gre ipv4-src=10.0.0.1 ipv4-dst=10.0.0.2 port-src=0x3e8 port-dst=0x7d0 timeout=30", "setup-reply", "text",
			"gre      47 30 src=10.0.0.1 dst=10.0.0.2 srckey=0x3e8 dstkey=0x7d0 src=10.0.0.2 dst=10.0.0.1 srckey=0x7d0 dstkey=0x3e8\n"},
		{"l4proto=icmp ipv4-src=10.0.0.1 ipv4-dst=10.0.0.2 icmp-type=8 icmp-code=0 icmp-id=513", "setup-reply", "flow", "icmp 10.0.0.1 > 10.0.0.2 type 8 code 0 id 513\n"},
		{"l4proto=tcp ipv6-src=fd00::1 ipv6-dst=fd00::2 port-src=1 port-dst=2", "setup-reply", "flow", "tcp [fd00::1]:1 > [fd00::2]:2\n"},
		{"mark=7", "", "text", "unknown  0 src=0.0.0.0 dst=0.0.0.0 mark=7\n"},
	} {
		args := append([]string{"attr", "build", "-o", c.format}, strings.Fields(c.attrs)...)
		if c.opt != "" {
			args = append(args, "--opt", c.opt)
		}
		if out, err, status := call(args...); status != 0 || out != c.want {
			t.Errorf("%s, %s: %d\n%s%swant\n%s", c.attrs, c.opt, status, out, err, c.want)
		}
	}
	// What a translation becomes is in the line that makes the entry.
	out, _, _ := call(append([]string{"attr", "build", "-o", "save", "--opt", "undo-snat", "--opt", "undo-spat",
		"timeout=30"}, strings.Fields(start)...)...)
	if !strings.HasPrefix(out, "-A ") || !strings.HasSuffix(out, " --set snat-ipv4=10.0.0.4 --set snat-port=4444\n") {
		t.Errorf("save: %s", out)
	}
	out, _, _ = call(append([]string{"attr", "build", "-o", "json"}, strings.Fields(start)...)...)
	var f struct {
		Kind string
		Orig struct{ Src string }
	}
	if err := json.Unmarshal([]byte(out), &f); err != nil || f.Kind != "flow" || f.Orig.Src != "10.0.0.1" {
		t.Errorf("json: %v %s", err, out)
	}
}

func TestAttrGetSet(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c, err := ct.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := attrs.Build(strings.Fields("l4proto=tcp ipv4-src=10.0.0.1 ipv4-dst=10.0.0.2 port-src=1000 port-dst=22 " +
		"timeout=300 tcp-state=ESTABLISHED status=SEEN_REPLY,ASSURED"))
	if err != nil {
		t.Fatal(err)
	}
	f.SetupReply()
	if err := c.Create(f, false); err != nil {
		t.Fatal(err)
	}
	const flow, reply = "tcp 10.0.0.1:1000 > 10.0.0.2:22", "tcp 10.0.0.2:22 > 10.0.0.1:1000"
	for _, s := range []struct {
		args   string
		status int
		out    string
		err    string
	}{
		{"get|" + flow + "|port-dst|tcp-state|mark|repl-ipv4-src|grp-orig-port|orig.dport", 0, "22\nESTABLISHED\n0\n10.0.0.2\n1000\n22\n22\n", ""},
		{"get|" + flow + "|orig-port-dst|--raw", 0, "0016\n", ""},
		{"get|" + reply + "|port-dst", 0, "22\n", ""},
		{"get|" + flow + "|mark|helper-name", 3, "0\n\n", "no helper-name"},
		{"get|udp 10.0.0.1:1000 > 10.0.0.2:22|mark", 3, "", "no such flow"},
		{"set|" + flow + "|mark=0x7/0xff|--dry-run", 0, "", "would set mark=0x7/0xff"},
		{"get|" + flow + "|mark", 0, "0\n", ""},
		{"set|" + flow + "|mark=0x107", 0, "", ""},
		{"set|" + flow + "|mark=0x7f/0xff|timeout=1h|tcp-state=CLOSE_WAIT", 0, "", ""},
		{"get|" + flow + "|mark|tcp-state", 0, "383\nCLOSE_WAIT\n", ""},
		{"set|" + flow + "|state=ESTABLISHED", 0, "", ""},
		{"get|" + flow + "|tcp-state", 0, "ESTABLISHED\n", ""},
		{"set|udp 10.0.0.1:1000 > 10.0.0.2:22|mark=1", 3, "", ""},
		{"set|" + flow + "|helper-name=ftp", 6, "", ""},
	} {
		out, err, status := call(append([]string{"attr"}, strings.Split(s.args, "|")...)...)
		if status != s.status || out != s.out || !strings.Contains(err, s.err) {
			t.Errorf("attr %s: %d\n%s%s\nwant %d, %q, %q", s.args, status, out, err, s.status, s.out, s.err)
		}
	}
	var got ct.Flow
	if err := c.Get(f, &got, false); err != nil || got.Timeout < 3000 ||
		got.Orig.Src != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("%v, timeout %d", err, got.Timeout)
	}
}

// What decode prints encode reads, for every attribute that is kept as bytes.
func TestAttrStoredBothWays(t *testing.T) {
	t.Parallel()
	n := 0
	// Of these not every value that fits the width is one.
	bounded := map[string]bool{"dccp-role": true, "exp-flags": true, "exp-nat-dir": true,
		"timestamp-event": true, "timestamp-start": true, "timestamp-stop": true} // until the year 2262
	for _, row := range attrs.Table() {
		if row.Of == "group" || row.Bits == 0 {
			continue
		}
		for _, pattern := range []string{"00", "01", "7f", "a5"} {
			stored := strings.Repeat(pattern, row.Bits/8)
			text, err, status := call("attr", "decode", row.Name, stored)
			if status != 0 {
				t.Errorf("decode %s %s: %d %s", row.Name, stored, status, err)
				continue
			}
			again, err, status := call("attr", "encode", row.Name, "--", strings.TrimSuffix(text, "\n"))
			if status == exitUsage && bounded[row.Name] && pattern != "00" {
				continue
			}
			if status != 0 || again != stored+"\n" {
				t.Errorf("%s: %s is %s, which is %s%s", row.Name, stored, strings.TrimSpace(text), again, err)
			}
			n++
		}
	}
	if n < 250 {
		t.Errorf("only %d values", n)
	}
}

// Bytes and words that are no values are refused, not more.
func FuzzAttrDecode(f *testing.F) {
	f.Add("port-dst", "0016", "ssh")
	f.Add("connlabels", "ff", "0,127")
	f.Add("exp-flags", "07000000", "permanent")
	f.Add("timestamp-start", "0000000000000000", "2026-01-01T00:00:00Z")
	f.Fuzz(func(t *testing.T, name, stored, text string) {
		for _, args := range [][]string{{"decode", name, stored}, {"encode", name, text}, {"build", name + "=" + text},
			{"values", name}, {"show", name}} {
			if _, errText, status := call(append([]string{"attr", args[0], "--"}, args[1:]...)...); status != exitOK &&
				status != exitUsage {
				t.Errorf("%q: %d %s", args, status, errText)
			}
		}
	})
}
