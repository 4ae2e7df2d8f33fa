package rule

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"nfctl/internal/field"
	"nfctl/internal/flows"
	"nfctl/internal/queue"
	"nfctl/internal/value"
)

// A When is something by which a rule chooses among the packets that its pattern and
// expression match.
type When struct {
	Word string
	Args string // what follows the word, as help writes it
	Doc  string
}

// A whenRow is one When. Parser, help, completion and suggestions are made of the
// table of these.
type whenRow struct {
	When
	read func(p *parser) (choice, error)
}

// A choice is a when of a rule, read.
type choice struct {
	needs Needs
	begin func(o *Options, seed uint64) chooser
}

// A chooser is a choice with what it has counted. All queues share it.
type chooser interface {
	chooses(p *queue.Packet) bool
}

var whenTable = [...]whenRow{
	{When{"chance", "P% [burst N]", "P of a hundred packets, drawn one by one; with burst they come in runs of N on average"}, readChance},
	{When{"every", "N", "the Nth packet, the 2Nth, and so on"}, readEvery},
	{When{"limit", "[over] N/s|m|h [burst N] [per FIELD]", "what stays within N packets a second, minute or hour, and burst N (5, or a tenth of a second's) at once; " +
		"with over all that does not; with per each value of the field has a limit of its own"}, readLimit},
	{When{"first", "N|SIZE", "the first N packets, or the first SIZE bytes (with a unit, as 64KiB), of each flow, both directions"}, readFirst},
}

// Whens returns all whens in the order of help.
func Whens() []When {
	list := make([]When, len(whenTable))
	for i := range whenTable {
		list[i] = whenTable[i].When
	}
	return list
}

// whenOf returns the row of a when's word, nil when there is none.
func whenOf(word string) *whenRow {
	for i := range whenTable {
		if whenTable[i].Word == word {
			return &whenTable[i]
		}
	}
	return nil
}

// whenWords returns the words of all whens.
func whenWords() (words []string) {
	for i := range whenTable {
		words = append(words, whenTable[i].Word)
	}
	return words
}

// whens takes the whens of a rule.
func (p *parser) whens(r *Rule) error {
	for last := ""; ; {
		word := p.peek()
		row := whenOf(word)
		if row == nil {
			if len(r.whens) > 0 && actionOf(word) != nil {
				return &value.Error{What: "word here", Text: word, Valid: "all actions in front of " + last}
			}
			return nil
		}
		last = p.next()
		c, err := row.read(p)
		if err != nil {
			return err
		}
		r.whens = append(r.whens, c)
		r.asks = r.asks.Add(c.needs)
	}
}

// option takes a word, which is next, and its argument.
func (p *parser) option(word, valid string) (string, error) {
	p.next()
	return p.argument(word, valid)
}

// count reads a number of packets.
func count(what, text string, most uint64) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 || n > most {
		return 0, &value.Error{What: what, Text: text, Valid: fmt.Sprintf("a number from 1 to %d", most)}
	}
	return n, nil
}

func readChance(p *parser) (choice, error) {
	const valid = "a percentage from 0% to 100%, as 20% or 0.5%"
	w, err := p.argument("chance", valid)
	if err != nil {
		return choice{}, err
	}
	bad := &value.Error{What: "chance", Text: w, Valid: valid}
	percent, ok := strings.CutSuffix(w, "%")
	if !ok {
		if _, err := decimal(w); err == nil {
			bad.Near = w + "%"
		}
		return choice{}, bad
	}
	chance, err := decimal(percent)
	if err != nil || chance > 100 {
		return choice{}, bad
	}
	chance /= 100
	if p.peek() != "burst" {
		return choice{begin: func(_ *Options, seed uint64) chooser {
			d := &draws{limit: share(chance)}
			d.n.Store(seed)
			return d
		}}, nil
	}
	const inRow = "how many packets in a row, on average: 1 or more"
	if w, err = p.option("burst", inRow); err != nil {
		return choice{}, err
	}
	length, err := decimal(w)
	if err != nil || length < 1 || length > 1e9 {
		return choice{}, &value.Error{What: "burst", Text: w, Valid: inRow}
	}
	if least := chance / (1 - chance); length < least*(1-1e-9) {
		bad := &value.Error{What: "burst", Text: w,
			Valid: fmt.Sprintf("runs of at least %s for chance %s: between two of them is one packet or more",
				strconv.FormatFloat(math.Ceil(least*100-1e-6)/100, 'f', -1, 64), percent+"%")}
		if chance == 1 {
			bad.Valid = "less than chance 100%: there are no runs where all packets are chosen"
		}
		return choice{}, bad
	}
	return choice{begin: func(_ *Options, seed uint64) chooser {
		c := &clumps{begin: share(chance / (1 - chance) / length), stay: share(1 - 1/length)}
		c.n.Store(seed)
		c.in.Store(c.draw() < share(chance))
		return c
	}}, nil
}

// decimal reads a number as people write it: digits, and perhaps more behind a dot.
func decimal(s string) (float64, error) {
	if strings.Trim(s, "0123456789.") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(s, 64)
}

// share returns the number below which as large a share of all 64-bit numbers is.
func share(p float64) uint64 {
	if p *= 1 << 64; p < 1<<64 {
		return uint64(p)
	}
	return math.MaxUint64
}

// A source draws numbers, for all queues: SplitMix64 (Steele, Lea, Flood: Fast
// splittable pseudorandom number generators, 2014), whose state is a counter.
type source struct{ n atomic.Uint64 }

const golden = 0x9e3779b97f4a7c15

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (s *source) draw() uint64 { return mix(s.n.Add(golden)) }

// draws chooses each packet by itself.
type draws struct {
	source
	limit uint64
}

func (d *draws) chooses(*queue.Packet) bool { return d.draw() < d.limit }

// clumps chooses runs of packets: the model of Gilbert, with all packets of one of
// its two states chosen.
type clumps struct {
	source
	begin, stay uint64
	in          atomic.Bool // the last packet was chosen
}

func (c *clumps) chooses(*queue.Packet) bool {
	was, limit := c.in.Load(), c.begin
	if was {
		limit = c.stay
	}
	now := c.draw() < limit
	if now != was {
		c.in.Store(now)
	}
	return now
}

func readEvery(p *parser) (choice, error) {
	const most = 1 << 53
	w, err := p.argument("every", "a number of packets")
	if err != nil {
		return choice{}, err
	}
	n, err := count("every", w, most)
	return choice{begin: func(*Options, uint64) chooser { return &every{n: n} }}, err
}

type every struct {
	n    uint64
	seen atomic.Uint64
}

func (e *every) chooses(*queue.Packet) bool { return e.seen.Add(1)%e.n == 0 }

// perSecond is the highest rate of a limit: its packets are 1000 ns apart, so that
// whole nanoseconds are exact to a thousandth.
const perSecond = 1_000_000

var limitUnits = []struct {
	words []string
	unit  time.Duration
}{{[]string{"s", "second"}, time.Second}, {[]string{"m", "minute"}, time.Minute}, {[]string{"h", "hour"}, time.Hour}}

func readLimit(p *parser) (choice, error) {
	over := p.peek() == "over"
	if over {
		p.next()
	}
	valid := fmt.Sprintf("packets a second, minute or hour, as 10/s, 200/m or 1000/h, at most %d/s", perSecond)
	w, err := p.argument("limit", valid)
	if err != nil {
		return choice{}, err
	}
	bad := &value.Error{What: "limit", Text: w, Valid: valid}
	text, per, _ := strings.Cut(w, "/")
	var unit time.Duration
	for _, u := range limitUnits {
		if per == u.words[0] || per == u.words[1] {
			unit = u.unit
		}
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 || unit == 0 || n > perSecond*uint64(unit/time.Second) {
		return choice{}, bad
	}
	l := limit{over: over, apart: int64(unit) / int64(n)}
	atOnce := max(5, n*uint64(time.Second/10)/uint64(unit))
	var row *field.Row[queue.Packet]
	needs := Needs{}
	for sized := false; err == nil; {
		switch word := p.peek(); {
		case word == "burst" && !sized:
			sized = true
			if w, err = p.option(word, "how many packets at once"); err == nil {
				atOnce, err = count("burst", w, perSecond)
			}
			continue
		case word == "per" && row == nil:
			if w, err = p.option(word, "a field, as ip.src"); err == nil {
				row, err = perField(w)
			}
			if err == nil {
				needs = NeedsToJudge(row.Path)
			}
			continue
		}
		break
	}
	if err != nil {
		return choice{}, err
	}
	l.room = l.apart * int64(atOnce)
	return choice{needs: needs, begin: func(o *Options, _ uint64) chooser {
		if row != nil {
			return &limitPer{limit: l, row: row, seen: flows.NewTable[int64](o.maxFlows())}
		}
		return &limitAll{limit: l}
	}}, nil
}

// perField returns the row of a field that rules can look at.
func perField(name string) (*field.Row[queue.Packet], error) {
	if why := queue.Fields.Reserved(name); why != "" {
		return nil, &value.Error{What: "field here", Text: name, Valid: "another: " + why}
	}
	return queue.Fields.Find(name)
}

// A limit is a token bucket, kept as the time at which it is full again (the generic
// cell rate algorithm of ITU-T I.371, virtual scheduling): one number a bucket. Time
// is the packets' own, in nanoseconds.
type limit struct {
	over  bool
	apart int64 // of two packets that come as fast as may be
	room  int64 // all tokens: burst times apart
}

// late is how far packets may come out of order by their times. Beyond it the clock
// was put back, and a bucket that has seen the old time begins anew.
const late = int64(time.Second)

// take takes a token out of a bucket; false: there is none.
func (l *limit) take(full, now int64) (int64, bool) {
	if full < now || full-now > l.room+late {
		full = now
	}
	if full += l.apart; full-now > l.room {
		return 0, false
	}
	return full, true
}

type limitAll struct {
	limit
	full atomic.Int64
}

func (l *limitAll) chooses(p *queue.Packet) bool {
	for {
		was := l.full.Load()
		full, ok := l.take(was, p.Time)
		if !ok || l.full.CompareAndSwap(was, full) {
			return ok != l.over
		}
	}
}

type limitPer struct {
	limit
	row  *field.Row[queue.Packet]
	seen *flows.Table[int64]
}

// chooses is false of a packet without the field, as comparisons are.
func (l *limitPer) chooses(p *queue.Packet) bool {
	var k flows.Key
	switch r := l.row; {
	case r.Num != nil:
		n, ok := r.Num(p)
		if !ok {
			return false
		}
		k = flows.OfNumber(n)
	case r.IP != nil:
		a, ok := r.IP(p)
		if !ok {
			return false
		}
		k = flows.OfAddr(a)
	default:
		b, ok := r.Data(p)
		if !ok {
			return false
		}
		k = flows.OfBytes(b)
	}
	l.seen.Lock()
	bucket := l.seen.At(&k)
	full, ok := l.take(*bucket, p.Time)
	if ok {
		*bucket = full
	}
	l.seen.Unlock()
	return ok != l.over
}

func (l *limitPer) forgotten() uint64 { return forgottenBy(l.seen) }

func readFirst(p *parser) (choice, error) {
	const valid = "a number of packets, or a size with its unit, as 8 or 64KiB"
	w, err := p.argument("first", valid)
	if err != nil {
		return choice{}, err
	}
	needs := NeedsOf("ip", "sport")
	n, err := strconv.ParseUint(w, 10, 64)
	bytes := err != nil
	if bytes {
		needs = needs.Add(NeedsOf("length"))
		n, err = value.Size(w)
	}
	if err != nil || n == 0 {
		return choice{}, &value.Error{What: "first", Text: w, Valid: valid}
	}
	return choice{needs: needs, begin: func(o *Options, _ uint64) chooser {
		return &firstOf{n: n, bytes: bytes, seen: flows.NewTable[uint64](o.maxFlows())}
	}}, nil
}

// firstOf chooses what a flow begins with.
type firstOf struct {
	n     uint64
	bytes bool
	seen  *flows.Table[uint64] // packets or bytes, until there are n
}

func (f *firstOf) chooses(p *queue.Packet) bool {
	k, ok := flows.Of(p)
	if !ok {
		return false
	}
	more := uint64(1)
	if f.bytes {
		more = uint64(p.Length)
	}
	f.seen.Lock()
	n := f.seen.At(&k)
	ok = *n < f.n
	if ok {
		*n += more
	}
	f.seen.Unlock()
	return ok
}

func (f *firstOf) forgotten() uint64 { return forgottenBy(f.seen) }

func forgottenBy[V any](t *flows.Table[V]) uint64 {
	t.Lock()
	defer t.Unlock()
	return t.Forgotten()
}

// choosers returns what a rule's whens count with. at is the rule's number.
func (r *Rule) choosers(o *Options, at int) []chooser {
	var list []chooser
	for i, c := range r.whens {
		list = append(list, c.begin(o, mix(o.Seed)+mix(uint64(at)<<32|uint64(i))))
	}
	return list
}

// choose reports whether all whens of a step choose a packet, each asked about what
// those before it chose.
func (s *step) choose(p *queue.Packet) bool {
	for _, c := range s.choosers {
		if !c.chooses(p) {
			return false
		}
	}
	return true
}

// Continue has whens of rules whose text also from has go on counting where they are
// there. It is to be called before the first Engine.
func (s *Set) Continue(from *Set) {
	old := map[string][]*step{} // of rules of one text, in order
	for i := range from.steps {
		if st := &from.steps[i]; st.remembers() {
			old[st.rule.Text] = append(old[st.rule.Text], st)
		}
	}
	for i := range s.steps {
		st := &s.steps[i]
		if !st.remembers() {
			continue
		}
		if same := old[st.rule.Text]; len(same) > 0 {
			for k := range st.rule.actions {
				st.rule.actions[k].hold = same[0].rule.actions[k].hold
			}
			st.choosers, old[st.rule.Text] = same[0].choosers, same[1:]
		}
	}
}

// remembers reports whether a step's rule keeps something from packet to packet.
func (s *step) remembers() bool {
	return len(s.choosers) > 0 || s.rule != nil && slices.ContainsFunc(s.rule.actions, func(a action) bool {
		return a.kind == actHold
	})
}

// Forgotten returns how many flows and values of fields were forgotten for others.
func (s *Set) Forgotten() (n uint64) {
	for i := range s.steps {
		for _, c := range s.steps[i].choosers {
			if f, ok := c.(interface{ forgotten() uint64 }); ok {
				n += f.forgotten()
			}
		}
	}
	return n
}

// Draws reports whether rules draw by chance.
func (s *Set) Draws() bool {
	for i := range s.rules {
		if slices.ContainsFunc(s.rules[i].actions, func(a action) bool { return a.hold != nil && a.hold.draws() }) {
			return true
		}
	}
	for i := range s.steps {
		for _, c := range s.steps[i].choosers {
			switch c.(type) {
			case *draws, *clumps:
				return true
			}
		}
	}
	return false
}
