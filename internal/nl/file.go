package nl

import (
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A file is a socket's descriptor that Go's poller knows nothing of. The poller
// would wake a thread for every message that comes (its registration is
// edge-triggered and cannot be suspended), also while the reader waits in the
// kernel behind the scheduler's back: beside a queue under load that takes as
// much processor time as the verdicts do. Whoever finds nothing to read waits in
// poll(2).
//
// It implements syscall.RawConn.
type file struct {
	fd, wake int          // wake is an eventfd: something has changed for whoever waits
	refs     atomic.Int32 // calls under way, and one for the open file
	closed   atomic.Bool
	deadline atomic.Int64 // unix nanoseconds; 0: none
}

// newFile makes a file of a copy of fd, which may be closed then.
func newFile(fd uintptr) (*file, error) {
	own, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(own)
		return nil, os.NewSyscallError("eventfd", err)
	}
	f := &file{fd: own, wake: wake}
	f.refs.Store(1)
	return f, nil
}

// acquire keeps the descriptor open until release; false: it is closed.
func (f *file) acquire() bool {
	f.refs.Add(1)
	if f.closed.Load() {
		f.release()
		return false
	}
	return true
}

func (f *file) release() {
	if f.refs.Add(-1) == 0 && f.closed.Load() && f.refs.CompareAndSwap(0, -1<<20) {
		_ = unix.Close(f.fd)
		_ = unix.Close(f.wake)
	}
}

// Close closes the descriptor when the calls under way have returned; those that
// wait do so at once.
func (f *file) Close() error {
	if f.closed.Swap(true) {
		return os.ErrClosed
	}
	f.poke()
	f.release()
	return nil
}

// poke makes whoever waits look again. The caller holds a reference.
func (f *file) poke() {
	one := uint64(1)
	_, _ = unix.Write(f.wake, (*[8]byte)(unsafe.Pointer(&one))[:])
}

// SetReadDeadline bounds Read; the zero time lifts the bound.
func (f *file) SetReadDeadline(t time.Time) error {
	if !f.acquire() {
		return os.ErrClosed
	}
	defer f.release()
	f.setDeadline(t)
	f.poke()
	return nil
}

// setDeadline is SetReadDeadline for the reader itself, whom nobody need tell.
func (f *file) setDeadline(t time.Time) {
	var ns int64
	if !t.IsZero() {
		ns = max(t.UnixNano(), 1)
	}
	f.deadline.Store(ns)
}

// Control runs g on the descriptor.
func (f *file) Control(g func(fd uintptr)) error {
	if !f.acquire() {
		return os.ErrClosed
	}
	g(uintptr(f.fd))
	f.release()
	return nil
}

// Read runs g again and again, whenever there may be something to read, until it
// returns true. The error is os.ErrClosed or os.ErrDeadlineExceeded.
func (f *file) Read(g func(fd uintptr) bool) error {
	if !f.acquire() {
		return os.ErrClosed
	}
	defer f.release()
	for {
		if f.closed.Load() {
			return os.ErrClosed
		}
		if g(uintptr(f.fd)) {
			return nil
		}
		var timeout *unix.Timespec
		if at := f.deadline.Load(); at != 0 {
			left := at - time.Now().UnixNano()
			if left <= 0 {
				return os.ErrDeadlineExceeded
			}
			ts := unix.NsecToTimespec(left)
			timeout = &ts
		}
		fds := [2]unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLIN}, {Fd: int32(f.wake), Events: unix.POLLIN}}
		if _, err := unix.Ppoll(fds[:], timeout, nil); err != nil && err != unix.EINTR {
			return os.NewSyscallError("ppoll", err)
		}
		if fds[1].Revents != 0 && !f.closed.Load() {
			var b [8]byte
			_, _ = unix.Read(f.wake, b[:])
		}
	}
}

// Write is there for syscall.RawConn: netlink sends never wait.
func (f *file) Write(g func(fd uintptr) bool) error {
	return f.Control(func(fd uintptr) { g(fd) })
}
