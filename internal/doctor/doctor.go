// Package doctor finds out what this kernel and these privileges allow nfctl to
// do. It tries things rather than read version numbers: what could harm the
// calling namespace it tries in one made for it.
package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/nl"
)

// What a Finding's Status may be. Fail is for what nfctl cannot work without.
const (
	OK      = "ok"
	Warn    = "warn"
	Fail    = "fail"
	Unknown = "unknown"
)

// A Finding is what was found out about one thing.
type Finding struct {
	Check  string // what was looked at
	Status string
	Text   string // what is so
	Hint   string // what to do about it; "" when nothing is to be done
}

// A doctor gathers findings.
type doctor struct {
	found []Finding
	caps  uint64 // effective capabilities
	// initial: the process is in the initial user namespace, whose privileges
	// some things take.
	initial bool
}

// Examine looks at everything, in the calling thread's network namespace.
func Examine() []Finding {
	d := &doctor{}
	d.privileges()
	d.kernel()
	d.settings()
	d.queues()
	d.tracking()
	return d.found
}

// Permitted reports whether the findings say that the privileges do.
func Permitted(found []Finding) bool {
	for _, f := range found {
		if f.Check == checkPrivileges && f.Status == Fail {
			return false
		}
	}
	return true
}

const checkPrivileges = "privileges"

func (d *doctor) add(status, check, hint, format string, args ...any) {
	d.found = append(d.found, Finding{Check: check, Status: status, Text: fmt.Sprintf(format, args...), Hint: hint})
}

// unknown adds that something could not be found out, and why.
func (d *doctor) unknown(check string, err error) {
	d.add(Unknown, check, "", "could not be found out: %v", err)
}

// either adds one of two findings.
func (d *doctor) either(ok bool, check, yes, no, hint string) {
	if ok {
		d.add(OK, check, "", "%s", yes)
	} else {
		d.add(Warn, check, hint, "%s", no)
	}
}

func (d *doctor) can(c int) bool { return d.caps>>c&1 != 0 }

func (d *doctor) privileges() {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		d.unknown(checkPrivileges, err)
		return
	}
	for line := range strings.Lines(string(b)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			d.caps, _ = strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	where := "in the initial user namespace"
	if m, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		d.initial = strings.Join(strings.Fields(string(m)), " ") == "0 0 4294967295"
		if !d.initial {
			where = "in a user namespace of its own"
		}
	}
	uid := os.Geteuid()
	if !d.can(unix.CAP_NET_ADMIN) {
		d.add(Fail, checkPrivileges, "run it as root, or give it CAP_NET_ADMIN: setcap cap_net_admin+ep nfctl",
			"user %d %s, without CAP_NET_ADMIN: queues and the tracking table are closed to it", uid, where)
	} else {
		d.add(OK, checkPrivileges, "", "user %d %s, with CAP_NET_ADMIN", uid, where)
	}
	d.either(d.can(unix.CAP_NET_RAW), "CAP_NET_RAW", "held: rules can send copies (duplicate; delay and rate of what "+
		"this host sends)", "not held: rules cannot send copies (duplicate; delay and rate of what this host sends)",
		"run it as root, or with setcap cap_net_admin,cap_net_raw+ep nfctl")
	d.either(d.can(unix.CAP_SYS_ADMIN), "CAP_SYS_ADMIN", "held: --netns and probes in a namespace of nfctl's own work",
		"not held: no --netns, and no probes in a namespace of nfctl's own, so that flushing by family, mark or zone "+
			"deletes one entry at a time", "")
	d.buffer()
}

// buffer looks how large a socket's receive buffer can get.
func (d *doctor) buffer() {
	const check, want = "socket buffers", 64 << 20
	c, err := nl.Dial(nl.Config{})
	if err != nil {
		d.unknown(check, err)
		return
	}
	defer c.Close()
	reached, _ := c.SetBuffer(want)
	if reached >= want {
		d.add(OK, check, "", "%d MiB can be had; a watch takes %d KiB unless --buffer says another size", want>>20,
			ct.DefaultBuffer()>>10)
		return
	}
	d.add(Warn, check, fmt.Sprintf("sysctl -w net.core.rmem_max=%d", want),
		"only %d KiB can be had, by net.core.rmem_max: watching and queues lose more in bursts (larger ones take "+
			"CAP_NET_ADMIN in the initial user namespace)", reached>>10)
}

// setting reads a number below /proc/sys; ok is false when the kernel does not
// have it.
func setting(name string) (n uint64, ok bool, err error) {
	n, err = nl.Setting(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	return n, err == nil, err
}
