package ct

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"nfctl/internal/value"
)

// LabelFile is where iptables, nft and conntrack(8) look for the names of
// connection labels.
const LabelFile = "/etc/xtables/connlabel.conf"

// labels are the names in use: those of LabelFile, read when first needed, or
// of the last LoadLabels.
var labels struct {
	sync.RWMutex
	loaded bool
	byBit  [128]string
}

// LoadLabels reads the names of connection labels from a file of lines
// "BIT NAME"; they are then used wherever labels are read or written. A file
// that has no such lines is an error, and so is a bit over 127.
func LoadLabels(path string) error {
	names, err := readLabels(path)
	if err != nil {
		return err
	}
	labels.Lock()
	defer labels.Unlock()
	labels.byBit, labels.loaded = names, true
	return nil
}

func readLabels(path string) (names [128]string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return names, err
	}
	defer f.Close()
	return parseLabels(f, path)
}

func parseLabels(r io.Reader, path string) (names [128]string, err error) {
	line := 0
	for sc := bufio.NewScanner(r); sc.Scan(); {
		line++
		text, _, _ := strings.Cut(sc.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		bit, err := strconv.ParseUint(words[0], 0, 8)
		if err != nil || bit > 127 || len(words) != 2 {
			return names, fmt.Errorf("%s:%d: want a bit from 0 to 127 and a name", path, line)
		}
		names[bit] = words[1]
	}
	return names, nil
}

// LabelName returns the name of label n, or "".
func LabelName(n int) string {
	if n < 0 || n > 127 {
		return ""
	}
	labels.RLock()
	loaded, name := labels.loaded, labels.byBit[n]
	labels.RUnlock()
	if loaded {
		return name
	}
	labels.Lock()
	defer labels.Unlock()
	if !labels.loaded {
		labels.byBit, _ = readLabels(LabelFile) // no file, no names
		labels.loaded = true
	}
	return labels.byBit[n]
}

// LabelNames returns the names of all labels that have one, in the order of
// their bits.
func LabelNames() (names []string) {
	for n := range 128 {
		if w := LabelName(n); w != "" {
			names = append(names, w)
		}
	}
	return names
}

func labelBit(s string) (int, error) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && n < 128 {
		return int(n), nil
	}
	for n := range 128 {
		if w := LabelName(n); w != "" && w == s {
			return n, nil
		}
	}
	return 0, &value.Error{What: "label", Text: s, Near: value.Nearest(s, LabelNames()),
		Valid: "a name of " + LabelFile + " (or --labelmap) or a number from 0 to 127"}
}

// ParseLabels reads labels to match, names or numbers: a flow matches when it
// has one of them. The set's numbers are bit numbers.
func ParseLabels(s string) (value.Set, error) {
	rest, not := strings.CutPrefix(s, "!")
	out := value.Set{Not: not}
	for one := range strings.SplitSeq(rest, ",") {
		n, err := labelBit(strings.TrimSpace(one))
		if err != nil {
			return value.Set{}, err
		}
		out.Nums = append(out.Nums, value.Range{Lo: uint64(n), Hi: uint64(n)})
	}
	return out, nil
}

// ParseLabelBits reads labels to set, names or numbers joined by ',', as bits.
// An empty text is no label.
func ParseLabelBits(s string) (bits [16]byte, err error) {
	if s == "" {
		return bits, nil
	}
	for one := range strings.SplitSeq(s, ",") {
		n, err := labelBit(strings.TrimSpace(one))
		if err != nil {
			return bits, err
		}
		bits[n/8] |= 1 << (n % 8)
	}
	return bits, nil
}

func setLabels(f *Flow, s string, bit Has, to *[16]byte) error {
	bits, err := ParseLabelBits(s)
	if err == nil {
		*to, f.Present = bits, f.Present|bit
	}
	return err
}
