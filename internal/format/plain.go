package format

import (
	"net/netip"
	"strings"
	"unsafe"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/value"
)

// Short roads for what programs write, which is nearly all of what is loaded: a
// line of -o save and an object of -o json in one pass each. What they do not
// know they leave to the readers in load.go, which know everything; what they do
// read means the same there (FuzzPlain, TestPlain). With those readers alone a line
// takes 1270 ns instead of 450, an object 5600 instead of 830 (BenchmarkLoad), and
// 'ct load' of 20,000 lines 55 ms instead of 46.

// What a plain line must have, and may have.
const (
	plainTimeout = 1 << iota
	plainStatus
	plainSrc
	plainDst
	plainReplySrc
	plainReplyDst
	plainProto
	plainSport
	plainDport
	plainReplySport
	plainReplyDport

	plainState
	plainMark
	plainZone

	plainAll = plainState - 1
)

// ParsePlain reads a line into f, which must be empty, if it is one of a TCP or
// UDP flow as -o save writes it, with each flag once. Otherwise it returns false,
// and f holds nothing of use: such a line is for Split and ParseSave. Of a plain
// line conntrack(8)'s -R has nothing to say either.
func ParsePlain(line string, f *ct.Flow) bool {
	if !strings.HasPrefix(line, "-A ") && !strings.HasPrefix(line, "-I ") {
		return false
	}
	seen, state := 0, ""
	for rest := line[3:]; rest != ""; {
		var flag, text string
		flag, rest, _ = strings.Cut(rest, " ")
		text, rest, _ = strings.Cut(rest, " ")
		bit, ok := 0, false
		switch flag {
		case "-t":
			bit = plainTimeout
			f.Timeout, ok = plainNum[uint32](text, 1<<32-1)
			f.Present |= ct.HasTimeout
		case "-u":
			bit = plainStatus
			f.Status, ok = plainBits(text)
			f.Present |= ct.HasStatus
		case "-s":
			bit = plainSrc
			f.Orig.Src, ok = plainAddr(text)
		case "-d":
			bit = plainDst
			f.Orig.Dst, ok = plainAddr(text)
		case "-r":
			bit = plainReplySrc
			f.Reply.Src, ok = plainAddr(text)
		case "-q":
			bit = plainReplyDst
			f.Reply.Dst, ok = plainAddr(text)
		case "-p":
			bit = plainProto
			f.Orig.Present |= ct.TupleProto
			switch ok = true; text {
			case "tcp":
				f.Orig.Proto = ct.TCP
			case "udp":
				f.Orig.Proto = ct.UDP
			default:
				ok = false
			}
		case "--sport":
			bit = plainSport
			f.Orig.Sport, ok = plainNum[uint16](text, 1<<16-1)
			f.Orig.Present |= ct.TupleSport
		case "--dport":
			bit = plainDport
			f.Orig.Dport, ok = plainNum[uint16](text, 1<<16-1)
			f.Orig.Present |= ct.TupleDport
		case "--reply-port-src":
			bit = plainReplySport
			f.Reply.Sport, ok = plainNum[uint16](text, 1<<16-1)
			f.Reply.Present |= ct.TupleSport
		case "--reply-port-dst":
			bit = plainReplyDport
			f.Reply.Dport, ok = plainNum[uint16](text, 1<<16-1)
			f.Reply.Present |= ct.TupleDport
		case "--state":
			bit, ok, state = plainState, true, text
		case "-m", "--mark":
			bit = plainMark
			f.Mark, ok = plainNum[uint32](text, 1<<32-1)
			f.Present |= ct.HasMark
		case "-w":
			bit = plainZone
			f.Zone, ok = plainNum[uint16](text, 1<<16-1)
			f.Present |= ct.HasZone
		}
		if !ok || seen&bit != 0 {
			return false
		}
		seen |= bit
	}
	if seen&plainAll != plainAll {
		return false
	}
	if tcp := f.Orig.Proto == ct.TCP; tcp != (seen&plainState != 0) {
		return false
	} else if tcp {
		n, ok := ct.TCPStateNames.Lookup(state)
		if !ok || ct.TCPStateNames.Word(n) != state {
			return false
		}
		f.TCPState, f.Present = uint8(n), f.Present|ct.HasTCPState
	}
	return finishSaved(f) == nil
}

// plainNum reads a decimal number without a sign or leading zeros.
func plainNum[N uint16 | uint32](s string, most uint64) (N, bool) {
	if len(s) == 0 || len(s) > 10 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	var n uint64
	for i := range len(s) {
		d := s[i] - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + uint64(d)
	}
	return N(n), n <= most
}

func plainAddr(s string) (netip.Addr, bool) {
	a, err := value.Address(s)
	return a, err == nil
}

// plainBits reads the bits of a status that -o save writes.
func plainBits(s string) (bits uint32, ok bool) {
	switch s {
	case "UNSET":
	case "SEEN_REPLY":
		bits = ct.StatusSeenReply
	case "SEEN_REPLY,ASSURED":
		bits = ct.StatusSeenReply | ct.StatusAssured
	default:
		return 0, false
	}
	return bits, true
}

// A plainKey is a key of JSON, or the name of an object in it.
type plainKey struct {
	quoted string // as it stands before its value: "sport":
	n      int    // number of the key, of an object that of its last
	within map[string]*plainKey

	// What the key sets: nothing when v4 is nil, with v6 an address of that family.
	v4, v6 *ct.Attr[ct.Flow]
	max    uint64 // up to which a number is set as it is; 0: none

	// The first of the keys within that were met so far, and the key behind it, by
	// number: they are likely to come again.
	first, next *plainKey
}

// plainKeys returns the keys of a flow, by name. They learn, and are one
// goroutine's.
func (k *keySet) plainKeys() map[string]*plainKey {
	byNumber := make([]plainKey, len(k.paths))
	for i := range k.attrs {
		one := &k.attrs[i]
		if key := &byNumber[one.key]; one.six == 6 {
			key.v6 = one.attr
		} else {
			key.v4 = one.attr
			if most, ok := one.attr.Plain(); ok {
				key.max = most
			}
		}
	}
	top := map[string]*plainKey{}
	for path, n := range k.paths {
		in, name := top, path
		if group, rest, ok := strings.Cut(path, "."); ok {
			if top[group] == nil {
				top[group] = &plainKey{quoted: `"` + group + `":`, within: map[string]*plainKey{}}
			}
			top[group].n = max(top[group].n, n)
			in, name = top[group].within, rest
		}
		byNumber[n].quoted, byNumber[n].n = `"`+name+`":`, n
		in[name] = &byNumber[n]
	}
	return top
}

// plain reads the object s into f, which must be empty, if it has no blanks, its
// keys are in the order of the table, and nothing in it needs a look at more than
// one character. Otherwise it returns false, and f holds nothing of use: such an
// object is for parse.
func (j *jsonFlow) plain(s string, f *ct.Flow) bool {
	j.last = -1
	end, ok := j.plainObject(s, 0, &j.top, f)
	return ok && end == len(s) && finishJSON(f) == nil
}

func (j *jsonFlow) plainObject(s string, i int, in *plainKey, f *ct.Flow) (end int, ok bool) {
	next := &in.first
	for i++; ; i++ { // over the brace, or the comma
		k := *next
		for k != nil && !strings.HasPrefix(s[i:], k.quoted) {
			k = k.next // not every flow has every key
		}
		if k == nil {
			if k = in.learn(s, i); k == nil {
				return 0, false
			}
		}
		next = &k.next
		if i += len(k.quoted); i == len(s) {
			return 0, false
		}
		if k.within == nil {
			// Some attributes are set by what others are, so that the order matters.
			if k.n <= j.last {
				return 0, false
			}
			j.last = k.n
		}
		var text string
		switch c := s[i]; {
		case c == '{' != (k.within != nil):
			return 0, false
		case c == '{':
			i, ok = j.plainObject(s, i, k, f)
		case c == '"':
			text, i, ok = plainString(s, i)
			ok = ok && j.plainSet(f, k, text)
		case c == '[':
			text, i, ok = j.plainList(s, i)
			ok = ok && j.plainSet(f, k, text)
		case c >= '0' && c <= '9':
			n, from := uint64(c-'0'), i
			for i++; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
				n = n*10 + uint64(s[i]-'0')
			}
			ok = (c != '0' || i == from+1) && k.n != j.status
			if k.v4 != nil {
				ok = ok && i-from < 20 && k.max > 0 && n <= k.max && k.v4.SetNum(f, n)
			}
		default:
			return 0, false
		}
		if !ok || i == len(s) {
			return 0, false
		}
		if s[i] == '}' {
			return i + 1, true
		}
		if s[i] != ',' {
			return 0, false
		}
	}
}

// learn returns the key at s[i:], which from now on is likely to come. It returns
// nil for a key that was likely before: that one is not in its place.
func (k *plainKey) learn(s string, i int) *plainKey {
	name, end, ok := plainString(s, i)
	key := k.within[name]
	if !ok || key == nil || end == len(s) || s[end] != ':' {
		return nil
	}
	at := &k.first
	for *at != nil && (*at).n < key.n {
		at = &(*at).next
	}
	if *at == key {
		return nil
	}
	key.next, *at = *at, key
	return key
}

// plainSet sets what a key stands for from a string, or strings joined.
func (j *jsonFlow) plainSet(f *ct.Flow, k *plainKey, text string) bool {
	a := k.v4
	switch {
	case k.n == j.kind:
		return text == "flow"
	case k.n == j.event:
		return setEvent(f, text) == nil
	case k.n == j.status:
		return j.setStatus(f, text) == nil
	case a == nil:
		return true
	case a.Kind == field.Bytes:
		return false
	case k.v6 != nil && strings.IndexByte(text, ':') >= 0:
		a = k.v6
	}
	return a.SetText(f, text) == nil
}

// plainString reads a string without escapes at s[i:].
func plainString(s string, i int) (text string, end int, ok bool) {
	if i >= len(s) || s[i] != '"' {
		return "", 0, false
	}
	for end = i + 1; end < len(s); end++ {
		switch c := s[end]; {
		case c == '"':
			return s[i+1 : end], end + 1, true
		case c == '\\' || c < ' ':
			return "", 0, false
		}
	}
	return "", 0, false
}

// plainList reads an array of strings at s[i:] and joins them. The text is valid
// until the next call.
func (j *jsonFlow) plainList(s string, i int) (text string, end int, ok bool) {
	if strings.HasPrefix(s[i:], "[]") {
		return "", i + 2, true
	}
	j.list = j.list[:0]
	for end = i + 1; ; end++ {
		one, next, ok := plainString(s, end)
		if !ok || next == len(s) {
			return "", 0, false
		}
		if end > i+1 {
			j.list = append(j.list, ',')
		}
		j.list = append(j.list, one...)
		switch end = next; s[end] {
		case ']':
			return unsafe.String(unsafe.SliceData(j.list), len(j.list)), end + 1, true
		case ',':
		default:
			return "", 0, false
		}
	}
}
