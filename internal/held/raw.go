package held

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Raw sends copies of packets, from their IP header on, by raw sockets: they go by the
// kernel's routes, and pass the chains at output and postrouting. It belongs to one
// goroutine.
type Raw struct {
	fds  [2]int // IPv4, IPv6; -1: not there
	name func(index uint32) (string, bool)
	mtus map[uint32]*mtu
	now  func() int64
	b    [2]rawBatch
}

type mtu struct {
	bytes int
	asked int64
}

// rawBatch is what goes with one system call.
type rawBatch struct {
	n       int
	hdrs    [rawSlots]mmsghdr
	iovs    [rawSlots]unix.Iovec
	to4     [rawSlots]unix.RawSockaddrInet4
	to6     [rawSlots]unix.RawSockaddrInet6
	control [rawSlots][controlLen]byte
}

type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

const (
	rawSlots   = 64
	controlLen = 80 // a mark and struct in6_pktinfo, each with its header
	rawBuffer  = 64 << 20
	// askAgain is for how long an interface's MTU is taken to be the same.
	askAgain = int64(time.Second)
)

// OpenRaw opens the sockets, in the calling thread's network namespace; a kernel without
// IPv6 has one. It takes CAP_NET_RAW: without it the error is os.ErrPermission. name
// returns an interface's name, now the time in nanoseconds.
func OpenRaw(name func(index uint32) (string, bool), now func() int64) (*Raw, error) {
	r := &Raw{name: name, now: now, mtus: map[uint32]*mtu{}, fds: [2]int{-1, -1}}
	for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
		if i == 1 && errors.Is(err, unix.EAFNOSUPPORT) {
			break
		}
		if err != nil {
			_ = r.Close()
			return nil, fmt.Errorf("open a raw socket (CAP_NET_RAW): %w", err)
		}
		r.fds[i] = fd
		// Other than in the kernel's own packets, sources of others are to be sent, and what
		// a slow device has not sent yet is not to stop the rest.
		level, transparent := unix.SOL_IP, unix.IP_TRANSPARENT
		if i == 1 {
			level, transparent = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		}
		_ = unix.SetsockoptInt(fd, level, transparent, 1)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, rawBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, rawBuffer)
		}
	}
	for i := range r.b {
		for k := range rawSlots {
			r.b[i].hdrs[k].hdr.Iov = &r.b[i].iovs[k]
			r.b[i].hdrs[k].hdr.SetIovlen(1)
		}
	}
	return r, nil
}

// Close closes the sockets.
func (r *Raw) Close() error {
	var err error
	for i, fd := range r.fds {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
			r.fds[i] = -1
		}
	}
	return err
}

func version(data []byte) int {
	switch {
	case len(data) >= 20 && data[0]>>4 == 4:
		return 4
	case len(data) >= 40 && data[0]>>4 == 6:
		return 6
	}
	return 0
}

// Takes reports whether a packet can be sent as a copy by the interface out (0: by any):
// a raw socket takes no packet above its MTU, and where a multicast or broadcast went
// its sender's socket alone knows.
func (r *Raw) Takes(data []byte, out uint32) bool {
	switch version(data) {
	case 4:
		if r.fds[0] < 0 || data[16]&0xf0 == 0xe0 || binary.BigEndian.Uint32(data[16:]) == 1<<32-1 {
			return false
		}
	case 6:
		if r.fds[1] < 0 || data[24] == 0xff {
			return false
		}
	default:
		return false
	}
	return out == 0 || len(data) <= r.mtu(out)
}

// mtu returns the MTU of an interface, 0 when it is not known.
func (r *Raw) mtu(index uint32) int {
	m, now := r.mtus[index], r.now()
	if m == nil {
		m = &mtu{asked: now - askAgain}
		r.mtus[index] = m
	}
	if now-m.asked < askAgain {
		return m.bytes
	}
	m.asked, m.bytes = now, 0
	if name, ok := r.name(index); ok {
		if req, err := unix.NewIfreq(name); err == nil {
			if unix.IoctlIfreq(max(r.fds[0], r.fds[1]), unix.SIOCGIFMTU, req) == nil {
				m.bytes = int(req.Uint32())
			}
		}
	}
	return m.bytes
}

// Add adds a packet that Takes has agreed to, with a mark, by interface out (0: by any
// that leads there). local says that it is this host's own: then its source address
// chooses among routes too. The packet's memory is in use until Flush.
func (r *Raw) Add(data []byte, mark, out uint32, local bool) (failed int, err error) {
	i := 0
	if version(data) == 6 {
		i = 1
	}
	b := &r.b[i]
	if b.n == rawSlots {
		failed, err = r.flush(i)
	}
	k := b.n
	b.n++
	b.iovs[k].Base = &data[0]
	b.iovs[k].SetLen(len(data))
	h := &b.hdrs[k].hdr
	c := appendControl(b.control[k][:0], unix.SOL_SOCKET, unix.SO_MARK, 4)
	binary.NativeEndian.PutUint32(c[unix.CmsgLen(0):], mark)
	at := len(c)
	if i == 0 {
		b.to4[k] = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte(data[16:20])}
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.to4[k])), unix.SizeofSockaddrInet4
		if out != 0 { // struct in_pktinfo
			c = appendControl(c, unix.SOL_IP, unix.IP_PKTINFO, 12)
			info := c[at+unix.CmsgLen(0):]
			binary.NativeEndian.PutUint32(info, out)
			if local {
				copy(info[4:8], data[12:16])
			}
		}
	} else {
		b.to6[k] = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: [16]byte(data[24:40])}
		if data[24] == 0xfe && data[25]&0xc0 == 0x80 {
			b.to6[k].Scope_id = out
		}
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.to6[k])), unix.SizeofSockaddrInet6
		if out != 0 { // struct in6_pktinfo
			c = appendControl(c, unix.SOL_IPV6, unix.IPV6_PKTINFO, 20)
			info := c[at+unix.CmsgLen(0):]
			if local {
				copy(info[:16], data[8:24])
			}
			binary.NativeEndian.PutUint32(info[16:], out)
		}
	}
	h.Control = &b.control[k][0]
	h.SetControllen(len(c))
	return failed, err
}

// appendControl appends a control message with n bytes of zeros.
func appendControl(b []byte, level, typ int32, n int) []byte {
	at := len(b)
	b = b[:at+unix.CmsgSpace(n)]
	clear(b[at:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(n))
	return b
}

// Flush sends what was added. Packets that the kernel did not take are failed; err says
// why of the last of them.
func (r *Raw) Flush() (failed int, err error) {
	for i := range r.b {
		n, e := r.flush(i)
		failed += n
		if e != nil {
			err = e
		}
	}
	return failed, err
}

// sendWait is how long a full send buffer may stop the rest.
const sendWait = 10 * time.Millisecond

func (r *Raw) flush(i int) (failed int, err error) {
	b := &r.b[i]
	var full time.Time
	for at := 0; at < b.n; {
		n, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(r.fds[i]), uintptr(unsafe.Pointer(&b.hdrs[at])),
			uintptr(b.n-at), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case e == 0:
			at += int(n)
			continue
		case e == unix.EINTR:
			continue
		case e == unix.EAGAIN && full.IsZero():
			full = time.Now()
			continue
		case e == unix.EAGAIN && time.Since(full) < sendWait:
			time.Sleep(sendWait / 100)
			continue
		case e == unix.EPERM: // a chain behind dropped it, as it would have the packet
		default:
			failed++
			err = os.NewSyscallError("sendmmsg", e)
		}
		at++
	}
	b.n = 0
	return failed, err
}
