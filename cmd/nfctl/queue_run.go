package main

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nfctl/internal/filter"
	"nfctl/internal/format"
	"nfctl/internal/lua"
	"nfctl/internal/process"
	"nfctl/internal/queue"
	"nfctl/internal/rule"
	"nfctl/internal/serve"
	"nfctl/internal/stream"
	"nfctl/internal/value"
)

// A queueRun is a running 'nfctl queue'.
type queueRun struct {
	a *app
	o *queueOptions
	serve.Run
	until  *filter.Program[queue.Packet]
	failIf *filter.Program[queue.Packet]
	lua    *lua.Rules
	expect *rule.Expects
	stream *stream.Stream
	begun  time.Time
	write  sync.Mutex // standard output, shared by the queues

	capture *captured // nil: none

	firstWhy sync.Once // tells of the first packet that could not be edited
}

func (a *app) queue(c *cobra.Command, o *queueOptions) error {
	files := &o.stream.file
	if err := files.check(o.write.path != "" && o.write.path != "-"); err != nil {
		return err
	}
	files.divert(a)
	out, err := a.outputOf(true)
	if err != nil {
		return err
	}
	switch o.payload {
	case "", "hex", "ascii":
	default:
		return named("--print-payload", &value.Error{What: "payload format", Text: o.payload, Valid: "hex or ascii"})
	}
	if o.meta && o.snaplen > 0 {
		return usagef("--meta copies nothing of the packets: it does not go with --snaplen")
	}
	if err := o.checkWrite(a); err != nil {
		return err
	}
	if !c.Flags().Changed("seed") {
		o.seed = uint64(rand.Uint32())
	}
	r := &queueRun{a: a, o: o}
	r.Options, r.Config, r.Decider = &o.Options, o.config, r.decider
	r.Warn = func(err error) { a.warn("%v", err) }
	r.Rules = rule.Options{OnUneditable: o.onUnedit, Seed: o.seed, MaxFlows: o.maxFlows, Simulated: o.read.path != ""}
	a.extensions(r)
	if err := r.Read(); err != nil {
		return err
	}
	if o.stream.failIf != "" {
		if r.failIf, err = filter.Compile(queue.Fields, o.stream.failIf); err != nil {
			return named("--fail-if", err)
		}
	}
	if o.stream.until != "" {
		if r.until, err = filter.Compile(queue.Fields, o.stream.until); err != nil {
			return named("--until", err)
		}
	}
	if err := r.captures(); err != nil {
		return err
	}
	silent := a.quiet || process.Discards(a.out) || o.write.path == "-" && files.out == nil
	r.Needs = o.needs(&out, silent, r.until, r.failIf)
	if r.capture != nil {
		r.Needs = r.Needs.Add(r.capture.needs(serve.OnlyProto(o.Attach)))
	}
	extra := format.Options{Stream: true, Hex: o.payload == "hex", ASCII: o.payload == "ascii", Layers: a.verbose > 0,
		Color: a.colored()}
	if o.payload != "" {
		extra.Extra = []string{"payload"}
	}
	head, err := format.New(format.Packets, out, extra)
	if err != nil {
		return &usageError{err}
	}
	openFiles := func() error {
		if r.capture != nil {
			if err := r.capture.begin(a, files); err != nil {
				return err
			}
		}
		return files.open(a, head.Begin, "", false)
	}
	named, set := c.Flags().Changed("num"), r.Set()
	if o.check {
		rows, err := r.Check(named)
		if err != nil {
			return err
		}
		return printAll(a, format.Needs, rows...)
	}
	if o.read.path != "" {
		return r.replay(c, out, extra, silent, openFiles)
	}
	var user process.User
	if o.user != "" {
		if o.keep {
			return usagef("--user leaves nfctl what it needs: it does not go with --keep-privileges")
		}
		if user, err = process.LookUser(o.user); err != nil {
			return usagef("--user: %w", err)
		}
	}
	if err := a.notReady(o.ready); err != nil {
		return err
	}
	defer a.ready.End()
	if err := r.Open(named); err != nil {
		return err
	}
	defer r.Close()
	if got, asked := r.Queues[0].Buffer(), r.Queues[0].Asked(); got < asked {
		a.warn("queue %d: receive buffer is %d bytes, not the %d asked for: raising it further needs CAP_NET_ADMIN in "+
			"the first user namespace or a larger net.core.rmem_max", o.Nums[0], got, asked)
	}
	if err := r.Loops(set); err != nil {
		return err
	}
	if err := openFiles(); err != nil {
		return err
	}
	if o.meta && set.Needs().CopyRange > 0 || o.snaplen > 0 && o.write.path == "" &&
		uint32(o.snaplen) < min(set.Needs().CopyRange, wholeHeaders) {
		a.warn("rules look at more of the packets than --meta or --snaplen let them see: what is not copied " +
			"matches no rule")
	}

	r.begun = time.Now()
	r.stream = o.stream.start(a, c.Context(), r.totals, 0)
	defer r.stream.Stop()
	var sinks []func() error
	for i, q := range r.Queues {
		end, err := r.observe(q, out, extra, silent, i == 0)
		if err != nil {
			return err
		}
		sinks = append(sinks, end)
	}
	if dog := a.watchdog(len(r.Queues)); dog != nil {
		for i, q := range r.Queues {
			q.Alive, q.AliveEvery = func() { dog.Beat(i) }, dog.Every()
		}
	}
	r.warnOfLogin()
	ending, err := r.Start()
	if err != nil {
		return err
	}
	if r.Table != nil && !r.Table.Owned {
		a.warn("this kernel does not tie table %s to nfctl: after kill -9 delete it with 'nft delete table "+
			"inet %[1]s'", r.Table.Name)
	}
	if r.Table != nil && r.Table.Unguarded {
		a.warn("this kernel's nf_tables cannot look at connections (CONFIG_NFT_CT): where connections are " +
			"tracked, what rules of this host reject may get no answer while nfctl runs")
	}
	hup := make(chan os.Signal, 1) // before anybody is told that nfctl is ready
	signal.Notify(hup, unix.SIGHUP)
	if err := a.readyNow(o.ready); err != nil {
		return err
	}
	if o.user != "" {
		if err := become(user, []int{unix.CAP_NET_ADMIN}); err != nil {
			return fmt.Errorf("--user %s: %w", o.user, err)
		}
	} else if !o.keep {
		a.lessPrivileges(unix.CAP_NET_ADMIN) // asked for with every verdict
	}
	go r.watch(hup) // by now: what new rules may have does not depend on when the signal came
	if a.verbose > 0 {
		a.warn("queue %s: bound, receive buffer %d bytes", value.QueueRanges(o.Nums), r.Queues[0].Buffer())
		if set.Draws() {
			a.warn("chance draws by --seed %d", o.seed)
		}
		r.segments(set)
	} else if o.gso && !r.Queues[0].GSO() {
		a.warn("--gso: large segments are cut all the same: this kernel loses datagrams of many segments when they " +
			"were edited")
	}
	err = queue.Serve(r.stream, ending, r.Queues...)
	for _, end := range sinks {
		err = errors.Join(err, end())
	}
	err = errors.Join(err, r.capture.close(), files.close())
	r.totals()
	if err != nil {
		return err
	}
	return r.o.stream.result(r.stream)
}

// segments says why large segments are cut before they are queued, if they are.
func (r *queueRun) segments(set *rule.Set) {
	const cut = "queue %s: large segments are cut before they are queued, which is slower for TCP: "
	nums := value.QueueRanges(r.Nums)
	switch n := set.Apart(); {
	case r.o.noGSO:
	case n > 0 && !r.o.gso && set.Counts(n):
		r.a.warn(cut+"rule %d (%s) counts packets one by one; --gso keeps them", nums, n, set.Name(n))
	case n > 0 && !r.o.gso:
		r.a.warn(cut+"rule %d (%s) judges each datagram of UDP by itself, and may meet some; behind a flow of TCP it "+
			"would not, and --gso keeps them", nums, n, set.Name(n))
	case r.Needs.Apart && !r.Needs.Uncut && !r.o.gso:
		r.a.warn(cut+"--until or --fail-if judges each datagram of UDP by itself; --gso keeps them", nums)
	case !r.Queues[0].GSO():
		r.a.warn(cut+"this kernel cannot leave them whole, or not when rules edit", nums)
	}
}

// observe prints q's packets; the function that it returns ends the output.
func (r *queueRun) observe(q *queue.Queue, out format.Output, opt format.Options,
	silent, first bool) (func() error, error) {
	p, err := format.New(format.Packets, out, opt)
	if err != nil {
		return nil, &usageError{err}
	}
	aside, err := format.NewAside(format.Losses, out)
	if err != nil {
		return nil, &usageError{err}
	}
	k := &sink{w: r.a.out, mu: &r.write}
	if first && !silent && r.o.stream.file.out == nil {
		k.b = p.Begin(k.b)
	}
	var w *captureSink
	if r.capture != nil {
		w = r.capture.sink(r)
	}
	ended := false
	failed := error(nil)
	if !silent || r.o.stream.count > 0 || r.until != nil || r.failIf != nil || w != nil {
		q.OnPacket = func(pkt *queue.Packet, d *queue.Decision) {
			if ended || !r.stream.Take() {
				return
			}
			if w != nil {
				w.add(pkt, d)
			}
			bad := r.failIf != nil && r.failIf.Match(pkt)
			met := bad || r.until != nil && r.until.Match(pkt)
			if !silent && (met || d.Log || !r.Set().Logs()) {
				k.b = p.Append(k.b, pkt)
				if k.full() && failed == nil {
					failed = k.flush()
				}
			}
			if met {
				ended = true
				if bad {
					r.stream.Fail()
				}
				r.stream.Met()
			}
		}
	}
	q.OnUneditable = func(pkt *queue.Packet, d *queue.Decision) {
		r.firstWhy.Do(func() {
			r.a.warn("queue %d: rule %d could not edit packet %d: %s; --on-uneditable says %s, totals count the others",
				pkt.Queue, d.Rule, pkt.ID, pkt.Why, r.o.onUnedit)
		})
	}
	if r.o.stream.idle > 0 {
		q.OnBatch = func(int) { r.stream.Touch() }
	}
	if !silent || w != nil {
		q.OnIdle = func() error {
			var err error
			if !silent {
				k.b = p.Flush(k.b)
				err = errors.Join(failed, k.flush())
			}
			return errors.Join(err, w.flush())
		}
	}
	q.OnLost = func(n uint64, where string) {
		if !silent {
			num := -1
			if where == "queue" {
				num = int(q.Num())
			}
			k.b = aside.Append(k.b, &format.Loss{Time: uint64(time.Now().UnixNano()), Count: n, Known: true,
				Where: where, Queue: num})
		}
	}
	return func() error {
		if silent {
			return w.end()
		}
		k.b = p.End(k.b)
		if failed == nil {
			failed = k.flush()
		}
		return errors.Join(failed, p.Err(), w.end())
	}, nil
}

// watch reloads the rules at SIGHUP, and hints when no packet comes or what was
// asked for does not come with them.
func (r *queueRun) watch(hup <-chan os.Signal) {
	early := time.After(2 * time.Second)
	for {
		select {
		case <-r.stream.Done():
			return
		case <-hup:
			if !r.Again() {
				if len(r.o.stream.file.files) > 0 {
					continue // which are opened anew
				}
				r.a.warn("SIGHUP: there is no file of rules to read again")
			} else if err := r.Reload(func() bool { return r.stream.Err() != nil }); err != nil {
				r.a.warn("rules not reloaded, the old ones stay in force: %v", err)
			} else {
				r.warnOfLogin()
				r.a.warn("rules reloaded: %d", r.Set().Len())
				if r.a.verbose > 0 {
					r.segments(r.Set())
				}
			}
		case <-early:
			r.hints()
		}
	}
}

// warnOfLogin warns when the rules drop the packets of the user's own connection.
func (r *queueRun) warnOfLogin() {
	if text := r.LockedOut(); text != "" {
		r.a.warn("%s", text)
	}
}

func (r *queueRun) hints() {
	var seen, withCT uint64
	for _, q := range r.Queues {
		st := q.Stats()
		seen, withCT = seen+st.Total.Packets, withCT+st.WithCT
	}
	switch {
	case seen == 0 && len(r.Attach) == 0:
		r.a.hint("no packet has come to queue %s yet; a rule must send them, as 'iptables -A OUTPUT -p tcp --dport 22 "+
			"-j NFQUEUE --queue-num %d', or nfctl's own: --attach output", value.QueueRanges(r.Nums), r.Nums[0])
	case seen > 0 && withCT == 0 && (r.o.ct || r.Set().Needs().Conntrack):
		r.a.hint("packets come without their connections: nothing in this network namespace tracks connections until " +
			"a rule asks for them (ct state, NAT)")
	}
}

// totals prints what became of the packets.
func (r *queueRun) totals() {
	secs := time.Since(r.begun).Seconds()
	for _, q := range r.Queues {
		s := q.Stats()
		who := "queue " + strconv.Itoa(int(s.Queue))
		if r.o.read.path != "" {
			who = "capture"
		}
		var b []byte
		line := func(format string, args ...any) { b = fmt.Appendf(b, "nfctl: "+format+"\n", args...) }
		var words []string
		for k, c := range s.Verdicts {
			if c.Packets > 0 {
				words = append(words, fmt.Sprintf("%s %d", queue.Kind(k), c.Packets))
			}
		}
		verdicts := ""
		if len(words) > 0 {
			verdicts = ": " + strings.Join(words, ", ")
		}
		length := func(bytes uint64) string { return fmt.Sprintf(", %d bytes", bytes) }
		if s.Total.Packets > 0 && s.Total.Bytes == 0 { // without a copy the kernel tells no length
			length = func(uint64) string { return "" }
		}
		line("%s: %s%s in %.1f s (%.0f/s)%s", who, plural(s.Total.Packets, "packet"), length(s.Total.Bytes),
			secs, float64(s.Total.Packets)/max(secs, 1e-3), verdicts)
		shown, others, idle := chosenRules(s.Rules, r.a.quiet)
		for _, c := range shown {
			former := ""
			if c.Former {
				former = "former "
			}
			line("%s: %srule %d (%s): %s%s", who, former, c.Number, c.RuleName, plural(c.Packets, "packet"),
				length(c.Bytes))
		}
		if others.Packets > 0 {
			line("%s: other rules: %s%s", who, plural(others.Packets, "packet"), length(others.Bytes))
		}
		if idle > 0 {
			line("%s: %s met nothing", who, plural(uint64(idle), "rule"))
		}
		if len(s.Rules) > 0 {
			line("%s: default %s: %s%s", who, r.Default, plural(s.Default.Packets, "packet"),
				length(s.Default.Bytes))
		}
		// Of packets lost behind the last that came only the kernel knows.
		for _, c := range []struct {
			n    uint64
			text string
		}{
			{s.HeldAll, "had to wait"}, {s.Held, "wait still"}, {s.Late, "dropped: they would have had to wait longer than their rule says"},
			{s.HeldFull, "lost: as many copies wait as may, see --max-len"}, {s.Local, "of local senders waited in the kernel, which counts them as not sent: TCP is slow then"},
			{s.Duplicated, "went twice"}, {s.Undoubled, "could not be copied and went once"}, {s.CopyFailed, "copies were not taken by the kernel"},
			{s.Strangers, "of others came to the queue of those that wait, decided by default"},
			{s.Flows, "decided for the rest of their flows"}, {s.Marked, "marked"}, {s.Edited, "edited"}, {s.Uneditable, "not editable"},
			{s.Returned, "came twice, since what a tunnel carries had to be finished before they could be edited; large segments are cut from then on"}, {s.Undecoded, "malformed messages, decided by default"},
			{s.Unread, "messages without an id, not answered"}, {s.Refused, "verdicts refused by the kernel"},
			{uint64(s.QueueLost), "lost: queue full, see --max-len"}, {max(s.SocketLost, uint64(s.UserDropped)), "lost: receive buffer full, see --buffer"},
			{s.Vanished, "vanished: the kernel dropped them before their verdict"},
			{s.Vanishing, "may also have vanished"},
		} {
			if c.n > 0 {
				line("%s: %d %s", who, c.n, c.text)
			}
		}
		if r.o.failOpen {
			line("%s: with --fail-open, packets that passed unseen cannot be counted", who)
		}
		_, _ = r.a.err.Write(b)
	}
	if r.capture != nil {
		r.capture.total(r.a)
	}
	if failed, cut := r.lua.Failures(); failed+cut > 0 {
		r.a.warn("lua: scripts failed on %d packets and were cut off on %d, which passed to the next rule", failed, cut)
	}
	r.a.expectTotals(r.expect)
	if n := r.Set().Forgotten(); n > 0 {
		r.a.warn("rules forgot %d flows or values of fields for others, see --max-flows", n)
	}
	if n := r.Set().Faults(); n > 0 {
		r.a.warn("%d expressions could not be computed and did not match", n)
	}
	if n := r.Set().Uncomputed(); n > 0 {
		r.a.warn("%d fields were left as they were: what they were to be set to could not be computed", n)
	}
}

// manyRules is how many rules totals list of which some met nothing; with -q, how
// many they list at all.
const manyRules = 50

// chosenRules returns the rules to list in totals: all of a few; of many those that
// met something, idle being the number of the rest. With -q that is so of a few too,
// and of many that met something those that met most are listed, others being the
// sum of the rest.
func chosenRules(rules []queue.RuleStats, quiet bool) (shown []queue.RuleStats, others queue.Count, idle int) {
	if len(rules) <= manyRules && !quiet {
		return rules, others, 0
	}
	for _, c := range rules {
		if c.Packets > 0 {
			shown = append(shown, c)
		}
	}
	idle = len(rules) - len(shown)
	if quiet && len(shown) > manyRules {
		order := slices.Clone(shown)
		slices.SortStableFunc(order, func(a, b queue.RuleStats) int { return cmp.Compare(b.Packets, a.Packets) })
		for _, c := range order[manyRules:] {
			others.Packets, others.Bytes = others.Packets+c.Packets, others.Bytes+c.Bytes
		}
		shown = order[:manyRules]
	}
	return shown, others, idle
}
