// Package app is the composition root: it reads the command line and the
// settings, builds the chosen service from the other packages and runs it until
// told to stop. It is the only package that knows all the others, and it holds
// no rule about money.
package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"coinbit/internal/config"
	"coinbit/internal/kafka"
)

// Exit codes of the binary.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// settingsFile is read from the working directory, if it is there.
const settingsFile = "config.env"

// stopTimeout bounds how long a service may take to stop while Kafka is away.
const stopTimeout = 8 * time.Second

// usageError is a command line or setting at fault: exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Command is the parsed command line.
type Command struct {
	// Service is a name of the table of services.
	Service string
	// Wallet and Remove go with the service flag.
	Wallet string
	Remove bool
	// ACLs and Principal go with the service topics.
	ACLs      bool
	Principal string
	// JSON goes with the services that report.
	JSON bool
	// Load is nil but for the service loadgen.
	Load *loadFlags
}

// Main runs the program and returns its exit code: 0 after ctx is done and
// everything is flushed, 2 for a usage or configuration error, 1 for the rest.
func Main(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	cmd, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "\ncoinbit: %v\n", err)
		return exitUsage
	}
	cfg, err := config.Load(settingsFile, environ)
	if err != nil {
		fmt.Fprintf(stderr, "coinbit: %v\n", err)
		return exitUsage
	}
	log := logger(cfg, stderr)
	rt, err := New(cfg, Options{Log: log, Stdout: stdout})
	if err != nil {
		fmt.Fprintf(stderr, "coinbit: %v\n", err)
		return exitUsage
	}
	err = rt.Run(ctx, cmd)
	if usage := (usageError{}); errors.As(err, &usage) {
		fmt.Fprintf(stderr, "coinbit: %v\n", err)
		return exitUsage
	}
	if err != nil {
		log.Error("stopped with an error", "service", cmd.Service, "err", oneLine(err))
		return exitFailed
	}
	return exitOK
}

// Run runs the service of cmd until ctx is done, and not longer than stopTimeout
// after that.
func (rt *Runtime) Run(ctx context.Context, cmd Command) error {
	svc, ok := find(cmd.Service)
	if !ok {
		return usageError{fmt.Errorf("no service %q", cmd.Service)}
	}
	return runBounded(ctx, func() error { return svc.run(ctx, rt, cmd) })
}

// errStuck says that a service did not stop in time.
var errStuck = fmt.Errorf("not stopped within %s, what was in flight is unknown: %w", stopTimeout, kafka.ErrUnreachable)

// runBounded waits for run, but not longer than stopTimeout after ctx is done:
// inside Goka and sarama a stop can wait a minute for an absent broker.
func runBounded(ctx context.Context, run func() error) error {
	done := make(chan error, 1)
	go func() { done <- run() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(stopTimeout):
		return errStuck
	}
}

func parse(args []string, stderr io.Writer) (Command, error) {
	var cmd Command
	fs := flag.NewFlagSet("coinbit", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // usage prints what flag would
	var name, broker string
	fs.StringVar(&name, "service", "", "")
	fs.StringVar(&broker, "broker_name", "", "")
	fs.StringVar(&cmd.Wallet, "wallet", "", "")
	fs.BoolVar(&cmd.Remove, "remove", false, "")
	fs.BoolVar(&cmd.ACLs, "acls", false, "")
	fs.StringVar(&cmd.Principal, "principal", "", "")
	fs.BoolVar(&cmd.JSON, "json", false, "")
	load := new(loadFlags)
	load.register(fs)
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		usage(stderr, name)
		return cmd, err
	}
	if err != nil { // package flag prints what it got as it is: a terminal must not obey it
		err = errors.New(strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return '?'
		}, err.Error()))
	}
	if err == nil && fs.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if err == nil {
		err = cmd.choose(name, broker)
	}
	if err == nil {
		err = cmd.takeLoad(load, fs)
	}
	if err != nil {
		usage(stderr, "")
		return cmd, err
	}
	return cmd, nil
}

// choose turns -service and -broker_name into a service's name.
func (c *Command) choose(name, broker string) error {
	if name == "broker" {
		if _, ok := find(broker); !ok || !isGroup(broker) {
			return fmt.Errorf("-broker_name: got %q, takes balance, flagger or threshold", broker)
		}
		name = broker
	} else if broker != "" {
		return errors.New("-broker_name goes with -service=broker")
	}
	if name == "" {
		return errors.New("-service is missing")
	}
	svc, ok := find(name)
	if !ok {
		return fmt.Errorf("-service: got %q, takes one of those above", name)
	}
	if svc.name == "flag" && c.Wallet == "" {
		return errors.New("-wallet is missing: whose flag?")
	}
	if svc.name != "flag" && (c.Wallet != "" || c.Remove) {
		return errors.New("-wallet and -remove go with -service=flag")
	}
	if (c.ACLs || c.Principal != "") && svc.name != "topics" {
		return errors.New("-acls and -principal go with -service=topics")
	}
	if c.Principal != "" && !c.ACLs {
		return errors.New("-principal goes with -acls")
	}
	if svc.name != "verify" && svc.name != "loadgen" && c.JSON {
		return errors.New("-json goes with -service=verify and -service=loadgen")
	}
	c.Service = name
	return nil
}

// takeLoad takes the flags of loadgen, which go with no other service.
func (c *Command) takeLoad(load *loadFlags, given *flag.FlagSet) (err error) {
	if c.Service == "loadgen" {
		c.Load = load
		return nil
	}
	own := flag.NewFlagSet("", flag.ContinueOnError)
	new(loadFlags).register(own)
	given.Visit(func(f *flag.Flag) {
		if own.Lookup(f.Name) != nil {
			err = fmt.Errorf("-%s goes with -service=loadgen", f.Name)
		}
	})
	return err
}

func logger(cfg config.Config, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
