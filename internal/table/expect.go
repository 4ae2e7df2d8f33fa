package table

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/pattern"
)

// ExpectPaths are the fields that a flow in words speaks of: those of the tuple
// called "tuple" or "master".
func ExpectPaths(tuple string) pattern.Paths {
	at := func(name string) []string { return []string{tuple + "." + name} }
	return pattern.Paths{Proto: at("proto"), Src: at("src"), Dst: at("dst"), SPort: at("sport"), DPort: at("dport"),
		Type: at("type"), Code: at("code"), ID: at("id"), Zone: []string{"zone"}}
}

// expectMakers are for the flags of expectations that have no fields.
var expectMakers = map[string]Maker[ct.Expect]{"master": masterFilter}

func masterFilter(text string) ([]field.Cond, func(*ct.Expect) bool, error) {
	p, err := pattern.Parse(text)
	if err != nil {
		return nil, nil, err
	}
	conds, err := p.Conds(ExpectPaths("master"))
	return conds, nil, err
}

// Expects compiles a filter of expectations.
func Expects(o *Filter) (*Choice[ct.Expect], error) {
	return compile(ct.ExpectFields, ct.ExpectFlags, expectMakers, ExpectPaths("tuple"), o)
}

// EachExpect hands every expectation that was chosen to f, with its zone: see
// ct.Conn.FindZones.
func EachExpect(ctx context.Context, c *Choice[ct.Expect], f func(*ct.Expect) error) (Edited, error) {
	conn, err := ct.Dial()
	if err != nil {
		return Edited{}, err
	}
	defer conn.Close()
	return eachExpect(ctx, conn, c, f)
}

// eachExpect reads all before it hands on the first: f may make requests on conn.
func eachExpect(
	ctx context.Context, conn *ct.Conn, c *Choice[ct.Expect], f func(*ct.Expect) error,
) (out Edited, err error) {
	var all []*ct.Expect // there are never many
	out.Dump, err = conn.Expects(ctx, 0, nil, func(e *ct.Expect) error {
		all = append(all, e.Clone())
		return nil
	})
	if err == nil {
		err = conn.FindZones(ctx, all)
	}
	for _, e := range all {
		if err = first(err, ctx.Err()); err != nil {
			break
		}
		if c.Keep(e) {
			out.Matched++
			err = f(e)
		}
	}
	return out, err
}

// DeleteExpects deletes the expectations that were chosen.
func DeleteExpects(ctx context.Context, c *Choice[ct.Expect], how Edit[ct.Expect]) (Edited, error) {
	return editExpects(ctx, c, how, (*ct.Conn).DeleteExpect)
}

// UpdateExpects gives the expectations that were chosen a timeout, in seconds.
func UpdateExpects(ctx context.Context, c *Choice[ct.Expect], timeout uint32, how Edit[ct.Expect]) (Edited, error) {
	return editExpects(ctx, c, how, func(conn *ct.Conn, e *ct.Expect) error {
		err := conn.UpdateExpect(e, timeout)
		if err == nil {
			e.Timeout = timeout
		}
		return err
	})
}

// FlushExpects deletes all expectations by one request.
func FlushExpects() error {
	conn, err := ct.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.FlushExpects()
}

// editExpects makes one request about each expectation that was chosen.
func editExpects(
	ctx context.Context, c *Choice[ct.Expect], how Edit[ct.Expect], request func(*ct.Conn, *ct.Expect) error,
) (Edited, error) {
	conn, err := ct.Dial()
	if err != nil {
		return Edited{}, err
	}
	defer conn.Close()
	e := &editing[ct.Expect]{Edit: how}
	done := uint64(0)
	out, err := eachExpect(ctx, conn, c, func(x *ct.Expect) error {
		switch err := request(conn, x); {
		case err == nil:
			done++
			e.edited()
			e.done(x)
		case !errors.Is(err, unix.ENOENT): // gone meanwhile
			e.failed(err)
		}
		return e.stop
	})
	out.Done = done
	return out, err
}

// ExpectTimeout reads what NAME=VALUE pairs would change of expectations, of which the
// kernel changes the timeout alone: in seconds.
func ExpectTimeout(sets []string) (uint32, error) {
	if len(sets) == 0 {
		return 0, Usagef("--set timeout=DURATION is missing: what to change")
	}
	if err := OnceEach(ct.ExpectAttrs(), sets); err != nil {
		return 0, err
	}
	var change ct.Expect
	for _, s := range sets {
		if err := ct.Set(ct.ExpectAttrs(), &change, s, true); err != nil {
			return 0, Named("--set", err)
		}
	}
	return change.Timeout, nil
}

// ExpectKey reads a flow in words as the key of an expectation: protocol and
// destination whole, of the source what is given.
func ExpectKey(text string) (*ct.Expect, error) {
	p, err := pattern.Parse(text)
	if err != nil {
		return nil, err
	}
	e := &ct.Expect{}
	if err := setTuple(e, p); err != nil {
		return nil, err
	}
	e.Mask = ct.Tuple{}
	return e, nil
}

// setTuple sets what e expects, and the mask that says which parts of the source
// count, from a pattern. The kernel compares protocol and destination whole
// (net/netfilter/nf_conntrack_expect.c), so these must be single values.
func setTuple(e *ct.Expect, p *pattern.Pattern) error {
	whole := func(what, want string) error {
		return Usagef("flow '%s': %s must be one %s: the kernel compares it whole, and only a source can be left open",
			p.Text, what, want)
	}
	t, m := &e.Tuple, &e.Mask
	if p.Has&pattern.Proto == 0 {
		return whole("the protocol", "protocol, as tcp")
	}
	t.Proto, t.Present = p.Proto, ct.TupleProto|ct.TupleFamily
	dst, ok := p.Dst.Addrs.Addr()
	if !ok {
		return whole("the destination", "address")
	}
	t.Dst, t.Family = dst, ct.IPv4
	any4, all := netip.IPv4Unspecified(), 32
	if dst.Is6() {
		t.Family, any4, all = ct.IPv6, netip.IPv6Unspecified(), 128
	}
	t.Src = any4
	bits := 0
	switch src := p.Src.Addrs; {
	case len(src.Addrs) == 0:
	case len(src.Addrs) > 1 || src.Not:
		return Usagef("flow '%s': the source must be an address or a prefix: it is compared under one mask", p.Text)
	default:
		prefix, ok := src.Addrs[0].Prefix()
		if !ok {
			return Usagef("flow '%s': the source must be an address or a prefix: no mask says that range", p.Text)
		}
		t.Src, bits = prefix.Addr(), prefix.Bits()
	}
	// The kernel reads the mask's ports as those of the protocol that it names.
	*m = ct.Tuple{Family: t.Family, Src: ct.PrefixMask(bits, all), Dst: ct.PrefixMask(all, all), Proto: t.Proto,
		Present: ct.TupleFamily | ct.TupleProto}
	switch {
	case pattern.HasEnds(p.Proto):
		port, ok := p.Dst.Ports.Num()
		if word := pattern.PortWord(p.Proto); !ok {
			return whole("the destination "+word, word)
		}
		t.Dport, m.Dport = uint16(port), 0xffff
		t.Present |= ct.TupleSport | ct.TupleDport
		m.Present |= ct.TupleSport | ct.TupleDport
		var err error
		if t.Sport, m.Sport, err = portMask(p); err != nil {
			return err
		}
	case pattern.HasICMP(p.Proto):
		if p.Has&pattern.Type == 0 || p.Has&pattern.Code == 0 {
			return whole("type and code", "number each, as type 8 code 0")
		}
		t.Type, t.Code, t.ID = p.Type, p.Code, p.ID
		m.Type, m.Code = 0xff, 0xff
		if p.Has&pattern.ID != 0 {
			m.ID = 0xffff
		}
		t.Present |= ct.TupleType | ct.TupleCode | ct.TupleID
		m.Present |= ct.TupleType | ct.TupleCode | ct.TupleID
	}
	if p.Has&pattern.Zone != 0 {
		e.Zone, e.Present = p.Zone, e.Present|ct.ExpectHasZone
	}
	return nil
}

// portMask returns the source port and the mask of an aligned range, as 1024-2047.
func portMask(p *pattern.Pattern) (port, mask uint16, err error) {
	s := p.Src.Ports
	if len(s.Nums) == 0 {
		return 0, 0, nil
	}
	r := s.Nums[0]
	size := r.Hi - r.Lo + 1
	if len(s.Nums) > 1 || s.Not || size&(size-1) != 0 || r.Lo%size != 0 {
		return 0, 0, Usagef("flow '%s': the source port must be one port, or a range that a mask says, as 1024-2047",
			p.Text)
	}
	return uint16(r.Lo), uint16(0xffff &^ (size - 1)), nil
}
