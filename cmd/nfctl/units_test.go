package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// TestUnits runs what the templates for systemd run, with the capability that
// they give: each says that it is ready, and ends in order.
func TestUnits(t *testing.T) {
	t.Parallel()
	units, err := filepath.Glob("../../docs/systemd/*.service")
	if err != nil || len(units) != 3 {
		t.Fatalf("units %q: %v", units, err)
	}
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		set := map[string]string{}
		for line := range strings.Lines(string(b)) {
			if name, val, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(name, "#") {
				set[name] = val
			}
		}
		if set["AmbientCapabilities"] != "CAP_NET_ADMIN" || set["Type"] != "notify" {
			t.Errorf("%s: %s, %s", unit, set["AmbientCapabilities"], set["Type"])
		}
		dir := t.TempDir()
		for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
			_ = os.Chmod(d, 0o755)
		}
		rules, notify := filepath.Join(dir, "queue-5.rules"), filepath.Join(dir, "notify")
		if err := os.WriteFile(rules, []byte("drop tcp > :22\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := os.Chmod(notify, 0o777); err != nil {
			t.Fatal(err)
		}
		words := strings.Fields(strings.ReplaceAll(strings.ReplaceAll(set["ExecStart"], "/etc/nfctl/queue-%i.rules",
			rules), "%i", "5"))
		for i := range words { // a folder that the unit makes
			words[i] = strings.Replace(words[i], "/var/log/nfctl/", dir+"/", 1)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		c := ordinaryUser(t, []uintptr{unix.CAP_NET_ADMIN}, words[1:]...)
		c.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
		p := nstest.New(t).StartCmd(c)
		msg := make([]byte, 100)
		_ = l.SetReadDeadline(time.Now().Add(nstest.Patience))
		if n, err := l.Read(msg); err != nil || string(msg[:n]) != "READY=1" {
			t.Errorf("%s: %q, %v", unit, msg[:n], err)
		}
		if _, reload := set["ExecReload"]; reload {
			p.Signal(unix.SIGHUP)
			nstest.Until(t, "the process goes on", func() bool { return !p.Ended() })
		}
		p.Signal(unix.SIGTERM)
		if status := p.Wait(); status != 0 {
			t.Errorf("%s: status %d: %s", unit, status, p.Stderr())
		}
	}
}
