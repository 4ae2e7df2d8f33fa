package ct

import (
	"fmt"
	"go/format"
	"math/bits"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"nfctl/internal/gentest"
	"nfctl/internal/nl"
)

// TestGeneratedDecoder holds the decoder of flows to their rows.
func TestGeneratedDecoder(t *testing.T) {
	var b strings.Builder
	b.WriteString(`// Code generated of the table of attributes by make gen; DO NOT EDIT.

package ct

import "nfctl/internal/nl"

// DecodeAttrs is Decode for attributes without a header, as a queue's packet
// carries them (NFQA_CT). It reads them as flowCodec does, which reads those that
// this text does not know yet.
func (f *Flow) DecodeAttrs(family uint8, b []byte) error {
	f.Reset()
	for len(b) > 0 {
		a, rest, ok := nl.NextAttr(b)
		if !ok {
			return errMalformed
		}
		b = rest
`)
	writeLevel(t, &b, &flowCodec.Get().top, nil)
	b.WriteString("}\nreturn nil\n}\n")
	text, err := format.Source([]byte(b.String()))
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	gentest.File(t, "internal/ct/decode_gen.go", text)
}

func writeLevel(t *testing.T, b *strings.Builder, v *level, path wire) {
	b.WriteString("switch a.Type {\n")
	for typ := range v {
		s := &v[typ]
		if s.op == opNone || strings.HasPrefix(fieldAt(t, s.at), "spare") {
			continue
		}
		fmt.Fprintf(b, "case %d:\n", typ)
		at := "f." + fieldAt(t, s.at)
		present := ""
		if s.presence != 0 {
			var names []string
			for n := s.presence; n != 0; n &= n - 1 {
				names = append(names, fmt.Sprintf("1<<%d", bits.TrailingZeros64(n)))
			}
			present = "f.Present |= " + strings.Join(names, " | ") + "\n"
		}
		switch s.op {
		case opNum8:
			fmt.Fprintf(b, "if n, ok := a.U8(); ok {\n%s = n\n%s}\n", at, present)
		case opNum16:
			fmt.Fprintf(b, "if n, ok := a.U16(); ok {\n%s = n\n%s}\n", at, present)
		case opNum32:
			fmt.Fprintf(b, "if n, ok := a.U32(); ok {\n%s = n\n%s}\n", at, present)
		case opNum64:
			fmt.Fprintf(b, "if n, ok := a.U64(); ok {\n%s = n\n%s}\n", at, present)
		case opPair:
			fmt.Fprintf(b, "if len(a.Data) >= 2 {\n%s, f.%s = a.Data[0], a.Data[1]\n%s}\n", at, fieldAt(t, s.at2),
				present)
		case opText:
			fmt.Fprintf(b, "%s = a.Text()\n%s", at, present)
		case opBytes:
			fmt.Fprintf(b, "%s = a.Data\n%s", at, present)
		case opLabels:
			fmt.Fprintf(b, "%s = [16]byte{}\ncopy(%[1]s[:], a.Data)\n%[2]s", at, present)
		case opTuple:
			fmt.Fprintf(b, "%s.decode(family, a.Data)\n", at)
		case opNAT:
			fmt.Fprintf(b, "if %s.decode(a.Data) {\n%s}\n", at, present)
		case opNest:
			b.WriteString("for a, b, ok := nl.NextAttr(a.Data); ok; a, b, ok = nl.NextAttr(b) {\n")
			writeLevel(t, b, s.in, append(path[:len(path):len(path)], uint16(typ)))
			b.WriteString("}\n")
		}
	}
	nest := 0
	for _, n := range path {
		nest = nest<<8 | int(n)
	}
	fmt.Fprintf(b, "default:\nf.decodeOther(family, a, %#x)\n}\n", nest)
}

// fieldAt returns the field of a Flow that begins at an offset.
func fieldAt(t *testing.T, at uint16) string {
	t.Helper()
	name, typ, left := "", reflect.TypeFor[Flow](), uintptr(at)
	for typ.Kind() == reflect.Struct && typ.PkgPath() != "net/netip" {
		found := false
		for i := typ.NumField() - 1; i >= 0 && !found; i-- {
			if f := typ.Field(i); f.Offset <= left {
				left -= f.Offset
				typ, found = f.Type, true
				name += "." + f.Name
				if f.Type == reflect.TypeFor[Tuple]() || f.Type == reflect.TypeFor[NAT]() {
					return name[1:]
				}
			}
		}
		if !found {
			t.Fatalf("no field of Flow at %d", at)
		}
	}
	return name[1:]
}

// TestDecodersAgree holds the decoder that is generated to the one that looks into
// the table, over messages with anything in any place.
func TestDecodersAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	whole := full().AppendAttrs(nil)
	for range 20000 {
		b := append([]byte{}, whole...)
		for range r.IntN(6) {
			b[r.IntN(len(b))] = byte(r.Uint32())
		}
		b = b[:r.IntN(len(b)+1)]
		var x, y Flow
		gotErr := x.DecodeAttrs(IPv4, b) != nil
		wantErr := !flowCodec.Get().top.decode(unsafe.Pointer(&y), (*uint64)(&y.Present), IPv4, b, &y.Unknown)
		if gotErr != wantErr || !reflect.DeepEqual(x.Clone(), y.Clone()) {
			t.Fatalf("%x:\n%+v, %v\n%+v, %v", b, &x, gotErr, &y, wantErr)
		}
	}
	// What no generated text knows is read by the table.
	f := &Flow{}
	f.decodeOther(IPv4, nl.Attr{Type: ctaTCPState, Data: []byte{3}}, ctaProtoinfo<<8|ctaProtoinfoTCP)
	if f.TCPState != 3 || !f.Has(HasTCPState) {
		t.Errorf("by the table: %+v", f)
	}
}
