package format

import (
	"slices"
	"strings"

	"nfctl/internal/value"
)

// A Format is a form of output.
type Format uint8

// The formats, in the order in which help names them.
const (
	Default  Format = iota // not said: Resolve chooses
	Text                   // conntrack(8)'s lines, or one line of words
	Table                  // aligned columns
	JSON                   // JSON Lines
	CSV                    // RFC 4180, with a header
	TSV                    // tab-separated, with a header
	XML                    // conntrack(8)'s XML
	Flow                   // flows in words, that paste back as patterns
	Save                   // lines that 'ct load' and conntrack -R read
	Template               // a Go template
	formats
)

var formatWords = [formats]string{Text: "text", Table: "table", JSON: "json", CSV: "csv", TSV: "tsv", XML: "xml",
	Flow: "flow", Save: "save", Template: "template"}

func (f Format) String() string { return formatWords[f] }

// Output is what -o, --fields and --template ask for.
type Output struct {
	Format   Format
	Fields   []string // --fields, as typed
	Template string   // --template

	// Modifiers of text and XML.
	Extended   bool // the family in front
	ID         bool // the id behind
	Timestamp  bool // the time of reading before events
	KTimestamp bool // start and stop
	Labels     bool // connection labels by name
	Userspace  bool // accepted as conntrack(8) does; who caused an event is always shown when known

	// Names knows hosts and services by name, which text and tables then show and the
	// others have beside the numbers; nil: nobody does.
	Names Namer

	Wide bool // a table with all columns, as wide as they are

	// Terminal says that a terminal shows it: no format sends that what controls it.
	// Elsewhere csv, tsv and templates hold values as they are.
	Terminal bool
	Width    int // of that terminal, which tables and findings are to fit; 0: any
}

type modifier struct {
	word string
	flag func(*Output) *bool
}

// wide is a table with all columns, however wide: alone, or behind "table".
const wide = "wide"

var modifiers = []modifier{
	{"extended", func(o *Output) *bool { return &o.Extended }},
	{"id", func(o *Output) *bool { return &o.ID }},
	{"timestamp", func(o *Output) *bool { return &o.Timestamp }},
	{"ktimestamp", func(o *Output) *bool { return &o.KTimestamp }},
	{"labels", func(o *Output) *bool { return &o.Labels }},
	{"userspace", func(o *Output) *bool { return &o.Userspace }},
}

// Words returns the words that -o takes of a command that knows some formats, or
// all: formats, then modifiers of text and xml. --template has a flag of its own.
func Words(known ...Format) []string {
	all := len(known) == 0
	var out []string
	for f := Text; f < Template; f++ {
		if all || slices.Contains(known, f) {
			out = append(out, f.String())
		}
	}
	if all || slices.Contains(known, Table) {
		out = append(out, wide)
	}
	if all || slices.Contains(known, Text) || slices.Contains(known, XML) {
		for _, m := range modifiers {
			out = append(out, m.word)
		}
	}
	return out
}

// Valid says in words what ParseOutput reads.
func Valid() string {
	words := Words()
	n := int(Template-Text) + 1 // wide too
	return strings.Join(words[:n], ", ") + "; text and xml take also " + strings.Join(words[n:], ", ")
}

// ParseOutput reads the text of -o: at most one format and, for text and XML,
// modifiers, in any order and any case. Modifiers alone mean text. The empty
// text is Default.
func ParseOutput(s string) (Output, error) {
	var o Output
	if s == "" {
		return o, nil
	}
	bad := func(valid, near string) (Output, error) {
		return Output{}, &value.Error{What: "output format", Text: s, Valid: valid, Near: near}
	}
	var first string // first modifier
next:
	for word := range strings.SplitSeq(s, ",") {
		word = strings.ToLower(strings.TrimSpace(word))
		for _, m := range modifiers {
			if m.word == word {
				*m.flag(&o) = true
				if first == "" {
					first = word
				}
				continue next
			}
		}
		if word == wide {
			o.Wide = true
			word = Table.String()
		}
		i := slices.Index(formatWords[:Template], word)
		switch {
		case i <= 0:
			return bad(Valid(), value.Nearest(word, Words()))
		case o.Format != Default && o.Format != Format(i):
			return bad("one format, not both "+o.Format.String()+" and "+word, "")
		}
		o.Format = Format(i)
	}
	if first != "" {
		switch o.Format {
		case Default:
			o.Format = Text
		case Text, XML:
		default:
			return bad("no "+first+" with "+o.Format.String()+": it goes with text and xml", "")
		}
	}
	return o, nil
}

// Select adds what --fields and --template say. Both empty change nothing.
func (o *Output) Select(fields, template string) error {
	if template != "" {
		if fields != "" || o.Format != Default {
			return &value.Error{What: "template", Text: template, Valid: "--template without --fields and -o"}
		}
		o.Format, o.Template = Template, template
	}
	if fields == "" {
		return nil
	}
	switch o.Format {
	case Default, Table, CSV, TSV, JSON:
	default:
		return &value.Error{What: "field list", Text: fields,
			Valid: "--fields with -o table, csv, tsv or json, or alone"}
	}
	for name := range strings.SplitSeq(fields, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return &value.Error{What: "field list", Text: fields,
				Valid: "names with commas between them, as orig.src,orig.dport"}
		}
		o.Fields = append(o.Fields, name)
	}
	return nil
}

// Resolve chooses the format when none was named. terminal says that standard
// output is one, stream that the command goes on until it is ended.
func (o *Output) Resolve(terminal, stream bool) {
	o.Terminal = terminal
	switch {
	case o.Format != Default:
	case len(o.Fields) > 0 && terminal:
		o.Format = Table
	case len(o.Fields) > 0:
		o.Format = TSV
	case terminal && !stream:
		o.Format = Table
	default:
		o.Format = Text
	}
}

// What commands know, by what they print. Generic is what a field registry alone
// is enough for.
var (
	Generic          = []Format{Text, Table, JSON, CSV, TSV, Template}
	FlowFormats      = append(Generic[:6:6], XML, Flow, Save)
	FlowEventFormats = append(Generic[:6:6], XML, Flow)
	ExpectFormats    = append(Generic[:6:6], XML, Save)

	ExpectEventFormats = append(Generic[:6:6], XML)
	MixedFormats       = []Format{Text, JSON, XML, Template} // flows and expectations in one stream
	SaveFormats        = []Format{Save, JSON}
)

// Check reports whether a command, which messages name as it says, knows o's
// format; the error names those that it knows.
func (o *Output) Check(command string, known []Format) error {
	if o.Format == Default || slices.Contains(known, o.Format) {
		return nil
	}
	var words []string
	for _, f := range known {
		words = append(words, f.String())
	}
	return &value.Error{What: "output format of '" + command + "'", Text: o.Format.String(),
		Valid: strings.Join(words, ", ")}
}
