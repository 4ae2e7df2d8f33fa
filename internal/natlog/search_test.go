package natlog_test

import (
	"compress/gzip"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/natlog"
)

// sec is a time of these logs, in seconds from their beginning.
func sec(n int) uint64 { return uint64(1_800_000_000+n) * 1e9 }

// A logger makes a log in one format.
type logger struct {
	t   *testing.T
	log natlog.Log
	p   *format.Printer[natlog.Record]
	b   []byte
}

func newLogger(t *testing.T, f format.Format) *logger {
	t.Helper()
	p, err := format.New(format.Translations, format.Output{Format: f}, format.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := &logger{t: t, p: p}
	l.log.Emit = p.Append
	return l
}

func flow(id int, inside, outside, to string, event ct.Event, at int) *ct.Flow {
	i, o, d := netip.MustParseAddrPort(inside), netip.MustParseAddrPort(outside), netip.MustParseAddrPort(to)
	has := ct.TupleFamily | ct.TupleProto | ct.TupleSport | ct.TupleDport
	return &ct.Flow{ID: uint32(id), Event: event, Time: sec(at),
		Orig: ct.Tuple{Family: 2, Proto: 17, Src: i.Addr(), Sport: i.Port(), Dst: d.Addr(), Dport: d.Port(),
			Present: has},
		Reply: ct.Tuple{Family: 2, Proto: 17, Src: d.Addr(), Sport: d.Port(), Dst: o.Addr(), Dport: o.Port(),
			Present: has}}
}

func (l *logger) start(at int) { l.b = l.log.Start(l.b, sec(at)) }
func (l *logger) stop(at int)  { l.b = l.log.Stop(l.b, sec(at)) }
func (l *logger) synced(at int) {
	l.b = l.log.Mark(l.b, ct.Mark{Kind: ct.MarkExisting, Time: sec(at)})
	l.rest(at)
}
func (l *logger) rest(at int)     { l.log.Written(sec(at)) }
func (l *logger) flow(f *ct.Flow) { l.b, _ = l.log.Flow(l.b, f) }
func (l *logger) lost(at int)     { l.b = l.log.Lost(l.b, ct.Lost{Time: sec(at), Count: 5, Known: true}) }

// file ends a piece, and begins another.
func (l *logger) file(path string) string {
	l.t.Helper()
	if err := os.WriteFile(path, append(l.p.Begin(nil), l.b...), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.b = l.log.Piece(nil)
	return path
}

// who returns what a search finds, as "INSIDE since-until", in seconds.
func who(t *testing.T, q natlog.Query, paths ...string) string {
	t.Helper()
	var list []string
	matches, gaps, err := natlog.Search(paths, &q, func(r *natlog.Record) error {
		at := func(n uint64) string {
			if n == 0 {
				return ""
			}
			return fmt.Sprint((time.Duration(n) - time.Duration(sec(0))).Seconds())
		}
		if r.Event == natlog.Gap {
			list = append(list, "gap "+at(r.Since)+"-"+at(r.Time))
			return nil
		}
		unsure := ""
		if r.Unsure {
			unsure = "?"
		}
		list = append(list, r.Inside.Addr.String()+" "+at(r.Since)+"-"+at(r.Until)+unsure)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if matches+gaps != len(list) {
		t.Errorf("%d and %d, of %q", matches, gaps, list)
	}
	return strings.Join(list, ", ")
}

func query(from, until int) natlog.Query {
	return natlog.Query{Proto: 17, Outside: natlog.Place{netip.MustParseAddr("203.0.113.1"), 40000}, From: sec(from),
		Until: sec(until)}
}

const (
	outside = "203.0.113.1:40000"
	a, b, c = "192.168.0.1:1000", "192.168.0.2:1000", "192.168.0.3:1000"
)

// A log of two pieces, with a loss in the second.
func TestSearch(t *testing.T) {
	for _, f := range format.TranslationFormats {
		l := newLogger(t, f)
		dir := t.TempDir()
		l.start(10)
		l.flow(flow(1, a, outside, "8.8.8.8:53", ct.Existing, 11))
		l.synced(12)
		l.flow(flow(2, b, outside, "9.9.9.9:53", ct.New, 20))
		l.flow(flow(3, b, "203.0.113.1:40001", "9.9.9.9:53", ct.New, 20))     // another port
		l.flow(flow(4, "10.0.0.1:5", "10.0.0.1:5", "9.9.9.9:53", ct.New, 20)) // not translated
		l.flow(flow(1, a, outside, "8.8.8.8:53", ct.Destroy, 30))
		l.rest(30)
		written := len(l.b)
		l.flow(flow(5, c, outside, "7.7.7.7:53", ct.New, 39)) // not written when the piece ends
		rest := string(l.b[written:])
		l.b = l.b[:written]
		log := filepath.Join(dir, "log")
		first := l.file(log + ".20270115T080040.000Z")
		l.b = append(l.b, rest...)
		l.rest(39)
		l.flow(flow(2, b, outside, "9.9.9.9:53", ct.Destroy, 50))
		l.rest(55)
		l.lost(60)
		l.b = l.log.Mark(l.b, ct.Mark{Kind: ct.MarkResync, Time: sec(60)})
		l.b = l.log.Mark(l.b, ct.Mark{Kind: ct.MarkResynced, Time: sec(61)})
		l.rest(70)
		l.flow(flow(6, a, outside, "8.8.8.8:53", ct.New, 75))
		l.rest(75)
		l.stop(80)
		l.file(log)
		for _, x := range []struct {
			from, until int
			want        string
		}{
			{5, 5, "gap 5-10"},
			{11, 11, "192.168.0.1 11-30, gap 10-12"},
			{15, 15, "192.168.0.1 11-30"},
			{25, 25, "192.168.0.1 11-30, 192.168.0.2 20-"},
			{31, 31, "192.168.0.2 20-50"},
			{45, 45, "192.168.0.2 20-50, 192.168.0.3 39-61?, gap 39-61"},
			{58, 58, "192.168.0.3 39-61?, gap 39-61"},
			{65, 65, ""},
			{76, 76, "192.168.0.1 75-"},
			{90, 95, "192.168.0.1 75-, gap 80-95"},
		} {
			if got := who(t, query(x.from, x.until), log); got != x.want {
				t.Errorf("%s at %d: %q, want %q", f, x.from, got, x.want)
			}
		}
		q := query(25, 25)
		q.To = netip.MustParseAddr("9.9.9.9")
		if got := who(t, q, log); got != "192.168.0.2 20-" {
			t.Errorf("%s", got)
		}
		if q.ToPort = 54; who(t, q, log) != "" {
			t.Error("another port of the other end")
		}
		whole := natlog.Query{Proto: 17, Outside: query(0, 0).Outside}
		if got := who(t, whole, log); got != "192.168.0.1 11-30, 192.168.0.2 20-50, 192.168.0.3 39-61?, "+
			"192.168.0.1 75-, gap 39-61" {
			t.Errorf("%s: %s", f, got)
		}
		// Named twice, and compressed, it is the same.
		z, err := os.Create(first + ".gz")
		if err != nil {
			t.Fatal(err)
		}
		w := gzip.NewWriter(z)
		content, _ := os.ReadFile(first)
		_, _ = w.Write(content)
		_ = w.Close()
		_ = z.Close()
		_ = os.Remove(first)
		if got := who(t, query(25, 25), log, first+".gz", log); got != "192.168.0.1 11-30, 192.168.0.2 20-" {
			t.Errorf("%s: %s", f, got)
		}
	}
}

// Between a run that was killed and the next nothing is known, nor of a piece that is
// missing, nor around a line that is torn.
func TestSearchGaps(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	l := newLogger(t, format.JSON)
	l.start(10)
	l.synced(10)
	l.flow(flow(1, a, outside, "8.8.8.8:53", ct.New, 20))
	l.rest(20)
	l.log = natlog.Log{Emit: l.log.Emit} // killed
	l.start(40)
	l.flow(flow(2, b, outside, "8.8.8.8:53", ct.Existing, 41))
	l.synced(42)
	l.flow(flow(3, c, outside, "9.9.9.9:53", ct.New, 50))
	l.rest(50)
	l.file(log + ".1")
	l.rest(50)
	l.flow(flow(3, c, outside, "9.9.9.9:53", ct.Destroy, 60))
	l.rest(60)
	missing := l.file(log + ".2")
	l.flow(flow(4, c, outside, "9.9.9.9:53", ct.New, 70))
	l.rest(70)
	l.b = append(l.b, `{"kind":"nat","time":"2027-01-15T08:01:1`+"\n"...)
	l.flow(flow(4, c, outside, "9.9.9.9:53", ct.Destroy, 80))
	l.stop(90)
	l.file(log)
	all := []string{log, log + ".1", log + ".2"}
	for _, x := range []struct {
		at   int
		want string
	}{
		{15, ""}, {25, "192.168.0.1 20-40?, gap 20-42"}, {45, "192.168.0.2 41-"}, {55,
			"192.168.0.2 50-, 192.168.0.3 50-60"},
		{65, "192.168.0.2 60-"}, {75, "192.168.0.2 60-, 192.168.0.3 70-80, gap 70-80"},
	} {
		if got := who(t, query(x.at, x.at), all...); got != x.want {
			t.Errorf("at %d: %q, want %q", x.at, got, x.want)
		}
	}
	_ = os.Remove(missing)
	if got := who(t, query(55, 55), log, log+".1"); got != "192.168.0.2 41-, 192.168.0.3 50-, gap 50-60" {
		t.Errorf("%q", got)
	}
	for name, content := range map[string]string{"empty": "", "torn": `{"kind":"nat","ti`} {
		path := filepath.Join(dir, name)
		_ = os.WriteFile(path, []byte(content), 0o600)
		if got := who(t, query(15, 15), log+".1", path); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	path := filepath.Join(dir, "other")
	_ = os.WriteFile(path, []byte("something else\n"), 0o600)
	if _, _, err := natlog.Search([]string{path}, &natlog.Query{}, nil); err == nil || !strings.Contains(err.Error(),
		"not a log of address translations") {
		t.Error(err)
	}
}
