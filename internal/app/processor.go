package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/prometheus/client_golang/prometheus"

	"coinbit/internal/kafka"
	"coinbit/internal/store"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// processors runs processor groups; it is the suite's stream.Broker.
type processors struct{ rt *Runtime }

var _ stream.Broker = processors{}

var teachGroup = []string{
	"As many can run as there are partitions, each with a STATE_DIR of its own: instances share",
	"the partitions out, and take over from one that is gone. What STATE_DIR holds can be lost.",
	"",
	"One, with health and metrics on a port:",
	"    ADMIN_PORT=9100 coinbit -service=balance",
	"A second one on the same machine:",
	"    ADMIN_PORT=9101 STATE_DIR=./data/state-2 coinbit -service=balance",
	"Another rule; set it for the API too, which shows it:",
	"    THRESHOLD_AMOUNT=5000 ROLLING_PERIOD=10m coinbit -service=threshold",
}

func runGroup(g stream.Group) func(context.Context, *Runtime, Command) error {
	return func(ctx context.Context, rt *Runtime, _ Command) error {
		easeGC(rt.cfg.StateMemory)
		return parallel(ctx, rt.admin, func(ctx context.Context) error {
			return processors{rt}.Execute(ctx, g)
		})
	}
}

// easeGC collects less often than Go does by itself: what a processor or a replay makes is
// garbage at once, beside little that stays. Near a few times STATE_MEMORY it
// collects more. GOGC and GOMEMLIMIT in the environment go first.
func easeGC(stateMemory int32) {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(400)
		debug.SetMemoryLimit(4 * int64(stateMemory) << 20)
	}
}

// Execute runs the processor of groupName until ctx is done, building it anew
// whenever it fails.
func (p processors) Execute(ctx context.Context, groupName stream.Group) error {
	g, ok := groups[groupName]
	if !ok {
		return usageError{fmt.Errorf("no processor group %q", groupName)}
	}
	run := &groupRun{Runtime: p.rt, name: groupName, group: g, log: p.rt.log.With("service", string(groupName))}
	p.rt.health.add(string(groupName), run.ready)
	return p.rt.supervise(ctx, string(groupName), run.attempt)
}

// groupRun is one group in this process, across the processors built for it.
type groupRun struct {
	*Runtime
	group
	name stream.Group
	log  *slog.Logger

	ruleSaid sync.Once

	mu       sync.Mutex
	running  *goka.Processor
	inflight *kafka.Inflight
}

// attempt builds a processor and runs it until it ends.
func (r *groupRun) attempt(ctx context.Context) error {
	cluster, err := r.ensureFor(ctx, stream.RightsOf(string(r.name)))
	if err != nil {
		return err
	}
	dir, err := store.Claim(r.cfg.StateDir, cluster.ID, string(r.name))
	if err != nil {
		return usageError{err}
	}
	defer func() { _ = dir.Close() }()
	client := r.client.In(cluster)

	owned := &owned{
		group: r.name, input: inputOf(r.name, cluster),
		keep:   newUpdater(r.version, r.metrics.staleRows.WithLabelValues(string(r.name.Table()))),
		parts:  make(map[int32]*ownedPartition),
		memory: r.stateMemory(2 * int(cluster.Partitions)),
	}
	table := string(r.name.Table())
	storage, err := dir.Builder(table, cluster.TopicIDs[table], store.Lead, owned.opened)
	if err != nil {
		return err
	}
	delay := r.metrics.delay.WithLabelValues(string(r.name))
	inflight := &kafka.Inflight{OnMarked: func(m *sarama.ConsumerMessage) {
		if d, known := kafka.Delay(m); known {
			delay.Observe(d.Seconds())
		}
	}}
	owned.rows, err = client.TableWriter(kafka.TableOptions{
		Group: r.name, Partitions: cluster.Partitions, OnRow: owned.stored, Row: owned.row,
		OnFenced: r.metrics.fenced.WithLabelValues(string(r.name)).Inc,
	})
	if err != nil {
		return err
	}
	defer func() { _ = owned.rows.Close() }()
	out, err := client.Producer(ctx, "coinbit-"+string(r.name), string(r.output))
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	owned.out = out
	env := r.env(cluster, inflight, owned, out)
	processor, err := goka.NewProcessor(client.Brokers(), r.graph(env),
		goka.WithLogger(gokaLogger{r.log}),
		goka.WithHasher(stream.NewHasher),
		goka.WithNilHandling(goka.NilProcess),
		goka.WithPartitionChannelSize(256),
		goka.WithStorageBuilder(storage),
		goka.WithUpdateCallback(owned.recover),
		goka.WithConsumerGroupBuilder(client.GroupBuilder(inflight, owned)),
		goka.WithConsumerSaramaBuilder(client.Reader),
		goka.WithTopicManagerBuilder(client.TopicManager),
		goka.WithProducerBuilder(client.ProcessorProducerBuilder(owned.rows, out)),
	)
	if err != nil {
		return fmt.Errorf("build processor: %w", err)
	}
	r.set(processor, inflight)
	defer r.set(nil, nil)
	r.log.Info("processor starting", "cluster", cluster.ID, "partitions", cluster.Partitions, "state", dir.Path())
	ctx, end := context.WithCancelCause(ctx)
	wait := follow(ctx, client, end)
	err = owned.verdict(processor.Run(ctx))
	moved := context.Cause(ctx)
	end(nil)
	wait()
	if errors.Is(moved, kafka.ErrMoved) {
		return moved
	}
	return err
}

// env is what the callbacks are given.
func (r *groupRun) env(cluster kafka.Cluster, inflight *kafka.Inflight, owned *owned, out *kafka.Producer) stream.Env {
	counters := make([]prometheus.Counter, len(wallet.Verdicts()))
	for _, v := range wallet.Verdicts() {
		counters[v] = r.metrics.messages.WithLabelValues(string(r.name), v.String())
	}
	if r.deadLetter != "" {
		r.metrics.deadLetters.WithLabelValues(string(r.deadLetter)) // there, at 0, before the first
	}
	return stream.Env{
		Partitions: cluster.Partitions,
		RowMemory:  r.stateMemory(2), // the stores have the other half
		Rule:       r.rule(),
		Holds: func(ctx context.Context, t goka.Stream, p int32, n int64) (bool, error) {
			return r.client.In(cluster).Holds(ctx, inflight, string(t), p, n)
		},
		Refuse: func(reason error) { _ = owned.end(fmt.Errorf("%w: %w", kafka.ErrLayout, reason)) },
		Count:  func(v wallet.Verdict) { counters[v].Inc() },
		RuleChanged: func(was wallet.Rule) {
			r.ruleSaid.Do(func() {
				what := "rows were folded with another rule; windows go on with the one in force"
				if r.rule().PeriodMs > was.PeriodMs {
					what += "; deposits that the shorter period had let go are not seen"
				}
				r.log.Warn(what,
					"was_threshold", was.Threshold, "was_period_ms", was.PeriodMs,
					"threshold", r.rule().Threshold, "period_ms", r.rule().PeriodMs)
			})
		},
		SetAside: func(ctx goka.Context, reason error) *goka.Promise {
			done := ctx.DeferCommit()
			m := inflight.Message(string(ctx.Topic()), ctx.Partition(), ctx.Offset())
			if m == nil { // only when the session is over
				done(stream.ErrSessionOver)
				promise, finish := goka.NewPromiseWithFinisher()
				finish(nil, stream.ErrSessionOver)
				return promise
			}
			r.metrics.deadLetters.WithLabelValues(string(r.deadLetter)).Inc()
			return out.SetAside(m, reason.Error()).Then(done)
		},
	}
}

func (r *groupRun) set(p *goka.Processor, f *kafka.Inflight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running, r.inflight = p, f
	if p == nil {
		r.metrics.groups.unset(r.name)
		return
	}
	r.metrics.groups.set(r.name, runningGroup{p, f})
}

// ready is nil when the processor runs and has applied what was there when it
// started.
func (r *groupRun) ready() error {
	r.mu.Lock()
	p, f := r.running, r.inflight
	r.mu.Unlock()
	if p == nil {
		return errors.New("waiting for kafka")
	}
	if !p.Recovered() {
		return errors.New("recovering its table, or joining the group")
	}
	var behind error
	f.Lag(func(topic string, partition int32, lag int64, caughtUp bool) {
		if !caughtUp {
			behind = fmt.Errorf("catching up: %s/%d is %d behind", topic, partition, lag)
		}
	})
	return behind
}

// gokaLogger sends Goka's own lines to debug: the supervisor says what matters.
type gokaLogger struct{ log *slog.Logger }

func (l gokaLogger) Print(v ...interface{})            { l.log.Debug(fmt.Sprint(v...)) }
func (l gokaLogger) Println(v ...interface{})          { l.log.Debug(fmt.Sprint(v...)) }
func (l gokaLogger) Printf(f string, v ...interface{}) { l.log.Debug(fmt.Sprintf(f, v...)) }
