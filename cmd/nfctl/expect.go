package main

import (
	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/table"
)

func newExpect(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "expect",
		Aliases: []string{"exp"},
		Short:   "Expectations: connections that the kernel will take as related to another",
		Long: `An expectation tells the kernel of a connection that is to come: one that matches
it is related to its master, the connection that it was made for (as an FTP data
connection is to the control connection), and a rule for RELATED lets it in.
The kernel's helpers make expectations; so do these commands.`,
		Example: `  nfctl expect list
  nfctl expect create --master 'tcp 10.0.0.1:1000 > 10.0.0.2:21' 'tcp 10.0.0.1 > 10.0.0.2:5000' --timeout 10s
  nfctl expect delete --helper ftp`,
	}
	c.AddCommand(a.choose(1, []maker{
		{"list", newExpectList}, {"get", newExpectGet}, {"create", newExpectCreate}, {"update", newExpectUpdate}, {"delete", newExpectDelete},
		{"flush", newExpectFlush}, {"save", newExpectSave}, {"load", newExpectLoad}, {"count", newExpectCount}, {"stats", newExpectStats}, {"watch", newExpectWatch},
	})...)
	return c
}

func registerExpectFilter(c *cobra.Command, fo *filterOptions) {
	registerFilter(c, ct.ExpectFlags, fo)
	_ = c.Flags().MarkHidden("labelmap")
}

// expectFilter reads the flags and arguments that choose expectations.
func expectFilter(fo *filterOptions, args []string) (*table.Choice[ct.Expect], error) {
	if err := fo.args(args); err != nil {
		return nil, err
	}
	return table.Expects(&fo.Filter)
}
