package attrs

import (
	"fmt"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

// An Option is one of libnetfilter_conntrack's of an object (nfct_setobjopt).
type Option struct {
	Name, Doc string
	Do        func(*ct.Flow)
}

// Options are those that there are.
var Options = []Option{
	{"setup-reply", "the reply direction becomes the mirror of the original one", (*ct.Flow).SetupReply},
	{"setup-original", "the other way round", (*ct.Flow).SetupOrig},
	{"undo-snat", "turn the source address translation that the tuples show into one to ask for", (*ct.Flow).UndoSNAT},
	{"undo-dnat", "the same for the destination address", (*ct.Flow).UndoDNAT},
	{"undo-spat", "the same for the source port", (*ct.Flow).UndoSPAT},
	{"undo-dpat", "the same for the destination port", (*ct.Flow).UndoDPAT},
}

// Build makes a flow of NAME=VALUE, as netfilter-lua's set_attr functions do:
// in memory, so that also what no kernel would take can be set.
func Build(args []string) (*ct.Flow, error) {
	f := &ct.Flow{}
	if err := table.OnceEach(ct.FlowAttrs(), args); err != nil {
		return nil, err
	}
	for _, s := range args {
		name, text, ok := strings.Cut(s, "=")
		at := ct.Find(ct.FlowAttrs(), name)
		switch {
		case !ok:
			return nil, &value.Error{What: "attribute to set", Text: s, Valid: "NAME=VALUE, as mark=7"}
		case at == nil && ct.Find(ct.ExpectAttrs(), name) != nil:
			return nil, &value.Error{What: "attribute of a flow", Text: name,
				Valid: "one of flows: it is an expectation's, see 'nfctl expect create'"}
		case at == nil:
			return nil, unknown(name)
		}
		if err := setAny(f, at, text); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	completeTuples(f)
	return f, nil
}

// setAny sets an attribute in memory. A path that several attributes share, as
// orig.src, is set by the first that takes the text.
func setAny(f *ct.Flow, at *ct.Attr[ct.Flow], text string) error {
	err := at.SetText(f, text)
	for i := range ct.FlowAttrs() {
		if other := &ct.FlowAttrs()[i]; err != nil && other != at && other.Path == at.Path {
			if other.SetText(f, text) == nil {
				return nil
			}
		}
	}
	return err
}

// completeTuples gives the tuples that have addresses their family, and both directions
// one protocol, unless something else was said.
func completeTuples(f *ct.Flow) {
	for _, t := range [][2]*ct.Tuple{{&f.Orig, &f.Reply}, {&f.Reply, &f.Orig}} {
		if from, to := t[0], t[1]; from.Has(ct.TupleProto) && !to.Has(ct.TupleProto) &&
			(to.Src.IsValid() || to.Dst.IsValid()) {
			to.Proto, to.Present = from.Proto, to.Present|ct.TupleProto
		}
	}
	for _, t := range []*ct.Tuple{&f.Orig, &f.Reply, &f.Master} {
		if t.Has(ct.TupleFamily) || !t.Src.IsValid() && !t.Dst.IsValid() {
			continue
		}
		t.Family = ct.IPv4
		if t.Src.Is6() || t.Dst.Is6() {
			t.Family = ct.IPv6
		}
		t.Present |= ct.TupleFamily
	}
}
