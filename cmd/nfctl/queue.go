package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nfctl/internal/filter"
	"nfctl/internal/format"
	"nfctl/internal/mark"
	"nfctl/internal/nft"
	"nfctl/internal/queue"
	"nfctl/internal/rule"
	"nfctl/internal/serve"
	"nfctl/internal/value"
)

// queueOptions are the flags of 'nfctl queue'.
type queueOptions struct {
	serve.Options
	onUnedit queue.Verdict

	meta     bool
	snaplen  uint64
	maxLen   uint32
	buffer   uint64
	failOpen bool
	noGSO    bool
	gso      bool
	uidGID   bool
	secctx   bool
	ct       bool
	check    bool
	keep     bool // all privileges
	user     string
	seed     uint64
	maxFlows int

	payload string
	write   writeOptions
	read    readOptions
	ready   string
	lua     time.Duration
	stream  streamFlags
}

func newQueue(a *app) *cobra.Command {
	o := &queueOptions{onUnedit: queue.Drop, lua: 100 * time.Millisecond}
	o.Default, o.FlowMark = queue.Accept, mark.DefaultMask
	c := &cobra.Command{
		Use:     "queue",
		Aliases: []string{"q"},
		Short:   "Give verdicts on the packets of NFQUEUE queues",
		Long: `Binds queues and gives a verdict on each packet that a firewall rule sends there.
Rules are tried in the order of the command line, and the first that decides
wins; --default decides the rest. Each packet is printed with its verdict and
rule, the totals follow on standard error at the end and at SIGUSR1.

A rule is 'ACTION... [WHEN...] [FLOW] [if EXPRESSION]': 'nfctl help rules' has them with
examples. At most one of its actions decides:

` + rule.ActionHelp(true) + `
The others go on to the next rule:

` + rule.ActionHelp(false) + `
A WHEN chooses some of the packets that flow and expression match; of several,
each is asked about what those before it chose:

` + rule.WhenHelp() + `
Packets come to a queue by a rule of the firewall (iptables -j NFQUEUE, nft queue)
or by nfctl's own with --attach, which is gone when nfctl ends, however it ends.
Several queues, --num 0-3, share the load; a firewall spreads packets over them by
flow, or with fanout by processor, as --attach '… fanout' does with a queue for each:
  iptables -A FORWARD -j NFQUEUE --queue-balance 0:3 --queue-cpu-fanout --queue-bypass
  nft add rule inet filter forward queue flags fanout,bypass to 0-3

When the queue is full packets are dropped, or pass with --fail-open; when nobody
has bound the queue they are dropped, or pass with bypass in the rule.`,
		Example: `  nfctl queue --attach 'output tcp > :23,80' --drop-dport 23
  nfctl queue --num 0 --drop 'tcp 10.0.0.0/8 > :23' --default accept
  nfctl queue --num 0-3 --drop-if 'udp.dport == 53 && ip.ttl < 5' -o json
  nfctl queue --attach 'forward udp > :53' --rule 'replace "evil" "good"'
  nfctl queue --attach 'input udp > :53' --rule 'drop limit over 20/s per ip.src'
  nfctl queue --num 0 --rules rules.txt -q
  nfctl queue --attach input -q -w in.pcapng --write-if 'verdict == "drop"' --rules rules.txt
  nfctl queue --read in.pcapng --rules new-rules.txt`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return o.checkRead(c)
			}
			if _, err := value.Queues(args[0]); err == nil {
				return usagef("unexpected argument %q: the queue's number goes with --num %s", args[0], args[0])
			}
			if near := value.Nearest(args[0], []string{"list", "stats"}); near != "" {
				return usagef("unknown command %q: did you mean 'nfctl queue %s'?", args[0], near)
			}
			return usagef("unexpected argument %q: flows go with --drop, --accept or --rule", args[0])
		},
		RunE: func(c *cobra.Command, _ []string) error { return a.queue(c, o) },
	}
	f := c.Flags()
	f.SortFlags = false
	f.Var(&ordered{kind: "numbers", add: func(text string) error {
		nums, err := value.Queues(text)
		o.Nums = append(o.Nums, nums...)
		slices.Sort(o.Nums)
		o.Nums = slices.Compact(o.Nums)
		return err
	}}, "num", "queue numbers: 3, 0,3 or 0-3 (default 0; with --attach a free one)")
	f.Var(&ordered{kind: "where", add: func(text string) error {
		s, err := nft.Parse(text)
		o.Attach = append(o.Attach, s)
		return err
	}}, "attach", "queue packets by a rule of nfctl's own: 'HOOK [priority N] [ip|ip6] [PATTERN] [first N] [bypass]'")
	for _, action := range []string{"accept", "drop"} {
		for _, what := range []struct{ name, kind, doc string }{
			{"port", "ports", "port at either end"}, {"sport", "ports", "source port"}, {"dport", "ports", "destination port"},
			{"proto", "protocols", "protocol"}, {"src", "addresses", "source address"}, {"dst", "addresses", "destination address"},
		} {
			o.ruleFlag(c, action+"-"+what.name, what.kind,
				action+" packets with this "+what.doc, func(text string) (rule.Rule, error) {
					return rule.Flag(action, what.name, text)
				})
		}
		o.ruleFlag(c, action, "pattern",
			action+" packets of this flow: 'tcp 10.0.0.0/8 > :22'", func(text string) (rule.Rule, error) {
				return rule.Flag(action, "", text)
			})
		o.ruleFlag(c, action+"-if", "expression", action+
			" packets that this expression holds for, see 'nfctl help "+
			"expressions'", func(text string) (rule.Rule, error) {
			return rule.Flag(action, "if", text)
		})
	}
	f.Var(&ordered{kind: "rule", add: func(text string) error {
		o.Sources = append(o.Sources, serve.Source{Flag: "--rule", Text: text,
			Rule: func(ro rule.Options) (rule.Rule, error) { return rule.Parse(text, ro) }})
		return nil
	}}, "rule", "a rule: 'ACTION [WHEN] [PATTERN] [if EXPRESSION]'")
	f.Var(&ordered{kind: "file", add: func(text string) error {
		o.Sources = append(o.Sources, serve.Source{Flag: "--rules", Text: text, File: true})
		return nil
	}}, "rules", "a file of rules, one a line; SIGHUP reads it again")
	varFlag(f, &o.Default, "default", "verdict", "accept", acceptOrDrop,
		"verdict on packets that no rule decides: accept or drop")
	varFlag(f, &o.onUnedit, "on-uneditable", "verdict", "drop", acceptOrDrop,
		"verdict on packets that a rule should edit and that cannot be: accept or drop")
	varFlag(f, &o.FlowMark, "flow-mark", "mask", "0xf0000000", mark.ParseMask,
		"bits of marks by which verdicts on flows, reject and connmark reach --attach's table; the two highest stay "+
			"in a decided flow's mark")
	varFlag(f, &o.lua, "lua-timeout", "duration", "", someTime, "longest time for a Lua rule on one packet (100ms)")
	varFlag(f, &o.seed, "seed", "number", "", func(s string) (uint64, error) {
		return value.NumberIn("seed", s, 0, 1<<64-1)
	}, "what 'chance' draws by: with one queue the same choices again (default: another at each start, which "+
		"-v prints)")
	varFlag(f, &o.maxFlows, "max-flows", "flows", strconv.Itoa(rule.DefaultMaxFlows), func(s string) (int, error) {
		n, err := value.NumberIn("number of flows", s, 1, 1<<24)
		return int(n), err
	}, "flows, or values of a field, that each 'first' and 'limit … per' remembers; then the least recently seen is "+
		"forgotten")
	f.BoolVar(&o.check, "check", false, "read the rules, print what they ask of the kernel, and end; nothing is bound")
	f.BoolVar(&o.DryRun, "dry-run", false, "decide and print, but accept everything as it is")
	f.StringVar(&o.payload, "print-payload", "", "print packets' contents too: `hex` or ascii (in JSON: payload)")
	o.write.register(f)
	o.read.register(c)
	f.BoolVar(&o.meta, "meta", false, "copy nothing of the packets, only what comes with them")
	varFlag(f, &o.snaplen, "snaplen", "bytes", "", func(s string) (uint64, error) {
		return value.NumberIn("length", s, 1, queue.MaxCopy)
	}, "copy so much of each packet (default: as much as rules and output need); with --write, write so much")
	varFlag(f, &o.maxLen, "max-len", "packets", "", func(s string) (uint32, error) {
		n, err := value.NumberIn("queue length", s, 1, 1<<32-1)
		return uint32(n), err
	}, "packets that may wait for a verdict (default 4096; where rules have packets wait, 65535, or 1/32 of the "+
		"memory at 2.5 kB each where that is less)")
	varFlag(f, &o.buffer, "buffer", "size", "", func(s string) (uint64, error) {
		return sizeUpTo(s, 1<<30)
	}, "receive buffer of each queue's socket (default: room for --max-len packets, 16MiB at least)")
	f.BoolVar(&o.failOpen, "fail-open", false, "let packets pass unseen when the queue is full, instead of "+
		"dropping them")
	f.BoolVar(&o.noGSO, "no-gso", false, "have the kernel cut large segments before they are queued")
	f.BoolVar(&o.gso, "gso", false, "take large segments uncut, though rules judge each datagram of UDP by itself")
	c.MarkFlagsMutuallyExclusive("gso", "no-gso")
	f.BoolVar(&o.uidGID, "uid-gid", false, "ask for user and group of local sockets")
	f.BoolVar(&o.secctx, "secctx", false, "ask for security contexts")
	f.BoolVar(&o.ct, "conntrack", false, "ask for the packets' connections: ct.* in output and expressions")
	f.StringVar(&o.ready, "ready-file", "", "create this `file` when the queues are bound and the rules in force")
	keepPrivilegesFlag(f, &o.keep)
	f.StringVar(&o.user, "user", "",
		"be this `user` once the queues are bound, with just the capabilities that are still "+
			"needed;\nfiles that are opened later, as by SIGHUP, are opened as that user")
	f.Var(&ordered{kind: "processors", add: func(text string) (err error) {
		o.CPUs, err = processors(text)
		return err
	}}, "cpu", "serve the queues on these processors, in turn: 0-3")
	o.stream.register(f, "packets")
	c.AddCommand(newQueueList(a))
	a.prints(c, format.Generic, paths(queue.Fields))
	return c
}

// ruleFlag adds a flag each use of which is one rule.
func (o *queueOptions) ruleFlag(c *cobra.Command, name, kind, usage string, parse func(string) (rule.Rule, error)) {
	c.Flags().Var(&ordered{kind: kind, add: func(text string) error {
		r, err := parse(text)
		if err != nil {
			return err
		}
		o.Sources = append(o.Sources, serve.Source{Flag: "--" + name, Text: text,
			Rule: func(rule.Options) (rule.Rule, error) { return r, nil }})
		return nil
	}}, name, usage)
}

func acceptOrDrop(s string) (queue.Verdict, error) {
	switch s {
	case "accept":
		return queue.Accept, nil
	case "drop":
		return queue.Drop, nil
	}
	return 0, &value.Error{What: "verdict", Text: s, Valid: "accept or drop"}
}

// needs says what output, --until and --fail-if want of each packet.
func (o *queueOptions) needs(out *format.Output, silent bool, ends ...*filter.Program[queue.Packet]) rule.Needs {
	var n rule.Needs
	for _, end := range ends {
		if end != nil {
			n = n.Add(rule.ExprNeeds(end, serve.OnlyProto(o.Attach)))
		}
	}
	switch {
	case silent:
	case len(out.Fields) > 0:
		n = n.Add(rule.NeedsOf(out.Fields...))
	default:
		n = n.Add(rule.NeedsOf("ip"))
		if strings.Contains(out.Template, "payload") {
			n = n.Add(rule.NeedsOf("payload"))
		}
	}
	if o.payload != "" && !silent {
		n = n.Add(rule.NeedsOf("payload"))
	}
	return n
}

// config returns how to bind the queues.
func (o *queueOptions) config(n rule.Needs) queue.Config {
	c := n.Config(queue.Config{
		MaxLen: o.maxLen, Buffer: int(min(o.buffer, 1<<30)), DefaultDrop: o.Default == queue.Drop,
		FailOpen: o.failOpen, NoGSO: o.noGSO, GSO: o.gso, UIDGID: o.uidGID, SecCtx: o.secctx, Conntrack: o.ct,
		DryRun: o.DryRun,
	})
	switch {
	case o.meta:
		c.CopyRange = 0
	case o.snaplen > 0 && o.write.path == "":
		c.CopyRange = uint32(o.snaplen)
	}
	return c
}

// wholeHeaders holds the headers of IPv6 and TCP without options.
const wholeHeaders = 60
