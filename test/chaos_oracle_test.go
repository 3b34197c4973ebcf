package test

import (
	"bytes"
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
	"github.com/twmb/franz-go/pkg/kerr"
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

// bounds are the first offset of every partition of a topic, and the next.
func (o *oracle) bounds(topic string) (starts, ends map[int32]int64, err error) {
	eventually(30*s, func() bool { // a leader that has just taken over does not know its end yet
		starts, ends, err = o.boundsNow(topic)
		return err == nil || !kerr.IsRetriable(err)
	})
	return starts, ends, err
}

func (o *oracle) boundsNow(topic string) (starts, ends map[int32]int64, err error) {
	ctx, cancel := o.ctx()
	defer cancel()
	first, startErr := o.admin.ListStartOffsets(ctx, topic)
	next, endErr := o.admin.ListEndOffsets(ctx, topic)
	if err := cmp.Or(startErr, endErr, first.Error(), next.Error()); err != nil {
		return nil, nil, fmt.Errorf("bounds of %s: %w", topic, err)
	}
	starts, ends = map[int32]int64{}, map[int32]int64{}
	first.Each(func(l kadm.ListedOffset) { starts[l.Partition] = l.Offset })
	next.Each(func(l kadm.ListedOffset) { ends[l.Partition] = l.Offset })
	return starts, ends, nil
}

// read returns the committed records of a topic between from and its present ends.
func (o *oracle) read(topic string, from map[int32]int64) ([]*kgo.Record, error) {
	starts, ends, err := o.bounds(topic)
	if err != nil {
		return nil, err
	}
	at, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for p, end := range ends {
		if start := max(from[p], starts[p]); start < end {
			at[p], left[p] = kgo.NewOffset().At(start), end
		}
	}
	if len(left) == 0 {
		return nil, nil
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.seeds...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), // the last one may be such
		kgo.FetchMaxBytes(64<<20), kgo.FetchMaxPartitionBytes(16<<20))
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
			end, ok := left[r.Partition]
			if ok && r.Offset < end && !r.Attrs.IsControl() {
				all = append(all, r)
			}
			if ok && r.Offset >= end-1 {
				delete(left, r.Partition)
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

// identity names an entry of the log, wherever it stands and however often.
type identity struct {
	partition        int32
	origin, sequence uint64
}

// logged is a deposit that stands in the log.
type logged struct {
	identity
	wallet string
	nanos  int64
	at     int64 // milliseconds
	key    string
	offset int64
	sum    int64 // the wallet's balance with it, where it counts
}

func (d logged) position() string { return fmt.Sprintf("%d:%d", d.partition, d.offset) }

// verdicts is what one log demands.
type verdicts struct {
	wallets map[string][]logged    // those that count, in order
	log     map[string]logged      // all, by position
	aside   map[string]*kgo.Record // what must be set aside, by position
	bad     []string               // what no log may hold
}

// balance is what a wallet must show.
func (v verdicts) balance(wallet string) int64 {
	if ps := v.wallets[wallet]; len(ps) > 0 {
		return ps[len(ps)-1].sum
	}
	return 0
}

// fold reads a log as the contract says. What is no deposit is set aside. An entry
// counts once, however far apart its copies are, and so does a key. One that comes
// when its origin is further on, having been given up, does not count.
func fold(records []*kgo.Record, partitions int32) verdicts {
	v := verdicts{map[string][]logged{}, map[string]logged{}, map[string]*kgo.Record{}, nil}
	type walletKey struct{ wallet, key string }
	type walletOrigin struct {
		wallet string
		origin uint64
	}
	entries, keys, furthest := map[identity]logged{}, map[walletKey]bool{}, map[walletOrigin]uint64{}
	for _, r := range records {
		d, ok := readDeposit(r, partitions)
		if !ok {
			v.aside[fmt.Sprintf("%d:%d", r.Partition, r.Offset)] = r
			continue
		}
		v.log[d.position()] = d
		from := walletOrigin{d.wallet, d.origin}
		if d.origin != 0 {
			first, again := entries[d.identity]
			if again && (first.wallet != d.wallet || first.nanos != d.nanos || first.key != d.key || first.at != d.at) {
				v.bad = append(v.bad, fmt.Sprintf("%s and %s are two deposits of one name: origin %x, sequence %d",
					first.position(), d.position(), d.origin, d.sequence))
			}
			if !again {
				entries[d.identity] = d
			}
			if again || d.sequence <= furthest[from] {
				continue
			}
			furthest[from] = d.sequence
		}
		if d.key != "" && keys[walletKey{d.wallet, d.key}] {
			continue
		}
		keys[walletKey{d.wallet, d.key}] = true
		d.sum = d.nanos + v.balance(d.wallet)
		v.wallets[d.wallet] = append(v.wallets[d.wallet], d)
	}
	return v
}

func readDeposit(r *kgo.Record, partitions int32) (logged, bool) {
	f, ok := decode(r.Value)
	wallet := string(f.bytes[1])
	if !ok || wallet == "" || wallet != string(r.Key) || r.Partition != home(wallet, partitions) {
		return logged{}, false
	}
	d := logged{identity: identity{r.Partition, f.numbers[7], f.numbers[8]}, wallet: wallet, offset: r.Offset,
		nanos: int64(f.numbers[2])*nano + int64(f.numbers[3]), at: int64(f.numbers[4]), key: string(f.bytes[6])}
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

// above is the rule over all deposits at once: some half-open window holds more
// than the threshold.
func above(ps []logged, period time.Duration) bool {
	byTime := slices.Clone(ps)
	slices.SortFunc(byTime, func(a, b logged) int { return cmp.Compare(a.at, b.at) })
	var sum int64
	oldest := 0
	for _, last := range byTime { // of those at the same time the last one's window holds all
		for sum += last.nanos; byTime[oldest].at <= last.at-period.Milliseconds(); oldest++ {
			sum -= byTime[oldest].nanos
		}
		if sum > thresholdNanos {
			return true
		}
	}
	return false
}

// place is one of a wallet's balances: that with the deposit at an offset of the
// log of an era. Each is shown at one place alone, but for 0.
type place struct {
	era    int
	offset int64
}

func (p place) before(q place) bool {
	return cmp.Or(cmp.Compare(p.era, q.era), cmp.Compare(p.offset, q.offset)) < 0
}

// ledgerFaults holds logs and sights against what clients were told: points 1, 2
// and 5 of the promise. The last of the logs is the present one; an acknowledged
// deposit is in one of them.
func ledgerFaults(l *ledger, logs ...verdicts) (bad []string) {
	counted := map[*entry]bool{}
	shown := map[string]map[int64]place{} // wallet → balance → the deposit that made it
	for _, w := range l.wallets {
		shown[w] = map[int64]place{}
	}
	for i, v := range logs {
		bad = append(bad, v.bad...)
		for _, w := range l.wallets {
			twice := map[int64]bool{}
			for _, d := range v.wallets[w] {
				shown[w][d.sum] = place{i, d.offset}
				e := l.entries[d.nanos]
				switch {
				case e == nil || e.wallet != w || e.key != d.key:
					bad = append(bad, fmt.Sprintf("%s: the log has a deposit of %s at %s that nobody made", w, decimal(d.nanos), d.position()))
				case d.origin == 0 || d.sequence == 0:
					bad = append(bad, fmt.Sprintf("%s: the deposit of %s at %s names no origin or no place in it", w, decimal(d.nanos), d.position()))
				case e.verdict == refused:
					bad = append(bad, fmt.Sprintf("%s: the deposit of %s at %s was refused", w, decimal(d.nanos), d.position()))
				case twice[d.nanos]:
					bad = append(bad, fmt.Sprintf("%s: the deposit of %s counts twice, again at %s", w, decimal(d.nanos), d.position()))
				}
				twice[d.nanos] = true
				if e != nil && (e.key != "" || slices.ContainsFunc(logs[i:i+1], e.stands)) {
					counted[e] = true
				}
			}
		}
	}
	for _, e := range l.entries {
		if e.verdict == acked && !slices.ContainsFunc(logs, e.stands) {
			bad = append(bad, fmt.Sprintf("%s: the deposit of %s acknowledged at %s is not there", e.wallet, decimal(e.nanos), e.position))
		} else if e.verdict == acked && !counted[e] {
			bad = append(bad, fmt.Sprintf("%s: the deposit of %s acknowledged at %s does not count", e.wallet, decimal(e.nanos), e.position))
		}
		if e.key != "" && e.verdict != acked {
			bad = append(bad, fmt.Sprintf("%s: key %s got no answer", e.wallet, e.key))
		}
	}
	if len(logs) == 1 { // a position of an era that is over may be one of another count of partitions
		bad = append(bad, l.misplaced...)
	}
	bad = append(bad, sightFaults(l, shown, len(logs)-1)...)
	slices.Sort(bad)
	return append(bad, l.broken...)
}

// stands tells whether a log holds e just as it was acknowledged.
func (e *entry) stands(v verdicts) bool {
	d := v.log[e.position]
	return d.wallet == e.wallet && d.nanos == e.nanos && d.key == e.key
}

// sightFaults holds what was shown against what ever was: each API shows a wallet's
// balances in their order, and who deposited sees it.
func sightFaults(l *ledger, shown map[string]map[int64]place, last int) (bad []string) {
	reached := map[string]place{} // by API and wallet: seen last
	for _, s := range l.sights {
		seenAt := s.api + s.wallet
		was, seen := reached[seenAt]
		p, ok := shown[s.wallet][s.nanos]
		if s.nanos == 0 {
			ok, p = true, place{was.era, -1}
			if seen && was.offset >= 0 && was.era < last {
				p.era++ // of an era in which the wallet has nothing yet
			}
		}
		if !ok {
			bad = append(bad, fmt.Sprintf("%s: %s was shown, which is no sum of the first deposits", s.wallet, decimal(s.nanos)))
			continue
		}
		if s.position != "" {
			_, offset, _ := strings.Cut(s.position, ":")
			// A position of an era that is over says nothing of the next.
			if own, err := strconv.ParseInt(offset, 10, 64); err != nil || last == 0 && p.offset < own {
				bad = append(bad, fmt.Sprintf("%s: %s was shown to the maker of %s", s.wallet, decimal(s.nanos), s.position))
			}
			continue // on another API, perhaps
		}
		if seen && p.before(was) {
			bad = append(bad, fmt.Sprintf("%s: the balance went back to %s", s.wallet, decimal(s.nanos)))
		}
		reached[seenAt] = p
	}
	return bad
}

// tableFaults holds the newest record of each wallet in the changelogs against
// the log: points 3, 4 and 6.
func (o *oracle) tableFaults(v verdicts, wallets []string, period time.Duration) ([]string, error) {
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
		bad = append(bad, rowFaults(table, newest, v, wallets, period)...)
	}
	return bad, nil
}

var tables = []string{"balance-table", "threshold-table", "flagger-table"}

func rowFaults(table string, newest map[string][]byte, v verdicts, wallets []string, period time.Duration) (bad []string) {
	for _, w := range wallets {
		ps := v.wallets[w]
		row, ok := decode(newest[w])
		if !ok {
			bad = append(bad, fmt.Sprintf("%s: its row in %s cannot be read", w, table))
			continue
		}
		if table == "flagger-table" {
			raised := row.numbers[4] != 0 || row.numbers[2] > row.numbers[3]
			if want := above(ps, period); raised != want {
				bad = append(bad, fmt.Sprintf("%s: the newest row of %s says flagged %t, want %t", w, table, raised, want))
			}
			continue
		}
		account, _ := decode(row.bytes[1])
		got := int64(account.numbers[2])*nano + int64(account.numbers[3])
		if want := v.balance(w); got != want {
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

// describable is the size above which a letter may describe a value instead of
// holding it.
const describable = 1 << 20

// deadFaults: what must be set aside is there, its value unchanged, and nothing
// else. What was purged was there.
func deadFaults(records []*kgo.Record, v verdicts, from map[int32]int64, purged map[string]bool) (bad []string) {
	missing := maps.Clone(v.aside)
	for _, r := range records {
		position, p, offset := letterSource(r)
		if offset < from[p] {
			continue // of an earlier round
		}
		source := v.aside[position]
		switch {
		case source == nil:
			bad = append(bad, "set aside without need: "+position)
		case len(source.Value) < describable && !bytes.Equal(source.Value, r.Value):
			bad = append(bad, "set aside, and changed: "+position)
		}
		delete(missing, position)
	}
	for position := range missing {
		if !purged[position] {
			bad = append(bad, "not set aside: "+position)
		}
	}
	return bad
}

// letterSource is where the record came from that a dead letter tells of.
func letterSource(r *kgo.Record) (position string, partition int32, offset int64) {
	h := map[string]string{}
	for _, x := range r.Headers {
		h[x.Key] = string(x.Value)
	}
	p, _ := strconv.ParseInt(h["dead-letter-partition"], 10, 32)
	offset, _ = strconv.ParseInt(h["dead-letter-offset"], 10, 64)
	return h["dead-letter-partition"] + ":" + h["dead-letter-offset"], int32(p), offset
}
