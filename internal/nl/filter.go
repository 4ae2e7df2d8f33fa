package nl

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetFilter has the kernel run a classic BPF program on what comes to the socket:
// a message of which it returns 0 never gets into the receive buffer. It needs no
// capability. EINVAL: more than 4096 instructions, or a program that the kernel
// does not take; ENOMEM: larger than net.core.optmem_max allows. The socket is as
// before then.
func (c *Conn) SetFilter(program []unix.SockFilter) error {
	if len(program) == 0 || len(program) > unix.BPF_MAXINSNS {
		return Error("filter", "netlink socket", unix.EINVAL)
	}
	return c.control(func(fd int) error {
		return Error("filter", "netlink socket", attachFilter(fd, program))
	})
}

func attachFilter(fd int, program []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: unsafe.SliceData(program)})
}
