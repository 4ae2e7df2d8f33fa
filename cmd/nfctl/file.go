package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"nfctl/internal/rotate"
	"nfctl/internal/value"
)

// fileFlags say to which file a stream is written, and how its files are rotated.
type fileFlags struct {
	path     string // "": standard output
	size     uint64
	every    time.Duration
	keep     uint64
	compress bool

	stdout io.Writer
	out    *outFile
	files  []*rotate.File // all that SIGHUP reopens
}

func (o *fileFlags) register(f *pflag.FlagSet) {
	f.StringVar(&o.path, "output-file", "", "write to this `file` instead of standard output; SIGHUP opens it anew")
	f.Var(&parsed[struct{}]{dst: new(struct{}), kind: "size,age", parse: func(s string) (struct{}, error) {
		var err error
		o.size, o.every, err = rotation(s)
		return struct{}{}, err
	}}, "rotate", "set the file aside when it has this size or age, as 100MiB,1h: it becomes FILE.TIME, in UTC")
	varFlag(f, &o.keep, "keep", "N", "", func(s string) (uint64, error) {
		return value.NumberIn("number of files", s, 1, 1e6)
	}, "keep so many of the files set aside, and delete older ones (default: all)")
	f.BoolVar(&o.compress, "compress", false, "compress the files set aside (gzip)")
}

// leastPiece is the smallest size at which files are rotated: what is gathered for one
// write is never cut.
const leastPiece = 2 * sinkSize

// rotation reads a size, an age or both.
func rotation(s string) (size uint64, every time.Duration, err error) {
	bad := &value.Error{What: "size and age", Text: s,
		Valid: fmt.Sprintf("a size from %dKiB on, an age from 1s on, or both, as 100MiB,1h", leastPiece>>10)}
	for part := range strings.SplitSeq(s, ",") {
		if d, err := value.Duration(part); err == nil && strings.Trim(part, "0123456789") != "" {
			if every != 0 || d < time.Second {
				return 0, 0, bad
			}
			every = d
			continue
		}
		n, err := value.Size(part)
		if err != nil || size != 0 || n < leastPiece || n > 1<<62 {
			return 0, 0, bad
		}
		size = n
	}
	return size, every, nil
}

// check refuses what does not go together; write says that there is a capture too.
func (o *fileFlags) check(write bool) error {
	rotates := o.size > 0 || o.every > 0
	switch {
	case rotates && o.path == "" && !write:
		return usagef("--rotate is about files: it wants --output-file")
	case o.keep > 0 && !rotates:
		return usagef("--keep is about files set aside: it wants --rotate")
	case o.compress && !rotates:
		return usagef("--compress is about files set aside: it wants --rotate")
	}
	return nil
}

// divert has what is printed go to the file, which open opens when nothing can be wrong
// with the command line any more.
func (o *fileFlags) divert(a *app) {
	o.stdout = a.out
	if o.path != "" {
		o.out = &outFile{}
		a.out = o.out
	}
}

// An outFile is standard output's place for a command that writes a file.
type outFile struct{ *rotate.File }

// open opens the file; head and tail stand at the beginning and the end of each. With
// anew it cannot be gone on with.
func (o *fileFlags) open(a *app, head func([]byte) []byte, tail string, anew bool) error {
	if o.out == nil {
		return nil
	}
	r := rotate.Options{Path: o.path, Anew: anew, Begin: head}
	if tail != "" {
		r.End = func(b []byte) []byte { return append(b, tail...) }
	}
	var err error
	o.out.File, err = o.openFile(a, "--output-file", r)
	return err
}

// openFile opens a file of the stream, that is rotated as the flags say.
func (o *fileFlags) openFile(a *app, flag string, r rotate.Options) (*rotate.File, error) {
	r.Size, r.Every, r.Keep, r.Compress = int64(o.size), o.every, int(o.keep), o.compress
	r.Failed = func(err error) { a.warn("%s: %v", flag, err) }
	f, err := rotate.Open(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	o.files = append(o.files, f)
	return f, nil
}

// hangup opens the files anew.
func (o *fileFlags) hangup(a *app) func() {
	if len(o.files) == 0 {
		return nil
	}
	return func() {
		for _, f := range o.files {
			if err := f.Reopen(); err != nil {
				a.warn("SIGHUP: %v", err)
			}
		}
	}
}

// close ends the file.
func (o *fileFlags) close() error {
	if o.out == nil || o.out.File == nil {
		return nil
	}
	if err := o.out.Close(); err != nil {
		return writeError{err, true}
	}
	return nil
}
