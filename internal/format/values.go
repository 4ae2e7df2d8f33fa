package format

import (
	"strconv"

	"nfctl/internal/field"
)

// A Value is a word that an attribute takes, and the number it stands for.
type Value struct {
	Of   string // name of the attribute
	Name string
	Num  uint64
}

// Values prints the words that attributes take; as text the number and the word.
var Values = &Subject[Value]{
	Kind: "value",
	Fields: field.New(func() []field.Row[Value] {
		return []field.Row[Value]{
			text("of", "attribute that takes the word", func(v *Value) string { return v.Of }),
			text("name", "the word", func(v *Value) string { return v.Name }),
			num("number", "the number that it stands for; of flags their mask", func(v *Value) (uint64, bool) { return v.Num, true }),
		}
	}),
	Text: func(*Output, Options) func([]byte, *Value) []byte {
		return func(b []byte, v *Value) []byte {
			start := len(b)
			b = strconv.AppendUint(b, v.Num, 10)
			b = append(blanks(b, start+6-len(b)), ' ')
			return append(append(b, v.Name...), '\n')
		}
	},
}
