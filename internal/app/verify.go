package app

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"coinbit/internal/stream"
	"coinbit/internal/verify"
)

var teachVerify = []string{
	"It folds both logs by itself and holds every row of the three tables against that, at the",
	"offset up to which the row says it is applied: services may run meanwhile. Kafka is only read.",
	"It exits 0 when all agree, 1 when a row differs or it could not finish.",
	"",
	"Is every balance and flag what the log says?",
	"    coinbit -service=verify",
	"Which wallets differ, and in what?",
	"    coinbit -service=verify -json | jq -r 'select(.field) | [.where, .wallet, .field, .got, .want] | @tsv'",
}

func verifyFlags(fs *flag.FlagSet, c *Command) {
	fs.BoolVar(&c.JSON, "json", false, "an object a line: each difference, then the report")
}

// runVerify folds the logs anew, compares every row and prints what differs, a
// line each. It changes nothing.
func runVerify(ctx context.Context, rt *Runtime, cmd Command) error {
	cluster, err := rt.client.Inspect(ctx, stream.Topics(), stream.RightsOf("verify")...)
	if err != nil {
		return err
	}
	found := func(d verify.Difference) { fmt.Fprintln(rt.stdout, d) }
	lines := json.NewEncoder(rt.stdout)
	if cmd.JSON {
		found = func(d verify.Difference) { _ = lines.Encode(d) } // a closed pipe shows at the end
	}
	began := time.Now()
	show, end := rt.progress("verify", "records")
	report, err := verify.Run(ctx, rt.client.In(cluster), verify.Options{
		Partitions: cluster.Partitions, Rule: rt.rule(), Found: found, Progress: show,
	})
	end()
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if cmd.JSON {
		err = lines.Encode(map[string]verify.Report{"report": report})
	} else {
		_, err = fmt.Fprintf(rt.stdout, "%d deposits and %d flag events folded, %d rows and %d dead letters compared in %s: %s\n",
			report.Deposits, report.FlagEvents, report.Rows, report.DeadLetters, time.Since(began).Round(time.Millisecond), verdict(report))
	}
	if err == nil && report.Differences > 0 {
		err = fmt.Errorf("%d differences", report.Differences)
	}
	return err
}

func verdict(r verify.Report) string {
	s := "all as the logs say"
	if r.Differences > 0 {
		s = fmt.Sprintf("%d differences", r.Differences)
	}
	if r.OtherRule > 0 {
		s += fmt.Sprintf("; %d rows carry another rule than THRESHOLD_AMOUNT and ROLLING_PERIOD, and were compared by theirs", r.OtherRule)
	}
	if r.Forgetful > 0 {
		s += fmt.Sprintf("; %d rows have seen more rules than they remember, so their windows were not compared", r.Forgetful)
	}
	return s
}

// progress shows how far long work on many of unit is: a bar with rate and time left where
// standard error is a terminal, else a line each 5 seconds.
func (rt *Runtime) progress(what, unit string) (show func(done, of int64), end func()) {
	if term.IsTerminal(int(os.Stderr.Fd())) {
		bar := progressbar.NewOptions64(-1, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(unit),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		return func(done, of int64) {
			bar.ChangeMax64(of)
			_ = bar.Set64(done) // a bar that cannot be drawn is no failure
		}, func() { _ = bar.Finish() }
	}
	began, said := time.Now(), time.Now()
	return func(done, of int64) {
		if time.Since(said) < 5*time.Second {
			return
		}
		said = time.Now()
		rate := max(1, float64(done)/time.Since(began).Seconds()) // never 0: what is left is shown
		rt.log.Info(what, unit, done, "of", of, "per_second", int64(rate),
			"left", time.Duration(float64(of-done)/rate*float64(time.Second)).Round(time.Second))
	}, func() {}
}
