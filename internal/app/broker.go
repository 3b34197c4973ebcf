package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"coinbit/internal/broker"
	"coinbit/internal/kafka"
	"coinbit/internal/stream"
)

// startBroker starts the embedded broker on BROKER's first address.
func startBroker(ctx context.Context, rt *Runtime) (*broker.Broker, error) {
	if rt.cfg.KafkaTLSCA != "" || rt.cfg.KafkaTLSCert != "" || rt.cfg.KafkaSASLMechanism != "" {
		return nil, usageError{errors.New("KAFKA_TLS_*, KAFKA_SASL_*: the embedded broker knows neither TLS nor SASL; unset them or point BROKER at a real Kafka")}
	}
	b, err := broker.Start(ctx, rt.cfg.DataDir, rt.cfg.Brokers[0])
	if errors.Is(err, broker.ErrTaken) {
		return nil, fmt.Errorf("BROKER: no Kafka answers on %s, and the embedded broker cannot listen there: %w", rt.cfg.Brokers[0], err)
	}
	if err != nil {
		return nil, err
	}
	rt.log.Info("embedded broker is up: a single node for development, not for production",
		"addr", b.Addr(), "data_dir", rt.cfg.DataDir)
	rt.warnIfOpen(b.Addr())
	return b, nil
}

// warnIfOpen says what an address that others can reach means.
func (rt *Runtime) warnIfOpen(addr string) {
	if !local(addr) {
		rt.log.Warn("BROKER is open to the network, and the embedded broker knows neither TLS nor users: everyone who reaches it can deposit and delete",
			"addr", addr)
	}
}

var teachKafka = []string{
	"One node without replicas, for development: it takes no TLS and no SASL. For real money use",
	"Apache Kafka.",
	"",
	"On localhost:9092, log in ./data/kafka:",
	"    coinbit -service=kafka",
	"Elsewhere:",
	"    BROKER=127.0.0.1:9192 DATA_DIR=/tmp/log coinbit -service=kafka",
}

// runKafka is the embedded broker alone.
func runKafka(ctx context.Context, rt *Runtime, _ Command) error {
	b, err := startBroker(ctx, rt)
	if err != nil {
		return err
	}
	defer b.Close()
	return rt.admin(ctx)
}

// brokerProbe is how long a Kafka that is there already has to answer.
const brokerProbe = 2 * time.Second

// runAll is every service in one process. They still meet only in Kafka.
func runAll(ctx context.Context, rt *Runtime, _ Command) error {
	probe, cancel := context.WithTimeout(ctx, brokerProbe)
	err := rt.client.Probe(probe)
	cancel()
	if errors.Is(err, kafka.ErrRefused) {
		return usageError{err}
	}
	if err == nil {
		rt.log.Info("a Kafka answers already, using it", "brokers", rt.cfg.Brokers)
	} else {
		b, err := startBroker(ctx, rt)
		if err != nil {
			return err
		}
		defer b.Close()
	}
	// The API stops first, the processors after it.
	backend, stop := context.WithCancel(context.WithoutCancel(ctx))
	fs := []func(context.Context) error{func(ctx context.Context) error {
		defer stop()
		return runAPI(ctx, rt, Command{})
	}}
	for _, g := range stream.Groups() {
		fs = append(fs, func(context.Context) error { return processors{rt}.Execute(backend, g) })
	}
	if _, err := rt.ensure(ctx); err != nil && !errors.Is(err, kafka.ErrUnreachable) {
		stop()
		return err
	}
	return parallel(ctx, fs...)
}
