package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"nfctl/internal/process"
	"nfctl/internal/say"
	"nfctl/internal/value"
)

// parsed is a flag whose text is read whole by one of internal/value's readers.
type parsed[T any] struct {
	dst   *T
	parse func(string) (T, error)
	text  string
	kind  string
}

func (p *parsed[T]) String() string { return p.text }
func (p *parsed[T]) Type() string   { return p.kind }
func (p *parsed[T]) Set(s string) error {
	v, err := p.parse(s)
	if err != nil {
		return err
	}
	*p.dst, p.text = v, s
	return nil
}

// varFlag adds a flag that parse reads into dst. The text def, "" for none, is
// shown as its default and is not parsed: dst holds the default already.
func varFlag[T any](f *pflag.FlagSet, dst *T, name, kind, def string, parse func(string) (T, error), usage string) {
	f.Var(&parsed[T]{dst: dst, parse: parse, text: def, kind: kind}, name, usage)
}

func durationFlag(f *pflag.FlagSet, dst *time.Duration, name, usage string) {
	varFlag(f, dst, name, "duration", "", value.Duration, usage)
}

// someTime reads a duration that is not nothing.
func someTime(s string) (time.Duration, error) {
	d, err := value.Duration(s)
	if err == nil && d == 0 {
		err = &value.Error{What: "duration here", Text: s, Valid: "more than nothing, as 30s"}
	}
	return d, err
}

// ordered is a flag whose place among others on the command line counts: each
// use calls add.
type ordered struct {
	add  func(text string) error
	kind string
}

func (o *ordered) String() string     { return "" }
func (o *ordered) Type() string       { return o.kind }
func (o *ordered) Set(s string) error { return o.add(s) }

// isTerminal reports whether w is a terminal.
func isTerminal(w any) bool {
	if m, ok := w.(*say.Writer); ok {
		w = m.W
	}
	return process.Terminal(w)
}

// sizeUpTo reads a size of 1 to limit bytes.
func sizeUpTo(s string, limit uint64) (uint64, error) {
	n, err := value.Size(s)
	if err == nil && (n == 0 || n > limit) {
		err = &value.Error{What: "size", Text: s, Valid: fmt.Sprintf("1 to %d bytes", limit)}
	}
	return n, err
}
