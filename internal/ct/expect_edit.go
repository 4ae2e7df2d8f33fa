package ct

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"nfctl/internal/nl"
)

// appendExpectDump appends the request to list expectations: of a family or, with
// master, of one connection.
func appendExpectDump(b []byte, family uint8, master *Flow) []byte {
	at, flags := len(b), uint16(nl.FlagDump)
	if master != nil {
		family = master.Orig.family()
		flags |= nl.FlagAck // else the kernel says nothing at all of a master without helper
	}
	b = nl.AppendHeader(b, nl.Type(nl.SubsysExpect, msgGet), flags, family, 0)
	if master != nil {
		b = master.Orig.appendWhole(b, ctaExpMaster, 0)
		if master.Has(HasZone) {
			b = nl.AppendU16(b, ctaExpZone, master.Zone)
		}
	}
	return nl.Finish(b, at)
}

// Expects hands every expectation of a family (0: all) to f; with master only
// those of that connection. The expectation is reused and valid during the call.
// f may make no request on c; its error (nl.ErrStop: none) ends the list, and c
// is to be closed then.
func (c *Conn) Expects(ctx context.Context, family uint8, master *Flow, f func(*Expect) error) (DumpResult, error) {
	var e Expect
	var res DumpResult
	c.req = appendExpectDump(c.req[:0], family, master)
	var err error
	seen := map[uint32]bool{} // expectations are few: the kernel's limit is some thousand
	res.Incomplete, err = c.c.Dump(c.req, func(m *nl.Msg) error {
		_ = e.Decode(m) // what cannot be read is not there
		if e.Has(ExpectHasID) && seen[e.ID] {
			res.Duplicates++
			return nil
		}
		seen[e.ID] = true
		e.Time = uint64(time.Now().UnixNano())
		res.Flows++
		if err := f(&e); err != nil {
			return err
		}
		return ctx.Err()
	})
	return res, nl.Error("list", "expectations", err)
}

// identified reports whether e says what is expected. The source may be any, which the
// kernel takes as zero.
func (e *Expect) identified() bool { return e.Tuple.Dst.IsValid() && e.Tuple.Has(TupleProto) }

func expectName(e *Expect) string { return string(AppendTuple([]byte("expectation "), &e.Tuple)) }

// appendNew appends the request to make or change e.
func (e *Expect) appendNew(b []byte, flags uint16) []byte {
	at, family := len(b), e.Tuple.family()
	b = nl.AppendHeader(b, nl.Type(nl.SubsysExpect, msgNew), flags, family, 0)
	sent := *e
	sent.Present &^= ExpectHasID
	sent.Unknown = nil
	for _, t := range []*Tuple{&sent.Master, &sent.Tuple, &sent.Mask, &sent.NATTuple} {
		if !t.IsZero() {
			*t = t.whole(family)
		}
	}
	if m := &sent.Mask; m.Has(TupleType) && !sent.Tuple.IsZero() {
		// Of ICMP a mask is about the id alone, but the kernel reads it as any tuple,
		// with a type that has an answer; it lists 255.
		m.Type, m.Code = sent.Tuple.Type, sent.Tuple.Code
	}
	return nl.Finish(sent.AppendAttrs(b), at)
}

// appendKey appends what the kernel finds e by: the tuple, the zone, and the id,
// which must match, when e has one.
func (e *Expect) appendKey(b []byte) []byte {
	b = e.Tuple.appendWhole(b, ctaExpTuple, 0)
	if e.Has(ExpectHasZone) {
		b = nl.AppendU16(b, ctaExpZone, e.Zone)
	}
	if e.Has(ExpectHasID) {
		b = nl.AppendU32(b, ctaExpID, e.ID)
	}
	return b
}

var errExpectNotNamed = errors.New("the expectation needs a protocol and a destination")

// GetExpect reads the expectation that e's tuple (and zone and id, where known)
// matches into got. One that is not there is unix.ENOENT.
func (c *Conn) GetExpect(e, got *Expect) error {
	if !e.identified() {
		return nl.Error("get", expectName(e), errExpectNotNamed)
	}
	c.req = nl.AppendHeader(c.req[:0], nl.Type(nl.SubsysExpect, msgGet), 0, e.Tuple.family(), 0)
	c.req = nl.Finish(e.appendKey(c.req), 0)
	found := false
	err := c.c.Get(c.req, func(m *nl.Msg) error {
		err := got.Decode(m)
		*got = *got.Clone()
		found = true
		return err
	})
	if err == nil && !found {
		err = nl.ErrNoAnswer
	}
	return c.expectRefusal("get", e, err)
}

// DeleteExpect deletes the expectation with e's tuple, zone and, when e has one,
// id: another with the same tuple is left alone (unix.ENOENT).
func (c *Conn) DeleteExpect(e *Expect) error {
	if !e.identified() {
		return nl.Error("delete", expectName(e), errExpectNotNamed)
	}
	err := c.deleteExpect(e)
	// Linux 5.10 looks for another id than the one that it gives out, so that none is
	// found; asked for the expectation, it does know the id.
	var now Expect
	if errors.Is(err, syscall.ENOENT) && e.Has(ExpectHasID) && c.GetExpect(e, &now) == nil && now.ID == e.ID {
		plain := *e
		plain.Present &^= ExpectHasID
		err = c.deleteExpect(&plain)
	}
	return c.expectRefusal("delete", e, err)
}

func (c *Conn) deleteExpect(e *Expect) error {
	c.req = nl.AppendHeader(c.req[:0], nl.Type(nl.SubsysExpect, msgDelete), 0, e.Tuple.family(), 0)
	c.req = nl.Finish(e.appendKey(c.req), 0)
	return c.c.Do(c.req)
}

// DeleteExpectsOf deletes all expectations of a helper, in all zones.
func (c *Conn) DeleteExpectsOf(helper string) error {
	if helper == "" { // the kernel would delete all
		return nl.Error("delete", "expectations", errors.New("no helper named"))
	}
	c.req = nl.AppendHeader(c.req[:0], nl.Type(nl.SubsysExpect, msgDelete), 0, 0, 0)
	c.req = nl.Finish(appendText(c.req, ctaExpHelpName, []byte(helper)), 0)
	return nl.Error("delete", "expectations of helper "+helper, c.c.Do(c.req))
}

// FlushExpects deletes all expectations.
func (c *Conn) FlushExpects() error {
	c.req = nl.AppendHeader(c.req[:0], nl.Type(nl.SubsysExpect, msgDelete), 0, 0, 0)
	return nl.Error("flush", "expectations", c.c.Do(nl.Finish(c.req, 0)))
}

// UpdateExpect sets the timeout of the expectation e, as it was read, which is
// all that the kernel lets anyone change.
func (c *Conn) UpdateExpect(e *Expect, timeout uint32) error {
	if !e.identified() {
		return nl.Error("update", expectName(e), errExpectNotNamed)
	}
	u := *e
	u.Timeout, u.Present = timeout, u.Present|ExpectHasTimeout
	c.req = u.appendNew(c.req[:0], 0)
	return c.expectRefusal("update", e, c.c.Do(c.req))
}

// ExpectKeepsPorts returns an error when the kernel does not track the protocol of
// what e expects, so that it would forget the port and let in flows to any.
func (c *Conn) ExpectKeepsPorts(e *Expect) error {
	t := e.Tuple.whole(e.Master.family())
	if c.tracks(&t) {
		return nil
	}
	return &Refusal{nl.Error("create", expectName(e), syscall.EOPNOTSUPP),
		"this kernel does not track the protocol, and would expect flows to any port"}
}

// ExpectCreated says how CreateExpect went.
type ExpectCreated struct {
	// Stored is the expectation as the kernel keeps it: it takes the destination
	// whole, clears the userspace flag, names the helper.
	Stored *Expect
	// Updated: it was there already, and its timeout was set (with orUpdate).
	Updated bool
	// Evicted are the expectations of the same master that the kernel removed to
	// make room: a helper's policy limits how many there are, and the oldest goes
	// without a word.
	Evicted []*Expect
}

// CreateExpect makes the expectation e of e.Master, which must be in the table,
// in e's zone, and have a helper. When e has a timeout, a second request sets it:
// the kernel ignores it at first and takes the helper's; when that fails the
// expectation is removed again. Without orUpdate one that is there already is
// refused with unix.EEXIST.
func (c *Conn) CreateExpect(e *Expect, orUpdate bool) (ExpectCreated, error) {
	var res ExpectCreated
	if !e.identified() {
		return res, nl.Error("create", expectName(e), errExpectNotNamed)
	}
	before, err := c.expectsOf(e)
	if err != nil {
		return res, err
	}
	c.req = e.appendNew(c.req[:0], nl.FlagCreate|nl.FlagExcl)
	err = c.c.Do(c.req)
	if errors.Is(err, syscall.EEXIST) && orUpdate {
		res.Updated, err = true, nil
	}
	if err != nil {
		return res, c.expectRefusal("create", e, err)
	}
	if e.Has(ExpectHasTimeout) {
		c.req = e.appendNew(c.req[:0], 0)
		if err := c.c.Do(c.req); err != nil {
			err = c.expectRefusal("set the timeout of", e, err)
			if !res.Updated {
				if undo := c.DeleteExpect(e); undo != nil {
					err = errors.Join(err, undo)
				}
			}
			return res, err
		}
	}
	after, err := c.expectsOf(e)
	if err != nil {
		return res, err
	}
	for id, x := range before {
		if after[id] == nil {
			res.Evicted = append(res.Evicted, x)
		}
	}
	for id, x := range after {
		if sameExpect(x, e) && (before[id] == nil || res.Updated) {
			res.Stored = x.in(e)
		}
	}
	if s := res.Stored; s != nil && e.Has(ExpectHasHelper) && !res.Updated && string(s.Helper) != string(e.Helper) {
		err := nl.Error("create", expectName(e), syscall.EOPNOTSUPP)
		return res, errors.Join(&Refusal{err, whyNotOwn + string(s.Helper)}, c.DeleteExpect(s))
	}
	return res, nil
}

// in gives the expectation x, as it was read, the zone of e, which the kernel does
// not send.
func (x *Expect) in(e *Expect) *Expect {
	y := *x
	y.Zone, y.Present = e.Zone, y.Present|ExpectHasZone
	return &y
}

// FindZones finds out the zones of expectations as they were read: the kernel does
// not send them. One is in the zone in which it is found by tuple and id, 0 or one of
// its masters'. What has gone meanwhile gets none.
func (c *Conn) FindZones(ctx context.Context, list []*Expect) error {
	var got Expect
	in := func(e *Expect, zone uint16) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		key := *e
		key.Zone, key.Present = zone, key.Present|ExpectHasZone
		err := c.GetExpect(&key, &got)
		if err == nil {
			e.Zone, e.Present = zone, e.Present|ExpectHasZone
		}
		if errors.Is(err, syscall.ENOENT) {
			return false, nil
		}
		return err == nil, err
	}
	var elsewhere []*Expect
	for _, e := range list {
		if found, err := in(e, 0); err != nil {
			return err
		} else if !found {
			elsewhere = append(elsewhere, e)
		}
	}
	if len(elsewhere) == 0 {
		return nil
	}
	zones, err := MasterZones(ctx, elsewhere)
	if err != nil {
		return err
	}
	for i, e := range elsewhere {
		for _, zone := range zones[i] {
			if found, err := in(e, zone); err != nil {
				return err
			} else if found {
				break
			}
		}
	}
	return nil
}

// MasterZones returns for each expectation the zones, other than 0, that have a flow
// with the tuple of its master.
func MasterZones(ctx context.Context, list []*Expect) ([][]uint16, error) {
	ends := func(t *Tuple) Tuple { // in no zone
		return Tuple{Src: t.Src, Dst: t.Dst, Proto: t.Proto, Sport: t.Sport, Dport: t.Dport, Type: t.Type, Code: t.Code,
			ID: t.ID}
	}
	zones := make(map[Tuple][]uint16, len(list))
	for _, e := range list {
		zones[ends(&e.Master)] = nil
	}
	_, err := Dump(ctx, DumpOptions{}, func(f *Flow) error {
		key := ends(&f.Orig)
		have, wanted := zones[key]
		// A zone of one direction is the master's for the kernel, too.
		for _, z := range []uint16{f.Zone, f.Orig.Zone, f.Reply.Zone} {
			if wanted && z != 0 && !slices.Contains(have, z) {
				have = append(have, z)
				zones[key] = have
			}
		}
		return nil
	})
	out := make([][]uint16, len(list))
	for i, e := range list {
		out[i] = zones[ends(&e.Master)]
	}
	return out, err
}

// sameExpect reports whether x, as the kernel keeps it, is about what e is. Of a
// protocol that it does not track it keeps no ports.
func sameExpect(x, e *Expect) bool {
	kept, asked := &x.Tuple, e.Tuple.whole(0)
	return kept.Src == asked.Src && kept.Dst == asked.Dst && kept.Proto == asked.Proto &&
		(!kept.Has(TupleSport|TupleDport) || kept.Sport == asked.Sport && kept.Dport == asked.Dport) &&
		(!kept.Has(TupleType|TupleCode|TupleID) ||
			kept.Type == asked.Type && kept.Code == asked.Code && kept.ID == asked.ID)
}

func (e *Expect) masterFlow() *Flow {
	f := &Flow{Orig: e.Master, Zone: e.Zone}
	if e.Has(ExpectHasZone) {
		f.Present |= HasZone
	}
	return f
}

// expectsOf returns the expectations of e's master by id. A master that is not in
// the table has none.
func (c *Conn) expectsOf(e *Expect) (map[uint32]*Expect, error) {
	out := map[uint32]*Expect{}
	m := e.masterFlow()
	if !m.identified() {
		return out, nil
	}
	_, err := c.Expects(context.Background(), 0, m, func(x *Expect) error {
		out[x.ID] = x.Clone()
		return nil
	})
	if errors.Is(err, syscall.ENOENT) {
		return out, nil
	}
	return out, err
}

// expectRefusal says of a kernel's error about e what it means.
func (c *Conn) expectRefusal(op string, e *Expect, err error) error {
	if err == nil {
		return nil
	}
	err = nl.Error(op, expectName(e), err)
	var no syscall.Errno
	if !errors.As(err, &no) {
		return err
	}
	if why := c.expectWhy(op, e, no); why != "" {
		return &Refusal{err, why}
	}
	return err
}

// Reasons of refused expectations.
const (
	whyNoMaster   = "its master is not in the table (of this zone)"
	whyNoHelper   = "its master has no conntrack helper, which it must have from its birth"
	whyNoSuch     = "the kernel has no such helper for the master's family and protocol"
	whyNotOwn     = "the kernel takes no other helper than the master's, "
	whyThere      = "such an expectation is there already"
	whyOverlap    = "another expectation overlaps with it"
	whyNone       = "no such expectation"
	whyPermission = "needs CAP_NET_ADMIN in the user namespace of this network namespace"
)

func (c *Conn) expectWhy(op string, e *Expect, no syscall.Errno) string {
	creating := op != "get" && op != "delete"
	switch {
	case no == syscall.EPERM:
		return whyPermission
	case no == syscall.EEXIST:
		return whyThere
	case no == syscall.EBUSY:
		return whyOverlap
	case no == syscall.ENOENT && creating:
		return whyNoMaster
	case no == syscall.ENOENT:
		return whyNone
	case no == syscall.EOPNOTSUPP && creating:
		var m Flow
		if e.Has(ExpectHasHelper) && c.Get(e.masterFlow(), &m, false) == nil && m.Has(HasHelper) {
			return whyNoSuch
		}
		return whyNoHelper
	case no == syscall.EINVAL && e.Tuple.unanswered():
		return whyUnanswered
	case no == syscall.EINVAL && creating:
		return e.invalid()
	}
	return ""
}

// invalid finds out what of e the kernel calls invalid.
func (e *Expect) invalid() string {
	nat := !e.NATTuple.IsZero()
	switch {
	case e.Master.IsZero() || e.Mask.IsZero():
		return "an expectation needs a master, a tuple and a mask"
	case e.Mask.Src.IsValid() && e.Mask.Src.BitLen() != e.Tuple.Src.BitLen():
		return "the mask is of another address family"
	case e.Has(ExpectHasFlags) && e.Flags&^(Permanent|Inactive|Userspace) != 0:
		return "flags other than permanent, inactive and userspace"
	case nat && !e.Has(ExpectHasNATDir), !nat && e.Has(ExpectHasNATDir):
		return "a translation needs a tuple and a direction"
	case e.Has(ExpectHasFn):
		return "the kernel has no such function (there may be nat-follow-master, sip, callforwarding, Q.931)"
	case e.Has(ExpectHasClass) && e.Class > 0:
		return "the class is beyond the helper's last"
	}
	return ""
}
