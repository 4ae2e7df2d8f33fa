package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/format"
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

func newExpect(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "expect",
		Aliases: []string{"exp"},
		Short:   "Expectations: connections that the kernel will take as related to another",
		Long: `An expectation tells the kernel of a connection that is to come: one that matches
it is related to its master, the connection that it was made for (as an FTP data
connection is to the control connection), and a rule for RELATED lets it in.
The kernel's helpers make expectations; so do these commands.`,
		Example: `  nfctl expect list
  nfctl expect create --master 'tcp 10.0.0.1:1000 > 10.0.0.2:21' 'tcp 10.0.0.1 > 10.0.0.2:5000' --timeout 10s
  nfctl expect delete --helper ftp`,
	}
	c.AddCommand(a.choose(1, []maker{
		{"list", newExpectList}, {"get", newExpectGet}, {"create", newExpectCreate}, {"update", newExpectUpdate}, {"delete", newExpectDelete},
		{"flush", newExpectFlush}, {"count", newExpectCount}, {"stats", newExpectStats}, {"watch", newExpectWatch},
	})...)
	return c
}

// expectFlags are the flags that choose expectations. As in conntrack(8) --orig-*
// is about the master, --tuple-* about the connection expected.
var expectFlags = []filterFlag[ct.Expect]{
	{name: "master", kind: "pattern", usage: "the connection that expects, as 'tcp 10.0.0.1 > :21'", make: masterFilter},
	{name: "proto", short: "p", aliases: []string{"protonum"}, kind: "protocols", usage: "protocol of the connection expected", paths: []string{"tuple.proto"}},
	{name: "orig-src", short: "s", aliases: []string{"src"}, kind: "addresses", usage: "source of the master", paths: []string{"master.src"}},
	{name: "orig-dst", short: "d", aliases: []string{"dst"}, kind: "addresses", usage: "destination of the master", paths: []string{"master.dst"}},
	{name: "orig-port-src", aliases: []string{"sport"}, kind: "ports", usage: "source port of the master", paths: []string{"master.sport"}},
	{name: "orig-port-dst", aliases: []string{"dport"}, kind: "ports", usage: "destination port of the master", paths: []string{"master.dport"}},
	{name: "tuple-src", kind: "addresses", usage: "source of the connection expected", paths: []string{"tuple.src"}},
	{name: "tuple-dst", kind: "addresses", usage: "destination of the connection expected", paths: []string{"tuple.dst"}},
	{name: "tuple-port-src", kind: "ports", usage: "source port of the connection expected", paths: []string{"tuple.sport"}},
	{name: "tuple-port-dst", kind: "ports", usage: "destination port of the connection expected", paths: []string{"tuple.dport"}},
	{name: "mask-src", kind: "addresses", usage: "which bits of the source count", paths: []string{"mask.src"}},
	{name: "mask-port-src", aliases: []string{"mask-sport"}, kind: "numbers", usage: "which bits of the source port count", paths: []string{"mask.sport"}, parse: portMasks},
	{name: "host", kind: "addresses", usage: "either end, of the master or of the connection expected", paths: []string{"tuple.src", "tuple.dst", "master.src", "master.dst"}},
	{name: "port", kind: "ports", usage: "port of either end, of the master or of the connection expected", paths: []string{"tuple.sport", "tuple.dport", "master.sport", "master.dport"}},
	{name: "family", short: "f", kind: "families", usage: "address family: ipv4 or ipv6", paths: []string{"family"}},
	{name: "helper", kind: "names", usage: "name of the helper: ftp", paths: []string{"helper"}},
	{name: "class", kind: "numbers", usage: "class: which of the helper's policies", paths: []string{"class"}},
	{name: "flags", kind: "flags", usage: "flags: permanent, inactive", paths: []string{"flags"}},
	{name: "timeout", short: "t", kind: "seconds", usage: "time left: 30s, or a range 0-5m", paths: []string{"timeout"}},
	{name: "id", kind: "numbers", usage: "id of the expectation", paths: []string{"id"}},
}

func portMasks(s string) (value.Set, error) { return value.Numbers("mask of a port", 65535)(s) }

// expectPaths are the fields that a flow in words speaks of: those of the tuple
// called "tuple" or "master".
func expectPaths(tuple string) pattern.Paths {
	at := func(name string) []string { return []string{tuple + "." + name} }
	return pattern.Paths{Proto: at("proto"), Src: at("src"), Dst: at("dst"), SPort: at("sport"), DPort: at("dport"),
		Type: at("type"), Code: at("code"), ID: at("id")}
}

func masterFilter(text string) ([]field.Cond, func(*ct.Expect) bool, error) {
	p, err := pattern.Parse(text)
	if err != nil {
		return nil, nil, err
	}
	conds, err := p.Conds(expectPaths("master"))
	return conds, nil, err
}

func registerExpectFilter(c *cobra.Command, fo *filterOptions) {
	registerFilter(c, expectFlags, fo)
	_ = c.Flags().MarkHidden("labelmap")
}

// expectFilter reads the flags and arguments that choose expectations.
func expectFilter(fo *filterOptions, args []string) (*chooser[ct.Expect], error) {
	if err := fo.args(args); err != nil {
		return nil, err
	}
	return compileFilter(ct.ExpectFields, expectFlags, expectPaths("tuple"), fo)
}

// master returns the one connection that all chosen expectations belong to, so
// that the kernel need list no others; nil: there may be several.
func (o *filterOptions) master() *ct.Flow {
	for _, g := range o.given {
		if g.flag != "master" {
			continue
		}
		if w, err := pattern.ParseFlow(g.text); err == nil && w.Has&pattern.Ports != 0 {
			return ct.FlowOf(w)
		}
	}
	return nil
}

// eachExpect hands every chosen expectation to f.
func eachExpect(ctx context.Context, c *ct.Conn, fo *filterOptions, flt *chooser[ct.Expect], f func(*ct.Expect) error) (ct.DumpResult, error) {
	res, err := c.Expects(ctx, 0, fo.master(), func(e *ct.Expect) error {
		if !flt.keep(e) {
			return nil
		}
		return f(e)
	})
	if errors.Is(err, unix.ENOENT) && fo.master() != nil {
		err = nil // a master that is not there has no expectations
	}
	return res, err
}

// chosenExpects returns the chosen expectations: there are never many.
func chosenExpects(ctx context.Context, c *ct.Conn, fo *filterOptions, flt *chooser[ct.Expect]) (all []*ct.Expect, err error) {
	_, err = eachExpect(ctx, c, fo, flt, func(e *ct.Expect) error {
		all = append(all, e.Clone())
		return nil
	})
	return all, err
}

func newExpectList(a *app) *cobra.Command {
	fo := &filterOptions{}
	c := &cobra.Command{
		Use:     "list ['PATTERN']",
		Short:   "List expectations",
		Long:    "Lists the expectations of all zones. A pattern is about the connection expected, as it is\nstored: what may be anything is 0 there. --master is about the connection that expects it.",
		Example: "  nfctl expect list\n  nfctl expect list --master 'tcp > :21' -o json\n  nfctl expect list 'tcp > :5000-6000'",
		RunE: func(c *cobra.Command, args []string) error {
			flt, err := expectFilter(fo, args)
			if err != nil {
				return err
			}
			conn, err := ct.Dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			p, k, err := a.expectPrinter("expect list")
			if err != nil {
				return err
			}
			n := uint64(0)
			res, err := eachExpect(c.Context(), conn, fo, flt, func(e *ct.Expect) error {
				if n++; a.quiet {
					return nil
				}
				k.b = p.Append(k.b, e)
				if k.full() {
					return k.flush()
				}
				return nil
			})
			if err = errors.Join(err, finishPrint(p, k)); err != nil {
				return err
			}
			a.dumpNote(res)
			if a.quiet {
				a.total("%s", plural(n, "expectation"))
			}
			return nil
		},
	}
	c.Flags().SortFlags = false
	registerExpectFilter(c, fo)
	return c
}

func (a *app) expectPrinter(command string) (*format.Printer[ct.Expect], *sink, error) {
	out, err := a.outputOf(command, false)
	if err != nil {
		return nil, nil, err
	}
	return printTo(a, format.Expects, out, format.Options{})
}

// printExpects prints expectations, unless -q was given.
func (a *app) printExpects(command string, list ...*ct.Expect) error {
	p, k, err := a.expectPrinter(command)
	if err != nil {
		return err
	}
	for _, e := range list {
		if !a.quiet {
			k.b = p.Append(k.b, e)
		}
	}
	return finishPrint(p, k)
}

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
			if _, err := a.outputOf("expect get", false); err != nil {
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
			return a.printExpects("expect get", &got)
		},
	}
	zone.register(c)
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
	*m = ct.Tuple{Family: t.Family, Src: maskAddr(bits, all), Dst: maskAddr(all, all), Proto: t.Proto, Present: ct.TupleFamily | ct.TupleProto}
	switch {
	case ct.HasPorts(p.Proto):
		port, ok := p.Dst.Ports.Num()
		if !ok {
			return whole("the destination port", "port")
		}
		t.Dport, m.Dport = uint16(port), 0xffff
		t.Present |= ct.TupleSport | ct.TupleDport
		m.Present |= ct.TupleSport | ct.TupleDport
		var err error
		if t.Sport, m.Sport, err = portMask(p); err != nil {
			return err
		}
	case pattern.HasICMP(p.Proto):
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

// maskAddr returns the mask of a prefix of so many of all bits.
func maskAddr(bits, all int) netip.Addr {
	b := make([]byte, all/8)
	for i := range bits {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func newExpectCount(a *app) *cobra.Command {
	fo := &filterOptions{}
	c := &cobra.Command{
		Use:     "count ['PATTERN']",
		Short:   "Count expectations",
		Example: "  nfctl expect count\n  nfctl expect count --helper ftp",
		RunE: func(c *cobra.Command, args []string) error {
			flt, err := expectFilter(fo, args)
			if err != nil {
				return err
			}
			conn, err := ct.Dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			n := format.Count{Of: "expectations"}
			if _, err := eachExpect(c.Context(), conn, fo, flt, func(*ct.Expect) error { n.Count++; return nil }); err != nil {
				return err
			}
			if !fo.any() {
				n.Max = expectMax()
			}
			return printAll(a, format.Counts, "expect count", n)
		},
	}
	c.Flags().SortFlags = false
	registerExpectFilter(c, fo)
	return c
}

// expectMax returns how many expectations a network namespace may have, 0 when
// that cannot be read.
func expectMax() uint64 {
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_expect_max")
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	return n
}

// expectWords names an expectation in messages.
func expectWords(e *ct.Expect) string {
	b := ct.AppendTuple([]byte("expectation "), &e.Tuple)
	if e.Has(ct.ExpectHasID) {
		b = fmt.Appendf(b, " (id %d)", e.ID)
	}
	return string(b)
}

func newExpectStats(a *app) *cobra.Command {
	o := &ctStatsOptions{}
	var doc strings.Builder
	for _, k := range ct.ExpectCounters {
		fmt.Fprintf(&doc, "  %-8s %s\n", k.Name, k.Doc)
	}
	c := &cobra.Command{
		Use:   "stats",
		Short: "Print the kernel's counters of expectations, for each processor and together",
		Long: `Prints what the kernel counts of expectations, for each processor and all together.
With --interval it prints again and again, with what each grew by a second.

` + doc.String(),
		Example: "  nfctl expect stats\n  nfctl expect stats --interval 1s -o json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.stats(c, o, "expect stats", format.ExpectStats(), (*ct.Conn).ExpectStats)
		},
	}
	o.register(c.Flags())
	return c
}
