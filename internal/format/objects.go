package format

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/natlog"
	"nfctl/internal/value"
)

// A Loss says that a stream lacks something where it stands.
type Loss struct {
	Time  uint64 // ns since the epoch
	Count uint64
	Known bool   // whether Count is known
	Where string // "socket": did not fit the receive buffer; "queue": the kernel's queue was full
	Queue int    // number of the queue, or -1
}

// A Mark stands between events and tells of a listing of what there is.
type Mark struct {
	Kind                     string // existing: the first listing ended; resync: another one begins; resynced: it ended
	Time                     uint64 // ns since the epoch
	Flows, Expects, NoEvents uint64 // of the listing; of how many flows no event will come
}

// A Count is how many entries a table has.
type Count struct {
	Of    string // "flows" or "expectations"
	Count uint64
	Max   uint64 // 0: not known, or no limit of its own
}

// Stats are a processor's counters, or all of them together.
type Stats struct {
	CPU    int      // -1: all
	Values []uint64 // in the order of ct.StatsCounters or ct.ExpectCounters
	Known  []bool
	Rates  []uint64 // growth a second since the line before, or nil
}

// A Finding is what doctor found out about one thing.
type Finding struct {
	Check  string // what was looked at
	Status string // ok, warn, fail or unknown
	Text   string // what is so
	Hint   string // what to do about it
}

// A Need is something that 'queue --check' says rules ask of the kernel.
type Need struct {
	Need  string // what is asked
	Text  string // how much of it, or what for
	Rule  int    // the first rule that asks; 0: no rule, but output or a flag
	Where string // that rule
}

// An Attr is a row of the attribute table.
type Attr struct {
	Of      string // "flow" or "expect"
	Name    string
	Aliases []string
	Path    string // JSON path
	Type    string // what the value is
	Bits    int    // 0: text or bytes
	Hidden  bool   // the path is a name only, no key of JSON

	Netlink, Since, Readable, Create, Update, Doc string
}

func num[T any](path, doc string, get func(*T) (uint64, bool)) field.Row[T] {
	return field.Row[T]{Path: path, Kind: field.Uint, Doc: doc, Num: get}
}

// text makes a row of a string; an empty one is absent.
func text[T any](path, doc string, get func(*T) string) field.Row[T] {
	return field.Row[T]{Path: path, Kind: field.String, Doc: doc, Data: func(t *T) ([]byte, bool) {
		s := get(t)
		return []byte(s), s != ""
	}}
}

func stamp[T any](get func(*T) uint64) field.Row[T] {
	return field.Row[T]{Path: "time", Kind: field.Time, Doc: "when", Num: func(t *T) (uint64, bool) {
		n := get(t)
		return n, n != 0
	}}
}

// Translations prints a log of address translations, in the formats of
// TranslationFormats alone, which are read again.
var (
	Translations       = &Subject[natlog.Record]{Kind: "nat", Fields: natlog.Fields}
	TranslationFormats = []Format{Text, JSON, CSV}
)

// Losses prints what a stream lacks.
var Losses = &Subject[Loss]{
	Kind: "lost",
	Fields: field.New(func() []field.Row[Loss] {
		return []field.Row[Loss]{
			stamp(func(l *Loss) uint64 { return l.Time }),
			{Path: "count", Kind: field.Uint, Doc: "how many", Num: func(l *Loss) (uint64, bool) { return l.Count, true }, Null: func(l *Loss) bool { return !l.Known }},
			text("where", "socket: did not fit the receive buffer; queue: the kernel's queue was full", func(l *Loss) string { return l.Where }),
			num("queue", "number of the queue", func(l *Loss) (uint64, bool) { return uint64(l.Queue), l.Queue >= 0 && l.Where == "queue" }),
		}
	}),
	Text: func(o *Output, _ Options) func([]byte, *Loss) []byte {
		stamped := o.Timestamp
		return func(b []byte, l *Loss) []byte {
			if stamped {
				b = appendStamp(b, l.Time)
			}
			return append(appendLoss(append(b, "   [LOST] "...), l, ""), '\n')
		}
	},
	XML: func(*Output, Options) func([]byte, *Loss) []byte {
		return func(b []byte, l *Loss) []byte {
			return append(appendLoss(append(b, "<lost "...), l, `"`), "/>\n"...)
		}
	},
	Root: "conntrack",
}

func appendLoss(b []byte, l *Loss, quote string) []byte {
	b = append(append(b, "count="...), quote...)
	if l.Known {
		b = strconv.AppendUint(b, l.Count, 10)
	} else {
		b = append(b, "unknown"...)
	}
	b = append(append(append(b, quote...), " where="...), quote...)
	return append(append(b, l.Where...), quote...)
}

var markWords = value.NewWords("mark", 2, "existing", "resync", "resynced")

// Marks prints marks.
var Marks = &Subject[Mark]{
	Kind: "existing",
	Fields: field.New(func() []field.Row[Mark] {
		return []field.Row[Mark]{
			{Path: "kind", Kind: field.Enum, Names: markWords, Doc: "existing: the listing at the beginning ended; resync: another begins; resynced: it ended, and what it did not show is gone",
				Num: func(m *Mark) (uint64, bool) { return markWords.Lookup(m.Kind) }},
			stamp(func(m *Mark) uint64 { return m.Time }),
			num("flows", "flows in the listing", func(m *Mark) (uint64, bool) { return m.Flows, m.Kind != "resync" }),
			num("expects", "expectations in the listing", func(m *Mark) (uint64, bool) { return m.Expects, m.Kind != "resync" }),
			num("no_events", "flows of it of which no event will come", func(m *Mark) (uint64, bool) { return m.NoEvents, m.Kind != "resync" }),
		}
	}),
	Text: func(o *Output, _ Options) func([]byte, *Mark) []byte {
		stamped := o.Timestamp
		return func(b []byte, m *Mark) []byte {
			if stamped {
				b = appendStamp(b, m.Time)
			}
			head := "[" + strings.ToUpper(m.Kind) + "]"
			b = append(blanks(b, 9-len(head)), head...)
			return append(appendMark(b, m, ""), '\n')
		}
	},
	XML: func(*Output, Options) func([]byte, *Mark) []byte {
		return func(b []byte, m *Mark) []byte {
			b = append(append(b, '<'), m.Kind...)
			return append(appendMark(b, m, `"`), "/>\n"...)
		}
	},
	Root: "conntrack",
}

func appendMark(b []byte, m *Mark, quote string) []byte {
	if m.Kind == "resync" {
		return b
	}
	for _, p := range []struct {
		word string
		n    uint64
	}{{" flows=", m.Flows}, {" expects=", m.Expects}, {" no_events=", m.NoEvents}} {
		b = append(append(b, p.word...), quote...)
		b = append(strconv.AppendUint(b, p.n, 10), quote...)
	}
	return b
}

// Counts prints how many entries a table has; as text only the number, as
// conntrack -C does.
var Counts = &Subject[Count]{
	Kind: "count",
	Fields: field.New(func() []field.Row[Count] {
		return []field.Row[Count]{
			text("of", "flows or expectations", func(c *Count) string { return c.Of }),
			num("count", "how many there are", func(c *Count) (uint64, bool) { return c.Count, true }),
			num("max", "how many there may be (nf_conntrack_max)", func(c *Count) (uint64, bool) { return c.Max, c.Max != 0 }),
			num("percent", "how full the table is, rounded down", func(c *Count) (uint64, bool) {
				if c.Max == 0 {
					return 0, false
				}
				return uint64(float64(c.Count) * 100 / float64(c.Max)), true
			}),
		}
	}),
	Text: func(*Output, Options) func([]byte, *Count) []byte {
		return func(b []byte, c *Count) []byte { return append(strconv.AppendUint(b, c.Count, 10), '\n') }
	},
}

// FlowStats returns what prints the kernel's counters of flows; as text in the
// lines of conntrack -S.
func FlowStats() *Subject[Stats] { return statsOf("flows", "", ct.StatsCounters) }

// ExpectStats returns what prints the kernel's counters of expectations.
func ExpectStats() *Subject[Stats] { return statsOf("expectations", "expect_", ct.ExpectCounters) }

func statsOf(of, prefix string, counters []ct.Counter) *Subject[Stats] {
	fields := func() []field.Row[Stats] {
		rows := []field.Row[Stats]{
			text("of", "flows or expectations", func(*Stats) string { return of }),
			num("cpu", "number of the processor; absent: all together", func(s *Stats) (uint64, bool) { return uint64(s.CPU), s.CPU >= 0 }),
		}
		for i, c := range counters {
			rows = append(rows, num(c.Name, c.Doc, func(s *Stats) (uint64, bool) {
				if i >= len(s.Values) || !s.Known[i] {
					return 0, false
				}
				return s.Values[i], true
			}))
		}
		for i, c := range counters {
			rows = append(rows, num("rate."+c.Name, "growth of "+c.Name+" a second", func(s *Stats) (uint64, bool) {
				if i >= len(s.Rates) || !s.Known[i] {
					return 0, false
				}
				return s.Rates[i], true
			}))
		}
		return rows
	}
	line := func(b []byte, s *Stats) []byte {
		start := len(b)
		if s.CPU < 0 {
			b = append(b, "total"...)
		} else {
			b = strconv.AppendInt(append(b, "cpu="...), int64(s.CPU), 10)
		}
		b = append(blanks(b, start+8-len(b)), '\t')
		for i, c := range counters {
			if i < len(s.Values) && s.Known[i] {
				n := s.Values[i]
				if s.Rates != nil {
					n = s.Rates[i]
				}
				b = append(append(append(b, prefix...), c.Name...), '=')
				b = append(strconv.AppendUint(b, n, 10), ' ')
			}
		}
		return append(b, '\n')
	}
	return &Subject[Stats]{Kind: "stats", Fields: field.New(fields),
		Text:  func(*Output, Options) func([]byte, *Stats) []byte { return line },
		Turns: true,
		Table: func(Options) []Column[Stats] {
			cols := []Column[Stats]{{Name: "cpu", Right: true, Append: func(b []byte, s *Stats) []byte {
				if s.CPU < 0 {
					return append(b, "all"...)
				}
				return strconv.AppendInt(b, int64(s.CPU), 10)
			}}}
			for i := range counters {
				if strings.HasSuffix(counters[i].Doc, "no longer counted") {
					continue // kernels of today do not send it
				}
				cols = append(cols, Column[Stats]{Name: counters[i].Name, Right: true,
					Append: func(b []byte, s *Stats) []byte {
						switch {
						case i >= len(s.Values) || !s.Known[i]:
							return b
						case s.Rates != nil:
							return append(strconv.AppendUint(b, s.Rates[i], 10), "/s"...)
						}
						return strconv.AppendUint(b, s.Values[i], 10)
					}})
			}
			return cols
		}}
}

// Findings prints what doctor found.
var Findings = &Subject[Finding]{
	Kind: "doctor",
	Fields: field.New(func() []field.Row[Finding] {
		return []field.Row[Finding]{
			text("status", "ok, warn, fail or unknown", func(f *Finding) string { return f.Status }),
			text("check", "what was looked at", func(f *Finding) string { return f.Check }),
			text("text", "what is so", func(f *Finding) string { return f.Text }),
			text("hint", "what to do about it", func(f *Finding) string { return f.Hint }),
		}
	}),
	Text: func(o *Output, opt Options) func([]byte, *Finding) []byte {
		width := o.Width
		return func(b []byte, f *Finding) []byte {
			start := len(b)
			b = append(b, f.Status...)
			if color := colorOf(f.Status); opt.Color && color != "" {
				b = paint(b[:start], color, f.Status)
			}
			b = blanks(b, 8-len(f.Status))
			b = appendWrapped(b, f.Check+": "+f.Text, width, 8)
			if f.Hint != "" {
				b = appendWrapped(append(blanks(b, 8), "hint: "...), f.Hint, width, 14)
			}
			return b
		}
	},
}

// appendWrapped appends a text and a newline. Where a line would be wider than width,
// it goes on at the next blank in another one that begins with indent blanks, as many
// as stand in front of the text already; 0: one line.
func appendWrapped(b []byte, text string, width, indent int) []byte {
	at := indent
	for i, word := range strings.Split(text, " ") {
		start := len(b)
		b = printable(append(b, word...), start)
		n := utf8.RuneCount(b[start:])
		switch {
		case i == 0:
		case width > 0 && at+1+n > width:
			word := string(b[start:])
			b = append(blanks(append(b[:start], '\n'), indent), word...)
			at = indent
		default:
			word := string(b[start:])
			b = append(append(b[:start], ' '), word...)
			at++
		}
		at += n
	}
	return append(b, '\n')
}

// Needs prints what rules ask of the kernel.
var Needs = &Subject[Need]{
	Kind: "need",
	Fields: field.New(func() []field.Row[Need] {
		return []field.Row[Need]{
			text("need", "what is asked", func(n *Need) string { return n.Need }),
			text("text", "how much of it, or what for", func(n *Need) string { return n.Text }),
			num("rule", "number of the first rule that asks for it; absent: output or a flag does", func(n *Need) (uint64, bool) { return uint64(n.Rule), n.Rule > 0 }),
			text("where", "that rule, with file and line", func(n *Need) string { return n.Where }),
		}
	}),
	Text: func(_ *Output, _ Options) func([]byte, *Need) []byte {
		return func(b []byte, n *Need) []byte {
			b = append(append(append(b, n.Need...), ": "...), n.Text...)
			if n.Rule > 0 {
				b = strconv.AppendInt(append(b, ": rule "...), int64(n.Rule), 10)
				b = append(append(append(b, " ("...), n.Where...), ')')
			}
			return append(b, '\n')
		}
	},
}

// Attrs prints rows of the attribute table.
var Attrs = &Subject[Attr]{
	Kind: "attr",
	Fields: field.New(func() []field.Row[Attr] {
		return []field.Row[Attr]{
			text("of", "flow, expect or group", func(a *Attr) string { return a.Of }),
			text("name", "name, as libnetfilter_conntrack and the Lua modules have it", func(a *Attr) string { return a.Name }),
			text("aliases", "other names, with commas between them", func(a *Attr) string { return strings.Join(a.Aliases, ",") }),
			text("path", "key of JSON and name in expressions", func(a *Attr) string { return a.Path }),
			text("type", "what the value is", func(a *Attr) string { return a.Type }),
			num("bits", "width; absent: text or bytes", func(a *Attr) (uint64, bool) { return uint64(a.Bits), a.Bits > 0 }),
			text("netlink", "where it stands in the message", func(a *Attr) string { return a.Netlink }),
			text("since", "first kernel", func(a *Attr) string { return a.Since }),
			text("readable", "in which messages the kernel sends it", func(a *Attr) string { return a.Readable }),
			text("create", "whether a new entry can have it", func(a *Attr) string { return a.Create }),
			text("update", "whether an entry's can be changed", func(a *Attr) string { return a.Update }),
			text("doc", "what it is", func(a *Attr) string { return a.Doc }),
		}
	}),
	Table: func(Options) []Column[Attr] {
		var cols []Column[Attr]
		for _, c := range []struct {
			name string
			get  func(*Attr) string
		}{
			{"name", func(a *Attr) string { return a.Name }}, {"aliases", func(a *Attr) string { return strings.Join(a.Aliases, ",") }},
			{"path", func(a *Attr) string { return a.Path }}, {"type", func(a *Attr) string { return a.Type }}, {"bits", attrBits},
			{"readable", func(a *Attr) string { return messages(a.Readable) }}, {"create", func(a *Attr) string { return yesNo(a.Create) }}, {"update", func(a *Attr) string { return yesNo(a.Update) }},
			{"doc", func(a *Attr) string { return a.Doc }},
		} {
			cols = append(cols, Column[Attr]{Name: c.name, Append: func(b []byte, a *Attr) []byte {
				return append(b, c.get(a)...)
			}})
		}
		return cols
	},
}

func attrBits(a *Attr) string {
	if a.Bits == 0 {
		return ""
	}
	return strconv.Itoa(a.Bits)
}

// messages returns the kinds of messages that the text of Attr.Readable names.
func messages(readable string) string {
	var out []string
	for _, m := range []string{"dump", "new", "update", "destroy"} {
		if strings.Contains(readable, m) && !strings.Contains(readable, "not "+m) {
			out = append(out, m)
		}
	}
	return strings.Join(out, ",")
}

func yesNo(s string) string {
	if strings.HasPrefix(s, "yes") {
		return "yes"
	}
	return "no"
}

// AttrTable returns the rows of an attribute table that have a name, in its
// order.
func AttrTable[T any](of string, table []ct.Attr[T]) []Attr {
	out := make([]Attr, 0, len(table))
	for i := range table {
		a := &table[i]
		if a.Name == "" {
			continue
		}
		t := [...]string{field.Uint: "number", field.Enum: "name", field.Flags: "flags", field.Bits: "bits",
			field.Addr:   "address",
			field.String: "text", field.Bytes: "bytes", field.Time: "time", field.Bool: "bool", field.Lasting: "seconds"}[a.Kind]
		switch {
		case a.Kind == field.Addr && a.Bits == 32:
			t = "ipv4"
		case a.Kind == field.Addr && a.Bits == 128:
			t = "ipv6"
		case a.Path == "" && a.Kind == field.String:
			t = "tuple"
		}
		out = append(out, Attr{Of: of, Name: a.Name, Aliases: a.Aliases, Path: a.Path, Type: t, Bits: a.Bits,
			Hidden:  a.Hidden,
			Netlink: a.Netlink, Since: a.Since, Readable: a.Readable, Create: a.Create, Update: a.Update, Doc: a.Doc})
	}
	return out
}

// AppendAttr appends what is known of an attribute, a line for each thing.
func AppendAttr(b []byte, r *Attr, more bool) []byte {
	if more {
		b = append(b, '\n')
	}
	kind := r.Type
	if r.Bits > 0 {
		kind += fmt.Sprintf(", %d bits", r.Bits)
	}
	for _, line := range [][2]string{
		{"name", r.Name}, {"aliases", strings.Join(r.Aliases, ", ")}, {"of", r.Of}, {"what", r.Doc}, {"type", kind}, {"path", r.Path},
		{"netlink", r.Netlink}, {"since", r.Since}, {"readable", r.Readable}, {"create", r.Create}, {"update", r.Update},
	} {
		if line[1] != "" {
			b = fmt.Appendf(b, "%-9s %s\n", line[0], line[1])
		}
	}
	return b
}

// NewAside returns a printer of objects that stand between others of another
// kind, as a Loss between flows: where these have columns or a template of their
// own it prints nothing.
func NewAside[T any](s *Subject[T], o Output) (*Printer[T], error) {
	switch o.Format {
	case Default, Text, JSON, XML:
		o.Fields = nil
		p, err := New(s, o, Options{})
		if err == nil {
			p.begin, p.end = "", ""
		}
		return p, err
	}
	return &Printer[T]{add: func(b []byte, _ *T) []byte { return b }}, nil
}

// StatLines makes a line for each processor and one for all, with what they grew
// by a second since before, if there was one.
func StatLines(cpus, before []ct.CPUStats, passed time.Duration) (lines []Stats) {
	for i, c := range cpus {
		line := Stats{CPU: c.CPU, Known: c.Known, Values: make([]uint64, len(c.Values))}
		for j, n := range c.Values {
			line.Values[j] = uint64(n)
		}
		if i < len(before) && before[i].CPU == c.CPU {
			line.Rates = make([]uint64, len(c.Values))
			for j, n := range c.Values { // the difference is right where a counter wrapped, too
				line.Rates[j] = uint64(float64(n-before[i].Values[j])/passed.Seconds() + 0.5)
			}
		}
		lines = append(lines, line)
	}
	total := Stats{CPU: -1}
	total.Values, total.Known = ct.Total(cpus)
	for _, l := range lines {
		if l.Rates == nil {
			total.Rates = nil
			break
		}
		if total.Rates == nil {
			total.Rates = make([]uint64, len(l.Rates))
		}
		for j, n := range l.Rates {
			total.Rates[j] += n
		}
	}
	return append(lines, total)
}
