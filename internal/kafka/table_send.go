package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// produceTimeout is how long a leader waits for its in-sync replicas.
const produceTimeout = 10 * time.Second

// tableJob is a batch on its way to a leader.
type tableJob struct {
	partition int32
	batch     *sarama.RecordBatch
	answer    chan tableAnswer // takes one
}

type tableAnswer struct {
	offset int64 // of the first record
	err    error
}

// submit hands a batch to the sender of its partition's leader.
func (w *TableWriter) submit(partition int32, b *sarama.RecordBatch) chan tableAnswer {
	answer := make(chan tableAnswer, 1)
	leader, err := w.client.Leader(w.table, partition)
	if err != nil {
		answer <- tableAnswer{err: err}
		return answer
	}
	w.mu.Lock()
	jobs, ok := w.senders[leader]
	if !ok {
		jobs = make(chan tableJob, w.Partitions)
		w.senders[leader] = jobs
		w.wg.Go(func() { w.send(leader, jobs) })
	}
	w.mu.Unlock()
	select {
	case jobs <- tableJob{partition, b, answer}:
	case <-w.ctx.Done():
	}
	return answer
}

// send makes one request at a time of all batches that wait for a broker.
func (w *TableWriter) send(broker *sarama.Broker, jobs <-chan tableJob) {
	var batch []tableJob
	for {
		batch = batch[:0]
		select {
		case j := <-jobs:
			batch = append(batch, j)
		case <-w.ctx.Done():
			return
		}
		for more := true; more; {
			select {
			case j := <-jobs:
				batch = append(batch, j)
			default:
				more = false
			}
		}
		w.request(broker, batch)
	}
}

func (w *TableWriter) request(broker *sarama.Broker, batch []tableJob) {
	req := &sarama.ProduceRequest{
		RequiredAcks: sarama.WaitForAll, Timeout: int32(produceTimeout.Milliseconds()), Version: 7, //nolint:gosec // seconds
	}
	for _, j := range batch {
		req.AddBatch(w.table, j.partition, j.batch)
	}
	res, err := broker.Produce(req)
	if err != nil {
		_ = broker.Close() // the next look-up of the leader connects anew
	}
	for _, j := range batch {
		a := tableAnswer{err: err}
		if err == nil {
			switch block := res.GetBlock(w.table, j.partition); {
			case block == nil:
				a.err = sarama.ErrIncompleteResponse
			case !errors.Is(block.Err, sarama.ErrNoError):
				a.err = block.Err
			default:
				a.offset = block.Offset
			}
		}
		j.answer <- a
	}
}

// nextEpoch asks the transaction coordinator for the partition's producer id
// with the next epoch. With an epoch in hand it is refused when another
// instance got one since.
func (p *tablePartition) nextEpoch(ctx context.Context) error {
	id := p.w.Group.TransactionalID(p.id)
	req := &sarama.InitProducerIDRequest{
		Version: 3, TransactionalID: &id, TransactionTimeout: time.Minute,
		ProducerID: p.producerID, ProducerEpoch: p.epoch,
	}
	for {
		res, err := await(ctx, func() (*sarama.InitProducerIDResponse, error) {
			coordinator, err := p.w.client.TransactionCoordinator(id)
			if err != nil {
				return nil, err
			}
			res, err := coordinator.InitProducerID(req)
			if err != nil {
				_ = coordinator.Close()
				return nil, err
			}
			if !errors.Is(res.Err, sarama.ErrNoError) {
				return nil, res.Err
			}
			return res, nil
		})
		switch {
		case err == nil:
			p.producerID, p.epoch, p.sequence = res.ProducerID, res.ProducerEpoch, 0
			return nil
		case errors.Is(err, sarama.ErrInvalidProducerEpoch), errors.Is(err, sarama.ErrProducerFenced):
			return fmt.Errorf("%s/%d: %w: %w", p.w.table, p.id, ErrFenced, err)
		case errors.Is(err, sarama.ErrTransactionalIDAuthorizationFailed):
			return p.w.denied(p.w.Group.FenceRight())
		case !retriable(err):
			return fmt.Errorf("transactional id %s: %w", id, err)
		}
		select {
		case <-time.After(retryBackoff):
		case <-ctx.Done():
			return fmt.Errorf("transactional id %s: %w: %w (brokers that are fewer than "+
				"their transaction.state.log.replication.factor cannot give one)", id, ctx.Err(), err)
		}
		_ = p.w.client.RefreshTransactionCoordinator(id) // a failure shows at the next attempt
	}
}
