//go:build kafka

package flowtest

import (
	"context"
	"net"
	"os"
	"strconv"
	"testing"

	"coinbit/internal/kafkatest"
)

// startBroker starts a real Kafka for one test, or uses the user's own on BROKER.
func startBroker(t testing.TB) string {
	t.Helper()
	if b := os.Getenv("BROKER"); b != "" {
		return b
	}
	cluster, err := kafkatest.Start(context.Background(), kafkatest.Options{Dir: t.TempDir(), Brokers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Stop)
	return cluster.Bootstrap()
}

// startReplaceable starts a real Kafka; replace puts another cluster in its place, on
// the same address, once prepare has seen it on its own.
func startReplaceable(t testing.TB) (addr string, replace func(prepare func(addr string))) {
	t.Helper()
	start := func(dir string, port int) *kafkatest.Cluster {
		cluster, err := kafkatest.Start(context.Background(), kafkatest.Options{Dir: dir, Brokers: 1, Port: port})
		if err != nil {
			t.Fatal(err)
		}
		return cluster
	}
	cluster := start(t.TempDir(), 0)
	t.Cleanup(func() { cluster.Stop() })
	addr = cluster.Bootstrap()
	return addr, func(prepare func(addr string)) {
		_, text, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		port, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		other := start(dir, 0)
		prepare(other.Bootstrap())
		other.Stop()
		cluster.Stop()
		cluster = start(dir, port)
	}
}
