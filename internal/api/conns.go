package api

import (
	"bytes"
	"container/list"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// conns bounds the open connections. When there are too many, the one that has waited
// longest for its client is closed: for a request, for the rest of a body, or for an
// answer to be taken. So those who open connections and do little with them are in each
// other's way, and a client that sends a request and takes the answer gets it. Only when
// a handler is at work on every connection is a new one refused.
type conns struct {
	max     int
	mu      sync.Mutex
	n       int
	waiting *list.List // of *conn, the longest waiting first
	open    prometheus.Gauge
	shed    *prometheus.CounterVec // reason
}

func newConns(limit int) *conns {
	c := &conns{
		max: limit, waiting: list.New(),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "coinbit_http_connections", Help: "Open HTTP connections.",
		}),
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coinbit_http_connections_shed_total",
			Help: "HTTP connections closed because there were too many: the one that waited longest for its client (quiet), or a new one.",
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

// sendBuffer is how many bytes of answers wait in the kernel for a client to take them;
// Linux takes twice that. By default it is megabytes: many answers are made for who takes
// none, and who takes nothing of a quiet stream is noticed after an hour.
const sendBuffer = 32 << 10

// admit takes a new connection in; nil when there is no place for it.
func (s *conns) admit(nc net.Conn) *conn {
	if b, ok := nc.(interface{ SetWriteBuffer(int) error }); ok {
		_ = b.SetWriteBuffer(sendBuffer)
	}
	s.mu.Lock()
	var victim *conn
	if s.n >= s.max {
		if victim = s.oldest(); victim == nil {
			s.mu.Unlock()
			s.shed.WithLabelValues(shedNew).Inc()
			return nil
		}
		s.drop(victim)
	}
	c := &conn{Conn: nc, conns: s}
	s.n++
	c.place = s.waiting.PushBack(c)
	s.open.Set(float64(s.n))
	s.mu.Unlock()
	if victim != nil {
		s.shed.WithLabelValues(shedQuiet).Inc()
		_ = victim.Close()
	}
	return c
}

// oldest is the connection that waits and whose wait began first, nil if none does. Those
// before it in the list have waited, and their handlers are at work now: as many as there are
// places for requests at most. The caller holds mu.
func (s *conns) oldest() *conn {
	for e := s.waiting.Front(); e != nil; e = e.Next() {
		c := e.Value.(*conn) //nolint:forcetypeassert // the list has nothing else
		if !c.working || c.blocked > 0 {
			return c
		}
	}
	return nil
}

// drop forgets c. The caller holds mu.
func (s *conns) drop(c *conn) {
	if !c.gone {
		c.gone = true
		c.leave()
		s.n--
		s.open.Set(float64(s.n))
	}
}

// conn is a connection that knows whether it waits for its client: unless a handler is
// at work on it that neither reads from the client nor writes to it.
type conn struct {
	net.Conn
	conns *conns
	// Guarded by conns.mu.
	working bool // a handler is
	blocked int  // reads of a body, and writes, that have not returned
	gone    bool
	// place is that among the waiting, in the order in which their waits began. A request
	// that has waited once keeps its place until it ends: a client that sends a byte now and
	// then, or takes one, is not younger for it. nil while it has none.
	place *list.Element
}

// leave takes c from the list. The caller holds conns.mu.
func (c *conn) leave() {
	if c.place != nil {
		c.conns.waiting.Remove(c.place)
		c.place = nil
	}
}

// wait puts c at the end of the list, unless it has a place. The caller holds conns.mu.
func (c *conn) wait() {
	if c.place == nil && !c.gone {
		c.place = c.conns.waiting.PushBack(c)
	}
}

// work begins or ends the work of a handler. Between two a connection waits for a request.
func (c *conn) work(working bool) {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	c.working = working
	c.leave()
	if !working {
		c.wait()
	}
}

// block counts the reads and writes that have not returned.
func (c *conn) block(n int) {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	c.blocked += n
	if c.blocked > 0 {
		c.wait()
	}
}

// Write writes to the client. What net/http reads is told by exchange: it also reads
// while a handler works, to notice that the client leaves.
func (c *conn) Write(p []byte) (int, error) {
	c.block(1)
	defer c.block(-1)
	return c.Conn.Write(p)
}

// CloseWrite is for net/http, which ends a connection so when more is to come from the client.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Close closes the connection and gives its place back.
func (c *conn) Close() error {
	c.conns.mu.Lock()
	c.conns.drop(c)
	c.conns.mu.Unlock()
	return c.Conn.Close()
}

type connKey struct{}

// remember is http.Server's ConnContext.
func remember(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, nc)
}

// connOf is the connection of a request to a Server.
func connOf(r *http.Request) *conn {
	return r.Context().Value(connKey{}).(*conn) //nolint:forcetypeassert // remember has put it there
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
		if c := l.conns.admit(nc); c != nil {
			return c, nil
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
