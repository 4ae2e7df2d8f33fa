package nstest

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// TestVeth sends both ways over a pair, by both families and protocols.
func TestVeth(t *testing.T) {
	t.Parallel()
	a, b := Enter(t), New(t)
	Veth(t, a, b)
	for _, addr := range []string{"10.0.0.2:0", "[fd00::2]:0"} {
		if got, ok := a.Ask(b.UDPEcho(addr), "hello", Patience); !ok || got != "hello" {
			t.Errorf("udp %s: %q, %v", addr, got, ok)
		}
		c, err := a.Dial("tcp", b.TCPEcho(addr), Patience)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("hello"))
		_ = c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(c); string(got) != "hello" {
			t.Errorf("tcp %s: %q, %v", addr, got, err)
		}
	}
}

// TestApart shows that a namespace does not reach another, nor the host's, and
// that the program's own stays where it was.
func TestApart(t *testing.T) {
	t.Parallel()
	main := func() string { s, _ := os.Readlink("/proc/self/ns/net"); return s }
	before := main()
	a, b := New(t), New(t)
	addr := a.UDPEcho("127.0.0.1:0")
	if _, ok := a.Ask(addr, "x", Patience); !ok {
		t.Error("no answer inside")
	}
	if _, ok := b.Ask(addr, "x", 100*time.Millisecond); ok {
		t.Error("an answer from another namespace")
	}
	inside := strings.TrimSpace(a.Run("readlink", "/proc/self/ns/net"))
	if inside == main() || inside == strings.TrimSpace(b.Run("readlink", "/proc/self/ns/net")) {
		t.Errorf("namespaces are the same: %s", inside)
	}
	if byPath, err := os.Readlink(a.Path()); err != nil || byPath != inside {
		t.Errorf("Path leads to %s, not %s", byPath, inside)
	}
	if main() != before {
		t.Error("the leading thread has moved")
	}
	if unix.Gettid() == unix.Getpid() {
		t.Error("a test runs on the leading thread")
	}
}

func TestProc(t *testing.T) {
	t.Parallel()
	n := New(t)
	p := n.Start("sh", "-c", "echo ready; read x; exit 3")
	if status := p.Wait(); status != 3 || p.Stdout() != "ready\n" {
		t.Errorf("status %d, output %q", status, p.Stdout())
	}
	p = n.Start("sleep", "1000")
	p.Signal(unix.SIGTERM)
	if status := p.Wait(); status != -1 {
		t.Errorf("status %d", status)
	}
	out, errOut, status := n.Exec("sh", "-c", "echo a; echo b >&2; exit 5")
	if out != "a\n" || errOut != "b\n" || status != 5 {
		t.Errorf("%q %q %d", out, errOut, status)
	}
}
