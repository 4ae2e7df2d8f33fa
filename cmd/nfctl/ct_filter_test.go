package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nfctl/internal/ct"
	"nfctl/internal/nstest"
	"nfctl/internal/table"
)

// everyFlow reads the whole table.
func everyFlow(t *testing.T, o ct.DumpOptions, keep func(*ct.Flow) bool) (all []*ct.Flow, read uint64) {
	t.Helper()
	o.Keep = nil // of a small table the kernel sends all
	res, err := ct.Dump(context.Background(), o, func(f *ct.Flow) error {
		if keep == nil || keep(f) {
			all = append(all, f.Clone())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, res.Flows
}

func ids(flows []*ct.Flow) (out []uint32) {
	for _, f := range flows {
		out = append(out, f.ID)
	}
	slices.Sort(out)
	return out
}

var protoNumbers = map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "icmpv6": 58, "sctp": 132,
	"udplite": 136}

// byHand says, without any of the code that filters, whether f has what a flag
// asks for.
func byHand(t *testing.T, f *ct.Flow, g table.Given) bool {
	text, not := strings.CutPrefix(g.Text, "!")
	here, is := true, false
	for _, one := range strings.Split(text, ",") {
		number := func(has bool, n uint64) {
			lo, hi, found := strings.Cut(one, "-")
			if !found {
				hi = lo
			}
			a, err1 := strconv.ParseUint(lo, 0, 64)
			b, err2 := strconv.ParseUint(hi, 0, 64)
			if err1 != nil || err2 != nil {
				t.Fatalf("number %q", one)
			}
			here = has
			is = is || has && a <= n && n <= b
		}
		inside := func(a netip.Addr) bool {
			if p, err := netip.ParsePrefix(one); err == nil {
				return p.Contains(a)
			}
			return netip.MustParseAddr(one) == a
		}
		ports := func(tu *ct.Tuple, dst bool) {
			p := tu.Sport
			if dst {
				p = tu.Dport
			}
			number(tu.Has(ct.TupleSport), uint64(p))
		}
		switch g.Flag {
		case "proto":
			is = is || f.Orig.Proto == protoNumbers[one]
		case "src":
			is = is || inside(f.Orig.Src)
		case "dst":
			is = is || inside(f.Orig.Dst)
		case "reply-src":
			is = is || inside(f.Reply.Src)
		case "reply-dst":
			is = is || inside(f.Reply.Dst)
		case "host":
			is = is || inside(f.Orig.Src) || inside(f.Orig.Dst) || inside(f.Reply.Src) || inside(f.Reply.Dst)
		case "sport":
			ports(&f.Orig, false)
		case "dport":
			ports(&f.Orig, true)
		case "reply-port-src":
			ports(&f.Reply, false)
		case "reply-port-dst":
			ports(&f.Reply, true)
		case "port":
			for _, tu := range []*ct.Tuple{&f.Orig, &f.Reply} {
				ports(tu, false)
				ports(tu, true)
			}
		case "family":
			is = is || f.Orig.Src.Is4() == (one == "ipv4")
		case "state":
			switch f.Orig.Proto {
			case ct.TCP:
				is = is || ct.TCPStateNames.Word(uint64(f.TCPState)) == one
			case ct.SCTP:
				is = is || ct.SCTPStateNames.Word(uint64(f.SCTPState)) == one
			default:
				here = false
			}
		case "status":
			bits := map[string]uint32{"SEEN_REPLY": 2, "ASSURED": 4, "FIXED_TIMEOUT": 1 << 10, "HELPER": 1 << 13}
			if one == "UNREPLIED" {
				is = is || f.Status&2 == 0
			} else {
				is = is || f.Status&bits[one] != 0
			}
		case "mark":
			v, m, masked := strings.Cut(one, "/")
			want, _ := strconv.ParseUint(v, 0, 32)
			mask := uint64(1<<32 - 1)
			if masked {
				mask, _ = strconv.ParseUint(m, 0, 32)
			}
			is = is || uint64(f.Mark)&mask == want
		case "timeout":
			number(true, uint64(f.Timeout))
		case "zone":
			number(!f.Orig.Has(ct.TupleZone) && !f.Reply.Has(ct.TupleZone), uint64(f.Zone))
		case "orig-zone":
			number(true, uint64(f.Orig.Zone))
		case "reply-zone":
			number(true, uint64(f.Reply.Zone))
		case "label":
			n, _ := strconv.Atoi(one)
			here = f.Has(ct.HasLabels)
			is = is || f.Labels[n/8]&(1<<(n%8)) != 0
		case "helper":
			here = f.Has(ct.HasHelper)
			is = is || string(f.Helper) == one
		case "icmp-type":
			number(f.Orig.Has(ct.TupleType), uint64(f.Orig.Type))
		case "icmp-id":
			number(f.Orig.Has(ct.TupleID), uint64(f.Orig.ID))
		case "src-key":
			number(f.Orig.Proto == ct.GRE, uint64(f.Orig.Sport))
			if f.Orig.Proto != ct.GRE {
				return false
			}
		case "src-nat", "dst-nat", "any-nat":
			s := g.Flag != "dst-nat" && (f.Reply.Dst != f.Orig.Src ||
				f.Orig.Has(ct.TupleSport) && f.Reply.Dport != f.Orig.Sport)
			d := g.Flag != "src-nat" && (f.Reply.Src != f.Orig.Dst ||
				f.Orig.Has(ct.TupleSport) && f.Reply.Sport != f.Orig.Dport)
			here = s || d
			is = is || one == table.AnyValue && here ||
				one != table.AnyValue && (s && inside(f.Reply.Dst) || d && inside(f.Reply.Src))
		default:
			t.Fatalf("flag %s", g.Flag)
		}
	}
	return here && is != not
}

// randomFilter makes some flags, half of them about what one flow has.
func randomFilter(r *rand.Rand, all []*ct.Flow) (out []table.Given) {
	f := all[r.IntN(len(all))]
	g := all[r.IntN(len(all))]
	used := map[string]bool{}
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	prefix := func(a netip.Addr) string {
		bits := a.BitLen() - []int{0, 2, 8, 16}[r.IntN(4)]
		p, _ := a.Prefix(bits)
		return pick(a.String(), p.String(), a.String()+","+g.Orig.Dst.String())
	}
	port := func(p uint16) string {
		return pick(fmt.Sprint(p), fmt.Sprintf("%d,53", p), fmt.Sprintf("%d-%d", p/2, p))
	}
	protoWord := func(p uint8) string {
		for w, n := range protoNumbers {
			if n == p {
				return w
			}
		}
		return "tcp"
	}
	for range 1 + r.IntN(4) {
		o := []table.Given{
			{Flag: "proto", Text: protoWord(f.Orig.Proto)}, {Flag: "proto", Text: pick("tcp,udp", "icmp,icmpv6", "gre")},
			{Flag: "src", Text: prefix(f.Orig.Src)}, {Flag: "dst", Text: prefix(f.Orig.Dst)}, {Flag: "reply-src", Text: prefix(f.Reply.Src)}, {Flag: "reply-dst", Text: prefix(f.Reply.Dst)},
			{Flag: "host", Text: prefix(f.Reply.Src)}, {Flag: "port", Text: port(f.Orig.Dport)},
			{Flag: "sport", Text: port(f.Orig.Sport)}, {Flag: "dport", Text: port(f.Orig.Dport)}, {Flag: "dport", Text: "80"}, {Flag: "reply-port-src", Text: port(f.Reply.Sport)}, {Flag: "reply-port-dst", Text: port(f.Reply.Dport)},
			{Flag: "family", Text: pick("ipv4", "ipv6")}, {Flag: "state", Text: pick("ESTABLISHED", "SYN_SENT,SYN_RECV", "CLOSE")},
			{Flag: "status", Text: pick("ASSURED", "SEEN_REPLY", "UNREPLIED", "FIXED_TIMEOUT", "ASSURED,HELPER")},
			{Flag: "mark", Text: pick(fmt.Sprint(f.Mark), "0", "0x1/0x1", "0/0x3", "256")}, {Flag: "timeout", Text: pick("0-9999", "10000-99999")},
			{Flag: "zone", Text: pick(fmt.Sprint(f.Zone), "0", "1", "1-2")}, {Flag: "orig-zone", Text: pick("3", "0", "0-3")}, {Flag: "reply-zone", Text: pick("4", "0")},
			{Flag: "label", Text: pick("5", "3,9")}, {Flag: "helper", Text: "ftp"},
			{Flag: "icmp-type", Text: pick("8", "128", "8,128")}, {Flag: "icmp-id", Text: fmt.Sprint(f.Orig.ID)}, {Flag: "src-key", Text: pick(fmt.Sprint(f.Orig.Sport), "0-500")},
			{Flag: "src-nat", Text: pick(table.AnyValue, f.Reply.Dst.String())}, {Flag: "dst-nat", Text: pick(table.AnyValue, f.Reply.Src.String())}, {Flag: "any-nat", Text: pick(table.AnyValue, f.Reply.Dst.String())},
		}[r.IntN(29)]
		if used[o.Flag] {
			continue
		}
		used[o.Flag] = true
		if o.Text != table.AnyValue && r.IntN(4) == 0 {
			o.Text = "!" + o.Text
		}
		out = append(out, o)
	}
	return out
}

func TestCtFilters(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	useLabels(t, ns)
	const seed = 17
	r := rand.New(rand.NewPCG(seed, seed))
	loaded(t, strings.Join(variedLines(r, 1500, true, true), "\n"))
	all, _ := everyFlow(t, ct.DumpOptions{}, nil)
	if len(all) != 1500 {
		t.Fatalf("%d flows", len(all))
	}
	nonempty, cut := 0, 0
	for i := range 500 {
		flags := randomFilter(r, all)
		var want []*ct.Flow
		for _, f := range all {
			if !slices.ContainsFunc(flags, func(g table.Given) bool { return !byHand(t, f, g) }) {
				want = append(want, f)
			}
		}
		c, err := table.Flows(&table.Filter{Given: flags})
		if err != nil {
			t.Fatalf("%v: %v", flags, err)
		}
		var alone []*ct.Flow
		for _, f := range all {
			if c.Keep(f) {
				alone = append(alone, f)
			}
		}
		byKernel, read := alone, uint64(len(all))
		if d := table.DumpOptions(c); !d.Filter.IsZero() || len(d.Families) > 0 {
			byKernel, read = everyFlow(t, d, c.Keep)
		}
		for _, got := range []struct {
			how   string
			flows []*ct.Flow
		}{{"with the kernel's filter", byKernel}, {"without the kernel's filter", alone}} {
			if !slices.Equal(ids(got.flows), ids(want)) {
				t.Fatalf("%v: %d flows %s, %d by hand", flags, len(got.flows), got.how, len(want))
			}
		}
		if len(want) > 0 {
			nonempty++
		}
		if read < uint64(len(all)) {
			cut++
		}
		if i%20 != 0 {
			continue
		}
		args := []string{"ct", "list", "--fields", "id", "-o", "tsv"}
		for _, g := range flags {
			args = append(args, "--"+g.Flag+"="+g.Text)
		}
		lines := strings.Fields(good(t, args...))[1:]
		var printed []uint32
		for _, l := range lines {
			n, _ := strconv.ParseUint(l, 10, 32)
			printed = append(printed, uint32(n))
		}
		slices.Sort(printed)
		if !slices.Equal(printed, ids(want)) {
			t.Fatalf("%v: %d flows listed, %d by hand", args, len(printed), len(want))
		}
	}
	if nonempty < 150 || cut < 50 {
		t.Errorf("only %d filters matched something, only %d were given to the kernel: the test is too easy", nonempty,
			cut)
	}
}

// TestCtKernelFilter shows that what is exact goes to the kernel, which then
// sends only that.
func TestCtKernelFilter(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	var lines []string
	for i := range 300 {
		lines = append(lines, fmt.Sprintf("-A -p tcp -s 10.0.0.%d -d 10.1.0.1 --sport %d --dport %d --mark %d", 1+i%3,
			1000+i, 80+i%5, i%4))
	}
	loaded(t, strings.Join(lines, "\n"))
	for _, o := range []table.Filter{
		{Given: []table.Given{{Flag: "mark", Text: "1"}}},
		{Given: []table.Given{{Flag: "proto", Text: "tcp"}, {Flag: "dport", Text: "82"}}},
		{Pattern: "tcp 10.0.0.2 > :82"},
		{Exprs: []string{`proto == "tcp" and orig.dport == 82 and timeout > 0`}},
		{Given: []table.Given{{Flag: "family", Text: "ipv6"}}},
	} {
		c, err := table.Flows(&o)
		if err != nil {
			t.Fatal(err)
		}
		flows, read := everyFlow(t, table.DumpOptions(c), c.Keep)
		if read != uint64(len(flows)) || read == 300 {
			t.Errorf("%+v: the kernel sent %d flows, %d match", o, read, len(flows))
		}
	}
}

func TestCtFilterWords(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	loaded(t, `
-A -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1000 --dport 22
-A -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1000 --dport 53 -w 3
-A -p udp -s fd00::1 -d fd00::2 --sport 1000 --dport 53 --dst-nat [fd00::9]:5353
-A -p gre -s 10.0.0.1 -d 10.0.0.2 --srckey 1000 --dstkey 2000
-A -p icmpv6 -s fd00::1 -d fd00::2 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 7`)
	for _, c := range []struct {
		args string // separated by '|'
		want int
	}{
		{"tcp >", 1}, {"10.0.0.0/8 >", 3}, {"> :53", 2}, {"udp > zone 3", 1}, {"icmpv6 > type 128 id 7", 1}, {"gre :0x3e8 >", 1},
		{"-p|tcp|-s|10.0.0.1|-d|10.0.0.2", 1}, {"--protonum|udp|--orig-src|fd00::1", 1}, {"-f|ipv6|-w|0", 2},
		{"--orig-port-dst|domain", 2}, {"--dport|!domain", 2}, {"--srckey|1000", 1}, {"--dst-nat", 1}, {"--dst-nat|fd00::9", 1},
		{"--dst-nat|[fd00::9]:5353", 1}, {"--dst-nat=:5353", 1}, {"--dst-nat=!fd00::9", 0}, {"--any-nat|fd00::8", 0}, {"--src-nat", 0}, {"--icmp-type|128", 1},
		{"--icmpv6-type|128", 1}, {"--filter|orig.dport == 53 or proto == 'gre'", 3}, {"--filter|zone == 3|-p|udp", 1}, {"--host|10.0.0.2|--port|53", 1},
		{"--filter|timeout > '1h'", 1}, {"--status|UNREPLIED", 4}, {"-u|!ASSURED", 4}, {"-t|1-10m", 4},
	} {
		out := good(t, append([]string{"ct", "list", "-o", "flow"}, strings.Split(c.args, "|")...)...)
		if n := strings.Count(out, "\n"); n != c.want {
			t.Errorf("%s: %d flows, want %d:\n%s", c.args, n, c.want, out)
		}
	}
}

// TestCtUsage has no command run whose values are wrong, and names the value.
func TestCtUsage(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	loaded(t, "-A -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1000 --dport 22")
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/labels", []byte("300 x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, names string }{ // args separated by '|'
		{"list|--dport|70000", "70000"}, {"list|--sport|htpp", "htpp"}, {"list|--dport|2000-1000", "2000-1000"}, {"list|--dport|80,", "80,"},
		{"list|--sport|", `""`}, {"list|-m|abc", "abc"}, {"list|-m|99999999999", "99999999999"}, {"list|-m|0x10/0xf", "0x10/0xf"}, {"list|-w|foo", "foo"},
		{"list|-w|65536", "65536"}, {"list|--orig-zone|-1", "-1"}, {"list|-s|10.0.0", "10.0.0"}, {"list|-s|10.0.0.0/33", "10.0.0.0/33"},
		{"list|-d|fd00::g", "fd00::g"}, {"list|--host|example.com", "example.com"}, {"list|-p|tpc", "tpc"}, {"list|-p|300", "300"}, {"list|-f|ipv5", "ipv5"},
		{"list|--state|ESTABLISHD", "ESTABLISHD"}, {"list|-u|ASSURD", "ASSURD"}, {"list|-t|soon", "soon"}, {"list|--timeout|-5", "-5"},
		{"list|-l|nolabel", "nolabel"}, {"list|-l|128", "128"}, {"list|--icmp-type|echo", "echo"}, {"list|--icmp-type|256", "256"}, {"list|--icmp-id|65536", "65536"},
		{"list|--src-key|70000", "70000"}, {"list|--src-nat=10.0.0.1:x", "10.0.0.1:x"}, {"list|--any-nat=10.0.0.300", "10.0.0.300"},
		{"list|--role|boss", "boss"}, {"list|--filter|orig.dport == 70000", "70000"}, {"list|--filter|orig.dprt == 1", "orig.dprt"}, {"list|--filter|state == 'ESTABLISHD'", "ESTABLISHD"},
		{"list|tcp", "tcp"}, {"list|tcp > :99999", "99999"}, {"list|tcp >|udp >", "udp >"}, {"list|-o|jsn", "jsn"}, {"list|--fields|orig.sorce", "orig.sorce"},
		{"list|--group-by|nothing", "nothing"}, {"list|--top|3", "--group-by"}, {"list|--top|x|--group-by|zone", "x"}, {"list|--dying|--zero", "--zero"}, {"list|--dport|22|--dport|80", "22,80"},
		{"list|--labelmap|" + dir + "/labels", "/labels: no line of it"}, {"list|--color|pink", "pink"},
		{"get|tcp 10.0.0.1 > 10.0.0.2:22", "port"}, {"get|tcp > :22", "tcp > :22"}, {"get", "which flow"}, {"get|-p|tcp|-s|nowhere", "nowhere"},
		{"count|-o|xml", "xml"}, {"count|--dport|x", "x"}, {"stats|--interval|often", "often"}, {"stats|--count|3", "--interval"}, {"stats|now", "now"},
		{"create|tcp 10.0.0.1:1 > 10.0.0.2:2|--timeout|soon", "soon"}, {"create|tcp 10.0.0.1:1 > fd00::2:2", "fd00::2"}, {"create|tcp 10.0.0.1:1 > 10.0.0.2:2|--state|OPEN", "OPEN"},
		{"create|udp 10.0.0.1:1 > 10.0.0.2:2|--state|ESTABLISHED", "ESTABLISHED"}, {"create|tcp 10.0.0.1:1 > 10.0.0.2:2|--dst-nat|fd00::1", "fd00::1"},
		{"create|tcp 10.0.0.1:1 > 10.0.0.2:2|--src-nat|10.0.0.1:99999", "99999"}, {"create|tcp 10.0.0.1:1 > 10.0.0.2:2|-p|udp", "--proto"}, {"create|tcp 10.0.0.1:1 > 10.0.0.2:2|--set|id=5", "id"},
		{"create|tcp 10.0.0.1:1 > 10.0.0.2:2|--set|mark", "mark"}, {"create|tcp 10.0.0.1:1 > 10.0.0.2:2|--label|200", "200"}, {"create|tcp 10.0.0.1:1 > 10.0.0.2:2|--or-update|--if-missing", "--if-missing"},
		{"create|-p|tcp|-s|10.0.0.1", "address"}, {"update|tcp >", "--set"}, {"update|--set|mrak=1", "mark"}, {"update|--set|mark=x", "x"}, {"update|--set|zone=4", "zone"},
		{"update|--set|state=NOSUCH", "NOSUCH"},
		{"update|--set|mark=1|--set|mark=2", "mark is set twice"}, {"update|--set|connmark=1|--set|mark=2", "connmark"}, {"update|--set|status=", "status"},
		{"create|udp 10.0.0.1:1 > 10.0.0.2:2|--set|mark=1|--set|mark=2", "mark is set twice"}, {"list|--dst-nat=", "without '='"}, {"list|--group-by=", "names of fields"},
		{"list|--src-nat|foo", "--src-nat=foo"}, {"list|--template|{{call .orig.src}}", "without call"}, {"update|--label-add|999", "999"}, {"update|--label-add|", `""`}, {"update|--set|timeout=soon", "soon"}, {"update|--set|timeout=1.5s", "1.5s"},
		{"delete", "--all"}, {"delete|-p|tpc", "tpc"}, {"delete|tcp", "tcp"}, {"flush", "--all"}, {"flush|--zone|x", "x"}, {"flush|--all|-w|1", "--all"}, {"flush|tcp >", "tcp >"}, {"flush|--dport|1", "dport"},
		{"load|-o|json", "-o"}, {"load|a|b", "b"}, {"save|-o|xml", "xml"}, {"save|-p|x", "x"}, {"lst", "list"}, {"-L", "list"}, {"list|-L", "'nfctl conntrack list'"}, {"list|-X", "-X"},
	} {
		args := append([]string{"ct"}, strings.Split(c.args, "|")...)
		out, errs, status := call(args...)
		if status != exitUsage || out != "" || !strings.Contains(errs, c.names) {
			t.Errorf("%s: status %d, want %d and %q named: %s%s", c.args, status, exitUsage, c.names, out, errs)
		}
	}
	if n := strings.TrimSpace(good(t, "ct", "count")); n != "1" {
		t.Errorf("%s flows are there, want 1", n)
	}
}
