package rule

import (
	"fmt"

	"nfctl/internal/queue"
)

// marks returns what a rule's mark actions make of the packet's mark: the bits of
// mask get those of mark.
func (r *Rule) marks() (mark, mask uint32) {
	for i := range r.actions {
		if a := &r.actions[i]; a.kind == actMark {
			mark, mask = mark&^a.mask|a.mark&a.mask, mask|a.mask
		}
	}
	return mark, mask
}

// RepeatMark returns the bits of the mark that all packets bear which a rule sends
// through the hook again, so that whatever queues packets can leave them out. Mask
// 0: no rule repeats. An error says which rules have no bit in common: one test
// could not tell their packets from others.
func (s *Set) RepeatMark() (mark, mask uint32, err error) {
	first := -1
	for i := range s.rules {
		r := &s.rules[i]
		if !r.decides || r.verdict != queue.Repeat {
			continue
		}
		v, m := r.marks()
		if first < 0 {
			first, mark, mask = i, v, m
			continue
		}
		mask &= m &^ (mark ^ v)
		if mark &= mask; mark == 0 {
			return 0, 0,
				fmt.Errorf("repeat in rule %d ('%s') and in rule %d ('%s'): their marks have no bit in common by "+
					"which the rule that queues could leave both out: "+
					"let all set one, as repeat mark 0x10/0x10 and repeat mark 0x30/0x30", first+1,
					s.rules[first].name(), i+1, r.name())
		}
	}
	return mark, mask, nil
}

// Repeats returns the first rule that sends packets through their hook again, from
// 1, or 0.
func (s *Set) Repeats() int {
	for i := range s.rules {
		if r := &s.rules[i]; r.decides && r.verdict == queue.Repeat {
			return i + 1
		}
	}
	return 0
}

// Bears reports whether all packets that rules send through the hook again bear
// mark under mask.
func (s *Set) Bears(mark, mask uint32) bool {
	for i := range s.rules {
		r := &s.rules[i]
		if r.decides && r.verdict == queue.Repeat {
			if v, m := r.marks(); m&mask != mask || v&mask != mark {
				return false
			}
		}
	}
	return true
}
