// Package value reads and writes the values that nfctl's users type and see:
// ports, marks, durations, sizes, addresses, families and protocols.
//
// Every reader takes the whole text or fails with an *Error that names it and
// says what would have been valid. Every writer appends to a caller's buffer.
package value

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// A Name is one word for a number. Several words may share a number; the first
// in a table is the one that is printed.
type Name struct {
	Word string
	Num  uint64
}

// Names maps words to numbers and back. It is safe for concurrent use. Tables are
// package-level variables that cost nothing until they are asked: the maps behind
// them are made then.
type Names struct {
	What  string // what the words name, for messages: "protocol"
	Max   uint64 // largest number accepted when a number is typed
	words []string
	from  func() []Name
	list  []Name

	once   sync.Once
	byNum  atomic.Pointer[[]string] // dense for small numbers; "" where there is no word
	byWord map[string]uint64
}

// NewNames returns a table. Words are matched in any case; max bounds plain
// numbers typed in place of a word.
func NewNames(what string, max uint64, list ...Name) *Names {
	return &Names{What: what, Max: max, list: list}
}

// NewWords returns a table of the words for 0, 1, 2, …; an empty word leaves a gap.
func NewWords(what string, max uint64, words ...string) *Names {
	return &Names{What: what, Max: max, words: words}
}

// NewNamesOf is NewNames for a list that is worked out when it is first asked.
func NewNamesOf(what string, max uint64, list func() []Name) *Names {
	return &Names{What: what, Max: max, from: list}
}

// made returns the table with its maps.
func (n *Names) made() *Names {
	n.once.Do(n.make)
	return n
}

func (n *Names) make() {
	if n.from != nil {
		n.list = n.from()
	}
	for i, w := range n.words {
		if w != "" {
			n.list = append(n.list, Name{w, uint64(i)})
		}
	}
	var top uint64
	for _, e := range n.list {
		if e.Num < 512 {
			top = max(top, e.Num)
		}
	}
	byNum := make([]string, top+1)
	n.byWord = make(map[string]uint64, len(n.list))
	for _, e := range n.list {
		if e.Num <= top && byNum[e.Num] == "" {
			byNum[e.Num] = e.Word
		}
		if _, ok := n.byWord[fold(e.Word)]; !ok {
			n.byWord[fold(e.Word)] = e.Num
		}
	}
	n.byNum.Store(&byNum)
}

func fold(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// List returns the table in its order. The caller must not change it.
func (n *Names) List() []Name { return n.made().list }

// Word returns the word for num, or "" when there is none.
func (n *Names) Word(num uint64) string {
	if b := n.byNum.Load(); b != nil && num < uint64(len(*b)) {
		return (*b)[num]
	}
	return n.find(num)
}

// find is Word where it is not as quick: of a table that is not made yet, and of
// large numbers.
func (n *Names) find(num uint64) string {
	for _, e := range n.made().list {
		if e.Num == num {
			return e.Word
		}
	}
	return ""
}

// Append appends the word for num, or its decimal digits when it has none.
func (n *Names) Append(b []byte, num uint64) []byte {
	if w := n.Word(num); w != "" {
		return append(b, w...)
	}
	return strconv.AppendUint(b, num, 10)
}

// Lookup returns the number of a word, in any case, '-' and '_' alike.
func (n *Names) Lookup(word string) (uint64, bool) {
	var short [24]byte // folded here, most words cost no memory
	if len(word) > len(short) {
		num, ok := n.made().byWord[fold(word)]
		return num, ok
	}
	for i := range len(word) {
		switch c := word[i]; {
		case c >= 'A' && c <= 'Z':
			short[i] = c + ('a' - 'A')
		case c == '-':
			short[i] = '_'
		case c < 0x80:
			short[i] = c
		default: // some letters beyond ASCII fold to one of it
			num, ok := n.made().byWord[fold(word)]
			return num, ok
		}
	}
	num, ok := n.made().byWord[string(short[:len(word)])]
	return num, ok
}

// Parse reads a word of the table or a number up to Max.
func (n *Names) Parse(s string) (uint64, error) {
	if num, ok := n.Lookup(s); ok {
		return num, nil
	}
	if num, err := strconv.ParseUint(s, 0, 64); err == nil && num <= n.Max {
		return num, nil
	}
	words := make([]string, 0, len(n.list))
	for _, e := range n.list {
		words = append(words, e.Word)
	}
	valid := "a name or a number from 0 to " + strconv.FormatUint(n.Max, 10)
	if n.Max == 0 && len(words) > 0 {
		valid = "a name, as " + words[0] + " or " + words[len(words)-1]
	}
	if len(words) <= 16 {
		valid = strings.Join(words, ", ")
	}
	near := Nearest(s, words)
	for _, w := range words { // ESTAB, as ss(8) writes it
		if near == "" && len(s) >= 3 && len(w) > len(s) && strings.EqualFold(w[:len(s)], s) {
			near = w
		}
	}
	return 0, &Error{What: n.What, Text: s, Valid: valid, Near: near}
}

// Families are the address families of the seed's table, with ipv4 and ipv6 as
// printed words for 2 and 10 (linux/socket.h).
var Families = NewNames("family", 255,
	Name{"unspec", 0}, Name{"local", 1}, Name{"unix", 1}, Name{"file", 1},
	Name{"ipv4", 2}, Name{"inet", 2}, Name{"ax25", 3}, Name{"ipx", 4}, Name{"appletalk", 5},
	Name{"netrom", 6}, Name{"bridge", 7}, Name{"atmpvc", 8}, Name{"x25", 9},
	Name{"ipv6", 10}, Name{"inet6", 10}, Name{"rose", 11}, Name{"decnet", 12},
	Name{"netbeui", 13}, Name{"security", 14}, Name{"key", 15}, Name{"netlink", 16},
	Name{"route", 16}, Name{"packet", 17}, Name{"ash", 18}, Name{"econet", 19},
	Name{"atmsvc", 20}, Name{"rds", 21}, Name{"sna", 22}, Name{"irda", 23},
	Name{"pppox", 24}, Name{"wanpipe", 25}, Name{"llc", 26}, Name{"ib", 27},
	Name{"mpls", 28}, Name{"can", 29}, Name{"tipc", 30}, Name{"bluetooth", 31},
	Name{"iucv", 32}, Name{"rxrpc", 33}, Name{"isdn", 34}, Name{"phonet", 35},
	Name{"ieee802154", 36}, Name{"caif", 37}, Name{"alg", 38}, Name{"nfc", 39},
	Name{"vsock", 40}, Name{"kcm", 41}, Name{"qipcrtr", 42}, Name{"smc", 43},
	Name{"xdp", 44}, Name{"mctp", 45},
)

// Protocols are the transport protocols of the seed's table (netinet/in.h), and by
// the names that /etc/protocols has for them those of IANA that are in use.
var Protocols = NewNames("protocol", 255,
	Name{"ip", 0}, Name{"hopopts", 0}, Name{"icmp", 1}, Name{"igmp", 2}, Name{"ipip", 4},
	Name{"tcp", 6}, Name{"egp", 8}, Name{"pup", 12}, Name{"udp", 17}, Name{"idp", 22},
	Name{"tp", 29}, Name{"dccp", 33}, Name{"ipv6", 41}, Name{"routing", 43},
	Name{"fragment", 44}, Name{"rsvp", 46}, Name{"gre", 47}, Name{"esp", 50}, Name{"ah", 51},
	Name{"icmpv6", 58}, Name{"none", 59}, Name{"dstopts", 60}, Name{"mtp", 92},
	Name{"beetph", 94}, Name{"encap", 98}, Name{"pim", 103}, Name{"comp", 108},
	Name{"l2tp", 115}, Name{"sctp", 132}, Name{"mh", 135}, Name{"udplite", 136},
	Name{"mpls", 137}, Name{"ethernet", 143}, Name{"raw", 255}, Name{"mptcp", 262},
	Name{"hopopt", 0}, Name{"ggp", 3}, Name{"ipencap", 4}, Name{"ip-encap", 4}, Name{"st", 5}, Name{"igp", 9},
	Name{"hmp", 20}, Name{"xns-idp", 22}, Name{"rdp", 27}, Name{"iso-tp4", 29}, Name{"xtp", 36}, Name{"ddp", 37},
	Name{"idpr-cmtp", 38}, Name{"ipv6-route", 43}, Name{"ipv6-frag", 44}, Name{"idrp", 45}, Name{"ipsec-esp", 50},
	Name{"ipsec-ah", 51}, Name{"skip", 57}, Name{"ipv6-icmp", 58}, Name{"ipv6-nonxt", 59},
	Name{"ipv6-opts", 60}, Name{"rspf", 73}, Name{"vmtp", 81}, Name{"eigrp", 88}, Name{"ospf", 89}, Name{"ospfigp", 89},
	Name{"ax.25", 93}, Name{"etherip", 97}, Name{"ipcomp", 108}, Name{"vrrp", 112}, Name{"isis", 124}, Name{"fc", 133},
	Name{"mobility-header", 135}, Name{"mpls-in-ip", 137}, Name{"manet", 138}, Name{"hip", 139}, Name{"shim6", 140},
	Name{"wesp", 141}, Name{"rohc", 142},
)
