package stream

import (
	"errors"
	"fmt"

	"coinbit/internal/pb"
	"coinbit/internal/wallet"
)

// ErrRow says that a table row is no row of ours. It is a failure, never a new
// wallet: guessing would lose money.
var ErrRow = errors.New("row of a table cannot be decoded")

// row narrows a decoded table value; nil means the wallet has no row yet.
func row[M any](v any) (*M, error) {
	switch m := v.(type) {
	case nil:
		return nil, nil //nolint:nilnil // no row is a normal answer
	case *M:
		return m, nil
	case *Malformed:
		return nil, fmt.Errorf("%w: %s", ErrRow, m.Reason)
	default:
		return nil, fmt.Errorf("%w: %T", ErrRow, v)
	}
}

// LoadBalance narrows a value of the balance table; a missing row is a wallet
// never seen.
func LoadBalance(v any) (*wallet.Account, error) { return loaded[wallet.Account](v) }

// LoadCounter narrows a value of the threshold table; a missing row is a wallet
// never seen.
func LoadCounter(v any) (*wallet.Counter, error) { return loaded[wallet.Counter](v) }

func loaded[T any](v any) (*T, error) {
	p, err := row[T](v)
	if p == nil {
		p = new(T)
	}
	return p, err
}

// AccountOf translates a row of the balance table. Its error is ErrRow.
func AccountOf(m *pb.Balance) (wallet.Account, error) {
	a, err := account(m.GetAccount())
	if err == nil {
		err = a.Check()
	}
	return a, rowError(err)
}

// BalanceRow is the row of an account.
func BalanceRow(a wallet.Account) *pb.Balance { return &pb.Balance{Account: accountRow(a)} }

// CounterOf translates a row of the threshold table. Its error is ErrRow.
func CounterOf(m *pb.Counter) (wallet.Counter, error) {
	a, err := account(m.GetAccount())
	if err != nil {
		return wallet.Counter{}, err
	}
	w, err := window(m.GetWindow())
	if err != nil {
		return wallet.Counter{}, err
	}
	c := wallet.Counter{Account: a, Window: w, Tip: loadEvidence(m.GetTip())}
	return c, rowError(c.Check())
}

// rowError is an error of a row as ErrRow.
func rowError(err error) error {
	if err == nil || errors.Is(err, ErrRow) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrRow, err)
}

// CounterRow is the row of a counter.
func CounterRow(c wallet.Counter) *pb.Counter {
	return &pb.Counter{Account: accountRow(c.Account), Window: windowRow(c.Window), Tip: StoreEvidence(c.Tip)}
}

// LoadFlag turns a value of the flagger table into a flag; a missing row is a
// wallet never flagged.
func LoadFlag(v any) (wallet.Flag, error) {
	m, err := row[pb.Flag](v)
	if err != nil || m == nil {
		return wallet.Flag{}, err
	}
	parts, err := loadParts(m.Parts)
	f := wallet.Flag{
		NextOffset: m.NextOffset, NextTip: m.NextTip, RemovedUpto: m.RemovedUpto, OpRaised: m.OpRaised,
		RecentEventIDs: m.RecentEventIds, Evidence: loadEvidence(m.Evidence), Latest: loadEvidence(m.Latest),
		Removals: m.Removals, LastRemovalAt: m.LastRemovalMs, RaisedAt: m.RaisedAtMs, Parts: parts,
	}
	if err == nil {
		err = f.Check()
	}
	return f, rowError(err)
}

// StoreFlag is the row of a flag.
func StoreFlag(f wallet.Flag) *pb.Flag {
	return &pb.Flag{
		NextOffset: f.NextOffset, NextTip: f.NextTip, RemovedUpto: f.RemovedUpto, OpRaised: f.OpRaised,
		RecentEventIds: f.RecentEventIDs, Evidence: StoreEvidence(f.Evidence), Latest: StoreEvidence(f.Latest),
		Removals: f.Removals, LastRemovalMs: f.LastRemovalAt, RaisedAtMs: f.RaisedAt, Parts: StoreParts(f.Parts),
	}
}

func account(m *pb.Account) (wallet.Account, error) {
	if m == nil {
		return wallet.Account{}, nil
	}
	a := wallet.Account{
		NextOffset: m.NextOffset, Balance: amount(m.BalanceUnits, m.BalanceNanos), Deposits: m.Deposits,
		FirstAt: m.FirstAtMs, LastAt: m.LastAtMs, Pacemaker: m.Pacemaker, Missed: m.Missed,
	}
	for _, o := range m.Origins {
		a.Origins = append(a.Origins, wallet.Origin{ID: o.Id, Sequence: o.Sequence, LatestAt: a.LastAt + o.LatestDeltaMs, Idle: o.IdleMs})
	}
	keys, err := keyUses(m.RecentKeys)
	a.RecentKeys = keys
	return a, err
}

func keyUses(m *pb.Keys) ([]wallet.KeyUse, error) {
	n := len(m.GetUnits())
	const size = len(wallet.KeyHash{})
	if len(m.GetHashes()) != n*size || len(m.GetOffsetDelta()) != n || !optional(len(m.GetNanos()), n) {
		return nil, fmt.Errorf("%w: columns of the idempotency keys differ in length", ErrRow)
	}
	if n == 0 {
		return nil, nil
	}
	uses := make([]wallet.KeyUse, n, n+1) // room for the deposit in hand
	var offset int64
	for i := range uses {
		offset += m.OffsetDelta[i]
		uses[i] = wallet.KeyUse{Hash: wallet.KeyHash(m.Hashes[i*size:]), Amount: amount(m.Units[i], 0), Offset: offset}
		if len(m.Nanos) > 0 {
			uses[i].Amount.Nanos = m.Nanos[i]
		}
	}
	return uses, nil
}

func accountRow(a wallet.Account) *pb.Account {
	m := &pb.Account{
		NextOffset: a.NextOffset, BalanceUnits: a.Balance.Units, BalanceNanos: a.Balance.Nanos, Deposits: a.Deposits,
		FirstAtMs: a.FirstAt, LastAtMs: a.LastAt, RecentKeys: keysRow(a.RecentKeys), Pacemaker: a.Pacemaker, Missed: a.Missed,
	}
	for i := range a.Origins {
		o := &a.Origins[i]
		m.Origins = append(m.Origins, &pb.Origin{Id: o.ID, Sequence: o.Sequence, LatestDeltaMs: o.LatestAt - a.LastAt, IdleMs: o.Idle})
	}
	return m
}

func keysRow(uses []wallet.KeyUse) *pb.Keys {
	n := len(uses)
	if n == 0 {
		return nil
	}
	m := &pb.Keys{Units: make([]uint64, n), OffsetDelta: make([]int64, n)}
	var offset int64
	for i := range uses {
		u := &uses[i]
		m.Hashes = append(m.Hashes, u.Hash[:]...)
		m.Units[i], m.OffsetDelta[i] = u.Amount.Units, u.Offset-offset
		offset = u.Offset
		setNanos(&m.Nanos, n, i, u.Amount.Nanos)
	}
	return m
}

// setNanos fills a column that stays empty while all are 0.
func setNanos(column *[]uint32, n, i int, nanos uint32) {
	if nanos == 0 {
		return
	}
	if *column == nil {
		*column = make([]uint32, n)
	}
	(*column)[i] = nanos
}

func window(m *pb.Window) (wallet.Window, error) {
	if m == nil {
		return wallet.Window{}, nil
	}
	w := wallet.Window{Rule: loadRule(m.Rule), RuleChanges: m.RuleChanges, Told: m.ToldMs}
	for _, past := range m.Past {
		w.Past = append(w.Past, wallet.PastRule{Rule: loadRule(past.Rule), Upto: past.UptoOffset})
	}
	var err error
	w.Cells, err = loadCells(m)
	return w, err
}

// columns are cells as pb.Window and pb.Parts have them.
type columns interface {
	GetFirstMsDelta() []int64
	GetSpanMs() []int64
	GetUnits() []uint64
	GetNanos() []uint32
	GetDeposits() []uint32
	GetOffsetDelta() []int64
}

func loadCells(m columns) ([]wallet.Cell, error) {
	deltas, spans, units, nanos := m.GetFirstMsDelta(), m.GetSpanMs(), m.GetUnits(), m.GetNanos()
	deposits, offsets := m.GetDeposits(), m.GetOffsetDelta()
	n := len(deltas)
	if len(units) != n || len(offsets) != n || !optional(len(spans), n) || !optional(len(nanos), n) || !optional(len(deposits), n) {
		return nil, fmt.Errorf("%w: columns of the window differ in length", ErrRow)
	}
	if n == 0 {
		return nil, nil
	}
	cells := make([]wallet.Cell, n, n+1) // room for the deposit in hand
	var first, offset int64
	for i := range cells {
		first += deltas[i]
		offset += offsets[i]
		c := &cells[i]
		*c = wallet.Cell{First: first, Last: first, Sum: wallet.Amount{Units: units[i]}, Count: 1, Offset: offset}
		if len(spans) > 0 {
			c.Last += spans[i]
		}
		if len(nanos) > 0 {
			c.Sum.Nanos = nanos[i]
		}
		if len(deposits) > 0 {
			c.Count = deposits[i]
		}
	}
	return cells, nil
}

func optional(n, want int) bool { return n == 0 || n == want }

func windowRow(w wallet.Window) *pb.Window {
	cells := storeCells(w.Cells)
	m := &pb.Window{
		Rule: storeRule(w.Rule), RuleChanges: w.RuleChanges, ToldMs: w.Told,
		FirstMsDelta: cells.FirstMsDelta, SpanMs: cells.SpanMs, Units: cells.Units, Nanos: cells.Nanos,
		Deposits: cells.Deposits, OffsetDelta: cells.OffsetDelta,
	}
	for _, past := range w.Past {
		m.Past = append(m.Past, &pb.PastRule{Rule: storeRule(past.Rule), UptoOffset: past.Upto})
	}
	return m
}

func storeCells(cells []wallet.Cell) *pb.Parts {
	n := len(cells)
	m := &pb.Parts{FirstMsDelta: make([]int64, n), Units: make([]uint64, n), OffsetDelta: make([]int64, n)}
	var first, offset int64
	for i := range cells {
		c := &cells[i]
		m.FirstMsDelta[i], m.Units[i], m.OffsetDelta[i] = c.First-first, c.Sum.Units, c.Offset-offset
		first, offset = c.First, c.Offset
		if c.Last != c.First {
			if m.SpanMs == nil {
				m.SpanMs = make([]int64, n)
			}
			m.SpanMs[i] = c.Last - c.First
		}
		setNanos(&m.Nanos, n, i, c.Sum.Nanos)
		if c.Count != 1 && m.Deposits == nil {
			m.Deposits = make([]uint32, n)
			for j := range i {
				m.Deposits[j] = 1
			}
		}
		if m.Deposits != nil {
			m.Deposits[i] = c.Count
		}
	}
	return m
}

// loadParts translates the deposits of a window; nil are none. Its error is ErrRow.
func loadParts(m *pb.Parts) ([]wallet.Cell, error) { return loadCells(m) }

// StoreParts translates the deposits of a window; none are nil.
func StoreParts(cells []wallet.Cell) *pb.Parts {
	if len(cells) == 0 {
		return nil
	}
	return storeCells(cells)
}

// loadEvidence translates evidence; nil stays nil.
func loadEvidence(m *pb.Evidence) *wallet.Evidence {
	if m == nil {
		return nil
	}
	return &wallet.Evidence{
		Partition: m.Partition, Offset: m.Offset, WindowStart: m.WindowStartMs, WindowEnd: m.WindowEndMs,
		Total: amount(m.TotalUnits, m.TotalNanos), Deposits: m.Deposits, Rule: loadRule(m.Rule),
		TippedAt: m.TippedAtMs,
	}
}

// StoreEvidence translates evidence; nil stays nil.
func StoreEvidence(e *wallet.Evidence) *pb.Evidence {
	if e == nil {
		return nil
	}
	return &pb.Evidence{
		Partition: e.Partition, Offset: e.Offset, WindowStartMs: e.WindowStart, WindowEndMs: e.WindowEnd,
		TotalUnits: e.Total.Units, TotalNanos: e.Total.Nanos, Deposits: e.Deposits, Rule: storeRule(e.Rule),
		TippedAtMs: e.TippedAt,
	}
}

func loadRule(m *pb.Rule) wallet.Rule {
	return wallet.Rule{Threshold: amount(m.GetThresholdUnits(), m.GetThresholdNanos()), PeriodMs: m.GetPeriodMs()}
}

func storeRule(r wallet.Rule) *pb.Rule {
	return &pb.Rule{ThresholdUnits: r.Threshold.Units, ThresholdNanos: r.Threshold.Nanos, PeriodMs: r.PeriodMs}
}

func amount(units uint64, nanos uint32) wallet.Amount {
	return wallet.Amount{Units: units, Nanos: nanos}
}
