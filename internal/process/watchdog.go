package process

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Watchdog tells the service manager that loops go on, where it asked to be told
// (WATCHDOG_USEC and WATCHDOG_PID, sd_watchdog_enabled(3)). Each loop beats by itself; as
// long as one of them stands still nothing is sent, and the manager acts.
type Watchdog struct {
	within time.Duration // what the manager waits
	begun  time.Time
	beats  []atomic.Int64 // of each loop the last, nanoseconds from begun
	sent   atomic.Int64
	conn   syscall.RawConn
}

// NewWatchdog returns a watchdog of so many loops; nil: nobody asked for one.
func NewWatchdog(loops int) (*Watchdog, error) {
	text, addr := os.Getenv("WATCHDOG_USEC"), os.Getenv("NOTIFY_SOCKET")
	if pid := os.Getenv("WATCHDOG_PID"); text == "" || addr == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	usec, err := strconv.ParseUint(text, 10, 63)
	if err != nil || usec == 0 || usec > uint64((1<<63-1)/time.Microsecond) {
		return nil, fmt.Errorf("WATCHDOG_USEC=%q: not a number of microseconds", text)
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	w := &Watchdog{within: time.Duration(usec) * time.Microsecond, begun: time.Now(),
		beats: make([]atomic.Int64, loops)}
	w.conn, err = c.SyscallConn()
	return w, err
}

// Every returns how often each loop is to beat at least; 0: never.
func (w *Watchdog) Every() time.Duration {
	if w == nil {
		return 0
	}
	return w.within / 4
}

// Beat says that loop i, from 0, goes on. It is cheap, and never waits: a word for which
// the manager has no room is sent at a later beat.
func (w *Watchdog) Beat(i int) {
	now := time.Since(w.begun)
	w.beats[i].Store(int64(now))
	last := w.sent.Load()
	if now-time.Duration(last) < w.within/4 {
		return
	}
	for j := range w.beats {
		if now-time.Duration(w.beats[j].Load()) > w.within/2 {
			return
		}
	}
	if !w.sent.CompareAndSwap(last, int64(now)) {
		return // another loop does
	}
	_ = w.conn.Write(func(fd uintptr) bool {
		if _, err := unix.SendmsgN(int(fd), []byte("WATCHDOG=1"), nil, nil, unix.MSG_DONTWAIT); err != nil {
			w.sent.Store(last)
		}
		return true
	})
}
