package nl_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
	"nfctl/internal/nstest"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv("NL_TEST_ENTER"); spec != "" {
		enterChild(spec)
	}
	os.Exit(nstest.Main(m))
}

const (
	ctNew, ctGet, ctDelete = 0, 1, 2 // IPCTNL_MSG_CT_
	groupNew               = 1       // NFNLGRP_CONNTRACK_NEW
	groupDestroy           = 3
)

// flow appends a message about the UDP flow 10.0.0.1:port > 10.0.0.2:53.
func flow(b []byte, msg uint8, flags uint16, port uint16) []byte {
	at := len(b)
	b = nl.AppendHeader(b, nl.Type(nl.SubsysCt, msg), flags, unix.AF_INET, 0)
	tuple := func(typ uint16, src, dst byte, sport, dport uint16) {
		var t, i int
		b, t = nl.Begin(b, typ)
		b, i = nl.Begin(b, 1)
		b = nl.AppendAttr(b, 1, []byte{10, 0, 0, src})
		b = nl.AppendAttr(b, 2, []byte{10, 0, 0, dst})
		b = nl.End(b, i)
		b, i = nl.Begin(b, 2)
		b = nl.AppendU8(b, 1, unix.IPPROTO_UDP)
		b = nl.AppendU16(b, 2, sport)
		b = nl.AppendU16(b, 3, dport)
		b = nl.End(b, i)
		b = nl.End(b, t)
	}
	tuple(1, 1, 2, port, 53)
	if msg == ctNew {
		tuple(2, 2, 1, 53, port)
		b = nl.AppendU32(b, 7, 1000)
	}
	return nl.Finish(b, at)
}

const create = nl.FlagCreate | nl.FlagExcl

// sport finds the original source port in a flow message.
func sport(m *nl.Msg) uint16 {
	for a := range nl.Attrs(m.Body()) {
		if a.Type != 1 {
			continue
		}
		for t := range nl.Attrs(a.Data) {
			if t.Type != 2 {
				continue
			}
			for p := range nl.Attrs(t.Data) {
				if p.Type == 2 {
					v, _ := p.U16()
					return v
				}
			}
		}
	}
	return 0
}

func dial(t testing.TB, c nl.Config) *nl.Conn {
	t.Helper()
	conn, err := nl.Dial(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// fill creates n flows with ports from 1.
func fill(t testing.TB, c *nl.Conn, n int) {
	t.Helper()
	b := c.NewBatch(100, func(i int, err error) {
		if err != nil {
			t.Errorf("create %d: %v", i, err)
		}
	})
	for i := range n {
		if err := b.Add(flow(nil, ctNew, create, uint16(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
}

func dump(t testing.TB, c *nl.Conn) map[uint16]bool {
	t.Helper()
	got := map[uint16]bool{}
	_, err := c.Dump(nl.AppendHeader(nil, nl.Type(nl.SubsysCt, ctGet), 0, unix.AF_INET, 0), func(m *nl.Msg) error {
		got[sport(m)] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRequests(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t, nl.Config{})
	if got := dump(t, c); len(got) != 0 {
		t.Fatalf("the table does not start empty: %v", got)
	}
	if err := c.Do(flow(nil, ctNew, create, 1)); err != nil {
		t.Fatal(err)
	}
	err := nl.Error("create", "flow 1", c.Do(flow(nil, ctNew, create, 1)))
	if !errors.Is(err, unix.EEXIST) || err.Error() != "flow 1: create: file exists" {
		t.Errorf("creating again: %v", err)
	}
	n := 0
	if err := c.Get(flow(nil, ctGet, 0, 1), func(m *nl.Msg) error {
		if n++; sport(m) != 1 || m.Family() != unix.AF_INET || m.Subsys() != nl.SubsysCt {
			t.Errorf("get: %+v", m)
		}
		return nil
	}); err != nil || n != 1 {
		t.Errorf("get: %d messages, %v", n, err)
	}
	if err := c.Get(flow(nil, ctGet, 0, 2), nil); !errors.Is(err, unix.ENOENT) {
		t.Errorf("get of none: %v", err)
	}
	if err := c.Do(flow(nil, ctDelete, 0, 1)); err != nil {
		t.Error(err)
	}
	if got := dump(t, c); len(got) != 0 {
		t.Errorf("after delete: %v", got)
	}
	// Two ways to be told in words: a request, and the end of a dump.
	err = c.Do(nl.Finish(nl.AppendAttr(flow(nil, ctGet, 0, 1), 7, []byte{1}), 0))
	var e *nl.OpError
	if !errors.As(err, &e) || e.Msg == "" || !strings.Contains(err.Error(), "("+e.Msg+")") {
		t.Errorf("no extended acknowledgement: %v", err)
	}
}

func TestDumpLarge(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t, nl.Config{})
	const n = 3000
	fill(t, c, n)
	if got := dump(t, c); len(got) != n {
		t.Errorf("dumped %d of %d", len(got), n)
	}
	seen := 0
	req := nl.AppendHeader(nil, nl.Type(nl.SubsysCt, ctGet), 0, unix.AF_INET, 0)
	if _, err := c.Dump(req, func(*nl.Msg) error {
		if seen++; seen == 10 {
			return nl.ErrStop
		}
		return nil
	}); err != nil || seen != 10 {
		t.Errorf("stopped dump: %d, %v", seen, err)
	}
	// What the stopped dump left does not get into the next request's way.
	if err := c.Do(flow(nil, ctDelete, 0, 1)); err != nil {
		t.Error(err)
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t, nl.Config{})
	fill(t, c, 250)
	// Deletes, of which every seventh is in vain, with gets between them.
	next, replies := 0, map[int]uint16{}
	want := func(i int) error {
		if i%7 == 0 {
			return unix.ENOENT
		}
		return nil
	}
	b := c.NewBatch(32, func(i int, err error) {
		if i != next {
			t.Errorf("outcome of %d, want %d", i, next)
		}
		next++
		if !errors.Is(err, want(i)) {
			t.Errorf("request %d: %v", i, err)
		}
		if _, ok := replies[i]; ok != (i%7 != 0 && i%2 == 1) {
			t.Errorf("request %d: reply %v", i, ok)
		}
	})
	b.Reply = func(i int, m *nl.Msg) { replies[i] = sport(m) }
	for i := range 250 {
		port, msg := uint16(i+1), uint8(ctDelete)
		if i%7 == 0 {
			port += 1000
		}
		if i%2 == 1 {
			msg = ctGet
		}
		if err := b.Add(flow(nil, msg, 0, port)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(); err != nil || next != 250 {
		t.Errorf("%d outcomes, %v", next, err)
	}
	for i, port := range replies {
		if int(port) != i+1 {
			t.Errorf("request %d got the reply for %d", i, port-1)
		}
	}
	if err := b.Flush(); err != nil {
		t.Errorf("empty flush: %v", err)
	}
}

// TestBatchOverrun lets the answers not fit the socket: nothing may count as done
// that could have been refused.
func TestBatchOverrun(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t, nl.Config{})
	if _, err := c.SetBuffer(2304); err != nil {
		t.Fatal(err)
	}
	var ok, unknown, refused int
	b := c.NewBatch(100, func(i int, err error) {
		switch {
		case err == nil:
			ok++
		case errors.Is(err, nl.ErrNoAnswer):
			unknown++
		case errors.Is(err, unix.ENOENT):
			refused++
		}
	})
	for i := range 100 {
		if err := b.Add(flow(nil, ctDelete, 0, uint16(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	err := b.Flush()
	if err == nil || ok != 0 || unknown == 0 || ok+unknown+refused != 100 {
		t.Errorf("ok %d, unknown %d, refused %d: %v", ok, unknown, refused, err)
	}
}

func TestReceiver(t *testing.T) {
	nstest.Enter(t)
	w := dial(t, nl.Config{Groups: group(groupNew) | group(groupDestroy), Buffer: 4 << 20})
	r, err := w.NewReceiver(16, 4096)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, nl.Config{})
	const n = 1000
	got := map[uint16]bool{}
	read := func(timeout time.Duration) int {
		k, err := r.Recv(timeout)
		if err != nil {
			t.Fatal(err)
		}
		for i := range k {
			b, whole := r.Datagram(i)
			if !whole {
				t.Error("a datagram was cut")
			}
			for {
				m, rest, ok := nl.NextMsg(b)
				if !ok {
					break
				}
				got[sport(&m)] = true
				b = rest
			}
		}
		return k
	}
	if k := read(0); k != 0 {
		t.Errorf("%d events before there was one", k)
	}
	start := time.Now()
	if k := read(30 * time.Millisecond); k != 0 || time.Since(start) < 30*time.Millisecond {
		t.Errorf("%d after %v", k, time.Since(start))
	}
	fill(t, c, n)
	for len(got) < n {
		if read(nstest.Patience) == 0 {
			t.Fatalf("%d of %d events", len(got), n)
		}
	}
	// Sparse ones: each is waited for in the poller or the kernel.
	for i := range 20 {
		go func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			_ = c.Do(flow(nil, ctNew, create, uint16(2000+i)))
		}()
		if read(-1) == 0 {
			t.Fatal("woken without cause")
		}
	}
	if d, err := w.Drops(); d != 0 || err != nil {
		t.Errorf("drops %d, %v", d, err)
	}
	req := flow(nil, ctDelete, 0, 9999)
	if a := testing.AllocsPerRun(100, func() { _ = w.Send(req); _, _ = r.Recv(-1) }); a != 0 {
		t.Errorf("Send and Recv allocate %v", a)
	}
	if a := testing.AllocsPerRun(100, func() { _, _ = r.Recv(0) }); a != 0 {
		t.Errorf("Recv(0) allocates %v", a)
	}
	if a := testing.AllocsPerRun(5, func() { _, _ = r.Recv(15 * time.Millisecond) }); a != 0 {
		t.Errorf("Recv(15ms) allocates %v", a)
	}
}

func TestReceiverEnds(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t, nl.Config{})
	r, err := c.NewReceiver(4, 4096)
	if err != nil {
		t.Fatal(err)
	}
	// Woken while in the kernel, in the poller, and before waiting.
	for _, after := range []time.Duration{0, 3 * time.Millisecond, 40 * time.Millisecond} {
		time.AfterFunc(after, r.Wake)
		if n, err := r.Recv(-1); n != 0 || err != nil {
			t.Errorf("woken after %v: %d, %v", after, n, err)
		}
	}
	r.Wake()
	if n, err := r.Recv(-1); n != 0 || err != nil {
		t.Errorf("woken before: %d, %v", n, err)
	}
	// A request in spite of a Wake, which Recv still sees afterwards.
	r.Wake()
	if err := c.Do(flow(nil, ctNew, create, 1)); err != nil {
		t.Error(err)
	}
	if n, err := r.Recv(-1); n != 0 || err != nil {
		t.Errorf("woken before a request: %d, %v", n, err)
	}
	for _, after := range []time.Duration{0, 40 * time.Millisecond} {
		c := dial(t, nl.Config{})
		r, err := c.NewReceiver(4, 4096)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(after, func() { _ = c.Close() })
		if n, err := r.Recv(-1); n != 0 || !errors.Is(err, os.ErrClosed) {
			t.Errorf("closed after %v: %d, %v", after, n, err)
		}
		if _, err := r.Recv(0); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Recv on a closed socket: %v", err)
		}
		if err := c.Do(flow(nil, ctGet, 0, 1)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Do on a closed socket: %v", err)
		}
		if _, err := c.Read(make([]byte, 10)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Read on a closed socket: %v", err)
		}
		if _, err := c.Drops(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Drops on a closed socket: %v", err)
		}
	}
}

// TestReceiverGC collects garbage while a receiver waits in the kernel: that must
// not wait for the receiver.
func TestReceiverGC(t *testing.T) {
	nstest.Enter(t)
	w := dial(t, nl.Config{Groups: group(groupNew)})
	r, err := w.NewReceiver(4, 4096)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = r.Recv(12 * time.Millisecond) // nearly always in the kernel
			}
		}
	})
	start := time.Now()
	for range 20 {
		runtime.GC()
	}
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("20 collections took %v", d)
	}
	close(stop)
	wg.Wait()
}

func TestOverrun(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	w := dial(t, nl.Config{Groups: group(groupNew)})
	if n, err := w.SetBuffer(8 << 10); n != 8<<10 || err != nil {
		t.Fatalf("SetBuffer: %d, %v", n, err)
	}
	r, err := w.NewReceiver(16, 4096)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, dial(t, nl.Config{}), 500)
	if _, err := r.Recv(-1); !errors.Is(err, nl.ErrOverrun) || !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("first Recv: %v", err)
	}
	seen := 0
	for {
		n, err := r.Recv(0)
		if err != nil {
			t.Fatal(err)
		}
		if seen += n; n == 0 {
			break
		}
	}
	if d, err := w.Drops(); err != nil || seen == 0 || int(d)+seen != 500 {
		t.Errorf("seen %d, dropped %d, made 500: %v", seen, d, err)
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	w := dial(t, nl.Config{Groups: group(groupNew)})
	c := dial(t, nl.Config{})
	if err := c.Do(flow(nil, ctNew, create, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Read(make([]byte, 20)); !errors.Is(err, nl.ErrTruncated) {
		t.Errorf("Read: %v", err)
	}
	r, err := w.NewReceiver(1, 64)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Do(flow(nil, ctNew, create, 2)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Recv(-1); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	b, whole := r.Datagram(0)
	if _, _, ok := nl.NextMsg(b); whole || ok || len(b) != 64 {
		t.Errorf("datagram: %d bytes, whole %v, message %v", len(b), whole, ok)
	}
	before := bytes.Clone(b)
	if m, ok := nl.Cut(b); !ok || sport(&m) != 0 || m.Family() != unix.AF_INET || !bytes.Equal(b, before) {
		t.Errorf("cut message: %+v, %v", m, ok)
	}
}

func TestSetBuffer(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t, nl.Config{})
	if n, err := c.SetBuffer(8 << 20); n != 8<<20 || err != nil {
		if !errors.Is(err, os.ErrPermission) || n == 0 {
			t.Errorf("%d, %v", n, err)
		}
	}
	if n, err := c.SetBuffer(1<<31 - 1); n < 1<<29 || err == nil {
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("more than there can be: %d, %v", n, err)
		}
	}
	for _, err := range []error{c.SetReliable(), c.SetNoENOBUFS(), c.JoinGroup(groupNew), c.LeaveGroup(groupNew)} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := c.JoinGroup(1 << 20); err == nil {
		t.Error("joined a group that does not exist")
	}
	if c.PortID() == 0 {
		t.Error("no port id")
	}
}

// TestOther keeps what Do finds beside its answer.
func TestOther(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t, nl.Config{Groups: group(groupNew)})
	fill(t, dial(t, nl.Config{}), 10)
	var other []uint16
	c.Other = func(m *nl.Msg) { other = append(other, sport(m)) }
	if err := c.Do(flow(nil, ctDelete, 0, 1)); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(other) != "[1 2 3 4 5 6 7 8 9 10]" {
		t.Errorf("other messages: %v", other)
	}
}

// TestCommit makes a table and a chain, and sees all or nothing take effect.
func TestCommit(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t, nl.Config{})
	table := func(name string) []byte { // NFT_MSG_NEWTABLE, NFTA_TABLE_NAME
		return nl.AppendString(nl.AppendHeader(nil, nl.Type(nl.SubsysTables, 0), create, unix.AF_INET, 0), 1, name)
	}
	chain := func(table string) []byte { // NFT_MSG_NEWCHAIN
		b := nl.AppendHeader(nil, nl.Type(nl.SubsysTables, 3), create, unix.AF_INET, 0)
		return nl.AppendString(nl.AppendString(b, 1, table), 3, "c")
	}
	tables := func() (n int) {
		if _, err := c.Dump(nl.AppendHeader(nil, nl.Type(nl.SubsysTables, 1), 0, unix.AF_INET, 0), func(*nl.Msg) error {
			n++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if i, err := c.Commit(nl.SubsysTables, table("a"), chain("none")); i != 1 || !errors.Is(err, unix.ENOENT) {
		t.Errorf("refused: %d, %v", i, err)
	}
	if n := tables(); n != 0 {
		t.Errorf("%d tables after a refused transaction", n)
	}
	if i, err := c.Commit(nl.SubsysTables, table("a"), chain("a")); i != -1 || err != nil {
		t.Errorf("%d, %v", i, err)
	}
	if n := tables(); n != 1 {
		t.Errorf("%d tables", n)
	}
	if i, err := c.Commit(13, table("a")); i != -1 || err == nil {
		t.Errorf("no such subsystem: %d, %v", i, err)
	}
}

func TestInFreshNamespace(t *testing.T) {
	t.Parallel()
	nstest.Enter(t)
	c := dial(t, nl.Config{})
	fill(t, c, 3)
	ran := errors.New("ran")
	err := nl.InFreshNamespace(func() error {
		if got := dump(t, dial(t, nl.Config{})); len(got) != 0 {
			t.Errorf("the fresh namespace has flows: %v", got)
		}
		return ran
	})
	if !errors.Is(err, ran) {
		t.Errorf("result: %v", err)
	}
	if got := dump(t, dial(t, nl.Config{})); len(got) != 3 {
		t.Errorf("this thread has left its namespace: %v", got)
	}
}

func TestOpenNamespace(t *testing.T) {
	t.Parallel()
	n := nstest.New(t)
	for _, spec := range []string{n.Path(), fmt.Sprint(os.Getpid()), "/proc/self/ns/net"} {
		f, err := nl.OpenNamespace(spec)
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		_ = f.Close()
	}
	for spec, want := range map[string]string{
		"nfctl-no-such-name": `network namespace "nfctl-no-such-name": open: no such name in /run/netns: no such file or directory`,
		"2147483647":         `network namespace "2147483647": open: no such process: no such file or directory`,
		"/no/such/path":      `network namespace "/no/such/path": open: no such file or directory`,
		"/etc/passwd":        `network namespace "/etc/passwd": open: not a network namespace`,
		"/proc/self/ns/mnt":  `network namespace "/proc/self/ns/mnt": open: not a network namespace`,
		"":                   `network namespace "": open: not a name, process id or path`,
		"..":                 `network namespace "..": open: not a name, process id or path`,
	} {
		if f, err := nl.OpenNamespace(spec); err == nil || err.Error() != want {
			t.Errorf("%q: %v, %v", spec, f, err)
		}
	}
}

// enterChild is TestEnterNamespace's program: it tells where it is afterwards.
func enterChild(spec string) {
	if err := nl.EnterNamespace(spec, os.Args); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	leader, _ := os.Readlink("/proc/self/ns/net")
	task, _ := os.ReadDir("/proc/self/task")
	for _, e := range task {
		if l, err := os.Readlink("/proc/self/task/" + e.Name() + "/ns/net"); err == nil && l != leader {
			fmt.Println("a thread is elsewhere:", l)
		}
	}
	fmt.Println(leader, os.Getpid(), os.Args[1:], os.Getenv("NFCTL_NETNS"))
	os.Exit(0)
}

func TestEnterNamespace(t *testing.T) {
	t.Parallel()
	from, to := nstest.New(t), nstest.New(t)
	there, _ := os.Readlink(to.Path())
	run := func(spec, marker string) (string, int) {
		c := exec.Command("/proc/self/exe", "one", "two words")
		c.Path = "/proc/" + fmt.Sprint(os.Getpid()) + "/exe"
		c.Env = append(os.Environ(), "NL_TEST_ENTER="+spec, "NFCTL_NETNS="+marker)
		p := from.StartCmd(c)
		p.Wait()
		return p.Stdout(), p.Cmd.Process.Pid
	}
	for _, marker := range []string{"", "1:2 x", "garbage"} {
		out, pid := run(to.Path(), marker)
		if want := fmt.Sprintf("%s %d [one two words] %s\n", there, pid, marker); out != want {
			t.Errorf("entered: %q, want %q", out, want)
		}
	}
	// Nothing in the environment says that it is there already.
	var st unix.Stat_t
	if err := unix.Stat(from.Path(), &st); err != nil {
		t.Fatal(err)
	}
	marker := fmt.Sprintf("%d:%d %s", st.Dev, st.Ino, to.Path())
	if out, _ := run(to.Path(), marker); !strings.HasPrefix(out, there+" ") {
		t.Errorf("with NFCTL_NETNS=%s: %q, want %s", marker, out, there)
	}
	here, _ := os.Readlink(from.Path())
	if out, pid := run(from.Path(), ""); out != fmt.Sprintf("%s %d [one two words] \n", here, pid) {
		t.Errorf("where it is already: %q", out)
	}
	if out, _ := run("no-such-name", ""); !strings.HasPrefix(out, `error: network namespace "no-such-name": open:`) {
		t.Errorf("no such name: %q", out)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	ne := binary.NativeEndian
	msg := func(typ, flags uint16, data ...[]byte) nl.Msg {
		return nl.Msg{Type: typ, Flags: flags, Data: bytes.Join(data, nil)}
	}
	code := func(n int32) []byte { return ne.AppendUint32(nil, uint32(n)) }
	req := flow(nil, ctGet, 0, 1)
	words := nl.AppendString(nil, 1, "the words")
	least := uint32(1 << 31) // as an int, which may have 32 bits
	for name, c := range map[string]struct {
		m    nl.Msg
		done bool
		want string
	}{
		"ack":            {msg(unix.NLMSG_ERROR, 0, code(0), req[:16]), true, ""},
		"error":          {msg(unix.NLMSG_ERROR, 0, code(-2), req), true, "no such file or directory"},
		"capped, words":  {msg(unix.NLMSG_ERROR, unix.NLM_F_CAPPED|unix.NLM_F_ACK_TLVS, code(-2), req[:16], words), true, "no such file or directory (the words)"},
		"whole, words":   {msg(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, code(-2), req, words), true, "no such file or directory (the words)"},
		"length lies":    {msg(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, code(-2), []byte{255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, words), true, "no such file or directory (the words)"},
		"short":          {msg(unix.NLMSG_ERROR, 0, []byte{1, 2}), true, "no answer from the kernel"},
		"no header":      {msg(unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, code(-1), []byte{1}), true, "operation not permitted"},
		"done":           {msg(unix.NLMSG_DONE, 0, code(0)), true, ""},
		"done, empty":    {msg(unix.NLMSG_DONE, 0), true, ""},
		"done, error":    {msg(unix.NLMSG_DONE, unix.NLM_F_ACK_TLVS, code(-22), words), true, "invalid argument (the words)"},
		"least number":   {msg(unix.NLMSG_ERROR, 0, code(-1<<31), req), true, "errno " + strconv.Itoa(int(least))},
		"something else": {msg(0x100, 0, code(-1)), false, ""},
	} {
		err, done := c.m.Status()
		if got := fmt.Sprint(err); done != c.done || (c.want == "") != (err == nil) || err != nil && got != c.want {
			t.Errorf("%s: %v, %v", name, err, done)
		}
	}
}

func TestError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want string
	}{
		{nl.Error("bind", "queue 0", unix.EPERM), "queue 0: bind: operation not permitted"},
		{nl.Error("bind", "queue 0", &nl.OpError{Err: unix.EPERM, Msg: "why"}), "queue 0: bind: operation not permitted (why)"},
		{nl.Error("open", "watch", nl.Error("bind", "queue 0", unix.EPERM)), "watch: open: queue 0: bind: operation not permitted"},
		{&nl.OpError{Err: unix.EPERM}, "operation not permitted"},
	} {
		if c.err.Error() != c.want || !errors.Is(c.err, os.ErrPermission) || !errors.Is(c.err, syscall.EPERM) {
			t.Errorf("%q, want %q", c.err, c.want)
		}
	}
	if nl.Error("a", "b", nil) != nil {
		t.Error("an error of nil")
	}
}

// TestAppend reads back what was appended, and finds all of it aligned.
func TestAppend(t *testing.T) {
	b := nl.AppendHeader([]byte("keep"), nl.Type(nl.SubsysQueue, 2), nl.FlagAck, unix.AF_INET6, 0x1234)
	b = nl.AppendU8(b, 1, 0x11)
	b = nl.AppendU16(b, 2, 0x2233)
	b = nl.AppendU32(b, 3, 0x44556677)
	b = nl.AppendU64(b, 4, 0x8899aabbccddeeff)
	b = nl.AppendString(b, 5, "text")
	b = nl.AppendAttr(b, 6, nil)
	b, at := nl.Begin(b, 7)
	b = nl.AppendAttr(b, 8, []byte{1, 2, 3, 4, 5})
	b = nl.End(b, at)
	b = nl.AppendAttr(b, 9, make([]byte, 70000))
	b = nl.Finish(b, 4)
	if !bytes.HasPrefix(b, []byte("keep")) || len(b)%4 != 0 {
		t.Fatal("not appended")
	}
	m, rest, ok := nl.NextMsg(b[4:])
	if !ok || rest != nil || m.ResID() != 0x1234 || m.Family() != unix.AF_INET6 || m.Msg() != 2 || m.Subsys() != 3 ||
		m.Flags != unix.NLM_F_REQUEST|unix.NLM_F_ACK {
		t.Fatalf("%+v", m)
	}
	var got []string
	left := m.Body()
	for a, rest, ok := nl.NextAttr(left); ok; a, rest, ok = nl.NextAttr(left) {
		left = rest
		switch a.Type {
		case 1:
			v, ok := a.U8()
			got = append(got, fmt.Sprintf("%x %v", v, ok))
		case 2:
			v, ok := a.U16()
			_, more := a.U32()
			got = append(got, fmt.Sprintf("%x %v %v", v, ok, more))
		case 3:
			v, ok := a.U32()
			_, more := a.U64()
			got = append(got, fmt.Sprintf("%x %v %v", v, ok, more))
		case 4:
			v, ok := a.U64()
			got = append(got, fmt.Sprintf("%x %v", v, ok))
		case 5:
			got = append(got, fmt.Sprintf("%s %d", a.Text(), len(a.Data)))
		case 6:
			_, ok := a.U8()
			got = append(got, fmt.Sprint(len(a.Data), ok))
		case 7:
			in, rest, ok := nl.NextAttr(a.Data)
			_, _, more := nl.NextAttr(rest)
			got = append(got, fmt.Sprint(ok, in.Type, in.Data, more, len(rest) > 0))
		case 9:
			got = append(got, fmt.Sprint(len(a.Data)))
		}
	}
	want := "11 true;2233 true false;44556677 true false;8899aabbccddeeff true;text 5;0 false;true 8 [1 2 3 4 5] " +
		"false false;65531"
	if s := strings.Join(got, ";"); s != want || len(left) > 0 {
		t.Errorf("got  %s\nwant %s\nmalformed %v", s, want, len(left) > 0)
	}
	if n := testing.AllocsPerRun(100, func() {
		for a := range nl.Attrs(m.Body()) {
			_, _ = a.U32()
		}
	}); n != 0 {
		t.Errorf("reading allocates %v", n)
	}
}

// FuzzMessages: whatever a datagram holds, reading it ends, stays inside it and
// leaves it as it was.
func FuzzMessages(f *testing.F) {
	f.Add(flow(flow(nil, ctNew, create, 1), ctGet, 0, 2))
	f.Add(flow(nil, ctGet, 0, 1)[:30])
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 254, 255, 255, 255})
	f.Add([]byte{24, 0, 0, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 254, 255, 255, 255, 3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		var walk func(b []byte, depth int)
		walk = func(attrs []byte, depth int) {
			total := 0
			for a := range nl.Attrs(attrs) {
				if total += 4 + len(a.Data); total > len(b) {
					t.Fatal("attributes longer than the datagram")
				}
				_, _ = a.U8()
				_, _ = a.U16()
				_, _ = a.U32()
				_, _ = a.U64()
				_ = a.Text()
				if depth < 8 {
					walk(a.Data, depth+1)
				}
			}
		}
		read := func(m *nl.Msg) {
			_, _ = m.Status()
			_, _ = m.Family(), m.ResID()
			walk(m.Body(), 0)
		}
		for rest := b; ; {
			m, next, ok := nl.NextMsg(rest)
			if !ok {
				if m, ok = nl.Cut(rest); ok {
					read(&m)
				}
				break
			}
			if len(next) >= len(rest) {
				t.Fatal("no progress")
			}
			read(&m)
			rest = next
		}
		if !bytes.Equal(b, before) {
			t.Fatal("reading changed the datagram")
		}
	})
}

func BenchmarkReceiver(b *testing.B) {
	nstest.Enter(b)
	w := dial(b, nl.Config{Groups: group(groupNew) | group(groupDestroy), Buffer: 16 << 20})
	r, err := w.NewReceiver(64, 4096)
	if err != nil {
		b.Fatal(err)
	}
	c := dial(b, nl.Config{})
	batch := c.NewBatch(100, nil)
	b.ReportAllocs()
	for n := 0; n < b.N; {
		b.StopTimer()
		for i := range 1000 {
			_ = batch.Add(flow(nil, ctNew, create, uint16(i+1)))
		}
		for i := range 1000 {
			_ = batch.Add(flow(nil, ctDelete, 0, uint16(i+1)))
		}
		if err := batch.Flush(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		for {
			k, err := r.Recv(0)
			if err != nil {
				b.Fatal(err)
			}
			if n += k; k == 0 {
				break
			}
			for i := range k {
				d, _ := r.Datagram(i)
				m, _, _ := nl.NextMsg(d)
				_ = sport(&m)
			}
		}
	}
}

// group is the bit in Config.Groups of a multicast group (NFNLGRP_…, from 1).
func group(n uint) uint32 { return 1 << (n - 1) }
