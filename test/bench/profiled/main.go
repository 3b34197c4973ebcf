// Command profiled is the program itself with its CPU and allocations profiled
// for as long as it runs, into the files CPU_PROFILE and ALLOC_PROFILE name. The
// shipped binary has no such thing. `make bench PROFILES=dir` uses it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"coinbit/internal/app"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cpu, err := os.Create(os.Getenv("CPU_PROFILE"))
	if err == nil {
		err = pprof.StartCPUProfile(cpu)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "CPU_PROFILE:", err)
		return 2
	}
	code := app.Main(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	pprof.StopCPUProfile()
	err = cpu.Close()
	allocs, createErr := os.Create(os.Getenv("ALLOC_PROFILE"))
	if createErr == nil {
		createErr = pprof.Lookup("allocs").WriteTo(allocs, 0)
	}
	if err != nil || createErr != nil {
		fmt.Fprintln(os.Stderr, "profiles:", err, createErr)
		return 1
	}
	return code
}
