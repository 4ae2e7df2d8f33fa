package format

import (
	"bytes"
	"encoding/base64"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// A Column is one cell of each line of a table, csv or tsv.
type Column[T any] struct {
	Name   string // head of the column; tables write it in capitals
	Right  bool   // align to the right
	Plain  bool   // csv and tsv need never quote it
	Tail   bool   // where a table has no room, the middle is cut: the end, as a port, tells more
	Stays  bool   // in tables that have no room for all, and when it is 0 in each line
	Append func(b []byte, t *T) []byte
}

// RowColumn returns the column of a field: numbers as people read them, names of
// flags with commas between them, nothing where the object lacks the field.
func RowColumn[T any](r *field.Row[T]) Column[T] {
	c := Column[T]{Name: r.Path, Append: cell(r)}
	c.Right = r.Kind == field.Uint || r.Kind == field.Lasting
	c.Tail = r.Kind == field.Addr
	switch r.Kind {
	case field.Uint, field.Enum, field.Addr, field.Time, field.Bool, field.Lasting:
		c.Plain = true
	}
	if null := r.Null; null != nil {
		known := c.Append
		c.Append = func(b []byte, t *T) []byte {
			if null(t) {
				return append(b, "unknown"...)
			}
			return known(b, t)
		}
	}
	return c
}

// Columns returns the columns of the fields that names name, or def when there
// are no names, or those of all fields when there is no def either.
func Columns[T any](reg *field.Registry[T], def []Column[T], names []string) ([]Column[T], error) {
	if len(names) == 0 && def != nil {
		return def, nil
	}
	rows, err := SelectRows(reg, names)
	if err != nil {
		return nil, err
	}
	out := make([]Column[T], 0, len(rows))
	for _, r := range rows {
		out = append(out, RowColumn(r))
	}
	return out, nil
}

func cell[T any](r *field.Row[T]) func([]byte, *T) []byte {
	num, ip, data := r.Num, r.IP, r.Data
	switch r.Kind {
	case field.Addr:
		return func(b []byte, t *T) []byte {
			if a, ok := ip(t); ok {
				return value.AppendAddr(b, a)
			}
			return b
		}
	case field.String:
		return func(b []byte, t *T) []byte {
			if d, ok := data(t); ok {
				return append(b, d...)
			}
			return b
		}
	case field.Bytes:
		return func(b []byte, t *T) []byte {
			if d, ok := data(t); ok {
				return base64.StdEncoding.AppendEncode(b, d)
			}
			return b
		}
	case field.Bits:
		return func(b []byte, t *T) []byte {
			if d, ok := data(t); ok {
				return appendBits(b, d, r.Bit)
			}
			return b
		}
	}
	write := func(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) }
	switch {
	case r.Kind == field.Enum && r.Names != nil:
		write = r.Names.Append
	case r.Kind == field.Flags:
		words := bitWords(r.Names)
		write = func(b []byte, n uint64) []byte { return appendFlags(b, words, n) }
	case r.Kind == field.Time:
		write = value.AppendTime
	case r.Kind == field.Bool:
		write = func(b []byte, n uint64) []byte { return strconv.AppendBool(b, n != 0) }
	case r.Kind == field.Lasting:
		write = value.AppendSeconds
	case r.AppendNum != nil:
		write = r.AppendNum
	default:
		return func(b []byte, t *T) []byte {
			if n, ok := num(t); ok {
				return strconv.AppendUint(b, n, 10)
			}
			return b
		}
	}
	return func(b []byte, t *T) []byte {
		if n, ok := num(t); ok {
			return write(b, n)
		}
		return b
	}
}

// appendFlags appends the words of the bits in n with commas between them.
func appendFlags(b []byte, words *[64]string, n uint64) []byte {
	start := len(b)
	for ; n != 0; n &= n - 1 {
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(b, words[bits.TrailingZeros64(n)]...)
	}
	return b
}

// appendBits appends the names of the bits set in d, or their numbers, with
// commas between them.
func appendBits(b, d []byte, name func(int) string) []byte {
	start := len(b)
	for k, octet := range d {
		for ; octet != 0; octet &= octet - 1 {
			if len(b) > start {
				b = append(b, ',')
			}
			n, w := 8*k+bits.TrailingZeros8(octet), ""
			if name != nil {
				w = name(n)
			}
			if w == "" {
				b = strconv.AppendUint(b, uint64(n), 10)
			}
			b = append(b, w...)
		}
	}
	return b
}

// separated writes csv or tsv.
type separated[T any] struct {
	cols []Column[T]
	sep  byte
	safe bool // see Output.Terminal
	cell []byte
}

func (s *separated[T]) begin(b []byte) []byte {
	for i := range s.cols {
		if i > 0 {
			b = append(b, s.sep)
		}
		start := len(b)
		b = s.finish(append(b, s.cols[i].Name...), start)
	}
	return append(b, '\n')
}

func (s *separated[T]) append(b []byte, t *T) []byte {
	for i := range s.cols {
		if i > 0 {
			b = append(b, s.sep)
		}
		c := &s.cols[i]
		start := len(b)
		if b = c.Append(b, t); !c.Plain {
			b = s.finish(b, start)
		}
	}
	return append(b, '\n')
}

// finish quotes or escapes the cell that begins at start, when it must be: csv
// as RFC 4180 says, tsv with \t, \n, \r and \\.
func (s *separated[T]) finish(b []byte, start int) []byte {
	if s.safe {
		b = printable(b, start)
	}
	for i := start; i < len(b); i++ {
		if special[b[i]] {
			return s.quote(b, start)
		}
	}
	return b
}

// special tells the octets for which a cell may need quoting.
var special = [256]bool{',': true, '"': true, '\n': true, '\r': true, '\t': true, '\\': true}

func (s *separated[T]) quote(b []byte, start int) []byte {
	s.cell = append(s.cell[:0], b[start:]...)
	b = b[:start]
	if s.sep == '\t' {
		for _, c := range s.cell {
			switch c {
			case '\t':
				b = append(b, '\\', 't')
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\\':
				b = append(b, '\\', '\\')
			default:
				b = append(b, c)
			}
		}
		return b
	}
	b = append(b, '"')
	for _, c := range s.cell {
		if c == '"' {
			b = append(b, '"')
		}
		b = append(b, c)
	}
	return append(b, '"')
}

func blanks(b []byte, n int) []byte {
	for range n {
		b = append(b, ' ')
	}
	return b
}

// printable writes control characters and what is not UTF-8 as \xNN, so that
// nothing read from the kernel or the wire moves the cursor of a terminal.
func printable(b []byte, start int) []byte {
	clean := true
	for _, c := range b[start:] {
		clean = clean && c >= 0x20 && c < 0x7f
	}
	if clean {
		return b
	}
	old := string(b[start:])
	b = b[:start]
	for i := 0; i < len(old); {
		r, n := utf8.DecodeRuneInString(old[i:])
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == utf8.RuneError && n == 1 {
			b = append(b, '\\', 'x', hexDigits[old[i]>>4], hexDigits[old[i]&15])
			i++
			continue
		}
		b = append(b, old[i:i+n]...)
		i += n
	}
	return b
}

// words writes an object as name=value pairs on one line: the text form of
// objects that conntrack(8) has no line for.
type words[T any] struct {
	cols []Column[T]
}

func (w *words[T]) append(b []byte, t *T) []byte {
	first := len(b)
	for i := range w.cols {
		name := len(b)
		if name > first {
			b = append(b, ' ')
		}
		b = append(append(b, w.cols[i].Name...), '=')
		start := len(b)
		b = printable(w.cols[i].Append(b, t), start)
		if len(b) == start {
			b = b[:name]
			continue
		}
		if bytes.ContainsAny(b[start:], " \"") {
			b = appendJSONText(b[:start], string(b[start:]))
		}
	}
	return append(b, '\n')
}
