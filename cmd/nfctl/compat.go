package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/compat"
	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/nl"
)

func newCompat(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "compat",
		Short:   "Command lines of other programs",
		Long:    "Takes the command line of another program, and prints and ends as that program does.",
		Example: "  nfctl compat conntrack -L -p tcp --dport 443",
	}
	c.AddCommand(&cobra.Command{
		Use:   "conntrack [ARGS…]",
		Short: "Do what conntrack(8) does with these arguments",
		Long: `Takes conntrack(8)'s own command line, prints what it prints and ends with its
status. nfctl called by the name conntrack, through a link, does the same.`,
		Example: `  nfctl compat conntrack -L -p tcp --dport 443
  ln -s nfctl /usr/local/sbin/conntrack; conntrack -D -s 10.0.0.1`,
		DisableFlagParsing: true,
		RunE:               func(c *cobra.Command, args []string) error { return a.conntrack(c, args) },
	})
	return c
}

// conntrack does what conntrack(8) does with these arguments.
func (a *app) conntrack(c *cobra.Command, args []string) error {
	r := &compatRun{a: a, cmd: c}
	defer r.close()
	return r.result(r.main(args))
}

// A compatRun does one command line of conntrack(8).
type compatRun struct {
	a    *app
	cmd  *cobra.Command
	conn *ct.Conn // see dial
}

// dial returns the connection of the whole command line.
func (r *compatRun) dial() (conn *ct.Conn, err error) {
	if r.conn == nil {
		r.conn, err = ct.Dial()
	}
	return r.conn, err
}

func (r *compatRun) close() {
	if r.conn != nil {
		_ = r.conn.Close()
	}
}

// result prints what went wrong as conntrack(8) does, and makes its exit status
// of it: 1, or 2 when it was the command line.
func (r *compatRun) result(err error) error {
	var line *compat.Error
	var status *statusError
	switch {
	case err == nil, errors.Is(err, unix.EPIPE):
		return nil
	case errors.As(err, &line):
	case errors.As(err, &status) && status.err == nil:
		return err
	case exitCode(err) == exitUsage:
		line = &compat.Error{Status: 2, Text: err.Error()}
	default:
		line = &compat.Error{Status: 1, Text: err.Error()}
	}
	r.a.line("%s: %s", compat.Name, line.Text)
	if line.Status == exitUsage {
		fmt.Fprintln(r.a.err, "Try `conntrack -h' or 'conntrack --help' for more information.")
	}
	return &statusError{code: line.Status}
}

// failed says in conntrack(8)'s words why an operation failed. Its reasons are
// matched by programs; what the kernel said beyond them follows.
func failed(verb byte, err error) error {
	if err == nil || errors.Is(err, unix.EPIPE) || exitCode(err) == exitUsage {
		return err
	}
	var writing writeError
	var status *statusError
	var said *compat.Error
	if errors.As(err, &writing) || errors.As(err, &status) || errors.As(err, &said) {
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
	return &compat.Error{Status: 1, Text: "Operation failed: " + text}
}

// done prints how many there were, in the line that programs match.
func (r *compatRun) done(n uint64, what, verb string) {
	r.a.line("%s: %d %s have been %s.", compat.Name, n, what, verb)
}

// some is the status of a command that found nothing to do.
func some(n uint64) error {
	if n == 0 {
		return &statusError{code: exitFailed}
	}
	return nil
}

const flowEntries = "flow entries"

func (r *compatRun) main(args []string) error {
	r.a.name = compat.Name
	for len(args) > 1 && args[0] == "--netns" { // given to nfctl, in front of the command
		r.a.netns, args = args[1], args[2:]
		if err := nl.EnterNamespace(r.a.netns, r.a.args); err != nil {
			return err
		}
	}
	c, err := compat.Parse(args)
	if err != nil {
		return err
	}
	if c.Verb == 'R' {
		return r.load(c.File)
	}
	return r.run(c)
}

// compatDone are the commands that change many flows, and what they do to them.
var compatDone = map[byte]string{'D': "deleted", 'U': "updated", 'F': "flushed"}

func (r *compatRun) run(c *compat.Command) error {
	for _, w := range c.Warnings {
		r.a.line("WARNING: %s", w)
	}
	out, err := format.ParseOutput(cmp.Or(c.Output, "text"))
	if err != nil {
		return &usageError{err}
	}
	if c.Labels() || out.Labels { // whoever names labels sees them
		out.Labels = true
		if _, err := os.Stat(ct.LabelFile); err != nil {
			fmt.Fprintln(r.a.err, "nfct_labelmap_new: No such file or directory")
		}
	}
	ctx, stop := r.a.interruptible(r.cmd, compatDone[c.Verb])
	defer stop()
	expect := c.Table == "expect"
	switch c.Verb {
	case 'V':
		_, err = fmt.Fprintln(r.a.out, compat.Name)
	case 'h':
		_, err = io.WriteString(r.a.out, compat.Help(c.Proto))
	case 'C':
		err = r.count(ctx, expect)
	case 'S':
		err = r.stats(expect)
	case 'F':
		err = r.flush(ctx, c, expect)
	case 'E':
		stop()
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

func (r *compatRun) flush(ctx context.Context, c *compat.Command, expect bool) error {
	if !expect {
		if err := r.flushed(ctx, c); err != nil {
			return err
		}
		r.a.line("%s: connection tracking table has been emptied.", compat.Name)
		return nil
	}
	conn, err := r.dial()
	if err != nil {
		return err
	}
	if err := conn.FlushExpects(); err != nil {
		return err
	}
	r.a.line("%s: expectation table has been emptied.", compat.Name)
	return nil
}

func (r *compatRun) count(ctx context.Context, expect bool) error {
	conn, err := r.dial()
	if err != nil {
		return err
	}
	if !expect {
		n, _, err := conn.Count()
		if err == nil {
			_, err = fmt.Fprintln(r.a.out, n)
		}
		return err
	}
	n := 0
	if _, err = conn.Expects(ctx, ct.IPv4, nil, func(*ct.Expect) error { n++; return nil }); err == nil {
		_, err = fmt.Fprintln(r.a.out, n)
	}
	return err
}

func (r *compatRun) stats(expect bool) error {
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
			_, err = r.a.out.Write(appendProcStats(nil, string(b)))
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
	k := &sink{w: r.a.out}
	for _, s := range statLines(cpus, nil, 0) {
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
