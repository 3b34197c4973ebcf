package api

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// MaxConns is how many connections a server needs at most.
const MaxConns = 4096

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
// its headers and the number of connections: maxConns. What net/http itself has to say
// of clients is logged at debug. Registry may be nil.
func NewServer(h http.Handler, maxConns int, registry prometheus.Registerer, logger *slog.Logger) (*Server, error) {
	c := newConns(maxConns)
	s := &Server{conns: c, Server: http.Server{
		Handler:           follow(h),
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout, // headers and body
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		Protocols:         new(http.Protocols),
		ConnContext:       remember,
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
