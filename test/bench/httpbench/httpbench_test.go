package httpbench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"coinbit/internal/kafkatest/child"
)

// TestMain is the ceiling's process when CEILING names its address.
func TestMain(m *testing.M) {
	addr := os.Getenv("CEILING")
	if addr == "" {
		goleak.VerifyTestMain(m)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := Serve(ctx, addr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// The loads find all they need at the ceiling, in a process of its own.
func TestLoads(t *testing.T) {
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CEILING="+addr)
	cmd.Stderr = os.Stderr
	p, err := child.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(10 * time.Second)
	for end := time.Now().Add(30 * time.Second); ; <-time.After(10 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(end) || !p.Running() {
			t.Fatal("the ceiling does not listen")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const short = 200 * time.Millisecond
	for name, load := range map[string]func(context.Context, string, int, time.Duration) (Figures, error){
		"deposit": Deposit, "keyed": DepositKeyed, "check": Check,
		"at a rate": func(ctx context.Context, addr string, connections int, d time.Duration) (Figures, error) {
			return DepositAtRate(ctx, addr, connections, 500, d)
		},
	} {
		f, err := load(ctx, addr, 4, short)
		if err != nil || f.PerSecond < 50 || f.P50 <= 0 || f.P99 < f.P50 {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		t.Logf("%s: %+v", name, f)
	}
	if p.Stop(10 * time.Second); p.ExitCode() != 0 {
		t.Errorf("the ceiling ended with %d", p.ExitCode())
	}
}

// What is no deposit is refused, so that a load cannot be quick by being wrong.
func TestCeilingRefuses(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/api/deposit", `{"wallet_id":"w","amount":1.5}`, 200}, {"GET", "/api/check/w", "", 200},
		{"POST", "/api/deposit", `{"wallet_id":"w"}`, 400}, {"POST", "/api/deposit", `{`, 400},
		{"GET", "/api/deposit", "", 405}, {"GET", "/api/check/", "", 404},
	} {
		w := httptest.NewRecorder()
		Ceiling().ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status {
			t.Errorf("%s %s %s: %d", c.method, c.path, c.body, w.Code)
		}
	}
}

// figures takes no load for good of which something failed.
func TestFailedLoad(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if bytes.Contains(b, []byte("7")) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if f, err := Deposit(ctx, s.Listener.Addr().String(), 2, 100*time.Millisecond); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("%+v, %v", f, err)
	}
}
