package api_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"coinbit/internal/api"
)

// serve runs the production server for h and returns its address.
func serve(t testing.TB, h http.Handler, change func(*api.Server)) string {
	t.Helper()
	server, err := api.NewServer(h, api.MaxConns, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	change(server)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return ln.Addr().String()
}

func unchanged(*api.Server) {}

// exchange sends text as it is and reads one answer; nil when there is none.
func exchange(t *testing.T, addr, text string, hangUp bool) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if hangUp {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, ""
	}
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

func raw(length int, body string) string {
	return fmt.Sprintf("POST /api/deposit HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", length, body)
}

func TestServerBodies(t *testing.T) {
	const tooLarge = "body must be at most 65536 bytes"
	w := newWorld()
	addr := serve(t, w.handler(t), func(s *api.Server) { s.ReadTimeout = 100 * time.Millisecond })

	res, body := exchange(t, addr, raw(100, `{"wallet_id":"w",`), false) // and then nothing
	wantProblem(t, res, body, 408, "request-timeout", "body did not arrive in time")
	res, body = exchange(t, addr, raw(100, `{"wallet_id":"w",`), true)
	wantProblem(t, res, body, 400, "invalid-body", "body ended early")
	res, body = exchange(t, addr, raw(64<<10+1, ""), false) // refused before it is sent
	wantProblem(t, res, body, 413, "body-too-large", tooLarge)
	chunk := fmt.Sprintf("10000\r\n%s\r\n1\r\nx\r\n0\r\n\r\n", strings.Repeat(" ", 64<<10))
	res, body = exchange(t, addr, "POST /api/deposit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk, false)
	wantProblem(t, res, body, 413, "body-too-large", tooLarge)
	if n := w.appended(); n != 0 {
		t.Errorf("%d deposits were appended", n)
	}

	res, body = exchange(t, addr, raw(len(one), one), false)
	if res == nil || res.StatusCode != 200 || body != string(success) || res.ContentLength != int64(len(success)) {
		t.Errorf("%v %s", res, body)
	}
	res, body = exchange(t, addr, "HEAD /api/check/w HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", false)
	if res == nil || res.StatusCode != 200 {
		t.Errorf("%v %s", res, body)
	}
}

// A client that leaves while its deposit waits for the row frees what it held.
func TestServerClientLeaves(t *testing.T) {
	w := newWorld()
	w.held["balance"] = true
	sent := make(chan struct{})
	w.afterAppend = func() { close(sent) }
	addr := serve(t, w.handler(t), unchanged)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(raw(len(one), one), "\r\n\r\n", "\r\n"+key+"\r\n\r\n", 1)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	<-sent
	_ = conn.Close()
	deadline := time.After(5 * time.Second)
	for left := 1; left > 0; {
		w.set(func() { left = len(w.watchers) })
		select {
		case <-deadline:
			t.Fatal("still waiting for a client that left")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestServerBounds(t *testing.T) {
	var log bytes.Buffer
	s, err := api.NewServer(http.NotFoundHandler(), api.MaxConns, nil, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= 9*time.Second || s.WriteTimeout > 10*time.Second ||
		s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Errorf("%+v", s)
	}
	s.ErrorLog.Print("a client sent nonsense")
	if log.Len() != 0 {
		t.Errorf("logged above debug: %s", &log)
	}
}
