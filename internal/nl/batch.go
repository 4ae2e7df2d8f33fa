package nl

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// A Batch packs many requests into one send and tells the outcome of each. Only
// the last request of a send asks for an acknowledgement: the kernel answers
// those that fail anyway, in order, so what was not named has succeeded.
type Batch struct {
	// Done is told each request's outcome, in the order of Add: nil, or an
	// *OpError for Error to fill in. i counts from 0 since the Batch was made.
	Done func(i int, err error)

	// Reply, when set, is given the messages that answer request i (a get). It
	// must not keep m.Data, and comes before Done(i).
	Reply func(i int, m *Msg)

	c     *Conn
	size  int
	first int // number of the first request in out
	out   []byte
	last  int // where the last request in out starts
	seqs  []uint32
	errs  []error
}

// batchBytes bounds a send: the socket's send buffer is at least as large.
const batchBytes = 64 << 10

// NewBatch makes a batch of size requests a send; about 100 is good. The conn
// should have room for as many replies: an acknowledgement takes 1 KiB of the
// receive buffer, whose default size is 208 KiB.
func (c *Conn) NewBatch(size int, done func(i int, err error)) *Batch {
	return &Batch{Done: done, c: c, size: max(size, 1)}
}

// Add copies req, one message, into the batch, finishing it, and sends the batch
// when it is full. The error is one of sending or receiving, not of a request;
// what was not answered then has ErrNoAnswer for its outcome.
func (b *Batch) Add(req []byte) error {
	if len(b.seqs) == b.size || len(b.out)+len(req) > batchBytes && len(b.seqs) > 0 {
		if err := b.Flush(); err != nil {
			return err
		}
	}
	b.last = len(b.out)
	b.out = append(b.out, req...)
	m := Finish(b.out, b.last)[b.last:]
	ne.PutUint16(m[6:], ne.Uint16(m[6:])&^unix.NLM_F_ACK)
	seq := b.c.NextSeq()
	PutSeq(m, seq)
	b.seqs = append(b.seqs, seq)
	b.errs = append(b.errs, nil)
	return nil
}

// Flush sends what was added and reads the answers.
func (b *Batch) Flush() error {
	if len(b.seqs) == 0 {
		return nil
	}
	m := b.out[b.last:]
	ne.PutUint16(m[6:], ne.Uint16(m[6:])|unix.NLM_F_ACK)
	answered := 0 // requests whose outcome is known, counted from the first
	err := b.c.SendQuick(b.out)
	if err == nil {
		err = b.c.answers(func(m *Msg) bool {
			i := answered
			for i < len(b.seqs) && b.seqs[i] != m.Seq {
				i++
			}
			if i == len(b.seqs) {
				return false
			}
			if e, done := m.Status(); done {
				b.errs[i] = e
				answered = i + 1
			} else if b.Reply != nil {
				b.Reply(b.first+i, m)
			}
			return true
		})
		if err == nil && answered < len(b.seqs) {
			err = ErrNoAnswer
		}
	}
	for i, e := range b.errs {
		if e == nil && (i >= answered || errors.Is(err, ErrOverrun)) {
			e = &OpError{Err: ErrNoAnswer} // perhaps its refusal was what got lost
		}
		if b.Done != nil {
			b.Done(b.first+i, e)
		}
	}
	b.first += len(b.seqs)
	b.out, b.seqs, b.errs = b.out[:0], b.seqs[:0], b.errs[:0]
	return err
}

// answers hands all messages that are in the socket to f, and those that f does
// not know to c.Other. The kernel has answered when Send returns, so the last
// answer is there when the socket is empty.
func (c *Conn) answers(f func(m *Msg) bool) error {
	r := reader{b: c.replyBuffer()}
	var lost error
	try := func(fd uintptr) { r.recv(fd) }
	for {
		if err := c.rc.Control(try); err != nil {
			return closed(err)
		}
		if r.err == unix.EAGAIN {
			return lost
		}
		if r.n == 0 && r.err == 0 { // not from the kernel
			continue
		}
		switch err := errnoOf(r.err, r.n > len(r.b)); {
		case errors.Is(err, ErrOverrun):
			lost = err
			continue
		case err != nil:
			return err
		}
		for b := r.b[:r.n]; ; {
			m, rest, ok := NextMsg(b)
			if !ok {
				break
			}
			b = rest
			if (m.Port != c.port || !f(&m)) && c.Other != nil {
				c.Other(&m)
			}
		}
	}
}

// Commit sends msgs as one transaction of a subsystem that has them (nf_tables):
// all take effect or none. It returns the number of the first message that was
// refused and an *OpError for Error to fill in; -1 with a refusal of the whole.
func (c *Conn) Commit(subsys uint8, msgs ...[]byte) (failed int, err error) {
	mark := func(b []byte, typ uint16) []byte { // NFNL_MSG_BATCH_BEGIN and END
		at := len(b)
		b = AppendHeader(b, typ, 0, unix.AF_UNSPEC, uint16(subsys))
		PutSeq(b[at:], c.NextSeq())
		return Finish(b, at)
	}
	out := mark(nil, unix.NFNL_MSG_BATCH_BEGIN)
	begin := ne.Uint32(out[8:])
	seqs := make([]uint32, len(msgs))
	for i, m := range msgs {
		at := len(out)
		out = append(out, m...)
		flags := ne.Uint16(out[at+6:]) &^ unix.NLM_F_ACK
		if i == len(msgs)-1 { // refusals are told unasked
			flags |= unix.NLM_F_ACK
		}
		ne.PutUint16(out[at+6:], flags)
		seqs[i] = c.NextSeq()
		PutSeq(out[at:], seqs[i])
		out = Finish(out, at)
	}
	out = mark(out, unix.NFNL_MSG_BATCH_END)
	if n := 2 * len(out); n > batchBytes { // a message must fit the send buffer
		if c.setInt(unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, n) != nil {
			_ = c.setInt(unix.SOL_SOCKET, unix.SO_SNDBUF, n)
		}
	}
	if err := c.Send(out); err != nil {
		return -1, &OpError{Err: err}
	}
	var refused error
	answered := len(msgs) == 0
	failed = -1
	err = c.answers(func(m *Msg) bool {
		i := slices.Index(seqs, m.Seq)
		if i < 0 && m.Seq != begin {
			return false
		}
		e, done := m.Status()
		if e != nil && refused == nil {
			failed, refused = i, e
		}
		answered = answered || done && i == len(seqs)-1
		return true
	})
	switch {
	case refused != nil:
		return failed, refused
	case err != nil:
		return -1, &OpError{Err: err}
	case !answered:
		return -1, &OpError{Err: ErrNoAnswer}
	}
	return -1, nil
}
