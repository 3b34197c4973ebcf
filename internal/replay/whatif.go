package replay

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// WhatIf asks whom each of several rules would flag.
type WhatIf struct {
	// Partitions of the deposit log.
	Partitions int32
	// Rules to replay; the others are compared with the first.
	Rules []wallet.Rule
	// From and To bound the event times of the deposits that are judged: from From
	// on and before To, in Unix milliseconds; 0: unbounded.
	From, To int64
	Progress Progress
}

// Answer is what each rule would do. Every rule saw the same deposits: those in the
// span that count. What lies before the span decides which deposits are repeats,
// and is in no window.
type Answer struct {
	// Records were read, SetAside of them could not be applied, Deposits were judged.
	Records, SetAside, Deposits int64
	// Wallets have such a deposit.
	Wallets int64
	// FirstAt and LastAt are the smallest and largest event time of what was judged.
	FirstAt, LastAt int64
	Rules           []Verdicts
}

// Verdicts are what one rule would do.
type Verdicts struct {
	Rule wallet.Rule
	// Flags are the wallets flagged, each by its first crossing, by time.
	Flags []Flag
	// New would be flagged by this rule and not by the first one of the WhatIf; Gone
	// are flagged by that and not by this one, with its evidence.
	New, Gone []Flag
}

// Flag is a wallet's first crossing in the order of the log.
type Flag struct {
	Wallet string
	// At is the event time of the deposit that tipped the window, in Unix milliseconds.
	At       int64
	Evidence wallet.Evidence
}

// Ask replays the deposit log. It holds the accounts and windows of a few partitions at
// a time, and the flags of all.
func (q WhatIf) Ask(ctx context.Context, s Source) (Answer, error) {
	var mu sync.Mutex
	all := Answer{Rules: make([]Verdicts, len(q.Rules))}
	err := readAll(ctx, s, depositLog, q.Progress, func(_ int32, records func(Each) error) error {
		f := newFold(q)
		if err := records(f.deposit); err != nil {
			return err
		}
		f.compare()
		mu.Lock()
		defer mu.Unlock()
		all.add(f.answer)
		return nil
	})
	for i := range all.Rules {
		v := &all.Rules[i]
		v.Rule = q.Rules[i]
		for _, flags := range [][]Flag{v.Flags, v.New, v.Gone} {
			slices.SortFunc(flags, func(a, b Flag) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Wallet, b.Wallet)) })
		}
	}
	return all, err
}

// fold is the replay of one partition.
type fold struct {
	WhatIf
	answer  Answer
	wallets map[string]*replayed
}

// replayed is a wallet. Its account is the same under every rule; windows and flags
// are a rule each. A window is kept until its rule has flagged the wallet, which only
// an operator could undo: so the busiest wallets are soon the cheapest.
type replayed struct {
	id      string
	row     wallet.Counter  // with the account, and the window in hand
	windows []wallet.Window // none yet: no deposit in the span
	flags   []*Flag         // nil: not flagged
}

func newFold(q WhatIf) *fold {
	return &fold{WhatIf: q, answer: Answer{Rules: make([]Verdicts, len(q.Rules))}, wallets: make(map[string]*replayed)}
}

func (f *fold) deposit(m *sarama.ConsumerMessage) error {
	f.answer.Records++
	w := f.wallets[string(m.Key)]
	if w == nil {
		w = &replayed{id: string(m.Key)}
	}
	d, reason := stream.ReadDeposit(recordOf(m, w.id, f.Partitions), m.Value)
	if reason != nil {
		f.answer.SetAside++
		return Refused(m, reason)
	}
	if w.row.Account.NextOffset == 0 {
		f.wallets[w.id] = w
	}
	verdict := w.row.Account.Apply(d)
	if verdict == wallet.Overflow {
		f.answer.SetAside++
	}
	if verdict == wallet.Applied && d.At >= f.From && (f.To == 0 || d.At < f.To) {
		f.judge(w, d)
	}
	return nil
}

// judge holds a deposit that counts against every rule. A row's room depends on its
// account, so each window is judged beside it, as in the threshold table.
func (f *fold) judge(w *replayed, d wallet.Deposit) {
	a := &f.answer
	if w.windows == nil {
		w.windows, w.flags = make([]wallet.Window, len(f.Rules)), make([]*Flag, len(f.Rules))
		a.Wallets++
	}
	if a.Deposits == 0 {
		a.FirstAt, a.LastAt = d.At, d.At
	}
	a.Deposits++
	a.FirstAt, a.LastAt = min(a.FirstAt, d.At), max(a.LastAt, d.At)
	for i, rule := range f.Rules {
		if w.flags[i] != nil {
			continue
		}
		w.row.Window = w.windows[i]
		if crossed, _ := w.row.Judge(d, rule); crossed {
			w.flags[i] = &Flag{Wallet: w.id, At: d.At, Evidence: *w.row.Tip}
			w.row.Window = wallet.Window{}
		}
		w.windows[i] = w.row.Window
	}
}

// compare sorts the wallets into those flagged, newly so and no longer so.
func (f *fold) compare() {
	for _, w := range f.wallets {
		for i, flag := range w.flags {
			v := &f.answer.Rules[i]
			switch before := w.flags[0]; {
			case flag == nil && before != nil:
				v.Gone = append(v.Gone, *before)
			case flag != nil && before == nil:
				v.New = append(v.New, *flag)
			}
			if flag != nil {
				v.Flags = append(v.Flags, *flag)
			}
		}
	}
}

// add joins what another partition gave.
func (a *Answer) add(b Answer) {
	if a.Deposits == 0 {
		a.FirstAt, a.LastAt = b.FirstAt, b.LastAt
	}
	if b.Deposits > 0 {
		a.FirstAt, a.LastAt = min(a.FirstAt, b.FirstAt), max(a.LastAt, b.LastAt)
	}
	a.Records += b.Records
	a.SetAside += b.SetAside
	a.Deposits += b.Deposits
	a.Wallets += b.Wallets
	for i := range a.Rules {
		v, w := &a.Rules[i], b.Rules[i]
		v.Flags = append(v.Flags, w.Flags...)
		v.New = append(v.New, w.New...)
		v.Gone = append(v.Gone, w.Gone...)
	}
}
