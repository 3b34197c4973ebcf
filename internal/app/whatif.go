package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"coinbit/internal/replay"
	"coinbit/internal/show"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// maxRules bounds the rules of one replay: each has a window for every wallet.
const maxRules = 16

// whatIf are the flags of -service=whatif, as given.
type whatIf struct {
	rules                               texts
	threshold, period, from, to, svgOut string
}

// texts is a flag that may be given several times.
type texts []string

func (t *texts) String() string { return strings.Join(*t, " ") }

// Set implements flag.Value.
func (t *texts) Set(s string) error {
	*t = append(*t, s)
	return nil
}

var teachWhatIf = []string{
	"Each rule is replayed over all deposits by the code that raises the flags, and so is the",
	"rule in force, THRESHOLD_AMOUNT and ROLLING_PERIOD. The table says whom each would flag",
	"that the rule in force does not, and whom no longer. Kafka is only read.",
	"",
	"What if the threshold were 5,000?",
	"    coinbit -service=whatif -threshold 5000",
	"And if that held for ten minutes rather than two? Both, in one pass:",
	"    coinbit -service=whatif -rule 5000/2m -rule 5000/10m",
	"January alone, with a plot of flags over time:",
	"    coinbit -service=whatif -rule 5000/10m -from 2026-01-01T00:00:00Z -to 2026-02-01T00:00:00Z -svg january.svg",
	"Every wallet that would be flagged anew, for a spreadsheet:",
	"    coinbit -service=whatif -threshold 5000 -csv | grep ,new, >new.csv",
}

func whatIfFlags(fs *flag.FlagSet, c *Command) {
	q := new(whatIf)
	c.WhatIf = q
	fs.Var(&q.rules, "rule", "`AMOUNT/PERIOD`, such as 5000/10m; may be given up to 16 times")
	fs.StringVar(&q.threshold, "threshold", "", "one rule's `AMOUNT`, written as THRESHOLD_AMOUNT is, which it is without this")
	fs.StringVar(&q.period, "period", "", "one rule's `PERIOD`, written as ROLLING_PERIOD is, which it is without this")
	fs.StringVar(&q.from, "from", "", "the first `TIME` of the deposits that are judged, RFC 3339")
	fs.StringVar(&q.to, "to", "", "the `TIME` before which they were made")
	fs.StringVar(&q.svgOut, "svg", "", "`FILE` for a plot of wallets flagged over time; one that is there is replaced")
	fs.BoolVar(&c.CSV, "csv", false, "a line for each rule and wallet, all of them")
	fs.BoolVar(&c.JSON, "json", false, "one object with all rules and wallets")
}

// runWhatIf replays the deposit log under several rules. It only reads.
func runWhatIf(ctx context.Context, rt *Runtime, cmd Command) error {
	q, err := rt.question(*cmd.WhatIf)
	if err == nil {
		err = cmd.oneForm()
	}
	if err != nil {
		return usageError{err}
	}
	rights := stream.RightsOf("whatif")
	cluster, err := rt.client.Inspect(ctx, stream.TopicsIn(rights), rights...)
	if err != nil {
		return err
	}
	q.Partitions = cluster.Partitions
	easeGC(rt.cfg.StateMemory)
	began := time.Now()
	show, end := rt.progress("whatif", "deposits")
	q.Progress = show
	answer, err := q.Ask(ctx, rt.client.In(cluster))
	end()
	if err != nil {
		return fmt.Errorf("whatif: %w", err)
	}
	if err := cmd.printAnswer(rt.stdout, answer, time.Since(began)); err != nil {
		return err
	}
	if cmd.WhatIf.svgOut == "" {
		return nil
	}
	return plot(cmd.WhatIf.svgOut, answer)
}

func (c Command) printAnswer(w io.Writer, a replay.Answer, took time.Duration) error {
	switch {
	case c.JSON:
		return show.WhatIfJSON(w, a, took)
	case c.CSV:
		return show.WhatIfCSV(w, a)
	default:
		return show.WhatIfText(w, a, took)
	}
}

func plot(file string, a replay.Answer) error {
	f, err := os.Create(file) //nolint:gosec // the operator names it
	if err != nil {
		return fmt.Errorf("-svg: %w", err)
	}
	return errors.Join(show.WhatIfPlot(f, a), f.Close())
}

// oneForm refuses two forms of output at once.
func (c Command) oneForm() error {
	if c.JSON && c.CSV {
		return errors.New("-csv and -json: takes one of them")
	}
	return nil
}

// question turns the flags into rules and times, the rule in force first.
func (rt *Runtime) question(f whatIf) (q replay.WhatIf, err error) {
	q.Rules = []wallet.Rule{rt.rule()}
	if f.threshold != "" || f.period != "" {
		r, err := rt.ruleOf("-threshold", f.threshold, "-period", f.period)
		if err != nil {
			return q, err
		}
		q.Rules = append(q.Rules, r)
	}
	for _, text := range f.rules {
		threshold, period, ok := strings.Cut(text, "/")
		if !ok || threshold == "" || period == "" {
			return q, fmt.Errorf("-rule: got %.80q, takes AMOUNT/PERIOD such as 5000/10m", text)
		}
		r, err := rt.ruleOf("-rule", threshold, "-rule", period)
		if err != nil {
			return q, err
		}
		if !slices.Contains(q.Rules[1:], r) {
			q.Rules = append(q.Rules, r)
		}
	}
	switch {
	case len(q.Rules) == 1:
		return q, errors.New("-threshold, -period and -rule are missing: which rule? Such as -rule 5000/10m")
	case len(q.Rules) > maxRules+1:
		return q, fmt.Errorf("-rule: got %d rules, takes up to %d", len(q.Rules)-1, maxRules)
	}
	from, err := timeOf("-from", f.from)
	if err != nil {
		return q, err
	}
	to, err := timeOf("-to", f.to)
	if err != nil {
		return q, err
	}
	if f.from != "" && f.to != "" && !from.Before(to) {
		return q, fmt.Errorf("-from: got %s, which is not before -to %s", f.from, f.to)
	}
	q.From, q.To = firstMilli(from), firstMilli(to)
	return q, nil
}

// ruleOf is the rule in force with another threshold, another period or both; the names
// are those of the flags that said so.
func (rt *Runtime) ruleOf(nameOfThreshold, threshold, nameOfPeriod, period string) (wallet.Rule, error) {
	cfg := rt.cfg
	if threshold != "" {
		if err := cfg.Set("THRESHOLD_AMOUNT", threshold); err != nil {
			return wallet.Rule{}, fmt.Errorf("%s: %w", nameOfThreshold, err)
		}
	}
	if period != "" {
		if err := cfg.Set("ROLLING_PERIOD", period); err != nil {
			return wallet.Rule{}, fmt.Errorf("%s: %w", nameOfPeriod, err)
		}
	}
	return ruleIn(cfg), nil
}

// timeOf reads a flag's time; the zero time for none.
func timeOf(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(text)) // t and z may be small
	_, fraction, _ := strings.Cut(text, ".")
	if err != nil || t.UnixMilli() <= 0 || len(strings.TrimLeft(fraction, "0123456789")) < len(fraction)-9 { // Parse cuts off what is below a nanosecond
		return time.Time{}, fmt.Errorf("%s: got %.80q, takes an RFC 3339 time after 1970 such as 2026-01-31T23:59:59Z", name, text)
	}
	return t, nil
}

// firstMilli is the first whole millisecond, as deposits have, that is not before t; 0 for
// the zero time.
func firstMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Add(time.Millisecond - 1).UnixMilli()
}

// lastMilli is the last one that is not after t.
func lastMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
