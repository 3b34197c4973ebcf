// Package verify folds the logs anew with the pure core and holds the tables
// against them. It only reads, and it knows Kafka only as a Source.
package verify

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/IBM/sarama"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/replay"
	"coinbit/internal/stream"
	"coinbit/internal/wallet"
)

// Source is what verify reads.
type Source interface {
	replay.Source
	// Committed is the offset that a group goes on from in each partition.
	Committed(ctx context.Context, group, topic string) (map[int32]int64, error)
	// LowWaters is the first offset of each partition that is not purged.
	LowWaters(ctx context.Context, topic string) (map[int32]int64, error)
}

// Options of Run.
type Options struct {
	// Partitions of every co-partitioned topic.
	Partitions int32
	// Rule to fold with: the one in force.
	Rule wallet.Rule
	// Found is told each difference as it is found.
	Found func(Difference)
	// Noted is told of deposits that stand in the log twice or came late; may be nil.
	Noted func(Note)
	// Progress is told how many of all records are read; may be nil.
	Progress func(read, of int64)
}

// Report says what was compared.
type Report struct {
	Deposits    int64 `json:"deposits"`
	FlagEvents  int64 `json:"flag_events"`
	Rows        int64 `json:"rows"`
	DeadLetters int64 `json:"dead_letters"`
	// Doubts are the rules besides the one in force that rows and crossings name. Rows are
	// compared with a fold under the rules that they name.
	Doubts []Doubt `json:"doubtful_rules"`
	// Forgetful are rows that have seen more rules than they remember: of them the
	// account is compared, the window cannot be.
	Forgetful int64 `json:"rows_with_forgotten_rules"`
	// PurgedLetters are records without a dead letter where some were purged.
	PurgedLetters int64 `json:"purged_letters"`
	// Twice are deposits that stand in the log more than once, Late such as came after
	// their API had given them up.
	Twice       int64 `json:"deposits_twice"`
	Late        int64 `json:"deposits_late"`
	Differences int64 `json:"differences"`
}

const (
	depositLog = string(stream.DepositStream)
	flagLog    = string(stream.FlagWalletStream)
)

// run is one verification.
type run struct {
	Source
	Options
	ctx       context.Context //nolint:containedctx // for the run
	report    Report
	read, all int64
	committed map[stream.Group]map[int32]int64
	ends      map[string]map[int32]int64
	// dead letters that are there and were not yet asked for
	dead map[position][]letter
	// starts of the dead letters' partitions: below them, letters were purged
	starts map[string]map[int32]int64
	doubts map[wallet.Rule]*Doubt
}

type position struct {
	topic     string
	partition int32
	offset    int64
}

// Run compares the three tables, each row at the offset that it says it has
// applied, with a fold of the logs, and the dead letters with what the fold sets
// aside. It holds the rows and folds of one partition in memory at a time.
//
// The positions are fixed in an order that lets services run meanwhile: first
// what the groups have committed, whose effects must be in the tables; then the
// tables, whose offsets must be in the logs; then the logs. Those of tables and
// logs are fixed anew for each partition: what is there now, compaction may have
// taken by the time of the last one.
func Run(ctx context.Context, s Source, o Options) (Report, error) {
	r := &run{Source: s, Options: o, ctx: ctx, ends: make(map[string]map[int32]int64),
		committed: make(map[stream.Group]map[int32]int64), dead: make(map[position][]letter),
		starts: make(map[string]map[int32]int64), doubts: make(map[wallet.Rule]*Doubt)}
	for _, g := range stream.Groups() {
		var err error
		if r.committed[g], err = s.Committed(ctx, string(g), input(g)); err != nil {
			return r.report, err
		}
	}
	for _, topics := range [][]string{tables(), logs(), {string(stream.DepositDeadLetter), string(stream.FlagWalletDeadLetter)}} {
		if err := r.fix(topics...); err != nil {
			return r.report, err
		}
	}
	for _, ends := range r.ends {
		for _, end := range ends {
			r.all += end
		}
	}
	if err := r.readDeadLetters(); err != nil {
		return r.report, err
	}
	for p := range o.Partitions {
		if err := r.partition(p); err != nil {
			return r.report, err
		}
	}
	for at := range r.dead {
		if at.offset < r.ends[at.topic][at.partition] {
			r.found(Difference{Where: at.topic, On: at.topic, Partition: at.partition, Offset: at.offset,
				Field: "record", Got: "set aside", Want: "applied"})
		}
	}
	r.report.Doubts = r.sorted()
	return r.report, nil
}

func tables() []string {
	return []string{string(stream.BalanceGroup.Table()), string(stream.ThresholdGroup.Table()), string(stream.FlaggerGroup.Table())}
}

// logs in the order in which their ends are fixed: what is told of a deposit
// comes after it.
func logs() []string { return []string{flagLog, depositLog} }

// fix notes up to where topics are read from now on.
func (r *run) fix(topics ...string) (err error) {
	for _, topic := range topics {
		if r.ends[topic], err = r.HighWaters(r.ctx, topic); err != nil {
			return err
		}
	}
	return nil
}

func input(g stream.Group) string {
	if g == stream.FlaggerGroup {
		return flagLog
	}
	return depositLog
}

func (r *run) found(d Difference) {
	r.report.Differences++
	r.Found(d)
}

func (r *run) noted(n Note) {
	if r.Noted != nil {
		r.Noted(n)
	}
}

// scan reads a partition up to its fixed end.
func (r *run) scan(topic string, partition int32, each func(*sarama.ConsumerMessage) error) error {
	const step = 8192
	return r.Scan(r.ctx, topic, partition, r.ends[topic][partition], func(m *sarama.ConsumerMessage) error {
		if r.read++; r.Progress != nil && r.read%step == 0 {
			r.Progress(r.read, r.all)
		}
		return each(m)
	})
}

// partition compares everything about one partition.
func (r *run) partition(p int32) error {
	if err := r.fix(tables()...); err != nil {
		return err
	}
	var tables [3]map[string]*row
	for i, g := range []stream.Group{stream.BalanceGroup, stream.ThresholdGroup, stream.FlaggerGroup} {
		var err error
		if tables[i], err = r.rows(g, p); err != nil {
			return err
		}
	}
	if err := r.fix(logs()...); err != nil {
		return err
	}
	balances, counters, flags := tables[0], tables[1], tables[2]
	crossings, err := r.foldDeposits(p, balances, counters)
	if err != nil {
		return err
	}
	return r.foldFlagEvents(p, flags, counters, r.rules(counters), crossings)
}

// row is the newest record of a wallet in a table.
type row struct {
	group     stream.Group
	partition int32
	wallet    string
	message   proto.Message // nil: none, or not to be read
	next      int64         // offset up to which it has applied its input
	window    wallet.Window // of a counter: it names the rules
	compared  bool
	behind    bool // said already
}

func (r *run) rows(g stream.Group, p int32) (map[string]*row, error) {
	newest := make(map[string][]byte)
	err := r.scan(string(g.Table()), p, func(m *sarama.ConsumerMessage) error {
		if !stream.Reserved(string(m.Key)) {
			newest[string(m.Key)] = m.Value
		}
		return nil
	})
	rows := make(map[string]*row, len(newest))
	for walletID, value := range newest {
		x := &row{group: g, partition: p, wallet: walletID}
		rows[walletID] = x
		r.report.Rows++
		if x.load(value); x.message == nil {
			x.compared, x.behind = true, true
			r.differs(x, "row", bytesText(value), "a readable row")
		}
		if g != stream.ThresholdGroup || x.message == nil {
			continue
		}
		if _, known := x.window.RuleAt(x.next); !known {
			r.report.Forgetful++
		}
	}
	return rows, err
}

// rules is what the counters of a partition say of the rules in force there.
func (r *run) rules(counters map[string]*row) *named {
	n := &named{spans: make(map[wallet.Rule]span)}
	n.spans[r.Rule] = span{math.MaxInt64, math.MaxInt64}
	for _, walletID := range slices.Sorted(maps.Keys(counters)) {
		x := counters[walletID]
		if x.message == nil || x.window.Rule == (wallet.Rule{}) { // with no deposit that was judged
			continue
		}
		for _, rule := range n.add(&x.window) {
			d := r.doubt(rule)
			if d == nil {
				continue
			}
			if d.Rows++; d.Rows == 1 {
				d.FirstRow = fmt.Sprintf("wallet %s, partition %d", x.wallet, x.partition)
			}
		}
	}
	if s := n.spans[r.Rule]; s.from == math.MaxInt64 { // no row here was judged by it yet
		n.spans[r.Rule] = span{0, math.MaxInt64}
	}
	return n
}

func bytesText(b []byte) string {
	if len(b) == 0 {
		return "empty"
	}
	return fmt.Sprintf("%#.40x", b)
}

// load reads the row, unless the group's processor could not read it either.
func (x *row) load(value []byte) {
	switch x.group {
	case stream.BalanceGroup:
		m := new(pb.Balance)
		if a, err := read(value, m, stream.AccountOf); err == nil {
			x.message, x.next = m, a.NextOffset
		}
	case stream.ThresholdGroup:
		m := new(pb.Counter)
		if c, err := read(value, m, stream.CounterOf); err == nil {
			x.message, x.next = m, c.Account.NextOffset
			x.window = wallet.Window{Rule: c.Window.Rule, Past: c.Window.Past, RuleChanges: c.Window.RuleChanges}
		}
	case stream.FlaggerGroup:
		if v, e := new(stream.FlagEncoder).Decode(value); e == nil {
			if f, e := stream.LoadFlag(v); e == nil && v != nil {
				x.message, x.next = v.(*pb.Flag), f.NextOffset //nolint:forcetypeassert // LoadFlag took it
			}
		}
	}
}

// read goes through the messages, not through the codecs by hand that the
// processors use.
func read[M proto.Message, T any](value []byte, m M, load func(M) (T, error)) (T, error) {
	var none T
	if len(value) == 0 {
		return none, stream.ErrRow
	}
	if err := proto.Unmarshal(value, m); err != nil {
		return none, err
	}
	return load(m)
}

// ruleAt is the rule that judges a wallet's deposit at an offset: what its
// counter names, and for deposits that this has not seen the one in force.
func (r *run) ruleAt(counter *row, offset int64) (rule wallet.Rule, known bool) {
	if counter == nil || counter.message == nil || offset >= counter.next || counter.window.Rule == (wallet.Rule{}) {
		return r.Rule, counter == nil || counter.message != nil
	}
	return counter.window.RuleAt(offset)
}

func (r *run) differs(x *row, field, got, want string) {
	d := Difference{Where: string(x.group.Table()), Wallet: x.wallet, Partition: x.partition, Field: field, Got: got, Want: want}
	if x.next > 0 {
		d.On, d.Offset = input(x.group), x.next-1
	}
	r.found(d)
}

// reach compares a row once its wallet's fold has reached the row's offset. want
// makes the row that the fold gives; offset is of the record just folded.
func (r *run) reach(rows map[string]*row, g stream.Group, m *sarama.ConsumerMessage, want func() proto.Message) {
	x := rows[string(m.Key)]
	if x == nil {
		x = &row{group: g, partition: m.Partition, wallet: string(m.Key), compared: true}
		rows[x.wallet] = x
	}
	switch {
	case !x.compared && x.next == m.Offset+1:
		x.compared = true
		r.compare(x, want())
	case x.next <= m.Offset && !x.behind && m.Offset < r.committed[g][m.Partition]:
		x.behind = true
		got := strconv.FormatInt(x.next, 10)
		if x.message == nil {
			got = "no row"
		}
		r.differs(x, "next_offset", got, fmt.Sprintf("at least %d: the group has committed %s %d:%d", m.Offset+1, m.Topic, m.Partition, m.Offset))
	}
	if !x.compared && x.next <= m.Offset {
		x.compared = true
		r.differs(x, "next_offset", strconv.FormatInt(x.next, 10), "the offset after one of the wallet's records")
	}
}

func (r *run) compare(x *row, want proto.Message) {
	got := x.message
	if _, known := x.window.RuleAt(x.next); !known {
		got, want = got.(*pb.Counter).Account, want.(*pb.Counter).Account //nolint:forcetypeassert // only counters name rules
	}
	diff("", got.ProtoReflect(), want.ProtoReflect(), func(field, got, want string) { r.differs(x, field, got, want) })
}

// left names rows that the log never reached.
func (r *run) left(rows map[string]*row) {
	for _, x := range rows {
		if !x.compared {
			r.differs(x, "next_offset", strconv.FormatInt(x.next, 10), "the offset after one of the wallet's records")
		}
	}
}

// crossing is one that the fold finds.
type crossing struct {
	wallet   string
	evidence wallet.Evidence
}

// foldDeposits compares balances and counters, and returns each crossing by the
// offset that tipped it.
func (r *run) foldDeposits(p int32, balances, counters map[string]*row) (map[int64]crossing, error) {
	folds := make(map[string]*wallet.Counter)
	crossings := make(map[int64]crossing)
	ids := identities{make(numbers), make(numbers), make(map[identity]*copies)}
	err := r.scan(depositLog, p, func(m *sarama.ConsumerMessage) error {
		r.report.Deposits++
		d, reason := replay.Deposit(m, r.Partitions)
		if err := replay.Refused(m, reason); err != nil {
			return err
		}
		if reason != nil {
			r.aside(stream.BalanceGroup, m, reason)
			return nil
		}
		c := folds[string(m.Key)]
		if c == nil {
			c = new(wallet.Counter)
			folds[string(m.Key)] = c
		}
		rule, known := r.ruleAt(counters[string(m.Key)], m.Offset)
		outcome := c.Apply(d, rule)
		if ids.fold(d, outcome.Verdict) {
			r.report.Late++
			r.noted(Note{Kind: Late, Wallet: string(m.Key), Partition: p, Offsets: []int64{m.Offset}})
		}
		if outcome.Verdict == wallet.Overflow {
			r.aside(stream.BalanceGroup, m, fmt.Errorf("the balance would overflow"))
		}
		if outcome.Emit && known {
			crossings[m.Offset] = crossing{string(m.Key), *c.Tip}
		}
		r.reach(balances, stream.BalanceGroup, m, func() proto.Message { return stream.BalanceRow(c.Account) })
		r.reach(counters, stream.ThresholdGroup, m, func() proto.Message { return stream.CounterRow(*c) })
		return nil
	})
	if err == nil {
		err = r.nameCopies(p, ids.again)
	}
	r.left(balances)
	r.left(counters)
	return crossings, err
}

// foldFlagEvents compares flags, and crossings with the events about them.
func (r *run) foldFlagEvents(p int32, flags, counters map[string]*row, rules *named, crossings map[int64]crossing) error {
	folds := make(map[string]*wallet.Flag)
	told := make(map[string]int64) // the latest crossing of each wallet
	err := r.scan(flagLog, p, func(m *sarama.ConsumerMessage) error {
		r.report.FlagEvents++
		e, reason := replay.FlagEvent(m, r.Partitions)
		if reason != nil {
			r.aside(stream.FlaggerGroup, m, reason)
			return nil
		}
		if e.Crossing != nil {
			told[string(m.Key)] = max(told[string(m.Key)], e.Crossing.Offset+1)
			r.judge(m, *e.Crossing, counters[string(m.Key)], rules, crossings[e.Crossing.Offset])
		}
		f := folds[string(m.Key)]
		if f == nil {
			f = new(wallet.Flag)
			folds[string(m.Key)] = f
		}
		f.Apply(e)
		r.reach(flags, stream.FlaggerGroup, m, func() proto.Message { return stream.StoreFlag(*f) })
		return nil
	})
	r.left(flags)
	// A row keeps its latest crossing: after a crash an earlier one may never be
	// told, but then the later one is, which raises whatever the earlier would.
	for _, offset := range slices.Sorted(maps.Keys(crossings)) {
		c := crossings[offset]
		if told[c.wallet] <= offset && offset < r.committed[stream.ThresholdGroup][p] {
			r.found(Difference{Where: depositLog, Wallet: c.wallet, On: depositLog, Partition: p, Offset: offset,
				Field: "its crossing", Got: "not on flag_wallet", Want: fmt.Sprintf("one of %s: %s in %d deposits",
					ruleText(c.evidence.Rule), c.evidence.Total, c.evidence.Deposits)})
		}
	}
	return err
}

// judge holds a crossing that was told against the one that the fold has at its
// deposit, if any. What lies beyond the wallet's row and what its group has
// committed may be on its way, and one under another rule may come from an owner
// that was killed before its row was stored; but its rule is one that rows name.
func (r *run) judge(m *sarama.ConsumerMessage, told wallet.Evidence, counter *row, rules *named, is crossing) {
	if d := r.doubt(told.Rule); d != nil {
		if d.Crossings++; d.Crossings == 1 {
			d.FirstCrossing = fmt.Sprintf("%s %d:%d", m.Topic, m.Partition, m.Offset)
		}
	}
	due := r.committed[stream.ThresholdGroup][m.Partition]
	if counter != nil {
		due = max(due, counter.next)
	}
	rule, known := r.ruleAt(counter, told.Offset)
	beyond := told.Offset >= r.ends[depositLog][m.Partition]
	d := Difference{Where: flagLog, Wallet: string(m.Key), On: flagLog, Partition: m.Partition, Offset: m.Offset}
	at := fmt.Sprintf("deposit %d:%d", m.Partition, told.Offset)
	switch {
	case !beyond && !rules.has(told.Rule, told.Offset):
		d.Field, d.Got, d.Want = "the crossing's rule", ruleText(told.Rule), "one that rows of this partition name at "+at
		r.found(d)
	case !beyond && (told.Offset >= due || !known || told.Rule != rule):
	case is.wallet != string(m.Key):
		d.Field, d.Got, d.Want = "crossing", "at "+at, "none there"
		r.found(d)
	default:
		diff("evidence.", stream.StoreEvidence(&told).ProtoReflect(), stream.StoreEvidence(&is.evidence).ProtoReflect(), func(field, got, want string) {
			d.Field, d.Got, d.Want = field, got, want
			r.found(d)
		})
	}
}
