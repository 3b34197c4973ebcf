package show

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"coinbit/internal/out"
	"coinbit/internal/replay"
	"coinbit/internal/wallet"
)

// names is how many wallets a table for people names under each heading.
const names = 10

// WhatIfText writes an answer for people: the rules side by side, then the wallets that
// each would flag anew or no longer, the first ones by name.
func WhatIfText(w io.Writer, a replay.Answer, took time.Duration) error {
	l := out.New(w)
	l.F("%s of %s judged", Number(a.Deposits, "deposit"), Number(a.Wallets, "wallet"))
	if a.Deposits > 0 {
		l.F(", made from %s to %s", Clock(a.FirstAt), Clock(a.LastAt))
	}
	l.F(" (%s read in %s, %s set aside).\n", Number(a.Records, "record"), took.Round(time.Millisecond), count(a.SetAside))
	l.F("Each rule saw the same deposits, the one in force too. What operators raised or removed is left out.\n\n")
	t := tabwriter.NewWriter(l, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "rule\tflagged\tnewly\tno longer\t")
	for i, v := range a.Rules {
		anew, gone := count(len(v.New)), count(len(v.Gone))
		if i == 0 {
			anew, gone = "in force", ""
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t\n", Rule(v.Rule), count(len(v.Flags)), anew, gone)
	}
	_ = t.Flush() // l keeps the error
	for _, v := range a.Rules[1:] {
		listFlags(l, Rule(v.Rule)+" would flag, which "+Rule(a.Rules[0].Rule)+" does not", v.New)
		listFlags(l, Rule(v.Rule)+" would no longer flag, which "+Rule(a.Rules[0].Rule)+" does", v.Gone)
	}
	return l.Err()
}

// listFlags names the first wallets of a list, each with its first crossing.
func listFlags(l *out.Writer, title string, flags []replay.Flag) {
	if len(flags) == 0 {
		return
	}
	l.F("\n%s:\n", title)
	for _, f := range flags[:min(names, len(flags))] {
		l.F("  %s  at %s: %s in %s, tipped by %s\n", f.Wallet, Clock(f.At), f.Evidence.Total,
			Number(int64(f.Evidence.Deposits), "deposit"), position(f.Evidence))
	}
	if more := len(flags) - names; more > 0 {
		l.F("  and %s more: -csv or -json has all\n", count(more))
	}
}

func position(e wallet.Evidence) replay.Position {
	return replay.Position{Partition: e.Partition, Offset: e.Offset}
}

// Changes of a flag from the rule in force to another.
const (
	same = "same"
	anew = "new"
	gone = "gone"
)

// changes hands over every wallet that a rule or the one in force flags, and what
// becomes of its flag; evidence is of the rule in force where it is gone.
func changes(v replay.Verdicts, each func(change string, f replay.Flag)) {
	isNew := make(map[string]bool, len(v.New))
	for _, f := range v.New {
		isNew[f.Wallet] = true
	}
	for _, f := range v.Flags {
		if isNew[f.Wallet] {
			each(anew, f)
		} else {
			each(same, f)
		}
	}
	for _, f := range v.Gone {
		each(gone, f)
	}
}

// WhatIfCSV writes a line for each rule and wallet: all of them.
func WhatIfCSV(w io.Writer, a replay.Answer) error {
	return table(w, func(row func(...string)) {
		row("threshold", "period", "wallet", "change", "at", "window_start", "window_end", "total", "deposits", "position")
		for _, v := range a.Rules {
			changes(v, func(change string, f replay.Flag) {
				row(v.Rule.Threshold.String(), period(v.Rule), f.Wallet, change, Clock(f.At), Clock(f.Evidence.WindowStart),
					Clock(f.Evidence.WindowEnd), f.Evidence.Total.String(), strconv.Itoa(int(f.Evidence.Deposits)), position(f.Evidence).String())
			})
		}
	})
}

// Amounts are strings in JSON, so that no reader makes a float of them.
type ruleJSON struct {
	Threshold string     `json:"threshold"`
	Period    string     `json:"period"`
	InForce   bool       `json:"in_force"`
	Flagged   int        `json:"flagged"`
	New       int        `json:"new"`
	Gone      int        `json:"gone"`
	Wallets   []flagJSON `json:"wallets"`
}

type flagJSON struct {
	Wallet      string          `json:"wallet"`
	Change      string          `json:"change"`
	At          string          `json:"at"`
	WindowStart string          `json:"window_start"`
	WindowEnd   string          `json:"window_end"`
	Total       string          `json:"total"`
	Deposits    uint32          `json:"deposits"`
	Position    replay.Position `json:"position"`
}

// WhatIfJSON writes one object with all rules and wallets.
func WhatIfJSON(w io.Writer, a replay.Answer, took time.Duration) error {
	rules := make([]ruleJSON, len(a.Rules))
	for i, v := range a.Rules {
		rules[i] = ruleJSON{Threshold: v.Rule.Threshold.String(), Period: period(v.Rule), InForce: i == 0,
			Flagged: len(v.Flags), New: len(v.New), Gone: len(v.Gone), Wallets: []flagJSON{}}
		changes(v, func(change string, f replay.Flag) {
			rules[i].Wallets = append(rules[i].Wallets, flagJSON{Wallet: f.Wallet, Change: change, At: Clock(f.At),
				WindowStart: Clock(f.Evidence.WindowStart), WindowEnd: Clock(f.Evidence.WindowEnd),
				Total: f.Evidence.Total.String(), Deposits: f.Evidence.Deposits, Position: position(f.Evidence)})
		})
	}
	return json.NewEncoder(out.New(w)).Encode(struct {
		Records  int64      `json:"records"`
		Seconds  float64    `json:"seconds"`
		SetAside int64      `json:"set_aside"`
		Deposits int64      `json:"deposits"`
		Wallets  int64      `json:"wallets"`
		FirstAt  string     `json:"first_at,omitempty"`
		LastAt   string     `json:"last_at,omitempty"`
		Rules    []ruleJSON `json:"rules"`
	}{a.Records, took.Seconds(), a.SetAside, a.Deposits, a.Wallets, Clock(a.FirstAt), Clock(a.LastAt), rules})
}
