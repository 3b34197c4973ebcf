package api_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"coinbit/internal/api"
)

// channel is a source that one may watch.
type channel struct {
	messages chan []byte
	mu       sync.Mutex
	watched  int
}

func (c *channel) Watch() (<-chan []byte, func(), bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched > 0 {
		return nil, nil, false
	}
	c.watched++
	return c.messages, func() { c.mu.Lock(); defer c.mu.Unlock(); c.watched-- }, true
}

func (c *channel) free() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watched == 0
}

func newChannel() *channel { return &channel{messages: make(chan []byte)} }

func watching(c *channel) func(*api.Options) { return func(o *api.Options) { o.Live = c } }

// open begins a stream and returns what reads it.
func open(t *testing.T, addr string) (*http.Response, *bufio.Reader) {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	res, err := (&http.Client{Transport: transport}).Get("http://" + addr + "/api/live")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res, bufio.NewReader(res.Body)
}

func (c *channel) awaitFree(t *testing.T, what string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !c.free(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: still watched", what)
		}
	}
}

// A stream goes out message by message, also after what a request may take in all.
func TestLive(t *testing.T) {
	t.Parallel()
	c := newChannel()
	addr := serve(t, newWorld().handler(t, watching(c)), func(s *api.Server) {
		s.ReadTimeout, s.WriteTimeout = 50*time.Millisecond, 100*time.Millisecond
	})
	go func() { c.messages <- []byte("event: hello\ndata: 1\n\n") }()
	res, stream := open(t, addr)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	for range 5 {
		for _, want := range []string{"event: hello\n", "data: 1\n", "\n"} {
			if got, err := stream.ReadString('\n'); err != nil || got != want {
				t.Fatalf("%q, %v", got, err)
			}
		}
		time.Sleep(60 * time.Millisecond) // longer than a request may take, in all
		select {
		case c.messages <- []byte("event: hello\ndata: 1\n\n"):
		case <-time.After(10 * time.Second):
			t.Fatal("the stream does not take a message")
		}
	}
	second, _ := open(t, addr)
	if body, _ := io.ReadAll(second.Body); second.StatusCode != http.StatusServiceUnavailable || second.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "overloaded") {
		t.Errorf("one too many: %d %s", second.StatusCode, body)
	}
	_ = res.Body.Close()
	c.awaitFree(t, "a client that left")
}

// A source that ends, ends the stream.
func TestLiveEnds(t *testing.T) {
	t.Parallel()
	c := newChannel()
	addr := serve(t, newWorld().handler(t, watching(c)), unchanged)
	go func() { c.messages <- []byte("data: 1\n\n"); close(c.messages) }()
	_, stream := open(t, addr)
	if got, err := io.ReadAll(stream); err != nil || string(got) != "data: 1\n\n" {
		t.Errorf("%q, %v", got, err)
	}
	c.awaitFree(t, "the end")
}

// A server that stops waits for no stream.
func TestLiveShutdown(t *testing.T) {
	t.Parallel()
	c := newChannel()
	var server *api.Server
	addr := serve(t, newWorld().handler(t, watching(c)), func(s *api.Server) { server = s })
	go func() { c.messages <- []byte("data: 1\n\n") }()
	_, stream := open(t, addr)
	if got, err := stream.ReadString('\n'); err != nil {
		t.Fatal(got, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil || !c.free() {
		t.Errorf("%v, free: %v", err, c.free())
	}
	if got, err := io.ReadAll(stream); err != nil || string(got) != "\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// impatient is a live stream, served on an address, that lets go of who takes nothing soon.
func impatient(t *testing.T) (*channel, string) {
	t.Helper()
	c := newChannel()
	o := newWorld().options()
	o.Live = c
	a, err := api.New(o)
	if err != nil {
		t.Fatal(err)
	}
	a.SetStallTimeout(200 * time.Millisecond)
	addr := serve(t, a.Handler(), unchanged)
	return c, addr
}

// A client that takes nothing is let go of.
func TestLiveStalled(t *testing.T) {
	t.Parallel()
	c, addr := impatient(t)
	go func() { c.messages <- []byte("data: 1\n\n") }()
	open(t, addr)
	large := []byte("data: " + strings.Repeat("x", 1<<20) + "\n\n")
	for end := time.After(30 * time.Second); !c.free(); {
		select {
		case c.messages <- large:
		case <-time.After(time.Millisecond):
		case <-end:
			t.Fatal("still watched")
		}
	}
}

// It is noticed while little is told too: what waits for the client in this machine is bounded.
func TestLiveStalledQuietly(t *testing.T) {
	t.Parallel()
	c, addr := impatient(t)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	if _, err := io.WriteString(conn, "GET /api/live HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	small, told := []byte("data: "+strings.Repeat("x", 500)+"\n\n"), 0
	c.messages <- small
	for end := time.After(30 * time.Second); !c.free(); {
		select {
		case c.messages <- small:
			told += len(small)
		case <-time.After(time.Millisecond):
		case <-end:
			t.Fatal("still watched")
		}
	}
	t.Logf("noticed after %d KiB", told>>10)
	if told > 128<<10 {
		t.Errorf("noticed after %d KiB", told>>10)
	}
}

// The stream wants the key as everything below /api/ does, and is not there where
// there is nothing to watch.
func TestLiveAccess(t *testing.T) {
	h := newWorld().handler(t, watching(newChannel()), func(o *api.Options) { o.Keys = []string{"k"} })
	if res, _ := do(h, request("GET", "/api/live", "")); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a key: %d", res.StatusCode)
	}
	if res, _ := do(newWorld().handler(t), request("GET", "/api/live", "")); res.StatusCode != http.StatusNotFound {
		t.Errorf("without a source: %d", res.StatusCode)
	}
}
