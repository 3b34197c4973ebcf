package verify_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/IBM/sarama"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/kafka"
	"coinbit/internal/pb"
	"coinbit/internal/stream"
	"coinbit/internal/verify"
	"coinbit/internal/wallet"
)

const (
	partitions = 2
	start      = 1_700_000_000_000
)

var rule = wallet.Rule{Threshold: wallet.Amount{Units: 10_000}, PeriodMs: 120_000}

// world is a cluster in memory: logs, tables as the processors would leave them,
// and committed offsets.
type world struct {
	t         *testing.T
	topics    map[string][partitions][]*sarama.ConsumerMessage
	committed map[string]int64 // by group: how much of every partition; none: all
	rows      map[string]map[string]proto.Message
	starts    map[string]int64 // of a topic's partitions: what lies below was purged
	// lowered is how often the threshold was lowered, at offsets a few apart.
	lowered int64
}

// ruleAt is the rule that the threshold processor applies at an offset: at last the
// one in force.
func (w *world) ruleAt(offset int64) wallet.Rule {
	r := rule
	r.Threshold.Units += 1000 * uint64(max(0, w.lowered-offset/10))
	return r
}

func newWorld(t *testing.T) *world {
	return &world{t: t, topics: map[string][partitions][]*sarama.ConsumerMessage{}, committed: map[string]int64{},
		rows: map[string]map[string]proto.Message{}}
}

func (w *world) HighWaters(_ context.Context, topic string) (map[int32]int64, error) {
	ends := map[int32]int64{}
	for p, log := range w.topics[topic] {
		ends[int32(p)] = int64(len(log))
	}
	return ends, nil
}

func (w *world) Committed(ctx context.Context, group, topic string) (map[int32]int64, error) {
	all, err := w.HighWaters(ctx, topic)
	if most, ok := w.committed[group]; ok {
		for p := range all {
			all[p] = min(all[p], most)
		}
	}
	return all, err
}

func (w *world) LowWaters(_ context.Context, topic string) (map[int32]int64, error) {
	starts := map[int32]int64{}
	for p := range int32(partitions) {
		starts[p] = w.starts[topic]
	}
	return starts, nil
}

func (w *world) Scan(_ context.Context, topic string, partition int32, below int64, each func(*sarama.ConsumerMessage) error) error {
	for _, m := range w.topics[topic][partition][min(w.starts[topic], below):below] {
		if err := each(m); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) append(topic string, partition int32, key string, value []byte, headers ...*sarama.RecordHeader) int64 {
	logs := w.topics[topic]
	m := &sarama.ConsumerMessage{Topic: topic, Partition: partition, Offset: int64(len(logs[partition])), Key: []byte(key), Value: value, Headers: headers}
	logs[partition] = append(logs[partition], m)
	w.topics[topic] = logs
	return m.Offset
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) deposit(d *pb.Deposit) {
	p := stream.Partition(d.WalletId, partitions)
	w.append("deposit", p, d.WalletId, encode(w.t, d))
}

// process does what the three processors do, by way of the rows as they lie in
// the tables.
func (w *world) process() {
	for p := range int32(partitions) {
		for _, m := range w.topics["deposit"][p] {
			v, _ := new(stream.DepositEncoder).Decode(m.Value)
			if m.Value == nil {
				v = nil
			}
			d, reason := stream.CheckDeposit(stream.Record{Key: string(m.Key), Partition: p, Offset: m.Offset, Partitions: partitions}, v)
			if reason != nil {
				w.aside("deposit_dead_letter", m)
				continue
			}
			balance, _ := w.row("balance-table", m).(*pb.Balance)
			a, err := stream.AccountOf(balance)
			w.must(err)
			if a.Apply(d) == wallet.Overflow {
				w.aside("deposit_dead_letter", m)
			}
			w.set("balance-table", m, stream.BalanceRow(a))
			counter, _ := w.row("threshold-table", m).(*pb.Counter)
			c, err := stream.CounterOf(counter)
			w.must(err)
			if c.Apply(d, w.ruleAt(m.Offset)).Emit {
				w.append("flag_wallet", p, string(m.Key), encode(w.t, &pb.FlagEvent{WalletId: string(m.Key),
					Event: &pb.FlagEvent_Crossing{Crossing: &pb.Crossing{Evidence: stream.StoreEvidence(c.Tip)}}}))
			}
			w.set("threshold-table", m, stream.CounterRow(c))
		}
		for _, m := range w.topics["flag_wallet"][p] {
			v, _ := new(stream.FlagEventEncoder).Decode(m.Value)
			e, reason := stream.CheckFlagEvent(stream.Record{Key: string(m.Key), Partition: p, Offset: m.Offset, Partitions: partitions}, v)
			if reason != nil {
				w.aside("flag_wallet_dead_letter", m)
				continue
			}
			f, err := stream.LoadFlag(w.row("flagger-table", m))
			w.must(err)
			f.Apply(e)
			w.set("flagger-table", m, stream.StoreFlag(f))
		}
	}
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) row(table string, m *sarama.ConsumerMessage) any {
	if r, ok := w.rows[table][string(m.Key)]; ok {
		return r
	}
	return nil
}

func (w *world) set(table string, m *sarama.ConsumerMessage, row proto.Message) {
	if w.rows[table] == nil {
		w.rows[table] = map[string]proto.Message{}
	}
	w.rows[table][string(m.Key)] = row
	w.append(table, m.Partition, string(m.Key), encode(w.t, row))
}

func (w *world) aside(topic string, m *sarama.ConsumerMessage) {
	h := func(k, v string) *sarama.RecordHeader { return &sarama.RecordHeader{Key: []byte(k), Value: []byte(v)} }
	headers := append(slices.Clone(m.Headers), h(kafka.HeaderReason, "some"), h(kafka.HeaderTopic, m.Topic),
		h(kafka.HeaderPartition, fmt.Sprint(m.Partition)), h(kafka.HeaderOffset, fmt.Sprint(m.Offset)))
	offset := w.append(topic, 0, string(m.Key), m.Value, headers...)
	w.topics[topic][0][offset].Key = m.Key
}

// letter is a dead letter of the home partition.
func (w *world) letter() *sarama.ConsumerMessage {
	logs := w.topics["deposit_dead_letter"][0]
	i := slices.IndexFunc(logs, func(m *sarama.ConsumerMessage) bool { return len(m.Value) > 0 && len(m.Key) > 0 })
	return logs[i]
}

// replace puts a letter in the place of the one at its offset.
func (w *world) replace(l *sarama.ConsumerMessage) {
	logs := w.topics["deposit_dead_letter"]
	logs[0] = slices.Clone(logs[0])
	logs[0][l.Offset] = l
	w.topics["deposit_dead_letter"] = logs
}

func (w *world) verify() (verify.Report, []verify.Difference) {
	var found []verify.Difference
	report, err := verify.Run(context.Background(), w, verify.Options{Partitions: partitions, Rule: rule,
		Found: func(d verify.Difference) { found = append(found, d) }})
	w.must(err)
	if report.Differences != int64(len(found)) {
		w.t.Fatalf("reports %d of %d", report.Differences, len(found))
	}
	return report, found
}

// random fills the logs: repeats, keys, conflicts, garbage, late events, operators.
func random(t *testing.T, seed uint64) *world { return lowering(t, seed, 0) }

// lowering is random under a rule that was changed so many times.
func lowering(t *testing.T, seed uint64, times int64) *world {
	w, r := newWorld(t), rand.New(rand.NewPCG(seed, 0))
	w.lowered = times
	var last *pb.Deposit
	for i := range 200 {
		d := &pb.Deposit{WalletId: fmt.Sprint("w", r.IntN(6)), Units: r.Int64N(5000), Nanos: 1 + r.Int32N(999_999_998),
			AcceptedAtMs: start + int64(i)*2000 - r.Int64N(10_000), Origin: 9, Sequence: uint64(i + 1)}
		switch r.IntN(12) {
		case 0:
			if last != nil {
				d = last
			}
		case 1, 2:
			d.IdempotencyKey = fmt.Sprint("k", r.IntN(10))
		case 3:
			w.append("deposit", r.Int32N(partitions), "", []byte{0xff})
		case 4:
			w.append("deposit", r.Int32N(partitions), "w1", nil)
		case 5:
			d.Units = math.MaxInt64 // impossible
		case 6:
			p := stream.Partition(d.WalletId, partitions)
			e := &pb.FlagEvent{WalletId: d.WalletId, Event: &pb.FlagEvent_Removal{Removal: &pb.OperatorRemoval{EventId: r.Uint64(), RemovedUpto: int64(i)}}}
			w.append("flag_wallet", p, d.WalletId, encode(t, e))
		}
		last = d
		w.deposit(d)
	}
	w.process()
	for _, table := range []string{"balance-table", "threshold-table", "flagger-table"} {
		w.append(table, 0, stream.ClaimKey, []byte("a claim"))
	}
	return w
}

func TestWhatProcessorsLeaveIsClean(t *testing.T) {
	for seed := range uint64(100) {
		w := random(t, seed)
		if seed%2 == 1 { // lag is no difference
			for _, g := range stream.Groups() {
				w.committed[string(g)] = int64(seed % 40)
			}
		}
		report, found := w.verify()
		if len(found) > 0 {
			t.Fatalf("seed %d: %v", seed, found)
		}
		if report.Deposits < 200 || report.Rows < 12 || report.FlagEvents == 0 || report.DeadLetters == 0 {
			t.Fatalf("seed %d: %+v", seed, report)
		}
	}
}

// Each single field of each table's rows, changed by hand, is found and named.
func TestEveryFieldIsCompared(t *testing.T) {
	for _, table := range []string{"balance-table", "threshold-table", "flagger-table"} {
		n := 0
		for seed := range uint64(3) {
			w := random(t, seed)
			var wallets []string
			for id := range w.rows[table] {
				wallets = append(wallets, id)
			}
			slices.Sort(wallets)
			for _, id := range wallets {
				for i := 0; ; i++ {
					row := proto.Clone(w.rows[table][id])
					name, ok := corrupt(row, i)
					if !ok {
						break
					}
					v := *w
					v.topics = map[string][partitions][]*sarama.ConsumerMessage{}
					for k, l := range w.topics {
						v.topics[k] = l
					}
					v.append(table, stream.Partition(id, partitions), id, encode(t, row))
					report, found := v.verify()
					counted := strings.HasPrefix(name, "window.") && len(report.Doubts) > 0 || report.Forgetful > 0 // it names other rules
					if !counted && !slices.ContainsFunc(found, func(d verify.Difference) bool { return d.Where == table && d.Wallet == id }) {
						t.Fatalf("seed %d: %s of %s was changed, found %v", seed, name, id, found)
					}
					n++
				}
			}
		}
		t.Logf("%s: %d changes found", table, n)
	}
}

func TestDifferences(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *world)
		want  string
	}{
		"no row": {func(w *world) {
			logs := w.topics["balance-table"]
			logs[home] = slices.DeleteFunc(slices.Clone(logs[home]), func(m *sarama.ConsumerMessage) bool { return string(m.Key) == "w1" })
			w.topics["balance-table"] = logs
		}, "w1: next_offset is no row"},
		"a row without deposits": {func(w *world) {
			w.append("balance-table", stream.Partition("other", partitions), "other", encode(w.t, stream.BalanceRow(wallet.Account{NextOffset: 3})))
		}, "other: next_offset is 3"},
		"a row ahead of the log": {func(w *world) {
			w.append("balance-table", home, "w1", encode(w.t, stream.BalanceRow(wallet.Account{NextOffset: 9999})))
		}, "w1: next_offset is 9999"},
		"an older row": {func(w *world) {
			for _, m := range w.topics["threshold-table"][home] {
				if string(m.Key) == "w1" {
					w.append("threshold-table", home, "w1", m.Value)
					return
				}
			}
		}, ": the group has committed deposit"},
		"a tombstone": {func(w *world) { w.append("flagger-table", home, "w1", nil) }, "w1: row is empty, want a readable row"},
		"garbage":     {func(w *world) { w.append("balance-table", home, "w1", []byte{0xff}) }, "w1: row is 0xff, want a readable row"},
		"a crossing that is none": {func(w *world) {
			w.append("flag_wallet", home, "w1", crossing(w.t, "w1", 0))
		}, "crossing is at deposit"},
		"a crossing of a wallet without deposits": {func(w *world) {
			w.append("flag_wallet", stream.Partition("ghost", partitions), "ghost", crossing(w.t, "ghost", 0))
		}, "ghost: crossing is at deposit"},
		"a crossing beyond the log": {func(w *world) {
			w.append("flag_wallet", home, "w1", crossing(w.t, "w1", 1_000_000))
		}, "w1: crossing is at deposit"},
		"a crossing with other evidence": {func(w *world) {
			for _, m := range w.topics["flag_wallet"][home] {
				if e := new(pb.FlagEvent); proto.Unmarshal(m.Value, e) == nil && e.GetCrossing() != nil {
					e.GetCrossing().Evidence.Deposits++
					m.Value = encode(w.t, e)
				}
			}
		}, "evidence.deposits is"},
		"a crossing that is missing": {func(w *world) {
			for p := range w.topics["flag_wallet"] {
				logs := w.topics["flag_wallet"]
				logs[p] = nil
				w.topics["flag_wallet"] = logs
			}
		}, "its crossing is not on flag_wallet, want one of 10000/2m0s: "},
		"a dead letter without need": {func(w *world) {
			for _, m := range w.topics["deposit"][home] {
				if string(m.Key) == "w1" && m.Value != nil {
					w.aside("deposit_dead_letter", m)
					return
				}
			}
		}, "record is set aside, want applied"},
		"a dead letter that is missing": {func(w *world) { delete(w.topics, "deposit_dead_letter") }, "not set aside"},
		"a byte appended to a dead letter": {func(w *world) {
			l := *w.letter()
			l.Value = append(slices.Clone(l.Value), 0)
			w.replace(&l)
		}, "key, value or headers is changed, want as they are in deposit "},
		"a dead letter's key": {func(w *world) {
			l := *w.letter()
			l.Key = append(slices.Clone(l.Key), 'x')
			w.replace(&l)
		}, "key, value or headers is changed"},
		"a dead letter with a header more": {func(w *world) {
			l := *w.letter()
			l.Headers = append([]*sarama.RecordHeader{{Key: []byte("x")}}, l.Headers...)
			w.replace(&l)
		}, "key, value or headers is changed"},
		"the second of two letters, changed": {func(w *world) {
			l := w.letter()
			w.append(l.Topic, 0, string(l.Key), []byte("other"), l.Headers...)
		}, "key, value or headers is changed"},
		"a dead letter of nowhere": {func(w *world) { w.append("deposit_dead_letter", 0, "w1", nil) }, "source position is"},
	} {
		t.Run(name, func(t *testing.T) {
			w := random(t, 4)
			c.spoil(w)
			_, found := w.verify()
			if !slices.ContainsFunc(found, func(d verify.Difference) bool { return strings.Contains(d.String(), c.want) }) {
				t.Errorf("found %v, want %q", found, c.want)
			}
		})
	}
}

// A rule that the logs cannot vouch for is named, with who names it; one that no row of the
// partition names is a difference.
func TestDoubtfulRules(t *testing.T) {
	forged := wallet.Rule{Threshold: wallet.Amount{Units: 999}, PeriodMs: 20_000}
	small := func(t *testing.T) *world {
		w := newWorld(t)
		w.deposit(&pb.Deposit{WalletId: "w1", Units: 1, AcceptedAtMs: start})
		w.deposit(&pb.Deposit{WalletId: "w1", Units: 2, AcceptedAtMs: start})
		w.deposit(&pb.Deposit{WalletId: "w3", Units: 1, AcceptedAtMs: start})
		return w
	}
	altered := func(w *world, change func(c *wallet.Counter)) {
		c, err := stream.CounterOf(w.rows["threshold-table"]["w1"].(*pb.Counter))
		w.must(err)
		change(&c)
		w.append("threshold-table", home, "w1", encode(w.t, stream.CounterRow(c)))
	}
	for name, c := range map[string]struct {
		spoil func(w *world)
		found string // none: nothing
		doubt verify.Doubt
	}{
		"nothing": {spoil: func(*world) {}},
		"a crossing by a rule that nobody knows": {func(w *world) {
			e := stream.StoreEvidence(&wallet.Evidence{Partition: home, Total: wallet.Amount{Units: 5_000_000}, Deposits: 1, Rule: forged})
			offset := w.append("flag_wallet", home, "w1", encode(w.t, &pb.FlagEvent{WalletId: "w1", Event: &pb.FlagEvent_Crossing{Crossing: &pb.Crossing{Evidence: e}}}))
			v, err := stream.ReadFlagEvent(stream.Record{Key: "w1", Partition: home, Offset: offset, Partitions: partitions}, w.topics["flag_wallet"][home][offset].Value)
			w.must(err)
			var f wallet.Flag
			f.Apply(v)
			w.append("flagger-table", home, "w1", encode(w.t, stream.StoreFlag(f)))
		}, fmt.Sprintf("flag_wallet %d:0, w1: the crossing's rule is 999/20s, want one that rows of this partition name at deposit %d:0", home, home),
			verify.Doubt{Rule: "999/20s", Crossings: 1, FirstCrossing: fmt.Sprintf("flag_wallet %d:0", home)}},
		"a row's rule": {func(w *world) { altered(w, func(c *wallet.Counter) { c.Window.Rule = forged }) }, "",
			verify.Doubt{Rule: "999/20s", Rows: 1, FirstRow: fmt.Sprintf("wallet w1, partition %d", home)}},
		"a row's earlier rule": {func(w *world) {
			altered(w, func(c *wallet.Counter) {
				c.Window.Past, c.Window.RuleChanges = []wallet.PastRule{{Rule: forged, Upto: 1}}, 1
			})
		}, "", verify.Doubt{Rule: "999/20s", Rows: 1, FirstRow: fmt.Sprintf("wallet w1, partition %d", home)}},
	} {
		t.Run(name, func(t *testing.T) {
			w := small(t)
			w.process()
			c.spoil(w)
			report, found := w.verify()
			if c.found == "" && len(found) > 0 || c.found != "" && (len(found) != 1 || found[0].String() != c.found) {
				t.Errorf("found %v, want %q", found, c.found)
			}
			if want := []verify.Doubt{c.doubt}; (c.doubt != verify.Doubt{}) != (len(report.Doubts) > 0) || len(report.Doubts) > 0 && !slices.Equal(report.Doubts, want) {
				t.Errorf("in doubt %+v, want %+v", report.Doubts, want)
			}
		})
	}
}

// A deposit that stands in the log twice is named with both places and with how often it
// counts, and one that came late: by what it says it is, not by what the fold makes of it.
func TestTwiceInTheLog(t *testing.T) {
	at := func(offset int) string { return fmt.Sprintf("%d:%d", home, offset) }
	d := func(walletID string, units int64, origin, sequence uint64) *pb.Deposit {
		return &pb.Deposit{WalletId: walletID, Units: units, AcceptedAtMs: start, Origin: origin, Sequence: sequence}
	}
	mate := "w2" // of w1 on its partition
	for stream.Partition(mate, partitions) != home {
		mate += "1" // which is odd: else the partition would stay
	}
	for name, c := range map[string]struct {
		log          []*pb.Deposit
		notes, found []string
	}{
		"nothing": {log: []*pb.Deposit{d("w1", 1, 7, 1), d(mate, 1, 7, 2), d("w1", 1, 8, 1), d("w1", 1, 0, 0), d("w1", 1, 0, 0)}},
		"at once and far apart": {
			log:   []*pb.Deposit{d("w1", 1, 7, 1), d("w1", 1, 7, 1), d(mate, 5, 7, 2), d("w1", 1, 7, 3), d(mate, 5, 7, 2), d(mate, 5, 7, 2)},
			notes: []string{"deposit " + at(0) + ", w1: stands in the log again, at " + at(1) + ": counted once", "deposit " + at(2) + ", " + mate + ": stands in the log again, at " + at(4) + ", " + at(5) + ": counted once"},
		},
		"late": {
			log:   []*pb.Deposit{d("w1", 1, 7, 1), d("w1", 1, 7, 3), d("w1", 1, 7, 2), d("w1", 1, 7, 2), d(mate, 1, 7, 1000)},
			notes: []string{"deposit " + at(2) + ", w1: came late, after its API had given it up: not counted", "deposit " + at(2) + ", w1: stands in the log again, at " + at(3) + ": not counted"},
		},
		"when its origin is forgotten": {
			log: append(append([]*pb.Deposit{d("w1", 1, 7, 1)}, func() (many []*pb.Deposit) {
				for o := range uint64(20) {
					many = append(many, d("w1", 1, 100+o, 1))
				}
				return many
			}()...), d("w1", 1, 7, 1)),
			notes: []string{"deposit " + at(0) + ", w1: stands in the log again, at " + at(21) + ": counted 2 times"},
			found: []string{"deposit " + at(0) + ", w1: a deposit that stands there more than once is counted 2 times, want counted once"},
		},
		"another deposit under its number": {
			log:   []*pb.Deposit{d("w1", 1, 7, 1), d("w1", 2, 7, 1)},
			notes: []string{"deposit " + at(0) + ", w1: stands in the log again, at " + at(1) + ": counted once"},
			found: []string{"deposit " + at(0) + ", w1: its origin and number is also those of another deposit, at " + at(1) + ", want its own"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for _, x := range c.log {
				w.deposit(x)
			}
			w.process()
			var notes, found []string
			report, err := verify.Run(context.Background(), w, verify.Options{Partitions: partitions, Rule: rule,
				Found: func(d verify.Difference) { found = append(found, d.String()) },
				Noted: func(n verify.Note) { notes = append(notes, n.String()) }})
			w.must(err)
			if !slices.Equal(notes, c.notes) || !slices.Equal(found, c.found) || report.Twice+report.Late != int64(len(notes)) {
				t.Errorf("noted %q, want %q\nfound %q, want %q\n%+v", notes, c.notes, found, c.found, report)
			}
		})
	}
}

// A log of a build that numbered deposits otherwise is refused, not judged.
func TestAnEarlierBuildsLog(t *testing.T) {
	w := newWorld(t)
	w.append("deposit", home, "w1", append(encode(t, &pb.Deposit{WalletId: "w1", Units: 1, AcceptedAtMs: start}), 5<<3|1, 1, 2, 3, 4, 5, 6, 7, 8))
	_, err := verify.Run(context.Background(), w, verify.Options{Partitions: partitions, Rule: rule, Found: func(d verify.Difference) { t.Error(d) }})
	if !errors.Is(err, stream.ErrEarlierBuild) || !strings.HasPrefix(err.Error(), fmt.Sprintf("deposit %d:0: ", home)) {
		t.Error(err)
	}
}

// What was purged cannot be asked for, and is counted.
func TestPurgedLetters(t *testing.T) {
	w := random(t, 4)
	report, _ := w.verify()
	w.starts = map[string]int64{"deposit_dead_letter": report.DeadLetters, "flag_wallet_dead_letter": 0}
	w.topics["deposit_dead_letter"] = [partitions][]*sarama.ConsumerMessage{make([]*sarama.ConsumerMessage, report.DeadLetters), make([]*sarama.ConsumerMessage, report.DeadLetters)}
	purged, found := w.verify()
	if len(found) > 0 || purged.PurgedLetters != report.DeadLetters || purged.DeadLetters != 0 {
		t.Errorf("%+v, found %v", purged, found)
	}
}

// A person reads which record is meant, and where it is.
func TestDifferencesAreReadable(t *testing.T) {
	for want, d := range map[string]verify.Difference{
		"balance-table, row up to deposit 0:11655, w1: balance is 5, want 6":     {Where: "balance-table", Wallet: "w1", On: "deposit", Offset: 11655, Field: "balance", Got: "5", Want: "6"},
		"deposit_dead_letter 0:5: source position is \":\", want a position":     {Where: "deposit_dead_letter", On: "deposit_dead_letter", Offset: 5, Field: "source position", Got: `":"`, Want: "a position"},
		"flagger-table, partition 1, w1: row is empty, want a readable row":      {Where: "flagger-table", Wallet: "w1", Partition: 1, Field: "row", Got: "empty", Want: "a readable row"},
		"deposit 0:5, w1: its crossing is not on flag_wallet, want one of 5/10s": {Where: "deposit", Wallet: "w1", On: "deposit", Offset: 5, Field: "its crossing", Got: "not on flag_wallet", Want: "one of 5/10s"},
	} {
		if got := d.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// crossing is a message that tells of one at a deposit.
func crossing(t *testing.T, walletID string, offset int64) []byte {
	e := &pb.Evidence{Partition: stream.Partition(walletID, partitions), Offset: offset,
		Rule: &pb.Rule{ThresholdUnits: rule.Threshold.Units, PeriodMs: rule.PeriodMs}}
	return encode(t, &pb.FlagEvent{WalletId: walletID, Event: &pb.FlagEvent_Crossing{Crossing: &pb.Crossing{Evidence: e}}})
}

var home = stream.Partition("w1", partitions)

// Rows of another rule are counted, and compared by the rules that they name.
func TestAnotherRule(t *testing.T) {
	w := random(t, 3)
	rule.PeriodMs /= 2
	defer func() { rule.PeriodMs *= 2 }()
	report, found := w.verify()
	if len(report.Doubts) != 1 || report.Doubts[0].Rows != 6 || report.Doubts[0].Rule != "10000/2m0s" || report.Forgetful != 0 || len(found) > 0 {
		t.Errorf("%+v, found %v", report, found)
	}
}

// A rule that was changed while deposits came is followed, until a row has
// forgotten one.
func TestChangedRules(t *testing.T) {
	for seed := range uint64(50) {
		for times := range int64(4) {
			w := lowering(t, seed, times)
			if report, found := w.verify(); report.Forgetful != 0 || len(found) > 0 {
				t.Fatalf("seed %d, %d changes: %+v, found %v", seed, times, report, found)
			}
		}
		w := lowering(t, seed, 9)
		if report, found := w.verify(); report.Forgetful == 0 || len(found) > 0 {
			t.Fatalf("seed %d: %+v, found %v", seed, report, found)
		}
	}
}

// busy is a world whose services go on, and whose tables are compacted, from the
// first look at partition 1 on.
type busy struct {
	*world
	on bool
}

func (b *busy) Scan(ctx context.Context, topic string, partition int32, below int64, each func(*sarama.ConsumerMessage) error) error {
	if partition == 1 && !b.on {
		b.on = true
		sequence := uint64(0)
		for id := range b.rows["balance-table"] {
			sequence++
			b.deposit(&pb.Deposit{WalletId: id, Units: 1, AcceptedAtMs: start + 1_000_000, Origin: 1, Sequence: sequence})
		}
		b.process()
	}
	newest := map[string]int64{}
	for _, m := range b.topics[topic][partition] {
		newest[string(m.Key)] = m.Offset
	}
	return b.world.Scan(ctx, topic, partition, below, func(m *sarama.ConsumerMessage) error {
		if strings.HasSuffix(topic, "-table") && newest[string(m.Key)] != m.Offset {
			return nil
		}
		return each(m)
	})
}

// What compaction takes while verify is at other partitions is no difference.
func TestTablesAreCompactedMeanwhile(t *testing.T) {
	for seed := range uint64(20) {
		var found []verify.Difference
		w := random(t, seed)
		_, err := verify.Run(context.Background(), &busy{world: w}, verify.Options{Partitions: partitions, Rule: rule,
			Found: func(d verify.Difference) { found = append(found, d) }})
		w.must(err)
		if len(found) > 0 {
			t.Fatalf("seed %d: %v", seed, found)
		}
	}
}
