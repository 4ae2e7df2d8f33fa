package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"nfctl/fleet/internal/bus"
	"nfctl/fleet/internal/wire"
)

type statusFlags struct {
	output string
	wait   time.Duration
}

func newStatus(a *app) *cobra.Command {
	o := &statusFlags{}
	c := &cobra.Command{
		Use:   "status --from URLS",
		Short: "Say how the stream is, who publishes and who follows",
		Long: `Says what the stream has, of which hosts, and how each program is that publishes
or follows: they are asked, and those that answer within --wait are listed.`,
		Example: `  nfctl-fleet status --from nats://10.0.0.5
  nfctl-fleet status --from nats://10.0.0.5 -o prometheus`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.status(c.Context(), c, o) },
	}
	a.conn.register(c, "from")
	c.Flags().StringVarP(&o.output, "output", "o", "text", "text, json or prometheus")
	c.Flags().DurationVar(&o.wait, "wait", time.Second, "how long to wait for answers")
	return c
}

// A tableStatus is what the stream has of one table.
type tableStatus struct {
	Kind     string    `json:"kind"` // table
	Host     string    `json:"host"`
	Netns    string    `json:"netns"`
	Messages uint64    `json:"messages"`
	Last     uint64    `json:"last"` // place of the newest message
	Time     time.Time `json:"time"` // when it was stored
	Epoch    uint64    `json:"epoch"`
	Line     uint64    `json:"line"` // number of its last line
}

// A streamStatus is how the stream is.
type streamStatus struct {
	Kind     string          `json:"kind"` // stream
	Name     string          `json:"name"`
	Messages uint64          `json:"messages"`
	Bytes    uint64          `json:"bytes"`
	First    uint64          `json:"first"`
	Last     uint64          `json:"last"`
	Since    time.Time       `json:"since"`
	Leader   string          `json:"leader,omitempty"`
	Replicas []replicaStatus `json:"replicas,omitempty"`
}

type replicaStatus struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	Offline bool   `json:"offline"`
	Lag     uint64 `json:"lag"`
}

func (a *app) status(ctx context.Context, c *cobra.Command, o *statusFlags) error {
	if !slices.Contains([]string{"text", "json", "prometheus"}, o.output) {
		return usagef("-o: %q: want text, json or prometheus", o.output)
	}
	conn, err := a.connect(ctx, c, "from", false)
	if err != nil {
		return err
	}
	defer conn.Close()
	info, err := conn.Info(ctx)
	if err != nil {
		return err
	}
	s := streamStatus{Kind: "stream", Name: info.Config.Name, Messages: info.State.Msgs, Bytes: info.State.Bytes,
		First: info.State.FirstSeq, Last: info.State.LastSeq, Since: info.State.FirstTime}
	if info.Cluster != nil {
		s.Leader = info.Cluster.Leader
		for _, r := range info.Cluster.Replicas {
			s.Replicas = append(s.Replicas, replicaStatus{r.Name, r.Current, r.Offline, r.Lag})
		}
	}
	tables, err := tablesOf(ctx, conn, a.conn.Stream)
	if err != nil {
		return err
	}
	reports, err := ask(ctx, conn, o.wait)
	if err != nil {
		return err
	}
	var b []byte
	switch o.output {
	case "json":
		all := []any{s}
		for _, t := range tables {
			all = append(all, t)
		}
		for _, r := range reports {
			all = append(all, r)
		}
		for _, v := range all {
			line, err := json.Marshal(v)
			if err != nil {
				return err
			}
			b = append(append(b, line...), '\n')
		}
	case "prometheus":
		b = prometheus(s, tables, reports)
	default:
		b = fmt.Appendf(b, "stream %s: %d messages, %d bytes, %d to %d\n", s.Name, s.Messages, s.Bytes, s.First, s.Last)
		for _, r := range s.Replicas {
			b = fmt.Appendf(b, "  replica %s: current %v, offline %v, %d behind\n", r.Name, r.Current, r.Offline, r.Lag)
		}
		for _, t := range tables {
			b = fmt.Appendf(b, "table %s %s: %d messages, newest %d %s ago, line %d of epoch %d\n", t.Host, t.Netns,
				t.Messages,
				t.Last, time.Since(t.Time).Round(time.Millisecond), t.Line, t.Epoch)
		}
		for _, r := range reports {
			b = fmt.Appendf(b, "%s %s", r.Kind, r.Host)
			if r.Netns != "" {
				b = fmt.Appendf(b, " %s", r.Netns)
			}
			b = fmt.Appendf(b, " (process %d on %s):", r.Pid, r.On)
			for _, name := range slices.Sorted(maps.Keys(r.Counters)) {
				b = fmt.Appendf(b, " %s=%d", name, r.Counters[name])
			}
			b = append(b, '\n')
		}
	}
	_, err = a.out.Write(b)
	return err
}

// tablesOf lists the tables that the stream has messages of.
func tablesOf(ctx context.Context, c *bus.Conn, stream string) ([]tableStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, bus.AskTimeout)
	defer cancel()
	s, err := c.JS.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(wire.AllSubjects))
	if err != nil {
		return nil, err
	}
	byTable := map[string]*tableStatus{}
	for _, subject := range slices.Sorted(maps.Keys(info.State.Subjects)) {
		words := strings.Split(subject, ".")
		if len(words) != 4 {
			continue
		}
		key := words[1] + "." + words[2]
		t := byTable[key]
		if t == nil {
			t = &tableStatus{Kind: "table", Host: words[1], Netns: words[2]}
			byTable[key] = t
		}
		t.Messages += info.State.Subjects[subject]
		m, err := s.GetLastMsgForSubject(ctx, subject)
		if err != nil {
			continue // it has just been dropped
		}
		if head, _, err := wire.Parse(m.Data); err == nil && m.Sequence > t.Last {
			t.Last, t.Time, t.Epoch, t.Line = m.Sequence, m.Time, head.Epoch, head.Next()-1
		}
	}
	var out []tableStatus
	for _, key := range slices.Sorted(maps.Keys(byTable)) {
		out = append(out, *byTable[key])
	}
	return out, nil
}

// ask asks all running programs how they are.
func ask(ctx context.Context, c *bus.Conn, wait time.Duration) ([]report, error) {
	inbox := nats.NewInbox()
	sub, err := c.NC.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := c.NC.PublishRequest(statusSubject, inbox, nil); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var out []report
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) {
			break
		}
		if err != nil {
			return nil, err
		}
		var r report
		if len(m.Data) > 0 && json.Unmarshal(m.Data, &r) == nil {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b report) int {
		return strings.Compare(a.Kind+" "+a.Host+" "+a.Netns, b.Kind+" "+b.Host+" "+b.Netns)
	})
	return out, nil
}

// prometheus writes everything in Prometheus's text format.
func prometheus(s streamStatus, tables []tableStatus, reports []report) (b []byte) {
	metric := func(name, help, labels string, n float64) {
		line := fmt.Sprintf("# HELP nfctl_fleet_%s %s\n", name, help)
		if !strings.Contains(string(b), line) {
			b = fmt.Appendf(b, "%s# TYPE nfctl_fleet_%s gauge\n", line, name)
		}
		b = fmt.Appendf(b, "nfctl_fleet_%s{%s} %v\n", name, labels, n)
	}
	one := fmt.Sprintf("stream=%q", s.Name)
	metric("stream_messages", "messages in the stream", one, float64(s.Messages))
	metric("stream_bytes", "bytes in the stream", one, float64(s.Bytes))
	for _, r := range s.Replicas {
		metric("replica_behind", "messages that a replica lacks", fmt.Sprintf("%s,replica=%q", one, r.Name),
			float64(r.Lag))
	}
	for _, t := range tables {
		labels := fmt.Sprintf("host=%q,netns=%q", t.Host, t.Netns)
		metric("table_age_seconds", "age of the newest message", labels, time.Since(t.Time).Seconds())
	}
	names := map[string]bool{}
	for _, r := range reports {
		for name := range r.Counters {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for _, r := range reports {
			if n, ok := r.Counters[name]; ok {
				metric(name, "counter of running programs", fmt.Sprintf("kind=%q,host=%q,netns=%q,pid=\"%d\",on=%q",
					r.Kind, r.Host,
					r.Netns, r.Pid, r.On), float64(n))
			}
		}
	}
	return b
}
