package app

import (
	"bytes"
	"context"
	"errors"
	"hash"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/IBM/sarama"
	"github.com/gorilla/mux"
	"github.com/lovoo/goka"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"coinbit/internal/api"
	"coinbit/internal/hostile"
	"coinbit/internal/kafka"
	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

func TestParse(t *testing.T) {
	for args, want := range map[string]Command{
		"-service=all":                             {Service: "all"},
		"-service=api":                             {Service: "api"},
		"--service api":                            {Service: "api"},
		"-service=kafka":                           {Service: "kafka"},
		"-service=health":                          {Service: "health"},
		"-service=balance":                         {Service: "balance"},
		"-service=broker -broker_name=balance":     {Service: "balance"},
		"-broker_name=flagger -service=broker":     {Service: "flagger"},
		"-service broker -broker_name threshold":   {Service: "threshold"},
		"-service=flag -wallet 69da5a28":           {Service: "flag", Wallet: "69da5a28"},
		"-service=flag -remove -wallet=69da5a28":   {Service: "flag", Wallet: "69da5a28", Remove: true},
		"-service=flag -wallet=w -remove=false":    {Service: "flag", Wallet: "w"},
		"-service=broker -broker_name=threshold -": {},
	} {
		got, err := parse(strings.Fields(args), io.Discard)
		if want.Service == "" {
			if err == nil {
				t.Errorf("%q is taken", args)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", args, got, err, want)
		}
	}
	for _, args := range []string{
		"", "-service=", "-service=ALL", "-service=broker", "-service=broker -broker_name=all", "-service=broker -broker_name=broker",
		"-service=all -broker_name=balance", "-broker_name=balance", "-service=balance -broker_name=balance",
		"-service=flag", "-service=flag -remove", "-service=balance -wallet=w", "-service=all -remove", "-service=all x", "-servic=all",
		"-remove=perhaps", "-service",
	} {
		var stderr strings.Builder
		got, err := parse(strings.Fields(args), &stderr)
		if err == nil {
			t.Errorf("%q is taken as %+v", args, got)
			continue
		}
		if s := err.Error(); strings.Contains(s, "\n") || !strings.HasSuffix(s, "; -h for help") || stderr.Len() > 0 {
			t.Errorf("%q: %q, and %q", args, s, &stderr)
		}
		if args == "" || strings.HasPrefix(args, "-service=ALL") {
			for _, s := range services() {
				if !strings.Contains(err.Error(), s.name) {
					t.Errorf("%q: %v lacks %s", args, err, s.name)
				}
			}
		}
	}
}

// Deposits have whole milliseconds; what lies between them bounds a span all the same.
func TestTimesOfASpan(t *testing.T) {
	rt, _ := runtimeOf(t, Options{})
	const day = "2026-01-31T10:00:00"
	base := time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC).UnixMilli()
	for _, c := range []struct {
		from, to string
		judged   string
	}{
		{day + ".932Z", day + ".934Z", "932 933"},
		{day + ".9321Z", day + ".934Z", "933"},
		{day + ".932Z", day + ".9341Z", "932 933 934"},
		{day + ".932000001Z", day + ".934000001Z", "933 934"},
		{day + ".9321Z", day + ".9322Z", ""},
		{"", day + ".933Z", "932"},
		{day + ".933Z", "", "933 934"},
		{"2026-01-31t11:00:00.9331+01:00", strings.ToLower(day) + ".95z", "934"},
	} {
		q, err := rt.question(whatIf{period: "10m", from: c.from, to: c.to})
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		var judged []string
		for ms := int64(932); ms <= 934; ms++ {
			if at := base + ms; at >= q.From && (q.To == 0 || at < q.To) {
				judged = append(judged, strconv.FormatInt(ms, 10))
			}
		}
		if got := strings.Join(judged, " "); got != c.judged {
			t.Errorf("%+v: judged %q", c, got)
		}
	}
	for text, want := range map[string]int64{day + ".932Z": 932, day + ".9329Z": 932, strings.ToLower(day) + ".932999999z": 932} {
		at, err := timeOf("-at", text)
		if got := lastMilli(at); err != nil || got != base+want {
			t.Errorf("-at %s: up to %d, %v", text, got-base, err)
		}
	}
	if from, err := rt.question(whatIf{period: "10m", from: day + ".9322Z", to: day + ".9321Z"}); err == nil {
		t.Errorf("%+v", from)
	}
}

// Every row of the table is complete, and a row's example is one that is taken.
func TestServices(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range services() {
		if s.name == "" || s.summary == "" || (s.run == nil) != (s.name == "broker") || seen[s.name] { // broker stands for another
			t.Errorf("row %+v", s)
		}
		seen[s.name] = true
		taught := 0
		for _, line := range append([]string{s.example}, s.teach...) {
			_, args, example := strings.Cut(line, "coinbit ")
			if !example {
				continue
			}
			taught++
			args, _, _ = strings.Cut(args, " |")
			args, _, _ = strings.Cut(args, ";")
			args, _, _ = strings.Cut(args, " >")
			if _, err := parse(strings.Fields(args), io.Discard); err != nil {
				t.Errorf("%s: the example %q: %v", s.name, line, err)
			}
		}
		if taught < 3 {
			t.Errorf("-service=%s -h teaches with %d examples", s.name, taught)
		}
	}
	for _, g := range stream.Groups() {
		if !seen[string(g)] || groupSummary[g] == "" || groups[g].graph == nil || groups[g].codec == nil || groups[g].version == nil {
			t.Errorf("group %s is incomplete", g)
		}
	}
	rt, _ := runtimeOf(t, Options{})
	for _, name := range []string{"", "nonsense", "broker"} {
		if err := rt.Run(context.Background(), Command{Service: name}); !errors.As(err, &usageError{}) {
			t.Errorf("service %q: %v", name, err)
		}
	}
	if err := (processors{rt}).Execute(context.Background(), "nonsense"); !errors.As(err, &usageError{}) {
		t.Errorf("group: %v", err)
	}
}

func TestHealth(t *testing.T) {
	rt, _ := runtimeOf(t, Options{})
	r := mux.NewRouter()
	rt.adminRoutes(r)
	server := httptest.NewServer(r)
	defer server.Close()
	var behind atomic.Bool
	behind.Store(true)
	rt.health.add("first", func() error { return nil })
	rt.health.add("second", func() error {
		if behind.Load() {
			return errors.New("3 behind")
		}
		return nil
	})
	expect := func(path string, status int, body string) {
		t.Helper()
		if s, b := fetch(t, server.URL+path); s != status || b != body {
			t.Errorf("%s: %d %q, want %d %q", path, s, b, status, body)
		}
	}
	expect("/healthz", http.StatusOK, "ok\n")
	expect("/readyz", http.StatusServiceUnavailable, "first: ready\nsecond: 3 behind\n")
	behind.Store(false)
	expect("/readyz", http.StatusOK, "first: ready\nsecond: ready\n")
	if res, err := http.Post(server.URL+"/readyz", "", nil); err != nil || res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v %v", res, err)
	} else {
		_ = res.Body.Close()
	}

	var out syncBuffer
	asks, _ := runtimeOf(t, Options{Stdout: &out}, "ADMIN_PORT="+server.Listener.Addr().String())
	must(t, runHealth(context.Background(), asks, Command{}))
	if out.String() != "first: ready\nsecond: ready\n" {
		t.Errorf("-service=health prints %q", &out)
	}
	behind.Store(true)
	if err := runHealth(context.Background(), asks, Command{}); err == nil {
		t.Error("-service=health takes 503 for ready")
	}
}

// Clients that ask for metrics and take nothing leave those who do their answers, and the
// bound on who waits is for who waits.
func TestDeafScrapers(t *testing.T) {
	addr := make(chan string, 1)
	rt, _ := runtimeOf(t, Options{OnListen: func(a string) { addr <- a }}, "ADMIN_PORT=0")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rt.admin(ctx) }()
	at := <-addr
	crowd := hostile.Start(at, hostile.Kind{Text: strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 100), Deaf: true}, 12, 100)
	must(t, crowd.Await(12, deadline))
	for range 36 {
		if status, body := fetch(t, "http://"+at+"/metrics"); status != http.StatusOK || !strings.Contains(body, "coinbit_http_connections ") {
			t.Errorf("%d %s", status, body)
		}
	}
	crowd.Stop()
	stop()
	must(t, <-done)
}

// Every scrape tells what was so after it was asked for, however many ask at once.
func TestScrapesAreFresh(t *testing.T) {
	rt, _ := runtimeOf(t, Options{})
	var asked atomic.Int64
	rt.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "asked"}, func() float64 { return float64(asked.Load()) }))
	s := newScrapes(rt.registry, rt.log)
	var asking sync.WaitGroup
	for range 20 {
		asking.Go(func() {
			for range 5 {
				want := asked.Add(1)
				rec := httptest.NewRecorder()
				s.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
				_, after, _ := strings.Cut(rec.Body.String(), "\nasked ")
				text, _, _ := strings.Cut(after, "\n")
				if got, err := strconv.ParseFloat(text, 64); err != nil || got < float64(want) {
					t.Errorf("%q, want %v or more", text, want)
				}
			}
		})
	}
	asking.Wait()
}

// A gathering that hangs is told, and holds up no more than so many.
func TestScrapesHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		registry := prometheus.NewRegistry()
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hangs"}, func() float64 { <-hang; return 1 }))
		s := newScrapes(registry, slog.New(slog.DiscardHandler))
		ask := func() int {
			rec := httptest.NewRecorder()
			s.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			return rec.Code
		}
		var asking sync.WaitGroup
		start := time.Now()
		for range maxScrapes {
			asking.Go(func() {
				if status := ask(); status != http.StatusServiceUnavailable || time.Since(start) != scrapeTimeout {
					t.Errorf("%d after %v", status, time.Since(start))
				}
			})
		}
		synctest.Wait()
		if status := ask(); status != http.StatusServiceUnavailable || time.Since(start) != 0 {
			t.Errorf("one too many: %d after %v", status, time.Since(start))
		}
		asking.Wait()
		close(hang)
		if status := ask(); status != http.StatusOK {
			t.Errorf("afterwards: %d", status)
		}
		time.Sleep(2 * scrapePause) // inside the bubble: the rounds end
	})
}

// However low the limit of open files, half of it is not for clients.
func TestConnections(t *testing.T) {
	for files, want := range map[uint64]int{0: 1, 12: 6, 1024: 512, 8191: 4095, 8192: 4096, 1 << 20: 4096, math.MaxUint64: 4096} {
		if got := connections(files); got != want {
			t.Errorf("%d connections of %d open files, want %d", got, files, want)
		}
	}
}

// A port that is taken is said with the setting that named it.
func TestServeOnATakenPort(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	addr := server.Listener.Addr().String()
	rt, _ := runtimeOf(t, Options{}, "ADMIN_PORT="+addr)
	if err := rt.admin(context.Background()); err == nil || !strings.Contains(err.Error(), "ADMIN_PORT") || !strings.Contains(err.Error(), addr) {
		t.Fatalf("got %v", err)
	}
}

// heldProducer answers when the test says so.
type heldProducer struct {
	answers chan goka.PromiseFinisher
}

func (p *heldProducer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.EmitWithHeaders(topic, key, value, nil)
}
func (p *heldProducer) EmitWithHeaders(string, string, []byte, goka.Headers) *goka.Promise {
	promise, finish := goka.NewPromiseWithFinisher()
	p.answers <- finish
	return promise
}
func (p *heldProducer) Close() error { return nil }

func TestAppend(t *testing.T) {
	held := &heldProducer{answers: make(chan goka.PromiseFinisher, 1)}
	emitter, err := goka.NewEmitter(nil, stream.DepositStream, new(stream.DepositEncoder),
		goka.WithEmitterProducerBuilder(func([]string, string, func() hash.Hash32) (goka.Producer, error) { return held, nil }))
	must(t, err)
	defer func() { must(t, emitter.Finish()) }()
	d := &deposits{Runtime: &Runtime{log: slog.New(slog.DiscardHandler)}}
	d.emitter.Store(&emitting{Emitter: emitter, end: func(error) {}})
	must(t, d.ready())
	deposit := &pb.Deposit{WalletId: "w", Units: 1}
	type answer struct {
		at  api.Position
		err error
	}
	over := make(chan struct{})
	send := func(ctx context.Context) <-chan answer {
		c := make(chan answer, 1)
		go func() { at, err := d.Append(ctx, over, deposit); c <- answer{at, err} }()
		return c
	}

	got := send(context.Background())
	finish := <-held.answers
	if n := d.inFlight.Load(); n != 1 {
		t.Errorf("%d in flight, want 1", n)
	}
	finish(&sarama.ProducerMessage{Partition: 3, Offset: 14}, nil)
	if a := <-got; a.err != nil || a.at != (api.Position{Partition: 3, Offset: 14}) {
		t.Errorf("stored: %+v", a)
	}

	// After the hand-over, no error says that it does not count.
	got = send(context.Background())
	(<-held.answers)(nil, sarama.ErrNotEnoughReplicas)
	if a := <-got; !errors.Is(a.err, api.ErrUnknown) || errors.Is(a.err, api.ErrRefused) {
		t.Errorf("failed: %+v", a)
	}
	if n := d.inFlight.Load(); n != 0 {
		t.Errorf("%d in flight after all answers", n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	for _, end := range []func(){cancel, func() { close(over) }} { // its client has left, or its time is over
		got = send(ctx)
		finish = <-held.answers
		end()
		if a := <-got; !errors.Is(a.err, api.ErrUnknown) {
			t.Errorf("given up: %+v", a)
		}
		if n := d.inFlight.Load(); n != 1 {
			t.Errorf("%d in flight, want 1: the producer still has it", n)
		}
		finish(&sarama.ProducerMessage{}, nil)
		if n := d.inFlight.Load(); n != 0 {
			t.Errorf("%d in flight after the late answer", n)
		}
		ctx, over = context.Background(), make(chan struct{})
	}

	// For want of a right the emitter ends, so that the next is not even sent.
	ended, end := context.WithCancelCause(context.Background())
	d.emitter.Store(&emitting{Emitter: emitter, end: end})
	got = send(context.Background())
	(<-held.answers)(nil, sarama.ErrTopicAuthorizationFailed)
	if a := <-got; !errors.Is(a.err, api.ErrUnknown) || !kafka.Denied(context.Cause(ended)) {
		t.Errorf("denied: %+v, ended by %v", a, context.Cause(ended))
	}

	// Before it, every error does.
	refused := func(what string, deposit *pb.Deposit) {
		t.Helper()
		before := d.inFlight.Load()
		if _, err := d.Append(context.Background(), nil, deposit); !errors.Is(err, api.ErrRefused) || errors.Is(err, api.ErrUnknown) {
			t.Errorf("%s: %v", what, err)
		}
		if n := d.inFlight.Load(); n != before {
			t.Errorf("%s: %d in flight, before %d", what, n, before)
		}
	}
	refused("not encodable", &pb.Deposit{WalletId: "\xff"})
	d.inFlight.Store(maxInFlight)
	refused("too many in flight", deposit)
	d.inFlight.Store(maxInFlight - 1)
	got = send(context.Background())
	(<-held.answers)(&sarama.ProducerMessage{}, nil)
	if a := <-got; a.err != nil {
		t.Errorf("the last place: %v", a.err)
	}
	d.inFlight.Store(0)
	d.emitter.Store(nil)
	refused("without an emitter", deposit)
	closed, err := goka.NewEmitter(nil, stream.DepositStream, new(stream.DepositEncoder),
		goka.WithEmitterProducerBuilder(func([]string, string, func() hash.Hash32) (goka.Producer, error) { return held, nil }))
	must(t, err)
	must(t, closed.Finish())
	d.emitter.Store(&emitting{Emitter: closed, end: func(error) {}})
	refused("with an emitter that has ended", deposit)
	if len(held.answers) != 0 {
		t.Error("a refused deposit was sent")
	}
}

// counters is what a registry shows.
func counters(t *testing.T, r *prometheus.Registry) string {
	t.Helper()
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return rec.Body.String()
}

func TestUpdaterCountsWhatItSkips(t *testing.T) {
	r := prometheus.NewRegistry()
	stale := prometheus.NewCounter(prometheus.CounterOpts{Name: "stale"})
	r.MustRegister(stale)
	version := func(row []byte) int64 { return int64(row[0]) }
	keep := newUpdater(version, stale)
	s := rowsInMemory{m: make(map[string][]byte)}
	for i, c := range []struct {
		key   string
		value []byte
		want  update
		held  []byte
	}{
		{"a", []byte{5}, taken, []byte{5}},
		{"a", []byte{5}, taken, []byte{5}},
		{"a", []byte{4}, outdated, []byte{5}},
		{"b", []byte{4}, taken, []byte{4}},
		{"a", nil, outdated, []byte{5}},
		{"c", nil, skipped, nil},
		{"a", []byte{6}, taken, []byte{6}},
	} {
		got, err := keep(s, c.key, c.value)
		must(t, err)
		if got != c.want || !bytes.Equal(s.m[c.key], c.held) {
			t.Errorf("step %d: %d, holds %v", i, got, s.m[c.key])
		}
	}
	if s := counters(t, r); !strings.Contains(s, "stale 3") {
		t.Errorf("counted:\n%s", s)
	}
	if _, err := keep(failingRows{}, "a", []byte{9}); !errors.Is(err, errAttempt) {
		t.Errorf("got %v", err)
	}
}

type failingRows struct{ rowsInMemory }

func (failingRows) Get(string) ([]byte, error) { return nil, errAttempt }

func TestWatchers(t *testing.T) {
	var w watchers
	w.notify("a") // nobody waits
	a, stopA := w.watch("a")
	again, stopAgain := w.watch("a")
	b, stopB := w.watch("b")
	for range 3 { // tokens do not pile up, and nobody is waited for
		w.notify("a")
	}
	if len(a) != 1 || len(again) != 1 || len(b) != 0 {
		t.Fatalf("tokens %d %d %d", len(a), len(again), len(b))
	}
	stopA()
	<-again
	w.notify("a")
	w.notify("b")
	if len(again) != 1 || len(b) != 1 {
		t.Fatalf("tokens %d %d", len(again), len(b))
	}
	stopAgain()
	stopB()
	if w.n.Load() != 0 || len(w.m) != 0 {
		t.Fatalf("%d waiters, map %v, after all have gone", w.n.Load(), w.m)
	}
}

func TestViewBeforeItHasCaughtUp(t *testing.T) {
	rt, _ := runtimeOf(t, Options{})
	tables := newTables(rt)
	if err := tables.Ready(); !errors.Is(err, errCatchingUp) || !strings.Contains(err.Error(), "balance-table") {
		t.Errorf("Ready: %v", err)
	}
	_, balance := tables.Balance("w")
	_, counter := tables.Counter("w")
	_, flag := tables.Flag("w")
	for _, err := range []error{balance, counter, flag} {
		if !errors.Is(err, errCatchingUp) { // never a wallet of 0
			t.Errorf("got %v", err)
		}
	}
	if rt.health.report(io.Discard) {
		t.Error("ready")
	}
}

// New names the setting at fault.
func TestNewChecksTheFiles(t *testing.T) {
	rt, _ := runtimeOf(t, Options{})
	cfg := rt.cfg
	cfg.KafkaTLSCA = "/does/not/exist"
	if _, err := New(cfg, Options{}); err == nil || !strings.Contains(err.Error(), "KAFKA_TLS_CA") {
		t.Errorf("got %v", err)
	}
}
