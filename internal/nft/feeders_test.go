package nft

import (
	"encoding/binary"
	"testing"

	"nfctl/internal/nl"
	"nfctl/internal/nstest"
)

// Rules as Attach writes them, in both forms, are read back.
func TestFeeder(t *testing.T) {
	for _, compat := range []bool{false, true} {
		for _, bypass := range []bool{false, true} {
			r := rule(nil).meta(1).queue(compat, Queues{First: 3, Last: 5}, bypass, false)
			var got []Feeder
			for a := range nl.Attrs(r) {
				if f, ok := feeder(a.Data); ok {
					got = append(got, f)
				}
			}
			want := Feeder{First: 3, Last: 5, Bypass: bypass}
			if len(got) != 1 || got[0] != want {
				t.Errorf("compat %v: %+v, want %+v", compat, got, want)
			}
		}
	}
}

// A statement whose queue is worked out, and a target of the oldest form.
func TestFeederForms(t *testing.T) {
	computed := rule(nil).expr("queue", func(b []byte) []byte { return nl.AppendU32(b, sregQnum, 1) })
	oldest := rule(nil).expr("target", func(b []byte) []byte {
		b = nl.AppendString(b, 1, "NFQUEUE")
		b = nl.AppendU32(b, 2, 0)
		return nl.AppendAttr(b, 3, binary.NativeEndian.AppendUint16(nil, 9))
	})
	other := rule(nil).expr("target", func(b []byte) []byte { return nl.AppendString(b, 1, "MARK") })
	for _, c := range []struct {
		rule rule
		want Feeder
		ok   bool
	}{
		{computed, Feeder{Computed: true}, true},
		{oldest, Feeder{First: 9, Last: 9}, true},
		{other, Feeder{}, false},
	} {
		a, _, _ := nl.NextAttr(c.rule)
		if f, ok := feeder(a.Data); ok != c.ok || ok && f != c.want {
			t.Errorf("%+v %v, want %+v %v", f, ok, c.want, c.ok)
		}
	}
}

func TestFeedersOfTheKernel(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	spec, err := Parse("output tcp > :22,80 bypass")
	if err != nil {
		t.Fatal(err)
	}
	table, err := Attach([]Spec{spec}, Queues{First: 2, Last: 3}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	list, err := Feeders()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2*len(table.Families) {
		t.Errorf("%+v, want a rule for each port", list)
	}
	for _, f := range list {
		if f.First != 2 || f.Last != 3 || !f.Bypass || f.Table != table.Name || f.Chain == "" {
			t.Errorf("%+v", f)
		}
	}
	if n, err := BaseChains(); err != nil || n != len(table.Families) {
		t.Errorf("%d base chains, %v", n, err)
	}
}
