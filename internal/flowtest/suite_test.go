// Package flowtest runs the whole suite, every service as in production, against
// a broker, and drives it through HTTP with scenarios that read like the
// contract: on the embedded broker by default, on real Apache Kafka with the
// build tag kafka.
package flowtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"coinbit/internal/app"
	"coinbit/internal/config"
)

// deadline bounds every wait of a test. It is generous: machines are shared.
const deadline = 60 * time.Second

// clock is the event time that the API gives deposits.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time  { return time.Unix(0, c.ns.Load()) }
func (c *clock) set(t time.Time) { c.ns.Store(t.UnixNano()) }

// instance is one running service.
type instance struct {
	service string
	stop    context.CancelFunc
	done    chan error
	addr    string // where its HTTP listens
}

// suite is the four services of one cluster.
type suite struct {
	t      testing.TB
	clock  *clock
	env    []string
	state  string
	log    *lockedBuffer
	mu     sync.Mutex
	byName map[string]*instance
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var services = []string{"balance", "threshold", "flagger", "api"}

// newSuite starts the services against broker; env overrides settings.
func newSuite(t testing.TB, broker string, env ...string) *suite {
	t.Helper()
	s := &suite{
		t: t, clock: &clock{}, state: t.TempDir(), log: &lockedBuffer{}, byName: make(map[string]*instance),
	}
	s.clock.set(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s.env = append([]string{
		"BROKER=" + broker, "STATE_DIR=" + s.state, "PORT=0", "ADMIN_PORT=0", "PARTITIONS=4",
	}, env...)
	t.Cleanup(func() {
		s.stop(services...)
		if t.Failed() {
			lines := strings.Split(s.log.String(), "\n")
			t.Logf("the services' log, last lines:\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
	})
	s.start(services...)
	return s
}

func (s *suite) start(names ...string) {
	s.t.Helper()
	for _, name := range names {
		cfg, err := config.Load(filepath.Join(s.state, "none.env"), s.env)
		if err != nil {
			s.t.Fatal(err)
		}
		listening := make(chan string, 1)
		rt, err := app.New(cfg, app.Options{
			Log:    slog.New(slog.NewTextHandler(s.log, nil)).With("at", name),
			Stdout: io.Discard, Now: s.clock.now,
			OnListen: func(addr string) { listening <- addr },
		})
		if err != nil {
			s.t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		i := &instance{service: name, stop: cancel, done: make(chan error, 1)}
		go func() { i.done <- rt.Run(ctx, app.Command{Service: name}) }()
		select {
		case i.addr = <-listening:
		case err := <-i.done:
			s.t.Fatalf("%s ended: %v", name, err)
		case <-time.After(deadline):
			s.t.Fatalf("%s does not listen", name)
		}
		s.mu.Lock()
		s.byName[name] = i
		s.mu.Unlock()
	}
	for _, name := range names {
		s.eventually(name+" is ready", func() error {
			status, body := s.get(name, "/readyz", nil)
			if status != http.StatusOK {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	}
}

// stop ends services and expects that they flushed everything.
func (s *suite) stop(names ...string) {
	s.t.Helper()
	for _, name := range names {
		if i := s.byName[name]; i != nil {
			i.stop()
		}
	}
	for _, name := range names {
		i := s.byName[name]
		if i == nil {
			continue
		}
		select {
		case err := <-i.done:
			if err != nil {
				s.t.Errorf("%s stopped with %v", name, err)
			}
		case <-time.After(deadline):
			s.t.Errorf("%s does not stop", name)
		}
		delete(s.byName, name)
	}
}

func (s *suite) restart(names ...string) {
	s.t.Helper()
	s.stop(names...)
	s.start(names...)
}

// loseState deletes what a stopped service keeps on disk.
func (s *suite) loseState(name string) {
	s.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(s.state, "*", name))
	if err != nil || len(dirs) == 0 {
		s.t.Fatalf("no state of %s: %v", name, err)
	}
	for _, d := range dirs {
		if err := os.RemoveAll(d); err != nil {
			s.t.Fatal(err)
		}
	}
}

// eventually waits until f is nil.
func (s *suite) eventually(what string, f func() error) {
	s.t.Helper()
	end := time.Now().Add(deadline)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

var client = &http.Client{Timeout: 15 * time.Second}

func (s *suite) get(name, path string, header http.Header) (int, string) {
	return s.do(http.MethodGet, name, path, "", header)
}

func (s *suite) do(method, name, path, body string, header http.Header) (int, string) {
	status, text, _ := s.request(method, name, path, body, header)
	return status, text
}

func (s *suite) request(method, name, path, body string, header http.Header) (int, string, http.Header) {
	s.t.Helper()
	req, err := http.NewRequest(method, "http://"+s.byName[name].addr+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := client.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(text), res.Header
}
