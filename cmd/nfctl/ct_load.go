package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/nft"
)

// ctLoadOptions are the flags of 'nfctl ct load'.
type ctLoadOptions struct {
	file           string // "-": standard input
	orUpdate       bool
	strict, dryRun bool
	labelmap       string
}

func newCtLoad(a *app) *cobra.Command {
	o := &ctLoadOptions{}
	c := &cobra.Command{
		Use:     "load [FILE]",
		Aliases: []string{"restore"},
		Short:   "Make the flows that 'ct save' wrote",
		Long: `Makes the flows that a file, or standard input, describes: lines of 'ct save', of
conntrack(8)'s -o save, and of -o json, also mixed. A line that cannot be read, or
that the kernel refuses, is reported with its number, and the rest is loaded all
the same; the status is 1 then. Flows that are there already are left alone, but
lines that begin with -I ask for a new one. Flows that another one expected come
after that one. Status bits that only the kernel sets are passed over. What comes
slowly by a pipe is loaded line by line.`,
		Example: `  nfctl ct load flows
  nfctl --netns old ct save | nfctl --netns new ct load
  nfctl ct load flows --dry-run`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.file = "-"; len(args) > 0 {
				o.file = args[0]
			}
			return a.ctLoad(c, o)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.BoolVar(&o.orUpdate, "or-update", false, "change flows that are there already to be so")
	f.BoolVar(&o.strict, "strict", false, "stop at the first line that fails")
	f.BoolVar(&o.dryRun, "dry-run", false, "only read the lines")
	f.StringVar(&o.labelmap, "labelmap", "", "read the names of labels from this `file` (default "+ct.LabelFile+")")
	return c
}

// A loading is a running 'ct load'.
type loading struct {
	a    *app
	o    *ctLoadOptions
	name string // of the file, for messages
	conn *ct.Conn

	batch   *ct.Batch
	waiting []line // of the requests in batch, in order
	head    int
	req     []byte

	again    []line // refused, perhaps only for what they have already: see ct.Conn.Create
	children []line // made when all else is there
	orphans  []line // whose master was not there

	read                    atomic.Int64 // bytes
	lines, made, there, bad uint64
	first                   error // why the first bad line was bad
	translated              bool
	labelled                *ct.Flow // the first flow made with labels
	stop                    error    // with --strict: why
	defaults                *ct.Timeouts
	retry                   bool      // flows whose master is missing may be tried again
	keeps                   [256]bool // protocols whose ports the kernel keeps
}

// A line is where a request comes from.
type line struct {
	number int
	insist bool     // -I: that the flow is there already is an error
	flow   *ct.Flow // kept for later: it has a master
}

var errStrict = errors.New("stopped at the first bad line (--strict)")

func (a *app) ctLoad(c *cobra.Command, o *ctLoadOptions) error {
	if a.output+a.fields+a.template != "" {
		return usagef("'ct load' prints no objects: -o, --fields and --template do not go with it")
	}
	if o.labelmap != "" {
		if err := ct.LoadLabels(o.labelmap); err != nil {
			return named("--labelmap", err)
		}
	}
	l := &loading{a: a, o: o, name: o.file, defaults: ct.LoadTimeouts()}
	in := a.in
	size := int64(0)
	if o.file == "-" {
		l.name = "standard input"
	} else {
		f, err := os.Open(o.file)
		if err != nil {
			return &statusError{code: exitFailed, err: err}
		}
		defer f.Close()
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			size = st.Size()
		}
		in = f
	}
	ctx, stop := interruptible(c)
	defer stop()
	if !o.dryRun {
		conn, err := ct.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		l.conn = conn
		n := batchSize
		if o.strict {
			n = 1
		}
		l.batch = conn.NewBatch(n, l.done)
	}
	endBar := l.bar(size)
	err := l.run(ctx, in)
	endBar()
	if o.dryRun {
		a.total("%s read, %s failed", flows(l.made), plural(l.bad, "line"))
	} else {
		text := flows(l.made) + " made"
		if l.o.orUpdate { // the kernel does not say which
			text += " or changed"
		}
		if l.there > 0 {
			text += fmt.Sprintf(", %d already there", l.there)
		}
		if l.bad > 0 {
			text += ", " + plural(l.bad, "line") + " failed"
		}
		a.total("%s", text)
		l.notes()
	}
	if err != nil {
		return ended(ctx, err)
	}
	if l.bad > 0 {
		h := ""
		if l.first != nil {
			h = hintFor(l.first, exitCode(l.first))
		}
		return &statusError{code: exitFailed, err: fmt.Errorf("%s: %d of %s failed", l.name, l.bad, plural(l.lines, "line")), hint: h}
	}
	return nil
}

// A loadItem is a line that was read.
type loadItem struct {
	line
	made ct.Flow
	req  []byte // to make it
	err  error
}

// reader reads lines on a goroutine of its own, so that reading and the kernel's
// work go on side by side, and hands them on in pieces, which come back by used: a
// full one, or what there is when no more of in has come yet. It ends when stop is
// closed.
func (l *loading) reader(in io.Reader, stop <-chan struct{}) (full <-chan []loadItem, used chan<- []loadItem) {
	const pieces = 4
	out, back := make(chan []loadItem, pieces), make(chan []loadItem, pieces)
	for range pieces {
		back <- make([]loadItem, 0, batchSize)
	}
	go func() {
		defer close(out)
		piece := <-back
		hand := func() bool {
			select {
			case out <- piece:
			case <-stop:
				return false
			}
			select {
			case piece = <-back:
				piece = piece[:0]
				return true
			case <-stop:
				return false
			}
		}
		from := &countingReader{Reader: in, n: &l.read, short: func() bool { return len(piece) == 0 || hand() }}
		for s, err := range format.Load(from) {
			piece = piece[:len(piece)+1]
			item := &piece[len(piece)-1]
			item.err = err
			if err == nil {
				item.line = line{number: s.Line, insist: insists(s.Text)}
				if f := s.Flow; f.Has(ct.HasHelper) || f.Has(ct.HasHelperInfo) {
					item.made = *f.Clone()
				} else {
					item.made = *f
				}
				defaults(&item.made, l.defaults)
				if !l.o.orUpdate {
					item.made.Trim()
				}
				item.req = item.made.AppendCreate(item.req[:0], l.o.orUpdate)
			}
			if len(piece) == cap(piece) && !hand() {
				return
			}
		}
		select {
		case out <- piece:
		case <-stop:
		}
	}()
	return out, back
}

func (l *loading) run(ctx context.Context, in io.Reader) error {
	stop := make(chan struct{})
	defer close(stop)
	full, used := l.reader(in, stop)
	for {
		select {
		case piece, ok := <-full:
			if !ok {
				if err := l.flush(); err != nil || l.stop != nil {
					return cmp.Or(err, l.stop)
				}
				return cmp.Or(l.families(), l.oneByOne())
			}
			for i := range piece {
				if err := l.item(&piece[i]); err != nil {
					return err
				}
			}
			used <- piece
			if len(piece) < cap(piece) && len(full) == 0 { // more may take long to come
				if err := l.flush(); err != nil || l.stop != nil {
					return cmp.Or(err, l.stop)
				}
			}
		case <-ctx.Done():
			return cmp.Or(l.flush(), ctx.Err())
		}
	}
}

// item takes a line.
func (l *loading) item(i *loadItem) error {
	var bad *format.LineError
	switch {
	case i.err == nil:
		l.lines++
		return cmp.Or(l.add(i), l.stop)
	case errors.As(i.err, &bad):
		// What came before is done first, so that messages come in the order of
		// the lines and --strict stops where it says.
		if err := l.flush(); err != nil || l.stop != nil {
			return cmp.Or(err, l.stop)
		}
		l.lines++
		l.failed(bad)
		return l.stop
	}
	return cmp.Or(l.flush(), fmt.Errorf("%s: %w", l.name, i.err))
}

// insists reports whether a line asks for a new flow: conntrack's -A leaves one
// alone that is there already, -I does not.
func insists(text string) bool {
	return strings.HasPrefix(text, "-I") || strings.HasPrefix(text, "--create")
}

// add makes a flow, or keeps it for later when it has a master.
func (l *loading) add(i *loadItem) error {
	f := &i.made
	l.translated = l.translated || f.Translated()
	if proto := f.Orig.Proto; !l.o.dryRun && !l.keeps[proto] && f.Orig.Has(ct.TupleSport) {
		if err := l.conn.KeepsPorts(f); err != nil {
			l.failed(&format.LineError{Line: i.number, Err: err})
			return l.stop
		}
		l.keeps[proto] = true
	}
	switch {
	case l.o.dryRun:
		l.made++
		return nil
	case !f.Master.IsZero():
		i.flow = f.Clone()
		l.children = append(l.children, i.line)
		return nil
	}
	return l.send(i.line, f, i.req)
}

// resend makes a flow that was kept.
func (l *loading) resend(at line) error {
	l.req = at.flow.AppendCreate(l.req[:0], l.o.orUpdate)
	return l.send(at, at.flow, l.req)
}

func (l *loading) send(at line, f *ct.Flow, req []byte) error {
	if l.head >= batchSize { // the batch sends when one more is added, so some always wait
		l.waiting, l.head = append(l.waiting[:0], l.waiting[l.head:]...), 0
	}
	l.waiting = append(l.waiting, at)
	return l.batch.CreateBy(f, req)
}

// flush sends what was gathered.
func (l *loading) flush() error {
	if l.batch == nil {
		return nil
	}
	return l.batch.Flush()
}

// families makes the flows that have a master, until no more of their masters
// turn up.
func (l *loading) families() error {
	for todo := l.children; len(todo) > 0; todo = l.orphans {
		before := l.made + l.there
		l.orphans, l.retry = nil, true
		for _, c := range todo {
			if err := l.resend(c); err != nil {
				return err
			}
		}
		if err := l.flush(); err != nil || l.stop != nil {
			return cmp.Or(err, l.stop)
		}
		if l.made+l.there == before {
			l.retry = false
			for _, c := range l.orphans {
				if err := l.resend(c); err != nil {
					return err
				}
			}
			return cmp.Or(l.flush(), l.stop)
		}
	}
	return nil
}

// oneByOne makes or changes the flows that are to be looked at.
func (l *loading) oneByOne() error {
	for _, at := range l.again {
		if err := l.conn.Create(at.flow, true); err == nil || errors.Is(err, ct.ErrLabelsDropped) {
			l.made++
		} else if l.failed(&format.LineError{Line: at.number, Err: err}); l.stop != nil {
			return l.stop
		}
	}
	return nil
}

// done is told how a request went.
func (l *loading) done(f *ct.Flow, err error) {
	at := l.waiting[l.head]
	l.head++
	switch {
	case err == nil:
		l.made++
		if f.Has(ct.HasLabels) && f.Labels != [16]byte{} && l.labelled == nil {
			l.labelled = f.Clone()
		}
	case errors.Is(err, unix.EEXIST) && !at.insist:
		l.there++
	case l.o.orUpdate && (errors.Is(err, unix.EOPNOTSUPP) && f.Translated() || errors.Is(err, unix.EPERM) && f.Status&ct.StatusFixedTimeout != 0):
		at.flow = f.Clone()
		l.again = append(l.again, at)
	case l.retry && errors.Is(err, unix.ENOENT) && at.flow != nil:
		l.orphans = append(l.orphans, at)
	default:
		l.failed(&format.LineError{Line: at.number, Err: err})
	}
}

// failed reports a bad line.
func (l *loading) failed(bad *format.LineError) {
	l.bad++
	l.first = cmp.Or(l.first, bad.Err)
	if bad.Text != "" {
		fmt.Fprintf(l.a.err, "nfctl: %s: %v\n", l.name, bad)
	} else {
		fmt.Fprintf(l.a.err, "nfctl: %s: line %d: %v\n", l.name, bad.Line, bad.Err)
	}
	if l.o.strict && l.stop == nil {
		l.stop = &statusError{code: exitFailed, err: fmt.Errorf("%s: %w", l.name, errStrict)}
	}
}

// notes says what the kernel took without keeping it.
func (l *loading) notes() {
	if l.labelled != nil {
		var got ct.Flow
		if l.conn.Get(l.labelled, &got, false) == nil && got.Labels == [16]byte{} {
			l.a.warn("labels were not stored: no rule of this namespace uses them")
			l.a.hint("make a rule that does, as iptables -m connlabel or nft ct label, and load again with --or-update")
		}
	}
	if l.translated && l.made > 0 && !translates() {
		l.a.hint("some flows are translated (NAT), but no NAT chain is registered here, so that the kernel does not translate their packets: load the firewall's rules first")
	}
}

// translates reports whether a chain that translates is registered in this
// namespace; true when that cannot be told.
func translates() bool {
	for _, name := range []string{"/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"} {
		if b, err := os.ReadFile(name); err == nil && strings.Contains("\n"+string(b), "\nnat\n") {
			return true
		}
	}
	n, err := nft.NATChains()
	return err != nil || n > 0
}

// A countingReader counts what it reads. short is called before a read that follows
// one which did not fill its buffer, and so may wait; false ends reading.
type countingReader struct {
	io.Reader
	n      *atomic.Int64
	filled bool
	short  func() bool
}

func (r *countingReader) Read(b []byte) (int, error) {
	if !r.filled && !r.short() {
		return 0, io.EOF
	}
	n, err := r.Reader.Read(b)
	r.n.Add(int64(n))
	r.filled = n == len(b)
	return n, err
}

// bar shows on a terminal how far a long load is. What it returns ends it.
func (l *loading) bar(size int64) (end func()) {
	if !isTerminal(l.a.err) || l.a.quiet {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		shown := false
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-done:
				if shown {
					fmt.Fprint(l.a.err, "\r\x1b[K")
				}
				return
			case <-tick.C:
			}
			if n < 4 { // short loads show nothing
				continue
			}
			shown = true
			fmt.Fprintf(l.a.err, "\r\x1b[K%s: %s", l.name, progress(l.read.Load(), size))
		}
	}()
	return func() { close(done); <-ended }
}

// progress draws how much of size bytes was read; size 0: of what has no end.
func progress(read, size int64) string {
	if size <= 0 {
		return fmt.Sprintf("%d KiB", read>>10)
	}
	const width = 30
	read = min(read, size)
	full := int(read * width / size)
	return fmt.Sprintf("[%s%s] %d%%", strings.Repeat("=", full), strings.Repeat(" ", width-full), read*100/size)
}
