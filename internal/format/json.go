package format

import (
	"encoding/base64"
	"math/bits"
	"net/netip"
	"slices"
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
	bits   func(*T) uint64
}

type jsonGroup struct {
	parent, depth int
	open          string // "orig":{
}

// A jsonOp writes one field. Every field and object is written with a comma
// behind it, over which the end of its object is written.
type jsonOp[T any] struct {
	need  uint64         // bits without which there is no field
	part  *field.Part[T] // set on the first op of a part
	num   func(*T) (uint64, bool)
	ip    func(*T) (netip.Addr, bool)
	data  func(*T) ([]byte, bool)
	null  func(*T) bool
	key   jsonKey // "src":, for strings with the quotation mark behind it
	kind  field.Kind
	group uint16
	next  uint16 // the op behind those of the same part
	words *jsonWords
}

// A jsonKey is text that is copied whole, whatever its length: one move in place
// of a call.
type jsonKey struct {
	text [31]byte
	n    uint8 // 255: too long, see jsonWords.key
}

// room is how much space an op needs at most before it appends with care: the
// key, and a number or an address.
const room = 96

// appendKey appends the op's key. b has the room.
func (op *jsonOp[T]) appendKey(b []byte) []byte {
	if op.key.n == 255 {
		return append(b, op.words.key...)
	}
	n := len(b)
	*(*[31]byte)(b[n : n+31]) = op.key.text
	return b[:n+int(op.key.n)]
}

type jsonWords struct {
	key   string
	name  string // "src":
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
	j := &JSONWriter[T]{bits: reg.Presence}
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
			key := string(appendJSONText(nil, name)) + ":"
			if nested {
				j.groups = append(j.groups, jsonGroup{parent: group, depth: j.groups[group].depth + 1, open: key + "{"})
				walk(prefix+name+".", len(j.groups)-1)
				continue
			}
			words := &jsonWords{name: key, names: r.Names, bit: r.Bit}
			switch r.Kind {
			case field.Enum:
				if r.Names == nil {
					words.names = noNames
				}
				key += `"`
			case field.Addr, field.String, field.Bytes, field.Time:
				key += `"`
			case field.Flags:
				words.flags = bitWords(r.Names)
				key += "["
			case field.Bits:
				key += "["
			}
			words.key = key
			k := jsonKey{n: 255}
			if len(key) <= len(k.text) {
				copy(k.text[:], key)
				k.n = uint8(len(key))
			}
			j.ops = append(j.ops, jsonOp[T]{key: k, kind: r.Kind, group: uint16(group), null: r.Null, num: r.Num, ip: r.IP, data: r.Data, words: words})
			part := r.Part
			if j.bits != nil && r.Need != 0 {
				j.ops[len(j.ops)-1].need, part = r.Need, nil
			}
			parts = append(parts, part)
		}
	}
	walk("", 0)
	for i := 0; i < len(parts); {
		n := i + 1
		for n < len(parts) && parts[n] == parts[i] {
			n++
		}
		j.ops[i].part, j.ops[i].next = parts[i], uint16(n)
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

var noNames = value.NewNames("", 0)

// Append appends t as one line.
func (j *JSONWriter[T]) Append(b []byte, t *T) []byte {
	b = append(b, '{')
	cur, absent := uint16(0), uint64(0)
	if j.bits != nil {
		absent = ^j.bits(t)
	}
	for i := 0; i < len(j.ops); i++ {
		op := &j.ops[i]
		if op.need&absent != 0 {
			continue
		}
		if op.part != nil && !op.part.Has(t) {
			i = int(op.next) - 1
			continue
		}
		if op.null != nil && op.null(t) {
			if op.group != cur {
				b = j.move(b, cur, op.group)
				cur = op.group
			}
			b = append(append(b, op.words.name...), "null,"...)
			continue
		}
		switch {
		case op.num != nil:
			n, ok := op.num(t)
			if !ok {
				continue
			}
			if op.group != cur {
				b = j.move(b, cur, op.group)
				cur = op.group
			}
			if cap(b)-len(b) < room {
				b = slices.Grow(b, 4*room)
			}
			b = op.appendKey(b)
			switch op.kind {
			case field.Uint:
				b = append(strconv.AppendUint(b, n, 10), ',')
			case field.Enum:
				b = append(op.words.names.Append(b, n), '"', ',')
			case field.Flags:
				b = appendJSONFlags(b, op.words.flags, n)
			case field.Time:
				b = append(value.AppendTime(b, n), '"', ',')
			case field.Bool:
				b = append(strconv.AppendBool(b, n != 0), ',')
			}
		case op.ip != nil:
			a, ok := op.ip(t)
			if !ok {
				continue
			}
			if op.group != cur {
				b = j.move(b, cur, op.group)
				cur = op.group
			}
			if cap(b)-len(b) < room {
				b = slices.Grow(b, 4*room)
			}
			b = append(value.AppendAddr(op.appendKey(b), a), '"', ',')
		case op.data != nil:
			d, ok := op.data(t)
			if !ok {
				continue
			}
			if op.group != cur {
				b = j.move(b, cur, op.group)
				cur = op.group
			}
			if cap(b)-len(b) < room {
				b = slices.Grow(b, 4*room)
			}
			b = op.appendKey(b)
			switch op.kind {
			case field.Bits:
				b = appendJSONBits(b, d, op.words.bit)
			case field.Bytes:
				b = append(base64.StdEncoding.AppendEncode(b, d), '"', ',')
			default:
				b = append(appendEscaped(b, d), '"', ',')
			}
		}
	}
	for ; cur != 0; cur = uint16(j.groups[cur].parent) {
		b[len(b)-1] = '}'
		b = append(b, ',')
	}
	if b[len(b)-1] == ',' {
		b = b[:len(b)-1]
	}
	return append(b, "}\n"...)
}

// appendJSONFlags appends the words of the bits in n and ends the array.
func appendJSONFlags(b []byte, words *[64]string, n uint64) []byte {
	if n == 0 {
		return append(b, "],"...)
	}
	for ; n != 0; n &= n - 1 {
		b = append(append(b, '"'), words[bits.TrailingZeros64(n)]...)
		b = append(b, '"', ',')
	}
	b[len(b)-1] = ']'
	return append(b, ',')
}

func appendJSONBits(b, d []byte, name func(int) string) []byte {
	none := true
	for k, octet := range d {
		for ; octet != 0; octet &= octet - 1 {
			none = false
			b = appendBit(append(b, '"'), name, 8*k+bits.TrailingZeros8(octet))
			b = append(b, '"', ',')
		}
	}
	if none {
		return append(b, "],"...)
	}
	b[len(b)-1] = ']'
	return append(b, ',')
}

// move closes objects from one group up to what it shares with another, and
// opens those down to that. An object is opened only for something in it, so
// what is closed ends in a comma.
func (j *JSONWriter[T]) move(b []byte, at, target uint16) []byte {
	from, to := int(at), int(target)
	up := to
	for j.groups[up].depth > j.groups[from].depth {
		up = j.groups[up].parent
	}
	for from != up {
		if j.groups[from].depth == j.groups[up].depth {
			up = j.groups[up].parent
		}
		b[len(b)-1] = '}'
		b = append(b, ',')
		from = j.groups[from].parent
	}
	return j.open(b, from, to)
}

func (j *JSONWriter[T]) open(b []byte, from, to int) []byte {
	if from == to {
		return b
	}
	g := &j.groups[to]
	if g.parent != from {
		b = j.open(b, from, g.parent)
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
