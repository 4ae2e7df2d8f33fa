package table

import (
	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/filter"
	"nfctl/internal/pattern"
)

// A Watch is which objects of one kind a watch shows, and which ends it.
type Watch[T any] struct {
	Conds []field.Cond  // what must hold, as far as conditions say it
	Show  func(*T) bool // nil: all
	Until func(*T) bool // nil: none
	Fail  func(*T) bool // ends it as a failure; nil: none
}

// Ends are the expressions that end a watch; "": none.
type Ends struct{ Until, FailIf string }

// WatchFlows reads which flows a watch shows, and the expressions that end it.
func WatchFlows(o *Filter, ends Ends) (w Watch[ct.Flow], err error) {
	c, err := Flows(o)
	if err != nil {
		return w, err
	}
	if c.Looks("idle") {
		return w, Usagef("--filter: idle is known of flows that are listed, not of events: see 'nfctl help timeouts'")
	}
	return watchOf(ct.FlowFields, c, ends)
}

// WatchExpects is WatchFlows for expectations.
func WatchExpects(o *Filter, ends Ends) (w Watch[ct.Expect], err error) {
	c, err := Expects(o)
	if err != nil {
		return w, err
	}
	if c.Looks("zone") {
		return w, Usagef("zone: events of expectations do not tell it; 'nfctl expect list' does")
	}
	return watchOf(ct.ExpectFields, c, ends)
}

func watchOf[T any](reg *field.Registry[T], c *Choice[T], ends Ends) (Watch[T], error) {
	out := Watch[T]{Conds: c.conds, Show: c.Match}
	for _, end := range []struct {
		flag, text string
		to         *func(*T) bool
	}{{"--until", ends.Until, &out.Until}, {"--fail-if", ends.FailIf, &out.Fail}} {
		if end.text == "" {
			continue
		}
		p, err := filter.Compile(reg, end.text)
		if err != nil {
			return out, Named(end.flag, err)
		}
		*end.to = p.Match
	}
	return out, nil
}

// WatchBoth reads which flows and expectations a watch of both shows: a flow in words
// is about either; expressions know the fields of both. It may be used by one
// goroutine.
func WatchBoth(o *Filter, ends Ends) (flows Watch[ct.Flow], expects Watch[ct.Expect], err error) {
	reg := eitherFields()
	c, err := compile(reg, nil, nil, pattern.Paths{}, &Filter{Given: o.Given, Exprs: o.Exprs, Labelmap: o.Labelmap})
	if err != nil {
		return flows, expects, err
	}
	both, err := watchOf(reg, c, ends)
	if err != nil {
		return flows, expects, err
	}
	e := &either{} // reused
	ofFlow := func(test func(*either) bool) func(*ct.Flow) bool {
		if test == nil {
			return nil
		}
		return func(f *ct.Flow) bool { e.flow, e.expect = f, nil; return test(e) }
	}
	ofExpect := func(test func(*either) bool) func(*ct.Expect) bool {
		if test == nil {
			return nil
		}
		return func(x *ct.Expect) bool { e.flow, e.expect = nil, x; return test(e) }
	}
	flows = Watch[ct.Flow]{both.Conds, ofFlow(both.Show), ofFlow(both.Until), ofFlow(both.Fail)}
	expects = Watch[ct.Expect]{both.Conds, ofExpect(both.Show), ofExpect(both.Until), ofExpect(both.Fail)}
	if o.Pattern == "" {
		return flows, expects, nil
	}
	p, err := pattern.Parse(o.Pattern)
	if err != nil {
		return flows, expects, err
	}
	conds, err := p.Conds(pattern.FlowPaths)
	if err != nil {
		return flows, expects, err
	}
	flow, err := filter.Conds(ct.FlowFields, conds...)
	if err != nil {
		return flows, expects, err
	}
	tuple, err := expectTest(p, ExpectPaths("tuple"))
	if err != nil {
		return flows, expects, err
	}
	master, err := expectTest(p, ExpectPaths("master"))
	if err != nil {
		return flows, expects, err
	}
	flows.Show, flows.Conds = And(flow, flows.Show), append(conds, flows.Conds...)
	expects.Show = And(func(x *ct.Expect) bool { return tuple(x) || master(x) }, expects.Show)
	return flows, expects, nil
}

func expectTest(p *pattern.Pattern, paths pattern.Paths) (func(*ct.Expect) bool, error) {
	conds, err := p.Conds(paths)
	if err != nil {
		return nil, err
	}
	return filter.Conds(ct.ExpectFields, conds...)
}

// either is a flow or an expectation: what the expressions of a watch of both are
// about.
type either struct {
	flow   *ct.Flow
	expect *ct.Expect
}

// eitherFields returns the fields of flows and those of expectations. One that
// both have, of the same kind, is one field.
func eitherFields() *field.Registry[either] {
	rows := field.Lift("", ct.FlowFields.Rows(), func(e *either) *ct.Flow { return e.flow })
	at := make(map[string]int, len(rows))
	for i := range rows {
		rows[i].Part = nil
		at[rows[i].Path] = i
	}
	for _, x := range field.Lift("", ct.ExpectFields.Rows(), func(e *either) *ct.Expect { return e.expect }) {
		x.Part = nil
		i, both := at[x.Path]
		if !both {
			rows = append(rows, x)
			continue
		}
		r := &rows[i]
		r.Num, r.IP, r.Data = ofEither(r.Num, x.Num), ofEither(r.IP, x.IP), ofEither(r.Data, x.Data)
		r.Aliases = append(r.Aliases[:len(r.Aliases):len(r.Aliases)], x.Aliases...)
	}
	return field.New(func() []field.Row[either] { return rows })
}

// ofEither joins two loaders of one field: what a has, or else b.
func ofEither[V any](a, b func(*either) (V, bool)) func(*either) (V, bool) {
	if a == nil || b == nil {
		return a
	}
	return func(e *either) (V, bool) {
		if e.flow != nil {
			return a(e)
		}
		return b(e)
	}
}
