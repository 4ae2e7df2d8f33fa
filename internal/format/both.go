package format

import (
	"fmt"

	"nfctl/internal/ct"
)

// NewBoth makes printers of flows and of expectations whose output is one stream. Of
// the fields of out each is given those that its objects have.
func NewBoth(out Output, opt Options) (*Printer[ct.Flow], *Printer[ct.Expect], error) {
	names := out.Fields
	flows, expects := Named(ct.FlowFields, out.Names), Named(ct.ExpectFields, out.Names)
	known := func(has func(string) error) (out []string) {
		for _, n := range names {
			if has(n) == nil {
				out = append(out, n)
			}
		}
		if len(names) > 0 && len(out) == 0 {
			out = []string{"kind"}
		}
		return out
	}
	flow := func(n string) error { _, err := SelectRows(flows, []string{n}); return err }
	expect := func(n string) error { _, err := SelectRows(expects, []string{n}); return err }
	for _, n := range names {
		if err := flow(n); err != nil && expect(n) != nil {
			return nil, nil, fmt.Errorf("--fields: %w", err)
		}
	}
	of, oe := out, out
	of.Fields = known(flow)
	oe.Fields = known(expect)
	opt.Others = func(path string) bool { return expects.Row(path) != nil || expects.Group(path) }
	pf, err := New(Flows, of, opt)
	if err != nil {
		return nil, nil, err
	}
	opt.Others = func(path string) bool { return flows.Row(path) != nil || flows.Group(path) }
	pe, err := New(Expects, oe, opt)
	if err != nil {
		return nil, nil, err
	}
	return pf, pe, nil
}
