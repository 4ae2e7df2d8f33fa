package child

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"nfctl/internal/process"
)

// Grace is how long a program has to end after SIGTERM.
const Grace = 2 * time.Second

// nobody is who a program becomes where nobody else is named, and its number where the
// system does not know the name.
const (
	nobody   = "nobody"
	nobodyID = 65534
)

// A Launcher starts programs. It is for any number of goroutines.
type Launcher struct {
	fd      int // to the process
	process *os.Process
	gone    chan struct{} // closed when the process no longer answers

	send     sync.Mutex
	closed   bool
	mu       sync.Mutex
	next     uint64
	programs map[uint64]*Program
}

// A request asks the process to start a program, or to end one.
type request struct {
	ID   uint64
	Args []string `json:",omitempty"` // none: end it
}

// A report is what the process says of a program.
type report struct {
	ID     uint64
	PID    int    `json:",omitempty"` // it has begun
	Error  string `json:",omitempty"` // it could not begin
	Status int    `json:",omitempty"` // it has ended: a wait status
	Ended  bool   `json:",omitempty"`
}

// Start makes a launcher whose programs run as user, a name or a number; "": as root they
// become nobody, and anybody else stays who he is. The caller calls Close in the end.
// What main does first is to ask Called.
func Start(user string) (*Launcher, error) {
	become, err := credential(user)
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "launcher")
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		_ = unix.Close(pair[0])
		return nil, err
	}
	defer null.Close()
	p, err := narrowed(func() (*os.Process, error) {
		return os.StartProcess("/proc/self/exe", []string{word}, &os.ProcAttr{Env: environment(os.Environ()),
			Files: []*os.File{null, null, null, theirs},
			Sys:   &syscall.SysProcAttr{Credential: become, Setpgid: true}})
	}, become != nil && become.Uid == 0 || become == nil && os.Geteuid() == 0)
	if err != nil {
		_ = unix.Close(pair[0])
		return nil, explain(err, become, user)
	}
	l := &Launcher{fd: pair[0], process: p, gone: make(chan struct{}), programs: map[uint64]*Program{}}
	go l.read()
	return l, nil
}

// credential returns who programs become; nil: who the program is.
func credential(user string) (*syscall.Credential, error) {
	root := os.Geteuid() == 0
	if user == "" && !root {
		return nil, nil
	}
	u, err := process.LookUser(orNobody(user))
	if user == "" && err != nil {
		u, err = process.User{UID: nobodyID, GID: nobodyID}, nil
	}
	switch {
	case err != nil:
		return nil, err
	case !root && int(u.UID) == os.Geteuid():
		return nil, nil
	case !root:
		return nil, fmt.Errorf("program as user %s: only root can start programs as somebody else", user)
	case int(u.UID) == os.Geteuid() && int(u.GID) == os.Getegid():
		// In a user namespace the groups may be nobody's to change.
		return &syscall.Credential{Uid: u.UID, Gid: u.GID, NoSetGroups: true}, nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}, nil
}

func orNobody(user string) string {
	if user == "" {
		return nobody
	}
	return user
}

func explain(err error, become *syscall.Credential, user string) error {
	switch {
	case become != nil && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM)):
		return fmt.Errorf("program as user %s: %w: it wants CAP_SETUID and CAP_SETGID, and a user namespace that has "+
			"this user", orNobody(user), err)
	case become != nil && errors.Is(err, unix.EACCES):
		return fmt.Errorf("program as user %s: %w: that user must be allowed to execute this program's own file",
			orNobody(user), err)
	}
	return fmt.Errorf("launcher of programs: %w", err)
}

// environment leaves out what is meant for the program alone.
func environment(env []string) (kept []string) {
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case name == "NOTIFY_SOCKET", strings.HasPrefix(name, "LISTEN_"), strings.HasPrefix(name, "WATCHDOG_"),
			strings.HasPrefix(name, "NFCTL_"):
		default:
			kept = append(kept, v)
		}
	}
	return kept
}

// narrowed calls start on a thread that has given up what a process made there, which
// inherits from it, is not to have. The thread ends behind it.
func narrowed(start func() (*os.Process, error), root bool) (p *os.Process, err error) {
	done := make(chan struct{})
	var on func()
	on = func() {
		runtime.LockOSThread() // for good
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end, and the process is seen by it. While this
			// goroutine waits on it the next has another.
			next := make(chan struct{})
			go func() { defer close(next); on() }()
			<-next
			runtime.UnlockOSThread()
			return
		}
		defer close(done)
		if err = narrow(root); err == nil {
			p, err = start()
		}
	}
	go on()
	<-done
	return p, err
}

// narrow gives up, on the calling thread, what executing a program could give back.
func narrow(root bool) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("ambient capabilities: %w", err)
	}
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL {
			break // behind the last
		}
		// Without CAP_SETPCAP the bounding set stays. Who is not root gains nothing
		// by it once no_new_privs is set; root would have all of it.
		if err != nil && root {
			return fmt.Errorf("bounding set: %w: to run programs as root wants CAP_SETPCAP, to take their "+
				"capabilities away", err)
		} else if err != nil {
			break
		}
	}
	h := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(h, &caps[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	caps[0].Inheritable, caps[1].Inheritable = 0, 0
	if _, _, e := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(&caps[0])),
		0); e != 0 {
		return fmt.Errorf("capset: %w", e)
	}
	return nil
}

// A Program is one that was started.
type Program struct {
	PID int // as the launcher knows it; 0: not yet

	l       *Launcher
	id      uint64
	begun   chan error
	ended   chan struct{}
	status  unix.WaitStatus
	unknown bool // how it ended
}

// ErrLauncher says that the process that starts programs has gone.
var ErrLauncher = errors.New("the process that starts programs is gone")

// Run starts a program, whose name is looked for in PATH unless it has a slash, with
// these files as its standard input, output and error; nil is /dev/null. The files stay
// the caller's.
func (l *Launcher) Run(args []string, stdin, stdout, stderr *os.File) (*Program, error) {
	p := &Program{l: l, begun: make(chan error, 1), ended: make(chan struct{})}
	l.mu.Lock()
	l.next++
	p.id = l.next
	l.programs[p.id] = p
	l.mu.Unlock()
	forget := func() {
		l.mu.Lock()
		delete(l.programs, p.id)
		l.mu.Unlock()
	}
	fds := make([]int, 3)
	for i, f := range []*os.File{stdin, stdout, stderr} {
		if f == nil {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				forget()
				return nil, err
			}
			defer null.Close()
			f = null
		}
		c, err := f.SyscallConn() // Fd would make a pipe block
		if err == nil {
			err = c.Control(func(fd uintptr) { fds[i] = int(fd) })
		}
		if err != nil {
			forget()
			return nil, err
		}
	}
	err := l.ask(request{p.id, args}, unix.UnixRights(fds...))
	runtime.KeepAlive(stdin)
	runtime.KeepAlive(stdout)
	runtime.KeepAlive(stderr)
	if err != nil {
		forget()
		return nil, err
	}
	select {
	case err = <-p.begun:
	case <-l.gone:
		err = ErrLauncher
	}
	if err != nil {
		forget()
		return nil, fmt.Errorf("program %s: %w", args[0], err)
	}
	return p, nil
}

func (l *Launcher) ask(r request, rights []byte) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	l.send.Lock()
	defer l.send.Unlock()
	if l.closed {
		return ErrLauncher
	}
	switch err = unix.Sendmsg(l.fd, b, rights, nil, unix.MSG_NOSIGNAL); err {
	case nil:
		return nil
	case unix.EPIPE, unix.ECONNRESET:
		return ErrLauncher
	}
	return os.NewSyscallError("sendmsg", err)
}

// read hands on what the process reports.
func (l *Launcher) read() {
	b := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(l.fd, b, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			break
		}
		var r report
		if json.Unmarshal(b[:n], &r) != nil {
			continue
		}
		l.mu.Lock()
		p := l.programs[r.ID]
		if p != nil && r.Ended {
			delete(l.programs, r.ID)
		}
		l.mu.Unlock()
		switch {
		case p == nil:
		case r.Ended:
			p.status = unix.WaitStatus(r.Status)
			close(p.ended)
		case r.Error != "":
			p.begun <- errors.New(r.Error)
		default:
			p.PID = r.PID
			p.begun <- nil
		}
	}
	_, _ = l.process.Wait()
	close(l.gone)
	l.mu.Lock()
	for id, p := range l.programs {
		p.unknown = true
		close(p.ended)
		delete(l.programs, id)
	}
	l.mu.Unlock()
}

// Ended is closed when the program has ended.
func (p *Program) Ended() <-chan struct{} { return p.ended }

// Wait waits for the program's end. The error is nil where it ended with 0, and says
// otherwise how it ended.
func (p *Program) Wait() error {
	<-p.ended
	switch {
	case p.unknown:
		return ErrLauncher
	case p.status.Signaled():
		return fmt.Errorf("ended by %s", unix.SignalName(p.status.Signal()))
	case p.status.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", p.status.ExitStatus())
	}
	return nil
}

// End ends the program and what it has started in its process group: SIGTERM, and
// SIGKILL after Grace. It does not wait.
func (p *Program) End() { _ = p.l.ask(request{ID: p.id}, nil) }

// Close ends all programs that still run, waits for their ends, which takes no longer
// than a little more than Grace, and ends the launcher.
func (l *Launcher) Close() {
	l.send.Lock()
	closed := l.closed
	l.closed = true
	l.send.Unlock()
	if closed {
		return
	}
	_ = unix.Shutdown(l.fd, unix.SHUT_WR)
	select {
	case <-l.gone:
	case <-time.After(Grace + time.Second):
		_ = l.process.Kill()
		<-l.gone
	}
	_ = unix.Close(l.fd)
}

// Look finds a program by name in PATH, as Run will, or says why there is none.
func Look(name string) error {
	_, err := exec.LookPath(name)
	return err
}
