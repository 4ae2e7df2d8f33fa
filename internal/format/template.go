package format

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"text/template"
	"text/template/parse"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// absent is what a template sees in place of what an object lacks: it prints
// as nothing, is false, and has only absent parts.
type absent map[string]absent

func (absent) String() string { return "" }

// list prints as words with commas between them.
type list []string

func (l list) String() string { return strings.Join(l, ",") }

// object is an object within the data of a template.
type object map[string]any

// A TemplateWriter appends objects of T through a Go template. Names are those of
// JSON, {{.orig.src}}; what the object lacks prints as nothing, and a comparison
// with it is false.
type TemplateWriter[T any] struct {
	tmpl *template.Template
	rows []reachable[T]

	others []string // names that objects of other kinds have
	safe   bool     // see Output.Terminal
	root   object
	out    bytes.Buffer
	err    error
}

// reachable is a field that the template can reach.
type reachable[T any] struct {
	*field.Row[T]
	words *[64]string // of Flags
	cell  func([]byte, *T) []byte
	value any // of the object at hand
}

// newTemplate compiles a template. A name that no field has is an error, unless others
// says that other objects of the stream have it. A newline is added to each object when
// the template does not end with one.
func newTemplate[T any](reg *field.Registry[T], text string, others func(string) bool) (*TemplateWriter[T], error) {
	bad := func(why string) error {
		return &value.Error{What: "template", Text: text, Valid: "Go template syntax, as '{{.orig.src}}': " + why}
	}
	tmpl, err := template.New("template").Option("missingkey=zero").Funcs(comparisons).Parse(text)
	if err != nil {
		return nil, bad(strings.TrimPrefix(err.Error(), "template: template:"))
	}
	w := &TemplateWriter[T]{tmpl: tmpl, root: object{}}
	paths, all, calls := reached(tmpl.Root)
	if calls {
		return nil, bad("no field is a function that could be called: write {{.orig.src}}, without call")
	}
	var ours []string
	for _, p := range paths {
		row, err := reg.Find(p)
		switch {
		case reg.Group(p) || err == nil && row.Path == p:
			ours = append(ours, p)
		case others != nil && others(p):
			w.others = append(w.others, p)
		case err == nil: // an alias
			return nil, bad("the name of " + p + " is " + row.Path)
		default:
			return nil, fmt.Errorf("template: %w", err)
		}
	}
	if all {
		ours = nil
	}
	if all || len(ours) > 0 {
		rows, err := SelectRows(reg, ours)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			w.rows = append(w.rows, reachable[T]{Row: r, words: bitWords(r.Names), cell: cell(r)})
		}
	}
	return w, nil
}

// Append appends t, and a newline when the template did not end with one. What
// fails prints as far as it got; Err tells.
func (w *TemplateWriter[T]) Append(b []byte, t *T) []byte {
	clear(w.root)
	// What is absent comes last: by then its object is there, if it has others.
	for i := range w.rows {
		r := &w.rows[i]
		r.value = r.load(t)
		if text, ok := r.value.(string); ok && w.safe {
			r.value = string(printable([]byte(text), 0))
		}
		if _, no := r.value.(absent); !no {
			set(w.root, r.Path, r.value)
		}
	}
	for i := range w.rows {
		if v, no := w.rows[i].value.(absent); no {
			set(w.root, w.rows[i].Path, v)
		}
	}
	for _, p := range w.others {
		set(w.root, p, absent(nil))
	}
	w.out.Reset()
	if err := w.tmpl.Execute(&w.out, w.root); err != nil && w.err == nil {
		w.err = err
	}
	b = append(b, w.out.Bytes()...)
	if len(b) == 0 || b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	return b
}

// Err returns the first failure of the template, or nil.
func (w *TemplateWriter[T]) Err() error {
	if w.err == nil {
		return nil
	}
	var e template.ExecError
	if errors.As(w.err, &e) {
		return fmt.Errorf("template: %w", e.Err)
	}
	return w.err
}

// set puts v at a path. An object none of whose fields is there stays absent.
func set(o object, path string, v any) {
	name, rest, nested := strings.Cut(path, ".")
	_, missing := v.(absent)
	if !nested {
		o[name] = v
		return
	}
	sub, ok := o[name].(object)
	if !ok {
		if missing {
			if o[name] == nil {
				o[name] = absent(nil)
			}
			return
		}
		sub = object{}
		o[name] = sub
	}
	set(sub, rest, v)
}

// load returns a field as a template sees it: uint64, string, bool, list or
// absent.
func (r *reachable[T]) load(t *T) any {
	switch {
	case r.Null != nil && r.Null(t):
	case r.Num != nil:
		n, ok := r.Num(t)
		switch {
		case !ok:
		case r.Kind == field.Uint:
			return n
		case r.Kind == field.Bool:
			return n != 0
		case r.Kind == field.Lasting:
			return float64(n) / 1e9
		case r.Kind == field.Time:
			return string(value.AppendTime(nil, n))
		case r.Kind == field.Flags:
			l := list{}
			for ; n != 0; n &= n - 1 {
				l = append(l, r.words[bits.TrailingZeros64(n)])
			}
			return l
		default:
			return string(r.cell(nil, t))
		}
	case r.IP != nil:
		if a, ok := r.IP(t); ok {
			return string(value.AppendAddr(nil, a))
		}
	case r.Data != nil:
		d, ok := r.Data(t)
		switch {
		case !ok:
		case r.Kind == field.Bytes:
			return base64.StdEncoding.EncodeToString(d)
		case r.Kind == field.Bits:
			if s := string(appendBits(nil, d, r.Bit)); s != "" {
				return list(strings.Split(s, ","))
			}
			return list{}
		default:
			return string(d)
		}
	}
	return absent(nil)
}

// reached returns the paths that a template names from its data's root, and
// whether it may reach others too; and whether it calls fields, of which none is a
// function.
func reached(root *parse.ListNode) (paths []string, all, calls bool) {
	var walk func(n parse.Node, moved bool)
	list := func(l *parse.ListNode, moved bool) {
		if l == nil {
			return
		}
		for _, n := range l.Nodes {
			walk(n, moved)
		}
	}
	walk = func(n parse.Node, moved bool) {
		switch n := n.(type) {
		case *parse.ListNode:
			list(n, moved)
		case *parse.ActionNode:
			walk(n.Pipe, moved)
		case *parse.PipeNode:
			if n == nil {
				return
			}
			for _, c := range n.Cmds {
				for _, a := range c.Args {
					walk(a, moved)
				}
			}
		case *parse.FieldNode:
			if !moved {
				paths = append(paths, strings.Join(n.Ident, "."))
			}
		case *parse.VariableNode:
			if n.Ident[0] == "$" {
				if len(n.Ident) == 1 {
					all = true
				} else {
					paths = append(paths, strings.Join(n.Ident[1:], "."))
				}
			}
		case *parse.ChainNode:
			walk(n.Node, moved)
		case *parse.IdentifierNode:
			calls = calls || n.Ident == "call"
		case *parse.DotNode:
			all = all || !moved
		case *parse.IfNode:
			walk(n.Pipe, moved)
			list(n.List, moved)
			list(n.ElseList, moved)
		case *parse.RangeNode:
			walk(n.Pipe, moved)
			list(n.List, true)
			list(n.ElseList, moved)
		case *parse.WithNode:
			walk(n.Pipe, moved)
			list(n.List, true)
			list(n.ElseList, moved)
		case *parse.TemplateNode:
			all = true
		}
	}
	walk(root, false)
	return paths, all, calls
}

// comparisons replace those of the template language: a comparison with what is
// absent is false, and a number compares with any number.
var comparisons = template.FuncMap{
	"eq": func(a any, bs ...any) bool {
		for _, b := range bs {
			if c, ok := compare(a, b); ok && c == 0 {
				return true
			}
		}
		return false
	},
	"ne": func(a, b any) bool { c, ok := compare(a, b); return ok && c != 0 },
	"lt": func(a, b any) bool { c, ok := compare(a, b); return ok && c < 0 },
	"le": func(a, b any) bool { c, ok := compare(a, b); return ok && c <= 0 },
	"gt": func(a, b any) bool { c, ok := compare(a, b); return ok && c > 0 },
	"ge": func(a, b any) bool { c, ok := compare(a, b); return ok && c >= 0 },
}

// compare orders two numbers or two texts. A number and a text are unequal.
func compare(a, b any) (int, bool) {
	if _, no := a.(absent); no {
		return 0, false
	}
	if _, no := b.(absent); no {
		return 0, false
	}
	x, xok := number(a)
	y, yok := number(b)
	switch {
	case xok && yok && x.neg != y.neg:
		if x.neg {
			return -1, true
		}
		return 1, true
	case xok && yok && x.abs == y.abs:
		return 0, true
	case xok && yok:
		if (x.abs < y.abs) != x.neg {
			return -1, true
		}
		return 1, true
	case xok != yok:
		return 1, true
	}
	return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)), true
}

type signed struct {
	abs uint64
	neg bool
}

func number(v any) (signed, bool) {
	switch v := v.(type) {
	case uint64:
		return signed{abs: v}, true
	case int:
		if v < 0 {
			return signed{abs: uint64(-v), neg: true}, true
		}
		return signed{abs: uint64(v)}, true
	}
	return signed{}, false
}
