package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// What TestMain prepares for all tests.
var (
	binary string // the program under test, built once
	runID  = fmt.Sprintf("%08x", rand.Uint32())
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

// inImage tells whether this is the process that TestImage starts in a network of its own.
func inImage() bool { return os.Getenv("IMAGE_ROOT") != "" }

func run(m *testing.M) int {
	if inImage() {
		return m.Run() // where nothing is shared
	}
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
	stopKafka, err := startShared(filepath.Join(dir, "kafka"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
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

// number reads a whole number from the environment of the tests.
func number(t *testing.T, name string, initial uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return initial
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// seeded returns a source of random moments that SEED repeats.
func seeded(t *testing.T) (*rand.Rand, uint64) {
	t.Helper()
	seed := number(t, "SEED", uint64(time.Now().UnixNano()))
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0)), seed
}

func between(rnd *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rnd.Int64N(int64(high-low)))
}
