package nl_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
	"nfctl/internal/nstest"
)

// message is a netlink message as the kernel would send it to c.
func message(typ uint16, seq, port uint32, data []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_MULTI)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, port)
	return append(b, data...)
}

// Nobody but the kernel is heard by unicast.
func TestUnicastRefused(t *testing.T) {
	ns := nstest.Enter(t)
	c := dial(t, nl.Config{Groups: 1 << (groupNew - 1)})
	f := ns.Forger()
	for _, b := range [][]byte{
		message(unix.NLMSG_NOOP, 0, 0, nil), message(unix.NLMSG_DONE, 0, 0, nil), message(unix.NLMSG_ERROR, 0, 0, make([]byte, 20)),
		flow(nil, ctNew, 0, 7),
	} {
		if err := f.Send(c.PortID(), b); err != unix.ECONNREFUSED {
			t.Errorf("forged message: %v", err)
		}
	}
}

// What others send to a group that a socket has joined is passed over by all that
// reads, and counted.
func TestForeignPassedOver(t *testing.T) {
	ns := nstest.Enter(t)
	maker := dial(t, nl.Config{})
	fill(t, maker, 300)
	f := ns.Forger()
	// Ends, errors and acknowledgements of every request that could be under way,
	// and flows that are not there.
	forge := func(c *nl.Conn) {
		seq := c.NextSeq()
		for k := range uint32(5) {
			f.MustMulticast(t, groupNew, message(unix.NLMSG_ERROR, seq+k, c.PortID(), make([]byte, 20)))
			f.MustMulticast(t, groupNew, message(unix.NLMSG_ERROR, seq+k, c.PortID(),
				binary.NativeEndian.AppendUint32(nil, ^uint32(0))))
			f.MustMulticast(t, groupNew, message(unix.NLMSG_DONE, seq+k, c.PortID(), make([]byte, 4)))
			fl := flow(nil, ctNew, 0, 999)
			binary.NativeEndian.PutUint16(fl[6:], 0) // no request: the kernel gets it too
			nl.PutSeq(fl, seq+k)
			binary.NativeEndian.PutUint32(fl[12:], c.PortID())
			f.MustMulticast(t, groupNew, fl)
		}
	}
	const each = 20
	join := nl.Config{Groups: 1 << (groupNew - 1), Buffer: 1 << 20}

	t.Run("Dump", func(t *testing.T) {
		ns.Do(func() {
			c := dial(t, join)
			before := nl.Foreign()
			forge(c)
			if got := dump(t, c); len(got) != 300 || got[999] {
				t.Errorf("dump: %d flows, forged one: %v", len(got), got[999])
			}
			if n := nl.Foreign() - before; n != each {
				t.Errorf("%d counted", n)
			}
		})
	})
	t.Run("Do", func(t *testing.T) {
		ns.Do(func() {
			c := dial(t, join)
			forge(c)
			if err := c.Do(flow(nil, ctDelete, 0, 999)); !errors.Is(err, unix.ENOENT) {
				t.Errorf("delete of what is not there: %v", err)
			}
		})
	})
	t.Run("Batch", func(t *testing.T) {
		ns.Do(func() {
			c := dial(t, join)
			var errs []error
			b := c.NewBatch(10, func(_ int, err error) { errs = append(errs, err) })
			for range 3 {
				if err := b.Add(flow(nil, ctDelete, 0, 999)); err != nil {
					t.Fatal(err)
				}
			}
			forge(c)
			if err := b.Flush(); err != nil {
				t.Fatal(err)
			}
			for i, err := range errs {
				if !errors.Is(err, unix.ENOENT) {
					t.Errorf("delete %d of what is not there: %v", i, err)
				}
			}
			if len(errs) != 3 {
				t.Errorf("%d outcomes", len(errs))
			}
		})
	})
	t.Run("Receiver", func(t *testing.T) {
		ns.Do(func() {
			c := dial(t, join)
			r, err := c.NewReceiver(16, 8<<10)
			if err != nil {
				t.Fatal(err)
			}
			before := nl.Foreign()
			forge(c)
			if err := maker.Do(flow(nil, ctNew, create, 1000)); err != nil {
				t.Fatal(err)
			}
			forge(c)
			ports := map[uint16]int{}
			for deadline := time.Now().Add(nstest.Patience); nl.Foreign()-before < 2*each &&
				time.Now().Before(deadline); {
				n, err := r.Recv(100 * time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					b, whole := r.Datagram(i)
					if !whole {
						t.Error("a datagram is said to be cut")
					}
					for m, rest, ok := nl.NextMsg(b); ok; m, rest, ok = nl.NextMsg(rest) {
						ports[sport(&m)]++
					}
				}
			}
			if len(ports) != 1 || ports[1000] != 1 {
				t.Errorf("events of ports: %v", ports)
			}
			if n := nl.Foreign() - before; n != 2*each {
				t.Errorf("%d counted", n)
			}
		})
	})
	// A foreign datagram does not make a reader that has a deadline wait longer.
	t.Run("Deadline", func(t *testing.T) {
		ns.Do(func() {
			c := dial(t, join)
			forge(c)
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if n, err := c.Read(make([]byte, 8<<10)); n != 0 || err == nil {
				t.Errorf("read %d bytes, %v", n, err)
			}
		})
	})
}

// Two sockets do not begin to count alike, nor by the clock.
func TestSequenceStartsAnywhere(t *testing.T) {
	nstest.Enter(t)
	now := uint32(time.Now().UnixNano())
	near := 0
	for range 8 {
		s := dial(t, nl.Config{}).NextSeq()
		if s-now < 1<<27 { // 134 ms
			near++
		}
	}
	if near > 4 {
		t.Errorf("%d of 8 sockets begin at the clock", near)
	}
}
