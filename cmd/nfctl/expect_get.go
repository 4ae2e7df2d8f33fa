package main

import (
	"net/netip"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/pattern"
)

func newExpectGet(a *app) *cobra.Command {
	var zone zoneFlag
	c := &cobra.Command{
		Use:     "get 'FLOW'",
		Short:   "Show the expectation that a connection would meet",
		Long:    "Shows the expectation that the kernel would find for a connection. What of its source\nis not given is 0; an expectation whose mask leaves it out is found all the same.",
		Example: "  nfctl expect get 'tcp 10.0.0.1 > 10.0.0.2:5000'",
		Args:    exactly(1, "a flow, in quotes"),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := expectKey(args[0])
			if err != nil {
				return err
			}
			if err := zone.set(key); err != nil {
				return err
			}
			if _, err := a.outputOf(false); err != nil {
				return err
			}
			conn, err := ct.Dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			var got ct.Expect
			if err := conn.GetExpect(key, &got); err != nil {
				return err
			}
			return a.printExpects(&got)
		},
	}
	zone.register(c)
	a.prints(c, format.ExpectFormats, paths(ct.ExpectFields))
	return c
}

// zoneFlag is --zone of commands about one expectation: the master's.
type zoneFlag struct {
	zone  uint16
	given bool
}

func (z *zoneFlag) register(c *cobra.Command) {
	f := c.Flags()
	f.SortFlags = false
	f.VarP(&ordered{kind: "zone", add: func(s string) error {
		n, err := number("zone", s, 0, 65535)
		z.zone, z.given = uint16(n), true
		return err
	}}, "zone", "w", "conntrack zone of the master")
}

// set gives e the zone of the flag, which must not differ from the one in words.
func (z *zoneFlag) set(e *ct.Expect) error {
	if !z.given {
		return nil
	}
	if e.Has(ct.ExpectHasZone) && e.Zone != z.zone {
		return usagef("--zone %d: the flow says zone %d", z.zone, e.Zone)
	}
	e.Zone, e.Present = z.zone, e.Present|ct.ExpectHasZone
	return nil
}

// expectKey reads a flow in words as the key of an expectation: protocol and
// destination whole, of the source what is given.
func expectKey(text string) (*ct.Expect, error) {
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
		return usagef("flow '%s': %s must be one %s: the kernel compares it whole, and only a source can be left open", p.Text, what, want)
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
		return usagef("flow '%s': the source must be an address or a prefix: it is compared under one mask", p.Text)
	default:
		prefix, ok := src.Addrs[0].Prefix()
		if !ok {
			return usagef("flow '%s': the source must be an address or a prefix: no mask says that range", p.Text)
		}
		t.Src, bits = prefix.Addr(), prefix.Bits()
	}
	// The kernel reads the mask's ports as those of the protocol that it names.
	*m = ct.Tuple{Family: t.Family, Src: ct.PrefixMask(bits, all), Dst: ct.PrefixMask(all, all), Proto: t.Proto, Present: ct.TupleFamily | ct.TupleProto}
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
		return 0, 0, usagef("flow '%s': the source port must be one port, or a range that a mask says, as 1024-2047", p.Text)
	}
	return uint16(r.Lo), uint16(0xffff &^ (size - 1)), nil
}
