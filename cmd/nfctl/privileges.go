package main

import (
	"github.com/spf13/pflag"

	"nfctl/internal/process"
)

func keepPrivilegesFlag(f *pflag.FlagSet, keep *bool) {
	f.BoolVar(keep, "keep-privileges", false, "go on with all capabilities, instead of those that are still needed")
}

// lessPrivileges gives up what a long run does not need once it is set up. It is no
// error when that does not work, which -v tells.
func (a *app) lessPrivileges(keep ...int) {
	if err := drop(keep); err != nil && a.verbose > 0 {
		a.warn("privileges not given up: %v", err)
	}
}

// drop gives up privileges; commands that a test runs in its own process keep all.
var drop = process.DropCapabilities
