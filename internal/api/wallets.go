package api

import (
	"net/http"
	"time"

	"coinbit/internal/wallet"
)

// money is an exact amount as a JSON number.
type money wallet.Amount

// MarshalJSON is the plain decimal.
func (m money) MarshalJSON() ([]byte, error) { return []byte(wallet.Amount(m).String()), nil }

// stamp is a time of RFC 3339 with milliseconds, in UTC.
type stamp string

// stampOf is a time in Unix milliseconds; what RFC 3339 cannot say is the first or
// last time that it can.
func stampOf(ms int64) stamp {
	const first, last = -62135596800000, 253402300799999 // of the years 1 and 9999
	return stamp(time.UnixMilli(min(max(ms, first), last)).UTC().Format("2006-01-02T15:04:05.000Z"))
}

// stampIf is nil unless there is a time.
func stampIf(there bool, ms int64) *stamp {
	if !there {
		return nil
	}
	s := stampOf(ms)
	return &s
}

// The answer of GET /api/wallets/{wallet_id}. What is not there is null.
type walletAnswer struct {
	WalletID       string       `json:"wallet_id"`
	Balance        money        `json:"balance"`
	Deposits       uint64       `json:"deposits"`
	FirstDepositAt *stamp       `json:"first_deposit_at"`
	LastDepositAt  *stamp       `json:"last_deposit_at"`
	Flag           flagAnswer   `json:"flag"`
	Window         windowAnswer `json:"window"`
}

type flagAnswer struct {
	raisedAnswer
	Evidence      *evidenceAnswer `json:"evidence"`
	Removals      uint32          `json:"removals"`
	LastRemovalAt *stamp          `json:"last_removal_at"`
}

type raisedAnswer struct {
	Raised   bool    `json:"raised"`
	RaisedAt *stamp  `json:"raised_at"`
	RaisedBy *string `json:"raised_by"`
	OpRaised bool    `json:"op_raised"`
}

// evidenceAnswer is the latest crossing's window, with its deposits.
type evidenceAnswer struct {
	summaryAnswer
	Parts []partAnswer `json:"parts"`
}

type summaryAnswer struct {
	WindowStart stamp      `json:"window_start"`
	WindowEnd   stamp      `json:"window_end"`
	Total       money      `json:"total"`
	Deposits    uint32     `json:"deposits"`
	Position    string     `json:"position"`
	Rule        ruleAnswer `json:"rule"`
	Removed     bool       `json:"removed"`
}

type ruleAnswer struct {
	ThresholdAmount money `json:"threshold_amount"`
	RollingPeriodMs int64 `json:"rolling_period_ms"`
}

// partAnswer is one deposit, or several that the row holds as one: then the times
// are those of the first and the last, and the position is that of the last.
type partAnswer struct {
	Amount   money  `json:"amount"`
	Deposits uint32 `json:"deposits"`
	FirstAt  stamp  `json:"first_at"`
	LastAt   stamp  `json:"last_at"`
	Position string `json:"position"`
}

// windowAnswer is the window as it stands now.
type windowAnswer struct {
	Start           stamp        `json:"window_start"`
	End             stamp        `json:"window_end"`
	Total           money        `json:"total"`
	Deposits        uint32       `json:"deposits"`
	Headroom        money        `json:"headroom"`
	OldestExpiresAt *stamp       `json:"oldest_expires_at"`
	Rule            ruleAnswer   `json:"rule"`
	Parts           []partAnswer `json:"parts"`
}

// wallet answers GET /api/wallets/{wallet_id}.
func (a *API) wallet(w http.ResponseWriter, r *http.Request) *failure {
	walletID, got, f := a.lookUp(r, true)
	if f != nil {
		return f
	}
	partition, err := a.Partition(walletID)
	if err != nil {
		return unreadable(err)
	}
	row, flag := &got.account, &got.flag
	there := row.Deposits > 0
	writeJSON(w, encode(walletAnswer{
		WalletID: walletID, Balance: money(row.Balance), Deposits: row.Deposits,
		FirstDepositAt: stampIf(there, row.FirstAt), LastDepositAt: stampIf(there, row.LastAt),
		Flag: flagAnswer{
			raisedAnswer: raised(flag), Evidence: evidence(flag),
			Removals: flag.Removals, LastRemovalAt: stampIf(flag.Removals > 0, flag.LastRemovalAt),
		},
		Window: a.window(got.counter.Window, partition),
	}))
	return nil
}

func raised(f *wallet.Flag) raisedAnswer {
	by, at := f.RaisedBy()
	answer := raisedAnswer{Raised: by != wallet.NotRaised, RaisedAt: stampIf(by != wallet.NotRaised, at), OpRaised: f.OpRaised}
	names := map[wallet.RaisedBy]string{wallet.ByCrossing: "crossing", wallet.ByOperator: "operator"}
	if name, ok := names[by]; ok {
		answer.RaisedBy = &name
	}
	return answer
}

func summary(f *wallet.Flag) *summaryAnswer {
	e := f.Evidence
	if e == nil {
		return nil
	}
	return &summaryAnswer{
		WindowStart: stampOf(e.WindowStart), WindowEnd: stampOf(e.WindowEnd), Total: money(e.Total), Deposits: e.Deposits,
		Position: Position{e.Partition, e.Offset}.String(), Rule: ruleOf(e.Rule), Removed: !f.Stands(),
	}
}

func evidence(f *wallet.Flag) *evidenceAnswer {
	s := summary(f)
	if s == nil {
		return nil
	}
	return &evidenceAnswer{*s, partsOf(f.Parts, f.Evidence.Partition)}
}

// window is how w stands now. A wallet without a rule has not met one: the
// settings' stands in.
func (a *API) window(w wallet.Window, partition int32) windowAnswer {
	if w.Rule == (wallet.Rule{}) {
		w.Rule = a.Rule
	}
	s := w.Standing(a.Now().UnixMilli())
	return windowAnswer{
		Start: stampOf(s.Start), End: stampOf(s.End), Total: money(s.Sum), Deposits: s.Deposits, Headroom: money(s.Headroom),
		OldestExpiresAt: stampIf(len(s.Parts) > 0, s.Expires), Rule: ruleOf(w.Rule), Parts: partsOf(s.Parts, partition),
	}
}

func ruleOf(r wallet.Rule) ruleAnswer {
	return ruleAnswer{money(r.Threshold), r.PeriodMs}
}

func partsOf(cells []wallet.Cell, partition int32) []partAnswer {
	parts := make([]partAnswer, 0, len(cells)) // [], not null
	for _, c := range cells {
		parts = append(parts, partAnswer{money(c.Sum), c.Count, stampOf(c.First), stampOf(c.Last), Position{partition, c.Offset}.String()})
	}
	return parts
}
