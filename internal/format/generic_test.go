package format

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"nfctl/internal/field"
	"nfctl/internal/value"
)

// thing is a subject of every kind of field.
type thing struct {
	has                  uint32 // a bit for each number
	n, enum, flags, time uint64
	yes                  uint64
	addr                 netip.Addr
	text, raw, labels    []byte
	sub                  *part
}

type part struct {
	x    uint64
	deep uint64
}

var colors = value.NewWords("color", 9, "red", "", "blue")
var bitNames = value.NewNames("flag", 15, value.Name{Word: "A", Num: 1}, value.Name{Word: "B", Num: 4})

func thingNum(bit int, at func(*thing) uint64) func(*thing) (uint64, bool) {
	return func(t *thing) (uint64, bool) { return at(t), t.has>>bit&1 != 0 }
}

func bytesOf(at func(*thing) []byte) func(*thing) ([]byte, bool) {
	return func(t *thing) ([]byte, bool) { return at(t), at(t) != nil }
}

var kindName = value.NewNames("kind", 0, value.Name{Word: "thing", Num: 0})

var things = field.New(func() []field.Row[thing] {
	return slices.Concat(
		[]field.Row[thing]{
			{Path: "kind", Kind: field.Enum, Names: kindName, Num: func(*thing) (uint64, bool) { return 0, true }},
			{Path: "n", Aliases: []string{"number"}, Kind: field.Uint, Num: thingNum(0, func(t *thing) uint64 { return t.n }),
				Null: func(t *thing) bool { return t.has>>6&1 != 0 }},
			{Path: "g.enum", Kind: field.Enum, Names: colors, Num: thingNum(1, func(t *thing) uint64 { return t.enum })},
			{Path: "flags", Kind: field.Flags, Names: bitNames, Num: thingNum(2, func(t *thing) uint64 { return t.flags })},
			{Path: "g.time", Kind: field.Time, Num: thingNum(3, func(t *thing) uint64 { return t.time })},
			{Path: "yes", Kind: field.Bool, Num: thingNum(4, func(t *thing) uint64 { return t.yes })},
			{Path: "g.h.addr", Kind: field.Addr, IP: func(t *thing) (netip.Addr, bool) { return t.addr, t.addr.IsValid() }},
			{Path: "text", Kind: field.String, Data: bytesOf(func(t *thing) []byte { return t.text })},
			{Path: "raw", Kind: field.Bytes, Data: bytesOf(func(t *thing) []byte { return t.raw })},
			{Path: "labels", Kind: field.Bits, Data: bytesOf(func(t *thing) []byte { return t.labels }),
				Bit: func(n int) string { return map[int]string{9: `ni"ne`}[n] }},
			{Path: "secret", Hidden: true, Kind: field.Uint, AppendNum: value.AppendHex, Num: thingNum(0, func(t *thing) uint64 { return t.n })},
		},
		field.Lift("sub.", []field.Row[part]{
			{Path: "x", Kind: field.Uint, Num: func(p *part) (uint64, bool) { return p.x, true }},
			{Path: "y.deep", Kind: field.Uint, Num: func(p *part) (uint64, bool) { return p.deep, true }},
		}, func(t *thing) *part { return t.sub }),
	)
})

func full() *thing {
	return &thing{has: 31, n: math.MaxUint64, enum: 2, flags: 1 | 4 | 8, time: 1, yes: 1,
		addr: netip.MustParseAddr("fd00::1"),
		text: []byte("a\"b\\c\n\x01\xffé\u2028"), raw: []byte{0, 255}, labels: []byte{0x80, 2}, sub: &part{5, 6}}
}

func TestJSON(t *testing.T) {
	tests := []struct {
		name   string
		in     *thing
		fields []string
		want   string
	}{
		{"nothing", &thing{}, nil, `{"kind":"thing"}`},
		{"all", full(), nil, `{"kind":"thing","n":18446744073709551615,"g":{"enum":"blue","time":"1970-01-01T00:00:00.000000001Z","h":{"addr":"fd00::1"}},` +
			`"flags":["A","B","0x8"],"yes":true,"text":"a\"b\\c\n\u0001\ufffdé` + "\u2028" + `","raw":"AP8=","labels":["7","ni\"ne"],"sub":{"x":5,"y":{"deep":6}}}`},
		{"null", &thing{has: 1 << 6}, nil, `{"kind":"thing","n":null}`},
		{"no name, no flag", &thing{has: 6, enum: 1}, nil, `{"kind":"thing","g":{"enum":"1"},"flags":[]}`},
		{"deep first", &thing{addr: netip.MustParseAddr("10.0.0.1"), sub: &part{}}, nil, `{"kind":"thing","g":{"h":{"addr":"10.0.0.1"}},"sub":{"x":0,"y":{"deep":0}}}`},
		{"fields", full(), []string{"sub", "number", "g.enum"}, `{"sub":{"x":5,"y":{"deep":6}},"n":18446744073709551615,"g":{"enum":"blue"}}`},
		{"hidden by name", full(), []string{"secret"}, `{"secret":18446744073709551615}`},
		{"twice", full(), []string{"n", "number"}, `{"n":18446744073709551615}`},
		{"none of them", &thing{}, []string{"n"}, `{}`},
	}
	for _, tt := range tests {
		j, err := newJSON(things, tt.fields, nil)
		if err != nil {
			t.Fatal(tt.name, err)
		}
		got := string(j.Append(nil, tt.in))
		if got != tt.want+"\n" {
			t.Errorf("%s:\n got %swant %s", tt.name, got, tt.want)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("%s: not JSON: %s", tt.name, got)
		}
		if n := testing.AllocsPerRun(100, func() { sink = j.Append(sink[:0], tt.in) }); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
	_, err := newJSON(things, []string{"g.enmu"}, nil)
	var ve *value.Error
	if !errors.As(err, &ve) || ve.Near != "g.enum" {
		t.Errorf("unknown field: %v", err)
	}
}

var sink = make([]byte, 0, 4096)

func FuzzJSONText(f *testing.F) {
	f.Add([]byte("a\"\\\x00\x7f\xc3\x28é😀\xf0\x9f\x98"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var got string
		if err := json.Unmarshal(appendJSONText(nil, in), &got); err != nil {
			t.Fatal(err)
		}
		if want := strings.ToValidUTF8(string(in), "\ufffd"); got != want &&
			strings.ReplaceAll(got, "\ufffd", "") != strings.ReplaceAll(want, "\ufffd", "") {
			t.Errorf("%q read back as %q", in, got)
		}
	})
}

func TestSeparated(t *testing.T) {
	odd := &thing{has: 3, enum: 2, text: []byte("a,\"b\"\nc\td\\"), flags: 5}
	odd.has |= 4
	for _, tt := range []struct {
		sep  byte
		want string
	}{
		{',', "n,g.enum,text,flags,raw\n0,blue,\"a,\"\"b\"\"\nc\td\\\",\"A,B\",\n"},
		{'\t', "n\tg.enum\ttext\tflags\traw\n0\tblue\ta,\"b\"\\nc\\td\\\\\tA,B\t\n"},
	} {
		cols, err := Columns(things, nil, []string{"n", "g.enum", "text", "flags", "raw"})
		if err != nil {
			t.Fatal(err)
		}
		s := &separated[thing]{cols: cols, sep: tt.sep}
		got := string(s.append(s.begin(nil), odd))
		if got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
		if tt.sep == ',' {
			if rows, err := csv.NewReader(strings.NewReader(got)).ReadAll(); err != nil ||
				rows[1][2] != string(odd.text) {
				t.Errorf("read back %q, %v", rows, err)
			}
		}
		if n := testing.AllocsPerRun(100, func() { sink = s.append(sink[:0], odd) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
	cols, _ := Columns(things, nil, nil)
	if len(cols) != len(things.Rows())-1 {
		t.Errorf("%d columns of %d rows, one of them hidden", len(cols), len(things.Rows()))
	}
}

func TestTable(t *testing.T) {
	cols, _ := Columns(things, nil, []string{"n", "text", "g.enum"})
	tb := newTable(cols, false, 0, false, false)
	b := tb.append(nil, &thing{has: 1, n: 7, text: []byte("é\x1b[2J\xff")})
	if len(b) != 0 {
		t.Errorf("a line before its turn: %q", b)
	}
	b = tb.append(b, &thing{has: 3, n: 12345, enum: 2})
	b = tb.flush(b)
	b = tb.flush(tb.append(b, &thing{has: 3, n: 1, text: []byte("later")}))
	want := "    N  TEXT          G.ENUM\n" +
		"    7  é\\x1b[2J\\xff  -\n" +
		"12345  -             blue\n" +
		"    1  later         red\n"
	if string(b) != want {
		t.Errorf("got\n%swant\n%s", b, want)
	}
	tb = newTable(cols, true, 0, false, false)
	if got := string(tb.flush(tb.append(nil, &thing{text: []byte("drop")}))); got != "\x1b[1mN\x1b[0m  "+
		"\x1b[1mTEXT\x1b[0m  \x1b[1mG.ENUM\x1b[0m\n\x1b[2m-\x1b[0m  \x1b[31mdrop\x1b[0m  \x1b[2m-\x1b[0m\n" {
		t.Errorf("coloured: %q", got)
	}
	tb = newTable(cols, false, 0, false, false)
	b = nil
	for range tableHold {
		b = tb.append(b, &thing{})
	}
	if n := strings.Count(string(b), "\n"); n != tableHold+1 || len(tb.text) != 0 {
		t.Errorf("after %d lines %d were written", tableHold, n)
	}
}

func TestTemplate(t *testing.T) {
	for _, tt := range []struct {
		in   *thing
		text string
		want string
	}{
		{full(), "{{.n}} {{.g.enum}} {{.g.h.addr}} {{.flags}} {{.yes}} {{.sub.y.deep}} {{.labels}}", "18446744073709551615 blue fd00::1 A,B,0x8 true 6 7,ni\"ne\n"},
		{&thing{}, "[{{.n}}{{.g.enum}}{{.sub.y.deep}}{{.text}}{{.labels}}]\n", "[]\n"},
		{&thing{}, "{{if .sub}}yes{{else}}no{{end}} {{if .sub.x}}yes{{else}}no{{end}}", "no no\n"},
		{full(), "{{if .sub}}yes{{else}}no{{end}} {{with .sub}}{{.x}}{{end}} {{$.kind}}", "yes 5 thing\n"},
		{full(), "{{if gt .sub.x 4}}big{{end}}{{if eq .g.enum \"blue\"}} blue{{end}}{{if ne .sub.x 5}}no{{end}}", "big blue\n"},
		{&thing{}, "{{if ne .n 1}}no{{end}}{{if eq .n 0}}no{{end}}{{if lt .n 1}}no{{end}}{{if not (eq .n 0)}}yes{{end}}", "yes\n"},
		{&thing{has: 8, time: 1}, "{{.g.enum}}|{{.g.time}}|{{.g.h.addr}}", "|1970-01-01T00:00:00.000000001Z|\n"},
		{full(), "{{range .flags}}<{{.}}>{{end}}", "<A><B><0x8>\n"},
		{full(), "{{printf \"%x\" .sub.x}} {{len .flags}}", "5 3\n"},
	} {
		w, err := newTemplate(things, tt.text, nil)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		for range 2 { // nothing of the first object may be left
			w.Append(nil, full())
			if got := string(w.Append(nil, tt.in)); got != tt.want || w.Err() != nil {
				t.Errorf("%s: got %q, want %q; %v", tt.text, got, tt.want, w.Err())
			}
		}
	}
	for _, bad := range []string{"{{.n", "{{.nope}}", "{{.g.nope}}", "{{nofunc .n}}", "{{.number}}", "{{$.sub.z}}",
		"{{if .n}}", "{{call .n}}", "{{if call .n 1}}{{end}}"} {
		_, err := newTemplate(things, bad, nil)
		var ve *value.Error
		if !errors.As(err, &ve) {
			t.Errorf("%s: %v, want a *value.Error", bad, err)
		}
	}
	union, err := newTemplate(things, "{{.n}}/{{.tuple.src}}/{{if .other}}x{{end}}{{.g.else}}", func(p string) bool {
		return p == "tuple.src" || p == "other" || p == "g.else"
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(union.Append(nil, &thing{has: 1, n: 3})) +
		string(union.Append(nil, full())); got != "3//\n18446744073709551615//\n" {
		t.Errorf("names of other objects: %q", got)
	}
	w, err := newTemplate(things, "{{index .n 3}}", nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.Append(nil, full()); w.Err() == nil {
		t.Error("a failing template reports nothing")
	}
}

func TestWords(t *testing.T) {
	cols, _ := Columns(things, nil, nil)
	w := &words[thing]{cols: cols}
	if got := string(w.append(nil, &thing{has: 5, flags: 5, text: []byte("a b"),
		sub: &part{}})); got != "kind=thing n=0 flags=A,B text=\"a b\" sub.x=0 sub.y.deep=0\n" {
		t.Error(got)
	}
}

func TestParseOutput(t *testing.T) {
	for in, want := range map[string]Output{
		"":                     {},
		"json":                 {Format: JSON},
		"TEXT,Extended,id":     {Format: Text, Extended: true, ID: true},
		"extended,ktimestamp":  {Format: Text, Extended: true, KTimestamp: true},
		"labels,xml,timestamp": {Format: XML, Labels: true, Timestamp: true},
		"userspace":            {Format: Text, Userspace: true},
		"csv":                  {Format: CSV},
		"save":                 {Format: Save},
		"text,text":            {Format: Text},
	} {
		if got, err := ParseOutput(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseOutput(%q) = %+v, %v", in, got, err)
		}
	}
	for in, hint := range map[string]string{
		"jsno": `"json"`, "ex": "extended", "json,text": "both json and text", "json,id": "text and xml", ",": "tsv", "json,": "tsv", "template": "json", "save,id": "no id with save",
	} {
		_, err := ParseOutput(in)
		var ve *value.Error
		if !errors.As(err, &ve) || !strings.Contains(err.Error(), hint) {
			t.Errorf("ParseOutput(%q): %v, want %q in it", in, err, hint)
		}
	}
}

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		o, fields, tmpl  string
		terminal, stream bool
		want             Format
	}{
		{"", "", "", true, false, Table}, {"", "", "", true, true, Text}, {"", "", "", false, false, Text},
		{"", "n", "", true, false, Table}, {"", "n", "", false, true, TSV}, {"json", "n", "", true, false, JSON},
		{"", "", "{{.n}}", true, false, Template}, {"id", "", "", true, false, Text},
	} {
		o, err := ParseOutput(tt.o)
		if err == nil {
			err = o.Select(tt.fields, tt.tmpl)
		}
		if o.Resolve(tt.terminal, tt.stream); err != nil || o.Format != tt.want {
			t.Errorf("%+v: %v, %v", tt, o.Format, err)
		}
	}
	for _, bad := range [][3]string{{"json", "", "{{.n}}"}, {"text", "n", ""}, {"", "n,", ""}, {"", "n", "x"},
		{"save", "n", ""}} {
		o, _ := ParseOutput(bad[0])
		if err := o.Select(bad[1], bad[2]); err == nil {
			t.Errorf("%q: want an error", bad)
		}
	}
	o := Output{Format: Save}
	if err := o.Check("ct list", FlowFormats); err != nil {
		t.Error(err)
	}
	if err := o.Check("ct watch", FlowEventFormats); err == nil || !strings.Contains(err.Error(), "json") {
		t.Errorf("save of ct watch: %v", err)
	}
}

func BenchmarkJSONThing(b *testing.B) {
	j, _ := newJSON(things, nil, nil)
	in := full()
	in.time = uint64(time.Now().UnixNano())
	for b.Loop() {
		sink = j.Append(sink[:0], in)
	}
}
