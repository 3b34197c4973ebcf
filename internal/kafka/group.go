package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	"coinbit/internal/stream"
)

// Owner takes possession of what a session is assigned.
type Owner interface {
	// Claim is called for each partition before Goka recovers its table.
	Claim(ctx context.Context, partition int32) error
	// Resume is told where an input partition is read on, after recovery and
	// before its first message; negative: from the start.
	Resume(ctx context.Context, topic string, partition int32, offset int64) error
}

// GroupBuilder returns Goka's hook for the consumer group, wrapped so that
// partitions are claimed first, offsets are marked only in order and a failed
// session ends the processor.
func (c *Client) GroupBuilder(inflight *Inflight, owner Owner) goka.ConsumerGroupBuilder {
	return func(brokers []string, group, clientID string) (sarama.ConsumerGroup, error) {
		cfg := c.groupConfig(clientID)
		cfg.Consumer.Interceptors = []sarama.ConsumerInterceptor{inflight}
		inner, err := sarama.NewConsumerGroup(brokers, group, cfg)
		if err != nil {
			return nil, err
		}
		inflight.flow = inner
		g := &consumerGroup{ConsumerGroup: inner, inflight: inflight, owner: owner, bare: c.bare, errs: make(chan error), stop: make(chan struct{})}
		g.lacks = c.denied(stream.Right{Operation: stream.Read, Resource: stream.GroupResource, Name: group})
		g.watcher.Add(1)
		go g.watch()
		return g, nil
	}
}

// consumerGroup keeps Goka from its two habits that cost here: a pause of five
// seconds at each rebalance, and a new session after a failed one in the same
// processor. A rebalance joins again at once; a failure is returned, and the
// supervisor builds anew.
type consumerGroup struct {
	sarama.ConsumerGroup
	inflight *Inflight
	owner    Owner
	bare     bareFunc
	errs     chan error // never sent on: Goka only logs what comes
	stop     chan struct{}
	watcher  sync.WaitGroup

	lacks error // what to say when Kafka denies the group

	mu   sync.Mutex
	last error
	end  context.CancelFunc // of the session
}

// Errors satisfies sarama.ConsumerGroup; watch reads the real channel.
func (g *consumerGroup) Errors() <-chan error { return g.errs }

func (g *consumerGroup) watch() {
	defer g.watcher.Done()
	for {
		select {
		case err, ok := <-g.ConsumerGroup.Errors():
			if !ok {
				return
			}
			g.mu.Lock()
			g.last = errors.Join(g.last, err)
			if shutOut(err) && g.end != nil { // sarama would go on asking, and nobody would know
				g.end()
			}
			g.mu.Unlock()
		case <-g.stop:
			return
		}
	}
}

func (g *consumerGroup) takeError() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.last
	g.last = nil
	return err
}

// Close leaves the group.
func (g *consumerGroup) Close() error {
	close(g.stop)
	g.watcher.Wait()
	return g.ConsumerGroup.Close()
}

// rejoinPause keeps an endless rebalance from becoming a busy loop.
const rejoinPause = 50 * time.Millisecond

// Consume runs sessions until ctx is done or one fails.
func (g *consumerGroup) Consume(ctx context.Context, topics []string, h sarama.ConsumerGroupHandler) error {
	for {
		err := g.session(ctx, topics, handler{h, g.inflight, g.owner, g.bare})
		if ctx.Err() != nil {
			if errors.Is(err, stream.ErrSessionOver) || errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		failed := g.takeError()
		switch {
		case errors.Is(failed, sarama.ErrGroupAuthorizationFailed) || errors.Is(err, sarama.ErrGroupAuthorizationFailed):
			return g.lacks
		case shutOut(failed):
			return failed
		case errors.Is(failed, sarama.ErrOffsetOutOfRange) || errors.Is(err, sarama.ErrOffsetOutOfRange):
			return fmt.Errorf("the committed offset is not in the log: a topic of %v was truncated or re-created; "+
				"restore it, or delete this group's offsets and its table together to fold it anew: %w",
				topics, sarama.ErrOffsetOutOfRange)
		case err != nil && !errors.Is(err, stream.ErrSessionOver):
			return err
		case failed != nil && !errors.Is(failed, stream.ErrSessionOver):
			return failed
		}
		select {
		case <-time.After(rejoinPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// session is one session, which watch may end.
func (g *consumerGroup) session(ctx context.Context, topics []string, h sarama.ConsumerGroupHandler) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	g.mu.Lock()
	g.end = end
	g.mu.Unlock()
	return g.ConsumerGroup.Consume(ctx, topics, h)
}

// handler passes Goka a session that keeps count of what is in flight.
type handler struct {
	sarama.ConsumerGroupHandler
	inflight *Inflight
	owner    Owner
	bare     bareFunc
}

func (h handler) Setup(s sarama.ConsumerGroupSession) error {
	if err := h.claim(s); err != nil {
		return err
	}
	err := h.ConsumerGroupHandler.Setup(h.inflight.begin(s))
	if err != nil && s.Context().Err() != nil {
		return stream.ErrSessionOver // a recovery that it cut short is no fault
	}
	return err
}

// claim claims all partitions at the same time.
func (h handler) claim(s sarama.ConsumerGroupSession) error {
	partitions := make(map[int32]bool)
	for _, claims := range s.Claims() {
		for _, p := range claims {
			partitions[p] = true
		}
	}
	errs := make(chan error, len(partitions))
	for p := range partitions {
		go func() { errs <- h.owner.Claim(s.Context(), p) }()
	}
	var failed error
	for range partitions {
		if err := <-errs; failed == nil || err != nil && err.Error() != failed.Error() { // each may lack the same right
			failed = errors.Join(failed, err)
		}
	}
	if s.Context().Err() != nil {
		return stream.ErrSessionOver
	}
	return failed
}

func (h handler) Cleanup(s sarama.ConsumerGroupSession) error {
	return h.ConsumerGroupHandler.Cleanup(h.inflight.session(s))
}

func (h handler) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	if err := h.owner.Resume(s.Context(), c.Topic(), c.Partition(), c.InitialOffset()); err != nil {
		return err
	}
	h.inflight.claim(c)
	ctx, cancel := context.WithCancel(s.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		h.inflight.passBare(ctx, s, c, h.bare)
	}()
	defer func() {
		cancel()
		<-over
	}()
	return h.ConsumerGroupHandler.ConsumeClaim(h.inflight.session(s), c)
}
