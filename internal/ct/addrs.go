package ct

import "net/netip"

// Addrs calls each with the addresses of both directions.
func (f *Flow) Addrs(each func(netip.Addr)) {
	for _, t := range [...]*Tuple{&f.Orig, &f.Reply} {
		each(t.Src)
		each(t.Dst)
	}
}

// Addrs calls each with the addresses of the connection expected and of the one that
// expects it.
func (e *Expect) Addrs(each func(netip.Addr)) {
	for _, t := range [...]*Tuple{&e.Tuple, &e.Master} {
		each(t.Src)
		each(t.Dst)
	}
}
