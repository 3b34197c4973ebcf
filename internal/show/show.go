// Package show writes what internal/replay found: tables for people, CSV and JSON for
// machines, and a plot. It decides nothing and reads nothing.
package show

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"

	"coinbit/internal/out"
	"coinbit/internal/wallet"
)

// Clock is a time in Unix milliseconds, as RFC 3339 in UTC with three decimals, so that
// all are of one width; empty for 0.
func Clock(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// Rule is a rule as -rule takes it.
func Rule(r wallet.Rule) string { return r.Threshold.String() + "/" + period(r) }

// period is a rule's, without the zeros that a duration ends with: 2m, not 2m0s.
func period(r wallet.Rule) string {
	s := (time.Duration(r.PeriodMs) * time.Millisecond).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// count groups a number's digits by three, for people.
func count[T ~int | ~int64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Number is a count and its noun: 1 wallet, 2,000 wallets.
func Number[T ~int | ~int64](n T, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return count(n) + " " + noun + "s"
}

// table writes rows as CSV.
func table(w io.Writer, rows func(row func(...string))) error {
	c := csv.NewWriter(out.New(w))
	rows(func(cells ...string) { _ = c.Write(printable(cells)) }) // Flush keeps the error
	c.Flush()
	return c.Error()
}

// printable keeps a row on its line.
func printable(cells []string) []string {
	for i, c := range cells {
		cells[i] = out.Text(c)
	}
	return cells
}
