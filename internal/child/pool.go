package child

import (
	"bufio"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A Pool runs one program again and again, each time with other input, some of them at
// the same time.
type Pool struct {
	o    PoolOptions
	l    *Launcher
	jobs chan []byte
	free chan []byte // inputs that were read, to be used again

	workers sync.WaitGroup
	hurry   chan struct{} // closed: what waits is not run any more
	once    sync.Once
	errs    *os.File // the programs' standard error
	read    chan struct{}

	ran, failed, late, left atomic.Uint64
}

// PoolOptions say what a Pool runs.
type PoolOptions struct {
	Args     []string
	Parallel int           // programs at the same time
	Timeout  time.Duration // for each; then it is ended
	Room     int           // inputs that may wait for a program
	Stdout   *os.File      // nil: /dev/null
	// Stderr is told what programs write there, a line at a time and cut; nil: nobody.
	Stderr func(line string)
	// Failed is told of a program that could not begin, ended other than with 0, or was
	// ended because it took too long.
	Failed func(error)
}

// PoolStats are what became of a Pool's inputs.
type PoolStats struct {
	Ran    uint64 // programs that have ended
	Failed uint64 // of these, not with 0, or that could not begin
	Late   uint64 // of the failed, ended because they took too long
	Left   uint64 // inputs that were dropped: too many waited
}

// mostLine bounds a line of a program's standard error.
const mostLine = 1000

// Pool makes a pool. The caller calls Close before it closes the launcher.
func (l *Launcher) Pool(o PoolOptions) (*Pool, error) {
	p := &Pool{o: o, l: l, jobs: make(chan []byte, o.Room), free: make(chan []byte, o.Room+o.Parallel),
		hurry: make(chan struct{}), read: make(chan struct{})}
	if o.Stderr == nil {
		close(p.read)
	} else {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		p.errs = w
		go p.listen(r)
	}
	for range o.Parallel {
		p.workers.Go(p.work)
	}
	return p, nil
}

// listen hands on what programs say.
func (p *Pool) listen(r *os.File) {
	defer close(p.read)
	defer r.Close()
	in := bufio.NewReaderSize(r, mostLine)
	for {
		line, more, err := in.ReadLine()
		if err != nil {
			return
		}
		p.o.Stderr(string(line))
		for more && err == nil { // the rest of a long line
			_, more, err = in.ReadLine()
		}
	}
}

// Add has the program run with this input, which is copied. It does not wait: where too
// many wait already the input is dropped and counted.
func (p *Pool) Add(input []byte) {
	var b []byte
	select {
	case b = <-p.free:
	default:
	}
	b = append(b[:0], input...)
	select {
	case p.jobs <- b:
	default:
		p.left.Add(1)
		p.give(b)
	}
}

func (p *Pool) give(b []byte) {
	select {
	case p.free <- b:
	default:
	}
}

func (p *Pool) work() {
	for b := range p.jobs {
		select {
		case <-p.hurry:
			p.left.Add(1)
			continue
		default:
		}
		err := p.run(b)
		p.ran.Add(1)
		if err != nil {
			p.failed.Add(1)
			if p.o.Failed != nil {
				p.o.Failed(fmt.Errorf("%s: %w", p.o.Args[0], err))
			}
		}
		p.give(b)
	}
}

// run runs the program once.
func (p *Pool) run(input []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	c, err := p.l.Run(p.o.Args, r, p.o.Stdout, p.errs)
	_ = r.Close()
	if err != nil {
		_ = w.Close()
		return err
	}
	end := time.Now().Add(p.o.Timeout)
	_ = w.SetWriteDeadline(end)
	_, _ = w.Write(input) // a program need not read
	_ = w.Close()
	t := time.NewTimer(time.Until(end))
	defer t.Stop()
	select {
	case <-c.Ended():
		return c.Wait()
	case <-t.C:
		p.late.Add(1)
		c.End()
		<-c.Ended()
		return fmt.Errorf("ended after %v", p.o.Timeout)
	}
}

// Stats returns the counts so far.
func (p *Pool) Stats() PoolStats {
	return PoolStats{Ran: p.ran.Load(), Failed: p.failed.Load(), Late: p.late.Load(), Left: p.left.Load()}
}

// Close waits for the programs that run, and first for those whose input waits unless now
// is set. Add must not be called any more.
func (p *Pool) Close(now bool) {
	p.once.Do(func() {
		if now {
			close(p.hurry)
		}
		close(p.jobs)
		p.workers.Wait()
		if p.errs != nil {
			_ = p.errs.Close()
		}
		<-p.read
	})
}
