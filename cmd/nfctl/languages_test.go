package main

import (
	"strings"
	"testing"

	"nfctl/internal/ct"
	"nfctl/internal/filter"
	"nfctl/internal/nstest"
	"nfctl/internal/pattern"
	"nfctl/internal/queue"
	"nfctl/internal/rule"
)

// examplesOf are the lines of a language's help that begin with four blanks, without
// remarks.
func examplesOf(t *testing.T, help string) (list []string) {
	t.Helper()
	for line := range strings.Lines(help) {
		if text, ok := strings.CutPrefix(line, "    "); ok && text[0] != ' ' {
			text, _, _ = strings.Cut(strings.TrimRight(text, "\n"), "  ")
			list = append(list, text)
		}
	}
	if len(list) < 15 {
		t.Errorf("only %d examples", len(list))
	}
	return list
}

// Every example of the languages' help is one.
func TestLanguageExamples(t *testing.T) {
	t.Parallel()
	nf := nstest.Build(t)
	ns := nstest.New(t)
	for _, text := range examplesOf(t, rule.Help()) {
		if _, said, status := ns.Exec(nf, "queue", "--attach", "output", "--check", "--rule", text); status != 0 {
			t.Errorf("rule %s: %s", text, said)
		}
	}
	for _, text := range examplesOf(t, pattern.Help) {
		if _, said, status := ns.Exec(nf, "ct", "list", text); status != 0 {
			t.Errorf("flow %s: %s", text, said)
		}
	}
	for _, text := range examplesOf(t, filter.Help) {
		_, flow := filter.Compile(ct.FlowFields, text)
		_, packet := filter.Compile(queue.Fields, text)
		if flow != nil && packet != nil {
			t.Errorf("expression %s: %v; %v", text, flow, packet)
		}
	}
}

// The help on rules has all that rules can say, and each topic fits a terminal.
func TestLanguagesAreWhole(t *testing.T) {
	t.Parallel()
	help := rule.Help()
	for _, a := range rule.Actions() {
		if !strings.Contains(help, strings.TrimRight("\n  "+a.Word+" "+a.Args, " ")+"\n") {
			t.Errorf("no action %s", a.Word)
		}
	}
	for _, w := range rule.Whens() {
		if !strings.Contains(help, "\n  "+w.Word+" "+w.Args+"\n") {
			t.Errorf("no when %s", w.Word)
		}
	}
	for _, text := range []string{help, pattern.Help, filter.Help} {
		for line := range strings.Lines(text) {
			if len(line) > 90 {
				t.Errorf("%d columns: %s", len(line), line)
			}
		}
	}
}
