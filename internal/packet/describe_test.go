//go:build !router

package packet_test

import (
	"strings"
	"testing"

	"nfctl/internal/packet"
	"nfctl/internal/packet/packettest"
)

func TestLayers(t *testing.T) {
	got := string(packet.AppendLayers(nil, pkt(17, packettest.UDP(1, 2, "x"))))
	for _, want := range []string{"\tIPv4 {Version=4 IHL=5", "SrcIP=10.0.0.1", "\n\tUDP {SrcPort=1"} {
		if !strings.Contains(got, want) {
			t.Errorf("layers have no %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "Contents") {
		t.Errorf("layers have raw bytes:\n%s", got)
	}
}
