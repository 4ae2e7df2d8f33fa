package rule

import (
	"errors"

	"nfctl/internal/queue"
)

// RepeatMark returns the mark that packets bear which a rule sends through the
// hook again, so that whatever queues packets can leave them out. Mask 0: no
// rule repeats. Rules that repeat with different marks are an error: one test
// could not tell their packets from others.
func (s *Set) RepeatMark() (mark, mask uint32, err error) {
	for i := range s.rules {
		r := &s.rules[i]
		if !r.decides || r.verdict != queue.Repeat {
			continue
		}
		var v, m uint32
		for _, a := range r.actions {
			if a.kind == actMark {
				v, m = v&^a.mask|a.mark, m|a.mask
			}
		}
		if mask != 0 && (v != mark || m != mask) {
			return 0, 0, errors.New("rules with repeat set different marks: give all of them the same")
		}
		mark, mask = v, m
	}
	return mark, mask, nil
}
