package main

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/format"
	"nfctl/internal/process"
	"nfctl/internal/rotate"
)

// A printing is what a command prints objects of.
type printing struct {
	formats []format.Format
	fields  func() []string // that -o table and --fields have
	speaks  func() []string // that its expressions know
}

// prints says on a command that it prints objects: with which fields, and in which
// formats. A command of which this is not said takes no -o. Its expressions know the
// same fields, unless speaks says others.
func (a *app) prints(c *cobra.Command, formats []format.Format, fields func() []string, speaks ...func() []string) {
	if a.printing == nil {
		a.printing = map[*cobra.Command]printing{}
	}
	a.printing[c] = printing{formats, fields, append(speaks, fields)[0]}
}

// printers returns the commands, c and those below it, that print objects.
func (a *app) printers(c *cobra.Command) (list []*cobra.Command) {
	if _, ok := a.printing[c]; ok {
		list = append(list, c)
	}
	for _, s := range c.Commands() {
		list = append(list, a.printers(s)...)
	}
	return list
}

// commandName is how messages and documentation name a command: as "ct list".
func commandName(c *cobra.Command) string {
	_, name, _ := strings.Cut(c.CommandPath(), " ")
	if rest, ok := strings.CutPrefix(name, "conntrack "); ok {
		return "ct " + rest
	}
	return name
}

// noObjects refuses -o and its like for commands that print no objects.
func (a *app) noObjects(c *cobra.Command) error {
	if _, ok := a.printing[c]; ok || c.HasSubCommands() || a.output+a.fields+a.template == "" {
		return nil
	}
	return usagef("'%s' prints no objects: -o, --fields and --template do not go with it", commandName(c))
}

// outputOf reads -o, --fields and --template for the command that runs, and
// chooses the format when none was named. stream says that the command goes on
// until it is ended.
func (a *app) outputOf(stream bool) (format.Output, error) { return a.outputOr("", stream) }

// outputOr is outputOf for a command that has a format of its own when -o is not said.
func (a *app) outputOr(own string, stream bool) (format.Output, error) {
	o, err := format.ParseOutput(cmp.Or(a.output, own))
	if err != nil {
		return o, named("--output", err)
	}
	if err := o.Select(a.fields, a.template); err != nil {
		return o, &usageError{err}
	}
	o.Resolve(isTerminal(a.out), stream)
	o.Width = process.Width(a.out)
	if r := a.resolver(); r != nil {
		o.Names = r
	}
	if err := o.Check(commandName(a.running), a.printing[a.running].formats); err != nil {
		return o, named("--output", err)
	}
	return o, nil
}

// saving is the format of commands that save, where -o is not said.
func (a *app) saving() string {
	if a.template != "" {
		return ""
	}
	return format.Save.String()
}

// wants reports whether --fields or --template ask for a field by name.
func (a *app) wants(field string) bool {
	named := func(name string) bool { return strings.TrimSpace(name) == field }
	return slices.ContainsFunc(strings.Split(a.fields, ","), named) || strings.Contains(a.template, "."+field)
}

// named puts the name of a flag in front of what is wrong with its value.
func named(flag string, err error) error { return usagef("%s: %w", flag, err) }

// printTo makes a printer of subject s and a sink for it, and begins the output.
func printTo[T any](a *app, s *format.Subject[T], o format.Output,
	opt format.Options) (*format.Printer[T], *sink, error) {
	opt.Color = a.colored()
	p, err := format.New(s, o, opt)
	if err != nil {
		return nil, nil, &usageError{err}
	}
	k := &sink{w: a.out, b: make([]byte, 0, sinkSize+sinkSize/8)} // pages that are not reached cost nothing
	k.b = p.Begin(k.b)
	return p, k, nil
}

// printAll prints objects and ends the output: for commands whose output is
// short.
func printAll[T any](a *app, s *format.Subject[T], objects ...T) error {
	o, err := a.outputOf(false)
	if err != nil {
		return err
	}
	return printAs(a, s, o, objects...)
}

// printAs is printAll for who has asked outputOf already.
func printAs[T any](a *app, s *format.Subject[T], o format.Output, objects ...T) error {
	p, k, err := printTo(a, s, o, format.Options{})
	if err != nil {
		return err
	}
	for i := range objects {
		k.b = p.Append(k.b, &objects[i])
	}
	return finishPrint(p, k)
}

// finishPrint ends the output.
func finishPrint[T any](p *format.Printer[T], k *sink) error {
	k.b = p.End(k.b)
	if err := k.flush(); err != nil {
		return err
	}
	return p.Err()
}

// A sink gathers output in b and writes it to w in large pieces. Several sinks
// may write whole lines to one w under one mutex.
type sink struct {
	w  io.Writer
	mu *sync.Mutex // nil: w is this sink's alone
	b  []byte
}

// sinkSize is how much a sink gathers before full says that it is to be written.
const sinkSize = 64 << 10

// full reports whether it is time to flush though more is coming.
func (k *sink) full() bool { return len(k.b) >= sinkSize }

// flush writes what was gathered.
func (k *sink) flush() error {
	if len(k.b) == 0 {
		return nil
	}
	if k.mu != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
	}
	_, err := k.w.Write(k.b)
	k.b = k.b[:0]
	if err != nil {
		return writeError{err, isFile(k.w)}
	}
	return nil
}

// isFile reports whether w is a file of a stream.
func isFile(w io.Writer) bool {
	switch w.(type) {
	case *rotate.File, *outFile:
		return true
	}
	return false
}

// A writeError is a failed write to standard output, or to a file of a stream, which
// its error names. It hides which errno it was, a full disk say, from what looks for
// the kernel's refusals; EPIPE shows.
type writeError struct {
	err  error
	file bool
}

func (e writeError) Error() string {
	if e.file {
		return e.err.Error()
	}
	return "standard output: " + e.err.Error()
}
func (e writeError) Is(target error) bool {
	return target == unix.EPIPE && errors.Is(e.err, unix.EPIPE)
}
