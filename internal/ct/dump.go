package ct

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
)

// A Table is one of the lists that the kernel keeps flows in.
type Table uint8

const (
	Confirmed   Table = iota // the table
	Dying                    // ended, but still held by someone or waiting for their event to be delivered
	Unconfirmed              // not yet through their first hook; empty on kernels since about 5.19
)

// DumpOptions say which flows to read.
type DumpOptions struct {
	Families []uint8 // IPv4, IPv6; nil: both
	Table    Table
	Zero     bool         // set the counters of every flow that is read to zero; ignores Filter
	Filter   KernelFilter // left out again when the kernel refuses it
	Idle     bool         // find out how long flows are idle: see Timeouts.SetIdle

	// Keep, when set, tells which flows the caller has a use for. Whoever reads the
	// dump looks at each flow with it all the same; what Filter says of tuples is
	// then left out where the kernel is quicker without.
	Keep func(*Flow) bool

	// Before, when set, is called with each flow, from several goroutines, before anything
	// looks at it: it adds what no message tells.
	Before func(*Flow)

	timeouts *Timeouts
}

// prepare does what must be done on the calling thread, which is in the namespace
// to be read.
func (o *DumpOptions) prepare() {
	if o.Idle {
		o.timeouts = LoadTimeouts()
		_ = o.timeouts.LoadPolicies() // a dump cannot open its socket either
	}
}

// A DumpResult says how a dump went.
type DumpResult struct {
	Flows      uint64 // read and handed on
	Duplicates uint64 // read a second time, and not handed on
	// Incomplete: flows may be missing or double, because the kernel said so
	// (NLM_F_DUMP_INTR) or resized its hash table meanwhile.
	Incomplete bool
}

// A Worker is given the flows of one of several dumps that run side by side.
// Its calls are made on one goroutine, its own.
type Worker interface {
	// Flow is given each flow; it is reused and valid during the call.
	Flow(f *Flow) error
	// Rest is called where the flows read so far are used up, about every
	// hundred flows and at the end: the time to hand on what was gathered.
	Rest() error
}

// Dump reads the table once and hands each flow to f, one after another, on the
// calling goroutine. The flow is reused and valid during the call. It ends with
// f's error (nl.ErrStop: without one) or ctx's. No flow comes twice.
func Dump(ctx context.Context, o DumpOptions, f func(*Flow) error) (DumpResult, error) {
	var res DumpResult
	o.prepare()
	families := o.plan(false)
	streams, err := dialStreams(len(families))
	if err != nil {
		return res, err
	}
	defer closeStreams(streams)
	before := buckets()
	w := funcWorker(f)
	for i, s := range streams {
		if err = s.run(ctx, o, families[i], w); err != nil {
			break
		}
	}
	return sum(streams, before), stopped(err)
}

// DumpParallel reads the table as Dump does, with one dump for each family side
// by side, each with a worker of its own; a table with few flows with one dump.
// Reading, and what the worker does, run on different processors too. The order
// of flows is the kernel's within a dump. The first error ends all.
func DumpParallel(ctx context.Context, o DumpOptions, newWorker func() Worker) (DumpResult, error) {
	o.prepare()
	families := o.plan(true)
	streams, err := dialStreams(len(families))
	if err != nil {
		return DumpResult{}, err
	}
	defer closeStreams(streams)
	before := buckets()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i, s := range streams {
		w := newWorker()
		wg.Go(func() {
			if err := s.run(ctx, o, families[i], w); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return sum(streams, before), stopped(context.Cause(ctx))
}

func stopped(err error) error {
	if errors.Is(err, nl.ErrStop) {
		return nil
	}
	return err
}

type funcWorker func(*Flow) error

func (w funcWorker) Flow(f *Flow) error { return w(f) }
func (w funcWorker) Rest() error        { return nil }

// plan returns the family of each dump to make, 0 for both at once, which spares
// a walk over the kernel's table. A filter that looks into tuples takes a walk for
// each family: one that spares less than that is left out.
func (o *DumpOptions) plan(parallel bool) []uint8 {
	if len(o.Families) == 1 {
		return o.Families
	}
	tuples := o.Filter.tuples()
	few := (parallel || tuples) && sparse()
	if tuples && o.Keep != nil && (few || !parallel && mostly(o.Keep)) {
		o.Filter.Orig, o.Filter.Reply, tuples = Tuple{}, Tuple{}, false
	}
	if tuples || parallel && !few {
		return []uint8{IPv4, IPv6}
	}
	return []uint8{0}
}

// mostly reports whether nearly all flows of the table are to be kept, by those
// that come first. The kernel's order is that of a hash.
func mostly(keep func(*Flow) bool) bool {
	c, err := nl.Dial(nl.Config{})
	if err != nil {
		return false
	}
	defer c.Close()
	var f Flow
	now := uint64(time.Now().UnixNano())
	read, kept := 0, 0
	_, err = c.Dump((&DumpOptions{}).request(0), func(m *nl.Msg) error {
		_ = f.Decode(m)
		if f.Time = now; keep(&f) {
			kept++
		}
		if read++; read == 100 {
			return nl.ErrStop
		}
		return nil
	})
	return err == nil && kept >= read*9/10
}

// A stream is one dump on a socket of its own.
type stream struct {
	c    *nl.Conn
	res  DumpResult
	seen window
}

// dialStreams opens the sockets, in the calling thread's namespace.
func dialStreams(n int) ([]*stream, error) {
	var out []*stream
	for range n {
		c, err := nl.Dial(nl.Config{})
		if err != nil {
			closeStreams(out)
			return nil, err
		}
		out = append(out, &stream{c: c})
	}
	return out, nil
}

func closeStreams(streams []*stream) {
	for _, s := range streams {
		_ = s.c.Close()
	}
}

func sum(streams []*stream, bucketsBefore int) DumpResult {
	var r DumpResult
	for _, s := range streams {
		r.Flows += s.res.Flows
		r.Duplicates += s.res.Duplicates
		r.Incomplete = r.Incomplete || s.res.Incomplete
	}
	r.Incomplete = r.Incomplete || bucketsBefore != buckets()
	return r
}

// sparse reports whether the namespace has few flows for the size of the kernel's
// hash table. A dump walks over all of that, and so two dumps cost more than they
// win.
func sparse() bool {
	n, err := setting("nf_conntrack_count")
	return err == nil && n < buckets()/16
}

// buckets returns the size of the kernel's hash table, 0 when unknown.
func buckets() int {
	n, _ := setting("nf_conntrack_buckets")
	return n
}

// ExpectMax returns how many expectations a network namespace may have, 0 when that
// cannot be read.
func ExpectMax() uint64 {
	n, _ := setting("nf_conntrack_expect_max")
	return uint64(n)
}

// setting returns a number of net.netfilter in the calling thread's namespace.
func setting(name string) (int, error) {
	n, err := nl.Setting("net.netfilter." + name)
	return int(n), err
}

// Buffers of a stream. Several datagrams are read with one system call, which
// spares waking the other goroutine for each; how far reading may run ahead is
// bounded.
const (
	streamReaders   = 3
	streamDatagrams = 4
	streamSize      = 32 << 10 // the kernel fills datagrams of dumps up to this
)

// errRefused says that the kernel does not take the filter.
var errRefused = errors.New("filter refused")

func (s *stream) run(ctx context.Context, o DumpOptions, family uint8, w Worker) error {
	err := s.dump(ctx, o, family, w)
	if errors.Is(err, errRefused) {
		o.Filter = KernelFilter{}
		err = s.dump(ctx, o, family, w)
	}
	if err != nil && !errors.Is(err, nl.ErrStop) && ctx.Err() == nil {
		var op *nl.OpError
		if errors.As(err, &op) && op.Op == "" {
			err = nl.Error("list", "flows", err)
		}
	}
	return err
}

// A chunk is some datagrams of a dump.
type chunk struct {
	r   *nl.Receiver // which holds them
	n   int
	err error
}

// dump reads on a goroutine of its own and decodes on this one.
func (s *stream) dump(ctx context.Context, o DumpOptions, family uint8, w Worker) error {
	full, empty := make(chan chunk, streamReaders), make(chan *nl.Receiver, streamReaders)
	for range streamReaders {
		r, err := s.c.NewReceiver(streamDatagrams, streamSize)
		if err != nil {
			return err
		}
		empty <- r
	}
	seq, err := s.c.Request(o.request(family))
	if err != nil {
		return nl.Error("list", "flows", err)
	}
	done := make(chan struct{}) // closed when the reader is to end
	defer close(done)
	go s.read(seq, full, empty, done)
	var f Flow
	now := uint64(0)
	s.seen = window{}
	for {
		var c chunk
		select {
		case c = <-full:
		default:
			if err := w.Rest(); err != nil {
				return err
			}
			select {
			case c = <-full:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if c.err != nil {
			return nl.Error("list", "flows", c.err)
		}
		now = uint64(time.Now().UnixNano())
		for i := range c.n {
			b, _ := c.r.Datagram(i)
			for {
				m, rest, ok := nl.NextMsg(b)
				if !ok {
					break
				}
				b = rest
				if m.Seq != seq || m.Port != s.c.PortID() {
					continue
				}
				s.res.Incomplete = s.res.Incomplete || m.Flags&unix.NLM_F_DUMP_INTR != 0
				if err, end := m.Status(); end {
					if err != nil && !o.Filter.IsZero() && refusesFilter(err) && s.res.Flows == 0 {
						return errRefused
					}
					if err == nil {
						err = w.Rest()
					}
					return err
				}
				_ = f.Decode(&m) // what cannot be read is not there
				if s.seen.again(&f) {
					s.res.Duplicates++
					continue
				}
				s.res.Flows++
				f.Time = now
				if o.timeouts != nil {
					o.timeouts.SetIdle(&f)
				}
				if o.Before != nil {
					o.Before(&f)
				}
				if err := w.Flow(&f); err != nil {
					return err
				}
			}
			s.seen.turn()
		}
		empty <- c.r
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
	}
}

func refusesFilter(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ERANGE)
}

// read reads datagrams until dump seq ends, an error, or done.
func (s *stream) read(seq uint32, full chan<- chunk, empty <-chan *nl.Receiver, done <-chan struct{}) {
	for {
		c := chunk{}
		select {
		case c.r = <-empty:
		case <-done:
			return
		}
		// The kernel fills the next datagram while this one is read: until the end
		// there is always one.
		if c.n, c.err = c.r.Recv(0); c.n == 0 && c.err == nil {
			c.n, c.err = c.r.Recv(-1)
		}
		last := c.err != nil
		for i := range c.n {
			b, _ := c.r.Datagram(i)
			last = last || ended(b, seq)
		}
		select {
		case full <- c:
		case <-done:
			return
		}
		if last {
			return
		}
	}
}

// ended reports whether a datagram holds the end of dump seq, which comes last.
func ended(b []byte, seq uint32) bool {
	for {
		m, rest, ok := nl.NextMsg(b)
		if !ok {
			return false
		}
		if _, end := m.Status(); end && m.Seq == seq {
			return true
		}
		b = rest
	}
}

func (o *DumpOptions) request(family uint8) []byte {
	msg := uint8(msgGet)
	switch {
	case o.Table == Dying:
		msg = msgGetDying
	case o.Table == Unconfirmed:
		msg = msgGetUnconfirmed
	case o.Zero:
		msg = msgGetZero
	}
	b := nl.AppendHeader(nil, nl.Type(nl.SubsysCt, msg), nl.FlagDump, family, 0)
	if !o.Zero {
		b = o.Filter.append(b)
	}
	return b
}

// A window knows the flows of the last two datagrams, to tell those that come
// again. The kernel resumes a dump at the flow where it left off; when that one
// has gone it starts its hash bucket anew, and the flows of the bucket that were
// already sent come again at once. So a short memory is enough, however large
// the table is. A bucket of more than two datagrams (some 200 flows) could not
// be told; the kernel's tables hold a few flows a bucket.
type window struct {
	gen [3][]flowKey // this datagram's and the last two's
	set [2048]uint8  // hashed ids: bit g for generation g, of ids that may be there
	cur int
}

type flowKey struct {
	id  uint32
	sum uint64
}

// again notes f and reports whether it was in an earlier datagram.
func (w *window) again(f *Flow) bool {
	if !f.Has(HasID) {
		return false
	}
	slot := &w.set[f.ID%uint32(len(w.set))]
	if *slot&^(1<<w.cur) != 0 {
		key := f.key()
		for g := range w.gen {
			if g == w.cur {
				continue
			}
			for _, k := range w.gen[g] {
				if k == key {
					return true
				}
			}
		}
	}
	*slot |= 1 << w.cur
	w.gen[w.cur] = append(w.gen[w.cur], f.key())
	return false
}

// turn begins a new datagram and forgets the oldest.
func (w *window) turn() {
	w.cur = (w.cur + 1) % len(w.gen)
	w.gen[w.cur] = w.gen[w.cur][:0]
	for i := range w.set {
		w.set[i] &^= 1 << w.cur
	}
}

// key tells flows apart: the kernel's ids are hashes of 32 bits, of which two in
// a datagram may be alike by chance.
func (f *Flow) key() flowKey {
	if f.sum == 0 {
		f.sum = f.hash()
	}
	return flowKey{f.ID, f.sum}
}

// Sum returns 64 bits that tell a flow from others, in its zone, and from those that
// had its addresses and ports before it.
func (f *Flow) Sum() uint64 {
	h := (f.key().sum ^ uint64(f.ID)) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

func (f *Flow) hash() uint64 {
	t := &f.Orig
	a, b := t.Src.As16(), t.Dst.As16()
	h := uint64(14695981039346656037)
	for i := 0; i < 16; i += 8 {
		h = (h ^ binary.NativeEndian.Uint64(a[i:])) * 0x9e3779b97f4a7c15
		h = (h ^ binary.NativeEndian.Uint64(b[i:])) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	h ^= uint64(t.Sport)<<48 | uint64(t.Dport)<<32 | uint64(t.ID)<<16 | uint64(t.Proto)<<8 | uint64(t.Type)
	h = (h ^ h>>32) * 0x9e3779b97f4a7c15
	h ^= uint64(f.Zone)<<32 | uint64(t.Zone)<<16 | uint64(t.Code)
	return h ^ h>>29
}
