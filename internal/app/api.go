package app

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"

	"coinbit/internal/api"
	"coinbit/internal/web"
)

var teachAPI = []string{
	"Several may run on one Kafka, each with a STATE_DIR and a PORT of its own: each answers for",
	"all wallets. PORT also serves /healthz, /readyz, /metrics, /openapi.json, /docs and the page.",
	"",
	"For this machine alone:",
	"    coinbit -service=api",
	"Open to the network, for those who have a key, each at most 100 times a second:",
	"    PORT=0.0.0.0:8000 API_KEYS=… RATE_LIMIT=100 coinbit -service=api",
	"A second one on the same machine:",
	"    PORT=8001 STATE_DIR=./data/state-2 coinbit -service=api",
}

// runAPI serves HTTP at once; what needs Kafka answers 503 until it is there.
func runAPI(ctx context.Context, rt *Runtime, _ Command) error {
	// Counted as in use, so that the next collection comes after 32 MB of garbage and not
	// after 4. Nothing writes to it, so it takes no memory.
	ballast := make([]byte, 16<<20)
	defer runtime.KeepAlive(ballast)
	log, views := newDeposits(rt), newTables(rt)
	hub, err := newHub(rt, log, views)
	if err != nil {
		return err
	}
	handler, err := api.New(api.Options{
		Log: log, Tables: views, Live: hub,
		Partition: log.partition, Holds: log.holds,
		Now: rt.now, Rule: rt.rule(),
		Keys: rt.cfg.APIKeys, RateLimit: rt.cfg.RateLimit,
		Registry: rt.registry, Logger: rt.log,
	})
	if err != nil {
		return usageError{err}
	}
	if len(rt.cfg.APIKeys) == 0 && !local(rt.cfg.Port) {
		rt.log.Warn("PORT is open to the network and API_KEYS is not set: everyone who reaches it can deposit", "port", rt.cfg.Port)
	}
	if slices.ContainsFunc(rt.cfg.APIKeys, func(k string) bool { return len(k) < 16 }) {
		rt.log.Warn("API_KEYS has a key of fewer than 16 characters, which can be guessed")
	}
	// The producer and the views outlive the server, so that requests in flight
	// get their answers.
	backend, stop := context.WithCancel(context.WithoutCancel(ctx))
	return parallel(ctx,
		func(ctx context.Context) error {
			defer stop()
			return rt.serve(ctx, "PORT", rt.cfg.Port, handler.Handler(rt.adminRoutes, web.Routes))
		},
		func(ctx context.Context) error { hub.Run(ctx); return nil },
		func(context.Context) error { return rt.supervise(backend, "deposits", log.attempt) },
		func(context.Context) error { return views.run(backend, rt) },
	)
}

// local tells whether only this machine can reach a listen address.
func local(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
