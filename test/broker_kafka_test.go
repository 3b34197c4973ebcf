//go:build kafka

package test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"coinbit/internal/kafkatest"
)

// The Kafka that the tests share.
var (
	bootstrap string
	ownKafka  bool // false: BROKER names it, and it may hold earlier data
)

// What TestChaos runs on, and tries, unless BROKERS and KINDS say otherwise: all.
const chaosBrokers, chaosKinds = "1", ""

func startShared(dir string) (stop func(), err error) {
	if bootstrap = os.Getenv("BROKER"); bootstrap != "" {
		return func() {}, nil
	}
	began := time.Now()
	c, err := kafkatest.Start(context.Background(), kafkatest.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	bootstrap, ownKafka = c.Bootstrap(), true
	fmt.Printf("Apache Kafka %s up in %v\n", kafkatest.Version, time.Since(began).Round(time.Millisecond))
	return c.Stop, nil
}

// needsOwnKafka is for tests that start a Kafka with settings of their own, or stop it. With
// BROKER they are skipped; CI has none to name.
func needsOwnKafka(t *testing.T) {
	t.Helper()
	if ownKafka {
		return
	}
	const why = "this needs a Kafka of its own; it cannot use the one on BROKER"
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}
