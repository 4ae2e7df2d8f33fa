package filter

import (
	"math"
	"net/netip"

	"github.com/expr-lang/expr/ast"
)

// either makes one operand of two: a when cond holds, else b; without cond a
// when it is there, else b.
func (c *compiler[T]) either(n ast.Node, cond func(*T) bool, a, b *operand[T]) operand[T] {
	if a.typ == tLit && b.typ != tLit && b.row != nil {
		x := c.single(b, a)
		a = &x
	} else if b.typ == tLit && a.typ != tLit && a.row != nil {
		x := c.single(a, b)
		b = &x
	}
	bad := func(o *operand[T]) {
		if o.typ >= tFlags {
			c.fail(o.node, c.word(o.node), "is "+o.what()+": it cannot be chosen here", "")
		}
	}
	bad(a)
	bad(b)
	if a.numeric() != b.numeric() || !a.numeric() && a.typ != b.typ || a.isTime() != b.isTime() && a.typ == b.typ {
		c.fail(b.node, c.word(b.node), "is "+b.what()+", and the other choice "+a.what(), "")
	}
	c.sameNames(a, b)
	o := operand[T]{typ: a.typ, row: a.row}
	if o.row == nil {
		o.row = b.row
	}
	switch a.typ {
	case tBool:
		if a.num == nil && b.num == nil && cond != nil {
			x, y := a.test, b.test
			return boolean(func(t *T) bool {
				if cond(t) {
					return x(t)
				}
				return y(t)
			})
		}
		load := choose(cond, truth(a), truth(b))
		o = boolean(func(t *T) bool { n, ok := load(t); return ok && n != 0 })
		o.num = load
	case tAddr:
		o.addr = choose(cond, a.addr, b.addr)
	case tText:
		if a.fold != b.fold {
			c.fail(n, c.word(b.node), "is changed in one choice only", "write lower(A ?? B)")
		}
		o.data, o.fold = choose(cond, a.data, b.data), a.fold
	default:
		switch {
		case a.typ == tFloat || b.typ == tFloat || a.isTime() != b.isTime():
			o.typ, o.row, o.float = tFloat, nil, choose(cond, c.toFloat(a), c.toFloat(b))
		case a.typ == tNum && b.typ == tNum:
			o.num = choose(cond, a.num, b.num)
		case a.konst && a.lo >= 0 && b.typ == tNum, b.konst && b.lo >= 0 && a.typ == tNum:
			o.typ, o.num = tNum, choose(cond, unsigned(a), unsigned(b))
		default:
			o.typ, o.row, o.int = tInt, nil, choose(cond, c.toInt(a), c.toInt(b))
		}
	}
	return o
}

// truth sees a condition, or a field that is true or false, as 1 or 0.
func truth[T any](o *operand[T]) func(*T) (uint64, bool) {
	if o.num != nil {
		return o.num
	}
	test := o.test
	return func(t *T) (uint64, bool) {
		if test(t) {
			return 1, true
		}
		return 0, true
	}
}

// unsigned sees a field, or a literal that is not negative, as unsigned.
func unsigned[T any](o *operand[T]) func(*T) (uint64, bool) {
	if o.typ == tNum {
		return o.num
	}
	n := uint64(o.lo)
	return func(*T) (uint64, bool) { return n, true }
}

func choose[T, V any](cond func(*T) bool, a, b func(*T) (V, bool)) func(*T) (V, bool) {
	if cond == nil {
		return func(t *T) (V, bool) {
			if v, ok := a(t); ok {
				return v, true
			}
			return b(t)
		}
	}
	return func(t *T) (V, bool) {
		if cond(t) {
			return a(t)
		}
		return b(t)
	}
}

// sameNames refuses to bring numbers together that have different names.
func (c *compiler[T]) sameNames(a, b *operand[T]) {
	if a.typ == tNum && b.typ == tNum && a.row != nil && b.row != nil && a.row.Names != b.row.Names {
		c.fail(b.node, c.word(b.node), "is "+b.what()+", "+c.word(a.node)+" is "+a.what(), "")
	}
}

// single reads a literal as one value of what beside stands for.
func (c *compiler[T]) single(beside, lit *operand[T]) operand[T] {
	o := operand[T]{typ: beside.typ, node: lit.node, konst: true}
	set := c.read(beside, lit)
	switch {
	case beside.typ == tText && len(set.Texts) == 1 && !set.Not:
		d := []byte(set.Texts[0])
		o.data = func(*T) ([]byte, bool) { return d, true }
		return o
	case beside.typ == tAddr:
		if a, ok := set.Addr(); ok {
			o.addr = func(*T) (netip.Addr, bool) { return a, true }
			return o
		}
	case beside.numeric():
		if n, ok := set.Num(); ok && set.Mask == 0 && n <= math.MaxInt64 {
			x := constInt[T](int64(n))
			x.node = lit.node
			return x
		}
	}
	c.fail(lit.node, lit.text, "stands for more than one value", "one value here")
	panic("unreachable")
}
