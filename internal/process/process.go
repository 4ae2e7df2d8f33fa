// Package process knows the program as its system sees it: descriptors, terminal,
// capabilities, and how to say that it is ready.
package process

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Descriptors returns an error when there is no room for the files that any command
// opens.
func Descriptors() (err error) {
	var fds []int
	for range 7 {
		fd, e := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err = e; err != nil {
			break
		}
		fds = append(fds, fd)
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	return err
}

// Terminal reports whether x is a file that is a terminal.
func Terminal(x any) bool {
	f, ok := x.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Journal reports whether x is the stream to systemd's journal that JOURNAL_STREAM names
// (systemd.exec(5)).
func Journal(x any) bool {
	f, ok := x.(*os.File)
	named := os.Getenv("JOURNAL_STREAM")
	if !ok || named == "" {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && fmt.Sprintf("%d:%d", st.Dev, st.Ino) == named
}

// Width returns how many characters a line of the terminal x has; 0: x is none, or its
// size is not known.
func Width(x any) int {
	f, ok := x.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// Discards reports whether w is /dev/null: then nothing need be composed for it.
func Discards(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return w == io.Discard
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR &&
		uint64(st.Rdev) == unix.Mkdev(1, 3)
}
