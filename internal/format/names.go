package format

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nfctl/internal/ct"
	"nfctl/internal/field"
	"nfctl/internal/value"
)

// A Namer knows names. It is asked while objects are written, and must not wait.
type Namer interface {
	// Host returns the name of an address, or nil where none is known.
	Host(netip.Addr) []byte
	// Service returns the name of a port of a protocol, or "".
	Service(proto uint8, port uint16) string
}

// Named are a subject's fields, and behind each address and port of a tuple its name:
// orig.src_name behind orig.src. nil: nobody knows names, the fields are as they are.
func Named[T any](reg *field.Registry[T], n Namer) *field.Registry[T] {
	if n == nil {
		return reg
	}
	named := &field.Registry[T]{Presence: reg.Presence, Reserve: reg.Reserve}
	named.Make = func() (rows []field.Row[T]) {
		for _, r := range reg.Rows() {
			rows = append(rows, r)
			if name, ok := nameRow(reg, &r, n); ok {
				rows = append(rows, name)
			}
		}
		return rows
	}
	return named
}

// nameRow returns the row of the name of what r is, if that may have one.
func nameRow[T any](reg *field.Registry[T], r *field.Row[T], n Namer) (name field.Row[T], ok bool) {
	group, part, ok := strings.Cut(r.Path, ".")
	if !ok || r.Hidden || !slices.Contains([]string{"orig", "reply", "tuple", "master"}, group) {
		return name, false
	}
	name = field.Row[T]{Path: r.Path + "_name", Kind: field.String, Need: r.Need, Part: r.Part}
	switch part {
	case "src", "dst":
		ip := r.IP
		name.Doc = "with --resolve: the name of that host (DNS), where it is known"
		name.Data = func(t *T) ([]byte, bool) {
			a, ok := ip(t)
			if !ok {
				return nil, false
			}
			host := n.Host(a)
			return host, host != nil
		}
	case "sport", "dport":
		proto := reg.Row(group + ".proto")
		if proto == nil {
			proto = reg.Row("proto")
		}
		num, protoNum := r.Num, proto.Num
		var last []byte
		name.Doc = "with --resolve: the name of that port (/etc/services), if it has one"
		name.Data = func(t *T) ([]byte, bool) {
			port, ok := num(t)
			p, known := protoNum(t)
			if !ok || !known {
				return nil, false
			}
			service := n.Service(uint8(p), uint16(port))
			last = append(last[:0], service...)
			return last, service != ""
		}
	default:
		return name, false
	}
	return name, true
}

// appendHost appends the name of an address, or the address.
func appendHost(b []byte, a netip.Addr, family uint8, n Namer) []byte {
	if n != nil {
		if host := n.Host(a); host != nil {
			return append(b, host...)
		}
	}
	return appendAddr(b, a, family)
}

// appendService appends the name of a port, or the number.
func appendService(b []byte, proto uint8, port uint16, n Namer) []byte {
	if n != nil {
		if name := n.Service(proto, port); name != "" {
			return append(b, name...)
		}
	}
	return strconv.AppendUint(b, uint64(port), 10)
}

// appendNamedEnd appends an end of a flow as NAME:SERVICE, as far as names are known.
func appendNamedEnd(b []byte, a netip.Addr, port uint16, t *ct.Tuple, has bool, n Namer) []byte {
	if n == nil || t.Proto == ct.GRE {
		return appendEnd(b, a, port, has, t.Proto == ct.GRE)
	}
	host := n.Host(a)
	switch {
	case host != nil:
		b = append(b, host...)
	case has && a.Is6():
		b = append(value.AppendAddr(append(b, '['), a), ']')
	default:
		b = value.AppendAddr(b, a)
	}
	if !has {
		return b
	}
	return appendService(append(b, ':'), t.Proto, port, n)
}
