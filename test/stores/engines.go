package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"go.etcd.io/bbolt"
)

func offsetValue(offset uint64) []byte { return binary.BigEndian.AppendUint64(nil, offset) }

type level struct {
	db    *leveldb.DB
	batch leveldb.Batch
}

func openLevel(dir string) (engine, error) { return openLevelWith(dir, opt.Options{}) }

// openLevelOurs opens it as internal/store does.
func openLevelOurs(dir string) (engine, error) {
	return openLevelWith(dir, opt.Options{
		BlockSize: 16 << 10, CompactionL0Trigger: 16, WriteL0SlowdownTrigger: 32, WriteL0PauseTrigger: 48,
		DisableSeeksCompaction: true, DisableLargeBatchTransaction: true,
	})
}

func openLevelWith(dir string, o opt.Options) (engine, error) {
	o.Strict, o.Filter, o.WriteBuffer, o.BlockCacheCapacity = opt.StrictAll, filter.NewBloomFilter(10), memory/3, memory/3
	db, err := leveldb.OpenFile(dir, &o)
	return &level{db: db}, err
}

func (l *level) write(rows []row, offset uint64) error {
	l.batch.Reset()
	for _, r := range rows {
		l.batch.Put(r.key, r.value)
	}
	l.batch.Put(offsetKey, offsetValue(offset))
	return l.db.Write(&l.batch, nil)
}

func (l *level) get(key []byte) ([]byte, error) {
	v, err := l.db.Get(key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

func (l *level) close() error { return l.db.Close() }

type rocks struct {
	db     *pebble.DB
	cache  *pebble.Cache
	dir    string
	tables bool // large batches are written as sorted tables
	n      int
}

func openPebble(dir string) (engine, error)       { return openRocks(dir, false) }
func openPebbleTables(dir string) (engine, error) { return openRocks(dir, true) }

func openRocks(dir string, tables bool) (engine, error) {
	cache := pebble.NewCache(memory / 3)
	o := &pebble.Options{Cache: cache, MemTableSize: memory / 3, Logger: quiet{}}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(dir, o)
	return &rocks{db: db, cache: cache, dir: dir, tables: tables}, err
}

type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

func (p *rocks) write(rows []row, offset uint64) error {
	if p.tables && len(rows) > 5000 {
		return p.ingest(rows, offset)
	}
	b := p.db.NewBatch()
	for _, r := range rows {
		if err := b.Set(r.key, r.value, nil); err != nil {
			return err
		}
	}
	if err := b.Set(offsetKey, offsetValue(offset), nil); err != nil {
		return err
	}
	return b.Commit(pebble.NoSync)
}

func (p *rocks) ingest(rows []row, offset uint64) error {
	p.n++
	path := filepath.Join(p.dir, fmt.Sprintf("new-%d", p.n))
	f, err := vfs.Default.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), sstable.WriterOptions{TableFormat: p.db.TableFormat()})
	if err := w.Set(offsetKey, offsetValue(offset)); err != nil { // 'o' is before 'r'
		return err
	}
	for _, r := range rows {
		if err := w.Set(r.key, r.value); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return p.db.Ingest(context.Background(), []string{path})
}

func (p *rocks) get(key []byte) ([]byte, error) {
	v, closer, err := p.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := append([]byte(nil), v...)
	return out, closer.Close()
}

func (p *rocks) close() error {
	err := p.db.Close()
	p.cache.Unref()
	return err
}

type bolt struct{ db *bbolt.DB }

var bucket = []byte("rows")

func openBolt(dir string) (engine, error) {
	db, err := bbolt.Open(filepath.Join(dir, "db"), 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	return bolt{db}, db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
}

func (b bolt) write(rows []row, offset uint64) error {
	return b.db.Update(func(tx *bbolt.Tx) error {
		k := tx.Bucket(bucket)
		for _, r := range rows {
			if err := k.Put(r.key, r.value); err != nil {
				return err
			}
		}
		return k.Put(offsetKey, offsetValue(offset))
	})
}

func (b bolt) get(key []byte) (v []byte, err error) {
	err = b.db.View(func(tx *bbolt.Tx) error {
		v = append(v, tx.Bucket(bucket).Get(key)...)
		return nil
	})
	return v, err
}

func (b bolt) close() error { return b.db.Close() }
