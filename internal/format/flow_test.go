package format

import (
	"io"
	"net/netip"
	"testing"

	"nfctl/internal/ct"
)

// typical returns a flow as a dump has it: TCP, seen both ways, with counters,
// start, mark, labels and use.
func typical() *ct.Flow {
	f := &ct.Flow{
		Orig:         ct.Tuple{Src: netip.MustParseAddr("10.10.1.17"), Dst: netip.MustParseAddr("192.168.100.2"), Sport: 40123, Dport: 443, Family: ct.IPv4, Proto: ct.TCP, Present: ct.TupleFamily | ct.TupleProto | ct.TupleSport | ct.TupleDport},
		Status:       ct.StatusSeenReply | ct.StatusAssured | ct.StatusConfirmed,
		Timeout:      431999,
		Use:          1,
		ID:           3406874931,
		Mark:         7,
		TCPState:     3,
		OrigCounters: ct.Counters{Packets: 12, Bytes: 3456}, ReplyCounters: ct.Counters{Packets: 10, Bytes: 98765},
		TCPWscaleOrig: 7, TCPWscaleReply: 7, TCPFlagsOrig: 0x23, TCPFlagsReply: 0x23,
		Present: ct.HasStatus | ct.HasTimeout | ct.HasUse | ct.HasID | ct.HasMark | ct.HasTCPState | ct.HasOrigCounters | ct.HasReplyCounters,
	}
	f.SetupReply()
	return f
}

func benchmarkFlow(b *testing.B, o Output, f *ct.Flow) {
	p, err := New(Flows, o, Options{})
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 256<<10)
	b.ReportAllocs()
	for b.Loop() {
		if len(buf) > 128<<10 {
			buf = buf[:0]
		}
		buf = p.Append(buf, f)
	}
	b.SetBytes(int64(len(p.End(p.Append(nil, f)))))
	_, _ = io.Discard.Write(buf)
}

func BenchmarkFlow(b *testing.B) {
	f := typical()
	six := typical()
	six.Orig.Src, six.Orig.Dst, six.Orig.Family = netip.MustParseAddr("fd00:1::2a"), netip.MustParseAddr("2001:db8:aaaa:bbbb::17"), ct.IPv6
	six.SetupReply()
	wide := typical()
	wide.Present |= ct.HasTCPWscaleOrig | ct.HasTCPWscaleReply | ct.HasTCPFlagsOrig | ct.HasTCPFlagsReply | ct.HasTCPMaskOrig | ct.HasTCPMaskReply
	for _, format := range []Format{Text, JSON, CSV, Table, XML, Save, Flow} {
		b.Run(format.String(), func(b *testing.B) { benchmarkFlow(b, Output{Format: format}, f) })
	}
	b.Run("text6", func(b *testing.B) { benchmarkFlow(b, Output{Format: Text}, six) })
	b.Run("json6", func(b *testing.B) { benchmarkFlow(b, Output{Format: JSON}, six) })
	b.Run("jsontcp", func(b *testing.B) { benchmarkFlow(b, Output{Format: JSON}, wide) })
	b.Run("template", func(b *testing.B) {
		benchmarkFlow(b, Output{Format: Template, Template: "{{.orig.src}} {{.orig.dst}} {{.state}}"}, f)
	})
}
