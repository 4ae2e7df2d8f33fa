package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nfctl/internal/nstest"
)

// words that arguments are made of. No flag enters another network namespace, and
// no path leads out of the folder.
var argValues = []string{"", "-", "--", "0", "1", "-1", "65535", "65536", "99999999999999999999", "1e9", "0x10", "1.5",
	"10ms", "1h", "-1s", "64KiB", "1/0", "7/0xff",
	"udp > :53", "tcp 10.0.0.1:1 > 10.0.0.2:2", "tcp > ", " > ", "[::1]:1 > [::2]:2", "10.0.0.0/8", "10.0.0.9-10.0.0.1", "::", "fe80::1%lo", "icmp", "sctp", "256",
	"orig.dport == 53", "tcp.flags.syn and", "((((", "1 in [1..3]", "payload matches '('", "x.y.z", "all(status, # == 1)", "idle > 3600", "ASSURED,!DYING", "ESTABLISHED",
	"orig.src,orig.dport", "id,id", "nothing", "{{.orig.src}}", "{{range 3}}x{{end}}", "{{", "{{.nope}}", "json", "table", "csv", "tsv", "xml", "text,id", "save", "template",
	"mark=1", "mark=", "=1", "timeout=1h", "labels=1", "helper-name=ftp", "zone=3", "accept", "drop udp > :53", "set ip.ttl=3 udp", "log if true", "queue 5 bypass",
	"output", "input tcp >", "postrouting priority -300", "connmark 1/1", "a\nb", "\x1b[2J", "\xff\xfe", "é", strings.Repeat("(", 3000), strings.Repeat("x", 20_000), "print(1)", "error('x')", "file", "/dev/null/x"}

// argTree are the paths of commands and the flags of each.
var argTree = sync.OnceValue(func() (list []argCommand) {
	var walk func(c *cobra.Command, path []string)
	walk = func(c *cobra.Command, path []string) {
		cmd := argCommand{path: path}
		add := func(f *pflag.Flag) {
			if f.Name != "netns" {
				cmd.flags = append(cmd.flags, f)
			}
		}
		c.LocalFlags().VisitAll(add)
		c.InheritedFlags().VisitAll(add)
		list = append(list, cmd)
		for _, s := range c.Commands() {
			walk(s, append(path[:len(path):len(path)], s.Name()))
		}
	}
	walk(newRoot(&app{out: io.Discard, err: io.Discard}), nil)
	return list
})

type argCommand struct {
	path  []string
	flags []*pflag.Flag
}

// arguments makes a command line.
func arguments(r *rand.Rand) []string {
	tree := argTree()
	c := tree[r.IntN(len(tree))]
	args := append([]string(nil), c.path...)
	text := func() string {
		s := argValues[r.IntN(len(argValues))]
		if r.IntN(8) == 0 { // not quite
			b := []byte(s)
			for range 1 + r.IntN(3) {
				at := r.IntN(len(b) + 1)
				b = append(b[:at:at], append([]byte{byte(1 + r.IntN(255))}, b[at:]...)...)
			}
			s = string(b)
		}
		return s
	}
	for range r.IntN(7) {
		if len(c.flags) > 0 && r.IntN(3) > 0 {
			f := c.flags[r.IntN(len(c.flags))]
			name := "--" + f.Name
			if f.Shorthand != "" && r.IntN(3) == 0 {
				name = "-" + f.Shorthand
			}
			switch r.IntN(4) {
			case 0:
				args = append(args, name)
			case 1:
				args = append(args, name+"="+text())
			default:
				if args = append(args, name); f.NoOptDefVal == "" {
					args = append(args, text())
				}
			}
			continue
		}
		args = append(args, text())
	}
	// In place of a flag that was mistyped into it.
	for i, a := range args {
		if strings.HasPrefix(a, "--n") && strings.HasPrefix("--netns", strings.SplitN(a, "=", 2)[0]) {
			args[i] = "--num"
		}
	}
	return args
}

// argRunner runs command lines in a network namespace and a folder of its own.
var argRunner = sync.OnceValue(func() func(c *exec.Cmd) error {
	jobs := make(chan func())
	failed := make(chan error, 1)
	go func() {
		failed <- nstest.Unshare()
		for f := range jobs {
			f()
		}
	}()
	err := <-failed
	return func(c *exec.Cmd) error {
		if err != nil {
			return err
		}
		started := make(chan error)
		jobs <- func() { started <- c.Start() }
		return <-started
	}
})

// tryArguments runs nfctl with arguments: whatever they are, it does not panic, and a
// usage error has printed nothing.
func tryArguments(t *testing.T, nfctl, dir string, args []string) {
	t.Helper()
	var out, errs bytes.Buffer
	c := exec.Command(nfctl, args...)
	c.Dir, c.Stdout, c.Stderr = dir, &out, &errs
	if err := argRunner()(c); err != nil {
		nstest.Lack(t, err)
	}
	timer := time.AfterFunc(150*time.Millisecond, func() { _ = c.Process.Kill() }) // a stream
	_ = c.Wait()
	timer.Stop()
	status := c.ProcessState.Sys().(syscall.WaitStatus)
	switch said := errs.String(); {
	case status.Signaled() && status.Signal() != syscall.SIGKILL, strings.Contains(said, "goroutine "),
		strings.Contains(said, "panic:"), strings.Contains(said, "fatal error:"):
		t.Errorf("%q: %v\n%.2000s", args, c.ProcessState, said)
	case status.ExitStatus() == exitUsage && out.Len() > 0:
		t.Errorf("%q: status 2, and printed %.300q", args, out.String())
	case status.ExitStatus() == exitUsage && errs.Len() == 0:
		t.Errorf("%q: status 2 without a word", args)
	}
}

// FuzzArguments runs nfctl with random arguments, see tryArguments.
func FuzzArguments(f *testing.F) {
	nfctl := nstest.Build(f)
	dir := f.TempDir()
	for seed := range uint64(50) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		for range 20 {
			tryArguments(t, nfctl, dir, arguments(r))
		}
	})
}

// TestArgumentsNeverEnter holds that no random command line leaves its namespace.
func TestArgumentsNeverEnter(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for range 20_000 {
		for _, a := range arguments(r) {
			if strings.HasPrefix(a, "--netns") {
				t.Fatalf("%q", a)
			}
		}
	}
}
