package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/filter"
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// filterOptions choose objects: by a flow in words, by flags and by expressions,
// all of which must hold. They keep what was typed; compileFilter reads it.
type filterOptions struct {
	pattern  string
	given    []given
	exprs    []string // --filter
	labelmap string   // --labelmap
}

// A given is one use of a flag: its name without dashes, and the text beside it.
type given struct{ flag, text string }

// anyValue is the text of a flag that was given without one.
const anyValue = "any"

// A filterFlag is a flag that chooses objects by their fields.
type filterFlag[T any] struct {
	name    string   // in full
	short   string   // one letter, or none
	aliases []string // other full names
	kind    string   // what its value is, for help
	usage   string
	paths   []string // fields of which any may have the value
	// parse reads the value; nil: the reader of the first field.
	parse func(string) (value.Set, error)
	// make, when set, does all by itself: the conditions are for the kernel's
	// filter too, the test for what they cannot say.
	make func(text string) ([]field.Cond, func(*T) bool, error)
	also []field.Cond // what the flag implies
	bare bool         // may stand without a value: anyValue
}

// flowFlags are the flags that choose flows: conntrack(8)'s, --host and --port.
var flowFlags = []filterFlag[ct.Flow]{
	{name: "proto", short: "p", aliases: []string{"protonum"}, kind: "protocols", usage: "transport protocol: tcp, or a list udp,icmp", paths: []string{"proto"}},
	{name: "src", short: "s", aliases: []string{"orig-src"}, kind: "addresses", usage: "source of the original direction: addresses, prefixes, ranges", paths: []string{"orig.src"}},
	{name: "dst", short: "d", aliases: []string{"orig-dst"}, kind: "addresses", usage: "destination of the original direction", paths: []string{"orig.dst"}},
	{name: "sport", aliases: []string{"orig-port-src"}, kind: "ports", usage: "source port of the original direction: 22, ssh, 1000-2000, 22,80", paths: []string{"orig.sport"}},
	{name: "dport", aliases: []string{"orig-port-dst"}, kind: "ports", usage: "destination port of the original direction", paths: []string{"orig.dport"}},
	{name: "reply-src", kind: "addresses", usage: "source of the reply direction", paths: []string{"reply.src"}},
	{name: "reply-dst", kind: "addresses", usage: "destination of the reply direction", paths: []string{"reply.dst"}},
	{name: "reply-port-src", kind: "ports", usage: "source port of the reply direction", paths: []string{"reply.sport"}},
	{name: "reply-port-dst", kind: "ports", usage: "destination port of the reply direction", paths: []string{"reply.dport"}},
	{name: "host", kind: "addresses", usage: "either end, in either direction", paths: []string{"orig.src", "orig.dst", "reply.src", "reply.dst"}},
	{name: "port", kind: "ports", usage: "port of either end, in either direction", paths: []string{"orig.sport", "orig.dport", "reply.sport", "reply.dport"}},
	{name: "family", short: "f", kind: "families", usage: "address family: ipv4 or ipv6", paths: []string{"family"}},
	{name: "state", kind: "states", usage: "state of the protocol: ESTABLISHED, or a list SYN_SENT,SYN_RECV", paths: []string{"state"}},
	{name: "status", short: "u", kind: "status", usage: "status: ASSURED, SEEN_REPLY, UNREPLIED, …; of a list any", paths: []string{"status"}},
	{name: "mark", short: "m", kind: "mark", usage: "mark: 7, or under a mask 0x1/0xff", paths: []string{"mark"}},
	{name: "timeout", short: "t", kind: "seconds", usage: "time left: 30s, or a range 0-5m", paths: []string{"timeout"}},
	{name: "zone", short: "w", kind: "zones", usage: "zone of both directions", paths: []string{"zone"}},
	{name: "orig-zone", kind: "zones", usage: "zone of the original direction alone; 0: none", make: origZone},
	{name: "reply-zone", kind: "zones", usage: "zone of the reply direction alone; 0: none", make: replyZone},
	{name: "label", short: "l", kind: "labels", usage: "connection label, by name or number; of a list any", paths: []string{"labels"}},
	{name: "helper", kind: "names", usage: "name of the helper: ftp", paths: []string{"helper"}},
	{name: "src-nat", kind: "address", usage: "the source is translated, to this address[:port] if one is given", make: srcNAT, bare: true},
	{name: "dst-nat", kind: "address", usage: "the destination is translated, to this address[:port] if one is given", make: dstNAT, bare: true},
	{name: "any-nat", kind: "address", usage: "source or destination is translated", make: anyNAT, bare: true},
	{name: "icmp-type", kind: "numbers", usage: "ICMP or ICMPv6 type", paths: []string{"orig.type"}},
	{name: "icmp-code", kind: "numbers", usage: "ICMP or ICMPv6 code", paths: []string{"orig.code"}},
	{name: "icmp-id", kind: "numbers", usage: "ICMP or ICMPv6 identifier", paths: []string{"orig.id"}},
	{name: "icmpv6-type", kind: "numbers", paths: []string{"orig.type"}, also: protoIs(ct.ICMPv6)},
	{name: "icmpv6-code", kind: "numbers", paths: []string{"orig.code"}, also: protoIs(ct.ICMPv6)},
	{name: "icmpv6-id", kind: "numbers", paths: []string{"orig.id"}, also: protoIs(ct.ICMPv6)},
	{name: "src-key", aliases: []string{"srckey", "orig-key-src"}, kind: "keys", usage: "GRE key of the source", paths: []string{"orig.sport"}, parse: greKeys, also: protoIs(ct.GRE)},
	{name: "dst-key", aliases: []string{"dstkey", "orig-key-dst"}, kind: "keys", usage: "GRE key of the destination", paths: []string{"orig.dport"}, parse: greKeys, also: protoIs(ct.GRE)},
	{name: "reply-key-src", kind: "keys", usage: "GRE key of the reply's source", paths: []string{"reply.sport"}, parse: greKeys, also: protoIs(ct.GRE)},
	{name: "reply-key-dst", kind: "keys", usage: "GRE key of the reply's destination", paths: []string{"reply.dport"}, parse: greKeys, also: protoIs(ct.GRE)},
	{name: "orig-vtag", kind: "numbers", usage: "SCTP verification tag of the original direction", paths: []string{"sctp.vtag_orig"}},
	{name: "reply-vtag", kind: "numbers", usage: "SCTP verification tag of the reply direction", paths: []string{"sctp.vtag_reply"}},
	{name: "role", kind: "role", usage: "DCCP role of the original direction: client or server", paths: []string{"dccp.role"}},
	{name: "secmark", kind: "numbers", usage: "security mark, of old kernels", paths: []string{"secmark"}},
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
	if text != anyValue {
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

// registerFilter adds the flags that choose objects to a command.
func registerFilter[T any](c *cobra.Command, flags []filterFlag[T], o *filterOptions) {
	registerFlags(c, flags, o)
	f := c.Flags()
	f.StringArrayVar(&o.exprs, "filter", nil, "only what an `expression` holds for, see 'nfctl help expressions'")
	f.StringVar(&o.labelmap, "labelmap", "", "read the names of labels from this `file` (default "+ct.LabelFile+")")
}

// registerFlags adds flags that choose objects to a command.
func registerFlags[T any](c *cobra.Command, flags []filterFlag[T], o *filterOptions) {
	f := c.Flags()
	for i := range flags {
		ff := &flags[i]
		for _, name := range append([]string{ff.name}, ff.aliases...) {
			short := ""
			if name == ff.name {
				short = ff.short
			}
			p := f.VarPF(&ordered{kind: ff.kind, add: func(text string) error {
				o.given = append(o.given, given{name, text})
				return nil
			}}, name, short, ff.usage)
			p.Hidden = name != ff.name || ff.usage == ""
			if ff.bare {
				p.NoOptDefVal = anyValue
			}
		}
	}
}

// any reports whether one of the flags that choose was given.
func (o *filterOptions) any() bool {
	return o.pattern != "" || len(o.given) > 0 || len(o.exprs) > 0
}

// args takes a command's arguments: at most one flow in words. An address
// behind a flag that may stand without one, as conntrack(8)'s users type it, is
// that flag's.
func (o *filterOptions) args(args []string) error {
	for _, arg := range args {
		if strings.Contains(arg, ">") {
			if o.pattern != "" {
				return usagef("unexpected argument %q: one flow in words at a time", arg)
			}
			o.pattern = arg
			continue
		}
		bare := slices.IndexFunc(o.given, func(g given) bool { return g.text == anyValue && strings.HasSuffix(g.flag, "-nat") })
		if bare < 0 {
			return unquoted(arg)
		}
		if _, _, err := anyNAT(arg); err != nil {
			flag := o.given[bare].flag
			return usagef("unexpected argument %q: the value of --%s is written behind '=', --%s=%s, and must be a valid one: %w", arg, flag, flag, arg, err)
		}
		o.given[bare].text = arg
	}
	return nil
}

// unquoted is the error of an argument that is no flow in words.
func unquoted(arg string) error {
	return usagef("unexpected argument %q: a flow has a '>' in it, and must be quoted, or the shell takes the '>': 'tcp 10.0.0.1 > :22'", arg)
}

// A chooser is a compiled filter.
type chooser[T any] struct {
	conds  []field.Cond    // what must hold, as far as conditions say it
	match  func(*T) bool   // nil: everything matches
	fields map[string]bool // which fields it looks at
	tests  int             // how many tests there are besides conds
}

// compileFilter reads what o holds. paths are the fields that a flow in words
// speaks of.
func compileFilter[T any](reg *field.Registry[T], flags []filterFlag[T], paths pattern.Paths, o *filterOptions) (*chooser[T], error) {
	if o.labelmap != "" {
		if err := ct.LoadLabels(o.labelmap); err != nil {
			return nil, named("--labelmap", err)
		}
	}
	c := &chooser[T]{fields: map[string]bool{}}
	var tests []func(*T) bool
	if o.pattern != "" {
		p, err := pattern.Parse(o.pattern)
		if err != nil {
			return nil, &usageError{err}
		}
		if c.conds, err = p.Conds(paths); err != nil {
			return nil, &usageError{err}
		}
	}
	plain := map[string]string{} // flags whose fields have one value, and that value
	for _, g := range o.given {
		ff := findFlag(flags, g.flag)
		if ff == nil {
			return nil, usagef("unknown flag --%s", g.flag)
		}
		conds, test, err := ff.read(reg, g.text)
		if err != nil {
			return nil, named("--"+g.flag, err)
		}
		if ff.single(reg) && !strings.HasPrefix(g.text, "!") {
			if first, twice := plain[ff.name]; twice && first != g.text {
				return nil, usagef("--%s: given twice, as %q and %q: no object has both; for either, --%[1]s %[2]s,%[3]s", g.flag, first, g.text)
			}
			plain[ff.name] = g.text
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
			return nil, &usageError{err}
		}
		tests = append([]func(*T) bool{test}, tests...)
	}
	for _, text := range o.exprs {
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
		c.match = tests[0]
	default:
		c.match = func(t *T) bool {
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

func findFlag[T any](flags []filterFlag[T], name string) *filterFlag[T] {
	for i := range flags {
		if flags[i].name == name || slices.Contains(flags[i].aliases, name) {
			return &flags[i]
		}
	}
	return nil
}

func (ff *filterFlag[T]) read(reg *field.Registry[T], text string) ([]field.Cond, func(*T) bool, error) {
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
func (ff *filterFlag[T]) single(reg *field.Registry[T]) bool {
	if len(ff.paths) != 1 || ff.paths[0] == "mark" {
		return false
	}
	row := reg.Row(ff.paths[0])
	return row != nil && row.Kind != field.Flags && row.Kind != field.Bits
}

// keep reports whether t was chosen.
func (c *chooser[T]) keep(t *T) bool { return c.match == nil || c.match(t) }

// flowFilter compiles a filter of flows.
func flowFilter(o *filterOptions) (*chooser[ct.Flow], error) {
	return compileFilter(ct.FlowFields, flowFlags, pattern.FlowPaths, o)
}

// dumpOptions returns how to read the flows that c chooses: what the kernel can
// leave out it is asked to. c is to be asked again all the same.
func dumpOptions(c *chooser[ct.Flow]) ct.DumpOptions {
	o := ct.DumpOptions{Idle: c.fields["idle"], Keep: c.keep}
	o.Filter, o.Families = ct.FilterFrom(c.conds)
	return o
}

// idleNote says on what it rests that flows are chosen by how long they are idle.
func (a *app) idleNote(c *chooser[ct.Flow]) {
	if !c.fields["idle"] {
		return
	}
	t := ct.LoadTimeouts()
	text := "idle rests on the time left and the settings of this namespace (nf_conntrack_*_timeout*)"
	if t.Ages {
		text += ", and is told where the flow is as old"
	} else {
		text += "; with nf_conntrack_timestamp=0 no flow's age confirms it"
	}
	if t.LoadPolicies() == nil {
		var names []byte
		for _, p := range t.Policies() {
			names = value.Protocols.Append(append(names, ", "...), uint64(p))
		}
		if names != nil {
			text += "; timeout policies leave it unknown of " + string(names[2:])
		}
	}
	a.warn("%s: nfctl help timeouts", text)
}

// registerFlowFilter adds the flags that choose flows to a command.
func registerFlowFilter(c *cobra.Command, o *filterOptions) { registerFilter(c, flowFlags, o) }
