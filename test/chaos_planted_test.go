package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"
)

// evidence is all that the oracle is shown of a round.
type evidence struct {
	ledger   *ledger
	log      []*kgo.Record
	tables   map[string]map[string][]byte // newest rows
	grown    []*kgo.Record                // a changelog as it grew
	deadRows []*kgo.Record
	earlier  []verdicts // of logs that are gone
}

// appended is the log with one more at the end of its partition.
func (e *evidence) appended(r *kgo.Record) *kgo.Record {
	r.Offset = 50
	e.log = append(e.log, r)
	return r
}

// protobuf encodes numbers and messages by field.
func protobuf(parts ...any) []byte {
	var b []byte
	for i := 0; i < len(parts); i += 2 {
		number := protowire.Number(parts[i].(int))
		switch v := parts[i+1].(type) {
		case int64:
			b = protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), uint64(v))
		case []byte:
			b = protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), v)
		}
	}
	return b
}

func accountRow(next, nanos int64) []byte {
	return protobuf(1, protobuf(1, next, 2, nanos/nano, 3, nanos%nano))
}

// fine is a round in which nothing went wrong: of three wallets, two deposits are
// acknowledged, one is unanswered, one refused, one comes again under its key.
func fine() *evidence {
	const at = int64(1_800_000_000_000)
	e := &evidence{ledger: newLedger(1, 3), tables: map[string]map[string][]byte{}}
	offsets, api := map[int32]int64{}, &producer{partitions: 8, origin: 7}
	put := func(r *kgo.Record) string {
		r.Offset = offsets[r.Partition]
		offsets[r.Partition]++
		e.log = append(e.log, r)
		return fmt.Sprintf("%d:%d", r.Partition, r.Offset)
	}
	deposit := func(w string, nanos, at int64, key string, v verdict) *entry {
		d := &entry{wallet: w, nanos: nanos, key: key, verdict: v}
		e.ledger.note(d)
		if v != refused {
			r := api.deposit(w, nanos, at)
			if key != "" {
				r.Value = append(r.Value, protobuf(6, []byte(key))...)
			}
			d.position = put(r)
		}
		return d
	}
	a, b, c := e.ledger.wallets[0], e.ledger.wallets[1], e.ledger.wallets[2]
	first := deposit(a, 6000*nano+1, at, "", acked)
	deposit(a, 6000*nano+2, at+1000, "", unknown)
	deposit(b, 6000*nano+3, at, "", acked)
	deposit(b, 6000*nano+4, at+period.Milliseconds(), "key", acked)
	retry := api.deposit(b, 6000*nano+4, at+period.Milliseconds())
	retry.Value = append(retry.Value, protobuf(6, []byte("key"))...)
	put(retry)
	put(again(e.log[0])) // the broker forgot who had sent it
	deposit(c, 5*nano, at, "", refused)
	bad := &kgo.Record{Key: []byte("x"), Value: []byte{0xff}, Partition: 3}
	e.dead(put(bad))
	e.deadRows[0].Value = bad.Value
	e.ledger.saw(sight{"one", a, 0, ""})
	e.ledger.saw(sight{"one", a, first.nanos, first.position})
	e.ledger.saw(sight{"one", a, first.nanos, ""})
	e.ledger.saw(sight{"one", a, 12000*nano + 3, ""})
	for _, table := range tables {
		e.tables[table] = map[string][]byte{}
	}
	for w, row := range map[string][]byte{a: accountRow(2, 12000*nano+3), b: accountRow(9, 12000*nano+7)} {
		e.tables["balance-table"][w], e.tables["threshold-table"][w] = row, row
	}
	e.tables["flagger-table"][a] = protobuf(1, int64(1), 2, int64(2))
	for next := range int64(3) {
		e.grown = append(e.grown, &kgo.Record{Topic: "balance-table", Key: []byte(a), Value: accountRow(next, next)})
	}
	return e
}

func (e *evidence) dead(position string) {
	partition, offset, _ := strings.Cut(position, ":")
	e.deadRows = append(e.deadRows, &kgo.Record{Headers: []kgo.RecordHeader{
		{Key: "dead-letter-partition", Value: []byte(partition)}, {Key: "dead-letter-offset", Value: []byte(offset)}}})
}

func (e *evidence) judge() []string {
	v := fold(e.log, 8)
	bad := append(ledgerFaults(e.ledger, append(e.earlier, v)...), deadFaults(e.deadRows, v, nil, nil)...)
	for _, table := range tables {
		bad = append(bad, rowFaults(table, e.tables[table], v, e.ledger.wallets, period)...)
	}
	seen := versions{}
	for _, r := range e.grown {
		bad = append(bad, seen.next(r)...)
	}
	return bad
}

// TestOracleFinds plants one violation at a time.
func TestOracleFinds(t *testing.T) {
	if bad := fine().judge(); len(bad) > 0 {
		t.Fatalf("nothing is wrong, but: %v", bad)
	}
	for name, c := range map[string]struct {
		plant func(e *evidence, a, b string)
		want  string
	}{
		"an acknowledged deposit is lost": {func(e *evidence, _, _ string) { e.log = e.log[1:] }, "acknowledged at"},
		"a deposit counts twice": {func(e *evidence, a, _ string) {
			e.appended((&producer{8, 9, 0}).deposit(a, 6000*nano+1, 1))
		}, "counts twice"},
		"one name for two deposits": {func(e *evidence, a, _ string) {
			e.appended((&producer{8, 7, 0}).deposit(a, 77, 1))
		}, "two deposits of one name"},
		"a deposit without an origin": {func(e *evidence, a, _ string) {
			e.ledger.note(&entry{wallet: a, nanos: 77, verdict: unknown})
			e.appended((&producer{8, 0, 0}).deposit(a, 77, 1))
		}, "names no origin"},
		"an acknowledged deposit is overtaken": {func(e *evidence, a, _ string) {
			e.appended((&producer{8, 7, 1000}).deposit(a, 77, 1))
			e.ledger.note(&entry{wallet: a, nanos: 77, verdict: acked, position: fmt.Sprint(home(a, 8), ":50")})
			late := e.appended((&producer{8, 7, 900}).deposit(a, 78, 1))
			late.Offset++
			e.ledger.note(&entry{wallet: a, nanos: 78, verdict: acked, position: fmt.Sprint(home(a, 8), ":51")})
		}, "does not count"},
		"acknowledged at another place": {func(e *evidence, a, _ string) {
			e.ledger.entries[6000*nano+1].position = "7:77"
		}, "is not there"},
		"a balance goes back to a cluster that is gone": {func(e *evidence, a, _ string) {
			e.earlier = []verdicts{fold([]*kgo.Record{(&producer{8, 5, 0}).deposit(a, 77, 1)}, 8)}
			e.ledger.note(&entry{wallet: a, nanos: 77, verdict: unknown})
			e.ledger.saw(sight{"one", a, 77, ""})
		}, "went back to"},
		"a deposit that nobody made": {func(e *evidence, a, _ string) {
			e.appended((&producer{8, 9, 0}).deposit(a, 77, 1))
		}, "nobody made"},
		"a refused deposit is there": {func(e *evidence, _, _ string) { e.ledger.entries[6000*nano+2].verdict = refused }, "was refused"},
		"a key without an answer":    {func(e *evidence, _, _ string) { e.ledger.entries[6000*nano+4].verdict = unknown }, "got no answer"},
		"a key takes effect twice": {func(e *evidence, _, b string) {
			e.tables["balance-table"][b] = accountRow(9, 18000*nano+11)
		}, "balance-table holds"},
		"a balance too low": {func(e *evidence, a, _ string) { e.tables["threshold-table"][a] = accountRow(9, 6000*nano+1) }, "threshold-table holds"},
		"a row is missing":  {func(e *evidence, a, _ string) { delete(e.tables["balance-table"], a) }, "balance-table holds 0"},
		"garbage in a row":  {func(e *evidence, a, _ string) { e.tables["balance-table"][a] = []byte{0xff} }, "cannot be read"},
		"a flag is missing": {func(e *evidence, a, _ string) { delete(e.tables["flagger-table"], a) }, "flagged false, want true"},
		"a false flag": {func(e *evidence, _, b string) { // a period apart is not above
			e.tables["flagger-table"][b] = protobuf(1, int64(1), 2, int64(2))
		}, "flagged true, want false"},
		"a balance that never was": {func(e *evidence, a, _ string) { e.ledger.saw(sight{"one", a, 42, ""}) }, "no sum of the first"},
		"a balance goes back":      {func(e *evidence, a, _ string) { e.ledger.saw(sight{"one", a, 6000*nano + 1, ""}) }, "went back to"},
		"own deposit not shown": {func(e *evidence, a, _ string) {
			e.ledger.saw(sight{"two", a, 0, e.ledger.entries[6000*nano+1].position})
		}, "to the maker of"},
		"a row goes back":     {func(e *evidence, _, _ string) { e.grown = append(e.grown, e.grown[0]) }, "went back from 2 to 0"},
		"not set aside":       {func(e *evidence, _, _ string) { e.deadRows = nil }, "not set aside"},
		"a letter is altered": {func(e *evidence, _, _ string) { e.deadRows[0].Value = []byte{0xff, 0} }, "and changed"},
		"set aside without need": {func(e *evidence, a, _ string) {
			e.dead(fmt.Sprintf("%d:0", home(a, 8)))
		}, "set aside without need"},
		"an answer that the contract does not know": {func(e *evidence, a, _ string) {
			e.ledger.told(e.ledger.entries[6000*nano+2], answer{verdict: broken, detail: "a teapot"})
		}, "a teapot"},
	} {
		t.Run(name, func(t *testing.T) {
			e := fine()
			c.plant(e, e.ledger.wallets[0], e.ledger.wallets[1])
			if bad := e.judge(); !strings.Contains(strings.Join(bad, "\n"), c.want) {
				t.Errorf("found %q, want %q", bad, c.want)
			}
		})
	}
}
