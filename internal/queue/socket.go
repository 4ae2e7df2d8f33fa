package queue

import (
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
)

// A Socket is one netlink socket that holds any number of queues, for programs
// that ask for each packet and answer it themselves. Serve is faster and tells
// more; a Socket leaves the order of things to the caller. One goroutine at a
// time may use it.
//
// Answers are gathered and sent together: when the socket has nothing more to
// read, when sendLate has passed since the packets were read, and by Flush.
type Socket struct {
	conn  *nl.Conn
	recv  *nl.Receiver
	names ifNames
	slot  int

	early [][]byte // messages that came while the kernel answered a request
	n, at int      // datagrams of the last receive, and how many of them were looked at
	rest  []byte   // of the datagram at hand
	p     Packet
	since time.Time
	drops uint32

	queues map[uint16]*socketQueue
	last   *socketQueue // whose answers are being gathered
}

type socketQueue struct {
	answers answers
	held    bool // a packet was left without an answer: no batch verdict may pass over it
	open    bool // answers has begun a batch
}

// sendLate bounds how long an answer waits for others.
const sendLate = time.Millisecond

// Modes of SetCopy, as in CopyModes.
const (
	CopyNone   = 0
	CopyMeta   = 1
	CopyPacket = 2
)

// ErrBound is the error of binding a queue that the socket holds already.
var ErrBound = errors.New("queue is bound by this socket already")

// OpenSocket opens a socket in the calling thread's network namespace. buffer is
// the receive buffer to ask for in bytes; 0: DefaultBuffer.
func OpenSocket(buffer int) (*Socket, error) {
	if buffer <= 0 {
		buffer = DefaultBuffer
	}
	c, err := nl.Dial(nl.Config{Buffer: buffer})
	if err != nil {
		return nil, err
	}
	s := &Socket{conn: c, queues: map[uint16]*socketQueue{}, slot: slotSize(MaxCopy)}
	if s.recv, err = c.NewReceiver(slots, s.slot); err != nil {
		_ = c.Close()
		return nil, err
	}
	s.names = ifNames{lookup: c.InterfaceName, m: map[uint32]*ifName{}}
	s.p.names = &s.names
	s.drops, _ = c.Drops()
	return s, nil
}

// Close closes the socket. The kernel drops what still waits for a verdict.
func (s *Socket) Close() error {
	err := s.Flush()
	if e := s.conn.Close(); err == nil {
		err = e
	}
	return err
}

// FD returns the socket's descriptor.
func (s *Socket) FD() int { return s.conn.FD() }

// Bind binds a queue, with copy mode none: see SetCopy. Errors are ErrBound and
// those of Open.
func (s *Socket) Bind(num uint16) error {
	if s.queues[num] != nil {
		return ErrBound
	}
	q := Queue{conf: Config{Num: num}, conn: s.conn}
	b := nl.AppendU32(q.command(nfqnlBind), cfgMaxLen, DefaultMaxLen)
	if err := s.ask(b); err != nil {
		if errors.Is(err, unix.EPERM) {
			if busy := q.busy(); busy != nil {
				return busy
			}
		}
		return nl.Error("bind", q.object(), err)
	}
	s.queues[num] = &socketQueue{answers: answers{queue: num, out: make([]byte, 0, answerSpace)}}
	return nil
}

// Unbind gives a queue up. The kernel drops what still waits for a verdict.
func (s *Socket) Unbind(num uint16) error {
	if s.queues[num] == nil {
		return nil
	}
	err := s.Flush()
	q := Queue{conf: Config{Num: num}}
	if e := s.ask(q.command(nfqnlUnbind)); err == nil {
		err = e
	}
	delete(s.queues, num)
	s.last = nil
	return nl.Error("unbind", q.object(), err)
}

// SetCopy says what is copied of a queue's packets: CopyNone, with which they
// are lost, CopyMeta or CopyPacket with so many bytes, 0 for all of them.
func (s *Socket) SetCopy(num uint16, mode uint8, bytes uint32) error {
	q := Queue{conf: Config{Num: num}}
	b := nl.AppendHeader(nil, msgConfig, nl.FlagAck, unix.AF_UNSPEC, num)
	b = nl.AppendAttr(b, cfgParams, append(binary.BigEndian.AppendUint32(nil, bytes), mode))
	return nl.Error("set copy mode", q.object(), s.ask(b))
}

// ask sends a request and waits for its acknowledgement. Datagrams of the last
// receive that were not yet looked at are kept, as are packets that come first.
func (s *Socket) ask(req []byte) error {
	if err := s.Flush(); err != nil {
		return err
	}
	var early [][]byte
	if len(s.rest) > 0 {
		early = append(early, append([]byte(nil), s.rest...))
		s.rest = nil
	}
	early = append(early, s.early...)
	for ; s.at < s.n; s.at++ {
		b, _ := s.recv.Datagram(s.at)
		early = append(early, append([]byte(nil), b...))
	}
	s.early, s.n, s.at = early, 0, 0
	seq, err := s.conn.Request(req)
	if err != nil {
		return err
	}
	for range sendTries {
		n, err := s.recv.Recv(answerWait)
		if err != nil && !errors.Is(err, nl.ErrOverrun) {
			return err
		}
		if n == 0 && err == nil {
			break
		}
		answered := false
		var answer error
		for i := range n {
			b, _ := s.recv.Datagram(i)
			if m, _, ok := nl.NextMsg(b); ok && m.Seq == seq && m.Port == s.conn.PortID() {
				if e, done := m.Status(); done {
					answered, answer = true, e
					continue
				}
			}
			s.early = append(s.early, append([]byte(nil), b...))
		}
		if answered {
			return answer
		}
	}
	return nl.ErrNoAnswer
}

// Next returns the next packet of any of the queues, waiting up to timeout (0:
// not at all, less than 0: without end); nil when none came. The packet is valid
// until the next call of any method but Answer and Flush. The error is
// nl.ErrOverrun when packets were lost before the next one (see Lost): call
// again.
func (s *Socket) Next(timeout time.Duration) (*Packet, error) {
	for {
		for len(s.rest) > 0 {
			m, rest, ok := nl.NextMsg(s.rest)
			whole := ok
			if !ok {
				if m, ok = nl.Cut(s.rest); !ok {
					s.rest = nil
					break
				}
			}
			s.rest = rest
			if m.Type != msgPacket {
				continue // a verdict's error: the packet was gone
			}
			s.p.Time = s.names.now
			if s.p.decode(&m, whole) && s.queues[s.p.Queue] != nil {
				return &s.p, nil
			}
		}
		switch {
		case len(s.early) > 0:
			s.rest, s.early = s.early[0], s.early[1:]
			s.read()
			continue
		case s.at < s.n:
			s.rest, _ = s.recv.Datagram(s.at)
			s.at++
			continue
		}
		if err := s.Flush(); err != nil {
			return nil, err
		}
		n, err := s.recv.Recv(timeout)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, nil
		}
		s.n, s.at = n, 0
		s.read()
	}
}

func (s *Socket) read() {
	s.since = time.Now()
	s.names.now = s.since.UnixNano()
}

// Lost returns how many packets were lost since the last call, because the
// socket's receive buffer was full.
func (s *Socket) Lost() uint32 {
	drops, err := s.conn.Drops()
	if err != nil {
		return 0
	}
	n := drops - s.drops
	s.drops = drops
	return n
}

// Answer answers the packet that Next returned last; d.Data is copied.
func (s *Socket) Answer(d *Decision) error {
	q := s.queues[s.p.Queue]
	if q == nil {
		return nil // the queue was given up since
	}
	if s.last != q { // the order of packets in different queues is kept
		s.endBatch()
		s.last = q
	}
	a := &q.answers
	if !q.open {
		a.begin(false)
		q.open = true
	}
	if q.held {
		a.one(s.p.ID, d)
	} else {
		a.add(s.p.ID, d)
	}
	if len(a.out) >= sendAt || len(s.early) == 0 && s.at >= s.n || time.Since(s.since) >= sendLate {
		s.since = time.Now()
		return s.Flush()
	}
	return nil
}

// Leave leaves the packet that Next returned last without an answer: it stays in
// its queue until that is unbound.
func (s *Socket) Leave() {
	if q := s.queues[s.p.Queue]; q != nil {
		_ = s.Flush()
		q.held = true
	}
}

func (s *Socket) endBatch() {
	if q := s.last; q != nil && q.open {
		q.answers.finish()
		q.open = false
		_ = s.send(q)
	}
}

func (s *Socket) send(q *socketQueue) error {
	a := &q.answers
	if len(a.out) == 0 {
		return nil
	}
	err := s.conn.Send(a.out)
	for try := 0; try < sendTries && (errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)); try++ {
		time.Sleep(time.Millisecond) // the machine is short of memory
		err = s.conn.Send(a.out)
	}
	a.out = a.out[:0]
	return err
}

// Flush sends the answers gathered so far. It does not wait.
func (s *Socket) Flush() error {
	q := s.last
	if q == nil || !q.open {
		return nil
	}
	q.answers.finish()
	q.open = false
	return nl.Error("answer", "queue", s.send(q))
}
