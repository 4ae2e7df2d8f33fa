package ct

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"nfctl/internal/field"
)

// TestAttributeFacts holds the tables to facts that were measured apart from
// them.
func TestAttributeFacts(t *testing.T) {
	text, err := os.ReadFile("testdata/attributes.tsv")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		w := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || len(w) < 7 {
			continue
		}
		seen[w[0]] = true
		if strings.HasPrefix(w[0], "exp-") {
			checkFacts(t, ExpectAttrs(), w)
		} else {
			checkFacts(t, FlowAttrs(), w)
		}
	}
	if len(seen) == 0 {
		t.Error("no attributes in testdata")
	}
	for i := range FlowAttrs() {
		// Those without a number are no attributes of libnetfilter_conntrack.
		if a := &FlowAttrs()[i]; a.Name != "" && a.Number >= 0 && !seen[a.Name] {
			t.Errorf("%s is not in testdata", a.Name)
		}
	}
}

func checkFacts[T any](t *testing.T, table []Attr[T], w []string) {
	a := Find(table, w[0])
	if a == nil || a.Name != w[0] {
		t.Errorf("%s: not in the table", w[0])
		return
	}
	if got := strconv.Itoa(a.Number); got != w[2] {
		t.Errorf("%s: number %s, want %s", a.Name, got, w[2])
	}
	if w[1] != "" && (len(a.Aliases) != 1 || a.Aliases[0] != w[1]) {
		t.Errorf("%s: aliases %v, want %s", a.Name, a.Aliases, w[1])
	}
	if got := strconv.Itoa(a.Bits); got != w[3] {
		t.Errorf("%s: %s bits, want %s", a.Name, got, w[3])
	}
	if a.Network != (w[4] == "yes") {
		t.Errorf("%s: network order %v", a.Name, a.Network)
	}
	for i, update := range []bool{false, true} {
		ok, why := a.Settable(update)
		if ok != (w[5+i] == "yes") {
			t.Errorf("%s: settable %v (update %v)", a.Name, ok, update)
		}
		if !ok && why == "" {
			t.Errorf("%s: cannot be set (update %v), and no reason is given", a.Name, update)
		}
	}
	if a.Netlink == "" || a.Readable == "" || a.Doc == "" {
		t.Errorf("%s: an empty column: %+v", a.Name, a)
	}
}

// TestPlaces holds that each place in a message is one row's, or that of the two bytes
// of a pair, in their order.
func TestPlaces(t *testing.T) {
	t.Run("flow", func(t *testing.T) { places(t, FlowAttrs()) })
	t.Run("expect", func(t *testing.T) { places(t, ExpectAttrs()) })
}

func places[T any](t *testing.T, rows []Attr[T]) {
	bytes := map[string]int{} // the last byte that a row has had
	for i := range rows {
		a := &rows[i]
		if a.At == nil {
			continue
		}
		key := fmt.Sprint(a.At)
		last, twice := bytes[key]
		if twice && (last != 1 || a.Byte != 2) || !twice && a.Byte > 1 || a.Byte > 0 && a.Bits != 8 {
			t.Errorf("%s at %s: byte %d, behind byte %d of another row", a.Name, key, a.Byte, last)
		}
		bytes[key] = a.Byte
	}
	for key, last := range bytes {
		if last == 1 {
			t.Errorf("%s: there is no byte 2", key)
		}
	}
}

// TestFieldRows checks what those who use the registries rely on.
func TestFieldRows(t *testing.T) {
	checkRows(t, FlowFields.Rows())
	checkRows(t, ExpectFields.Rows())
	var f Flow
	for _, path := range []string{"mark", "zone"} {
		if n, ok := FlowFields.Row(path).Num(&f); !ok || n != 0 {
			t.Errorf("%s of an empty flow = %d, %v; want it always there", path, n, ok)
		}
	}
	for alias, path := range map[string]string{"ipv6-src": "orig.src", "port-dst": "orig.dport",
		"repl-ipv4-dst": "reply.dst", "helper-name": "helper",
		"connlabels": "labels", "orig-counter-bytes": "orig.bytes", "l4proto": "proto", "snat-port": "snat.port", "delta-time": "age"} {
		if r := FlowFields.Row(alias); r == nil || r.Path != path {
			t.Errorf("%s is not an alias of %s", alias, path)
		}
	}
}

func checkRows[T any](t *testing.T, rows []field.Row[T]) {
	t.Helper()
	groups, last := map[string]bool{}, ""
	for _, r := range rows {
		loaders := 0
		for _, set := range []bool{r.Num != nil, r.IP != nil, r.Data != nil} {
			if set {
				loaders++
			}
		}
		if loaders != 1 || r.Doc == "" {
			t.Errorf("%s: %d loaders, doc %q", r.Path, loaders, r.Doc)
		}
		var x T
		r.Has(&x) // must not panic on an empty one
		if r.Hidden {
			continue
		}
		group, _, ok := strings.Cut(r.Path, ".")
		if !ok {
			group = ""
		}
		if group != last && groups[group] && group != "" {
			t.Errorf("%s does not stand with the rest of its object", r.Path)
		}
		groups[group], last = true, group
	}
}

// TestSetAndGet sets every settable number by name and reads it back, in memory
// form and as text.
func TestSetAndGet(t *testing.T) {
	for i := range FlowAttrs() {
		a := &FlowAttrs()[i]
		if a.setNum == nil {
			continue
		}
		var f Flow
		if a.Has(&f) {
			t.Errorf("%s: an empty flow has it", a.word())
		}
		a.SetNum(&f, 1)
		if a.Path == "snat.port_max" || a.Path == "dnat.port_max" {
			continue // only with a port
		}
		if n, ok := a.Num(&f); !ok || n != 1 {
			t.Errorf("%s: set to 1, got %d, %v", a.word(), n, ok)
		}
		b, ok := a.AppendStored(nil, &f)
		if !ok || len(b)*8 != a.Bits {
			t.Errorf("%s: stored as % x", a.word(), b)
		}
		var g Flow
		if a.SetStored(&g, b); string(a.AppendText(nil, &g)) != string(a.AppendText(nil, &f)) {
			t.Errorf("%s: stored and set again: %s, was %s", a.word(), a.AppendText(nil, &g), a.AppendText(nil, &f))
		}
		if a.Kind == field.Time {
			continue
		}
		text := string(a.AppendText(nil, &f))
		var h Flow
		if err := a.SetText(&h, text); err != nil {
			t.Errorf("%s: %q is not read back: %v", a.word(), text, err)
		} else if n, _ := a.Num(&h); n != 1 {
			t.Errorf("%s: %q read back as %d", a.word(), text, n)
		}
	}
}

// TestPlainNumbers: of a plain attribute digits mean the number, up to the largest.
func TestPlainNumbers(t *testing.T) {
	plain := 0
	for i := range FlowAttrs() {
		a := &FlowAttrs()[i]
		most, ok := a.Plain()
		if !ok {
			continue
		}
		plain++
		for _, n := range []uint64{0, 1, most} {
			var byText, byNum Flow
			err := a.SetText(&byText, strconv.FormatUint(n, 10))
			if ok := a.SetNum(&byNum, n); !ok || err != nil || !reflect.DeepEqual(byText, byNum) {
				t.Errorf("%s: %d sets %+v, its digits %+v, %v", a.word(), n, byNum, byText, err)
			}
		}
		if err := a.SetText(&Flow{}, strconv.FormatUint(most+1, 10)); most+1 != 0 && err == nil {
			t.Errorf("%s: %d was taken", a.word(), most+1)
		}
	}
	if plain < 30 {
		t.Errorf("only %d attributes are plain", plain)
	}
}

func TestStoredOrder(t *testing.T) {
	var f Flow
	if err := Find(FlowAttrs(), "ipv4-src").SetText(&f, "1.2.3.4"); err != nil {
		t.Fatal(err)
	}
	b, _ := Find(FlowAttrs(), "orig-ipv4-src").AppendStored(nil, &f)
	if binary.BigEndian.Uint32(b) != 16909060 {
		t.Errorf("address stored as % x", b)
	}
	Find(FlowAttrs(), "port-src").SetNum(&f, 1234)
	b, _ = Find(FlowAttrs(), "port-src").AppendStored(nil, &f)
	if binary.BigEndian.Uint16(b) != 1234 {
		t.Errorf("port stored as % x", b)
	}
	if Find(FlowAttrs(), "ipv6-src").Has(&f) {
		t.Error("a flow with an IPv4 source has ipv6-src")
	}
}

func TestSetTextRefuses(t *testing.T) {
	for _, tt := range [][2]string{
		{"timeout", "abc"}, {"timeout", "-1"}, {"mark", "99999999999"}, {"mark", "x"}, {"orig-port-src", "99999"}, {"orig-port-src", "nosuch"},
		{"orig-ipv4-src", "fd00::1"}, {"orig-ipv6-src", "1.2.3.4"}, {"status", "BOGUS"}, {"tcp-state", "FOO"}, {"helper-name", "0123456789abcdef"},
		{"zone", "65536"}, {"connlabels", "128"}, {"connlabels", "nosuch"}, {"helper-info", "xx"}, {"snat-ipv4", "fd00::1"}, {"snat-port", "80,82"},
		{"state", "ESTABLISHED"}, {"kind", "flow"}, {"age", "1"},
	} {
		var f Flow
		if err := Find(FlowAttrs(), tt[0]).SetText(&f, tt[1]); err == nil {
			t.Errorf("%s = %q: want an error", tt[0], tt[1])
		}
		if f.Present != 0 {
			t.Errorf("%s = %q: refused, but something was set", tt[0], tt[1])
		}
	}
}

func TestParseStatus(t *testing.T) {
	for _, tt := range []struct {
		in  string
		yes []uint64
		no  []uint64
	}{
		{"ASSURED", []uint64{4, 6, 0xffff}, []uint64{0, 2}},
		{"!ASSURED", []uint64{0, 2}, []uint64{4, 6}},
		{"UNREPLIED", []uint64{0, 8}, []uint64{2, 0xa}},
		{"UNSET", []uint64{0, 8}, []uint64{2, 4, 1}},
		{"assured,DYING", []uint64{4, 0x200, 0x204}, []uint64{0, 8}},
		{"!SEEN_REPLY,ASSURED", []uint64{0, 8}, []uint64{2, 4, 6}},
		{"0x6", []uint64{6, 7}, []uint64{2, 4}},
	} {
		set, err := ParseStatus(tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		in := func(n uint64) bool {
			for _, r := range set.Nums {
				if n&set.Mask >= r.Lo && n&set.Mask <= r.Hi {
					return !set.Not
				}
			}
			return set.Not
		}
		for _, n := range tt.yes {
			if !in(n) {
				t.Errorf("%s does not match %#x", tt.in, n)
			}
		}
		for _, n := range tt.no {
			if in(n) {
				t.Errorf("%s matches %#x", tt.in, n)
			}
		}
	}
	for _, bad := range []string{"", "ASURED", "0", "0x10000", "ASSURED,"} {
		if _, err := ParseStatus(bad); err == nil {
			t.Errorf("%q: want an error", bad)
		}
	}
}

func TestLabels(t *testing.T) {
	// What libnetfilter_conntrack 1.0.9 makes of the same lines.
	names, err := parseLabels(strings.NewReader(`# names
0 web
nonsense
128 too-high
0x10 hex
010 eight
4 bulk traffic
5 a,b
6 a.b
7 "quoted"
9 a/b
10 tab	inside
11 café
12 comment # behind
13	tabbed	
0 second
14 web
15
-1 minus
20x
127 last
`))
	want := map[int]string{0: "web", 16: "hex", 8: "eight", 4: "bulk traffic", 13: "tabbed", 20: "x", 127: "last"}
	for bit, name := range names {
		if name != want[bit] {
			t.Errorf("%d is %q, want %q", bit, name, want[bit])
		}
	}
	if err != nil {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "labels")
	for _, bad := range []string{"", "128 x\n", "1\n", "1 a,b\n"} {
		if err := os.WriteFile(path, []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := LoadLabels(path); err == nil {
			t.Errorf("%q: want an error", bad)
		}
	}
	bits, err := ParseLabelBits("0,9,127")
	if err != nil || bits[0] != 1 || bits[1] != 2 || bits[15] != 0x80 {
		t.Errorf("bits = %x, %v", bits, err)
	}
}

func TestSet(t *testing.T) {
	var f Flow
	f.Orig.Proto = TCP
	for _, s := range []string{"orig.src=fd00::1", "ipv4-dst=1.2.3.4", "mark=7", "state=established", "timeout=2m",
		"orig.dport=ssh"} {
		if err := Set(FlowAttrs(), &f, s, false); err != nil {
			t.Error(err)
		}
	}
	if f.Orig.Src.String() != "fd00::1" || f.Orig.Dst.String() != "1.2.3.4" || f.Mark != 7 || f.TCPState != 3 ||
		f.Timeout != 120 || f.Orig.Dport != 22 {
		t.Errorf("%+v", f)
	}
	for _, tt := range []struct {
		text   string
		update bool
		says   string
	}{
		{"mrak=7", false, `"mark"`}, {"mark", false, "NAME=VALUE"}, {"use=1", false, "ignores it"}, {"id=1", true, "ignores it"}, {"zone=1", true, "finds the flow by it"},
		{"snat-ipv4=1.2.3.4", true, "only when the flow is created"}, {"age=1", false, "no attribute of its own"}, {"orig.src=x", false, "address"}, {"orig-ipv4-src=fd00::1", false, "IPv4"},
	} {
		if err := Set(FlowAttrs(), &f, tt.text, tt.update); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v; want %s", tt.text, err, tt.says)
		}
	}
}
