package lua

import (
	"reflect"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/ast"
)

// The interpreter's operator .. makes texts of any length, out of up to some 200 at
// once, in an instruction that nothing can cut short. So chunks are compiled with a
// call in its place, of a function that is found as a method of texts are: whatever
// the environment of the calling function is. No name of a script is like this one.
const concatName = "\x00concat"

// boundConcat replaces the operator in a chunk.
func boundConcat(chunk []ast.Stmt) { rewrite(reflect.ValueOf(chunk)) }

var exprType = reflect.TypeFor[ast.Expr]()

// rewrite looks through all that a part of a syntax tree holds.
func rewrite(v reflect.Value) {
	switch v.Kind() {
	case reflect.Interface:
		if v.IsNil() {
			return
		}
		if e, ok := v.Interface().(*ast.StringConcatOpExpr); ok && v.Type() == exprType && v.CanSet() {
			v.Set(reflect.ValueOf(concatCall(e)))
		}
		rewrite(v.Elem())
	case reflect.Pointer:
		if !v.IsNil() {
			rewrite(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			rewrite(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				rewrite(v.Field(i))
			}
		}
	}
}

// concatCall is what a .. b .. c becomes. Each operand is one value, also the last.
func concatCall(e *ast.StringConcatOpExpr) ast.Expr {
	object, key := &ast.StringExpr{}, &ast.StringExpr{Value: concatName}
	f := &ast.AttrGetExpr{Object: object, Key: key}
	call := &ast.FuncCallExpr{Func: f} // not AdjustRet: s = (f(s)), s a parameter, is compiled wrong
	line := e.Line()
	for _, x := range []ast.Expr{object, key, f, call} {
		x.SetLine(line)
		x.SetLastLine(e.LastLine())
	}
	call.Args = append(call.Args, e.Lhs)
	last := e.Rhs
	for {
		next, ok := last.(*ast.StringConcatOpExpr)
		if !ok {
			break
		}
		call.Args, last = append(call.Args, next.Lhs), next.Rhs
	}
	switch x := last.(type) {
	case *ast.FuncCallExpr:
		x.AdjustRet = true
	case *ast.Comma3Expr:
		x.AdjustRet = true
	}
	call.Args = append(call.Args, last)
	return call
}

// concat does what the operator does: from right to left, with the metamethod
// __concat where an operand is neither text nor number.
func (v *vm) concat(L *lua.LState) int {
	top := L.GetTop()
	right := L.Get(top)
	for i := top - 1; i > 0; {
		left := L.Get(i)
		if !lua.LVCanConvToString(left) || !lua.LVCanConvToString(right) {
			op := L.GetMetaField(left, "__concat")
			if op.Type() != lua.LTFunction {
				op = L.GetMetaField(right, "__concat")
			}
			if op.Type() != lua.LTFunction {
				L.RaiseError("cannot perform concat operation between %v and %v", left.Type().String(),
					right.Type().String())
			}
			L.Push(op)
			L.Push(left)
			L.Push(right)
			L.Call(2, 1)
			right = L.Get(-1)
			L.Pop(1)
			i--
			continue
		}
		parts := make([]string, i+1)
		parts[i] = lua.LVAsString(right)
		size, at := len(parts[i]), i
		for ; at > 0 && lua.LVCanConvToString(L.Get(at)); at-- {
			parts[at-1] = lua.LVAsString(L.Get(at))
			size += len(parts[at-1])
			v.fits(L, size)
		}
		right, i = lua.LString(strings.Join(parts[at:], "")), at
	}
	L.Push(right)
	return 1
}
