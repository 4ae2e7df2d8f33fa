package table

import "nfctl/internal/ct"

// fallbackTimeout is for what the kernel gives no timeout, in seconds.
const fallbackTimeout = 600

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
