// Package lazy holds tables that are made when they are first asked, so that a
// command pays for none that it does not use.
package lazy

import "sync"

// A Value is made by Make at the first Get, and kept. It may be used by several
// goroutines at once.
//
// As a package-level variable, written as a literal, it needs no code at the
// program's start; one of sync.OnceValue does, and with it its package's
// initialization: a page fault of code and several of data, at every start.
type Value[T any] struct {
	Make func() T
	once sync.Once
	made T
}

// Get returns the value.
func (v *Value[T]) Get() T {
	v.once.Do(func() { v.made = v.Make() })
	return v.made
}
