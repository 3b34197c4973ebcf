package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovoo/goka/storage"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// errGap says that somebody else wrote to a changelog partition that this
// process owns: its rows are no longer a fold of what this process saw.
var errGap = errors.New("another writer on the table's partition")

const (
	noOffset      = -1
	flushInterval = 3 * time.Second
	defaultMemory = 16 << 20
	rowPrefix     = 'r' // before every key, so that no key can be the offset's
	brokenFile    = "BROKEN"
)

var offsetKey = []byte{'o'}

// Each batch carries a mark with its number. The database keeps two journals at
// times; were the older one lost, the newer one would put a later offset over
// missing values. So the marks of all batches that a journal may hold stay, and
// Open looks for a gap in them.
const markPrefix = 'm'

type mark struct {
	batch   uint64
	written int64 // bytes up to it
}

// Store is a goka storage.Storage. A value set by a processor stays in memory
// until its changelog record is acknowledged (Acked); then it and its offset go
// to disk in one batch.
type Store struct {
	path string
	mode Mode

	memory      int64 // bytes, about
	limit       int64
	onRecovered func()
	onBroken    func(error)
	held        int64 // no offset from here on goes to disk

	mu        sync.RWMutex
	recovered bool
	rows      cache
	last      *entry   // the one that a processor set last
	dirty     []*entry // whose acked is not on disk
	dirtySize int64
	written   uint64 // the last batch on disk
	fresh     *fresh // in the place of rows, from a start from nothing until recovery ends
	offset    int64  // of the last changelog record in dirty or on disk
	updates   uint64

	flushing sync.Mutex // one batch at a time
	leaving  []leaving
	buffer   leveldb.Batch
	db       *leveldb.DB
	wake     chan struct{}
	stop     chan struct{}
	stopped  sync.WaitGroup
	batch    uint64 // the last one's number
	marks    []mark
	bytes    int64 // in batches since Open
	failed   error
}

var _ storage.Storage = (*Store)(nil)

func newStore(path string, mode Mode) *Store {
	return &Store{
		path: path, mode: mode, offset: noOffset, limit: math.MaxInt64, held: math.MaxInt64, memory: defaultMemory, onRecovered: func() {}, onBroken: func(error) {},
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
}

// ErrBroken says that local files are damaged, or cannot be written.
var ErrBroken = errors.New("local state")

// errPartly says that recovery ended before it had read all that it must.
var errPartly = errors.New("the table was recovered in part")

// Memory bounds, in bytes and about, what the store holds: five eighths for rows,
// of which two may wait to be written, three for the database's own buffers. While it
// reads a changelog from nothing it may take four times that: half for rows that wait,
// half for those on their way, the batch of these, twice that in the database, and as
// much as all for the keys. It must be called before Open.
func (s *Store) Memory(bytes int64) { s.memory = bytes }

// Limit makes Open throw away a state that has reached offset: the log was cut
// short under it. To lead, a store must then recover up to the record there: its
// owner's claim. It must be called before Open.
func (s *Store) Limit(offset int64) { s.limit = offset }

// Hold keeps a record that was read, and those after it, to be read again by the
// next Open: something is still to be done about it. Values go to disk as ever.
func (s *Store) Hold(offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = min(s.held, offset)
}

// Release ends what Hold began.
func (s *Store) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = math.MaxInt64
}

// OnRecovered has f called at the end of recovery. It must be called before Open.
func (s *Store) OnRecovered(f func()) { s.onRecovered = f }

// OnBroken has f called when the files cannot be read, or cannot be written and
// memory is full: only another Open mends that, and Goka's views try again for
// ever without one. f may be called often, and must not call the store. It must be
// called before Open.
func (s *Store) OnBroken(f func(error)) { s.onBroken = f }

// Open opens the files. What cannot be read is deleted: Goka then recovers
// everything from the changelog.
func (s *Store) Open() error {
	if _, err := os.Stat(filepath.Join(s.path, brokenFile)); err == nil {
		if err := os.RemoveAll(s.path); err != nil {
			return fmt.Errorf("STATE_DIR: %w", err)
		}
	}
	if err := s.open(); err != nil {
		if rmErr := os.RemoveAll(s.path); rmErr != nil {
			return fmt.Errorf("STATE_DIR: %w", errors.Join(err, rmErr))
		}
		if err := s.open(); err != nil {
			return fmt.Errorf("STATE_DIR: open %s: %w", s.path, err)
		}
	}
	s.stopped.Add(1)
	go s.flushLoop()
	return nil
}

func (s *Store) open() error {
	if err := os.MkdirAll(s.path, 0o700); err != nil {
		return err
	}
	db, err := leveldb.OpenFile(s.path, &opt.Options{
		// Any damage must be an error: skipping a batch in the middle of a
		// journal, or a table that the manifest names, would leave a later
		// offset over missing values.
		Strict:      opt.StrictAll,
		Filter:      filter.NewBloomFilter(10),
		WriteBuffer: int(s.share(8)), // it has two
		// A batch goes through the journal, whatever its size: that is the one way
		// that the marks of batches are made for.
		DisableLargeBatchTransaction: true,
		BlockCacheCapacity:           int(s.share(8)),
		// Larger blocks make indexes a quarter as large: where the default's do not
		// all fit into the cache, most of a read is fetching one.
		BlockSize: 16 << 10,
		// Four times as lazy as the default: recovery writes much and reads little.
		CompactionL0Trigger: 16, WriteL0SlowdownTrigger: 32, WriteL0PauseTrigger: 48,
		// A read that looks into several tables is no reason to write them anew.
		DisableSeeksCompaction: true,
	})
	if err != nil {
		return err
	}
	data, err := db.Get(offsetKey, nil)
	switch {
	case errors.Is(err, leveldb.ErrNotFound):
	case err != nil:
		_ = db.Close()
		return err
	case len(data) != 8 || data[0] > math.MaxInt8:
		_ = db.Close()
		return fmt.Errorf("offset is %x", data)
	default:
		s.offset = int64(binary.BigEndian.Uint64(data)) //nolint:gosec // written by flush
	}
	if s.offset >= s.limit {
		at := s.offset
		s.offset = noOffset
		_ = db.Close()
		return fmt.Errorf("holds offset %d, the log ends before %d", at, s.limit)
	}
	if err := s.readMarks(db); err != nil {
		s.offset = noOffset
		_ = db.Close()
		return err
	}
	s.db, s.rows, s.written = db, newCache(s, 5*s.share(8)), s.batch
	if s.offset == noOffset {
		s.fresh = newFresh(int(s.memory / keySize))
	}
	return nil
}

func (s *Store) readMarks(db *leveldb.DB) error {
	s.marks, s.batch = nil, 0
	var oldest uint64 // of the marks that must be there, as the newest one says
	it := db.NewIterator(&util.Range{Start: []byte{markPrefix}, Limit: []byte{markPrefix + 1}}, nil)
	defer it.Release()
	for it.Next() {
		n := binary.BigEndian.Uint64(append(slices.Clone(it.Key()[1:]), make([]byte, 8)...))
		if s.batch != 0 && n != s.batch+1 {
			return fmt.Errorf("the batches between %d and %d are missing", s.batch, n)
		}
		s.batch = n
		s.marks = append(s.marks, mark{batch: n})
		if value := it.Value(); len(value) == 8 { // before it was written there it was not known
			oldest = binary.BigEndian.Uint64(value)
		}
	}
	if len(s.marks) > 0 && oldest != 0 && oldest < s.marks[0].batch {
		return fmt.Errorf("the batches from %d to %d are missing", oldest, s.marks[0].batch-1)
	}
	return it.Error()
}

func markKey(batch uint64) []byte { return binary.BigEndian.AppendUint64([]byte{markPrefix}, batch) }

// mark numbers a batch, and forgets marks that no journal can hold any more, but for
// that of the batch before. It says which is the oldest that must be there.
func (s *Store) mark(b *leveldb.Batch) {
	s.batch++
	s.bytes += int64(len(b.Dump()))
	s.marks = append(s.marks, mark{s.batch, s.bytes})
	for len(s.marks) > 2 && s.bytes-s.marks[0].written > 4*s.share(8) {
		b.Delete(markKey(s.marks[0].batch))
		s.marks = s.marks[1:]
	}
	b.Put(markKey(s.batch), binary.BigEndian.AppendUint64(nil, s.marks[0].batch))
}

// share is one of n parts of the memory, and not too little.
func (s *Store) share(n int64) int64 { return max(s.memory/n, 128<<10) }

// Close writes what is acknowledged; what is not, the changelog will tell.
func (s *Store) Close() error {
	if s.db == nil {
		return nil
	}
	close(s.stop)
	s.stopped.Wait()
	return errors.Join(s.flush(), s.db.Close())
}

// Acked notes that the changelog holds value for key at offset. It returns
// errGap when a record that is not ours came between.
func (s *Store) Acked(key string, value []byte, offset int64) error {
	return s.acked(nil, key, value, offset)
}

// Pending is a row that waits for its acknowledgement. Its Acked is that of the store,
// without a look-up.
type Pending interface {
	Acked(value []byte, offset int64) error
	// Place is the caller's to use: what it holds stays with the row while that waits.
	Place() *atomic.Int64
}

// Pending is the row that was set last, if that was key's, and it waits.
func (s *Store) Pending(key string) (Pending, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.last
	return e, e != nil && e.pending && e.key == key
}

// Place is for who got it as a Pending.
func (e *entry) Place() *atomic.Int64 { return &e.place }

// Acked is for who got it as a Pending.
func (e *entry) Acked(value []byte, offset int64) error {
	return e.store.acked(e, e.key, value, offset)
}

// acked may be given the key's entry. One that waits is among rows.
func (s *Store) acked(e *entry, key string, value []byte, offset int64) error {
	s.mu.Lock()
	err, behind := s.failed, false
	if err == nil && s.recovered && offset > s.offset { // else it is late: recovery reads it, or finds a gap
		err = s.ack(e, key, value, offset)
		behind = s.behind()
	}
	s.mu.Unlock()
	if behind {
		_ = s.flush() // a failure is kept
	}
	return err
}

// ack needs s.mu.
func (s *Store) ack(e *entry, key string, value []byte, offset int64) error {
	if s.offset != noOffset && offset != s.offset+1 {
		s.failed = fmt.Errorf("%w: expected offset %d, got %d", errGap, s.offset+1, offset)
		return s.failed
	}
	if e == nil || !e.pending {
		e = s.rows.renew(key, s.written)
	}
	if e.pending = e.pending && !bytes.Equal(value, e.value); !e.pending {
		s.rows.set(e, value)
	}
	s.stored(e, value)
	s.offset = offset
	return nil
}

// stored notes what the changelog has. It needs s.mu.
func (s *Store) stored(e *entry, value []byte) {
	grown := int64(len(value) - len(e.acked))
	if !e.dirty {
		e.dirty = true
		s.dirty = append(s.dirty, e)
		grown = int64(len(e.key)+len(value)) + entrySize
	}
	e.acked = value
	s.waits(grown)
}

// waits notes how many bytes more wait to be written. It needs s.mu.
func (s *Store) waits(grown int64) {
	s.dirtySize += grown
	if s.dirtySize >= s.share(4) {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// behind tells that twice as much waits for the disk as should. Who added to it then
// waits for a flush: memory is bounded, however fast the changelog is read. It needs s.mu.
func (s *Store) behind() bool { return s.dirtySize >= s.share(2) }

// Set keeps a value: of the processor, or of the changelog (see Mode).
func (s *Store) Set(key string, value []byte) error {
	s.mu.Lock()
	if s.failed != nil && s.dirtySize >= s.memory { // a view goes on, but not until all memory is gone
		defer s.mu.Unlock()
		s.onBroken(s.failed)
		return s.failed
	}
	s.set(key, value)
	behind := s.behind()
	s.mu.Unlock()
	if behind {
		_ = s.flush() // a failure is kept
	}
	return nil
}

// set needs s.mu.
func (s *Store) set(key string, value []byte) {
	if s.mode == Lead && s.recovered {
		e := s.rows.renew(key, s.written)
		s.rows.set(e, value)
		e.pending = true // a row only ever gets newer, so one acknowledgement of it will do
		s.last = e
		return
	}
	value = bytes.Clone(value) // it would keep the whole fetch that it came with
	s.updates++
	if s.fresh != nil {
		if grown, ok := s.fresh.set(key, value); ok {
			s.waits(grown)
			return
		}
		s.endFresh()
	}
	e := s.rows.renew(key, s.written)
	s.rows.set(e, value)
	s.stored(e, value)
}

// endFresh has rows go on with what fresh holds. It needs s.mu.
func (s *Store) endFresh() {
	f := s.fresh
	s.fresh, s.dirtySize = nil, 0
	for _, r := range f.writing {
		e := s.rows.renew(r.key, s.written)
		s.rows.set(e, r.value)
		e.batch = f.batch
	}
	for _, r := range f.rows {
		e := s.rows.renew(r.key, s.written)
		s.rows.set(e, r.value)
		s.stored(e, r.value)
	}
}

// Delete applies a tombstone of the changelog. Processors never delete.
func (s *Store) Delete(key string) error { return s.Set(key, nil) }

// Get returns the value of key, nil when there is none.
func (s *Store) Get(key string) ([]byte, error) {
	s.mu.RLock()
	if s.fresh != nil {
		if v, known := s.fresh.find(key); known {
			s.mu.RUnlock()
			return v, nil
		}
	} else if e := s.rows.find(key); e != nil {
		v := e.value
		s.mu.RUnlock()
		return v, nil
	}
	s.mu.RUnlock()
	v, err := s.db.Get(rowKey(key), nil)
	switch {
	case err == nil:
		return v, nil
	case errors.Is(err, leveldb.ErrNotFound):
		return nil, nil
	default:
		err = s.broken(err)
		s.onBroken(err)
		return nil, err
	}
}

// Has tells whether there is a value for key.
func (s *Store) Has(key string) (bool, error) {
	v, err := s.Get(key)
	return v != nil, err
}

// GetOffset is the offset of the last changelog record held, or def.
func (s *Store) GetOffset(def int64) (int64, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.offset == noOffset {
		return def, nil
	}
	return s.offset, nil
}

// SetOffset notes the offset of a record read from the changelog. For a record
// of our own, Acked did it already.
func (s *Store) SetOffset(offset int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset = max(s.offset, offset)
	return nil
}

// MarkRecovered ends recovery. Goka also calls it when its session ends in the
// middle, and when a leader that is none any more tells an old end of the log:
// that is errPartly.
func (s *Store) MarkRecovered() error {
	s.mu.Lock()
	if s.mode == Lead && s.limit != math.MaxInt64 && s.offset < s.limit {
		defer s.mu.Unlock()
		return fmt.Errorf("%w: up to offset %d, its claim stands at %d", errPartly, s.offset, s.limit)
	}
	s.recovered = true
	if s.fresh != nil {
		s.endFresh()
	}
	s.mu.Unlock()
	s.onRecovered()
	return nil
}

// Updates counts the records read from the changelog since Open.
func (s *Store) Updates() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.updates
}

// Iterator walks the acknowledged rows.
func (s *Store) Iterator() (storage.Iterator, error) { return s.IteratorWithRange(nil, nil) }

// IteratorWithRange walks the acknowledged rows of [start, limit); empty is unbounded.
func (s *Store) IteratorWithRange(start, limit []byte) (storage.Iterator, error) {
	if err := s.flush(); err != nil {
		return nil, err
	}
	r := &util.Range{Start: rowKey(string(start)), Limit: []byte{rowPrefix + 1}}
	if len(limit) > 0 { // Goka's views pass an empty one for none
		r.Limit = rowKey(string(limit))
	}
	return &rows{s.db.NewIterator(r, nil), s}, nil
}

func (s *Store) flushLoop() {
	defer s.stopped.Done()
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.wake:
		case <-s.stop:
			return
		}
		_ = s.flush() // a failure is kept and fails the next Acked
	}
}

// leaving is a row on its way to disk.
type leaving struct {
	prefix uint64 // of the key: its first bytes in order
	key    string
	value  []byte
}

// inOrder sorts rows by their keys. Most keys differ in their first bytes, so few
// are looked up for it.
func inOrder(rows []leaving) {
	for i := range rows {
		var first [8]byte
		copy(first[:], rows[i].key)
		rows[i].prefix = binary.BigEndian.Uint64(first[:])
	}
	slices.SortFunc(rows, func(a, b leaving) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		return strings.Compare(a.key, b.key)
	})
}

// flush writes the dirty rows and the offset that covers them in one batch.
// Meanwhile reads find those rows in memory.
func (s *Store) flush() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.Lock()
	if s.failed != nil || s.dirtySize == 0 {
		defer s.mu.Unlock()
		return s.failed
	}
	offset := min(s.offset, s.held-1)
	rows := s.leaving[:0]
	for _, e := range s.dirty {
		rows = append(rows, leaving{key: e.key, value: e.acked})
		e.dirty, e.acked, e.batch = false, nil, s.batch+1
	}
	clear(s.dirty)
	s.dirty, s.dirtySize = s.dirty[:0], 0
	if s.fresh != nil {
		rows = append(rows, s.fresh.rows...)
		s.fresh.leave(s.batch + 1)
	} else if !s.recovered { // whatever else is read lies on disk
		s.rows.drop(s.written, func(*entry) bool { return true })
	}
	s.mu.Unlock()

	inOrder(rows) // which is cheaper to insert
	b := &s.buffer
	b.Reset()
	var key []byte
	for _, r := range rows {
		key = append(append(key[:0], rowPrefix), r.key...)
		if r.value == nil {
			b.Delete(key)
		} else {
			b.Put(key, r.value)
		}
	}
	clear(rows)
	s.leaving = rows
	if offset != noOffset {
		b.Put(offsetKey, binary.BigEndian.AppendUint64(nil, uint64(offset))) //nolint:gosec // not negative
	}
	s.mark(b)
	err := s.db.Write(b, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed = s.broken(err)
		return s.failed
	}
	s.written = s.batch
	s.rows.caughtUp()
	if s.fresh != nil {
		s.fresh.written()
	}
	return nil
}

// broken leaves a note so that the next Open starts afresh.
func (s *Store) broken(err error) error {
	if errors.Is(err, leveldb.ErrClosed) {
		return err
	}
	_ = os.WriteFile(filepath.Join(s.path, brokenFile), nil, 0o600)
	return fmt.Errorf("%w: %s (it is rebuilt from the changelog): %w", ErrBroken, s.path, err)
}

func rowKey(key string) []byte {
	b := make([]byte, 1+len(key))
	b[0] = rowPrefix
	copy(b[1:], key)
	return b
}
