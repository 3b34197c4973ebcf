package kafka

import (
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// confirmation is what one broker has told of the writer's topic: that it is the one
// that the writer began with.
//
// A produce request names a topic, not the topic's id, and one that was deleted and made
// anew takes what was meant for the other, by another count of partitions. So the broker
// is asked for the topic's id after each produce request, over the same connection. A
// deleted topic's id never comes back, so an id that is still the same was the same when
// the records were appended. It is not asked for some milliseconds (confirmedFor) if the latest
// answer was no error and offsets go on: those of another topic begin at 0. After an error
// it is asked before the next request, so that nothing more is sent in vain.
type confirmation struct {
	at    time.Time       // of the latest question that was answered well
	ends  map[int32]int64 // offsets of each partition are not below that
	doubt bool            // the latest answer was an error
}

// confirmedFor is far less than it takes to delete a topic, to make another
// and to write it as long as the first one was.
const confirmedFor = 10 * time.Millisecond

// produce sends a request. With confirm it succeeds only as confirmation says.
func (w *writer) produce(broker *sarama.Broker, req *sarama.ProduceRequest, c *confirmation) (*sarama.ProduceResponse, error) {
	if !w.confirm {
		return broker.Produce(req)
	}
	if c.doubt {
		if err := w.ask(broker, c); err != nil {
			return nil, notAppended(err)
		}
	}
	res, err := w.produceConfirmed(broker, req, c)
	c.doubt = err != nil || refusedAny(res)
	return res, err
}

func (w *writer) produceConfirmed(broker *sarama.Broker, req *sarama.ProduceRequest, c *confirmation) (*sarama.ProduceResponse, error) {
	type produced struct {
		res *sarama.ProduceResponse
		err error
	}
	answers := make(chan produced, 1)
	if err := broker.AsyncProduce(req, func(res *sarama.ProduceResponse, err error) { answers <- produced{res, err} }); err != nil {
		return nil, err
	}
	var moved error
	asked := time.Since(c.at) > confirmedFor/2 // it is due: at once, while the other is under way
	if asked {
		moved = w.ask(broker, c)
	}
	a := <-answers
	if a.err != nil {
		return nil, a.err
	}
	if !asked && (time.Since(c.at) > confirmedFor || !c.goOn(w.topic, a.res)) {
		moved = w.ask(broker, c)
	}
	if moved != nil {
		return nil, unconfirmed(moved)
	}
	c.keep(w.topic, a.res)
	return a.res, nil
}

// unconfirmed is the error of a request whose records were appended, nobody knows where:
// no word of the broker about the question is one about them.
func unconfirmed(err error) error {
	if errors.Is(err, ErrMoved) {
		return fmt.Errorf("%w, and the records may be on its successor", ErrMoved)
	}
	return fmt.Errorf("appended, but the topic is not confirmed: %s", err.Error())
}

// ask asks a broker whether the writer's topic is the one that it began with.
func (w *writer) ask(broker *sarama.Broker, c *confirmation) error {
	now := time.Now()
	err := w.sameTopic(broker)
	if err == nil {
		c.at = now
	}
	return err
}

// goOn tells whether all that res says was appended follows what was there.
func (c *confirmation) goOn(topic string, res *sarama.ProduceResponse) bool {
	for p, b := range res.Blocks[topic] {
		if end, known := c.ends[p]; b.Err == sarama.ErrNoError && (!known || b.Offset < end) {
			return false
		}
	}
	return true
}

func (c *confirmation) keep(topic string, res *sarama.ProduceResponse) {
	if c.ends == nil {
		c.ends = make(map[int32]int64)
	}
	for p, b := range res.Blocks[topic] {
		if b.Err == sarama.ErrNoError {
			c.ends[p] = b.Offset + 1
		}
	}
}

// leader is who takes a partition's records. Where nobody does, the topic may have been
// made anew, with fewer partitions.
func (w *writer) leader(partition int32) (*sarama.Broker, error) {
	leader, err := w.client.Leader(w.topic, partition)
	if err == nil || !w.confirm {
		return leader, err
	}
	if broker := w.client.LeastLoadedBroker(); broker != nil {
		if moved := w.sameTopic(broker); errors.Is(moved, ErrMoved) {
			return nil, moved
		}
	}
	return nil, err
}

func (w *writer) sameTopic(broker *sarama.Broker) error {
	meta, err := broker.GetMetadata(sarama.NewMetadataRequest(w.client.Config().Version, []string{w.topic}))
	if err != nil {
		return err
	}
	if err := absent(meta, w.topic); err != nil {
		return err
	}
	return w.owner.cluster.check(meta)
}

func refusedAny(res *sarama.ProduceResponse) bool {
	for _, partitions := range res.Blocks {
		for _, b := range partitions {
			if b.Err != sarama.ErrNoError {
				return true
			}
		}
	}
	return false
}
