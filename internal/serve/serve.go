// Package serve runs queues with rules: it reads the rules, binds the queues, keeps
// queues, rules and the table of --attach in step, also when rules are read again, and
// takes all away in the end. It prints nothing.
package serve

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"nfctl/internal/mark"
	"nfctl/internal/nft"
	"nfctl/internal/pattern"
	"nfctl/internal/queue"
	"nfctl/internal/rule"
	"nfctl/internal/table"
	"nfctl/internal/value"
)

// A Source is one flag's rules in the order of the command line: a rule, or a file that
// is read again.
type Source struct {
	Flag, Text string
	File       bool
	Rule       func(rule.Options) (rule.Rule, error)
}

// Options say what to run.
type Options struct {
	Nums     []uint16   // the queues, sorted
	CPUs     []int      // the processors on which the queues are served, in turn; none: any
	Attach   []nft.Spec // rules of a table of nfctl's own, which feed them; none: others' rules do
	Sources  []Source
	Default  queue.Verdict // on packets that no rule decides
	FlowMark uint32        // bits of marks for what Attach's table does
	DryRun   bool
}

// A Run is queues with their rules. The caller fills it in, calls Read, Open and, in the
// end, Close; what is behind Open is for one goroutine but for Reload.
type Run struct {
	*Options
	Rules  rule.Options
	Needs  rule.Needs // beside those of the rules
	Config func(rule.Needs) queue.Config
	// Decider makes what decides on one queue's packets by some rules.
	Decider func(*rule.Set) (queue.Decider, error)
	Warn    func(error) // is told of what went wrong beside

	Queues []*queue.Queue
	Table  *nft.Table // nil: without Attach

	set    atomic.Pointer[rule.Set]
	change sync.Mutex  // of rules, and the end
	marks  *mark.Codes // what the table behind the queues is told
	hold   *queue.Hold // how packets wait; nil: none does
	asked  []mark.Code // of these, what rules in force may ask
}

// Set returns the rules in force.
func (r *Run) Set() *rule.Set { return r.set.Load() }

// Again reports whether there are files of rules to read again.
func (r *Run) Again() bool {
	return slices.ContainsFunc(r.Sources, func(s Source) bool { return s.File })
}

// Read reads the rules, and what they ask of the table.
func (r *Run) Read() error {
	r.Rules.Proto, r.Rules.Table = OnlyProto(r.Attach), len(r.Attach) > 0 || r.Rules.Simulated
	r.Rules.Copies = !r.DryRun && r.copies() != 0
	set, err := r.read(false)
	if err != nil {
		return err
	}
	r.set.Store(set)
	if r.marks, err = r.codes(set); err != nil {
		return err
	}
	r.asked = r.ends(set)
	r.hold, err = r.holding(set)
	return err
}

// read reads all rules and compiles them; again says that they were read before.
func (r *Run) read(again bool) (*rule.Set, error) {
	if r.Again() {
		// What reading leaves behind is not to double the memory of a long list.
		defer debug.SetGCPercent(debug.SetGCPercent(40))
	}
	var all []rule.Rule
	for _, s := range r.Sources {
		if !s.File {
			one, err := s.Rule(r.Rules)
			if err != nil {
				return nil, table.Named(s.Flag, err)
			}
			all = append(all, one)
			continue
		}
		f, err := openRules(s.Text, again)
		if err != nil {
			return nil, table.Named(s.Flag, err)
		}
		rules, err := rule.ParseFile(f, s.Text, r.Rules)
		_ = f.Close()
		if err != nil {
			return nil, table.Named(s.Flag, err)
		}
		if all == nil {
			all = rules // a long list is not to be there twice
		} else {
			all = append(all, rules...)
		}
	}
	return rule.Compile(all, r.Rules)
}

// openRules opens a file of rules. To be read again it must be a regular file: a
// pipe, as shells make them of <(…), would be empty by then, or keep nfctl waiting.
func openRules(path string, again bool) (*os.File, error) {
	if !again {
		return os.Open(path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file, which alone can be read again", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// OnlyProto returns the one transport protocol that all rules of --attach queue, or
// 0: they queue more than one, or others' rules do.
func OnlyProto(specs []nft.Spec) (proto uint8) {
	for _, s := range specs {
		if s.Pattern == nil || s.Pattern.Has&pattern.Proto == 0 || proto != 0 && s.Pattern.Proto != proto {
			return 0
		}
		proto = s.Pattern.Proto
	}
	return proto
}

// Open binds the queues: those of Nums when they were named, else one that is free for
// Attach, or 0.
func (r *Run) Open(named bool) error {
	if err := r.bind(named); err != nil {
		return err
	}
	for _, q := range r.Queues {
		if err := q.Prepare(); err != nil {
			r.Close()
			return err
		}
	}
	return nil
}

// bind binds the queues of Open.
func (r *Run) bind(named bool) error {
	conf := r.config(r.set.Load(), r.marks, r.hold)
	skip, mask, err := r.set.Load().RepeatMark()
	if err != nil {
		return &table.UsageError{Err: err}
	}
	for i := range r.Attach {
		r.Attach[i].SkipMark, r.Attach[i].SkipMask = skip, mask
	}
	if len(r.CPUs) > 0 {
		conf.Pin, conf.CPU = true, r.CPUs[0]
	}
	if !named && slices.ContainsFunc(r.Attach, func(s nft.Spec) bool { return s.Fanout }) {
		return r.openFanout(conf)
	}
	if len(r.Attach) > 0 && !named {
		q, err := openFree(conf)
		if err != nil {
			return err
		}
		r.Queues, r.Nums = []*queue.Queue{q}, []uint16{q.Num()}
	} else {
		if !named {
			r.Nums = []uint16{0}
		}
		if n := len(r.Nums); len(r.Attach) > 0 && int(r.Nums[n-1]-r.Nums[0]) != n-1 {
			return table.Usagef("--num %s: --attach spreads packets over a range without gaps",
				value.QueueRanges(r.Nums))
		}
		return r.openAll(conf)
	}
	return nil
}

// config says how to bind queues for some rules.
func (r *Run) config(set *rule.Set, codes *mark.Codes, hold *queue.Hold) queue.Config {
	c := r.Config(set.Needs().Add(r.Needs))
	c.Codes, c.Hold = r.inForce(codes), hold
	if hold != nil && c.MaxLen == 0 {
		c.MaxLen = queue.HeldMaxLen()
	}
	return c
}

// numbers returns the queues as a range.
func (r *Run) numbers() nft.Queues {
	return nft.Queues{First: r.Nums[0], Last: r.Nums[len(r.Nums)-1]}
}

// openFree binds a number that nothing has bound, from the highest downwards:
// people take low ones.
func openFree(conf queue.Config) (*queue.Queue, error) {
	for num := 0xffff; ; num-- {
		conf.Num = uint16(num)
		q, err := queue.Open(conf)
		if num == 0 || !errors.Is(err, queue.ErrBusy) && !errors.Is(err, os.ErrPermission) || num < 0xffff-64 {
			return q, err
		}
	}
}

// openFanout binds a queue for each processor: the kernel chooses by its number.
func (r *Run) openFanout(conf queue.Config) (err error) {
	n := runtime.NumCPU()
	for first, tries := 0xffff+1-n, 0; first >= 0 && tries < 64; first, tries = first-n, tries+1 {
		r.Nums = r.Nums[:0]
		for i := range n {
			r.Nums = append(r.Nums, uint16(first+i))
		}
		if err = r.openAll(conf); err == nil || !errors.Is(err, queue.ErrBusy) && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return err
}

// openAll binds the queues of Nums.
func (r *Run) openAll(conf queue.Config) error {
	for i, num := range r.Nums {
		conf.Num = num
		if len(r.CPUs) > 0 {
			conf.CPU = r.CPUs[i%len(r.CPUs)]
		}
		q, err := queue.Open(conf)
		if err != nil {
			r.Close()
			r.Queues = nil
			return err
		}
		r.Queues = append(r.Queues, q)
	}
	return nil
}

// Start gives the queues their rules and, with Attach, has packets sent to them. It
// returns how they end.
func (r *Run) Start() (end queue.Ending, err error) {
	for _, q := range r.Queues {
		d, err := r.Decider(r.Set())
		if err != nil {
			return end, err
		}
		q.SetDecider(d)
	}
	if len(r.Attach) == 0 {
		return end, nil
	}
	if err := r.alone(r.inForce(r.marks)); err != nil {
		return end, err
	}
	if err := r.undecide(); err != nil { // of a run before that was killed
		return end, err
	}
	if r.Table, err = nft.Attach(r.Attach, r.numbers(), r.inForce(r.marks)); err != nil {
		return end, err
	}
	if err := r.alone(r.inForce(r.marks)); err != nil { // another may have begun at the same time
		return end, err
	}
	r.overwritten()
	return r.ending(), nil
}

// Close ends all that is open.
func (r *Run) Close() {
	for _, q := range r.Queues {
		_ = q.Close()
	}
	if r.Table != nil {
		_ = r.Table.Close()
	}
}

// Loops finds rules that hand packets back to the one queue that they come from.
// With several queues a condition may tell one from the other.
func (r *Run) Loops(set *rule.Set) error {
	if len(r.Nums) != 1 {
		return nil
	}
	if text := set.Loops(r.Nums[0]); text != "" {
		return table.Usagef("rule '%s': packets would come to queue %d again, for ever: want the number of "+
			"another queue",
			text, r.Nums[0])
	}
	return nil
}

// Reload reads the rules anew. Either all queues get the new rules or none. ended says
// that the queues are about to end.
func (r *Run) Reload(ended func() bool) error {
	r.change.Lock()
	defer r.change.Unlock()
	if ended() {
		return errors.New("nfctl is ending")
	}
	set, err := r.read(true)
	if err != nil {
		return err
	}
	set.Continue(r.set.Load())
	if err := r.Loops(set); err != nil {
		return err
	}
	if len(r.Attach) > 0 {
		_, repeats, err := set.RepeatMark()
		skip := &r.Attach[0]
		if err == nil && repeats != 0 && (skip.SkipMask == 0 || !set.Bears(skip.SkipMark, skip.SkipMask)) {
			err = errors.New("repeat with a mark that --attach's rule does not leave out: start nfctl anew")
		}
		if err != nil {
			return err
		}
	}
	codes, err := r.codes(set)
	if err != nil {
		return err
	}
	if err := r.alone(r.inForce(codes)); err != nil {
		return err
	}
	hold, err := r.holding(set)
	if err != nil {
		return err
	}
	deciders := make([]queue.Decider, len(r.Queues))
	for i := range deciders {
		if deciders[i], err = r.Decider(set); err != nil {
			return err
		}
	}
	conf := r.config(set, codes, hold)
	if conf.Codes != nil {
		if r.marks == nil || !slices.Equal(codes.List, r.marks.List) {
			if err := r.Table.Update(r.Attach, r.numbers(), codes); err != nil {
				return err
			}
		}
		r.marks = codes
		r.asked = append(r.asked, r.ends(set)...)
	}
	for i, q := range r.Queues {
		if err := q.Reload(deciders[i], conf); err != nil {
			return fmt.Errorf("from queue %d on: %w", q.Num(), err)
		}
	}
	r.set.Store(set)
	r.asked = r.ends(set)
	if err := r.undecide(); err != nil { // by the rules before
		r.Warn(fmt.Errorf("flows that the rules before decided: %w", err))
	}
	r.overwritten()
	return nil
}
