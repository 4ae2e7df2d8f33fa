package main

import (
	"github.com/spf13/cobra"
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
		{"list ls show", newExpectList}, {"get", newExpectGet}, {"create", newExpectCreate}, {"update", newExpectUpdate}, {"delete", newExpectDelete},
		{"flush", newExpectFlush}, {"save", newExpectSave}, {"load", newExpectLoad}, {"count", newExpectCount}, {"stats", newExpectStats}, {"watch", newExpectWatch},
	})...)
	return c
}
