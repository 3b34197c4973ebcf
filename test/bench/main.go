// Command bench measures the program on a real Kafka, each row beside its ceiling
// in the same run, several rounds in turn: `make bench`. It writes tables and
// plots; docs/performance.md says what they mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"coinbit/test/bench/figure"
	"coinbit/test/bench/httpbench"
	"coinbit/test/bench/lab"
)

func main() { os.Exit(run()) }

// rows are what is measured, in this order: those that share a load stand
// together.
func rows() []lab.Row {
	return []lab.Row{
		post,
		postWhole,
		check,
		delays,
		bulk,
		drainBalance,
		drainThreshold,
		drainBusy,
		drainFlagger,
		whatif,
		statement,
		recovery,
		memory,
		walletGrows,
		walletsGrow,
	}
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 3 && os.Args[1] == "work" { // lab.Ceiling starts this
		return exit(lab.Main(ctx, os.Args[2], os.Stdout))
	}
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		return exit(httpbench.Serve(ctx, os.Args[2]))
	}
	rounds := flag.Int("rounds", 3, "rounds of each row, subject and ceiling in turn")
	only := flag.String("rows", ".", "regexp of the rows to run")
	size := flag.String("size", "small", "small or full")
	out := flag.String("out", "", "directory for table, plots and data; empty: none are written")
	program := flag.String("program", "", "another build of the program to measure; empty: this tree's")
	profiles := flag.String("profiles", "", "directory for CPU and allocation profiles of the processors; empty: none")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "bench: measures the program on a real Kafka, beside ceilings")
		flag.PrintDefaults()
		for _, r := range rows() {
			fmt.Fprintf(os.Stderr, "  row %-12s %s\n", r.Name, r.About)
		}
	}
	flag.Parse()
	wanted, err := regexp.Compile(*only)
	switch {
	case err != nil:
		return usage("-rows: %v", err)
	case *rounds < 1:
		return usage("-rounds: got %d, takes 1 or more", *rounds)
	case *size != "small" && *size != "full":
		return usage("-size: got %q, takes small or full", *size)
	case flag.NArg() > 0:
		return usage("unexpected argument %q", flag.Arg(0))
	}
	var chosen []lab.Row
	var names []string
	for _, r := range rows() {
		names = append(names, r.Name)
		if wanted.MatchString(r.Name) {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		return usage("-rows: %q is none of %s", *only, strings.Join(names, ", "))
	}
	return exit(measure(ctx, chosen, *out, lab.Options{
		Rounds: *rounds, Full: *size == "full", Program: *program, Profiles: *profiles, Progress: os.Stderr,
	}))
}

// measure runs the rows. What was measured before a failure is written too.
func measure(ctx context.Context, chosen []lab.Row, out string, o lab.Options) error {
	l, err := lab.New(ctx, o)
	if err != nil {
		return err
	}
	defer l.Close()
	report := &figure.Report{Setup: l.Describe()}
	for _, row := range chosen {
		if err = l.Measure(ctx, row, report); err != nil {
			break
		}
	}
	for _, f := range report.Figures {
		fmt.Println(f.Line())
	}
	if out != "" {
		if writeErr := report.Write(out); writeErr != nil {
			return errors.Join(err, fmt.Errorf("write the figures: %w", writeErr))
		}
		l.Say("figures are in %s", out)
	}
	return err
}

func exit(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func usage(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
	return 2
}
