package ct

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A netlinkSocket is a line of /proc/net/netlink: a socket to netfilter.
type netlinkSocket struct {
	port   uint32
	groups uint32
	inode  uint64
}

// netlinkSockets returns the netfilter sockets of the calling thread's network
// namespace.
func netlinkSockets() ([]netlinkSocket, error) {
	b, err := os.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		return nil, err
	}
	var out []netlinkSocket
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
			out = append(out, netlinkSocket{uint32(port), uint32(groups), inode})
		}
	}
	return out, nil
}

// owners finds the processes behind netlink ports, and remembers them.
type owners struct {
	known   map[uint32]owner
	scanned uint64 // when all processes were last looked through, ns since the epoch
}

type owner struct {
	pid  uint32
	comm []byte
	at   uint64 // when it was found out, ns since the epoch
}

// ownerFor is how long an answer is taken for true. A port can pass on to
// another process, and a process can change its name.
const ownerFor = uint64(time.Second)

// find sets by's process when that process holds a netfilter socket with the
// port. Ports are most often the process's own number, but anyone can choose. now
// is in ns since the epoch.
func (o *owners) find(by *By, now uint64) {
	k, ok := o.known[by.PortID]
	if !ok || now-k.at > ownerFor { // also when the clock was set back
		k = o.look(by.PortID, now)
		k.at = now
		if o.known == nil || len(o.known) > 1000 {
			o.known = map[uint32]owner{}
		}
		o.known[by.PortID] = k
	}
	by.Pid, by.Comm = k.pid, k.comm
}

func (o *owners) look(port uint32, now uint64) owner {
	socks, err := netlinkSockets()
	if err != nil {
		return owner{}
	}
	for _, s := range socks {
		if s.port != port {
			continue
		}
		link := fmt.Sprintf("socket:[%d]", s.inode)
		if holds(int(port), link) {
			return named(int(port))
		}
		if now-o.scanned < ownerFor { // looking through all processes is dear
			return owner{}
		}
		o.scanned = now
		procs, _ := os.ReadDir("/proc")
		for _, p := range procs {
			if pid, err := strconv.Atoi(p.Name()); err == nil && holds(pid, link) {
				return named(pid)
			}
		}
	}
	return owner{}
}

// holds reports whether a process has an open descriptor that is link.
func holds(pid int, link string) bool {
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if to, err := os.Readlink(dir + fd.Name()); err == nil && to == link {
			return true
		}
	}
	return false
}

func named(pid int) owner {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return owner{}
	}
	return owner{pid: uint32(pid), comm: []byte(strings.TrimSuffix(string(comm), "\n"))}
}
