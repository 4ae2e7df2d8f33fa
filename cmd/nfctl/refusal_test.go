package main

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// TestQueueBesideRejects queues all that a host sends, by --attach output, while its
// firewall rejects: who is refused learns it as fast as without.
func TestQueueBesideRejects(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "iptables")
	a, b := nstest.New(t), nstest.New(t)
	nstest.Veth(t, a, b)
	b.Run("iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
	b.Run("iptables", "-A", "INPUT", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
	refused := func() time.Duration {
		t.Helper()
		began := time.Now()
		if _, err := a.Dial("tcp", "10.0.0.2:80", nstest.Patience); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("not refused: %v", err)
		}
		return time.Since(began)
	}
	without := refused()
	p := startQueue(t, b, "--attach", "output")
	if with := refused(); with > without+500*time.Millisecond {
		t.Errorf("refused after %v, without after %v", with, without)
	}
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d: %s", status, p.Stderr())
	}
}
