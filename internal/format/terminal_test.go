package format

import (
	"strings"
	"testing"

	"nfctl/internal/ct"
)

// Nothing that a flow holds reaches a terminal as it is; a file gets it whole.
func TestTerminalIsSafe(t *testing.T) {
	const name = "a\x1b[2J\x9bb\n\tc"
	f := &ct.Flow{Present: ct.HasHelper, Helper: []byte(name)}
	f.Orig.Proto, f.Orig.Present = ct.UDP, ct.TupleProto
	for _, text := range []string{"csv", "tsv", "template", "table", "json"} {
		for _, terminal := range []bool{true, false} {
			o, err := ParseOutput(text)
			if text == "template" {
				o, err = Output{}, nil
				err = o.Select("", "{{.helper}}")
			} else if err == nil {
				err = o.Select("helper", "")
			}
			if err != nil {
				t.Fatal(err)
			}
			o.Resolve(terminal, false)
			p, err := New(Flows, o, Options{})
			if err != nil {
				t.Fatal(err)
			}
			out := string(p.End(p.Append(nil, f)))
			raw := strings.ContainsAny(out, "\x1b\t") || strings.Contains(out, "\x9b") || strings.Count(out, "\n") > 2
			if want := !terminal && text != "table" && text != "json"; raw != want {
				t.Errorf("%s, terminal %v: %q", text, terminal, out)
			}
		}
	}
}

// A process may have any name.
func TestFindingIsSafe(t *testing.T) {
	p, err := New(Findings, Output{Format: Text}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	out := string(p.Append(nil, &Finding{Status: "ok", Check: "queue 0", Text: "bound by process 1 (\x1b[2J\n)"}))
	if strings.Contains(out, "\x1b") || strings.Count(out, "\n") != 1 {
		t.Errorf("%q", out)
	}
}
