package say

import (
	"strconv"
	"sync"
	"time"
)

// An Often keeps one kind of message from being said more than once a second. The zero
// value is ready; it is for any number of goroutines.
type Often struct {
	mu   sync.Mutex
	next time.Time
	left uint64
}

// Others says how many messages were left out before the one at hand; "" when none was.
func Others(left uint64) string {
	if left == 0 {
		return ""
	}
	return " (and " + strconv.FormatUint(left, 10) + " more like it before)"
}

// Ask reports whether the message is to be said now, and how many were left out before
// it.
func (o *Often) Ask(now time.Time) (left uint64, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Before(o.next) {
		o.left++
		return 0, false
	}
	left, o.left = o.left, 0
	o.next = now.Add(time.Second)
	return left, true
}
