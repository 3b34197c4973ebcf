package kafka

import (
	"strconv"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
)

// Headers that a dead letter carries besides the record's own.
const (
	HeaderReason    = "dead-letter-reason"
	HeaderTopic     = "dead-letter-topic"
	HeaderPartition = "dead-letter-partition"
	HeaderOffset    = "dead-letter-offset"
)

// SetAside sends a delivered record to topic: key, value bytes and headers as
// they came, plus reason and source position. The promise resolves when it is
// stored.
func (p *Producer) SetAside(topic goka.Stream, m *sarama.ConsumerMessage, reason string) *goka.Promise {
	out := &sarama.ProducerMessage{Topic: string(topic), Timestamp: m.Timestamp}
	if m.Key != nil {
		out.Key = sarama.ByteEncoder(m.Key)
	}
	if m.Value != nil {
		out.Value = sarama.ByteEncoder(m.Value)
	}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, *h)
	}
	for _, h := range [][2]string{
		{HeaderReason, reason},
		{HeaderTopic, m.Topic},
		{HeaderPartition, strconv.Itoa(int(m.Partition))},
		{HeaderOffset, strconv.FormatInt(m.Offset, 10)},
	} {
		out.Headers = append(out.Headers, sarama.RecordHeader{Key: []byte(h[0]), Value: []byte(h[1])})
	}
	return p.send(out)
}
