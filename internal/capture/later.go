package capture

import "container/heap"

// A Later keeps records of a replay that have been moved to a later time, so that a file
// has them in the order of their times.
type Later struct {
	due  dues
	last uint64
}

// dues is a heap, the earliest first, of one time the first that came.
type dues []due

type due struct {
	at     int64
	number uint64
	record []byte
}

func (d dues) Len() int      { return len(d) }
func (d dues) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d dues) Less(i, j int) bool {
	return d[i].at < d[j].at || d[i].at == d[j].at && d[i].number < d[j].number
}
func (d *dues) Push(x any) { *d = append(*d, x.(due)) }
func (d *dues) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	(*d)[last] = due{}
	*d = (*d)[:last]
	return x
}

// Add keeps a copy of a record until its time, in nanoseconds since the epoch.
func (l *Later) Add(at int64, record []byte) {
	l.last++
	heap.Push(&l.due, due{at, l.last, append([]byte(nil), record...)})
}

// Append appends the records of times up to until to b, and says how many they were.
func (l *Later) Append(b []byte, until int64) ([]byte, int) {
	n := 0
	for ; len(l.due) > 0 && l.due[0].at <= until; n++ {
		b = append(b, heap.Pop(&l.due).(due).record...)
	}
	return b, n
}
