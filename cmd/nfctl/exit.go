package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nfctl/internal/nl"
	"nfctl/internal/queue"
	"nfctl/internal/rule"
	"nfctl/internal/serve"
	"nfctl/internal/table"
)

// Exit statuses. They are a contract: docs and 'nfctl help exit-codes' are made
// from this table.
const (
	exitOK           = 0
	exitFailed       = 1
	exitUsage        = 2
	exitNotFound     = 3
	exitExists       = 4
	exitPermission   = 5
	exitNotSupported = 6
)

// exitCodes says what each status means, in order.
var exitCodes = []struct {
	code int
	text string
}{
	{exitOK, "done; also after SIGINT or SIGTERM, after a closed pipe, and when an update or delete matched nothing"},
	{exitFailed, "failed; also what --fail-if waited for has come"},
	{exitUsage, "bad command line or bad value; nothing was done"},
	{exitNotFound, "not found: get of an absent object, --fail-empty, or --count/--until that --duration/--idle ended first"},
	{exitExists, "already exists or in use"},
	{exitPermission, "not permitted"},
	{exitNotSupported, "not supported by this kernel"},
}

// A usageError is a bad command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef makes a usage error.
func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// A statusError ends the program with a status of its own.
type statusError struct {
	code int
	err  error // nil: nothing to say
	hint string
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e *statusError) Unwrap() error { return e.err }

// exitCode is the one place where an error becomes a status.
func exitCode(err error) int {
	var status *statusError
	var usage *usageError
	var op *nl.OpError
	var rul *rule.Error
	var marks *serve.MarksError
	switch {
	case err == nil, errors.Is(err, unix.EPIPE):
		return exitOK
	case errors.As(err, &status):
		return status.code
	case errors.As(err, &usage), errors.As(err, &rul), table.IsUsage(err):
		return exitUsage
	case errors.As(err, &marks), errors.Is(err, queue.ErrBusy), errors.Is(err, table.ErrOtherHelper),
		errors.Is(err, table.ErrNoHelper):
		return exitExists
	case errors.Is(err, os.ErrPermission):
		return exitPermission
	case errors.Is(err, unix.EOPNOTSUPP):
		return exitNotSupported
	case errors.As(err, &op) && errors.Is(err, unix.ENOENT):
		return exitNotFound
	case errors.As(err, &op) && (errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY)):
		return exitExists
	}
	return exitFailed
}
