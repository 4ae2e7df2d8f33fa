package nl

import (
	"os"
	"slices"
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
// that cannot be seen, which may take the privileges of root. Where it is another
// process, all are looked through, which is dear: when search is not nil, only if
// that says so.
func FindOwner(port uint32, search func() bool) Owner {
	o := Owner{Port: port}
	sockets, err := Sockets()
	at := slices.IndexFunc(sockets, func(s Socket) bool { return s.Port == port })
	if err != nil || at < 0 {
		return o
	}
	want := "socket:[" + strconv.FormatUint(sockets[at].Inode, 10) + "]"
	if first := strconv.FormatUint(uint64(port), 10); holds(first, want) {
		o.PID, o.Comm = int(port), comm(first)
		return o
	}
	if search != nil && !search() {
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

// A Socket is a netlink socket to netfilter, as /proc/net/netlink has it.
type Socket struct {
	Port   uint32
	Groups uint32 // the first 32 multicast groups, as bind(2) takes them
	Inode  uint64
}

// Sockets returns the netfilter sockets of the calling thread's network namespace.
func Sockets() ([]Socket, error) {
	b, err := os.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		return nil, err
	}
	var out []Socket
	for line := range strings.Lines(string(b)) {
		// sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
		w := strings.Fields(line)
		if len(w) < 10 || w[1] != strconv.Itoa(unix.NETLINK_NETFILTER) {
			continue
		}
		port, err1 := strconv.ParseUint(w[2], 10, 32)
		groups, err2 := strconv.ParseUint(w[3], 16, 32)
		inode, err3 := strconv.ParseUint(w[9], 10, 64)
		if err1 == nil && err2 == nil && err3 == nil {
			out = append(out, Socket{uint32(port), uint32(groups), inode})
		}
	}
	return out, nil
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
