package say

import (
	"bytes"
	"testing"
	"time"
)

func TestOften(t *testing.T) {
	var o Often
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		after time.Duration
		left  uint64
		ok    bool
	}{{0, 0, true}, {0, 0, false}, {999 * time.Millisecond, 0, false},
		{time.Millisecond, 2, true}, {5 * time.Second, 0, true}} {
		now = now.Add(c.after)
		if left, ok := o.Ask(now); left != c.left || ok != c.ok {
			t.Errorf("after %v: %d, %v", c.after, left, ok)
		}
	}
	if got := Others(0) + Others(7); got != " (and 7 more like it before)" {
		t.Errorf("%q", got)
	}
}

func TestJournal(t *testing.T) {
	var b bytes.Buffer
	w := &Writer{W: &b, Journal: true}
	w.At(Warning, []byte("one\ntwo\n"))
	_, _ = w.Write([]byte("three\n\n"))
	w.Flush()
	if got := b.String(); got != "<4>one\n<4>two\n<6>three\n\n" {
		t.Errorf("%q", got)
	}
	b.Reset()
	w.Journal = false
	w.At(Err, []byte("one\n"))
	w.Flush()
	if got := b.String(); got != "one\n" {
		t.Errorf("%q", got)
	}
}
