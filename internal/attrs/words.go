package attrs

import (
	"slices"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/value"
)

// labels is the vocabulary of connection labels, which a file has.
const labels = "connlabels"

// A Vocabulary is the words that an attribute takes.
type Vocabulary struct {
	Of    string // the attribute
	names *value.Names
}

// Vocabularies returns those of all attributes that have one, and that of labels.
func Vocabularies() (out []Vocabulary) {
	for i := range ct.FlowAttrs() {
		if at := &ct.FlowAttrs()[i]; at.Names != nil && at.Path != "kind" && at.Path != "event" {
			out = append(out, Vocabulary{word(at.Name, at.Aliases, at.Path), at.Names})
		}
	}
	for i := range ct.ExpectAttrs() {
		if at := &ct.ExpectAttrs()[i]; at.Names != nil && at.Name != "" {
			out = append(out, Vocabulary{at.Name, at.Names})
		}
	}
	return append(out, Vocabulary{Of: labels})
}

// word is how an attribute is called where its words are asked for: by the short
// form of its name.
func word(name string, aliases []string, path string) string {
	if len(aliases) > 0 {
		return aliases[0]
	}
	if name == "" {
		return path
	}
	return name
}

// Values returns the words that an attribute takes, with their numbers.
func Values(name string) (rows []format.Value, err error) {
	if name == labels || name == "label" || name == "labels" {
		for n := range 128 {
			if w := ct.LabelName(n); w != "" {
				rows = append(rows, format.Value{Of: labels, Name: w, Num: uint64(n)})
			}
		}
		return rows, nil
	}
	full := name
	if at := ct.Find(ct.FlowAttrs(), name); at != nil {
		full = word(at.Name, at.Aliases, at.Path)
	}
	var known []string
	for _, v := range Vocabularies() {
		if v.names == nil {
			continue
		}
		known = append(known, v.Of)
		if v.Of != full && v.Of != name {
			continue
		}
		for _, n := range v.names.List() {
			if n.Word != "" {
				rows = append(rows, format.Value{Of: v.Of, Name: n.Word, Num: n.Num})
			}
		}
		return rows, nil
	}
	return nil, &value.Error{What: "attribute with words", Text: name,
		Valid: strings.Join(slices.Compact(known), ", ") + " or connlabels", Near: value.Nearest(name, known)}
}
