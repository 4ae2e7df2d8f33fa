// heavy imports the libraries at hand and does nothing else: its start
// shows what package initialisation costs.
package main

import (
	"fmt"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/spf13/cobra"
	"github.com/ti-mo/conntrack"
)

var keep = []any{nfqueue.Open, gopacket.NewPacket, layers.LayerTypeIPv4, conntrack.Dial}

func main() {
	c := &cobra.Command{Use: "heavy", Run: func(*cobra.Command, []string) { fmt.Println(len(keep)) }}
	_ = c.Execute()
}
