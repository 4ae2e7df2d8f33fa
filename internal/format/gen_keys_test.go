package format

import (
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/queue"
)

// keyTables returns a table of the keys of each kind of JSON object, in
// Markdown.
func keyTables() []byte {
	b := keyTable(nil, Flows, "an entry of the connection tracking table, or an event about one",
		Named(ct.FlowFields, knowsNone{}).Rows())
	b = keyTable(b, Expects, "an expectation, or an event about one", Named(ct.ExpectFields, knowsNone{}).Rows())
	var packet []field.Row[queue.Packet] // those of its connection are a flow's
	for _, r := range queue.Fields.Rows() {
		if !strings.HasPrefix(r.Path, "ct.") && (!r.Hidden || r.Path == "payload") {
			r.Hidden = false
			packet = append(packet, r)
		}
	}
	b = keyTable(b, Packets, "a queued packet, with its connection, when the kernel tells it, as a flow in `ct`; "+
		"`payload` only when asked for", packet)
	b = keyTable(b, Losses, "what a stream lacks where this stands", Losses.Fields.Rows())
	b = keyTable(b, Marks, "a mark between events: `existing`, `resync` or `resynced`", Marks.Fields.Rows())
	b = keyTable(b, Counts, "how many entries a table has", Counts.Fields.Rows())
	groups, _ := Groups()
	b = keyTable(b, groups, "flows that are alike in some fields (`ct list --group-by`); it has those fields, as a "+
		"flow has them, and", groups.Fields.Rows())
	b = keyTable(b, FlowStats(), "the kernel's counters of flows", FlowStats().Fields.Rows())
	b = keyTable(b, ExpectStats(), "the kernel's counters of expectations", ExpectStats().Fields.Rows())
	b = keyTable(b, Queues, "a queue in the kernel's list", Queues.Fields.Rows())
	b = keyTable(b, Needs, "what rules ask of the kernel (`queue --check`)", Needs.Fields.Rows())
	b = keyTable(b, Attrs, "a row of the attribute table", Attrs.Fields.Rows())
	b = keyTable(b, Values, "a word that an attribute takes (`attr values`)", Values.Fields.Rows())
	b = keyTable(b, Translations, "a line of a log of translations (`ct watch --nat-log`), or what `ct who` found in "+
		"one", Translations.Fields.Rows())
	return keyTable(b, Findings, "something that doctor looked at", Findings.Fields.Rows())
}

func keyTable[T any](b []byte, s *Subject[T], what string, rows []field.Row[T]) []byte {
	b = append(append(append(b, "\n## "...), s.Kind...), ": "...)
	b = append(append(b, what...), "\n\n| key | type | meaning |\n|---|---|---|\n"...)
	for i := range rows {
		r := &rows[i]
		if r.Hidden || r.Path == "kind" {
			continue
		}
		b = append(append(append(b, "| `"...), r.Path...), "` | "...)
		b = append(b, jsonTypes[r.Kind]...)
		if r.Null != nil {
			b = append(b, " or null"...)
		}
		b = append(append(append(b, " | "...), strings.ReplaceAll(r.Doc, "|", "\\|")...), " |\n"...)
	}
	return b
}

// jsonTypes says how each kind of field is written in JSON.
var jsonTypes = [...]string{field.Uint: "number", field.Enum: "name", field.Flags: "array of names",
	field.Bits: "array of names",
	field.Addr: "address", field.String: "string", field.Bytes: "base64", field.Time: "time", field.Bool: "true or false", field.Lasting: "seconds"}
