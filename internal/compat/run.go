package compat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

// An Env is what a command line works with.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Discards bool // Out keeps nothing: objects need not be written

	// Line writes a message as one line to Err.
	Line func(format string, args ...any)
	// Edited is told of each flow that was made by a file, changed or deleted.
	Edited func()
	// Interrupt returns a context that ends when the user wants an end, and what gives
	// it back. done is what the command does to flows, as "deleted"; "": it only reads.
	Interrupt func(done string) (context.Context, func())
	// Enter enters a network namespace, which nfctl was told in front of the command.
	Enter func(name string) error
	// Stream begins a stream of events. It returns a context that ends when the stream
	// is to, and what gives it back. totals may be called at any time, on any goroutine.
	Stream func(totals func()) (context.Context, func(), error)
}

// Run does what conntrack(8) does with the words behind its name, and returns its exit
// status.
func Run(args []string, e Env) int {
	r := &runner{Env: e}
	defer r.close()
	return r.result(r.main(args))
}

// A runner does one command line of conntrack(8).
type runner struct {
	Env
	conn *ct.Conn // see dial
}

// dial returns the connection of the whole command line.
func (r *runner) dial() (conn *ct.Conn, err error) {
	if r.conn == nil {
		r.conn, err = ct.Dial()
	}
	return r.conn, err
}

func (r *runner) close() {
	if r.conn != nil {
		_ = r.conn.Close()
	}
}

// result prints what went wrong as conntrack(8) does, and makes its exit status
// of it: 1, or 2 when it was the command line.
func (r *runner) result(err error) int {
	var line *Error
	switch {
	case err == nil, errors.Is(err, unix.EPIPE):
		return 0
	case errors.As(err, &line):
	case table.IsUsage(err):
		line = &Error{2, err.Error()}
	default:
		line = &Error{1, err.Error()}
	}
	if line.Text != "" {
		r.Line("%s: %s", Name, line.Text)
	}
	if line.Status == 2 {
		fmt.Fprintln(r.Err, "Try `conntrack -h' or 'conntrack --help' for more information.")
	}
	return line.Status
}

// failed says in conntrack(8)'s words why an operation failed. Its reasons are
// matched by programs; what the kernel said beyond them follows.
func failed(verb byte, err error) error {
	var writing *writeError
	var said *Error
	if err == nil || errors.Is(err, unix.EPIPE) || table.IsUsage(err) || errors.As(err, &writing) ||
		errors.As(err, &said) {
		return err
	}
	text := ""
	switch {
	case errors.Is(err, unix.EPERM):
		text = "sorry, you must be root or get CAP_NET_ADMIN capability to do this"
	case errors.Is(err, unix.EEXIST):
		text = "Such conntrack exists, try -U to update"
	case errors.Is(err, unix.ENOENT) && verb == 'x':
		text = "master conntrack not found"
	case errors.Is(err, unix.ENOENT):
		text = "such conntrack doesn't exist"
	default:
		text = err.Error()
	}
	return &Error{1, "Operation failed: " + text}
}

// warn says what conntrack(8) would not.
func (r *runner) warn(format string, args ...any) {
	r.Line(Name+": "+format, args...)
}

// dumpNote says what a dump could not promise.
func (r *runner) dumpNote(d ct.DumpResult) {
	if d.Incomplete {
		r.warn("the kernel resized its table meanwhile: flows may be missing")
	}
}

// ended is what a command that was interrupted returns: what was asked for was done in
// part only.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return &Error{1, "interrupted"}
	}
	return err
}

// failures gathers what went wrong with single flows of many.
type failures struct {
	r *runner
	n uint64
}

// maxFailures is how many are printed one by one.
const maxFailures = 20

func (x *failures) add(err error) {
	if x.n++; x.n <= maxFailures {
		x.r.warn("%v", err)
	}
}

// result is the error of the whole.
func (x *failures) result() error {
	switch x.n {
	case 0:
		return nil
	case 1:
		return &Error{1, "1 flow failed"}
	}
	return &Error{1, fmt.Sprintf("%d flows failed", x.n)}
}

// A writeError is a failure to write the output.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// A sink gathers output in b and writes it to w in large pieces.
type sink struct {
	w io.Writer
	b []byte
}

// full reports whether it is time to flush though more is coming.
func (k *sink) full() bool { return len(k.b) >= 64<<10 }

// flush writes what was gathered.
func (k *sink) flush() error {
	if len(k.b) == 0 {
		return nil
	}
	_, err := k.w.Write(k.b)
	if k.b = k.b[:0]; err != nil {
		return &writeError{err}
	}
	return nil
}

// A printer prints flows in one format.
type printer struct {
	p *format.Printer[ct.Flow]
	*sink
}

func (w *printer) print(f *ct.Flow) error {
	w.b = w.p.Append(w.b, f)
	if w.full() {
		return w.flush()
	}
	return nil
}

// finishPrint ends the output.
func finishPrint[T any](p *format.Printer[T], k *sink) error {
	k.b = p.End(k.b)
	if err := k.flush(); err != nil {
		return err
	}
	return p.Err()
}

// done prints how many there were, in the line that programs match.
func (r *runner) done(n uint64, what, verb string) {
	r.Line("%s: %d %s have been %s.", Name, n, what, verb)
}

// some is the status of a command that found nothing to do.
func some(n uint64) error {
	if n == 0 {
		return &Error{Status: 1}
	}
	return nil
}

const flowEntries = "flow entries"

func (r *runner) main(args []string) error {
	for len(args) > 1 && args[0] == "--netns" { // given to nfctl, in front of the command
		if err := r.Enter(args[1]); err != nil {
			return err
		}
		args = args[2:]
	}
	c, err := Parse(args)
	if err != nil {
		return err
	}
	if c.Verb == 'R' {
		return r.load(c.File)
	}
	return r.run(c)
}

// edits are the commands that change many flows, and what they do to them.
var edits = map[byte]string{'D': "deleted", 'U': "updated", 'F': "flushed"}

func (r *runner) run(c *Command) error {
	for _, w := range c.Warnings {
		r.Line("WARNING: %s", w)
	}
	out, err := format.ParseOutput(cmp.Or(c.Output, "text"))
	if err != nil {
		return &table.UsageError{Err: err}
	}
	if c.Labels() || out.Labels { // whoever names labels sees them
		out.Labels = true
		if _, err := os.Stat(ct.LabelFile); err != nil {
			fmt.Fprintln(r.Err, "nfct_labelmap_new: No such file or directory")
		}
	}
	ctx, stop := r.Interrupt(edits[c.Verb])
	defer stop()
	expect := c.Table == "expect"
	switch c.Verb {
	case 'V':
		_, err = fmt.Fprintln(r.Out, Name)
	case 'h':
		_, err = io.WriteString(r.Out, Help(c.Proto))
	case 'C':
		err = r.count(ctx, expect)
	case 'S':
		err = r.stats(expect)
	case 'F':
		err = r.flush(ctx, c, expect)
	case 'E':
		stop() // a stream has its own
		return r.watch(c, out, expect)
	case 'L':
		if expect {
			err = r.listExpects(ctx, c, out)
		} else {
			err = r.list(ctx, c, out)
		}
	case 'G':
		if expect {
			return failed('G', r.getExpect(c, out))
		}
		err = r.get(c, out)
	case 'D':
		if expect {
			return failed('G', r.deleteExpect(c))
		}
		err = r.delete(ctx, c, out)
	case 'U':
		err = r.update(ctx, c, out)
	default: // I, A
		if expect {
			return failed('x', r.createExpect(c))
		}
		err = r.create(c)
	}
	return failed(c.Verb, err)
}

func (r *runner) flush(ctx context.Context, c *Command, expect bool) error {
	if !expect {
		if err := r.flushed(ctx, c); err != nil {
			return err
		}
		r.Line("%s: connection tracking table has been emptied.", Name)
		return nil
	}
	conn, err := r.dial()
	if err != nil {
		return err
	}
	if err := conn.FlushExpects(); err != nil {
		return err
	}
	r.Line("%s: expectation table has been emptied.", Name)
	return nil
}

func (r *runner) count(ctx context.Context, expect bool) error {
	conn, err := r.dial()
	if err != nil {
		return err
	}
	if !expect {
		n, _, err := conn.Count()
		if err == nil {
			_, err = fmt.Fprintln(r.Out, n)
		}
		return err
	}
	n := 0
	if _, err = conn.Expects(ctx, ct.IPv4, nil, func(*ct.Expect) error { n++; return nil }); err == nil {
		_, err = fmt.Fprintln(r.Out, n)
	}
	return err
}

func (r *runner) stats(expect bool) error {
	conn, err := r.dial()
	if err != nil {
		return err
	}
	read, form := conn.Stats, format.FlowStats()
	if expect {
		read, form = conn.ExpectStats, format.ExpectStats()
	}
	cpus, err := read()
	if errors.Is(err, unix.EPERM) {
		if b, perr := os.ReadFile("/proc/net/stat/nf_conntrack"); perr == nil {
			_, err = r.Out.Write(appendProcStats(nil, string(b)))
			return err
		}
	}
	if err != nil {
		return err
	}
	p, err := format.New(form, format.Output{Format: format.Text}, format.Options{})
	if err != nil {
		return err
	}
	k := &sink{w: r.Out}
	for _, s := range format.StatLines(cpus, nil, 0) {
		if s.CPU < 0 { // the sum of all
			continue
		}
		k.b = p.Append(k.b, &s)
	}
	return finishPrint(p, k)
}

// appendProcStats appends the counters of /proc, a line of names and one of numbers
// for each CPU, as conntrack(8) prints them for those who may not ask the kernel.
func appendProcStats(b []byte, table string) []byte {
	head, rest, _ := strings.Cut(table, "\n")
	names := strings.Fields(head)
	cpu := 0
	for line := range strings.Lines(rest) {
		b = fmt.Appendf(b, "cpu=%-4d\t", cpu)
		cpu++
		for i, f := range strings.Fields(line) {
			if n, err := strconv.ParseUint(f, 16, 64); err == nil && i < len(names) {
				b = fmt.Appendf(b, "%s=%d ", names[i], n)
			}
		}
		b = append(b, '\n')
	}
	return b
}
