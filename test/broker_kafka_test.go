//go:build kafka

package test

import (
	"context"
	"fmt"
	"os"
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
