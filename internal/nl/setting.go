package nl

import (
	"os"
	"strconv"
	"strings"
)

// Setting reads a number below /proc/sys, by its name as sysctl(8) has it
// (net.netfilter.nf_conntrack_max), of the calling thread's network namespace. Of a
// setting that this kernel does not have the error is fs.ErrNotExist.
func Setting(name string) (uint64, error) {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}
