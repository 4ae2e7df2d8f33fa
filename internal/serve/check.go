package serve

import (
	"fmt"
	"math/bits"

	"nfctl/internal/format"
	"nfctl/internal/queue"
	"nfctl/internal/table"
)

// Check returns what the rules ask of the kernel. Nothing is bound, and the kernel is
// not asked what it has. named says that Nums were.
func (r *Run) Check(named bool) ([]format.Need, error) {
	set := r.Set()
	if !named && len(r.Attach) == 0 {
		r.Nums = []uint16{0}
	}
	if err := r.Loops(set); err != nil {
		return nil, err
	}
	mark, mask, err := set.RepeatMark()
	if err != nil {
		return nil, &table.UsageError{Err: err}
	}
	// firstRule returns the first rule without which something is not asked.
	firstRule := func(asks func(*queue.Config) bool) int {
		if without := r.Config(r.Needs); asks(&without) {
			return 0
		}
		for n := 1; n <= set.Len(); n++ {
			if c := r.Config(set.NeedsOf(n).Add(r.Needs)); asks(&c) {
				return n
			}
		}
		return 0
	}
	var rows []format.Need
	add := func(need string, n int, text string, args ...any) {
		row := format.Need{Need: need, Text: fmt.Sprintf(text, args...), Rule: n}
		if n > 0 {
			row.Where = set.Name(n).String()
		}
		rows = append(rows, row)
	}
	add("rules", 0, "%d", set.Len())
	conf := r.Config(set.Needs().Add(r.Needs))
	switch conf.CopyRange {
	case 0:
		add("copy", 0, "nothing of the packets, only what comes with them")
	default:
		add("copy", firstRule(func(c *queue.Config) bool {
			return c.CopyRange >= conf.CopyRange
		}), "%d bytes of each packet", conf.CopyRange)
	}
	for i, f := range conf.Asks() {
		n := firstRule(func(c *queue.Config) bool { return c.Asks()[i].Wanted == f.Wanted })
		switch {
		case f.Name == "GSO" && f.Wanted:
			add("segments", 0, "large ones come uncut")
		case f.Name == "GSO":
			add("segments", n, "large ones are cut before they are queued, which is slower")
		case f.Wanted:
			add(f.Name, n, "%s", f.Need)
		}
	}
	if conf.Edits {
		add("edits", firstRule(func(c *queue.Config) bool { return c.Edits }), "packets go back changed")
	}
	if mask != 0 {
		who := fmt.Sprintf("the rule that queues must leave it out (nft: meta mark & %#x != %#x)", mask, mark)
		if len(r.Attach) > 0 {
			who = "--attach's rule leaves it out"
		}
		add("repeat", set.Repeats(), "packets come again with mark %#x/%#x: %s", mark, mask, who)
	}
	for _, s := range r.Attach {
		text := ""
		if s.First > 0 {
			text = ", and packets counted (net.netfilter.nf_conntrack_acct)"
		}
		add("attach", 0, "%s: a chain at %s in a table of nfctl's own%s", s.Text, s.Hook, text)
	}
	if c := r.marks; c != nil {
		n, u := len(c.List), set.Uses()
		first := set.Len()
		for _, rule := range []int{u.Reject, u.Flow, u.Connmark} {
			if rule > 0 {
				first = min(first, rule)
			}
		}
		add("marks", first, "%s of packets' marks, of the %d of --flow-mark %#x, between the queue and the chain "+
			"behind it: %s to tell apart",
			plural(bits.Len(uint(n)), "bit"), bits.OnesCount32(c.Mask), c.Mask, plural(n, "end"))
		if c.Flow() {
			add("connmarks", u.Flow, "bits %#x of connections' marks, for verdicts on flows", c.FlowMask())
		}
	}
	privileges := "CAP_NET_ADMIN"
	hold, err := r.holding(set)
	if err != nil {
		return nil, err
	}
	if hold != nil && !r.DryRun {
		h := set.Holds()
		if h.Wait > 0 {
			add("second queue", h.Wait, "packets wait there, up to %d; where no number is free, in the first",
				r.config(set, nil, hold).MaxLen)
		}
		if hold.Raw {
			n := h.Duplicate
			if hold.Copies != 0 {
				n = h.Wait
			}
			add("raw sockets", n, "they send copies: in the place of this host's packets that wait, or beside others")
			privileges += ", CAP_NET_RAW"
		}
	}
	add("privileges", 0, "%s", privileges)
	return rows, nil
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
