package ct

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// TestOwner: a process is named only when it holds the socket with that port,
// whatever the port's number.
func TestOwner(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	other := ns.Start("sleep", "1000")
	open := func(port int) uint32 {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: uint32(port)}); err != nil {
			t.Fatal(err)
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			t.Fatal(err)
		}
		return sa.(*unix.SockaddrNetlink).Pid
	}
	now := uint64(time.Now().UnixNano())
	for name, port := range map[string]uint32{"own": open(os.Getpid()), "chosen by the kernel": open(0),
		"another process's number": open(other.Cmd.Process.Pid)} {
		var o owners
		by := By{PortID: port}
		o.find(&by, now)
		if int(by.Pid) != os.Getpid() || len(by.Comm) == 0 {
			t.Errorf("%s: port %d is held by %d, %q; want %d", name, port, by.Pid, by.Comm, os.Getpid())
		}
	}
	var o owners
	by := By{PortID: 7}
	o.find(&by, now)
	if by.Pid != 0 || by.Comm != nil {
		t.Errorf("a port that nobody has is held by %d", by.Pid)
	}
	// Remembered, and looked up anew after a while.
	late := open(0)
	o.known[late] = owner{pid: 1, comm: []byte("x"), at: now - ownerFor/2}
	if by = (By{PortID: late}); true {
		o.find(&by, now)
	}
	if by.Pid != 1 {
		t.Error("not remembered")
	}
	o.known[late] = owner{pid: 1, at: now - ownerFor - 1}
	o.scanned = 0
	if o.find(&by, now); int(by.Pid) != os.Getpid() {
		t.Error("remembered for too long")
	}
}
