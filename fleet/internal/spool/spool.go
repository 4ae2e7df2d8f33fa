// Package spool keeps lines that are on their way until the server has acknowledged
// them: in memory, and behind that in a folder.
package spool

import (
	"context"
	"errors"
	"sync"

	"nfctl/fleet/internal/wire"
)

// A Batch is a message that waits to be sent.
type Batch struct {
	Kind wire.Kind
	Head wire.Head
	Data []byte // head and lines

	buf []byte // what Data is the end of, for use again; nil: read from disk
}

// Options say how much a Queue holds.
type Options struct {
	Host, Netns, Boot string
	Epoch             uint64
	Memory            int    // bytes in memory
	Dir               string // folder for what does not fit; "": none
	Disk              int64  // bytes in it
}

// A Queue holds batches in the order in which they came. What is read from it stays
// there until Done. Push is for one goroutine, Take and Done for another.
type Queue struct {
	o Options

	mu      sync.Mutex
	wake    chan struct{} // has room for one: something came
	next    uint64        // number of the next line
	mem     []*Batch      // older than what is on disk
	held    int           // bytes in memory, tail left out
	disk    *disk
	tail    *Batch // newest, still growing
	current *Batch // taken
	stored  bool   // current is on disk
	lines   uint64 // that wait, but for those of earlier runs
	free    [][]byte
	failed  error // of the disk, told once
}

// Open returns an empty queue. With a folder it takes over what an earlier run left
// there; another process that uses the folder is an error.
func Open(o Options) (*Queue, error) {
	q := &Queue{o: o, wake: make(chan struct{}, 1), next: 1}
	if o.Dir == "" {
		return q, nil
	}
	var err error
	if q.disk, err = openDisk(o.Dir, o.Disk); err != nil {
		return nil, err
	}
	return q, nil
}

// Push adds n whole lines of one kind, at most wire.MaxLines, which are numbered. It
// reports false, and does nothing, when there is no room.
func (q *Queue) Push(k wire.Kind, lines []byte, n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t := q.tail; t != nil && (t.Kind != k || t.Head.Count+n > wire.MaxLines ||
		len(t.Data)+len(lines) > wire.MaxBytes) {
		if !q.stash() {
			return false
		}
	}
	if q.tail == nil {
		q.tail = &Batch{
			Kind: k,
			Data: q.buffer(),
			Head: wire.Head{Format: wire.Format, Host: q.o.Host, Netns: q.o.Netns,
				Boot: q.o.Boot, Epoch: q.o.Epoch, First: q.next},
		}
	}
	q.tail.Data = append(q.tail.Data, lines...)
	q.tail.Head.Count += n
	q.next += uint64(n)
	q.lines += uint64(n)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// manyFree bounds how many buffers are kept for use again.
const manyFree = 8

// buffer returns an empty buffer with room for a head in front.
func (q *Queue) buffer() []byte {
	if n := len(q.free); n > 0 {
		b := q.free[n-1]
		q.free = q.free[:n-1]
		return b[:wire.HeadRoom]
	}
	return make([]byte, wire.HeadRoom, 8<<10)
}

// finish puts the head in front of the lines of the newest batch, which grows no more.
func (q *Queue) finish() *Batch {
	t := q.tail
	q.tail = nil
	var room [wire.HeadRoom]byte
	head := t.Head.Append(room[:0])
	start := wire.HeadRoom - len(head)
	copy(t.Data[start:], head)
	t.buf, t.Data = t.Data, t.Data[start:]
	return t
}

// stash puts the newest batch where it can wait.
func (q *Queue) stash() bool {
	size := len(q.tail.Data)
	switch {
	case q.held+size <= q.o.Memory && (q.disk == nil || q.disk.empty()):
		q.held += size
		q.mem = append(q.mem, q.finish())
		return true
	case q.disk == nil || !q.disk.room(size):
		return false
	}
	t := q.finish()
	if err := q.disk.push(t); err != nil {
		t.Data = t.buf // it may grow on
		q.tail, q.failed = t, err
		return false
	}
	q.recycle(t)
	return true
}

func (q *Queue) recycle(b *Batch) {
	if len(q.free) < manyFree && cap(b.buf) >= wire.MaxBytes/2 {
		q.free = append(q.free, b.buf)
	}
}

// Room reports whether a quarter of what the queue can hold is free.
func (q *Queue) Room() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.disk != nil {
		return q.disk.used <= q.disk.most/4*3
	}
	return q.held <= q.o.Memory/4*3
}

// Lines returns how many lines of this run wait, and how many bytes in memory and on
// disk.
func (q *Queue) Lines() (lines uint64, memory int, disk int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.disk != nil {
		disk = q.disk.used
	}
	if q.tail != nil {
		memory = len(q.tail.Data)
	}
	return q.lines, memory + q.held, disk
}

// Failed returns, once, why the disk took nothing or what on it could not be read.
func (q *Queue) Failed() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	err := q.failed
	q.failed = nil
	return err
}

// Take returns the oldest batch, waiting for one; the same one again until Done.
func (q *Queue) Take(ctx context.Context) (*Batch, error) {
	for {
		if b := q.take(); b != nil {
			return b, nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			if b := q.take(); b != nil { // it came at the same time
				return b, nil
			}
			return nil, context.Cause(ctx)
		}
	}
}

func (q *Queue) take() *Batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.current != nil {
		return q.current
	}
	if len(q.mem) > 0 {
		q.current, q.mem = q.mem[0], q.mem[1:]
		return q.current
	}
	if q.disk != nil && !q.disk.empty() {
		b, err := q.disk.peek()
		if err != nil {
			q.failed = errors.Join(q.failed, err)
		}
		if b != nil {
			q.current, q.stored = b, true
			return b
		}
	}
	if q.tail != nil {
		q.current = q.finish()
		q.held += len(q.current.buf)
	}
	return q.current
}

// Done forgets the batch that Take returned.
func (q *Queue) Done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.current
	if b == nil {
		return
	}
	if b.Head.Epoch == q.o.Epoch {
		q.lines -= uint64(b.Head.Count)
	}
	if q.stored {
		q.disk.pop()
	} else {
		q.held -= len(b.buf)
		q.recycle(b)
	}
	q.current, q.stored = nil, false
}

// Close puts what is in memory on disk, for the next run, and gives the folder back.
// It returns how many lines of this run are lost.
func (q *Queue) Close() (lost uint64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.disk == nil {
		return q.lines, nil
	}
	left := q.mem
	if q.current != nil && !q.stored {
		left = append([]*Batch{q.current}, left...)
	}
	if q.tail != nil {
		left = append(left, q.finish())
	}
	for i, b := range left {
		if err = q.disk.keep(b); err != nil {
			for _, b := range left[i:] {
				lost += uint64(b.Head.Count)
			}
			break
		}
	}
	return lost, errors.Join(err, q.disk.close())
}
