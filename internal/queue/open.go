package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"golang.org/x/sys/unix"

	"nfctl/internal/lazy"
	"nfctl/internal/mark"
	"nfctl/internal/nl"
)

// Defaults of Config, and the largest copy.
const (
	DefaultMaxLen = 4096
	DefaultBuffer = 16 << 20
	// MaxCopy is the most that the kernel copies of a packet: an attribute's
	// length has 16 bits and counts its own header.
	MaxCopy = 0xffff - 4
)

// Config says how to bind a queue.
type Config struct {
	Num       uint16
	MaxLen    uint32 // packets that may wait for a verdict; 0: DefaultMaxLen (the kernel's own is 1024)
	CopyRange uint32 // bytes to copy of each packet, up to MaxCopy; 0: only what comes with it (no length either)
	// DefaultDrop makes drop the verdict on packets that no rule decides and that
	// cannot be decoded; else it is accept.
	DefaultDrop bool
	Buffer      int // bytes of receive buffer to ask for; 0: room for MaxLen packets, see bufferFor

	FailOpen  bool // accept what does not fit in the full queue, instead of dropping it
	NoGSO     bool // have the kernel cut large segments before they are queued
	GSO       bool // refuse to do without large segments; Apart does not ask for it then
	UIDGID    bool // send user and group of local sockets
	SecCtx    bool // send their security context
	Conntrack bool // send the connection; needs CONFIG_NETFILTER_NETLINK_GLUE_CT
	Connmark  bool // decisions will set connection marks; needs that option too
	// Edits says that decisions will change packets: as NoGSO, on a kernel that
	// loses datagrams of many segments when they were changed.
	Edits bool
	// Apart says that decisions look at datagrams of UDP one by one: as NoGSO. It is
	// set as well when a packet is to be edited whose checksum only the kernel can
	// finish.
	Apart bool

	// Codes are what can be said to a table behind the queue: verdicts on flows, reject
	// and connection marks go that way. Nil: there is none.
	Codes *mark.Codes

	// Hold says that decisions may have packets wait, see Queue.Prepare; nil: none does.
	Hold *Hold

	Pin bool // the thread that serves the queue stays on processor CPU
	CPU int

	// DryRun accepts every packet as it is, whatever was decided.
	DryRun bool

	whoever bool // who holds a queue that is taken need not be told, which takes long
}

// flags are the features that a queue can be asked for (NFQA_CFG_F_*).
var flags = []struct {
	bit  uint32
	name string
	need string
	want func(*Config) bool
}{
	{nfqueue.NfQaCfgFlagFailOpen, "fail-open", "needs Linux 3.6", func(c *Config) bool { return c.FailOpen }},
	{nfqueue.NfQaCfgFlagConntrack, "conntrack data", "needs CONFIG_NETFILTER_NETLINK_GLUE_CT", func(c *Config) bool { return c.Conntrack || c.Connmark }},
	{nfqueue.NfQaCfgFlagGSO, "GSO", "needs Linux 3.10", func(c *Config) bool {
		return !c.NoGSO && (c.GSO || !c.Apart) && !(c.Edits && !c.DryRun && losesEditedGSO.Get())
	}},
	{nfqueue.NfQaCfgFlagUIDGid, "user and group", "needs Linux 3.14", func(c *Config) bool { return c.UIDGID }},
	{nfqueue.NfQaCfgFlagSecCx, "security context", "needs CONFIG_NETWORK_SECMARK", func(c *Config) bool { return c.SecCtx }},
}

// An Ask is what the kernel can be asked for when a queue is bound.
type Ask struct {
	Name   string
	Need   string // what the kernel needs for it: "needs Linux 3.14"
	Wanted bool
}

// Asks returns what can be asked for, and whether c does.
func (c *Config) Asks() []Ask {
	list := make([]Ask, len(flags))
	for i, f := range flags {
		list[i] = Ask{f.name, f.need, f.want(c)}
	}
	return list
}

// losesEditedGSO reports whether the kernel loses edited datagrams of UDP GSO.
// Until Linux 6.11 (30b03f2a0592, "udp: Fall back to software USO if IPv6
// extension headers are present") __udp_gso_segment hands a packet whose checksum
// is not left to the device, as none is that was edited, back uncut when the
// device could cut it, and then nobody does. The version is asked: to see the
// effect takes two namespaces, a link, a queue and a receiver.
var losesEditedGSO = lazy.Value[bool]{Make: func() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return true
	}
	return olderThan(unix.ByteSliceToString(u.Release[:]), 6, 11)
}}

// olderThan compares a kernel's release, as "6.1.0-41-amd64", with a version. One
// that cannot be read is older.
func olderThan(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n < 2 {
		return true
	}
	return a < major || a == major && b < minor
}

// ErrNotSupported is what errors.Is finds when the kernel lacks a feature that
// was asked for.
var ErrNotSupported = unix.EOPNOTSUPP

// notSupported names what the kernel lacks.
type notSupported struct{ need string }

func (e *notSupported) Error() string { return "not supported by this kernel (" + e.need + ")" }
func (e *notSupported) Unwrap() error { return unix.EOPNOTSUPP }

// A Queue is a bound queue. One goroutine serves it (see Serve); Stats,
// SetDecider and Stop may be called from others.
type Queue struct {
	// OnPacket, when set, is called with each packet when it was decided and not
	// yet answered; p and d are valid during the call.
	OnPacket func(p *Packet, d *Decision)
	// OnBatch is called with the number of packets that were just answered.
	OnBatch func(n int)
	// OnIdle is called when the socket has nothing more, before waiting for it:
	// the time to write what OnPacket gathered. An error ends the service, in
	// order; neither is called again then.
	OnIdle func() error
	// Alive, when set, is called by the loop that gives the verdicts, at least so often as
	// AliveEvery says and before it waits.
	Alive      func()
	AliveEvery time.Duration
	// OnUneditable is called for each packet with a Decision.Why, before OnPacket.
	OnUneditable func(*Packet, *Decision)
	// OnLost is called when n packets were lost before they could be read:
	// "socket", its receive buffer was full (with FailOpen they went on, unseen);
	// "queue", the queue was. The second is looked for about once a second, and
	// only where the kernel's list may be read.
	OnLost func(n uint64, where string)

	conf   Config // what Reload changes of it only the worker reads
	nf     *nfqueue.Nfqueue
	conn   *nl.Conn
	recv   *nl.Receiver // replaced by the worker alone, under recvMu
	recvMu sync.Mutex
	proc   *os.File // the kernel's list of queues; nil: may not be read
	names  ifNames
	buffer int
	gso    bool
	early  [][]byte // messages that came while the queue was being set up
	bound  bool
	room   *room // where packets wait; nil: none does

	reload atomic.Pointer[reload]
	ended  atomic.Bool // the service
	ending atomic.Bool
	drain  atomic.Bool // while ending: wait until nothing comes any more
	counters
	sets
	infoMu sync.Mutex
	info   []byte // buffer for the kernel's list
	last   *Info  // of the queue that is no longer bound
}

// Open binds a queue. Packets that come from then on wait for Serve. Errors are
// *BusyError; *nl.OpError, of which errors.Is finds ErrNotSupported and names the
// feature, and os.ErrPermission.
func Open(c Config) (*Queue, error) {
	if c.MaxLen == 0 {
		c.MaxLen = DefaultMaxLen
	}
	c.CopyRange = min(c.CopyRange, MaxCopy)
	if c.Buffer <= 0 {
		c.Buffer = bufferFor(c.MaxLen, c.CopyRange, memory())
	}
	q := &Queue{conf: c}
	if err := q.open(); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

// bufferFor is the receive buffer for a queue of so many packets of which so much is
// copied: what the queue may hold shall find room, so that the queue's length alone says
// what is lost. It is DefaultBuffer at least, and 1/32 of the memory at most where that is
// more.
func bufferFor(maxLen, copyRange uint32, memory uint64) int {
	// The kernel counts a message with its allocation (a power of two or a page) and
	// struct sk_buff, and doubles what is asked for.
	const beside = 1 << 10
	return int(max(DefaultBuffer, min(uint64(maxLen)*(uint64(copyRange)+beside), memory/32, 1<<30)))
}

// memory is the machine's, in bytes; 0: not known.
func memory() uint64 {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return 0
	}
	return uint64(i.Totalram) * uint64(i.Unit)
}

// Asked returns the size in bytes of the receive buffer that was asked for.
func (q *Queue) Asked() int { return q.conf.Buffer }

func (q *Queue) object() string { return "queue " + strconv.Itoa(int(q.conf.Num)) }

func (q *Queue) open() (err error) {
	q.nf, err = nfqueue.Open(&nfqueue.Config{NfQueue: q.conf.Num, MaxQueueLen: q.conf.MaxLen,
		MaxPacketLen: q.conf.CopyRange})
	if err != nil {
		return nl.Error("open socket", q.object(), err)
	}
	if q.conn, err = nl.Wrap(q.nf.Con); err != nil {
		return nl.Error("open socket", q.object(), err)
	}
	q.buffer, _ = q.conn.SetBuffer(q.conf.Buffer)
	_ = q.conn.SetNoENOBUFS() // only spares the loop an error that it passes over
	if q.recv, err = q.conn.NewReceiver(slots, slotSize(q.conf.CopyRange)); err != nil {
		return err
	}
	q.proc, _ = os.Open(procQueues)
	q.names = ifNames{lookup: q.conn.InterfaceName, m: map[uint32]*ifName{}}
	q.SetDecider(None{})
	return q.bind()
}

// slots is how many packets are read at a time.
const slots = 64

// slotSize is the room for one message: the copy, and all else that comes with
// a packet, of which the connection and the security context are the largest.
func slotSize(copyRange uint32) int { return int(copyRange) + 2<<10 }

// bind asks for everything in one message, so that no packet is queued by half
// of the settings.
func (q *Queue) bind() error {
	var want uint32
	for _, f := range flags {
		if f.want(&q.conf) {
			want |= f.bit
		}
	}
	err := q.ask(q.bindMessage(want))
	if errors.Is(err, unix.EOPNOTSUPP) {
		_ = q.ask(q.command(nfqnlUnbind)) // older kernels bind before they look at the flags
		refused := q.refused(want)
		if refused == nfqueue.NfQaCfgFlagGSO && !q.conf.GSO { // not asked for by the user
			want &^= refused
			err = q.ask(q.bindMessage(want))
		}
		if err != nil {
			for _, f := range flags {
				if f.bit == refused {
					return q.lacks(f.name, f.need, !q.conf.Conntrack)
				}
			}
		}
	}
	if errors.Is(err, unix.EPERM) && !q.conf.whoever {
		if busy := q.busy(); busy != nil {
			return busy
		}
	}
	if err != nil {
		return nl.Error("bind", q.object(), err)
	}
	q.bound = true
	q.gso = want&nfqueue.NfQaCfgFlagGSO != 0
	if q.conf.Connmark && !q.conf.Conntrack {
		// That the flag was taken says that connection marks work; the data
		// itself is not wanted.
		b := nl.AppendHeader(nil, msgConfig, nl.FlagAck, unix.AF_UNSPEC, q.conf.Num)
		b = appendFlags(b, 0, nfqueue.NfQaCfgFlagConntrack)
		return nl.Error("conntrack data", q.object(), q.ask(nl.Finish(b, 0)))
	}
	return nil
}

// lacks says that the kernel refused a feature. Connection marks are asked for as
// conntrack data.
func (q *Queue) lacks(name, need string, forMark bool) error {
	if name == "conntrack data" && forMark {
		name = "connection marks"
	}
	return nl.Error(name, q.object(), &notSupported{need})
}

// Commands of NFQA_CFG_CMD.
const (
	nfqnlBind     = 1
	nfqnlUnbind   = 2
	nfqnlPFUnbind = 4 // of families, long without effect, but still for CAP_NET_ADMIN

	cfgCmd, cfgParams, cfgMaxLen, cfgMask, cfgFlags = 1, 2, 3, 4, 5
)

func (q *Queue) command(cmd byte) []byte {
	b := nl.AppendHeader(nil, msgConfig, nl.FlagAck, unix.AF_UNSPEC, q.conf.Num)
	b = nl.AppendAttr(b, cfgCmd, []byte{cmd, 0, 0, 0}) // struct nfqnl_msg_config_cmd
	return nl.Finish(b, 0)
}

func appendParams(b []byte, copyRange uint32) []byte {
	mode := byte(nfqueue.NfQnlCopyPacket)
	if copyRange == 0 {
		mode = nfqueue.NfQnlCopyMeta
	}
	// struct nfqnl_msg_config_params
	return nl.AppendAttr(b, cfgParams, append(binary.BigEndian.AppendUint32(nil, copyRange), mode))
}

func (q *Queue) bindMessage(flags uint32) []byte {
	b := appendParams(q.command(nfqnlBind), q.conf.CopyRange)
	b = nl.AppendU32(b, cfgMaxLen, q.conf.MaxLen)
	if flags != 0 {
		b = appendFlags(b, flags, flags)
	}
	return nl.Finish(b, 0)
}

func appendFlags(b []byte, flags, mask uint32) []byte {
	return nl.AppendU32(nl.AppendU32(b, cfgFlags, flags), cfgMask, mask)
}

// refused finds the flag that the kernel refuses. It looks at flags before it
// looks whether the queue is bound, which is ENODEV.
func (q *Queue) refused(want uint32) uint32 {
	for _, f := range flags {
		if want&f.bit == 0 {
			continue
		}
		b := nl.AppendHeader(nil, msgConfig, nl.FlagAck, unix.AF_UNSPEC, q.conf.Num)
		if err := q.ask(nl.Finish(appendFlags(b, f.bit, f.bit), 0)); errors.Is(err, unix.EOPNOTSUPP) {
			return f.bit
		}
	}
	return 0
}

// busy names the socket that holds the queue, if the kernel's list shows one.
// Who may not read the list, and yet is let do nothing, knows as much.
func (q *Queue) busy() error {
	list, err := List()
	if errors.Is(err, os.ErrPermission) && q.ask(q.command(nfqnlPFUnbind)) == nil {
		return &BusyError{Num: q.conf.Num}
	}
	if err != nil {
		return nil
	}
	for _, i := range list {
		if i.Num == q.conf.Num && i.Owner.Port != q.conn.PortID() {
			return &BusyError{Num: i.Num, Owner: i.Owner}
		}
	}
	return nil
}

// ask sends a request and waits for its acknowledgement. Packets that come
// before it are kept for Serve.
func (q *Queue) ask(req []byte) error {
	seq, err := q.conn.Request(req)
	if err != nil {
		return err
	}
	for range 1000 {
		n, err := q.recv.Recv(answerWait)
		if err != nil && !errors.Is(err, nl.ErrOverrun) {
			return err
		}
		if n == 0 && err == nil {
			return nl.ErrNoAnswer
		}
		answered := false
		var answer error
		for i := range n {
			b, whole := q.recv.Datagram(i)
			if m, _, ok := nl.NextMsg(b); ok && whole && m.Seq == seq && m.Port == q.conn.PortID() {
				if e, done := m.Status(); done {
					answered, answer = true, e
					continue
				}
			}
			q.early = append(q.early, append([]byte(nil), b...))
		}
		if answered {
			return answer
		}
	}
	return nl.ErrNoAnswer
}

// Buffer returns the size in bytes of the receive buffer that was reached.
func (q *Queue) Buffer() int { return q.buffer }

// GSO reports whether the kernel was asked, by Open, to queue large segments uncut.
func (q *Queue) GSO() bool { return q.gso }

// wake ends the worker's waiting.
func (q *Queue) wake() {
	q.recvMu.Lock()
	defer q.recvMu.Unlock()
	q.recv.Wake()
}

// Num returns the queue's number.
func (q *Queue) Num() uint16 { return q.conf.Num }

// Unbind gives the queue up. The kernel drops what still waits for a verdict.
func (q *Queue) Unbind() error {
	if !q.bound {
		return nil
	}
	q.bound = false
	q.keepInfo()
	return nl.Error("unbind", q.object(), q.ask(q.command(nfqnlUnbind)))
}

// Close closes the queue's socket, which unbinds the queue.
func (q *Queue) Close() error {
	var err error
	if q.nf != nil {
		if err = q.nf.Close(); err != nil {
			err = fmt.Errorf("%s: close: %w", q.object(), err)
		}
		q.nf = nil
	}
	if q.proc != nil {
		_ = q.proc.Close()
		q.proc = nil
	}
	if q.room != nil {
		q.room.close()
	}
	return err
}
