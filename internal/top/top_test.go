package top

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/table"
)

var update = flag.Bool("update", false, "write the screens in testdata")

// flows are what a listing of n flows found, the largest first.
func flows(n int) (list []*ct.Flow) {
	for i := range n {
		f := &ct.Flow{Present: ct.HasStatus | ct.HasTimeout | ct.HasOrigCounters | ct.HasReplyCounters | ct.HasID,
			Timeout: uint32(100 + i), ID: uint32(i + 1), Status: ct.StatusSeenReply | ct.StatusAssured}
		src, dst := netip.AddrFrom4([4]byte{192, 168, 100, byte(i)}), netip.MustParseAddr("198.51.100.7")
		f.Orig.Family = ct.IPv4
		if i == 1 {
			src = netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:aaaa")
			dst = netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:bbbb")
			f.Orig.Family = ct.IPv6
		}
		f.Orig.Src, f.Orig.Dst, f.Orig.Sport, f.Orig.Dport, f.Orig.Proto = src, dst, uint16(40000+i), 443, ct.TCP
		f.Orig.Present = ct.TupleFamily | ct.TupleProto | ct.TupleSport | ct.TupleDport
		f.Reply = f.Orig.Reverse()
		f.TCPState, f.Present = 3, f.Present|ct.HasTCPState
		f.OrigCounters = ct.Counters{Packets: uint64(900 - i), Bytes: uint64(1_000_000 - 1000*i)}
		f.Rate = ct.Rate{Packets: uint64(90 - i%90), Bytes: uint64(100_000 - 100*i), Known: true}
		list = append(list, f)
	}
	return list
}

func shown(t *testing.T, s *State, n int) {
	t.Helper()
	at := time.Date(2026, 12, 1, 12, 34, 56, 0, time.UTC)
	s.Show(table.Round{Time: at.Add(-time.Second), Seen: uint64(n), Chosen: uint64(n)}, 0, Drops{})
	s.Show(table.Round{Time: at, Rated: true, Flows: flows(n), Chosen: uint64(n), Seen: uint64(n), Began: 12, Ended: 3,
		Rate: ct.Rate{Packets: 1234, Bytes: 5_678_901, Known: true}}, 262144, Drops{Known: true, Drop: 5, NoInsert: 2})
}

func text(s *State, width, height int) string {
	var b strings.Builder
	for _, l := range s.Screen(width, height) {
		mark := " "
		if l.Reverse {
			mark = "#"
		}
		b.WriteString(mark + strings.TrimRight(l.Text, " ") + "\n")
	}
	return b.String()
}

// Screens of three sizes are compared as text; a # stands before what is in reverse.
func TestScreens(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		n    int
		keys string
	}{
		{"flows", 50, "jj"},
		{"scrolled", 50, "G"},
		{"none", 0, ""},
		{"help", 3, "?"},
		{"detail", 3, "j\r"},
		{"question", 3, "jd"},
		{"paused", 3, "p"},
	} {
		for _, size := range [][2]int{{60, 12}, {80, 24}, {120, 40}} {
			s := New("tcp > :443")
			shown(t, s, c.n)
			s.Screen(size[0], size[1]) // so that it knows how many lines there are
			for _, k := range Keys([]byte(c.keys)) {
				s.Key(k)
			}
			got := text(s, size[0], size[1])
			if n := strings.Count(got, "\n"); n != size[1] {
				t.Errorf("%s at %v: %d lines", c.name, size, n)
			}
			for line := range strings.Lines(got) {
				if n := utf8.RuneCountInString(line) - 2; n > size[0] {
					t.Errorf("%s at %v: %d wide: %s", c.name, size, n, line)
				}
			}
			file := filepath.Join("testdata", fmt.Sprintf("%s-%dx%d.txt", c.name, size[0], size[1]))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || string(want) != got {
				t.Errorf("%s: %v\n%s", file, err, got)
			}
		}
	}
}

// A screen of any size is drawn, with no line too wide or too many.
func TestAnySize(t *testing.T) {
	t.Parallel()
	s := New("")
	shown(t, s, 30)
	for _, keys := range []string{"", "?", "\r", "d"} {
		for _, k := range Keys([]byte(keys)) {
			s.Key(k)
		}
		for width := range 130 {
			for _, height := range []int{0, 1, 7, 8, 9, 24, 60} {
				lines := s.Screen(width, height)
				if len(lines) > height {
					t.Fatalf("%q at %dx%d: %d lines", keys, width, height, len(lines))
				}
				for _, l := range lines {
					if n := utf8.RuneCountInString(l.Text); n > max(width, 1) {
						t.Fatalf("%q at %dx%d: %q", keys, width, height, l.Text)
					}
				}
			}
		}
		s.Key('q')
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	got := Keys([]byte("a\x1b[A\x1bOB\x1b[5~\x1b[3~\x1b[[A\x1b[1;5Cz\x1bOPé\n\x1b"))
	want := []Key{'a', Up, Down, PageUp, Delete, F1, Other, 'z', F1, 'é', '\r', Escape}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, broken := range []string{"\x1b[", "\x1b[[", "\x1bO", "\x1b[1;", "\xff", "\x1b[\xff"} {
		Keys([]byte(broken))
	}
}

// What keys ask for: other orders and groups, the end, and a deletion only after yes.
func TestActions(t *testing.T) {
	t.Parallel()
	s := New("")
	shown(t, s, 3)
	press := func(k Key, want Action) {
		t.Helper()
		if got := s.Key(k); got != want {
			t.Errorf("key %d: %d, want %d", k, got, want)
		}
	}
	var r table.Repeat
	asks := func(groups int, want ...uint32) {
		t.Helper()
		if err := s.Ask(&r); err != nil || len(r.By) != groups {
			t.Fatalf("%v, %d groups", err, len(r.By))
		}
		if groups > 0 {
			return
		}
		k := table.NewFlowKeeper(r.Order, r.Limit)
		for _, f := range flows(3) {
			_ = k.Add(f)
		}
		var got []uint32
		for _, f := range table.Sorted(k) {
			got = append(got, f.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("order %v, want %v", got, want)
		}
	}
	asks(0, 1, 2, 3)
	press('I', List)
	asks(0, 3, 2, 1)
	press('>', List)
	asks(0, 1, 2, 3)
	press('<', List)
	press('<', List) // destination port: all alike, so by address
	asks(0, 1, 3, 2)
	press('t', List)
	asks(1)
	s.Show(table.Round{Time: time.Now(), Groups: []format.Group{{Values: []format.GroupValue{{OK: true,
		Addr: netip.MustParseAddr("10.0.0.1")}}, Count: 7}}}, 0, Drops{})
	if got := text(s, 80, 24); !strings.Contains(got, "ORIG.SRC") || !strings.Contains(got, "10.0.0.1") {
		t.Errorf("groups:\n%s", got)
	}
	press('d', Draw)
	if s.Doomed() != nil {
		t.Error("a group is to be deleted")
	}
	for range len(groups) - 1 {
		press('t', List)
	}
	asks(0, 1, 2, 3)
	shown(t, s, 3)
	press(Down, Draw)
	press('d', Draw)
	doomed := s.Doomed()
	if doomed == nil || doomed.ID != 2 {
		t.Fatalf("to be deleted: %v", doomed)
	}
	press('n', Draw)
	if s.Doomed() != nil {
		t.Error("deleted after no")
	}
	press('d', Draw)
	shown(t, s, 1) // the flow asked about stays the one that was chosen
	press('y', Remove)
	if s.Doomed() != doomed {
		t.Errorf("another flow is deleted: %v", s.Doomed())
	}
	s.Deleted(nil)
	if got := text(s, 120, 24); !strings.Contains(got, "deleted tcp") {
		t.Errorf("no word of it:\n%s", got)
	}
	press('p', Draw)
	press('>', Draw)
	press('p', List)
	press('z', Nothing)
	press('?', Draw)
	press('q', Draw) // back from help
	press('\r', Draw)
	press('q', Draw) // back from details
	press(Key(12), Redraw)
	press('q', Quit)
	press(Key(3), Quit)
}
