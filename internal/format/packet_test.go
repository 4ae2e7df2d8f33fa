package format

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"nfctl/internal/packet"
	"nfctl/internal/queue"
)

// samplePacket is a SYN to port 22, decided.
func samplePacket() *queue.Packet {
	data, _ := hex.DecodeString(strings.ReplaceAll("4500003c1c46400040069c67 0a000001 0a000002 9c40 0016 00000001 "+
		"00000000 a002ffff 00000000 020405b4 0402080a 00000001 00000000 01030307", " ", ""))
	return &queue.Packet{ID: 1, Queue: 3, Hook: 3, Family: 2, Proto: 0x800,
		Has:  queue.HasLength | queue.HasPayload | queue.HasUID | queue.HasGID,
		Mark: 1, Time: time.Date(2026, 1, 2, 12, 0, 0, 123456789, time.Local).UnixNano(), Length: 60, Data: data,
		Out:     7,
		Verdict: queue.Drop, Rule: 1, Decided: true}
}

func TestPacketText(t *testing.T) {
	for _, tt := range []struct {
		opt  Options
		make func(*queue.Packet)
		want string
	}{
		{Options{}, nil, "12:00:00.123456 q3 #1 output out #7 tcp 10.0.0.1:40000 > 10.0.0.2:22 [S] seq 1 win 65535 len 0 mark 0x1 drop rule 1\n"},
		{Options{Color: true}, nil, "12:00:00.123456 q3 #1 output out #7 tcp 10.0.0.1:40000 > 10.0.0.2:22 [S] seq 1 win 65535 len 0 mark 0x1 \x1b[31mdrop\x1b[0m rule 1\n"},
		{Options{}, func(p *queue.Packet) {
			p.Verdict, p.Rule, p.Mark, p.Out, p.Hook = queue.ToQueue(5, true), 0, 0, 0, 1
		}, "12:00:00.123456 q3 #1 input tcp 10.0.0.1:40000 > 10.0.0.2:22 [S] seq 1 win 65535 len 0 queue 5 bypass\n"},
		{Options{}, func(p *queue.Packet) {
			p.Data, p.Has, p.Decided, p.Time, p.Undecoded = nil, queue.HasLength, false, 0, true
		}, "q3 #1 output out #7 undecoded length 60 mark 0x1\n"},
	} {
		p := samplePacket()
		if tt.make != nil {
			tt.make(p)
		}
		w, err := New(Packets, Output{}, tt.opt)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(w.Append(nil, p)); got != tt.want {
			t.Errorf("got  %swant %s", got, tt.want)
		}
		if n := testing.AllocsPerRun(100, func() { sink = w.Append(sink[:0], p) }); n > 1 || n > 0 && !tt.opt.Color {
			t.Errorf("%v allocations", n)
		}
	}
	w, _ := New(Packets, Output{}, Options{Hex: true, ASCII: true, Layers: true})
	got := string(w.Append(nil, samplePacket()))
	layers := string(packet.AppendLayers(nil, samplePacket().Data)) // a build for routers has other words
	for _, want := range []string{"drop rule 1\n", layers, "\t0x0000:  4500 003c"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	for _, f := range []Format{JSON, CSV, TSV, Table} {
		w, err := New(Packets, Output{Format: f}, Options{})
		if err != nil {
			t.Errorf("%v: %v", f, err)
			continue
		}
		if out := string(w.End(w.Append(w.Begin(nil), samplePacket()))); !strings.Contains(out, "10.0.0.2") ||
			!strings.Contains(out, "drop") {
			t.Errorf("%v: %s", f, out)
		}
		if n := testing.AllocsPerRun(100, func() { sink = w.Append(sink[:0], samplePacket()) }); f != Table && n > 8 {
			t.Errorf("%v: %v allocations", f, n)
		}
	}
	if _, err := New(Packets, Output{Format: XML}, Options{}); err == nil {
		t.Error("packets as XML: want an error")
	}
}

func BenchmarkPacket(b *testing.B) {
	for _, f := range []Format{Text, JSON} {
		b.Run(f.String(), func(b *testing.B) {
			w, err := New(Packets, Output{Format: f}, Options{})
			if err != nil {
				b.Fatal(err)
			}
			p := samplePacket()
			for b.Loop() {
				sink = w.Append(sink[:0], p)
			}
		})
	}
}
