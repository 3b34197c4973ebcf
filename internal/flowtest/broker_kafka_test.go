//go:build kafka

package flowtest

import (
	"context"
	"os"
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
