package format

import (
	"slices"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/queue"
)

// FormatTable returns the table command x format of the documentation, in
// Markdown.
func FormatTable() []byte {
	b := []byte("| command |")
	for f := Text; f < formats; f++ {
		b = append(append(append(b, ' '), f.String()...), " |"...)
	}
	b = append(b, "\n|---|"+strings.Repeat("---|", int(formats-Text))+"\n"...)
	for _, c := range Commands {
		if len(c.Formats) == 0 {
			continue
		}
		b = append(append(append(b, "| `"...), c.Command...), "` |"...)
		for f := Text; f < formats; f++ {
			if slices.Contains(c.Formats, f) {
				b = append(b, " x |"...)
			} else {
				b = append(b, "  |"...)
			}
		}
		b = append(b, '\n')
	}
	return b
}

// KeyTables returns a table of the keys of each kind of JSON object, in
// Markdown.
func KeyTables() []byte {
	b := keys(nil, Flows, "an entry of the connection tracking table, or an event about one", ct.FlowFields.Rows())
	b = keys(b, Expects, "an expectation, or an event about one", ct.ExpectFields.Rows())
	var packet []field.Row[queue.Packet] // those of its connection are a flow's
	for _, r := range queue.Fields.Rows() {
		if !strings.HasPrefix(r.Path, "ct.") && (!r.Hidden || r.Path == "payload") {
			r.Hidden = false
			packet = append(packet, r)
		}
	}
	b = keys(b, Packets, "a queued packet, with its connection, when the kernel tells it, as a flow in `ct`; `payload` only when asked for", packet)
	b = keys(b, Losses, "what a stream lacks where this stands", Losses.Fields.Rows())
	b = keys(b, Marks, "a mark between events: `existing`, `resync` or `resynced`", Marks.Fields.Rows())
	b = keys(b, Counts, "how many entries a table has", Counts.Fields.Rows())
	groups, _ := Groups()
	b = keys(b, groups, "flows that are alike in some fields (`ct list --group-by`); it has those fields, as a flow has them, and", groups.Fields.Rows())
	b = keys(b, FlowStats(), "the kernel's counters of flows", FlowStats().Fields.Rows())
	b = keys(b, ExpectStats(), "the kernel's counters of expectations", ExpectStats().Fields.Rows())
	b = keys(b, Queues, "a queue in the kernel's list", Queues.Fields.Rows())
	b = keys(b, Attrs, "a row of the attribute table", Attrs.Fields.Rows())
	b = keys(b, Values, "a word that an attribute takes (`attr values`)", Values.Fields.Rows())
	return keys(b, Findings, "something that doctor looked at", Findings.Fields.Rows())
}

func keys[T any](b []byte, s *Subject[T], what string, rows []field.Row[T]) []byte {
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
var jsonTypes = [...]string{field.Uint: "number", field.Enum: "name", field.Flags: "array of names", field.Bits: "array of names",
	field.Addr: "address", field.String: "string", field.Bytes: "base64", field.Time: "time", field.Bool: "true or false"}
