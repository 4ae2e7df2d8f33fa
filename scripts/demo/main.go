// Demo shows nfctl at work in a network namespace of its own: two servers on
// ports 22 and 80, nfctl dropping port 22, and a client that tries both. It
// needs root or user namespaces, and no other program.
//
//	go run ./scripts/demo ./nfctl
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inside marks the process that already stands in the demo's namespace.
const inside = "NFCTL_DEMO_INSIDE"

// limit bounds the whole demo, patience one connection: three SYNs' worth.
const (
	limit    = 25 * time.Second
	patience = 2 * time.Second
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo NFCTL")
		os.Exit(2)
	}
	run := enter
	if os.Getenv(inside) != "" {
		run = demo
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// enter runs this program again in a fresh network namespace; without root
// also in a fresh user namespace, where it is root over that network only.
func enter(nfctl string) error {
	nfctl, err := filepath.Abs(nfctl)
	if err != nil {
		return err
	}
	c := exec.Command("/proc/self/exe", nfctl)
	c.Env = append(os.Environ(), inside+"=1")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if os.Geteuid() != 0 {
		c.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("new network namespace: %w (needs root, or user namespaces: sysctl "+
			"kernel.unprivileged_userns_clone, user.max_user_namespaces)", err)
	}
	stop := time.AfterFunc(limit, func() { _ = c.Process.Kill() })
	err = c.Wait()
	if !stop.Stop() {
		return fmt.Errorf("not done after %v", limit)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode()) // the inner one said why
	}
	return err
}

// demo runs in the namespace.
func demo(nfctl string) error {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("lo: set up: %w", err)
	}
	for _, port := range []string{"22", "80"} {
		if err := serve(port); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "nfctl-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ready := filepath.Join(dir, "ready")

	s := &screen{from: time.Now()}
	args := []string{"queue", "--attach", "output", "--drop-port", "22"}
	s.say("shell", "$ nfctl "+strings.Join(args, " ")+" &")
	c := exec.Command(nfctl, append(args, "--ready-file", ready)...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	c.Stdout, c.Stderr = s.lines("nfctl"), s.lines("nfctl")
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for deadline := time.After(5 * time.Second); ; {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		select {
		case err := <-ended:
			return fmt.Errorf("nfctl ended before it was ready: %v", err)
		case <-deadline:
			return errors.New("nfctl was not ready after 5s")
		case <-time.After(10 * time.Millisecond):
		}
	}

	wrong := 0
	for _, try := range []struct {
		addr string
		open bool
	}{{"127.0.0.1:80", true}, {"127.0.0.1:22", false}, {"[::1]:80", true}, {"[::1]:22", false}} {
		if try.addr[0] == '[' && !hasIPv6() {
			s.say("client", try.addr+": left out, this kernel has no IPv6")
			continue
		}
		s.say("client", "connect "+try.addr)
		answer, err := dial(try.addr)
		time.Sleep(50 * time.Millisecond) // nfctl's lines on the goodbye come first
		what := "as it should"
		if (err == nil) != try.open {
			wrong++
			what = "NOT as it should"
		}
		if err != nil {
			answer = "no connection: " + cause(err)
		}
		s.say("client", fmt.Sprintf("%s: %s, %s", try.addr, answer, what))
	}

	s.say("shell", "$ kill %1")
	_ = c.Process.Signal(unix.SIGTERM)
	select {
	case err = <-ended:
	case <-time.After(5 * time.Second):
		return errors.New("nfctl did not end on SIGTERM")
	}
	switch {
	case err != nil:
		return fmt.Errorf("nfctl: %w", err)
	case wrong > 0:
		return fmt.Errorf("%d connections went wrong", wrong)
	}
	// The rule went with nfctl: port 22 answers again.
	s.say("client", "connect 127.0.0.1:22")
	answer, err := dial("127.0.0.1:22")
	if err != nil {
		return fmt.Errorf("port 22 is still closed: %w", err)
	}
	s.say("client", "127.0.0.1:22: "+answer+", nfctl and its rule are gone")
	fmt.Println("demo: as it should be: port 80 answered, port 22 did only without nfctl; this network namespace " +
		"goes now")
	return nil
}

// loopbackUp does what `ip link set lo up` does.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

func hasIPv6() bool {
	_, err := os.Stat("/proc/net/if_inet6")
	return err == nil
}

// serve greets whoever connects to port, over IPv4 and IPv6.
func serve(port string) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(c, "hello from port %s\n", port)
			_ = c.Close()
		}
	}()
	return nil
}

// dial connects and returns the server's greeting.
func dial(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c)
	return fmt.Sprintf("%q", strings.TrimSpace(string(b))), err
}

func cause(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		if op.Timeout() {
			return fmt.Sprintf("timed out after %v", patience)
		}
		return op.Err.Error()
	}
	return err.Error()
}

// A screen prints whole lines as they come, with the time and who said them.
type screen struct {
	mu   sync.Mutex
	from time.Time
}

func (s *screen) say(who, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("%6.3fs %-6s | %s\n", time.Since(s.from).Seconds(), who, line)
}

// lines returns a writer whose whole lines who says.
func (s *screen) lines(who string) io.Writer {
	return &lineWriter{say: func(l string) { s.say(who, l) }}
}

type lineWriter struct {
	say  func(string)
	part []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.part = append(w.part, b...)
	for {
		line, rest, whole := bytes.Cut(w.part, []byte{'\n'})
		if !whole {
			return len(b), nil
		}
		w.say(string(line))
		w.part = rest
	}
}
