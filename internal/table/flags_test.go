package table

import (
	"slices"
	"strings"
	"testing"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/format"
)

// TestFlags: each row of a flag names fields and an attribute that there are, and no
// two rows that choose, or that describe, share a name.
func TestFlags(t *testing.T) {
	checkFlags(t, ct.FlowFlags, ct.FlowFields, flowMakers)
	checkFlags(t, ct.ExpectFlags, ct.ExpectFields, expectMakers)
	for _, f := range ct.FlowFlags {
		if f.Describe.Kind == "" || f.Name == "set" {
			continue
		}
		if ct.Find(ct.FlowAttrs(), f.Sets) == nil && f.Sets != "state" {
			t.Errorf("--%s sets %q, which is no attribute", f.Name, f.Sets)
		}
		// A line of -o save has all its names: without its value it is a known flag.
		names, letter := f.Names(true)
		for _, n := range append(names, letter) {
			flag := "--" + n
			if len(n) == 1 {
				flag = "-" + n
			}
			if n == "" {
				continue
			}
			if err := format.ParseSave([]string{"-A", flag}, &ct.Flow{}); err == nil ||
				strings.Contains(err.Error(), "conntrack -A") {
				t.Errorf("%s in a line: %v", flag, err)
			}
		}
	}
}

func checkFlags[T any](t *testing.T, flags []ct.Flag, reg *field.Registry[T], makers map[string]Maker[T]) {
	t.Helper()
	seen := map[bool][]string{}
	made := 0
	for i := range flags {
		f := &flags[i]
		for _, p := range f.Paths {
			if reg.Row(p) == nil {
				t.Errorf("--%s: no field %s", f.Name, p)
			}
		}
		if makers[f.Name] != nil {
			made++
		}
		if f.Choose.Kind != "" && (len(f.Paths) > 0) == (makers[f.Name] != nil) {
			t.Errorf("--%s is read by its fields, or by code of its own", f.Name)
		}
		for describe, use := range map[bool]ct.FlagHelp{false: f.Choose, true: f.Describe} {
			if use.Kind == "" {
				continue
			}
			names, letter := f.Names(describe)
			for _, n := range names {
				if ct.FindFlag(flags, n, describe) != f {
					t.Errorf("--%s is not found", n)
				}
			}
			if letter != "" {
				names = append(names, letter)
			}
			for _, n := range names {
				if slices.Contains(seen[describe], n) {
					t.Errorf("%s twice", n)
				}
			}
			seen[describe] = append(seen[describe], names...)
		}
	}
	if made != len(makers) {
		t.Errorf("%d of %d makers have a flag", made, len(makers))
	}
}
