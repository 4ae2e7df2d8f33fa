package rotate

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func content(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, zipped) {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func pieces(t *testing.T, path string) []string {
	t.Helper()
	p, err := Pieces(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func numbered(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// All is there, in order, and nothing is cut in two, whatever the sizes of writes.
func TestSize(t *testing.T) {
	for _, anew := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "log")
		f, err := Open(Options{Path: path, Size: 100, Compress: anew, Anew: anew,
			Begin: func(b []byte) []byte { return append(b, "head\n"...) },
			End:   func(b []byte) []byte { return append(b, "end\n"...) }})
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < 400; i += 40 {
			if n, err := f.Write([]byte(numbered(i, i+40))); err != nil || n != len(numbered(i, i+40)) {
				t.Fatal(n, err)
			}
		}
		long := strings.Repeat("x", 300) + "\n"
		if _, err := f.Write([]byte(long)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("late\n")); !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
		all := ""
		names := append(pieces(t, path), path)
		for i, name := range names {
			c := content(t, name)
			body, ok := strings.CutPrefix(c, "head\n")
			body, ok2 := strings.CutSuffix(body, "end\n")
			if !ok || !ok2 || len(body) > 100 && body != long || !strings.HasSuffix(body, "\n") {
				t.Errorf("%s: %q", name, c)
			}
			if last := i == len(names)-1; strings.HasSuffix(name, zipped) != (anew && !last) {
				t.Errorf("piece %d is %s", i, name)
			}
			if st, err := os.Stat(name); err != nil || st.Mode() != Mode {
				t.Error(name, st.Mode(), err)
			}
			all += body
		}
		if all != numbered(0, 400)+long {
			t.Errorf("%q", all)
		}
	}
}

// Of the pieces so many are kept, and nothing of another name goes.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	others := []string{"log.1", "log.20260101T000000Z", "log.20260101T000000.000Z.gz.part", "log.99999999T000000.000Z",
		"log.20260101T000000.000Z.bz2", "blog.20260101T000000.000Z"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "log.1"), path+".20260101T000000.001Z"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".20260101T000000.002Z", []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(Options{Path: path, Size: 10, Keep: 3})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		if _, err := f.Write([]byte(numbered(i, i+1))); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, name := range append(pieces(t, path), path) {
		got += content(t, name)
	}
	if got != numbered(5, 9) {
		t.Errorf("%q", got)
	}
	for _, name := range others {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestEvery(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := Open(Options{Path: path, Every: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range 3 {
		if _, err := f.Write([]byte(numbered(i, i+1))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if n := len(pieces(t, path)); n != 2 {
		t.Errorf("%d pieces", n)
	}
}

// What was there is gone on with, or is overwritten, or set aside.
func TestWhatIsThere(t *testing.T) {
	for _, c := range []struct {
		o           Options
		want, aside string
	}{
		{Options{}, "torn\nnew\n", ""},
		{Options{Anew: true}, "new\n", ""},
		{Options{Anew: true, Size: 1000}, "new\n", "torn"},
		{Options{Begin: func(b []byte) []byte { return append(b, "head\n"...) }}, "torn\nnew\n", ""},
	} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte("torn"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.o.Path = path
		f, err := Open(c.o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("new\n")); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		aside := ""
		for _, name := range pieces(t, path) {
			aside += content(t, name)
		}
		if got := content(t, path); got != c.want || aside != c.aside {
			t.Errorf("%+v: %q, aside %q", c.o, got, aside)
		}
	}
}

// After somebody moved the file away Reopen makes another; one that cannot be gone on
// with becomes a piece where it was not moved.
func TestReopen(t *testing.T) {
	for _, anew := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "log")
		f, err := Open(Options{Path: path, Anew: anew})
		if err != nil {
			t.Fatal(err)
		}
		write := func(text string) {
			t.Helper()
			if _, err := f.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		reopen := func() {
			t.Helper()
			if err := f.Reopen(); err != nil {
				t.Fatal(err)
			}
		}
		write("1\n")
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		write("2\n")
		reopen()
		write("3\n")
		reopen()
		write("4\n")
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		want, aside := "3\n4\n", ""
		if anew {
			want, aside = "4\n", "3\n"
		}
		got := ""
		for _, name := range pieces(t, path) {
			got += content(t, name)
		}
		if content(t, path+".1") != "1\n2\n" || content(t, path) != want || got != aside {
			t.Errorf("%q, %q, %q", content(t, path+".1"), content(t, path), got)
		}
	}
}

// What a run that was killed has left uncompressed the next one compresses.
func TestCompressesWhatIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	left, both := path+".20260101T000000.000Z", path+".20260101T000001.000Z"
	for _, name := range []string{left, left + zipped + partial, both} {
		if err := os.WriteFile(name, []byte("text\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(both + zipped)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	_, _ = z.Write([]byte("text\n"))
	_ = z.Close()
	_ = f.Close()
	l, err := Open(Options{Path: path, Size: 100, Compress: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{left, both} {
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) || content(t, name+zipped) != "text\n" {
			t.Error(name, err)
		}
	}
}

func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.Symlink(filepath.Join(dir, "target"), link), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{link: "symbolic link", fifo: "not a regular file", dir: "directory"} {
		for _, anew := range []bool{false, true} {
			if f, err := Open(Options{Path: path, Anew: anew, Size: 100}); err == nil || !strings.Contains(err.Error(),
				want) {
				t.Errorf("%s: %v %v", path, f, err)
			}
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "target")); err == nil {
		t.Error("the link was followed")
	}
	if f, err := Open(Options{Path: "/dev/null", Anew: true}); err != nil {
		t.Error(f, err)
	}
	if f, err := Open(Options{Path: "/dev/null", Size: 10}); err == nil || !strings.Contains(err.Error(),
		"not a regular file") {
		t.Error(f, err)
	}
}
