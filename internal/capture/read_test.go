//go:build !router

package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"nfctl/internal/packet/packettest"
	"nfctl/internal/queue"
)

// file makes a pcap file of a link type, in some byte order.
func file(order binary.ByteOrder, typ uint32, packets ...[]byte) []byte {
	b := make([]byte, 24)
	order.PutUint32(b, 0xa1b2c3d4)
	order.PutUint16(b[4:], 2)
	order.PutUint16(b[6:], 4)
	order.PutUint32(b[16:], 65535)
	order.PutUint32(b[20:], typ)
	for i, p := range packets {
		h := make([]byte, 16)
		order.PutUint32(h, uint32(1000+i))
		order.PutUint32(h[8:], uint32(len(p)))
		order.PutUint32(h[12:], uint32(len(p)))
		b = append(append(b, h...), p...)
	}
	return b
}

func all(t testing.TB, b []byte) (list []queue.Packet, r *Reader, err error) {
	t.Helper()
	if r, err = NewReader(bytes.NewReader(b)); err != nil {
		return nil, nil, err
	}
	for {
		var p queue.Packet
		if err := r.Next(&p); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return list, r, err
		}
		p.Data, p.HwAddr = bytes.Clone(p.Data), bytes.Clone(p.HwAddr)
		list = append(list, p)
	}
}

func join(parts ...any) (b []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		case int:
			b = append(b, byte(p))
		}
	}
	return b
}

// What stands in front of a packet is taken off, and what it tells is taken over.
func TestLinks(t *testing.T) {
	ip4 := packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: 17, L4: packettest.UDP(1, 2, "x")}.Bytes()
	ip6 := packettest.Packet{Src: "fd00::1", Dst: "fd00::2", Proto: 17, L4: packettest.UDP(1, 2, "x")}.Bytes()
	macs := "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01"
	for _, c := range []struct {
		name   string
		typ    uint32
		head   string
		six    bool
		tail   string
		expect func(*queue.Packet) bool
	}{
		{"Ethernet", 1, macs + "\x08\x00", false, "filled up",
			func(p *queue.Packet) bool { return string(p.HwAddr) == macs[6:] }},
		{"Ethernet", 1, macs + "\x86\xdd", true, "filled up", nil},
		{"VLAN", 1, macs + "\x81\x00\x20\x07\x08\x00", false, "",
			func(p *queue.Packet) bool {
				return p.Has&queue.HasVLAN != 0 && p.VLANTCI == 0x2007 &&
					p.VLANProto == 0x8100
			}},
		{"VLAN in VLAN", 1, macs + "\x88\xa8\x00\x09\x81\x00\x20\x07\x86\xdd", true, "",
			func(p *queue.Packet) bool { return p.VLANTCI == 9 && p.VLANProto == 0x88a8 }},
		{"PPPoE", 1, macs + "\x88\x64\x11\x00\x00\x01\x00\x20\x00\x21", false, "", nil},
		{"raw", 101, "", false, "", nil},
		{"raw", 12, "", true, "", nil},
		{"IPv4", 228, "", false, "", nil},
		{"IPv6", 229, "", true, "", nil},
		{"SLL", 113, "\x00\x00\x00\x01\x00\x06\x02\x00\x00\x00\x00\x01\x00\x00\x08\x00", false, "",
			func(p *queue.Packet) bool { return string(p.HwAddr) == macs[6:] }},
		{"SLL2, in", 276, "\x08\x00\x00\x00\x00\x00\x00\x05\x00\x01\x00\x06\x02\x00\x00\x00\x00\x01\x00\x00", false,
			"", func(p *queue.Packet) bool { return p.In == 5 && p.Out == 0 && string(p.HwAddr) == macs[6:] }},
		{"SLL2, out", 276, "\x86\xdd\x00\x00\x00\x00\x00\x05\x00\x01\x04\x06\x02\x00\x00\x00\x00\x01\x00\x00", true,
			"", func(p *queue.Packet) bool { return p.In == 0 && p.Out == 5 }},
		{"NULL, little endian", 0, "\x02\x00\x00\x00", false, "", nil},
		{"NULL, big endian", 0, "\x00\x00\x00\x1e", true, "", nil},
		{"LOOP", 108, "\x00\x00\x00\x02", false, "", nil},
		{"NFLOG, little endian", 239, "\x02\x00\x00\x05" + "\x08\x00\x01\x00\x08\x00\x03\x00" +
			"\x08\x00\x02\x00\x00\x00\x00\x12" + "\x08\x00\x05\x00\x00\x00\x00\x07" +
			"\x08\x00\x0b\x00\x00\x00\x03\xe8" + "\x05\x00\x0a\x00x\x00\x00\x00" +
			"\x21\x00\x09\x00", false, "", func(p *queue.Packet) bool {
			return p.Hook == 3 && p.Mark == 0x12 && p.Out == 7 && p.UID == 1000 && p.Has&queue.HasUID != 0
		}},
		{"NFLOG, big endian", 239, "\x0a\x00\x00\x05" + "\x00\x08\x00\x01\x86\xdd\x01\x00" +
			"\x00\x08\x00\x04\x00\x00\x00\x07" + "\x00\x10\x00\x08\x00\x06\x00\x00\x02\x00\x00\x00\x00\x01\x00\x00" +
			"\x00\x35\x00\x09", true, "", func(p *queue.Packet) bool {
			return p.Hook == 1 && p.In == 7 && string(p.HwAddr) == macs[6:]
		}},
	} {
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			ip, family := ip4, uint8(2)
			if c.six {
				ip, family = ip6, 10
			}
			frame := join(c.head, ip, c.tail)
			list, _, err := all(t, file(order, c.typ, frame))
			if err != nil || len(list) != 1 {
				t.Errorf("%s: %d packets: %v", c.name, len(list), err)
				continue
			}
			p := &list[0]
			if !bytes.Equal(p.Data, ip) || int(p.Length) != len(ip) || p.Family != family || p.ID != 1 ||
				p.Time != 1000e9 || c.expect != nil && !c.expect(p) {
				t.Errorf("%s: %+v", c.name, p)
			}
			for n := range len(c.head) + 1 { // cut short it is no packet, and nothing worse
				if list, r, err := all(t, file(order, c.typ, frame[:n])); err != nil || len(list) > 0 || r.Others != 1 {
					t.Errorf("%s, %d bytes: %d packets: %v", c.name, n, len(list), err)
				}
			}
		}
	}
	arp := join(macs, "\x08\x06", make([]byte, 28))
	list, r, err := all(t, file(binary.LittleEndian, 1, arp, join(macs, "\x08\x00", ip4)))
	if err != nil || len(list) != 1 || r.Others != 1 || list[0].ID != 2 {
		t.Error(list, err)
	}
}

// What a Writer writes a Reader reads, with all that it knows beside the bytes.
func TestReadsWhatIsWritten(t *testing.T) {
	data := packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: 17, L4: packettest.UDP(1, 2, "x")}.Bytes()
	for _, place := range []string{"", "rules", "my rules) x (y.txt", "a) forward b"} {
		for v := range queue.Kinds {
			verdict := queue.Verdict(v)
			if v == queue.KindQueue {
				verdict = queue.ToQueue(9, true)
			}
			p, d := sample(data), &queue.Decision{Verdict: verdict}
			p.Verdict, p.Flow, p.Rule, p.Hook = verdict, true, 3, 1
			p.Has |= queue.HasUID | queue.HasGID
			p.UID, p.GID, p.Mark = 1000, 1001, 0x11
			p.Kept = &queue.Kept{Mark: 0x10, Rule: queue.RuleName{File: place, Line: 7}}
			w := Writer{}
			list, _, err := all(t, w.Append(w.Begin(nil), p, d))
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			q := &list[0]
			if place == "a) forward b" { // taken for the end of the place: what is behind is not known
				continue
			}
			if q.Hook != 1 || q.UID != 1000 || q.GID != 1001 || q.Mark != 0x10 || q.Time != p.Time || q.Queue != 3 ||
				q.ID != 1 || !bytes.Equal(q.Data, data) {
				t.Errorf("%q %s: %+v", place, verdict, q)
			}
		}
	}
	for _, text := range []string{"", "drop", "dropped by hand", "accept forward of mine", "drop rule",
		"drop rule 3 (", "see packet 3 in eth0"} {
		r := &Reader{Hook: 2}
		p := &queue.Packet{Hook: 2}
		fromComment(text, p, r.dev)
		if p.Hook != 2 || p.In != 0 {
			t.Errorf("%q: %+v", text, p)
		}
	}
	r := &Reader{}
	p := &queue.Packet{}
	fromComment("accept forward in eth0 out eth1", p, r.dev)
	in, _ := r.Device(p.In)
	out, _ := r.Device(p.Out)
	if in != "eth0" || out != "eth1" || p.Hook != 2 {
		t.Errorf("%+v %q %q", p, in, out)
	}
}

func TestErrors(t *testing.T) {
	ip := packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: 17, L4: packettest.UDP(1, 2, "x")}.Bytes()
	w := Writer{}
	ng := w.Begin(nil)
	first := len(ng)
	ng = w.Append(ng, sample(ip), &queue.Decision{})
	second := len(ng)
	ng = w.Append(ng, sample(ip), &queue.Decision{})
	old := file(binary.LittleEndian, 101, ip, ip)
	for _, c := range []struct {
		whole         []byte
		first, second int
	}{{ng, first, second}, {old, 24, 24 + 16 + len(ip)}} {
		for n := range c.whole {
			list, _, err := all(t, c.whole[:n])
			want, packet := 0, uint64(0)
			switch {
			case n >= c.second:
				want, packet = 1, 2
			case n >= c.first:
				packet = 1
			}
			var e *ReadError
			if clean := n == c.first || n == c.second || n == Next(c.whole); clean && err == nil && len(list) == want {
				continue
			}
			if n < c.first && errors.As(err, &e) { // the interface is read with its first packet
				packet = min(e.Packet, 1)
			}
			if len(list) != want || !errors.As(err, &e) || e.Packet != packet {
				t.Errorf("%d bytes: %d packets, %v; want %d, and packet %d", n, len(list), err, want, packet)
			}
		}
	}
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	_, _ = g.Write(old)
	_ = g.Close()
	if list, _, err := all(t, z.Bytes()); err != nil || len(list) != 2 {
		t.Error(len(list), err)
	}
	if _, _, err := all(t, z.Bytes()[:z.Len()-20]); err == nil {
		t.Error("a torn gzip file reads")
	}
	long := bytes.Clone(old)
	binary.LittleEndian.PutUint32(long[24+8:], 1<<31+5)
	if _, _, err := all(t, long); err == nil {
		t.Error("a packet of 2 GiB reads")
	}
}

func FuzzRead(f *testing.F) {
	ip := packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: 17, L4: packettest.UDP(1, 2, "x")}.Bytes()
	w := Writer{Program: "nfctl"}
	ng := w.Begin(nil)
	p := sample(ip)
	p.Kept = &queue.Kept{Rule: queue.RuleName{File: "f", Line: 1}}
	p.Rule = 1
	f.Add(w.Append(w.Append(ng, p, &queue.Decision{}), p, &queue.Decision{}))
	for _, typ := range []uint32{0, 1, 101, 108, 113, 228, 229, 239, 276} {
		f.Add(file(binary.LittleEndian, typ, ip, join(make([]byte, 20), ip)))
		f.Add(file(binary.BigEndian, typ, join("\x02\x00\x00\x05\x08\x00\x01\x00\x08\x00\x03\x00\x21\x00\x09\x00", ip)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _, err := all(t, b)
		var e *ReadError
		if err != nil && !errors.As(err, &e) {
			t.Errorf("%v", err)
		}
		for i := range list {
			p := &list[i]
			if len(p.Data) > int(p.Length) || len(p.Data) == 0 {
				t.Errorf("%d of %d bytes", len(p.Data), p.Length)
			}
			p.Headers()
		}
	})
}

func BenchmarkRead(b *testing.B) {
	ip := packettest.Packet{Src: "10.0.0.1", Dst: "10.0.0.2", Proto: 17, L4: packettest.UDP(1, 2,
		"0123456789012345678901234567890123456789")}.Bytes()
	var list [][]byte
	for range 1000 {
		list = append(list, ip)
	}
	w := Writer{}
	ng := w.Begin(nil)
	for range 1000 {
		ng = w.Append(ng, sample(ip), &queue.Decision{})
	}
	for name, content := range map[string][]byte{"pcap": file(binary.LittleEndian, 101, list...), "own": ng} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			in := bytes.NewReader(content)
			r, err := NewReader(in)
			if err != nil {
				b.Fatal(err)
			}
			var p queue.Packet
			for b.Loop() {
				if err := r.Next(&p); err != nil {
					in.Reset(content)
					if r, err = NewReader(in); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
