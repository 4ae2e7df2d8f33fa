package lua

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// run runs code and returns what it printed and how it ended.
func run(t *testing.T, code string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := Run(Options{Code: code, Args: args, Out: &out, Err: &out})
	return out.String(), err
}

// expect runs code and compares what it printed with want, line by line.
func expect(t *testing.T, code, want string) {
	t.Helper()
	got, err := run(t, code)
	if err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	if got, want = strings.TrimSpace(got), strings.TrimSpace(want); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// liveHeap returns the bytes of the heap that are in use after a collection.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
