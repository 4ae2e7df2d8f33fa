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
// without any such line is an error.
func LoadLabels(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := parseLabels(f)
	if err == nil && names == [128]string{} {
		err = fmt.Errorf("%s: no line of it is a bit from 0 to 127 and a name of letters, digits, blanks and '-'", path)
	}
	if err != nil {
		return err
	}
	labels.Lock()
	defer labels.Unlock()
	labels.byBit, labels.loaded = names, true
	return nil
}

// parseLabels reads names as libnetfilter_conntrack does, so that a label has the
// same name in iptables, nft and conntrack(8): a bit as C writes numbers, then a
// name of letters, digits, '-' and blanks inside. Of two lines about a bit, or
// with a name, the first counts, and all other lines are passed over. A '#' begins
// a comment at the start of a line only.
func parseLabels(r io.Reader) (names [128]string, err error) {
	taken := map[string]bool{}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		bit, name, ok := labelLine(sc.Text())
		if ok && names[bit] == "" && !taken[name] {
			names[bit], taken[name] = name, true
		}
	}
	return names, sc.Err()
}

// labelLine reads a line of names of labels.
func labelLine(line string) (bit int, name string, ok bool) {
	const blanks = " \f\r\t\v"
	if strings.HasPrefix(line, "#") {
		return 0, "", false
	}
	line = strings.TrimLeft(line, blanks)
	base, digits := 10, "0123456789"
	switch hex := strings.ToLower(line[:min(2, len(line))]) == "0x"; {
	case hex:
		base, digits, line = 16, digits+"abcdefABCDEF", line[2:]
	case strings.HasPrefix(line, "0"):
		base, digits = 8, digits[:8]
	}
	rest := strings.TrimLeft(line, digits)
	n, err := strconv.ParseUint(line[:len(line)-len(rest)], base, 16)
	name = strings.Trim(rest, blanks)
	sane := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == ' ' || c == '-'
	}
	if err != nil || n > 127 || name == "" || strings.ContainsFunc(name, func(c rune) bool { return !sane(c) }) {
		return 0, "", false
	}
	return int(n), name, true
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
		if f, err := os.Open(LabelFile); err == nil { // no file, no names
			labels.byBit, _ = parseLabels(f)
			_ = f.Close()
		}
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
	for n := range 128 { // names first: a name may be a number
		if w := LabelName(n); w != "" && w == s {
			return n, nil
		}
	}
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && n < 128 {
		return int(n), nil
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
