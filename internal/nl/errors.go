package nl

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

var (
	// ErrOverrun says that the socket's receive buffer was full and messages were
	// lost (ENOBUFS). The socket goes on: read again. Conn.Drops counts.
	ErrOverrun = overrun{}

	// ErrTruncated says that a datagram was larger than the buffer; what did not
	// fit is lost.
	ErrTruncated = errors.New("message larger than the receive buffer")

	// ErrNoAnswer says that the kernel answered a request with nothing, or that
	// the answer was lost.
	ErrNoAnswer = errors.New("no answer from the kernel")

	// ErrStop, returned by a callback of Dump, ends it without an error.
	ErrStop = errors.New("stop")
)

// overrun is ErrOverrun's type, so that errors.Is(err, unix.ENOBUFS) holds too.
type overrun struct{}

func (overrun) Error() string { return "receive buffer full, messages were lost" }
func (overrun) Unwrap() error { return unix.ENOBUFS }

// An OpError says which request the kernel refused, on which object, and why.
type OpError struct {
	Op     string // what was asked: "bind", "delete"
	Object string // on what: "queue 0", "flow tcp 10.0.0.1:1000 > 10.0.0.2:22"
	Err    error  // what the kernel said, mostly a syscall.Errno
	Msg    string // the kernel's own words (extended acknowledgement), if it gave any
}

// Error returns "object: operation: cause (kernel's words)".
func (e *OpError) Error() string {
	var s string
	if e.Object != "" {
		s = e.Object + ": "
	}
	if e.Op != "" {
		s += e.Op + ": "
	}
	s += e.Err.Error()
	if e.Msg != "" {
		s += " (" + e.Msg + ")"
	}
	return s
}

// Unwrap returns the cause: errors.Is(err, unix.ENOENT) works.
func (e *OpError) Unwrap() error { return e.Err }

// Error says of err that it happened in op on object. The OpError that a Conn's
// calls return is filled in; another error is wrapped in a new one; nil stays nil.
func Error(op, object string, err error) error {
	if err == nil {
		return nil
	}
	var e *OpError
	if errors.As(err, &e) && e.Op == "" && e.Object == "" {
		return &OpError{Op: op, Object: object, Err: e.Err, Msg: e.Msg}
	}
	return &OpError{Op: op, Object: object, Err: err}
}

// Attributes of extended acknowledgements: include/uapi/linux/netlink.h.
const (
	extackMsg = 1 // NLMSGERR_ATTR_MSG
)

// Status reads the outcome out of an acknowledgement or error message
// (NLMSG_ERROR) or the end of a dump (NLMSG_DONE): nil for success, else an
// *OpError without operation and object. done is false for all other messages.
func (m *Msg) Status() (err error, done bool) {
	var tlv []byte
	switch m.Type {
	case unix.NLMSG_ERROR:
		if len(m.Data) < 4 {
			return &OpError{Err: ErrNoAnswer}, true
		}
		// struct nlmsgerr: the error, the request's header, the rest of the
		// request unless NLM_F_CAPPED, attributes if NLM_F_ACK_TLVS.
		tlv = m.Data[4:]
		if len(tlv) >= headerLen {
			n := headerLen
			if m.Flags&unix.NLM_F_CAPPED == 0 {
				if l := ne.Uint32(tlv); l <= uint32(len(tlv)) {
					n = max(n, align(int(l)))
				}
			}
			tlv = tlv[min(n, len(tlv)):]
		} else {
			tlv = nil
		}
	case unix.NLMSG_DONE:
		if len(m.Data) < 4 {
			return nil, true
		}
		tlv = m.Data[4:]
	default:
		return nil, false
	}
	code := int32(ne.Uint32(m.Data))
	if code >= 0 {
		return nil, true
	}
	e := &OpError{Err: syscall.Errno(-int64(code))}
	if m.Flags&unix.NLM_F_ACK_TLVS != 0 {
		for a := range Attrs(tlv) {
			if a.Type == extackMsg {
				e.Msg = string(a.Text())
			}
		}
	}
	return e, true
}
