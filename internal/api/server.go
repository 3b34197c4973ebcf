package api

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/prometheus/client_golang/prometheus"
)

// maxConns bounds a server's open connections.
const maxConns = 4096

const (
	// requestTimeout is how long a request, headers and body, may take to arrive.
	requestTimeout = 5 * time.Second
	// idleTimeout is short because it also bounds how long net/http waits for the
	// rest of a second request of which one to three bytes have come.
	idleTimeout = 9 * time.Second
)

// Server is an http.Server that no client can hold up.
type Server struct {
	http.Server
	conns *conns
}

// NewServer is a Server for h. It bounds every phase of a request, the size of
// its headers and the number of connections. What net/http itself has to say of
// clients is logged at debug. Registry may be nil.
func NewServer(h http.Handler, registry prometheus.Registerer, logger *slog.Logger) (*Server, error) {
	c := newConns(maxConns)
	s := &Server{conns: c, Server: http.Server{
		Handler:           h,
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout, // headers and body
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		Protocols:         new(http.Protocols),
		ConnState:         c.state,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		// "OPTIONS *" is no path of ours either.
		DisableGeneralOptionsHandler: true,
	}}
	s.Protocols.SetHTTP1(true) // and nothing else, h2c neither
	ctx, stop := context.WithCancel(context.Background())
	s.BaseContext = func(net.Listener) context.Context {
		return context.WithValue(context.Background(), stoppingKey{}, ctx)
	}
	s.RegisterOnShutdown(stop)
	return s, register(registry, c.open, c.shed)
}

type stoppingKey struct{}

// stopping is done once the server of r is told to shut down. The request's own
// context lives on, so that what is under way gets its answer.
func stopping(r *http.Request) context.Context {
	if ctx, ok := r.Context().Value(stoppingKey{}).(context.Context); ok {
		return ctx
	}
	return context.Background()
}

// Serve is http.Server's, within the bounds.
func (s *Server) Serve(ln net.Listener) error { return s.Server.Serve(listener{ln, s.conns}) }

// conns bounds the open connections. When there are too many, the one that has
// been quiet longest is closed: one between two requests, or one whose headers
// have not arrived yet. So those who open connections and do little with them
// are in each other's way, and a client that sends a request gets its answer.
// Only when all connections are in the middle of a request is a new one refused.
type conns struct {
	max   int
	mu    sync.Mutex
	all   map[net.Conn]struct{}
	quiet *simplelru.LRU[net.Conn, struct{}]
	open  prometheus.Gauge
	shed  *prometheus.CounterVec // reason
}

func newConns(limit int) *conns {
	quiet, _ := simplelru.NewLRU[net.Conn, struct{}](limit+1, nil) // fails for no size
	c := &conns{
		max: limit, all: map[net.Conn]struct{}{}, quiet: quiet,
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "coinbit_http_connections", Help: "Open HTTP connections.",
		}),
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coinbit_http_connections_shed_total",
			Help: "HTTP connections closed because there were too many: the longest quiet one, or a new one.",
		}, []string{"reason"}),
	}
	c.shed.WithLabelValues(shedQuiet)
	c.shed.WithLabelValues(shedNew)
	return c
}

const (
	shedQuiet = "quiet"
	shedNew   = "new"
)

// admit takes a new connection in; false when there is no place for it.
func (c *conns) admit(conn net.Conn) bool {
	c.mu.Lock()
	var victim net.Conn
	if len(c.all) >= c.max {
		var ok bool
		if victim, _, ok = c.quiet.RemoveOldest(); !ok {
			c.mu.Unlock()
			c.shed.WithLabelValues(shedNew).Inc()
			return false
		}
		delete(c.all, victim)
	}
	c.all[conn] = struct{}{}
	c.quiet.Add(conn, struct{}{})
	c.open.Set(float64(len(c.all)))
	c.mu.Unlock()
	if victim != nil {
		c.shed.WithLabelValues(shedQuiet).Inc()
		_ = victim.Close()
	}
	return true
}

// state follows a connection. net/http calls one active once the headers of a
// request have arrived.
func (c *conns) state(nc net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ours := c.all[nc]; !ours { // it was closed here
		return
	}
	switch state {
	case http.StateActive:
		c.quiet.Remove(nc)
	case http.StateIdle:
		c.quiet.Add(nc, struct{}{})
	case http.StateClosed, http.StateHijacked:
		c.quiet.Remove(nc)
		delete(c.all, nc)
		c.open.Set(float64(len(c.all)))
	}
}

// listener accepts what conns admits.
type listener struct {
	net.Listener
	conns *conns
}

func (l listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.conns.admit(nc) {
			return nc, nil
		}
		// A new connection takes this at once; who has sent already may see it cut off.
		_ = nc.SetDeadline(time.Now().Add(time.Second))
		_, _ = nc.Write(full)
		_ = nc.Close()
	}
}

// full is the answer to a connection that finds no place.
var full = func() []byte {
	body := fail(codeBusy, "too many connections; nothing was sent and nothing counts").body()
	res := http.Response{
		StatusCode: http.StatusServiceUnavailable, ProtoMajor: 1, ProtoMinor: 1, Close: true,
		Header:        http.Header{"Content-Type": {problemType}, "Retry-After": {"1"}},
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}
	var b bytes.Buffer
	_ = res.Write(&b) // a bytes.Buffer takes all
	return b.Bytes()
}()
