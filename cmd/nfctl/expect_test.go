package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nfctl/internal/nstest"
)

// meets reports whether a data connection is let in.
func (g guarded) meets(proto, addr string, patience time.Duration) bool {
	if proto == "tcp" {
		return opens(g.client, addr, patience)
	}
	_, ok := g.client.Ask(addr, "hello", patience)
	return ok
}

// TestExpectCommands tries every refusal of the kernel, its status and what is
// said of it, and what the commands do besides.
func TestExpectCommands(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	const m = "tcp 10.0.0.1:1000 > 10.0.0.2:21"
	const plain = "tcp 10.0.0.1:1001 > 10.0.0.2:80"
	const e = "tcp 10.0.0.1 > 10.0.0.2:5000"
	nstest.Need(t, "conntrack")
	ns.Run("conntrack", "-I", "-p", "tcp", "-s", "10.0.0.1", "-d", "10.0.0.2", "--sport", "1001", "--dport", "80",
		"--state", "ESTABLISHED", "-t", "3000")
	create := func(args ...string) []string { return append([]string{"expect", "create"}, args...) }
	defer func() { // at the end: where no class is taken it is made
		out, stderr, status := ns.Exec(nstest.Build(t),
			create("--master", m, "tcp > 10.0.0.2:5001", "--class", "9", "--create-master", "--helper", "irc")...)
		if status == exitOK && strings.Contains(stderr, "made it of class 0") {
			t.Log("this kernel takes no class where no helper is named, as 5.10")
		} else if status != exitFailed || !strings.Contains(stderr, "beyond the helper's last") {
			t.Errorf("--class 9: status %d: %s%s", status, out, stderr)
		}
	}()
	for _, tt := range []struct {
		args   []string
		status int
		says   string // on either output
	}{
		{create("--master", m, e), 3, "master is not in the table"},
		{create("--master", plain, e), 6, "hint: with --create-master --helper ftp"},
		{create("--master", m, e, "--create-master", "--helper", "nosuch"), 6, "no such helper"},
		{create("--master", plain, e, "--create-master", "--helper", "ftp"), 4, "there without a helper"},
		{create("--master", m, e, "--create-master"), 2, "--helper NAME"},
		{create("--master", m, e, "--create-master", "--helper", "irc", "--dry-run"), 0, "would make the master"},
		{[]string{"ct", "get", m}, 3, "no such flow"},
		{create("--master", m, e, "--create-master", "--helper", "irc", "--timeout", "599995s"), 0, "59999"},
		{create("--master", m, e, "--create-master", "--helper", "ftp"), 4, "another helper, irc"},
		{create("--master", m, e), 4, "there already"},
		{create("--master", m, e, "--if-missing"), 0, "there already"},
		{create("--master", m, e, "--or-update", "--timeout", "3705s"), 0, "370"},
		{create("--master", m+" zone 7", e), 3, "master is not in the table"},
		{create("--master", m, "--zone", "7", e), 3, "master is not in the table"},
		{create("--master", m, "tcp 10.0.0.0/24 > 10.0.0.2:5000"), 4, "overlaps"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--fn", "nosuch"), 1, "no such function"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--helper", "sip"), 6, "no other helper than the master's, irc"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--nat", "10.0.0.9:1"), 2, "--nat-dir"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--nat", "fd00::1", "--nat-dir", "orig"), 2, "--nat"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--mask-src", "ffff::"), 2, "another address family"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--mask-dst", "255.255.255.0"), 2, "compares the destination whole"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--mask-port-dst", "0"), 2, "compares the destination whole"},
		{create("--master", m, "> 10.0.0.2:5001"), 2, "the protocol must be one"},
		{create("--master", m, "tcp > :5001"), 2, "the destination must be one"},
		{create("--master", m, "tcp > 10.0.0.2:5001-5002"), 2, "the destination port must be one"},
		{create("--master", m, "tcp 10.0.0.1-10.0.0.3 > 10.0.0.2:5001"), 2, "no mask says that range"},
		{create("--master", m, "tcp :1000-1002 > 10.0.0.2:5001"), 2, "a range that a mask says"},
		{create("--master", m, "tcp > [fd00::1]:5001"), 2, "one address family"},
		{create("--master", "tcp > :21", e), 2, "--master"},
		{create("--master", m), 2, "what to expect is missing"},
		{create(e), 2, "--master is missing"},
		{create("--master", m, "tcp"), 2, "a flow in quotes"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--timeout", "100ms"), 2, "whole seconds"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--timeout", "0"), 2, "more than nothing"},
		{create("--master", m, "tcp > 10.0.0.2:5001", "--userspace", "--permanent"), 0, "cleared the flag userspace"},
		{create("--master", m, "udp 10.0.0.0/24:1024-2047 > 10.0.0.2:5002"), 0, "mask-src=255.255.255.0 mask-dst=255.255.255.255 sport=64512 dport=65535"},
		{create("--master", m, "tcp 10.0.0.8 > 10.0.0.2:5003", "--nat", "10.0.0.9:77", "--nat-dir", "orig", "-o", "json"), 0, `"nat":{"dir":"orig","src":"10.0.0.9"`},
		{create("-p", "tcp", "--orig-src", "10.0.0.1", "--orig-dst", "10.0.0.2", "--sport", "1000", "--dport", "21",
			"--tuple-src", "10.0.0.4", "--tuple-dst", "10.0.0.5", "--tuple-port-src", "30", "--tuple-port-dst", "40",
			"--mask-src", "255.255.255.255", "--mask-dst", "255.255.255.255", "--mask-port-src", "65535",
			"--mask-port-dst", "65535", "-t", "3000"), 0,
			" proto=6 src=10.0.0.4 dst=10.0.0.5 sport=30 dport=40 mask-src=255.255.255.255 mask-dst=255.255.255.255 " +
				"sport=65535 dport=65535 master-src=10.0.0.1"},
		{[]string{"expect", "get", "tcp 10.0.0.77:5 > 10.0.0.2:5001"}, 0, "PERMANENT"}, // any source meets it
		{[]string{"expect", "get", "tcp 10.0.0.1 > 10.0.0.2:5999"}, 3, "no such expectation"},
		{[]string{"expect", "count"}, 0, "5\n"},
		{[]string{"expect", "count", "--flags", "permanent"}, 0, "1\n"},
		{[]string{"expect", "list", "-q"}, 0, ""},
		{[]string{"expect", "list", "--master", m, "--filter", `tuple.proto == "udp"`}, 0, "dport=5002"},
		{[]string{"expect", "list", "--tuple-port-dst", "5000-5001", "-o", "json", "--fields", "tuple.dport"}, 0, `{"tuple":{"dport":500`},
		{[]string{"expect", "list", "-o", "save", "--id", "1"}, 0, ""},
		{[]string{"expect", "list", "-o", "flow"}, 2, "flow"},
		{[]string{"expect", "list", "--fail-empty", "--id", "1"}, 3, ""},
		{[]string{"expect", "count", "--fail-empty", "--id", "1"}, 3, "0"},
		{[]string{"expect", "list", "tcp"}, 2, "a flow in quotes"},
		{[]string{"expect", "update", "udp > :5002", "--set", "timeout=3609s"}, 0, "360"},
		{[]string{"expect", "update", "udp > :5002", "--set", "class=1"}, 2, "only the timeout"},
		{[]string{"expect", "update", "udp > :5002"}, 2, "--set timeout="},
		{[]string{"expect", "update", "udp > :9", "--set", "timeout=1h", "--fail-empty"}, 3, "0 expectations"},
		{[]string{"expect", "delete"}, 2, "--all"},
		{[]string{"expect", "flush"}, 2, "--all"},
		{[]string{"expect", "delete", "--helper", "irc", "--dry-run"}, 0, "5 expectations would be deleted"},
		{[]string{"expect", "delete", "udp > :5002"}, 0, "1 expectation deleted"},
		{[]string{"expect", "delete", "udp > :5002"}, 0, "0 expectations deleted"},
		{[]string{"expect", "delete", "--helper", "irc"}, 0, "4 expectations deleted"},
		{[]string{"expect", "stats"}, 0, "expect_create="},
		// A helper's limit: the oldest goes, and that is said.
		{create("--master", "tcp 10.0.0.1:1002 > 10.0.0.2:21 zone 5", "--create-master", "--helper", "ftp", e), 0, "proto=6"},
		{create("--master", "tcp 10.0.0.1:1002 > 10.0.0.2:21 zone 5", "tcp > 10.0.0.2:6000"), 0, "10.0.0.2:5000 (id "},
		// The kernel does not say an expectation's zone: it is found out.
		{[]string{"expect", "get", "tcp > 10.0.0.2:6000"}, 3, "no such expectation"},
		{[]string{"expect", "get", "tcp > 10.0.0.2:6000 zone 5"}, 0, "dport=6000"},
		{[]string{"expect", "delete", "tcp > :6000"}, 0, "1 expectation deleted"},
		{[]string{"expect", "count"}, 0, "0\n"},
		{[]string{"expect", "lst"}, 2, "did you mean"},
	} {
		out, stderr, status := ns.Exec(nstest.Build(t), tt.args...)
		if status != tt.status || !strings.Contains(out+stderr, tt.says) || tt.says == "" && out != "" {
			t.Errorf("nfctl %q: status %d, want %d and %q\n%s%s", tt.args, status, tt.status, tt.says, out, stderr)
		}
	}
}

// TestExpectFTP: what the kernel's helper makes of a real server and client is
// listed and watched.
func TestExpectFTP(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "vsftpd", "curl")
	if os.Geteuid() != 0 {
		t.Skip("vsftpd runs as root only")
	}
	g := newGuarded(t, "irc")
	g.server.Run("iptables", "-w", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--dport", "21", "-j", "CT",
		"--helper", "ftp")
	g.server.Run("iptables", "-w", "-A", "INPUT", "-p", "tcp", "--dport", "21", "-j", "ACCEPT")
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for d := root; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755)
	}
	conf := filepath.Join(dir, "vsftpd.conf")
	settings := "listen=YES\nlisten_ipv6=NO\nbackground=NO\nanonymous_enable=YES\nno_anon_password=YES\n" +
		"local_enable=NO\nanon_root=" + root +
		"\nsecure_chroot_dir=" + root +
		"\nseccomp_sandbox=NO\nisolate=NO\nisolate_network=NO\nconnect_from_port_20=YES\n" +
		"pasv_min_port=30000\npasv_max_port=30100\n"
	for name, text := range map[string]string{conf: settings, filepath.Join(root, "greeting"): "hello by ftp\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ftpd := g.server.Start("vsftpd", conf)
	nstest.Until(t, "vsftpd listens", func() bool {
		if ftpd.Ended() {
			t.Fatalf("vsftpd ended: %s%s", ftpd.Stdout(), ftpd.Stderr())
		}
		return opens(g.client, "10.0.0.2:21", short)
	})
	w := startWatch(t, g.server, "expect", "watch", "--events", "new", "-o", "json")
	get := func(flags ...string) {
		t.Helper()
		out, stderr, status := g.client.Exec("curl",
			append([]string{"-sS", "--max-time", "15", "ftp://10.0.0.2/greeting"}, flags...)...)
		if status != 0 || out != "hello by ftp\n" {
			t.Fatalf("curl %v: %q, status %d: %s\n%s", flags, out, status, stderr, w.Stdout())
		}
	}
	get("--disable-epsv")
	w.WaitOutput(`"src":"10.0.0.1","dst":"10.0.0.2","proto":"tcp","sport":0,"dport":30`)
	get("--ftp-port", "-", "--disable-eprt") // the server connects to the client
	w.WaitOutput(`"tuple":{"src":"10.0.0.2","dst":"10.0.0.1"`)
	for _, line := range strings.Split(strings.TrimSpace(w.Stdout()), "\n") {
		if !strings.Contains(line, `"event":"new"`) || !strings.Contains(line, `"helper":"ftp"`) ||
			strings.Contains(line, `"by"`) {
			t.Errorf("%s", line)
		}
	}
	// A passive connection that is announced and not made yet is in the list.
	c, err := g.client.Dial("tcp", "10.0.0.2:21", nstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	say := func(text, answer string) {
		t.Helper()
		if text != "" {
			fmt.Fprintf(c, "%s\r\n", text)
		}
		if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, answer) {
			t.Fatalf("%s: %q, %v", text, line, err)
		}
	}
	say("", "220")
	say("USER anonymous", "230")
	say("PASV", "227")
	if out := nfctl(t, g.server, "expect", "list", "--helper", "ftp", "--master",
		"tcp 10.0.0.1 > 10.0.0.2:21"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "helper=ftp") {
		t.Errorf("list: %q", out)
	}
}
