package nl

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Receiver reads many datagrams with one system call (recvmmsg) into buffers
// made once.
//
// While messages flow it waits inside the system call without telling Go's
// scheduler, which takes a fifth of the time that parking and waking the
// goroutine does. Such a wait lasts 10 ms at most, ends when the garbage
// collector wants the thread (its signal interrupts the call), and is left for
// poll(2), of which the scheduler knows, as soon as nothing came for so long. All but one of the program's
// processors (GOMAXPROCS) may wait so at a time, so that other goroutines run;
// with a single one they wait for up to 10 ms, as long as traffic flows.
//
// One goroutine at a time may use a Receiver, except for Wake. The Conn's other
// calls may be used between calls of Recv; its descriptor no longer has
// O_NONBLOCK and has a receive timeout (SO_RCVTIMEO), of which they take no notice.
type Receiver struct {
	c     *Conn
	mem   []byte
	size  int // of a buffer
	slot  int // from one buffer to the next
	hdrs  []mmsghdr
	iovs  []unix.Iovec
	from  []address
	n     int
	errno unix.Errno
	woken atomic.Bool

	fd     unix.PollFd // of RecvWithin
	within unix.Timespec

	// Made once: a closure made at each call would be an allocation.
	now   func(uintptr)      // do not wait
	ready func(uintptr)      // wait within some time
	block func(uintptr)      // wait in the kernel
	poll  func(uintptr) bool // one try before poll(2)
}

type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

const rawWait = 10 * time.Millisecond

// stagger is about what a small packet's or an event's message takes, in bytes.
const stagger = 320

// rawWaiters counts the threads of the program that wait in the kernel behind
// the scheduler's back.
var rawWaiters atomic.Int32

// NewReceiver makes a receiver on c with so many buffers of so many bytes each.
// A datagram that is larger is cut off, see Datagram. Memory that no datagram
// ever reached is not touched.
func (c *Conn) NewReceiver(buffers, size int) (*Receiver, error) {
	buffers, size = max(buffers, 1), align(max(size, 64))
	err := c.control(func(fd int) error {
		tv := unix.NsecToTimeval(int64(rawWait))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		return unix.SetNonblock(fd, false)
	})
	if err != nil {
		return nil, Error("set receive timeout", "netlink socket", err)
	}
	// Buffers at multiples of a page share their place in the processor's caches,
	// and each datagram's beginning would push out another's.
	slot := size
	if slot%512 == 0 {
		slot += stagger
	}
	r := &Receiver{
		c: c, size: size, slot: slot,
		mem:  make([]byte, buffers*slot),
		hdrs: make([]mmsghdr, buffers),
		iovs: make([]unix.Iovec, buffers),
		from: make([]address, buffers),
	}
	for i := range r.hdrs {
		r.iovs[i].Base = &r.mem[i*slot]
		r.iovs[i].SetLen(size)
		r.hdrs[i].hdr.Iov = &r.iovs[i]
		r.hdrs[i].hdr.SetIovlen(1)
		// The kernel writes the length anew, to the same.
		r.hdrs[i].hdr.Name, r.hdrs[i].hdr.Namelen = (*byte)(unsafe.Pointer(&r.from[i])), addressLen
	}
	r.now = func(fd uintptr) { r.recv(fd, unix.MSG_DONTWAIT) }
	r.ready = func(fd uintptr) {
		r.fd = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		// The scheduler is told only where the other processors wait so too.
		if rawWaiters.Add(1) > max(1, int32(runtime.GOMAXPROCS(0))-1) {
			_, _, _ = unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&r.fd)), 1,
				uintptr(unsafe.Pointer(&r.within)), 0, 0, 0)
		} else {
			_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&r.fd)), 1,
				uintptr(unsafe.Pointer(&r.within)), 0, 0, 0)
		}
		rawWaiters.Add(-1)
	}
	r.block = func(fd uintptr) { r.recv(fd, unix.MSG_WAITFORONE) }
	r.poll = func(fd uintptr) bool { r.recv(fd, unix.MSG_DONTWAIT); return r.errno != unix.EAGAIN }
	return r, nil
}

// recv is one system call. It is raw also where it does not wait: it is short,
// and the scheduler need not be told.
func (r *Receiver) recv(fd uintptr, flags uintptr) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs[0])), uintptr(len(r.hdrs)),
			flags, 0, 0)
		if e == 0 {
			r.n, r.errno = int(n), 0
			for i := range r.from[:n] {
				if !r.from[i].kernel() {
					r.hdrs[i].n, r.hdrs[i].hdr.Flags = 0, 0
					foreign.Add(1)
				}
			}
			return
		}
		r.n, r.errno = 0, e
		if e != unix.EINTR || flags&unix.MSG_DONTWAIT == 0 {
			return
		}
	}
}

func (r *Receiver) result() (int, error) {
	if r.errno == unix.EAGAIN || r.errno == unix.EINTR {
		return 0, nil
	}
	return r.n, errnoOf(r.errno, false)
}

func (r *Receiver) try() (int, error) {
	if err := r.c.rc.Control(r.now); err != nil {
		return 0, closed(err)
	}
	return r.result()
}

// Recv waits for messages and returns how many datagrams there are; they stay
// valid until the next call. It waits up to timeout, 0 not at all, less than 0
// without end. When nothing came, or Wake was called, it returns 0 without an
// error. ErrOverrun says that messages were lost before the next ones;
// os.ErrClosed that the socket was closed.
func (r *Receiver) Recv(timeout time.Duration) (int, error) {
	r.n = 0
	if timeout == 0 || r.woken.Swap(false) {
		return r.try()
	}
	if timeout < 0 || timeout >= rawWait {
		start := time.Time{}
		if timeout > 0 {
			start = time.Now()
		}
		for waiting := true; waiting; {
			if rawWaiters.Add(1) <= max(1, int32(runtime.GOMAXPROCS(0))-1) {
				if err := r.c.rc.Control(r.block); err != nil {
					rawWaiters.Add(-1)
					return 0, closed(err)
				}
			} else {
				r.n, r.errno = 0, unix.EAGAIN
			}
			rawWaiters.Add(-1)
			switch r.errno {
			case unix.EINTR: // let others have the thread, then go on
				runtime.Gosched()
				waiting = timeout < 0 || time.Since(start) < timeout
			case unix.EAGAIN:
				waiting = false
			default:
				return r.result()
			}
			if r.woken.Swap(false) {
				return r.try()
			}
		}
		if timeout > 0 {
			if timeout -= time.Since(start); timeout <= 0 {
				return r.try()
			}
		}
	}
	var until time.Time
	if timeout > 0 {
		until = time.Now().Add(timeout)
	}
	// In this order: a Wake after the first line ends the wait, one before is
	// seen by the second.
	r.c.rc.setDeadline(until)
	if r.woken.Swap(false) {
		return r.try()
	}
	if err := r.c.rc.Read(r.poll); err != nil {
		if err = closed(err); errors.Is(err, os.ErrDeadlineExceeded) {
			r.woken.Store(false)
			return r.try()
		}
		return 0, err
	}
	return r.result()
}

// Pause waits for about d, at most 10 ms, in the kernel as Recv does: the scheduler
// is not told, and so neither looks for other work nor has to be woken. A signal
// ends it, Wake does not.
func (r *Receiver) Pause(d time.Duration) {
	ts := unix.NsecToTimespec(int64(min(d, rawWait)))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// RecvWithin is Recv for one who has something to do at a time: it waits for d to the
// microsecond, at most 10 ms, and Wake does not end it.
func (r *Receiver) RecvWithin(d time.Duration) (int, error) {
	r.n = 0
	if d > 0 && !r.woken.Swap(false) {
		r.within = unix.NsecToTimespec(int64(min(d, rawWait)))
		if err := r.c.rc.Control(r.ready); err != nil {
			return 0, closed(err)
		}
	}
	return r.try()
}

// Wake makes the Recv under way, or the next one that would wait, return at once
// (within 10 ms), with what there is. It may be called from any goroutine:
// context.AfterFunc(ctx, r.Wake) makes a loop that looks at ctx end in time.
func (r *Receiver) Wake() {
	r.woken.Store(true)
	_ = r.c.SetReadDeadline(time.Unix(1, 0))
}

// Datagram returns datagram i of the last Recv, for NextMsg; one that is not from
// the kernel is empty (see Foreign). whole is false when
// it was larger than the buffer: NextMsg then does not return the message that
// was cut, which Cut does.
func (r *Receiver) Datagram(i int) (b []byte, whole bool) {
	h := &r.hdrs[i]
	return r.mem[i*r.slot:][:min(int(h.n), r.size)], h.hdr.Flags&unix.MSG_TRUNC == 0
}

// Cut returns what there is of a message whose end is missing.
func Cut(b []byte) (m Msg, ok bool) {
	if len(b) < headerLen {
		return Msg{}, false
	}
	n := ne.Uint32(b)
	ne.PutUint32(b, uint32(len(b)))
	m, _, ok = NextMsg(b)
	ne.PutUint32(b, n)
	return m, ok
}
