package main

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/natlog"
	"nfctl/internal/nl"
	"nfctl/internal/table"
)

// natResync is how often the table is listed again for a log of translations, unless
// --resync says it: after losses, and else seldom.
const natResync = time.Hour

// A natRun is what a watch has that keeps a log of address translations.
type natRun struct {
	log  natlog.Log
	head func([]byte) []byte
}

// natLog runs the watch as a log of address translations.
func (w *watchRun) natLog(c *cobra.Command, flows table.Watch[ct.Flow]) error {
	for _, flag := range []string{"events", "until", "not-by", "fields", "template", "exec"} {
		if f := c.Flag(flag); f != nil && f.Changed {
			return usagef("--%s does not go with --nat-log, which has its own events and fields", flag)
		}
	}
	w.o.existing = true
	if w.o.resync == 0 {
		w.o.resync = natResync
	}
	w.opt = ct.WatchOptions{Flows: ct.EventNew | ct.EventDestroy, Match: flows.Conds}
	if err := w.o.stream.file.check(false); err != nil {
		return err
	}
	w.o.stream.file.divert(w.a)
	out, err := w.a.outputOf(true)
	if err != nil {
		return err
	}
	if !slices.Contains(format.TranslationFormats, out.Format) {
		return usagef("--nat-log is written as text, json or csv, which 'nfctl ct who' reads")
	}
	p, err := format.New(format.Translations, out, format.Options{})
	if err != nil {
		return &usageError{err}
	}
	w.nat = &natRun{log: natlog.Log{Emit: p.Append}}
	w.nat.head = func(b []byte) []byte { return w.nat.log.Piece(p.Begin(b)) }
	w.prints(p.Begin, p.Flush, p.End, p.Err)
	w.h.Flow = func(f *ct.Flow) error {
		if f.Event == ct.Existing {
			w.listed.Add(1)
		} else {
			w.events.Add(1)
		}
		if flows.Show != nil && !flows.Show(f) {
			return nil
		}
		var shown bool
		if w.k.b, shown = w.nat.log.Flow(w.k.b, f); !shown {
			return nil
		}
		if !w.stream.Take() {
			return nl.ErrStop
		}
		w.news = true
		n := w.shown.Add(1)
		if w.k.full() {
			w.stream.Touch()
			if err := w.writeNat(); err != nil {
				return err
			}
		}
		if n == w.o.stream.count {
			return nl.ErrStop
		}
		return nil
	}
	return w.run(c.Context(), out)
}

// writeNat writes what was gathered of the log.
func (w *watchRun) writeNat() error {
	if w.silent {
		w.k.b = w.k.b[:0]
	} else if err := w.k.flush(); err != nil {
		return err
	}
	w.nat.log.Written(uint64(time.Now().UnixNano()))
	return nil
}

// natHandlers has losses and marks stand in the log.
func (w *watchRun) natHandlers() {
	lost, mark := w.h.Lost, w.h.Mark
	w.h.Lost = func(l ct.Lost) error {
		silent := w.silent
		w.silent = true // the log has a record of its own for it
		err := lost(l)
		w.silent = silent
		w.k.b = w.nat.log.Lost(w.k.b, l)
		return err
	}
	w.h.Mark = func(m ct.Mark) error {
		silent := w.silent
		w.silent = true
		err := mark(m)
		w.silent = silent
		w.k.b = w.nat.log.Mark(w.k.b, m)
		return err
	}
}
