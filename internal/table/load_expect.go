package table

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/value"
)

// expectOf reads the words of a line behind format.ExpectLine: the arguments of 'nfctl
// expect create' that describe an expectation.
func expectOf(words []string) (*ct.Expect, error) {
	var o NewExpect
	var flows []string
	var timeout *uint32
	for i := 0; i < len(words); i++ {
		flag := words[i]
		if flag == "" || flag[0] != '-' {
			flows = append(flows, flag)
			continue
		}
		switch flag {
		case "--permanent":
			o.Permanent = true
			continue
		case "--inactive":
			o.Inactive = true
			continue
		}
		if i++; i == len(words) {
			return nil, &value.Error{What: "line", Text: flag, Valid: flag + " with a value"}
		}
		text := words[i]
		var err error
		switch flag {
		case "--master":
			o.Master = text
		case "--mask-src", "--mask-port-src":
			o.Words = append(o.Words, Given{Flag: flag[2:], Text: text})
		case "--helper":
			o.Helper = text
		case "--fn":
			o.Fn = text
		case "--nat":
			o.NAT = text
		case "--nat-dir":
			o.NATDir = text
		case "-t", "--timeout":
			var e ct.Expect
			if err = ct.Find(ct.ExpectAttrs(), "exp-timeout").SetText(&e, text); err == nil {
				timeout = &e.Timeout
			}
		case "--class":
			var n uint64
			n, err = value.NumberIn("class", text, 0, 1<<32-1)
			o.Class = uint32(n)
		case "-w", "--zone":
			var n uint64
			n, err = value.NumberIn("zone", text, 0, 65535)
			o.Zone = Zone{uint16(n), true}
		default:
			err = &value.Error{What: "flag", Text: flag, Valid: "a flag of 'nfctl expect save'"}
		}
		if err != nil {
			return nil, err
		}
	}
	if len(flows) > 1 {
		return nil, Unquoted(flows[1])
	}
	e, err := o.Read(flows)
	if err == nil && timeout != nil {
		e.Timeout, e.Present = *timeout, e.Present|ct.ExpectHasTimeout
	}
	return e, err
}

// takeExpect fills in i from what was read of an expectation.
func (l *loader) takeExpect(i *item, s *format.Saved) {
	if i.expect = s.Expect; i.expect == nil {
		e, err := expectOf(s.Words)
		if err != nil {
			i.err = &format.LineError{Line: s.Line, Text: s.Text, Err: err}
			return
		}
		i.expect = e
	}
	e := i.expect
	l.o.Zones.Expect(e)
	e.ID, e.Present = 0, e.Present&^ct.ExpectHasID // is that of another expectation now
	// The kernel clears the flag userspace, and takes another helper than the master's
	// for none at all: whether it is the master's is seen in what it stored.
	e.Flags &^= ct.Userspace
	i.event, i.helper = e.Event, string(e.Helper)
}

// addExpect does what a line about an expectation asks for. What the lines before say
// is done first: its master may be among them.
func (l *loader) addExpect(i *item) error {
	if err := l.flush(); err != nil {
		return err
	}
	gone := i.event == ct.Destroy
	switch {
	case gone && !l.o.OrUpdate:
		l.failed(&format.LineError{Line: i.number, Err: ErrEnded})
		return l.stop
	case l.o.DryRun && gone:
		l.Deleted++
		return nil
	case l.o.DryRun:
		l.Expects++
		return nil
	case gone:
		l.expectDone(i, l.inZone(i.expect, l.conn.DeleteExpect))
		return l.stop
	}
	l.listing = l.listing || i.event == ct.Existing
	err := l.inZone(i.expect, l.createExpect)
	if errors.Is(err, unix.ENOENT) {
		if l.waits(i.event) {
			l.expects = append(l.expects, *i)
			return nil
		}
		err = l.withMaster(i, err)
	}
	l.expectDone(i, err)
	return l.stop
}

func (l *loader) createExpect(e *ct.Expect) error {
	if err := l.conn.ExpectKeepsPorts(e); err != nil {
		return err
	}
	res, err := l.conn.CreateExpect(e, l.o.OrUpdate)
	l.Evicted += uint64(len(res.Evicted))
	return err
}

// inZone makes a request about e in its zone. Events do not tell it: then it is 0 or,
// when nothing is there, the only one that a flow like its master is in.
func (l *loader) inZone(e *ct.Expect, request func(*ct.Expect) error) error {
	err := request(e)
	if !errors.Is(err, unix.ENOENT) || e.Has(ct.ExpectHasZone) {
		return err
	}
	zones, derr := ct.MasterZones(context.Background(), []*ct.Expect{e})
	if derr != nil {
		return errors.Join(err, derr)
	}
	if len(zones[0]) == 1 {
		e.Zone, e.Present = zones[0][0], e.Present|ct.ExpectHasZone
		return request(e)
	}
	return err
}

// withMaster makes the expectation of i after its master, when that was asked for;
// missing is why it could not be made without.
func (l *loader) withMaster(i *item, missing error) error {
	if !l.o.CreateMaster || i.helper == "" {
		return missing
	}
	made, err := withMaster(l.conn, i.expect, i.helper, 0, func() error { return l.createExpect(i.expect) })
	if err == nil && made {
		l.Masters++
	}
	return err
}

// expectDone counts how a request about an expectation went.
func (l *loader) expectDone(i *item, err error) {
	gone := i.event == ct.Destroy
	switch {
	case err == nil && gone:
		l.Deleted++
		l.applied(true)
	case err == nil:
		l.Expects++
		l.applied(true)
	case gone && errors.Is(err, unix.ENOENT):
		l.Gone++
	case errors.Is(err, unix.EEXIST):
		l.There++
	default:
		l.failed(&format.LineError{Line: i.number, Err: err})
	}
}

// releaseExpects makes the expectations that waited for their masters.
func (l *loader) releaseExpects() error {
	todo := l.expects
	l.expects = nil
	for i := range todo {
		if l.stop != nil {
			return l.stop
		}
		err := l.inZone(todo[i].expect, l.createExpect)
		if errors.Is(err, unix.ENOENT) {
			err = l.withMaster(&todo[i], err)
		}
		l.expectDone(&todo[i], err)
	}
	return l.stop
}
