package ct

import (
	"cmp"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"time"

	"nfctl/internal/nl"
)

// A Conn makes requests about flows and expectations. One goroutine at a time
// may use it.
type Conn struct {
	c   *nl.Conn
	req []byte
}

// Dial opens a socket in the calling thread's network namespace.
func Dial() (*Conn, error) {
	c, err := nl.Dial(nl.Config{})
	if err != nil {
		return nil, err
	}
	return &Conn{c: c}, nil
}

// loaderPorts are the netlink ports of sockets that DialLoader opens, the lowest
// 16 bits aside. The kernel gives a socket its process's number, below 2^22, or a
// number above 2^31 (netlink_autobind): none of these.
const loaderPorts = 0x6e660000

// DialLoader is Dial for a program that makes flows as another machine's stream of
// events tells: By.Loader tells its changes from everybody else's.
func DialLoader() (*Conn, error) {
	for try := range uint32(1000) {
		c, err := nl.Dial(nl.Config{Port: loaderPorts | (uint32(os.Getpid())+try)&0xffff})
		if err == nil {
			return &Conn{c: c}, nil
		} else if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
	return Dial() // a thousand others
}

// Close closes the socket.
func (c *Conn) Close() error { return c.c.Close() }

// Netlink returns the socket.
func (c *Conn) Netlink() *nl.Conn { return c.c }

// family returns the address family of a tuple, from its addresses when it does
// not say.
func (t *Tuple) family() uint8 {
	switch {
	case t.Family != 0:
		return t.Family
	case t.Src.IsValid():
		return familyOf(t.Src)
	case t.Dst.IsValid():
		return familyOf(t.Dst)
	}
	return 0
}

// family returns the address family of a flow's tuples.
func (f *Flow) family() uint8 { return cmp.Or(f.Orig.family(), f.Reply.family()) }

// naming returns the tuple that the kernel is to find the entry by: the original one
// or, where that does not name it, the reply's.
func (f *Flow) naming() *Tuple {
	if !f.Orig.identified() && f.Reply.identified() {
		return &f.Reply
	}
	return &f.Orig
}

// appendKey appends what the kernel finds the entry by: the tuple and the zone; the
// id, which must match, when withID.
func (f *Flow) appendKey(b []byte, withID bool) []byte {
	t, typ := f.naming(), uint16(ctaTupleOrig)
	if t == &f.Reply {
		typ = ctaTupleReply
	}
	b = t.appendWhole(b, typ, 0)
	b = f.appendZone(b)
	if withID && f.Has(HasID) {
		b = nl.AppendU32(b, ctaID, f.ID)
	}
	return b
}

// identified reports whether a request about f names one entry. One that does not
// must not be sent: to delete nothing in particular is to delete everything.
func (f *Flow) identified() bool { return f.naming().identified() }

func (t *Tuple) identified() bool { return t.Src.IsValid() && t.Dst.IsValid() && t.Has(TupleProto) }

var errNotNamed = errors.New("the flow needs a protocol, a source and a destination")

// AppendCreate appends the request to make the entry f. What cannot be set is
// left out: counters, times, id, use, and the status bits that the kernel sets
// by itself. With orUpdate an entry that is there already is changed to be so;
// without, it is refused with EEXIST.
func (f *Flow) AppendCreate(b []byte, orUpdate bool) []byte {
	flags := uint16(nl.FlagCreate | nl.FlagExcl)
	if orUpdate {
		flags = nl.FlagCreate
	}
	at := len(b)
	family := f.family()
	b = nl.AppendHeader(b, nl.Type(nl.SubsysCt, msgNew), flags, family, 0)
	b = f.Orig.appendWhole(b, ctaTupleOrig, family)
	b = f.Reply.appendWhole(b, ctaTupleReply, family)
	b = f.appendZone(b)
	if f.Has(HasStatus) {
		// A new entry is confirmed, and its status must say so (else EBUSY).
		b = nl.AppendU32(b, ctaStatus, f.Status&StatusChangeable|StatusConfirmed)
	}
	b = appendNum32(b, f, HasTimeout, ctaTimeout, f.Timeout)
	b = appendNum32(b, f, HasMark, ctaMark, f.Mark)
	return nl.Finish(f.appendExtras(b, family), at)
}

// Trim forgets what makes no difference to an entry that is made anew, and only
// takes the kernel time: a mark and all numbers of a synproxy that are zero, TCP flags
// of which none is in the mask, window scales, which the kernel heeds only with
// their flag in both directions (nlattr_to_tcp).
func (f *Flow) Trim() {
	if f.Mark == 0 {
		f.Present &^= HasMark
	}
	if f.Has(HasSynproxy) && f.SynISN|f.SynITS|f.SynTSOff == 0 {
		f.Present &^= HasSynproxy
	}
	orig, reply := f.TCPFlagsOrig&f.TCPMaskOrig, f.TCPFlagsReply&f.TCPMaskReply
	if orig&reply&tcpWindowScale == 0 {
		f.Present &^= HasTCPWscaleOrig | HasTCPWscaleReply
	}
	if orig == 0 {
		f.Present &^= HasTCPFlagsOrig | HasTCPMaskOrig
	}
	if reply == 0 {
		f.Present &^= HasTCPFlagsReply | HasTCPMaskReply
	}
}

// AppendUpdate appends the request to change the entry f to what change has:
// timeout, mark (under MarkMask), status bits to add, protocol state, helper,
// labels (under LabelsMask), sequence adjustment, synproxy. The kernel does not
// look at the id.
func (f *Flow) AppendUpdate(b []byte, change *Flow) []byte {
	at := len(b)
	b = nl.AppendHeader(b, nl.Type(nl.SubsysCt, msgNew), 0, f.family(), 0)
	b = f.appendKey(b, false)
	if change.Has(HasStatus) {
		// The bits that cannot be changed must be as they are, and none that
		// cannot be taken away may be missing (else EBUSY).
		const keep = StatusExpected | StatusConfirmed | StatusDying | StatusSeenReply | StatusAssured
		b = nl.AppendU32(b, ctaStatus, change.Status|f.Status&keep)
	}
	b = appendNum32(b, change, HasTimeout, ctaTimeout, change.Timeout)
	b = appendNum32(b, change, HasMark, ctaMark, change.Mark)
	b = appendNum32(b, change, HasMarkMask, ctaMarkMask, change.MarkMask)
	return nl.Finish(change.appendExtras(b, f.family()), at)
}

// AppendDelete appends the request to delete the entry f, which the kernel finds
// by tuple and zone and deletes only when the id, if f has one, is its own.
func (f *Flow) AppendDelete(b []byte) []byte {
	at := len(b)
	b = nl.AppendHeader(b, nl.Type(nl.SubsysCt, msgDelete), 0, f.family(), 0)
	return nl.Finish(f.appendKey(b, true), at)
}

// AppendGet appends the request to read the entry f; with zero its counters are
// set to zero after they were read.
func (f *Flow) AppendGet(b []byte, zero bool) []byte {
	at, msg := len(b), uint8(msgGet)
	if zero {
		msg = msgGetZero
	}
	b = nl.AppendHeader(b, nl.Type(nl.SubsysCt, msg), 0, f.family(), 0)
	return nl.Finish(f.appendKey(b, false), at)
}

func flowName(f *Flow) string {
	return string(appendFlow([]byte("flow "), f, f.naming()))
}

// Get reads the entry with f's tuple (or reply tuple, when the original one is
// not known) and zones into got, which must not be f. With zero its counters
// are set to zero after they were read. An entry that is not there is
// unix.ENOENT.
func (c *Conn) Get(f, got *Flow, zero bool) error {
	if !f.identified() {
		return nl.Error("get", flowName(f), errNotNamed)
	}
	err := c.get(f, got, zero)
	// The kernel takes a zone with the tuple of its direction only, and finds by
	// the original one what it would by the reply.
	if t := f.Orig; f.Reply.Has(TupleZone) && t.Src.IsValid() &&
		(errors.Is(err, syscall.ENOENT) || err == nil && got.Reply.Zone != f.Reply.Zone) {
		t.Zone, t.Present = f.Reply.Zone, t.Present|TupleZone
		err = c.get(&Flow{Reply: t, Orig: Tuple{Family: t.Family}}, got, zero)
		if err == nil && got.Reply.Zone != f.Reply.Zone {
			err = syscall.ENOENT
		}
	}
	return refusal("get", f, nil, err)
}

func (c *Conn) get(f, got *Flow, zero bool) error {
	c.req = f.AppendGet(c.req[:0], zero)
	found := false
	err := c.c.Get(c.req, func(m *nl.Msg) error {
		err := got.Decode(m)
		got.Time = uint64(time.Now().UnixNano())
		keep(got)
		found = true
		return err
	})
	if err == nil && !found {
		err = nl.ErrNoAnswer
	}
	return err
}

// KeepsPorts returns an error when the kernel does not track f's protocol, so that
// it would store an entry without the ports that f has, and without a word: DCCP is
// tracked no more since Linux 6.18, UDP-Lite since 7.3 at the latest.
func (c *Conn) KeepsPorts(f *Flow) error {
	if c.tracks(&f.Orig) {
		return nil
	}
	return &Refusal{nl.Error("create", flowName(f), syscall.EOPNOTSUPP),
		"this kernel does not track the protocol, and would store the flow without its ports"}
}

// tracks reports whether the kernel keeps the ports of t, if it has any. It asks for
// an entry without ports, which a kernel that knows the protocol's refuses.
func (c *Conn) tracks(t *Tuple) bool {
	if t.Proto == TCP || t.Proto == UDP || !t.Has(TupleSport|TupleDport) {
		return true
	}
	probe := Tuple{Src: t.Src, Dst: t.Dst, Proto: t.Proto, Present: TupleProto}
	c.req = nl.AppendHeader(c.req[:0], nl.Type(nl.SubsysCt, msgGet), 0, probe.family(), 0)
	c.req = nl.Finish(probe.append(c.req, ctaTupleOrig), 0)
	err := c.c.Get(c.req, func(*nl.Msg) error { return nil })
	return err != nil && !errors.Is(err, syscall.ENOENT)
}

// keep makes f's byte strings its own.
func keep(f *Flow) { *f = *f.Clone() }

// Create makes the entry f: see AppendCreate. Labels that the kernel dropped
// without a word are ErrLabelsDropped; the entry is there then.
func (c *Conn) Create(f *Flow, orUpdate bool) error {
	if !f.identified() {
		return nl.Error("create", flowName(f), errNotNamed)
	}
	c.req = f.AppendCreate(c.req[:0], orUpdate)
	err := c.c.Do(c.req)
	if orUpdate {
		err = c.createAgain(f, err)
	}
	if err = refusal("create", f, f, err); orUpdate {
		err = c.partly(f, f, err)
	}
	if err != nil || !f.Has(HasLabels) {
		return err
	}
	var got Flow
	if err := c.Get(f, &got, false); err != nil {
		return err
	}
	return labelsStored(f, &got)
}

// createAgain looks at what the kernel refuses of an entry that is there already.
// err is what it said of f.
func (c *Conn) createAgain(f *Flow, err error) error {
	translation := errors.Is(err, syscall.EOPNOTSUPP) && f.Translated()
	timeout := errors.Is(err, syscall.EPERM) && f.Has(HasTimeout)
	var now Flow
	if !translation && !timeout || c.Get(f, &now, false) != nil {
		return err
	}
	switch {
	case timeout && now.Status&StatusFixedTimeout != 0:
		return ErrFixedTimeout
	case timeout:
		return err
	case !f.TranslatedAs(&now):
		return ErrOtherNAT
	}
	// The kernel takes a translation only for a new entry, even the one that the
	// entry has.
	plain := *f
	plain.ForgetNAT()
	c.req = plain.AppendCreate(c.req[:0], true)
	return c.c.Do(c.req)
}

// Translated reports whether f asks for an address translation.
func (f *Flow) Translated() bool {
	return f.SNAT.Addr.IsValid() || f.DNAT.Addr.IsValid() || f.Has(HasSNATPort) || f.Has(HasDNATPort)
}

// ForgetNAT has f ask for no address translation.
func (f *Flow) ForgetNAT() {
	f.SNAT, f.DNAT = NAT{}, NAT{}
	f.Present &^= HasSNATPort | HasDNATPort
}

// TranslatedAs reports whether the entry now has the translation that f asks for.
func (f *Flow) TranslatedAs(now *Flow) bool {
	return f.SNAT.holds(now.Reply.Dst, now.Reply.Dport, f.Has(HasSNATPort)) &&
		f.DNAT.holds(now.Reply.Src, now.Reply.Sport, f.Has(HasDNATPort))
}

// holds reports whether a translation by n may have led to an address and port.
func (n *NAT) holds(addr netip.Addr, port uint16, hasPort bool) bool {
	if n.Addr.IsValid() && (addr.Less(n.Addr) || cmp.Or(n.AddrMax, n.Addr).Less(addr)) {
		return false
	}
	return !hasPort || port >= n.Port && port <= max(n.Port, n.PortMax)
}

// ErrLabelsDropped says that an entry was made without its labels: the kernel
// stores labels only in a namespace that has a rule which uses them.
var ErrLabelsDropped = errors.New("the labels were not stored: no rule of this namespace uses labels")

func labelsStored(want, got *Flow) error {
	for i, b := range want.Labels {
		if got.Labels[i]&b != b {
			return nl.Error("create", flowName(want), ErrLabelsDropped)
		}
	}
	return nil
}

// Update changes the entry f, as it was read, to what change has: see
// AppendUpdate.
func (c *Conn) Update(f, change *Flow) error {
	if !f.identified() {
		return nl.Error("update", flowName(f), errNotNamed)
	}
	c.req = f.AppendUpdate(c.req[:0], change)
	err := c.c.Do(c.req)
	if errors.Is(err, syscall.EBUSY) && change.Has(HasStatus) {
		// Perhaps it has become ASSURED since: try with what it is now.
		var now Flow
		if c.Get(f, &now, false) == nil && now.Status != f.Status {
			c.req = now.AppendUpdate(c.req[:0], change)
			err = c.c.Do(c.req)
		}
	}
	return c.partly(f, change, refusal("update", f, change, err))
}

// Delete deletes the entry f: see AppendDelete. unix.ENOENT: it is not there, or
// another entry is there in its place.
func (c *Conn) Delete(f *Flow) error {
	if !f.identified() {
		return nl.Error("delete", flowName(f), errNotNamed)
	}
	c.req = f.AppendDelete(c.req[:0])
	return refusal("delete", f, nil, c.c.Do(c.req))
}

// Flush deletes all entries, or those of a family, or those that the filter's
// mark, status and zone match. It is refused with ErrNotHonoured when a probe did
// not show that this kernel honours the family or filter: a kernel that ignores
// it would delete everything.
func (c *Conn) Flush(family uint8, k KernelFilter) error {
	if k.tuples() {
		return nl.Error("flush", "flows", errors.New("the kernel cannot flush by tuple"))
	}
	if family != 0 || !k.IsZero() {
		ok, err := CanFlush(family != 0, k)
		if err == nil && !ok {
			err = ErrNotHonoured
		}
		if err != nil {
			return nl.Error("flush by filter", "flows", err)
		}
	}
	c.req = appendFlush(c.req[:0], family, k)
	return nl.Error("flush", "flows", c.c.Do(c.req))
}

func appendFlush(b []byte, family uint8, k KernelFilter) []byte {
	at := len(b)
	b = nl.AppendHeader(b, nl.Type(nl.SubsysCt, msgDelete), 0, family, 0)
	if family != 0 {
		b[at+17] = 1 // nfgenmsg.version: with 0 the kernel takes any family for all
	}
	return nl.Finish(k.appendFlush(b), at)
}

// A Batch packs many requests about flows into one send: see nl.Batch.
type Batch struct {
	b    *nl.Batch
	reqs []batched // those in the send being gathered
	base int       // number of the first of them
	buf  []byte
}

type batched struct {
	op     string
	f      Flow
	helper [16]byte
}

// NewBatch makes a batch of size requests a send; about 100 is good. done is told
// the outcome of each in order, with a copy of the flow that lives until it
// returns.
func (c *Conn) NewBatch(size int, done func(f *Flow, err error)) *Batch {
	b := &Batch{}
	b.b = c.c.NewBatch(size, func(i int, err error) {
		r := &b.reqs[i-b.base]
		if done != nil {
			done(&r.f, refusal(r.op, &r.f, &r.f, err))
		}
		if i-b.base == len(b.reqs)-1 {
			b.base, b.reqs = i+1, b.reqs[:0]
		}
	})
	return b
}

// Reply sets what is given the flows that Get requests read, before done. The
// flow lives until it returns.
func (b *Batch) Reply(reply func(f *Flow)) {
	var f Flow
	b.b.Reply = func(_ int, m *nl.Msg) {
		if f.Decode(m) == nil {
			reply(&f)
		}
	}
}

// Create adds the request to make f: see Flow.AppendCreate.
func (b *Batch) Create(f *Flow, orUpdate bool) error {
	b.buf = f.AppendCreate(b.buf[:0], orUpdate)
	return b.add("create", f)
}

// Send adds req, a request about f as AppendCreate, AppendUpdate or AppendDelete
// appended it: the work of that can be done elsewhere. op names it in errors:
// create, update or delete.
func (b *Batch) Send(op string, f *Flow, req []byte) error { return b.send(op, f, req) }

// Update adds the request to change f, as it was read: see Flow.AppendUpdate.
func (b *Batch) Update(f, change *Flow) error {
	b.buf = f.AppendUpdate(b.buf[:0], change)
	return b.add("update", f)
}

// Delete adds the request to delete f: see Flow.AppendDelete.
func (b *Batch) Delete(f *Flow) error {
	b.buf = f.AppendDelete(b.buf[:0])
	return b.add("delete", f)
}

// Get adds the request to read f, and to set its counters to zero.
func (b *Batch) Get(f *Flow, zero bool) error {
	b.buf = f.AppendGet(b.buf[:0], zero)
	return b.add("get", f)
}

func (b *Batch) add(op string, f *Flow) error { return b.send(op, f, b.buf) }

func (b *Batch) send(op string, f *Flow, req []byte) error {
	if !f.identified() {
		return nl.Error(op, flowName(f), errNotNamed)
	}
	// Add first: it may send what is there, and forget it.
	if err := b.b.Add(req); err != nil {
		return nl.Error(op, "flows", err)
	}
	if len(b.reqs) == cap(b.reqs) {
		b.reqs = append(b.reqs, batched{})
	} else {
		b.reqs = b.reqs[:len(b.reqs)+1]
	}
	r := &b.reqs[len(b.reqs)-1]
	r.op, r.f = op, *f
	r.f.Helper = append(r.helper[:0], f.Helper...)
	r.f.HelperInfo, r.f.Secctx, r.f.Unknown, r.f.By.Comm, r.f.text = nil, nil, nil, nil, nil
	return nil
}

// Flush sends what was added and reads the answers.
func (b *Batch) Flush() error { return nl.Error("send", "flows", b.b.Flush()) }
