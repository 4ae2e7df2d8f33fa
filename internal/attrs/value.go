package attrs

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/pattern"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

// Flow reads an exact flow in words.
func Flow(text string) (*ct.Flow, error) {
	w, err := pattern.ParseFlow(text)
	if err != nil {
		return nil, err
	}
	return ct.FlowOf(w), nil
}

// ReadFlow reads the entry of the flow that text names.
func ReadFlow(c *ct.Conn, text string) (*ct.Flow, error) {
	f, err := Flow(text)
	if err != nil {
		return nil, err
	}
	got := &ct.Flow{}
	err = c.Get(f, got, false)
	if errors.Is(err, unix.ENOENT) { // named by the reply direction?
		f.Orig, f.Reply = ct.Tuple{}, f.Orig
		if c.Get(f, got, false) == nil {
			return got, nil
		}
	}
	return got, err
}

// Change reads what NAME=VALUE pairs change of f, whose protocol tells which states
// there are.
func Change(f *ct.Flow, pairs []string) (*ct.Flow, error) {
	change := &ct.Flow{}
	change.Orig.Proto = f.Orig.Proto
	if err := table.OnceEach(ct.FlowAttrs(), pairs); err != nil {
		return nil, err
	}
	for _, s := range pairs {
		if err := ct.SetChange(change, s); err != nil {
			return nil, err
		}
		if err := ct.CheckStatus(change.Status, false); err != nil {
			return nil, err
		}
	}
	return change, nil
}

// AppendValue appends an attribute's value alone, as text or, raw, as the bytes that
// libnetfilter_conntrack keeps, in hexadecimal. missing is the attribute's name when f
// does not have it; mark and zone, which the kernel does not send when they are 0, every
// flow has.
func AppendValue(b []byte, at *ct.Attr[ct.Flow], f *ct.Flow, raw bool) (out []byte, missing string) {
	has := at.Has(f)
	switch {
	case !has && at.Path != "mark" && at.Path != "zone":
		return b, word(at.Name, nil, at.Path)
	case raw:
		stored, ok := at.AppendStored(nil, f)
		if !ok && at.Bits > 0 {
			stored = make([]byte, at.Bits/8)
		}
		return hex.AppendEncode(b, stored), ""
	case has:
		return at.AppendText(b, f), ""
	}
	return append(b, '0'), ""
}

// Encode returns the bytes in which libnetfilter_conntrack keeps a value.
func Encode(name, text string) (stored []byte, err error) {
	ok := false
	if at := ct.Find(ct.FlowAttrs(), name); at != nil {
		var f ct.Flow
		if err := setAny(&f, at, text); err != nil {
			return nil, err
		}
		stored, ok = at.AppendStored(nil, &f)
	} else if at := ct.Find(ct.ExpectAttrs(), name); at != nil {
		var e ct.Expect
		if err := at.SetText(&e, text); err != nil {
			return nil, err
		}
		stored, ok = at.AppendStored(nil, &e)
	} else {
		return nil, unknown(name)
	}
	if !ok {
		return nil, notStored(name)
	}
	return stored, nil
}

func notStored(name string) error {
	return table.Usagef("attribute %s: it is not kept as bytes; 'nfctl attr show %[1]s' says what it is", name)
}

// Decode appends the text of a value that bytes in hexadecimal hold, as
// libnetfilter_conntrack keeps it.
func Decode(b []byte, name, text string) ([]byte, error) {
	digits := strings.NewReplacer(" ", "", ":", "").Replace(strings.TrimPrefix(text, "0x"))
	stored, err := hex.DecodeString(digits)
	if err != nil {
		return b, &value.Error{What: "row of bytes", Text: text, Valid: "hexadecimal digits, two a byte"}
	}
	if at := ct.Find(ct.FlowAttrs(), name); at != nil {
		return decode(b, at, stored, text)
	}
	if at := ct.Find(ct.ExpectAttrs(), name); at != nil {
		return decode(b, at, stored, text)
	}
	return b, unknown(name)
}

func decode[T any](b []byte, at *ct.Attr[T], stored []byte, text string) ([]byte, error) {
	if at.Bits > 0 && len(stored) != at.Bits/8 {
		return b, &value.Error{What: "value of " + at.Name, Text: text, Valid: fmt.Sprintf("%d bytes", at.Bits/8)}
	}
	var t T
	if !at.SetStored(&t, stored) {
		return b, notStored(at.Name)
	}
	return at.AppendText(b, &t), nil
}
