package kafka

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
)

// mute takes connections and what is sent, and never answers.
func mute(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var conns sync.WaitGroup
	over := make(chan struct{})
	conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				stop := make(chan struct{})
				conns.Go(func() {
					select {
					case <-over:
					case <-stop:
					}
					_ = conn.Close()
				})
				_, _ = io.Copy(io.Discard, conn)
				close(stop)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		close(over)
		conns.Wait()
	})
	return ln.Addr().String()
}

// Whatever is asked of a Kafka that hangs ends by itself, well before anybody gives up on
// the program.
func TestMute(t *testing.T) {
	addr := mute(t)
	c := newClient(t, addr)
	in := c.In(Cluster{ID: "one", TopicIDs: map[string]string{"deposit": "x"}})
	for name, ask := range map[string]func(context.Context) error{
		"probe":   func(ctx context.Context) error { return c.Probe(ctx) },
		"still":   func(ctx context.Context) error { return in.Still(ctx) },
		"ensure":  func(ctx context.Context) error { _, err := c.Ensure(ctx, stream.Topics(), 1, 0); return err },
		"inspect": func(ctx context.Context) error { _, err := c.Inspect(ctx, stream.Topics()); return err },
		"ends":    func(ctx context.Context) error { _, err := c.HighWaters(ctx, "deposit"); return err },
		"starts":  func(ctx context.Context) error { _, err := c.LowWaters(ctx, "deposit"); return err },
		"group":   func(ctx context.Context) error { _, err := c.Committed(ctx, "balance", "deposit"); return err },
		"sights": func(ctx context.Context) error {
			_, err := c.Sights(ctx, map[string]string{"balance": "deposit"})
			return err
		},
		"scan": func(ctx context.Context) error {
			return c.Scan(ctx, "deposit", 0, 1, func(*sarama.ConsumerMessage) error { return nil })
		},
		"writer":  func(context.Context) error { _, err := c.TableWriter(TableOptions{Group: "balance"}); return err },
		"emitter": func(ctx context.Context) error { _, err := c.Producer(ctx, "x", "deposit"); return err },
		"reader":  func(context.Context) error { _, err := c.Reader(c.Brokers(), "x"); return err },
		"topics":  func(context.Context) error { _, err := c.TopicManager(c.Brokers()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			err := ask(within(t))
			took := time.Since(began)
			t.Logf("%v: %v", took.Round(10*time.Millisecond), err)
			if !errors.Is(err, ErrUnreachable) || took > 12*time.Second {
				t.Errorf("after %v: %v", took, err)
			}
		})
	}
}
