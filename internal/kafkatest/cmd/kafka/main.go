// Command kafka runs one real Apache Kafka broker in the foreground until it is
// interrupted, for trying the suite on the real thing without containers. It is
// for development: one node, no security, reachable from this machine only.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"coinbit/internal/kafkatest"
)

func main() { os.Exit(run()) }

func run() int {
	port := flag.Int("port", 9092, "port to listen on, at 127.0.0.1")
	dir := flag.String("dir", filepath.Join("data", "real-kafka"), "directory for configuration and data, kept between runs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	abs, err := filepath.Abs(*dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kafka:", err)
		return 1
	}
	c, err := kafkatest.Start(ctx, kafkatest.Options{Dir: abs, Port: *port, Log: os.Stderr})
	if err != nil {
		fmt.Fprintln(os.Stderr, "kafka:", err)
		return 1
	}
	fmt.Printf("Apache Kafka %s listens on %s, data in %s; stop it with Ctrl-C\n", kafkatest.Version, c.Bootstrap(), *dir)
	code := 0
	select {
	case <-ctx.Done():
	case <-c.Exited(0):
		fmt.Fprintln(os.Stderr, "kafka: the broker ended by itself")
		code = 1
	}
	c.Stop()
	return code
}
