package ct

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
)

// Features is what this kernel's connection tracking can do, as far as trying
// tells.
type Features struct {
	Mark, Zone, Labels, NAT, Events bool
	// Parts of a dump's filter that the kernel honours.
	FilterTuple, FilterMark, FilterStatus, FilterZone bool
	// Helpers are those of the known ones that are there.
	Helpers []string
}

// helpers of connection tracking, and the protocol that each is for.
var helpers = []struct {
	name  string
	proto uint8
}{
	{"ftp", TCP}, {"irc", TCP}, {"sip", TCP}, {"pptp", TCP}, {"sane", TCP}, {"Q.931", TCP},
	{"tftp", UDP}, {"amanda", UDP}, {"snmp", UDP}, {"netbios-ns", UDP}, {"RAS", UDP},
}

// ProbeFeatures tries them. It makes and deletes entries, so it is to be called
// in a network namespace made for it (nl.InFreshNamespace).
func ProbeFeatures() (Features, error) {
	var out Features
	c, err := Dial()
	if err != nil {
		return out, err
	}
	defer c.Close()

	plain := probeFlow(IPv4, 1)
	plain.Present &^= HasMark | HasZone
	if out.Events, err = probeEvents(c, plain); err != nil {
		return out, err
	}
	var got Flow
	try := func(change func(f *Flow)) error {
		f := probeFlow(IPv4, 2)
		f.Present &^= HasMark | HasZone
		change(f)
		err := c.Create(f, false)
		if err == nil {
			err = c.Get(f, &got, false)
			_ = c.Delete(f)
		}
		return err
	}
	// What a kernel does not have it refuses, or passes over without a word.
	err = try(func(f *Flow) { f.Present |= HasMark })
	out.Mark = err == nil && got.Mark == 1
	err = try(func(f *Flow) { f.Present |= HasZone })
	out.Zone = err == nil && got.Zone == 7
	err = try(func(f *Flow) { f.SNAT.Addr = f.Orig.Src.Next() })
	out.NAT = err == nil
	for _, h := range helpers {
		err := try(func(f *Flow) {
			f.Orig.Proto = h.proto
			f.Reply.Proto = h.proto
			f.Helper, f.Present = []byte(h.name), f.Present|HasHelper
		})
		if err == nil && string(got.Helper) == h.name {
			out.Helpers = append(out.Helpers, h.name)
		}
	}
	labels := Flow{Present: HasLabels, Labels: [16]byte{1}}
	err = c.Update(plain, &labels)
	// Without a rule that uses labels they cannot be set; the kernel then knows
	// them all the same.
	out.Labels = err == nil || errors.Is(err, unix.ENOSPC)
	err = probeFilters(c, &out)
	return out, err
}

// probeEvents makes f and reports whether that was an event.
func probeEvents(c *Conn, f *Flow) (bool, error) {
	w, err := OpenWatch(WatchOptions{Flows: EventNew, Buffer: 1 << 16})
	if err != nil {
		return false, err
	}
	defer w.Close()
	if err := c.Create(f, false); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	seen := false
	err = w.Run(ctx, Handler{Flow: func(*Flow) error { seen = true; return nl.ErrStop }})
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return seen, err
}

// probeFilters makes an entry that differs in one thing for each part of a
// filter, and looks whether the kernel leaves it out.
func probeFilters(c *Conn, out *Features) error {
	others := map[uint16]func(f *Flow){
		11: func(f *Flow) {},
		12: func(f *Flow) { f.Mark = 2 },
		13: func(f *Flow) { f.Status = StatusConfirmed | StatusSeenReply },
		14: func(f *Flow) { f.Zone = 8 },
	}
	for port, change := range others {
		f := probeFlow(IPv4, port)
		change(f)
		if err := c.Create(f, false); err != nil {
			return err
		}
	}
	var err error
	left := func(port uint16, k KernelFilter) (ok bool) {
		ok = true
		matched := false
		_, e := Dump(context.Background(), DumpOptions{Families: []uint8{IPv4}, Filter: k}, func(f *Flow) error {
			switch f.Orig.Sport {
			case port:
				ok = false
			case 11:
				matched = true
			}
			return nil
		})
		err = errors.Join(err, e)
		return ok && (matched || port == 1)
	}
	tuple := probeFlow(IPv4, 11).Orig
	out.FilterTuple = left(12, KernelFilter{Orig: Tuple{Proto: UDP, Sport: tuple.Sport,
		Present: TupleProto | TupleSport}})
	out.FilterMark = out.Mark && left(12, KernelFilter{Mark: 1, MarkMask: 1<<32 - 1})
	out.FilterStatus = left(13, KernelFilter{Status: StatusAssured, StatusMask: StatusAssured})
	out.FilterZone = out.Zone && left(14, KernelFilter{Zone: 7})
	return err
}

// KnownHelpers returns the names of helpers that kernels may have.
func KnownHelpers() (names []string) {
	for _, h := range helpers {
		names = append(names, h.name)
	}
	return names
}
