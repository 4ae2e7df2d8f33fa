package format

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nfctl/internal/ct"
)

// What is saved loads again, whatever labels are called.
func TestSaveLabelNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(file, []byte("1 a\tb\n2 a\vb\n3 plain\n4 two words\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ct.LoadLabels(file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // for other tests: names that none of them uses
		if err := os.WriteFile(file, []byte("127 last\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := ct.LoadLabels(file); err != nil {
			t.Fatal(err)
		}
	})
	f := &ct.Flow{Present: ct.HasLabels | ct.HasTimeout, Timeout: 60}
	f.Orig.Family, f.Orig.Proto, f.Orig.Present = ct.IPv4, ct.UDP, ct.TupleFamily|ct.TupleProto
	f.Labels[0] = 1<<1 | 1<<2 | 1<<3 | 1<<4
	line := string(AppendSave(nil, f))
	for _, r := range strings.TrimSuffix(line, "\n") {
		if r < ' ' {
			t.Errorf("a control character: %q", line)
		}
	}
	if !strings.Contains(line, "1,2,plain,two words") {
		t.Errorf("%q", line)
	}
}
