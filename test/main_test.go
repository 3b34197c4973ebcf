//go:build kafka

package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"coinbit/internal/kafkatest"
)

// What TestMain prepares for all tests.
var (
	binary    string // the program under test, built once
	bootstrap string // the Kafka the tests share
	ownKafka  bool   // false: BROKER names it, and it may hold earlier data
	runID     = fmt.Sprintf("%08x", rand.Uint32())
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "coinbit-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "coinbit")
	build := exec.Command("go", "build", "-race=false", "-o", binary, "./cmd")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	stopKafka := func() {}
	if bootstrap = os.Getenv("BROKER"); bootstrap == "" {
		began := time.Now()
		c, err := kafkatest.Start(context.Background(), kafkatest.Options{Dir: filepath.Join(dir, "kafka")})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		bootstrap, ownKafka, stopKafka = c.Bootstrap(), true, c.Stop
		fmt.Printf("Apache Kafka %s up in %v\n", kafkatest.Version, time.Since(began).Round(time.Millisecond))
	}
	code := m.Run()
	stopKafka()
	// One goroutine of sarama's metrics library never ends, and toxiproxy leaves
	// toxics and readers of cut connections behind.
	if err := goleak.Find(goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read")); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}
