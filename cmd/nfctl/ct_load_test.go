package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"nfctl/internal/nstest"
)

// event is a record of a stream: of a TCP flow with this source port. more are
// further keys, with a comma in front.
func event(what string, sport int, more string) string {
	return fmt.Sprintf(`{"kind":"flow","event":%q,"family":"ipv4","proto":"tcp","timeout":300%s}`+"\n", what, more+
		fmt.Sprintf(
			`,"orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":%d,"dport":80},"reply":{"src":"10.0.0.2","dst":"10.0.0.1","sport":80,"dport":%[1]d}`, sport))
}

// TestCtLoadEvents applies streams of events: what is left in the table, and what is
// said.
func TestCtLoadEvents(t *testing.T) {
	t.Parallel()
	const (
		syn   = `,"state":"SYN_SENT","status":["CONFIRMED"]`
		est   = `,"state":"ESTABLISHED","status":["SEEN_REPLY","ASSURED","CONFIRMED"]`
		fixed = `,"state":"ESTABLISHED","status":["SEEN_REPLY","ASSURED","CONFIRMED","FIXED_TIMEOUT"]`
	)
	// A translated flow: the kernel refuses the translation of one that is there.
	nat := func(what string, mark int) string {
		return fmt.Sprintf(
			`{"kind":"flow","event":%q,"family":"ipv4","proto":"udp","timeout":300,"orig":{"src":"10.0.0.1","dst":"192.0.2.9","sport":7,"dport":53},`+
				`"reply":{"src":"10.0.0.3","dst":"10.0.0.1","sport":5353,"dport":7},"status":["SEEN_REPLY","ASSURED","CONFIRMED","DST_NAT"],"mark":%d,"zone":0}`+"\n", what, mark)
	}
	child := func(what, status string) string {
		return fmt.Sprintf(
			`{"kind":"flow","event":%q,"family":"ipv4","proto":"tcp","timeout":300,"state":"ESTABLISHED","orig":{"src":"10.0.0.2","dst":"10.0.0.1","sport":20,"dport":999},`+
				`"reply":{"src":"10.0.0.1","dst":"10.0.0.2","sport":999,"dport":20},"status":["EXPECTED"%s,"CONFIRMED"],"master":{"src":"10.0.0.1","dst":"10.0.0.2","sport":21,"dport":80,"proto":"tcp"}}`+"\n", what, status)
	}
	update := func(mark int) string { // of a child, as the kernel tells it: without its master
		return regexp.MustCompile(`,"master":{[^}]*}`).ReplaceAllString(strings.Replace(child("update",
			`,"SEEN_REPLY","ASSURED"`), "}\n", fmt.Sprintf(`,"mark":%d}`+"\n", mark), 1), "")
	}
	for _, c := range []struct {
		name   string
		in     string
		args   string // separated by blanks
		status int
		want   []string // of each flow a part of 'ct list -o text', with its source port in front
		says   string   // a part of what is said
	}{
		{"a life", event("new", 1, syn) + event("update", 1, est), "--or-update", 0, []string{"1 ESTABLISHED"}, "2 flows made or changed"},
		{"a whole life", event("new", 1, syn) + event("update", 1, est) + event("destroy", 1, est), "--or-update", 0, nil, "2 flows made or changed, 1 deleted"},
		{"two lives", event("new", 1, est) + event("destroy", 1, est) + event("new", 1, syn+`,"mark":3`), "--or-update", 0, []string{"1 SYN_SENT", "1 mark=3"}, ", 1 deleted"},
		{"an end alone", event("destroy", 1, est), "--or-update", 0, nil, "0 flows made or changed, 1 gone already"},
		{"an end, only to make", "\n" + event("destroy", 1, est), "", 1, nil, "line 2: "},
		{"an end, only to make: what to do", event("destroy", 1, est), "", 1, nil, "hint: --or-update"},
		{"an end, to try", event("destroy", 1, est), "--dry-run", 1, nil, "line 1: "},
		{"an end and a beginning, only to make", event("new", 2, est) + event("destroy", 1, est) + event("new", 3, est), "", 1, []string{"2 ESTABLISHED", "3 ESTABLISHED"}, "2 flows made, 1 line failed"},
		{"an end in another zone", event("new", 1, est+`,"zone":0`) + event("destroy", 1, est+`,"zone":4`), "--or-update", 0, []string{"1 ESTABLISHED"}, "1 gone already"},
		{"an end in its zone", event("new", 1, est+`,"zone":4`) + event("destroy", 1, est+`,"zone":4`), "--or-update", 0, nil, "1 deleted"},
		{"what an update does not say", event("new", 1, syn) + event("update", 1, `,"status":["CONFIRMED"],"mark":9`), "--or-update", 0, []string{"1 SYN_SENT", "1 mark=9"}, ""},
		{"an update without a beginning", event("update", 1, est+`,"mark":9`), "--or-update", 0, []string{"1 ESTABLISHED", "1 mark=9"}, "1 flow made or changed"},
		{"a status that is behind", event("new", 1, est) + event("update", 1, syn+`,"mark":9`) + event("new", 1, syn+`,"mark":10`), "--or-update", 0, []string{"1 SYN_SENT", "1 ASSURED", "1 mark=10"}, "3 flows made or changed"},
		{"a fixed timeout", event("new", 1, fixed) + event("update", 1, fixed+`,"mark":9`), "--or-update", 0, []string{"1 mark=9"}, "2 flows made or changed"},
		{"a translated life", nat("new", 1) + nat("update", 2) + nat("existing", 3), "--or-update", 0, []string{"7 src=10.0.0.3", "7 mark=3"}, "3 flows made or changed"},
		{"a translated life's end", nat("existing", 1) + nat("existing", 2) + nat("destroy", 2), "--or-update", 0, nil, "2 flows made or changed, 1 deleted"},
		{"two translated lives", nat("new", 1) + nat("destroy", 1) + nat("new", 2) + nat("update", 3), "--or-update", 0, []string{"7 mark=3"}, "3 flows made or changed, 1 deleted"},
		{"records", `{"kind":"resync","time":"2026-01-02T12:00:00.000000000Z"}` + "\n" + event("existing", 1, est) + `{"kind":"existing","flows":1,"expects":0,"no_events":0}` + "\n" +
			`{"kind":"resynced","flows":1,"expects":0,"no_events":0}` + "\n", "", 0, []string{"1 ESTABLISHED"}, "1 flow made\n"},
		{"losses", event("new", 1, est) + `{"kind":"lost","time":"2026-01-02T12:00:00.000000000Z","count":5,"where":"socket"}` + "\n" + event("new", 2, est), "--or-update", 0,
			[]string{"1 ESTABLISHED", "2 ESTABLISHED"}, "line 2: 5 events were lost here"},
		{"losses, counted", `{"kind":"lost","count":5,"where":"socket"}` + "\n" + `{"kind":"lost","count":6,"where":"socket"}` + "\n", "", 0, nil, "11 events lost"},
		{"losses that nobody counts", `{"kind":"lost","count":null,"where":"socket"}` + "\n", "", 0, nil, "0 or more events lost"},
		{"other records", `{"kind":"expect","event":"new"}` + "\n", "--or-update", 1, nil, "line 1: "},
		{"another event", event("exploded", 1, est), "--or-update", 1, nil, "event"},
		{"no event", event("", 1, est), "--or-update", 1, nil, "event"},
		{"a child before its master", child("existing", "") + event("existing", 21, est) + `{"kind":"existing"}` + "\n", "--or-update", 0, []string{"20 ESTABLISHED", "21 ESTABLISHED"}, "2 flows made or changed"},
		{"a child of nobody", child("existing", "") + `{"kind":"existing"}` + "\n" + event("new", 21, est), "--or-update", 1, []string{"21 ESTABLISHED"}, "master"},
		{"a child's life before its master", child("existing", "") + update(4) + event("existing", 21, est) + update(5), "--or-update", 0, []string{"20 mark=5", "21 ESTABLISHED"}, "4 flows made or changed"},
		{"a child's end before its master", child("existing", "") + child("destroy", "") + event("existing", 21, est), "--or-update", 0, []string{"21 ESTABLISHED"}, "1 deleted"},
		{"a child twice", event("new", 21, est) + child("new", "") + child("existing", `,"SEEN_REPLY","ASSURED"`) + update(4), "--or-update", 0, []string{"20 mark=4", "20 ASSURED", "21 ESTABLISHED"}, "4 flows made or changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			nstest.Enter(t)
			_, errs, status := callWith(c.in, append([]string{"ct", "load"}, strings.Fields(c.args)...)...)
			if status != c.status || !strings.Contains(errs, c.says) {
				t.Errorf("status %d, want %d, and %q: %s", status, c.status, c.says, errs)
			}
			flows := map[string]string{}
			for line := range strings.Lines(good(t, "ct", "list", "-o", "text")) {
				_, rest, _ := strings.Cut(line, "sport=")
				port, _, _ := strings.Cut(rest, " ")
				flows[port] = line
			}
			ports := map[string]bool{}
			for _, w := range c.want {
				port, part, _ := strings.Cut(w, " ")
				if ports[port] = true; !strings.Contains(flows[port], part) {
					t.Errorf("no %q: %q", w, flows[port])
				}
			}
			if len(flows) != len(ports) {
				t.Errorf("%d flows are left, want %d: %q", len(flows), len(ports), flows)
			}
		})
	}
}

// TestCtLoadStream: a stream that has no end is applied as it comes, and what it has
// loaded takes no memory.
func TestCtLoadStream(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c := exec.Command(nstest.Build(t), "ct", "load", "--or-update")
	c.Stdin = r
	p := ns.StartCmd(c)
	_ = r.Close()
	// Each of these updates the kernel refuses at first: the flow is translated.
	update := func(n int) string {
		return fmt.Sprintf(
			`{"kind":"flow","event":"existing","family":"ipv4","proto":"udp","timeout":300,"orig":{"src":"10.0.0.1","dst":"192.0.2.9","sport":7,"dport":53},`+
				`"reply":{"src":"10.0.0.3","dst":"10.0.0.1","sport":5353,"dport":7},"mark":%d,"zone":0}`+"\n", n)
	}
	marked := func(n int) {
		t.Helper()
		nstest.Until(t, fmt.Sprint("mark ", n), func() bool {
			return strings.Contains(ns.Run(nstest.Build(t), "ct", "list"), fmt.Sprintf("mark=%d ", n))
		})
	}
	for n := 1; n <= 3; n++ {
		if _, err := w.WriteString(update(n)); err != nil {
			t.Fatal(err)
		}
		marked(n)
	}
	peak := func() int {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		kib, _ := strconv.Atoi(regexp.MustCompile(`VmRSS:\s+(\d+)`).FindStringSubmatch(string(b))[1])
		return kib
	}
	before := peak()
	const many = 30000
	for n := 4; n <= many; n++ {
		if _, err := w.WriteString(update(n)); err != nil {
			t.Fatal(err)
		}
	}
	marked(many)
	if grown := peak() - before; grown > 16<<10 { // kept, they are 30 MiB
		t.Errorf("%d updates took %d KiB", many, grown)
	}
	_ = w.Close()
	if p.Wait() != 0 || !strings.Contains(p.Stderr(), fmt.Sprintf("%d flows made or changed", many)) {
		t.Error(p.Stderr())
	}
}

// TestCtLoadRelays joins two namespaces by two streams, one each way. What happens in
// one is done in the other, once.
func TestCtLoadRelays(t *testing.T) {
	t.Parallel()
	nf := nstest.Build(t)
	a, b := nstest.New(t), nstest.New(t)
	track(a)
	a.Run(nf, "ct", "create", "-q", "tcp 10.0.0.1:1 > 10.0.0.2:80", "--timeout", "600")
	dir := t.TempDir()
	relay := func(from, to *nstest.NS, name string) (watch *exec.Cmd, said *strings.Builder, load *nstest.Proc) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		lc := exec.Command(nf, "ct", "load", "--or-update")
		lc.Stdin = r
		load = to.StartCmd(lc)
		watch, said = exec.Command(nf, "ct", "watch", "--with-existing", "--not-by", "load", "-o", "json",
			"--ready-file", dir+"/"+name), &strings.Builder{}
		watch.Stdout, watch.Stderr = w, said
		from.Do(func() { err = watch.Start() })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = watch.Process.Kill() })
		_, _ = r.Close(), w.Close()
		nstest.WaitFile(t, dir+"/"+name)
		return watch, said, load
	}
	watchA, saidA, loadB := relay(a, b, "a")
	watchB, saidB, loadA := relay(b, a, "b")
	list := func(ns *nstest.NS, what string) string { return ns.Run(nf, "ct", "list", "-o", "text", what) }
	nstest.Until(t, "what was there is there", func() bool { return list(b, "> :80") != "" })
	// A connection of the one, real this time.
	addr := a.TCPEcho("127.0.0.1:0")
	conn, err := a.Dial("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	port := addr[strings.LastIndexByte(addr, ':')+1:]
	nstest.Until(t, "the copy is established", func() bool {
		return strings.Contains(list(b, "tcp > :"+port), "ESTABLISHED")
	})
	a.Run(nf, "ct", "update", "-q", "tcp > :"+port, "--set", "mark=5")
	nstest.Until(t, "the copy has the mark", func() bool { return strings.Contains(list(b, "tcp > :"+port), "mark=5") })
	_ = conn.Close()
	a.Run(nf, "ct", "delete", "-q", "tcp > :"+port)
	nstest.Until(t, "the copy is gone", func() bool { return list(b, "tcp > :"+port) == "" })
	// Flows of the other, and everything's end.
	for i := range 20 {
		b.Run(nf, "ct", "create", "-q", fmt.Sprintf("udp 10.0.1.1:%d > 10.0.1.2:53", i+1), "--timeout", "600")
	}
	nstest.Until(t, "the other's flows are there", func() bool {
		return strings.Count(list(a, "udp > 10.0.1.2:53"), "\n") == 20
	})
	b.Run(nf, "ct", "delete", "-q", "udp > 10.0.1.2:53")
	nstest.Until(t, "the other's flows are gone", func() bool { return list(a, "udp > 10.0.1.2:53") == "" })
	shown := regexp.MustCompile(`(\d+) shown`)
	for _, p := range []struct {
		watch *exec.Cmd
		said  *strings.Builder
		load  *nstest.Proc
		most  int
	}{{watchA, saidA, loadB, 30}, {watchB, saidB, loadA, 80}} {
		_ = p.watch.Process.Signal(os.Interrupt)
		err := p.watch.Wait()
		m := shown.FindStringSubmatch(p.said.String())
		if err != nil || m == nil || p.load.Wait() != 0 {
			t.Fatalf("%v: %s%s", err, p.said, p.load.Stderr())
		}
		if n, _ := strconv.Atoi(m[1]); n > p.most {
			t.Errorf("%d events were sent: they go round", n)
		}
	}
}

// TestWatchNotBy leaves out what processes did, by their number and name.
func TestWatchNotBy(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "conntrack")
	ns := nstest.New(t)
	nf := nstest.Build(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	lc := exec.Command(nf, "ct", "load") // goes on until its input ends
	lc.Stdin = r
	load := ns.StartCmd(lc)
	_ = r.Close()
	send := func(sport int) {
		if _, err := fmt.Fprintf(w, "-A -p udp -s 10.0.0.1 -d 10.0.0.2 --sport %d --dport 1 -t 600\n",
			sport); err != nil {
			t.Fatal(err)
		}
		nstest.Until(t, "the flow is there", func() bool {
			return ns.Run(nf, "ct", "list", fmt.Sprintf("udp :%d > :1", sport)) != ""
		})
	}
	var watches []*nstest.Proc
	kinds := []string{"load", strconv.Itoa(lc.Process.Pid), "nfctl", "1,nobody"}
	for _, who := range kinds {
		watches = append(watches, startReady(t, ns, "ct", "watch", "-o", "json", "--not-by", who))
	}
	send(1)
	ns.Run("conntrack", "-I", "-p", "udp", "-s", "10.0.0.1", "-d", "10.0.0.2", "--sport", "2", "--dport", "1", "-t",
		"600")
	for i, p := range watches {
		p.WaitOutput(`"sport":2,"dport":1`)
		if seen := strings.Contains(p.Stdout(), `"sport":1,"dport":1`); seen != (i == 3) {
			t.Errorf("--not-by %s: what the load did is shown: %v\n%s", kinds[i], seen, p.Stdout())
		}
	}
	_ = w.Close()
	load.Wait()
}
