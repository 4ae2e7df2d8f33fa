package lua

import (
	"strings"

	lua "github.com/yuin/gopher-lua"

	"nfctl/internal/field"
	"nfctl/internal/lazy"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// A node is a key of a packet: a field, or an object that holds some.
type node struct {
	key  string
	path string
	row  *field.Row[queue.Packet] // nil: an object
	kids []*node
	at   map[string]*node
}

// fields is the tree of a packet's fields, with the names of JSON.
var fields = lazy.Value[*node]{Make: func() *node {
	root := &node{at: map[string]*node{}}
	rows := queue.Fields.Rows()
	for i := range rows {
		r := &rows[i]
		if queue.Fields.Reserved(r.Path) != "" {
			continue
		}
		n, rest := root, r.Path
		for {
			key, more, nested := strings.Cut(rest, ".")
			kid := n.at[key]
			if kid == nil {
				kid = &node{key: key, path: r.Path[:len(r.Path)-len(rest)] + key, at: map[string]*node{}}
				n.at[key] = kid
				n.kids = append(n.kids, kid)
			}
			if !nested {
				kid.row = r
				break
			}
			n, rest = kid, more
		}
	}
	return root
}}

// fill sets the fields that p has in t. Hidden ones are left out, but for the
// transport's payload.
func (n *node) fill(L *lua.LState, t *lua.LTable, p *queue.Packet) bool {
	any := false
	for _, k := range n.kids {
		var v lua.LValue = lua.LNil
		switch {
		case k.row == nil:
			sub := L.NewTable()
			if k.fill(L, sub, p) {
				v = sub
			}
		case !k.row.Hidden || k.path == "payload":
			v = rowValue(L, k.row, p)
		}
		if v != lua.LNil {
			t.RawSetString(k.key, v)
			any = true
		}
	}
	return any
}

// has reports whether p has any field of an object.
func (n *node) has(p *queue.Packet) bool {
	for _, k := range n.kids {
		if k.row != nil && k.row.Has(p) || k.row == nil && k.has(p) {
			return true
		}
	}
	return false
}

// rowValue returns a field's value: numbers as numbers, names and addresses as
// text, flags as a list of names, bytes as they are.
func rowValue(L *lua.LState, r *field.Row[queue.Packet], p *queue.Packet) lua.LValue {
	switch r.Kind {
	case field.Addr:
		if a, ok := r.IP(p); ok {
			return lua.LString(value.AppendAddr(nil, a))
		}
	case field.String, field.Bytes:
		if b, ok := r.Data(p); ok {
			return lua.LString(b)
		}
	case field.Bits:
		b, ok := r.Data(p)
		if !ok {
			return lua.LNil
		}
		t := L.NewTable()
		for i := range 8 * len(b) {
			if b[i/8]>>(i%8)&1 == 0 {
				continue
			}
			word := ""
			if r.Bit != nil {
				word = r.Bit(i)
			}
			if word == "" {
				t.Append(lua.LNumber(i))
			} else {
				t.Append(lua.LString(word))
			}
		}
		return t
	default:
		n, ok := r.Num(p)
		if !ok {
			return lua.LNil
		}
		switch r.Kind {
		case field.Bool:
			return lua.LBool(n != 0)
		case field.Lasting:
			return lua.LNumber(float64(n) / 1e9)
		case field.Time:
			return lua.LString(value.AppendTime(nil, n))
		case field.Enum:
			return lua.LString(r.Names.Append(nil, n))
		case field.Flags:
			t := L.NewTable()
			for ; n != 0; n &= n - 1 {
				t.Append(lua.LString(r.Names.Append(nil, n&-n)))
			}
			return t
		}
		return lua.LNumber(n)
	}
	return lua.LNil
}
