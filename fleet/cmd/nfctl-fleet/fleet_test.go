package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
		b = fmt.Appendf(b, "-A -s 10.%d.%d.%d -d 192.0.2.1 -p udp --sport 1000 --dport 53 -t 600\n",
			1+i>>16, i>>8&255, i&255)
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
			t.Errorf("%d got, %d wanted; from %d on: got %q, want %q", len(got), len(want), i, cut(got, i),
				cut(want, i))
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

// A bed is a server, a host that publishes with a watch beside, and a reader.
type bed struct {
	t            *testing.T
	server       *fleettest.Server
	host, reader *fleettest.Machine
	bin, nfctl   string
	dir          string
	pubArgs      []string
	name         string // of the host
	user         []string
	pub          *nstest.Proc
	watch        *writer
	many         int
}

// A writer is a program whose output goes to a file: it is too much for a test's log.
type writer struct {
	*nstest.Proc
	t    *testing.T
	path string
}

func write(t *testing.T, m *fleettest.Machine, args ...string) *writer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out")
	return &writer{m.NS.Start("sh", append([]string{"-c", `exec "$@" >"$0"`, path}, args...)...), t, path}
}

// Stdout returns what the program has written so far.
func (w *writer) Stdout() string {
	w.t.Helper()
	b, err := os.ReadFile(w.path)
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	return string(b)
}

// newBed makes a bed whose publisher and watch run, and whose stream is there.
func newBed(t *testing.T, release string, pubArgs ...string) *bed {
	n := fleettest.NewNet(t)
	return newBedAt(t, n, n.Machine().Start(t, release), pubArgs...)
}

func newBedAt(t *testing.T, n *fleettest.Net, s *fleettest.Server, pubArgs ...string) *bed {
	b := &bed{t: t, server: s, host: n.Machine(), reader: n.Machine(), bin: fleettest.Fleet(t), nfctl: nstest.Build(t),
		dir: t.TempDir(), pubArgs: pubArgs, name: "r1"}
	if i := slices.Index(pubArgs, "--host"); i >= 0 {
		b.name = pubArgs[i+1]
	}
	if i := slices.Index(pubArgs, "--user-file"); i >= 0 {
		b.user = pubArgs[i : i+2]
	}
	eventsOn(b.host)
	b.watch = write(t, b.host, b.nfctl, "ct", "watch", "-o", "json", "--ready-file", b.dir+"/watch")
	nstest.WaitFile(t, b.dir+"/watch")
	b.publish()
	nstest.Until(t, "the stream is there", func() bool {
		out, _, code := b.reader.Exec(b.bin, append([]string{"status", "--from", s.URL, "--wait", "1ms", "-o", "json"},
			b.user...)...)
		return code == 0 && strings.Contains(out, `"host":"`+b.name+`"`)
	})
	return b
}

// publish starts the publisher.
func (b *bed) publish() {
	b.t.Helper()
	b.many++
	ready := fmt.Sprintf("%s/pub%d", b.dir, b.many)
	b.pub = b.host.NS.Start(b.bin,
		append([]string{"publish", "--to", b.server.URL, "--host", b.name, "--ready-file", ready},
			b.pubArgs...)...)
	nstest.WaitFile(b.t, ready)
}

// follow starts a follower from the stream's first message on.
func (b *bed) follow(args ...string) *writer {
	b.t.Helper()
	b.many++
	ready := fmt.Sprintf("%s/fol%d", b.dir, b.many)
	p := write(b.t, b.reader,
		append([]string{b.bin, "follow", "--from", b.server.URL, "--of", b.name, "--ready-file", ready},
			args...)...)
	nstest.WaitFile(b.t, ready)
	return p
}

// waves makes and deletes flows: each wave has n new and n destroy events. between is
// called in the middle of each.
func (b *bed) waves(waves, n int, between func(int)) {
	b.t.Helper()
	for w := range waves {
		file := flows(b.t, w*n, n)
		load := b.host.NS.Start(b.nfctl, "ct", "load", file)
		if between != nil {
			between(w)
		}
		if code := load.Wait(); code != 0 {
			b.t.Fatalf("load: %d: %s", code, load.Stderr())
		}
		b.host.Run(b.nfctl, "ct", "delete", "--all", "udp > :53")
	}
}

// arrives waits until a follower has n events, and ends it.
func (b *bed) arrives(fol *writer, n int) string {
	b.t.Helper()
	began := time.Now()
	for deadline := began.Add(time.Minute); strings.Count(fol.Stdout(),
		`"kind":"flow"`) < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) || fol.Ended() {
			b.t.Fatalf("%d of %d events have come", strings.Count(fol.Stdout(), `"kind":"flow"`), n)
		}
	}
	return fol.Stdout()
}

// want are the events that happened, in order.
func (b *bed) want() []string {
	b.t.Helper()
	b.watch.Signal(unix.SIGTERM)
	_ = b.watch.Wait()
	if strings.Contains(b.watch.Stdout(), `"kind":"lost"`) {
		b.t.Fatal("the watch beside lost events")
	}
	want, _, _ := events(b.t, b.watch.Stdout())
	return want
}

// ends ends the publisher, which must have lost nothing.
func (b *bed) ends() {
	b.t.Helper()
	b.pub.Signal(unix.SIGTERM)
	if code := b.pub.Wait(); code != 0 {
		b.t.Errorf("publish ended with %d: %s", code, b.pub.Stderr())
	}
}

func TestPublishFollow(t *testing.T) {
	for _, release := range []string{"", "debian"} {
		t.Run("server "+release, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, release)
			fol := b.follow("--seq", "1")
			b.waves(1, 3000, nil)
			b.arrives(fol, 6000)
			b.ends()
			got, _, records := events(t, fol.Stdout())
			same(t, got, b.want())
			if !slices.Equal(records, []string{"resync", "resynced"}) {
				t.Errorf("records %q", records)
			}
		})
	}
}

// A server that dies under load loses nothing that it has acknowledged, and doubles
// nothing that is sent again.
func TestServerKilled(t *testing.T) {
	for _, release := range []string{"", "debian"} {
		t.Run("server "+release, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, release)
			fol := b.follow("--seq", "1")
			b.waves(4, 5000, func(int) {
				b.server.Kill()
				b.server.Up()
			})
			b.arrives(fol, 40000)
			b.ends()
			got, _, records := events(t, fol.Stdout())
			same(t, got, b.want())
			if slices.ContainsFunc(records, func(r string) bool { return strings.HasPrefix(r, "lost") }) {
				t.Errorf("records %q", records)
			}
		})
	}
}

// A publisher that dies loses what was in its memory: the stream says so, and a
// snapshot follows. Nothing comes twice, nothing out of order.
func TestPublisherKilled(t *testing.T) {
	t.Parallel()
	b := newBed(t, "", "--memory", "256KiB", "--spool", t.TempDir())
	fol := b.follow("--seq", "1")
	b.waves(3, 5000, func(int) {
		b.pub.Signal(unix.SIGKILL)
		_ = b.pub.Wait()
		b.publish()
	})
	b.waves(1, 10, nil)
	last := "destroy 10.1.0.9"
	nstest.Until(t, "the last event arrives", func() bool {
		got, _, _ := events(t, fol.Stdout())
		return len(got) > 0 && slices.Contains(got[max(0, len(got)-20):], last)
	})
	b.ends()
	got, _, records := events(t, fol.Stdout())
	want := b.want()
	rest := want
	for i, e := range got {
		n := slices.Index(rest, e)
		if n < 0 {
			t.Fatalf("event %d, %q, is doubled or out of order", i, e)
		}
		rest = rest[n+1:]
	}
	missing := len(want) - len(got)
	t.Logf("%d of %d events are missing; records %q", missing, len(want), records)
	if n := strings.Count(strings.Join(records, ","), "lost publisher ?"); n != 3 {
		t.Errorf("%d records of a publisher that began anew, 3 did: %q", n, records)
	}
	if n := strings.Count(strings.Join(records, ","), "resynced"); n < 4 {
		t.Errorf("%d snapshots, want one from each run: %q", n, records)
	}
}

// A follower that was killed goes on behind the last position that it wrote.
func TestFollowerKilled(t *testing.T) {
	t.Parallel()
	b := newBed(t, "")
	var all strings.Builder
	seq := "1"
	var fol *writer
	keep := func() {
		out := fol.Stdout()
		const mark = `{"kind":"position","seq":`
		i := strings.LastIndex(out, mark)
		if i < 0 {
			return // nothing came
		}
		end := strings.Index(out[i:], "}\n")
		if end < 0 { // cut in the middle
			i = strings.LastIndex(out[:i], mark)
			end = strings.Index(out[i:], "}\n")
		}
		n, err := strconv.ParseUint(out[i+len(mark):i+end], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seq = strconv.FormatUint(n+1, 10)
		all.WriteString(out[:i])
	}
	fol = b.follow("--positions", "--seq", seq)
	b.waves(4, 5000, func(int) {
		fol.Signal(unix.SIGKILL)
		_ = fol.Wait()
		keep()
		fol = b.follow("--positions", "--seq", seq)
	})
	nstest.Until(t, "everything arrives", func() bool {
		return strings.Count(all.String()+fol.Stdout(), `"kind":"flow"`) >= 40000
	})
	b.ends()
	keep()
	got, _, records := events(t, all.String())
	same(t, got, b.want())
	if slices.ContainsFunc(records, func(r string) bool { return strings.HasPrefix(r, "lost") }) {
		t.Errorf("records %q", records)
	}
}

// While no server can be reached lines wait, in memory and in the spool, and all of
// them arrive.
func TestAway(t *testing.T) {
	t.Parallel()
	spool := t.TempDir()
	b := newBed(t, "", "--memory", "256KiB", "--spool", spool)
	fol := b.follow("--seq", "1")
	b.waves(2, 5000, func(w int) {
		b.host.Cable(w == 1)
	})
	b.arrives(fol, 20000)
	b.ends()
	got, _, records := events(t, fol.Stdout())
	same(t, got, b.want())
	if !slices.Equal(records, []string{"resync", "resynced"}) {
		t.Errorf("records %q", records)
	}
	left, err := filepath.Glob(spool + "/*/*.spool")
	if err != nil || len(left) > 0 {
		t.Errorf("left in the spool: %q, %v", left, err)
	}
}

// What finds no room is counted exactly, and a snapshot follows.
func TestFull(t *testing.T) {
	t.Parallel()
	b := newBed(t, "", "--memory", "256KiB")
	fol := b.follow("--seq", "1")
	b.host.Cable(false)
	b.waves(2, 5000, nil)
	b.host.Cable(true)
	nstest.Until(t, "a snapshot arrives behind the loss", func() bool {
		b.waves(1, 1, nil)
		_, lost, found := strings.Cut(fol.Stdout(), `"where":"spool"`)
		return found && strings.Contains(lost, `"kind":"resynced"`)
	})
	b.waves(1, 10, nil)
	nstest.Until(t, "the last event arrives", func() bool { return strings.Contains(fol.Stdout(), "10.1.0.9") })
	b.ends()
	got, _, records := events(t, fol.Stdout())
	missing := 0
	for _, r := range records {
		if n, ok := strings.CutPrefix(r, "lost spool "); ok {
			one, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			missing += one
		}
	}
	own := strings.Count(b.watch.Stdout(), `"src":"10.9.`) // of the connection to the server
	if want := b.want(); len(got)+missing < len(want) || len(got)+missing > len(want)+own || missing == 0 {
		t.Errorf("%d arrived, %d told missing, %d happened", len(got), missing, len(want))
	}
}
