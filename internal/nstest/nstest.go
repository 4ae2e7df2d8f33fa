// Package nstest gives every test its own network namespace, so that tests run
// in parallel on the real kernel and never touch the host's tables. It is used
// by tests only.
package nstest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long the package waits for something that ought to happen:
// long, for machines that do other things too.
const Patience = 20 * time.Second

// inner marks a test binary that was executed anew in a user namespace.
const inner = "NFCTL_TEST_INNER"

// The leading thread stays in its namespace, as it cannot end and /proc/self
// shows its: with the main goroutine locked to it no test runs there.
func init() { runtime.LockOSThread() }

// Main runs m and returns the status for os.Exit. Without root it executes the
// test binary anew in a new user and network namespace, where it holds
// CAP_NET_ADMIN over that namespace only.
//
//	func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }
func Main(m interface{ Run() int }) int {
	defer func() {
		if built.dir != "" {
			_ = os.RemoveAll(built.dir)
		}
	}()
	if os.Geteuid() == 0 || os.Getenv(inner) != "" {
		return m.Run()
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), inner+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	var exit *exec.ExitError
	switch err := c.Run(); {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		return m.Run() // no user namespaces here: the tests skip, or fail if required
	}
	return 0
}

// Unshare moves the calling goroutine's thread into a fresh namespace, whose
// loopback is up, for good: the thread stays locked and ends with the goroutine.
// Sockets it opens and processes it starts are inside; goroutines it starts are
// not. Enter is this for tests.
func Unshare() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return loopbackUp()
}

// loopbackUp sets lo up, and spares all addresses made later the seconds of
// duplicate address detection.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return os.NewSyscallError("set lo up", err)
	}
	for _, c := range []string{"all", "default"} {
		// Without IPv6 there is nothing to set.
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+c+"/accept_dad", []byte("0"), 0)
	}
	return nil
}

// A NS is a network namespace of a test.
type NS struct {
	t testing.TB
	f *os.File
}

// Dial's UDP sockets take one port after the other of those between what tests
// choose and what the kernel does.
const (
	firstPort = 20000
	ports     = 32768 - firstPort
)

var dialed atomic.Uint32

// Enter moves the test, which must call it from its own goroutine, into a fresh
// namespace: see Unshare. Where that is not permitted the test is skipped, or
// fails with NFCTL_TEST_NETNS=require in the environment. Subtests run on
// goroutines of their own, so each calls Enter itself.
func Enter(t testing.TB) *NS {
	t.Helper()
	if err := Unshare(); err != nil {
		cannot(t, err)
	}
	return Here(t)
}

func cannot(t testing.TB, err error) {
	t.Helper()
	Lack(t, fmt.Errorf("no network namespace: %w", err))
}

// Lack skips the test, which the machine lacks something for; with
// NFCTL_TEST_NETNS=require it fails.
func Lack(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("NFCTL_TEST_NETNS") == "require" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// Here returns the calling thread's namespace.
func Here(t testing.TB) *NS {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &NS{t, f}
}

// New makes a fresh namespace and leaves the test where it is.
func New(t testing.TB) *NS {
	t.Helper()
	var f *os.File
	errc := make(chan error)
	go func() {
		err := Unshare()
		if err == nil {
			f, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}
		errc <- err
	}()
	if err := <-errc; err != nil {
		cannot(t, err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &NS{t, f}
}

// Path returns a path to the namespace that other processes can use as long as
// the test runs.
func (n *NS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.f.Fd()) }

// Do runs f on a thread inside the namespace and waits for it. f may end the
// test (t.Fatal).
func (n *NS) Do(f func()) {
	n.t.Helper()
	var err error
	ended := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		if err = unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err == nil {
			f()
			ended = true
		}
	}()
	<-done
	if err != nil {
		n.t.Fatalf("enter namespace: %v", err)
	}
	if !ended {
		n.t.FailNow()
	}
}

// Since reports whether the kernel is of a version or later, and says when it is not.
func Since(t testing.TB, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	var x, y int
	if _, err := fmt.Sscanf(release, "%d.%d", &x, &y); err != nil {
		t.Fatal(err)
	}
	since := x > major || x == major && y >= minor
	if !since {
		t.Logf("Linux %s is older than %d.%d", release, major, minor)
	}
	return since
}

// EventsAuto reports whether the kernel takes 2 for nf_conntrack_events, by which
// flows send events that begin while somebody listens; 5.10 does not.
func (n *NS) EventsAuto() (ok bool) {
	n.t.Helper()
	const name = "/proc/thread-self/root/proc/sys/net/netfilter/nf_conntrack_events"
	n.Do(func() {
		was, err := os.ReadFile(name)
		if err != nil {
			n.t.Fatal(err)
		}
		if ok = os.WriteFile(name, []byte("2"), 0) == nil; ok {
			err = os.WriteFile(name, was, 0)
		}
		if err != nil {
			n.t.Fatal(err)
		}
	})
	return ok
}

// Run runs a program inside and returns its standard output. The test ends when
// the program fails.
func (n *NS) Run(name string, args ...string) string {
	n.t.Helper()
	return n.run(nil, name, args...)
}

func (n *NS) run(extra []*os.File, name string, args ...string) string {
	n.t.Helper()
	c := exec.Command(name, args...)
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr, c.ExtraFiles = &out, &errOut, extra
	var err error
	n.Do(func() { err = c.Run() })
	if err != nil {
		n.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.Bytes(), errOut.Bytes())
	}
	return out.String()
}

// Exec runs a program inside and returns what it wrote and its exit status, -1
// when it could not be run or ended by a signal.
func (n *NS) Exec(name string, args ...string) (stdout, stderr string, status int) {
	n.t.Helper()
	p := n.Start(name, args...)
	status = p.Wait()
	return p.Stdout(), p.Stderr(), status
}

// Need skips the test when a program is not installed; with
// NFCTL_TEST_NETNS=require it fails.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Lack(t, err)
		}
	}
}

// A Proc is a program that runs beside the test.
type Proc struct {
	Cmd      *exec.Cmd
	t        testing.TB
	out, err buffer
	done     chan struct{}
}

// buffer collects what a program writes, for reading while it runs.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Start starts a program inside. It is killed when the test ends.
func (n *NS) Start(name string, args ...string) *Proc {
	n.t.Helper()
	return n.StartCmd(exec.Command(name, args...))
}

// StartCmd is Start for a command with an environment or standard input.
func (n *NS) StartCmd(c *exec.Cmd) *Proc {
	n.t.Helper()
	p := &Proc{Cmd: c, t: n.t, done: make(chan struct{})}
	c.Stdout, c.Stderr = &p.out, &p.err
	c.WaitDelay = Patience // a grandchild that holds the pipe does not hold the test
	if c.Env == nil {
		c.Env = os.Environ()
	}
	// Under the race detector every process otherwise waits a second at its end.
	c.Env = append(c.Env, "GORACE=atexit_sleep_ms=0")
	var err error
	n.Do(func() { err = c.Start() })
	if err != nil {
		n.t.Fatalf("%s: %v", strings.Join(c.Args, " "), err)
	}
	go func() {
		_ = c.Wait()
		close(p.done)
	}()
	n.t.Cleanup(func() {
		_ = c.Process.Kill()
		<-p.done
		if n.t.Failed() {
			n.t.Logf("%s: %v\nstdout:\n%sstderr:\n%s", strings.Join(c.Args, " "), c.ProcessState, p.Stdout(),
				p.Stderr())
		}
	})
	return p
}

// Stdout returns what the program has written so far.
func (p *Proc) Stdout() string { return p.out.String() }

// Stderr returns what the program has written so far.
func (p *Proc) Stderr() string { return p.err.String() }

// Signal sends the program a signal.
func (p *Proc) Signal(s os.Signal) {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %s: %v", p.Cmd.Args[0], err)
	}
}

// Ended reports whether the program has ended.
func (p *Proc) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Wait waits for the program's end and returns its exit status, -1 after a
// signal. A program that does not end fails the test.
func (p *Proc) Wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(Patience):
		p.t.Fatalf("%s does not end\nstdout:\n%sstderr:\n%s", strings.Join(p.Cmd.Args, " "), p.Stdout(), p.Stderr())
	}
	return p.Cmd.ProcessState.ExitCode()
}

// WaitOutput waits until the program has written text, on either output.
func (p *Proc) WaitOutput(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(2 * time.Millisecond) {
		ended := p.Ended()
		if strings.Contains(p.Stdout(), text) || strings.Contains(p.Stderr(), text) {
			return
		}
		if ended || time.Now().After(deadline) {
			p.t.Fatalf("%s did not write %q\nstdout:\n%sstderr:\n%s", strings.Join(p.Cmd.Args, " "), text, p.Stdout(),
				p.Stderr())
		}
	}
}

// Until polls f until it is true, and fails the test when it does not become so.
func Until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v: %s", Patience, what)
		}
	}
}

// WaitFile waits until a file exists.
func WaitFile(t testing.TB, path string) {
	t.Helper()
	Until(t, path+" appears", func() bool { _, err := os.Stat(path); return err == nil })
}

// Veth joins two namespaces by a pair of interfaces, veth0 in both, with
// 10.0.0.1/24 and fd00::1/64 in a, 10.0.0.2/24 and fd00::2/64 in b. It needs ip(8).
func Veth(t testing.TB, a, b *NS) {
	t.Helper()
	Need(t, "ip")
	a.run([]*os.File{b.f}, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns",
		"/proc/self/fd/3")
	for i, n := range []*NS{a, b} {
		n.Run("ip", "addr", "add", fmt.Sprintf("10.0.0.%d/24", i+1), "dev", "veth0")
		n.Run("ip", "addr", "add", fmt.Sprintf("fd00::%d/64", i+1), "dev", "veth0", "nodad")
		n.Run("ip", "link", "set", "veth0", "up")
	}
	for _, n := range []*NS{a, b} { // the carrier comes with the second end's
		Until(t, "veth0 is up", func() bool {
			return strings.Contains(n.Run("ip", "-o", "link", "show", "dev", "veth0"), "LOWER_UP")
		})
	}
}

// UDPEcho sends every datagram back to its sender, from a socket inside at addr
// ("127.0.0.1:0" for a free port), and returns the socket's address.
func (n *NS) UDPEcho(addr string) string {
	n.t.Helper()
	c := n.ListenUDP(addr)
	go func() {
		b := make([]byte, 64<<10)
		for {
			l, from, err := c.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = c.WriteTo(b[:l], from)
			}
		}
	}()
	return c.LocalAddr().String()
}

// ListenUDP opens a UDP socket inside, closed when the test ends. The address
// must be a literal one.
func (n *NS) ListenUDP(addr string) net.PacketConn {
	n.t.Helper()
	var c net.PacketConn
	var err error
	n.Do(func() { c, err = net.ListenPacket("udp", addr) })
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = c.Close() })
	return c
}

// ListenTCP listens inside; closed when the test ends.
func (n *NS) ListenTCP(addr string) net.Listener {
	n.t.Helper()
	var l net.Listener
	var err error
	n.Do(func() { l, err = net.Listen("tcp", addr) })
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = l.Close() })
	return l
}

// TCPEcho accepts connections inside, sends back what comes, and returns the
// listening address.
func (n *NS) TCPEcho(addr string) string {
	n.t.Helper()
	l := n.ListenTCP(addr)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 16<<10)
				for {
					i, err := c.Read(b)
					if _, werr := c.Write(b[:i]); err != nil || werr != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// Dial connects from inside to a literal address, waiting at most timeout. The
// connection is closed when the test ends. UDP sockets have ports of their own: the
// kernel chooses by chance, now and then one whose old flow is in the table yet.
func (n *NS) Dial(network, addr string, timeout time.Duration) (net.Conn, error) {
	n.t.Helper()
	d := net.Dialer{Timeout: timeout}
	var c net.Conn
	err := error(unix.EADDRINUSE)
	for try := 0; try < 100 && errors.Is(err, unix.EADDRINUSE); try++ {
		if network == "udp" {
			d.LocalAddr = &net.UDPAddr{Port: firstPort + int(dialed.Add(1)%ports)}
		}
		n.Do(func() { c, err = d.Dial(network, addr) })
	}
	if err == nil {
		n.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// Ask sends a datagram from inside to addr and returns the answer; false when
// none came in time.
func (n *NS) Ask(addr, text string, timeout time.Duration) (string, bool) {
	n.t.Helper()
	c, err := n.Dial("udp", addr, timeout)
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(timeout))
	if _, err := c.Write([]byte(text)); err != nil {
		return "", false
	}
	b := make([]byte, 64<<10)
	l, err := c.Read(b)
	return string(b[:l]), err == nil
}

var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// Build returns the path of the nfctl binary: NFCTL_BIN's, else one built once
// in this run of the tests.
func Build(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if p := os.Getenv("NFCTL_BIN"); p != "" {
			built.path, built.err = filepath.Abs(p)
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "nfctl-test-"); built.err != nil {
			return
		}
		built.path = filepath.Join(built.dir, "nfctl")
		// From its own module: another one that uses this package links other versions.
		dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "nfctl").Output()
		if err != nil {
			built.err = fmt.Errorf("go list -m nfctl: %w", err)
			return
		}
		c := exec.Command("go", "build", "-o", built.path, "nfctl/cmd/nfctl")
		c.Dir = strings.TrimSpace(string(dir))
		c.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released
		if out, err := c.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// At is the namespace at a path, as /proc/PID/ns/net.
func At(t testing.TB, path string) *NS {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &NS{t, f}
}
