package format

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"nfctl/internal/ct"
	"nfctl/internal/natlog"
)

// checkSchema validates v against the parts of JSON Schema that jsonSchema uses. It
// is stricter in one point: a key that the schema does not name is wrong, since
// our own output has no other.
func checkSchema(root, schema map[string]any, v any, path string) error {
	if ref, ok := schema["$ref"].(string); ok {
		def, ok := root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		if !ok {
			return fmt.Errorf("no definition %s", ref)
		}
		return checkSchema(root, def, v, path)
	}
	if alternatives, ok := schema["anyOf"].([]any); ok {
		var errs []string
		for _, s := range alternatives {
			err := checkSchema(root, s.(map[string]any), v, path)
			if err == nil {
				return nil
			}
			errs = append(errs, err.Error())
		}
		return fmt.Errorf("none fits: %s", strings.Join(errs, "; "))
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Errorf("%s: %v is none of %v", path, v, enum)
	}
	if types, ok := schema["type"]; ok {
		list, ok := types.([]any)
		if !ok {
			list = []any{types}
		}
		if !slices.ContainsFunc(list, func(t any) bool { return isType(t.(string), v) }) {
			return fmt.Errorf("%s: %v is no %v", path, v, types)
		}
	}
	switch schema["format"] {
	case "date-time":
		if s, ok := v.(string); ok {
			if _, err := time.Parse(time.RFC3339Nano, s); err != nil ||
				len(s) != len("2006-01-02T15:04:05.000000000Z") {
				return fmt.Errorf("%s: %s is no time", path, s)
			}
		}
	}
	if s, ok := v.(string); ok && schema["contentEncoding"] == "base64" {
		if _, err := base64.StdEncoding.DecodeString(s); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if items, ok := schema["items"].(map[string]any); ok {
		if list, ok := v.([]any); ok {
			for _, one := range list {
				if err := checkSchema(root, items, one, path+"[]"); err != nil {
					return err
				}
			}
		}
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil
	}
	if required, ok := schema["required"].([]any); ok {
		for _, k := range required {
			if _, ok := object[k.(string)]; !ok {
				return fmt.Errorf("%s: no %s", path, k)
			}
		}
	}
	props, _ := schema["properties"].(map[string]any)
	for k, v := range object {
		s, ok := props[k].(map[string]any)
		if !ok {
			return fmt.Errorf("%s.%s is not in the schema", path, k)
		}
		if err := checkSchema(root, s, v, path+"."+k); err != nil {
			return err
		}
	}
	return nil
}

func isType(t string, v any) bool {
	switch v := v.(type) {
	case nil:
		return t == "null"
	case bool:
		return t == "boolean"
	case string:
		return t == "string"
	case json.Number:
		return t == "number" || t == "integer" && !strings.ContainsAny(v.String(), ".eE-")
	case []any:
		return t == "array"
	case map[string]any:
		return t == "object"
	}
	return false
}

// schema returns the parsed schema.
func schema(t *testing.T) map[string]any {
	t.Helper()
	var s map[string]any
	if err := json.Unmarshal(jsonSchema(), &s); err != nil {
		t.Fatalf("%v in %.500s", err, jsonSchema())
	}
	return s
}

func validate(root map[string]any, line string) error {
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	return checkSchema(root, root, v, "")
}

func lineOf[T any](t *testing.T, s *Subject[T], extra []string, v *T) string {
	t.Helper()
	p, err := New(s, Output{Format: JSON}, Options{Extra: extra})
	if err != nil {
		t.Fatal(err)
	}
	return string(p.Append(nil, v))
}

func TestSchema(t *testing.T) {
	root := schema(t)
	everything := &ct.Flow{Present: ^ct.Has(0), Unknown: []ct.Unknown{{Type: 99, Data: []byte{1}}}, NoEvents: true,
		Event: ct.New,
		By:    ct.By{PortID: 1, Pid: 2, Comm: []byte("x")}, Time: 1, Labels: [16]byte{255}, Status: 1<<32 - 1,
		TCPFlagsOrig: 255}
	everything.Orig = typical().Orig
	everything.Orig.Present = 255
	everything.Reply, everything.Master = everything.Orig, everything.Orig
	everything.SNAT = ct.NAT{Addr: everything.Orig.Src, AddrMax: everything.Orig.Dst, Port: 1, PortMax: 2}
	everything.DNAT = everything.SNAT
	expect := &ct.Expect{Present: ^ct.ExpectHas(0), Tuple: everything.Orig, Mask: everything.Orig,
		Master: everything.Orig, NATTuple: everything.Orig, Flags: 255, Event: ct.Destroy, Time: 5}
	groups, _ := Groups(ct.FlowFields.Row("reply.src"), ct.FlowFields.Row("state"), ct.FlowFields.Row("reply.dport"))
	group := &Group{Values: []GroupValue{{OK: true, Addr: everything.Orig.Src}, {OK: true, Num: 5}, {}}, Count: 3,
		Packets: 1, Counted: true}
	place := natlog.Place{Addr: everything.Orig.Src, Port: 1}
	ended := &natlog.Record{Time: 2e9, Event: natlog.End, Since: 1e9, Until: 3e9, Of: natlog.Source, Family: 2,
		Proto: 17, ID: 1, Zone: 1, Inside: place, Outside: place, To: place, Counted: true, Unsure: true}
	for _, line := range []string{
		lineOf(t, Translations, nil, ended),
		lineOf(t, Translations, nil, &natlog.Record{Time: 1, Event: natlog.Lost, Since: 1, Count: 3, CountKnown: true}),
		lineOf(t, groups, nil, group), lineOf(t, Flows, nil, everything), lineOf(t, Flows, nil, typical()), lineOf(t, Flows, nil, &ct.Flow{}),
		lineOf(t, Expects, nil, expect), lineOf(t, Expects, nil, &ct.Expect{}),
		lineOf(t, Packets, []string{"payload"}, samplePacket()), lineOf(t, Losses, nil, &Loss{Time: 1, Where: "socket"}),
		lineOf(t, Losses, nil, &Loss{Time: 1, Where: "queue", Known: true, Count: 3}),
		lineOf(t, Marks, nil, &Mark{Kind: "existing", Time: 1, Flows: 3}), lineOf(t, Marks, nil, &Mark{Kind: "resync"}), lineOf(t, Marks, nil, &Mark{Kind: "resynced"}),
		lineOf(t, Counts, nil, &Count{Of: "flows", Count: 5, Max: 1000}), lineOf(t, Findings, nil, &Finding{"a", "ok", "b", ""}),
		lineOf(t, Needs, nil, &Need{"copy", "256 bytes", 3, "f:3: drop"}), lineOf(t, Needs, nil, &Need{Need: "privileges", Text: "CAP_NET_ADMIN"}),
		lineOf(t, FlowStats(), nil, &Stats{CPU: 0, Values: make([]uint64, 15), Known: slices.Repeat([]bool{true}, 15), Rates: make([]uint64, 15)}),
		lineOf(t, ExpectStats(), nil, &Stats{CPU: -1, Values: make([]uint64, 3), Known: []bool{true, true, true}}),
		lineOf(t, Attrs, nil, &AttrTable("flow", ct.FlowAttrs())[0]), lineOf(t, Values, nil, &Value{"status", "ASSURED", 4}),
	} {
		if err := validate(root, line); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
	for _, bad := range []string{`{}`, `{"kind":"flow"}`, `{"kind":"flow","mark":"7","zone":0}`,
		`{"kind":"flow","mark":7,"zone":0,"nonsense":1}`,
		`{"kind":"flow","mark":-7,"zone":0}`, `{"kind":"flow","mark":null,"zone":0}`, `{"kind":"other"}`, `{"kind":"flow","mark":1,"zone":0,"start":"yesterday"}`} {
		if validate(root, bad) == nil {
			t.Errorf("fits the schema: %s", bad)
		}
	}
}
