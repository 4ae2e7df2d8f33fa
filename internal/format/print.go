package format

import (
	"fmt"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// A Subject is a kind of object that can be printed: its fields, and what of
// its output is not made from them alone.
type Subject[T any] struct {
	Kind    string // the value of the key kind: "flow"
	Fields  *field.Registry[T]
	Columns []string // fields of csv and tsv when none are named; nil: all
	Events  []string // fields that stand before those in a stream

	// Table returns the columns of a table when no fields are named; nil: those
	// of Columns.
	Table func(Options) []Column[T]
	// Text, XML, Flow and Save return writers of those formats. Without Text an
	// object is a line of name=value; without one of the others there is no such
	// format.
	Text, XML, Flow, Save func(*Output, Options) func([]byte, *T) []byte
	// Turns says that a table which does not fit a terminal stands on its side.
	Turns bool
	// Root is the outermost element of XML.
	Root string
}

// Options are the part of output that the command decides.
type Options struct {
	Color  bool     // colour tables and packets
	Stream bool     // objects are events: say when and what happened
	Wide   bool     // a table of all columns is asked for
	Rates  bool     // tables show what flows grow a second
	Extra  []string // hidden fields to write in JSON all the same: "payload"
	// What to show below a packet's line: its bytes in hexadecimal or as text, and
	// its layers.
	Hex, ASCII, Layers bool
	Names              Namer // those of Output.Names, which New sets
	// Others reports whether a name of a template is that of a field which other
	// objects of the same stream have; these lack it.
	Others func(path string) bool
}

// A Printer appends objects of one kind in one format. It is for one goroutine.
type Printer[T any] struct {
	begin, end string
	head       func([]byte) []byte
	add        func([]byte, *T) []byte
	flush      func([]byte) []byte
	err        func() error
}

// Begin appends what stands before the first object: the head of csv, tsv and
// XML.
func (p *Printer[T]) Begin(b []byte) []byte {
	b = append(b, p.begin...)
	if p.head != nil {
		b = p.head(b)
	}
	return b
}

// Append appends an object, ending in a newline. A table may hold it back, see
// Flush.
func (p *Printer[T]) Append(b []byte, t *T) []byte { return p.add(b, t) }

// Flush appends what a table holds back to align it. Streams call it whenever
// there is nothing more to read.
func (p *Printer[T]) Flush(b []byte) []byte {
	if p.flush != nil {
		b = p.flush(b)
	}
	return b
}

// End appends what is held back, and what stands behind the last object.
func (p *Printer[T]) End(b []byte) []byte { return append(p.Flush(b), p.end...) }

// Err returns the first failure of a template while it printed, or nil.
func (p *Printer[T]) Err() error {
	if p.err != nil {
		return p.err()
	}
	return nil
}

// New returns a printer of a subject in the format that o names; Default is
// text. A field or template that does not fit is a *value.Error.
func New[T any](s *Subject[T], o Output, opt Options) (*Printer[T], error) {
	fields := Named(s.Fields, o.Names)
	reg := func() *field.Registry[T] { return withKind(fields, s.Kind) } // not every format needs it
	opt.Names = o.Names
	p := &Printer[T]{}
	special := func(write func(*Output, Options) func([]byte, *T) []byte) (*Printer[T], error) {
		if write == nil {
			return nil, &value.Error{What: "output format of " + s.Kind + " objects", Text: o.Format.String(),
				Valid: "text, table, json, csv or tsv"}
		}
		p.add = write(&o, opt)
		return p, nil
	}
	switch o.Format {
	case Default, Text:
		if s.Text != nil {
			return special(s.Text)
		}
		cols, err := Columns(fields, nil, nil)
		p.add = (&words[T]{cols}).append
		return p, err
	case JSON:
		j, err := newJSON(reg(), o.Fields, opt.Extra)
		if err == nil {
			p.add = j.Append
		}
		return p, err
	case CSV, TSV, Table:
		names := o.Fields
		if len(names) == 0 {
			if names = s.Columns; opt.Stream {
				names = append(s.Events[:len(s.Events):len(s.Events)], names...)
			}
			if opt.Rates {
				names = append(append([]string{"time"}, names...), "rate.packets", "rate.bytes")
			}
		}
		var cols []Column[T]
		var err error
		if o.Format == Table && len(o.Fields) == 0 && s.Table != nil {
			opt.Wide = o.Wide
			cols = s.Table(opt)
		} else if len(names) == 0 {
			cols, err = Columns(fields, nil, nil) // the kind is the same in each line
		} else {
			cols, err = Columns(reg(), nil, names)
		}
		if err != nil {
			return nil, fmt.Errorf("--fields: %w", err)
		}
		if o.Format == Table {
			width := o.Width
			if o.Wide {
				width = 0
			}
			t := newTable(cols, opt.Color, width, len(o.Fields) > 0, s.Turns)
			p.add, p.flush = t.append, t.flush
			return p, nil
		}
		c := &separated[T]{cols: cols, sep: ',', safe: o.Terminal}
		if o.Format == TSV {
			c.sep = '\t'
		}
		p.head, p.add = c.begin, c.append
		return p, nil
	case XML:
		p.begin, p.end = xmlBegin(s.Root), xmlEnd(s.Root)
		return special(s.XML)
	case Flow:
		return special(s.Flow)
	case Save:
		return special(s.Save)
	case Template:
		w, err := newTemplate(reg(), o.Template, opt.Others)
		if err == nil {
			w.safe = o.Terminal
			p.add, p.err = w.Append, w.Err
		}
		return p, err
	}
	return nil, fmt.Errorf("no output format %d", o.Format)
}

// withKind puts the field kind before a registry's rows, unless it has one.
func withKind[T any](reg *field.Registry[T], kind string) *field.Registry[T] {
	if reg.Row("kind") != nil {
		return reg
	}
	names := value.NewNames("kind", 0, value.Name{Word: kind, Num: 0})
	return field.New(func() []field.Row[T] {
		return append([]field.Row[T]{{Path: "kind", Kind: field.Enum, Names: names, Doc: "always " + kind,
			Num: func(*T) (uint64, bool) { return 0, true }}}, reg.Rows()...)
	})
}
