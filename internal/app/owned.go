package app

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"

	"coinbit/internal/kafka"
	"coinbit/internal/store"
	"coinbit/internal/stream"
)

// owned is the table partitions that a processor owns: claimed before they are
// recovered, written by their owner alone. It is the kafka.Owner of its group.
type owned struct {
	group  stream.Group
	input  input
	rows   *kafka.TableWriter
	out    *kafka.Producer
	keep   updater
	memory int64 // of one partition's store

	stores sync.Map // of parts, as *store.Store by partition: asked for each record, without a lock

	mu    sync.Mutex
	parts map[int32]*ownedPartition
	fatal error // what no retry mends; Goka wraps errors so that they are lost
}

// ownedPartition is one partition since its latest claim.
type ownedPartition struct {
	claimed int64 // offset of the claim
	store   *store.Store
	// repair are the keys whose newest record in the changelog is not ours. Until
	// they are written again, the store is held before the first of these records.
	repair map[string]bool
}

var _ kafka.Owner = (*owned)(nil)

// Claim claims a partition for this processor.
func (o *owned) Claim(ctx context.Context, partition int32) error {
	o.mu.Lock()
	delete(o.parts, partition) // ends a repair of before, which Goka does not wait for
	o.stores.Delete(partition)
	o.mu.Unlock()
	offset, err := o.rows.Claim(ctx, partition)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.parts[partition] = &ownedPartition{claimed: offset, repair: make(map[string]bool)}
	return nil
}

// Resume refuses to go on with a table and a log that do not belong together:
// deposits would be missing, or taken for old ones.
func (o *owned) Resume(ctx context.Context, topic string, partition int32, offset int64) error {
	was, err := o.part(partition).store.Get(stream.InputKey)
	switch {
	case err != nil:
		return err
	case was == nil && offset <= 0:
		return o.rows.Put(ctx, partition, stream.InputKey, []byte(o.input.String()))
	case was == nil:
		return o.end(fmt.Errorf("%w: %s/%d is new, but its group has read %s up to %d: "+
			"restore the table; or, to fold all tables anew, %s",
			kafka.ErrLayout, o.group.Table(), partition, topic, offset, stream.FoldAnew))
	}
	if err := o.input.differs(o.group.Table(), string(was)); err != nil {
		return o.end(err)
	}
	return nil
}

func (o *owned) part(partition int32) *ownedPartition {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.parts[partition]
}

// end keeps an error that ends the service.
func (o *owned) end(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fatal = err
	return err
}

// verdict is why the processor ended.
func (o *owned) verdict(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fatal != nil {
		return o.fatal
	}
	if denial := cmp.Or(o.rows.Denial(), o.out.Denial()); denial != nil && err != nil {
		return denial
	}
	return err
}

// opened is given the store of a partition, before it opens.
func (o *owned) opened(partition int32, s *store.Store) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.parts[partition]
	p.store = s
	s.Limit(p.claimed)
	s.Memory(o.memory)
	s.OnRecovered(func() { o.recovered(partition, p) })
	o.stores.Store(partition, s) // last: a late answer may ask for it at once
}

// stored is told of each row that the changelog holds.
func (o *owned) stored(partition int32, key string, value []byte, offset int64) error {
	s := o.storeOf(partition)
	if s == nil {
		return kafka.ErrFenced // a late answer: the partition was claimed anew since
	}
	return s.Acked(key, value, offset)
}

// row is the row that was just set, to be told in place of stored.
func (o *owned) row(partition int32, key string) kafka.Row {
	if s := o.storeOf(partition); s != nil {
		if row, ok := s.Pending(key); ok {
			return row
		}
	}
	return nil
}

// storeOf is the store of a partition that was opened since its latest claim.
func (o *owned) storeOf(partition int32) *store.Store {
	if s, ok := o.stores.Load(partition); ok {
		return s.(*store.Store) //nolint:forcetypeassert // opened stored it
	}
	return nil
}

// recover applies a record of the changelog.
func (o *owned) recover(ctx goka.UpdateContext, s storage.Storage, key string, value []byte) error {
	if stream.Reserved(key) {
		return s.Set(key, value)
	}
	verdict, err := o.keep(s, key, value)
	if p := o.part(ctx.Partition()); verdict == outdated {
		p.repair[key] = true
		p.store.Hold(ctx.Offset())
	} else {
		delete(p.repair, key)
	}
	return err
}

// recovered writes again what a stale writer had the last word on; compaction
// would keep that.
func (o *owned) recovered(partition int32, p *ownedPartition) {
	var left atomic.Int64
	left.Store(int64(len(p.repair)) + 1)
	done := func(err error) {
		if err == nil && left.Add(-1) == 0 { // if it fails, so does the next row
			p.store.Release()
		}
	}
	for key := range p.repair {
		row, err := p.store.Get(key)
		if err != nil || row == nil || o.part(partition) != p || p.store.Set(key, row) != nil {
			return // the next recovery begins there again
		}
		o.rows.Repair(key, row).Then(done)
	}
	done(nil)
}
