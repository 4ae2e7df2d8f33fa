package table

import (
	"context"

	"nfctl/internal/ct"
)

// Count returns how many flows the table has, and how many it may have.
func Count() (n, most uint64, err error) {
	conn, err := ct.Dial()
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	have, room, err := conn.Count()
	return uint64(have), uint64(room), err
}

// A Listing says how flows are listed.
type Listing struct {
	Dump    ct.DumpOptions
	Zero    bool // set the counters of what is listed to zero, when they were read
	InOrder bool // by one goroutine, in the kernel's order
	// Reader is called for each goroutine that reads, before any does, and returns what
	// is given the flows that it reads and that were chosen. nil: they are only counted.
	Reader func() func(*ct.Flow) error
	Failed func(error) // is told of each flow that could not be set to zero; nil: nobody
}

// List reads the flows that were chosen, on several goroutines where that is
// possible, and returns how many there were.
func List(ctx context.Context, c *Choice[ct.Flow], how Listing) (uint64, ct.DumpResult, error) {
	if how.Zero && c.Match != nil {
		// Reading all without zeroing, and then each that matches by itself: what the
		// kernel sent before it set the counters to zero is what is handed on.
		edit := Edit[ct.Flow]{Failed: how.Failed}
		if how.Reader != nil {
			edit.Done = how.Reader()
		}
		out, err := Zero(ctx, c, how.Dump, edit)
		return out.Done, out.Dump, err
	}
	d := how.Dump
	d.Zero = how.Zero
	var all []*listWorker
	worker := func() *listWorker {
		w := &listWorker{keep: c.Match}
		if how.Reader != nil {
			w.flow = how.Reader()
		}
		all = append(all, w)
		return w
	}
	var res ct.DumpResult
	var err error
	if how.InOrder {
		res, err = ct.Dump(ctx, d, worker().Flow)
	} else {
		res, err = ct.DumpParallel(ctx, d, func() ct.Worker { return worker() })
	}
	n := uint64(0)
	for _, w := range all {
		n += w.n
	}
	return n, res, err
}

// A listWorker hands on the flows that one goroutine reads.
type listWorker struct {
	keep func(*ct.Flow) bool
	flow func(*ct.Flow) error
	n    uint64
}

// Flow implements ct.Worker.
func (w *listWorker) Flow(f *ct.Flow) error {
	if w.keep != nil && !w.keep(f) {
		return nil
	}
	if w.n++; w.flow == nil {
		return nil
	}
	return w.flow(f)
}

// Rest implements ct.Worker.
func (w *listWorker) Rest() error { return nil }
