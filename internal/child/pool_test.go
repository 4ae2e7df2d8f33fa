package child

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Every input reaches a program of its own, and no more run at a time than may.
func TestPool(t *testing.T) {
	l := start(t)
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o777) // programs are other users
	}
	var mu sync.Mutex
	var said []string
	p, err := l.Pool(PoolOptions{Args: []string{"sh", "-c", "cd " + dir + `; mkdir "$$"; ls | grep -c '^[0-9]' >>most
		read x || echo empty >>all; echo "$x" >>all; echo "said $x" >&2; sleep 0.05; rmdir "$$"; [ "$x" != 7 ]`},
		Parallel: 3, Timeout: 20 * time.Second, Room: 100, Stderr: func(s string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, s)
		}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		p.Add(fmt.Appendf(nil, "%d\n", i))
	}
	p.Close(false)
	if s := p.Stats(); s != (PoolStats{Ran: 20, Failed: 1}) {
		t.Errorf("%+v", s)
	}
	all, _ := os.ReadFile(filepath.Join(dir, "all"))
	got := strings.Fields(string(all))
	if len(got) != 20 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 20 {
		t.Errorf("inputs %q", got)
	}
	most, _ := os.ReadFile(filepath.Join(dir, "most"))
	if got := slices.Max(strings.Fields(string(most))); got > "3" {
		t.Errorf("%s at a time", got)
	}
	if len(said) != 20 || !slices.Contains(said, "said 7") {
		t.Errorf("standard error: %q", said)
	}
}

// What takes too long is ended; who adds is never held up, and what finds no room counted.
func TestPoolLate(t *testing.T) {
	l := start(t)
	var failed []error
	p, err := l.Pool(PoolOptions{Args: []string{"sleep", "1000"}, Parallel: 1, Timeout: 300 * time.Millisecond, Room: 2,
		Failed: func(err error) { failed = append(failed, err) }})
	if err != nil {
		t.Fatal(err)
	}
	big := []byte(strings.Repeat("x", 1<<20)) // more than a pipe holds: nobody reads it
	begun := time.Now()
	for range 100 {
		p.Add(big)
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("adding took %v", d)
	}
	p.Close(false)
	s := p.Stats()
	if s.Ran < 2 || s.Late != s.Ran || s.Failed != s.Ran || s.Ran+s.Left != 100 || len(failed) != int(s.Ran) {
		t.Errorf("%+v, %v", s, failed)
	}
	// With a hurry, what waits is not run.
	if p, err = l.Pool(PoolOptions{Args: []string{"sleep", "0.2"}, Parallel: 1, Timeout: 20 * time.Second,
		Room: 100}); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		p.Add(nil)
	}
	p.Close(true)
	if s := p.Stats(); s.Ran > 2 || s.Ran+s.Left != 100 {
		t.Errorf("%+v", s)
	}
}
