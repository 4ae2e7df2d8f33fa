package main

import (
	"strings"
	"testing"

	"nfctl/internal/nstest"
)

// TestCtDCCP makes a flow of a protocol that some kernels track and newer ones
// don't: with its ports, its state and the role that belongs to it, or not at all.
func TestCtDCCP(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nf := nstest.Build(t)
	out, words, status := ns.Exec(nf, "ct", "create", "dccp 10.0.0.1:1 > 10.0.0.2:2", "--state", "OPEN", "--timeout",
		"1h")
	list := ns.Run(nf, "ct", "list")
	if status == exitNotSupported {
		if !strings.Contains(words, "does not track") || list != "" {
			t.Errorf("refused: %s%s", words, list)
		}
		load := ns.Start("sh", "-c", "echo '-A -s 10.0.0.1 -d 10.0.0.2 -p dccp --sport 1 --dport 2 -t 100' | "+nf+
			" ct load")
		if status := load.Wait(); status != exitFailed || !strings.Contains(load.Stderr(), "line 1: ") ||
			ns.Run(nf, "ct", "list") != "" {
			t.Errorf("loaded: status %d: %s", status, load.Stderr())
		}
		t.Log("this kernel does not track DCCP: refusals were tested")
		return
	}
	for _, want := range []string{"OPEN", "sport=1 dport=2"} {
		if status != 0 || !strings.Contains(out, want) || !strings.Contains(list, want) {
			t.Errorf("status %d, want %s: %s%s%s", status, want, out, words, list)
		}
	}
	ns.Run(nf, "ct", "create", "dccp 10.0.0.1:2 > 10.0.0.2:2", "--state", "REQUEST", "--set", "dccp.role=server",
		"--set", "dccp.handshake_seq=9", "--timeout", "1h")
	ns.Run(nf, "ct", "update", "dccp 10.0.0.1:2 >", "--set", "state=OPEN")
	saved := t.TempDir() + "/saved"
	restore := ns.Start("sh", "-c", nf+" ct save >"+saved+"; "+nf+" ct flush --all; "+nf+" ct load "+saved)
	if status := restore.Wait(); status != 0 {
		t.Errorf("saved and loaded: status %d: %s", status, restore.Stderr())
	}
	if json := ns.Run(nf, "ct", "list", "--sport", "2", "-o", "json"); !strings.Contains(json, `"state":"OPEN"`) ||
		!strings.Contains(json, `"dccp":{"role":"server","handshake_seq":9}`) {
		t.Errorf("%s", json)
	}
	if json := ns.Run(nf, "ct", "list", "--sport", "1", "-o", "json"); !strings.Contains(json, `"role":"client"`) {
		t.Errorf("%s", json)
	}
}

// TestCtUDPLite: as TestCtDCCP, of a protocol that kernels track up to some 7.2; an
// expectation of it must not lose its port either.
func TestCtUDPLite(t *testing.T) {
	t.Parallel()
	ns := nstest.New(t)
	nf := nstest.Build(t)
	const m = "tcp 10.0.0.1:1000 > 10.0.0.2:6667"
	out, words, status := ns.Exec(nf, "ct", "create", "udplite 10.0.0.1:1 > 10.0.0.2:2", "--timeout", "1h")
	list := ns.Run(nf, "ct", "list", "-p", "udplite")
	expected, why, result := ns.Exec(nf, "expect", "create", "--create-master", "--helper", "irc", "--master", m,
		"udplite > 10.0.0.2:5000")
	if status == exitNotSupported {
		t.Log("this kernel does not track UDP-Lite: refusals are tested")
		if !strings.Contains(words, "does not track") || list != "" {
			t.Errorf("refused: %s%s", words, list)
		}
		if result != exitNotSupported || !strings.Contains(why, "does not track") ||
			ns.Run(nf, "expect", "count") != "0\n" || ns.Run(nf, "ct", "count") != "0\n" {
			t.Errorf("an expectation: status %d: %s%s", result, expected, why)
		}
		load := ns.Start("sh", "-c", "echo '-A -s 10.0.0.1 -d 10.0.0.2 -p udplite --sport 1 --dport 2 -t 100' | "+nf+
			" ct load")
		if status := load.Wait(); status != exitFailed || !strings.Contains(load.Stderr(), "line 1: ") ||
			ns.Run(nf, "ct", "list") != "" {
			t.Errorf("loaded: status %d: %s", status, load.Stderr())
		}
		return
	}
	if status != 0 || !strings.Contains(out, "sport=1 dport=2") || !strings.Contains(list, "sport=1 dport=2") {
		t.Errorf("status %d: %s%s%s", status, out, words, list)
	}
	if result != 0 || !strings.Contains(expected, "dport=5000") {
		t.Errorf("an expectation: status %d: %s%s", result, expected, why)
	}
}

// TestCtTwoZones: the kernel's refusal has its reason.
func TestCtTwoZones(t *testing.T) {
	t.Parallel()
	_, words, status := nstest.New(t).Exec(nstest.Build(t), "ct", "create", "udp 10.0.0.1:5 > 10.0.0.2:2",
		"--orig-zone", "3", "--reply-zone", "4")
	if status != exitFailed || !strings.Contains(words, "or of one of them, not two") {
		t.Errorf("status %d: %s", status, words)
	}
}
