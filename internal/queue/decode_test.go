package queue

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
)

// packetMessage makes a message as the kernel sends it.
func packetMessage(id uint32, data []byte) []byte {
	b := nl.AppendHeader(nil, msgPacket, 0, unix.AF_INET, 5)
	b = nl.AppendAttr(b, attrPacketHdr, append(binary.BigEndian.AppendUint32(nil, id), 0x08, 0x00, 3))
	b = nl.AppendU32(b, attrOutDev, 1)
	b = nl.AppendU32(b, attrMark, 7)
	b = nl.AppendAttr(b, attrHwAddr, []byte{0, 6, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0})
	b = nl.AppendU32(b, attrUID, 1000)
	b = nl.AppendU32(b, attrGID, 100)
	b = nl.AppendString(b, attrSecCtx, "user_u")
	b = nl.AppendU32(b, attrCapLen, uint32(len(data)+100))
	b = nl.AppendU32(b, attrSkbInfo, CsumNotReady|GSO)
	var at int
	b, at = nl.Begin(b, attrVLAN)
	b = nl.AppendU16(b, attrVLANTCI, 0x2064)
	b = nl.End(b, at)
	b = nl.AppendAttr(b, attrTimestamp, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, 1), 2))
	b = nl.AppendAttr(b, attrPayload, data)
	return nl.Finish(b, 0)
}

// udpPacket is a datagram from port 1000 to 22.
var udpPacket = []byte{0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1, 3, 232, 0, 22, 0, 12, 0, 0,
	'd', 'a', 't', 'a'}

func TestDecode(t *testing.T) {
	m, _, _ := nl.NextMsg(packetMessage(9, udpPacket))
	var p Packet
	if !p.decode(&m, true) || p.Undecoded {
		t.Fatal("not decoded")
	}
	if p.ID != 9 || p.Queue != 5 || p.Proto != 0x800 || p.Family != unix.AF_INET || p.Hook != 3 || p.Out != 1 ||
		p.In != 0 || p.Mark != 7 ||
		p.UID != 1000 || p.GID != 100 || string(p.SecCtx) != "user_u" || p.Length != 132 || p.SkbInfo != 3 ||
		p.VLANTCI != 0x2064 ||
		p.Time != 1_000_002_000 || !bytes.Equal(p.Data, udpPacket) || !p.Truncated() || len(p.HwAddr) != 6 {
		t.Errorf("%+v", p)
	}
	got := map[string]string{}
	for i := range Fields.Rows() {
		r := &Fields.Rows()[i]
		switch {
		case !r.Has(&p):
		case r.Data != nil:
			b, _ := r.Data(&p)
			got[r.Path] = string(b)
		case r.Num != nil:
			n, _ := r.Num(&p)
			if r.Names != nil {
				got[r.Path] = r.Names.Word(n)
			}
		}
	}
	for k, want := range map[string]string{"hwaddr": "01:02:03:04:05:06", "hook": "output", "family": "ipv4",
		"secctx": "user_u", "ip.proto": "udp", "payload": "data"} {
		if got[k] != want {
			t.Errorf("%s: %q, want %q", k, got[k], want)
		}
	}
	if _, ok := got["ct.mark"]; ok || p.CT() != nil {
		t.Error("conntrack without conntrack")
	}
}

// TestMessageWords reads each number of a message that has a row by its row.
func TestMessageWords(t *testing.T) {
	for _, r := range messageRows() {
		if r.attr == 0 {
			continue
		}
		var p Packet
		n := uint32(r.attr)
		if r.Max > 0 && r.Max < uint64(n) {
			n = uint32(r.Max)
		}
		msg, _, _ := nl.NextMsg(packetMessage(1, udpPacket))
		p.decode(&msg, true)
		p.names = &ifNames{lookup: func(i uint32) (string, bool) {
			return "eth" + strconv.Itoa(int(i)), true
		}, m: map[uint32]*ifName{}}
		start := len(msg.Data)
		msg.Data = nl.AppendU32(msg.Data[:start:start], r.attr, n)
		if !p.decode(&msg, true) || p.Undecoded {
			t.Errorf("%s: not read", r.Path)
		}
		row := Fields.Row(r.Path)
		if row.Data != nil {
			if got, _ := row.Data(&p); string(got) != "eth"+strconv.Itoa(int(n)) {
				t.Errorf("%s: %q, want eth%d", r.Path, got, n)
			}
			continue
		}
		if got, ok := row.Num(&p); !ok || got != uint64(n) && r.Path != "length" {
			t.Errorf("%s: %d, %v, want %d", r.Path, got, ok, n)
		}
		msg.Data = nl.AppendAttr(msg.Data[:start:start], r.attr, []byte{1})
		if p.decode(&msg, true); !p.Undecoded {
			t.Errorf("%s: a short one is taken", r.Path)
		}
	}
}

// testWorker makes a worker that is fed by the test.
func testWorker(d Decider) *worker {
	q := &Queue{conf: Config{Num: 5}, names: ifNames{lookup: func(uint32) (string, bool) {
		return "eth0", true
	}, m: map[uint32]*ifName{}}}
	q.SetDecider(d)
	return newWorker(q)
}

// TestUndecodable gives the default verdict to what cannot be read.
func TestUndecodable(t *testing.T) {
	good := packetMessage(1, udpPacket)
	for _, c := range []struct {
		name           string
		b              []byte
		answers        int
		undecoded, bad uint64
	}{
		{"good", good, 1, 0, 0},
		{"cut", good[:80], 1, 1, 0},
		{"no id", nl.Finish(nl.AppendHeader(nil, msgPacket, 0, 2, 5), 0), 0, 0, 1},
		{"short id", nl.Finish(nl.AppendU32(nl.AppendHeader(nil, msgPacket, 0, 2, 5), attrPacketHdr, 1), 0), 0, 0, 1},
		{"short mark", nl.Finish(nl.AppendU8(packetMessage(1, udpPacket), attrUID, 1)[:len(good)+8], 0), 1, 0, 0},
		{"garbage", []byte("garbage"), 0, 0, 1},
		{"other message", nl.Finish(nl.AppendHeader(nil, 99, 0, 2, 5), 0), 0, 0, 0},
	} {
		w := testWorker(&ports{drop: 22})
		w.dflt = Accept
		w.begin()
		if err := w.datagram(bytes.Clone(c.b)); err != nil {
			t.Fatal(err)
		}
		w.answers.finish()
		w.flushCount()
		if n := len(w.answers.out) / verdictLen; n != c.answers ||
			w.q.local[cUndecoded] != c.undecoded && c.name != "short mark" || w.q.local[cUnread] != c.bad {
			t.Errorf("%s: %d answers, %d undecoded, %d unread", c.name, n, w.q.local[cUndecoded], w.q.local[cUnread])
		}
		if c.undecoded > 0 && binary.BigEndian.Uint32(w.answers.out[24:]) != uint32(Accept) {
			t.Errorf("%s: %x", c.name, w.answers.out)
		}
	}
}

func TestAllocs(t *testing.T) {
	w := testWorker(&ports{drop: 22})
	var batch [][]byte
	for i := range uint32(64) {
		data := bytes.Clone(udpPacket)
		data[23] = byte(22 + i%3)
		batch = append(batch, packetMessage(i+1, data))
	}
	if n := testing.AllocsPerRun(100, func() { w.feed(batch) }); n != 0 {
		t.Errorf("%v allocations in a batch of 64 packets", n)
	}
}

// feed is a batch without a socket.
func (w *worker) feed(batch [][]byte) {
	w.begin()
	w.haveID = false
	for _, b := range batch {
		_ = w.datagram(b)
	}
	w.answers.finish()
	w.answers.out = w.answers.out[:0]
	w.flushCount()
	w.rule = 0
	w.q.sets.release()
	w.q.publish()
}

func BenchmarkBatch(b *testing.B) {
	w := testWorker(&ports{drop: 22})
	var batch [][]byte
	for i := range uint32(64) {
		data := bytes.Clone(udpPacket)
		data[23] = 80
		batch = append(batch, packetMessage(i+1, data))
	}
	b.ReportAllocs()
	for b.Loop() {
		w.feed(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/packet")
}

// TestAnswers holds what answers says against a queue that does what the kernel's
// verdict messages do, packet by packet, and against the order of what goes on.
func TestAnswers(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var a answers
	for round := range 3000 {
		drops := r.IntN(11)
		n := 1 + r.IntN(20)
		pending := map[uint32]bool{}
		want := map[uint32]Decision{}
		a.begin(false)
		for i := range n {
			id := uint32(i + 1)
			pending[id] = true
			d := Decision{Verdict: Accept}
			switch {
			case r.IntN(10) < drops:
				d = Decision{Verdict: Drop}
			case r.IntN(3) == 0:
				d.SetMark, d.Mark = true, uint32(r.IntN(2))
			case r.IntN(6) == 0:
				d.Data = []byte{1, 2, 3}
			case r.IntN(6) == 0:
				d.SetConnmark, d.Connmark = true, 3
			case r.IntN(8) == 0:
				d.Verdict = ToQueue(3, true)
			}
			want[id] = d
			a.add(id, &d)
		}
		a.finish()
		var order []uint32
		settle := func(id uint32, m *nl.Msg, v Verdict) {
			if !pending[id] {
				t.Fatalf("round %d: %d answered twice", round, id)
			}
			delete(pending, id)
			got := Decision{Verdict: v}
			for at := range nl.Attrs(m.Body()) {
				switch at.Type {
				case attrMark:
					got.Mark, got.SetMark = binary.NativeEndian.Uint32(at.Data), true
					got.Mark, _ = at.U32()
				case attrPayload:
					got.Data = at.Data
				case attrCt:
					for c := range nl.Attrs(at.Data) {
						if c.Type == ctaMark {
							got.SetConnmark = true
							got.Connmark, _ = c.U32()
						}
					}
				}
			}
			w := want[id]
			if got.Verdict != w.Verdict || got.SetMark != w.SetMark || got.Mark != w.Mark ||
				!bytes.Equal(got.Data, w.Data) || got.SetConnmark != w.SetConnmark || got.Connmark != w.Connmark {
				t.Fatalf("round %d: %d: %+v, want %+v", round, id, got, w)
			}
			if v != Drop {
				order = append(order, id)
			}
		}
		for rest := a.out; len(rest) > 0; {
			m, after, ok := nl.NextMsg(rest)
			if !ok || m.ResID() != a.queue {
				t.Fatalf("%x", rest)
			}
			rest = after
			at, _, _ := nl.NextAttr(m.Body())
			v, id := Verdict(binary.BigEndian.Uint32(at.Data)), binary.BigEndian.Uint32(at.Data[4:])
			if m.Type == msgVerdict {
				settle(id, &m, v)
				continue
			}
			for k := uint32(1); k <= id; k++ {
				if pending[k] {
					settle(k, &m, v)
				}
			}
		}
		a.out = a.out[:0]
		if len(pending) > 0 {
			t.Fatalf("round %d: %v not answered", round, pending)
		}
		for i := 1; i < len(order); i++ {
			if order[i] < order[i-1] {
				t.Fatalf("round %d: out of order: %v", round, order)
			}
		}
	}
}

func TestVerdictText(t *testing.T) {
	for v, want := range map[Verdict]string{Drop: "drop", Accept: "accept", Repeat: "repeat", Stop: "stop",
		ToQueue(5, false): "queue 5", ToQueue(65535, true): "queue 65535 bypass"} {
		if v.String() != want {
			t.Errorf("%q, want %q", v.String(), want)
		}
	}
}

func TestParseInfo(t *testing.T) {
	i, ok := parseInfo([]byte("    7   4711    12 2 65531     3     4      999  1\n"))
	if !ok || i.Num != 7 || i.Owner.Port != 4711 || i.Depth != 12 || i.CopyMode != 2 || i.CopyRange != 65531 ||
		i.QueueDropped != 3 || i.UserDropped != 4 || i.LastID != 999 {
		t.Errorf("%+v", i)
	}
	if _, ok := parseInfo([]byte("7 x")); ok {
		t.Error("garbage was taken")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(packetMessage(1, udpPacket))
	f.Add(packetMessage(1, udpPacket)[:70])
	f.Add(nl.Finish(nl.AppendHeader(nil, msgPacket, 0, 2, 5), 0))
	f.Add(nl.Finish(nl.AppendAttr(nl.AppendHeader(nil, unix.NLMSG_ERROR, 0, 0, 0), 0, make([]byte, 40)), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := testWorker(&ports{drop: 22})
		w.q.OnPacket = func(p *Packet, d *Decision) {
			for i := range Fields.Rows() {
				r := &Fields.Rows()[i]
				switch {
				case r.Num != nil:
					r.Num(p)
				case r.IP != nil:
					r.IP(p)
				case r.Data != nil:
					r.Data(p)
				}
			}
		}
		w.feed([][]byte{b})
	})
}
