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
	ops    []jsonOp[T] // of all fields
	groups []jsonGroup // groups[0] is the object itself

	// What an object lacks by its bits is not looked at: each set of bits that is
	// met has its own ops, of the fields that there can be.
	bits func(*T) uint64
	sets map[uint64][]jsonOp[T]
}

// maxSets bounds the sets that are kept. A kernel sends some ten.
const maxSets = 64

type jsonGroup struct {
	parent, depth int
	open          string // "orig":{
}

// A jsonOp writes one field. Every field and object is written with a comma
// behind it, over which the end of its object is written.
//
// text is the key, "src":, for strings with the quotation mark behind it. Of a
// number the value follows as it was last written, with all that ends it: most
// are the same from one object to the next, and then key and value are copied at
// once, with a few moves whatever their length.
type jsonOp[T any] struct {
	text  [textSize]byte
	key   uint8 // how much of text is the key; 255: it is too long, see jsonWords.key
	all   uint8 // how much of text is key and value; 0: there is no value
	kind  field.Kind
	group uint16
	skip  uint16         // how many ops behind this one are of the same part
	last  uint64         // the value in text
	need  uint64         // bits without which there is no field
	part  *field.Part[T] // set on the first op of a part
	num   func(*T) (uint64, bool)
	ip    func(*T) (netip.Addr, bool)
	data  func(*T) ([]byte, bool)
	null  func(*T) bool
	words *jsonWords
}

const textSize = 64

// room is how much space an op needs at most before it appends with care: the
// key, and a number or an address.
const room = 128

// appendKey appends the op's key. b has the room.
func (op *jsonOp[T]) appendKey(b []byte) []byte {
	if op.key == 255 {
		return append(b, op.words.key...)
	}
	n := len(b)
	*(*[textSize]byte)(b[n : n+textSize]) = op.text
	return b[:n+int(op.key)]
}

// appendNum appends key and value of a number. b has the room.
func (op *jsonOp[T]) appendNum(b []byte, n uint64) []byte {
	start := len(b)
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
	case field.Lasting:
		b = append(value.AppendSeconds(b, n), ',')
	}
	op.last, op.all = n, 0
	if size := len(b) - start; size <= textSize {
		op.text, op.all = [textSize]byte(b[start:start+textSize]), uint8(size)
	}
	return b
}

type jsonWords struct {
	key   string
	name  string // "src":
	names *value.Names
	bit   func(int) string
	flags *[64]string // the word of each bit
}

// newJSON returns a writer of all fields but the hidden ones, or of those that
// SelectRows finds for fields; and of the hidden fields that extra names.
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
	j := &JSONWriter[T]{bits: reg.Presence, sets: map[uint64][]jsonOp[T]{}}
	j.compile(rows)
	return j, nil
}

// compile turns rows into ops, objects within the object together whatever the
// order of rows.
func (j *JSONWriter[T]) compile(rows []*field.Row[T]) {
	j.groups = []jsonGroup{{}}
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
			op := jsonOp[T]{key: 255, kind: r.Kind, group: uint16(group), part: r.Part, null: r.Null, num: r.Num,
				ip: r.IP, data: r.Data, words: words}
			if j.bits != nil && r.Need != 0 {
				op.need, op.part = r.Need, nil
			}
			if len(key) <= textSize {
				op.key = uint8(copy(op.text[:], key))
			}
			j.ops = append(j.ops, op)
		}
	}
	walk("", 0)
	for i := len(j.ops) - 1; i > 0; i-- { // of a part's ops the first looks for all
		if op, before := &j.ops[i], &j.ops[i-1]; op.part != nil && op.part == before.part {
			before.skip, op.part = op.skip+1, nil
		}
	}
}

// having returns the ops of objects that have these bits.
func (j *JSONWriter[T]) having(bits uint64) []jsonOp[T] {
	ops, ok := j.sets[bits]
	if !ok {
		for _, op := range j.ops {
			if op.need&^bits == 0 {
				ops = append(ops, op)
			}
		}
		if len(j.sets) >= maxSets {
			clear(j.sets)
		}
		j.sets[bits] = ops
	}
	return ops
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
	cur, ops := uint16(0), j.ops
	if j.bits != nil {
		ops = j.having(j.bits(t))
	}
	for i := 0; i < len(ops); i++ {
		op := &ops[i]
		if op.part != nil && !op.part.Has(t) {
			i += int(op.skip)
			continue
		}
		if op.null != nil && op.null(t) {
			b, cur = j.reach(b, cur, op.group), op.group
			b = append(append(b, op.words.name...), "null,"...)
			continue
		}
		switch {
		case op.num != nil:
			n, ok := op.num(t)
			if !ok {
				continue
			}
			if op.group != cur || cap(b)-len(b) < room {
				b, cur = j.reach(b, cur, op.group), op.group
			}
			if n == op.last && op.all != 0 {
				*(*[textSize]byte)(b[len(b) : len(b)+textSize]) = op.text
				b = b[:len(b)+int(op.all)]
				continue
			}
			b = op.appendNum(b, n)
		case op.ip != nil:
			a, ok := op.ip(t)
			if !ok {
				continue
			}
			if op.group != cur || cap(b)-len(b) < room {
				b, cur = j.reach(b, cur, op.group), op.group
			}
			b = append(value.AppendAddr(op.appendKey(b), a), '"', ',')
		case op.data != nil:
			d, ok := op.data(t)
			if !ok {
				continue
			}
			if op.group != cur || cap(b)-len(b) < room {
				b, cur = j.reach(b, cur, op.group), op.group
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

// reach goes from one group to another, and makes room for a field.
func (j *JSONWriter[T]) reach(b []byte, at, target uint16) []byte {
	b = j.move(b, at, target)
	if cap(b)-len(b) < room {
		b = slices.Grow(b, 4*room)
	}
	return b
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
