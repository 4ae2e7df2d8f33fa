package serve

import (
	"fmt"
	"slices"

	"nfctl/internal/mark"
	"nfctl/internal/nft"
	"nfctl/internal/queue"
	"nfctl/internal/rule"
	"nfctl/internal/table"
)

// sourceTranslation is NF_IP_PRI_NAT_SRC (linux/netfilter_ipv4.h).
const sourceTranslation = 100

// copies returns at which hooks packets of local senders wait as copies: at those of
// --attach which they pass, in front of where their source is translated.
func (o *Options) copies() (hooks uint8) {
	for i := range o.Attach {
		if s := &o.Attach[i]; s.Hook == nft.Output || s.Hook == nft.Postrouting {
			hooks |= 1 << s.Hook
		}
	}
	for i := range o.Attach {
		if s := &o.Attach[i]; s.Hook == nft.Postrouting && s.Priority >= sourceTranslation {
			hooks &^= 1 << nft.Postrouting
		}
	}
	return hooks
}

// holding returns what rules ask for by which packets wait or go twice, nil when nothing.
func (r *Run) holding(set *rule.Set) (*queue.Hold, error) {
	h := set.Holds()
	where := func(n int) string { return fmt.Sprintf("rule %d ('%s')", n, set.Name(n)) }
	if h == (rule.Holds{}) || r.Rules.Simulated {
		return nil, nil
	}
	if len(r.Attach) == 0 {
		if h.Duplicate > 0 {
			return nil, table.Usagef("%s: a copy would come to the queue again, for ever, but for nfctl's own rule, "+
				"which leaves it out: --attach, as --attach 'forward udp > :53'", where(h.Duplicate))
		}
		if at := r.localFeeder(); at != "" {
			return nil, table.Usagef("%s: %s queues what this host sends, and a packet that waits there counts as not "+
				"sent, so that TCP all but stands still: let nfctl queue them (--attach output), which sends copies, "+
				"or have the other direction wait, at input", where(h.Wait), at)
		}
		return &queue.Hold{}, nil
	}
	for i := range r.Attach {
		if s := &r.Attach[i]; h.Duplicate > 0 && s.Hook == nft.Postrouting && s.Priority >= sourceTranslation {
			return nil, table.Usagef("%s: --attach '%s' is behind the translation of source addresses, of which a "+
				"copy knows nothing: take a priority below %d", where(h.Duplicate), s.Text, sourceTranslation)
		}
	}
	hold := &queue.Hold{}
	if h.Wait > 0 {
		hold.Copies = r.copies()
	}
	hold.Raw = hold.Copies != 0 || h.Duplicate > 0
	return hold, nil
}

// localFeeder names a rule of the firewall's that queues what this host sends to one of
// the queues; "" when none is known.
func (r *Run) localFeeder() string {
	list, err := nft.Feeders()
	if err != nil {
		return ""
	}
	nums := r.Nums
	if len(nums) == 0 {
		nums = []uint16{0}
	}
	for _, f := range list {
		for _, n := range nums {
			if f.Sends && !f.Computed && f.First <= n && n <= f.Last {
				return fmt.Sprintf("chain %s of table %s", f.Chain, f.Table)
			}
		}
	}
	return ""
}

// copyCodes are what copies and the table behind the queue say to each other.
func (r *Run) copyCodes(set *rule.Set) (list []mark.Code) {
	h := set.Holds()
	add := func(v mark.Verdict) { list = append(list, mark.Code{Verdict: v}) }
	copies := uint8(0)
	if h.Wait > 0 {
		copies = r.copies()
	}
	if copies != 0 {
		add(mark.Translated)
	}
	for _, c := range [...]struct {
		hook nft.Hook
		v    mark.Verdict
	}{{nft.Output, mark.CopyOutput}, {nft.Postrouting, mark.CopyPostrouting}, {nft.Prerouting, mark.CopyPrerouting},
		{nft.Input, mark.CopyInput}} {
		attached := slices.ContainsFunc(r.Attach, func(s nft.Spec) bool { return s.Hook == c.hook })
		if attached && (copies&(1<<c.hook) != 0 || h.Duplicate > 0) {
			add(c.v)
		}
	}
	return list
}
