package nstest

import (
	"bytes"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// A Forger is a netlink socket to netfilter from which a test sends to other
// sockets what only the kernel ought to.
type Forger struct {
	fd   int
	port uint32
}

// NewForger opens a forger in the calling thread's namespace.
func NewForger() (*Forger, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err == nil {
		var a unix.Sockaddr
		if a, err = unix.Getsockname(fd); err == nil {
			return &Forger{fd, a.(*unix.SockaddrNetlink).Pid}, nil
		}
	}
	_ = unix.Close(fd)
	return nil, os.NewSyscallError("bind", err)
}

// Forger opens a forger in the calling thread's namespace, closed with the test.
func (n *NS) Forger() *Forger {
	n.t.Helper()
	f, err := NewForger()
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(f.Close)
	return f
}

// Close closes the socket.
func (f *Forger) Close() { _ = unix.Close(f.fd) }

// Send sends b to the socket with a port id; ECONNREFUSED says that it takes
// nothing from others.
func (f *Forger) Send(port uint32, b []byte) error {
	return unix.Sendto(f.fd, b, unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port})
}

// Multicast sends b to all sockets that have joined a group (NFNLGRP_…). The kernel
// gets it too: b should not be a request.
func (f *Forger) Multicast(group uint, b []byte) error {
	err := unix.Sendto(f.fd, b, unix.MSG_DONTWAIT,
		&unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (group - 1)})
	if err == unix.ECONNREFUSED { // of the unicast that follows
		return nil
	}
	return err
}

// Ports returns the port ids of the other netfilter sockets in the calling thread's
// namespace.
func (f *Forger) Ports() []uint32 {
	b, err := os.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		return nil
	}
	var ports []uint32
	for line := range bytes.Lines(b) { // sk Eth Pid Groups …
		w := bytes.Fields(line)
		if len(w) < 4 || string(w[1]) != strconv.Itoa(unix.NETLINK_NETFILTER) {
			continue
		}
		if n, err := strconv.ParseUint(string(w[2]), 10, 32); err == nil && n != 0 && uint32(n) != f.port {
			ports = append(ports, uint32(n))
		}
	}
	return ports
}

// MustMulticast is Multicast, of which a failure fails the test.
func (f *Forger) MustMulticast(t testing.TB, group uint, b []byte) {
	t.Helper()
	if err := f.Multicast(group, b); err != nil {
		t.Fatalf("multicast: %v", err)
	}
}
