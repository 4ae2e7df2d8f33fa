package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"nfctl/internal/nstest"
)

// serveNames answers questions for the names of addresses at 127.0.0.1:53 of the
// namespace; an address without a name in the table gets no answer at all.
func serveNames(ns *nstest.NS, names map[string]string) {
	c := ns.ListenUDP("127.0.0.1:53")
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			name, ok := names[q.Name.String()]
			if !ok {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q.Type == dnsmessage.TypePTR {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
					Body:   &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(name)}}}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(out, from)
			}
		}
	}()
}

// withNames is a command line that runs nfctl where the namespace's own server is the one
// of resolv.conf.
func withNames(t *testing.T, ns *nstest.NS, args ...string) *exec.Cmd {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return exec.Command("unshare", append([]string{"-m", "sh", "-c",
		`mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@"`, conf, nstest.Build(t)}, args...)...)
}

func TestResolve(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "unshare", "mount")
	ns := nstest.New(t)
	serveNames(ns, map[string]string{
		"1.0.0.10.in-addr.arpa.": "client.example.", "2.0.0.10.in-addr.arpa.": "server.example."})
	bin := nstest.Build(t)
	ns.Run(bin, "ct", "create", "tcp 10.0.0.1:1000 > 10.0.0.2:443", "--state", "ESTABLISHED")
	run := func(args ...string) string {
		p := ns.StartCmd(withNames(t, ns, args...))
		if code := p.Wait(); code != 0 {
			t.Fatalf("%q: status %d: %s", args, code, p.Stderr())
		}
		return p.Stdout()
	}
	if out := run("ct", "list", "--resolve", "-o", "text"); !strings.Contains(out,
		"src=client.example dst=server.example sport=1000 dport=https") {
		t.Errorf("text: %s", out)
	}
	if out := run("ct", "list", "--resolve", "-o", "wide"); !strings.Contains(out, "client.example:1000") ||
		!strings.Contains(out, "server.example:https") {
		t.Errorf("table: %s", out)
	}
	out := run("ct", "get", "tcp 10.0.0.1:1000 > 10.0.0.2:443", "--resolve", "-o", "json")
	var got struct {
		Orig struct {
			Src, Dst, SrcName, DstName, DportName string
			Sport, Dport                          int
		}
	}
	out = strings.NewReplacer("src_name", "SrcName", "dst_name", "DstName", "dport_name", "DportName").Replace(out)
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if o := got.Orig; o.Src != "10.0.0.1" || o.SrcName != "client.example" || o.DstName != "server.example" ||
		o.Dport != 443 || o.DportName != "https" {
		t.Errorf("JSON: %s", out)
	}
	out = run("ct", "list", "--resolve", "--fields", "orig.dst_name", "-o", "csv")
	if out != "orig.dst_name\nserver.example\n" {
		t.Errorf("csv: %q", out)
	}
	if out := ns.Run(bin, "ct", "list", "-o", "json"); strings.Contains(out, "_name") {
		t.Errorf("not asked for: %s", out)
	}
}

// A server that says nothing holds up neither a stream nor, for long, a list.
func TestResolveSilent(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "unshare", "mount")
	ns := nstest.New(t)
	asked := ns.ListenUDP("127.0.0.1:53") // and never answers
	defer asked.Close()
	bin := nstest.Build(t)
	p := ns.StartCmd(withNames(t, ns, "ct", "watch", "--resolve", "-o", "text", "--events", "new"))
	nstest.Until(t, "the watch listens", func() bool {
		ns.Run(bin, "ct", "create", "udp 10.9.9.9:9 > 10.9.9.9:9", "--or-update", "-q")
		ns.Exec(bin, "ct", "delete", "--all", "-q")
		return strings.Contains(p.Stdout(), "10.9.9.9")
	})
	begun := time.Now()
	do(t, ns, entries(t, 1000), make1)
	p.WaitOutput("src=10.1.3.231 ")
	// Each look-up takes a second, and they are looked up by sixteens.
	if d := time.Since(begun); d > 20*time.Second {
		t.Errorf("1000 events took %v", d)
	}
	buf := make([]byte, 512)
	_ = asked.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, _, err := asked.ReadFrom(buf); err != nil || n == 0 {
		t.Errorf("the server was not asked: %v", err)
	}
	p.Signal(os.Interrupt)
	if code := p.Wait(); code != 0 {
		t.Errorf("status %d: %s", code, p.Stderr())
	}
	l := ns.StartCmd(withNames(t, ns, "ct", "list", "--resolve", "-o", "text"))
	if code := l.Wait(); code != 0 || strings.Count(l.Stdout(), "src=10.1.") != 1000 {
		t.Errorf("status %d, %d flows: %s", code, strings.Count(l.Stdout(), "src=10.1."), l.Stderr())
	}
}
