package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/fleet/internal/fleettest"
	"nfctl/internal/nstest"
)

func TestMain(m *testing.M) { os.Exit(fleettest.Main(m)) }

// flows writes save lines of n flows and returns the file.
func flows(t *testing.T, first, n int) string {
	t.Helper()
	var b []byte
	for i := first; i < first+n; i++ {
		b = fmt.Appendf(b, "-A -s 10.%d.%d.%d -d 192.0.2.1 -p udp --sport 1000 --dport 53 -t 600\n", 1+i>>16, i>>8&255, i&255)
	}
	path := filepath.Join(t.TempDir(), "flows")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// events returns what a stream of JSON lines tells of flows: event and source, in
// order; listed flows and records apart.
func events(t *testing.T, out string) (events, listed, records []string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var r struct {
			Kind, Event, Where string
			Count              *uint64
			Orig               struct{ Src string }
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch {
		case r.Kind == "flow" && !strings.HasPrefix(r.Orig.Src, "10.9."): // the programs' own connections
			if r.Event == "existing" {
				listed = append(listed, r.Orig.Src)
			} else {
				events = append(events, r.Event+" "+r.Orig.Src)
			}
		case r.Kind == "lost":
			n := "?"
			if r.Count != nil {
				n = fmt.Sprint(*r.Count)
			}
			records = append(records, "lost "+r.Where+" "+n)
		case r.Kind != "flow":
			records = append(records, r.Kind)
		}
	}
	return events, listed, records
}

// same compares two lists and says where they differ first.
func same(t *testing.T, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Errorf("%d got, %d wanted; from %d on: got %q, want %q", len(got), len(want), i, cut(got, i), cut(want, i))
			return
		}
	}
}

func cut(s []string, i int) []string { return s[min(i, len(s)):min(i+3, len(s))] }

// eventsOn makes flows of a namespace send events.
func eventsOn(m *fleettest.Machine) {
	m.Do(func() {
		_ = os.WriteFile("/proc/thread-self/root/proc/sys/net/netfilter/nf_conntrack_events", []byte("1"), 0)
	})
}

func TestPublishFollow(t *testing.T) {
	for _, release := range []string{"", "debian"} {
		t.Run("server "+release, func(t *testing.T) {
			t.Parallel()
			n := fleettest.NewNet(t)
			s := n.Machine().Start(t, release)
			host, reader := n.Machine(), n.Machine()
			eventsOn(host)
			bin, nfctl, dir := fleettest.Fleet(t), nstest.Build(t), t.TempDir()
			pub := host.NS.Start(bin, "publish", "--to", s.URL, "--host", "r1", "--ready-file", dir+"/pub")
			nstest.WaitFile(t, dir+"/pub")
			nstest.Until(t, "the stream is there", func() bool {
				_, _, code := reader.Exec(bin, "status", "--from", s.URL, "--wait", "1ms")
				return code == 0
			})
			fol := reader.NS.Start(bin, "follow", "--from", s.URL, "--of", "r1", "--ready-file", dir+"/fol", "--seq", "1")
			nstest.WaitFile(t, dir+"/fol")
			watch := host.NS.Start(nfctl, "ct", "watch", "-o", "json", "--ready-file", dir+"/watch")
			nstest.WaitFile(t, dir+"/watch")
			host.Run(nfctl, "ct", "load", flows(t, 0, 3000))
			host.Run(nfctl, "ct", "delete", "--all", "udp > :53")
			nstest.Until(t, "everything arrives", func() bool {
				got, _, _ := events(t, fol.Stdout())
				return len(got) >= 6000
			})
			watch.Signal(unix.SIGTERM)
			_ = watch.Wait()
			pub.Signal(unix.SIGTERM)
			if code := pub.Wait(); code != 0 {
				t.Errorf("publish ended with %d: %s", code, pub.Stderr())
			}
			want, _, _ := events(t, watch.Stdout())
			got, _, records := events(t, fol.Stdout())
			same(t, got, want)
			if !slices.Equal(records, []string{"resync", "resynced"}) {
				t.Errorf("records %q", records)
			}
		})
	}
}

var _ = time.Second
