package nl

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/unix"
)

// InterfaceName returns the name of a network interface in the socket's
// namespace; false when there is none with that index (SIOCGIFNAME).
func (c *Conn) InterfaceName(index uint32) (string, bool) {
	var r struct { // struct ifreq
		name  [unix.IFNAMSIZ]byte
		index int32
		_     [20]byte
	}
	r.index = int32(index)
	err := c.control(func(fd int) error {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&r)))
		if e != 0 {
			return e
		}
		return nil
	})
	if err != nil {
		return "", false
	}
	name, _, _ := bytes.Cut(r.name[:], []byte{0})
	return string(name), true
}
