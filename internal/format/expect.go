package format

import (
	"encoding/json"
	"strconv"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// ExpectLine begins a line of an expectation, before the arguments of 'nfctl expect
// create' that make it.
const ExpectLine = "-A expect"

// AppendSaveExpect appends an expectation as the arguments of 'nfctl expect create'
// that make it, behind ExpectLine, and a newline. What nobody can set is left out: the
// id.
func AppendSaveExpect(b []byte, e *ct.Expect) []byte {
	b = append(b, ExpectLine+" --master '"...)
	b = ct.AppendTuple(b, &e.Master)
	if e.Has(ct.ExpectHasZone) && e.Zone != 0 {
		b = strconv.AppendUint(append(b, " zone "...), uint64(e.Zone), 10)
	}
	t, m := &e.Tuple, &e.Mask
	anySrc := !t.Src.IsValid() || t.Src.IsUnspecified() && (!m.Src.IsValid() || m.Src.IsUnspecified())
	ports := pattern.HasEnds(t.Proto) && t.Has(ct.TupleSport|ct.TupleDport)
	anyPort := !ports || t.Sport == 0 && m.Sport == 0
	b = append(value.Protocols.Append(append(b, "' '"...), uint64(t.Proto)), ' ')
	if !anySrc {
		b = append(appendEnd(b, t.Src, t.Sport, !anyPort, t.Proto == ct.GRE), ' ')
	} else if !anyPort {
		b = append(strconv.AppendUint(append(b, ':'), uint64(t.Sport), 10), ' ')
	}
	b = appendEnd(append(b, "> "...), t.Dst, t.Dport, ports, t.Proto == ct.GRE)
	if t.Has(ct.TupleType | ct.TupleCode) {
		b = strconv.AppendUint(append(b, " type "...), uint64(t.Type), 10)
		b = strconv.AppendUint(append(b, " code "...), uint64(t.Code), 10)
		if m.ID != 0 {
			b = strconv.AppendUint(append(b, " id "...), uint64(t.ID), 10)
		}
	}
	b = append(b, "' "...)
	if all := ct.PrefixMask(t.Dst.BitLen(), t.Dst.BitLen()); !anySrc && m.Src.IsValid() && m.Src != all {
		b = saveAddr(b, "--mask-src ", m.Src)
	}
	if !anyPort && m.Sport != 0xffff {
		b = appendNum(b, "--mask-port-src ", uint64(m.Sport))
	}
	if e.Has(ct.ExpectHasTimeout) {
		b = appendNum(b, "-t ", uint64(e.Timeout))
	}
	word := func(flag string, text []byte) {
		b = append(append(b, flag...), ' ')
		start := len(b)
		b = append(quoteWord(append(b, text...), start), ' ')
	}
	if len(e.Helper) > 0 {
		word("--helper", e.Helper)
	}
	if e.Class != 0 {
		b = appendNum(b, "--class ", uint64(e.Class))
	}
	for f := e.Flags & (ct.Permanent | ct.Inactive); f != 0; f &= f - 1 {
		b = append(append(append(b, "--"...), ct.ExpectFlagNames.Word(uint64(f&-f))...), ' ')
	}
	if len(e.Fn) > 0 {
		word("--fn", e.Fn)
	}
	if e.Has(ct.ExpectHasNATDir) && e.NATTuple.Src.IsValid() {
		n := &e.NATTuple
		b = append(appendEnd(append(b, "--nat "...), n.Src, n.Sport, n.Has(ct.TupleSport), n.Proto == ct.GRE), ' ')
		b = append(append(append(b, "--nat-dir "...), ct.DirNames.Word(uint64(e.NATDir))...), ' ')
	}
	b[len(b)-1] = '\n'
	return b
}

// parseExpect reads an expectation in JSON into e, which must be empty, as
// jsonFlow.parse does a flow.
func parseExpect(text string, e *ct.Expect) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return err
	}
	texts := map[string]string{}
	if err := flatten(texts, "", object); err != nil {
		return err
	}
	if text, ok := texts["event"]; ok {
		n, err := ct.EventNames.Parse(text)
		if err != nil {
			return err
		}
		e.Event = ct.Event(n)
	}
	for i := range ct.ExpectAttrs() {
		a := &ct.ExpectAttrs()[i]
		text, ok := texts[a.Path]
		can, _ := a.Settable(false)
		if !ok || a.Path == "family" || !can && a.Path != "timeout" && !strings.Contains(a.Path, ".") ||
			strings.HasPrefix(a.Path, "by.") {
			continue
		}
		if err := a.SetText(e, text); err != nil {
			return err
		}
	}
	if t := &e.Tuple; !t.Dst.IsValid() || !t.Has(ct.TupleProto) || e.Master.IsZero() && e.Event != ct.Destroy {
		return &value.Error{What: "expectation", Text: string(ct.AppendTuple(nil, t)),
			Valid: "a protocol and a destination, and a master"}
	}
	return nil
}

// flatten finds the values of an object by their paths, as texts.
func flatten(texts map[string]string, prefix string, object map[string]any) error {
	for key, v := range object {
		path := prefix + key
		inner, nested := v.(map[string]any)
		if nested && ct.ExpectFields.Group(path) {
			if err := flatten(texts, path+".", inner); err != nil {
				return err
			}
			continue
		}
		if nested || ct.ExpectFields.Row(path) == nil {
			if _, err := ct.ExpectFields.Find(path); err != nil {
				return err
			}
			return &value.Error{What: "key", Text: path, Valid: "a field of expectations"}
		}
		switch v := v.(type) {
		case string:
			texts[path] = v
		case json.Number:
			texts[path] = v.String()
		case []any:
			var words []string
			for _, w := range v {
				s, ok := w.(string)
				if !ok {
					return &value.Error{What: path, Text: string(mustJSON(w)), Valid: "strings in the array"}
				}
				words = append(words, s)
			}
			texts[path] = strings.Join(words, ",")
		}
	}
	return nil
}

// mustJSON writes what was read from JSON.
func mustJSON(v any) []byte { b, _ := json.Marshal(v); return b }
