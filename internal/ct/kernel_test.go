package ct

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	timo "github.com/ti-mo/conntrack"

	"nfctl/internal/field"
	"nfctl/internal/nl"
	"nfctl/internal/nstest"
	"nfctl/internal/value"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

func dial(t testing.TB) *Conn {
	t.Helper()
	c, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// flow makes a flow of words: "tcp 10.0.0.1:1 > 10.0.0.2:2", then NAME=VALUE.
func flow(t testing.TB, src, dst string, proto uint8, set ...string) *Flow {
	t.Helper()
	f := &Flow{Present: HasTimeout, Timeout: 600}
	o := &f.Orig
	o.Proto, o.Present = proto, TupleProto|TupleFamily
	end := func(s string) (netip.Addr, uint16) {
		if ap, err := netip.ParseAddrPort(s); err == nil {
			return ap.Addr(), ap.Port()
		}
		return netip.MustParseAddr(s), 0
	}
	o.Src, o.Sport = end(src)
	o.Dst, o.Dport = end(dst)
	o.Family = familyOf(o.Src)
	switch {
	case HasPorts(proto) || proto == GRE:
		o.Present |= TupleSport | TupleDport
	case proto == ICMP || proto == ICMPv6:
		o.Type, o.ID, o.Present = map[uint8]uint8{ICMP: 8, ICMPv6: 128}[proto], 513,
			o.Present|TupleType|TupleCode|TupleID
	}
	f.Reply = o.Reverse()
	for _, s := range set {
		name, text, _ := strings.Cut(s, "=")
		a := Find(FlowAttrs(), name)
		if a == nil {
			t.Fatalf("no attribute %s", name)
		}
		if err := a.SetText(f, text); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// varied fills the table with an entry of every kind that ctnetlink can make.
func varied(t testing.TB, c *Conn) (made []*Flow) {
	t.Helper()
	add := func(f *Flow) {
		t.Helper()
		if err := c.Create(f, false); err != nil {
			t.Fatal(err)
		}
		made = append(made, f)
	}
	for i, name := range TCPStateNames.List()[1:10] {
		s := name.Word
		add(flow(t, netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(1000+i)).String(), "10.0.0.2:80", TCP,
			"state="+s, "status=SEEN_REPLY,ASSURED"))
		add(flow(t, netip.AddrPortFrom(netip.MustParseAddr("fd00::1"), uint16(1000+i)).String(), "[fd00::2]:80", TCP,
			"state="+s))
	}
	add(flow(t, "10.0.0.1:1", "10.0.0.2:53", UDP, "mark=7"))
	add(flow(t, "[fd00::1]:1", "[fd00::2]:53", UDP, "zone=9"))
	add(flow(t, "10.0.0.1:2", "10.0.0.2:53", UDP, "zone=9", "mark=0xffffffff"))
	add(flow(t, "10.0.0.1:3", "10.0.0.2:53", UDP, "orig-zone=5"))
	add(flow(t, "10.0.0.1:4", "10.0.0.2:53", UDP, "repl-zone=6"))
	if lite := flow(t, "10.0.0.1:1", "10.0.0.2:53", UDPLite); c.KeepsPorts(lite) == nil { // see TestKeepsPorts
		add(lite)
	}
	add(flow(t, "10.0.0.1", "10.0.0.2", ICMP))
	add(flow(t, "fd00::1", "fd00::2", ICMPv6))
	add(flow(t, "10.0.0.1", "10.0.0.2", ICMP, "icmp-id=514"))
	add(flow(t, "fd00::1", "fd00::2", ICMPv6, "icmp-id=514"))
	add(flow(t, "10.0.0.1:1", "10.0.0.2:2", SCTP, "state=ESTABLISHED", "sctp-vtag-orig=0x1234",
		"sctp-vtag-repl=0x5678"))
	add(flow(t, "10.0.0.1:1000", "10.0.0.2:2000", GRE))
	add(flow(t, "10.0.0.1", "10.0.0.2", 50))
	add(flow(t, "10.0.0.1:7", "10.0.0.2:21", TCP, "state=ESTABLISHED", "helper-name=ftp",
		"status=SEEN_REPLY,ASSURED,FIXED_TIMEOUT"))
	add(flow(t, "10.0.0.1:8", "10.0.0.2:80", TCP, "state=ESTABLISHED", "tcp-wscale-orig=7", "tcp-wscale-repl=5",
		"tcp-flags-orig=WINDOW_SCALE,SACK_PERM", "tcp-mask-orig=0xff", "tcp-flags-repl=WINDOW_SCALE",
		"tcp-mask-repl=0xff"))
	add(flow(t, "10.0.0.1:9", "10.0.0.2:80", TCP, "state=ESTABLISHED", "orig-nat-seq-correction-pos=100",
		"orig-nat-seq-offset-before=1", "orig-nat-seq-offset-after=0xffffffff"))
	add(flow(t, "10.0.0.1:10", "10.0.0.2:80", TCP, "state=ESTABLISHED", "synproxy-isn=1", "synproxy-its=2",
		"synproxy-tsoff=3"))
	child := flow(t, "10.0.0.1:11", "10.0.0.2:5000", TCP, "state=ESTABLISHED")
	child.Master = made[len(made)-4].Orig
	add(child)
	return made
}

// TestKeepsPorts: whether the kernel keeps a protocol's ports is known before it is
// asked to, and what it makes without them is as was said.
func TestKeepsPorts(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	master := flow(t, "10.0.0.1:7", "10.0.0.2:6667", TCP, "state=ESTABLISHED", "helper-name=irc")
	if err := c.Create(master, false); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*Flow{
		flow(t, "10.0.0.1:1", "10.0.0.2:2", TCP, "state=ESTABLISHED"), flow(t, "10.0.0.1:1", "10.0.0.2:2", UDP), flow(t, "10.0.0.1:1", "10.0.0.2:2", UDPLite),
		flow(t, "10.0.0.1:1", "10.0.0.2:2", SCTP, "state=ESTABLISHED", "sctp-vtag-orig=1", "sctp-vtag-repl=2"),
		flow(t, "10.0.0.1:1", "10.0.0.2:2", DCCP, "dccp-state=OPEN", "dccp-role=client"), flow(t, "10.0.0.1:1", "10.0.0.2:2", GRE), flow(t, "10.0.0.1", "10.0.0.2", 50),
	} {
		said := c.KeepsPorts(f)
		var got Flow
		if err := c.Create(f, false); err != nil {
			t.Fatal(err)
		} else if err := c.Get(f, &got, false); err != nil {
			t.Fatal(err)
		}
		e := expectOf(master, 5000)
		e.Tuple.Proto, e.Mask.Proto = f.Orig.Proto, f.Orig.Proto
		ports := got.Orig.Has(f.Orig.Present & (TupleSport | TupleDport))
		if ports != (said == nil) || said != nil && !errors.Is(said, syscall.EOPNOTSUPP) ||
			ports != (c.ExpectKeepsPorts(e) == nil) && f.Orig.Proto != 50 {
			t.Errorf("%s: ports kept: %v, %v before, %v of an expectation", flowName(f), ports, said,
				c.ExpectKeepsPorts(e))
		}
		t.Logf("protocol %d: ports kept: %v", f.Orig.Proto, ports)
	}
}

// TestTrim: what Trim forgets makes no difference to what is in the table.
func TestTrim(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	varied(t, c)
	var flows []*Flow
	for _, f := range dumpAll(t, DumpOptions{}) {
		f.TCPMaskOrig, f.TCPMaskReply, f.Present = f.TCPFlagsOrig, f.TCPFlagsReply,
			f.Present|HasTCPMaskOrig|HasTCPMaskReply
		flows = append(flows, f)
	}
	slices.SortFunc(flows, func(a, b *Flow) int { return a.Master.Src.Compare(b.Master.Src) }) // masters first
	made := func(trim bool) map[string]*Flow {
		nstest.Enter(t)
		c := dial(t)
		for _, f := range flows {
			g := f.Clone()
			if g.Trim(); !trim {
				g = f
			}
			if err := c.Create(g, false); err != nil {
				t.Fatal(err)
			}
		}
		out := dumpAll(t, DumpOptions{})
		for _, f := range out {
			f.ID, f.Timeout, f.Time, f.Use = 0, 0, 0, 0 // a dump that goes on at an entry holds it, on 5.10
		}
		return out
	}
	whole, trimmed := made(false), made(true)
	if len(whole) != len(flows) || len(trimmed) != len(flows) {
		t.Fatalf("%d flows, then %d and %d", len(flows), len(whole), len(trimmed))
	}
	for name, f := range whole {
		if !reflect.DeepEqual(f, trimmed[name]) {
			t.Errorf("%s:\n%+v, trimmed\n%+v", name, f, trimmed[name])
		}
	}
}

func dumpAll(t testing.TB, o DumpOptions) map[string]*Flow {
	t.Helper()
	out := map[string]*Flow{}
	res, err := Dump(context.Background(), o, func(f *Flow) error {
		k := f.Clone()
		out[flowName(k)] = k
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if int(res.Flows) != len(out) {
		t.Errorf("%d flows, %d different", res.Flows, len(out))
	}
	return out
}

// TestCreateAndDump: what was asked for is what is read.
func TestCreateAndDump(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	made := varied(t, c)
	synproxy := keepsSynproxy(t, c)
	got := dumpAll(t, DumpOptions{})
	if len(got) != len(made) {
		t.Errorf("%d entries, made %d", len(got), len(made))
	}
	for _, want := range made {
		g := got[flowName(want)]
		if g == nil {
			t.Errorf("%s: not in the dump", flowName(want))
			continue
		}
		for i := range FlowAttrs() {
			a := &FlowAttrs()[i]
			if a.Name == "" || !a.Has(want) || a.Name == "timeout" {
				continue
			}
			w, x := string(a.AppendText(nil, want)), string(a.AppendText(nil, g))
			switch a.Name {
			case "status": // the kernel adds some
				x = string(AppendFlags(nil, StatusNames, uint64(g.Status&want.Status), ','))
			case "tcp-mask-orig", "tcp-mask-repl": // not kept
				continue
			case "synproxy-isn", "synproxy-its", "synproxy-tsoff":
				if !synproxy {
					w = ""
				}
			}
			if w != x {
				t.Errorf("%s: %s is %q, want %q", flowName(want), a.Name, x, w)
			}
		}
		if !g.Has(HasID|HasUse|HasStatus|HasTimeout) || g.Timeout > 600 || g.Timeout < 590 {
			t.Errorf("%s: id, use, status or timeout missing: %+v", flowName(want), g)
		}
		if len(g.Unknown) > 0 {
			t.Errorf("%s: unknown attributes %v", flowName(want), g.Unknown)
		}
		var one Flow
		if err := c.Get(want, &one, false); err != nil {
			t.Errorf("get: %v", err)
		} else if one.ID != g.ID || one.Orig != g.Orig {
			t.Errorf("get %s gives %+v", flowName(want), one)
		}
	}
	if f := got["flow tcp 10.0.0.1:11 > 10.0.0.2:5000"]; f != nil &&
		(f.Status&StatusExpected == 0 || f.Master.Dport != 21) {
		t.Errorf("master of the related connection: %+v", f.Master)
	}
}

// keepsSynproxy reports whether the kernel stores numbers of SYNPROXY: 5.10 does
// only with the module nf_synproxy_core.
func keepsSynproxy(t *testing.T, c *Conn) bool {
	t.Helper()
	f := flow(t, "10.0.0.77:10", "10.0.0.2:80", TCP, "state=ESTABLISHED", "synproxy-isn=1", "synproxy-its=2",
		"synproxy-tsoff=3")
	var got Flow
	if err := errors.Join(c.Create(f, false), c.Get(f, &got, false), c.Delete(f)); err != nil {
		t.Fatal(err)
	}
	t.Logf("this kernel keeps SYNPROXY's numbers: %v", got.Has(HasSynproxy))
	return got.Has(HasSynproxy)
}

// TestDumpAgainstLibrary compares with ti-mo/conntrack, field by field.
func TestDumpAgainstLibrary(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	varied(t, dial(t))
	lib, err := timo.Dial(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lib.Close()
	want, err := lib.Dump(nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[uint32]*Flow{}
	for _, f := range dumpAll(t, DumpOptions{}) {
		got[f.ID] = f
	}
	if len(want) != len(got) || len(want) == 0 {
		t.Errorf("%d flows, the library has %d", len(got), len(want))
	}
	for _, w := range want {
		f := got[w.ID]
		if f == nil {
			t.Errorf("%+v is missing", w)
			continue
		}
		for _, d := range []struct {
			t *Tuple
			w timo.Tuple
		}{{&f.Orig, w.TupleOrig}, {&f.Reply, w.TupleReply}} {
			p := d.w.Proto
			sport, dport := p.SourcePort, p.DestinationPort
			if d.t.Src != d.w.IP.SourceAddress || d.t.Dst != d.w.IP.DestinationAddress || d.t.Proto != p.Protocol ||
				d.t.Sport != sport || d.t.Dport != dport ||
				d.t.ID != p.ICMPID || d.t.Type != p.ICMPType || d.t.Code != p.ICMPCode || d.t.Zone != d.w.Zone {
				t.Errorf("tuple %+v, the library has %+v", d.t, d.w)
			}
		}
		if held := max(f.Use, w.Use) - min(f.Use, w.Use); held > 1 { // 5.10 holds an entry at which a dump goes on
			t.Errorf("%s is used %d times, the library has %d", flowName(f), f.Use, w.Use)
		}
		if f.Status != uint32(w.Status) || f.Mark != w.Mark || f.Zone != w.Zone || string(f.Helper) != w.Helper.Name {
			t.Errorf("%+v\nthe library has %+v", f, w)
		}
		if p := w.ProtoInfo.TCP; p != nil && (f.TCPState != p.State || f.TCPWscaleOrig != p.OriginalWindowScale ||
			f.TCPWscaleReply != p.ReplyWindowScale ||
			uint16(f.TCPFlagsOrig)<<8|uint16(f.TCPMaskOrig) != p.OriginalFlags) {
			t.Errorf("tcp of %+v\nthe library has %+v", f, p)
		}
		if p := w.ProtoInfo.SCTP; p != nil && (f.SCTPState != p.State || f.SCTPVtagOrig != p.VTagOriginal ||
			f.SCTPVtagReply != p.VTagReply) {
			t.Errorf("sctp of %+v\nthe library has %+v", f, p)
		}
	}
}

// sysctl sets a setting of the test's namespace.
func sysctl(t testing.TB, name, val string) {
	t.Helper()
	path := filepath.Join("/proc/thread-self/root/proc/sys/net/netfilter", name)
	if err := os.WriteFile(path, []byte(val), 0); err != nil {
		t.Fatal(err)
	}
}

// TestKernelFilter: each filter leaves in the dump what a look at every flow
// would, and leaves out something.
func TestKernelFilter(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	all := varied(t, dial(t))
	single := func(path string, n uint64) field.Cond {
		return field.Cond{Paths: []string{path}, Set: value.Single(n)}
	}
	addr := func(path, a string) field.Cond {
		set, err := value.Addrs(a)
		if err != nil {
			t.Fatal(err)
		}
		return field.Cond{Paths: []string{path}, Set: set}
	}
	status, _ := ParseStatus("ASSURED")
	mark, _ := value.Mark("0x7/0x7")
	for _, tt := range []struct {
		name  string
		conds []field.Cond
		match func(f *Flow) bool
	}{
		{"proto", []field.Cond{single("proto", TCP)}, func(f *Flow) bool { return f.Orig.Proto == TCP }},
		{"dport", []field.Cond{single("proto", TCP), single("orig.dport", 21)}, func(f *Flow) bool { return f.Orig.Proto == TCP && f.Orig.Dport == 21 }},
		{"reply port", []field.Cond{single("proto", TCP), single("reply.sport", 21)}, func(f *Flow) bool { return f.Orig.Proto == TCP && f.Reply.Sport == 21 }},
		{"src", []field.Cond{addr("orig.src", "fd00::1")}, func(f *Flow) bool { return f.Orig.Family == IPv6 }},
		{"reply src", []field.Cond{addr("reply.src", "10.0.0.2"), single("proto", UDP)}, func(f *Flow) bool { return f.Orig.Family == IPv4 && f.Orig.Proto == UDP }},
		{"icmp", []field.Cond{single("proto", ICMP), single("orig.type", 8), single("orig.id", 513)}, func(f *Flow) bool { return f.Orig.Proto == ICMP && f.Orig.ID == 513 }},
		{"icmpv6", []field.Cond{single("proto", ICMPv6), single("orig.type", 128), single("orig.id", 513)}, func(f *Flow) bool { return f.Orig.Proto == ICMPv6 && f.Orig.ID == 513 }},
		{"mark", []field.Cond{{Paths: []string{"mark"}, Set: mark}}, func(f *Flow) bool { return f.Mark&7 == 7 }},
		{"mark 0", []field.Cond{single("mark", 0)}, func(f *Flow) bool { return f.Mark == 0 }},
		{"status", []field.Cond{{Paths: []string{"status"}, Set: status}}, func(f *Flow) bool { return f.Status&StatusAssured != 0 }},
		{"zone", []field.Cond{single("zone", 9)}, func(f *Flow) bool { return f.Zone == 9 }},
		{"family", []field.Cond{single("family", IPv6)}, func(f *Flow) bool { return f.Orig.Family == IPv6 }},
		{"port without protocol", []field.Cond{single("orig.dport", 80)}, func(*Flow) bool { return true }},
		{"zone 0", []field.Cond{single("zone", 0)}, func(*Flow) bool { return true }},
	} {
		k, families := FilterFrom(tt.conds)
		got := dumpAll(t, DumpOptions{Filter: k, Families: families})
		want := 0
		for _, f := range all {
			if tt.match(f) {
				want++
				if got[flowName(f)] == nil {
					t.Errorf("%s: %s is missing", tt.name, flowName(f))
				}
			}
		}
		if k.Zone != 0 && !kernelHasZones(t) || k.StatusMask != 0 && !kernelHasStatus(t) {
			want = len(all) // ignored: whoever lists looks at each flow
		}
		if len(got) != want || want == 0 {
			t.Errorf("%s: %d flows, want %d", tt.name, len(got), want)
		}
	}
}

// kernelHasZones reports whether dumps and flushes by zone can be had, kernelHasStatus
// those by status. By version, as nfctl's own probe is what the tests are about.
func kernelHasZones(t *testing.T) bool  { return nstest.Since(t, 6, 8) }
func kernelHasStatus(t *testing.T) bool { return nstest.Since(t, 5, 15) }

// TestFilterRefused: a filter that the kernel refuses is left out.
func TestFilterRefused(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	made := varied(t, dial(t))
	k := KernelFilter{Orig: Tuple{Sport: 1, Present: TupleSport}} // a port without a protocol: EINVAL
	if got := dumpAll(t, DumpOptions{Filter: k}); len(got) != len(made) {
		t.Errorf("%d flows, want all %d", len(got), len(made))
	}
}

// TestPlan: a filter of tuples costs a walk over the table for each family, and
// is used where that can be worth it.
func TestPlan(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	fill(t, c, 500)
	half := func(f *Flow) bool { return f.Orig.Src.As4()[3]%2 == 0 }
	all := func(*Flow) bool { return true }
	if mostly(half) || !mostly(all) {
		t.Errorf("half of the table: %v, all of it: %v", mostly(half), mostly(all))
	}
	few := sparse()
	if n := buckets() / 16; few != (n > 500) {
		t.Errorf("500 flows are few: %v, with less than %d they are", few, n)
	}
	udp := KernelFilter{Orig: Tuple{Proto: UDP, Present: TupleProto}, Mark: 0, MarkMask: 1}
	for _, tt := range []struct {
		name     string
		o        DumpOptions
		parallel bool
		walks    int
		tuples   bool
	}{
		{"nobody looks again", DumpOptions{Filter: udp}, false, 2, true},
		{"all", DumpOptions{Filter: udp, Keep: all}, false, 1, false},
		{"half", DumpOptions{Filter: udp, Keep: half}, false, map[bool]int{true: 1, false: 2}[few], !few},
		{"side by side", DumpOptions{Filter: udp, Keep: all}, true, map[bool]int{true: 1, false: 2}[few], !few},
		{"one family", DumpOptions{Filter: udp, Keep: all, Families: []uint8{IPv4}}, false, 1, true},
		{"no tuples", DumpOptions{Filter: KernelFilter{MarkMask: 1}, Keep: half}, false, 1, false},
	} {
		walks := tt.o.plan(tt.parallel)
		if len(walks) != tt.walks || tt.o.Filter.tuples() != tt.tuples || tt.o.Filter.MarkMask != 1 {
			t.Errorf("%s: walks %v with %+v", tt.name, walks, tt.o.Filter)
		}
	}
	n := 0
	if _, err := Dump(context.Background(), DumpOptions{Filter: udp, Keep: all}, func(*Flow) error {
		n++
		return nil
	}); err != nil || n != 500 {
		t.Errorf("%d flows, %v", n, err)
	}
}

type counting struct {
	flows, rests int
	names        map[string]bool
	stopAt       int
}

func (c *counting) Flow(f *Flow) error {
	c.flows++
	c.names[flowName(f)] = true
	if c.flows == c.stopAt {
		return nl.ErrStop
	}
	return nil
}
func (c *counting) Rest() error { c.rests++; return nil }

func fill(t testing.TB, c *Conn, n int) {
	t.Helper()
	b := c.NewBatch(100, func(f *Flow, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	f := flow(t, "10.0.0.1:1", "10.0.0.2:53", UDP)
	for i := range n {
		f.Orig.Src = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		f.Reply = f.Orig.Reverse()
		if err := b.Create(f, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestDumpParallel(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	made := len(varied(t, c))
	many := buckets()/16 + 1
	for _, filled := range []struct{ flows, workers int }{{0, 1}, {many, 2}} {
		fill(t, c, filled.flows)
		var ws []*counting
		res, err := DumpParallel(context.Background(), DumpOptions{}, func() Worker {
			w := &counting{names: map[string]bool{}}
			ws = append(ws, w)
			return w
		})
		if err != nil || len(ws) != filled.workers {
			t.Fatalf("%d flows: %v, %d workers", filled.flows, err, len(ws))
		}
		n := 0
		for _, w := range ws {
			if n += len(w.names); w.rests == 0 {
				t.Errorf("%d flows: a worker never rested", filled.flows)
			}
		}
		if n != filled.flows+made || int(res.Flows) != n {
			t.Errorf("%d flows of %d, %+v", n, filled.flows+made, res)
		}
	}
	// One worker's end ends the other.
	if _, err := DumpParallel(context.Background(), DumpOptions{}, func() Worker {
		return &counting{names: map[string]bool{}, stopAt: 3}
	}); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Dump(ctx, DumpOptions{}, func(*Flow) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestWindow: a flow that comes again soon is told, one with the same id by
// chance is not taken for it.
func TestWindow(t *testing.T) {
	var w window
	a, b := flow(t, "10.0.0.1:1", "10.0.0.2:2", UDP), flow(t, "10.0.0.1:3", "10.0.0.2:2", UDP)
	a.ID, b.ID = 7, 7
	a.Present |= HasID
	b.Present |= HasID
	if w.again(a) {
		t.Error("first sight")
	}
	w.turn()
	if !w.again(a) {
		t.Error("not known again in the next datagram")
	}
	if w.again(b) {
		t.Error("another flow with the same id is taken for it")
	}
	w.turn()
	w.turn()
	w.turn()
	if w.again(a) {
		t.Error("remembered for ever")
	}
}

// TestNoFlowTwice dumps while entries come and go, so that the kernel starts
// buckets anew.
func TestNoFlowTwice(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	fill(t, c, 5000)
	stop, done := make(chan struct{}), make(chan struct{})
	churn := dial(t)
	go func() {
		defer close(done)
		f := flow(t, "10.0.0.1:1", "10.0.0.2:53", UDP)
		b := churn.NewBatch(50, nil)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			f.Orig.Src = netip.AddrFrom4([4]byte{10, 1, byte(i % 5000 >> 8), byte(i % 5000)})
			f.Reply = f.Orig.Reverse()
			if b.Delete(f) != nil || b.Create(f, true) != nil {
				t.Error("churn")
				return
			}
		}
	}()
	var dups uint64
	for range 10 {
		seen := map[flowKey]int{}
		res, err := Dump(context.Background(), DumpOptions{}, func(f *Flow) error { seen[f.key()]++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		dups += res.Duplicates
		for k, n := range seen {
			if n > 1 {
				t.Errorf("%v came %d times", k, n)
			}
		}
	}
	close(stop)
	<-done
	t.Logf("%d duplicates suppressed", dups)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	c := dial(t)
	base := flow(t, "10.0.0.1:1", "10.0.0.2:21", TCP, "state=ESTABLISHED", "helper-name=ftp",
		"status=SEEN_REPLY,ASSURED")
	plain := flow(t, "10.0.0.1:2", "10.0.0.2:80", TCP, "state=ESTABLISHED")
	sctp := flow(t, "10.0.0.1:2", "10.0.0.2:80", SCTP, "state=ESTABLISHED", "sctp-vtag-orig=1", "sctp-vtag-repl=2")
	// so that the kernel has that helper
	irc := flow(t, "10.0.0.1:3", "10.0.0.2:6667", TCP, "state=ESTABLISHED", "helper-name=irc")
	for _, f := range []*Flow{base, plain, sctp, irc} {
		if err := c.Create(f, false); err != nil {
			t.Fatal(err)
		}
	}
	noTimeout := flow(t, "10.0.0.1:9", "10.0.0.2:80", UDP)
	noTimeout.Present &^= HasTimeout
	oneWay := flow(t, "10.0.0.1:9", "10.0.0.2:80", UDP)
	oneWay.Reply = Tuple{}
	odd := flow(t, "10.0.0.1:9", "10.0.0.2:80", UDP)
	odd.Reply.Proto = TCP
	noAnswer := flow(t, "10.0.0.1", "10.0.0.2", ICMP, "icmp-type=3")
	orphan := flow(t, "10.0.0.1:9", "10.0.0.2:80", UDP)
	orphan.Master = flow(t, "10.9.9.9:9", "10.0.0.2:80", UDP).Orig
	change := func(set ...string) *Flow {
		f := &Flow{}
		f.Orig.Proto = TCP
		for _, s := range set {
			name, text, _ := strings.Cut(s, "=")
			if err := Find(FlowAttrs(), name).SetText(f, text); err != nil {
				t.Fatal(err)
			}
		}
		return f
	}
	sctpState := &Flow{Present: HasSCTPState, SCTPState: 4}
	for _, tt := range []struct {
		name string
		err  error
		no   syscall.Errno
		why  string
	}{
		{"exists", c.Create(plain, false), syscall.EEXIST, "there already"},
		{"no timeout", c.Create(noTimeout, false), syscall.EINVAL, "needs a timeout"},
		{"no reply", c.Create(oneWay, false), syscall.EINVAL, "both tuples"},
		{"two protocols", c.Create(odd, false), syscall.EINVAL, "same protocol"},
		{"icmp without answer", c.Create(noAnswer, false), syscall.EINVAL, "no answer"},
		{"no helper", c.Create(flow(t, "10.0.0.1:9", "10.0.0.2:80", TCP, "state=ESTABLISHED", "helper-name=nosuch"), false), syscall.EOPNOTSUPP, "no such helper"},
		{"no master", c.Create(orphan, false), syscall.ENOENT, "master"},
		{"get", c.Get(noTimeout, &Flow{}, false), syscall.ENOENT, "no such flow"},
		{"delete", c.Delete(noTimeout), syscall.ENOENT, "no such flow"},
		{"update absent", c.Update(noTimeout, change("mark=1")), syscall.ENOENT, "no such flow"},
		{"helper late", c.Update(plain, change("helper-name=ftp")), syscall.EOPNOTSUPP, "only when the entry is made"},
		{"other helper", c.Update(base, change("helper-name=irc")), syscall.EBUSY, "another helper"},
		{"dying", c.Update(plain, change("status=DYING")), syscall.EBUSY, "cannot be changed"},
		{"nat late", c.Update(plain, change("snat-ipv4=1.2.3.4")), syscall.EOPNOTSUPP, "only when the entry is made"},
		{"labels", c.Update(plain, change("connlabels=1")), syscall.ENOSPC, "labels need a rule"},
		{"sctp state alone", c.Update(sctp, sctpState), syscall.EINVAL, "both verification tags"},
	} {
		if !errors.Is(tt.err, tt.no) || !strings.Contains(tt.err.Error(), tt.why) {
			t.Errorf("%s: %v; want %v, %s", tt.name, tt.err, tt.no, tt.why)
		}
	}
	if err := c.Create(flow(t, "10.0.0.1:10", "10.0.0.2:80", UDP, "connlabels=1,100"), false); !errors.Is(err,
		ErrLabelsDropped) {
		t.Errorf("labels without a rule: %v", err)
	}
	if err := c.Delete(&Flow{}); err == nil {
		t.Error("deleting nothing in particular: want an error")
	}
	if n := len(dumpAll(t, DumpOptions{})); n != 5 {
		t.Errorf("%d entries, want 5", n)
	}
	// With a rule that uses labels all of it works.
	nstest.Need(t, "iptables")
	ns.Run("iptables", "-A", "INPUT", "-m", "connlabel", "--label", "1")
	labeled := flow(t, "10.0.0.1:11", "10.0.0.2:80", UDP, "connlabels=1,100")
	if err := c.Create(labeled, false); err != nil {
		t.Errorf("labels with a rule: %v", err)
	}
	add := &Flow{Present: HasLabels | HasLabelsMask}
	add.Labels, add.LabelsMask = [16]byte{4}, [16]byte{6} // add 2, delete 1
	if err := c.Update(labeled, add); err != nil {
		t.Error(err)
	}
	var got Flow
	if err := c.Get(labeled, &got, false); err != nil || got.Labels != [16]byte{4, 12: 16} {
		t.Errorf("labels = %x, %v", got.Labels, err)
	}
}

// TestUpdate changes what can be changed and reads it back.
func TestUpdate(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	f := flow(t, "10.0.0.1:1", "10.0.0.2:21", TCP, "state=SYN_SENT", "helper-name=ftp", "mark=0xff")
	if err := c.Create(f, false); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ set, name, want string }{
		{"mark=0x1/0x3", "mark", "253"},
		{"mark=0", "mark", "0"},
		{"timeout=5m", "timeout", "300"},
		{"status=SEEN_REPLY", "status", "SEEN_REPLY,CONFIRMED,HELPER"},
		{"status=ASSURED", "status", "SEEN_REPLY,ASSURED,CONFIRMED,HELPER"},
		{"tcp-state=ESTABLISHED", "tcp-state", "ESTABLISHED"},
		{"helper-name=", "helper-name", ""},
	} {
		name, text, _ := strings.Cut(tt.set, "=")
		var now, ch Flow
		if err := c.Get(f, &now, false); err != nil {
			t.Fatal(err)
		}
		if err := Find(FlowAttrs(), name).SetText(&ch, text); err != nil {
			t.Fatal(err)
		}
		if err := c.Update(&now, &ch); tt.set == "helper-name=" && errors.Is(err, syscall.EOPNOTSUPP) &&
			nstest.Since(t, 7, 0) {
			t.Log("this kernel takes a helper from no entry")
			if !strings.Contains(err.Error(), "takes a helper from no entry") {
				t.Error(err)
			}
			continue
		} else if err != nil {
			t.Errorf("%s: %v", tt.set, err)
			continue
		}
		if err := c.Get(f, &now, false); err != nil {
			t.Fatal(err)
		}
		if got := string(Find(FlowAttrs(), tt.name).AppendText(nil, &now)); got != tt.want &&
			!(name == "timeout" && got == "299") &&
			!(name == "status" && got == strings.TrimSuffix(tt.want, ",HELPER")) {
			t.Errorf("%s: %s is %q, want %q", tt.set, tt.name, got, tt.want)
		}
	}
}

// TestDeleteByID: another entry with the same tuple is left alone.
func TestDeleteByID(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	f := flow(t, "10.0.0.1:1", "10.0.0.2:21", UDP)
	if err := c.Create(f, false); err != nil {
		t.Fatal(err)
	}
	var old Flow
	if err := c.Get(f, &old, false); err != nil {
		t.Fatal(err)
	}
	old.ID++
	if err := c.Delete(&old); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("wrong id: %v", err)
	}
	old.ID--
	if err := c.Delete(&old); err != nil {
		t.Error(err)
	}
	if n := len(dumpAll(t, DumpOptions{})); n != 0 {
		t.Errorf("%d entries left", n)
	}
}

// TestBatch: each request's outcome is told, with its own flow and reason.
func TestBatch(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	fill(t, c, 250)
	var ok, exists int
	var ports []uint16
	b := c.NewBatch(100, func(f *Flow, err error) {
		ports = append(ports, f.Orig.Sport)
		switch {
		case err == nil:
			ok++
		case errors.Is(err, syscall.EEXIST) && f.Orig.Sport == 1:
			exists++
		default:
			t.Errorf("%s: %v", flowName(f), err)
		}
	})
	f := flow(t, "10.0.0.1:1", "10.0.0.2:53", UDP)
	var want []uint16
	for i := range 500 {
		f.Orig.Src = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		f.Orig.Sport = 1 // 250 of them are there
		f.Reply = f.Orig.Reverse()
		want = append(want, 1)
		if err := b.Create(f, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	if ok != 250 || exists != 250 || !slices.Equal(ports, want) {
		t.Errorf("%d made, %d there", ok, exists)
	}
	reads := 0
	g := c.NewBatch(50, nil)
	g.Reply(func(f *Flow) {
		if !f.Has(HasID) || !bytes.Equal(f.Orig.Src.AsSlice()[:2], []byte{10, 1}) {
			t.Errorf("read %+v", f)
		}
		reads++
	})
	for i := range 120 {
		f.Orig.Src = netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		if err := g.Get(f, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Flush(); err != nil || reads != 120 {
		t.Errorf("%d read, %v", reads, err)
	}
	if err := g.Delete(&Flow{}); err == nil {
		t.Error("an unnamed flow in a batch: want an error")
	}
}

// TestFlush deletes just what it is told to.
func TestFlush(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t)
	for _, tt := range []struct {
		name   string
		family uint8
		k      KernelFilter
		goes   func(f *Flow) bool
	}{
		{"zone", 0, KernelFilter{Zone: 9}, func(f *Flow) bool { return f.Zone == 9 }},
		{"mark", 0, KernelFilter{Mark: 7, MarkMask: 0xff}, func(f *Flow) bool { return f.Mark&0xff == 7 }},
		{"status", 0, KernelFilter{Status: StatusAssured, StatusMask: StatusAssured}, func(f *Flow) bool { return f.Status&StatusAssured != 0 }},
		{"ipv6", IPv6, KernelFilter{}, func(f *Flow) bool { return f.Orig.Family == IPv6 }},
		{"all", 0, KernelFilter{}, func(*Flow) bool { return true }},
	} {
		made := varied(t, c)
		if err := c.Flush(tt.family, tt.k); errors.Is(err, ErrNotHonoured) &&
			(tt.k.Zone != 0 && !kernelHasZones(t) || tt.k.StatusMask != 0 && !kernelHasStatus(t)) {
			tt.goes = func(*Flow) bool { return false } // refused: nothing may be gone
		} else if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		left := dumpAll(t, DumpOptions{})
		for _, f := range made {
			if gone := left[flowName(f)] == nil; gone != tt.goes(f) {
				t.Errorf("%s: %s: gone %v", tt.name, flowName(f), gone)
			}
		}
		if err := c.Flush(0, KernelFilter{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(0, KernelFilter{Orig: Tuple{Proto: TCP, Present: TupleProto}}); err == nil {
		t.Error("a flush by tuple would delete all: want an error")
	}
}

// TestFlushProbe: a kernel that ignores a filter, or deletes too little, is found
// out. The request is bent to be what such a kernel makes of it.
func TestFlushProbe(t *testing.T) {
	t.Parallel()
	for _, what := range []flushFilter{{zone: true}, {mark: true}, {status: true}, {family: true},
		{family: true, zone: true}} {
		for name, tt := range map[string]struct {
			request func([]byte, uint8, KernelFilter) []byte
			want    bool
		}{
			"as asked": {appendFlush, true},
			"ignored":  {func(b []byte, _ uint8, _ KernelFilter) []byte { return appendFlush(b, 0, KernelFilter{}) }, false},
			"too little": {func(b []byte, f uint8, k KernelFilter) []byte {
				return appendFlush(b, f, KernelFilter{Mark: 99, MarkMask: 99})
			}, false},
		} {
			var ok bool
			err := nl.InFreshNamespace(func() (err error) { ok, err = tryFlush(what, tt.request); return err })
			if err != nil ||
				ok != (tt.want && (!what.zone || kernelHasZones(t)) && (!what.status || kernelHasStatus(t))) {
				t.Errorf("%+v, %s: %v, %v", what, name, ok, err)
			}
		}
	}
}
