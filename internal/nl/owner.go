package nl

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An Owner is the process that holds a netlink socket.
type Owner struct {
	Port uint32
	PID  int    // 0: not known
	Comm string // the process's name; "" with PID 0
}

// FindOwner returns who holds the netfilter socket with a port id in the calling
// thread's network namespace. A port id is the process's id only by custom, so
// the process is named only when it has that very socket open; its PID is 0 when
// that cannot be seen, which may take the privileges of root.
func FindOwner(port uint32) Owner {
	o := Owner{Port: port}
	inode := socketInode(port)
	if inode == "" {
		return o
	}
	want := "socket:[" + inode + "]"
	if first := strconv.FormatUint(uint64(port), 10); holds(first, want) {
		o.PID, o.Comm = int(port), comm(first)
		return o
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return o
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, pid := range names {
		if n, err := strconv.Atoi(pid); err == nil && holds(pid, want) {
			o.PID, o.Comm = n, comm(pid)
			return o
		}
	}
	return o
}

// socketInode finds the socket's inode in /proc/net/netlink, whose columns are
// sk, Eth (the protocol), Pid (the port id), …, Inode.
func socketInode(port uint32) string {
	b, err := os.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		return ""
	}
	proto, id := strconv.Itoa(unix.NETLINK_NETFILTER), strconv.FormatUint(uint64(port), 10)
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) >= 10 && f[1] == proto && f[2] == id {
			return f[9]
		}
	}
	return ""
}

func holds(pid, want string) bool {
	dir, err := os.Open("/proc/" + pid + "/fd")
	if err != nil {
		return false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, n := range names {
		if l, err := os.Readlink("/proc/" + pid + "/fd/" + n); err == nil && l == want {
			return true
		}
	}
	return false
}

func comm(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}
