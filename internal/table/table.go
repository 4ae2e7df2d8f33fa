// Package table has the verbs on the tracking table and on the table of
// expectations: choose, list, edit, load, group, expect. Commands, conntrack(8)'s
// command line and Lua call them. Nothing here prints: what is to be said, callers
// are told.
package table

// BatchSize is how many requests go to the kernel in one send.
const BatchSize = 100
