package table

import (
	"strconv"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/value"
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

// ParseEvents reads event types, ours and as conntrack(8) spells them.
func ParseEvents(s, words string) (ct.Events, error) {
	var e ct.Events
	for _, w := range strings.Split(s, ",") {
		switch strings.ToLower(strings.TrimSpace(w)) {
		case "new":
			e |= ct.EventNew
		case "update", "updates":
			e |= ct.EventUpdate
		case "destroy":
			e |= ct.EventDestroy
		case "all":
			e |= ct.AllEvents
		default:
			return 0, &value.Error{What: "event type", Text: w, Valid: words,
				Near: value.Nearest(strings.ToLower(w), strings.FieldsFunc(words, func(r rune) bool {
					return r == ',' || r == ' '
				}))}
		}
	}
	return e, nil
}
