package filter

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// flip returns the operator that says the same with its sides exchanged.
func flip(op string) string {
	switch op[0] {
	case '<':
		return ">" + op[1:]
	case '>':
		return "<" + op[1:]
	}
	return op
}

func (c *compiler[T]) compare(n ast.Node, op string, a, b *operand[T]) operand[T] {
	if b.typ != tNil && (a.konst && !b.konst || a.typ == tNil) {
		a, b, op = b, a, flip(op)
	}
	equal := op == "==" || op == "!="
	switch {
	case b.typ == tNil:
		return c.presence(n, op, a)
	case a.typ == tGroup:
		c.fail(a.node, c.word(a.node), "is a group of fields", nameAField)
	case b.typ == tGroup:
		c.fail(b.node, c.word(b.node), "is a group of fields", nameAField)
	case b.typ == tRange:
		c.fail(b.node, "..", "is a range", "write in 1..10")
	case a.typ == tFlags && equal && (b.typ == tArray || b.typ == tInt) && b.konst:
		return c.exactFlags(op, a, b)
	case a.typ == tFlags || a.typ == tBits:
		c.fail(a.node, c.word(a.node), "is a list", `write "NAME" in `+c.word(a.node))
	case b.typ == tFlags || b.typ == tBits:
		c.fail(b.node, c.word(b.node), "is a list", `write "NAME" in `+c.word(b.node))
	case a.typ == tArray || b.typ == tArray:
		x := a
		if b.typ == tArray {
			x = b
		}
		c.fail(x.node, "[", "begins a list", "write in [1, 2]")
	case a.konst && b.konst:
		return c.constant(n, op, a, b)
	case b.konst:
		return c.literal(op, a, b)
	}
	switch {
	case a.typ == tBool && b.typ == tBool:
		if !equal {
			c.fail(n, op, "does not order true and false", "there are == and !=")
		}
		return boolean(compare(op, truth(a), truth(b)))
	case a.numeric() && b.numeric():
		c.sameNames(a, b)
		if a.isName() != b.isName() || a.isTime() != b.isTime() && (a.typ == tNum && b.typ == tNum) {
			c.fail(b.node, c.word(b.node), "is "+b.what()+", "+c.word(a.node)+" is "+a.what(), "")
		}
		return boolean(c.compareNum(op, a, b))
	case a.typ == tAddr && b.typ == tAddr:
		if !equal {
			c.fail(n, op, "does not order addresses", "there are ==, != and in")
		}
		x, y, not := a.addr, b.addr, op == "!="
		return boolean(func(t *T) bool {
			m, ok1 := x(t)
			n, ok2 := y(t)
			return ok1 && ok2 && (m == n) != not
		})
	case (a.typ == tText || b.typ == tText) && (a.typ == tText || a.isName()) && (b.typ == tText || b.isName()):
		x, y := c.toText(a, op), c.toText(b, op)
		return boolean(compareTexts(op, &x, &y))
	}
	c.fail(b.node, c.word(b.node), "is "+b.what()+", "+c.word(a.node)+" is "+a.what(), "")
	panic("unreachable")
}

func (o *operand[T]) isName() bool {
	return o.typ == tNum && o.row != nil && o.row.Kind == field.Enum && o.row.Names != nil
}

func (c *compiler[T]) presence(n ast.Node, op string, a *operand[T]) operand[T] {
	if op != "==" && op != "!=" {
		c.fail(n, op, "does not go with nil", "there are == nil and != nil")
	}
	var has func(*T) bool
	switch {
	case a.typ == tGroup:
		has = a.test
	case a.konst || a.typ == tBool && a.num == nil || a.typ == tNil:
		c.fail(a.node, c.word(a.node), "is always there", "ask for a field: tcp != nil")
	case a.num != nil:
		load := a.num
		has = func(t *T) bool { _, ok := load(t); return ok }
	case a.int != nil:
		load := a.int
		has = func(t *T) bool { _, ok := load(t); return ok }
	case a.float != nil:
		load := a.float
		has = func(t *T) bool { _, ok := load(t); return ok }
	case a.addr != nil:
		load := a.addr
		has = func(t *T) bool { _, ok := load(t); return ok }
	default:
		load := a.data
		has = func(t *T) bool { _, ok := load(t); return ok }
	}
	if op == "!=" {
		return boolean(has)
	}
	return boolean(func(t *T) bool { return !has(t) })
}

// constant compares two literals: numbers, conditions, and the element of a list
// with a name.
func (c *compiler[T]) constant(n ast.Node, op string, a, b *operand[T]) operand[T] {
	switch {
	case a.numeric() && b.numeric():
		return constBool[T](c.compareNum(op, a, b)(nil))
	case a.typ == tBool && b.typ == tBool && (op == "==" || op == "!="):
		return constBool[T]((a.test(nil) == b.test(nil)) == (op == "=="))
	case a.typ == tLit && b.typ == tText:
		a, b, op = b, a, flip(op)
		fallthrough
	case a.typ == tText && b.typ == tLit:
		return c.literal(op, a, b)
	case a.typ == tText && b.typ == tText:
		return constBool[T](compareTexts(op, a, b)(nil))
	}
	for _, o := range [][2]*operand[T]{{a, b}, {b, a}} {
		if o[0].typ == tText {
			c.fail(o[1].node, c.literalText(o[1]), "is "+o[1].what()+", # is a text", "")
		}
	}
	c.fail(b.node, c.word(b.node), "is compared with another literal", "one side is a field")
	panic("unreachable")
}

// read reads a literal beside an operand: as its field's reader does.
func (c *compiler[T]) read(a, lit *operand[T]) value.Set {
	row := a.row
	switch {
	case lit.typ == tLit && a.typ == tText:
		if row != nil && row.Parse != nil && a.fold == nil {
			set, err := row.ParseSet(lit.text)
			if err != nil {
				c.failValue(lit.node, lit.text, err)
			}
			return set
		}
		if a.fold != nil {
			for i := range len(lit.text) {
				if a.fold[lit.text[i]] != lit.text[i] {
					c.fail(lit.node, lit.text, "is never equal to what "+c.word(a.node)+" makes", "")
				}
			}
		}
		return value.Set{Texts: []string{lit.text}}
	case lit.typ == tLit && row != nil:
		set, err := row.ParseSet(lit.text)
		if err != nil {
			c.failValue(lit.node, lit.text, err)
		}
		return set
	case lit.typ == tLit:
		c.fail(lit.node, lit.text, "is a text, beside "+a.what()+" that is computed", "a plain number")
	case lit.typ == tInt && a.isTime():
		set, err := row.ParseSet(strconv.FormatInt(lit.lo, 10))
		if err != nil {
			c.failValue(lit.node, c.literalText(lit), err)
		}
		return set
	case lit.typ == tInt && a.typ == tNum:
		limit := uint64(math.MaxUint64)
		if row != nil {
			limit = row.Limit()
		}
		if lit.lo < 0 || uint64(lit.lo) > limit {
			valid := "a number from 0 to " + strconv.FormatUint(limit, 10)
			if limit == 0 {
				valid = "a name"
			}
			c.fail(lit.node, c.literalText(lit), "is out of range for "+c.word(a.node), valid)
		}
		return value.Single(uint64(lit.lo))
	case lit.typ == tFloat && a.typ == tNum:
		c.fail(lit.node, c.literalText(lit), "is not a whole number", c.word(a.node)+" holds whole numbers")
	case lit.typ == tBool && a.typ == tBool:
		if lit.test(nil) {
			return value.Single(1)
		}
		return value.Single(0)
	}
	c.fail(lit.node, c.literalText(lit), "is "+lit.what()+", "+c.word(a.node)+" is "+a.what(), "")
	panic("unreachable")
}

// literalText is a literal as typed, or the value of a computed one.
func (c *compiler[T]) literalText(o *operand[T]) string {
	switch o.node.(type) {
	case *ast.UnaryNode, *ast.BinaryNode:
		if o.typ == tInt {
			return strconv.FormatInt(o.lo, 10)
		}
	}
	return c.word(o.node)
}

// literal compares an operand with a literal.
func (c *compiler[T]) literal(op string, a, b *operand[T]) operand[T] {
	equal := op == "==" || op == "!="
	switch {
	case a.typ == tBool && b.typ == tBool && !a.plain:
		if !equal {
			c.fail(b.node, op, "does not order true and false", "there are == and !=")
		}
		return boolean(compare(op, truth(a), truth(b)))
	case a.numeric() && a.typ != tNum && b.numeric():
		return boolean(c.compareNum(op, a, b))
	case b.typ == tText: // the element of a list
		if a.typ != tText && !a.isName() {
			c.fail(a.node, c.word(a.node), "is "+a.what()+", "+c.word(b.node)+" is a text", "")
		}
		x := c.toText(a, op)
		return boolean(compareTexts(op, &x, b))
	case a.typ == tText && a.konst && a.row != nil:
		return c.element(op, a, b)
	}
	set := c.read(a, b)
	if equal {
		if op == "!=" {
			set.Not = !set.Not
		}
		return c.member(a, set)
	}
	switch a.typ {
	case tAddr, tBool:
		c.fail(b.node, c.literalText(b), "is not ordered: "+a.what(), "there are ==, != and in")
	case tText:
		if len(set.Texts) != 1 || set.Not {
			c.fail(b.node, b.text, "stands for more than one value", "one value after "+op)
		}
		x := operand[T]{typ: tText, node: b.node}
		d := []byte(set.Texts[0])
		x.data = func(*T) ([]byte, bool) { return d, true }
		return boolean(compareTexts(op, a, &x))
	}
	n, ok := set.Num()
	if !ok || set.Mask != 0 {
		c.fail(b.node, c.literalText(b), "stands for more than one value", "one value after "+op)
	}
	if a.isName() && b.typ == tLit {
		c.fail(b.node, b.text, "is a name, and names are not ordered", "there are ==, != and in")
	}
	limit := a.row.Limit()
	var r value.Range
	switch op {
	case "<":
		if n == 0 {
			return constBool[T](false)
		}
		r = value.Range{Lo: 0, Hi: n - 1}
	case "<=":
		r = value.Range{Lo: 0, Hi: n}
	case ">":
		if n == limit {
			return constBool[T](false)
		}
		r = value.Range{Lo: n + 1, Hi: limit}
	case ">=":
		r = value.Range{Lo: n, Hi: limit}
	}
	return c.member(a, value.Set{Nums: []value.Range{r}})
}

// member tests an operand against a set; of a field that is a neutral condition
// too.
func (c *compiler[T]) member(a *operand[T], set value.Set) operand[T] {
	var o operand[T]
	switch {
	case a.typ == tAddr:
		o = boolean(memberAddr(a.addr, set))
	case a.typ == tText && a.fold != nil:
		o = boolean(memberFolded(a, set))
	case a.typ == tText:
		o = boolean(memberText(a.data, set))
	case a.typ == tBits:
		o = boolean(memberBits(a.data, set))
	default:
		limit := uint64(math.MaxUint64)
		if a.row != nil {
			limit = a.row.Limit()
		}
		o = boolean(memberNum(a.num, set, limit))
	}
	if a.plain && a.fold == nil {
		o.cond = &field.Cond{Paths: []string{a.row.Path}, Set: set}
	}
	return o
}

func memberFolded[T any](a *operand[T], set value.Set) func(*T) bool {
	load, f, not := a.data, a.fold, set.Not
	texts := make([][]byte, len(set.Texts))
	for i, s := range set.Texts {
		texts[i] = []byte(s)
	}
	return func(t *T) bool {
		d, ok := load(t)
		if !ok {
			return false
		}
		for _, s := range texts {
			if len(s) == len(d) && hasPrefix(d, f, s) {
				return !not
			}
		}
		return not
	}
}

// element compares the element of a list with a name, which must be one that the
// list could hold.
func (c *compiler[T]) element(op string, a, b *operand[T]) operand[T] {
	if b.typ != tLit {
		c.fail(b.node, c.literalText(b), "is "+b.what()+", # is a text", "")
	}
	word := b.text
	if a.fold == nil && (op == "==" || op == "!=") {
		set, err := a.row.ParseSet(b.text)
		if err != nil {
			c.failValue(b.node, b.text, err)
		}
		names := elements(a.row)
		i := slices.IndexFunc(names, func(s string) bool { return strings.EqualFold(s, b.text) })
		if i < 0 || set.Not {
			c.fail(b.node, b.text, "is not the name of one element", "")
		}
		word = names[i]
	}
	x := operand[T]{typ: tText, data: func(*T) ([]byte, bool) { return []byte(word), true }}
	return constBool[T](compareTexts(op, a, &x)(nil))
}

// exactFlags compares all bits of a number: with the list of their names, or
// with a number.
func (c *compiler[T]) exactFlags(op string, a, b *operand[T]) operand[T] {
	var want uint64
	if b.typ == tInt {
		if b.lo < 0 || uint64(b.lo) > a.row.Limit() {
			c.fail(b.node, c.literalText(b), "is out of range for "+c.word(a.node),
				"a number from 0 to "+strconv.FormatUint(a.row.Limit(), 10))
		}
		want = uint64(b.lo)
	}
	for i := range b.elems {
		e := &b.elems[i]
		if e.typ != tLit {
			c.fail(e.node, c.literalText(e), "is "+e.what()+", "+c.word(a.node)+" holds names", "")
		}
		n, err := a.row.Names.Parse(e.text)
		if err != nil {
			c.failValue(e.node, e.text, err)
		}
		want |= n
	}
	return boolean(memberNum(a.num, value.Set{Nums: []value.Range{{Lo: want, Hi: want}}, Not: op == "!="},
		a.row.Limit()))
}

func (c *compiler[T]) in(n ast.Node, a, b *operand[T]) operand[T] {
	switch {
	case a.typ == tGroup:
		c.fail(a.node, c.word(a.node), "is a group of fields", nameAField)
	case a.typ == tNil:
		c.fail(a.node, "nil", "is in no list", "ask for presence with != nil")
	case a.typ == tRange || a.typ == tArray || a.typ == tFlags || a.typ == tBits:
		c.fail(a.node, c.word(a.node), "is "+a.what(), `write "NAME" in LIST, or any(LIST, # in ["A", "B"])`)
	case b.typ == tFlags || b.typ == tBits:
		if a.typ != tLit {
			c.fail(a.node, c.literalText(a), "is "+a.what()+", "+c.word(b.node)+" holds names",
				`write "NAME" in `+c.word(b.node))
		}
		return c.member(b, c.read(b, a))
	case a.typ == tLit && (b.konst || b.typ != tArray):
		c.fail(a.node, a.text, "is no field", "the field comes first, as ip.src in \"10.0.0.0/8\"")
	case b.typ == tLit:
		if a.typ == tText && (a.row == nil || a.row.Parse == nil || a.konst) {
			c.fail(b.node, b.text, "is a text", "a list after in, as [\"a\", \"b\"]; parts are found with contains")
		}
		return c.literal("==", a, b)
	case b.typ == tRange:
		return c.inRange(a, b)
	case b.typ == tArray:
		return c.inList(n, a, b)
	}
	valid := "write == for one value"
	if b.typ == tGroup {
		valid = "a name stands in quotes"
	}
	c.fail(b.node, c.word(b.node), "is "+b.what()+", not a list", valid)
	panic("unreachable")
}

func (c *compiler[T]) inRange(a, b *operand[T]) operand[T] {
	if !a.numeric() {
		c.fail(b.node, "..", "is a range of numbers, "+c.word(a.node)+" is "+a.what(), "")
	}
	lo, hi := constInt[T](b.lo), constInt[T](b.hi)
	lo.node, hi.node = b.node, b.node
	if nodes, ok := b.node.(*ast.BinaryNode); ok {
		lo.node, hi.node = nodes.Left, nodes.Right
	}
	if a.typ == tNum && !a.isTime() {
		m, n := c.read(a, &lo), c.read(a, &hi)
		return c.member(a, value.Set{Nums: []value.Range{{Lo: m.Nums[0].Lo, Hi: n.Nums[0].Lo}}})
	}
	x, y := c.compare(b.node, ">=", a, &lo), c.compare(b.node, "<=", a, &hi)
	if x.konst && y.konst {
		return constBool[T](x.test(nil) && y.test(nil))
	}
	return boolean(allOf([]func(*T) bool{x.test, y.test}))
}

// inList joins the literals of a list to one set; what else is in the list is
// compared one by one.
func (c *compiler[T]) inList(n ast.Node, a, b *operand[T]) operand[T] {
	if len(b.elems) == 0 {
		c.fail(b.node, "[", "begins an empty list", "values, as [22, 80]")
	}
	var tests []operand[T]
	var joined *value.Set
	for i := range b.elems {
		e := &b.elems[i]
		settable := e.konst && !a.konst && (a.typ == tNum || a.typ == tAddr || a.typ == tText ||
			a.typ == tBool && a.plain) && e.typ != tText
		if !settable {
			tests = append(tests, c.compare(n, "==", a, e))
			continue
		}
		set := c.read(a, e)
		if set.Not && len(b.elems) > 1 {
			c.fail(e.node, e.text, "negates inside a list", "write not (A in [B, C])")
		}
		switch {
		case set.Mask != 0 || set.Not:
			tests = append(tests, c.member(a, set))
		case joined == nil:
			joined = &set
		default:
			joined.Nums = append(joined.Nums, set.Nums...)
			joined.Addrs = append(joined.Addrs, set.Addrs...)
			joined.Texts = append(joined.Texts, set.Texts...)
		}
	}
	if joined != nil {
		joined.Nums = merged(joined.Nums)
		tests = append(tests, c.member(a, *joined))
	}
	if len(tests) == 1 {
		return tests[0]
	}
	var fs []func(*T) bool
	all := true
	for _, o := range tests {
		if o.konst && o.test(nil) {
			return constBool[T](true)
		}
		all = all && o.konst
		fs = append(fs, o.test)
	}
	if all {
		return constBool[T](false)
	}
	return boolean(anyOf(fs))
}
