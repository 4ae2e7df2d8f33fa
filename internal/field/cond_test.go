package field

import (
	"reflect"
	"strings"
	"testing"

	"nfctl/internal/value"
)

func TestParseSet(t *testing.T) {
	flags := value.NewNames("flag", 255, value.Name{Word: "SYN", Num: 2}, value.Name{Word: "ACK", Num: 16})
	states := value.NewWords("state", 9, "NONE", "OPEN", "CLOSED")
	bit := func(n int) string { return []string{"", "web", "mail", ""}[min(n, 3)] }
	nums := func(mask uint64, n ...uint64) value.Set {
		s := value.Set{Mask: mask}
		for i := 0; i < len(n); i += 2 {
			s.Nums = append(s.Nums, value.Range{Lo: n[i], Hi: n[i+1]})
		}
		return s
	}
	not := func(s value.Set) value.Set { s.Not = true; return s }
	for _, tt := range []struct {
		row  Row[int]
		in   string
		want value.Set
	}{
		{Row[int]{Path: "n", Kind: Uint, Max: 9}, "1-3,7", nums(0, 1, 3, 7, 7)},
		{Row[int]{Path: "n", Kind: Uint}, "18446744073709551615", nums(0, 1<<64-1, 1<<64-1)},
		{Row[int]{Path: "n", Kind: Uint, Parse: value.Ports}, "ssh", nums(0, 22, 22)},
		{Row[int]{Path: "s", Kind: Enum, Names: states}, "!open", not(nums(0, 1, 1))},
		{Row[int]{Path: "s", Kind: Enum, Names: states}, "open,9", nums(0, 1, 1, 9, 9)},
		{Row[int]{Path: "f", Kind: Flags, Names: flags}, "SYN", nums(2, 1, 2)},
		{Row[int]{Path: "f", Kind: Flags, Names: flags}, "!syn,ack", not(nums(18, 1, 18))},
		{Row[int]{Path: "b", Kind: Bits, Bit: bit}, "web,MAIL,127", nums(0, 1, 1, 2, 2, 127, 127)},
		{Row[int]{Path: "t", Kind: Time}, "!5", not(nums(0, 5e9, 5e9))},
		{Row[int]{Path: "y", Kind: Bool}, "true", nums(0, 1, 1)},
		{Row[int]{Path: "x", Kind: String}, "a,b", value.Set{Texts: []string{"a", "b"}}},
		{Row[int]{Path: "x", Kind: String}, "!a", value.Set{Texts: []string{"a"}, Not: true}},
	} {
		got, err := tt.row.ParseSet(tt.in)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s %q = %+v, %v; want %+v", tt.row.Path, tt.in, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		row     Row[int]
		in, msg string
	}{
		{Row[int]{Path: "n", Kind: Uint, Max: 9}, "10", "a number from 0 to 9"},
		{Row[int]{Path: "s", Kind: Enum, Names: states}, "opne", `"OPEN"`},
		{Row[int]{Path: "f", Kind: Flags, Names: flags}, "SYM", `"SYN"`},
		{Row[int]{Path: "b", Kind: Bits, Bit: bit, Max: 15}, "wep", `(did you mean "web"?): want a name, or a bit from 0 to 15`},
		{Row[int]{Path: "b", Kind: Bits, Bit: bit}, "128", "a bit from 0 to 127"},
		{Row[int]{Path: "b", Kind: Bits}, "", "a bit from 0 to 127"},
		{Row[int]{Path: "t", Kind: Time}, "soon", "RFC 3339"},
		{Row[int]{Path: "y", Kind: Bool}, "maybe", "true or false"},
		{Row[int]{Path: "a", Kind: Addr}, "host", "an address"},
	} {
		if got, err := tt.row.ParseSet(tt.in); err == nil || !strings.Contains(err.Error(), tt.msg) {
			t.Errorf("%s %q = %+v, %v; want %q", tt.row.Path, tt.in, got, err, tt.msg)
		}
	}
}
