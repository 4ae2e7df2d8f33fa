// Package lua runs scripts in Lua 5.1 with the modules nfq and nfct of
// netfilter-lua, whose behaviour they keep function by function, and Lua files as
// actions of queue rules. The interpreter is github.com/yuin/gopher-lua, so there
// is no C library behind it.
//
// Handles are userdata without a metatable, one for each thing, so that equality
// is identity. A failure is nil, a text and an error number; a wrong argument is a
// Lua error. Where the C modules would crash or end, these report and go on:
// attributes that are not set, handles of the wrong kind or already destroyed,
// large packets, and losses.
package lua
