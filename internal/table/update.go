package table

import (
	"fmt"

	"nfctl/internal/ct"
	"nfctl/internal/value"
)

// AllLabels stands for every label where labels are taken away.
const AllLabels = "all"

// A Change is what an update does to flows; some of it depends on the protocol.
type Change struct {
	sets, labelAdd, labelDel []string

	byProto map[uint8]*ct.Flow
	errs    map[uint8]error
	next    ct.Flow  // of the flow at hand
	del     [16]byte // labels to take away
	onlyDel bool     // nothing else is asked for
}

// NewChange reads NAME=VALUE pairs, labels to add and labels to take away ("all": every
// label).
func NewChange(sets, labelAdd, labelDel []string) (*Change, error) {
	if err := OnceEach(ct.FlowAttrs(), sets); err != nil {
		return nil, err
	}
	if len(sets) == 0 && len(labelAdd) == 0 && len(labelDel) == 0 {
		return nil, Usagef("nothing to change: say what with --set NAME=VALUE, --label-add or --label-del")
	}
	c := &Change{sets: sets, labelAdd: labelAdd, labelDel: labelDel, byProto: map[uint8]*ct.Flow{},
		errs: map[uint8]error{}}
	c.onlyDel = len(sets) == 0 && len(labelAdd) == 0
	// Try it on protocols of all kinds: what fits none is a mistake.
	var err error
	for _, proto := range []uint8{ct.TCP, ct.SCTP, ct.DCCP} {
		if _, err = c.Of(&ct.Flow{Orig: ct.Tuple{Proto: proto, Present: ct.TupleProto}}); err == nil {
			break
		}
	}
	if err != nil {
		_, err = c.Of(&ct.Flow{Orig: ct.Tuple{Proto: ct.TCP, Present: ct.TupleProto}})
		return nil, &UsageError{err}
	}
	return c, nil
}

// Of returns the change for f. It is valid until the next call.
func (c *Change) Of(f *ct.Flow) (*ct.Flow, error) {
	proto := f.Orig.Proto
	if d := c.byProto[proto]; d != nil {
		c.next = *d
		c.next.Complete(f)
		return &c.next, nil
	}
	if err := c.errs[proto]; err != nil {
		return nil, err
	}
	d, err := c.make(proto)
	if err != nil {
		c.errs[proto] = err
		return nil, err
	}
	c.byProto[proto] = d
	return c.Of(f)
}

func (c *Change) make(proto uint8) (*ct.Flow, error) {
	d := &ct.Flow{Orig: ct.Tuple{Proto: proto, Present: ct.TupleProto}}
	for _, set := range c.sets {
		if err := ct.SetChange(d, set); err != nil {
			return nil, fmt.Errorf("--set %s: %w", set, err)
		}
	}
	for _, l := range []struct {
		flag string
		list []string
		add  bool
	}{{"--label-del", c.labelDel, false}, {"--label-add", c.labelAdd, true}} {
		for _, text := range l.list {
			bits, err := ct.ParseLabelBits(text)
			if text == AllLabels && !l.add {
				for i := range bits {
					bits[i] = 0xff
				}
				err = nil
			} else if err == nil && bits == [16]byte{} {
				err = &value.Error{What: "label", Text: text, Valid: "a name or a number from 0 to 127"}
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", l.flag, err)
			}
			for i, b := range bits {
				if l.add {
					d.Labels[i] |= b
				} else {
					c.del[i] |= b
				}
				d.LabelsMask[i] |= b
			}
			d.Present |= ct.HasLabels | ct.HasLabelsMask
		}
	}
	return d, nil
}

// idle reports whether f need not be changed: labels that it does not have cannot
// be taken away, and the kernel would refuse where nothing stores labels.
func (c *Change) idle(f *ct.Flow) bool {
	if !c.onlyDel {
		return false
	}
	for i, b := range c.del {
		if f.Labels[i]&b != 0 {
			return false
		}
	}
	return true
}

// Check refuses status bits that nobody can set.
func (c *Change) Check() error {
	for _, d := range c.byProto {
		if err := ct.CheckStatus(d.Status, false); err != nil {
			return Named("--set", err)
		}
	}
	return nil
}

// Always has the change change flows too that are so already.
func (c *Change) Always() { c.onlyDel = false }

// Amend has f amend the change of a protocol's flows, where there is one.
func (c *Change) Amend(proto uint8, f func(*ct.Flow)) {
	if d := c.byProto[proto]; d != nil {
		f(d)
	}
}
