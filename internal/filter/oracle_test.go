package filter

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// The oracle evaluates expressions slowly and plainly with expr-lang's own
// virtual machine. It rewrites an expression to a text in which every operand is
// guarded against absence and every literal is spelled as the field's value is,
// gives each field as a boxed variable, and runs that.

var errNoOracle = errors.New("the oracle does not do this")

type oracle struct {
	prog *vm.Program
	text string
}

func newOracle(text string) (*oracle, error) {
	tree, err := parser.Parse(text)
	if err != nil {
		return nil, beyond(err)
	}
	var plain string
	err = func() (err error) {
		defer func() {
			if e := recover(); e == errNoOracle {
				err = errNoOracle
			} else if e != nil {
				panic(e)
			}
		}()
		plain = condText(tree.Node)
		return nil
	}()
	if err != nil {
		return nil, err
	}
	prog, err := expr.Compile(plain, expr.Optimize(false), expr.MaxNodes(0))
	if err != nil {
		return nil, beyond(fmt.Errorf("%s: %w", plain, err))
	}
	return &oracle{prog, plain}, nil
}

// The machine computes with ints. Where they have 32 bits it judges what stays well
// below 2^31.
const small = strconv.IntSize == 32

func beyond(err error) error {
	if small && strings.Contains(err.Error(), "integer literal is too large") {
		return errNoOracle
	}
	return err
}

func (o *oracle) match(s *subject) (bool, error) {
	env := o.environment(s)
	if env == nil {
		return false, errNoOracle
	}
	out, err := expr.Run(o.prog, env)
	if err != nil {
		return false, err
	}
	b, ok := out.(bool)
	if !ok {
		return false, fmt.Errorf("%v is no condition", out)
	}
	return b, nil
}

// environment boxes all fields of a subject; nil when a number that is used does
// not fit an int.
func (o *oracle) environment(s *subject) map[string]any {
	most := uint64(math.MaxInt64)
	if small {
		if most = 1 << 24; strings.Contains(o.text, "*") {
			return nil
		}
	}
	env := map[string]any{"member": member1}
	for i := range reg.Rows() {
		r := &reg.Rows()[i]
		var v any
		switch {
		case r.Num != nil:
			n, ok := r.Num(s)
			if !ok {
				break
			}
			if n > most && strings.Contains(o.text, variable(r.Path)) {
				return nil
			}
			switch r.Kind {
			case field.Enum:
				v = string(r.Names.Append(nil, n))
			case field.Bool:
				v = n != 0
			case field.Flags:
				list := []any{}
				for ; n != 0; n &= n - 1 {
					list = append(list, flagName(r, bits.TrailingZeros64(n)))
				}
				v = list
			default:
				v = int(n)
			}
		case r.IP != nil:
			if a, ok := r.IP(s); ok {
				v = a.String()
			}
		case r.Kind == field.Bits:
			if d, ok := r.Data(s); ok {
				list := []any{}
				for i := range len(d) * 8 {
					if d[i/8]>>(i%8)&1 != 0 {
						list = append(list, flagName(r, i))
					}
				}
				v = list
			}
		default:
			if d, ok := r.Data(s); ok {
				v = latin(string(d))
			}
		}
		env[variable(r.Path)] = v
		group, _, isMember := strings.Cut(r.Path, ".")
		if isMember && v != nil {
			env["group_"+group] = true
		}
	}
	return env
}

func flagName(r *field.Row[subject], bit int) string {
	if r.Kind == field.Bits {
		if n := r.Bit(bit); n != "" {
			return n
		}
		return strconv.Itoa(bit)
	}
	if w := r.Names.Word(1 << bit); w != "" {
		return w
	}
	return fmt.Sprintf("0x%x", 1<<bit)
}

func variable(path string) string { return "f_" + strings.ReplaceAll(path, ".", "_") }

// latin gives each byte a character of its own, as expr's strings are texts.
func latin(s string) string {
	r := make([]rune, len(s))
	for i := range len(s) {
		r[i] = rune(s[i])
	}
	return string(r)
}

func quoteLatin(s string) string { return strconv.QuoteToASCII(latin(s)) }

// member1 tests a value against what a literal stands for, with net/netip and
// plain loops.
func member1(path, literal string, v any) bool {
	r := reg.Row(path)
	rest, not := strings.CutPrefix(literal, "!")
	in := false
	if r.Kind == field.Addr {
		a := netip.MustParseAddr(v.(string))
		for one := range strings.SplitSeq(rest, ",") {
			if p, err := netip.ParsePrefix(one); err == nil {
				in = in || p.Contains(a)
			} else if x, err := netip.ParseAddr(one); err == nil {
				in = in || a == x
			} else { // ranges, and masks as addresses
				set, err := value.Addrs(one)
				if err != nil {
					panic(err)
				}
				in = in || set.Addrs[0].Lo.BitLen() == a.BitLen() && !a.Less(set.Addrs[0].Lo) &&
					!set.Addrs[0].Hi.Less(a)
			}
		}
		return in != not
	}
	set, err := r.ParseSet(literal)
	if err != nil {
		panic(err)
	}
	var n uint64
	switch v := v.(type) {
	case int:
		n = uint64(v)
	case string:
		if n, err = r.Names.Parse(v); err != nil {
			return false
		}
	}
	if set.Mask != 0 {
		n &= set.Mask
	}
	for _, x := range set.Nums {
		in = in || x.Lo <= n && n <= x.Hi
	}
	return in != set.Not
}

func rowOf(n ast.Node) *field.Row[subject] {
	switch n := n.(type) {
	case *ast.BinaryNode:
		if n.Operator == "??" {
			if r := rowOf(n.Left); r != nil {
				return r
			}
			return rowOf(n.Right)
		}
	case *ast.ConditionalNode:
		if r := rowOf(n.Exp1); r != nil {
			return r
		}
		return rowOf(n.Exp2)
	}
	if p, ok := path(n); ok {
		return reg.Row(p)
	}
	return nil
}

func isTruth(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BoolNode:
		return true
	case *ast.UnaryNode:
		return n.Operator == "not" || n.Operator == "!"
	case *ast.BinaryNode:
		switch n.Operator {
		case "+", "-", "*", "/", "%", "..":
			return false
		case "??":
			return isTruth(n.Left)
		}
		return true
	case *ast.ConditionalNode:
		return isTruth(n.Exp1)
	case *ast.BuiltinNode:
		return n.Name == "any" || n.Name == "all" || n.Name == "none"
	}
	r := rowOf(n)
	return r != nil && r.Kind == field.Bool
}

// condText writes a condition.
func condText(n ast.Node) string {
	switch n := n.(type) {
	case *ast.BoolNode:
		return strconv.FormatBool(n.Value)
	case *ast.UnaryNode:
		return "(not " + condText(n.Node) + ")"
	case *ast.ConditionalNode:
		return "(" + condText(n.Cond) + " ? " + condText(n.Exp1) + " : " + condText(n.Exp2) + ")"
	case *ast.BuiltinNode:
		r := rowOf(n.Arguments[0])
		if r == nil {
			panic(errNoOracle)
		}
		v := variable(r.Path)
		body := n.Arguments[1].(*ast.PredicateNode).Node
		return "(" + v + " != nil && " + n.Name + "(" + v + ", " + truthIn(body, r) + "))"
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&", "or", "||":
			return "(" + condText(n.Left) + " " + n.Operator + " " + condText(n.Right) + ")"
		case "??":
			return "(" + there(n.Left) + " ? " + condText(n.Left) + " : " + condText(n.Right) + ")"
		}
		return comparison(n)
	}
	if r := rowOf(n); r != nil && r.Kind == field.Bool {
		return "(" + variable(r.Path) + " == true)"
	}
	panic(errNoOracle)
}

// truthIn is condText in the body of a quantifier over a row's list.
func truthIn(n ast.Node, list *field.Row[subject]) string {
	elemRow = list
	defer func() { elemRow = nil }()
	return condText(n)
}

// elemRow is the list whose element # is; besideElem says that a literal stands
// beside # itself, where it is a name of the list in any case.
var (
	elemRow    *field.Row[subject]
	besideElem bool
)

// there writes that a value is there, and can be computed.
func there(n ast.Node) string {
	switch n := n.(type) {
	case *ast.BinaryNode:
		switch n.Operator {
		case "+", "-", "*":
			return "(" + there(n.Left) + " && " + there(n.Right) + ")"
		case "/", "%":
			return "(" + there(n.Left) + " && " + there(n.Right) + " && " + val(n.Right, nil) + " != 0)"
		case "??":
			return "(" + there(n.Left) + " || " + there(n.Right) + ")"
		}
		return "true"
	case *ast.ConditionalNode:
		return "(" + condText(n.Cond) + " ? " + there(n.Exp1) + " : " + there(n.Exp2) + ")"
	case *ast.UnaryNode:
		if n.Operator == "-" || n.Operator == "+" {
			return there(n.Node)
		}
		return "true"
	case *ast.BuiltinNode:
		if n.Name == "len" || n.Name == "lower" || n.Name == "upper" {
			return there(n.Arguments[0])
		}
		return "true"
	}
	if r := rowOf(n); r != nil {
		return "(" + variable(r.Path) + " != nil)"
	}
	if p, ok := path(n); ok {
		return "(group_" + p + " != nil)"
	}
	return "true"
}

// val writes a value; a literal as the row beside it spells its values.
func val(n ast.Node, beside *field.Row[subject]) string {
	switch n := n.(type) {
	case *ast.IntegerNode:
		if beside != nil && beside.Kind == field.Enum {
			return strconv.Quote(string(beside.Names.Append(nil, uint64(n.Value))))
		}
		if beside != nil && beside.Kind == field.Time {
			return strconv.Itoa(n.Value * 1e9)
		}
		return strconv.Itoa(n.Value)
	case *ast.FloatNode:
		return strconv.FormatFloat(n.Value, 'f', -1, 64)
	case *ast.StringNode:
		return literalVal(n.Value, beside)
	case *ast.BytesNode:
		return literalVal(string(n.Value), beside)
	case *ast.PointerNode:
		return "#"
	case *ast.UnaryNode:
		if n.Operator == "-" || n.Operator == "+" {
			notTime(n.Node)
			return "(" + n.Operator + val(n.Node, nil) + ")"
		}
	case *ast.BuiltinNode:
		switch n.Name {
		case "lower", "upper":
			if r := rowOf(n.Arguments[0]); r != nil && r.Kind == field.Bytes {
				panic(errNoOracle) // expr changes more than ASCII letters
			}
			return n.Name + "(" + val(n.Arguments[0], nil) + ")"
		case "len":
			return n.Name + "(" + val(n.Arguments[0], nil) + ")"
		}
	case *ast.ConditionalNode:
		if !isTruth(n) {
			return "(" + condText(n.Cond) + " ? " + val(n.Exp1, beside) + " : " + val(n.Exp2, rowOf(n.Exp1)) + ")"
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "+", "-", "*", "/", "%":
			notTime(n.Left)
			notTime(n.Right)
			return "(" + val(n.Left, nil) + " " + n.Operator + " " + val(n.Right, nil) + ")"
		case "??":
			if !isTruth(n) {
				return "(" + there(n.Left) + " ? " + val(n.Left, nil) + " : " + val(n.Right, rowOf(n.Left)) + ")"
			}
		}
	}
	if isTruth(n) {
		return condText(n)
	}
	if r := rowOf(n); r != nil {
		return variable(r.Path)
	}
	panic(errNoOracle)
}

func notTime(n ast.Node) {
	if r := rowOf(n); r != nil && r.Kind == field.Time {
		panic(errNoOracle)
	}
}

func literalVal(s string, beside *field.Row[subject]) string {
	if beside == nil {
		if elemRow != nil && besideElem {
			return quoteLatin(elemName(s))
		}
		return quoteLatin(s)
	}
	switch beside.Kind {
	case field.String, field.Bytes:
		return quoteLatin(s)
	}
	set, err := beside.ParseSet(s)
	if err != nil {
		panic(errNoOracle)
	}
	if n, ok := set.Num(); ok && set.Mask == 0 {
		switch beside.Kind {
		case field.Enum:
			return strconv.Quote(string(beside.Names.Append(nil, n)))
		case field.Bool:
			return strconv.FormatBool(n != 0)
		}
		if n > math.MaxInt64 {
			panic(errNoOracle)
		}
		return strconv.FormatUint(n, 10)
	}
	if a, ok := set.Addr(); ok {
		return strconv.Quote(a.String())
	}
	panic(errNoOracle)
}

// elemName spells a name as the list does, in any case.
func elemName(s string) string {
	for i := range 16 {
		if w := flagName(elemRow, i); strings.EqualFold(w, s) {
			return w
		}
	}
	return s
}

func comparison(n *ast.BinaryNode) string {
	l, r, op := n.Left, n.Right, n.Operator
	if op == "==" || op == "!=" {
		if _, isNil := l.(*ast.NilNode); isNil {
			l, r = r, l
		}
		if _, isNil := r.(*ast.NilNode); isNil {
			if op == "==" {
				return "(not " + there(l) + ")"
			}
			return there(l)
		}
	}
	_, le := l.(*ast.PointerNode)
	_, re := r.(*ast.PointerNode)
	besideElem = (le || re) && (op == "==" || op == "!=")
	guard := there(l) + " && " + there(r) + " && "
	lr, rr := rowOf(l), rowOf(r)
	if op == "in" {
		if rr != nil && (rr.Kind == field.Flags || rr.Kind == field.Bits) {
			lit, ok := l.(*ast.StringNode)
			if !ok {
				panic(errNoOracle)
			}
			return "(" + guard + inFlags(lit.Value, rr) + ")"
		}
		switch r := r.(type) {
		case *ast.ArrayNode:
			var any []string
			for _, e := range r.Nodes {
				any = append(any, comparison(&ast.BinaryNode{Operator: "==", Left: l, Right: e}))
			}
			return "(" + strings.Join(any, " || ") + ")"
		case *ast.BinaryNode:
			if r.Operator == ".." {
				return "(" + there(l) + " && " + val(l, lr) + " >= " + val(r.Left, lr) + " && " + val(l, lr) + " <= " +
					val(r.Right, lr) + ")"
			}
		}
		op = "=="
	}
	if lit, ok := l.(*ast.StringNode); ok && rr != nil {
		if s := memberCall(rr, val(r, nil), lit.Value, op); s != "" {
			return "(" + guard + s + ")"
		}
	}
	if lit, ok := r.(*ast.StringNode); ok && lr != nil {
		if s := memberCall(lr, val(l, nil), lit.Value, op); s != "" {
			return "(" + guard + s + ")"
		}
	}
	switch op {
	case "contains", "startsWith", "endsWith", "matches":
		lit := ""
		switch r := r.(type) {
		case *ast.StringNode:
			lit = r.Value
		case *ast.BytesNode:
			lit = string(r.Value)
		default:
			panic(errNoOracle)
		}
		if op == "matches" && strings.ContainsFunc(lit, func(r rune) bool { return r >= 0x80 }) {
			panic(errNoOracle)
		}
		return "(" + guard + val(l, nil) + " " + op + " " + quoteLatin(lit) + ")"
	}
	if lr != nil && rr != nil && lr.Kind == field.Enum && rr.Kind == field.Enum && op != "==" && op != "!=" {
		panic(errNoOracle) // ordered by number, not by name
	}
	for _, r := range []*field.Row[subject]{lr, rr} {
		if r != nil && (r.Kind == field.Flags || r.Kind == field.Bits) {
			panic(errNoOracle)
		}
		if r != nil && r.Kind == field.Enum && op != "==" && op != "!=" {
			panic(errNoOracle)
		}
	}
	if (lr != nil && lr.Kind == field.Time || rr != nil && rr.Kind == field.Time) && (lr == nil || rr == nil) {
		for _, n := range []ast.Node{l, r} {
			switch n.(type) {
			case *ast.StringNode, *ast.IntegerNode:
			default:
				if rowOf(n) == nil {
					panic(errNoOracle)
				}
			}
		}
	}
	return "(" + guard + val(l, rr) + " " + op + " " + val(r, lr) + ")"
}

// memberCall writes a comparison with a literal that stands for a set.
func memberCall(r *field.Row[subject], v, lit, op string) string {
	if r.Kind == field.String || r.Kind == field.Bytes || op != "==" && op != "!=" {
		return ""
	}
	set, err := r.ParseSet(lit)
	if err != nil {
		panic(errNoOracle)
	}
	if _, ok := set.Num(); ok && set.Mask == 0 {
		return ""
	}
	if _, ok := set.Addr(); ok {
		return ""
	}
	call := "member(" + strconv.Quote(r.Path) + ", " + strconv.Quote(lit) + ", " + v + ")"
	if op == "!=" {
		return "(not " + call + ")"
	}
	return call
}

func inFlags(s string, r *field.Row[subject]) string {
	rest, not := strings.CutPrefix(s, "!")
	elem := elemRow
	elemRow = r
	defer func() { elemRow = elem }()
	var any []string
	for one := range strings.SplitSeq(rest, ",") {
		one = strings.TrimSpace(one)
		if strings.EqualFold(one, "UNREPLIED") {
			any = append(any, "(not ("+strconv.Quote("SEEN_REPLY")+" in "+variable(r.Path)+"))")
			continue
		}
		if n, err := strconv.ParseUint(one, 0, 64); err == nil && r.Kind == field.Flags {
			for i := range 16 {
				if n>>i&1 != 0 {
					any = append(any, "("+strconv.Quote(flagName(r, i))+" in "+variable(r.Path)+")")
				}
			}
			if n == 0 || n >= 1<<16 {
				panic(errNoOracle)
			}
			continue
		}
		if n, err := strconv.Atoi(one); err == nil {
			one = flagName(r, n)
		}
		any = append(any, "("+strconv.Quote(elemName(one))+" in "+variable(r.Path)+")")
	}
	out := "(" + strings.Join(any, " || ") + ")"
	if not {
		out = "(not " + out + ")"
	}
	return out
}
