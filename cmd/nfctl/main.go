// Command nfctl gives shells and scripts the userspace side of Linux netfilter:
// verdicts on queued packets, the connection tracking table, its events and
// its expectations.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/child"
	"nfctl/internal/process"
	"nfctl/internal/say"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "devel"

func main() {
	if child.Called(os.Args) {
		child.Serve()
		return
	}
	// A reader that goes away is told by EPIPE, not by a signal: a stream ends
	// with its totals and status 0.
	signal.Ignore(unix.SIGPIPE)
	if err := process.Descriptors(); err != nil {
		// Not through package os, which opens some itself, and Go ends where it cannot.
		_, _ = unix.Write(2, fmt.Appendf(nil, "nfctl: open files: %v\nnfctl: hint: raise the limit with ulimit -n\n",
			err))
		os.Exit(exitFailed)
	}
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns its exit status.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{args: args, in: in, out: out, err: &say.Writer{W: errOut, Journal: process.Journal(errOut)}}
	defer a.flush()
	words := args[1:]
	if filepath.Base(args[0]) == "conntrack" { // without the time that making commands takes
		c := &cobra.Command{}
		c.SetContext(context.Background())
		return a.finish(a.conntrack(c, words))
	}
	a.words, a.lazy = words, true
	root := newRoot(a)
	root.SetArgs(words)
	root.SetIn(in)
	help := &helpWriter{w: out}
	root.SetOut(help)
	root.SetErr(a.err)
	err := root.Execute()
	if err == nil {
		err = help.err
	}
	return a.finish(err)
}

// A helpWriter keeps the error of a write for the end: cobra prints it in words of
// its own, and goes on as if nothing had happened.
type helpWriter struct {
	w   io.Writer
	err error
}

func (h *helpWriter) Write(b []byte) (int, error) {
	if h.err == nil {
		if _, err := h.w.Write(b); err != nil {
			h.err = writeError{err: err}
		}
	}
	return len(b), nil
}
