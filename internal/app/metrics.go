package app

import (
	"context"
	"strconv"
	"sync"

	"github.com/lovoo/goka"
	"github.com/prometheus/client_golang/prometheus"

	"coinbit/internal/kafka"
	"coinbit/internal/stream"
)

// metrics of the processors and views; the API has its own in internal/api.
type metrics struct {
	messages    *prometheus.CounterVec
	deadLetters *prometheus.CounterVec
	staleRows   *prometheus.CounterVec
	fenced      *prometheus.CounterVec
	rebuilds    *prometheus.CounterVec
	delay       *prometheus.HistogramVec
	groups      *groupCollector
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coinbit_messages_total",
			Help: "Messages a group has decided on, by verdict; redelivered, repeated and key_replayed are recognised duplicates.",
		}, []string{"group", "verdict"}),
		deadLetters: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coinbit_dead_letters_total", Help: "Messages set aside, by the topic they went to.",
		}, []string{"topic"}),
		staleRows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coinbit_stale_rows_total",
			Help: "Rows read from a changelog that are older than the row in hand: an ex-owner wrote after losing its partition.",
		}, []string{"table"}),
		fenced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coinbit_fenced_total",
			Help: "Partitions that the broker refused this instance, because another has claimed them since.",
		}, []string{"group"}),
		rebuilds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "coinbit_rebuilds_total",
			Help: "Times that a part of the service failed while Kafka answered, and was built anew.",
		}, []string{"part"}),
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "coinbit_apply_delay_seconds",
			Help:    "Time from a message's acceptance to its effects being stored.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}, []string{"group"}),
		groups: &groupCollector{running: make(map[stream.Group]runningGroup)},
	}
	r.MustRegister(m.messages, m.deadLetters, m.staleRows, m.fenced, m.rebuilds, m.delay, m.groups, thisBuild().collector())
	return m
}

// groupCollector reads lag and recovery progress when it is scraped.
type groupCollector struct {
	mu      sync.Mutex
	running map[stream.Group]runningGroup
}

type runningGroup struct {
	processor *goka.Processor
	inflight  *kafka.Inflight
}

func (c *groupCollector) set(g stream.Group, r runningGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[g] = r
}

func (c *groupCollector) unset(g stream.Group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.running, g)
}

var (
	lagDesc = prometheus.NewDesc("coinbit_lag_messages", "Messages delivered or waiting that are not applied yet.",
		[]string{"group", "topic", "partition"}, nil)
	recoveredDesc = prometheus.NewDesc("coinbit_recovery_offset", "Changelog offset that recovery of a partition has reached: its target once it has ended.",
		[]string{"group", "partition"}, nil)
	recoverToDesc = prometheus.NewDesc("coinbit_recovery_target_offset", "Changelog offset at which recovery of a partition ends.",
		[]string{"group", "partition"}, nil)
)

// Describe implements prometheus.Collector.
func (c *groupCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- lagDesc
	ch <- recoveredDesc
	ch <- recoverToDesc
}

// Collect implements prometheus.Collector.
func (c *groupCollector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	for g, r := range c.running {
		r.inflight.Lag(func(topic string, partition int32, lag int64, _ bool) {
			gauge(lagDesc, lag, string(g), topic, strconv.Itoa(int(partition)))
		})
		for partition, stats := range r.processor.StatsWithContext(context.Background()).Group {
			if stats.TableStats == nil || stats.TableStats.Recovery == nil {
				continue
			}
			p := strconv.Itoa(int(partition))
			gauge(recoveredDesc, recovered(stats.TableStats.Recovery), string(g), p)
			gauge(recoverToDesc, stats.TableStats.Recovery.Hwm, string(g), p)
		}
	}
}

// recovered is the offset that recovery goes on from. Goka tells at first that, and then the
// last offset read; at the end there is none to go on from.
func recovered(r *goka.RecoveryStats) int64 {
	if !r.RecoveryTime.IsZero() {
		return r.Hwm
	}
	return r.Offset
}
