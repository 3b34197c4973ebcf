package kafka

import (
	"context"
	"sync"

	"github.com/IBM/sarama"
)

// fakeSession notes the marks that reach sarama.
type fakeSession struct {
	sarama.ConsumerGroupSession // whatever else is called panics
	mu                          sync.Mutex
	marks                       map[topicPartition][]int64
	claims                      map[string][]int32
}

// newFakeSession has a claim on each of so many partitions of deposit.
func newFakeSession(partitions int32) *fakeSession {
	s := &fakeSession{marks: make(map[topicPartition][]int64), claims: make(map[string][]int32)}
	for p := range partitions {
		s.claims["deposit"] = append(s.claims["deposit"], p)
	}
	return s
}

func (s *fakeSession) Context() context.Context   { return context.Background() }
func (s *fakeSession) Claims() map[string][]int32 { return s.claims }

func (s *fakeSession) MarkOffset(topic string, partition int32, offset int64, _ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tp := topicPartition{topic, partition}
	s.marks[tp] = append(s.marks[tp], offset)
}

// committed is what sarama would commit: the largest mark; -1 for none.
func (s *fakeSession) committed(topic string, partition int32) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := int64(-1)
	for _, o := range s.marks[topicPartition{topic, partition}] {
		most = max(most, o)
	}
	return most
}

// fakeClaim is one claimed partition.
type fakeClaim struct {
	topic     string
	partition int32
	initial   int64
	in        chan *sarama.ConsumerMessage
	mu        sync.Mutex
	high      int64
}

func newFakeClaim(topic string, partition int32, initial int64) *fakeClaim {
	return &fakeClaim{topic: topic, partition: partition, initial: initial, in: make(chan *sarama.ConsumerMessage)}
}

func (c *fakeClaim) Topic() string                            { return c.topic }
func (c *fakeClaim) Partition() int32                         { return c.partition }
func (c *fakeClaim) InitialOffset() int64                     { return c.initial }
func (c *fakeClaim) Messages() <-chan *sarama.ConsumerMessage { return c.in }

func (c *fakeClaim) HighWaterMarkOffset() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.high
}

func (c *fakeClaim) setHigh(high int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.high = high
}

// deliver has sarama deliver a message.
func (c *fakeClaim) deliver(f *Inflight, offset int64) *sarama.ConsumerMessage {
	m := &sarama.ConsumerMessage{Topic: c.topic, Partition: c.partition, Offset: offset}
	f.OnConsume(m)
	return m
}
