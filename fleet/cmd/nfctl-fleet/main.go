// Command nfctl-fleet sends the connection tracking events of many hosts through a
// stream of NATS JetStream, and reads them there.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/fleet/internal/bus"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "devel"

// Exit statuses, those of nfctl.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotFound   = 3
	exitPermission = 5
)

// An app is one run of the program.
type app struct {
	out     io.Writer
	verbose bool
	conn    connFlags

	mu  sync.Mutex
	err io.Writer
}

func main() {
	signal.Ignore(unix.SIGPIPE)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	a := &app{out: out, err: errOut}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, unix.EPIPE) {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			a.warn("%s", line)
		}
	}
	return status(err)
}

// A usageError is a bad command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// errNothing ends with 3 and says nothing.
var errNothing = errors.New("nothing came")

func status(err error) int {
	var usage *usageError
	var value *bus.UsageError
	switch {
	case err == nil, errors.Is(err, unix.EPIPE):
		return 0
	case errors.As(err, &usage), errors.As(err, &value):
		return exitUsage
	case errors.Is(err, errNothing):
		return exitNotFound
	case errors.Is(err, bus.ErrRefused), errors.Is(err, os.ErrPermission):
		return exitPermission
	}
	return exitFailed
}

// warn writes a message; from any goroutine.
func (a *app) warn(format string, args ...any) {
	b := fmt.Appendf([]byte("nfctl-fleet: "), format, args...)
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = a.err.Write(append(b, '\n'))
}

func newRoot(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "nfctl-fleet",
		Short: "Connection tracking events of many hosts, through NATS JetStream",
		Long: `Sends the connection tracking events of many hosts through a stream of NATS
JetStream, and reads them there: each line once and in order, or a counted gap.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q: see nfctl-fleet --help", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Help()
			return usagef("want a command")
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	c.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "say more on standard error")
	c.AddCommand(newPublish(a), newFollow(a), newStatus(a), &cobra.Command{
		Use: "version", Short: "Say which version this is", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.out, "nfctl-fleet", version)
			return err
		},
	})
	return c
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s: unexpected argument %q", c.CommandPath(), args[0])
	}
	return nil
}
