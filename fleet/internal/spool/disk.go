package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nfctl/fleet/internal/wire"
)

// A disk is a folder of segments, files of whole records, read and removed from the
// oldest on. A record is its length and its CRC-32C, both big endian, a byte of the
// kind, and the message. Segments are named by the epoch and number of their first
// line, so that names in order are lines in order.
type disk struct {
	dir        string
	lock       *os.File
	used, most int64
	segments   []segment // the last one may be written to
	w          *os.File  // the last segment, or nil
	r          *os.File  // the first segment, or nil
	at         int64     // where the next record of the first one begins
	size       int64     // of the record that peek returned
}

type segment struct {
	name string
	size int64
}

const (
	segmentSize = 8 << 20
	recordHead  = 9
	suffix      = ".spool"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openDisk opens the folder, making it where it is not.
func openDisk(dir string, most int64) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	fail := func(err error) (*disk, error) {
		_ = lock.Close()
		return nil, fmt.Errorf("spool %s: %w", dir, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another nfctl-fleet uses it")
		}
		return fail(err)
	}
	d := &disk{dir: dir, lock: lock, most: most}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fail(err)
	}
	for _, e := range entries { // in the order of their names
		info, err := e.Info()
		if err != nil || !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		d.segments = append(d.segments, segment{e.Name(), info.Size()})
		d.used += info.Size()
	}
	return d, nil
}

func (d *disk) empty() bool          { return len(d.segments) == 0 }
func (d *disk) room(size int) bool   { return d.used+int64(size)+recordHead <= d.most }
func (d *disk) path(s string) string { return filepath.Join(d.dir, s) }

func nameOf(h *wire.Head) string { return fmt.Sprintf("%020d-%020d%s", h.Epoch, h.First, suffix) }

func appendRecord(b []byte, m *Batch) []byte {
	sum := crc32.Update(crc32.Update(0, castagnoli, []byte{byte(m.Kind)}), castagnoli, m.Data)
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Data)))
	b = binary.BigEndian.AppendUint32(b, sum)
	return append(append(b, byte(m.Kind)), m.Data...)
}

// push adds a batch behind the others. A record that could not be written whole is
// taken away again.
func (d *disk) push(m *Batch) error {
	if n := len(d.segments); d.w != nil && d.segments[n-1].size >= segmentSize {
		err := d.w.Close()
		d.w = nil
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	if d.w == nil {
		name := nameOf(&m.Head)
		w, err := os.OpenFile(d.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		d.w, d.segments = w, append(d.segments, segment{name: name})
	}
	s := &d.segments[len(d.segments)-1]
	record := appendRecord(nil, m)
	if _, err := d.w.Write(record); err != nil {
		err = errors.Join(err, d.w.Truncate(s.size))
		if _, e := d.w.Seek(s.size, 0); e != nil {
			err = errors.Join(err, e)
		}
		if s.size == 0 {
			d.drop(len(d.segments) - 1)
		}
		return fmt.Errorf("spool: %w", err)
	}
	s.size += int64(len(record))
	d.used += int64(len(record))
	return nil
}

// drop removes a segment.
func (d *disk) drop(i int) {
	s := d.segments[i]
	if i == 0 && d.r != nil {
		_ = d.r.Close()
		d.r, d.at = nil, 0
	}
	if i == len(d.segments)-1 && d.w != nil {
		_ = d.w.Close()
		d.w = nil
	}
	_ = os.Remove(d.path(s.name))
	d.used -= s.size
	d.segments = slices.Delete(d.segments, i, i+1)
}

// peek returns the oldest batch, or nil when there is none. What cannot be read, and
// what stands behind it in its segment, is dropped and told of.
func (d *disk) peek() (*Batch, error) {
	var told error
	for len(d.segments) > 0 {
		s := d.segments[0]
		if d.at < s.size {
			m, err := d.read(&s)
			if err == nil {
				return m, told
			}
			told = errors.Join(told, fmt.Errorf("spool: %s, byte %d: %w; the rest of it is lost", s.name, d.at, err))
		}
		d.drop(0)
	}
	return nil, told
}

var errCut = errors.New("record cut")

func (d *disk) read(s *segment) (*Batch, error) {
	var err error
	if d.r == nil {
		if d.r, err = os.OpenFile(d.path(s.name), os.O_RDONLY|unix.O_NOFOLLOW, 0); err != nil {
			return nil, err
		}
		d.at = 0
	}
	var head [recordHead]byte
	if _, err := d.r.ReadAt(head[:], d.at); err != nil {
		return nil, errCut
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > s.size-d.at-recordHead {
		return nil, errCut
	}
	data := make([]byte, n)
	if _, err := d.r.ReadAt(data, d.at+recordHead); err != nil {
		return nil, err
	}
	sum := crc32.Update(crc32.Update(0, castagnoli, head[8:9]), castagnoli, data)
	if sum != binary.BigEndian.Uint32(head[4:]) {
		return nil, errors.New("checksum is wrong")
	}
	m := &Batch{Kind: wire.Kind(head[8]), Data: data}
	if m.Head, _, err = wire.Parse(data); err != nil {
		return nil, err
	}
	d.size = recordHead + n
	return m, nil
}

// pop forgets the batch that peek returned.
func (d *disk) pop() {
	d.at += d.size
	if d.at >= d.segments[0].size {
		d.drop(0)
	}
}

// keep writes a batch that is older than the others into a segment of its own.
func (d *disk) keep(m *Batch) error {
	if !d.room(len(m.Data)) {
		return fmt.Errorf("spool: %d bytes are full", d.most)
	}
	w, err := os.OpenFile(d.path(nameOf(&m.Head)), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	record := appendRecord(nil, m)
	_, err = w.Write(record)
	if err = errors.Join(err, w.Close()); err != nil {
		_ = os.Remove(w.Name())
		return fmt.Errorf("spool: %w", err)
	}
	d.used += int64(len(record))
	return nil
}

func (d *disk) close() (err error) {
	for _, f := range []*os.File{d.w, d.r, d.lock} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}
