package capture

import (
	"bytes"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"

	"nfctl/internal/packet/packettest"
	"nfctl/internal/queue"
)

// sample is a packet as it comes up, with its checksum left to the device.
func sample(data []byte) *queue.Packet {
	return &queue.Packet{ID: 7, Queue: 3, Hook: 3, Time: 1_700_000_000_123_456_789, Data: data,
		Length: uint32(len(data)),
		Has:    queue.HasPayload | queue.HasLength, Verdict: queue.Accept, Decided: true, Mark: 0x10}
}

func read(t *testing.T, b []byte) []byte {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	data, info, err := r.ReadPacketData()
	if err != nil {
		t.Fatal(err)
	}
	if info.Timestamp.UnixNano() != 1_700_000_000_123_456_789 {
		t.Error(info.Timestamp)
	}
	return data
}

// Checksums that were left to the device are finished in the file, and not in the
// packet; edited packets are written as they go on, others as they came.
func TestAppend(t *testing.T) {
	whole := packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: 17, L4: packettest.UDP(1, 2, "odd")}.Bytes()
	unfinished := bytes.Clone(whole)
	// The sum of the pseudo-header: 10.0.0.1, 10.0.0.2, 17, 11.
	unfinished[26], unfinished[27] = 0x14, 0x1f
	other := packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.9", Proto: 17, L4: packettest.UDP(1, 2, "edited")}.Bytes()
	w := Writer{Program: "nfctl test"}
	for _, c := range []struct {
		name string
		p    func(*queue.Packet, *queue.Decision)
		want []byte
	}{
		{"as it is", func(p *queue.Packet, _ *queue.Decision) { p.Data = whole }, whole},
		{"finished", func(p *queue.Packet, _ *queue.Decision) { p.SkbInfo = queue.CsumNotReady }, whole},
		{"edited", func(p *queue.Packet, d *queue.Decision) { d.Data = other }, other},
		{"dry run", func(p *queue.Packet, d *queue.Decision) {
			d.Data, p.DryRun, p.Kept = other, true, &queue.Kept{Data: whole, Length: uint32(len(whole))}
		}, whole},
		{"dropped after an edit", func(p *queue.Packet, _ *queue.Decision) {
			p.Data, p.Kept = other, &queue.Kept{Data: whole, Length: uint32(len(whole))}
		}, whole},
		{"cut", func(p *queue.Packet, _ *queue.Decision) { p.Data, p.SkbInfo = unfinished[:29], queue.CsumNotReady },
			unfinished[:29]},
	} {
		p, d := sample(bytes.Clone(unfinished)), &queue.Decision{Verdict: queue.Accept}
		c.p(p, d)
		before := bytes.Clone(p.Data)
		b := w.Begin(nil)
		at := len(b)
		b = w.Append(b, p, d)
		if got := read(t, b); !bytes.Equal(got, c.want) {
			t.Errorf("%s:\n% x, want\n% x", c.name, got, c.want)
		}
		if !bytes.Equal(p.Data, before) {
			t.Errorf("%s: the packet was changed", c.name)
		}
		if n := Next(b[at:]); n != len(b)-at {
			t.Errorf("%s: a block of %d bytes, of %d", c.name, n, len(b)-at)
		}
		for n := range len(b) - at {
			if Next(b[at:at+n]) != 0 {
				t.Fatalf("%s: %d of its bytes are a block", c.name, n)
			}
		}
	}
}

func TestAppendAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	data := packettest.Packet{Src: "fd00::1", Dst: "fd00::2", Proto: 6, L4: packettest.TCP(1, 2, 2, nil,
		"some text")}.Bytes()
	k := Keeper{Decider: queue.None{}, Edits: true}
	w, p, d := Writer{}, sample(data), &queue.Decision{Verdict: queue.Accept}
	p.SkbInfo = queue.CsumNotReady
	b := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		k.Decide(p, d)
		b = w.Append(b[:0], p, d)
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	data := packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: 17, L4: packettest.UDP(1, 2,
		"0123456789012345678901234567890123456789")}.Bytes()
	w, p, d := Writer{}, sample(data), &queue.Decision{Verdict: queue.Accept}
	buf := make([]byte, 0, 4096)
	for b.Loop() {
		buf = w.Append(buf[:0], p, d)
	}
}
