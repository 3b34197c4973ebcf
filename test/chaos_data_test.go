package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/encoding/protowire"
)

// producer is one that the harness plays: a run of an API, or, with origin 0,
// somebody else's, who names no place in the log.
type producer struct {
	partitions       int32
	origin, sequence uint64
}

// producer is a run of an API, for wallets of one partition.
func (c *chaos) producer(r *rand.Rand) *producer {
	return &producer{partitions: c.partitions, origin: 1 + r.Uint64N(1<<63)}
}

// deposit is a record as the API would write it, accepted at so many milliseconds.
func (p *producer) deposit(wallet string, nanos, at int64) *kgo.Record {
	var b []byte
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, wallet)
	for field, n := range []int64{2: nanos / nano, 3: nanos % nano, 4: at} {
		if n != 0 {
			b = protowire.AppendTag(b, protowire.Number(field), protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(n))
		}
	}
	if p.origin != 0 {
		p.sequence++
		b = protowire.AppendTag(b, 7, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, p.origin)
		b = protowire.AppendTag(b, 8, protowire.VarintType)
		b = protowire.AppendVarint(b, p.sequence)
	}
	return &kgo.Record{Topic: "deposit", Key: []byte(wallet), Value: b, Partition: home(wallet, p.partitions)}
}

// again is the same record, to be appended once more.
func again(r *kgo.Record) *kgo.Record {
	return &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Partition: r.Partition}
}

func (c *chaos) connect(o ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(o, kgo.SeedBrokers(c.kafka.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(32<<20), kgo.BrokerMaxWriteBytes(64<<20), // before compression: the brokers' limit is for after it
		kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.RecordDeliveryTimeout(60*s))...)
}

// inject appends records to the deposit log. Without an answer a record may be
// there or not: the oracle takes the log as it is.
func (c *chaos) inject(records ...*kgo.Record) {
	cl, err := c.connect()
	if err != nil {
		c.t.Error(err)
		return
	}
	defer cl.Close()
	ctx, cancel := c.oracle.ctx()
	defer cancel()
	for _, r := range records {
		r.Topic = "deposit"
	}
	_ = cl.ProduceSync(ctx, records...)
}

// burst injects n small deposits of another producer's to some wallets.
func (c *chaos) burst(r *rand.Rand, wallets []string, n int) {
	other := &producer{partitions: c.partitions}
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = other.deposit(wallets[r.IntN(len(wallets))], 1+r.Int64N(200*nano), time.Now().UnixMilli())
	}
	c.inject(records...)
}

func (c *chaos) rawWallet(r *rand.Rand, name string) string {
	w := fmt.Sprintf("c-%s-%d-%s-%d", runID, c.round, name, r.IntN(1000))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rawWallets[w] = true
	return w
}

func malformed(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	w := c.rawWallet(r, "bad")
	good := c.producer(r).deposit(w, nano, time.Now().UnixMilli())
	elsewhere := again(good)
	elsewhere.Partition = (elsewhere.Partition + 1) % c.partitions
	random := make([]byte, 900<<10) // as large as a record may be, also compressed
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	c.inject(
		&kgo.Record{Key: []byte(w), Value: []byte{0xff, 1, 2}, Partition: home(w, c.partitions)},
		&kgo.Record{Key: []byte(w), Partition: home(w, c.partitions)},
		&kgo.Record{Key: []byte(w), Value: random, Partition: home(w, c.partitions)},
		&kgo.Record{Value: good.Value, Partition: 0},
		elsewhere,
		good,
	)
}

// hardLetters are records that no letter can hold as they are, each with a deposit
// behind it that counts.
func hardLetters(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	w, now := c.rawWallet(r, "hard"), time.Now()
	p, from := home(w, c.partitions), c.producer(r)
	c.inject(
		&kgo.Record{Key: []byte(w), Value: make([]byte, 5<<20), Partition: p},
		from.deposit(w, nano, now.UnixMilli()),
		&kgo.Record{Key: []byte(w), Value: make([]byte, 9<<20), Partition: p},
		&kgo.Record{Key: make([]byte, 5<<20), Value: []byte("a large key"), Partition: p},
		&kgo.Record{Key: []byte(w), Value: []byte("early"), Partition: p, Timestamp: time.UnixMilli(-7 * 365 * 24 * time.Hour.Milliseconds())},
		&kgo.Record{Key: []byte(w), Value: []byte("with headers"), Partition: p, Headers: []kgo.RecordHeader{
			{Key: strings.Repeat("h", 1<<20), Value: make([]byte, 4<<20)}}},
		from.deposit(w, nano, now.UnixMilli()),
	)
}

// twice is one deposit next to itself, and again when 300 of another origin came
// after it.
func twice(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	w, now := c.rawWallet(r, "twice"), time.Now().UnixMilli()
	d, other := c.producer(r).deposit(w, 7000*nano, now), c.producer(r)
	records := []*kgo.Record{d, again(d)}
	for range 300 {
		records = append(records, other.deposit(w, 1, now))
	}
	c.inject(append(records, again(d))...)
}

// originForgotten goes on with an origin after more of them than a row remembers.
func originForgotten(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	w, now := c.rawWallet(r, "origin"), time.Now().UnixMilli()
	first := c.producer(r)
	records := []*kgo.Record{first.deposit(w, 1000*nano, now)}
	for range 3 {
		records = append(records, c.producer(r).deposit(w, 10*nano, now))
	}
	records = append(records, again(records[0]))
	for range 40 {
		records = append(records, c.producer(r).deposit(w, nano, now))
	}
	d := first.deposit(w, 2000*nano, now)
	c.inject(append(records, d, again(d))...)
}

// late events arrive up to 10 s after others that are younger.
func late(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	w, now := c.rawWallet(r, "late"), time.Now().UnixMilli()
	from := c.producer(r)
	var records []*kgo.Record
	for range 12 {
		records = append(records, from.deposit(w, (500+r.Int64N(4000))*nano, now-r.Int64N(10_000)))
	}
	c.inject(records...)
}

// hourOff comes of two origins whose clocks are an hour apart.
func hourOff(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	w, now := c.rawWallet(r, "hour"), time.Now().UnixMilli()
	from := []*producer{c.producer(r), c.producer(r)}
	var records []*kgo.Record
	for i := range 12 {
		which := r.IntN(2)
		records = append(records, from[which].deposit(w, (500+r.Int64N(4000))*nano, now+int64(100*i)-3_600_000*int64(which)))
	}
	c.inject(records...)
}

// purgeLetters deletes the dead letters that are there. Who lists them, and verify,
// do with what is left.
func purgeLetters(c *chaos, _ []string, r *rand.Rand, hold time.Duration) {
	malformed(c, nil, r, hold)
	pause(s) // most of them are letters then
	letters, err := c.oracle.read("deposit_dead_letter", nil)
	if err != nil {
		c.t.Error(err)
		return
	}
	ends := make(map[int32]int64) // of what was read: a letter that has come since must stay
	for _, l := range letters {
		position, _, _ := letterSource(l)
		c.lettersPurged[position] = true
		ends[l.Partition] = max(ends[l.Partition], l.Offset+1)
	}
	upto := kadm.Offsets{}
	for p, end := range ends {
		upto.AddOffset("deposit_dead_letter", p, end, -1)
	}
	ctx, cancel := c.oracle.ctx()
	defer cancel()
	deleted, err := c.oracle.admin.DeleteRecords(ctx, upto)
	if err = errors.Join(err, deleted.Error()); err != nil {
		c.t.Errorf("delete the letters: %v", err)
	}
	defer c.ledger.hold()() // what is read does not grow
	c.mustRun("deadletter", "verify")
}

// mustRun expects that commands find nothing wrong.
func (c *chaos) mustRun(services ...string) {
	for _, service := range services {
		if text, ok := c.f.command(nil, "-service="+service); !ok {
			c.t.Errorf("-service=%s: %.2000s", service, text)
		}
	}
}

// foreignTransactions puts records of another producer's transactions on every
// partition. At last, while no client deposits, an aborted one is all that comes
// after what counts, and services start and read.
func foreignTransactions(c *chaos, _ []string, r *rand.Rand, hold time.Duration) {
	for _, end := range []string{"commit", "abort", "give up"} {
		c.transaction(r, end, hold)
	}
	resume := c.ledger.hold()
	defer resume()
	c.transaction(r, "abort", hold)
	for _, name := range slices.Concat(one("api", "api-2")(c, r), anyGroup(c, r)) {
		c.f.kill9(name)
	}
	c.allReady("a foreign transaction was aborted")
	if !c.t.Failed() {
		c.mustRun("verify", "deadletter")
	}
}

func (c *chaos) transaction(r *rand.Rand, end string, hold time.Duration) {
	cl, err := c.connect(kgo.TransactionalID(fmt.Sprintf("foreign-%x", r.Uint64())), kgo.TransactionTimeout(2*s))
	if err == nil {
		defer cl.Close()
		err = cl.BeginTransaction()
	}
	if err != nil {
		c.t.Errorf("foreign transaction: %v", err)
		return
	}
	var records []*kgo.Record
	other := &producer{partitions: c.partitions}
	for at := map[int32]bool{}; len(at) < int(c.partitions); {
		w := c.rawWallet(r, "foreign")
		if at[home(w, c.partitions)] {
			continue
		}
		at[home(w, c.partitions)] = true
		records = append(records, other.deposit(w, 6000*nano, time.Now().UnixMilli()), other.deposit(w, 6000*nano, time.Now().UnixMilli()))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*s)
	defer cancel()
	err = cl.ProduceSync(ctx, records...).FirstErr()
	pause(hold)
	switch end {
	case "commit":
		err = errors.Join(err, cl.EndTransaction(ctx, kgo.TryCommit))
	case "abort":
		err = errors.Join(err, cl.EndTransaction(ctx, kgo.TryAbort))
	}
	if err != nil {
		c.t.Errorf("foreign transaction, to %s: %v", end, err)
	}
}
