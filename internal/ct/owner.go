package ct

import (
	"time"

	"nfctl/internal/nl"
)

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
	found := nl.FindOwner(port, func() bool {
		if now-o.scanned < ownerFor {
			return false
		}
		o.scanned = now
		return true
	})
	if found.PID == 0 || found.Comm == "" {
		return owner{}
	}
	return owner{pid: uint32(found.PID), comm: []byte(found.Comm)}
}
