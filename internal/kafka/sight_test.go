package kafka

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
)

// Sights tells what a group has committed and how it is, and of one group's trouble
// nothing that hides the others.
func TestSights(t *testing.T) {
	c := newClient(t, startBroker(t))
	_, err := c.Ensure(within(t), stream.Topics(), 3, 1)
	must(t, err)
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		_, err := c.Send(within(t), "deposit", key, []byte("x"))
		must(t, err)
	}
	look := func() map[string]Sight {
		t.Helper()
		sights, err := c.Sights(within(t), map[string]string{"balance": "deposit", "flagger": "no_such_topic"})
		must(t, err)
		if s := sights["flagger"]; s.Err == nil || Denied(s.Err) {
			t.Errorf("a topic that is not there: %+v", s)
		}
		return sights
	}
	sum := func(offsets map[int32]int64) (n int64) {
		for _, o := range offsets {
			n += o
		}
		return n
	}
	none := look()["balance"]
	if none.Err != nil || none.Members != 0 || none.Owned != 0 || len(none.Ends) != 3 || sum(none.Ends) != 5 || sum(none.Committed) != 0 {
		t.Errorf("before anybody joined: %+v", none)
	}
	if none.State != "Dead" && none.State != "Empty" {
		t.Errorf("before anybody joined it is %s", none.State)
	}

	group, err := sarama.NewConsumerGroup(c.Brokers(), "balance", c.groupConfig("test"))
	must(t, err)
	ctx, leave := context.WithCancel(within(t))
	took := &taker{}
	done := make(chan error, 1)
	go func() { done <- group.Consume(ctx, []string{"deposit"}, took) }()
	eventually(t, "all deposits committed", func() bool {
		s := look()["balance"]
		return s.State == "Stable" && s.Members == 1 && s.Owned == 3 && sum(s.Committed) == 5
	})
	leave()
	must(t, <-done)
	must(t, group.Close())
	eventually(t, "an empty group", func() bool {
		s := look()["balance"]
		return s.State == "Empty" && s.Members == 0 && sum(s.Committed) == 5
	})
}

// Without a broker it fails within its time.
func TestSightsAway(t *testing.T) {
	c := newClient(t, "127.0.0.1:1")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := c.Sights(ctx, map[string]string{"balance": "deposit"}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

// taker marks all it gets.
type taker struct{}

func (*taker) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*taker) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (*taker) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	for m := range c.Messages() {
		s.MarkMessage(m, "")
		s.Commit()
	}
	return nil
}
