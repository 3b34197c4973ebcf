package kafka

import (
	"errors"
	"fmt"
	"sync"

	"github.com/IBM/sarama"
)

// Ends tells where the partitions of a topic end, over connections that it keeps: it may
// be asked often.
type Ends struct {
	client *Client
	topic  string

	mu     sync.Mutex // not held while Kafka is asked
	last   *inquiry   // nil: none that works
	closed bool
}

type inquiry struct {
	sarama.Client
	sarama.ClusterAdmin
}

// Ends is to be closed.
func (c *Client) Ends(topic string) *Ends { return &Ends{client: c, topic: topic} }

// Ask is the high watermark of each partition in use, no older than the call. It ends by
// the timeouts of a probe. It must not be called by two at once.
func (e *Ends) Ask() (map[int32]int64, error) {
	if q := e.kept(); q != nil {
		if ends, err := e.ask(q); err == nil {
			return ends, nil
		}
		e.drop(q) // it may have been idle for too long
	}
	client, admin, err := e.client.admin(e.client.probeConfig())
	if err != nil {
		return nil, fmt.Errorf("ends of %s: %w", e.topic, err)
	}
	q := &inquiry{client, admin}
	if !e.keep(q) {
		_ = q.ClusterAdmin.Close()
		return nil, fmt.Errorf("ends of %s: %w", e.topic, sarama.ErrClosedClient)
	}
	ends, err := e.ask(q)
	if err != nil {
		e.drop(q)
		return nil, fmt.Errorf("ends of %s: %w", e.topic, err)
	}
	return ends, nil
}

func (e *Ends) ask(q *inquiry) (map[int32]int64, error) {
	partitions, err := q.Partitions(e.topic)
	if err != nil {
		return nil, err
	}
	newest := make(map[int32]int64)
	for _, p := range e.client.inUse(e.topic, partitions) {
		newest[p] = sarama.OffsetNewest
	}
	answers, err := q.ListOffsets(map[string]map[int32]int64{e.topic: newest}, nil)
	if err != nil {
		return nil, err
	}
	ends := make(map[int32]int64, len(newest))
	for p := range newest {
		a := answers[e.topic][p]
		if a == nil || a.Err != nil && !errors.Is(a.Err, sarama.ErrNoError) {
			return nil, fmt.Errorf("partition %d: %v", p, a)
		}
		ends[p] = a.Offset
	}
	return ends, nil
}

func (e *Ends) kept() *inquiry {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last
}

// keep keeps q; false once e is closed.
func (e *Ends) keep(q *inquiry) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.last = q
	return true
}

func (e *Ends) drop(q *inquiry) {
	e.mu.Lock()
	if e.last == q {
		e.last = nil
	}
	e.mu.Unlock()
	_ = q.ClusterAdmin.Close() // and the client with it; a second time does no harm
}

// Close closes the connections, also under one who asks.
func (e *Ends) Close() {
	e.mu.Lock()
	e.closed = true
	q := e.last
	e.last = nil
	e.mu.Unlock()
	if q != nil {
		_ = q.ClusterAdmin.Close()
	}
}
