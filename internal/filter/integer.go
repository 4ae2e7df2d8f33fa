package filter

import (
	"math"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// An Integer is a compiled computation with whole numbers, as ip.ttl + 1. It is
// safe for concurrent use.
type Integer[T any] struct {
	load   func(*T) (int64, bool)
	fields []string
}

// CompileInteger reads a computation over the number fields of a registry: + - * /,
// of which / gives a whole number, min, max and parentheses. Errors are of type
// *Error.
func CompileInteger[T any](reg *field.Registry[T], text string) (p *Integer[T], err error) {
	tree, err := parse(text)
	if err != nil {
		return nil, err
	}
	c := &compiler[T]{reg: reg, runes: []rune(text)}
	defer caught(&p, &err)
	return &Integer[T]{c.integer(tree.Node), c.used}, nil
}

// Value computes the number for t. What is beyond 64 bits becomes the largest or
// the smallest number of them. ok is false where t lacks a field, or a divisor is 0.
func (p *Integer[T]) Value(t *T) (n int64, ok bool) { return p.load(t) }

// Fields returns the paths that are used, each once.
func (p *Integer[T]) Fields() []string { return slices.Clone(p.fields) }

// integerForm is what a computation may be made of.
const integerForm = "whole numbers, number fields, + - * /, min and max"

func (c *compiler[T]) integer(n ast.Node) func(*T) (int64, bool) {
	switch n := n.(type) {
	case *ast.IntegerNode:
		v, err := parseInt(c.word(n)) // not n.Value: smallNumbers
		if err != nil {
			c.fail(n, c.word(n), "is not a number", "")
		}
		return func(*T) (int64, bool) { return v, true }
	case *ast.IdentifierNode, *ast.MemberNode:
		o := c.field(n)
		if o.typ != tNum || o.row.Kind != field.Uint {
			c.fail(n, c.word(n), "is "+o.what()+", not a number", integerForm)
		}
		load := o.num
		return func(t *T) (int64, bool) {
			n, ok := load(t)
			return int64(min(n, math.MaxInt64)), ok
		}
	case *ast.UnaryNode:
		if n.Operator == "-" || n.Operator == "+" {
			x := c.integer(n.Node)
			if n.Operator == "+" {
				return x
			}
			return integers(func(*T) (int64, bool) { return 0, true }, x, saturated('-'))
		}
		c.fail(n, n.Operator, "is not used here", integerForm)
	case *ast.BinaryNode:
		var f func(a, b int64) (int64, bool)
		switch n.Operator {
		case "+", "-", "*":
			f = saturated(n.Operator[0])
		case "/":
			if zero, ok := n.Right.(*ast.IntegerNode); ok && zero.Value == 0 {
				c.fail(zero, c.word(zero), "is no divisor", "")
			}
			f = func(a, b int64) (int64, bool) {
				switch {
				case b == 0:
					return 0, false
				case a == math.MinInt64 && b == -1:
					return math.MaxInt64, true
				}
				return a / b, true
			}
		default:
			c.fail(n, n.Operator, "is not used here", integerForm)
		}
		return integers(c.integer(n.Left), c.integer(n.Right), f)
	case *ast.BuiltinNode:
		f := func(a, b int64) (int64, bool) { return min(a, b), true }
		switch n.Name {
		case "min":
		case "max":
			f = func(a, b int64) (int64, bool) { return max(a, b), true }
		default:
			c.fail(n, n.Name, "is not used here", integerForm)
		}
		if len(n.Arguments) < 2 {
			given := [...]string{"is given no value", "is given one value"}[len(n.Arguments)]
			c.fail(n, n.Name, given, "two or more, as "+n.Name+"(tcp.mss, 1200)")
		}
		x := c.integer(n.Arguments[0])
		for _, a := range n.Arguments[1:] {
			x = integers(x, c.integer(a), f)
		}
		return x
	case *ast.CallNode:
		name, _ := path(n.Callee)
		near := value.Nearest(strings.ToLower(name), []string{"min", "max"})
		panic(&Error{Column: start(n) + 1, Word: name, Msg: "is not a function", Near: near,
			Valid: "there are min and max"})
	}
	c.fail(n, c.word(n), "is not a whole number", integerForm)
	panic("unreachable")
}

// integers computes with two numbers, both of which must be there.
func integers[T any](x, y func(*T) (int64, bool), f func(a, b int64) (int64, bool)) func(*T) (int64, bool) {
	return func(t *T) (int64, bool) {
		a, ok1 := x(t)
		b, ok2 := y(t)
		if !ok1 || !ok2 {
			return 0, false
		}
		return f(a, b)
	}
}

// saturated computes +, - or *; what 64 bits do not hold becomes their bound.
func saturated(op byte) func(a, b int64) (int64, bool) {
	exact := intOp(op)
	return func(a, b int64) (int64, bool) {
		v, ok := exact(a, b)
		if ok {
			return v, true
		}
		negative := a < 0 // of + and -, where it leaves 64 bits, the first tells
		if op == '*' {
			negative = (a < 0) != (b < 0)
		}
		if negative {
			return math.MinInt64, true
		}
		return math.MaxInt64, true
	}
}
