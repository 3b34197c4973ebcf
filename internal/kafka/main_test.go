package kafka

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"coinbit/internal/broker"
	"coinbit/internal/stream"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(thenStop{m},
		// One for the process, started by sarama's metrics.
		goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}

// thenStop ends what all tests share.
type thenStop struct{ *testing.M }

func (m thenStop) Run() int {
	defer stopTableBroker()
	return m.M.Run()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no sign of %s", what)
		}
	}
}

// within is a context that bounds a test's wait.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func startBroker(t testing.TB) string {
	t.Helper()
	b, err := broker.Start(context.Background(), t.TempDir(), "127.0.0.1:0")
	must(t, err)
	t.Cleanup(b.Close)
	return b.Addr()
}

// nobody is an address where nothing listens.
func nobody(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, ln.Close())
	return ln.Addr().String()
}

func newClient(t testing.TB, brokers ...string) *Client {
	t.Helper()
	c, err := NewClient(Settings{Brokers: brokers}, slog.New(slog.DiscardHandler))
	must(t, err)
	return c
}

// logBook keeps what is logged.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBook) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func (l *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// mortal is a client of a broker that stop ends.
func mortal(t testing.TB, partitions int32) (c *Client, stop func()) {
	t.Helper()
	b, err := broker.Start(context.Background(), t.TempDir(), "127.0.0.1:0")
	must(t, err)
	stop = sync.OnceFunc(b.Close)
	t.Cleanup(stop)
	c = newClient(t, b.Addr())
	_, err = c.Ensure(within(t), stream.Topics(), partitions, 0)
	must(t, err)
	return c, stop
}
