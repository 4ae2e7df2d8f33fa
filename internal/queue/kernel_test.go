package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
	"nfctl/internal/packet"
)

// A sink receives datagrams that begin with a sequence number, on one port.
type sink struct {
	conn net.PacketConn
	addr string
	n    atomic.Int64
	mu   sync.Mutex
	seqs []uint32
	done chan struct{}
}

func newSink(t testing.TB, ns *nstest.NS, addr string) *sink {
	t.Helper()
	s := &sink{conn: ns.ListenUDP(addr), done: make(chan struct{})}
	if raw, err := s.conn.(*net.UDPConn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20)
			}
		})
	}
	s.addr = s.conn.LocalAddr().String()
	go func() {
		defer close(s.done)
		b := make([]byte, 65536)
		for {
			n, _, err := s.conn.ReadFrom(b)
			if err != nil {
				return
			}
			if n >= 4 {
				s.mu.Lock()
				s.seqs = append(s.seqs, binary.BigEndian.Uint32(b))
				s.mu.Unlock()
			}
			s.n.Add(1)
		}
	}()
	return s
}

// close ends the sink and returns the sequence numbers in the order of arrival.
func (s *sink) close() []uint32 {
	_ = s.conn.Close()
	<-s.done
	return s.seqs
}

// queued installs a rule by which packets to UDP ports go to a queue.
func queued(ns *nstest.NS, args ...string) {
	ns.Run("iptables", append(args, "-w", "-A", "OUTPUT", "-p", "udp")...)
}

// send sends seq from a connected socket. It blocks while about 200 packets of
// that socket wait in a queue. A full queue is reported to the sender as EPERM or
// ENOBUFS, which is no error here.
func send(c net.Conn, seq uint32, size int) {
	b := make([]byte, max(size, 4))
	binary.BigEndian.PutUint32(b, seq)
	_, _ = c.Write(b)
}

// dial connects a UDP socket.
func dial(t testing.TB, ns *nstest.NS, addr string) net.Conn {
	t.Helper()
	c, err := ns.Dial("udp", addr, nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func decided(q *Queue) uint64 { return q.Stats().Total.Packets }

// TestAccounting sends 100,000 datagrams to mixed ports: receivers get exactly
// what the rules say, and nothing is unaccounted for.
func TestAccounting(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	total := uint32(100_000)
	if raceEnabled {
		total = 30_000
	}
	q := open(t, Config{CopyRange: 128})
	var sinks []*sink
	var conns []net.Conn
	for range 8 {
		s := newSink(t, ns, "127.0.0.1:0")
		sinks = append(sinks, s)
		conns = append(conns, dial(t, ns, s.addr))
	}
	dropped := uint16(sinks[3].conn.LocalAddr().(*net.UDPAddr).Port)
	q.SetDecider(&ports{drop: dropped})
	stop := serve(t, Ending{}, q)
	queued(ns, "-j", "NFQUEUE", "--queue-num", "0")
	var sent [8]int64
	arrived := func() (n int64) {
		for _, s := range sinks {
			n += s.n.Load()
		}
		return n
	}
	r := rand.New(rand.NewPCG(1, 1))
	for seq := range total {
		if seq%256 == 0 { // never more under way than sockets have room for
			nstest.Until(t, "packets are answered", func() bool { return int64(seq)-arrived()-sent[3] < 1024 })
		}
		i := r.IntN(8)
		sent[i]++
		send(conns[i], seq, 64)
	}
	nstest.Until(t, "all are answered", func() bool { return decided(q) == uint64(total) })
	nstest.Until(t, "all have arrived", func() bool { return arrived() == int64(total)-sent[3] })
	stop()
	for i, s := range sinks {
		want := sent[i]
		if i == 3 {
			want = 0
		}
		if got := len(s.close()); int64(got) != want {
			t.Errorf("port %d: %d arrived, want %d", i, got, want)
		}
	}
	s := q.Stats()
	if s.Verdicts[KindDrop].Packets != uint64(sent[3]) || s.Rules[0].Packets != uint64(sent[3]) ||
		s.Default.Packets != uint64(total)-uint64(sent[3]) ||
		s.Total.Packets != uint64(total) || s.Total.Bytes != uint64(total)*92 ||
		s.SocketLost+s.Vanished+s.Vanishing+s.Refused+s.Undecoded+s.Unread != 0 {
		t.Errorf("%+v", s)
	}
}

// TestDrain ends the service under load: the rule goes first, and no packet is
// lost.
func TestDrain(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	for range 3 {
		q := open(t, Config{CopyRange: 64, Num: 3})
		s := newSink(t, ns, "127.0.0.1:0")
		c := dial(t, ns, s.addr)
		var order []string
		note := func(what string) func() error {
			return func() error { order = append(order, what); return nil }
		}
		stop := serve(t, Ending{
			DeleteRules: func() error {
				ns.Run("iptables", "-w", "-D", "OUTPUT", "-p", "udp", "-j", "NFQUEUE", "--queue-num", "3")
				return note("rules")()
			},
			Close: func() error {
				if i, _, ok := readInfo(q.proc, nil, 3); ok {
					t.Errorf("still bound: %+v", i)
				}
				return note("close")()
			},
		}, q)
		queued(ns, "-j", "NFQUEUE", "--queue-num", "3")
		var end atomic.Bool
		var sent uint32
		var wg sync.WaitGroup
		wg.Go(func() {
			for !end.Load() {
				for range 20 {
					send(c, sent, 64)
					sent++
				}
				time.Sleep(time.Millisecond)
			}
		})
		nstest.Until(t, "packets come", func() bool { return decided(q) > 500 })
		stop()
		before := s.n.Load()
		nstest.Until(t, "packets pass without the rule", func() bool { return s.n.Load() > before+500 })
		end.Store(true)
		wg.Wait()
		nstest.Until(t, "all arrive", func() bool { return s.n.Load() == int64(sent) })
		seen := make([]bool, sent)
		for _, n := range s.close() {
			seen[n] = true
		}
		for n, ok := range seen {
			if !ok {
				t.Fatalf("number %d of %d is lost", n, sent)
			}
		}
		if fmt.Sprint(order) != "[rules close]" {
			t.Error(order)
		}
		st := q.Stats()
		if st.SocketLost+st.Vanished+st.Vanishing+st.Refused != 0 {
			t.Errorf("%+v", st)
		}
		_ = q.Close()
	}
}

// flush makes the kernel drop all that is queued, as the end of any base chain
// does.
func flush(ns *nstest.NS) {
	ns.Run("nft", "add table ip gone; add chain ip gone c { type filter hook forward priority 7; }")
	ns.Run("nft", "delete table ip gone")
}

func TestVanished(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables", "nft")
	s := newSink(t, ns, "127.0.0.1:0")
	c := dial(t, ns, s.addr)
	queued(ns, "-j", "NFQUEUE", "--queue-num", "0")
	for _, k := range []struct{ gone, alive, least, most int }{
		{10, 0, 10, 10}, {3, 0, 3, 3}, {2, 1, 2, 2}, {10, 3, 9, 16}, {1, 30, 1, 31}, {8, 8, 8, 8}, {3, 1, 1, 4},
	} {
		q := open(t, Config{})
		before := s.n.Load()
		for i := range k.gone {
			send(c, uint32(i), 4)
		}
		nstest.Until(t, "packets are queued", func() bool { return q.Stats().Depth == uint32(k.gone) })
		flush(ns)
		nstest.Until(t, "packets are gone", func() bool { return q.Stats().Depth == 0 })
		for i := range k.alive {
			send(c, uint32(i), 4)
		}
		stop := serve(t, Ending{}, q)
		nstest.Until(t, "all are answered", func() bool { return decided(q) == uint64(k.gone+k.alive) })
		nstest.Until(t, "the living arrive", func() bool { return s.n.Load()-before == int64(k.alive) })
		stop()
		st := q.Stats()
		if st.Vanished < uint64(k.least) || st.Vanished+st.Vanishing > uint64(k.most) ||
			st.Vanished+st.Vanishing < uint64(k.gone) || st.Refused != 0 {
			t.Errorf("%+v: vanished %d, perhaps %d more; refused %d", k, st.Vanished, st.Vanishing, st.Refused)
		}
		_ = q.Close()
	}
}

// TestOrder mixes all kinds of answers in one flow: what goes on keeps its order.
func TestOrder(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	q := open(t, Config{CopyRange: MaxCopy})
	s := newSink(t, ns, "127.0.0.1:0")
	c := dial(t, ns, s.addr)
	const total = 20_000
	r := rand.New(rand.NewPCG(2, 2))
	kinds := make([]int, total)
	dropShare := 1
	for i := range kinds {
		if i%1000 == 0 {
			dropShare = []int{0, 1, 5, 9, 10}[r.IntN(5)]
		}
		switch {
		case r.IntN(10) < dropShare:
			kinds[i] = 1
		default:
			kinds[i] = []int{0, 0, 0, 2, 2, 3, 4}[r.IntN(7)]
		}
	}
	var edited []byte
	q.SetDecider(deciding(func(p *Packet, d *Decision) {
		d.Rule = 1
		pay, _ := p.Headers().Payload()
		switch kinds[binary.BigEndian.Uint32(pay)] {
		case 1:
			d.Verdict = Drop
		case 2:
			d.SetMark, d.Mark = true, 5
		case 3:
			d.SetMark, d.Mark = true, p.ID
		case 4:
			edited = append(edited[:0], p.Data...)
			if err := packet.Fix(edited, packet.Meta{CsumNotReady: true}); err != nil {
				t.Error(err)
			}
			d.Data = edited
		}
	}))
	queued(ns, "-j", "NFQUEUE", "--queue-num", "0")
	want := []uint32{}
	for i, k := range kinds {
		if k != 1 {
			want = append(want, uint32(i))
		}
	}
	var stop func()
	for i := range uint32(total) {
		if i == 150 { // so that the first batches are full
			stop = serve(t, Ending{}, q)
		}
		if i > 150 && i%256 == 0 {
			nstest.Until(t, "packets are answered", func() bool { return uint64(i)-decided(q) < 1500 })
		}
		send(c, i, 4)
	}
	nstest.Until(t, "all arrive", func() bool { return s.n.Load() == int64(len(want)) })
	stop()
	got := s.close()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("arrival %d is number %d, want %d", i, got[i], want[i])
		}
	}
	if st := q.Stats(); st.Marked == 0 || st.Edited == 0 || st.Verdicts[KindDrop].Packets != uint64(total-len(want)) ||
		st.Vanished+st.Refused != 0 {
		t.Errorf("%+v", st)
	}
}

// TestMark sets marks that rules of a later chain see.
func TestMark(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	q := open(t, Config{CopyRange: 128})
	s := newSink(t, ns, "127.0.0.1:0")
	c := dial(t, ns, s.addr)
	q.SetDecider(deciding(func(p *Packet, d *Decision) {
		pay, _ := p.Headers().Payload()
		if seq := binary.BigEndian.Uint32(pay); seq%3 == 0 {
			d.SetMark, d.Mark = true, 0x1007
		}
	}))
	queued(ns, "-t", "mangle", "-j", "NFQUEUE", "--queue-num", "0")
	queued(ns, "-m", "mark", "--mark", "0x1007", "-j", "DROP")
	for i := range uint32(150) {
		send(c, i, 4)
	}
	stop := serve(t, Ending{}, q)
	nstest.Until(t, "all are answered", func() bool { return decided(q) == 150 })
	nstest.Until(t, "the others arrive", func() bool { return s.n.Load() == 100 })
	stop()
	for _, n := range s.close() {
		if n%3 == 0 {
			t.Errorf("%d was marked and arrived", n)
		}
	}
	if st := q.Stats(); st.Marked != 50 {
		t.Errorf("%+v", st)
	}
}

// TestQueues serves several queues, the second of which gets what the first
// hands on.
func TestQueues(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	var queues []*Queue
	for i := range uint16(4) {
		queues = append(queues, open(t, Config{Num: i, CopyRange: 64}))
	}
	last := open(t, Config{Num: 9, CopyRange: 64})
	queues[0].SetDecider(deciding(func(p *Packet, d *Decision) { d.Verdict, d.Rule = ToQueue(9, false), 1 }))
	// nobody there: accepted
	queues[1].SetDecider(deciding(func(p *Packet, d *Decision) { d.Verdict, d.Rule = ToQueue(77, true), 1 }))
	// dropped
	queues[2].SetDecider(deciding(func(p *Packet, d *Decision) { d.Verdict, d.Rule = ToQueue(77, false), 1 }))
	s := newSink(t, ns, "127.0.0.1:0")
	stop := serve(t, Ending{}, append(queues, last)...)
	queued(ns, "-j", "NFQUEUE", "--queue-num", "0", "-m", "statistic", "--mode", "nth", "--every", "4", "--packet", "0")
	queued(ns, "-j", "NFQUEUE", "--queue-num", "1", "-m", "statistic", "--mode", "nth", "--every", "3", "--packet", "0")
	queued(ns, "-j", "NFQUEUE", "--queue-num", "2", "-m", "statistic", "--mode", "nth", "--every", "2", "--packet", "0")
	queued(ns, "-j", "NFQUEUE", "--queue-num", "3")
	c := dial(t, ns, s.addr)
	for i := range uint32(400) {
		send(c, i, 4)
	}
	nstest.Until(t, "packets of three queues arrive", func() bool { return s.n.Load() == 300 })
	stop()
	for i, q := range append(queues, last) {
		if n := decided(q); n != 100 {
			t.Errorf("queue %d: %d packets", i, n)
		}
	}
	for _, n := range s.close() {
		if n%4 == 2 {
			t.Errorf("%d went to a queue that nobody has bound, and arrived", n)
		}
	}
}

// TestRepeat sends packets through the hook again, marked so that the rule
// leaves them out.
func TestRepeat(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	q := open(t, Config{CopyRange: 64})
	q.SetDecider(deciding(func(p *Packet, d *Decision) { d.Verdict, d.SetMark, d.Mark, d.Rule = Repeat, true, 1, 1 }))
	s := newSink(t, ns, "127.0.0.1:0")
	queued(ns, "-m", "mark", "!", "--mark", "1", "-j", "NFQUEUE", "--queue-num", "0")
	c := dial(t, ns, s.addr)
	for i := range uint32(100) {
		send(c, i, 4)
	}
	stop := serve(t, Ending{}, q)
	nstest.Until(t, "all arrive", func() bool { return s.n.Load() == 100 })
	stop()
	if n := decided(q); n != 100 {
		t.Errorf("%d decisions on 100 packets", n)
	}
}

// TestStop skips the rest of a hook: here conntrack's, which confirms flows.
func TestStop(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables", "conntrack")
	peer := nstest.New(t)
	nstest.Veth(t, ns, peer)
	ns.Run("iptables", "-w", "-A", "OUTPUT", "-m", "conntrack", "--ctstate", "NEW")
	ns.Run("iptables", "-w", "-t", "mangle", "-A", "POSTROUTING", "-p", "udp", "-j", "NFQUEUE", "--queue-num", "0")
	q := open(t, Config{CopyRange: 64})
	s := newSink(t, peer, "10.0.0.2:0")
	stop := serve(t, Ending{}, q)
	for i, v := range []Verdict{Accept, Stop} {
		q.SetDecider(deciding(func(p *Packet, d *Decision) { d.Verdict, d.Rule = v, 1 }))
		c := dial(t, ns, s.addr)
		send(c, 0, 4)
		nstest.Until(t, "it arrives", func() bool { return s.n.Load() == int64(i+1) })
		port := fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port)
		out, _, _ := ns.Exec("conntrack", "-L", "-p", "udp", "--sport", port)
		if inTable := len(out) > 0; inTable != (v == Accept) {
			t.Errorf("%v: %q", v, out)
		}
	}
	stop()
}

// TestLoss fills the queue, and the socket.
func TestLoss(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	for _, c := range []struct {
		conf   Config
		socket bool
	}{
		{Config{CopyRange: 64, MaxLen: 10}, false},
		{Config{CopyRange: 64, Buffer: 4096}, true},
	} {
		q := open(t, c.conf)
		var lost [2]atomic.Uint64
		q.OnLost = func(n uint64, where string) {
			if where == "socket" {
				lost[0].Add(n)
			} else {
				lost[1].Add(n)
			}
		}
		queued(ns, "-j", "NFQUEUE", "--queue-num", "0")
		s := newSink(t, ns, "127.0.0.1:0")
		conn := dial(t, ns, s.addr)
		for i := range uint32(100) {
			send(conn, i, 4)
		}
		stop := serve(t, Ending{}, q)
		nstest.Until(t, "what is queued is answered", func() bool {
			st := q.Stats()
			return st.Kernel && st.Depth == 0 && st.Total.Packets > 0
		})
		send(conn, 100, 4) // tells of a gap before it
		nstest.Until(t, "all is accounted for", func() bool {
			st := q.Stats()
			return st.Total.Packets+st.SocketLost+uint64(st.QueueLost) == 101
		})
		st := q.Stats()
		if c.socket && (st.SocketLost == 0 || st.QueueLost != 0 || uint64(st.UserDropped) != st.SocketLost ||
			lost[0].Load() != st.SocketLost) ||
			!c.socket && (st.QueueLost != 90 || st.SocketLost != 0 || lost[1].Load() != 90) {
			t.Errorf("%+v, told %d %d", st, lost[0].Load(), lost[1].Load())
		}
		stop()
		ns.Run("iptables", "-w", "-F", "OUTPUT")
		_ = q.Close()
	}
}

// TestReload replaces the rules a thousand times under load.
func TestReload(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	q := open(t, Config{CopyRange: 128})
	s := newSink(t, ns, "127.0.0.1:0")
	c := dial(t, ns, s.addr)
	// Old rules accept even numbers, new ones odd ones: each in its own name.
	// verdicts[seq] is written by the worker alone.
	var verdicts [1 << 18]struct{ by, verdict int8 }
	set := func(parity uint32) Decider {
		return named{fmt.Sprintf("accept %d", parity), func(p *Packet, d *Decision) {
			pay, _ := p.Headers().Payload()
			seq := binary.BigEndian.Uint32(pay)
			d.Rule = 1
			if seq%2 != parity {
				d.Verdict = Drop
			}
			verdicts[seq].by, verdicts[seq].verdict = int8(parity)+1, int8(d.Verdict)
		}}
	}
	q.SetDecider(set(0))
	stop := serve(t, Ending{}, q)
	queued(ns, "-j", "NFQUEUE", "--queue-num", "0")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	sent := uint32(0)
	wg.Go(func() {
		for ; ctx.Err() == nil && sent < 1<<18; sent++ {
			if sent%64 == 0 {
				for uint64(sent)-decided(q) > 1000 {
					time.Sleep(100 * time.Microsecond)
				}
			}
			send(c, sent, 4)
		}
	})
	for i := range uint32(1000) {
		q.SetDecider(set(i % 2))
		if i%9 == 0 { // these rules are used, not only replaced
			before := decided(q)
			nstest.Until(t, "packets come", func() bool { return decided(q) > before })
		}
	}
	cancel()
	wg.Wait()
	nstest.Until(t, "all are answered", func() bool { return decided(q) == uint64(sent) })
	st := q.Stats()
	nstest.Until(t, "the accepted arrive", func() bool { return s.n.Load() == int64(st.Verdicts[KindAccept].Packets) })
	stop()
	arrived := map[uint32]bool{}
	for _, n := range s.close() {
		arrived[n] = true
	}
	both := [3]int{}
	for seq := range sent {
		v := verdicts[seq]
		both[v.by]++
		if want := uint32(v.by-1) == seq%2; v.by == 0 || want != (v.verdict == int8(Accept)) || want != arrived[seq] {
			t.Fatalf("number %d: rules %d, verdict %d, arrived %v", seq, v.by, v.verdict, arrived[seq])
		}
	}
	if both[1] == 0 || both[2] == 0 {
		t.Errorf("not both rules were used: %v", both)
	}
	var byRule uint64
	for _, r := range st.Rules {
		byRule += r.Packets
	}
	if byRule != uint64(sent) || st.Vanished+st.Refused+st.SocketLost != 0 || len(st.Rules) > 2 {
		t.Errorf("%d sent, %+v", sent, st)
	}
}

type named struct {
	name string
	f    func(p *Packet, d *Decision)
}

func (n named) Decide(p *Packet, d *Decision) { n.f(p, d) }
func (n named) Rules() int                    { return 1 }
func (n named) Rule(int) RuleName             { return RuleName{Text: n.name} }

// TestBlind goes on answering, and ends in order, when nobody can be told of the
// packets any more.
func TestBlind(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	q := open(t, Config{CopyRange: 64})
	var told int
	q.OnPacket = func(*Packet, *Decision) { told++ }
	q.OnIdle = func() error {
		if told > 0 {
			return unix.EPIPE
		}
		return nil
	}
	s := newSink(t, ns, "127.0.0.1:0")
	c := dial(t, ns, s.addr)
	done := make(chan error, 1)
	var order []string
	release := make(chan bool)
	go func() {
		done <- Serve(context.Background(), Ending{
			DeleteRules: func() error {
				<-release
				ns.Run("iptables", "-w", "-F", "OUTPUT")
				order = append(order, "rules")
				return nil
			},
			Close: func() error { order = append(order, "close"); return nil },
		}, q)
	}()
	queued(ns, "-j", "NFQUEUE", "--queue-num", "0")
	for i := range uint32(50) {
		send(c, i, 4)
		nstest.Until(t, "packets are answered", func() bool { return s.n.Load() == int64(i+1) })
	}
	close(release)
	if err := <-done; !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
	if told != 1 || fmt.Sprint(order) != "[rules close]" {
		t.Error(told, order)
	}
}

// TestEndUnderLoad ends although others' rules go on feeding the queue.
func TestEndUnderLoad(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables")
	q := open(t, Config{CopyRange: 64})
	s := newSink(t, ns, "127.0.0.1:0")
	stop := serve(t, Ending{}, q)
	queued(ns, "-j", "NFQUEUE", "--queue-num", "0")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		c := dial(t, ns, s.addr)
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				send(c, 0, 4)
			}
		})
	}
	nstest.Until(t, "packets come", func() bool { return decided(q) > 1000 })
	stop()
	cancel()
	wg.Wait()
}

// TestVanishedUnderLoad accounts for packets that vanish while others come.
func TestVanishedUnderLoad(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables", "nft")
	q := open(t, Config{})
	s := newSink(t, ns, "127.0.0.1:0")
	c := dial(t, ns, s.addr)
	stop := serve(t, Ending{}, q)
	queued(ns, "-j", "NFQUEUE", "--queue-num", "0")
	var end atomic.Bool
	var sent uint32
	var wg sync.WaitGroup
	wg.Go(func() {
		for ; !end.Load(); sent++ {
			send(c, sent, 4)
			if sent%16 == 0 {
				time.Sleep(200 * time.Microsecond)
			}
		}
	})
	nstest.Until(t, "packets come", func() bool { return decided(q) > 100 })
	for range 20 {
		flush(ns)
	}
	end.Store(true)
	wg.Wait()
	var st Stats
	nstest.Until(t, "all are decided", func() bool {
		st = q.Stats()
		return st.Kernel && st.Depth == 0 && st.Total.Packets >= uint64(sent)-st.Vanished
	})
	stop()
	st = q.Stats()
	// How many are to arrive is what is asked: so wait until none does.
	_ = s.conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	<-s.done
	got := uint64(len(s.close()))
	// What the receiver had no room for is not the queue's.
	f := strings.Fields(ns.Run("cat", "/proc/net/snmp"))
	names := slices.Index(f, "Udp:")
	values := names + 1 + slices.Index(f[names+1:], "Udp:")
	room, err := strconv.ParseUint(f[values+slices.Index(f[names:values], "RcvbufErrors")], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	got += room
	if lost := uint64(sent) - got; lost < st.Vanished || lost > st.Vanished+st.Vanishing {
		t.Errorf("%d of %d lost; vanished %d, perhaps %d more; %+v", lost, sent, st.Vanished, st.Vanishing, st)
	}
	t.Logf("%d sent, %d vanished, perhaps %d more", sent, st.Vanished, st.Vanishing)
}

// TestReloadEarly: rules that come before the service begins wait for it.
func TestReloadEarly(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	q := open(t, Config{})
	done := make(chan error, 1)
	go func() { done <- q.Reload(None{}, Config{CopyRange: 128}) }()
	nstest.Until(t, "the reload is asked for", func() bool { return q.reload.Load() != nil })
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, Ending{}, q) }()
	if err := <-done; err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := q.Reload(None{}, Config{}); !errors.Is(err, errEnded) {
		t.Errorf("after the service: %v", err)
	}
}
