package main

import (
	"errors"
	"io"
	"math"
	"sync/atomic"

	"github.com/spf13/pflag"

	"nfctl/internal/capture"
	"nfctl/internal/filter"
	"nfctl/internal/queue"
	"nfctl/internal/rotate"
	"nfctl/internal/rule"
)

// A writeOptions says which packets are written to which capture.
type writeOptions struct {
	path string // "": none; "-": standard output
	when string // an expression; "": all
}

func (o *writeOptions) register(f *pflag.FlagSet) {
	f.StringVarP(&o.path, "write", "w", "", "write the packets, with what was decided on them, to this new "+
		"`file` (pcapng; - is standard output)")
	f.StringVar(&o.when, "write-if", "", "write only packets that this `expression` holds for, which knows "+
		"verdict and rule too")
}

// checkWrite refuses what does not go together, before anything is done.
func (o *queueOptions) checkWrite(a *app) error {
	switch {
	case o.write.path == "" && o.write.when != "":
		return usagef("--write-if chooses what --write writes: it wants that too")
	case o.write.path == "":
		return nil
	case o.meta:
		return usagef("--meta copies nothing of the packets: it does not go with --write")
	case o.write.path != "-":
		return nil
	case o.stream.file.path == "" && a.output+a.fields+a.template+o.payload != "":
		return usagef("--write -: standard output is the capture: -o, --fields, --template and --print-payload " +
			"do not go with it")
	case isTerminal(o.stream.file.stdout):
		return usagef("--write -: standard output is a terminal: let a program read it, as 'nfctl queue -w - | " +
			"tshark -r -', or name a file")
	}
	return nil
}

// A captured is the capture that a run writes.
type captured struct {
	path  string
	out   io.Writer
	file  *rotate.File // nil: standard output
	when  *filter.Program[queue.Packet]
	shape capture.Writer
	n     atomic.Uint64 // packets written
}

// captures reads what the flags say of a capture.
func (r *queueRun) captures() error {
	o := r.o.write
	if o.path == "" {
		return nil
	}
	w := &captured{path: o.path, out: r.o.stream.file.stdout, shape: capture.Writer{Snaplen: uint32(r.o.snaplen),
		Program: "nfctl " +
			version}}
	if o.when != "" {
		var err error
		if w.when, err = filter.Compile(queue.Decided, o.when); err != nil {
			return named("--write-if", err)
		}
	}
	r.capture = w
	return nil
}

// begin makes the file: nothing can be wrong with the command line any more.
func (w *captured) begin(a *app, files *fileFlags) (err error) {
	if w.path == "-" {
		_, err = w.out.Write(w.shape.Begin(nil))
		if err != nil {
			err = writeError{err: err}
		}
		return err
	}
	w.file, err = files.openFile(a, "--write", rotate.Options{Path: w.path, Anew: true, Begin: w.shape.Begin,
		Next: capture.Next})
	if err != nil {
		return err
	}
	w.out = w.file
	return nil
}

// needs are what the capture wants of each packet.
func (w *captured) needs(proto uint8) rule.Needs {
	n := rule.Needs{CopyRange: queue.MaxCopy}
	if w.shape.Snaplen > 0 {
		n.CopyRange = min(n.CopyRange, w.shape.Snaplen)
	}
	if w.when != nil {
		n = n.Add(rule.ExprNeeds(w.when, proto))
	}
	return n
}

// A captureSink is a queue's part of the capture.
type captureSink struct {
	w       *captured
	k       sink
	later   *capture.Later // of a replay: packets that rules let wait
	one     []byte
	pending int // packets in it
	failed  bool
	untold  error
}

func (w *captured) sink(r *queueRun) *captureSink {
	s := &captureSink{w: w, k: sink{w: w.out, mu: &r.write}}
	if r.Rules.Simulated {
		s.later = &capture.Later{}
	}
	return s
}

func (s *captureSink) add(p *queue.Packet, d *queue.Decision) {
	if s.failed || s.w.when != nil && !s.w.when.Match(p) {
		return
	}
	if s.later == nil || !s.moved(p, d) {
		s.k.b = s.w.shape.Append(s.k.b, p, d)
		s.pending++
	}
	if s.k.full() {
		s.write()
	}
}

// moved writes what was to wait until the time of p, a packet of a replay, and keeps p
// if it is to wait: true.
func (s *captureSink) moved(p *queue.Packet, d *queue.Decision) bool {
	s.due(p.Time)
	if p.Held == 0 || p.DryRun {
		return false
	}
	came := p.Time
	p.Time += p.Held
	s.one = s.w.shape.Append(s.one[:0], p, d)
	s.later.Add(p.Time, s.one)
	p.Time = came
	return true
}

func (s *captureSink) due(until int64) {
	var n int
	s.k.b, n = s.later.Append(s.k.b, until)
	s.pending += n
}

// end is flush when no more packets come.
func (s *captureSink) end() error {
	if s != nil && s.later != nil {
		s.due(math.MaxInt64)
	}
	return s.flush()
}

// flush writes what was gathered. A failure is told once, and nothing more is written.
func (s *captureSink) flush() error {
	if s == nil {
		return nil
	}
	s.write()
	err := s.untold
	s.untold = nil
	return err
}

func (s *captureSink) write() {
	n := s.pending
	if s.pending = 0; s.failed || n == 0 {
		return
	}
	err := s.k.flush()
	var broken writeError
	if errors.As(err, &broken) {
		n = 0
		var full *rotate.Error
		if errors.As(broken.err, &full) {
			n = full.Records
		}
	}
	s.w.n.Add(uint64(n))
	s.failed, s.untold = err != nil, err
}

// close ends the file.
func (w *captured) close() error {
	if w == nil || w.file == nil {
		return nil
	}
	return w.file.Close()
}

// total tells how much was written.
func (w *captured) total(a *app) {
	where := "to " + w.path
	if w.file == nil {
		where = "to standard output"
	}
	a.total("%s written %s", plural(w.n.Load(), "packet"), where)
}

// decider is what decides on the packets of one queue: an engine, and around it what
// keeps for the capture what that needs.
func (r *queueRun) decider(set *rule.Set) (queue.Decider, error) {
	e, err := set.Engine()
	if err != nil || r.capture == nil {
		return e, err
	}
	return &capture.Keeper{Decider: e, Edits: set.Needs().Edits}, nil
}
