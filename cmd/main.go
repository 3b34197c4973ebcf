// Command coinbit runs one service of the deposit suite, chosen by -service.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"coinbit/internal/app"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return app.Main(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
}
