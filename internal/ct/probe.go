package ct

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"nfctl/internal/nl"
)

// ErrNotHonoured says that this kernel does not honour a filter with which a
// request would delete entries: it ignores it and would delete all.
var ErrNotHonoured = errors.New("this kernel ignores the filter and would delete everything")

// probed remembers the outcome of probes: the kernel does not change.
var probed struct {
	sync.Mutex
	ok map[flushFilter]bool
}

// flushFilter says by what a flush is to choose.
type flushFilter struct{ family, mark, status, zone bool }

// CanFlush reports whether this kernel, asked to delete the entries of a family,
// or those that a filter's mark, status and zone match, deletes just those. It
// tries in a network namespace of its own, which needs CAP_SYS_ADMIN; without,
// the error is *nl.OpError and nothing is known. Linux 6.1, for one, ignores the
// zone and deletes everything.
func CanFlush(family bool, k KernelFilter) (bool, error) {
	what := flushFilter{family, k.MarkMask != 0, k.StatusMask != 0, k.Zone != 0}
	probed.Lock()
	defer probed.Unlock()
	if ok, known := probed.ok[what]; known {
		return ok, nil
	}
	ok := false
	err := nl.InFreshNamespace(func() (err error) {
		ok, err = tryFlush(what, appendFlush)
		return err
	})
	if err != nil {
		return false, err
	}
	if probed.ok == nil {
		probed.ok = map[flushFilter]bool{}
	}
	probed.ok[what] = ok
	return ok, nil
}

// tryFlush fills the namespace's table with one entry that the filter is to
// match and others that each differ from it in one thing, flushes, and looks
// what is left.
func tryFlush(what flushFilter, request func(b []byte, family uint8, k KernelFilter) []byte) (bool, error) {
	c, err := Dial()
	if err != nil {
		return false, err
	}
	defer c.Close()
	match := probeFlow(IPv4, 1)
	others := []*Flow{probeFlow(IPv6, 2), probeFlow(IPv4, 3), probeFlow(IPv4, 4), probeFlow(IPv4, 5)}
	others[1].Mark, others[2].Status, others[3].Zone = 2, StatusConfirmed|StatusSeenReply, 8
	left := map[uint16]bool{2: what.family, 3: what.mark, 4: what.status, 5: what.zone}
	for _, f := range append(others, match) {
		if err := c.Create(f, false); err != nil {
			return false, fmt.Errorf("probe: %w", err)
		}
	}
	var k KernelFilter
	family := uint8(0)
	if what.family {
		family = IPv4
	}
	if what.mark {
		k.Mark, k.MarkMask = match.Mark, 1<<32-1
	}
	if what.status {
		k.Status, k.StatusMask = StatusAssured, StatusAssured
	}
	if what.zone {
		k.Zone = match.Zone
	}
	if err := c.c.Do(request(nil, family, k)); err != nil {
		return false, nil // refused: not honoured, and no harm
	}
	ok := true
	seen := 0
	_, err = Dump(context.Background(), DumpOptions{}, func(f *Flow) error {
		if seen++; !left[f.Orig.Sport] {
			ok = false // it deleted too little: of no use
		}
		return nil
	})
	want := 0
	for _, l := range left {
		if l {
			want++
		}
	}
	return ok && seen == want, err
}

// probeFlow is an entry that every filter of a probe matches.
func probeFlow(family uint8, port uint16) *Flow {
	f := &Flow{Present: HasTimeout | HasMark | HasStatus | HasZone, Timeout: 600, Mark: 1,
		Status: StatusConfirmed | StatusSeenReply | StatusAssured, Zone: 7}
	f.Orig = Tuple{Family: family, Proto: UDP, Sport: port, Dport: 53,
		Present: TupleFamily | TupleProto | TupleSport | TupleDport}
	f.Orig.Src, f.Orig.Dst = netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.AddrFrom4([4]byte{192, 0, 2, 2})
	if family == IPv6 {
		f.Orig.Src, f.Orig.Dst = netip.AddrFrom16([16]byte{0xfd, 15: 1}), netip.AddrFrom16([16]byte{0xfd, 15: 2})
	}
	f.Reply = f.Orig.Reverse()
	return f
}
