package format

import (
	"encoding/base64"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// A JSONWriter appends objects of T as JSON Lines: one object a line. Numbers
// are numbers, 64 bits too; names, addresses and times are strings; flags are
// arrays of names; what the object lacks is left out; null is what could not be
// known.
type JSONWriter[T any] struct {
	ops    []jsonOp[T]
	groups []jsonGroup // groups[0] is the object itself
}

type jsonGroup struct {
	parent, depth int
	open          string // ,"orig":{
}

type jsonOp[T any] struct {
	key   string // ,"src":
	kind  field.Kind
	group int
	next  int            // the op behind those of the same part
	part  *field.Part[T] // set on the first op of a part
	null  func(*T) bool
	num   func(*T) (uint64, bool)
	ip    func(*T) (netip.Addr, bool)
	data  func(*T) ([]byte, bool)
	names *value.Names
	bit   func(int) string
	flags *[64]string // the word of each bit
}

// NewJSON returns a writer of all fields but the hidden ones, or of those that
// SelectRows finds for fields.
func NewJSON[T any](reg *field.Registry[T], fields ...string) (*JSONWriter[T], error) {
	return newJSON(reg, fields, nil)
}

// newJSON writes also the hidden fields that extra names.
func newJSON[T any](reg *field.Registry[T], fields, extra []string) (*JSONWriter[T], error) {
	rows, err := SelectRows(reg, fields)
	if err == nil && len(fields) == 0 && len(extra) > 0 {
		var more []*field.Row[T]
		more, err = SelectRows(reg, extra)
		rows = append(rows, more...)
	}
	if err != nil {
		return nil, err
	}
	j := &JSONWriter[T]{}
	j.compile(rows)
	return j, nil
}

// compile turns rows into ops, objects within the object together whatever the
// order of rows.
func (j *JSONWriter[T]) compile(rows []*field.Row[T]) {
	j.groups = []jsonGroup{{}}
	var parts []*field.Part[T]
	done := map[string]bool{}
	var walk func(prefix string, group int)
	walk = func(prefix string, group int) {
		for _, r := range rows {
			rest, ok := strings.CutPrefix(r.Path, prefix)
			if !ok {
				continue
			}
			name, _, nested := strings.Cut(rest, ".")
			if done[prefix+name] {
				continue
			}
			done[prefix+name] = true
			key := string(appendJSONText([]byte{','}, name)) + ":"
			if nested {
				j.groups = append(j.groups, jsonGroup{parent: group, depth: j.groups[group].depth + 1, open: key + "{"})
				walk(prefix+name+".", len(j.groups)-1)
				continue
			}
			op := jsonOp[T]{key: key, kind: r.Kind, group: group, null: r.Null, num: r.Num, ip: r.IP, data: r.Data,
				names: r.Names, bit: r.Bit}
			if r.Kind == field.Flags {
				op.flags = bitWords(r.Names)
			}
			j.ops = append(j.ops, op)
			parts = append(parts, r.Part)
		}
	}
	walk("", 0)
	for i := 0; i < len(parts); {
		n := i + 1
		for n < len(parts) && parts[n] == parts[i] {
			n++
		}
		j.ops[i].part, j.ops[i].next = parts[i], n
		i = n
	}
}

// bitWords returns the word of each bit of a table whose numbers are masks. A
// bit without a word is written as its mask in hexadecimal.
func bitWords(names *value.Names) *[64]string {
	var w [64]string
	for i := range w {
		if names != nil {
			w[i] = names.Word(1 << i)
		}
		if w[i] == "" {
			w[i] = string(value.AppendHex(nil, 1<<i))
		}
	}
	return &w
}

// Append appends t as one line.
func (j *JSONWriter[T]) Append(b []byte, t *T) []byte {
	b = append(b, '{')
	cur := 0
	for i := 0; i < len(j.ops); i++ {
		op := &j.ops[i]
		if op.part != nil && !op.part.Has(t) {
			i = op.next - 1
			continue
		}
		var (
			n    uint64
			a    netip.Addr
			d    []byte
			ok   bool
			null = op.null != nil && op.null(t)
		)
		switch {
		case null:
		case op.num != nil:
			n, ok = op.num(t)
		case op.ip != nil:
			a, ok = op.ip(t)
		case op.data != nil:
			d, ok = op.data(t)
		}
		if !ok && !null {
			continue
		}
		if op.group != cur {
			b = j.move(b, cur, op.group)
			cur = op.group
		}
		if b[len(b)-1] == '{' {
			b = append(b, op.key[1:]...)
		} else {
			b = append(b, op.key...)
		}
		if null {
			b = append(b, "null"...)
			continue
		}
		switch op.kind {
		case field.Uint:
			b = strconv.AppendUint(b, n, 10)
		case field.Enum:
			b = append(b, '"')
			if op.names != nil {
				b = op.names.Append(b, n)
			} else {
				b = strconv.AppendUint(b, n, 10)
			}
			b = append(b, '"')
		case field.Flags:
			b = append(b, '[')
			for ; n != 0; n &= n - 1 {
				b = append(b, '"')
				b = append(b, op.flags[bits.TrailingZeros64(n)]...)
				b = append(b, '"', ',')
			}
			b = closeList(b)
		case field.Bits:
			b = append(b, '[')
			for k, octet := range d {
				for ; octet != 0; octet &= octet - 1 {
					b = appendBit(append(b, '"'), op.bit, 8*k+bits.TrailingZeros8(octet))
					b = append(b, '"', ',')
				}
			}
			b = closeList(b)
		case field.Addr:
			b = append(b, '"')
			b = value.AppendAddr(b, a)
			b = append(b, '"')
		case field.String:
			b = appendJSONText(b, d)
		case field.Bytes:
			b = append(b, '"')
			b = base64.StdEncoding.AppendEncode(b, d)
			b = append(b, '"')
		case field.Time:
			b = append(b, '"')
			b = value.AppendTime(b, n)
			b = append(b, '"')
		case field.Bool:
			b = strconv.AppendBool(b, n != 0)
		}
	}
	for ; cur != 0; cur = j.groups[cur].parent {
		b = append(b, '}')
	}
	return append(b, "}\n"...)
}

func closeList(b []byte) []byte {
	if b[len(b)-1] == ',' {
		b[len(b)-1] = ']'
		return b
	}
	return append(b, ']')
}

// move closes objects from one group up to what it shares with another, and
// opens those down to that.
func (j *JSONWriter[T]) move(b []byte, from, to int) []byte {
	up := to
	for j.groups[up].depth > j.groups[from].depth {
		up = j.groups[up].parent
	}
	for from != up {
		if j.groups[from].depth == j.groups[up].depth {
			up = j.groups[up].parent
		}
		b = append(b, '}')
		from = j.groups[from].parent
	}
	return j.open(b, from, to)
}

func (j *JSONWriter[T]) open(b []byte, from, to int) []byte {
	if from == to {
		return b
	}
	g := &j.groups[to]
	b = j.open(b, from, g.parent)
	if b[len(b)-1] == '{' {
		return append(b, g.open[1:]...)
	}
	return append(b, g.open...)
}

// appendBit appends the name of a label, or its number. Names come from a file
// of the user's, so they are escaped.
func appendBit(b []byte, name func(int) string, n int) []byte {
	if name != nil {
		if w := name(n); w != "" {
			return appendEscaped(b, w)
		}
	}
	return strconv.AppendUint(b, uint64(n), 10)
}

// plain tells the octets that stand for themselves in a JSON string.
var plain = func() (p [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		p[c] = c != '"' && c != '\\'
	}
	return
}()

// appendJSONText appends s as a JSON string. What is not UTF-8 becomes U+FFFD.
func appendJSONText[S string | []byte](b []byte, s S) []byte {
	return append(appendEscaped(append(b, '"'), s), '"')
}

const hexDigits = "0123456789abcdef"

func appendEscaped[S string | []byte](b []byte, s S) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := decodeRune(s[i:])
			if r != utf8.RuneError || n != 1 {
				i += n
				continue
			}
		}
		b = append(b, s[start:i]...)
		switch {
		case c >= utf8.RuneSelf:
			b = append(b, `\ufffd`...)
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(b, s[start:]...)
}

func decodeRune[S string | []byte](s S) (rune, int) {
	var head [utf8.UTFMax]byte
	return utf8.DecodeRune(head[:copy(head[:], s)])
}

// SelectRows returns the rows that names name, in their order: paths, aliases
// and objects, as "orig", which stand for all of their rows. Without names it
// returns all rows but the hidden ones.
func SelectRows[T any](reg *field.Registry[T], names []string) ([]*field.Row[T], error) {
	var out []*field.Row[T]
	rows := reg.Rows()
	if len(names) == 0 {
		names = []string{""}
	}
	for _, name := range names {
		if row := reg.Row(name); row != nil {
			out = append(out, row)
			continue
		}
		if name != "" && !reg.Group(name) {
			_, err := reg.Find(name)
			return nil, err
		}
		prefix := name + "."
		if name == "" {
			prefix = ""
		}
		for i := range rows {
			if strings.HasPrefix(rows[i].Path, prefix) && !rows[i].Hidden {
				out = append(out, &rows[i])
			}
		}
	}
	return out, nil
}
