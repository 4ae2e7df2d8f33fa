// Package filter compiles conditions on a subject's fields: expressions that
// users type, and neutral conditions that flags and patterns make.
//
// An expression has expr-lang's grammar, and our own checking and evaluation.
// Names are the JSON paths of the subject's registry. A quoted text beside a
// field is read by that field's own reader. An absent operand makes every
// comparison false, != too; "not" negates that; "tcp != nil" asks for presence.
// What is compiled are closures over the registry's typed loaders: nothing is
// boxed, nothing is allocated, and nothing can fail while packets wait.
package filter

import (
	"slices"
	"sync/atomic"

	"nfctl/internal/field"
)

// A Program is a compiled expression. It is safe for concurrent use.
type Program[T any] struct {
	text   string
	test   func(*T) bool
	conds  []field.Cond
	exact  bool
	fields []string
	faults *atomic.Uint64
}

// Compile reads an expression over the fields of a registry. Errors are of type
// *Error.
func Compile[T any](reg *field.Registry[T], text string) (p *Program[T], err error) {
	tree, err := parse(text)
	if err != nil {
		return nil, err
	}
	c := &compiler[T]{reg: reg, runes: []rune(text), faults: new(atomic.Uint64)}
	defer caught(&p, &err)
	p = &Program[T]{text: text, faults: c.faults, exact: true}
	var tests []func(*T) bool
	for _, n := range chain(tree.Node, isAnd) {
		o := c.condition(n)
		if o.cond != nil {
			p.conds = append(p.conds, *o.cond)
		} else {
			p.exact = false
		}
		tests = append(tests, o.test)
	}
	p.test = allOf(tests)
	p.fields = c.used
	return p, nil
}

// Match reports whether t satisfies the expression.
func (p *Program[T]) Match(t *T) bool { return p.test(t) }

// Text returns the expression as it was typed.
func (p *Program[T]) Text() string { return p.text }

// Faults returns how often a number could not be computed: a division by zero,
// or a result beyond 63 bits. The comparison is false then.
func (p *Program[T]) Faults() uint64 { return p.faults.Load() }

// Conds returns conditions that must all hold where the expression matches:
// those of its parts, joined by "and", that compare a field with literals. With
// exact they are all there is to the expression.
func (p *Program[T]) Conds() (conds []field.Cond, exact bool) { return p.conds, p.exact }

// Fields returns the paths that the expression uses, each once: fields, and
// groups whose presence it asks for.
func (p *Program[T]) Fields() []string { return slices.Clone(p.fields) }

// caught is c.fail's way out of a deep tree: deferred by whom compiles p, it makes an
// error of it.
func caught[P any](p **P, err *error) {
	switch e := recover().(type) {
	case nil:
	case *Error:
		*p, *err = nil, e
	default:
		panic(e)
	}
}
