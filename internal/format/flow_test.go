package format

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"nfctl/internal/ct"
)

// typical returns a flow as a dump has it: TCP, seen both ways, with counters,
// start, mark, labels and use.
func typical() *ct.Flow {
	f := &ct.Flow{
		Orig: ct.Tuple{Src: netip.MustParseAddr("10.10.1.17"), Dst: netip.MustParseAddr("192.168.100.2"),
			Sport: 40123, Dport: 443, Family: ct.IPv4, Proto: ct.TCP,
			Present: ct.TupleFamily | ct.TupleProto | ct.TupleSport | ct.TupleDport},
		Status:       ct.StatusSeenReply | ct.StatusAssured | ct.StatusConfirmed,
		Timeout:      431999,
		Use:          1,
		ID:           3406874931,
		Mark:         7,
		TCPState:     3,
		OrigCounters: ct.Counters{Packets: 12, Bytes: 3456}, ReplyCounters: ct.Counters{Packets: 10, Bytes: 98765},
		TCPWscaleOrig: 7, TCPWscaleReply: 7, TCPFlagsOrig: 0x23, TCPFlagsReply: 0x23,
		Present: ct.HasStatus | ct.HasTimeout | ct.HasUse | ct.HasID | ct.HasMark | ct.HasTCPState |
			ct.HasOrigCounters | ct.HasReplyCounters,
	}
	f.SetupReply()
	return f
}

// mixed returns events as they come when a program makes and ends entries: of
// both families and several protocols, in no order that a processor could learn.
func mixed() (list []*ct.Flow) {
	six := func(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd00::%x", n)) }
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 256 {
		f := typical()
		f.Event, f.Time, f.By = ct.New, 1764000000123456789+uint64(n/32)*1e6,
			ct.By{PortID: 4321, Pid: 4321, Comm: []byte("ctfill")}
		f.Orig.Sport, f.ID, f.Timeout = uint16(1024+37*n), r.Uint32(), uint32(r.IntN(4000))
		f.Orig.Dst = netip.AddrFrom4([4]byte{172, 16, byte(n), byte(r.IntN(256))})
		f.Present = ct.HasStatus | ct.HasTimeout | ct.HasID | ct.HasTCPState | ct.HasTCPWscaleOrig |
			ct.HasTCPWscaleReply | ct.HasTCPFlagsOrig | ct.HasTCPFlagsReply | ct.HasTCPMaskOrig | ct.HasTCPMaskReply |
			ct.HasSynproxy
		if r.IntN(3) == 0 {
			f.Present |= ct.HasMark
		}
		if r.IntN(3) == 0 {
			f.Orig.Src, f.Orig.Dst, f.Orig.Family = six(1), six(r.IntN(65536)), ct.IPv6
		}
		if r.IntN(4) == 0 {
			f.Orig.Proto, f.Present = ct.UDP, ct.HasStatus|ct.HasTimeout|ct.HasID
		}
		if r.IntN(2) == 0 {
			f.Event, f.Present, f.Status = ct.Destroy, ct.HasStatus|ct.HasID|f.Present&ct.HasMark,
				f.Status|ct.StatusDying
		}
		f.SetupReply()
		list = append(list, f)
	}
	return list
}

func benchmarkFlow(b *testing.B, o Output, flows ...*ct.Flow) {
	p, err := New(Flows, o, Options{})
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 256<<10)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if len(buf) > 128<<10 {
			buf = buf[:0]
		}
		buf = p.Append(buf, flows[n%len(flows)])
		n++
	}
}

func BenchmarkFlow(b *testing.B) {
	f := typical()
	six := typical()
	six.Orig.Src, six.Orig.Dst, six.Orig.Family = netip.MustParseAddr("fd00:1::2a"),
		netip.MustParseAddr("2001:db8:aaaa:bbbb::17"), ct.IPv6
	six.SetupReply()
	wide := typical()
	wide.Present |= ct.HasTCPWscaleOrig | ct.HasTCPWscaleReply | ct.HasTCPFlagsOrig | ct.HasTCPFlagsReply |
		ct.HasTCPMaskOrig | ct.HasTCPMaskReply
	for _, format := range []Format{Text, JSON, CSV, Table, XML, Save, Flow} {
		b.Run(format.String(), func(b *testing.B) { benchmarkFlow(b, Output{Format: format}, f) })
	}
	b.Run("text6", func(b *testing.B) { benchmarkFlow(b, Output{Format: Text}, six) })
	b.Run("json6", func(b *testing.B) { benchmarkFlow(b, Output{Format: JSON}, six) })
	b.Run("jsontcp", func(b *testing.B) { benchmarkFlow(b, Output{Format: JSON}, wide) })
	events := mixed()
	b.Run("textevents", func(b *testing.B) { benchmarkFlow(b, Output{Format: Text}, events...) })
	b.Run("jsonevents", func(b *testing.B) { benchmarkFlow(b, Output{Format: JSON}, events...) })
	b.Run("template", func(b *testing.B) {
		benchmarkFlow(b, Output{Format: Template, Template: "{{.orig.src}} {{.orig.dst}} {{.state}}"}, f)
	})
}

// TestXMLDeltatime: XML divides what is between both times, as conntrack(8) does; text
// takes the difference of their whole seconds.
func TestXMLDeltatime(t *testing.T) {
	for _, tt := range []struct {
		stop uint64
		want string
	}{{noon + 550e6, "<deltatime>0</deltatime>"}, {noon + 999999999, "<deltatime>0</deltatime>"},
		{noon + 1e9, "<deltatime>1</deltatime>"}} {
		f := typical()
		f.Event, f.Start, f.Stop, f.Present = ct.Destroy, noon, tt.stop, f.Present|ct.HasStart|ct.HasStop
		p, err := New(Flows, Output{Format: XML}, Options{Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(p.Append(nil, f)); !strings.Contains(got, tt.want) {
			t.Errorf("%d: %s, want %s", tt.stop, got, tt.want)
		}
	}
}
