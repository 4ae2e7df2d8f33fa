package main

import (
	"cmp"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

func newExpectGet(a *app) *cobra.Command {
	var zone table.Zone
	c := &cobra.Command{
		Use:   "get FLOW",
		Short: "Show the expectation that a connection would meet",
		Long: "Shows the expectation that the kernel would find for a connection. What of its source\nis not given " +
			"is 0; an expectation whose mask leaves it out is found all the same.",
		Example: "  nfctl expect get 'tcp 10.0.0.1 > 10.0.0.2:5000'",
		Args:    exactly(1, "a flow, in quotes"),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := table.ExpectKey(args[0])
			if err != nil {
				return err
			}
			if err := zone.Set(key); err != nil {
				return err
			}
			w, err := expectKind.printer(a, a.quiet)
			if err != nil {
				return err
			}
			conn, err := ct.Dial()
			if err != nil {
				return err
			}
			defer conn.Close()
			var got ct.Expect
			if err := conn.GetExpect(key, &got); err != nil {
				return err
			}
			got.Zone, got.Present = key.Zone, got.Present|ct.ExpectHasZone
			expectKind.learnOne(a.running.Context(), a, &got)
			return cmp.Or(w.print(&got), w.end())
		},
	}
	registerZone(c, &zone)
	a.resolveFlag(c)
	a.prints(c, format.ExpectFormats, paths(ct.ExpectFields))
	return c
}

// registerZone adds --zone to a command about one expectation: the master's.
func registerZone(c *cobra.Command, z *table.Zone) {
	f := c.Flags()
	f.SortFlags = false
	f.VarP(&ordered{kind: "zone", add: func(s string) error {
		n, err := value.NumberIn("zone", s, 0, 65535)
		z.Num, z.Given = uint16(n), true
		return err
	}}, "zone", "w", "conntrack zone of the master")
}
