package nfctl_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOneRow adds a row to a table of attributes, and nothing else, and looks for
// the attribute wherever one can be met: one row is all that it takes.
func TestOneRow(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program anew")
	}
	for _, tt := range []struct {
		file, before, row string
		tests             []string // package, tests
		follow            func(t *testing.T, nfctl string)
	}{
		{
			"internal/ct/flowattrs.go", "\treturn spareRows(t)\n", `	t = append(t, Attr[Flow]{Name: "made-up", Number: -1, Path: "made_up", Kind: field.Uint, Bits: 32, Netlink: "CTA_MADE_UP",
		At: wire{60}, Since: "9.9", Readable: inAll, Create: yes, Update: yes, Doc: "a number that no kernel sends"})
`,
			[]string{"./internal/ct",
				"^(TestRoundTrip|TestDecodeAllocs|TestFieldRows|TestSetAndGet|FuzzDecode|TestAttributeFacts)$"},
			followFlow,
		},
		{
			"internal/queue/fields.go", "		{attr: attrCtInfo,", `		{attr: 40, row: row{Path: "made_up", Kind: field.Uint, Max: 1<<32 - 1, Doc: "a number that no kernel sends"}},
`,
			[]string{"./internal/queue", "^(TestMessageWords|TestAllocs|FuzzDecode)$"},
			followPacket,
		},
	} {
		t.Run(filepath.Base(tt.file), func(t *testing.T) {
			t.Parallel()
			overlay := overlayOf(t, tt.file, tt.before, tt.row+tt.before)
			run(t, "go", "test", "-count=1", "-overlay", overlay, "-run", tt.tests[1], tt.tests[0])
			nfctl := filepath.Join(t.TempDir(), "nfctl")
			run(t, "go", "build", "-buildvcs=false", "-overlay", overlay, "-o", nfctl, "./cmd/nfctl")
			tt.follow(t, nfctl)
		})
	}
}

// followFlow looks for made_up in what people type and read.
func followFlow(t *testing.T, nfctl string) {
	build := []string{nfctl, "attr", "build", "l4proto=tcp", "ipv4-src=10.0.0.1", "ipv4-dst=10.0.0.2", "port-src=1",
		"port-dst=2",
		"tcp-state=ESTABLISHED", "timeout=60", "made-up=7", "--opt", "setup-reply", "-o"}
	object := run(t, append(build, "json")...)
	if !strings.Contains(object, `"made_up":7`) {
		t.Errorf("JSON: %s", object)
	}
	line := run(t, append(build, "save")...)
	if !strings.Contains(line, " --set made-up=7") {
		t.Errorf("save: %s", line)
	}
	for _, text := range []string{object, line} {
		file := filepath.Join(t.TempDir(), "flows")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, nfctl, "ct", "load", "--dry-run", file)
		// What the loader read is seen where it differs: a value that does not fit.
		bad := strings.NewReplacer("made-up=7", "made-up=4294967296", `"made_up":7`,
			`"made_up":4294967296`).Replace(text)
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(nfctl, "ct", "load", "--dry-run", file).CombinedOutput(); err == nil {
			t.Errorf("loaded: %s%s", bad, out)
		}
	}
	if got := run(t, append(build, "tsv", "--fields", "made_up")...); !strings.Contains(got, "7") {
		t.Errorf("--fields: %s", got)
	}
	for _, args := range [][]string{{"attr", "list"}, {"attr", "show", "made-up"}, {"help", "fields"}} {
		if got := run(t, append([]string{nfctl}, args...)...); !strings.Contains(got, "made") ||
			!strings.Contains(got, "a number that no kernel sends") {
			t.Errorf("%v: %s", args, got)
		}
	}
	// An expression that knows the field fails for what it says of it.
	out, err := exec.Command(nfctl, "ct", "list", "--filter", `made_up == "x"`).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "made_up") || strings.Contains(string(out), "unknown") {
		t.Errorf("expression: %v: %s", err, out)
	}
	if got := run(t, nfctl, "__complete", "ct", "list", "--fields", "made"); !strings.Contains(got, "made_up") {
		t.Errorf("completion: %s", got)
	}
}

// followPacket looks for made_up in rules and in what is printed of packets.
func followPacket(t *testing.T, nfctl string) {
	if got := run(t, nfctl, "help", "fields"); !strings.Contains(got, "a number that no kernel sends") {
		t.Errorf("help: %s", got)
	}
	if got := run(t, nfctl, "__complete", "queue", "--fields", "made"); !strings.Contains(got, "made_up") {
		t.Errorf("completion: %s", got)
	}
}

// overlayOf writes what go's -overlay wants to see a file of the repository
// changed, and returns its name.
func overlayOf(t *testing.T, file, old, new string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), old) != 1 {
		t.Fatalf("%s does not have %q once", file, old)
	}
	dir := t.TempDir()
	changed := filepath.Join(dir, filepath.Base(file))
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), old, new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, config, 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
