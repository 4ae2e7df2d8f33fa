// Package table has the verbs on the tracking table and on the table of
// expectations: choose, list, edit, load, group, expect. Commands, conntrack(8)'s
// command line and Lua call them. Nothing here prints: what is to be said, callers
// are told.
package table

import (
	"errors"
	"fmt"
	"net/netip"

	"nfctl/internal/filter"
	"nfctl/internal/pattern"
	"nfctl/internal/value"
)

// A UsageError is a mistake of whoever asked: what was to be done makes no sense, and
// nothing was done. Flags in its text are those of nfctl's commands.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the mistake itself.
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Named says which flag err is about.
func Named(flag string, err error) error { return Usagef("%s: %w", flag, err) }

// BatchSize is how many requests go to the kernel in one send.
const BatchSize = 100

// Unquoted is the error of an argument that is no flow in words.
func Unquoted(arg string) error {
	if _, err := value.Protocols.Parse(arg); err == nil {
		return Usagef("unexpected argument %q: want -p %s, or a flow in quotes: '%s >'", arg, arg, arg)
	}
	if _, err := netip.ParseAddr(arg); err == nil {
		return Usagef("unexpected argument %q: want --host %s, or a flow in quotes: '%s >'", arg, arg, arg)
	}
	return Usagef("unexpected argument %q: a flow has a '>' in it, and must be quoted, or the shell takes the '>': "+
		"'tcp 10.0.0.1 > :22'", arg)
}

// IsUsage reports whether err says that what was asked for makes no sense: a value, a
// flow in words or an expression that cannot be read, or several that do not go
// together.
func IsUsage(err error) bool {
	var usage *UsageError
	var val *value.Error
	var expr *filter.Error
	var words *pattern.Error
	return errors.As(err, &usage) || errors.As(err, &val) || errors.As(err, &expr) || errors.As(err, &words)
}
