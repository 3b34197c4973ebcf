//go:build !kafka

package flowtest

import (
	"context"
	"testing"

	"coinbit/internal/broker"
)

// startBroker starts an embedded broker for one test.
func startBroker(t testing.TB) string {
	t.Helper()
	b, err := broker.Start(context.Background(), t.TempDir(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b.Addr()
}
