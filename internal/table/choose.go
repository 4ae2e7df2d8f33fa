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
// which must hold. It keeps what was typed; Flows or Expects reads it.
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

// A Maker reads a flag whose value is more than values of fields: into conditions, for
// the kernel's filter too, and a test for what they cannot say.
type Maker[T any] func(text string) ([]field.Cond, func(*T) bool, error)

// flowMakers are for the flags of flows that have no fields.
var flowMakers = map[string]Maker[ct.Flow]{
	"orig-zone":  origZone,
	"reply-zone": replyZone,
	"src-nat":    srcNAT,
	"dst-nat":    dstNAT,
	"any-nat":    anyNAT,
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
			return nil, nil, &value.Error{What: "translation", Text: text,
				Valid: "an address, address:port, [v6]:port or :port, also prefixes and ranges; or the flag alone, " +
					"without '='"}
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

// compile reads what o holds. paths are the fields that a flow in words
// speaks of.
func compile[T any](
	reg *field.Registry[T], flags []ct.Flag, makers map[string]Maker[T], paths pattern.Paths, o *Filter,
) (*Choice[T], error) {
	if o.Labelmap != "" {
		if err := ct.LoadLabels(o.Labelmap); err != nil {
			return nil, Named("--labelmap", err)
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
		ff := ct.FindFlag(flags, g.Flag, false)
		if ff == nil {
			return nil, Usagef("unknown flag --%s", g.Flag)
		}
		conds, test, err := readFlag(reg, ff, makers[ff.Name], g.Text)
		if err != nil {
			return nil, Named("--"+g.Flag, err)
		}
		if single(reg, ff) && !strings.HasPrefix(g.Text, "!") {
			if first, twice := plain[ff.Name]; twice && first != g.Text {
				return nil,
					Usagef("--%s: given twice, as %q and %q: no object has both; for either, --%[1]s %[2]s,%[3]s",
						g.Flag, first, g.Text)
			}
			plain[ff.Name] = g.Text
		}
		c.conds = append(c.conds, conds...)
		if test != nil {
			tests = append(tests, test)
		}
		for _, p := range ff.Paths {
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
			return nil, Named("--filter", err)
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

func readFlag[T any](reg *field.Registry[T], ff *ct.Flag, maker Maker[T],
	text string) ([]field.Cond, func(*T) bool, error) {
	if strings.HasPrefix(text, "!") { // '!A,!B' is '!A,B': neither
		text = strings.ReplaceAll(text, ",!", ",")
	}
	if maker != nil {
		return maker(text)
	}
	row, err := reg.Find(ff.Paths[0])
	if err != nil {
		return nil, nil, err
	}
	parse := row.ParseSet
	switch {
	case ff.Proto == ct.GRE:
		parse = value.Numbers("GRE key", 65535)
	case ff.Name == "mask-port-src":
		parse = value.Numbers("mask of a port", 65535)
	}
	set, err := parse(text)
	if err != nil {
		return nil, nil, err
	}
	conds := []field.Cond{{Paths: ff.Paths, Set: set}}
	if ff.Proto != 0 {
		conds = append(conds, field.Cond{Paths: []string{"proto"}, Set: value.Single(uint64(ff.Proto))})
	}
	return conds, nil, nil
}

// single reports whether the flag's field has one value at a time, so that two
// different ones never hold both.
func single[T any](reg *field.Registry[T], ff *ct.Flag) bool {
	if len(ff.Paths) != 1 || ff.Paths[0] == "mark" {
		return false
	}
	row := reg.Row(ff.Paths[0])
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

// Looks reports whether the filter looks at a field.
func (c *Choice[T]) Looks(path string) bool { return c.fields[path] }

// Keep reports whether t was chosen.
func (c *Choice[T]) Keep(t *T) bool { return c.Match == nil || c.Match(t) }

// Flows compiles a filter of flows.
func Flows(o *Filter) (*Choice[ct.Flow], error) {
	return compile(ct.FlowFields, ct.FlowFlags, flowMakers, pattern.FlowPaths, o)
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
