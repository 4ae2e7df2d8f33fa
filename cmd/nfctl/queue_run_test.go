package main

import (
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// TestShortCopies: rules that cannot see what they ask for are told of.
func TestShortCopies(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	for args, want := range map[string]bool{"--meta": true, "--snaplen 20": true, "--snaplen 60": false, "": false} {
		words := append([]string{"queue", "--drop-port", "22", "--duration", "10ms"}, strings.Fields(args)...)
		_, stderr, status := ns.Exec(nstest.Build(t), words...)
		if status != 0 || strings.Contains(stderr, "rules look at more") != want {
			t.Errorf("%q: status %d, %q", words, status, stderr)
		}
	}
}
