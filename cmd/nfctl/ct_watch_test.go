package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nfctl/internal/ct"
	"nfctl/internal/nstest"
)

// track makes a namespace's connections tracked: any rule that asks for them does.
func track(ns *nstest.NS) {
	ns.Run("iptables", "-w", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
}

// A record is an object of a stream in JSON.
type record struct {
	Kind, Event, Family, Proto, State string
	Orig                              struct {
		Src, Dst     string
		Sport, Dport int
	}
	Status []string
	Mark   uint32
	Zone   int
	ID     uint32
	Count  *uint64
	Events *bool
	By     *struct{ PortID uint32 }
}

func records(t *testing.T, out string) (all []record) {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if line == "" {
			continue
		}
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, r)
	}
	return all
}

// key names the entry that a record is about.
func (r *record) key() string { return fmt.Sprint(r.Family, r.Proto, r.Zone, r.Orig, r.ID) }

// entries are flows to make and delete by the hundred.
func entries(t *testing.T, n int) []*ct.Flow {
	t.Helper()
	list := make([]*ct.Flow, n)
	for i := range list {
		f := &ct.Flow{Timeout: 600, Present: ct.HasTimeout}
		f.Orig = ct.Tuple{Family: ct.IPv4, Proto: ct.UDP, Src: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}),
			Dst:   netip.MustParseAddr("10.0.0.2"),
			Sport: 1000, Dport: 53, Present: ct.TupleFamily | ct.TupleProto | ct.TupleSport | ct.TupleDport}
		f.SetupReply()
		list[i] = f
	}
	return list
}

// batched makes one kind of request about each flow, and reports the first error.
func batched(list []*ct.Flow, add func(*ct.Batch, *ct.Flow) error) error {
	c, err := ct.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	var failed error
	b := c.NewBatch(100, func(_ *ct.Flow, err error) {
		if err != nil && failed == nil {
			failed = err
		}
	})
	for _, f := range list {
		if err := add(b, f); err != nil {
			return err
		}
	}
	if err := b.Flush(); err != nil {
		return err
	}
	return failed
}

func make1(b *ct.Batch, f *ct.Flow) error { return b.Create(f, false) }
func end1(b *ct.Batch, f *ct.Flow) error  { return b.Delete(f) }

// do runs requests inside ns.
func do(t *testing.T, ns *nstest.NS, list []*ct.Flow, add func(*ct.Batch, *ct.Flow) error) {
	t.Helper()
	var err error
	ns.Do(func() { err = batched(list, add) })
	if err != nil {
		t.Fatal(err)
	}
}

// last makes an entry that a watch sees behind all that was before, and waits
// until each of them has shown it.
func last(t *testing.T, ns *nstest.NS, dport string, watches ...*nstest.Proc) {
	t.Helper()
	ns.Run(nstest.Build(t), "ct", "create", "-q", "udp 10.9.9.9:9 > 10.9.9.8:"+dport, "--timeout", "60")
	for _, w := range watches {
		nstest.Until(t, "the watch shows the last entry", func() bool {
			out := w.Stdout()
			return strings.Contains(out, "dport="+dport) || strings.Contains(out, `"dport":`+dport) ||
				strings.Contains(out, "<dport>"+dport)
		})
	}
}

var caller = regexp.MustCompile(` *\[USERSPACE\].*`)

// TestWatchAsConntrack: the same events as conntrack -E beside it, line for line.
func TestWatchAsConntrack(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "conntrack", "iptables", "ip6tables", "ping")
	a, b := nstest.New(t), nstest.New(t)
	nstest.Veth(t, a, b)
	track(a)
	a.Run("ip6tables", "-w", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
	a.Run("iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-p", "tcp", "--dport", "8080", "-j", "SNAT",
		"--to-source", "10.0.0.1:5555")
	a.Run("iptables", "-w", "-t", "raw", "-A", "OUTPUT", "-p", "tcp", "--dport", "21", "-j", "CT", "--helper", "ftp")
	type pair struct {
		mode        string
		ours, other *nstest.Proc
	}
	var pairs []pair
	var ours []*nstest.Proc
	for _, mode := range []string{"", "id", "extended", "id,extended,labels,ktimestamp", "xml"} {
		var flags []string
		if mode != "" {
			flags = []string{"-o", mode}
		}
		p := pair{mode, startWatch(t, a, append([]string{"ct", "watch"}, flags...)...),
			a.Start("conntrack", append([]string{"-E"}, flags...)...)}
		pairs, ours = append(pairs, p), append(ours, p.ours, p.other)
	}
	// conntrack does not say when it is ready: entries are made until it shows one.
	for i, p := range pairs {
		n := 0
		nstest.Until(t, "conntrack -E shows something", func() bool {
			n++
			a.Exec("conntrack", "-I", "-p", "udp", "-s", "10.8.8.8", "-d", "10.8.8.9", "--sport",
				fmt.Sprint(1000+100*i+n), "--dport", "7", "-t", "60")
			return p.other.Stdout() != ""
		})
	}
	last(t, a, "7777", ours...)
	for _, addr := range []string{"10.0.0.2:8080", "10.0.0.2:21", "[fd00::2]:9000"} {
		b.TCPEcho(addr)
		if !opens(a, addr, nstest.Patience) {
			t.Fatalf("no connection to %s", addr)
		}
	}
	if _, ok := a.Ask(b.UDPEcho("10.0.0.2:5353"), "hello", nstest.Patience); !ok {
		t.Fatal("no answer by UDP")
	}
	a.Run("ping", "-c", "1", "-W", "5", "10.0.0.2")
	a.Run("ping", "-c", "1", "-W", "5", "fd00::2")
	a.Run("conntrack", "-U", "-p", "tcp", "--dport", "8080", "-f", "ipv4", "-m", "7")
	a.Run("conntrack", "-D", "-p", "tcp", "--dport", "8080", "-f", "ipv4")
	last(t, a, "7778", ours...)
	for _, p := range pairs {
		cut := func(proc *nstest.Proc) string {
			out := proc.Stdout()
			out = out[strings.Index(out, "7777"):]
			out = out[strings.IndexByte(out, '\n')+1:]
			return caller.ReplaceAllString(out[:strings.LastIndex(out, "7778")], "")
		}
		got, want := cut(p.ours), cut(p.other)
		if p.mode == "xml" { // ours says who caused an event inside the element, conntrack behind it
			by := regexp.MustCompile(`<userspace>.*?</userspace>`)
			got = by.ReplaceAllString(got, "")
		}
		// Events that two processors make at once come to two sockets in either order.
		sorted := func(s string) []string { return slices.Sorted(strings.Lines(s)) }
		if !slices.Equal(sorted(got), sorted(want)) {
			t.Errorf("-o %q: got\n%s\nwant\n%s", p.mode, got, want)
		}
		if strings.Count(want, "\n") < 10 && p.mode == "" {
			t.Errorf("conntrack saw next to nothing: %s", want)
		}
	}
}

// TestWatchLoses: what does not fit the buffer is counted exactly, where it is
// missing, and the watch goes on.
func TestWatchLoses(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	track(ns)
	w := startWatch(t, ns, "ct", "watch", "-o", "json", "--buffer", "64KiB")
	w.Signal(syscall.SIGSTOP)
	const n = 3000
	list := entries(t, n)
	do(t, ns, list, make1)
	do(t, ns, list, end1)
	w.Signal(syscall.SIGCONT)
	nstest.Until(t, "the loss is told", func() bool { return strings.Contains(w.Stdout(), `"kind":"lost"`) })
	last(t, ns, "7777", w) // behind the gap
	w.Signal(syscall.SIGUSR1)
	w.WaitOutput("events in ")
	w.Signal(os.Interrupt)
	if status := w.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	var shown, lost uint64
	for _, r := range records(t, w.Stdout()) {
		switch {
		case r.Kind == "lost" && r.Count != nil:
			lost += *r.Count
		case r.Kind == "flow" && r.Orig.Dport == 53:
			shown++
		}
	}
	if lost == 0 || shown == 0 || shown+lost != 2*n {
		t.Errorf("shown %d, lost %d: together %d, want %d", shown, lost, shown+lost, 2*n)
	}
	// also at SIGUSR1
	if want := fmt.Sprintf("%d shown, %d lost", shown+1, lost); strings.Count(w.Stderr(), want) != 2 {
		t.Errorf("totals: %s, want %q twice", w.Stderr(), want)
	}
}

// TestWatchReliable: every destroy arrives, however small the buffer is, and none
// twice.
func TestWatchReliable(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	track(ns)
	w := startWatch(t, ns, "ct", "watch", "-o", "json", "--buffer", "64KiB", "--reliable", "--events", "DESTROY")
	w.Signal(syscall.SIGSTOP)
	const n = 1500
	list := entries(t, n)
	do(t, ns, list, make1)
	do(t, ns, list, end1)
	w.Signal(syscall.SIGCONT)
	seen := map[string]int{}
	nstest.Until(t, "every destroy arrives", func() bool { return strings.Count(w.Stdout(), "\"kind\":\"flow\"") >= n })
	w.Signal(os.Interrupt)
	w.Wait()
	for _, r := range records(t, w.Stdout()) {
		if r.Kind == "flow" {
			seen[r.key()]++
		}
	}
	for k, times := range seen {
		if times != 1 {
			t.Errorf("%s came %d times", k, times)
		}
	}
	if len(seen) != n || !strings.Contains(w.Stderr(), "times an event did not fit") {
		t.Errorf("%d of %d; %s", len(seen), n, w.Stderr())
	}
}

// replay returns the table that a stream describes.
func replay(t *testing.T, out string) map[string]string {
	t.Helper()
	table := map[string]string{}
	var again map[string]bool // what a listing has shown so far
	for _, r := range records(t, out) {
		switch r.Kind {
		case "flow":
			if r.Event == "destroy" {
				delete(table, r.key())
				continue
			}
			table[r.key()] = fmt.Sprint(r.State, r.Status, r.Mark)
			if again != nil {
				again[r.key()] = true
			}
		case "resync":
			again = map[string]bool{}
		case "resynced":
			for k := range table {
				if !again[k] {
					delete(table, k)
				}
			}
			again = nil
		case "lost":
			t.Error("events were lost")
		}
	}
	return table
}

// grep returns the lines of a stream that are about an entry.
func grep(out, key string) string {
	id := key[strings.LastIndexByte(key, ' ')+1:]
	var lines []string
	for _, line := range strings.Split(out, "\n") {
		if strings.Contains(line, `"id":`+id) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// TestWatchExisting: replaying a watch that began amid changes gives the table.
func TestWatchExisting(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"1", "2"} {
		t.Run("nf_conntrack_events "+setting, func(t *testing.T) {
			t.Parallel()
			ns := nstest.New(t)
			track(ns)
			list := entries(t, 600)
			if setting == "2" && !ns.EventsAuto() {
				t.Skip("this kernel has no nf_conntrack_events=2")
			}
			ns.Do(func() {
				if err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_events", []byte(setting), 0); err != nil {
					t.Fatal(err)
				}
			})
			do(t, ns, list[:300], make1)
			args := []string{"ct", "watch", "--with-existing", "-o", "json"}
			if setting == "2" { // older flows send no events: only a last listing tells
				args = append(args, "--resync", "1h")
			}
			for round := range 10 {
				stop, stopped := make(chan struct{}), make(chan error, 1)
				go ns.Do(func() {
					mark := &ct.Flow{Present: ct.HasMark}
					for i := 0; ; i++ {
						mark.Mark = uint32(i + 1)
						some := list[300+i%10*30:][:30]
						err := batched(some, make1)
						if err == nil {
							err = batched(some, func(b *ct.Batch, f *ct.Flow) error { return b.Update(f, mark) })
						}
						if err == nil && i%3 != 0 {
							err = batched(some, end1)
						}
						if err == nil && i%3 == 0 && i >= 3 {
							err = batched(list[300+(i-3)%10*30:][:30], end1)
						}
						if err != nil {
							stopped <- err
							return
						}
						time.Sleep(time.Millisecond) // as fast as it can is faster than a busy machine reads
						select {
						case <-stop:
							stopped <- batched(some, func(b *ct.Batch, f *ct.Flow) error { return b.Delete(f) })
							return
						default:
						}
					}
				})
				w := startWatch(t, ns, args...)
				w.WaitOutput(`"kind":"existing"`)
				close(stop)
				<-stopped
				last(t, ns, fmt.Sprint(7000+round), w)
				want := map[string]string{}
				for _, r := range records(t, nfctl(t, ns, "ct", "list", "-o", "json")) {
					want[r.key()] = fmt.Sprint(r.State, r.Status, r.Mark)
				}
				w.Signal(os.Interrupt)
				w.Wait()
				got := replay(t, w.Stdout())
				for k, v := range want {
					if got[k] != v {
						t.Errorf("round %d: %s: replayed %q, in the table %q", round, k, got[k], v)
					}
				}
				for k := range got {
					if _, there := want[k]; !there {
						t.Errorf("round %d: %s is not in the table: %s", round, k, grep(w.Stdout(), k))
					}
				}
				if setting == "2" && round == 0 &&
					(!strings.Contains(w.Stderr(), "300 flows") && !strings.Contains(w.Stderr(), "may send no event") ||
						!strings.Contains(w.Stdout(), `"events":false`)) {
					t.Errorf("older flows: %s", w.Stderr())
				}
				if t.Failed() {
					return
				}
				nfctl(t, ns, "ct", "delete", "-q", "10.1.1.44-10.1.255.255 >")
				nfctl(t, ns, "ct", "delete", "-q", "> :7000-7100")
			}
		})
	}
}

// TestWatchEnds: what ends a watch, and with what status.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	track(ns)
	run := func(status int, says string, args ...string) {
		t.Helper()
		out, stderr, got := ns.Exec(nstest.Build(t), args...)
		if got != status || !strings.Contains(out+stderr, says) {
			t.Errorf("nfctl %q: status %d, want %d and %q\n%s%s", args, got, status, says, out, stderr)
		}
	}
	run(3, "0 events", "ct", "watch", "--count", "1", "--duration", "100ms")
	run(3, "0 events", "watch", "--until", "mark == 7", "--idle", "100ms")
	run(0, "0 events", "expect", "watch", "--duration", "100ms")
	run(2, "did you mean", "ct", "watch", "--events", "destory")
	run(2, "no update", "expect", "watch", "--events", "update")
	run(2, "--filter", "watch", "--filter", "orig.sorc == 1")
	run(2, "want text, json, xml, template", "watch", "-o", "csv")
	run(2, "a flow in quotes", "ct", "watch", "tcp")
	run(2, "--fail-if", "ct", "watch", "--fail-if", "orig.sorc == 1")

	w := startWatch(t, ns, "ct", "watch", "--count", "2", "--events", "new", "-o", "flow", "udp > :53")
	u := startWatch(t, ns, "ct", "watch", "--until", "orig.src == \"10.1.0.2\"", "-e", "NEW,UPDATES", "--template",
		"{{.orig.src}}")
	f := startWatch(t, ns, "ct", "watch", "--fail-if", "orig.src == \"10.1.0.2\"", "-e", "new", "--template",
		"{{.orig.src}}", "--summary")
	both := startWatch(t, ns, "watch", "--filter", `tuple.dport == 5000 or orig.dport == 53`, "-o", "json", "--fields",
		"kind,tuple.dport,orig.src", "--count", "4")
	ns.Run(nstest.Build(t), "expect", "create", "-q", "--create-master", "--helper", "ftp", "--master",
		"tcp 10.0.0.1:1 > 10.0.0.2:21", "tcp > 10.0.0.2:5000")
	do(t, ns, entries(t, 10), make1)
	if status := w.Wait(); status != 0 ||
		w.Stdout() != "udp 10.1.0.0:1000 > 10.0.0.2:53\nudp 10.1.0.1:1000 > 10.0.0.2:53\n" {
		t.Errorf("--count: %d, %s", status, w.Stdout())
	}
	if status := u.Wait(); status != 0 || u.Stdout() != "10.0.0.1\n10.1.0.0\n10.1.0.1\n10.1.0.2\n" {
		t.Errorf("--until: %d, %s", status, u.Stdout())
	}
	if status := f.Wait(); status != exitFailed || f.Stdout() != "10.0.0.1\n10.1.0.0\n10.1.0.1\n10.1.0.2\n" ||
		!strings.Contains(f.Stderr(), "ended by --fail-if") {
		t.Errorf("--fail-if: %d, %s%s", status, f.Stdout(), f.Stderr())
	}
	for _, line := range []string{"shown: new 4 (",
		"busiest sources: 10.0.0.1 (1), 10.1.0.0 (1), 10.1.0.1 (1), 10.1.0.2 (1)\n",
		"busiest destinations: 10.0.0.2 (4)\n", "busiest destination ports: udp 53 (3), tcp 21 (1)\n"} {
		if !strings.Contains(f.Stderr(), line) {
			t.Errorf("--summary lacks %q: %s", line, f.Stderr())
		}
	}
	if strings.Contains(u.Stderr(), "busiest") {
		t.Errorf("a summary that was not asked for: %s", u.Stderr())
	}
	want := `{"kind":"expect","tuple":{"dport":5000}}
{"kind":"flow","orig":{"src":"10.1.0.0"}}
{"kind":"flow","orig":{"src":"10.1.0.1"}}
{"kind":"flow","orig":{"src":"10.1.0.2"}}
`
	if status := both.Wait(); status != 0 || both.Stdout() != want {
		t.Errorf("watch of both: %d, %s", status, both.Stdout())
	}
	// A reader that goes away ends the watch well.
	out, stderr, status := ns.Exec("sh", "-c", nstest.Build(t)+" ct watch --with-existing | head -n 1; "+
		nstest.Build(t)+" ct list -o nosuch")
	if strings.Count(out, "\n") != 1 || status != 2 || !strings.Contains(stderr, "shown") {
		t.Errorf("%q, %q, %d", out, stderr, status)
	}
}

// TestWatchFiltered: what a watch is not about never gets into its buffer, so that
// a stopped watch with little room loses none of what it is about.
func TestWatchFiltered(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	track(ns)
	w := startWatch(t, ns, "ct", "watch", "-o", "json", "--buffer", "64KiB", "--events", "new,destroy", "tcp > :7777")
	w.Signal(syscall.SIGSTOP)
	nf := nstest.Build(t)
	list := entries(t, 3000) // of UDP
	do(t, ns, list, make1)
	do(t, ns, list, end1)
	ns.Run(nf, "ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:7777", "--state", "ESTABLISHED", "-q")
	ns.Run(nf, "ct", "delete", "tcp > :7777", "-q")
	w.Signal(syscall.SIGCONT)
	w.WaitOutput(`"event":"destroy"`)
	w.Signal(os.Interrupt)
	if status := w.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if all := records(t, w.Stdout()); len(all) != 2 || all[0].Event != "new" || all[1].Event != "destroy" ||
		all[1].Orig.Dport != 7777 {
		t.Errorf("%+v", all)
	}
	if !strings.Contains(w.Stderr(), "2 events (the kernel left out others)") ||
		!strings.Contains(w.Stderr(), "2 shown, 0 lost") {
		t.Errorf("totals: %s", w.Stderr())
	}
}

// TestCtWatchTimeouts: flags that mean something else for a list are told.
func TestCtWatchTimeouts(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	_, errs, status := call("ct", "watch", "--timeout", "3s", "--duration", "10ms")
	if status != 0 || !strings.Contains(errs, "--duration") {
		t.Errorf("--timeout: status %d: %s", status, errs)
	}
	_, errs, status = call("ct", "watch", "--filter", "idle > 3", "--duration", "10ms")
	if status != exitUsage || !strings.Contains(errs, "idle") {
		t.Errorf("idle: status %d: %s", status, errs)
	}
}
