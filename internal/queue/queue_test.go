package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"nfctl/internal/nl"
	"nfctl/internal/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// ports drops packets to a UDP or TCP port and accepts others.
type ports struct{ drop uint16 }

func (r *ports) Decide(p *Packet, d *Decision) {
	if _, dport, ok := p.Headers().Ports(); ok && dport == r.drop {
		d.Verdict, d.Rule = Drop, 1
	}
}
func (r *ports) Rules() int        { return 1 }
func (r *ports) Rule(int) RuleName { return RuleName{Text: fmt.Sprintf("drop dport %d", r.drop)} }

// deciding makes a decider of a function.
type deciding func(p *Packet, d *Decision)

func (f deciding) Decide(p *Packet, d *Decision) { f(p, d) }
func (deciding) Rules() int                      { return 1 }
func (deciding) Rule(int) RuleName               { return RuleName{Text: "function"} }

// open binds a queue in the calling thread's namespace; it is closed at the end.
func open(t testing.TB, c Config) *Queue {
	t.Helper()
	q, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// serve serves queues until stop is called, which waits for the end.
func serve(t testing.TB, e Ending, queues ...*Queue) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, e, queues...) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(nstest.Patience):
			t.Error("serve does not end")
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestDropPort(t *testing.T) {
	t.Parallel()
	ns := nstest.Enter(t)
	nstest.Need(t, "iptables", "ip6tables")
	q := open(t, Config{CopyRange: 128})
	q.SetDecider(&ports{drop: 22})
	stop := serve(t, Ending{}, q)
	for _, ipt := range []string{"iptables", "ip6tables"} {
		ns.Run(ipt, "-w", "-A", "OUTPUT", "-p", "tcp", "-m", "multiport", "--dports", "22,80", "-j", "NFQUEUE",
			"--queue-num", "0")
	}
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		ns.TCPEcho(host + ":22")
		ns.TCPEcho(host + ":80")
		c, err := ns.Dial("tcp", host+":80", nstest.Patience)
		if err != nil {
			t.Fatalf("port 80: %v", err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := c.Read(b); err != nil || string(b) != "hello" {
			t.Fatalf("port 80: %q %v", b, err)
		}
		if c, err := ns.Dial("tcp", host+":22", 300*time.Millisecond); err == nil {
			t.Errorf("port 22 of %s is reached: %v", host, c.RemoteAddr())
		}
	}
	stop()
	s := q.Stats()
	if s.Verdicts[KindDrop].Packets < 2 || s.Verdicts[KindAccept].Packets < 4 ||
		s.SocketLost+s.Vanished+s.Undecoded != 0 ||
		s.Rules[0].Packets != s.Verdicts[KindDrop].Packets || s.Default.Packets != s.Verdicts[KindAccept].Packets {
		t.Errorf("%+v", s)
	}
}

func TestHeldQueue(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	open(t, Config{Num: 7})
	_, err := Open(Config{Num: 7})
	var busy *BusyError
	if !errors.Is(err, ErrBusy) || !errors.As(err, &busy) || busy.Num != 7 || busy.Owner.PID != os.Getpid() {
		t.Fatalf("%v", err)
	}
	list, err := List()
	if err != nil || len(list) != 1 || list[0].Num != 7 || list[0].CopyMode != 1 || list[0].Owner.PID != os.Getpid() {
		t.Fatalf("%+v %v", list, err)
	}
}

func TestNotSupported(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	for _, c := range []Config{{Conntrack: true}, {Connmark: true}} {
		q, err := Open(c)
		if err == nil { // this kernel has the option
			if err := q.Unbind(); err != nil { // closing frees the queue a little later
				t.Error(err)
			}
			_ = q.Close()
			continue
		}
		var op *nl.OpError
		if !errors.Is(err, ErrNotSupported) || !errors.As(err, &op) ||
			op.Op != map[bool]string{true: "conntrack data", false: "connection marks"}[c.Conntrack] {
			t.Errorf("%v", err)
		}
	}
	q := open(t, Config{FailOpen: true, UIDGID: true, SecCtx: true})
	// Only the initial user namespace's root may force a size.
	if !q.GSO() || q.Buffer() < DefaultBuffer && os.Getenv("NFCTL_TEST_INNER") == "" {
		t.Errorf("GSO %v, buffer %d", q.GSO(), q.Buffer())
	}
	if err := q.Unbind(); err != nil {
		t.Error(err)
	}
}

func TestOlderThan(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]bool{
		"6.1.0-41-amd64": true, "6.10.14": true, "6.11.0-rc1": false, "6.11": false, "6.12.9+deb13-cloud-amd64": false,
		"6.18.5": false, "7.0": false, "10.1.2": false, "5.15.0": true, "": true, "next": true,
	} {
		if got := olderThan(release, 6, 11); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}
