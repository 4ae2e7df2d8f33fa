package rotate

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Layout is the time in a piece's name, in UTC.
const Layout = "20060102T150405.000Z"

const (
	zipped  = ".gz"
	partial = ".part" // what is being compressed
)

func pieceName(path string, ended time.Time) string {
	return path + "." + ended.UTC().Format(Layout)
}

// Pieces returns the pieces of a file that there are, oldest first. Of one that is
// there compressed and not, the compressed one is whole.
func Pieces(path string) ([]string, error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries { // in the order of their names
		rest, ok := strings.CutPrefix(e.Name(), base+".")
		stamp := strings.TrimSuffix(rest, zipped)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		if t, err := time.Parse(Layout, stamp); err != nil || t.Format(Layout) != stamp {
			continue
		}
		name := filepath.Join(filepath.Dir(path), e.Name())
		if n := len(names); n > 0 && names[n-1]+zipped == name {
			names[n-1] = name
			continue
		}
		names = append(names, name)
	}
	return names, nil
}

// A tidier compresses and deletes pieces, on a goroutine of its own.
type tidier struct {
	o    Options
	work chan struct{}
	done sync.WaitGroup
}

func newTidier(o Options) *tidier {
	t := &tidier{o: o, work: make(chan struct{}, 1)}
	t.done.Go(func() {
		for range t.work {
			if err := t.tidy(); err != nil && o.Failed != nil {
				o.Failed(err)
			}
		}
	})
	return t
}

// wake says that there is a new piece.
func (t *tidier) wake() {
	select {
	case t.work <- struct{}{}:
	default: // it will look
	}
}

func (t *tidier) close() {
	close(t.work)
	t.done.Wait()
}

func (t *tidier) tidy() error {
	names, err := Pieces(t.o.Path)
	if err != nil {
		return err
	}
	var errs []error
	if n := t.o.Keep; n > 0 && len(names) > n {
		for _, name := range names[:len(names)-n] {
			errs = append(errs, remove(name))
		}
		names = names[len(names)-n:]
	}
	for _, name := range names {
		raw := strings.TrimSuffix(name, zipped)
		switch {
		case !t.o.Compress:
		case raw != name: // and perhaps also there as it was
			errs = append(errs, remove(raw))
		default:
			if err := compress(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("compress %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// compress replaces a piece by a compressed one. It is there under one of the two
// names at any time.
func compress(name string) (err error) {
	in, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	part := name + zipped + partial
	if err := remove(part); err != nil {
		return err
	}
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, Mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part)
		}
	}()
	z, _ := gzip.NewWriterLevel(out, gzip.BestSpeed)
	_, err = io.Copy(z, in)
	err = errors.Join(err, z.Close())
	if err == nil {
		err = out.Sync() // before the other goes
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if err = os.Rename(part, name+zipped); err != nil {
		return err
	}
	return remove(name)
}
