package table

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/nl"
)

// An Edit is told how an edit of many objects, flows or expectations, goes on.
// Functions that are nil are not called.
type Edit[T any] struct {
	// Edited is told of each object that was edited, before Done.
	Edited func()
	// Done is given each object that was edited: as it was when it was deleted, as it
	// is when it was changed. It lives until Done returns. An error ends the edit.
	Done func(*T) error
	// Failed is told of each object that could not be edited, but not of those that
	// were gone meanwhile.
	Failed func(error)
}

// Edited is what an edit did.
type Edited struct {
	Matched uint64 // objects chosen
	Done    uint64 // edited
	Flushed bool   // by one request, which does not tell how many there were
	Dump    ct.DumpResult
}

// Gone reports whether an object that was read was not there any more when it was to
// be edited.
func Gone(err error) bool {
	var op *nl.OpError
	return errors.As(err, &op) && errors.Is(err, unix.ENOENT)
}

// editing is a running edit.
type editing[T any] struct {
	Edit[T]
	stop error // why it ends
}

func (e *editing[T]) done(t *T) {
	if e.Done != nil && e.stop == nil {
		e.stop = e.Done(t)
	}
}

func (e *editing[T]) edited() {
	if e.Edited != nil {
		e.Edited()
	}
}

func (e *editing[T]) failed(err error) {
	if e.Failed != nil {
		e.Failed(err)
	}
}

// first returns the first error that there is.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Each hands every flow that was chosen to f, in the kernel's order.
func Each(ctx context.Context, c *Choice[ct.Flow], f func(*ct.Flow) error) (Edited, error) {
	var out Edited
	var err error
	out.Dump, err = ct.Dump(ctx, DumpOptions(c), func(g *ct.Flow) error {
		if !c.Keep(g) {
			return nil
		}
		out.Matched++
		return f(g)
	})
	return out, err
}

// Delete reads what was chosen and deletes it, flow by flow. One dump is read for
// it, not one for each family side by side: the kernel deletes one flow at a time
// anyway, and reading goes on meanwhile.
func Delete(ctx context.Context, c *Choice[ct.Flow], how Edit[ct.Flow]) (Edited, error) {
	conn, err := ct.Dial()
	if err != nil {
		return Edited{}, err
	}
	defer conn.Close()
	e := &editing[ct.Flow]{Edit: how}
	deleted := uint64(0)
	b := conn.NewBatch(BatchSize, func(f *ct.Flow, err error) {
		switch {
		case err == nil:
			deleted++
			e.edited()
			e.done(f)
		case !Gone(err):
			e.failed(err)
		}
	})
	out, err := Each(ctx, c, func(f *ct.Flow) error {
		if err := b.Delete(f); err != nil {
			return err
		}
		return e.stop
	})
	sent := b.Flush()
	out.Done = deleted
	return out, first(err, sent, e.stop)
}

// Flush has the kernel delete what was chosen by one request, where its filter says
// all of it and a probe showed that this kernel heeds it: it does not tell how many
// flows that were. Otherwise Flush reports that it did nothing, and the flows are to
// be deleted one by one. Everything is flushed without a probe.
func Flush(c *Choice[ct.Flow]) (done bool, err error) {
	family, k, exact := flushFilter(c)
	if !exact {
		return false, nil
	}
	conn, err := ct.Dial()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if family != 0 || !k.IsZero() {
		if ok, err := ct.CanFlush(family != 0, k); err != nil || !ok {
			return false, nil // by hand, then
		}
	}
	return true, conn.Flush(family, k)
}

// FlushOrDelete has the kernel delete what was chosen, or else deletes it flow by
// flow.
func FlushOrDelete(ctx context.Context, c *Choice[ct.Flow], how Edit[ct.Flow]) (Edited, error) {
	if flushed, err := Flush(c); flushed || err != nil {
		return Edited{Flushed: flushed}, err
	}
	return Delete(ctx, c, how)
}

// flushFilter returns the filter of a flush that says all that was chosen.
func flushFilter(c *Choice[ct.Flow]) (family uint8, k ct.KernelFilter, exact bool) {
	if c.tests > 0 {
		return 0, k, false
	}
	seen := map[string]bool{}
	for _, c := range c.conds {
		if len(c.Paths) != 1 || c.Set.Not || seen[c.Paths[0]] {
			return 0, k, false
		}
		switch path := c.Paths[0]; path {
		case "mark", "status", "zone", "family":
			if _, single := c.Set.Num(); !single {
				return 0, k, false
			}
			seen[path] = true
		default:
			return 0, k, false
		}
	}
	k, families := ct.FilterFrom(c.conds)
	if len(families) == 1 {
		family = families[0]
	} else if seen["family"] {
		return 0, k, false
	}
	// What was said must be in the filter, which cannot say zone 0.
	return family, k, k.MarkMask != 0 == seen["mark"] && k.StatusMask != 0 == seen["status"] &&
		k.Zone != 0 == seen["zone"]
}

// Zero hands every flow that was chosen to done, and sets its counters to zero: what
// done sees is what the kernel read before that.
func Zero(ctx context.Context, c *Choice[ct.Flow], d ct.DumpOptions, how Edit[ct.Flow]) (Edited, error) {
	conn, err := ct.Dial()
	if err != nil {
		return Edited{}, err
	}
	defer conn.Close()
	e := &editing[ct.Flow]{Edit: how}
	var out Edited
	b := conn.NewBatch(BatchSize, func(_ *ct.Flow, err error) {
		if err != nil && !Gone(err) {
			e.failed(err)
		}
	})
	b.Reply(func(f *ct.Flow) {
		out.Done++
		e.edited()
		e.done(f)
	})
	out.Dump, err = ct.Dump(ctx, d, func(f *ct.Flow) error {
		if !c.Keep(f) {
			return e.stop
		}
		out.Matched++
		if err := b.Get(f, true); err != nil {
			return err
		}
		return e.stop
	})
	sent := b.Flush()
	return out, first(err, sent, e.stop)
}

// Update changes what was chosen. Without how.Done the flows are not read again.
func Update(ctx context.Context, c *Choice[ct.Flow], ch *Change, how Edit[ct.Flow]) (Edited, error) {
	var conns [3]*ct.Conn
	for i := range conns {
		var err error
		if conns[i], err = ct.Dial(); err != nil {
			return Edited{}, err
		}
		defer conns[i].Close()
	}
	edits, reads, single := conns[0], conns[1], conns[2]
	e := &editing[ct.Flow]{Edit: how}
	again := reads.NewBatch(BatchSize, nil)
	again.Reply(e.done)
	changed := uint64(0)
	b := edits.NewBatch(BatchSize, func(f *ct.Flow, err error) {
		if err != nil && !Gone(err) { // by itself it gets a second try where that helps, and a reason
			d, _ := ch.Of(f)
			err = single.Update(f, d)
		}
		switch {
		case Gone(err):
		case err != nil:
			e.failed(err)
		default:
			changed++
			e.edited()
			if e.Done != nil && e.stop == nil {
				e.stop = again.Get(f, false)
			}
		}
	})
	out, err := Each(ctx, c, func(f *ct.Flow) error {
		d, err := ch.Of(f)
		switch {
		case err != nil:
			e.failed(fmt.Errorf("%s: update: %w", ct.AppendTuple([]byte("flow "), &f.Orig), err))
		case ch.idle(f):
			changed++
			e.done(f)
		default:
			if err := b.Update(f, d); err != nil {
				return err
			}
		}
		return e.stop
	})
	sent := b.Flush()
	reread := again.Flush()
	out.Done = changed
	return out, first(err, sent, reread, e.stop)
}
