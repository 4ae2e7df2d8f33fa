package nft

import (
	"bytes"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nfctl/internal/mark"
	"nfctl/internal/nstest"
)

// TestCodesInEachForm: each form that a table can have does what codes in packets' marks
// say, with IPv4 and IPv6, and of decided flows nothing is queued.
func TestCodesInEachForm(t *testing.T) {
	t.Parallel()
	codes := &mark.Codes{Mask: 0x0f000000, List: []mark.Code{{Verdict: mark.AcceptFlow, Value: 5, Mask: 0xff},
		{Verdict: mark.DropFlow}, {}, {Verdict: mark.RejectFlow}, {Verdict: mark.Reject}}}
	said := map[string]uint32{"good": codes.Number(0), "bad": codes.Number(1), "worse": codes.Number(3),
		"once": codes.Number(4)}
	for _, w := range ways {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			ns := nstest.Enter(t)
			w.owned = w.owned && owners(t)
			loadTarget(t)
			q := consumeMarking(t, 0, accept, func(p []byte) uint32 {
				for word, n := range said {
					if bytes.HasSuffix(p, []byte(word)) {
						return n
					}
				}
				return 0
			})
			tab, err := attach([]Spec{parse(t, "input udp > :7000"), parse(t, "prerouting priority 5 tcp >")}, Queues{0,
				0}, codes, []way{w})
			if err != nil && errors.Is(err, unix.EOPNOTSUPP) && (!w.compat || !w.pair) {
				t.Skipf("this kernel has no such table: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer tab.Close()
			for _, host := range []string{"127.0.0.1", "::1"} {
				addr := ns.UDPEcho(net.JoinHostPort(host, "7000"))
				for _, c := range []struct {
					word string
					then error // what comes of the next packet
					up   int   // packets that are queued, of "x", the word and "x"
				}{
					{"good", nil, 2}, {"bad", os.ErrDeadlineExceeded, 2}, {"worse", unix.ECONNREFUSED, 2}, {"once", nil, 3},
				} {
					conn, err := ns.Dial("udp", addr, nstest.Patience)
					if err != nil {
						t.Fatal(err)
					}
					before := q.seen()
					ask := func(word string, patience time.Duration) error {
						_ = conn.SetDeadline(time.Now().Add(patience))
						if _, err := conn.Write([]byte(word)); err != nil {
							return err
						}
						_, err := conn.Read(make([]byte, 10))
						return err
					}
					if err := ask("x", nstest.Patience); err != nil {
						t.Fatal(err)
					}
					first := ask(c.word, 200*time.Millisecond)
					if want := map[string]error{"bad": os.ErrDeadlineExceeded, "worse": unix.ECONNREFUSED,
						"once": unix.ECONNREFUSED}[c.word]; !errors.Is(first, want) {
						t.Errorf("%s %s: %v, want %v", host, c.word, first, want)
					}
					if err := ask("x", 200*time.Millisecond); !errors.Is(err, c.then) {
						t.Errorf("%s behind %s: %v, want %v", host, c.word, err, c.then)
					}
					if n := q.seen() - before; n != c.up {
						t.Errorf("%s %s: %d packets were queued, want %d", host, c.word, n, c.up)
					}
				}
			}
			own, err := Owns()
			if err != nil || len(own) != 1 || own[0].Marks != codes.Mask || own[0].Tested != codes.FlowMask() ||
				own[0].Written != codes.FlowMask()|0xff || len(own[0].Chains) != 2 || (own[0].Owner != 0) != w.owned {
				t.Errorf("%+v, %v", own, err)
			}
		})
	}
}
