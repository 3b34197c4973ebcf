//go:build kafka

package test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"
)

// oracle judges what the brokers hold. It shares no code with the services:
// another Kafka client, its own decoding, its own rule.
type oracle struct {
	t     *testing.T
	seeds []string
	admin *kadm.Client
}

func newOracle(t *testing.T, seeds []string) *oracle {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(seeds...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &oracle{t, seeds, kadm.NewClient(cl)}
}

func (o *oracle) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 40*time.Second)
}

// ends is the next offset of every partition of a topic.
func (o *oracle) ends(topic string) (map[int32]int64, error) {
	ctx, cancel := o.ctx()
	defer cancel()
	listed, err := o.admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ends of %s: %w", topic, err)
	}
	ends := map[int32]int64{}
	listed.Each(func(l kadm.ListedOffset) { ends[l.Partition] = l.Offset })
	return ends, nil
}

// read returns the records of a topic between from and its present ends.
func (o *oracle) read(topic string, from map[int32]int64) ([]*kgo.Record, error) {
	ends, err := o.ends(topic)
	if err != nil {
		return nil, err
	}
	at, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for p, end := range ends {
		if from[p] < end {
			at[p], left[p] = kgo.NewOffset().At(from[p]), end
		}
	}
	if len(left) == 0 {
		return nil, nil
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.seeds...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, cancel := o.ctx()
	defer cancel()
	var all []*kgo.Record
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read %s: %v not delivered: %w", topic, left, ctx.Err())
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end, ok := left[r.Partition]; ok && r.Offset < end {
				all = append(all, r)
				if r.Offset == end-1 {
					delete(left, r.Partition)
				}
			}
		})
	}
	slices.SortStableFunc(all, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return all, nil
}

// fields are the top-level fields of a protobuf message: the last value of each.
type fields struct {
	numbers map[protowire.Number]uint64
	bytes   map[protowire.Number][]byte
}

func decode(b []byte) (fields, bool) {
	f := fields{map[protowire.Number]uint64{}, map[protowire.Number][]byte{}}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return f, false
		}
		b = b[n:]
		switch kind {
		case protowire.VarintType:
			f.numbers[number], n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			f.numbers[number], n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.bytes[number], n = protowire.ConsumeBytes(b)
		default:
			return f, false
		}
		if n < 0 {
			return f, false
		}
		b = b[n:]
	}
	return f, true
}

// placed is a deposit of the log that counts.
type placed struct {
	stored
	partition int32
	offset    int64
	sum       int64 // balance with it
}

// verdicts is what the log demands.
type verdicts struct {
	wallets map[string][]placed
	aside   map[string]bool  // positions of what must be set aside
	log     map[string]int64 // nanos at each position
}

// fold reads the log as the contract says: what is no deposit is set aside, an
// id or a key counts once.
func fold(records []*kgo.Record, partitions int32) verdicts {
	v := verdicts{map[string][]placed{}, map[string]bool{}, map[string]int64{}}
	seen := map[string]bool{}
	for _, r := range records {
		d, ok := readDeposit(r, partitions)
		if !ok {
			v.aside[fmt.Sprintf("%d:%d", r.Partition, r.Offset)] = true
			continue
		}
		v.log[d.position] = d.nanos
		id, key := fmt.Sprintf("%s %x:%d", d.wallet, d.origin, d.sequence), fmt.Sprintf("%s key %s", d.wallet, d.key)
		if d.origin != 0 && seen[id] || d.key != "" && seen[key] {
			continue
		}
		seen[id], seen[key] = true, true
		ps := v.wallets[d.wallet]
		sum := d.nanos
		if len(ps) > 0 {
			sum += ps[len(ps)-1].sum
		}
		v.wallets[d.wallet] = append(ps, placed{d, r.Partition, r.Offset, sum})
	}
	return v
}

func readDeposit(r *kgo.Record, partitions int32) (stored, bool) {
	f, ok := decode(r.Value)
	wallet := string(f.bytes[1])
	if !ok || wallet == "" || wallet != string(r.Key) || r.Partition != home(wallet, partitions) {
		return stored{}, false
	}
	d := stored{wallet: wallet, position: fmt.Sprintf("%d:%d", r.Partition, r.Offset),
		nanos: int64(f.numbers[2])*nano + int64(f.numbers[3]), at: int64(f.numbers[4]), key: string(f.bytes[6]),
		origin: f.numbers[7], sequence: f.numbers[8]}
	return d, d.nanos > 0 && d.at > 0
}

// home is FNV-1a of the key, as an absolute 32-bit number, over the partitions.
func home(key string, partitions int32) int32 {
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	p := int32(h)
	if p < 0 {
		p = -p
	}
	return p % partitions
}

// above is the brute-force rule: some half-open window holds more than the
// threshold.
func above(ps []placed, period time.Duration) bool {
	for _, last := range ps {
		var sum int64
		for _, d := range ps {
			if d.at <= last.at && d.at > last.at-period.Milliseconds() {
				sum += d.nanos
			}
		}
		if sum > thresholdNanos {
			return true
		}
	}
	return false
}

// ledgerFaults holds log and sights against what clients were told: points 1, 2
// and 5 of the promise.
func ledgerFaults(l *ledger, v verdicts) []string {
	var bad []string
	found := map[int64]placed{}
	byWallet := map[string]map[int64]placed{} // wallet → balance → the deposit that made it
	for _, w := range l.wallets {
		byWallet[w] = map[int64]placed{}
		for _, p := range v.wallets[w] {
			byWallet[w][p.sum] = p
			e := l.entries[p.nanos]
			_, twice := found[p.nanos]
			switch {
			case e == nil || e.wallet != w || e.key != p.key:
				bad = append(bad, fmt.Sprintf("%s: the log has a deposit of %s at %s that nobody made", w, decimal(p.nanos), p.position))
			case e.verdict == refused:
				bad = append(bad, fmt.Sprintf("%s: the deposit of %s at %s was refused", w, decimal(p.nanos), p.position))
			case twice:
				bad = append(bad, fmt.Sprintf("%s: the deposit of %s counts twice, again at %s", w, decimal(p.nanos), p.position))
			}
			found[p.nanos] = p
		}
	}
	for _, e := range l.entries {
		_, ok := found[e.nanos]
		if e.verdict == acked && (!ok || e.key == "" && v.log[e.position] != e.nanos) {
			bad = append(bad, fmt.Sprintf("%s: the deposit of %s acknowledged at %s is not there", e.wallet, decimal(e.nanos), e.position))
		}
		if e.key != "" && e.verdict != acked {
			bad = append(bad, fmt.Sprintf("%s: key %s got no answer", e.wallet, e.key))
		}
	}
	reached := map[string]int64{} // by API and wallet: offset of the balance seen last
	for _, s := range l.sights {
		p, ok := byWallet[s.wallet][s.nanos]
		at := p.offset
		if s.nanos == 0 {
			ok, at = true, -1
		}
		if !ok {
			bad = append(bad, fmt.Sprintf("%s: %s was shown, which is no sum of the first deposits", s.wallet, decimal(s.nanos)))
			continue
		}
		if s.position != "" {
			_, offset, _ := strings.Cut(s.position, ":")
			if own, err := strconv.ParseInt(offset, 10, 64); err != nil || at < own {
				bad = append(bad, fmt.Sprintf("%s: %s was shown to the maker of %s", s.wallet, decimal(s.nanos), s.position))
			}
			continue // on another API, perhaps
		}
		place := s.api + s.wallet
		if last, ok := reached[place]; ok && at < last {
			bad = append(bad, fmt.Sprintf("%s: the balance went back to %s", s.wallet, decimal(s.nanos)))
		}
		reached[place] = at
	}
	slices.Sort(bad)
	return append(bad, l.broken...)
}

// tableFaults holds the newest record of each wallet in the changelogs against
// the log: points 3, 4 and 6.
func (o *oracle) tableFaults(v verdicts, wallets []string, period time.Duration, loose map[string]bool) ([]string, error) {
	var bad []string
	for _, table := range tables {
		records, err := o.read(table, nil)
		if err != nil {
			return nil, err
		}
		newest := map[string][]byte{}
		for _, r := range records {
			newest[string(r.Key)] = r.Value
		}
		bad = append(bad, rowFaults(table, newest, v, wallets, period, loose)...)
	}
	return bad, nil
}

var tables = []string{"balance-table", "threshold-table", "flagger-table"}

func rowFaults(table string, newest map[string][]byte, v verdicts, wallets []string, period time.Duration, loose map[string]bool) (bad []string) {
	for _, w := range wallets {
		ps := v.wallets[w]
		row, ok := decode(newest[w])
		if !ok {
			bad = append(bad, fmt.Sprintf("%s: its row in %s cannot be read", w, table))
			continue
		}
		if table == "flagger-table" {
			raised := row.numbers[4] != 0 || row.numbers[2] > row.numbers[3]
			if want := above(ps, period); raised != want && !loose[w] {
				bad = append(bad, fmt.Sprintf("%s: the newest row of %s says flagged %t, want %t", w, table, raised, want))
			}
			continue
		}
		account, _ := decode(row.bytes[1])
		got := int64(account.numbers[2])*nano + int64(account.numbers[3])
		var want int64
		if len(ps) > 0 {
			want = ps[len(ps)-1].sum
		}
		if got != want {
			bad = append(bad, fmt.Sprintf("%s: the newest row of %s holds %s, want %s", w, table, decimal(got), decimal(want)))
		}
	}
	return bad
}

// follow reads the changelogs as they grow, before compaction can hide anything,
// until ctx is done: no row may ever be followed by an older one.
func (o *oracle) follow(ctx context.Context) (bad []string) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.seeds...), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.ConsumeTopics(tables...))
	if err != nil {
		return []string{err.Error()}
	}
	defer cl.Close()
	seen := versions{}
	for ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) { bad = append(bad, seen.next(r)...) })
	}
	return bad
}

// versions of rows, by table and wallet.
type versions map[string]uint64

// next takes the next record of a changelog and says if it is older than the last.
func (v versions) next(r *kgo.Record) (bad []string) {
	if strings.HasPrefix(string(r.Key), "_") {
		return nil // no wallet's
	}
	row := r.Topic + " " + string(r.Key)
	now := rowVersion(r.Topic, r.Value)
	if now < v[row] {
		bad = []string{fmt.Sprintf("%s: went back from %d to %d at %d:%d", row, v[row], now, r.Partition, r.Offset)}
	}
	v[row] = now
	return bad
}

// rowVersion is the offset up to which a row has applied its input.
func rowVersion(table string, row []byte) uint64 {
	f, ok := decode(row)
	if !ok {
		return 0
	}
	if table != "flagger-table" {
		f, _ = decode(f.bytes[1])
	}
	return f.numbers[1]
}

// deadFaults: what must be set aside is there, and nothing else.
func deadFaults(records []*kgo.Record, v verdicts, from map[int32]int64) (bad []string) {
	missing := maps.Clone(v.aside)
	for _, r := range records {
		h := map[string]string{}
		for _, x := range r.Headers {
			h[x.Key] = string(x.Value)
		}
		partition, _ := strconv.ParseInt(h["dead-letter-partition"], 10, 32)
		offset, _ := strconv.ParseInt(h["dead-letter-offset"], 10, 64)
		if offset < from[int32(partition)] {
			continue // of an earlier round
		}
		position := h["dead-letter-partition"] + ":" + h["dead-letter-offset"]
		if !v.aside[position] {
			bad = append(bad, "set aside without need: "+position+" "+h["dead-letter-reason"])
		}
		delete(missing, position)
	}
	for position := range missing {
		bad = append(bad, "not set aside: "+position)
	}
	return bad
}
