package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"coinbit/internal/kafka"
	"coinbit/internal/kafkatest"
	"coinbit/internal/stream"
)

var errAttempt = errors.New("it broke:\n\tin two lines")

// supervised runs supervise with a script, one function an attempt; the last
// one waits until it is told to stop.
func supervised(t *testing.T, rt *Runtime, script ...func(ctx context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	last := make(chan struct{})
	done := make(chan error, 1)
	n := 0
	go func() {
		done <- rt.supervise(ctx, "thing", func(ctx context.Context) error {
			n++
			if n <= len(script) {
				return script[n-1](ctx)
			}
			close(last)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	t.Cleanup(cancel)
	select {
	case <-last:
	case err := <-done:
		done <- err
	case <-soon(t).Done():
		t.Fatal("no end of attempts")
	}
	return func() error { cancel(); return <-done }
}

func failing(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// With Kafka there, a failure waits longer each time, each said in one line.
func TestSuperviseBacksOff(t *testing.T) {
	w := newWorld(t)
	rt, log := runtimeOf(t, Options{}, "BROKER="+w.addr)
	stop := supervised(t, rt, failing(errAttempt), failing(errAttempt), failing(nil))
	must(t, stop())
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("said %d lines:\n%s", len(lines), log)
	}
	for i, want := range [][]string{
		{"in=200ms", "it broke: in two lines"}, {"in=400ms", "it broke"}, {"in=800ms", "ended without being told to"},
	} {
		for _, s := range append(want, "service=thing", "level=WARN") {
			if !strings.Contains(lines[i], s) {
				t.Errorf("line %d lacks %q: %s", i, s, lines[i])
			}
		}
	}
}

// A process that may open no more files says so: it is not Kafka that is away, though it
// cannot be reached either.
func TestSuperviseOutOfFiles(t *testing.T) {
	rt, log := runtimeOf(t, Options{}, "BROKER="+freeAddr(t))
	lost := errors.New((&os.PathError{Op: "open", Path: "LOG", Err: syscall.EMFILE}).Error()) // as Goka wraps it
	stop := supervised(t, rt, failing(lost))
	_ = stop()
	first, _, _ := strings.Cut(log.String(), "\n")
	if !strings.Contains(first, "ulimit -n") || strings.Contains(first, "kafka is away") {
		t.Errorf("said %q", first)
	}
}

// With Kafka away, that is said once, and once that it is back; then the next
// attempt is made at once.
func TestSuperviseWaitsForKafka(t *testing.T) {
	addr, dir := freeAddr(t), t.TempDir()
	rt, log := runtimeOf(t, Options{}, "BROKER="+addr)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	started := make(chan struct{}, 10)
	done := make(chan error, 1)
	first := true
	go func() {
		done <- rt.supervise(ctx, "thing", func(ctx context.Context) error {
			if first {
				first = false
				return fmt.Errorf("x: %w", kafka.ErrUnreachable)
			}
			started <- struct{}{}
			<-ctx.Done()
			return nil
		})
	}()
	eventually(t, "the line about it", func() error {
		if !strings.Contains(log.String(), "kafka is away, waiting for it") {
			return errors.New(log.String())
		}
		return nil
	})
	b := startBrokerAt(t, dir, addr)
	defer b.Close()
	select {
	case <-started:
	case <-soon(t).Done():
		t.Fatal("no second attempt")
	}
	cancel()
	must(t, <-done)
	if s := log.String(); strings.Count(s, "kafka is away") != 1 || strings.Count(s, "kafka is back") != 1 || strings.Contains(s, "building it anew") {
		t.Errorf("said:\n%s", s)
	}
}

// A Kafka that does not let this client in is no absent one, and that is said
// once for each reason.
func TestSuperviseRefused(t *testing.T) {
	pki, err := kafkatest.NewPKI(t.TempDir())
	must(t, err)
	cert, key, err := pki.Issue("broker", time.Now().Add(time.Hour))
	must(t, err)
	pair, err := tls.LoadX509KeyPair(cert, key)
	must(t, err)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	must(t, err)
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = conn.(*tls.Conn).Handshake()
				_ = conn.Close()
			}()
		}
	}()
	rt, log := runtimeOf(t, Options{}, "BROKER="+ln.Addr().String())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- rt.supervise(ctx, "thing", failing(errAttempt)) }()
	eventually(t, "the line about it", func() error {
		if !strings.Contains(log.String(), "kafka refuses this client, trying again") {
			return errors.New(log.String())
		}
		return nil
	})
	cancel()
	if err := <-done; !errors.Is(err, kafka.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	// On a machine that is busy the reason may be found later than its first look allows.
	if s := log.String(); !strings.Contains(s, "KAFKA_TLS_CA") || strings.Count(s, "kafka refuses") != 1 {
		t.Errorf("said:\n%s", s)
	}
	// Nor is it one to start an embedded broker beside.
	if err := runAll(context.Background(), rt, Command{}); !errors.As(err, &usageError{}) || !errors.Is(err, kafka.ErrRefused) {
		t.Errorf("-service=all: %v", err)
	}
}

// Told to stop while Kafka is away: what was in flight may not be flushed.
func TestSuperviseStoppedWithoutKafka(t *testing.T) {
	rt, log := runtimeOf(t, Options{}, "BROKER="+freeAddr(t))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- rt.supervise(ctx, "thing", failing(errAttempt)) }()
	eventually(t, "the line about it", func() error {
		if !strings.Contains(log.String(), "kafka is away") {
			return errors.New(log.String())
		}
		return nil
	})
	cancel()
	if err := <-done; !errors.Is(err, kafka.ErrUnreachable) || !strings.Contains(err.Error(), "thing") {
		t.Fatalf("got %v", err)
	}
}

// What no waiting mends ends it: topics that do not fit, and a setting at fault
// at the start. Later the same error may pass, as when a disk was full.
func TestSuperviseGivesUp(t *testing.T) {
	w := newWorld(t)
	rt, log := runtimeOf(t, Options{}, "BROKER="+w.addr)
	layout := fmt.Errorf("x: %w", kafka.ErrLayout)
	usage := usageError{errAttempt}
	for name, c := range map[string]struct {
		script []func(context.Context) error
		want   error
	}{
		"topics, at the start": {[]func(context.Context) error{failing(layout)}, kafka.ErrLayout},
		"topics, later":        {[]func(context.Context) error{failing(errAttempt), failing(layout)}, kafka.ErrLayout},
		"setting":              {[]func(context.Context) error{failing(usage)}, errAttempt},
		"setting, later":       {[]func(context.Context) error{failing(errAttempt), failing(usage)}, nil},
	} {
		if err := supervised(t, rt, c.script...)(); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v\n%s", name, err, c.want, log)
		}
	}
}

func TestFinal(t *testing.T) {
	w := newWorld(t)
	here, _ := runtimeOf(t, Options{}, "BROKER="+w.addr)
	away, _ := runtimeOf(t, Options{}, "BROKER="+freeAddr(t))
	for _, c := range []struct {
		rt        *Runtime
		err, want error
	}{
		{here, nil, nil},
		{here, context.Canceled, nil},
		{here, fmt.Errorf("x: %w", stream.ErrSessionOver), nil}, // that message comes again
		{here, errAttempt, errAttempt},
		{away, nil, kafka.ErrUnreachable},
		{away, errAttempt, errAttempt},
	} {
		if got := c.rt.final(c.err); !errors.Is(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
	}
}

// When one ends the others are told to, all are waited for, no error is lost.
func TestParallel(t *testing.T) {
	other := errors.New("other")
	err := parallel(context.Background(),
		failing(errAttempt),
		func(ctx context.Context) error { <-ctx.Done(); return other },
		func(ctx context.Context) error { <-ctx.Done(); return nil })
	if !errors.Is(err, errAttempt) || !errors.Is(err, other) {
		t.Fatalf("got %v", err)
	}
	must(t, parallel(context.Background()))
}
