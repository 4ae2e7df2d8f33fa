// Package format writes flows, expectations, packets and small objects in every
// output form, and reads saved flows back.
//
// JSON, csv, tsv, tables and templates are made from a subject's field registry;
// only the lines that conntrack(8) prints are written by hand. All writers
// append to a caller's buffer. They keep scratch memory of their own, so each is
// for one goroutine.
package format
