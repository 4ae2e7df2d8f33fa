package process

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Ready is the file by which a program says that it is ready: it is made then, and
// goes at the end. The zero value is none.
type Ready struct {
	path string
	made os.FileInfo // nil: not yet
}

// ErrNoFile says that what is there is no file that may be made anew.
var ErrNoFile = errors.New("it is there, and no file that may be made anew")

// Prepare takes away the file of an earlier run. An empty path is none.
func Prepare(path string) error {
	st, err := os.Lstat(path)
	switch {
	case path == "" || errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type()&^os.ModeSymlink != 0: // a folder, /dev/null
		return ErrNoFile
	}
	return os.Remove(path)
}

// Say makes the file, unless path is empty.
func (r *Ready) Say(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	r.made, err = f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	r.path = path
	return nil
}

// End takes the file away, if it is the one that was made.
func (r *Ready) End() {
	if r.made == nil {
		return
	}
	if st, err := os.Lstat(r.path); err == nil && os.SameFile(st, r.made) {
		_ = os.Remove(r.path)
	}
}

// Notify tells the service manager that the program is ready, where it asked for that:
// sd_notify(3). An abstract address is written with a leading '@', which is how the net
// package writes it too.
func Notify() error {
	addr := os.Getenv("NOTIFY_SOCKET")
	if addr == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_, err = c.Write([]byte("READY=1"))
	return err
}
