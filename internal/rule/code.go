package rule

import (
	"fmt"
	"slices"

	"nfctl/internal/mark"
	"nfctl/internal/queue"
)

// Codes returns what the rules may ask of a table behind the queue: each end that a
// packet can come to, which is a verdict that is not the kernel's own, a mark for its
// connection, or both. Rules that set parts of one mark make more of them together.
// Packets that no rule decides get dflt.
func (s *Set) Codes(dflt queue.Verdict) []mark.Code {
	if s.Uses() == (Uses{}) {
		return nil
	}
	var ends []mark.Code
	end := func(m mark.Code) {
		if m != (mark.Code{}) && !slices.Contains(ends, m) {
			ends = append(ends, m)
		}
	}
	marks := []mark.Code{{}} // of packets that come to a rule
	for i := range s.rules {
		r := &s.rules[i]
		v, bits := r.connmarks()
		here := slices.Clone(marks)
		for k := range here {
			here[k].Mask |= bits
			here[k].Value = here[k].Value&^bits | v
		}
		if !r.decides {
			for _, m := range here {
				if !slices.Contains(marks, m) && len(marks) <= maxMarks {
					marks = append(marks, m)
				}
			}
			continue
		}
		for _, m := range here {
			for _, m.Verdict = range r.ends(m.Mask != 0) {
				end(m)
			}
		}
	}
	for _, m := range marks {
		if m.Mask != 0 && dflt == queue.Drop {
			m.Verdict = mark.Drop
		}
		end(m)
	}
	return ends
}

// maxMarks bounds the marks that are counted: no mask has bits for so many.
const maxMarks = 1 << 16

// ends returns the verdicts of a rule that decides, with a mark for the connection or
// without. On a packet without a flow a flow's verdict is the packet's own.
func (r *Rule) ends(marked bool) []mark.Verdict {
	switch k := r.verdict.Kind(); {
	case k == queue.KindReject && r.flow:
		return []mark.Verdict{mark.RejectFlow, mark.Reject}
	case k == queue.KindReject:
		return []mark.Verdict{mark.Reject}
	case k == queue.KindDrop && r.flow && marked:
		return []mark.Verdict{mark.DropFlow, mark.Drop}
	case k == queue.KindDrop && r.flow:
		return []mark.Verdict{mark.DropFlow}
	case k == queue.KindDrop && marked:
		return []mark.Verdict{mark.Drop}
	case k == queue.KindDrop:
		return nil
	case r.flow && marked:
		return []mark.Verdict{mark.AcceptFlow, mark.Pass}
	case r.flow:
		return []mark.Verdict{mark.AcceptFlow}
	}
	return []mark.Verdict{mark.Pass}
}

// connmarks returns what a rule's connmark actions make of the connection's mark.
func (r *Rule) connmarks() (v, mask uint32) {
	for i := range r.actions {
		if a := &r.actions[i]; a.kind == actConnmark {
			v, mask = v&^a.mask|a.mark&a.mask, mask|a.mask
		}
	}
	return v, mask
}

// Uses says how rules use what a table behind the queue does: the first rule of each
// kind, from 1; 0: none.
type Uses struct{ Reject, Flow, Connmark int }

// Uses returns which rules ask for what the kernel's verdicts do not do.
func (s *Set) Uses() (u Uses) {
	note := func(n *int, i int, is bool) {
		if is && *n == 0 {
			*n = i + 1
		}
	}
	for i := range s.rules {
		r := &s.rules[i]
		_, connmark := r.connmarks()
		note(&u.Reject, i, r.decides && r.verdict == queue.Reject)
		note(&u.Flow, i, r.flow)
		note(&u.Connmark, i, connmark != 0)
	}
	return u
}

// Clashes returns an error when a rule sets bits of a mark that codes take: of the
// packet's all of the mask, of the connection's those of verdicts on flows.
func (s *Set) Clashes(c *mark.Codes) error {
	for i := range s.rules {
		r := &s.rules[i]
		for k := range r.actions {
			a := &r.actions[k]
			word, bits := "mark", c.Mask
			switch {
			case a.kind == actConnmark && c.Flow():
				word, bits = "connmark", c.FlowMask()
			case a.kind != actMark:
				continue
			}
			if a.mark&a.mask&bits != 0 {
				return fmt.Errorf("rule %d ('%s'): %s %#x has bits that nfctl itself uses for verdicts: take others, "+
					"or give it others by --flow-mark", i+1, r.name(), word, a.mark)
			}
		}
		if _, mask := r.connmarks(); mask != 0 && r.decides && r.verdict == queue.Stop {
			return fmt.Errorf("rule %d ('%s'): stop skips what sets the connection's mark: take accept", i+1, r.name())
		}
	}
	return nil
}
