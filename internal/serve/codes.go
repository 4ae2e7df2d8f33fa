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

// codes returns what the rules ask of the table of --attach, nil when nothing: what the
// rules in force may ask keeps its number.
func (r *Run) codes(set *rule.Set) (*mark.Codes, error) {
	u := set.Uses()
	where := func(n int) string { return fmt.Sprintf("rule %d ('%s')", n, set.Name(n)) }
	if r.Rules.Simulated { // the rules' own memory does it
		return nil, nil
	}
	if len(r.Attach) == 0 {
		switch {
		case u.Flow > 0:
			return nil,
				table.Usagef("%s: a verdict for a whole flow needs nfctl's own table: --attach '%s'; in a firewall "+
					"of your "+
					"own it is "+
					"'connmark 0x1/0x1' in the rule and, in front of the rule that queues, 'nft add rule … ct mark "+
					"and 0x1 == 0x1 accept' (or drop)", where(u.Flow), "forward")
		case u.Reject > 0:
			return nil,
				table.Usagef("%s: reject needs nfctl's own table: --attach '%s'; in a firewall of your own it "+
					"is 'mark "+
					"0x1/0x1' in the rule and, "+
					"behind the rule that queues, 'nft add rule … meta mark and 0x1 == 0x1 reject'", where(u.Reject),
					"input")
		}
		return nil, nil
	}
	for i := range r.Attach {
		s := &r.Attach[i]
		switch {
		case u.Reject > 0 && s.Hook == nft.Postrouting:
			return nil,
				table.Usagef("%s: the kernel cannot reject at postrouting, as --attach '%s' has it: attach to output "+
					"or forward", where(u.Reject), s.Text)
		case s.Untracked() && u.Flow > 0:
			return nil,
				table.Usagef("%s: --attach '%s' is in front of connection tracking, where packets have no flow yet: "+
					"take a priority above %d", where(u.Flow), s.Text, nft.Conntrack)
		case s.Untracked() && u.Connmark > 0:
			return nil,
				table.Usagef("%s: --attach '%s' is in front of connection tracking, where packets have no flow to "+
					"mark yet: take a priority above %d", where(u.Connmark), s.Text, nft.Conntrack)
		case s.Priority == 1<<31-1 && u != rule.Uses{}:
			return nil, table.Usagef("--attach '%s': no priority is left for what is done behind the queue", s.Text)
		}
	}
	before := &mark.Codes{Mask: r.FlowMark}
	if r.marks != nil {
		before = r.marks.Only(r.asked)
	}
	codes, err := before.Add(r.ends(set))
	if err != nil && len(r.asked) > 0 {
		err = fmt.Errorf("together with the rules in force, of which packets may be under way, %w", err)
	}
	if err != nil {
		return nil, &table.UsageError{Err: err}
	}
	if len(codes.List) == 0 {
		return nil, nil
	}
	if err := set.Clashes(codes); err != nil {
		return nil, &table.UsageError{Err: err}
	}
	return codes, nil
}

// ends returns what rules may ask of the table.
func (r *Run) ends(set *rule.Set) []mark.Code {
	if len(r.Attach) == 0 {
		return nil
	}
	return append(set.Codes(r.Default), r.copyCodes(set)...)
}

// A MarksError says that another nfctl uses the same bits of marks.
type MarksError struct {
	Bits  uint32
	Table string // the other's
	Hint  string // what to do about it
}

func (e *MarksError) Error() string {
	return fmt.Sprintf("bits %#x of marks are another nfctl's, whose table is %s: each would take the other's "+
		"for its own",
		e.Bits, e.Table)
}

// alone returns an error when another nfctl uses the same bits of marks.
func (r *Run) alone(codes *mark.Codes) error {
	if codes == nil {
		return nil
	}
	others, err := nft.Owns()
	if err != nil {
		return err
	}
	used := codes.Mask
	for i := range others {
		used |= others[i].Marks | others[i].Tested | others[i].Written
	}
	for i := range others {
		o := &others[i]
		if r.Table != nil && o.Name == r.Table.Name && slices.Contains(r.Table.Families, o.Families[0]) {
			continue
		}
		bits := o.Clash(r.Attach, codes)
		if bits == 0 {
			continue
		}
		hint := "give this one others by --flow-mark"
		for mask := uint32(mark.DefaultMask); mask != 0; mask >>= 4 {
			if mask&used == 0 {
				hint = fmt.Sprintf("give this one others, as --flow-mark %#x", mask)
				break
			}
		}
		if o.Owner == 0 {
			hint += fmt.Sprintf("; if that nfctl was killed, 'nft delete table inet %s'", o.Name)
		}
		return &MarksError{Bits: bits, Table: o.Name, Hint: hint}
	}
	return nil
}

// overwritten warns of rules of this host that write the bits in which verdicts on flows
// stand.
func (r *Run) overwritten() {
	c := r.inForce(r.marks)
	if c == nil || !c.Flow() {
		return
	}
	list, err := nft.Markers(c.FlowMask())
	if err != nil {
		r.Warn(err)
	}
	for _, m := range list {
		r.Warn(fmt.Errorf("%s: what was decided for a flow is lost there, and its packets come up again: "+
			"give them a mask without %#x, or nfctl other bits by --flow-mark", m, c.FlowMask()))
	}
}

// inForce are codes as the kernel is given them: not in a dry run.
func (r *Run) inForce(c *mark.Codes) *mark.Codes {
	if r.DryRun {
		return nil
	}
	return c
}

// undecide takes back what was decided for flows, by these rules or a run before.
func (r *Run) undecide() error {
	if c := r.inForce(r.marks); c != nil && c.Flow() {
		_, err := table.ClearMarks(c.FlowMask())
		return err
	}
	return nil
}

// ending returns the end of the queues with the table.
func (r *Run) ending() queue.Ending {
	return queue.Ending{DeleteRules: func() error {
		r.change.Lock() // a reload that is under way ends first; none begins after this
		defer r.change.Unlock()
		return r.Table.DeleteRules()
	}, Close: func() error {
		if err := r.Table.Close(); err != nil {
			return err
		}
		return r.undecide()
	}}
}
