package lua

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

var luaBlock = regexp.MustCompile("(?ms)^```lua\n(.*?)^```")

// blocks returns the scripts of a page of the documentation.
func blocks(t *testing.T, page string) (all []string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range luaBlock.FindAllSubmatch(b, -1) {
		all = append(all, string(m[1]))
	}
	return all
}

// Every script of the page for beginners does what the page says.
func TestFirstScripts(t *testing.T) {
	scripts := blocks(t, "lua-first.md")
	if len(scripts) != 4 {
		t.Fatalf("%d scripts", len(scripts))
	}
	ns, bin := exampleLab(t)
	dir := t.TempDir()
	file := func(n int) string {
		name := filepath.Join(dir, string(rune('a'+n))+".lua")
		if err := os.WriteFile(name, []byte(scripts[n]), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	far := ns.ListenUDP("127.0.0.1:0")
	near, err := ns.Dial("udp", far.LocalAddr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	// reaches sends a text and reports what of it arrived.
	reaches := func(text string) string {
		if _, err := near.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		_ = far.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, _, _ := far.ReadFrom(b)
		return string(b[:n])
	}

	watch := ns.Start(bin, "lua", file(0))
	nstest.Until(t, "the watcher sees a connection", func() bool {
		c, err := ns.Dial("udp", "127.0.0.1:9", time.Second) // another one each time
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("hello"))
		time.Sleep(20 * time.Millisecond)
		return strings.Contains(watch.Stdout(), "new\t127.0.0.1\t9\n")
	})
	watch.Signal(unix.SIGTERM)
	watch.Wait()

	for n, want := range map[int]map[string]string{
		1: {"my password": "", "nothing": "nothing"},
		2: {"a cat": "a dog", "a mouse": "a mouse"},
	} {
		ready := filepath.Join(dir, "ready"+string(rune('0'+n)))
		p := ns.Start(bin, "queue", "--attach", "output udp > *", "--rule", "lua "+file(n), "--ready-file", ready)
		nstest.WaitFile(t, ready)
		for sent, arrived := range want {
			if got := reaches(sent); got != arrived {
				t.Errorf("script %d: %q arrived as %q", n, sent, got)
			}
		}
		p.Signal(unix.SIGTERM)
		if p.Wait() != 0 || strings.Contains(p.Stderr(), "lua:") {
			t.Errorf("script %d: %s", n, p.Stderr())
		}
	}

	loop := ns.Start(bin, "lua", file(3))
	ns.Run("iptables", "-w", "-A", "OUTPUT", "-p", "udp", "--dport", portOf(far.LocalAddr()), "-j", "NFQUEUE",
		"--queue-num", "0")
	nstest.Until(t, "the loop answers", func() bool { return reaches("hello") == "hello" })
	loop.WaitOutput("127.0.0.1\tto\t127.0.0.1\t33\tbytes")
}

// The function of the reference page is one that rules take.
func TestReferenceScripts(t *testing.T) {
	t.Parallel()
	for _, code := range blocks(t, "lua.md") {
		d, decided, err := act(t, action(t, code, RuleOptions{}), udpPacket("the secret"))
		if err != nil || !decided || d.Verdict != 0 {
			t.Errorf("%v %+v, %v\n%s", decided, d, err, code)
		}
	}
}
