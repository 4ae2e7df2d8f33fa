// Package rotate writes the files of streams: whole records at a time, in pieces that
// are set aside by size and age, counted, and compressed.
//
// A piece that is set aside is FILE.TIME, or FILE.TIME.gz: the time, in UTC, is when
// its last record had been written. No other name is ever deleted.
package rotate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how a stream's file is written.
type Options struct {
	Path  string
	Size  int64         // bytes that a piece has at most, but for one long record; 0: any number
	Every time.Duration // how old a piece gets before the next record begins another; 0: any age
	Keep  int           // how many pieces are kept beside the one written to; 0: all

	// Compress has pieces compressed (gzip) when they are closed.
	Compress bool
	// Anew says that a file cannot be gone on with once it was closed: one that is there
	// is overwritten at first, or set aside as a piece where pieces are made, and each
	// Reopen begins another piece.
	Anew bool

	// Begin appends what stands at the beginning of each piece, End what stands at its
	// end; nil: nothing.
	Begin, End func([]byte) []byte
	// Next returns the length of the first record of b, or 0 when it is not whole; nil:
	// records are lines.
	Next func(b []byte) int
	// Failed is told when a piece could not be compressed or deleted, which does not end
	// the stream. It is called on another goroutine. Nil: nobody is.
	Failed func(error)
}

// Mode is the mode of files that are made.
const Mode = 0o640

// An Error is a write that failed: a full disk, mostly. What was written ends with a
// whole record.
type Error struct {
	Path    string
	Records int   // of those last given to Write, how many are in the file
	Size    int64 // bytes in this piece
	Err     error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: write: %v: the file ends with a whole record, after %d bytes", e.Path, e.Err, e.Size)
}
func (e *Error) Unwrap() error { return e.Err }

// A File is the file of a stream. Its methods may be called from several goroutines;
// Begin, End and Next are called by the one whose Write or Reopen needs them.
type File struct {
	o      Options
	mu     sync.Mutex
	f      *os.File
	plain  bool // a regular file
	size   int64
	head   int64 // of it, what Begin wrote
	begun  time.Time
	aside  time.Time // in the name of the last piece
	b      []byte
	tidier *tidier
	failed error
}

// Open opens or makes the file, without following a symbolic link.
func Open(o Options) (*File, error) {
	if o.Next == nil {
		o.Next = line
	}
	f := &File{o: o}
	if f.rotates() && o.Anew {
		if err := f.setAsideOld(); err != nil {
			return nil, err
		}
	}
	if err := f.open(o.Anew); err != nil {
		return nil, err
	}
	if f.rotates() && !f.plain {
		_ = f.f.Close()
		return nil, fmt.Errorf("%s: not a regular file, which alone can be rotated", o.Path)
	}
	if o.Keep > 0 || o.Compress {
		f.tidier = newTidier(o)
		f.tidier.wake()
	}
	return f, nil
}

func (f *File) rotates() bool { return f.o.Size > 0 || f.o.Every > 0 || f.o.Keep > 0 }

// line is the Next of lines.
func line(b []byte) int { return bytes.IndexByte(b, '\n') + 1 }

// setAsideOld makes a piece of a file that an earlier run has left.
func (f *File) setAsideOld() error {
	st, err := os.Lstat(f.o.Path)
	if errors.Is(err, os.ErrNotExist) || err == nil && (!st.Mode().IsRegular() || st.Size() == 0) {
		return nil // open looks at what is no file
	}
	if err != nil {
		return err
	}
	return f.setAside(st.ModTime())
}

// open opens the file and begins a piece.
func (f *File) open(anew bool) error {
	flags := os.O_WRONLY | os.O_CREATE | unix.O_NOFOLLOW | unix.O_NONBLOCK // of a FIFO the opening does not wait
	if anew {
		flags |= os.O_TRUNC
	} else {
		flags |= os.O_APPEND
	}
	file, err := os.OpenFile(f.o.Path, flags, Mode)
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%s: is a symbolic link, which is not followed", f.o.Path)
	}
	notRegular := fmt.Errorf("%s: not a regular file; to a pipe write through standard output", f.o.Path)
	if errors.Is(err, unix.ENXIO) { // a FIFO, or a socket
		return notRegular
	}
	if err != nil {
		return err
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() && st.Mode()&os.ModeCharDevice == 0 {
		err = notRegular
	}
	if err != nil {
		_ = file.Close()
		return err
	}
	f.f, f.plain, f.size, f.head, f.begun = file, st.Mode().IsRegular(), 0, 0, time.Now()
	if f.plain {
		f.size = st.Size()
	}
	switch {
	case f.size > 0:
		return f.mend()
	case f.o.Begin == nil:
		return nil
	}
	f.b = f.o.Begin(f.b[:0])
	err = f.write(f.b)
	f.head = f.size
	return err
}

// mend ends a line that a run before could not: the next record is to begin one.
func (f *File) mend() error {
	r, err := os.OpenFile(f.o.Path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil // it may be written to and not read
	}
	defer r.Close()
	last := []byte{'\n'}
	if _, err := r.ReadAt(last, f.size-1); err != nil || last[0] == '\n' {
		return nil
	}
	return f.write([]byte{'\n'})
}

// Write appends whole records, and begins a new piece before them if not all fit. They are
// kept together, unless they are longer than a piece may be.
func (f *File) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed != nil {
		return 0, f.failed
	}
	done := 0
	for done < len(b) {
		n := len(b) - done
		if f.size > f.head && (f.o.Every > 0 && time.Since(f.begun) >= f.o.Every || f.o.Size > 0 &&
			f.fit(b[done:]) < n) {
			if err := f.rotate(); err != nil {
				f.failed = err
				return done, err
			}
		}
		if f.o.Size > 0 {
			if n = f.fit(b[done:]); n == 0 {
				n = max(f.o.Next(b[done:]), 1)
			}
		}
		if err := f.write(b[done : done+n]); err != nil {
			var full *Error
			if errors.As(err, &full) {
				full.Records += records(b[:done], f.o.Next)
			}
			f.failed = err
			return done, err
		}
		done += n
	}
	return done, nil
}

// fit returns how much of b, in whole records, fits the piece.
func (f *File) fit(b []byte) int {
	room := f.o.Size - (f.size - f.head)
	if int64(len(b)) <= room {
		return len(b)
	}
	at := 0
	for at < len(b) {
		n := f.o.Next(b[at:])
		if n == 0 || int64(at+n) > room {
			break
		}
		at += n
	}
	return at
}

func records(b []byte, next func([]byte) int) (n int) {
	for len(b) > 0 {
		k := next(b)
		if k == 0 {
			break
		}
		b = b[k:]
		n++
	}
	return n
}

// write writes b. When not all can be, the file is cut behind the last whole record.
func (f *File) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	n, err := f.f.Write(b)
	if err == nil {
		f.size += int64(n)
		return nil
	}
	n = max(n, 0)
	whole, count := 0, 0
	for whole < n {
		k := f.o.Next(b[whole:])
		if k == 0 || whole+k > n {
			break
		}
		whole += k
		count++
	}
	if f.plain && whole < n {
		_ = f.f.Truncate(f.size + int64(whole))
	}
	f.size += int64(whole)
	return &Error{Path: f.o.Path, Records: count, Size: f.size, Err: cause(err)}
}

// cause is an error without the file's name, which Error has.
func cause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// end writes what stands at the end of a piece, and closes it.
func (f *File) end() error {
	if f.f == nil {
		return nil
	}
	var err error
	if f.o.End != nil && f.failed == nil {
		f.b = f.o.End(f.b[:0])
		err = f.write(f.b)
	}
	if e := f.f.Close(); err == nil && e != nil {
		err = &Error{Path: f.o.Path, Size: f.size, Err: cause(e)}
	}
	f.f = nil
	return err
}

// rotate sets the piece aside and begins another.
func (f *File) rotate() error {
	if err := f.end(); err != nil {
		return err
	}
	if err := f.setAside(time.Now()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := f.open(f.o.Anew); err != nil {
		return err
	}
	if f.tidier != nil {
		f.tidier.wake()
	}
	return nil
}

// Reopen opens the file anew: somebody else has moved it away, or it begins another
// piece where it cannot be gone on with.
func (f *File) Reopen() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.failed != nil:
		return f.failed
	case !f.plain:
		return nil
	}
	mine, err := f.f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(f.o.Path)
	if err == nil && os.SameFile(mine, there) && f.o.Anew {
		if f.size > f.head {
			err = f.rotate()
		}
	} else if err = f.end(); err == nil {
		err = f.open(f.o.Anew)
	}
	f.failed = err
	return err
}

// Close ends the file, and waits until pieces are compressed.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.end()
	if f.failed == nil {
		f.failed = os.ErrClosed
	} else if err != nil {
		err = nil // it was told
	}
	if f.tidier != nil {
		f.tidier.close()
		f.tidier = nil
	}
	return err
}

// Path returns the file's name.
func (f *File) Path() string { return f.o.Path }

var _ io.WriteCloser = (*File)(nil)

// setAside renames the file to the name of a piece that ended at a time, or at the next
// millisecond that no piece of this run has reached: names sort by age even if several
// pieces end in one millisecond and the older ones are deleted meanwhile.
func (f *File) setAside(ended time.Time) error {
	if next := f.aside.Add(time.Millisecond); ended.Before(next) {
		ended = next
	}
	path := f.o.Path
	for range 10000 {
		name := pieceName(path, ended)
		_, err := os.Lstat(name + zipped)
		switch {
		case err == nil:
			err = unix.EEXIST
		case errors.Is(err, os.ErrNotExist):
			err = unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE)
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without
				if _, there := os.Lstat(name); there == nil {
					err = unix.EEXIST
				} else {
					err = unix.Rename(path, name)
				}
			}
		}
		if !errors.Is(err, unix.EEXIST) {
			if err != nil {
				return fmt.Errorf("%s: set aside as %s: %w", path, filepath.Base(name), err)
			}
			f.aside = ended
			return nil
		}
		ended = ended.Add(time.Millisecond)
	}
	return fmt.Errorf("%s: set aside: %w", path, unix.EEXIST)
}
