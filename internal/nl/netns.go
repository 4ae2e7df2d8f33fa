package nl

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// NamespaceDir holds the named network namespaces, as ip-netns(8) makes them.
const NamespaceDir = "/run/netns"

// OpenNamespace opens a network namespace: a path when spec has a slash in it, a
// process when it is a number, else a name in NamespaceDir.
func OpenNamespace(spec string) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		return nil, &OpError{Op: "open", Object: "network namespace " + strconv.Quote(spec), Err: err}
	}
	path, missing := namespacePath(spec)
	if path == "" {
		return fail(errors.New("not a name, process id or path"))
	}
	f, err := os.Open(path)
	if err != nil {
		var e *os.PathError
		if errors.As(err, &e) {
			err = e.Err
		}
		if missing != "" && errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%s: %w", missing, err)
		}
		return fail(err)
	}
	// NS_GET_NSTYPE, Linux 4.11; ENOTTY for what is no namespace at all.
	if typ, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE); err != nil || typ != unix.CLONE_NEWNET {
		_ = f.Close()
		return fail(errors.New("not a network namespace"))
	}
	return f, nil
}

// namespacePath returns where a namespace is opened, "" for what names none, and
// what is missing when that is not there.
func namespacePath(spec string) (path, missing string) {
	pid, err := strconv.ParseUint(spec, 10, 31)
	switch {
	case spec == "" || spec == "." || spec == "..":
		return "", ""
	case strings.Contains(spec, "/"):
		return spec, ""
	case err == nil:
		return fmt.Sprintf("/proc/%d/ns/net", pid), "no such process"
	}
	return NamespaceDir + "/" + spec, "no such name in " + NamespaceDir
}

// NamespaceGone reports whether what spec named (see OpenNamespace) when the program
// entered it is gone, or leads elsewhere by now: then this program may be all that
// keeps the namespace alive.
func NamespaceGone(spec string) bool {
	path, _ := namespacePath(spec)
	here, err := threadNamespaceID()
	if err != nil {
		return false
	}
	var s unix.Stat_t
	err = unix.Stat(path, &s)
	return err == unix.ENOENT || err == nil && fmt.Sprintf("%d:%d", s.Dev, s.Ino) != here
}

// namespaceID identifies a namespace by device and inode.
func namespaceID(fd int) (string, error) {
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%d", s.Dev, s.Ino), nil
}

// threadNamespace opens the calling thread's network namespace.
func threadNamespace() (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
}

func threadNamespaceID() (string, error) {
	f, err := threadNamespace()
	if err != nil {
		return "", err
	}
	defer f.Close()
	return namespaceID(int(f.Fd()))
}

// EnterNamespace moves the whole program into a network namespace (see
// OpenNamespace) by entering it on one thread and executing the program anew
// from there, with args (the first is its name) and the same environment. So
// every thread is inside, and /proc/net, which shows the leading thread's
// namespace, too. It returns nil when the program is there already, which is so
// after the execution: that is seen by the namespace itself, since whoever starts
// the program chooses its environment. Else it returns only an error. It needs CAP_SYS_ADMIN and
// is to be called first of all: what is open without O_CLOEXEC stays open, all
// else of the program's state is lost.
func EnterNamespace(spec string, args []string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fail := func(op string, err error) error {
		return Error(op, "network namespace "+strconv.Quote(spec), err)
	}
	here, err := threadNamespaceID()
	if err != nil {
		return fail("compare", err)
	}
	f, err := OpenNamespace(spec)
	if err != nil {
		return err
	}
	defer f.Close()
	there, err := namespaceID(int(f.Fd()))
	if err != nil {
		return fail("compare", err)
	}
	if there == here {
		return nil
	}
	back, err := threadNamespace()
	if err != nil {
		return fail("enter", err)
	}
	defer back.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fail("enter", err)
	}
	env := os.Environ()
	// By its own name, which is what the process is then called; by the link where
	// the name leads nowhere any more.
	if self, e := os.Executable(); e == nil {
		_ = syscall.Exec(self, args, env)
	}
	err = syscall.Exec("/proc/self/exe", args, env)
	_ = unix.Setns(int(back.Fd()), unix.CLONE_NEWNET)
	return fail("execute nfctl inside", err)
}

// InFreshNamespace runs f on a thread of its own in a network namespace made for
// it, which ends with f and the sockets f leaves open: probes of what this kernel
// does, where they can do no harm. Goroutines that f starts are not inside. It
// needs CAP_SYS_ADMIN; its own errors are *OpError with Op "make" or "enter", and
// then f did not run.
func InFreshNamespace(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Not unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- inFresh(f)
			return
		}
		// The leading thread must stay where it is: it cannot end, and /proc/net
		// shows its namespace. While it is locked another goroutine gets another.
		inner := make(chan error, 1)
		go func() {
			runtime.LockOSThread()
			inner <- inFresh(f)
		}()
		done <- <-inner
		runtime.UnlockOSThread()
	}()
	return <-done
}

func inFresh(f func() error) error {
	const object = "fresh network namespace"
	before, err := threadNamespaceID()
	if err != nil {
		return Error("make", object, err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return Error("make", object, err)
	}
	// The library opens sockets in the process's namespace, silently, when it
	// may not enter the thread's. A probe there could do harm: look first.
	c, err := Dial(Config{})
	if err != nil {
		return err
	}
	defer c.Close()
	inside, err := c.namespaceID()
	if err != nil {
		return Error("enter", object, err)
	}
	now, err := threadNamespaceID()
	if err != nil {
		return Error("enter", object, err)
	}
	if inside == before || inside != now {
		return Error("enter", object, errors.New("sockets do not open inside"))
	}
	return f()
}

// namespaceID identifies the namespace of the socket (SIOCGSKNS, Linux 4.10,
// needs CAP_NET_ADMIN there).
func (c *Conn) namespaceID() (id string, err error) {
	err = c.control(func(fd int) error {
		ns, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
		if err != nil {
			return err
		}
		defer unix.Close(ns)
		id, err = namespaceID(ns)
		return err
	})
	return id, err
}
