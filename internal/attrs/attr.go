// Package attrs has the verbs on the table of attributes: what there is, which words an
// attribute takes, and single values of a flow. Nothing here prints.
package attrs

import (
	"slices"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/value"
)

// Table returns every attribute: of flows, of expectations, and groups.
func Table() []format.Attr {
	all := append(format.AttrTable("flow", ct.FlowAttrs()), format.AttrTable("expect", ct.ExpectAttrs())...)
	for _, g := range ct.Groups {
		row := format.Attr{Of: "group", Name: g.Name, Type: "group", Readable: "as its members",
			Create: "yes, as its members", Update: "yes, as its members"}
		row.Doc = strings.Join(g.Members, " and ")
		for _, m := range g.Members {
			attr := ct.Find(ct.FlowAttrs(), m)
			row.Bits += attr.Bits
			for update, why := range map[bool]*string{false: &row.Create, true: &row.Update} {
				if ok, reason := attr.Settable(update); !ok {
					*why = "no: " + reason
				}
			}
		}
		all = append(all, row)
	}
	return all
}

// names returns all names and aliases.
func names() (names []string) {
	for _, row := range Table() {
		names = append(append(names, row.Name), row.Aliases...)
	}
	return names
}

// Find returns the attributes with a name, alias or path.
func Find(name string) (out []format.Attr, err error) {
	for _, row := range Table() {
		if row.Name == name || slices.Contains(row.Aliases, name) {
			return []format.Attr{row}, nil
		}
		if row.Path == name {
			out = append(out, row)
		}
	}
	if len(out) == 0 {
		return nil, unknown(name)
	}
	return out, nil
}

// unknown is the error of a name that no attribute has.
func unknown(name string) error {
	return &value.Error{What: "attribute", Text: name, Valid: "a name of 'nfctl attr list'",
		Near: value.Nearest(name, names())}
}

// OfFlow returns the attributes of flows that a name means: one, or a group's.
func OfFlow(name string) ([]*ct.Attr[ct.Flow], error) {
	for _, g := range ct.Groups {
		if g.Name == name {
			var out []*ct.Attr[ct.Flow]
			for _, m := range g.Members {
				out = append(out, ct.Find(ct.FlowAttrs(), m))
			}
			return out, nil
		}
	}
	if at := ct.Find(ct.FlowAttrs(), name); at != nil {
		return []*ct.Attr[ct.Flow]{at}, nil
	}
	if ct.Find(ct.ExpectAttrs(), name) != nil {
		return nil, &value.Error{What: "attribute of a flow", Text: name,
			Valid: "one of flows: it is an expectation's, see 'nfctl expect get'"}
	}
	return nil, unknown(name)
}
