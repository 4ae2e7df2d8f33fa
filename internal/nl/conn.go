package nl

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Config says how to open a socket. The zero value is good for requests.
type Config struct {
	// Groups is the bitmask of multicast groups to join: see Group.
	Groups uint32

	// Port is the socket's own port id, by which others see whose doing a change
	// was; one that another socket has is EADDRINUSE. 0: the kernel chooses.
	Port uint32

	// Buffer is the size in bytes to ask for the receive buffer: see
	// Conn.SetBuffer, whose errors Dial ignores. 0 leaves the system's default.
	Buffer int
}

// A Conn is a netlink socket to netfilter (NETLINK_NETFILTER). Send, Close and
// the socket's options may be used from several goroutines; what reads (Do, Get,
// Dump, Read, Batch, Receiver) from one at a time.
type Conn struct {
	// Other, when set, is given the messages that Do, Get, Dump and Batch find on
	// the socket without having asked for them: packets of a queue, events. It
	// must not keep m.Data. Unset, they are lost.
	Other func(m *Msg)

	rc   *file
	port uint32
	seq  atomic.Uint32
	buf  []byte // for replies, made at the first request

	sender sender
}

// answerTimeout bounds the wait for an answer. The kernel answers netfilter
// requests before the sending call returns, so it only ends what is broken.
const answerTimeout = 10 * time.Second

// Dial opens a socket in the calling thread's network namespace.
func Dial(c Config) (*Conn, error) {
	nc, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: c.Groups, PID: c.Port})
	if err != nil {
		return nil, &OpError{Op: "open", Object: "netlink socket", Err: cause(err)}
	}
	conn, err := Wrap(nc)
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	if c.Buffer > 0 {
		_, _ = conn.SetBuffer(c.Buffer)
	}
	return conn, nil
}

// Wrap makes a Conn of a netlink socket that something else opened, and closes
// nc: the socket itself lives on as the Conn's, away from Go's poller (see file).
// Extended acknowledgements are switched on, and what is not from the kernel is
// kept off (see Foreign).
func Wrap(nc *netlink.Conn) (*Conn, error) {
	c := &Conn{port: nc.PID()}
	rc, err := nc.SyscallConn()
	if err == nil {
		if e := rc.Control(func(fd uintptr) { c.rc, err = newFile(fd) }); e != nil {
			err = e
		}
	}
	if err != nil {
		return nil, &OpError{Op: "open", Object: "netlink socket", Err: cause(err)}
	}
	_ = nc.Close()
	c.sender.f, c.sender.quick = c.sender.send, c.sender.sendQuick
	c.seq.Store(rand.Uint32()) // not to be guessed
	// A socket that is connected to the kernel takes no unicast from anybody else,
	// who is told ECONNREFUSED: netlink_getsockbyportid in net/netlink/af_netlink.c.
	_ = c.control(func(fd int) error { return unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) })
	// Both only shorten or explain errors; kernels before 4.12 lack EXT_ACK.
	_ = c.setInt(unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = c.setInt(unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return c, nil
}

// cause strips the library's own wrapping, which repeats what OpError says.
func cause(err error) error {
	var e *netlink.OpError
	if errors.As(err, &e) {
		err = e.Err
	}
	var s *os.SyscallError
	if errors.As(err, &s) {
		err = s.Err
	}
	return err
}

// PortID returns the socket's port id, by which the kernel knows it
// (/proc/net/netlink, the owner of a queue).
func (c *Conn) PortID() uint32 { return c.port }

// Close closes the socket. A Read or Recv under way ends with os.ErrClosed, one
// in the kernel within 10 ms.
func (c *Conn) Close() error { return c.rc.Close() }

// control runs f on the socket's descriptor.
func (c *Conn) control(f func(fd int) error) error {
	var err error
	if e := c.rc.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return closed(e)
	}
	return err
}

// closed names the errors of a file: besides a deadline only a closed socket is
// one.
func closed(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return os.ErrClosed
}

func (c *Conn) setInt(level, opt, v int) error {
	return c.control(func(fd int) error { return unix.SetsockoptInt(fd, level, opt, v) })
}

// SetBuffer asks for a receive buffer of so many bytes and returns what was
// reached, in the same unit. It forces the size (SO_RCVBUFFORCE, needs
// CAP_NET_ADMIN in the initial user namespace), else asks within
// net.core.rmem_max (SO_RCVBUF). The kernel doubles what is asked for, since it
// counts its own overhead too, and reports the double: half of that is returned.
// The error is that of the forcing call when less than asked was reached.
func (c *Conn) SetBuffer(bytes int) (reached int, err error) {
	e := c.control(func(fd int) error {
		force := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
		if force != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
		}
		n, e := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		reached = n / 2
		if e == nil && reached < bytes {
			if force == nil { // the kernel's ceiling of 2 GiB
				force = unix.EINVAL
			}
			err = &OpError{Op: fmt.Sprintf("set to %d bytes", bytes), Object: "receive buffer", Err: force}
		}
		return e
	})
	if e != nil {
		return 0, e
	}
	return reached, err
}

// Drops returns how many messages the kernel could not put into the socket's
// receive buffer since it was opened: the drop counter of SO_MEMINFO (Linux
// 4.12, include/uapi/linux/sock_diag.h). It wraps at 32 bits.
func (c *Conn) Drops() (uint32, error) {
	mem, err := c.memInfo()
	return mem[8], err // SK_MEMINFO_DROPS
}

// Queued returns how much of the receive buffer holds datagrams that were not read
// yet, in bytes of memory: each takes more than its length.
func (c *Conn) Queued() (uint32, error) {
	mem, err := c.memInfo()
	return mem[0], err // SK_MEMINFO_RMEM_ALLOC
}

// memInfo reads SO_MEMINFO (linux/sock_diag.h).
func (c *Conn) memInfo() (mem [9]uint32, err error) {
	n := uint32(unsafe.Sizeof(mem))
	err = c.control(func(fd int) error {
		_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&n)), 0)
		if e != 0 {
			return e
		}
		return nil
	})
	if err == nil && n < uint32(unsafe.Sizeof(mem)) {
		err = unix.EOPNOTSUPP
	}
	return mem, err
}

// SetReliable asks for delivery reports (NETLINK_BROADCAST_ERROR): an event that
// does not fit is kept by the kernel and delivered late, where it can.
func (c *Conn) SetReliable() error {
	return Error("reliable delivery", "netlink socket", c.setInt(unix.SOL_NETLINK, unix.NETLINK_BROADCAST_ERROR, 1))
}

// SetNoENOBUFS stops overruns from being reported as errors; Drops still counts.
func (c *Conn) SetNoENOBUFS() error {
	return Error("no ENOBUFS", "netlink socket", c.setInt(unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1))
}

// JoinGroup joins multicast group n (NFNLGRP_…).
func (c *Conn) JoinGroup(n uint) error {
	return Error(fmt.Sprintf("join group %d", n), "netlink socket",
		c.setInt(unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(n)))
}

// LeaveGroup leaves multicast group n.
func (c *Conn) LeaveGroup(n uint) error {
	return Error(fmt.Sprintf("leave group %d", n), "netlink socket",
		c.setInt(unix.SOL_NETLINK, unix.NETLINK_DROP_MEMBERSHIP, int(n)))
}

// Send sends b, one finished message or several, with one system call. The
// kernel handles them in order and has answered those that want an answer when
// Send returns. Sequence numbers are the caller's: see NextSeq and PutSeq.
func (c *Conn) Send(b []byte) error { return c.sendBy(c.sender.f, b) }

// SendQuick is Send for what keeps the kernel busy for well under a millisecond,
// as verdicts on a few packets: Go's scheduler is not told of the call, which
// otherwise takes the processor away from long ones and is slow to give it back.
func (c *Conn) SendQuick(b []byte) error { return c.sendBy(c.sender.quick, b) }

func (c *Conn) sendBy(f func(fd uintptr), b []byte) error {
	if len(b) == 0 {
		return nil
	}
	s := &c.sender
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b = b
	if err := c.rc.Control(f); err != nil {
		return closed(err)
	}
	s.b = nil
	if s.err != 0 {
		return s.err
	}
	return nil
}

// A sender holds a send's arguments and the function that makes the call, made
// once: a closure made at each send would be an allocation.
type sender struct {
	mu  sync.Mutex
	b   []byte
	err syscall.Errno

	f, quick func(fd uintptr)
}

// send needs no address: a socket that is not connected sends to the kernel.
func (s *sender) send(fd uintptr) {
	for {
		_, _, s.err = unix.Syscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&s.b[0])), uintptr(len(s.b)), 0, 0, 0)
		if s.err != unix.EINTR && s.err != unix.EAGAIN {
			return
		}
	}
}

func (s *sender) sendQuick(fd uintptr) {
	for {
		_, _, s.err = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&s.b[0])), uintptr(len(s.b)), 0, 0,
			0)
		if s.err != unix.EINTR && s.err != unix.EAGAIN {
			return
		}
	}
}

// NextSeq returns a sequence number not used before on this socket, never 0.
func (c *Conn) NextSeq() uint32 {
	for {
		if s := c.seq.Add(1); s != 0 {
			return s
		}
	}
}

// PutSeq writes a sequence number into the message at the start of b.
func PutSeq(b []byte, seq uint32) { ne.PutUint32(b[8:], seq) }

// Request finishes req, a message that starts at its first byte, gives it a
// sequence number and sends it. The answer is for Read.
func (c *Conn) Request(req []byte) (seq uint32, err error) {
	seq = c.NextSeq()
	PutSeq(Finish(req, 0), seq)
	return seq, c.Send(req)
}

// ReadSize is a good size of a buffer for Read: the kernel fills dumps' datagrams
// up to the largest buffer it has seen, 32 KiB at most.
const ReadSize = 64 << 10

// Read reads one datagram of the kernel's into b, waiting in the kernel. Errors are ErrOverrun
// (read on), ErrTruncated, os.ErrClosed and os.ErrDeadlineExceeded.
func (c *Conn) Read(b []byte) (int, error) {
	r := reader{b: b}
	return c.read(&r)
}

// foreign counts datagrams that did not come from the kernel.
var foreign atomic.Uint64

// Foreign returns how many datagrams the program's sockets were sent by somebody
// else than the kernel, and passed over. Any process with CAP_NET_ADMIN over the
// network namespace may send to the groups that a socket has joined, and to a socket
// before it is connected to the kernel. No more get so far as to be counted.
func Foreign() uint64 { return foreign.Load() }

// A sender's address is struct sockaddr_nl: family, padding, port id, groups. The
// kernel's port id is 0, and a process cannot have it.
type address [3]uint32

const addressLen = 12

func (a *address) kernel() bool { return a[1] == 0 }

func (c *Conn) read(r *reader) (int, error) {
	if err := c.rc.Read(r.recv); err != nil {
		return 0, closed(err)
	}
	return int(r.n), errnoOf(r.err, r.n > len(r.b))
}

func errnoOf(e syscall.Errno, truncated bool) error {
	switch {
	case e == 0 && truncated:
		return ErrTruncated
	case e == 0:
		return nil
	case e == unix.ENOBUFS:
		return ErrOverrun
	}
	return e
}

type reader struct {
	b    []byte
	n    int
	err  syscall.Errno
	from address
	size uint32 // of from
}

// recv is one try: false when there was nothing, or something that is not from the
// kernel, and then err is EAGAIN or 0. MSG_TRUNC makes the call return the
// datagram's whole length.
func (r *reader) recv(fd uintptr) bool {
	for {
		r.size = addressLen
		n, _, e := unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(r.b))),
			uintptr(len(r.b)),
			unix.MSG_DONTWAIT|unix.MSG_TRUNC, uintptr(unsafe.Pointer(&r.from)), uintptr(unsafe.Pointer(&r.size)))
		if e == unix.EINTR {
			continue
		}
		r.n, r.err = int(n), e
		if e == 0 && !r.from.kernel() {
			r.n = 0
			foreign.Add(1)
			return false
		}
		return e != unix.EAGAIN
	}
}

// SetReadDeadline bounds Read; the zero time lifts the bound.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.rc.SetReadDeadline(t) }

func (c *Conn) replyBuffer() []byte {
	if c.buf == nil {
		c.buf = make([]byte, ReadSize)
	}
	return c.buf
}

// Do sends req with NLM_F_ACK and waits for the kernel's answer: nil, or an
// *OpError for Error to fill in.
func (c *Conn) Do(req []byte) error {
	_, err := c.exchange(req, unix.NLM_F_ACK, nil)
	return err
}

// Get sends req with NLM_F_ACK and hands every message of the reply to f, whose
// argument is valid only during the call.
func (c *Conn) Get(req []byte, f func(m *Msg) error) error {
	_, err := c.exchange(req, unix.NLM_F_ACK, f)
	return err
}

// Dump sends req with NLM_F_DUMP and hands every message of the reply to f, whose
// argument is valid only during the call. When f returns an error Dump ends with
// it (nil for ErrStop); the rest of the reply is still in the socket, which
// should then be closed. interrupted says that the kernel marked the dump as
// possibly incomplete, because what was dumped changed (NLM_F_DUMP_INTR).
func (c *Conn) Dump(req []byte, f func(m *Msg) error) (interrupted bool, err error) {
	return c.exchange(req, unix.NLM_F_DUMP, f)
}

func (c *Conn) exchange(req []byte, flag uint16, f func(m *Msg) error) (intr bool, err error) {
	ne.PutUint16(req[6:], ne.Uint16(req[6:])|flag)
	seq, err := c.Request(req)
	if err != nil {
		return false, &OpError{Err: err}
	}
	until := time.Now().Add(answerTimeout)
	if flag != unix.NLM_F_DUMP { // a dump takes as long as f does
		if err := c.SetReadDeadline(until); err != nil {
			return false, &OpError{Err: os.ErrClosed}
		}
		defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	}
	r := reader{b: c.replyBuffer()}
	for {
		n, err := c.read(&r)
		switch {
		case errors.Is(err, ErrOverrun) && flag != unix.NLM_F_DUMP:
			continue // what was lost need not be the answer
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(until):
			_ = c.SetReadDeadline(until) // a Receiver's Wake, not meant for this
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			return intr, &OpError{Err: ErrNoAnswer}
		case err != nil:
			return intr, &OpError{Err: err}
		}
		for b := r.b[:n]; ; {
			m, rest, ok := NextMsg(b)
			if !ok {
				break
			}
			b = rest
			if m.Seq != seq || m.Port != c.port {
				if c.Other != nil {
					c.Other(&m)
				}
				continue
			}
			intr = intr || m.Flags&unix.NLM_F_DUMP_INTR != 0
			if err, done := m.Status(); done {
				return intr, err
			}
			if f == nil {
				continue
			}
			if err := f(&m); err != nil {
				if errors.Is(err, ErrStop) {
					err = nil
				}
				return intr, err
			}
		}
	}
}
