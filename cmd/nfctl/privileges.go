package main

import (
	"strconv"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"nfctl/internal/process"
	"nfctl/internal/value"
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

// become makes nfctl another user.
var become = process.Become

// processors reads numbers of processors on which nfctl may run.
func processors(text string) (list []int, err error) {
	nums, err := value.Queues(text)
	if err != nil {
		return nil, &value.Error{What: "processor number", Text: text, Valid: "a number, a list 0,3 or a range 0-3"}
	}
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return nil, err
	}
	for _, n := range nums {
		if !may.IsSet(int(n)) {
			return nil, &value.Error{What: "processor", Text: strconv.Itoa(int(n)), Valid: "one that nfctl may run on"}
		}
		list = append(list, int(n))
	}
	return list, nil
}

// drop gives up privileges; commands that a test runs in its own process keep all.
var drop = process.DropCapabilities
