package ct

import (
	"strings"

	"nfctl/internal/field"
)

// FlowFields and ExpectFields are the fields of flows and expectations, made of
// the attribute tables: the table's order, its JSON paths, and its names as
// aliases.
//
// mark and zone are always there on flows, 0 when the kernel sent none. State
// is an Enum over StateNames, status a Flags whose numbers are masks, labels
// Bits by LabelName. Hidden fields are names for filters and --fields.
var (
	FlowFields   = &field.Registry[Flow]{Make: flowRows, Presence: presence}
	ExpectFields = &field.Registry[Expect]{Make: expectRows}
)

func flowRows() []field.Row[Flow]     { return withParts(rows(FlowAttrs()), flowParts()) }
func expectRows() []field.Row[Expect] { return withParts(rows(ExpectAttrs()), expectParts()) }

// flowParts tells which objects of a flow it lacks as a whole.
func flowParts() map[string]func(*Flow) bool {
	return map[string]func(*Flow) bool{
		"nat":          func(f *Flow) bool { return f.Status&(StatusSrcNATDone|StatusDstNATDone|StatusSrcNAT|StatusDstNAT) != 0 },
		"tcp":          func(f *Flow) bool { return f.Present&hasTCP != 0 },
		"sctp":         func(f *Flow) bool { return f.Present&hasSCTP != 0 },
		"dccp":         func(f *Flow) bool { return f.Present&hasDCCP != 0 },
		"seqadj_orig":  func(f *Flow) bool { return f.Present&HasSeqOrig != 0 },
		"seqadj_reply": func(f *Flow) bool { return f.Present&HasSeqReply != 0 },
		"synproxy":     func(f *Flow) bool { return f.Present&HasSynproxy != 0 },
		"master":       func(f *Flow) bool { return !f.Master.IsZero() },
		"snat":         func(f *Flow) bool { return f.SNAT.Addr.IsValid() || f.Has(HasSNATPort) },
		"dnat":         func(f *Flow) bool { return f.DNAT.Addr.IsValid() || f.Has(HasDNATPort) },
		"by":           func(f *Flow) bool { return f.By.PortID != 0 },
		"rate":         func(f *Flow) bool { return f.Rate.Known },
	}
}

func expectParts() map[string]func(*Expect) bool {
	return map[string]func(*Expect) bool{
		"nat": func(e *Expect) bool { return e.Has(ExpectHasNATDir) || !e.NATTuple.IsZero() },
		"by":  func(e *Expect) bool { return e.By.PortID != 0 },
	}
}

func withParts[T any](rows []field.Row[T], has map[string]func(*T) bool) []field.Row[T] {
	parts := map[string]*field.Part[T]{}
	for name, f := range has {
		parts[name] = &field.Part[T]{Has: f}
	}
	for i := range rows {
		if group, _, ok := strings.Cut(rows[i].Path, "."); ok {
			rows[i].Part = parts[group]
		}
	}
	return rows
}

// Networks returns a field of flows that is the network of an address: of so many bits
// for each family, 0 for the address itself.
func Networks(of *field.Row[Flow], bits4, bits6 int) *field.Row[Flow] {
	r := *of
	r.Kind, r.IP, r.Parse, r.Need, r.Max = field.String, nil, nil, 0, 0
	r.Data = func(f *Flow) ([]byte, bool) {
		a, ok := of.IP(f)
		if !ok {
			return nil, false
		}
		bits := bits4
		if a.Is6() {
			bits = bits6
		}
		if p, err := a.Prefix(bits); bits > 0 && err == nil {
			f.text = p.AppendTo(f.text[:0])
		} else {
			f.text = a.AppendTo(f.text[:0])
		}
		return f.text, true
	}
	return &r
}
