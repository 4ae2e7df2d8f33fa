package spool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nfctl/fleet/internal/wire"
)

func open(t *testing.T, dir string, epoch uint64, memory int, disk int64) *Queue {
	t.Helper()
	q, err := Open(Options{Host: "h", Netns: "n", Boot: "b", Epoch: epoch, Memory: memory, Dir: dir, Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// fill pushes lines that say their number until n or there is no room.
func fill(q *Queue, n int) (pushed int) {
	for i := range n {
		k := wire.Kind(i / 700 % 2)
		if !q.Push(k, fmt.Appendf(nil, "%d %s\n", i+1, strings.Repeat("x", 300)), 1) {
			return i
		}
	}
	return n
}

// drain takes everything and checks numbers and kinds; it returns the numbers.
func drain(t *testing.T, q *Queue) (first, last uint64) {
	t.Helper()
	for {
		b := q.take()
		if b == nil {
			return first, last
		}
		if again, err := q.Take(context.Background()); err != nil || again != b {
			t.Fatal("another batch before Done")
		}
		h, lines, err := wire.Parse(b.Data)
		if err != nil {
			t.Fatal(err)
		}
		if first == 0 {
			first = h.First
		} else if h.First != last+1 {
			t.Fatalf("line %d follows %d", h.First, last)
		}
		n := h.First
		for l := range wire.Lines(lines) {
			var number uint64
			if _, err := fmt.Sscan(string(l), &number); err != nil || number != n {
				t.Fatalf("line %d says %q", n, l[:10])
			}
			if k := wire.Kind((n - 1) / 700 % 2); k != b.Kind {
				t.Fatalf("line %d is of kind %d", n, b.Kind)
			}
			n++
		}
		if len(b.Data) > wire.MaxBytes || h.Count > wire.MaxLines {
			t.Fatalf("%d bytes, %d lines", len(b.Data), h.Count)
		}
		last = n - 1
		q.Done()
	}
}

func TestMemory(t *testing.T) {
	q := open(t, "", 1, 1<<20, 0)
	n := fill(q, 100000)
	if n < 1<<20/310-1000 || n > 1<<20/310+1000 {
		t.Errorf("%d lines fit in 1 MiB", n)
	}
	if q.Room() {
		t.Error("it is full and has room")
	}
	if lines, memory, _ := q.Lines(); lines != uint64(n) || memory < 1<<20 {
		t.Errorf("%d lines, %d bytes", lines, memory)
	}
	if first, last := drain(t, q); first != 1 || last != uint64(n) {
		t.Errorf("%d to %d of %d", first, last, n)
	}
	if lines, memory, _ := q.Lines(); lines != 0 || memory != 0 || !q.Room() {
		t.Errorf("empty, with %d lines, %d bytes", lines, memory)
	}
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1, 1<<20, 32<<20)
	n := fill(q, 50000) // some two segments
	if n != 50000 {
		t.Fatalf("%d fit", n)
	}
	files, _ := filepath.Glob(dir + "/*.spool")
	if len(files) < 2 {
		t.Errorf("files %q", files)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st.Mode(), err)
		}
	}
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another") {
		t.Errorf("opened twice: %v", err)
	}
	if first, last := drain(t, q); first != 1 || last != 50000 {
		t.Errorf("%d to %d", first, last)
	}
	if files, _ := filepath.Glob(dir + "/*.spool"); len(files) != 0 {
		t.Errorf("left: %q", files)
	}
}

// What one run leaves, in memory and on disk, the next one sends first; however far
// the first came.
func TestNextRun(t *testing.T) {
	for _, taken := range []int{0, 1, 3, 7, 40} {
		dir := t.TempDir()
		q := open(t, dir, 1, 1<<20, 32<<20)
		fill(q, 20000)
		for range taken {
			q.take()
			q.Done()
		}
		b := q.take()
		from := b.Head.First
		if lost, err := q.Close(); lost != 0 || err != nil {
			t.Fatalf("lost %d, %v", lost, err)
		}
		q = open(t, dir, 2, 1<<20, 32<<20)
		if b := q.take(); b.Head.First > from || b.Head.Epoch != 1 {
			t.Errorf("after %d: begins at %d of %d, epoch %d", taken, b.Head.First, from, b.Head.Epoch)
		}
		if _, last := drain(t, q); last != 20000 {
			t.Errorf("after %d: ends at %d", taken, last)
		}
		if lines, _, disk := q.Lines(); lines != 0 || disk != 0 {
			t.Errorf("%d lines, %d bytes are left", lines, disk)
		}
		if _, err := q.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A folder in any state is read without a panic; what is not whole is told of.
func TestDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	told := 0
	for range 60 {
		dir := t.TempDir()
		q := open(t, dir, 1, 0, 32<<20)
		fill(q, 4000)
		if _, err := q.Close(); err != nil {
			t.Fatal(err)
		}
		files, _ := filepath.Glob(dir + "/*.spool")
		path := files[r.IntN(len(files))]
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if r.IntN(2) == 0 {
			b = b[:r.IntN(len(b))]
		} else {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		q = open(t, dir, 2, 0, 32<<20)
		last := uint64(0)
		for b := q.take(); b != nil; b = q.take() {
			if b.Head.First <= last {
				t.Fatalf("line %d behind %d", b.Head.First, last)
			}
			last = b.Head.Next() - 1
			q.Done()
		}
		if q.Failed() != nil {
			told++
		}
		if _, err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if told < 50 { // a file cut between two records is whole
		t.Errorf("%d of 60 told", told)
	}
}

func BenchmarkQueue(b *testing.B) {
	q, err := Open(Options{Host: "h", Netns: "n", Memory: 8 << 20})
	if err != nil {
		b.Fatal(err)
	}
	lines := []byte(strings.Repeat(strings.Repeat("x", 599)+"\n", 100))
	b.SetBytes(int64(len(lines)))
	b.ReportAllocs()
	for b.Loop() {
		if !q.Push(wire.Events, lines, 100) {
			b.Fatal("full")
		}
		for q.held > 1<<20 {
			q.take()
			q.Done()
		}
	}
}
