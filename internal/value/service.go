package value

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"

	"nfctl/internal/lazy"
)

// services are the names of /etc/services, or a few well-known ones on a
// machine without that file. Read once, when a name is first met.
var services = lazy.Value[map[string]uint16]{Make: func() map[string]uint16 {
	m := map[string]uint16{
		"ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "tftp": 69,
		"http": 80, "pop3": 110, "ntp": 123, "imap": 143, "snmp": 161, "snmp-trap": 162, "irc": 194,
		"ldap": 389, "https": 443, "submission": 587, "ldaps": 636, "imaps": 993, "pop3s": 995,
		"pptp": 1723, "amanda": 10080, "sip": 5060, "sane-port": 6566, "mysql": 3306, "postgresql": 5432, "redis": 6379,
	}
	f, err := os.Open("/etc/services")
	if err != nil {
		return m
	}
	defer f.Close()
	seen := make(map[string]bool)
	for sc := bufio.NewScanner(f); sc.Scan(); {
		line, _, _ := strings.Cut(sc.Text(), "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		num, _, _ := strings.Cut(words[1], "/")
		port, err := strconv.ParseUint(num, 10, 16)
		if err != nil {
			continue
		}
		for _, name := range append(words[2:], words[0]) {
			if name = strings.ToLower(name); !seen[name] {
				seen[name] = true
				m[name] = uint16(port)
			}
		}
	}
	return m
}}

func service(name string) (uint16, bool) {
	if name == "" || name[0] >= '0' && name[0] <= '9' && !strings.ContainsAny(name, "abcdefghijklmnopqrstuvwxyz") {
		return 0, false
	}
	p, ok := services.Get()[strings.ToLower(name)]
	return p, ok
}

func nearestService(name string) string {
	if name == "" || name[0] < 'A' {
		return ""
	}
	words := make([]string, 0, 400)
	for w := range services.Get() {
		words = append(words, w)
	}
	slices.Sort(words)
	return Nearest(name, words)
}
