package main

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/nstest"
)

// TestCtBeside deletes and lists while somebody else adds and removes: what the
// filter does not match stays, and the counts are right.
func TestCtBeside(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	const mine = 2000
	var b strings.Builder
	for i := range mine {
		fmt.Fprintf(&b, "-A -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport %d --dport 80 --mark %d\n", 1000+i, i%2)
	}
	loaded(t, b.String())
	var stop atomic.Bool
	ended := make(chan error, 1)
	go ns.Do(func() {
		ended <- func() error {
			c, err := ct.Dial()
			if err != nil {
				return err
			}
			defer c.Close()
			for n := uint16(0); !stop.Load(); n++ {
				f := &ct.Flow{Present: ct.HasTimeout, Timeout: 600}
				f.Orig = ct.Tuple{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
					Family: ct.IPv4, Proto: ct.UDP, Sport: n % 500, Dport: 53,
					Present: ct.TupleFamily | ct.TupleProto | ct.TupleSport | ct.TupleDport}
				f.Reply = f.Orig.Reverse()
				if err := c.Create(f, false); err != nil {
					return err
				}
				if err := c.Delete(f); err != nil { // somebody else deleted it
					return err
				}
			}
			return nil
		}()
	})
	for range 20 {
		out := good(t, "ct", "list", "-p", "tcp", "-o", "flow")
		if n := len(slices.Compact(sortedLines(out))); n != mine || strings.Count(out, "\n") != mine {
			t.Fatalf("%d flows, %d different ones, want %d", strings.Count(out, "\n"), n, mine)
		}
	}
	for i, c := range []struct {
		args, total string
	}{{"update|-p|tcp|--set|mark=0/0x2", "2000 flows updated"}, {"delete|-p|tcp|--mark|1", "1000 flows deleted"},
		{"delete|-p|tcp", "1000 flows deleted"}} {
		out, errs, status := call(append([]string{"ct"}, strings.Split(c.args, "|")...)...)
		if status != 0 || !strings.Contains(errs, c.total) || strings.Count(out, "\n") != []int{2000, 1000, 1000}[i] {
			t.Errorf("%s: status %d, %d lines, %s", c.args, status, strings.Count(out, "\n"), errs)
		}
	}
	stop.Store(true)
	if err := <-ended; err != nil {
		t.Errorf("the other process: %v", err)
	}
	if n := strings.TrimSpace(good(t, "ct", "count")); n != "0" {
		t.Errorf("%s flows are left", n)
	}
}

// TestCtAsks has a terminal's user asked before everything is deleted.
func TestCtAsks(t *testing.T) {
	t.Parallel()
	nf := nstest.Build(t)
	for _, c := range []struct {
		args, answer string
		status, left int
	}{
		{"flush", "n\n", exitFailed, 1}, {"flush", "\n", exitFailed, 1}, {"flush", "yes\n", 0, 0},
		{"delete", "n\n", exitFailed, 1}, {"delete", "y\n", 0, 0},
	} {
		ns := nstest.New(t)
		ns.Run(nf, "ct", "create", "tcp 10.0.0.1:1 > 10.0.0.2:2")
		master, slave := pty(t)
		cmd := exec.Command(nf, "ct", c.args)
		cmd.Stdin, cmd.Stderr = slave, slave
		if _, err := master.WriteString(c.answer); err != nil {
			t.Fatal(err)
		}
		var err error
		ns.Do(func() { err = cmd.Run() })
		said, buf := "", make([]byte, 4096)
		fd := int(master.Fd())
		_ = unix.SetNonblock(fd, true) // what was written is there
		for {
			n, err := unix.Read(fd, buf)
			if err != nil || n == 0 {
				break
			}
			said += string(buf[:n])
		}
		if cmd.ProcessState.ExitCode() != c.status || !strings.Contains(said, "[y/N]") {
			t.Errorf("%s, answer %q: %v: %s", c.args, c.answer, err, said)
		}
		nstest.Until(t, "the table is as it should be", func() bool {
			return strings.TrimSpace(ns.Run(nf, "ct", "count")) == strconv.Itoa(c.left)
		})
	}
}
