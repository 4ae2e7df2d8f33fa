package packet

import (
	"errors"
	"strings"

	"nfctl/internal/value"
)

// Kinds of TCP options (IANA's registry; RFC 9293, 7323, 2018).
const (
	optEnd           = 0
	optNOP           = 1
	optMSS           = 2
	optWScale        = 3
	optSACKPermitted = 4
	optSACK          = 5
	optTimestamps    = 8
)

// optionWords are words for the kinds of TCP options, those of nft among them.
var optionWords = value.NewNames("TCP option", 255,
	value.Name{Word: "mss", Num: optMSS}, value.Name{Word: "wscale", Num: optWScale},
	value.Name{Word: "sack-permitted", Num: optSACKPermitted}, value.Name{Word: "sack", Num: optSACK},
	value.Name{Word: "timestamps", Num: optTimestamps}, value.Name{Word: "md5sig", Num: 19},
	value.Name{Word: "mptcp", Num: 30},
	value.Name{Word: "fastopen", Num: 34}, value.Name{Word: "maxseg", Num: optMSS},
	value.Name{Word: "window", Num: optWScale},
	value.Name{Word: "sack-perm", Num: optSACKPermitted}, value.Name{Word: "timestamp", Num: optTimestamps})

// OptionNames returns the words for TCP options that StripOptions takes.
func OptionNames() []string {
	var words []string
	for _, n := range optionWords.List() {
		words = append(words, n.Word)
	}
	return words
}

// nextOption splits the first TCP option off opt, which begins the options or what
// follows one: value is what follows its kind and length. Behind the last one, and
// where they are malformed, ok is false: a receiver reads no further.
func nextOption(opt []byte) (kind byte, value, rest []byte, ok bool) {
	for len(opt) > 0 && opt[0] == optNOP {
		opt = opt[1:]
	}
	if len(opt) < 2 || opt[0] == optEnd || opt[1] < 2 || int(opt[1]) > len(opt) {
		return 0, nil, nil, false
	}
	return opt[0], opt[2:opt[1]:opt[1]], opt[opt[1]:], true
}

// tcpOptions returns the captured options of a TCP header.
func (h *Headers) tcpOptions() []byte {
	b := h.header(ProtoTCP, 20)
	if b == nil {
		return nil
	}
	n := int(b[12]>>4) * 4
	if n < 20 {
		return nil
	}
	return b[20:min(n, len(b))]
}

// tcpOption returns the value of the first TCP option of a kind, and whether it is
// there.
func (h *Headers) tcpOption(kind byte) ([]byte, bool) {
	for opt := h.tcpOptions(); ; {
		k, v, rest, ok := nextOption(opt)
		if !ok || k == kind {
			return v, ok
		}
		opt = rest
	}
}

// An optionSet has a bit for each kind of TCP option.
type optionSet [4]uint64

func (s *optionSet) has(kind byte) bool { return s[kind/64]>>(kind%64)&1 != 0 }

// StripOptions compiles the removal of TCP options, given by name or number and
// separated by commas: each byte of theirs becomes a no-operation (RFC 9293 3.1),
// so the packet keeps its length. Errors are of type *value.Error.
func StripOptions(list string) (*Edit, error) {
	set := new(optionSet)
	for word := range strings.SplitSeq(list, ",") {
		n, err := optionWords.Parse(word)
		var bad *value.Error
		if errors.As(err, &bad) {
			bad.Valid += ", or a number from 2 to 255"
		}
		if err == nil && n <= optNOP {
			err = &value.Error{What: "TCP option to strip", Text: word,
				Valid: "one from 2 to 255: 0 and 1 are the end and padding"}
		}
		if err != nil {
			return nil, err
		}
		set[n/64] |= 1 << (n % 64)
	}
	return &Edit{Text: "option strip " + list, strip: set}, nil
}

func (e *Editor) stripOptions(h *Headers, m Meta, set *optionSet) error {
	if h.header(ProtoTCP, 20) == nil {
		if h.Truncated() && (h.l4 == ProtoTCP || h.body == 0 && h.state&stBad == 0) {
			return ErrTruncated
		}
		return ErrAbsent
	}
	for opt := h.tcpOptions(); ; {
		kind, v, rest, ok := nextOption(opt)
		if !ok {
			return nil
		}
		if set.has(kind) {
			switch {
			case h.Truncated():
				return ErrTruncated
			case h.state&stAH != 0:
				return ErrAuthenticated
			}
			e.begin(h, m)
			at := len(opt) - len(rest) - len(v) - 2
			for i := range opt[at : at+len(v)+2] {
				opt[at+i] = optNOP
			}
			e.changed |= chTransport
		}
		opt = rest
	}
}
