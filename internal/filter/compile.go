package filter

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/expr-lang/expr/ast"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// typ is what an operand is.
type typ uint8

const (
	tBool  typ = iota
	tNum       // unsigned: a field as it is
	tInt       // signed: computed, or a literal
	tFloat     // computed by '/', or a literal
	tAddr
	tText
	tFlags // a list: the bits of a number
	tBits  // a list: the bits of a byte string
	tLit   // a quoted text, to be read by what stands beside it
	tArray
	tRange
	tNil
	tGroup
)

// operand is a compiled part of an expression: its type, and the one loader that
// belongs to it. A loader reports false when its value is absent.
type operand[T any] struct {
	typ   typ
	node  ast.Node
	row   *field.Row[T] // reads literals beside the operand; nil: none does
	plain bool          // the operand is row's field itself
	konst bool          // the loader does not look at its subject

	num   func(*T) (uint64, bool)
	int   func(*T) (int64, bool)
	float func(*T) (float64, bool)
	addr  func(*T) (netip.Addr, bool)
	data  func(*T) ([]byte, bool)
	fold  fold
	test  func(*T) bool // tBool; with num too when it may be absent

	text  string // tLit, and tText when konst
	elems []operand[T]
	lo    int64 // tRange, and tInt when konst
	hi    int64

	cond *field.Cond // tBool that is just this condition
}

const nameAField = "name one of its fields, or ask for it with != nil"

type compiler[T any] struct {
	reg    *field.Registry[T]
	runes  []rune
	used   []string
	elem   *operand[T] // what # stands for, inside any, all and none
	faults *atomic.Uint64
}

// fail leaves the compiler; Compile catches it.
func (c *compiler[T]) fail(n ast.Node, word, msg, valid string) {
	at := start(n)
	if b, ok := n.(*ast.BinaryNode); ok && word == b.Operator {
		at = b.Location().From
	}
	panic(&Error{Column: at + 1, Word: word, Msg: msg, Valid: valid})
}

// failValue leaves with what the reader of a value said.
func (c *compiler[T]) failValue(n ast.Node, text string, err error) {
	e := &Error{Column: start(n) + 1, Word: text, Msg: err.Error()}
	var ve *value.Error
	if errors.As(err, &ve) {
		e.Word, e.Msg, e.Near = ve.Text, "is not a valid "+ve.What, ve.Near
		if ve.Valid != "" {
			e.Valid = "want " + ve.Valid
		}
	}
	panic(e)
}

// word returns a node as it was typed, when that is one word.
func (c *compiler[T]) word(n ast.Node) string {
	if p, ok := path(n); ok {
		return p
	}
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.BytesNode:
		return string(n.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NilNode:
		return string(c.runes[n.Location().From:n.Location().To])
	case *ast.UnaryNode:
		return n.Operator
	case *ast.BinaryNode:
		return n.Operator
	case *ast.BuiltinNode:
		return n.Name
	case *ast.PointerNode:
		return "#"
	case *ast.ArrayNode:
		return "["
	case *ast.ConditionalNode:
		return "?"
	}
	return ""
}

// what says what an operand is, for messages.
func (o *operand[T]) what() string {
	switch o.typ {
	case tBool:
		if o.plain {
			return "true or false"
		}
		return "a condition"
	case tNum, tInt, tFloat:
		if o.row != nil && o.row.Kind == field.Time {
			return "a time"
		}
		if o.row != nil && o.row.Kind == field.Enum {
			return "a " + o.row.Names.What
		}
		return "a number"
	case tAddr:
		return "an address"
	case tText, tLit:
		return "a text"
	case tFlags, tBits, tArray:
		return "a list"
	case tRange:
		return "a range"
	case tNil:
		return "nil"
	}
	return "a group of fields"
}

// path returns the JSON path that a node spells, if it spells one.
func path(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		return n.Value, true
	case *ast.MemberNode:
		left, ok := path(n.Node)
		name, isName := n.Property.(*ast.StringNode)
		return left + "." + nameOf(name), ok && isName && !n.Optional && !n.Method
	}
	return "", false
}

func nameOf(n *ast.StringNode) string {
	if n == nil {
		return ""
	}
	return n.Value
}

// condition compiles a node that must be true or false.
func (c *compiler[T]) condition(n ast.Node) operand[T] {
	o := c.expr(n)
	if o.typ != tBool {
		valid := "compare it, or ask for its presence with != nil"
		switch {
		case o.typ == tFlags || o.typ == tBits:
			valid = `write "NAME" in ` + c.word(n)
		case o.konst || o.typ >= tLit && o.typ < tNil:
			valid = "a condition compares, as tcp.dport == 22"
		case o.typ == tGroup:
			valid = "write " + c.word(n) + " != nil"
		case o.typ == tNil:
			valid = "write FIELD != nil"
		}
		c.fail(n, c.word(n), "is "+o.what()+", not a condition", valid)
	}
	return o
}

func (c *compiler[T]) expr(n ast.Node) operand[T] {
	o := c.expr1(n)
	o.node = n
	return o
}

func (c *compiler[T]) expr1(n ast.Node) operand[T] {
	switch n := n.(type) {
	case *ast.NilNode:
		return operand[T]{typ: tNil}
	case *ast.IntegerNode:
		return constInt[T](int64(n.Value))
	case *ast.FloatNode:
		return constFloat[T](n.Value)
	case *ast.BoolNode:
		return constBool[T](n.Value)
	case *ast.StringNode:
		return operand[T]{typ: tLit, konst: true, text: n.Value}
	case *ast.BytesNode:
		return operand[T]{typ: tLit, konst: true, text: string(n.Value)}
	case *ast.IdentifierNode, *ast.MemberNode:
		return c.field(n)
	case *ast.PointerNode:
		if n.Name != "" {
			c.fail(n, "#"+n.Name, "is not used here", "# is the element of the list")
		}
		if c.elem == nil {
			c.fail(n, "#", "is not used here", "# is the element of a list in any, all and none")
		}
		return *c.elem
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ConditionalNode:
		return c.choice(n)
	case *ast.ArrayNode:
		o := operand[T]{typ: tArray, konst: true}
		for _, e := range n.Nodes {
			x := c.expr(e)
			if x.typ >= tArray || x.typ == tFlags || x.typ == tBits {
				c.fail(e, c.word(e), "is "+x.what()+" inside a list", `ranges stand in quotes, as "1-10,20"`)
			}
			o.konst = o.konst && x.konst
			o.elems = append(o.elems, x)
		}
		return o
	case *ast.BuiltinNode:
		return c.function(n)
	case *ast.CallNode:
		name, _ := path(n.Callee)
		panic(&Error{Column: start(n) + 1, Word: name, Msg: "is not a function", Near: value.Nearest(name, functions),
			Valid: "there are " + strings.Join(functions, ", ")})
	case *ast.SliceNode:
		c.fail(n, c.word(n.Node), "cannot be cut", "there are startsWith, endsWith, contains and matches")
	}
	c.fail(n, "", "the expression cannot be read here", "")
	panic("unreachable")
}

// field compiles a path.
func (c *compiler[T]) field(n ast.Node) operand[T] {
	name, ok := path(n)
	if !ok {
		m := n.(*ast.MemberNode)
		for {
			inner, isMember := m.Node.(*ast.MemberNode)
			if !isMember {
				break
			}
			m = inner
		}
		c.fail(n, c.word(m.Node), "has nothing to be picked from", `fields are written as tcp.dport; a list is searched with "web" in labels`)
	}
	if why := c.reg.Reserved(name); why != "" {
		c.fail(n, name, "cannot be used here", why)
	}
	row := c.reg.Row(name)
	if row == nil && c.reg.Group(name) {
		c.use(name)
		return operand[T]{typ: tGroup, test: presence(c.reg, name)}
	}
	if row == nil || row.Path != name {
		panic(&Error{Column: start(n) + 1, Word: name, Msg: "is not a field", Near: c.nearest(name, row)})
	}
	c.use(name)
	return ofRow(row)
}

func ofRow[T any](row *field.Row[T]) operand[T] {
	o := operand[T]{row: row, plain: true, num: row.Num, addr: row.IP, data: row.Data}
	switch row.Kind {
	case field.Flags:
		o.typ = tFlags
	case field.Bool:
		o.typ = tBool
		load := row.Num
		o.test = func(t *T) bool { n, ok := load(t); return ok && n != 0 }
	case field.Addr:
		o.typ = tAddr
	case field.String, field.Bytes:
		o.typ = tText
	case field.Bits:
		o.typ = tBits
	default:
		o.typ = tNum
	}
	return o
}

func (c *compiler[T]) use(name string) {
	if !slices.Contains(c.used, name) {
		c.used = append(c.used, name)
	}
}

// nearest finds the path most likely meant by a name that is none.
func (c *compiler[T]) nearest(name string, alias *field.Row[T]) string {
	if alias != nil {
		return alias.Path
	}
	var paths []string
	seen := map[string]bool{}
	rows := c.reg.Rows()
	for i := range rows {
		p := rows[i].Path
		paths = append(paths, p)
		for j := strings.LastIndexByte(p, '.'); j > 0; j = strings.LastIndexByte(p[:j], '.') {
			if g := p[:j]; !seen[g] {
				seen[g] = true
				paths = append(paths, g)
			}
		}
	}
	if near := value.Nearest(name, paths); near != "" {
		return near
	}
	for _, p := range paths { // the last word alone: dport
		if strings.HasSuffix(p, "."+name) {
			return p
		}
	}
	return ""
}

// presence tests whether a subject has any field of a group.
func presence[T any](reg *field.Registry[T], group string) func(*T) bool {
	var tests []func(*T) bool
	var of map[*field.Part[T]][]func(*T) bool
	rows := reg.Rows()
	for i := range rows {
		r := &rows[i]
		switch {
		case !strings.HasPrefix(r.Path, group+"."):
		case r.Part == nil:
			tests = append(tests, r.Has)
		default:
			if of == nil {
				of = map[*field.Part[T]][]func(*T) bool{}
			}
			of[r.Part] = append(of[r.Part], r.Has)
		}
	}
	for part, has := range of {
		whole, any := part.Has, anyOf(has)
		tests = append(tests, func(t *T) bool { return whole(t) && any(t) })
	}
	return anyOf(tests)
}

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

func (c *compiler[T]) unary(n *ast.UnaryNode) operand[T] {
	if n.Operator == "not" || n.Operator == "!" {
		o := c.expr(n.Node)
		if o.typ != tBool {
			c.fail(n, n.Operator, "binds to the next word alone", "write not (A == B)")
		}
		if o.konst {
			return constBool[T](!o.test(nil))
		}
		test := o.test
		return boolean(func(t *T) bool { return !test(t) })
	}
	o := c.expr(n.Node)
	c.wantNumber(&o, n.Operator)
	zero := constInt[T](0)
	zero.node = n
	return c.arithmetic(n, n.Operator, &zero, &o)
}

func (c *compiler[T]) wantNumber(o *operand[T], op string) {
	if o.numeric() {
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

func (c *compiler[T]) binary(n *ast.BinaryNode) operand[T] {
	switch n.Operator {
	case "and", "&&", "or", "||":
		a, b := c.condition(n.Left), c.condition(n.Right)
		and := n.Operator == "and" || n.Operator == "&&"
		for _, o := range []*operand[T]{&a, &b} {
			if o.konst && o.test(nil) != and {
				return constBool[T](!and)
			}
		}
		switch {
		case a.konst:
			return b
		case b.konst:
			return a
		case and:
			return boolean(allOf([]func(*T) bool{a.test, b.test}))
		}
		return boolean(anyOf([]func(*T) bool{a.test, b.test}))
	case "==", "!=", "<", "<=", ">", ">=":
		a, b := c.sides(n)
		return c.compare(n, n.Operator, &a, &b)
	case "in":
		a, b := c.sides(n)
		return c.in(n, &a, &b)
	case "contains", "startsWith", "endsWith", "matches":
		return c.search(n)
	case "+", "-", "*", "/", "%":
		a, b := c.expr(n.Left), c.expr(n.Right)
		c.wantNumber(&a, n.Operator)
		c.wantNumber(&b, n.Operator)
		return c.arithmetic(n, n.Operator, &a, &b)
	case "..":
		a, b := c.expr(n.Left), c.expr(n.Right)
		for _, o := range []*operand[T]{&a, &b} {
			if o.typ != tInt || !o.konst {
				c.fail(o.node, c.word(o.node), "is no end of a range", "numbers, as 1..10")
			}
		}
		if a.lo > b.lo {
			c.fail(n, "..", "is an empty range", "the lower number first")
		}
		return operand[T]{typ: tRange, konst: true, lo: a.lo, hi: b.lo}
	case "??":
		a, b := c.expr(n.Left), c.expr(n.Right)
		return c.either(n, nil, &a, &b)
	}
	c.fail(n, n.Operator, "is not used here", "")
	panic("unreachable")
}

// sides compiles both sides of a comparison. Whoever wrote a field's value
// without quotes is told so.
func (c *compiler[T]) sides(n *ast.BinaryNode) (a, b operand[T]) {
	c.quotes(n.Left, n.Right)
	c.quotes(n.Right, n.Left)
	return c.expr(n.Left), c.expr(n.Right)
}

func (c *compiler[T]) quotes(n, beside ast.Node) {
	word, ok1 := path(n)
	name, ok2 := path(beside)
	if !ok1 || !ok2 || c.reg.Row(name) == nil || c.reg.Row(word) != nil {
		return
	}
	if _, err := c.reg.Row(name).ParseSet(word); err == nil && c.reg.Row(name).Kind != field.String && c.reg.Row(name).Kind != field.Bytes {
		c.fail(n, word, "is not a field", "a name stands in quotes: "+strconv.Quote(word))
	}
}

func (c *compiler[T]) choice(n *ast.ConditionalNode) operand[T] {
	if !n.Ternary {
		c.fail(n.Cond, "if", "is not used here", "write CONDITION ? A : B")
	}
	cond := c.condition(n.Cond)
	a, b := c.expr(n.Exp1), c.expr(n.Exp2)
	return c.either(n, cond.test, &a, &b)
}

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
		x, y, f := c.toInt(a), c.toInt(b), intOps[op[0]]
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

// intOps report false when the result does not fit 64 bits.
var intOps = map[byte]func(a, b int64) (int64, bool){
	'+': func(a, b int64) (int64, bool) { s := a + b; return s, (s > a) == (b > 0) },
	'-': func(a, b int64) (int64, bool) { s := a - b; return s, (s < a) == (b > 0) },
	'*': func(a, b int64) (int64, bool) {
		hi, lo := bits.Mul64(magnitude(a), magnitude(b))
		return a * b, hi == 0 && (lo <= math.MaxInt64 || lo == 1<<63 && (a < 0) != (b < 0))
	},
	'%': func(a, b int64) (int64, bool) {
		if b == 0 {
			return 0, false
		}
		return a % b, true
	},
}

func magnitude(a int64) uint64 {
	if a < 0 {
		return -uint64(a)
	}
	return uint64(a)
}

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
		if a.isTime() != b.isTime() && (a.typ == tNum && b.typ == tNum) {
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
	case (a.typ == tText || b.typ == tText) && (a.typ == tText || a.named()) && (b.typ == tText || b.named()):
		x, y := c.toText(a, op), c.toText(b, op)
		return boolean(compareTexts(op, &x, &y))
	}
	c.fail(b.node, c.word(b.node), "is "+b.what()+", "+c.word(a.node)+" is "+a.what(), "")
	panic("unreachable")
}

func (o *operand[T]) named() bool {
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
		if a.typ != tText && !a.named() {
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
	if a.named() && b.typ == tLit {
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
			c.fail(b.node, c.literalText(b), "is out of range for "+c.word(a.node), "a number from 0 to "+strconv.FormatUint(a.row.Limit(), 10))
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
	return boolean(memberNum(a.num, value.Set{Nums: []value.Range{{Lo: want, Hi: want}}, Not: op == "!="}, a.row.Limit()))
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
			c.fail(a.node, c.literalText(a), "is "+a.what()+", "+c.word(b.node)+" holds names", `write "NAME" in `+c.word(b.node))
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
		settable := e.konst && !a.konst && (a.typ == tNum || a.typ == tAddr || a.typ == tText || a.typ == tBool && a.plain) && e.typ != tText
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
		panic(&Error{Column: start(n) + 1, Word: n.Name, Msg: "is not a function", Near: value.Nearest(n.Name, functions),
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
	o.fold, o.plain = lowerFold, false
	if n.Name == "upper" {
		o.fold = upperFold
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
		c.elem = &operand[T]{typ: tText, konst: true, text: name, row: list.row, data: func(*T) ([]byte, bool) { return d, true }}
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
