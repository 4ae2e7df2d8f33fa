// Package fleettest makes machines for tests: network namespaces joined by a bridge,
// with real NATS servers and nfctl-fleet in them.
package fleettest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nstest"
)

// A Net is a bridge in a namespace of its own, to which machines are joined.
type Net struct {
	t    testing.TB
	hub  *nstest.NS
	many int
}

// NewNet makes a bridge.
func NewNet(t testing.TB) *Net {
	nstest.Need(t, "ip")
	n := &Net{t: t, hub: nstest.New(t)}
	n.hub.Run("ip", "link", "add", "br0", "type", "bridge")
	n.hub.Run("ip", "link", "set", "br0", "up")
	return n
}

// A Machine is a namespace on the bridge.
type Machine struct {
	*nstest.NS
	Addr string
	port string // the bridge's end of its cable
	n    *Net
}

// Machine adds a machine.
func (n *Net) Machine() *Machine {
	n.t.Helper()
	n.many++
	m := &Machine{NS: nstest.New(n.t), Addr: fmt.Sprintf("10.9.0.%d", n.many), port: fmt.Sprintf("p%d", n.many), n: n}
	n.hub.Run("ip", "link", "add", m.port, "type", "veth", "peer", "name", "eth0", "netns", m.Path())
	n.hub.Run("ip", "link", "set", m.port, "master", "br0", "up")
	m.Run("ip", "addr", "add", m.Addr+"/24", "dev", "eth0")
	m.Run("ip", "link", "set", "eth0", "up")
	return m
}

// Cable plugs a machine's cable in or out.
func (m *Machine) Cable(in bool) {
	m.n.t.Helper()
	state := "down"
	if in {
		state = "up"
	}
	m.n.hub.Run("ip", "link", "set", m.port, state)
}

// A Server is a NATS server on a machine.
type Server struct {
	*Machine
	URL  string
	args []string
	bin  string
	proc *nstest.Proc
}

// Release names a nats-server: "" is the newest, built from the module that the tests
// name; "debian" the one that is installed.
func binary(t testing.TB, release string) string {
	if release == "debian" {
		for _, p := range []string{"/usr/sbin/nats-server", "/usr/bin/nats-server"} {
			if _, err := os.Stat(p); err == nil {
				return p
			}
		}
		nstest.Lack(t, errors.New("no nats-server is installed: scripts/setup.sh fleet"))
	}
	return build(t, &server, "github.com/nats-io/nats-server/v2", "nats-server")
}

// Start starts a server with JetStream, its files in a folder of the test's, and more
// arguments.
func (m *Machine) Start(t testing.TB, release string, args ...string) *Server {
	t.Helper()
	s := &Server{Machine: m, bin: binary(t, release), URL: "nats://" + m.Addr + ":4222",
		args: append([]string{"-js", "-sd", t.TempDir(), "-a", "0.0.0.0", "-p", "4222"}, args...)}
	s.Up()
	return s
}

// Up starts the server, again after Kill, and waits until it answers.
func (s *Server) Up() {
	s.n.t.Helper()
	s.proc = s.NS.Start(s.bin, s.args...)
	nstest.Until(s.n.t, "the server listens", func() bool {
		if s.proc.Ended() {
			s.n.t.Fatalf("%s %s: %s", s.bin, strings.Join(s.args, " "), s.proc.Stderr())
		}
		var err error
		s.Do(func() {
			var c net.Conn
			if c, err = net.DialTimeout("tcp", "127.0.0.1:4222", time.Second); err == nil {
				_ = c.Close()
			}
		})
		return err == nil
	})
}

// Kill ends the server at once, with SIGKILL.
func (s *Server) Kill() {
	s.n.t.Helper()
	s.proc.Signal(unix.SIGKILL)
	_ = s.proc.Wait()
}

type once struct {
	sync.Once
	path string
	err  error
}

var server, fleet once

// Fleet returns the path of nfctl-fleet, built once.
func Fleet(t testing.TB) string {
	return build(t, &fleet, "nfctl/fleet/cmd/nfctl-fleet", "nfctl-fleet")
}

func build(t testing.TB, o *once, pkg, name string) string {
	t.Helper()
	o.Do(func() {
		var dir string
		if dir, o.err = os.MkdirTemp("", "nfctl-fleet-test-"); o.err != nil {
			return
		}
		remove = append(remove, dir)
		o.path = filepath.Join(dir, name)
		c := exec.Command("go", "build", "-o", o.path, pkg)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			o.err = fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	})
	if o.err != nil {
		t.Fatal(o.err)
	}
	return o.path
}

var remove []string

// Main is nstest.Main, and takes away what was built.
func Main(m interface{ Run() int }) int {
	defer func() {
		for _, dir := range remove {
			_ = os.RemoveAll(dir)
		}
	}()
	return nstest.Main(m)
}
