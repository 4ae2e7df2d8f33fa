// Package nft hangs nfctl into the packets' way: a table of nf_tables that is
// nfctl's own, with chains whose rules queue what matches. The kernel removes the
// table when nfctl ends, however that happens. No nft or iptables program is
// needed.
//
// github.com/google/nftables sends no table flags, so that it cannot make a table
// that goes with its owner; the few messages are composed here.
package nft

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// A Hook is a place that packets pass: NF_INET_…, include/uapi/linux/netfilter.h.
type Hook uint8

const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
)

// Hooks are the hooks' names, by number.
var Hooks = []string{"prerouting", "input", "forward", "output", "postrouting"}

func (h Hook) String() string {
	if int(h) < len(Hooks) {
		return Hooks[h]
	}
	return strconv.Itoa(int(h))
}

// Priorities of iptables' tables and of connection tracking: lower ones come first.
// Source: enum nf_ip_hook_priorities, linux/netfilter_ipv4.h.
const (
	Raw       = -300
	Conntrack = -200
	Mangle    = -150
	Filter    = 0
)

var priorities = []string{"raw", "mangle", "filter"}

func priority(s string) (int32, bool) {
	switch s {
	case "raw":
		return Raw, true
	case "mangle":
		return Mangle, true
	case "filter":
		return Filter, true
	}
	n, err := strconv.ParseInt(s, 10, 32)
	return int32(n), err == nil
}

// A Spec says which packets to queue, and where.
type Spec struct {
	Text     string // as typed
	Hook     Hook
	Priority int32
	Family   uint8            // unix.AF_INET, AF_INET6, or AF_UNSPEC for both
	Pattern  *pattern.Pattern // nil: every packet
	First    uint32           // of each flow only so many packets, both directions counted; 0: all
	Bypass   bool             // packets pass while nobody has bound the queue
	Fanout   bool             // of several queues, the one of the processor that a packet is on

	// Packets with mark&SkipMask == SkipMark are not queued; SkipMask 0: none. It
	// keeps packets that were sent through the hook again from coming back.
	SkipMark, SkipMask uint32
}

// Untracked reports whether packets come to the spec's rules before connection
// tracking has seen them.
func (s *Spec) Untracked() bool {
	return (s.Hook == Prerouting || s.Hook == Output) && s.Priority <= Conntrack
}

const (
	grammar = "HOOK [priority N|raw|mangle|filter] [ip|ip6] [PATTERN] [first N] [fanout] [bypass], " + example
	example = "as in 'input tcp > :22 bypass'"
)

// Parse reads
//
//	HOOK [priority N|raw|mangle|filter] [ip|ip6] [PATTERN] [first N] [fanout] [bypass]
//
// where PATTERN is a flow in words (package pattern): source and destination are
// the packet's own. The word priority may be left out before a name.
func Parse(text string) (Spec, error) {
	s := Spec{Text: text}
	bad := func(what, word, valid string, near ...string) (Spec, error) {
		return Spec{}, &value.Error{What: what, Text: word, Valid: valid, Near: value.Nearest(word, near)}
	}
	w := strings.Fields(text)
	if len(w) == 0 {
		return bad("place to attach to", text, grammar)
	}
	h := slices.Index(Hooks, strings.ToLower(w[0]))
	if h < 0 {
		return bad("hook", w[0], strings.Join(Hooks, ", ")+" first, "+example, Hooks...)
	}
	s.Hook = Hook(h)
	if w = w[1:]; len(w) > 0 && w[0] == "priority" {
		const valid = "raw, mangle, filter or a number from -2147483648 to 2147483647"
		if len(w) == 1 {
			return bad("priority", "", valid)
		}
		p, ok := priority(w[1])
		if !ok {
			return bad("priority", w[1], valid, priorities...)
		}
		s.Priority, w = p, w[2:]
	} else if len(w) > 0 && slices.Contains(priorities, w[0]) {
		s.Priority, _ = priority(w[0])
		w = w[1:]
	}
	if len(w) > 0 && (w[0] == "ip" || w[0] == "ip6") {
		s.Family = unix.AF_INET
		if w[0] == "ip6" {
			s.Family = unix.AF_INET6
		}
		w = w[1:]
	}
	const valid = "a number of packets from 1 to 4294967295, at the end: 'first 10'"
	for n := len(w); n > 0; n = len(w) {
		if w[n-1] == "bypass" && !s.Bypass {
			s.Bypass, w = true, w[:n-1]
			continue
		}
		if w[n-1] == "fanout" && !s.Fanout {
			s.Fanout, w = true, w[:n-1]
			continue
		}
		if n < 2 || w[n-2] != "first" || s.First > 0 {
			break
		}
		m, err := value.NumberIn("number of packets", w[n-1], 1, 1<<32-1)
		if err != nil {
			return bad("number of packets", w[n-1], valid)
		}
		s.First, w = uint32(m), w[:n-2]
	}
	if i := slices.Index(w, "first"); i >= 0 {
		return bad("text to attach by", text, valid)
	}
	if s.First > 0 && s.Untracked() {
		return bad("place for 'first'", text,
			fmt.Sprintf("one behind connection tracking, which counts: a priority above %d", Conntrack))
	}
	if len(w) == 0 {
		return s, nil
	}
	words := strings.Join(w, " ")
	if !strings.Contains(words, ">") { // most likely no pattern at all, or half of one
		if _, err := pattern.Parse(words + " >"); err == nil && strings.Trim(words, "0123456789") != "" {
			return Spec{}, &value.Error{What: "text to attach by", Text: text,
				Near:  strings.Replace(strings.Join(strings.Fields(text), " "), words, words+" >", 1),
				Valid: "a flow with its '>': " + grammar}
		}
		near := []string{"priority", "raw", "mangle", "filter", "ip", "ip6", "first", "fanout", "bypass"}
		if _, proto := value.Protocols.Lookup(w[0]); proto {
			near = nil // what is short is near to everything
		}
		return bad("word to attach by", w[0], grammar, near...)
	}
	p, err := pattern.Parse(words)
	if err != nil {
		return Spec{}, err
	}
	family, err := familyOf(p)
	if err != nil {
		return Spec{}, err
	}
	if family != 0 && s.Family != 0 && family != s.Family {
		return bad("flow here", words, map[uint8]string{unix.AF_INET: "an IPv4 flow after ip",
			unix.AF_INET6: "an IPv6 flow after ip6"}[s.Family])
	}
	s.Pattern, s.Family = p, max(s.Family, family)
	if n := len(s.rules()); n > maxRules {
		return bad("flow", words, fmt.Sprintf("fewer ports and ranges: they make %d rules, and %d is the most", n,
			maxRules))
	}
	return s, nil
}

// maxRules bounds the rules that one Spec makes: one each for every pair of a
// source's and a destination's port range.
const maxRules = 1024

// familyOf returns the one family that a pattern can match, and refuses what no
// rule can ask for.
func familyOf(p *pattern.Pattern) (uint8, error) {
	var family uint8
	if p.Has&(pattern.OrigZone|pattern.ReplyZone) != 0 {
		return 0, &value.Error{What: "flow to attach by", Text: p.Text,
			Valid: "zone N, which is that of the packet's direction"}
	}
	for _, e := range []*pattern.End{&p.Src, &p.Dst} {
		for _, a := range e.Addrs.Addrs {
			family = unix.AF_INET6
			if a.Lo.Is4() {
				family = unix.AF_INET
			}
		}
		if e.Addrs.Not || e.Ports.Not || e.Ports.Mask != 0 {
			return 0, &value.Error{What: "flow to attach by", Text: p.Text, Valid: "a flow without negations"}
		}
		if p.Has&pattern.Proto != 0 && p.Proto == unix.IPPROTO_GRE && len(e.Ports.Nums) > 0 {
			return 0, &value.Error{What: "flow to attach by", Text: p.Text,
				Valid: "gre without keys, which no rule can look at"}
		}
	}
	if p.Has&pattern.Proto != 0 {
		switch {
		case p.Proto == unix.IPPROTO_ICMP:
			family = unix.AF_INET
		case p.Proto == unix.IPPROTO_ICMPV6:
			family = unix.AF_INET6
		}
	}
	return family, nil
}
