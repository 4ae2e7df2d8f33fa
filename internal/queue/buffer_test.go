package queue

import "testing"

func TestBufferFor(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		maxLen, copied uint32
		memory         uint64
		want           int
	}{
		{DefaultMaxLen, 60, 8 * gib, DefaultBuffer},      // the headers: what there always was
		{DefaultMaxLen, MaxCopy, 8 * gib, 256 << 20},     // all of each: 1/32 of the memory
		{DefaultMaxLen, MaxCopy, gib / 4, DefaultBuffer}, // never less than there always was
		{65535, 60, 64 * gib, 65535 * (60 + 1024)},       // a long queue
		{1 << 31, MaxCopy, 1 << 50, gib},                 // what can be asked for
		{DefaultMaxLen, MaxCopy, 0, DefaultBuffer},       // the memory is not known
	} {
		if got := bufferFor(c.maxLen, c.copied, c.memory); got != c.want {
			t.Errorf("%d packets of %d, memory %d: %d, want %d", c.maxLen, c.copied, c.memory, got, c.want)
		}
	}
}
