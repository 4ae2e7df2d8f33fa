// Package field is the registry of what a subject (a packet, a flow, an
// expectation) has. A subject declares its fields once, as rows; text columns,
// JSON, expressions, --fields, completion and help are made from the rows.
package field

import (
	"net/netip"
	"strings"
	"sync"

	"nfctl/internal/value"
)

// Kind says how a field's value is loaded, compared and written.
type Kind uint8

const (
	Uint    Kind = iota // a number; JSON number
	Enum                // a number with names; JSON string, the name, or the digits when it has none
	Flags               // bits of a number with names; JSON array of names
	Bits                // bits of a byte string with names (labels); JSON array of names
	Addr                // an IP address; JSON string
	String              // text; JSON string
	Bytes               // arbitrary bytes; JSON string in base64
	Time                // nanoseconds since the epoch; JSON string, RFC 3339
	Bool                // 0 or 1; JSON false or true
	Lasting             // nanoseconds that something lasts; JSON number, in seconds
)

// A Row describes one field of T. Of the loaders just the one its Kind names is
// set: Num for Uint, Enum, Flags, Time, Bool and Lasting; IP for Addr; Data for String,
// Bytes and Bits. A loader reports false when the subject does not have the
// field; what it returns is valid until the subject changes.
type Row[T any] struct {
	Path    string   // JSON path: "orig.src"
	Aliases []string // other names, taken wherever a name is typed outside expressions
	Kind    Kind
	Doc     string // one line: what it is, unit
	Names   *value.Names
	Max     uint64 // largest number the field can hold; 0: 64 bits

	// Parse reads what a user types beside the field. Nil: a number, a name
	// or a text, by Kind.
	Parse func(string) (value.Set, error)

	Num  func(*T) (uint64, bool)
	IP   func(*T) (netip.Addr, bool)
	Data func(*T) ([]byte, bool)

	// AppendNum writes a Uint as people read it outside JSON; nil: decimal.
	AppendNum func([]byte, uint64) []byte

	// Bit names bit n of a Bits field; nil: the number.
	Bit func(n int) string

	// Hidden fields are not in JSON, only usable by name.
	Hidden bool
	// Null reports that the subject has the field but that its value could not
	// be known: JSON null. Nil: never.
	Null func(*T) bool

	// Need are the bits that Registry.Presence must have all of when the subject
	// has the field; 0: not said. Writers that look at many subjects ask for
	// the bits once for all fields.
	Need uint64

	// Asks are bits that say what has to be read of the subject for the field; what
	// they stand for is the registry's to say.
	Asks uint16

	// Part is what the field is part of, when it has none without it; all rows
	// of a part share one Part. Writers look at it once for all of them. Nil:
	// not said.
	Part *Part[T]
}

// A Part is something that a subject has or lacks as a whole, as a packet its
// TCP header.
type Part[T any] struct{ Has func(*T) bool }

// Has reports whether t has the field.
func (r *Row[T]) Has(t *T) bool {
	switch {
	case r.Num != nil:
		_, ok := r.Num(t)
		return ok
	case r.IP != nil:
		_, ok := r.IP(t)
		return ok
	case r.Data != nil:
		_, ok := r.Data(t)
		return ok
	}
	return false
}

// A Registry holds the rows of a subject in the order in which they are
// written. Rows of one JSON object ("orig.…") stand together.
type Registry[T any] struct {
	// Make returns the rows. It is called when the registry is first asked, so that
	// a program pays for no table that it does not use.
	Make func() []Row[T]
	// Presence returns the bits that Row.Need is about; nil: there are none.
	Presence func(*T) uint64
	// Reserve returns the reason why a path that exists in output may not be used
	// in expressions ("verdict": not known while rules decide), or ""; nil: all may.
	Reserve func(path string) string

	once  sync.Once
	rows  []Row[T]
	index map[string]int
}

// New makes a registry of the rows that rows returns.
func New[T any](rows func() []Row[T]) *Registry[T] { return &Registry[T]{Make: rows} }

// made returns the registry with its rows.
func (r *Registry[T]) made() *Registry[T] {
	r.once.Do(func() {
		r.rows = r.Make()
		r.index = make(map[string]int, 2*len(r.rows))
		for i := range r.rows {
			r.index[r.rows[i].Path] = i
		}
		for i := range r.rows {
			for _, a := range r.rows[i].Aliases {
				if _, ok := r.index[a]; !ok {
					r.index[a] = i
				}
			}
		}
	})
	return r
}

// Reserved returns the reason why path may not be used in expressions, or "".
func (r *Registry[T]) Reserved(path string) string {
	if r.Reserve == nil {
		return ""
	}
	return r.Reserve(path)
}

// Rows returns all rows in order. The caller must not change them.
func (r *Registry[T]) Rows() []Row[T] { return r.made().rows }

// Row returns the row with a path or alias, or nil.
func (r *Registry[T]) Row(name string) *Row[T] {
	if i, ok := r.made().index[name]; ok {
		return &r.rows[i]
	}
	return nil
}

// Asks returns the bits of Row.Asks of the field with a path or alias, or of all
// fields of a JSON object; 0 when there is none of the name.
func (r *Registry[T]) Asks(name string) (bits uint16) {
	if row := r.Row(name); row != nil {
		return row.Asks
	}
	for i := range r.rows {
		if strings.HasPrefix(r.rows[i].Path, name+".") {
			bits |= r.rows[i].Asks
		}
	}
	return bits
}

// Group reports whether name is a JSON object that holds fields ("orig").
func (r *Registry[T]) Group(name string) bool {
	for i := range r.made().rows {
		if strings.HasPrefix(r.rows[i].Path, name+".") {
			return true
		}
	}
	return false
}

// Find returns the row with a path or alias, or an error that names the
// nearest one.
func (r *Registry[T]) Find(name string) (*Row[T], error) {
	if row := r.Row(name); row != nil {
		return row, nil
	}
	words := make([]string, 0, len(r.rows))
	for i := range r.rows {
		words = append(words, r.rows[i].Path)
		words = append(words, r.rows[i].Aliases...)
	}
	near := value.Nearest(name, words)
	if near == "" { // as an end of a path: "src" of "orig.src"
		for _, w := range words {
			if strings.HasSuffix(w, "."+name) {
				near = w
				break
			}
		}
	}
	return nil, &value.Error{What: "field", Text: name, Near: near,
		Valid: "a name from 'nfctl help fields'"}
}

// Lift makes rows of a part P serve a whole T: each path gets the prefix (with
// its dot, or empty), and every loader goes through part, which may return nil
// when T has no such part.
func Lift[T, P any](prefix string, rows []Row[P], part func(*T) *P) []Row[T] {
	out := make([]Row[T], len(rows))
	whole := &Part[T]{Has: func(t *T) bool { return part(t) != nil }}
	inner := map[*Part[P]]*Part[T]{}
	for i := range rows {
		p := &rows[i]
		o := Row[T]{Path: prefix + p.Path, Kind: p.Kind, Doc: p.Doc, Names: p.Names, Max: p.Max,
			Parse: p.Parse, AppendNum: p.AppendNum, Bit: p.Bit, Hidden: p.Hidden, Asks: p.Asks, Part: whole}
		if prefix == "" {
			o.Aliases = p.Aliases
			if p.Part != nil { // closer to the field than the whole
				has := p.Part.Has
				if inner[p.Part] == nil {
					inner[p.Part] = &Part[T]{Has: func(t *T) bool { x := part(t); return x != nil && has(x) }}
				}
				o.Part = inner[p.Part]
			}
		}
		if f := p.Num; f != nil {
			o.Num = func(t *T) (uint64, bool) {
				if x := part(t); x != nil {
					return f(x)
				}
				return 0, false
			}
		}
		if f := p.IP; f != nil {
			o.IP = func(t *T) (netip.Addr, bool) {
				if x := part(t); x != nil {
					return f(x)
				}
				return netip.Addr{}, false
			}
		}
		if f := p.Data; f != nil {
			o.Data = func(t *T) ([]byte, bool) {
				if x := part(t); x != nil {
					return f(x)
				}
				return nil, false
			}
		}
		if f := p.Null; f != nil {
			o.Null = func(t *T) bool { x := part(t); return x != nil && f(x) }
		}
		out[i] = o
	}
	return out
}
