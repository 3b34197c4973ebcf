package app

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"coinbit/internal/out"
	"coinbit/internal/show"
	"coinbit/internal/stream"
	"coinbit/internal/verify"
	"coinbit/internal/wallet"
)

var teachVerify = []string{
	"It folds both logs by itself and holds every row of the three tables against that, at the",
	"offset up to which the row says it is applied: services may run meanwhile. Kafka is only read.",
	"It names deposits that stand in the log twice or came late, and whether they count. It exits",
	"0 when all agree, 1 when something differs or it could not finish.",
	"",
	"Is every balance and flag what the log says?",
	"    coinbit -service=verify",
	"Which wallets differ, and in what?",
	"    coinbit -service=verify -json | jq -r 'select(.field) | [.where, .wallet, .field, .got, .want] | @tsv'",
}

func verifyFlags(fs *flag.FlagSet, c *Command) {
	fs.BoolVar(&c.JSON, "json", false, "an object a line: each difference and note, then the report")
}

// runVerify folds the logs anew, compares every row and prints what differs, a
// line each. It changes nothing.
func runVerify(ctx context.Context, rt *Runtime, cmd Command) error {
	cluster, err := rt.client.Inspect(ctx, stream.Topics(), stream.RightsOf("verify")...)
	if err != nil {
		return err
	}
	found := func(d verify.Difference) { printFound(rt.stdout, d) }
	noted := func(n verify.Note) { printNoted(rt.stdout, n) }
	lines := json.NewEncoder(rt.stdout)
	if cmd.JSON {
		found = func(d verify.Difference) { _ = lines.Encode(d) } // a closed pipe shows at the end
		noted = func(n verify.Note) { _ = lines.Encode(n) }
	}
	began := time.Now()
	progress, end := rt.progress("verify", "records")
	report, err := verify.Run(ctx, rt.client.In(cluster), verify.Options{
		Partitions: cluster.Partitions, Rule: rt.rule(), Found: found, Noted: noted, Progress: progress,
	})
	end()
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if cmd.JSON {
		err = lines.Encode(map[string]verify.Report{"report": report})
	} else {
		printReport(rt.stdout, report, rt.rule(), time.Since(began))
		err = rt.stdout.Err()
	}
	if err == nil && report.Differences > 0 {
		err = errors.New(show.Number(report.Differences, "difference"))
	}
	return err
}

func printFound(o *out.Writer, d verify.Difference) { o.F("%s\n", d) }

func printNoted(o *out.Writer, n verify.Note) { o.F("%s\n", n) }

// printReport says in the end what was compared, and what a person has to judge.
func printReport(o *out.Writer, r verify.Report, rule wallet.Rule, took time.Duration) {
	for _, d := range r.Doubts {
		o.F("in doubt: rule %s is not the one in force, %s; right if it was in force before. It is named by %s",
			d.Rule, show.Rule(rule), show.Number(d.Rows, "threshold row"))
		if d.Rows > 0 {
			o.F(" (one is of %s)", d.FirstRow)
		}
		o.F(" and %s", show.Number(d.Crossings, "crossing"))
		if d.Crossings > 0 {
			o.F(" (one is %s)", d.FirstCrossing)
		}
		o.F("\n")
	}
	verdict := "all as the logs say"
	if r.Differences > 0 {
		verdict = show.Number(r.Differences, "difference")
	}
	if n := len(r.Doubts); n > 0 {
		verdict += "; " + show.Number(n, "rule") + " in doubt"
	}
	if r.Forgetful > 0 {
		verdict += "; " + show.Number(r.Forgetful, "row") + " with more rules than a row remembers, so without a look at the window"
	}
	if r.Twice > 0 {
		verdict += "; " + show.Number(r.Twice, "deposit") + " more than once in the log"
	}
	if r.Late > 0 {
		verdict += "; " + show.Number(r.Late, "deposit") + " came late"
	}
	if r.PurgedLetters > 0 {
		verdict += "; " + show.Number(r.PurgedLetters, "record") + " without a dead letter, where letters were purged"
	}
	o.F("%s and %s folded, %s and %s compared in %s: %s\n", show.Number(r.Deposits, "deposit"), show.Number(r.FlagEvents, "flag event"),
		show.Number(r.Rows, "row"), show.Number(r.DeadLetters, "dead letter"), took.Round(time.Millisecond), verdict)
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
