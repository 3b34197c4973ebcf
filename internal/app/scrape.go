package app

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// scrapePause bounds how often metrics are gathered, and so how many answers are in
	// memory while clients take them.
	scrapePause   = 100 * time.Millisecond
	scrapeTimeout = 5 * time.Second
	maxScrapes    = 256
)

// scrapes answers /metrics. What there is is gathered into memory first, for all who
// wait for it: who takes his answer slowly, or not at all, holds nothing that others need.
type scrapes struct {
	rounds  rounds[*page]
	waiting chan struct{}
}

// page is an answer in memory. It is an http.ResponseWriter.
type page struct {
	header http.Header
	status int
	body   writer
}

func (p *page) Header() http.Header         { return p.header }
func (p *page) WriteHeader(status int)      { p.status = status }
func (p *page) Write(b []byte) (int, error) { return p.body.Write(b) }

func newScrapes(from prometheus.Gatherer, log *slog.Logger) *scrapes {
	gather := promhttp.HandlerFor(from, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling: promhttp.ContinueOnError, // what is wrong inside is for the log alone
	})
	return &scrapes{waiting: make(chan struct{}, maxScrapes), rounds: rounds[*page]{
		pause: scrapePause,
		do: func() (*page, error) {
			p := &page{header: make(http.Header), status: http.StatusOK}
			gather.ServeHTTP(p, &http.Request{URL: new(url.URL)}) // as text: all can read it
			return p, nil
		},
	}}
}

func (s *scrapes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, err := s.page(r.Context())
	if err != nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	maps.Copy(w.Header(), p.header)
	w.WriteHeader(p.status)
	_, _ = w.Write(p.body) // the client may be gone
}

// page waits for what was gathered after it was asked for.
func (s *scrapes) page(ctx context.Context) (*page, error) {
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return nil, errors.New("too many ask for metrics at once")
	}
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	p, err := s.rounds.ask(ctx)
	if err != nil {
		return nil, errors.New("the metrics were not gathered in time")
	}
	return p, nil
}
