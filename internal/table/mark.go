package table

import (
	"context"

	"nfctl/internal/ct"
)

// ClearMarks clears bits of the marks of all flows that have some of them, and returns
// how many flows had. Flows that cannot be changed are told of by the error.
func ClearMarks(mask uint32) (n uint64, err error) {
	conn, err := ct.Dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	var failed error
	b := conn.NewBatch(BatchSize, func(_ *ct.Flow, err error) {
		switch {
		case err == nil:
			n++
		case !Gone(err) && failed == nil:
			failed = err
		}
	})
	var change ct.Flow
	_, err = ct.Dump(context.Background(), ct.DumpOptions{}, func(f *ct.Flow) error {
		if f.Mark&mask == 0 {
			return nil
		}
		change.Mark, change.MarkMask, change.Present = 0, mask, ct.HasMark|ct.HasMarkMask
		return b.Update(f, &change)
	})
	return n, first(err, b.Flush(), failed)
}
