package ct

import (
	"bytes"
	"errors"
	"strings"
	"syscall"

	"nfctl/internal/field"
	"nfctl/internal/nl"
)

// A Refusal is a request that the kernel refused, and why as far as that is
// known. It unwraps to the *nl.OpError.
type Refusal struct {
	Err error
	Why string
}

// Error leaves out what the kernel's error says of files.
func (r *Refusal) Error() string {
	text := r.Err.Error()
	for _, no := range []syscall.Errno{syscall.ENOENT, syscall.EEXIST} {
		if head, ok := strings.CutSuffix(text, no.Error()); ok && errors.Is(r.Err, no) {
			return head + r.Why
		}
	}
	return text + ": " + r.Why
}

// Unwrap returns the kernel's error.
func (r *Refusal) Unwrap() error { return r.Err }

// refusal says of a kernel's error about f what it means; change is what was
// asked for.
func refusal(op string, f, change *Flow, err error) error {
	if err == nil {
		return nil
	}
	// Who changes a flow has read it, and so has the privilege that it takes.
	if op == "update" && errors.Is(err, syscall.EPERM) && f.Status&StatusFixedTimeout != 0 && change.Has(HasTimeout) {
		return nl.Error(op, flowName(f), ErrFixedTimeout)
	}
	err = nl.Error(op, flowName(f), err)
	var no syscall.Errno
	if !errors.As(err, &no) {
		return err
	}
	if no == syscall.EINVAL && f.naming().unanswered() {
		return &Refusal{err, whyUnanswered}
	}
	if change == nil {
		change = &Flow{}
	}
	for _, r := range flowReasons() {
		if (r.op == "" || r.op == op) && r.no == no && (r.when == nil || r.when(change)) {
			return &Refusal{err, r.why}
		}
	}
	return err
}

// partly adds to the error of a change what of it the entry has all the same: the
// kernel makes changes one after the other, and leaves those before the one that it
// refuses.
func (c *Conn) partly(f, change *Flow, err error) error {
	var r *Refusal
	var now Flow
	if !errors.As(err, &r) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOENT) ||
		errors.Is(err, syscall.EEXIST) || c.Get(f, &now, false) != nil {
		return err
	}
	if change.Has(HasMarkMask) {
		now.Mark &= change.MarkMask
	}
	var done []string
	for i := range FlowAttrs() {
		a := &FlowAttrs()[i]
		if ok, _ := a.Settable(true); ok && !a.Hidden && a.Has(change) && a.took(&now, change) {
			done = append(done, a.Path)
		}
	}
	if len(done) == 0 {
		return err
	}
	return &Refusal{r.Err, r.Why + "; of what was asked it has: " + strings.Join(done, ", ")}
}

// took reports whether the entry now has what change was to give it.
func (a *Attr[T]) took(now, change *T) bool {
	want, num := a.Num(change)
	have, _ := a.Num(now)
	switch {
	case !num:
		return bytes.Equal(a.AppendText(nil, now), a.AppendText(nil, change))
	case a.Path == "timeout":
		return have <= want && have+2 >= want // it runs
	case a.Kind == field.Flags:
		return have&want == want
	}
	return have == want
}

// whyUnanswered is why the kernel takes no tuple of ICMP errors and the like.
const whyUnanswered = "this ICMP type has no answer, so no flow begins with it"

// ErrFixedTimeout is what EPERM means for a timeout that a ruleset or somebody fixed.
var ErrFixedTimeout = errors.New("its timeout is fixed (status FIXED_TIMEOUT) and cannot be changed")

// ErrOtherNAT says that an entry cannot be changed to be as wanted.
var ErrOtherNAT = errors.New("it is there already with another address translation, which cannot be changed")

func has(bits Has) func(*Flow) bool   { return func(f *Flow) bool { return f.Present&bits != 0 } }
func lacks(bits Has) func(*Flow) bool { return func(f *Flow) bool { return f.Present&bits != bits } }

type reason struct {
	op   string // "": any
	no   syscall.Errno
	when func(change *Flow) bool
	why  string
}

// flowReasons are what the kernel's errors mean (net/netfilter/nf_conntrack_netlink.c,
// and tried). The first that fits is taken.
func flowReasons() []reason {
	return []reason{
		{"", syscall.EPERM, nil, "needs CAP_NET_ADMIN in the user namespace of this network namespace"},
		{"", syscall.ENOENT, func(f *Flow) bool { return !f.Master.IsZero() }, "its master is not in the table"},
		{"create", syscall.EEXIST, nil, "a flow with this tuple is there already"},
		{"create", syscall.EINVAL, func(f *Flow) bool { return f.Orig.Has(TupleZone) && f.Reply.Has(TupleZone) }, "an entry has a zone of both directions, or of one of them, not two"},
		{"create", syscall.EINVAL, lacks(HasTimeout), "a new entry needs a timeout"},
		{"create", syscall.EINVAL, func(f *Flow) bool { return f.Reply.IsZero() || f.Orig.IsZero() }, "a new entry needs both tuples"},
		{"create", syscall.EINVAL, func(f *Flow) bool { return f.Orig.Proto != f.Reply.Proto }, "both directions must have the same protocol"},
		{"create", syscall.EOPNOTSUPP, has(HasHelper), "the kernel has no such helper for this family and protocol"},
		{"create", syscall.EOPNOTSUPP, (*Flow).Translated,
			"the kernel cannot translate addresses here (no NAT support)"},
		{"create", syscall.EOPNOTSUPP, func(f *Flow) bool { return !f.Master.IsZero() }, "the entry is there already, and a master can be given only when it is made"},
		{"create", syscall.ENOMEM, nil, "the table is full (net.netfilter.nf_conntrack_max)"},
		{"", syscall.EBUSY, has(HasHelper), "the entry has another helper, which cannot be replaced"},
		{"", syscall.EBUSY, has(HasStatus), "status bits EXPECTED, CONFIRMED and DYING cannot be changed, SEEN_REPLY and ASSURED not be taken away"},
		{"update", syscall.EOPNOTSUPP, func(f *Flow) bool { return f.Has(HasHelper) && len(f.Helper) == 0 }, "this kernel takes a helper from no entry: delete the entry, and it is made anew with the next packet"},
		{"update", syscall.EOPNOTSUPP, has(HasHelper), "a helper can be given only when the entry is made; an empty name removes it"},
		{"update", syscall.EOPNOTSUPP, nil, "the kernel takes this only when the entry is made"},
		{"", syscall.ENOSPC, has(HasLabels), "labels need a rule in this namespace that uses them (as: iptables -m connlabel)"},
		{"", syscall.EINVAL, func(f *Flow) bool { return f.Present&hasSCTP != 0 && !f.Has(hasSCTP) }, "of SCTP the state and both verification tags can be set only together"},
		{"", syscall.EINVAL, has(HasSeqOrig | HasSeqReply), "a sequence adjustment needs pos, before and after of its direction"},
		{"", syscall.ERANGE, has(HasTCPWscaleOrig | HasTCPWscaleReply), "a window scale is 14 at most"},
		{"", syscall.EINVAL, has(HasSynproxy), "synproxy needs isn, its and tsoff together"},
		{"", syscall.ENOENT, nil, "no such flow"},
	}
}
