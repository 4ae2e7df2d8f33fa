package filter

import (
	"errors"
	"net/netip"
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
		v, err := parseInt(c.word(n)) // not n.Value: smallNumbers
		if err != nil {
			c.fail(n, c.word(n), "is not a number", "")
		}
		return constInt[T](v)
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
		c.fail(n, c.word(m.Node), "has nothing to be picked from",
			`fields are written as tcp.dport; a list is searched with "web" in labels`)
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
	for _, p := range paths { // the last word alone, dport, or one too many, payload.x
		if strings.HasSuffix(p, "."+name) || strings.HasPrefix(name, p+".") && c.reg.Row(p) != nil {
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

func (c *compiler[T]) binary(n *ast.BinaryNode) operand[T] {
	switch n.Operator {
	case "and", "&&", "or", "||":
		return c.join(n)
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

// isAnd reports whether a node joins two conditions by "and", isOr by "or".
func isAnd(op string) bool { return op == "and" || op == "&&" }
func isOr(op string) bool  { return op == "or" || op == "||" }

// chain returns the nodes that are joined by one operator, in their order: a
// long list of conditions leans to the left, and is not to be recursed into.
func chain(n ast.Node, is func(op string) bool) []ast.Node {
	var out []ast.Node
	for {
		b, ok := n.(*ast.BinaryNode)
		if !ok || !is(b.Operator) {
			break
		}
		out = append(out, b.Right)
		n = b.Left
	}
	out = append(out, n)
	slices.Reverse(out)
	return out
}

func (c *compiler[T]) join(n *ast.BinaryNode) operand[T] {
	is, of, and := isOr, anyOf[T], isAnd(n.Operator)
	if and {
		is, of = isAnd, allOf[T]
	}
	var tests []func(*T) bool
	decided := false // by a literal true or false
	for _, x := range chain(n, is) {
		o := c.condition(x)
		switch {
		case !o.konst:
			tests = append(tests, o.test)
		case o.test(nil) != and:
			decided = true
		}
	}
	if decided || len(tests) == 0 {
		return constBool[T](and != decided)
	}
	return boolean(of(tests))
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
	if _, err := c.reg.Row(name).ParseSet(word); err == nil && c.reg.Row(name).Kind != field.String &&
		c.reg.Row(name).Kind != field.Bytes {
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
