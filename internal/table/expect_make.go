package table

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
)

// Make makes e, which Read has returned, after its master where CreateMaster asks for
// that. What is there already is changed with orUpdate, and else an error.
func (o *NewExpect) Make(conn *ct.Conn, e *ct.Expect, orUpdate bool) (res ct.ExpectCreated, err error) {
	if err := conn.ExpectKeepsPorts(e); err != nil {
		return res, err
	}
	create := func() error {
		res, err = conn.CreateExpect(e, orUpdate)
		return err
	}
	if !o.CreateMaster {
		err = create()
		return res, err
	}
	_, err = withMaster(conn, e, o.Helper, o.masterSeconds, create)
	return res, err
}

// Errors about the master of an expectation, wrapped in what it is.
var (
	ErrOtherHelper = errors.New("it has another helper")
	ErrNoHelper    = errors.New("it is there without a helper, and gets one only at its birth")
)

// masterTimeout is that of a master that is made, in seconds, unless more is asked for.
const masterTimeout = 300

// withMaster calls create, which makes e, after e's master: that is made when it is
// missing, and deleted again when create fails.
func withMaster(conn *ct.Conn, e *ct.Expect, helper string, timeout uint32,
	create func() error) (made bool, err error) {
	m, err := makeMaster(conn, e, helper, timeout)
	if err != nil {
		return false, err
	}
	if err = create(); err != nil && m != nil {
		err = errors.Join(err, conn.Delete(m))
	}
	return m != nil, err
}

// makeMaster makes the master of e with a helper and a timeout in seconds (0: five
// minutes, and at least e's), unless it is there and has the helper: then it returns
// nil.
func makeMaster(conn *ct.Conn, e *ct.Expect, helper string, timeout uint32) (*ct.Flow, error) {
	f := &ct.Flow{Orig: e.Master}
	if e.Has(ct.ExpectHasZone) && e.Zone != 0 {
		f.Zone, f.Present = e.Zone, f.Present|ct.HasZone
	}
	refused := func(err error) error {
		return fmt.Errorf("master %s: %w", ct.AppendTuple(nil, &e.Master), err)
	}
	var got ct.Flow
	switch err := conn.Get(f, &got, false); {
	case err == nil && string(got.Helper) == helper:
		return nil, nil
	case err == nil && len(got.Helper) > 0:
		return nil, refused(fmt.Errorf("%w, %s", ErrOtherHelper, got.Helper))
	case err == nil:
		return nil, refused(ErrNoHelper)
	case !errors.Is(err, unix.ENOENT):
		return nil, err
	}
	if timeout == 0 {
		timeout = masterTimeout
		if e.Has(ct.ExpectHasTimeout) {
			timeout = max(timeout, e.Timeout)
		}
	}
	f.SetupReply()
	f.Timeout, f.Status, f.Helper = timeout, ct.StatusSeenReply|ct.StatusAssured, []byte(helper)
	f.Present |= ct.HasTimeout | ct.HasStatus | ct.HasHelper
	if e.Master.Proto == ct.TCP {
		f.TCPState, f.Present = ct.TCPEstablished, f.Present|ct.HasTCPState
	}
	return f, conn.Create(f, false)
}
