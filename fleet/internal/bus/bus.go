// Package bus connects to NATS servers and their stream of events.
package bus

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nfctl/fleet/internal/wire"
)

// Options say where the servers are and who asks. Files hold what is secret.
type Options struct {
	URLs     []string // nats://host:4222, tls://host:4222
	Name     string   // of the connection, for the server's lists
	Creds    string   // file of a JWT and its seed
	NKey     string   // file of a seed
	UserFile string   // file: user, ':', password
	CA       string   // file of PEM certificates; "": the system's
	Cert     string   // this client's certificate, PEM
	Key      string   // its key
	Stream   string

	// Warn is told of what does not end the connection; from any goroutine.
	Warn func(format string, args ...any)
}

// A UsageError is a value that nobody can use.
type UsageError struct{ err error }

func (e *UsageError) Error() string { return e.err.Error() }
func (e *UsageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// ErrRefused is a server that does not let this user in, or not do what it asks.
var ErrRefused = errors.New("the server refused")

// A Conn is a connection that is made again when it breaks.
type Conn struct {
	NC *nats.Conn
	JS jetstream.JetStream
	o  Options

	mu     sync.Mutex
	failed error
	ended  chan struct{} // closed with failed
}

// Timeouts: of one try to connect, of one question to a server.
const (
	dialTimeout = 5 * time.Second
	AskTimeout  = 5 * time.Second
)

// Connect connects. With later, servers that cannot be reached are tried again for
// ever; one that refuses is an error in any case.
func Connect(ctx context.Context, o Options, later bool) (*Conn, error) {
	c := &Conn{o: o, ended: make(chan struct{})}
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	urls := strings.Join(o.URLs, ",")
	c.NC, err = nats.Connect(urls, opts...)
	if err != nil && later && !refused(err) {
		o.Warn("%s: %v; trying on", urls, err)
		c.NC, err = nats.Connect(urls, append(opts, nats.RetryOnFailedConnect(true))...)
	}
	if err != nil {
		if refused(err) {
			err = fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return nil, fmt.Errorf("%s: %w", urls, err)
	}
	if c.JS, err = jetstream.New(c.NC); err != nil {
		c.NC.Close()
		return nil, err
	}
	return c, nil
}

// refused reports whether trying again will not help.
func refused(err error) bool {
	if errors.Is(err,
		nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked) ||
		errors.Is(err, nats.ErrAccountAuthExpired) || errors.Is(err, nats.ErrSecureConnRequired) ||
		errors.Is(err, nats.ErrSecureConnWanted) || errors.Is(err, nats.ErrPermissionViolation) {
		return true
	}
	return certificate(err)
}

func (c *Conn) options() ([]nats.Option, error) {
	o := &c.o
	for _, u := range o.URLs {
		p, err := url.Parse(u)
		switch {
		case err != nil:
			return nil, usagef("server %q: %w", u, err)
		case p.User != nil:
			return nil, usagef("server %s: everybody sees a password on the command line: want --user-file, "+
				"--creds or --nkey",
				p.Redacted())
		case p.Scheme != "nats" && p.Scheme != "tls" || p.Hostname() == "":
			return nil, usagef("server %q: want nats://HOST[:PORT] or tls://HOST[:PORT]", u)
		}
	}
	opts := []nats.Option{nats.Name(o.Name), nats.Timeout(dialTimeout), nats.MaxReconnects(-1),
		nats.ReconnectWait(500 * time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, time.Second),
		nats.ReconnectBufSize(-1), // what cannot be sent is sent again by its owner
		nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2), nats.NoEcho(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				o.Warn("connection lost: %v; trying on", err)
			}
		}),
		nats.ReconnectHandler(func(n *nats.Conn) { o.Warn("connected to %s again", n.ConnectedUrlRedacted()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if refused(err) {
				c.fail(err)
			}
		}),
		nats.ClosedHandler(func(n *nats.Conn) {
			if err := n.LastError(); err != nil {
				c.fail(err)
			}
		}),
	}
	many := 0
	if o.Creds != "" {
		many++
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	if o.NKey != "" {
		many++
		opt, err := nats.NkeyOptionFromSeed(o.NKey)
		if err != nil {
			return nil, usagef("--nkey %s: %w", o.NKey, err)
		}
		opts = append(opts, opt)
	}
	if o.UserFile != "" {
		many++
		text, err := os.ReadFile(o.UserFile)
		if err != nil {
			return nil, usagef("--user-file: %w", err)
		}
		user, password, ok := strings.Cut(strings.TrimSpace(string(text)), ":")
		if !ok || strings.Contains(password, "\n") {
			return nil, usagef("--user-file %s: want one line, USER:PASSWORD", o.UserFile)
		}
		opts = append(opts, nats.UserInfo(user, password))
	}
	if many > 1 {
		return nil, usagef("--creds, --nkey and --user-file: one of them, please")
	}
	if (o.Cert == "") != (o.Key == "") {
		return nil, usagef("--cert and --key go together")
	}
	for _, f := range []struct{ flag, path string }{{"--creds", o.Creds}, {"--ca", o.CA}, {"--cert", o.Cert},
		{"--key", o.Key}} {
		if f.path != "" {
			if file, err := os.Open(f.path); err != nil {
				return nil, usagef("%s: %w", f.flag, err)
			} else {
				_ = file.Close()
			}
		}
	}
	if o.CA != "" {
		opts = append(opts, nats.RootCAs(o.CA))
	}
	if o.Cert != "" {
		opts = append(opts, nats.ClientCert(o.Cert, o.Key))
	}
	return opts, nil
}

func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		if refused(err) {
			err = fmt.Errorf("%w: %w", ErrRefused, err)
		}
		c.failed = err
		close(c.ended)
	}
}

// Ended is closed when the connection is of no more use; Err says why.
func (c *Conn) Ended() <-chan struct{} { return c.ended }

// Err returns why the connection is of no more use, or nil.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// Close ends the connection.
func (c *Conn) Close() { c.NC.Close() }

// Stream is how a stream is made.
type Stream struct {
	Replicas int
	MaxAge   time.Duration // 0: for ever
	MaxBytes int64         // 0: as much as the server has
}

// Ensure makes the stream if it is not there, and returns how it is in fact: a server
// may leave out what it does not know.
func (c *Conn) Ensure(ctx context.Context, s Stream) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, AskTimeout)
	defer cancel()
	info, err := c.info(ctx)
	if err == nil || !errors.Is(err, jetstream.ErrStreamNotFound) {
		return info, err
	}
	bytes := s.MaxBytes
	if bytes == 0 {
		bytes = -1
	}
	made, err := c.JS.CreateStream(ctx, jetstream.StreamConfig{Name: c.o.Stream, Subjects: []string{wire.AllSubjects},
		Description: "connection tracking events of hosts, by nfctl-fleet", Storage: jetstream.FileStorage,
		Replicas: s.Replicas, MaxAge: s.MaxAge, MaxBytes: bytes, Compression: jetstream.S2Compression,
		Duplicates: 2 * time.Minute, AllowDirect: true})
	if err != nil {
		return nil, fmt.Errorf("make stream %s: %w", c.o.Stream, c.why(err))
	}
	return made.CachedInfo(), nil
}

// Info returns how the stream is.
func (c *Conn) Info(ctx context.Context) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, AskTimeout)
	defer cancel()
	return c.info(ctx)
}

func (c *Conn) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	s, err := c.JS.Stream(ctx, c.o.Stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", c.o.Stream, c.why(err))
	}
	return s.CachedInfo(), nil
}

// why returns the refusal that the server sent apart from an answer, if there is one:
// it sends none to what a user may not ask.
func (c *Conn) why(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
		if refused := c.Err(); refused != nil {
			return refused
		}
	}
	return err
}

// Last returns the newest message of a subject: its place in the stream and its head.
// Without one the place is 0.
func (c *Conn) Last(ctx context.Context, subject string) (seq uint64, head wire.Head, err error) {
	ctx, cancel := context.WithTimeout(ctx, AskTimeout)
	defer cancel()
	s, err := c.JS.Stream(ctx, c.o.Stream)
	if err != nil {
		return 0, head, fmt.Errorf("stream %s: %w", c.o.Stream, c.why(err))
	}
	m, err := s.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, head, nil
	}
	if err != nil {
		return 0, head, fmt.Errorf("last message of %s: %w", subject, c.why(err))
	}
	if head, _, err = wire.Parse(m.Data); err != nil {
		return 0, head, fmt.Errorf("last message of %s: %w", subject, err)
	}
	return m.Sequence, head, nil
}
