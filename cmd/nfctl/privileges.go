package main

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

func keepPrivilegesFlag(f *pflag.FlagSet, keep *bool) {
	f.BoolVar(keep, "keep-privileges", false, "go on with all capabilities, instead of those that are still needed")
}

// seeOwners are the capabilities by which one sees which process holds a socket,
// and the kernel's list of queues.
var seeOwners = []int{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}

// lessPrivileges gives up what a long run does not need once it is set up: all
// capabilities but keep, for good, since programs that it starts cannot gain
// any either (no_new_privs). The user stays the same. It is no error when that
// does not work, which -v tells.
func (a *app) lessPrivileges(keep ...int) {
	if err := drop(keep); err != nil && a.verbose > 0 {
		a.warn("privileges not given up: %v", err)
	}
}

// drop is dropCapabilities; commands that a test runs in its own process keep all.
var drop = dropCapabilities

// dropCapabilities does it on all threads. Capabilities are a thread's own, and
// Go runs goroutines on any; that works in a program without C only, which nfctl
// as released is.
func dropCapabilities(keep []int) error {
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0,
		0); e == unix.ENOTSUP {
		return errors.New("built with cgo")
	} else if e != 0 {
		return fmt.Errorf("no_new_privs: %w", e)
	}
	h := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	caps := new([2]unix.CapUserData)
	if err := unix.Capget(h, &caps[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	var mask [2]uint32
	for _, c := range keep {
		mask[c/32] |= 1 << (c % 32)
	}
	for i := range caps {
		caps[i].Permitted &= mask[i]
		caps[i].Effective &= mask[i]
		caps[i].Inheritable = 0 // and so no ambient ones
	}
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(&caps[0])),
		0)
	runtime.KeepAlive(h)
	runtime.KeepAlive(caps)
	if e != 0 {
		return fmt.Errorf("capset: %w", e)
	}
	return nil
}
