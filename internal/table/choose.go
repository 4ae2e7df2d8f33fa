package table

import (
	"slices"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/filter"
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// A Filter chooses objects: by a flow in words, by flags and by expressions, all of
// which must hold. It keeps what was typed; Compile reads it.
type Filter struct {
	Pattern  string
	Given    []Given
	Exprs    []string // --filter
	Labelmap string   // --labelmap
}

// A Given is one use of a flag: its name without dashes, and the text beside it.
type Given struct{ Flag, Text string }

// AnyValue is the text of a flag that was given without one.
const AnyValue = "any"

// A Flag is a flag that chooses objects by their fields.
type Flag[T any] struct {
	Name    string   // in full
	Short   string   // one letter, or none
	Aliases []string // other full names
	Kind    string   // what its value is, for help
	Usage   string   // empty: not in help
	Bare    bool     // may stand without a value: AnyValue

	paths []string // fields of which any may have the value
	// parse reads the value; nil: the reader of the first field.
	parse func(string) (value.Set, error)
	// make, when set, does all by itself: the conditions are for the kernel's
	// filter too, the test for what they cannot say.
	make func(text string) ([]field.Cond, func(*T) bool, error)
	also []field.Cond // what the flag implies
}

// FlowFlags are the flags that choose flows: conntrack(8)'s, --host and --port.
var FlowFlags = []Flag[ct.Flow]{
	{Name: "proto", Short: "p", Aliases: []string{"protonum"}, Kind: "protocols", Usage: "transport protocol: tcp, or a list udp,icmp", paths: []string{"proto"}},
	{Name: "src", Short: "s", Aliases: []string{"orig-src"}, Kind: "addresses", Usage: "source of the original direction: addresses, prefixes, ranges", paths: []string{"orig.src"}},
	{Name: "dst", Short: "d", Aliases: []string{"orig-dst"}, Kind: "addresses", Usage: "destination of the original direction", paths: []string{"orig.dst"}},
	{Name: "sport", Aliases: []string{"orig-port-src"}, Kind: "ports", Usage: "source port of the original direction: 22, ssh, 1000-2000, 22,80", paths: []string{"orig.sport"}},
	{Name: "dport", Aliases: []string{"orig-port-dst"}, Kind: "ports", Usage: "destination port of the original direction", paths: []string{"orig.dport"}},
	{Name: "reply-src", Kind: "addresses", Usage: "source of the reply direction", paths: []string{"reply.src"}},
	{Name: "reply-dst", Kind: "addresses", Usage: "destination of the reply direction", paths: []string{"reply.dst"}},
	{Name: "reply-port-src", Kind: "ports", Usage: "source port of the reply direction", paths: []string{"reply.sport"}},
	{Name: "reply-port-dst", Kind: "ports", Usage: "destination port of the reply direction", paths: []string{"reply.dport"}},
	{Name: "host", Kind: "addresses", Usage: "either end, in either direction", paths: []string{"orig.src", "orig.dst", "reply.src", "reply.dst"}},
	{Name: "port", Kind: "ports", Usage: "port of either end, in either direction", paths: []string{"orig.sport", "orig.dport", "reply.sport", "reply.dport"}},
	{Name: "family", Short: "f", Kind: "families", Usage: "address family: ipv4 or ipv6", paths: []string{"family"}},
	{Name: "state", Kind: "states", Usage: "state of the protocol: ESTABLISHED, or a list SYN_SENT,SYN_RECV", paths: []string{"state"}},
	{Name: "status", Short: "u", Kind: "status", Usage: "status: ASSURED, SEEN_REPLY, UNREPLIED, …; of a list any", paths: []string{"status"}},
	{Name: "mark", Short: "m", Kind: "mark", Usage: "mark: 7, or under a mask 0x1/0xff", paths: []string{"mark"}},
	{Name: "timeout", Short: "t", Kind: "seconds", Usage: "time left: 30s, or a range 0-5m", paths: []string{"timeout"}},
	{Name: "zone", Short: "w", Kind: "zones", Usage: "zone of both directions", paths: []string{"zone"}},
	{Name: "orig-zone", Kind: "zones", Usage: "zone of the original direction alone; 0: none", make: origZone},
	{Name: "reply-zone", Kind: "zones", Usage: "zone of the reply direction alone; 0: none", make: replyZone},
	{Name: "label", Short: "l", Kind: "labels", Usage: "connection label, by name or number; of a list any", paths: []string{"labels"}},
	{Name: "helper", Kind: "names", Usage: "name of the helper: ftp", paths: []string{"helper"}},
	{Name: "src-nat", Kind: "address", Usage: "the source is translated, to this address[:port] if one is given", make: srcNAT, Bare: true},
	{Name: "dst-nat", Kind: "address", Usage: "the destination is translated, to this address[:port] if one is given", make: dstNAT, Bare: true},
	{Name: "any-nat", Kind: "address", Usage: "source or destination is translated", make: anyNAT, Bare: true},
	{Name: "icmp-type", Kind: "numbers", Usage: "ICMP or ICMPv6 type", paths: []string{"orig.type"}},
	{Name: "icmp-code", Kind: "numbers", Usage: "ICMP or ICMPv6 code", paths: []string{"orig.code"}},
	{Name: "icmp-id", Kind: "numbers", Usage: "ICMP or ICMPv6 identifier", paths: []string{"orig.id"}},
	{Name: "icmpv6-type", Kind: "numbers", paths: []string{"orig.type"}, also: protoIs(ct.ICMPv6)},
	{Name: "icmpv6-code", Kind: "numbers", paths: []string{"orig.code"}, also: protoIs(ct.ICMPv6)},
	{Name: "icmpv6-id", Kind: "numbers", paths: []string{"orig.id"}, also: protoIs(ct.ICMPv6)},
	{Name: "src-key", Aliases: []string{"srckey", "orig-key-src"}, Kind: "keys", Usage: "GRE key of the source", paths: []string{"orig.sport"}, parse: greKeys, also: protoIs(ct.GRE)},
	{Name: "dst-key", Aliases: []string{"dstkey", "orig-key-dst"}, Kind: "keys", Usage: "GRE key of the destination", paths: []string{"orig.dport"}, parse: greKeys, also: protoIs(ct.GRE)},
	{Name: "reply-key-src", Kind: "keys", Usage: "GRE key of the reply's source", paths: []string{"reply.sport"}, parse: greKeys, also: protoIs(ct.GRE)},
	{Name: "reply-key-dst", Kind: "keys", Usage: "GRE key of the reply's destination", paths: []string{"reply.dport"}, parse: greKeys, also: protoIs(ct.GRE)},
	{Name: "orig-vtag", Kind: "numbers", Usage: "SCTP verification tag of the original direction", paths: []string{"sctp.vtag_orig"}},
	{Name: "reply-vtag", Kind: "numbers", Usage: "SCTP verification tag of the reply direction", paths: []string{"sctp.vtag_reply"}},
	{Name: "role", Kind: "role", Usage: "DCCP role of the original direction: client or server", paths: []string{"dccp.role"}},
	{Name: "secmark", Kind: "numbers", Usage: "security mark, of old kernels", paths: []string{"secmark"}},
}

func greKeys(s string) (value.Set, error) { return value.Numbers("GRE key", 65535)(s) }

func protoIs(n uint64) []field.Cond {
	return []field.Cond{{Paths: []string{"proto"}, Set: value.Single(n)}}
}

func srcNAT(text string) ([]field.Cond, func(*ct.Flow) bool, error) {
	return natFilter(text, true, false)
}
func dstNAT(text string) ([]field.Cond, func(*ct.Flow) bool, error) {
	return natFilter(text, false, true)
}
func anyNAT(text string) ([]field.Cond, func(*ct.Flow) bool, error) {
	return natFilter(text, true, true)
}

func origZone(text string) ([]field.Cond, func(*ct.Flow) bool, error) {
	return zoneFilter("orig.zone", text)
}
func replyZone(text string) ([]field.Cond, func(*ct.Flow) bool, error) {
	return zoneFilter("reply.zone", text)
}

// zoneFilter reads zones of one direction, where a flow that has none of its own is
// in zone 0.
func zoneFilter(path, text string) ([]field.Cond, func(*ct.Flow) bool, error) {
	row, err := ct.FlowFields.Find(path)
	if err != nil {
		return nil, nil, err
	}
	set, err := row.ParseSet(text)
	if err != nil {
		return nil, nil, err
	}
	cond := []field.Cond{{Paths: []string{path}, Set: set}}
	none := slices.ContainsFunc(set.Nums, func(r value.Range) bool { return r.Lo == 0 }) != set.Not
	if !none {
		return cond, nil, nil
	}
	own, err := filter.Conds(ct.FlowFields, cond...)
	return nil, func(f *ct.Flow) bool {
		_, has := row.Num(f)
		return !has || own(f)
	}, err
}

// natFilter reads what a source or destination is translated to.
func natFilter(text string, src, dst bool) ([]field.Cond, func(*ct.Flow) bool, error) {
	rest, not := strings.CutPrefix(text, "!")
	var toSrc, toDst func(*ct.Flow) bool
	var kernel []field.Cond
	if text != AnyValue {
		p, err := pattern.Parse("> " + rest)
		if err != nil || p.Has != 0 || rest == "" || strings.ContainsAny(rest, " >") {
			return nil, nil, &value.Error{What: "translation", Text: text, Valid: "an address, address:port, [v6]:port or :port, also prefixes and ranges; or the flag alone, without '='"}
		}
		reply := func(addr, port string) (conds []field.Cond) {
			if len(p.Dst.Addrs.Addrs) > 0 {
				conds = append(conds, field.Cond{Paths: []string{addr}, Set: p.Dst.Addrs})
			}
			if len(p.Dst.Ports.Nums) > 0 {
				conds = append(conds, field.Cond{Paths: []string{port}, Set: p.Dst.Ports})
			}
			return conds
		}
		s, d := reply("reply.dst", "reply.dport"), reply("reply.src", "reply.sport")
		if toSrc, err = filter.Conds(ct.FlowFields, s...); err != nil {
			return nil, nil, err
		}
		if toDst, err = filter.Conds(ct.FlowFields, d...); err != nil {
			return nil, nil, err
		}
		switch {
		case not || src && dst:
		case src:
			kernel = s
		case dst:
			kernel = d
		}
	}
	return kernel, func(f *ct.Flow) bool {
		s, d := src && translated(f.SrcNAT()), dst && translated(f.DstNAT())
		if toSrc == nil || !s && !d {
			return s || d
		}
		return (s && toSrc(f) || d && toDst(f)) != not
	}, nil
}

func translated[A any](_ A, addr bool, _ uint16, port bool) bool { return addr || port }

// Any reports whether the filter asks for anything.
func (o *Filter) Any() bool {
	return o.Pattern != "" || len(o.Given) > 0 || len(o.Exprs) > 0
}

// A Choice is a compiled filter.
type Choice[T any] struct {
	conds  []field.Cond    // what must hold, as far as conditions say it
	Match  func(*T) bool   // nil: everything matches
	fields map[string]bool // which fields it looks at
	tests  int             // how many tests there are besides conds
}

// Compile reads what o holds. paths are the fields that a flow in words
// speaks of.
func Compile[T any](reg *field.Registry[T], flags []Flag[T], paths pattern.Paths, o *Filter) (*Choice[T], error) {
	if o.Labelmap != "" {
		if err := ct.LoadLabels(o.Labelmap); err != nil {
			return nil, named("--labelmap", err)
		}
	}
	c := &Choice[T]{fields: map[string]bool{}}
	var tests []func(*T) bool
	if o.Pattern != "" {
		p, err := pattern.Parse(o.Pattern)
		if err != nil {
			return nil, &UsageError{err}
		}
		if c.conds, err = p.Conds(paths); err != nil {
			return nil, &UsageError{err}
		}
	}
	plain := map[string]string{} // flags whose fields have one value, and that value
	for _, g := range o.Given {
		ff := findFlag(flags, g.Flag)
		if ff == nil {
			return nil, usagef("unknown flag --%s", g.Flag)
		}
		conds, test, err := ff.read(reg, g.Text)
		if err != nil {
			return nil, named("--"+g.Flag, err)
		}
		if ff.single(reg) && !strings.HasPrefix(g.Text, "!") {
			if first, twice := plain[ff.Name]; twice && first != g.Text {
				return nil, usagef("--%s: given twice, as %q and %q: no object has both; for either, --%[1]s %[2]s,%[3]s", g.Flag, first, g.Text)
			}
			plain[ff.Name] = g.Text
		}
		c.conds = append(c.conds, conds...)
		if test != nil {
			tests = append(tests, test)
		}
		for _, p := range ff.paths {
			c.fields[p] = true
		}
	}
	c.tests = len(tests)
	if len(c.conds) > 0 {
		test, err := filter.Conds(reg, c.conds...)
		if err != nil {
			return nil, &UsageError{err}
		}
		tests = append([]func(*T) bool{test}, tests...)
	}
	for _, text := range o.Exprs {
		p, err := filter.Compile(reg, text)
		if err != nil {
			return nil, named("--filter", err)
		}
		conds, exact := p.Conds()
		if !exact {
			c.tests++
		}
		c.conds = append(c.conds, conds...)
		tests = append(tests, p.Match)
		for _, path := range p.Fields() {
			c.fields[path] = true
		}
	}
	switch len(tests) {
	case 0:
	case 1:
		c.Match = tests[0]
	default:
		c.Match = func(t *T) bool {
			for _, test := range tests {
				if !test(t) {
					return false
				}
			}
			return true
		}
	}
	return c, nil
}

func findFlag[T any](flags []Flag[T], name string) *Flag[T] {
	for i := range flags {
		if flags[i].Name == name || slices.Contains(flags[i].Aliases, name) {
			return &flags[i]
		}
	}
	return nil
}

func (ff *Flag[T]) read(reg *field.Registry[T], text string) ([]field.Cond, func(*T) bool, error) {
	if strings.HasPrefix(text, "!") { // '!A,!B' is '!A,B': neither
		text = strings.ReplaceAll(text, ",!", ",")
	}
	if ff.make != nil {
		return ff.make(text)
	}
	parse := ff.parse
	if parse == nil {
		row, err := reg.Find(ff.paths[0])
		if err != nil {
			return nil, nil, err
		}
		parse = row.ParseSet
	}
	set, err := parse(text)
	if err != nil {
		return nil, nil, err
	}
	return append([]field.Cond{{Paths: ff.paths, Set: set}}, ff.also...), nil, nil
}

// single reports whether the flag's field has one value at a time, so that two
// different ones never hold both.
func (ff *Flag[T]) single(reg *field.Registry[T]) bool {
	if len(ff.paths) != 1 || ff.paths[0] == "mark" {
		return false
	}
	row := reg.Row(ff.paths[0])
	return row != nil && row.Kind != field.Flags && row.Kind != field.Bits
}

// And has c choose only what test holds for, too.
func (c *Choice[T]) And(test func(*T) bool) {
	c.tests++
	c.Match = And(c.Match, test)
}

// And joins two tests, each of which may be nil: it holds for everything.
func And[T any](a, b func(*T) bool) func(*T) bool {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return func(t *T) bool { return a(t) && b(t) }
}

// Conds returns what must hold, as far as conditions say it.
func (c *Choice[T]) Conds() []field.Cond { return c.conds }

// Looks reports whether the filter looks at a field.
func (c *Choice[T]) Looks(path string) bool { return c.fields[path] }

// Keep reports whether t was chosen.
func (c *Choice[T]) Keep(t *T) bool { return c.Match == nil || c.Match(t) }

// Flows compiles a filter of flows.
func Flows(o *Filter) (*Choice[ct.Flow], error) {
	return Compile(ct.FlowFields, FlowFlags, pattern.FlowPaths, o)
}

// DumpOptions returns how to read the flows that c chooses: what the kernel can
// leave out it is asked to. c is to be asked again all the same.
func DumpOptions(c *Choice[ct.Flow]) ct.DumpOptions {
	o := ct.DumpOptions{Idle: c.fields["idle"], Keep: c.Keep}
	o.Filter, o.Families = ct.FilterFrom(c.conds)
	return o
}

// CheckNAT returns an error when text is no value of --src-nat, --dst-nat and --any-nat.
func CheckNAT(text string) error {
	_, _, err := anyNAT(text)
	return err
}
