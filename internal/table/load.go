package table

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/nft"
)

// LoadOptions say how Load goes about it.
type LoadOptions struct {
	// OrUpdate changes flows that are there already to be as their line says, and
	// deletes those that an event says have ended.
	OrUpdate bool
	Strict   bool // stop at the first line that fails, with ErrStrict
	// CreateMaster makes the master of an expectation, with the helper that its line
	// names, when neither the table nor the lines have it.
	CreateMaster bool
	DryRun       bool // only read the lines
	Zones        ZoneMap

	// Failed is told of each line that fails. Text is empty when it was the kernel
	// that refused it.
	Failed func(*format.LineError)
	// Lost is told of each record that says what its stream lacks there.
	Lost func(line int, l format.Loss)
	// Applied, when set, is called for each flow or expectation that was made, changed
	// or deleted, as soon as the kernel has said so.
	Applied func(expect bool)
	// Progress, when set, is told some five times a second how many bytes were
	// read.
	Progress func(bytes int64)
}

// Loaded is what Load did.
type Loaded struct {
	Lines    uint64 // about a flow or an expectation
	Made     uint64 // or changed: the kernel does not say which
	Expects  uint64 // expectations made or changed
	Masters  uint64 // of them made
	Evicted  uint64 // expectations that had to go: a helper's limit was reached
	There    uint64 // already, and left alone
	Deleted  uint64
	Gone     uint64 // was to be deleted and was not there
	Failed   uint64 // lines
	First    error  // why the first of them failed
	Lost     uint64 // events that the stream lacks
	LostMore bool   // more than Lost, and nobody knows how many

	LabelsDropped bool // the kernel stored none: no rule of the namespace uses them
	Untranslated  bool // flows are translated, but no NAT chain is registered here
}

// Errors of Load, and of lines.
var (
	ErrStrict = errors.New("stopped at the first line that failed")
	ErrEnded  = errors.New("the line says that it has ended: there is nothing to make")
)

// Load makes the flows and expectations that in describes: see format.Load for the lines. It applies
// them in the order in which they come, and what comes slowly as it comes. Memory
// does not grow with the input, but for flows whose master is still to come: those
// of a listing and of lines that are no events wait for it until the listing, or the
// input, ends.
//
// A line that tells of an event new, update or destroy is applied as that when
// OrUpdate is set: an update changes what it tells of and nothing else (the whole is
// made where the flow is missing), a destroy deletes the flow with its original tuple
// and zone. Without OrUpdate a destroy fails with ErrEnded.
//
// The error is that of reading, of the socket, ErrStrict or ctx's; lines that failed
// are told by o.Failed and counted.
func Load(ctx context.Context, in io.Reader, o LoadOptions) (Loaded, error) {
	l := &loader{o: o, timeouts: ct.LoadTimeouts()}
	if !o.DryRun {
		conn, err := ct.DialLoader()
		if err != nil {
			return l.Loaded, err
		}
		defer conn.Close()
		l.conn = conn
		l.size = BatchSize
		if o.Strict {
			l.size = 1
		}
		l.batch = conn.NewBatch(l.size, l.done)
	}
	err := l.run(ctx, in)
	if !o.DryRun {
		l.notes()
	}
	return l.Loaded, err
}

// A loader is a running Load.
type loader struct {
	Loaded
	o        LoadOptions
	conn     *ct.Conn
	timeouts *ct.Timeouts

	batch   *ct.Batch
	size    int
	waiting []line // of the requests in batch, in order
	head    int    // of waiting: the first whose outcome is not known
	req     []byte

	// What the kernel refused in the batch and is to be looked at, in order, and the
	// flows of lines in the batch that this may happen to: no other line about one of
	// them goes into the same batch, so that lines stay in order.
	again  []line
	touchy map[flowKey]bool

	// Lines about flows whose master was not there, in order, and those flows.
	held     []line
	expects  []item // likewise expectations
	heldKeys map[flowKey]bool
	listing  bool // the stream lists what there is: masters may be still to come
	last     bool // no more masters will come

	read       atomic.Int64 // bytes
	stop       error        // with Strict: ErrStrict
	translated bool
	labelled   *ct.Flow  // the first flow made with labels
	keeps      [256]bool // protocols whose ports the kernel keeps
}

// A line is what a line of the input asks for.
type line struct {
	number int
	op     string   // create, update or delete
	insist bool     // -I: that the flow is there already is an error
	event  ct.Event // that it tells of
	flow   *ct.Flow // kept for later
}

// flowKey is what the kernel finds a flow by.
type flowKey struct {
	orig ct.Tuple
	zone uint16
}

func keyOf(f *ct.Flow) flowKey { return flowKey{f.Orig, f.Zone} }

// An item is a line that was read.
type item struct {
	line
	flow ct.Flow
	req  []byte

	expect *ct.Expect // that the line is about; nil: a flow
	helper string     // of its master
	mark   string     // a record that is no flow
	loss   format.Loss
	err    error
}

// insists reports whether a line asks for a new flow: conntrack's -A leaves one
// alone that is there already, -I does not.
func insists(text string) bool {
	return strings.HasPrefix(text, "-I") || strings.HasPrefix(text, "--create")
}

// take fills in i from what was read: the flow, and the request to the kernel.
func (l *loader) take(i *item, s *format.Saved) {
	i.line = line{number: s.Line}
	if i.expect = nil; s.Expect != nil || s.Words != nil {
		i.mark = ""
		l.takeExpect(i, s)
		return
	}
	if i.mark, i.loss = s.Mark, s.Loss; s.Flow == nil {
		return
	}
	i.insist, i.event = insists(s.Text), s.Flow.Event
	if f := s.Flow; f.Has(ct.HasHelper) || f.Has(ct.HasHelperInfo) {
		i.flow = *f.Clone()
	} else {
		i.flow = *f
	}
	l.o.Zones.Flow(&i.flow)
	switch {
	case i.event == ct.Destroy:
		i.op = "delete"
	case i.event == ct.Update && l.o.OrUpdate:
		i.op = "update"
	default:
		i.op = "create"
		Defaults(&i.flow, l.timeouts)
		if !l.o.OrUpdate {
			i.flow.Trim()
		}
	}
	i.req = l.request(i.req[:0], i.op, &i.flow)
}

// request appends the request about f.
func (l *loader) request(b []byte, op string, f *ct.Flow) []byte {
	switch op {
	case "delete":
		return f.AppendDelete(b)
	case "update":
		change := changeTo(f)
		return f.AppendUpdate(b, &change)
	}
	return f.AppendCreate(b, l.o.OrUpdate)
}

// changeTo returns what of f can be given to a flow that is there already.
func changeTo(f *ct.Flow) ct.Flow {
	change := *f
	change.Master = ct.Tuple{}
	change.ForgetNAT()
	return change
}

// reader reads lines on a goroutine of its own, so that reading and the kernel's
// work go on side by side, and hands them on in pieces, which come back by used: a
// full one, or what there is when no more of in has come yet. It ends when stop is
// closed.
func (l *loader) reader(in io.Reader, stop <-chan struct{}) (full <-chan []item, used chan<- []item) {
	const pieces = 4
	out, back := make(chan []item, pieces), make(chan []item, pieces)
	for range pieces {
		back <- make([]item, 0, BatchSize)
	}
	go func() {
		defer close(out)
		piece := <-back
		hand := func() bool {
			select {
			case out <- piece:
			case <-stop:
				return false
			}
			select {
			case piece = <-back:
				piece = piece[:0]
				return true
			case <-stop:
				return false
			}
		}
		from := &countingReader{Reader: in, n: &l.read, short: func() bool { return len(piece) == 0 || hand() }}
		for s, err := range format.Load(from) {
			piece = piece[:len(piece)+1]
			i := &piece[len(piece)-1]
			if i.err = err; err == nil {
				l.take(i, &s)
			}
			if len(piece) == cap(piece) && !hand() {
				return
			}
		}
		select {
		case out <- piece:
		case <-stop:
		}
	}()
	return out, back
}

// A countingReader counts what it reads. short is called before a read that follows
// one which did not fill its buffer, and so may wait; false ends reading.
type countingReader struct {
	io.Reader
	n      *atomic.Int64
	filled bool
	short  func() bool
}

func (r *countingReader) Read(b []byte) (int, error) {
	if !r.filled && !r.short() {
		return 0, io.EOF
	}
	n, err := r.Reader.Read(b)
	r.n.Add(int64(n))
	r.filled = n == len(b)
	return n, err
}

func (l *loader) run(ctx context.Context, in io.Reader) error {
	stop := make(chan struct{})
	defer close(stop)
	full, used := l.reader(in, stop)
	var tick <-chan time.Time
	if l.o.Progress != nil {
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case piece, ok := <-full:
			if !ok {
				return l.release()
			}
			for i := range piece {
				if err := l.item(&piece[i]); err != nil {
					return err
				}
			}
			used <- piece
			if len(piece) < cap(piece) && len(full) == 0 { // more may take long to come
				if err := l.flush(); err != nil {
					return err
				}
			}
		case <-tick:
			l.o.Progress(l.read.Load())
		case <-ctx.Done():
			if err := l.flush(); err != nil {
				return err
			}
			return ctx.Err()
		}
	}
}

// item does what a line asks for.
func (l *loader) item(i *item) error {
	var bad *format.LineError
	switch {
	case i.err == nil && i.mark != "":
		return l.record(i)
	case i.err == nil && i.expect != nil:
		l.Lines++
		return l.addExpect(i)
	case i.err == nil:
		l.Lines++
		return l.add(i)
	case !errors.As(i.err, &bad):
		if err := l.flush(); err != nil {
			return err
		}
		return i.err
	}
	// What came before is done first, so that messages come in the order of the
	// lines and Strict stops where it says.
	if err := l.flush(); err != nil {
		return err
	}
	l.Lines++
	l.failed(bad)
	return l.stop
}

// record does what a record between the flows of a stream asks for.
func (l *loader) record(i *item) error {
	if i.mark != format.Losses.Kind {
		err := l.release()
		l.listing = i.mark == ct.MarkResync.String()
		return err
	}
	l.Lost += i.loss.Count
	l.LostMore = l.LostMore || !i.loss.Known
	if l.o.Lost == nil {
		return nil
	}
	err := l.flush()
	l.o.Lost(i.number, i.loss)
	return err
}

// add does what a line about a flow asks for, with the next send.
func (l *loader) add(i *item) error {
	f := &i.flow
	if i.event == ct.Destroy && !l.o.OrUpdate {
		if err := l.flush(); err != nil {
			return err
		}
		l.failed(&format.LineError{Line: i.number, Err: ErrEnded})
		return l.stop
	}
	if l.o.DryRun {
		if l.Made++; i.op == "delete" {
			l.Made--
			l.Deleted++
		}
		return nil
	}
	l.listing = l.listing || i.event == ct.Existing
	l.translated = l.translated || f.Translated() && i.op != "delete"
	if proto := f.Orig.Proto; !l.keeps[proto] && f.Orig.Has(ct.TupleSport) {
		if err := l.conn.KeepsPorts(f); err != nil {
			l.failed(&format.LineError{Line: i.number, Err: err})
			return l.stop
		}
		l.keeps[proto] = true
	}
	at := i.line
	if !f.Master.IsZero() || f.Has(ct.HasHelperInfo) { // which the batch does not keep
		at.flow = f.Clone()
	}
	if err := l.inOrder(f); err != nil {
		return err
	}
	if len(l.heldKeys) > 0 && l.heldKeys[keyOf(f)] {
		at.flow = f.Clone()
		l.held = append(l.held, at)
		return nil
	}
	return l.send(at, f, i.req)
}

// inOrder makes room in the batch for a request about f. Full or not, the batch goes
// first when a line in it may want another try that must come before this request.
func (l *loader) inOrder(f *ct.Flow) error {
	if len(l.waiting) == l.size || len(l.touchy) > 0 && l.touchy[keyOf(f)] {
		return l.flush()
	}
	return nil
}

// send adds a request, for which there is room, to the batch.
func (l *loader) send(at line, f *ct.Flow, req []byte) error {
	if l.o.OrUpdate && (at.op == "update" || f.Translated() || f.Status&ct.StatusFixedTimeout != 0 ||
		at.event != ct.NoEvent) {
		if l.touchy == nil {
			l.touchy = map[flowKey]bool{}
		}
		l.touchy[keyOf(f)] = true
	}
	l.waiting = append(l.waiting, at)
	return l.batch.Send(at.op, f, req)
}

// flush sends what was gathered, and tries again what may want that.
func (l *loader) flush() error {
	if l.batch == nil {
		return l.stop
	}
	err := l.batch.Flush()
	l.waiting, l.head = l.waiting[:0], 0
	clear(l.touchy)
	if err != nil {
		return err
	}
	again := l.again
	l.again = l.again[:0]
	for _, at := range again {
		if l.stop != nil {
			break
		}
		l.oneByOne(at)
	}
	return l.stop
}

// done is told how a request went.
func (l *loader) done(f *ct.Flow, err error) {
	at := l.waiting[l.head]
	l.head++
	if at.flow != nil {
		f = at.flow
	}
	missing := errors.Is(err, unix.ENOENT)
	switch {
	case err == nil && at.op == "delete":
		l.Deleted++
		l.applied(false)
	case err == nil:
		l.Made++
		l.applied(false)
		if f.Has(ct.HasLabels) && f.Labels != [16]byte{} && l.labelled == nil {
			l.labelled = f.Clone()
		}
	case missing && !l.last && (at.op == "create" && l.waits(at.event) && !f.Master.IsZero() || l.heldKeys[keyOf(f)]):
		l.hold(at, f)
	case missing && at.op == "delete":
		l.Gone++
	case errors.Is(err, unix.EEXIST) && !at.insist:
		l.There++
	case l.o.OrUpdate && !(missing && l.heldKeys[keyOf(f)]) && wantsLook(at, f, err):
		at.flow = f.Clone()
		l.again = append(l.again, at)
	default:
		l.failed(&format.LineError{Line: at.number, Err: err})
	}
}

func (l *loader) applied(expect bool) {
	if l.o.Applied != nil {
		l.o.Applied(expect)
	}
}

// wantsLook reports whether a refusal may be one only of what f has already, or, of
// events, of what the flow in the table has beyond them.
func wantsLook(at line, f *ct.Flow, err error) bool {
	switch {
	case errors.Is(err, ct.ErrFixedTimeout):
		return at.event != ct.NoEvent
	case errors.Is(err, unix.EPERM):
		return f.Status&ct.StatusFixedTimeout != 0
	case errors.Is(err, unix.EOPNOTSUPP):
		return at.op == "create" && (f.Translated() || at.event != ct.NoEvent && !f.Master.IsZero())
	case errors.Is(err, unix.EBUSY):
		return at.event != ct.NoEvent
	}
	return at.op == "update" && errors.Is(err, unix.ENOENT)
}

// oneByOne makes or changes a flow that is to be looked at.
func (l *loader) oneByOne(at line) {
	var err error
	if at.event == ct.NoEvent {
		err = l.conn.Create(at.flow, true)
	} else {
		err = l.change(at.flow)
	}
	if err == nil || errors.Is(err, ct.ErrLabelsDropped) {
		l.Made++
		l.applied(false)
		return
	}
	l.failed(&format.LineError{Line: at.number, Err: err})
}

// change gives the flow that is there what an event tells of it, but for what nobody
// can take away or change; it makes the flow where there is none.
func (l *loader) change(f *ct.Flow) error {
	var now ct.Flow
	err := l.conn.Get(f, &now, false)
	if errors.Is(err, unix.ENOENT) {
		Defaults(f, l.timeouts)
		return l.conn.Create(f, true)
	} else if err != nil {
		return err
	}
	if f.Translated() && !f.TranslatedAs(&now) {
		return fmt.Errorf("flow %s: update: %w", ct.AppendTuple(nil, &f.Orig), ct.ErrOtherNAT)
	}
	change := changeTo(f)
	if now.Status&ct.StatusFixedTimeout != 0 {
		change.Present &^= ct.HasTimeout
	}
	return l.conn.Update(&now, &change)
}

// waits reports whether a line waits for its flow's master: one of an event comes
// behind it, unless the stream is still listing what was there before.
func (l *loader) waits(e ct.Event) bool {
	return e == ct.NoEvent || e == ct.Existing || l.listing
}

// hold keeps a line until its flow's master may be there.
func (l *loader) hold(at line, f *ct.Flow) {
	if at.flow == nil {
		at.flow = f.Clone()
	}
	l.held = append(l.held, at)
	if l.heldKeys == nil {
		l.heldKeys = map[flowKey]bool{}
	}
	l.heldKeys[keyOf(f)] = true
}

// release does what waits for masters, until no more of them turn up; what is left
// then fails.
func (l *loader) release() error {
	if err := l.flush(); err != nil {
		return err
	}
	for len(l.held) > 0 {
		todo, before := l.held, l.Made+l.There
		if l.held = nil; !l.last {
			clear(l.heldKeys)
		}
		for _, at := range todo {
			if err := l.inOrder(at.flow); err != nil {
				return err
			}
			l.req = l.request(l.req[:0], at.op, at.flow)
			if err := l.send(at, at.flow, l.req); err != nil {
				return err
			}
		}
		if err := l.flush(); err != nil {
			return err
		}
		l.last = l.Made+l.There == before
	}
	l.last = false
	clear(l.heldKeys)
	return l.releaseExpects()
}

// failed tells of a line that failed.
func (l *loader) failed(bad *format.LineError) {
	if l.Failed++; l.First == nil {
		l.First = bad.Err
	}
	if l.o.Failed != nil {
		l.o.Failed(bad)
	}
	if l.o.Strict {
		l.stop = ErrStrict
	}
}

// notes finds out what the kernel took without heeding it.
func (l *loader) notes() {
	if l.labelled != nil {
		var got ct.Flow
		l.LabelsDropped = l.conn.Get(l.labelled, &got, false) == nil && got.Labels == [16]byte{}
	}
	l.Untranslated = l.translated && l.Made > 0 && !translates()
}

// translates reports whether a chain that translates is registered in this
// namespace; true when that cannot be told.
func translates() bool {
	for _, name := range []string{"/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"} {
		if b, err := os.ReadFile(name); err == nil && strings.Contains("\n"+string(b), "\nnat\n") {
			return true
		}
	}
	n, err := nft.NATChains()
	return err != nil || n > 0
}
