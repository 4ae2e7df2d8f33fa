package value

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"

	"nfctl/internal/lazy"
)

// serviceTable holds services by name, whatever the protocol, and their names by
// protocol and port.
type serviceTable struct {
	ports map[string]uint16
	names map[servicePort]string
}

type servicePort struct {
	proto uint8
	port  uint16
}

// services are those of /etc/services, or a few well-known ones on a machine without
// that file. Read once, when a name is first met.
var services = lazy.Value[serviceTable]{Make: func() serviceTable {
	t := serviceTable{map[string]uint16{
		"ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "tftp": 69,
		"http": 80, "pop3": 110, "ntp": 123, "imap": 143, "snmp": 161, "snmp-trap": 162, "irc": 194,
		"ldap": 389, "https": 443, "submission": 587, "ldaps": 636, "imaps": 993, "pop3s": 995,
		"pptp": 1723, "amanda": 10080, "sip": 5060, "sane-port": 6566, "mysql": 3306, "postgresql": 5432, "redis": 6379,
	}, map[servicePort]string{}}
	for name, port := range t.ports {
		t.names[servicePort{6, port}], t.names[servicePort{17, port}] = name, name
	}
	f, err := os.Open("/etc/services")
	if err != nil {
		return t
	}
	defer f.Close()
	clear(t.names)
	seen := make(map[string]bool)
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line, _, _ := strings.Cut(sc.Text(), "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		num, proto, _ := strings.Cut(words[1], "/")
		port, err := strconv.ParseUint(num, 10, 16)
		if err != nil {
			continue
		}
		if n, ok := Protocols.Lookup(proto); ok {
			if at := (servicePort{uint8(n), uint16(port)}); t.names[at] == "" {
				t.names[at] = words[0]
			}
		}
		for _, name := range append(words[2:], words[0]) {
			if name = strings.ToLower(name); !seen[name] {
				seen[name] = true
				t.ports[name] = uint16(port)
			}
		}
	}
	return t
}}

// ServiceName returns the name of a port of a protocol, or "".
func ServiceName(proto uint8, port uint16) string {
	return services.Get().names[servicePort{proto, port}]
}

func service(name string) (uint16, bool) {
	if name == "" || name[0] >= '0' && name[0] <= '9' && !strings.ContainsAny(name, "abcdefghijklmnopqrstuvwxyz") {
		return 0, false
	}
	p, ok := services.Get().ports[strings.ToLower(name)]
	return p, ok
}

func nearestService(name string) string {
	if name == "" || name[0] < 'A' {
		return ""
	}
	words := make([]string, 0, 400)
	for w := range services.Get().ports {
		words = append(words, w)
	}
	slices.Sort(words)
	return Nearest(name, words)
}
