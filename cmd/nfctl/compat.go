package main

import (
	"context"

	"github.com/spf13/cobra"

	"nfctl/internal/compat"
	"nfctl/internal/nl"
	"nfctl/internal/process"
)

func newCompat(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "compat",
		Short:   "Command lines of other programs",
		Long:    "Takes the command line of another program, and prints and ends as that program does.",
		Example: "  nfctl compat conntrack -L -p tcp --dport 443",
	}
	c.AddCommand(&cobra.Command{
		Use:   "conntrack [ARGS…]",
		Short: "Do what conntrack(8) does with these arguments",
		Long: `Takes conntrack(8)'s own command line, prints what it prints and ends with its
status. nfctl called by the name conntrack, through a link, does the same.`,
		Example: `  nfctl compat conntrack -L -p tcp --dport 443
  ln -s nfctl /usr/local/sbin/conntrack; conntrack -D -s 10.0.0.1`,
		DisableFlagParsing: true,
		RunE:               func(c *cobra.Command, args []string) error { return a.conntrack(c, args) },
	})
	return c
}

// conntrack does what conntrack(8) does with these arguments.
func (a *app) conntrack(c *cobra.Command, args []string) error {
	a.name = compat.Name
	status := compat.Run(args, compat.Env{
		In: a.in, Out: a.out, Err: a.err, Discards: process.Discards(a.out),
		Line: a.line, Edited: a.changed.flow,
		Interrupt: func(done string) (context.Context, func()) { return a.interruptible(c, "flow", done) },
		Enter: func(name string) error {
			a.netns = name
			return nl.EnterNamespace(name, a.args)
		},
		Stream: func(totals func()) (context.Context, func(), error) {
			st := (&streamFlags{}).start(a, c.Context(), totals, endPatience)
			st.EndWithReader(a.out)
			if err := a.readyNow(""); err != nil {
				st.Stop()
				return nil, nil, err
			}
			a.lessPrivileges(process.SeeOwners...)
			return st, func() { st.Stop(); a.ready.End() }, nil
		},
	})
	if status == exitOK {
		return nil
	}
	return &statusError{code: status}
}
