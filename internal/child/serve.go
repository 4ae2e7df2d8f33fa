package child

import (
	"encoding/json"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// word is the name by which a program is called to be a launcher.
const word = "nfctl-launcher"

// Called reports whether the program was called to be a launcher: then main calls Serve
// and ends.
func Called(args []string) bool {
	return len(args) == 1 && filepath.Base(args[0]) == word && socket(comm)
}

// comm is the launcher's descriptor of the socket to its program.
const comm = 3

func socket(fd int) bool {
	t, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && t == unix.SOCK_SEQPACKET
}

// A server is a launcher's own process.
type server struct {
	send    sync.Mutex
	mu      sync.Mutex
	running map[uint64]*child
	all     sync.WaitGroup
}

type child struct {
	pid    int
	ending bool
}

// Serve starts and ends programs until its own program ends.
func Serve() {
	// What the program was given by who started it without close-on-exec is not for
	// what is started here.
	if list, err := os.ReadDir("/proc/self/fd"); err == nil {
		for _, e := range list {
			if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
				unix.CloseOnExec(fd)
			}
		}
	}
	// Service managers and terminals signal all processes of theirs: the program says when
	// it ends. Caught rather than ignored, which programs would inherit.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGTERM)
	s := &server{running: map[uint64]*child{}}
	b, oob := make([]byte, 256<<10), make([]byte, unix.CmsgSpace(3*4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(comm, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			break
		}
		files := received(oob[:oobn])
		var r request
		switch err := json.Unmarshal(b[:n], &r); {
		case err != nil:
			s.say(report{ID: r.ID, Error: err.Error()})
		case len(r.Args) == 0:
			s.end(r.ID)
		case len(files) == 3:
			s.start(r, files)
		default:
			s.say(report{ID: r.ID, Error: "no files came with it"})
		}
		for _, f := range files {
			_ = unix.Close(f)
		}
	}
	s.mu.Lock()
	for id := range s.running {
		s.endLocked(id)
	}
	s.mu.Unlock()
	s.all.Wait()
}

func received(oob []byte) (files []int) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range list {
		fds, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			continue
		}
		files = append(files, fds...)
	}
	return files
}

func (s *server) say(r report) {
	b, err := json.Marshal(r)
	if err != nil {
		return
	}
	s.send.Lock()
	defer s.send.Unlock()
	_ = unix.Sendto(comm, b, unix.MSG_NOSIGNAL, nil)
}

func (s *server) start(r request, files []int) {
	path, err := exec.LookPath(r.Args[0])
	if err != nil {
		if e, ok := err.(*exec.Error); ok {
			err = e.Err
		}
		s.say(report{ID: r.ID, Error: err.Error()})
		return
	}
	attr := &syscall.ProcAttr{Env: os.Environ(), Sys: &syscall.SysProcAttr{Setpgid: true}}
	for _, fd := range files {
		// The end of a pipe as package os makes it: programs expect to wait there.
		_ = unix.SetNonblock(fd, false)
		attr.Files = append(attr.Files, uintptr(fd))
	}
	pid, err := syscall.ForkExec(path, r.Args, attr)
	if err != nil {
		s.say(report{ID: r.ID, Error: err.Error()})
		return
	}
	s.mu.Lock()
	s.running[r.ID] = &child{pid: pid}
	s.mu.Unlock()
	s.say(report{ID: r.ID, PID: pid})
	s.all.Add(1)
	go s.wait(r.ID, pid)
}

// wait reports a program's end. What it has left in its process group ends with it;
// until the program is reaped nobody else has the group's number.
func (s *server) wait(id uint64, pid int) {
	defer s.all.Done()
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	s.mu.Lock()
	delete(s.running, id)
	s.mu.Unlock()
	_ = unix.Kill(-pid, unix.SIGKILL)
	var st unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &st, 0, nil); err != unix.EINTR {
			break
		}
	}
	s.say(report{ID: id, Ended: true, Status: int(st)})
}

func (s *server) end(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(id)
}

func (s *server) endLocked(id uint64) {
	c := s.running[id]
	if c == nil || c.ending {
		return
	}
	c.ending = true
	_ = unix.Kill(-c.pid, unix.SIGTERM)
	time.AfterFunc(Grace, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.running[id] == c {
			_ = unix.Kill(-c.pid, unix.SIGKILL)
		}
	})
}
