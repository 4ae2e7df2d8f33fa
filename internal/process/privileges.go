package process

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SeeOwners are the capabilities by which one sees which process holds a socket,
// and the kernel's list of queues.
var SeeOwners = []int{unix.CAP_SYS_PTRACE, unix.CAP_DAC_READ_SEARCH}

// Become makes the process another user, for good, and leaves it just the capabilities
// keep, on all threads. It works as DropCapabilities does.
func Become(u User, keep []int) error {
	keepThem := func(on uintptr) error {
		_, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, on, 0, 0, 0, 0)
		switch e {
		case 0:
			return nil
		case unix.ENOTSUP:
			return errors.New("built with cgo")
		}
		return fmt.Errorf("keep capabilities: %w", e)
	}
	if err := keepThem(1); err != nil {
		return err
	}
	groups := make([]int, len(u.Groups))
	for i, g := range u.Groups {
		groups[i] = int(g)
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setresgid(int(u.GID), int(u.GID), int(u.GID)); err != nil {
		return fmt.Errorf("setresgid: %w", err)
	}
	if err := syscall.Setresuid(int(u.UID), int(u.UID), int(u.UID)); err != nil {
		return fmt.Errorf("setresuid: %w", err)
	}
	if err := keepThem(0); err != nil {
		return err
	}
	return dropTo(keep, true)
}

// DropCapabilities gives up all capabilities but keep (CAP_…, linux/capability.h), for
// good: programs that this one starts cannot gain any either (no_new_privs). The user
// stays the same. It does so on all threads. Capabilities are a thread's own, and Go
// runs goroutines on any; that works in a program without C only, which nfctl as
// released is.
func DropCapabilities(keep []int) error { return dropTo(keep, false) }

// dropTo is DropCapabilities; raise says that the capabilities that are kept are to be
// effective, which a change of the user undoes.
func dropTo(keep []int, raise bool) error {
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
		if raise {
			caps[i].Effective = caps[i].Permitted
		}
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
