package filter

import (
	"cmp"
	"math"
	"math/bits"

	"github.com/expr-lang/expr/ast"

	"nfctl/internal/field"
)

func (o *operand[T]) numeric() bool { return o.typ == tNum || o.typ == tInt || o.typ == tFloat }

func constInt[T any](n int64) operand[T] {
	return operand[T]{typ: tInt, konst: true, lo: n, int: func(*T) (int64, bool) { return n, true }}
}

func constFloat[T any](n float64) operand[T] {
	return operand[T]{typ: tFloat, konst: true, float: func(*T) (float64, bool) { return n, true }}
}

func constBool[T any](b bool) operand[T] {
	return operand[T]{typ: tBool, konst: true, test: func(*T) bool { return b }}
}

func boolean[T any](test func(*T) bool) operand[T] { return operand[T]{typ: tBool, test: test} }

// toInt makes a signed number of a number; what does not fit is a fault.
func (c *compiler[T]) toInt(o *operand[T]) func(*T) (int64, bool) {
	if o.typ == tInt {
		return o.int
	}
	load, faults := o.num, c.faults
	return func(t *T) (int64, bool) {
		n, ok := load(t)
		if n > math.MaxInt64 && ok {
			faults.Add(1)
			return 0, false
		}
		return int64(n), ok
	}
}

// toFloat makes a float of a number. Times count in seconds there.
func (c *compiler[T]) toFloat(o *operand[T]) func(*T) (float64, bool) {
	switch o.typ {
	case tFloat:
		return o.float
	case tInt:
		load := o.int
		return func(t *T) (float64, bool) { n, ok := load(t); return float64(n), ok }
	}
	load, unit := o.num, 1.0
	if o.isTime() {
		unit = 1e9
	}
	return func(t *T) (float64, bool) { n, ok := load(t); return float64(n) / unit, ok }
}

func (o *operand[T]) isTime() bool {
	return o.typ == tNum && o.row != nil && o.row.Kind == field.Time
}

// toText sees an operand as a text: a text, or the name of a number that has
// names.
func (c *compiler[T]) toText(o *operand[T], op string) operand[T] {
	switch {
	case o.typ == tText:
		return *o
	case o.typ == tNum && o.row != nil && o.row.Kind == field.Enum && o.row.Names != nil:
		load, names := o.num, o.row.Names
		var small [256][]byte
		for i := range small {
			small[i] = names.Append(nil, uint64(i))
		}
		return operand[T]{typ: tText, node: o.node, data: func(t *T) ([]byte, bool) {
			n, ok := load(t)
			if !ok {
				return nil, false
			}
			if n < 256 {
				return small[n], true
			}
			return names.Append(nil, n), true
		}}
	}
	valid := "only texts are searched"
	switch o.typ {
	case tFlags, tBits:
		valid = `write "NAME" in ` + c.word(o.node)
	case tAddr:
		valid = `write ` + c.word(o.node) + ` in "10.0.0.0/8"`
	case tLit:
		valid = "the field comes first, as payload contains \"text\""
	case tGroup:
		valid = "name one of its fields"
	}
	c.fail(o.node, c.word(o.node), "is "+o.what()+": no "+op, valid)
	panic("unreachable")
}

func (c *compiler[T]) wantNumber(o *operand[T], op string) {
	if o.numeric() && !o.isName() {
		return
	}
	valid := ""
	switch o.typ {
	case tLit:
		valid = "a number computed with has no quotes"
	case tGroup:
		valid = "name one of its fields"
	}
	c.fail(o.node, c.word(o.node), "is "+o.what()+": no "+op, valid)
}

func (c *compiler[T]) arithmetic(n ast.Node, op string, a, b *operand[T]) operand[T] {
	o := operand[T]{konst: a.konst && b.konst}
	faults := c.faults
	if op == "/" || op != "%" && (a.typ == tFloat || b.typ == tFloat || a.isTime() || b.isTime()) {
		x, y := c.toFloat(a), c.toFloat(b)
		o.typ = tFloat
		o.float = func(t *T) (float64, bool) {
			m, ok1 := x(t)
			n, ok2 := y(t)
			if !ok1 || !ok2 {
				return 0, false
			}
			switch op[0] {
			case '+':
				m += n
			case '-':
				m -= n
			case '*':
				m *= n
			case '/':
				m /= n
			}
			if math.IsInf(m, 0) || math.IsNaN(m) {
				faults.Add(1)
				return 0, false
			}
			return m, true
		}
	} else {
		for _, x := range []*operand[T]{a, b} {
			if x.typ == tFloat || x.isTime() {
				c.fail(x.node, c.word(x.node), "is not a whole number: no %", "")
			}
		}
		x, y, f := c.toInt(a), c.toInt(b), intOp(op[0])
		o.typ = tInt
		o.int = func(t *T) (int64, bool) {
			m, ok1 := x(t)
			n, ok2 := y(t)
			if !ok1 || !ok2 {
				return 0, false
			}
			v, ok := f(m, n)
			if !ok {
				faults.Add(1)
			}
			return v, ok
		}
	}
	if !o.konst {
		return o
	}
	ok := false
	if o.typ == tFloat {
		var v float64
		if v, ok = o.float(nil); ok {
			return constFloat[T](v)
		}
	} else if o.lo, ok = o.int(nil); ok {
		return constInt[T](o.lo)
	}
	faults.Store(0)
	c.fail(n, op, "cannot be computed", "")
	panic("unreachable")
}

// intOp computes with integers; false: the result does not fit 64 bits.
func intOp(op byte) func(a, b int64) (int64, bool) {
	switch op {
	case '+':
		return func(a, b int64) (int64, bool) { s := a + b; return s, (s > a) == (b > 0) }
	case '-':
		return func(a, b int64) (int64, bool) { s := a - b; return s, (s < a) == (b > 0) }
	case '*':
		return func(a, b int64) (int64, bool) {
			hi, lo := bits.Mul64(magnitude(a), magnitude(b))
			return a * b, hi == 0 && (lo <= math.MaxInt64 || lo == 1<<63 && (a < 0) != (b < 0))
		}
	case '%':
		return func(a, b int64) (int64, bool) {
			if b == 0 {
				return 0, false
			}
			return a % b, true
		}
	}
	return nil
}

func magnitude(a int64) uint64 {
	if a < 0 {
		return -uint64(a)
	}
	return uint64(a)
}

func (c *compiler[T]) compareNum(op string, a, b *operand[T]) func(*T) bool {
	switch {
	case a.typ == tFloat || b.typ == tFloat || a.isTime() != b.isTime():
		return compare(op, c.toFloat(a), c.toFloat(b))
	case a.typ == tNum && b.typ == tNum:
		return compare(op, a.num, b.num)
	}
	return compare(op, c.toInt(a), c.toInt(b))
}

func compare[T any, V cmp.Ordered](op string, a, b func(*T) (V, bool)) func(*T) bool {
	both := func(t *T, f func(x, y V) bool) bool {
		x, ok1 := a(t)
		y, ok2 := b(t)
		return ok1 && ok2 && f(x, y)
	}
	f := map[string]func(x, y V) bool{
		"==": func(x, y V) bool { return x == y },
		"!=": func(x, y V) bool { return x != y },
		"<":  func(x, y V) bool { return x < y },
		"<=": func(x, y V) bool { return x <= y },
		">":  func(x, y V) bool { return x > y },
		">=": func(x, y V) bool { return x >= y },
	}[op]
	return func(t *T) bool { return both(t, f) }
}

func compareTexts[T any](op string, a, b *operand[T]) func(*T) bool {
	x, y, fa, fb := a.data, b.data, a.fold, b.fold
	return compare(op, func(t *T) (int, bool) {
		m, ok1 := x(t)
		n, ok2 := y(t)
		return compareText(m, fa, n, fb), ok1 && ok2
	}, func(*T) (int, bool) { return 0, true })
}
