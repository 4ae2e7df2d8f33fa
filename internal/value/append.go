package value

import (
	"net/netip"
	"strconv"
)

// octets holds every octet in decimal with a trailing dot, four bytes each:
// "7.  ", "255.". octetLen is the length without the dot.
var octets, octetLen = func() (o [256][4]byte, n [256]uint8) {
	for i := range o {
		t := strconv.AppendUint(o[i][:0], uint64(i), 10)
		n[i] = uint8(len(t))
		o[i][len(t)] = '.'
	}
	return
}()

const hexDigits = "0123456789abcdef"

// AppendAddr appends an address as inet_ntop(3) of the C library writes it. That
// is RFC 5952's form but for IPv4-compatible addresses, ::10.0.0.1. An invalid
// address appends nothing; a zone is not written.
func AppendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		return appendV4(b, a.As4())
	}
	if !a.IsValid() {
		return b
	}
	v := a.As16()
	var w [8]uint16
	best, bestLen, cur := -1, 1, 0 // a single zero word is not shortened
	for i := range w {
		w[i] = uint16(v[2*i])<<8 | uint16(v[2*i+1])
		if w[i] != 0 {
			cur = 0
			continue
		}
		if cur++; cur > bestLen {
			best, bestLen = i-cur+1, cur
		}
	}
	if best == 0 && (bestLen == 6 || bestLen == 5 && w[5] == 0xffff) {
		b = append(b, "::"...)
		if bestLen == 5 {
			b = append(b, "ffff:"...)
		}
		return appendV4(b, [4]byte(v[12:]))
	}
	for i := 0; i < 8; i++ {
		if i == best {
			b = append(b, ':', ':')
			i += bestLen - 1
			continue
		}
		if i > 0 && b[len(b)-1] != ':' {
			b = append(b, ':')
		}
		n := w[i]
		switch {
		case n >= 0x1000:
			b = append(b, hexDigits[n>>12], hexDigits[n>>8&15], hexDigits[n>>4&15], hexDigits[n&15])
		case n >= 0x100:
			b = append(b, hexDigits[n>>8], hexDigits[n>>4&15], hexDigits[n&15])
		case n >= 0x10:
			b = append(b, hexDigits[n>>4], hexDigits[n&15])
		default:
			b = append(b, hexDigits[n])
		}
	}
	return b
}

func appendV4(b []byte, v [4]byte) []byte {
	n := len(b)
	b = append(b, "255.255.255.255."...)
	for _, o := range v {
		*(*[4]byte)(b[n:]) = octets[o] // the last may reach one byte over, into the room made above
		n += int(octetLen[o]) + 1
	}
	return b[:n-1]
}

// AppendTime appends nanoseconds since the epoch in RFC 3339 with nine digits
// of fraction, in UTC.
func AppendTime(b []byte, ns uint64) []byte {
	sec, frac := ns/1e9, ns%1e9
	y, m, d := date(sec / 86400)
	tod := sec % 86400
	n := len(b)
	b = append(b, "0000-00-00T00:00:00.000000000Z"...)
	put2(b[n:], y/100)
	put2(b[n+2:], y%100)
	put2(b[n+5:], m)
	put2(b[n+8:], d)
	put2(b[n+11:], tod/3600)
	put2(b[n+14:], tod/60%60)
	put2(b[n+17:], tod%60)
	for i := n + 28; i >= n+20; i-- {
		b[i] = '0' + byte(frac%10)
		frac /= 10
	}
	return b
}

func put2(b []byte, n uint64) { b[0], b[1] = '0'+byte(n/10), '0'+byte(n%10) }

// date turns days since the epoch into a Gregorian date. Years are counted from
// March, in eras of 400 years, which have 146097 days each.
func date(days uint64) (y, m, d uint64) {
	days += 719468 // from 0000-03-01
	era, doe := days/146097, days%146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d = doy - (153*mp+2)/5 + 1
	m = mp + 3
	y = yoe + era*400
	if m > 12 {
		m, y = m-12, y+1
	}
	return y, m, d
}
