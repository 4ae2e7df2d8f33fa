package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// TestStreamOfGoneNamespace: what follows a namespace ends with its name, and does
// not keep it alive.
func TestStreamOfGoneNamespace(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "ip")
	if os.Geteuid() != 0 || os.Getenv("NFCTL_TEST_INNER") != "" {
		t.Skip("names of network namespaces need root")
	}
	ns := nstest.New(t)
	nf := nstest.Build(t)
	for _, again := range []bool{false, true} {
		name := fmt.Sprintf("nfctl-test-%d-%v", os.Getpid(), again)
		ns.Run("ip", "netns", "add", name)
		t.Cleanup(func() { ns.Exec("ip", "netns", "del", name) })
		var procs []*nstest.Proc
		for i, args := range []string{"ct watch", "expect watch", "watch", "queue --num 0"} {
			ready := filepath.Join(t.TempDir(), fmt.Sprint(i))
			procs = append(procs, ns.Start(nf, append(append([]string{"--netns", name}, strings.Fields(args)...),
				"--ready-file", ready)...))
			nstest.WaitFile(t, ready)
		}
		procs = append(procs, ns.Start(nf, "--netns", name, "ct", "stats", "--interval", "1h"))
		procs[4].WaitOutput("insert")
		for _, p := range procs {
			if p.Ended() {
				t.Errorf("ended at once: %s", p.Stderr())
			}
		}
		ns.Run("ip", "netns", "del", name)
		if again {
			ns.Run("ip", "netns", "add", name)
		}
		for _, p := range procs {
			if status := p.Wait(); status != exitFailed || !strings.Contains(p.Stderr(), "namespace is gone") {
				t.Errorf("status %d: %s", status, p.Stderr())
			}
		}
	}
}
