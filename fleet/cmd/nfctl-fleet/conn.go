package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"nfctl/fleet/internal/bus"
	"nfctl/fleet/internal/wire"
)

// connFlags say where the servers are.
type connFlags struct {
	urls []string
	bus.Options
}

// register adds the flags; urls is --to or --from.
func (o *connFlags) register(c *cobra.Command, urls string) {
	f := c.Flags()
	f.SortFlags = false
	f.StringSliceVar(&o.urls, urls, nil,
		"`URLS` of the NATS servers: nats://HOST[:PORT] or tls://HOST[:PORT], several with commas")
	f.StringVar(&o.Stream, "stream", "NFCTL", "`NAME` of the stream")
	f.StringVar(&o.Creds, "creds", "", "credentials `file` (JWT and seed)")
	f.StringVar(&o.NKey, "nkey", "", "seed `file`")
	f.StringVar(&o.UserFile, "user-file", "", "`file` with a line USER:PASSWORD")
	f.StringVar(&o.CA, "ca", "", "`file` with certificates of authorities to believe (default: the system's)")
	f.StringVar(&o.Cert, "cert", "", "`file` with this program's certificate")
	f.StringVar(&o.Key, "key", "", "`file` with its key")
}

// connect connects; see bus.Connect.
func (a *app) connect(ctx context.Context, c *cobra.Command, flag string, later bool) (*bus.Conn, error) {
	o := &a.conn
	if len(o.urls) == 0 {
		return nil, usagef("--%s: where are the servers? for example --%[1]s nats://127.0.0.1:4222", flag)
	}
	if o.Stream == "" || strings.ContainsAny(o.Stream, ". *>\t\r\n/\\") {
		return nil, usagef("--stream: %q cannot be a stream's name", o.Stream)
	}
	host, _ := os.Hostname()
	o.URLs, o.Name, o.Warn = o.urls, "nfctl-fleet "+c.Name()+" on "+host, a.warn
	conn, err := bus.Connect(ctx, o.Options, later)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// statusSubject is where running programs are asked how they are.
const statusSubject = "nfctl.status"

// A report is what a running program says of itself.
type report struct {
	Kind     string            `json:"kind"` // publish, follow
	Host     string            `json:"host"`
	Netns    string            `json:"netns,omitempty"`
	Pid      int               `json:"pid"`
	On       string            `json:"on"` // the machine's name
	Counters map[string]uint64 `json:"counters"`
}

// answer answers who asks how this program is.
func answer(c *bus.Conn, reports func() []report) (*nats.Subscription, error) {
	on, _ := os.Hostname()
	return c.NC.Subscribe(statusSubject, func(m *nats.Msg) {
		for _, r := range reports() {
			r.Pid, r.On = os.Getpid(), on
			if b, err := json.Marshal(r); err == nil {
				_ = m.Respond(b)
			}
		}
	})
}

// hostName is the name of this host in subjects.
func hostName(given string) (string, error) {
	if given == "" {
		name, err := os.Hostname()
		if err != nil {
			return "", err
		}
		given, _, _ = strings.Cut(name, ".")
	}
	if err := wire.CheckName("--host", given); err != nil {
		return "", &usageError{err}
	}
	return given, nil
}
