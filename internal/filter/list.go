package filter

import (
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// search compiles contains, startsWith, endsWith and matches.
func (c *compiler[T]) search(n *ast.BinaryNode) operand[T] {
	a, b := c.expr(n.Left), c.expr(n.Right)
	a = c.toText(&a, n.Operator)
	if b.typ != tLit {
		c.fail(b.node, c.word(b.node), "is "+b.what(), n.Operator+" wants a quoted text")
	}
	load, f, want := a.data, a.fold, []byte(b.text)
	var test func([]byte) bool
	switch n.Operator {
	case "matches":
		re, err := regexp.Compile(b.text)
		if err != nil {
			why := ""
			if se, ok := errors.AsType[*syntax.Error](err); ok {
				why = se.Code.String()
			}
			c.fail(b.node, b.text, "is not a regular expression", why)
		}
		if f != nil {
			c.fail(n.Left, c.word(n.Left), "does not go with matches", `write matches "(?i)…"`)
		}
		test = re.Match
	case "contains":
		test = func(d []byte) bool { return contains(d, f, want) }
	case "startsWith":
		test = func(d []byte) bool { return hasPrefix(d, f, want) }
	case "endsWith":
		test = func(d []byte) bool { return hasSuffix(d, f, want) }
	}
	if n.Operator != "matches" && f != nil {
		for _, x := range want {
			if f[x] != x {
				c.fail(b.node, b.text, "is never in what "+c.word(n.Left)+" makes", "")
			}
		}
	}
	if a.konst {
		d, _ := load(nil)
		return constBool[T](test(d))
	}
	return boolean(func(t *T) bool { d, ok := load(t); return ok && test(d) })
}

func (c *compiler[T]) function(n *ast.BuiltinNode) operand[T] {
	if !slices.Contains(functions, n.Name) {
		panic(&Error{Column: start(n) + 1, Word: n.Name, Msg: "is not a function",
			Near:  value.Nearest(n.Name, functions),
			Valid: "there are " + strings.Join(functions, ", ")})
	}
	switch n.Name {
	case "any", "all", "none":
		return c.quantifier(n)
	}
	if len(n.Arguments) != 1 {
		c.fail(n, n.Name, fmt.Sprintf("is given %d values", len(n.Arguments)), "one, as "+n.Name+"(payload)")
	}
	o := c.expr(n.Arguments[0])
	if n.Name == "len" {
		return c.length(&o)
	}
	o = c.toText(&o, n.Name)
	o.fold, o.plain = lowerFold.Get(), false
	if n.Name == "upper" {
		o.fold = upperFold.Get()
	}
	return o
}

func (c *compiler[T]) length(o *operand[T]) operand[T] {
	out := operand[T]{typ: tInt}
	switch o.typ {
	case tFlags:
		load := o.num
		out.int = func(t *T) (int64, bool) { n, ok := load(t); return int64(bits.OnesCount64(n)), ok }
	case tBits:
		load := o.data
		out.int = func(t *T) (int64, bool) {
			d, ok := load(t)
			var n int
			for _, b := range d {
				n += bits.OnesCount8(b)
			}
			return int64(n), ok
		}
	default:
		x := c.toText(o, "len")
		load := x.data
		if x.konst {
			d, _ := load(nil)
			return constInt[T](int64(len(d)))
		}
		out.int = func(t *T) (int64, bool) { d, ok := load(t); return int64(len(d)), ok }
	}
	return out
}

// elements returns the name of each bit that a list field can hold.
func elements[T any](row *field.Row[T]) []string {
	var out []string
	if row.Kind == field.Bits {
		for i := 0; uint64(i) <= min(row.Limit(), 1023); i++ {
			s := ""
			if row.Bit != nil {
				s = row.Bit(i)
			}
			if s == "" {
				s = strconv.Itoa(i)
			}
			out = append(out, s)
		}
		return out
	}
	for i := range bits.Len64(row.Limit()) {
		s := ""
		if row.Names != nil {
			s = row.Names.Word(1 << i)
		}
		if s == "" {
			s = string(value.AppendHex(nil, 1<<i))
		}
		out = append(out, s)
	}
	return out
}

// quantifier compiles any, all and none. The body is compiled once for each
// element that the list could hold, with # standing for that one's name: a body
// that looks at # alone is decided then and there.
func (c *compiler[T]) quantifier(n *ast.BuiltinNode) operand[T] {
	if c.elem != nil {
		c.fail(n, n.Name, "stands inside another list", "")
	}
	list := c.expr(n.Arguments[0])
	if list.typ != tFlags && list.typ != tBits {
		c.fail(list.node, c.word(list.node), "is "+list.what()+", not a list", "")
	}
	body := n.Arguments[1].(*ast.PredicateNode).Node
	var tests []func(*T) bool
	for _, name := range elements(list.row) {
		d := []byte(name)
		c.elem = &operand[T]{typ: tText, konst: true, text: name, row: list.row, data: func(*T) ([]byte, bool) {
			return d, true
		}}
		tests = append(tests, c.condition(body).test)
	}
	c.elem = nil
	// all: no bit is set whose test fails; none: no bit whose test holds.
	want, found := n.Name != "all", n.Name == "any"
	return c.quantify(&list, tests, want, found)
}

// quantify answers found when a set bit's test gives want, and else the
// opposite. An absent list answers false.
func (c *compiler[T]) quantify(list *operand[T], tests []func(*T) bool, want, found bool) operand[T] {
	hit := func(t *T, i int) bool { return i < len(tests) && tests[i](t) == want }
	if load := list.num; list.typ == tFlags {
		return boolean(func(t *T) bool {
			n, ok := load(t)
			if !ok {
				return false
			}
			for ; n != 0; n &= n - 1 {
				if hit(t, bits.TrailingZeros64(n)) {
					return found
				}
			}
			return !found
		})
	}
	load := list.data
	return boolean(func(t *T) bool {
		d, ok := load(t)
		if !ok {
			return false
		}
		for k, b := range d {
			for ; b != 0; b &= b - 1 {
				if hit(t, 8*k+bits.TrailingZeros8(b)) {
					return found
				}
			}
		}
		return !found
	})
}
