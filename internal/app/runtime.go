package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"coinbit/internal/config"
	"coinbit/internal/kafka"
	"coinbit/internal/out"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// Runtime is what every service is built from. Tests make their own; there are
// no globals.
type Runtime struct {
	cfg      config.Config
	log      *slog.Logger
	stdout   *out.Writer
	client   *kafka.Client
	registry *prometheus.Registry
	metrics  *metrics
	health   *health
	ledger   ledger
	now      func() time.Time
	onListen func(addr string)
}

// Options are what New may be given besides the settings; all may be left out.
type Options struct {
	Log    *slog.Logger
	Stdout io.Writer
	// Now is the clock that gives a deposit its event time.
	Now func() time.Time
	// OnListen is told the address of each server that listens.
	OnListen func(addr string)
}

// New checks what the settings name and builds a Runtime. It connects to nothing.
func New(cfg config.Config, o Options) (*Runtime, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.OnListen == nil {
		o.OnListen = func(string) {}
	}
	client, err := kafka.NewClient(kafka.Settings{
		Brokers: cfg.Brokers,
		TLSCA:   cfg.KafkaTLSCA, TLSCert: cfg.KafkaTLSCert, TLSKey: cfg.KafkaTLSKey,
		SASLMechanism: cfg.KafkaSASLMechanism, SASLUser: cfg.KafkaSASLUser, SASLPassword: cfg.KafkaSASLPassword,
		SASLPasswordFile: cfg.KafkaSASLPasswordFile,
	}, o.Log)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ready := &health{}
	registry.MustRegister(ready)
	return &Runtime{
		cfg: cfg, log: o.Log, stdout: out.New(o.Stdout), client: client,
		registry: registry, metrics: newMetrics(registry), health: ready, now: o.Now, onListen: o.OnListen,
	}, nil
}

// stateMemory is one of n equal parts of STATE_MEMORY, in bytes.
func (rt *Runtime) stateMemory(n int) int64 { return int64(rt.cfg.StateMemory) << 20 / int64(n) }

// rule is the threshold rule in force.
func (rt *Runtime) rule() wallet.Rule { return ruleIn(rt.cfg) }

func ruleIn(cfg config.Config) wallet.Rule {
	return wallet.Rule{Threshold: cfg.ThresholdAmount, PeriodMs: cfg.RollingPeriod.Milliseconds()}
}

// ensure creates and checks all topics.
func (rt *Runtime) ensure(ctx context.Context) (kafka.Cluster, error) {
	return rt.client.Ensure(ctx, stream.Topics(), rt.cfg.Partitions, rt.cfg.ReplicationFactor)
}

// ensureFor creates and checks the topics that rights speak of, and the rights, but
// for those that are optional.
func (rt *Runtime) ensureFor(ctx context.Context, rights []stream.Right) (kafka.Cluster, error) {
	rights = stream.Required(rights)
	cluster, err := rt.client.Ensure(ctx, stream.TopicsIn(rights), rt.cfg.Partitions, rt.cfg.ReplicationFactor, rights...)
	if err == nil {
		err = rt.client.Judge(cluster)
	}
	return cluster, err
}

// follow ends what was begun with client, with an error that wraps kafka.ErrMoved, once
// the cluster is not the client's any more. What it returns waits for its end.
func follow(ctx context.Context, client *kafka.Client, end context.CancelCauseFunc) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := client.Follow(ctx, func(error) {}); err != nil {
			end(err)
		}
	}()
	return func() { <-done }
}

// Back-off of a service that failed, and how often an absent broker is probed.
const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 5 * time.Second
	probePause   = 500 * time.Millisecond
	// steady is how long an attempt must have run for the back-off to start over.
	steady = 30 * time.Second
)

// supervise runs attempt until ctx is done, building anew after each failure: at
// once when Kafka was away and is back, else with back-off. It returns what was
// wrong at the end: nil, or why something may not be flushed.
func (rt *Runtime) supervise(ctx context.Context, name string, attempt func(ctx context.Context) error) error {
	log := rt.log.With("service", name)
	rebuilds := rt.metrics.rebuilds.WithLabelValues(name)
	backoff := firstBackoff
	for first := true; ; first = false {
		started := time.Now()
		err := attempt(ctx)
		switch {
		case ctx.Err() != nil:
			return rt.final(err)
		case errors.Is(err, kafka.ErrLayout), errors.Is(err, kafka.ErrLosing), first && errors.As(err, &usageError{}):
			return err // no waiting mends it
		case err == nil:
			err = errors.New("ended without being told to")
		}
		if outOfFiles(err) { // so is a look at Kafka
			err = fmt.Errorf("this process may not open more files; raise its limit (ulimit -n), or run fewer partitions or services in it: %w", err)
		} else if probe := rt.client.Probe(ctx); probe != nil {
			if !rt.awaitKafka(ctx, log, err, probe) {
				return fmt.Errorf("%s: %w", name, kafka.ErrUnreachable)
			}
			backoff = firstBackoff
			continue
		}
		if time.Since(started) > steady {
			backoff = firstBackoff
		}
		rebuilds.Inc()
		log.Warn("failed, building it anew", "in", backoff, "err", oneLine(err))
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return nil
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// outOfFiles tells whether the process has as many files open as it may. A table takes about
// five of each partition. Goka wraps errors so that only their text is left.
func outOfFiles(err error) bool { return strings.Contains(err.Error(), syscall.EMFILE.Error()) }

// oneLine folds the lists that Goka makes of errors. What partition after
// partition has to say is cut short.
func oneLine(err error) string {
	const longest = 500
	s := strings.Join(strings.Fields(err.Error()), " ")
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return s
}

// awaitKafka waits until a broker answers; false when ctx was done first. A
// failure has its cause; probe is what the first look at Kafka said after it.
func (rt *Runtime) awaitKafka(ctx context.Context, log *slog.Logger, cause, probe error) bool {
	if ctx.Err() != nil {
		return false
	}
	since, said, pause := time.Now(), "", probePause
	for ; probe != nil; probe = rt.client.Probe(ctx) {
		what, news := "kafka is away, waiting for it", "away"
		if errors.Is(probe, kafka.ErrRefused) {
			what, news, cause = "kafka refuses this client, trying again", probe.Error(), probe
			pause = min(2*pause, maxBackoff) // accounts are locked for less
		}
		if news != said && ctx.Err() == nil {
			log.Warn(what, "brokers", rt.cfg.Brokers, "err", oneLine(cause))
			said, cause = news, probe
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
	log.Info("kafka is back", "after", time.Since(since).Round(time.Millisecond))
	return true
}

// final is the verdict on an attempt that ended because it was told to. A
// message cut off in mid-work is not lost: it is delivered again.
func (rt *Runtime) final(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, stream.ErrSessionOver) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if rt.client.Probe(ctx) != nil {
			return kafka.ErrUnreachable
		}
		return nil
	}
	return err
}

// parallel runs all of fs until they have ended and joins their errors. When one
// ends, the others are told to stop.
func parallel(ctx context.Context, fs ...func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer cancel()
			errs[i] = f(ctx)
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}
