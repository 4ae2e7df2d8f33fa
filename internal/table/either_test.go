package table

import (
	"testing"

	"nfctl/internal/ct"
	"nfctl/internal/filter"
)

// TestEitherFields: a field that flows and expectations share means the same of
// both.
func TestEitherFields(t *testing.T) {
	reg := eitherFields()
	for _, x := range ct.ExpectFields.Rows() {
		f := ct.FlowFields.Row(x.Path)
		if f != nil && f.Path == x.Path && (f.Kind != x.Kind || (f.Num == nil) != (x.Num == nil)) {
			t.Errorf("%s: of flows %v, of expectations %v", x.Path, f.Kind, x.Kind)
		}
	}
	p, err := filter.Compile(reg, `helper == "ftp" and timeout > 5`)
	if err != nil {
		t.Fatal(err)
	}
	flow := &ct.Flow{Helper: []byte("ftp"), Timeout: 6, Present: ct.HasHelper | ct.HasTimeout}
	expect := &ct.Expect{Helper: []byte("ftp"), Timeout: 6, Present: ct.ExpectHasHelper | ct.ExpectHasTimeout}
	if !p.Match(&either{flow: flow}) || !p.Match(&either{expect: expect}) ||
		p.Match(&either{expect: &ct.Expect{}}) || p.Match(&either{flow: &ct.Flow{}}) {
		t.Error("does not match what it should")
	}
	e := &either{}
	if n := testing.AllocsPerRun(100, func() {
		e.flow, e.expect = flow, nil
		p.Match(e)
		e.flow, e.expect = nil, expect
		p.Match(e)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
