package app

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"

	"coinbit/internal/broker"
	"coinbit/internal/config"
	"coinbit/internal/kafka"
	"coinbit/internal/stream"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// runtimeOf is a Runtime with the given settings and a log that can be read.
func runtimeOf(t *testing.T, o Options, env ...string) (*Runtime, *syncBuffer) {
	t.Helper()
	cfg, err := config.Load(filepath.Join(t.TempDir(), "none.env"), env)
	must(t, err)
	log := &syncBuffer{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	rt, err := New(cfg, o)
	must(t, err)
	return rt, log
}

func startBrokerAt(t *testing.T, dir, addr string) *broker.Broker {
	t.Helper()
	b, err := broker.Start(context.Background(), dir, addr)
	must(t, err)
	return b
}

// world is a broker with the suite's topics and a client of it.
type world struct {
	addr    string
	client  *kafka.Client
	cluster kafka.Cluster
}

func newWorld(t *testing.T) *world {
	t.Helper()
	b := startBrokerAt(t, t.TempDir(), "127.0.0.1:0")
	t.Cleanup(b.Close)
	client, err := kafka.NewClient(kafka.Settings{Brokers: []string{b.Addr()}}, slog.New(slog.DiscardHandler))
	must(t, err)
	cluster, err := client.Ensure(soon(t), stream.Topics(), 2, 0)
	must(t, err)
	return &world{b.Addr(), client, cluster}
}

// soon is a context that bounds a wait.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	must(t, err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, string(b)
}
