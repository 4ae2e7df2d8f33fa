package table

import (
	"nfctl/internal/ct"
	"nfctl/internal/value"
)

// fallbackTimeout is for what the kernel gives no timeout, in seconds.
const fallbackTimeout = 600

// New returns the flow that the entry describes, with what is not said worked out. It
// refuses what the kernel would refuse without a reason.
func (o *Entry) New() (*ct.Flow, error) {
	f, err := o.Read()
	if err != nil {
		return nil, err
	}
	if err := o.Check(f); err != nil {
		return nil, err
	}
	if err := f.Orig.Complete(); err != nil {
		return nil, &UsageError{err}
	}
	if f.Orig.Lacks() != 0 {
		return nil, Usagef("--sport and --dport: a flow of this protocol is made with both")
	}
	if f.Has(ct.HasTimeout) && f.Timeout == 0 {
		return nil, Named("--timeout", &value.Error{What: "timeout", Text: "0",
			Valid: "a second or more: the entry would be gone at once"})
	}
	Defaults(f, ct.LoadTimeouts())
	return f, nil
}

// Defaults sets state, status and timeout of a new flow where they are missing.
func Defaults(f *ct.Flow, t *ct.Timeouts) {
	const answered = ct.StatusSeenReply | ct.StatusAssured
	if f.Orig.Proto == ct.TCP && !f.Has(ct.HasTCPState) {
		f.TCPState = ct.TCPEstablished
		switch {
		case !f.Has(ct.HasStatus):
		case f.Status&ct.StatusSeenReply == 0:
			f.TCPState = ct.TCPSynSent
		default: // saved without its state: the kernel tells none of offloaded flows
			f.BeLiberal()
		}
		f.Present |= ct.HasTCPState
	}
	if f.Orig.Proto == ct.SCTP && !f.Has(ct.HasSCTPState) && f.Has(ct.HasSCTPVtagOrig|ct.HasSCTPVtagReply) {
		f.SCTPState, f.Present = ct.SCTPEstablished, f.Present|ct.HasSCTPState // wants both tags
	}
	if !f.Has(ct.HasStatus) {
		f.Status = ct.StatusConfirmed
		tcp := f.Orig.Proto == ct.TCP && f.TCPState >= ct.TCPEstablished && f.TCPState <= ct.TCPTimeWait
		sctp := f.Orig.Proto == ct.SCTP && f.Has(ct.HasSCTPState) && f.SCTPState >= ct.SCTPEstablished
		if tcp || sctp {
			f.Status |= answered
		}
		f.Present |= ct.HasStatus
	}
	if !f.Has(ct.HasTimeout) {
		if f.Timeout = t.Of(f); f.Timeout == 0 {
			f.Timeout = fallbackTimeout
		}
		f.Present |= ct.HasTimeout
	}
}
