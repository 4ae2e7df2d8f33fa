package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nfctl/internal/attrs"
	"nfctl/internal/ct"
	"nfctl/internal/nft"
	"nfctl/internal/nstest"
	"nfctl/internal/queue"
)

// tab is what bash does when the tab key is pressed behind the last word, with as
// much of bash-completion as the script needs.
const tab = `
_get_comp_words_by_ref() {
	cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
}
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9 COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
__start_nfctl 2>/dev/null # compopt works under the tab key only
printf '%s\n' "${COMPREPLY[@]}"
`

func TestBashCompletion(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "bash")
	ns := nstest.Enter(t)
	nfctl := nstest.Build(t)
	script := filepath.Join(t.TempDir(), "nfctl.bash")
	f, err := os.Create(script)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeCompletion(newRoot(&app{}), "bash", f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	// What there is to be found.
	q, err := queue.Open(queue.Config{Num: 17})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	spec, err := nft.Parse("output udp > :9 bypass")
	if err != nil {
		t.Fatal(err)
	}
	table, err := nft.Attach([]nft.Spec{spec}, nft.Queues{First: 23, Last: 23}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	c, err := ct.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	flow, err := attrs.Build(strings.Fields("l4proto=udp ipv4-src=10.0.0.1 ipv4-dst=10.0.0.2 port-src=1 port-dst=2 " +
		"timeout=300 zone=4711"))
	if err != nil {
		t.Fatal(err)
	}
	flow.SetupReply()
	if err := c.Create(flow, false); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		line string // words separated by '|'; the last is completed
		want string // words that must be offered
	}{
		{"nfctl|doc", "doctor"},
		{"nfctl|attr|", "list show values get set build encode decode"},
		{"nfctl|attr|show|tcp-", "tcp-state tcp-flags-orig"},
		{"nfctl|attr|values|sctp", "sctp-state"},
		{"nfctl|attr|encode|tcp-state|EST", "ESTABLISHED"},
		{"nfctl|attr|build|l4pro", "l4proto="},
		{"nfctl|attr|build|l4proto=sc", "sctp"}, // "=" parts words,
		{"nfctl|attr|build|mark=1|--opt|undo-s", "undo-snat undo-spat"},
		{"nfctl|queue|--num|", "17 23"},
		{"nfctl|queue|--num|17,", "17,17 17,23"},
		{"nfctl|queue|--drop-pr", "--drop-proto"},
		{"nfctl|queue|--drop-proto|sct", "sctp"},
		{"nfctl|queue|--drop-if|tcp.dpo", "tcp.dport"},
		{"nfctl|queue|--drop-if|indev", `indev\ ==\ \"lo\"`},
		{"nfctl|queue|--rule|rep", "repeat replace"},
		{"nfctl|queue|--fields|ip.src,ip.ds", "ip.src,ip.dst"},
		{"nfctl|queue|--attach|out", "output"},
		{"nfctl|ct|list|--zone|", "0 4711"},
		{"nfctl|ct|list|--fields|orig.dpo", "orig.dport"},
		{"nfctl|ct|create|--helper|ft", "ftp"},
		{"nfctl|ct|watch|--events|new,dest", "new,destroy"},
		{"nfctl|doctor|-o|js", "json"},
		{"nfctl|help|expr", "expressions"},
	} {
		words := strings.Split(c.line, "|")
		words[0] = nfctl
		out, errText, status := ns.Exec("bash", append([]string{"--norc", "-c", tab, "bash", script}, words...)...)
		if status != 0 {
			t.Fatalf("%s: %d %s", c.line, status, errText)
		}
		var offered []string
		for line := range strings.Lines(out) {
			word, _, _ := strings.Cut(strings.TrimRight(line, "\n"), "  (") // the remark
			offered = append(offered, strings.TrimRight(word, " "))
		}
		for w := range strings.FieldsSeq(strings.ReplaceAll(c.want, `\ `, "\x00")) {
			if w = strings.ReplaceAll(w, "\x00", `\ `); !slices.Contains(offered, w) {
				t.Errorf("%s: no %s in %q %s", c.line, w, offered, errText)
			}
		}
	}
}

// The completions of zsh and fish are at least scripts of those shells.
func TestOtherCompletions(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "zsh", "fish")
	ns := nstest.Here(t)
	dir := t.TempDir()
	root := newRoot(&app{})
	for _, shell := range []string{"zsh", "fish"} {
		path := filepath.Join(dir, shell)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeCompletion(root, shell, f); err != nil || f.Close() != nil {
			t.Fatal(err)
		}
		if _, errText, status := ns.Exec(shell, "-n", path); status != 0 || errText != "" {
			t.Errorf("%s: %d %s", shell, status, errText)
		}
		if err := os.WriteFile(path, []byte("if ("), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, status := ns.Exec(shell, "-n", path); status == 0 {
			t.Errorf("%s -n takes anything", shell)
		}
	}
	if _, errText, status := call("completion", "bsh"); status != exitUsage ||
		!strings.Contains(errText, `did you mean "bash"`) {
		t.Errorf("completion bsh: %d %s", status, errText)
	}
	if out, _, status := call("completion", "bash"); status != 0 || !strings.Contains(out, "__start_nfctl") {
		t.Errorf("completion bash: %d", status)
	}
}
