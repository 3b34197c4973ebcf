package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"coinbit/internal/config"
	"coinbit/internal/stream"
)

// service is one value of -service. Dispatch, usage and the unknown-service
// error all come from this table.
type service struct {
	name    string
	summary string
	example string
	run     func(ctx context.Context, rt *Runtime, cmd Command) error
}

// services is a function because its rows' run functions reach back to find.
func services() []service {
	rows := []service{
		{"all", "everything in one process: embedded broker, three groups, API",
			"coinbit -service=all", runAll},
		{"api", "the HTTP API on PORT",
			"PORT=8000 BROKER=localhost:9092 coinbit -service=api", runAPI},
	}
	for _, g := range stream.Groups() {
		rows = append(rows, service{string(g), groupSummary[g],
			fmt.Sprintf("ADMIN_PORT=9100 coinbit -service=%s", g), runGroup(g)})
	}
	return append(rows,
		service{"broker", "the processor group that -broker_name names: balance, flagger or threshold",
			"coinbit -service=broker -broker_name=balance", runNothing},
		service{"kafka", "the embedded development broker on BROKER's first address, log in DATA_DIR",
			"coinbit -service=kafka", runKafka},
		service{"flag", "operator: raise a wallet's flag by hand, or clear it with -remove",
			"coinbit -service=flag -wallet 69da5a28 -remove", runFlag},
		service{"topics", "admin: create and check all topics; with -acls print the rights that services need, as commands",
			"coinbit -service=topics -acls -principal 'User:CN=%s'", runTopics},
		service{"verify", "fold the logs anew and compare every table row; exit 1 if any differs, -json for machines",
			"coinbit -service=verify -json", runVerify},
		service{"loadgen", "load: send deposits to the API on PORT and time its answers, -json for machines; -service=loadgen -h lists its flags",
			"coinbit -service=loadgen -rate 1000 -duration 30s", runLoadgen},
		service{"health", "ask a running service's /readyz, exit 0 when it is ready",
			"ADMIN_PORT=9100 coinbit -service=health", runHealth},
	)
}

// runNothing stands for a row that the command line resolves to another.
func runNothing(context.Context, *Runtime, Command) error {
	return usageError{errors.New("-broker_name: takes balance, flagger or threshold")}
}

var groupSummary = map[stream.Group]string{
	stream.BalanceGroup:   "processor group: what each wallet holds",
	stream.ThresholdGroup: "processor group: the rolling window (the detector)",
	stream.FlaggerGroup:   "processor group: each wallet's flag",
}

func find(name string) (service, bool) {
	for _, s := range services() {
		if s.name == name {
			return s, true
		}
	}
	return service{}, false
}

func isGroup(name string) bool {
	_, ok := groupSummary[stream.Group(name)]
	return ok
}

// usage prints every service, or what one of them does.
func usage(w io.Writer, only string) {
	var b strings.Builder
	b.WriteString("coinbit: exact wallet balances and threshold flags on Kafka\n\nusage: coinbit -service=NAME\n\n")
	for _, s := range services() {
		if _, known := find(only); known && s.name != only {
			continue
		}
		fmt.Fprintf(&b, "  -service=%-10s %s\n      %s\n", s.name, s.summary, s.example)
	}
	if only == "loadgen" {
		b.WriteString("\nIts flags:\n\n")
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		new(loadFlags).register(fs)
		fs.SetOutput(&b)
		fs.PrintDefaults()
	}
	b.WriteString("\nSettings come from defaults, then config.env in the working directory, then the environment:\n\n")
	b.WriteString(config.Usage())
	_, _ = io.WriteString(w, b.String())
}
