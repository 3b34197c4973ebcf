package app

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"coinbit/internal/config"
	"coinbit/internal/stream"
)

// service is one value of -service. Dispatch, usage, the flags that go with it and the
// errors about services and flags all come from this table.
type service struct {
	name    string
	summary string
	example string
	// teach is what -service=NAME -h says besides: one line an entry.
	teach []string
	// flags declares those of the service; nil: it has none. Services may share a name.
	flags func(fs *flag.FlagSet, c *Command)
	// check says what a command line lacks; nil: nothing can.
	check func(c *Command) error
	run   func(ctx context.Context, rt *Runtime, cmd Command) error
}

var teachAll = []string{
	"The quickest way to see it work. On a Kafka that answers on BROKER no broker is started.",
	"",
	"Everything on 127.0.0.1, the page on http://127.0.0.1:8000, state in ./data:",
	"    coinbit -service=all",
	"A deposit, and what the wallet holds:",
	"    curl -X POST 127.0.0.1:8000/api/deposit -H 'Content-Type: application/json' -d '{\"wallet_id\":\"alice\",\"amount\":3500}'",
	"    curl 127.0.0.1:8000/api/check/alice",
	"A second one beside it, with a broker and state of its own:",
	"    BROKER=127.0.0.1:9192 PORT=8001 STATE_DIR=/tmp/second/state DATA_DIR=/tmp/second/kafka coinbit -service=all",
}

// services is a function because its rows' run functions reach back to find.
func services() []service {
	rows := []service{
		{name: "all", summary: "everything in one process: embedded broker, three groups, API",
			example: "coinbit -service=all", teach: teachAll, run: runAll},
		{name: "api", summary: "the HTTP API on PORT",
			example: "PORT=8000 BROKER=localhost:9092 coinbit -service=api", teach: teachAPI, run: runAPI},
	}
	for _, g := range stream.Groups() {
		rows = append(rows, service{name: string(g), summary: groupSummary[g],
			example: fmt.Sprintf("ADMIN_PORT=9100 coinbit -service=%s", g), teach: teachGroup, run: runGroup(g)})
	}
	return append(rows,
		service{name: "broker", summary: "the processor group that -broker_name names: balance, flagger or threshold",
			example: "coinbit -service=broker -broker_name=balance", teach: teachGroup, flags: brokerFlags, check: checkBroker},
		service{name: "kafka", summary: "the embedded development broker on BROKER's first address, log in DATA_DIR",
			example: "coinbit -service=kafka", teach: teachKafka, run: runKafka},
		service{name: "flag", summary: "operator: raise a wallet's flag by hand, or clear it with -remove",
			example: "coinbit -service=flag -wallet 69da5a28 -remove", teach: teachFlag, flags: flagFlags, check: checkFlag, run: runFlag},
		service{name: "topics", summary: "admin: create and check all topics; with -acls print the rights that services need, as commands",
			example: "coinbit -service=topics -acls -principal 'User:CN=%s'", teach: teachTopics, flags: topicsFlags, check: checkTopics, run: runTopics},
		service{name: "verify", summary: "fold the logs anew and compare every table row; exit 1 if any differs, -json for machines",
			example: "coinbit -service=verify -json", teach: teachVerify, flags: verifyFlags, run: runVerify},
		service{name: "whatif", summary: "ask whom other rules would flag: replay the deposits, change nothing",
			example: "coinbit -service=whatif -threshold 5000 -period 10m", teach: teachWhatIf, flags: whatIfFlags, run: runWhatIf},
		service{name: "statement", summary: "a wallet's deposits from the log, with running balance and window; -at TIME: as they were",
			example: "coinbit -service=statement -wallet 69da5a28", teach: teachStatement, flags: statementFlags, check: checkStatement, run: runStatement},
		service{name: "deadletter", summary: "list what was set aside, and why; -json for machines",
			example: "coinbit -service=deadletter", teach: teachDeadLetter, flags: deadLetterFlags, run: runDeadLetter},
		service{name: "loadgen", summary: "load: send deposits to the API on PORT and time its answers, -json for machines; -service=loadgen -h lists its flags",
			example: "coinbit -service=loadgen -rate 1000 -duration 30s", teach: teachLoadgen, flags: loadgenFlags, run: runLoadgen},
		service{name: "health", summary: "ask a running service's /readyz, exit 0 when it is ready",
			example: "ADMIN_PORT=9100 coinbit -service=health", teach: teachHealth, run: runHealth},
	)
}

func brokerFlags(fs *flag.FlagSet, c *Command) {
	fs.StringVar(&c.Service, "broker_name", "", "which `GROUP`: balance, flagger or threshold")
}

// checkBroker leaves the name of the group, which is a service of its own.
func checkBroker(c *Command) error {
	if !isGroup(c.Service) {
		return fmt.Errorf("-broker_name: got %q, takes balance, flagger or threshold", c.Service)
	}
	return nil
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
	b.WriteString("coinbit: exact wallet balances and threshold flags on Kafka\n\nusage: coinbit -service=NAME | -version\n\n")
	one, known := find(only)
	for _, s := range services() {
		if !known || s.name == only {
			fmt.Fprintf(&b, "  -service=%-10s %s\n      %s\n", s.name, s.summary, s.example)
		}
	}
	for _, line := range one.teach {
		b.WriteString(strings.TrimRight("\n  "+line, " "))
	}
	if len(one.teach) > 0 {
		b.WriteString("\n")
	}
	if one.flags != nil {
		b.WriteString("\nIts flags:\n\n")
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		one.flags(fs, new(Command))
		fs.SetOutput(&b)
		fs.PrintDefaults()
	}
	b.WriteString("\nSettings come from defaults, then config.env in the working directory, then the environment:\n\n")
	b.WriteString(config.Usage())
	_, _ = io.WriteString(w, b.String())
}
