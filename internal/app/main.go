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
	"time"

	"coinbit/internal/config"
	"coinbit/internal/kafka"
	"coinbit/internal/out"
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

// Main runs the program and returns its exit code: 0 after ctx is done and
// everything is flushed, 2 for a usage or configuration error, 1 for the rest.
func Main(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	o, e := out.New(stdout), out.New(stderr)
	code := run(ctx, args, environ, o, e)
	_, _ = o.Close(), e.Close() // there is nobody left to tell
	return code
}

func complain(o *out.Writer, err error) { o.F("coinbit: %v\n", err) }

func run(ctx context.Context, args, environ []string, stdout, stderr *out.Writer) int {
	if len(args) == 1 && (args[0] == "-version" || args[0] == "--version") {
		stdout.F("%s\n", thisBuild())
		return exitOK
	}
	cmd, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		complain(stderr, err)
		return exitUsage
	}
	cfg, err := config.Load(settingsFile, environ)
	if err != nil {
		complain(stderr, err)
		return exitUsage
	}
	log := logger(cfg, stderr)
	for _, warning := range config.Misspelled(environ) {
		log.Warn(warning)
	}
	rt, err := New(cfg, Options{Log: log, Stdout: stdout})
	if err != nil {
		complain(stderr, err)
		return exitUsage
	}
	err = rt.Run(ctx, cmd)
	if usage := (usageError{}); errors.As(err, &usage) {
		complain(stderr, err)
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
	if !ok || svc.run == nil { // broker stands for another
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

func logger(cfg config.Config, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
