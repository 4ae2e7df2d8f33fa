package ct

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"nfctl/internal/nl"
)

// A Counter is one of the kernel's counters: its word in output, and what it
// counts.
type Counter struct {
	Name string
	Doc  string
	nla  uint16
	proc string // column of /proc/net/stat/nf_conntrack; "": Name; "-": none that is counted
}

// StatsCounters are those of flows, for each processor (CTA_STATS_*). Those that the kernel no
// longer counts are left out unless it sends them.
var StatsCounters = []Counter{
	{"searched", "lookups in the table; no longer counted", 1, "-"},
	{"found", "packets of flows that were found; of those, since Linux 5.10, only where a clash was resolved", 2, ""},
	{"new", "flows created; no longer counted", 3, "-"},
	{"invalid", "packets that could not be tracked", 4, ""},
	{"ignore", "packets that were tracked already; no longer counted", 5, "-"},
	{"delete", "flows removed; no longer counted", 6, "-"},
	{"delete_list", "flows put on the dying list; no longer counted", 7, "-"},
	{"insert", "flows inserted; no longer counted for all", 8, ""},
	{"insert_failed", "flows that were not inserted, because the same was there already", 9, ""},
	{"drop", "packets dropped because a flow could not be created or inserted: no memory, or the table is full", 10, ""},
	{"early_drop", "flows that ended early to make room for new ones when the table was full", 11, ""},
	{"error", "ICMP errors and checksums that could not be tracked", 12, "icmp_error"},
	{"search_restart", "lookups begun anew because the table was resized", 13, ""},
	{"clash_resolve", "packets of two flows that became one", 14, "clashres"},
	{"chaintoolong", "flows not inserted because their hash chain was too long", 15, "chainlength"},
}

// ExpectCounters are those of expectations (CTA_STATS_EXP_*).
var ExpectCounters = []Counter{
	{"new", "connections that came as expected", 1, "expect_new"},
	{"create", "expectations made", 2, "expect_create"},
	{"delete", "expectations removed", 3, "expect_delete"},
}

// CPUStats are the counters of one processor. Value i is that of counter i;
// those that the kernel did not send are not Known.
type CPUStats struct {
	CPU    int
	Values []uint32
	Known  []bool
}

// Stats returns the counters of flows for each processor.
func (c *Conn) Stats() ([]CPUStats, error) {
	out, err := c.stats(nl.SubsysCt, msgGetStatsCPU, StatsCounters)
	return out, nl.Error("read", "flow statistics", err)
}

// ExpectStats returns the counters of expectations for each processor.
func (c *Conn) ExpectStats() ([]CPUStats, error) {
	out, err := c.stats(nl.SubsysExpect, msgExpGetStatsCPU, ExpectCounters)
	return out, nl.Error("read", "expectation statistics", err)
}

// stats reads what the kernel counts for each processor.
func (c *Conn) stats(subsys, msg uint8, counters []Counter) (out []CPUStats, err error) {
	c.req = nl.AppendHeader(c.req[:0], nl.Type(subsys, msg), 0, 0, 0)
	_, err = c.c.Dump(nl.Finish(c.req, 0), func(m *nl.Msg) error {
		s := CPUStats{CPU: int(m.ResID()), Values: make([]uint32, len(counters)), Known: make([]bool, len(counters))}
		for a := range nl.Attrs(m.Body()) {
			for i := range counters {
				if n, ok := a.U32(); ok && a.Type == counters[i].nla {
					s.Values[i], s.Known[i] = n, true
				}
			}
		}
		out = append(out, s)
		return nil
	})
	return out, err
}

// ProcStats reads counters from /proc/net/stat/nf_conntrack, which any user may
// read: it lacks some.
func ProcStats(counters []Counter) (out []CPUStats, err error) {
	b, err := os.ReadFile("/proc/net/stat/nf_conntrack")
	if err != nil {
		return nil, err
	}
	head, rest, _ := strings.Cut(string(b), "\n")
	names := strings.Fields(head)
	for line := range strings.Lines(rest) { // one for each processor, hexadecimal
		s := CPUStats{CPU: len(out), Values: make([]uint32, len(counters)), Known: make([]bool, len(counters))}
		for i, text := range strings.Fields(line) {
			n, err := strconv.ParseUint(text, 16, 32)
			for j, c := range counters {
				if err == nil && i < len(names) && (names[i] == c.proc || c.proc == "" && names[i] == c.Name) {
					s.Values[j], s.Known[j] = uint32(n), true
				}
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// Total adds up the counters of all processors. Each wraps at 32 bits, the sum
// does not.
func Total(cpus []CPUStats) (values []uint64, known []bool) {
	for _, s := range cpus {
		if values == nil {
			values, known = make([]uint64, len(s.Values)), make([]bool, len(s.Values))
		}
		for i, n := range s.Values {
			values[i] += uint64(n)
			known[i] = known[i] || s.Known[i]
		}
	}
	return values, known
}

// Count returns how many entries the namespace's table has, and how many it may
// have: net.netfilter.nf_conntrack_max, 0 when the kernel does not say (before
// Linux 4.19). It asks for itself: the library's StatsGlobal asks for a dump, to
// which Linux 6.18 answers with a single message, and waits for its end for ever.
// Who may not ask is told what /proc says.
func (c *Conn) Count() (entries, most uint32, err error) {
	c.req = nl.AppendHeader(c.req[:0], nl.Type(nl.SubsysCt, msgGetStats), 0, 0, 0)
	err = c.c.Get(nl.Finish(c.req, 0), func(m *nl.Msg) error {
		for a := range nl.Attrs(m.Body()) {
			n, ok := a.U32()
			switch {
			case ok && a.Type == 1: // CTA_STATS_GLOBAL_ENTRIES
				entries = n
			case ok && a.Type == 2: // CTA_STATS_GLOBAL_MAX_ENTRIES
				most = n
			}
		}
		return nil
	})
	if errors.Is(err, syscall.EPERM) {
		n, e := setting("nf_conntrack_count")
		m, _ := setting("nf_conntrack_max")
		if e == nil {
			return uint32(n), uint32(m), nil
		}
	}
	return entries, most, nl.Error("count", "flows", err)
}
