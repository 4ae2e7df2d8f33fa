//go:build router

package packet_test

import (
	"testing"

	"nfctl/internal/packet"
	"nfctl/internal/packet/packettest"
)

func TestLayers(t *testing.T) {
	got := string(packet.AppendLayers(nil, pkt(17, packettest.UDP(1, 2, "x"))))
	if got != "\tlayers: not in this build\n" {
		t.Errorf("got %q", got)
	}
}
