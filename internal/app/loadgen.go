package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"coinbit/internal/loadgen"
)

// loadFlags are the flags of -service=loadgen.
type loadFlags struct {
	mix         loadgen.Mix
	target      string
	rate        float64
	connections int
	duration    time.Duration
	deposits    uint64
}

// register adds the flags to fs; their texts are those of -h.
func (l *loadFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&l.target, "target", "", "`HOST:PORT` of the API; left out, PORT's")
	fs.Float64Var(&l.rate, "rate", 0, "deposits/s, evenly spread, timed from when each was due (open loop); 0: each after the answer to the last (closed loop)")
	fs.IntVar(&l.connections, "connections", 64, "connections, each with one request at a time")
	fs.DurationVar(&l.duration, "duration", 0, "how long; 10s unless -deposits is given")
	fs.Uint64Var(&l.deposits, "deposits", 0, "how many deposits; 0: as many as fit -duration")
	fs.StringVar(&l.mix.Amount, "amount", "0.01..100", "`LOW..HIGH` of the amounts, or one amount")
	fs.IntVar(&l.mix.Wallets, "wallets", 10_000, "wallets: load-0, load-1, …")
	fs.Float64Var(&l.mix.Zipf, "zipf", 0, "skew: the k-th wallet is drawn in proportion to 1/k^zipf; 0: all alike")
	fs.Float64Var(&l.mix.Keys, "keys", 0, "share of deposits with an Idempotency-Key, 0 to 1")
	fs.Float64Var(&l.mix.Checks, "checks", 0, "share of requests that are GET /api/check, 0 to 1, beside the deposits; with 1, -rate counts them")
	fs.Uint64Var(&l.mix.Seed, "seed", 0, "the same seed sends the same requests, keys too; 0: a random one")
}

var teachLoadgen = []string{
	"With -rate, times count from when a request was due, not from when it could be sent: a server",
	"that pauses does not look better for it.",
	"",
	"1,000 deposits a second for half a minute:",
	"    coinbit -service=loadgen -rate 1000 -duration 30s",
	"As many as 64 connections get answered, few wallets with most of them:",
	"    coinbit -service=loadgen -zipf 1.1 -wallets 100000",
	"A million, one in ten with an Idempotency-Key, and the 99th percentile in microseconds:",
	"    coinbit -service=loadgen -deposits 1000000 -keys 0.1 -json | jq '.latency[] | {kind, p99_us}'",
	"Checks alone:",
	"    coinbit -service=loadgen -checks 1 -duration 10s",
}

func loadgenFlags(fs *flag.FlagSet, c *Command) {
	c.Load = new(loadFlags)
	c.Load.register(fs)
	fs.BoolVar(&c.JSON, "json", false, "print the report as JSON")
}

// loadDuration is for a load without -duration and -deposits.
const loadDuration = 10 * time.Second

// runLoadgen sends deposits and checks to a running API and reports how it
// answered.
func runLoadgen(ctx context.Context, rt *Runtime, cmd Command) error {
	l := *cmd.Load
	if l.deposits > 0 && l.mix.Checks == 1 {
		return usageError{errors.New("-deposits: there are none with -checks 1")}
	}
	target, setting := l.target, "-target"
	if target == "" {
		target, setting = reachable(rt.cfg.Port), "PORT"
	} else if _, _, err := net.SplitHostPort(target); err != nil {
		return usageError{fmt.Errorf("-target: got %q, takes HOST:PORT", target)}
	}
	l.mix.Host = target
	l.mix.Seed = cmp.Or(l.mix.Seed, rand.Uint64()) //nolint:gosec // chance, not a secret
	if len(rt.cfg.APIKeys) > 0 {
		l.mix.APIKey = rt.cfg.APIKeys[0]
	}
	o, err := l.mix.Options()
	if err == nil {
		o.Addr, o.Connections, o.Rate, o.Duration = target, l.connections, l.rate, l.duration
		if l.mix.Checks < 1 {
			o.Rate /= 1 - l.mix.Checks
			o.Requests = l.mix.Requests(l.deposits)
		}
		if o.Duration == 0 && o.Requests == 0 {
			o.Duration = loadDuration
		}
		var end func()
		o.Progress, end = rt.progress("loadgen", "requests")
		defer end()
		rt.log.Info("sending load", "target", target, "connections", o.Connections, "rate", l.rate, "seed", l.mix.Seed)
	}
	var report loadgen.Report
	if err == nil {
		report, err = loadgen.Run(ctx, o)
	}
	if option := (*loadgen.OptionError)(nil); errors.As(err, &option) {
		return usageError{fmt.Errorf("-%w", err)}
	}
	if errors.Is(err, loadgen.ErrConnect) {
		return fmt.Errorf("%s: %w: is `make run` or -service=api up there?", setting, err)
	}
	if err != nil {
		return err
	}
	if cmd.JSON {
		err = json.NewEncoder(rt.stdout).Encode(report)
	} else {
		err = report.Print(rt.stdout)
	}
	if err == nil && report.Requests > 0 && report.Status[http.StatusOK] == 0 {
		err = fmt.Errorf("no request was answered 200: %s", remedy(report))
	}
	return err
}

// reachable is where a listen address can be connected to from this machine.
func reachable(listen string) string {
	host, port, _ := net.SplitHostPort(listen)
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// remedy is what to do about a load of which nothing succeeded.
func remedy(r loadgen.Report) string {
	switch {
	case r.Status[http.StatusUnauthorized] > 0:
		return "API_KEYS: the API wants one of its keys; set it here to the same"
	case r.Status[http.StatusTooManyRequests] > 0:
		return "RATE_LIMIT of the API: raise it or unset it there"
	case r.Status[http.StatusServiceUnavailable] > 0, r.Status[http.StatusGatewayTimeout] > 0:
		return "the API is not ready: is the Kafka on its BROKER up? Its log and /readyz say what it waits for"
	default:
		return "-target or PORT: is that this suite's API?"
	}
}
