//go:build router

package capture

import (
	"errors"
	"io"

	"nfctl/internal/queue"
)

// A Reader reads no capture in this build: what reads captures is 2 MB of the program,
// and a router's flash is small.
type Reader struct {
	Hook   uint8
	Others uint64
}

// NewReader says that this build has no Reader.
func NewReader(io.Reader) (*Reader, error) {
	return nil, errors.New("this build, for routers, cannot read captures: read them with nfctl on another machine")
}

// Device is not called.
func (*Reader) Device(uint32) (string, bool) { return "", false }

// Waiting is not called.
func (*Reader) Waiting() bool { return false }

// Next is not called.
func (*Reader) Next(*queue.Packet) error { return io.EOF }
