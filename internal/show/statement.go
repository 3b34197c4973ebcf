package show

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"coinbit/internal/out"
	"coinbit/internal/replay"
	"coinbit/internal/wallet"
)

// Statement writes entries as they come, and then how the statement ends.
type Statement interface {
	Entry(e replay.Entry) error
	Close(end replay.Closing, took time.Duration) error
}

// StatementText writes a table for people.
func StatementText(w io.Writer, q replay.Statement) Statement {
	return &statementText{out.New(w), q, false}
}

type statementText struct {
	*out.Writer
	q     replay.Statement
	begun bool
}

const statementRow = "%-24s  %-12s  %16s  %-12s  %18s  %16s%s"

func (s *statementText) row(cells ...any) {
	s.F("%s\n", strings.TrimRight(fmt.Sprintf(statementRow, cells...), " "))
}

func (s *statementText) Entry(e replay.Entry) error {
	if !s.begun {
		s.begun = true
		s.row("TIME", "POSITION", "AMOUNT", "VERDICT", "BALANCE", "WINDOW", "")
	}
	amount, window, mark := e.Amount.String(), "", ""
	if e.Verdict == wallet.Applied {
		window = e.Window.String()
	}
	if e.SetAside != "" {
		mark = "  " + out.Text(e.SetAside)
		if e.Verdict != wallet.Overflow {
			amount, window = "", ""
		}
	}
	if e.Crosses {
		mark = "  crosses " + Rule(s.q.Rule)
	}
	s.row(Clock(e.At), e.Position, amount, verdict(e), e.Balance, window, mark)
	return s.Err()
}

// verdict is what became of an entry.
func verdict(e replay.Entry) string {
	if e.SetAside != "" {
		return "set_aside"
	}
	return e.Verdict.String()
}

func (s *statementText) Close(end replay.Closing, _ time.Duration) error {
	when := ""
	if s.q.At != 0 {
		when = " at " + Clock(s.q.At)
	}
	if s.begun {
		s.F("\n%s: balance%s %s from %s; %s\n", s.q.Wallet, when, end.Balance, Number(end.Deposits, "deposit"), flag(end.Flag))
	} else {
		s.F("%s: no deposits%s; %s\n", s.q.Wallet, when, flag(end.Flag))
	}
	if end.Later > 0 {
		s.F("%s made later left out\n", Number(end.Later, "record"))
	}
	if s.begun {
		s.F("windows and crossings are by the rule in force now, %s; the flag is as flag_wallet says\n", Rule(s.q.Rule))
	}
	return s.Err()
}

// flag says whether a wallet is flagged, and why.
func flag(f wallet.Flag) string {
	state := "not flagged"
	switch {
	case f.Raised() && f.OpRaised:
		state = "flagged by an operator at " + Clock(f.RaisedAt)
	case f.Raised():
		state = "flagged"
	}
	if e := f.Evidence; e != nil && (f.Raised() || f.Removals > 0) {
		state += ", last crossing of " + Rule(e.Rule) + ": " + e.Total.String() + " from " + Clock(e.WindowStart) +
			" to " + Clock(e.WindowEnd) + ", tipped by " + position(*e).String()
	}
	if f.Removals > 0 {
		state += ", " + Number(int64(f.Removals), "removal") + ", the last at " + Clock(f.LastRemovalAt)
	}
	return state
}

// StatementCSV writes a line for each entry. How it ends has no line.
func StatementCSV(w io.Writer) Statement {
	c := csv.NewWriter(out.New(w))
	_ = c.Write([]string{"time", "position", "amount", "verdict", "balance", "window", "crosses", "reason"}) // Flush keeps the error
	return statementCSV{c}
}

type statementCSV struct{ *csv.Writer }

func (s statementCSV) Entry(e replay.Entry) error {
	j := entryOf(e)
	crosses := ""
	if e.Crosses {
		crosses = "crosses"
	}
	return s.Write(printable([]string{j.Time, j.Position.String(), j.Amount, j.Verdict, j.Balance, j.Window, crosses, j.Reason}))
}

func (s statementCSV) Close(replay.Closing, time.Duration) error {
	s.Flush()
	return s.Error()
}

// StatementJSON writes an object a line: each entry, then {"statement": …}.
func StatementJSON(w io.Writer, q replay.Statement) Statement {
	return statementJSON{json.NewEncoder(out.New(w)), q}
}

type statementJSON struct {
	*json.Encoder
	q replay.Statement
}

type entryJSON struct {
	Time     string          `json:"time"`
	Position replay.Position `json:"position"`
	Amount   string          `json:"amount,omitempty"`
	Verdict  string          `json:"verdict"`
	Balance  string          `json:"balance"`
	Window   string          `json:"window,omitempty"`
	Crosses  bool            `json:"crosses"`
	Reason   string          `json:"reason,omitempty"`
}

// entryOf is an entry in text; a record that was set aside has no amount, and only
// what was applied has a window.
func entryOf(e replay.Entry) entryJSON {
	j := entryJSON{Time: Clock(e.At), Position: e.Position, Verdict: verdict(e), Balance: e.Balance.String(),
		Crosses: e.Crosses, Reason: e.SetAside}
	if e.SetAside == "" || e.Verdict == wallet.Overflow {
		j.Amount = e.Amount.String()
	}
	if e.SetAside == "" && e.Verdict == wallet.Applied {
		j.Window = e.Window.String()
	}
	return j
}

func (s statementJSON) Entry(e replay.Entry) error { return s.Encode(entryOf(e)) }

type evidenceJSON struct {
	Threshold   string          `json:"threshold"`
	Period      string          `json:"period"`
	WindowStart string          `json:"window_start"`
	WindowEnd   string          `json:"window_end"`
	Total       string          `json:"total"`
	Deposits    uint32          `json:"deposits"`
	Position    replay.Position `json:"position"`
}

type closingJSON struct {
	Wallet      string        `json:"wallet"`
	At          string        `json:"at,omitempty"`
	Threshold   string        `json:"threshold"`
	Period      string        `json:"period"`
	Balance     string        `json:"balance"`
	Deposits    int64         `json:"deposits"`
	Later       int64         `json:"later"`
	Flagged     bool          `json:"flagged"`
	ByOperator  bool          `json:"flagged_by_operator"`
	Removals    uint32        `json:"removals"`
	LastRemoval string        `json:"last_removal,omitempty"`
	Crossing    *evidenceJSON `json:"last_crossing,omitempty"`
	Records     int64         `json:"records"`
	Seconds     float64       `json:"seconds"`
}

func (s statementJSON) Close(end replay.Closing, took time.Duration) error {
	f := end.Flag
	j := closingJSON{Wallet: s.q.Wallet, At: Clock(s.q.At), Threshold: s.q.Rule.Threshold.String(), Period: period(s.q.Rule),
		Balance: end.Balance.String(), Deposits: end.Deposits, Later: end.Later,
		Flagged: f.Raised(), ByOperator: f.OpRaised, Removals: f.Removals, LastRemoval: Clock(f.LastRemovalAt),
		Records: end.Records, Seconds: took.Seconds()}
	if e := f.Evidence; e != nil {
		j.Crossing = &evidenceJSON{e.Rule.Threshold.String(), period(e.Rule), Clock(e.WindowStart), Clock(e.WindowEnd),
			e.Total.String(), e.Deposits, position(*e)}
	}
	return s.Encode(map[string]closingJSON{"statement": j})
}
