package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"nfctl/internal/nstest"
)

// nameServer answers each question that comes to addr with 192.0.2.1.
func nameServer(ns *nstest.NS, addr string) {
	c := ns.ListenUDP(addr)
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil || len(m.Questions) == 0 {
				continue
			}
			m.Response, m.Additionals = true, nil
			m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name,
				Class: dnsmessage.ClassINET, TTL: 1},
				Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}}
			if out, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(out, from)
			}
		}
	}()
}

// webServer speaks HTTP over TLS at addr.
func webServer(t testing.TB, ns *nstest.NS, addr string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	l := tls.NewListener(ns.ListenTCP(addr), &tls.Config{NextProtos: []string{"http/1.1"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}})
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("here\n"))
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

// asks reports whether dig gets the address of a name.
func asks(ns *nstest.NS, server, name string) bool {
	out, _, _ := ns.Exec("dig", "+short", "+time=1", "+tries=1", "@"+server, name)
	return out == "192.0.2.1\n"
}

// browses reports whether curl gets a page.
func browses(ns *nstest.NS, server, name string) bool {
	out, _, _ := ns.Exec("curl", "-sk", "--max-time", "2", "--resolve", name+":443:"+server, "https://"+name+"/")
	return out == "here\n"
}

// Names that dig asks for and curl calls decide, over IPv4 and IPv6.
func TestQueueNames(t *testing.T) {
	t.Parallel()
	nstest.Need(t, "dig", "curl", "nft")
	ns := nstest.Enter(t)
	for _, addr := range []string{"127.0.0.1", "[::1]"} {
		nameServer(ns, addr+":53")
		webServer(t, ns, addr+":443")
	}
	p := startQueue(t, ns, "--attach", "output >", "-o", "json", "--fields",
		"verdict,dns.name,dns.type,dns.response,tls.sni,tls.alpn",
		"--rule", `drop log if dns.name == "Ads.Example" and dns.type in ["A", "AAAA"]`, "--rule",
		`drop log if tls.sni endsWith ".ads.example"`)
	for _, c := range []struct {
		name      string
		dns, page bool
	}{{"ads.example", false, true}, {"ADS.example", false, true}, {"www.ads.example", true, false},
		{"www.example", true, true}} {
		for _, server := range []string{"127.0.0.1", "::1"} {
			if got := asks(ns, server, c.name); got != c.dns {
				t.Errorf("dig @%s %s: an answer: %v, want %v", server, c.name, got, c.dns)
			}
			if got := browses(ns, server, c.name); got != c.page {
				t.Errorf("curl %s at %s: a page: %v, want %v", c.name, server, got, c.page)
			}
		}
	}
	p.Signal(os.Interrupt)
	p.Wait()
	out := p.Stdout()
	for _, want := range []string{
		`"dns":{"name":"ads.example","type":"A","response":false}`, `"tls":{"sni":"www.ads.example","alpn":"h2,http/1.1"}`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
}
