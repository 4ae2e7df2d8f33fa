// Package wire is how events travel: messages of JSON lines behind a head, each line
// with a number, so that whoever reads knows what is missing.
//
// A message is a head, as one JSON line, and Count lines, each an object that
// 'nfctl ct watch -o json' writes. Lines are numbered from 1 in each epoch, through
// both subjects of a table: a number that is not there is a line that was lost.
package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Format is the version of this format. A reader refuses others by name.
const Format = 1

// Bounds of a message: how many lines one has at most, and how many bytes with its
// head. One line may be longer than that, and then has a message of its own.
const (
	MaxLines = 512
	MaxBytes = 256 << 10
)

// HeadRoom is how long a head is at most, in bytes, with its newline.
const HeadRoom = 512

// A Head says where a message's lines come from and which they are.
type Head struct {
	Format int    `json:"nfctl"`
	Host   string `json:"host"`
	Netns  string `json:"netns"`
	Boot   string `json:"boot"`  // /proc/sys/kernel/random/boot_id
	Epoch  uint64 `json:"epoch"` // µs since 1970, of the publisher's start; each start has a later one
	First  uint64 `json:"first"` // number of the first line
	Count  int    `json:"count"` // of lines
}

// ID is the message's name for the server, by which it knows one that it has.
func (h *Head) ID() string { return fmt.Sprintf("%s.%s.%d.%d", h.Host, h.Netns, h.Epoch, h.First) }

// Next is the number of the line behind the message's last.
func (h *Head) Next() uint64 { return h.First + uint64(h.Count) }

// Append appends the head as a line.
func (h *Head) Append(b []byte) []byte {
	text, err := json.Marshal(h)
	if err != nil { // it has nothing that could fail
		return b
	}
	return append(append(b, text...), '\n')
}

// A Kind is what a message has: events, or lines of a snapshot.
type Kind uint8

const (
	Events Kind = iota
	Snapshot
)

var suffixes = [...]string{"ev", "snap"}

// prefix is the first word of every subject.
const prefix = "ct"

// AllSubjects is the pattern of all subjects, for the stream.
const AllSubjects = prefix + ".>"

// Subject returns where messages of a table go.
func Subject(host, netns string, k Kind) string {
	return prefix + "." + host + "." + netns + "." + suffixes[k]
}

// Pattern returns the pattern of a host's subjects; "" stands for every namespace.
func Pattern(host, netns string) string {
	if netns == "" {
		netns = "*"
	}
	return prefix + "." + host + "." + netns + ".*"
}

// KindOf returns what the messages of a subject have.
func KindOf(subject string) (Kind, bool) {
	_, last, _ := strings.Cut(subject, ".")
	for i, s := range suffixes {
		if strings.HasSuffix(last, "."+s) {
			return Kind(i), true
		}
	}
	return 0, false
}

// MaxName bounds the name of a host or of a namespace, in bytes.
const MaxName = 64

// CheckName reports whether a host or a namespace can have this name, which is a word
// of subjects: letters, digits, '-' and '_'.
func CheckName(what, name string) error {
	plain := func(r rune) bool {
		return r == '-' || r == '_' || r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z'
	}
	if name == "" || len(name) > MaxName || strings.ContainsFunc(name, func(r rune) bool { return !plain(r) }) {
		return fmt.Errorf("%s: %q cannot be in a subject: want 1 to %d letters, digits, '-' and '_'", what, name,
			MaxName)
	}
	return nil
}

// A FormatError is a message in a format of another version.
type FormatError struct{ Format int }

func (e *FormatError) Error() string {
	return fmt.Sprintf("message of format %d, and this program reads format %d: want the publisher's nfctl-fleet",
		e.Format, Format)
}

// Parse reads a message. The lines are part of data, each with its newline.
func Parse(data []byte) (h Head, lines []byte, err error) {
	head, lines, found := bytes.Cut(data, []byte{'\n'})
	if !found || len(head) >= HeadRoom {
		return h, nil, fmt.Errorf("message without a head")
	}
	var version struct {
		Format int `json:"nfctl"`
	}
	if err := json.Unmarshal(head, &version); err != nil || version.Format == 0 {
		return h, nil, fmt.Errorf("message without a head of nfctl-fleet")
	}
	if version.Format != Format {
		return h, nil, &FormatError{version.Format}
	}
	if err := json.Unmarshal(head, &h); err != nil {
		return h, nil, fmt.Errorf("head of a message: %w", err)
	}
	for _, n := range []struct{ what, name string }{{"host", h.Host}, {"netns", h.Netns}} {
		if err := CheckName(n.what, n.name); err != nil {
			return h, nil, fmt.Errorf("head of a message: %w", err)
		}
	}
	switch n := bytes.Count(lines, []byte{'\n'}); {
	case h.First == 0 || h.Epoch == 0 || h.Count < 1 || h.First+uint64(h.Count) < h.First:
		return h, nil, fmt.Errorf("head of a message: epoch %d, lines %d from %d", h.Epoch, h.Count, h.First)
	case n != h.Count || lines[len(lines)-1] != '\n':
		return h, nil, fmt.Errorf("message cut: %d whole lines, and the head says %d", n, h.Count)
	}
	return h, lines, nil
}

// Lines returns the lines of a message, each with its newline.
func Lines(lines []byte) iter.Seq[[]byte] { return bytes.Lines(lines) }

// A Digest tells whether two have seen the same lines, in whatever order.
type Digest struct{ Count, sum uint64 }

// Add adds a line, with its newline.
func (d *Digest) Add(line []byte) {
	d.Count++
	d.sum += xxhash.Sum64(line)
}

// String returns the digest as 16 hexadecimal digits.
func (d *Digest) String() string { return fmt.Sprintf("%016x", d.sum) }

// Mark lines of snapshots, as they begin.
const (
	beginMark = `{"kind":"resync"`
	endMark   = `{"kind":"resynced"`
	digestKey = `,"digest":"`
)

// AppendDigest puts the digest of a snapshot's lines into the line that ends it.
func AppendDigest(line []byte, d *Digest) []byte {
	line = bytes.TrimSuffix(line, []byte("}\n"))
	return append(append(append(line, digestKey...), d.String()...), "\"}\n"...)
}

// A Mark is a line that begins or ends a snapshot.
type Mark uint8

const (
	NoMark Mark = iota
	Begin
	End
)

// MarkOf tells whether a line of a snapshot begins or ends it, and what digest the
// end names.
func MarkOf(line []byte) (m Mark, digest string) {
	switch {
	case bytes.HasPrefix(line, []byte(endMark+`,`)):
		_, d, _ := bytes.Cut(line, []byte(digestKey))
		d, _, _ = bytes.Cut(d, []byte{'"'})
		return End, string(d)
	case bytes.HasPrefix(line, []byte(beginMark+`,`)), bytes.HasPrefix(line, []byte(beginMark+`}`)):
		return Begin, ""
	}
	return NoMark, ""
}
