package wire

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func message(lines string) []byte {
	h := Head{
		Format: Format,
		Host:   "r1",
		Netns:  "default",
		Boot:   "b",
		Epoch:  7,
		First:  3,
		Count:  strings.Count(lines, "\n"),
	}
	return append(h.Append(nil), lines...)
}

func TestParse(t *testing.T) {
	h, lines, err := Parse(message("{\"a\":1}\n{\"b\":2}\n"))
	if err != nil || h.Next() != 5 || h.ID() != "r1.default.7.3" || string(lines) != "{\"a\":1}\n{\"b\":2}\n" {
		t.Errorf("%+v %q %v", h, lines, err)
	}
	if got := slices.Collect(Lines(lines)); len(got) != 2 || string(got[1]) != "{\"b\":2}\n" {
		t.Errorf("lines %q", got)
	}
	for _, bad := range []string{"", "\n", "{}\n", "null\n{}\n", "[]\n", `{"nfctl":1}` + "\n{}\n",
		string(message("")), string(message("{}\n")) + "{}", string(message("{}\n{}\n"))[:85],
		strings.Repeat(" ", HeadRoom) + string(message("{}\n")),
		strings.Replace(string(message("{}\n")), "r1", "r.1", 1),
		strings.Replace(string(message("{}\n")), `"first":3`, `"first":18446744073709551615`, 1),
		strings.Replace(string(message("{}\n")), `"count":1`, `"count":-1`, 1)} {
		if h, lines, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q: %+v %q", bad, h, lines)
		}
	}
	var format *FormatError
	if _, _, err := Parse([]byte(`{"nfctl":2,"host":5}` + "\n")); !errors.As(err, &format) || format.Format != 2 {
		t.Errorf("format 2: %v", err)
	}
}

func TestHeadFits(t *testing.T) {
	name := strings.Repeat("x", MaxName)
	h := Head{
		Format: Format,
		Host:   name,
		Netns:  name,
		Boot:   strings.Repeat("b", 36),
		Epoch:  1<<64 - 1,
		First:  1<<64 - 1,
		Count:  MaxLines,
	}
	if n := len(h.Append(nil)); n > HeadRoom {
		t.Errorf("%d bytes, and there is room for %d", n, HeadRoom)
	}
}

func TestSubjects(t *testing.T) {
	for _, k := range []Kind{Events, Snapshot} {
		if got, ok := KindOf(Subject("snap", "ev", k)); !ok || got != k {
			t.Errorf("%s: %v %v", Subject("snap", "ev", k), got, ok)
		}
	}
	if _, ok := KindOf("ct.a.b.other"); ok {
		t.Error("ct.a.b.other has a kind")
	}
	for _, bad := range []string{"", "a.b", "a b", "*", ">", "ä", strings.Repeat("x", 65), "a\n"} {
		if CheckName("host", bad) == nil {
			t.Errorf("%q can be a name", bad)
		}
	}
}

func TestDigest(t *testing.T) {
	var a, b, c Digest
	for _, l := range []string{"1\n", "2\n", "2\n"} {
		a.Add([]byte(l))
	}
	for _, l := range []string{"2\n", "1\n", "2\n"} {
		b.Add([]byte(l))
	}
	c.Add([]byte("1\n"))
	c.Add([]byte("2\n"))
	if a != b || a.String() == c.String() {
		t.Errorf("%v %v %v", a, b, c)
	}
	line := AppendDigest([]byte(`{"kind":"resynced","time":"t","flows":3}`+"\n"), &a)
	if m, d := MarkOf(line); m != End || d != a.String() || !bytes.HasSuffix(line, []byte("\"}\n")) {
		t.Errorf("%s: %v %q", line, m, d)
	}
	if m, _ := MarkOf([]byte(`{"kind":"resync","time":"t"}`)); m != Begin {
		t.Error("no begin")
	}
	if m, _ := MarkOf([]byte(`{"kind":"flow"}`)); m != NoMark {
		t.Error("a flow is no mark")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message("{\"kind\":\"flow\"}\n{}\n"))
	f.Add([]byte(`{"nfctl":1,"host":"a","netns":"b","epoch":1,"first":1,"count":1}` + "\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, lines, err := Parse(data)
		if err != nil {
			return
		}
		if n := len(slices.Collect(Lines(lines))); n != h.Count || h.Next() < h.First {
			t.Errorf("%d lines, head %+v", n, h)
		}
		for line := range Lines(lines) {
			MarkOf(line)
		}
		if _, ok := KindOf(Subject(h.Host, h.Netns, Events)); !ok {
			t.Errorf("no subject for %+v", h)
		}
	})
}
