package main

import (
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
	"nfctl/internal/rotate"
)

// pieces returns the contents of a rotated file's pieces, oldest first, the file last.
func pieces(t *testing.T, path string) (list []string) {
	t.Helper()
	names, err := rotate.Pieces(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, path) {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var r io.Reader = f
		if strings.HasSuffix(name, ".gz") {
			if r, err = gzip.NewReader(f); err != nil {
				t.Fatal(err)
			}
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(name, err)
		}
		list = append(list, string(b))
	}
	return list
}

// makeFlows makes flows of UDP, from one port on.
func makeFlows(t *testing.T, ns *nstest.NS, from, n int) {
	t.Helper()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "-A -s 10.1.%d.%d -d 10.2.0.1 -p udp --sport %d --dport 53 --timeout 600\n", i>>8, i&255,
			from+i%1000)
	}
	file := filepath.Join(t.TempDir(), "flows")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	ns.Run(nstest.Build(t), "ct", "load", file)
}

// All events are in the pieces, once each, and no line is cut.
func TestOutputFileRotates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ format, head, tail string }{{"json", "", ""}, {"text", "", ""}, {"csv", "event,", ""},
		{"xml", "<?xml", "</conntrack>\n"}} {
		ns := nstest.New(t)
		file := filepath.Join(t.TempDir(), "log")
		args := []string{"ct", "watch", "-o", c.format, "--output-file", file, "--rotate", "128KiB", "--count", "6000"}
		if c.format == "json" {
			args = append(args, "--compress")
		}
		p := startWatch(t, ns, args...)
		makeFlows(t, ns, 1000, 6000)
		if status := p.Wait(); status != 0 || p.Stdout() != "" {
			t.Errorf("%s: status %d: %s%s", c.format, status, p.Stdout(), p.Stderr())
		}
		seen := map[string]int{}
		all := pieces(t, file)
		for i, piece := range all {
			if len(piece) > 128<<10+len(c.head)*20 || !strings.HasPrefix(piece, c.head) || !strings.HasSuffix(piece,
				c.tail) {
				t.Errorf("%s: piece %d has %d bytes, begins %q", c.format, i, len(piece), piece[:min(len(piece), 40)])
			}
			switch c.format {
			case "xml":
				if err := xml.Unmarshal([]byte(piece), new(struct{})); err != nil {
					t.Error(err)
				}
			case "json":
				for line := range strings.Lines(piece) {
					if !json.Valid([]byte(line)) {
						t.Fatalf("%q", line)
					}
				}
			}
			for line := range strings.Lines(piece) {
				if strings.Contains(line, "10.1.") {
					seen[line]++
				}
			}
		}
		if len(all) < 3 || c.format != "xml" && len(seen) != 6000 {
			t.Errorf("%s: %d pieces, %d events", c.format, len(all), len(seen))
		}
	}
}

// logrotate's way: the file is moved away, and SIGHUP makes another.
func TestOutputFileReopens(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"watch", "ct watch", "expect watch", "queue"} {
		ns := nstest.New(t)
		dir := t.TempDir()
		file := filepath.Join(dir, "log")
		args := append(strings.Fields(what), "-o", "json", "--output-file", file)
		var p *nstest.Proc
		touch := func(n int) { makeFlows(t, ns, 1000*n, 1) }
		switch what {
		case "queue":
			args = append(args, "--attach", "output udp > :7000")
			touch = func(n int) {
				c, err := ns.Dial("udp", "127.0.0.1:7000", nstest.Patience)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = c.Write([]byte("x"))
			}
		case "expect watch":
			touch = func(n int) {
				makeFlows(t, ns, 1000*n, 0)
			}
		}
		p = startWatch(t, ns, args...)
		if what == "expect watch" { // nothing comes; the file is there all the same
			if st, err := os.Stat(file); err != nil || st.Mode() != rotate.Mode {
				t.Error(st, err)
			}
			endQueue(t, p)
			continue
		}
		has := func(name string) {
			t.Helper()
			nstest.Until(t, what+": a line in "+name, func() bool {
				b, _ := os.ReadFile(filepath.Join(dir, name))
				return strings.Count(string(b), "\n") == 1
			})
		}
		touch(1)
		has("log")
		if err := os.Rename(file, file+".1"); err != nil {
			t.Fatal(err)
		}
		p.Signal(unix.SIGHUP)
		nstest.WaitFile(t, file)
		touch(2)
		has("log")
		has("log.1")
		if words := endQueue(t, p); strings.Contains(words, "SIGHUP") {
			t.Error(words)
		}
	}
}

// A capture that is rotated is a capture in each piece.
func TestWriteRotates(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	file := filepath.Join(t.TempDir(), "out.pcapng")
	p := startQueue(t, ns, "-q", "--attach", "output udp > :7000", "-w", file, "--rotate", "128KiB", "--keep", "2")
	c, err := ns.Dial("udp", "127.0.0.1:7000", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nstest.Until(t, "two pieces", func() bool {
		for range 100 {
			_, _ = c.Write(make([]byte, 900))
		}
		names, _ := rotate.Pieces(file)
		return len(names) >= 2
	})
	newest := func() string {
		names, _ := rotate.Pieces(file)
		return names[len(names)-1]
	}
	before := newest()
	p.Signal(unix.SIGHUP) // begins another
	nstest.Until(t, "another piece", func() bool { return newest() != before })
	for range 300 {
		_, _ = c.Write(make([]byte, 900))
	}
	words := endQueue(t, p)
	names, err := rotate.Pieces(file)
	if err != nil || len(names) != 2 {
		t.Errorf("%q %v", names, err)
	}
	for _, name := range append(names, file) {
		if n := len(captureOf(t, name, false)); n == 0 {
			t.Errorf("%s: %d packets: %s", name, n, words)
		}
	}
}

func TestOutputFileFullDisk(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	dir := t.TempDir()
	ready, file := filepath.Join(dir, "ready"), filepath.Join(dir, "copy")
	p := ns.Start("unshare", "-m", "sh", "-c", `
		mkdir "$3" && mount -t tmpfs -o size=64k tmpfs "$3" || exit 99
		"$0" ct watch -o json --output-file "$3/f" --ready-file "$1"
		status=$?
		cp "$3/f" "$2"
		exit $status`, nstest.Build(t), ready, file, filepath.Join(dir, "disk"))
	nstest.WaitFile(t, ready)
	makeFlows(t, ns, 1000, 3000)
	if p.Wait() != exitFailed || !strings.Contains(p.Stderr(), "f: write: no space left on device: the file ends "+
		"with a whole record, after ") ||
		strings.Contains(p.Stderr(), "standard output") {
		t.Errorf("status %d: %s", p.Wait(), p.Stderr())
	}
	b, err := os.ReadFile(file)
	if err != nil || !strings.Contains(p.Stderr(), "after "+strconv.Itoa(len(b))+" bytes") || len(b) < 10000 {
		t.Errorf("%d bytes: %v", len(b), err)
	}
	for line := range strings.Lines(string(b)) {
		if !json.Valid([]byte(line)) {
			t.Fatalf("%q", line)
		}
	}
}

func TestOutputFileUsage(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	file := filepath.Join(t.TempDir(), "log")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"ct", "watch", "--rotate", "1MiB"}, "it wants --output-file"},
		{[]string{"queue", "--rotate", "1MiB", "-w", "-"}, "it wants --output-file"},
		{[]string{"watch", "--output-file", file, "--keep", "3"}, "it wants --rotate"},
		{[]string{"expect", "watch", "--output-file", file, "--compress"}, "it wants --rotate"},
		{[]string{"ct", "watch", "--output-file", file, "--rotate", "1KiB"}, "a size from 128KiB on"},
		{[]string{"ct", "watch", "--output-file", file, "--rotate", "1h,2h"}, "a size from"},
		{[]string{"ct", "watch", "--output-file", file, "--rotate", "1MiB,2MiB"}, "a size from"},
		{[]string{"ct", "watch", "--output-file", file, "--rotate", "1MiB", "--keep", "0"}, "number of files"},
	} {
		if _, words, status := ns.Exec(nstest.Build(t), c.args...); status != exitUsage || !strings.Contains(words,
			c.says) {
			t.Errorf("%q: status %d: %s", c.args, status, words)
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file was made")
	}
}
