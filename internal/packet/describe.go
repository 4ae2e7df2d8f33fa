//go:build !router

package packet

import (
	"bytes"
	"regexp"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"nfctl/internal/lazy"
)

// rawBytes are the fields of gopacket's layers that repeat the packet's bytes.
var rawBytes = lazy.Value[*regexp.Regexp]{Make: func() *regexp.Regexp {
	return regexp.MustCompile(`(?:Contents|Payload|BaseLayer)=\[[^\]]*\] ?`)
}}

// AppendLayers appends what gopacket makes of a packet, layer by layer down to
// the application's where it knows it, one indented line each. It is for
// people who look closely; verdicts never depend on it.
func AppendLayers(b, data []byte) (out []byte) {
	// Unlike the reading of headers in this package, gopacket's printing was
	// not written for input that an enemy makes.
	mark := len(b)
	defer func() {
		if recover() != nil {
			out = append(b[:mark], "\tlayers: not printable\n"...)
		}
	}()
	var first gopacket.Decoder
	switch {
	case len(data) > 0 && data[0]>>4 == 4:
		first = layers.LayerTypeIPv4
	case len(data) > 0 && data[0]>>4 == 6:
		first = layers.LayerTypeIPv6
	default:
		return b
	}
	p := gopacket.NewPacket(data, first, gopacket.DecodeOptions{NoCopy: true})
	for _, l := range p.Layers() {
		if l.LayerType() == gopacket.LayerTypePayload || l.LayerType() == gopacket.LayerTypeDecodeFailure {
			continue
		}
		b = append(b, '\t')
		b = append(b, l.LayerType().String()...)
		b = append(b, ' ')
		s := []byte(gopacket.LayerString(l))
		if i := bytes.IndexByte(s, '\t'); i >= 0 {
			s = s[i+1:]
		}
		for _, c := range rawBytes.Get().ReplaceAll(s, nil) {
			b = append(b, printable(c))
		}
		b = append(b, '\n')
	}
	if f := p.ErrorLayer(); f != nil {
		b = append(append(b, "\tundecodable: "...), f.Error().Error()...)
		b = append(b, '\n')
	}
	return b
}
