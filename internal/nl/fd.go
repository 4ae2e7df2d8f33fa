package nl

// FD returns the socket's descriptor, for poll(2) and the like, or -1 when it is
// closed. It belongs to the Conn.
func (c *Conn) FD() int {
	n := -1
	_ = c.control(func(fd int) error {
		n = fd
		return nil
	})
	return n
}
