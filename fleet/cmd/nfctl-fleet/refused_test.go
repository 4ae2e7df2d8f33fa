package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nfctl/fleet/internal/fleettest"
	"nfctl/internal/nstest"
)

// An authority makes certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (a *authority) pem(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes a certificate for an address, signed by parent or, without, by itself.
func issue(t *testing.T, dir, name, addr string, until time.Time, parent *authority) (*authority, string, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until, BasicConstraintsValid: true, IsCA: parent == nil,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	if addr != "" {
		c.IPAddresses = []net.IP{net.ParseIP(addr)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	by, signer := c, key
	if parent != nil {
		by, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t, dir, cert, key}
	return a, a.pem(name+".pem", "CERTIFICATE", der), a.pem(name+".key", "EC PRIVATE KEY", private)
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A server that refuses is said to, with status 5, at once; it is not asked again.
func TestRefused(t *testing.T) {
	t.Parallel()
	n := fleettest.NewNet(t)
	bin, dir := fleettest.Fleet(t), t.TempDir()
	m := n.Machine()
	ca, caFile, _ := issue(t, dir, "ca", "", time.Now().Add(time.Hour), nil)
	_, otherCA, _ := issue(t, dir, "other", "", time.Now().Add(time.Hour), nil)
	_, cert, key := issue(t, dir, "server", m.Addr, time.Now().Add(time.Hour), ca)
	s := m.Start(t, "", "-c", file(t, fmt.Sprintf(`tls { cert_file: %q, key_file: %q }
		authorization { users: [
			{user: full, password: right},
			{user: deaf, password: right, permissions: {publish: {deny: "ct.>"}}},
			{user: poor, password: right, permissions: {publish: {deny: "$JS.API.>"}}}] }`, cert, key)))
	url := strings.Replace(s.URL, "nats:", "tls:", 1)
	old := n.Machine()
	_, oldCert, oldKey := issue(t, dir, "old", old.Addr, time.Now().Add(-time.Minute), ca)
	expired := old.Start(t, "", "--tls", "--tlscert", oldCert, "--tlskey", oldKey)
	foreign := n.Machine()
	wrongName := foreign.Start(t, "", "--tls", "--tlscert", cert, "--tlskey",
		key) // the certificate is another machine's

	client := n.Machine()
	user := func(name, password string) string { return file(t, name+":"+password+"\n") }
	for _, c := range []struct {
		name string
		url  string
		args []string
		want string
	}{
		{"password", url, []string{"--ca", caFile, "--user-file", user("full", "wrong")}, "Authorization Violation"},
		{"authority", url, []string{"--ca", otherCA, "--user-file", user("full", "right")}, "unknown authority"},
		{"expired", strings.Replace(expired.URL, "nats:", "tls:", 1), []string{"--ca", caFile}, "expired"},
		{"name", strings.Replace(wrongName.URL, "nats:", "tls:", 1), []string{"--ca", caFile}, "not " + wrongName.Addr},
		{"right", url, []string{"--ca", caFile, "--user-file", user("poor", "right")}, "Permissions Violation"},
	} {
		for _, verb := range [][]string{{"publish", "--to"}, {"follow", "--of", "r1", "--from"}, {"status", "--from"}} {
			began := time.Now()
			_, stderr, code := client.Exec(bin,
				append(append([]string{verb[0]}, append(verb[1:], c.url)...), c.args...)...)
			if code != exitPermission || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "refused") {
				t.Errorf("%s, %s: %d, want %d and %q: %s", c.name, verb[0], code, exitPermission, c.want, stderr)
			}
			if d := time.Since(began); d > 10*time.Second {
				t.Errorf("%s, %s: took %s", c.name, verb[0], d)
			}
			if lines := strings.Count(stderr, "\n"); lines > 6 {
				t.Errorf("%s, %s: %d lines: %s", c.name, verb[0], lines, stderr)
			}
		}
	}
	_, stderr, code := client.Exec(bin, "publish", "--to", url, "--ca", caFile, "--user-file", user("deaf", "right"))
	if code != exitPermission || !strings.Contains(stderr, "Permissions Violation") {
		t.Errorf("may not publish: %d: %s", code, stderr)
	}
}

// Of two publishers in one name the later one goes on, and the earlier one ends.
func TestTwoPublishers(t *testing.T) {
	t.Parallel()
	b := newBed(t, "")
	first := b.pub
	b.publish()
	b.waves(1, 100, nil)
	if code := first.Wait(); code != exitFailed || !strings.Contains(first.Stderr(), "another publisher") {
		t.Errorf("the first ended with %d: %s", code, first.Stderr())
	}
	b.ends()
}

// A message of a format that is not known is refused by name.
func TestFormat(t *testing.T) {
	t.Parallel()
	b := newBed(t, "")
	fol := b.follow()
	b.reader.Do(func() {
		c, err := nats.Connect(b.server.URL)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		js, err := c.JetStream()
		if err != nil {
			t.Error(err)
			return
		}
		for _, text := range []string{"", "garbage\n", "{}\n{}\n", `{"nfctl":2,"host":"r1"}` + "\n{}\n"} {
			if _, err := js.Publish("ct.r1.other.ev", []byte(text)); err != nil {
				t.Error(err)
			}
		}
	})
	if code := fol.Wait(); code != exitFailed || !strings.Contains(fol.Stderr(),
		"format 2, and this program reads format 1") ||
		strings.Count(fol.Stderr(), "without a head") != 3 {
		t.Errorf("%d: %s", code, fol.Stderr())
	}
}

// What the stream has dropped is missing where it would stand.
func TestRetention(t *testing.T) {
	t.Parallel()
	b := newBed(t, "", "--max-bytes", "1MiB")
	b.waves(2, 5000, nil)
	b.waves(1, 10, nil)
	fol := b.follow("--seq", "1")
	b.waves(1, 10, nil)
	b.arrives(fol, 20)
	_, _, records := events(t, fol.Stdout())
	if len(records) == 0 || records[0] != "lost stream ?" {
		t.Errorf("records %q", records)
	}
	b.ends()
}

// Words that nobody can use end with 2 and name themselves; no server is asked.
func TestUsage(t *testing.T) {
	bin := fleettest.Fleet(t)
	n := fleettest.NewNet(t).Machine()
	for _, c := range []struct{ args, want string }{
		{"", "want a command"},
		{"nosuch", `"nosuch"`},
		{"publish", "--to"},
		{"publish --to http://10.9.0.9", "nats://HOST"},
		{"publish --to nats://u:secret@10.9.0.9", "command line"},
		{"publish --to nats://10.9.0.9 --host a.b", `"a.b"`},
		{"publish --to nats://10.9.0.9 --netns a.b", "NAME=a.b"},
		{"publish --to nats://10.9.0.9 --netns a,a", "a twice"},
		{"publish --to nats://10.9.0.9 --snapshot 1ms", "--snapshot"},
		{"publish --to nats://10.9.0.9 --memory 1", "--memory"},
		{"publish --to nats://10.9.0.9 --spool /tmp/x,big", "big"},
		{"publish --to nats://10.9.0.9 --filter (", "--filter"},
		{"publish --to nats://10.9.0.9 --creds /nosuch", "/nosuch"},
		{"publish --to nats://10.9.0.9 --user-file /dev/null", "USER:PASSWORD"},
		{"publish --to nats://10.9.0.9 --cert /dev/null", "--key"},
		{"publish --to nats://10.9.0.9 --replicas 9", "--replicas"},
		{"publish --to nats://10.9.0.9 tcp udp", `"udp"`},
		{"publish --to nats://10.9.0.9 --stream a.b", "a.b"},
		{"follow --from nats://10.9.0.9", "--of"},
		{"follow --from nats://10.9.0.9 --of a,a", "a twice"},
		{"follow --from nats://10.9.0.9 --of a --since then", "then"},
		{"follow --from nats://10.9.0.9 --of a --since 1h --seq 1", "--seq"},
		{"follow --from nats://10.9.0.9 --of a,b --positions", "--positions"},
		{"status --from nats://10.9.0.9 -o yaml", "yaml"},
		{"status extra", "extra"},
	} {
		stdout, stderr, code := n.Exec(bin, strings.Fields(c.args)...)
		if code != exitUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: %d, want %d and %q: %s", c.args, code, exitUsage, c.want, stderr)
		}
		if stdout != "" && c.args != "" {
			t.Errorf("%s: wrote %q", c.args, stdout)
		}
	}
}

// The users of docs/fleet/nats-server.conf may do what they must, and no more.
func TestPermissions(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/fleet/nats-server.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, users, ok := strings.Cut(string(text), "\nauthorization {")
	if !ok {
		t.Fatal("no users")
	}
	users = strings.ReplaceAll("authorization {"+users, `"$2a$11$REPLACE"`, "pw")
	for _, release := range []string{"", "debian"} {
		n := fleettest.NewNet(t)
		s := n.Machine().Start(t, release, "-c", file(t, users))
		user := func(name string) string { return file(t, name+":pw") }
		// Whoever may makes the stream.
		host := n.Machine()
		admin := host.NS.Start(fleettest.Fleet(t), "publish", "--to", s.URL, "--host", "admin", "--user-file",
			user("admin"))
		status := func() string {
			out, _, _ := host.Exec(fleettest.Fleet(t), "status", "--from", s.URL, "--user-file", user("admin"),
				"--wait", "50ms")
			return out
		}
		nstest.Until(t, "the stream is there", func() bool { return strings.Contains(status(), "stream NFCTL") })
		_ = admin

		b := newBedAt(t, n, s, "--host", "router1", "--user-file", user("router1"))
		fol := b.follow("--seq", "1", "--user-file", user("reader"))
		b.waves(1, 100, nil)
		b.arrives(fol, 200)
		if out := status(); !strings.Contains(out, "publish router1 default") {
			t.Errorf("%s: status does not tell of the publisher: %s", release, out)
		}
		_, stderr, code := host.Exec(b.bin, "publish", "--to", s.URL, "--host", "router2", "--user-file",
			user("router1"))
		if code != exitPermission || !strings.Contains(stderr, "Permissions Violation") {
			t.Errorf("%s: router1 publishes as router2: %d: %s", release, code, stderr)
		}
		b.ends()
	}
}
