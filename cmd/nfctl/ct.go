package main

import "github.com/spf13/cobra"

func newCt(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "conntrack",
		Aliases: []string{"ct"},
		Short:   "The connection tracking table: list, change, save and load",
	}
	return c
}
