package nft

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
)

// A Feeder is a rule, anybody's, that queues packets.
type Feeder struct {
	Family       uint8 // NFPROTO_…
	Table, Chain string
	First, Last  uint16 // the queues that it feeds
	Bypass       bool   // packets pass while nobody has bound the queue
	Computed     bool   // the queue's number is worked out for each packet
	// Refusals says that it queues, at output or postrouting, what rules that reject
	// send back too. The kernel drops such packets instead, where it tracks
	// connections.
	Refusals bool
	// Sends says that it queues what this host sends, at output or postrouting.
	Sends bool
}

// A kernelRule is a rule as the kernel lists it.
type kernelRule struct {
	place
	exprs []byte
}

// Feeders returns all rules of nf_tables in the calling thread's network
// namespace that queue packets: those with nf_tables' queue statement and, of
// iptables-nft and --attach, those with the NFQUEUE target. Rules of the legacy
// iptables cannot be asked for.
func Feeders() ([]Feeder, error) {
	rules, err := kernelRules()
	if err != nil {
		return nil, err
	}
	bases, err := answering()
	if err != nil {
		return nil, err
	}
	losing, sends := unguarded(rules, bases), queueing(rules, bases)
	var out []Feeder
	for i, r := range rules {
		for e := range nl.Attrs(r.exprs) {
			if f, ok := feeder(e.Data); ok {
				f.Family, f.Table, f.Chain, f.Refusals = r.family, r.table, r.chain, losing[i]
				f.Sends = sends[i]
				out = append(out, f)
			}
		}
	}
	return out, nil
}

// kernelRules returns all rules of nf_tables.
func kernelRules() (rules []kernelRule, err error) {
	err = dump(unix.NFT_MSG_GETRULE, func(m *nl.Msg) {
		rule := kernelRule{place: place{family: m.Family()}}
		for a := range nl.Attrs(m.Body()) {
			switch a.Type {
			case unix.NFTA_RULE_TABLE:
				rule.table = string(a.Text())
			case unix.NFTA_RULE_CHAIN:
				rule.chain = string(a.Text())
			case unix.NFTA_RULE_EXPRESSIONS:
				rule.exprs = slices.Clone(a.Data)
			}
		}
		rules = append(rules, rule)
	})
	return rules, nl.Error("list", "nf_tables rules", err)
}

// queueing returns which of the rules, as of list, queue what comes to base chains.
func queueing(rules []kernelRule, bases []place) map[int]bool {
	out, seen := map[int]bool{}, map[place]bool{}
	for next := slices.Clone(bases); len(next) > 0; next = next[1:] {
		at := next[0]
		if seen[at] {
			continue
		}
		seen[at] = true
		for i, r := range rules {
			if r.place != at {
				continue
			}
			l := look(r.exprs)
			out[i] = l.queues
			if l.to != "" {
				next = append(next, place{at.family, at.table, l.to})
			}
		}
	}
	return out
}

// answering returns the base chains that what this host sends back passes.
func answering() (out []place, err error) {
	err = dump(unix.NFT_MSG_GETCHAIN, func(m *nl.Msg) {
		p, c, base := readChain(m)
		switch p.family {
		case unix.NFPROTO_INET, unix.NFPROTO_IPV4, unix.NFPROTO_IPV6:
			if base && (c.Hook == Output || c.Hook == Postrouting) {
				out = append(out, p)
			}
		}
	})
	return out, nl.Error("list", "nf_tables chains", err)
}

// BaseChains returns how many chains of nf_tables the packets of the calling
// thread's network namespace enter from a hook.
func BaseChains() (int, error) {
	n := 0
	err := dump(unix.NFT_MSG_GETCHAIN, func(m *nl.Msg) {
		for a := range nl.Attrs(m.Body()) {
			if a.Type == unix.NFTA_CHAIN_HOOK {
				n++
			}
		}
	})
	return n, nl.Error("list", "nf_tables chains", err)
}

// NATChains returns how many chains of type nat there are. Without one, and
// without iptables' table nat, the kernel translates no packets of the calling
// thread's network namespace, whatever its connections ask for.
func NATChains() (int, error) {
	n := 0
	err := dump(unix.NFT_MSG_GETCHAIN, func(m *nl.Msg) {
		for a := range nl.Attrs(m.Body()) {
			if a.Type == unix.NFTA_CHAIN_TYPE && string(a.Text()) == "nat" {
				n++
			}
		}
	})
	return n, nl.Error("list", "nf_tables chains", err)
}

func dump(msg uint8, f func(m *nl.Msg)) error {
	c, err := nl.Dial(nl.Config{})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Dump(nl.Finish(header(msg, 0, unix.NFPROTO_UNSPEC), 0), func(m *nl.Msg) error {
		f(m)
		return nil
	})
	return err
}

// feeder reads one expression of a rule.
func feeder(expr []byte) (f Feeder, ok bool) {
	name, data := expression(expr)
	switch name {
	case "queue":
		return queueStatement(data)
	case "target":
		return queueTarget(data)
	}
	return f, false
}

// expression returns an expression's name and what it holds.
func expression(expr []byte) (name string, data []byte) {
	for a := range nl.Attrs(expr) {
		switch a.Type {
		case unix.NFTA_EXPR_NAME:
			name = string(a.Text())
		case unix.NFTA_EXPR_DATA:
			data = a.Data
		}
	}
	return name, data
}

// sregQnum is NFTA_QUEUE_SREG_QNUM: the number is in a register.
const sregQnum = 4

func queueStatement(data []byte) (f Feeder, ok bool) {
	total := uint16(1)
	for a := range nl.Attrs(data) {
		n, _ := a.U16()
		switch a.Type {
		case unix.NFTA_QUEUE_NUM:
			f.First = n
		case unix.NFTA_QUEUE_TOTAL:
			total = max(n, 1)
		case unix.NFTA_QUEUE_FLAGS:
			f.Bypass = n&1 != 0
		case sregQnum:
			f.Computed = true
		}
	}
	f.Last = f.First + total - 1
	return f, true
}

// target reads a target of iptables.
func target(data []byte) (name string, rev uint32, info []byte) {
	for a := range nl.Attrs(data) {
		switch a.Type {
		case unix.NFTA_TARGET_NAME:
			name = string(a.Text())
		case unix.NFTA_TARGET_REV:
			rev, _ = a.U32()
		case unix.NFTA_TARGET_INFO:
			info = a.Data
		}
	}
	return name, rev, info
}

// queueTarget reads the xt target NFQUEUE: struct xt_NFQ_info, of which later
// revisions have a count of queues and flags (linux/netfilter/xt_NFQUEUE.h).
func queueTarget(data []byte) (f Feeder, ok bool) {
	name, rev, info := target(data)
	if name != "NFQUEUE" || len(info) < 2 {
		return f, false
	}
	f.First = binary.NativeEndian.Uint16(info)
	f.Last = f.First
	if rev >= 1 && len(info) >= 4 {
		f.Last = f.First + max(binary.NativeEndian.Uint16(info[2:]), 1) - 1
	}
	if rev >= 2 && len(info) >= 6 {
		f.Bypass = binary.NativeEndian.Uint16(info[4:])&1 != 0
	}
	return f, true
}
