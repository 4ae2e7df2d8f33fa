package format

import (
	"net/netip"
	"slices"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/field"
)

// jsonSchema returns a JSON Schema (draft 2020-12) of every object that -o json
// writes. It is made from the field registries. A validator that it is given to
// should, as any reader, pass over keys that it does not know: new ones may
// come.
func jsonSchema() []byte {
	b := []byte(`{
"$schema": "https://json-schema.org/draft/2020-12/schema",
"$id": "nfctl.json",
"title": "One line of nfctl's -o json",
"anyOf": [`)
	kinds := []struct {
		name string
		add  func([]byte) []byte
	}{
		{"flow", define(Flows, []string{"mark", "zone"})},
		{"expect", define(Expects, nil)},
		{"packet", define(Packets, []string{"queue", "id", "hook"}, "payload")},
		{"lost", define(Losses, []string{"count", "where"})},
		{"mark", define(Marks, nil)},
		{"count", define(Counts, []string{"of", "count"})},
		{"stats", define(FlowStats(), []string{"of"})},
		{"expect_stats", define(ExpectStats(), []string{"of"})},
		{"group", define(everyGroup(), []string{"count"})},
		{"queue", define(Queues, []string{"queue"})},
		{"need", define(Needs, []string{"need", "text"})},
		{"attr", define(Attrs, []string{"of", "name"})},
		{"value", define(Values, []string{"of", "name", "number"})},
		{"nat", define(Translations, []string{"time", "event"})},
		{"doctor", define(Findings, []string{"status", "check"})},
	}
	for i, k := range kinds {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(appendJSONText(append(b, `{"$ref": `...), "#/$defs/"+k.name), '}')
	}
	b = append(b, "],\n\"$defs\": {"...)
	for i, k := range kinds {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSONText(append(b, '\n'), k.name), ": "...)
		b = k.add(b)
	}
	return append(b, "}\n}\n"...)
}

// define returns a writer of the definition of a subject's objects. Keys in
// required are always there.
func define[T any](s *Subject[T], required []string, extra ...string) func([]byte) []byte {
	return func(b []byte) []byte {
		fields := s.Fields
		if s.Kind == "flow" || s.Kind == "expect" { // whose commands have --resolve
			fields = Named(fields, knowsNone{})
		}
		reg := withKind(fields, s.Kind)
		rows, _ := SelectRows(reg, nil)
		for _, name := range extra {
			rows = append(rows, reg.Row(name))
		}
		b = appendObject(b, rows, "", s)
		b = append(b, `, "required": ["kind"`...)
		for _, r := range required {
			b = appendJSONText(append(b, ", "...), r)
		}
		return append(b, "]}"...)
	}
}

// knowsNone knows no name.
type knowsNone struct{}

func (knowsNone) Host(netip.Addr) []byte       { return nil }
func (knowsNone) Service(uint8, uint16) string { return "" }

// appendObject appends the schema of the object at a prefix, without its closing
// brace.
func appendObject[T any](b []byte, rows []*field.Row[T], prefix string, s *Subject[T]) []byte {
	b = append(b, `{"type": "object", "properties": {`...)
	done := map[string]bool{}
	for _, r := range rows {
		rest, ok := strings.CutPrefix(r.Path, prefix)
		if !ok {
			continue
		}
		name, _, nested := strings.Cut(rest, ".")
		if done[name] {
			continue
		}
		if len(done) > 0 {
			b = append(b, ',')
		}
		done[name] = true
		b = append(appendJSONText(append(b, '\n'), name), ": "...)
		switch {
		case nested:
			b = append(appendObject(b, rows, prefix+name+".", s), '}')
		case r.Path == "kind":
			b = appendKinds(b, r, s.Kind)
		default:
			b = appendType(b, r)
		}
	}
	return append(b, '}')
}

// appendKinds appends the schema of the key kind: the one word, or the words of
// marks.
func appendKinds[T any](b []byte, r *field.Row[T], kind string) []byte {
	b = append(b, `{"enum": [`...)
	if r.Names == markWords {
		for i, n := range r.Names.List() {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = appendJSONText(b, n.Word)
		}
	} else {
		b = appendJSONText(b, kind)
	}
	return append(b, "]}"...)
}

func appendType[T any](b []byte, r *field.Row[T]) []byte {
	typ, more := "string", ""
	switch r.Kind {
	case field.Uint:
		typ, more = "integer", `, "minimum": 0`
	case field.Flags, field.Bits:
		typ, more = "array", `, "items": {"type": "string"}`
	case field.Bool:
		typ = "boolean"
	case field.Lasting:
		typ, more = "number", `, "minimum": 0`
	case field.Time:
		more = `, "format": "date-time"`
	case field.Bytes:
		more = `, "contentEncoding": "base64"`
	}
	if r.Null != nil {
		b = append(append(append(b, `{"type": ["`...), typ...), `", "null"]`...)
	} else {
		b = append(append(append(b, `{"type": "`...), typ...), '"')
	}
	b = append(b, more...)
	return append(appendJSONText(append(b, `, "description": `...), r.Doc), '}')
}

// everyGroup is the kind of object for groups by all fields that a listed flow
// may have: for the schema.
func everyGroup() *Subject[Group] {
	var by []*field.Row[ct.Flow]
	for i := range ct.FlowFields.Rows() {
		r := &ct.FlowFields.Rows()[i]
		if !r.Hidden && !slices.Contains([]string{"kind", "event", "time", "events"}, r.Path) &&
			!strings.HasPrefix(r.Path, "by.") {
			by = append(by, r)
		}
	}
	s, _ := Groups(by...)
	return s
}
