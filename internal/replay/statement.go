package replay

import (
	"context"

	"github.com/IBM/sarama"

	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// Statement asks for the deposits of one wallet.
type Statement struct {
	// Partitions of the logs.
	Partitions int32
	Wallet     string
	// Rule that windows are judged by.
	Rule wallet.Rule
	// At leaves out what came later, in Unix milliseconds; 0: nothing.
	At       int64
	Progress Progress
}

// PartitionSource is what a statement reads.
type PartitionSource interface {
	Source
	// HighWater is the high watermark of a partition.
	HighWater(ctx context.Context, topic string, partition int32) (int64, error)
}

// Entry is one record of the deposit log under the wallet's key.
type Entry struct {
	Position Position
	// At is the deposit's event time, in Unix milliseconds; of a record that was set
	// aside the record's own.
	At      int64
	Amount  wallet.Amount
	Verdict wallet.Verdict
	// SetAside says why the record could not be applied; it has no amount and no
	// verdict then. An overflow has both.
	SetAside string
	// Balance after the record.
	Balance wallet.Amount
	// Window is the largest sum within one window that holds the deposit, of a deposit
	// that was applied.
	Window wallet.Amount
	// Crosses says that this deposit took its window above the threshold.
	Crosses bool
}

// Closing is how a statement ends.
type Closing struct {
	// Records were read: those of the wallet's partitions.
	Records int64
	// Deposits were applied, and others left out because they came after At.
	Deposits, Later int64
	Balance         wallet.Amount
	// Flag is what flag_wallet says, whatever rules were in force then.
	Flag wallet.Flag
}

// Read hands each entry over in the order of the log, of which it reads the partition
// that the wallet is on. Records under its key on other partitions follow: those that lie
// there were set aside, and are found among the dead letters. One row is held, however
// many deposits there are.
//
// What a deposit is worth (its verdict) the whole log decides. Then, with At, those
// count whose event time is not after it, and of the flag's events those that are not:
// a crossing has the time at which its window ends, what an operator did the time at
// which it was said.
func (q Statement) Read(ctx context.Context, s PartitionSource, each func(Entry) error) (Closing, error) {
	partition := stream.Partition(q.Wallet, q.Partitions)
	events, err := s.HighWater(ctx, flagLog, partition) // first: what a flag tells of comes before it
	if err != nil {
		return Closing{}, err
	}
	deposits, err := s.HighWater(ctx, depositLog, partition)
	if err != nil {
		return Closing{}, err
	}
	var end Closing
	c := &counter{of: events + deposits, show: q.Progress}
	account, row := wallet.Account{}, wallet.Counter{}
	err = c.scan(ctx, s, depositLog, partition, deposits, func(m *sarama.ConsumerMessage) error {
		if string(m.Key) != q.Wallet { // before anything is decoded
			return nil
		}
		e, err := q.entry(m, &account, &row)
		if err != nil {
			return err
		}
		if q.After(e.At) {
			end.Later++
			return nil
		}
		if e.SetAside == "" && e.Verdict == wallet.Applied {
			end.Deposits++
		}
		e.Balance = row.Account.Balance
		return each(e)
	})
	end.Balance = row.Account.Balance
	if err == nil {
		err = q.strays(ctx, s, partition, &end, each)
	}
	if err == nil {
		err = c.scan(ctx, s, flagLog, partition, events, func(m *sarama.ConsumerMessage) error {
			if string(m.Key) == q.Wallet {
				q.flag(m, &end.Flag)
			}
			return nil
		})
	}
	end.Records = c.read.Load()
	return end, err
}

// strays hands over the records under the wallet's key that lie on another partition than
// its own. A letter may lie there twice.
func (q Statement) strays(ctx context.Context, s Source, own int32, end *Closing, each func(Entry) error) error {
	seen := make(map[Position]bool)
	return lettersOf(ctx, s, string(stream.DepositDeadLetter), func(l Letter) error {
		if string(l.Key) != q.Wallet || l.SourceTopic != depositLog {
			return nil
		}
		at, err := parsePosition(l.SourcePosition)
		if err != nil || at.Partition == own || seen[at] { // on its own partition the log itself was read
			return nil //nolint:nilerr // a letter that somebody else wrote
		}
		seen[at] = true
		e := Entry{Position: at, At: l.Time.UnixMilli(), SetAside: l.Reason, Balance: end.Balance}
		if q.After(e.At) {
			end.Later++
			return nil
		}
		return each(e)
	})
}

// After tells whether a time is after the one that the statement is for.
func (q Statement) After(at int64) bool { return q.At != 0 && at > q.At }

// entry folds a record into account, which sees all, and, unless it came after At,
// into row.
func (q Statement) entry(m *sarama.ConsumerMessage, account *wallet.Account, row *wallet.Counter) (Entry, error) {
	e := Entry{Position: Position{m.Partition, m.Offset}, At: m.Timestamp.UnixMilli()}
	d, reason := Deposit(m, q.Partitions)
	if reason != nil {
		e.SetAside = reason.Error()
		return e, Refused(m, reason)
	}
	e.At, e.Amount, e.Verdict = d.At, d.Amount, account.Apply(d)
	if e.Verdict == wallet.Overflow {
		e.SetAside = "the balance would overflow"
	}
	if e.Verdict != wallet.Applied || q.After(d.At) {
		return e, nil
	}
	// The row's room depends on its account, which is the one of all deposits; only
	// its balance is of those that count.
	balance := row.Account.Balance
	row.Account = *account
	row.Account.Balance, _ = balance.Add(d.Amount) // at most the account's, which holds it
	e.Crosses, _ = row.Judge(d, q.Rule)
	e.Window = row.Window.Highest(d.At)
	return e, nil
}

// flag folds an event of flag_wallet in, unless it came after At.
func (q Statement) flag(m *sarama.ConsumerMessage, f *wallet.Flag) {
	e, reason := FlagEvent(m, q.Partitions)
	if reason != nil {
		return
	}
	at := e.At
	if e.Crossing != nil {
		at = e.Crossing.WindowEnd
	}
	if !q.After(at) {
		f.Apply(e)
	}
}
