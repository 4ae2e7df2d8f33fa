// Package capture writes queued packets, with what was decided on them, as pcapng
// files, and reads packets out of captures as if they had been queued.
package capture
