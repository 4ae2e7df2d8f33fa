package natlog

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"nfctl/internal/rotate"
)

// A Query asks who had an address and port.
type Query struct {
	Proto       uint8
	Outside     Place
	To          netip.Addr // the other end; not valid: any
	ToPort      uint16     // 0: any
	From, Until uint64     // ns since the epoch; both 0: whenever the log tells of
}

// Search finds all translations in logs that were there at some time from q.From to
// q.Until. It hands each to found, and after them each gap in what the logs tell of that
// time: then there may have been others. Of a log that was rotated one names the file:
// its pieces are read that tell of that time, and of the others only the beginning.
func Search(paths []string, q *Query, found func(*Record) error) (matches, gaps int, err error) {
	s := &search{q: q, open: map[opened]*Record{}}
	s.addr = q.Outside.Addr.AppendTo(nil)
	s.port = strconv.AppendUint(nil, uint64(q.Outside.Port), 10)
	files, err := s.heads(paths)
	if err != nil {
		return 0, 0, err
	}
	if q.From == 0 && q.Until == 0 {
		s.whole = true
		q.Until = 1<<63 - 1
	}
	if len(files) == 0 {
		return 0, 0, errors.New("no records of address translations in these files")
	}
	if first := files[0].head.Time; !s.whole && q.From < first {
		s.gap(q.From, first)
	}
	for i := range files {
		if i+1 < len(files) && files[i+1].head.Time < q.From || files[i].head.Time > q.Until {
			continue
		}
		if err := s.file(&files[i]); err != nil {
			return 0, 0, err
		}
		if i+1 == len(files) {
			if !s.whole && s.last < q.Until {
				s.gap(s.last, q.Until)
			}
		} else if next := &files[i+1].head; next.Event == Piece && next.Since != s.last {
			s.gap(s.last, next.Time)
		}
	}
	for _, r := range s.open {
		s.close(r, 0)
	}
	if s.gapSince != 0 {
		s.gap(s.gapSince, max(s.last, s.gapSince))
	}
	order := func(a, b Record) int { return cmp.Or(cmp.Compare(a.Since, b.Since), cmp.Compare(a.ID, b.ID)) }
	slices.SortStableFunc(s.found, order)
	slices.SortStableFunc(s.gaps, order)
	for _, list := range [][]Record{s.found, s.gaps} {
		for i := range list {
			if err := found(&list[i]); err != nil {
				return 0, 0, err
			}
		}
	}
	return len(s.found), len(s.gaps), nil
}

type search struct {
	q     *Query
	whole bool   // whenever
	addr  []byte // as logs have them: lines of translations without both are passed over
	port  []byte
	open  map[opened]*Record
	found []Record
	gaps  []Record

	last     uint64 // time of the last record
	line     []byte // that is it, when last is not known yet
	parse    parser
	gapSince uint64 // of a gap that is not over
	torn     bool   // the line before could not be read
}

// opened is what tells translations of one outside place apart.
type opened struct {
	id         uint32
	inside, to Place
}

type logFile struct {
	path string
	head Record
}

// heads returns the files with their first records, oldest first.
func (s *search) heads(paths []string) ([]logFile, error) {
	var list []logFile
	seen := map[string]bool{}
	for _, path := range paths {
		names, err := rotate.Pieces(path)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(path); err == nil || len(names) == 0 {
			names = append(names, path)
		}
		for _, name := range names {
			if abs, err := filepath.Abs(name); err == nil {
				if seen[abs] {
					continue
				}
				seen[abs] = true
			}
			head, err := headOf(name)
			if errors.Is(err, io.EOF) {
				continue // nothing in it yet
			}
			if err != nil {
				return nil, err
			}
			list = append(list, logFile{name, head})
		}
	}
	slices.SortStableFunc(list, func(a, b logFile) int { return cmp.Compare(a.head.Time, b.head.Time) })
	return list, nil
}

// lines opens a log for reading.
func lines(path string) (*bufio.Reader, io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	b := bufio.NewReaderSize(f, 64<<10)
	if magic, _ := b.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			_ = f.Close()
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		return bufio.NewReaderSize(z, 256<<10), f, nil
	}
	return b, f, nil
}

func headOf(path string) (Record, error) {
	b, c, err := lines(path)
	if err != nil {
		return Record{}, err
	}
	defer c.Close()
	var p parser
	for {
		line, err := b.ReadSlice('\n')
		if err != nil {
			if len(line) == 0 || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				return Record{}, io.EOF
			}
			return Record{}, fmt.Errorf("%s: not a log of address translations: %w", path, err)
		}
		if p.format == 0 && !p.begin(line) {
			return Record{}, fmt.Errorf("%s: not a log of address translations in json, csv or text: it begins "+
				"with %.40q", path, line)
		}
		var r Record
		if p.read(line, &r) && r.Time != 0 {
			return r, nil
		}
	}
}

// file reads a log.
func (s *search) file(f *logFile) error {
	b, c, err := lines(f.path)
	if err != nil {
		return err
	}
	defer c.Close()
	s.parse = parser{}
	for {
		line, err := b.ReadSlice('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // being written, or torn
			s.know()
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
		if s.parse.format == 0 && !s.parse.begin(line) {
			return fmt.Errorf("%s: not a log of address translations in json, csv or text: it begins with %.40q",
				f.path, line)
		}
		s.one(line)
	}
}

// know finds out when the last record was.
func (s *search) know() {
	if len(s.line) > 0 {
		var r Record
		if s.parse.read(s.line, &r) && r.Time != 0 {
			s.last = r.Time
		}
		s.line = s.line[:0]
	}
}

func (s *search) one(line []byte) {
	event, ok := s.parse.event(line)
	if ok && event <= End && !s.torn && !(bytes.Contains(line, s.addr) && bytes.Contains(line, s.port)) {
		s.line = append(s.line[:0], line...)
		return
	}
	var r Record
	if !ok || !s.parse.read(line, &r) || r.Time == 0 {
		if !s.parse.isHead(line) {
			s.know()
			s.torn = true
		}
		return
	}
	s.know()
	if s.torn {
		s.torn = false
		s.gap(s.last, r.Time)
	}
	switch {
	case r.Event == Start:
		for _, o := range s.open {
			o.Unsure = true
			s.close(o, r.Time)
		}
		clear(s.open)
		if s.gapSince == 0 && !(s.whole && s.last == 0) { // in front of all there is nothing to miss
			s.gapSince = cmp.Or(s.last, r.Time)
		}
	case r.Event == Lost:
		if s.gapSince == 0 {
			s.gapSince = cmp.Or(r.Since, r.Time)
		}
	case r.Event == Synced:
		if s.gapSince != 0 {
			s.gap(s.gapSince, r.Time)
			s.gapSince = 0
		}
	case r.translation():
		s.translation(&r)
	}
	s.last = r.Time
}

func (s *search) translation(r *Record) {
	q := s.q
	if r.Proto != q.Proto || r.Outside != q.Outside || q.To.IsValid() && r.To.Addr != q.To || q.ToPort != 0 &&
		r.To.Port != q.ToPort {
		return
	}
	k := opened{r.ID, r.Inside, r.To}
	o := s.open[k]
	if r.Event != End {
		if o == nil {
			n := *r
			if n.Since == 0 {
				n.Since = n.Time
			}
			s.open[k] = &n
		}
		return
	}
	if o != nil {
		delete(s.open, k)
		if r.Since == 0 {
			r.Since = o.Since
		}
	}
	s.close(r, r.Time)
}

// close notes a translation that ended, 0: not in what was read, if it was there at the
// time in question.
func (s *search) close(r *Record, until uint64) {
	since := cmp.Or(r.Since, r.Time)
	if since > s.q.Until || until != 0 && until < s.q.From {
		return
	}
	n := *r
	n.Since, n.Until = since, until
	if n.Event == Begin {
		n.Event = Alive
	}
	if until != 0 {
		n.Event = End
	}
	s.found = append(s.found, n)
}

// gap notes that not all is known of some time, if that is in question.
func (s *search) gap(since, until uint64) {
	if since > s.q.Until || until < s.q.From || s.whole && since == until {
		return
	}
	s.gaps = append(s.gaps, Record{Time: until, Since: since, Event: Gap})
}
