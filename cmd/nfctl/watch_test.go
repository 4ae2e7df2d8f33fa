package main

import (
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// TestWatchExistingExpects: expectations that are there are listed too.
func TestWatchExistingExpects(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nfctl(t, ns, "expect", "create", "--create-master", "--helper", "ftp", "--timeout", "5m",
		"--master", "tcp 10.0.0.1:40000 > 10.0.0.2:21", "tcp 10.0.0.2 > 10.0.0.1:5000")
	for _, command := range []string{"watch", "expect watch", "watch --resync 1h"} {
		args := append(strings.Fields(command), "--with-existing", "--duration", "2s", "--template",
			"{{.kind}} {{.tuple.dport}}")
		if out := nfctl(t, ns, args...); !strings.Contains(out, "expect 5000") {
			t.Errorf("%s: %q", command, out)
		}
	}
}
