package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"nfctl/internal/lua"
	"nfctl/internal/say"
)

// line says one line, of which only format's own newlines end lines.
func (a *app) line(format string, args ...any) { a.lineAt(say.Info, format, args...) }

// lineAt is line for what matters more.
func (a *app) lineAt(level say.Level, format string, args ...any) {
	a.bytesAt(level, fmt.Appendf(nil, format+"\n", say.Foreign(args)...))
}

// bytesAt says whole lines.
func (a *app) bytesAt(level say.Level, b []byte) {
	if m, ok := a.err.(*say.Writer); ok {
		m.At(level, b)
		return
	}
	_, _ = a.err.Write(b)
}

// linesOf are the lines of an error: one, but of joined ones, and of a script with
// its trace.
func linesOf(err error) []string {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var list []string
		for _, e := range j.Unwrap() {
			list = append(list, linesOf(e)...)
		}
		return list
	}
	var script *lua.Error
	text := err.Error()
	if errors.As(err, &script) && script.Trace != "" {
		if head, ok := strings.CutSuffix(text, "\n"+script.Trace); ok {
			return append([]string{head}, strings.Split(script.Trace, "\n")...)
		}
	}
	return []string{text}
}

// exit ends the program at once, with what was said.
func (a *app) exit(status int) {
	a.ready.End()
	a.flush()
	os.Exit(status)
}

// flush waits for the messages.
func (a *app) flush() {
	if m, ok := a.err.(*say.Writer); ok {
		m.Flush()
	}
}

// stderr is standard error as it is, for who must answer for what it writes.
func (a *app) stderr() io.Writer {
	if m, ok := a.err.(*say.Writer); ok {
		return m.W
	}
	return a.err
}
