package table

import (
	"strings"
	"testing"

	"nfctl/internal/ct"
)

// TestNew: what is not said of a new flow is worked out, and what the kernel would
// refuse without a reason is named.
func TestNew(t *testing.T) {
	words := "tcp 10.0.0.1:1000 > 10.0.0.2:22"
	f, err := (&Entry{Flow: words}).New()
	if err != nil {
		t.Fatal(err)
	}
	if f.Reply.Dport != 1000 || f.TCPState != ct.TCPEstablished || f.Timeout == 0 || f.Status&ct.StatusAssured == 0 {
		t.Errorf("%+v", f)
	}
	given := func(pairs ...string) (list []Given) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, Given{pairs[i], pairs[i+1]})
		}
		return list
	}
	for says, o := range map[string]Entry{
		"the flow in words says that already": {Flow: words, Given: given("dport", "22")},
		"want a destination port":             {Given: given("proto", "udp", "src", "10.0.0.1", "dst", "10.0.0.2", "sport", "5")},
		"--timeout: ":                         {Flow: words, Given: given("timeout", "0")},
		"unknown flag --host":                 {Flow: words, Given: given("host", "10.0.0.1")},
		"is set twice":                        {Flow: words, Given: given("mark", "1", "set", "mark=2")},
		"--role: ":                            {Flow: "udp 10.0.0.1:1 > 10.0.0.2:2", Given: given("role", "client")},
	} {
		if _, err := o.New(); err == nil || !strings.Contains(err.Error(), says) || !IsUsage(err) {
			t.Errorf("%+v: %v, want %q", o, err, says)
		}
	}
	// Labels of several flags add up; of another flag the last one counts.
	f, err = (&Entry{Flow: words, Given: given("label", "1", "label-add", "2", "mark", "5", "mark", "6")}).New()
	if err != nil || f.Labels[0] != 6 || f.Mark != 6 {
		t.Errorf("%v: labels %v, mark %d", err, f.Labels, f.Mark)
	}
}

// TestWatchBoth: words are about either, expressions know the fields of both.
func TestWatchBoth(t *testing.T) {
	flow, err := (&Entry{Flow: "tcp 10.0.0.1:1000 > 10.0.0.2:21"}).New()
	if err != nil {
		t.Fatal(err)
	}
	expect := &ct.Expect{Tuple: flow.Orig, Master: flow.Orig}
	expect.Tuple.Dport = 5000
	for _, tt := range []struct {
		words, expr  string
		flow, expect bool
	}{
		{"", "", true, true},
		{"tcp > :21", "", true, true}, // the expectation's master is so
		{"tcp > :5000", "", false, true},
		{"udp >", "", false, false},
		{"", "tuple.dport == 5000", false, true},
		{"", "orig.dport == 21", true, false},
		{"tcp > :21", "tuple != nil", false, true},
	} {
		o := &Filter{Pattern: tt.words}
		if tt.expr != "" {
			o.Exprs = []string{tt.expr}
		}
		flows, expects, err := WatchBoth(o, Ends{Until: "mark == 7"})
		if err != nil {
			t.Errorf("%+v: %v", tt, err)
			continue
		}
		if got := flows.Show == nil || flows.Show(flow); got != tt.flow {
			t.Errorf("%+v: flow %v", tt, got)
		}
		if got := expects.Show == nil || expects.Show(expect); got != tt.expect {
			t.Errorf("%+v: expectation %v", tt, got)
		}
		if flows.Until(flow) || expects.Until(expect) {
			t.Errorf("%+v: ended", tt)
		}
	}
}
