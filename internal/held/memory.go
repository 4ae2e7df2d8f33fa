package held

import "math/bits"

// Memory lends buffers for copies of packets, and takes them back. Once it has lent as
// many before, nothing is allocated. It belongs to one goroutine.
type Memory struct {
	free [largest - smallest + 1][][]byte // of 1<<smallest bytes and so on
	lent int
}

const (
	smallest, largest = 8, 16 // 256 bytes, 64 KiB
	chunk             = 1 << largest
)

// Copy lends a buffer that holds b, up to 64 KiB.
func (m *Memory) Copy(b []byte) []byte {
	class := max(bits.Len(uint(len(b)-1)), smallest) - smallest
	f := &m.free[class]
	if len(*f) == 0 {
		size := 1 << (class + smallest)
		for all := make([]byte, chunk); len(all) > 0; all = all[size:] {
			*f = append(*f, all[:size:size])
		}
	}
	last := len(*f) - 1
	to := (*f)[last][:len(b)]
	*f = (*f)[:last]
	copy(to, b)
	m.lent++
	return to
}

// Return takes back what Copy lent.
func (m *Memory) Return(b []byte) {
	class := bits.Len(uint(cap(b)-1)) - smallest
	m.free[class] = append(m.free[class], b[:0])
	m.lent--
}

// Lent returns how many buffers are lent.
func (m *Memory) Lent() int { return m.lent }
