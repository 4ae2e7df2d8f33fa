package main

import (
	"github.com/spf13/cobra"

	"nfctl/internal/doctor"
	"nfctl/internal/format"
)

func newDoctor(a *app) *cobra.Command {
	problems := false
	c := &cobra.Command{
		Use:   "doctor",
		Short: "What this kernel and these privileges allow, and what to do about the rest",
		Long: `Looks at what nfctl needs and can use: privileges, options of the kernel, settings,
who holds which queue and which rule feeds it, whether this namespace tracks
connections. It tries things rather than read version numbers: in a network
namespace made for it where they could do harm, else here, where it binds a free
queue for a moment and sends itself a datagram over the loopback.

Each finding is ok, warn (something is lost, and the hint says what helps), fail
(nfctl cannot work without it) or unknown. Exit status 0 when nothing fails, 5 when
privileges do, 6 when the kernel does.`,
		Example: `  nfctl doctor
  nfctl doctor --problems
  nfctl doctor -o json | jq -r 'select(.status != "ok") | .check'`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			own := format.Text.String() // on a terminal too: its sentences fit no table
			if a.fields != "" || a.template != "" {
				own = ""
			}
			out, err := a.outputOr(own, false)
			if err != nil {
				return err
			}
			found := doctor.Examine()
			failed := false
			var rows []format.Finding
			for _, f := range found {
				failed = failed || f.Status == doctor.Fail
				if !problems || f.Status != doctor.OK {
					rows = append(rows, format.Finding(f))
				}
			}
			if err := printAs(a, format.Findings, out, rows...); err != nil {
				return err
			}
			switch {
			case !failed:
				return nil
			case !doctor.Permitted(found):
				return &statusError{code: exitPermission}
			}
			return &statusError{code: exitNotSupported}
		},
	}
	c.Flags().BoolVar(&problems, "problems", false, "only what is not ok")
	a.prints(c, format.Generic, paths(format.Findings.Fields))
	return c
}
