package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/table"
	"nfctl/internal/top"
)

func newCtTop(a *app) *cobra.Command {
	o := &choosing{}
	c := &cobra.Command{
		Use:   "top [FLOW]",
		Short: "Show the flows with the most traffic, live",
		Long: `Shows flows on the terminal, those that carry most first, and lists the table again
every second, or every three times as long as that takes. Above them stand how many
flows there are, how many began and ended, what the kernel dropped, and the traffic
of all flows chosen. '?' shows the keys.

Traffic is known where the kernel counts it (sysctl net.netfilter.nf_conntrack_acct=1).
Flows that begin and end between two listings are not seen. For other programs there
is 'ct list --interval'.`,
		Example: `  nfctl ct top
  nfctl ct top 'tcp > :443'
  nfctl ct top -p udp --filter 'rate.packets > 100'`,
		RunE: func(c *cobra.Command, args []string) error {
			choose, err := flowKind.chosen(o, args)
			if err != nil {
				return err
			}
			in, ok := a.in.(*os.File)
			out, ok2 := a.out.(*os.File)
			if !ok || !ok2 || !isTerminal(in) || !isTerminal(out) {
				return usagef("'ct top' wants a terminal; elsewhere: " +
					"nfctl ct list --interval 1s --sort rate.bytes:desc --limit 20")
			}
			return ctTop(c.Context(), choose, o, in, out)
		},
	}
	flowKind.register(c, o)
	return c
}

// ctTop runs the screen until a key or a signal ends it.
func ctTop(ctx context.Context, choose *table.Choice[ct.Flow], o *choosing, in, out *os.File) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGWINCH)
	defer signal.Stop(signals)
	err := top.Run(ctx, in, out, choose, strings.Join(o.filter.words(), " "), signals)
	if errors.Is(err, top.ErrTerminal) {
		return &statusError{code: exitFailed, err: err}
	}
	return err
}
