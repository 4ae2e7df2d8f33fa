package value

import "testing"

func TestAppendSeconds(t *testing.T) {
	for ns, want := range map[uint64]string{0: "0", 1: "0.000000001", 1e9: "1", 50e6: "0.05", 12_345_000_000: "12.345",
		1<<64 - 1: "18446744073.709551615"} {
		if got := string(AppendSeconds(nil, ns)); got != want {
			t.Errorf("%d: %s, want %s", ns, got, want)
		}
	}
}
