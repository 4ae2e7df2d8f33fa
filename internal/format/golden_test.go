package format

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/gentest"
)

// golden compares got with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	gentest.File(t, "internal/format/testdata/"+name, got)
}

const noon = 1767355200_123456789 // 2026-01-02T12:00:00.123456789Z

// samples are flows of every sort, with and without what is rare.
func samples() []*ct.Flow {
	addr := netip.MustParseAddr
	tuple := func(proto uint8, src, dst string, a, b uint16) ct.Tuple {
		t := ct.Tuple{Src: addr(src), Dst: addr(dst), Proto: proto, Family: ct.IPv4,
			Present: ct.TupleFamily | ct.TupleProto}
		if t.Src.Is6() {
			t.Family = ct.IPv6
		}
		switch {
		case ct.HasPorts(proto) || proto == ct.GRE:
			t.Sport, t.Dport, t.Present = a, b, t.Present|ct.TupleSport|ct.TupleDport
		case proto == ct.ICMP || proto == ct.ICMPv6:
			t.Type, t.ID, t.Present = uint8(a), b, t.Present|ct.TupleType|ct.TupleCode|ct.TupleID
		}
		return t
	}
	flow := func(proto uint8, src, dst string, a, b uint16, more func(*ct.Flow)) *ct.Flow {
		f := &ct.Flow{Orig: tuple(proto, src, dst, a, b), Status: ct.StatusConfirmed, Timeout: 30, Use: 1, ID: 7,
			Present: ct.HasStatus | ct.HasTimeout | ct.HasMark | ct.HasUse | ct.HasID, Time: noon}
		f.SetupReply()
		if more != nil {
			more(f)
		}
		return f
	}
	return []*ct.Flow{
		typical(),
		flow(ct.TCP, "10.0.0.1", "10.0.0.2", 40000, 22, func(f *ct.Flow) {
			f.Event, f.Present, f.TCPState = ct.New, f.Present&^ct.HasUse|ct.HasTCPState, 1
			f.By = ct.By{PortID: 4711, Pid: 12, Comm: []byte("a \x1b<b>")}
		}),
		flow(ct.TCP, "10.0.0.1", "10.0.0.2", 40001, 21, func(f *ct.Flow) {
			f.Event, f.TCPState, f.Helper, f.Zone, f.Mark = ct.Update, 3, []byte("ftp"), 5, 1<<32-1
			f.Present |= ct.HasTCPState | ct.HasHelper | ct.HasZone | ct.HasTCPWscaleOrig | ct.HasTCPWscaleReply |
				ct.HasTCPFlagsOrig | ct.HasTCPFlagsReply | ct.HasSeqOrig
			f.TCPWscaleOrig, f.TCPWscaleReply, f.TCPFlagsOrig, f.TCPFlagsReply = 7, 8, 0x23, 1
			f.SeqOrig = ct.SeqAdj{Pos: 100, Before: 0, After: 1<<32 - 3}
			f.Status |= ct.StatusSeenReply | ct.StatusAssured | ct.StatusSrcNAT | ct.StatusSrcNATDone | ct.StatusHelper
			f.Reply.Dst, f.Reply.Dport = addr("192.0.2.1"), 61000
		}),
		flow(ct.UDP, "10.0.0.1", "10.0.0.2", 1, 53, func(f *ct.Flow) {
			f.Event, f.Start, f.Stop = ct.Destroy, noon-65e9, noon
			f.Present = f.Present&^(ct.HasUse|ct.HasMark|ct.HasTimeout) | ct.HasStart | ct.HasStop |
				ct.HasOrigCounters | ct.HasReplyCounters
			f.OrigCounters, f.ReplyCounters = ct.Counters{Packets: 1, Bytes: 60},
				ct.Counters{Packets: 1<<64 - 1, Bytes: 0}
		}),
		flow(ct.UDP, "fd00::1", "fd00::2", 5353, 53, func(f *ct.Flow) {
			f.Event, f.NoEvents, f.Orig.Zone, f.Reply.Zone, f.Secctx = ct.Existing, true, 6, 7,
				[]byte("u:object_r:<&>\xff")
			f.Orig.Present |= ct.TupleZone
			f.Reply.Present |= ct.TupleZone
			f.Labels[0], f.Present = 0xa0, f.Present|ct.HasLabels|ct.HasSecctx|ct.HasSecmark
			f.Status |= ct.StatusSeenReply | ct.StatusDstNAT | ct.StatusDstNATDone | ct.StatusOffload
			f.Reply.Src, f.Reply.Sport = addr("fd00::9"), 5300
		}),
		flow(ct.ICMP, "10.0.0.1", "10.0.0.2", 8, 513, nil),
		flow(ct.ICMPv6, "fd00::1", "fd00::2", 128, 513, func(f *ct.Flow) { f.Status |= ct.StatusHWOffload | ct.StatusSeenReply }),
		flow(ct.GRE, "10.0.0.1", "10.0.0.2", 1000, 2000, nil),
		flow(ct.SCTP, "10.0.0.1", "10.0.0.2", 5, 6, func(f *ct.Flow) {
			f.SCTPState, f.SCTPVtagOrig, f.SCTPVtagReply = 4, 0x01000000, 2
			f.Present |= ct.HasSCTPState | ct.HasSCTPVtagOrig | ct.HasSCTPVtagReply
		}),
		flow(ct.DCCP, "10.0.0.1", "10.0.0.2", 5, 6, func(f *ct.Flow) {
			f.DCCPState, f.DCCPRole, f.DCCPSeq = 4, 1, 99
			f.Present |= ct.HasDCCPState | ct.HasDCCPRole | ct.HasDCCPSeq
		}),
		flow(50, "10.0.0.1", "10.0.0.2", 0, 0, func(f *ct.Flow) {
			f.Unknown = []ct.Unknown{{Type: 99, Data: []byte{1, 2}}}
		}),
		flow(ct.TCP, "10.0.0.3", "10.0.0.4", 20, 2000, func(f *ct.Flow) {
			f.Master = tuple(ct.TCP, "10.0.0.4", "10.0.0.3", 40002, 21)
			f.TCPState, f.SynISN, f.Present = 200, 5, f.Present|ct.HasTCPState|ct.HasSynproxy
			f.Status |= ct.StatusExpected
		}),
	}
}

func sampleExpects() []*ct.Expect {
	master := samples()[2].Orig
	e := &ct.Expect{Tuple: master, Mask: master, Master: master, Timeout: 300, ID: 0xabcdef, Helper: []byte("ftp"),
		Time:    noon,
		Present: ct.ExpectHasTimeout | ct.ExpectHasID | ct.ExpectHasHelper | ct.ExpectHasFlags | ct.ExpectHasClass}
	e.Tuple.Sport, e.Tuple.Dport = 0, 5001
	e.Mask.Src, e.Mask.Dst, e.Mask.Sport, e.Mask.Dport = netip.MustParseAddr("255.255.255.255"),
		netip.MustParseAddr("255.255.255.255"), 0, 65535
	n := *e
	n.Event, n.Flags, n.Zone, n.Class, n.NATTuple, n.Fn = ct.New, 7, 3, 1, master, []byte("nat-follow-master")
	n.Present |= ct.ExpectHasZone | ct.ExpectHasNATDir | ct.ExpectHasFn
	n.By = ct.By{PortID: 9}
	return []*ct.Expect{e, &n}
}

// TestGolden holds every format of flows, expectations and small objects.
func TestGenerated(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	names := filepath.Join(t.TempDir(), "labels")
	if err := os.WriteFile(names, []byte("5 five\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ct.LoadLabels(names); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ file, output, fields, template string }{
		{"flow.text", "text", "", ""}, {"flow_all.text", "extended,id,timestamp,ktimestamp,labels", "", ""},
		{"flow.json", "json", "", ""}, {"flow.csv", "csv", "", ""}, {"flow.tsv", "tsv", "", ""}, {"flow.table", "table", "", ""},
		{"flow.xml", "xml", "", ""}, {"flow_all.xml", "xml,extended,id,timestamp,ktimestamp,labels", "", ""},
		{"flow.words", "flow", "", ""}, {"flow.save", "save", "", ""},
		{"flow_fields.tsv", "tsv", "ipv4-src,orig.dport,status,labels,helper,tcp", ""}, {"flow_fields.json", "json", "mark,orig.src,by", ""},
		{"flow.template", "", "", "{{.proto}} {{.orig.src}}:{{.orig.sport}} {{if .helper}}helper {{.helper}}{{end}}{{range .status}} {{.}}{{end}}"},
	} {
		o, err := ParseOutput(tt.output)
		if err == nil {
			err = o.Select(tt.fields, tt.template)
		}
		p, err2 := New(Flows, o, Options{Stream: true})
		if err != nil || err2 != nil {
			t.Fatal(tt.file, err, err2)
		}
		b := p.Begin(nil)
		for _, f := range samples() {
			b = p.Append(b, f)
		}
		b = p.End(b)
		if strings.HasSuffix(tt.file, "xml") {
			wellFormed(t, string(b))
		}
		golden(t, tt.file, b)
	}
	for _, format := range []string{"text", "extended,id,timestamp", "json", "csv", "table", "xml"} {
		o := output(t, format)
		p, err := New(Expects, o, Options{Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		b := p.Begin(nil)
		for _, e := range sampleExpects() {
			b = p.Append(b, e)
		}
		golden(t, "expect."+strings.ReplaceAll(format, ",", "_"), p.End(b))
	}
	gentest.File(t, "docs/schema.json", jsonSchema())
	gentest.Between(t, "docs/json.md", "keys", keyTables())
}

// objects prints small objects in every format that they have.
func objects[T any](t *testing.T, b []byte, s *Subject[T], list ...T) []byte {
	t.Helper()
	for _, f := range []Format{Text, Table, JSON, CSV, TSV, XML} {
		p, err := New(s, Output{Format: f}, Options{})
		if f == XML && s.XML == nil {
			if err == nil {
				t.Errorf("%s as XML: want an error", s.Kind)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		b = append(append(append(b, "# "+s.Kind+" "...), f.String()...), '\n')
		b = p.Begin(b)
		for i := range list {
			b = p.Append(b, &list[i])
		}
		b = p.End(b)
	}
	return b
}

func TestGeneratedObjects(t *testing.T) {
	known := make([]bool, 15)
	for i := range known {
		known[i] = i == 1 || i == 3 || i > 6
	}
	values := []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
	b := objects(t, nil, Losses, Loss{Time: noon, Count: 5, Known: true, Where: "socket"},
		Loss{Where: "queue", Queue: 3})
	b = objects(t, b, Marks, Mark{Kind: "existing", Time: noon, Flows: 3, Expects: 1, NoEvents: 2},
		Mark{Kind: "resync", Time: noon}, Mark{Kind: "resynced", Flows: 1})
	b = objects(t, b, Counts, Count{"flows", 999, 1000}, Count{"expectations", 3, 0})
	b = objects(t, b, FlowStats(), Stats{CPU: 0, Values: values, Known: known},
		Stats{CPU: 1234, Values: values, Known: known}, Stats{CPU: -1, Values: values, Known: known, Rates: values})
	b = objects(t, b, ExpectStats(), Stats{CPU: 0, Values: values[:3], Known: []bool{true, true, true}})
	b = objects(t, b, Findings, Finding{"conntrack", "ok", "tracks", ""},
		Finding{"accounting", "warn", "off", "sysctl -w net.netfilter.nf_conntrack_acct=1"})
	b = objects(t, b, Needs, Need{"copy", "256 bytes of each packet", 3, "f:3: drop"},
		Need{Need: "privileges", Text: "CAP_NET_ADMIN"})
	b = objects(t, b, Attrs, AttrTable("flow", ct.FlowAttrs())[3:6]...)
	golden(t, "objects", b)
	for _, f := range []Format{Text, JSON, XML, CSV, Table, Template, Save} {
		p, err := NewAside(Losses, Output{Format: f, Fields: []string{"orig.src"}})
		if err != nil {
			t.Fatal(err)
		}
		got := string(p.End(p.Append(p.Begin(nil), &Loss{Count: 5, Known: true, Where: "socket"})))
		if want := f == Text || f == JSON || f == XML; want != (strings.Contains(got, "5") &&
			strings.Count(got, "\n") == 1) {
			t.Errorf("%v between others: %q", f, got)
		}
	}
}

// TestSeedLines are lines of libnetfilter_conntrack 1.0.9 for objects that no
// kernel makes.
func TestSeedLines(t *testing.T) {
	base := func() *ct.Flow {
		f := &ct.Flow{Orig: samples()[0].Orig, Timeout: 120, TCPState: 3, Mark: 42,
			Present: ct.HasTimeout | ct.HasTCPState | ct.HasMark}
		f.Orig.Src, f.Orig.Dst, f.Orig.Sport, f.Orig.Dport = netip.MustParseAddr("1.2.3.4"),
			netip.MustParseAddr("5.6.7.8"), 1234, 80
		f.SetupReply()
		return f
	}
	const start = "tcp      6 120 ESTABLISHED src=1.2.3.4 dst=5.6.7.8 sport=1234 dport=80 "
	for _, tt := range []struct {
		change func(*ct.Flow)
		want   string
	}{
		{func(f *ct.Flow) { f.Status, f.Present = 6, f.Present|ct.HasStatus }, start + "src=5.6.7.8 dst=1.2.3.4 sport=80 dport=1234 [ASSURED] mark=42"},
		{func(f *ct.Flow) { f.Present |= ct.HasStatus }, start + "[UNREPLIED] src=5.6.7.8 dst=1.2.3.4 sport=80 dport=1234 mark=42"},
		{func(f *ct.Flow) { f.Reply = ct.Tuple{} }, start + "mark=42"},
		{func(f *ct.Flow) { f.TCPState = 77; f.Reply = ct.Tuple{}; f.Mark = 0 }, strings.Replace(start, "ESTABLISHED", "NONE", 1) + "mark=0"},
		{func(f *ct.Flow) {
			f.Reply, f.Orig.Src, f.Orig.Dst = ct.Tuple{}, netip.Addr{}, netip.Addr{}
		}, "tcp      6 120 ESTABLISHED src=0.0.0.0 dst=0.0.0.0 sport=1234 dport=80 mark=42"},
		{func(f *ct.Flow) { *f = ct.Flow{Event: ct.Destroy} }, "[DESTROY] unknown  0 src=0.0.0.0 dst=0.0.0.0"},
	} {
		f := base()
		tt.change(f)
		if got := string(AppendFlow(nil, f, &Output{})); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestAllocations(t *testing.T) {
	flows, expects := samples(), sampleExpects()
	for _, format := range []string{"text", "extended,id,timestamp,ktimestamp,labels", "json", "csv", "tsv",
		"xml,labels,timestamp", "flow", "save"} {
		p, err := New(Flows, output(t, format), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range flows {
			if f.Secctx != nil || f.By.Comm != nil {
				continue // to be escaped
			}
			f.Time = max(f.Time, 1)
			sink = p.Append(sink[:0], f) // memory that is kept is made now
			if n := testing.AllocsPerRun(50, func() { sink = p.Append(sink[:0], f) }); n != 0 {
				t.Errorf("%s: flow %d: %v allocations", format, i, n)
			}
		}
	}
	for _, format := range []string{"text", "json", "csv", "xml"} {
		p, err := New(Expects, output(t, format), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range expects {
			if n := testing.AllocsPerRun(50, func() { sink = p.Append(sink[:0], e) }); n != 0 {
				t.Errorf("%s: expectation %d: %v allocations", format, i, n)
			}
		}
	}
}

// TestPresence: what is skipped by a look at bits is what a look at each field
// would skip too.
func TestPresence(t *testing.T) {
	fast, err := newJSON(ct.FlowFields, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	plain := slices.Clone(ct.FlowFields.Rows())
	for i := range plain {
		plain[i].Part, plain[i].Need = nil, 0
	}
	slow, err := newJSON(field.New(func() []field.Row[ct.Flow] { return plain }), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	same := func(f *ct.Flow) {
		t.Helper()
		if a, b := string(fast.Append(nil, f)), string(slow.Append(nil, f)); a != b {
			t.Errorf("got  %swant %s", a, b)
		}
	}
	for _, f := range samples() {
		same(f)
		for bit := range 64 { // one attribute at a time, and all but one
			f.Present = 1 << bit
			same(f)
			f.Present = ^f.Present
			same(f)
		}
		for bit := range 8 {
			f.Orig.Present, f.Reply.Present = 1<<bit, ^(1 << bit)
			same(f)
		}
	}
}

// TestJSONAgain: what a writer remembers of the objects before does not show.
func TestJSONAgain(t *testing.T) {
	used, err := newJSON(ct.FlowFields, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	list := append(samples(), mixed()...)
	for n := range uint64(maxSets + 2) { // more sets of bits than are kept, and values of all lengths
		f := typical()
		f.Present, f.Status, f.Time, f.OrigCounters.Bytes = f.Present|ct.Has(n)<<33, uint32(1)<<(n%33)-1, n, 1<<(n%64)-1
		list = append(list, f, typical())
	}
	for _, f := range append(list, list...) {
		fresh, _ := newJSON(ct.FlowFields, nil, nil)
		if got, want := string(used.Append(nil, f)), string(fresh.Append(nil, f)); got != want {
			t.Fatalf("got  %swant %s", got, want)
		}
	}
	if len(used.sets) > maxSets {
		t.Errorf("%d sets are kept", len(used.sets))
	}
}
