package main

import "github.com/spf13/cobra"

// Checks of how many arguments a command has. what says what is missing.

func exactly(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef("unexpected argument %q; see '%s --help'", args[n], c.CommandPath())
		}
		return atLeast(n, what)(c, args)
	}
}

func atLeast(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < n {
			return usagef("%s takes %s; see '%s --help'", c.CommandPath(), what, c.CommandPath())
		}
		return nil
	}
}

func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef("unexpected argument %q; see '%s --help'", args[n], c.CommandPath())
		}
		return nil
	}
}

func noArgs(c *cobra.Command, args []string) error { return atMost(0)(c, args) }
