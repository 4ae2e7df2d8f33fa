package table

import (
	"strconv"

	"nfctl/internal/ct"
)

// NotBy returns the test for events that none of these caused. A number is the
// process with that id, "load" every loader (see ct.DialLoader), any other word the
// processes of that name. A process that ended before its event was read has neither
// id nor name; a loader is known by its socket alone.
func NotBy(who []string) func(*ct.By) bool {
	var pids []uint32
	var names []string
	loaders := false
	for _, w := range who {
		if n, err := strconv.ParseUint(w, 10, 32); err == nil {
			pids = append(pids, uint32(n))
		} else if w == "load" {
			loaders = true
		} else {
			names = append(names, w)
		}
	}
	return func(by *ct.By) bool {
		if by.PortID == 0 { // traffic
			return true
		}
		if loaders && by.Loader() {
			return false
		}
		for _, pid := range pids {
			if by.Pid == pid {
				return false
			}
		}
		for _, name := range names {
			if string(by.Comm) == name {
				return false
			}
		}
		return true
	}
}
