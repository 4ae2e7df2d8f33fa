package top

import (
	"bytes"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrTerminal says that the terminal is gone.
var ErrTerminal = errors.New("the terminal is gone")

// A Terminal is one that a screen is drawn on. It is for one goroutine; Read is for
// another one.
type Terminal struct {
	in, out *os.File
	before  unix.Termios
	shown   []Line
	b       []byte
}

// Open takes a terminal over: no line is edited, nothing is echoed, keys make no
// signals, and what stood on it comes back with Close.
func Open(in, out *os.File) (*Terminal, error) {
	t := &Terminal{in: in, out: out}
	return t, t.Begin()
}

// Begin is Open again, after Close.
func (t *Terminal) Begin() error {
	mode, err := unix.IoctlGetTermios(int(t.in.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.before = *mode
	mode.Lflag &^= unix.ICANON | unix.ECHO | unix.ISIG | unix.IEXTEN
	mode.Iflag &^= unix.IXON | unix.ICRNL | unix.INLCR
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(t.in.Fd()), unix.TCSETS, mode); err != nil {
		return err
	}
	t.shown = nil
	return t.write([]byte("\x1b[?1049h\x1b[?25l")) // the other screen; no cursor
}

// Close gives the terminal back as it was.
func (t *Terminal) Close() error {
	err := t.write([]byte("\x1b[0m\x1b[?25h\x1b[?1049l"))
	return errors.Join(err, unix.IoctlSetTermios(int(t.in.Fd()), unix.TCSETS, &t.before))
}

// Size returns how many columns and lines there are, 80 and 24 where the terminal does
// not know.
func (t *Terminal) Size() (width, height int) {
	size, err := unix.IoctlGetWinsize(int(t.out.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return 80, 24
	}
	return int(size.Col), int(size.Row)
}

// Forget has the next Draw draw all lines.
func (t *Terminal) Forget() { t.shown = nil }

// Draw draws the lines that are others than before, with one write.
func (t *Terminal) Draw(lines []Line) error {
	b := t.b[:0]
	all := len(t.shown) != len(lines)
	if all {
		b = append(b, "\x1b[2J"...)
	}
	for i, l := range lines {
		if !all && t.shown[i] == l {
			continue
		}
		// What is behind goes first: at the last column a cursor stands on what it wrote.
		b = append(strconv.AppendInt(append(b, "\x1b["...), int64(i+1), 10), ";1H\x1b[K"...)
		if l.Reverse {
			b = append(append(append(b, "\x1b[7m"...), l.Text...), "\x1b[0m"...)
		} else {
			b = append(b, l.Text...)
		}
	}
	t.b, t.shown = b, append(t.shown[:0], lines...)
	return t.write(b)
}

func (t *Terminal) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if _, err := t.out.Write(b); err != nil {
		return ErrTerminal
	}
	return nil
}

// Read hands each piece of what is typed to f, until the terminal is gone; then it
// returns ErrTerminal.
func (t *Terminal) Read(f func([]Key)) error {
	b := make([]byte, 256)
	for {
		n, err := unix.Read(int(t.in.Fd()), b)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			fds := []unix.PollFd{{Fd: int32(t.in.Fd()), Events: unix.POLLIN}}
			_, _ = unix.Poll(fds, -1)
		case err != nil || n <= 0:
			return ErrTerminal
		default:
			f(Keys(bytes.Clone(b[:n])))
		}
	}
}
