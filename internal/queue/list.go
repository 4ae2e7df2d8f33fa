package queue

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"nfctl/internal/field"
	"nfctl/internal/held"
	"nfctl/internal/nl"
	"nfctl/internal/value"
)

// procQueues is the kernel's list of bound queues. It is only for root, or for
// CAP_DAC_READ_SEARCH, and shows the namespace of the thread that opened it.
const procQueues = "/proc/thread-self/net/netfilter/nfnetlink_queue"

// An Info is what the kernel says of one queue.
type Info struct {
	Num          uint16
	Owner        nl.Owner
	Depth        uint32 // packets without a verdict
	CopyMode     uint8  // 0 none, 1 meta, 2 packet
	CopyRange    uint32 // bytes of each packet, in mode packet
	QueueDropped uint32 // packets that found the queue full
	UserDropped  uint32 // packets that found the socket's receive buffer full
	Waiting      bool   // it is where packets of another queue wait until they are due
	LastID       uint32 // of the newest packet; counts what was queued since the binding

	// Rates a second since the list before; with HasRates.
	HasRates                       bool
	Packets, QueueDrops, UserDrops uint64
}

// List returns all queues that something has bound, in the calling thread's
// network namespace. The error is of package fs when the list may not be read.
func List() ([]Info, error) {
	b, err := os.ReadFile(procQueues)
	if errors.Is(err, fs.ErrNotExist) {
		if _, e := os.Stat("/proc/thread-self/net"); e == nil {
			return nil, nil // no queue was ever bound: the module is not loaded
		}
	}
	if err != nil {
		return nil, nl.Error("list", "queues", cause(err))
	}
	var list []Info
	for line := range bytes.Lines(b) {
		if i, ok := parseInfo(line); ok {
			i.Owner = nl.FindOwner(i.Owner.Port, nil)
			list = append(list, i)
		}
	}
	markWaiting(list)
	return list, nil
}

// markWaiting finds queues in which packets of others wait: an owner's second one, of
// whose packets no more is copied than tells them apart, with a number from the top.
func markWaiting(list []Info) {
	for k := range list {
		i := &list[k]
		i.Waiting = i.Owner.PID != 0 && i.CopyMode == CopyPacket && i.CopyRange == held.PrintBytes &&
			i.Num > 0xffff-secondNumbers && slices.ContainsFunc(list, func(o Info) bool {
			return o.Owner.PID == i.Owner.PID && o.Owner.Port != i.Owner.Port && o.CopyRange > i.CopyRange
		})
	}
}

// cause strips the path that os puts before the kernel's error.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// parseInfo reads a line of seq_show in net/netfilter/nfnetlink_queue.c.
func parseInfo(line []byte) (i Info, ok bool) {
	var n [8]uint32
	f := line
	for k := range n {
		f = bytes.TrimLeft(f, " ")
		end := 0
		for end < len(f) && f[end] >= '0' && f[end] <= '9' {
			n[k] = n[k]*10 + uint32(f[end]-'0')
			end++
		}
		if end == 0 {
			return i, false
		}
		f = f[end:]
	}
	return Info{Num: uint16(n[0]), Owner: nl.Owner{Port: n[1]}, Depth: n[2], CopyMode: uint8(n[3]),
		CopyRange: n[4], QueueDropped: n[5], UserDropped: n[6], LastID: n[7]}, true
}

// readInfo finds queue num in the kernel's list, read from an open file. It
// allocates nothing when buf is large enough.
func readInfo(f *os.File, buf []byte, num uint16) (Info, []byte, bool) {
	if f == nil {
		return Info{}, buf, false
	}
	if buf == nil {
		buf = make([]byte, 4096)
	}
	n := 0
	for {
		k, err := f.ReadAt(buf[n:], int64(n))
		n += k
		if n < len(buf) || err != nil && k == 0 {
			break
		}
		buf = append(buf, make([]byte, len(buf))...)
	}
	for rest := buf[:n]; len(rest) > 0; {
		line, after, _ := bytes.Cut(rest, []byte("\n"))
		if i, ok := parseInfo(line); ok && i.Num == num {
			return i, buf, true
		}
		rest = after
	}
	return Info{}, buf, false
}

// Rate sets the rates of list from what before held so many seconds earlier.
func Rate(list, before []Info, seconds float64) {
	if seconds <= 0 {
		return
	}
	for k := range list {
		i := &list[k]
		for j := range before {
			o := &before[j]
			if o.Num != i.Num || o.Owner.Port != i.Owner.Port {
				continue
			}
			per := func(now, then uint32) uint64 { return uint64(float64(now-then)/seconds + 0.5) }
			i.HasRates = true
			i.Packets = per(i.LastID, o.LastID)
			i.QueueDrops = per(i.QueueDropped, o.QueueDropped)
			i.UserDrops = per(i.UserDropped, o.UserDropped)
		}
	}
}

// CopyModes are the words for Info.CopyMode.
var CopyModes = value.NewWords("copy mode", 2, "none", "meta", "packet")

// InfoFields are the fields of a queue in the kernel's list.
var InfoFields = &field.Registry[Info]{Make: infoFields}

func infoFields() []field.Row[Info] {
	return []field.Row[Info]{
		{Path: "queue", Kind: field.Uint, Max: 0xffff, Doc: "number of the queue", Num: func(i *Info) (uint64, bool) { return uint64(i.Num), true }},
		{Path: "depth", Kind: field.Uint, Max: 1<<32 - 1, Doc: "packets without a verdict", Num: func(i *Info) (uint64, bool) { return uint64(i.Depth), true }},
		{Path: "held", Kind: field.Uint, Max: 1<<32 - 1, Doc: "packets of another queue of the same program that wait here until they are due; absent for other queues",
			Num: func(i *Info) (uint64, bool) { return uint64(i.Depth), i.Waiting }},
		{Path: "queue_dropped", Kind: field.Uint, Max: 1<<32 - 1, Doc: "packets dropped because the queue was full", Num: func(i *Info) (uint64, bool) { return uint64(i.QueueDropped), true }},
		{Path: "user_dropped", Kind: field.Uint, Max: 1<<32 - 1, Doc: "packets dropped because the owner's socket was full", Num: func(i *Info) (uint64, bool) { return uint64(i.UserDropped), true }},
		{Path: "copy_mode", Kind: field.Enum, Names: CopyModes, Doc: "what is copied of a packet: none, meta (its attributes) or packet", Num: func(i *Info) (uint64, bool) { return uint64(i.CopyMode), true }},
		{Path: "copy_range", Kind: field.Uint, Max: 1<<32 - 1, Doc: "bytes copied of each packet", Num: func(i *Info) (uint64, bool) { return uint64(i.CopyRange), i.CopyMode == 2 }},
		{Path: "last_id", Kind: field.Uint, Max: 1<<32 - 1, Doc: "id of the newest packet; how many were queued since the binding", Num: func(i *Info) (uint64, bool) { return uint64(i.LastID), true }},
		{Path: "owner.portid", Kind: field.Uint, Max: 1<<32 - 1, Doc: "port id of the netlink socket that bound the queue", Num: func(i *Info) (uint64, bool) { return uint64(i.Owner.Port), true }},
		{Path: "owner.pid", Kind: field.Uint, Max: 1<<32 - 1, Doc: "process that holds that socket", Num: func(i *Info) (uint64, bool) { return uint64(i.Owner.PID), true }, Null: func(i *Info) bool { return i.Owner.PID == 0 }},
		{Path: "owner.comm", Kind: field.String, Doc: "that process's name", Data: func(i *Info) ([]byte, bool) { return []byte(i.Owner.Comm), true }, Null: func(i *Info) bool { return i.Owner.PID == 0 }},
		{Path: "rate.packets", Kind: field.Uint, Doc: "packets queued a second since the list before", Num: func(i *Info) (uint64, bool) { return i.Packets, i.HasRates }},
		{Path: "rate.queue_dropped", Kind: field.Uint, Doc: "growth of queue_dropped a second", Num: func(i *Info) (uint64, bool) { return i.QueueDrops, i.HasRates }},
		{Path: "rate.user_dropped", Kind: field.Uint, Doc: "growth of user_dropped a second", Num: func(i *Info) (uint64, bool) { return i.UserDrops, i.HasRates }},
	}
}

// A BusyError says that another socket has bound the queue.
type BusyError struct {
	Num   uint16
	Owner nl.Owner // zero when the kernel does not show it
}

// ErrBusy is what errors.Is finds in a *BusyError.
var ErrBusy = errors.New("queue is held by another socket")

func (e *BusyError) Error() string {
	s := "queue " + strconv.Itoa(int(e.Num)) + ": bind: held by "
	if e.Owner.Port == 0 {
		return s + "another program (which one is shown to root and CAP_DAC_READ_SEARCH)"
	}
	if e.Owner.PID == 0 {
		return s + "the socket with port id " + strconv.FormatUint(uint64(e.Owner.Port), 10) + " (process unknown)"
	}
	return s + "process " + strconv.Itoa(e.Owner.PID) + " (" + e.Owner.Comm + ", port id " +
		strconv.FormatUint(uint64(e.Owner.Port), 10) + ")"
}

// Is makes errors.Is(err, ErrBusy) hold.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }
