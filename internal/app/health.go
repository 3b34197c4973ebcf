package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"coinbit/internal/api"
)

// health collects what must hold for /readyz to answer 200.
type health struct {
	mu     sync.Mutex
	checks []check
}

type check struct {
	name  string
	ready func() error
}

// add registers a check; its error says what is not ready yet.
func (h *health) add(name string, ready func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, check{name, ready})
}

var readyDesc = prometheus.NewDesc("coinbit_ready", "1 for a part of the service that is ready, 0 for one that is not; /readyz says why.",
	[]string{"part"}, nil)

// Describe implements prometheus.Collector.
func (h *health) Describe(ch chan<- *prometheus.Desc) { ch <- readyDesc }

// Collect implements prometheus.Collector.
func (h *health) Collect(ch chan<- prometheus.Metric) {
	for _, c := range h.all() {
		ready := 0.
		if c.ready() == nil {
			ready = 1
		}
		ch <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, ready, c.name)
	}
}

func (h *health) all() []check {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.checks)
}

// report writes one line a check and tells whether all are ready.
func (h *health) report(w io.Writer) bool {
	checks := h.all()
	ok := len(checks) > 0 // else nothing has begun yet
	for _, c := range checks {
		state := "ready"
		if err := c.ready(); err != nil {
			state, ok = err.Error(), false
		}
		fmt.Fprintf(w, "%s: %s\n", c.name, state)
	}
	return ok
}

// adminRoutes serves /healthz (the process runs), /readyz (it has caught up) and
// /metrics.
func (rt *Runtime) adminRoutes(r *mux.Router) {
	get := func(path string, h http.Handler) { r.Handle(path, h).Methods(http.MethodGet, http.MethodHead) }
	get("/healthz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	}))
	get("/readyz", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var body writer
		if !rt.health.report(&body) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(body)
	}))
	get("/metrics", newScrapes(rt.registry, rt.log))
}

// writer is a byte slice to print into.
type writer []byte

func (w *writer) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}

// admin serves adminRoutes on ADMIN_PORT until ctx is done; nothing when it is unset.
func (rt *Runtime) admin(ctx context.Context) error {
	if rt.cfg.AdminPort == "" {
		<-ctx.Done()
		return nil
	}
	h, err := api.Admin(rt.registry, rt.log, rt.adminRoutes)
	if err != nil {
		return err
	}
	return rt.serve(ctx, "ADMIN_PORT", rt.cfg.AdminPort, h)
}

// openFiles is how many descriptors this process may have open.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxUint64 // there is none that we could know of
	}
	return limit.Cur
}

// connections is how many connections a server keeps, of so many open files: no more
// than half, so that Kafka can be reached and local state be opened whatever clients do.
func connections(openFiles uint64) int {
	return int(min(api.MaxConns, max(1, openFiles/2)))
}

// drainTimeout is what requests in flight get when a server stops.
const drainTimeout = 2 * time.Second

// serve listens on addr, which setting named, and serves until ctx is done.
func (rt *Runtime) serve(ctx context.Context, setting, addr string, h http.Handler) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("%s: cannot listen on %s: %w", setting, addr, err)
	}
	rt.log.Info("listening", "setting", setting, "addr", ln.Addr().String())
	files := openFiles()
	conns := connections(files)
	if conns < api.MaxConns {
		rt.log.Warn("the limit of open files is low: fewer connections are kept, the other half is for Kafka and local state; raise it (ulimit -n)",
			"setting", setting, "open_files", files, "connections", conns, "connections_wanted", api.MaxConns)
	}
	rt.onListen(ln.Addr().String())
	server, err := api.NewServer(h, conns, rt.registry, rt.log)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("%s: %w", setting, err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		_ = server.Close()
	}
	<-failed
	return nil
}

var teachHealth = []string{
	"It asks on ADMIN_PORT or, if that is not set, on PORT, and prints what is not ready.",
	"",
	"Is the API ready?",
	"    coinbit -service=health",
	"A processor; wait until it is:",
	"    until ADMIN_PORT=9100 coinbit -service=health; do sleep 1; done",
}

// runHealth asks the service on ADMIN_PORT, or else on PORT, whether it is ready.
func runHealth(ctx context.Context, rt *Runtime, _ Command) error {
	addr := rt.cfg.AdminPort
	if addr == "" {
		addr = rt.cfg.Port
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+reachable(addr)+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(rt.stdout, io.LimitReader(res.Body, 64<<10)); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New("not ready")
	}
	return nil
}
