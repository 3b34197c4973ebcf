package kafka

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

// book is what OnRow was told, by partition.
type book struct {
	mu   sync.Mutex
	rows map[int32][]string // key=value@offset
	err  error
}

func (b *book) stored(partition int32, key string, value []byte, offset int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rows == nil {
		b.rows = make(map[int32][]string)
	}
	b.rows[partition] = append(b.rows[partition], fmt.Sprintf("%s=%s@%d", key, value, offset))
	return b.err
}

// table is a new table topic, and how a group writes to it.
type table struct {
	client *Client
	TableOptions
}

var tables atomic.Int64

func newTable(t testing.TB, partitions int32) table {
	t.Helper()
	c := newClient(t, tableBroker(t))
	g := stream.Group(fmt.Sprint("group", time.Now().UnixNano(), "-", tables.Add(1)))
	_, err := c.Ensure(within(t), []stream.Topic{{Name: string(g.Table()), Copartitioned: true}}, partitions, 0)
	must(t, err)
	return table{c, TableOptions{Group: g, Partitions: partitions}}
}

func (x table) writer(t testing.TB, b *book) *TableWriter {
	t.Helper()
	x.OnRow = b.stored
	w, err := x.client.TableWriter(x.TableOptions)
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	return w
}

func own(t testing.TB, w *TableWriter, partition int32) int64 {
	t.Helper()
	at, err := w.Claim(within(t), partition)
	must(t, err)
	return at
}

func emit(t testing.TB, w *TableWriter, key, value string) error {
	t.Helper()
	done := make(chan error, 1)
	w.Emit(key, []byte(value)).Then(func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-within(t).Done():
		t.Fatal("no answer")
		return nil
	}
}

func TestTableRowsAreStoredInOrder(t *testing.T) {
	const partitions, n = 3, 3000
	x := newTable(t, partitions)
	var b book
	w := x.writer(t, &b)
	for p := range int32(partitions) {
		if at := own(t, w, p); at != 0 {
			t.Fatalf("the first claim stands at %d", at)
		}
	}
	answers := make(chan error, n)
	for i := range n {
		w.Emit(fmt.Sprint("w", i), fmt.Append(nil, i)).Then(func(err error) { answers <- err })
	}
	for range n {
		must(t, <-answers)
	}
	next := map[int32]int{}
	for _, m := range records(t, x.client, string(x.Group.Table()), partitions, n+partitions) {
		switch m.Offset {
		case 0:
			var claim pb.Claim
			if err := proto.Unmarshal(m.Value, &claim); string(m.Key) != stream.ClaimKey || err != nil || claim.Epoch != 0 {
				t.Fatalf("the claim is %q, %v, %v", m.Key, &claim, err)
			}
		default:
			told := b.rows[m.Partition][next[m.Partition]]
			if is := fmt.Sprintf("%s=%s@%d", m.Key, m.Value, m.Offset); is != told || stream.Partition(string(m.Key), partitions) != m.Partition {
				t.Fatalf("told %s, the log has %s on %d", told, is, m.Partition)
			}
			next[m.Partition]++
		}
	}
}

// The sleeper: whoever claimed before is refused, also what it had begun.
func TestEarlierOwnerIsRefused(t *testing.T) {
	x := newTable(t, 1)
	var first, second book
	a, b := x.writer(t, &first), x.writer(t, &second)
	var fenced atomic.Int32
	a.OnFenced = func() { fenced.Add(1) }
	if err := emit(t, a, "w", "unclaimed"); !errors.Is(err, ErrFenced) {
		t.Fatalf("unclaimed: %v", err)
	}
	own(t, a, 0)
	must(t, emit(t, a, "w", "1"))
	if at := own(t, b, 0); at != 2 {
		t.Fatalf("the second claim stands at %d", at)
	}
	must(t, emit(t, b, "w", "2"))
	for range 2 { // and it stays so
		if err := emit(t, a, "w", "stale"); !errors.Is(err, ErrFenced) {
			t.Fatalf("got %v, want ErrFenced", err)
		}
	}
	if n := fenced.Load(); n != 1 {
		t.Errorf("told %d times that it is fenced, want once", n)
	}
	must(t, emit(t, b, "w", "3"))
	own(t, a, 0) // it is back
	must(t, emit(t, a, "w", "4"))
	if err := emit(t, b, "w", "stale"); !errors.Is(err, ErrFenced) {
		t.Fatalf("got %v, want ErrFenced", err)
	}
	var rows []string
	for _, m := range records(t, x.client, string(x.Group.Table()), 1, 7) {
		if !stream.Reserved(string(m.Key)) {
			rows = append(rows, string(m.Value))
		}
	}
	if strings.Join(rows, " ") != "1 2 3 4" {
		t.Fatalf("rows %v", rows)
	}
}

// One who claims again goes on under the new epoch.
func TestClaimAgain(t *testing.T) {
	x := newTable(t, 1)
	var b book
	w := x.writer(t, &b)
	for range 3 {
		own(t, w, 0)
		must(t, emit(t, w, "w", "v"))
	}
	if got := strings.Join(b.rows[0], " "); got != "w=v@1 w=v@3 w=v@5" {
		t.Fatal(got)
	}
}

// A renewal goes on with the next epoch after a claim that is told like a row,
// as the store counts offsets.
func TestRenewal(t *testing.T) {
	x := newTable(t, 1)
	var b book
	w := x.writer(t, &b)
	own(t, w, 0)
	for i := range 3 {
		must(t, emit(t, w, "w", fmt.Sprint(i)))
		w.lane(0).askRenewal()
	}
	must(t, emit(t, w, "w", "3"))
	eventually(t, "a claim told", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.rows[0]) >= 5 })
	epoch := int32(-1)
	for i, m := range records(t, x.client, string(x.Group.Table()), 1, 6) {
		if m.Offset != int64(i) {
			t.Fatalf("offset %d at %d", m.Offset, i)
		}
		if string(m.Key) == stream.ClaimKey {
			var claim pb.Claim
			must(t, proto.Unmarshal(m.Value, &claim))
			if claim.Epoch <= epoch {
				t.Fatalf("epoch %d after %d", claim.Epoch, epoch)
			}
			epoch = claim.Epoch
		}
	}
}

// Sequence numbers wrap as Kafka's do.
func TestSequenceWraps(t *testing.T) {
	l := idleLane(maxTableQueue)
	l.sequence = math.MaxInt32 - 1
	for _, want := range []int32{math.MaxInt32 - 1, 1, 4} {
		if b := l.batch(make([]record, 3)); b.FirstSequence != want {
			t.Fatalf("sequence %d, want %d", b.FirstSequence, want)
		}
	}
}

// An error of OnRow fails the promise although the row is stored.
func TestOnRowFailsThePromise(t *testing.T) {
	x := newTable(t, 1)
	b := book{err: errNotOurs}
	w := x.writer(t, &b)
	own(t, w, 0)
	if err := emit(t, w, "w", "v"); !errors.Is(err, errNotOurs) {
		t.Fatalf("got %v", err)
	}
}

// rowOf is a Row that notes what it was told, as OnRow would.
type rowOf struct {
	place
	b         *book
	partition int32
	key       string
}

func (r *rowOf) Acked(value []byte, offset int64) error {
	return r.b.stored(r.partition, r.key, value, offset)
}

// A row that its owner gave is told in OnRow's place, and a later one in its place too.
func TestRowIsTold(t *testing.T) {
	x := newTable(t, 1)
	var b book
	row := &rowOf{b: &b, partition: -1, key: "w"}
	x.Row = func(_ int32, key string) Row {
		if key == "unknown" {
			return nil
		}
		return row
	}
	w := x.writer(t, &b)
	own(t, w, 0)
	answers := make(chan error, 2)
	must(t, emit(t, w, "unknown", "1"))
	w.Emit("w", []byte("2")).Then(func(err error) { answers <- err })
	w.Emit("w", []byte("3")).Then(func(err error) { answers <- err })
	must(t, <-answers)
	must(t, <-answers)
	b.err = errNotOurs
	if err := emit(t, w, "w", "4"); !errors.Is(err, errNotOurs) {
		t.Errorf("the row's error is %v", err)
	}
	if got := b.rows[0]; len(got) != 1 || got[0] != "unknown=1@1" {
		t.Errorf("OnRow was told %q", got)
	}
	for i, got := range b.rows[-1] {
		if last := i == len(b.rows[-1])-1; last != strings.HasPrefix(got, "w=4") {
			t.Errorf("the row was told %q", b.rows[-1])
		}
	}
}

// Close flushes; afterwards nothing is taken.
func TestTableClose(t *testing.T) {
	x := newTable(t, 1)
	var b book
	w := x.writer(t, &b)
	own(t, w, 0)
	const n = 1000
	answers := make(chan error, n)
	for range n {
		w.Emit("w", []byte("v")).Then(func(err error) { answers <- err })
	}
	must(t, w.Close())
	if len(answers) != n {
		t.Fatalf("%d of %d answers at Close", len(answers), n)
	}
	for range n {
		must(t, <-answers)
	}
	if err := emit(t, w, "w", "v"); err == nil {
		t.Error("it takes rows after Close")
	}
	if _, err := w.Claim(within(t), 0); err == nil {
		t.Error("it claims after Close")
	}
}

// A row that still waits when the next one of its key comes is not sent. Both are told
// where the next one stands, in their order, and a reader sees each key go forward.
func TestTableSendsTheNewestRow(t *testing.T) {
	const partitions, n, keys = 2, 5000, 7
	x := newTable(t, partitions)
	var b book
	rows := map[string]Row{}
	x.Row = func(partition int32, key string) Row {
		if rows[key] == nil {
			rows[key] = &rowOf{b: &b, partition: partition, key: key}
		}
		return rows[key]
	}
	w := x.writer(t, &b)
	for p := range int32(partitions) {
		own(t, w, p)
	}
	var told [keys][]int // which rows were answered, by key
	var mu sync.Mutex
	answers := make(chan error, n)
	for i := range n {
		w.Emit(fmt.Sprint("w", i%keys), fmt.Append(nil, i)).Then(func(err error) {
			mu.Lock()
			told[i%keys] = append(told[i%keys], i)
			mu.Unlock()
			answers <- err
		})
	}
	for range n {
		must(t, <-answers)
	}
	for k, order := range told {
		if !slices.IsSorted(order) {
			t.Errorf("rows of w%d were answered in the order %v", k, order)
		}
	}
	sent := 0
	latest := map[string]int{}
	for _, rows := range b.rows {
		sent += len(rows)
		for _, r := range rows {
			var key string
			var value int
			if _, err := fmt.Sscanf(strings.ReplaceAll(strings.ReplaceAll(r, "=", " "), "@", " "), "%s %d", &key, &value); err != nil {
				t.Fatal(r, err)
			}
			if value <= latest[key] && value != 0 && latest[key] != 0 {
				t.Fatalf("%s went from %d to %d", key, latest[key], value)
			}
			latest[key] = value
		}
	}
	for k := range keys {
		if last := (n-1-k)/keys*keys + k; latest[fmt.Sprint("w", k)] != last {
			t.Errorf("w%d is %d in the end, want %d", k, latest[fmt.Sprint("w", k)], last)
		}
	}
	if sent >= n/2 {
		t.Errorf("%d of %d rows were sent, %d keys", sent, n, keys)
	}
	t.Logf("%d of %d rows were sent", sent, n)
}

// While the broker is away a writer takes no more than its share of memory, and
// Close is bounded.
func TestTableIsBoundedWhileKafkaIsAway(t *testing.T) {
	c, stop := mortal(t, 1)
	w, err := c.TableWriter(TableOptions{Group: "balance", Partitions: 1, OnRow: (&book{}).stored})
	must(t, err)
	own(t, w, 0)
	stop()
	value := make([]byte, 100<<10)
	taken := make(chan int)
	failed := make(chan error, 1000)
	go func() {
		defer close(taken)
		for i := range 1000 {
			w.Emit(fmt.Sprint("w", i), value).Then(func(err error) { failed <- err })
			taken <- i
		}
	}()
	blocked, last := false, 0
	for !blocked {
		select {
		case last = <-taken:
		case <-time.After(500 * time.Millisecond):
			blocked = true
		}
	}
	if size := last * len(value); size > maxTableQueue+maxBatch+2*len(value) {
		t.Errorf("%d bytes wait", size)
	}
	go func() {
		for range taken { //nolint:revive // let it go on
		}
	}()
	began := time.Now()
	if err := w.Close(); !errors.Is(err, ErrUnreachable) || time.Since(began) > closeTimeout+5*time.Second {
		t.Errorf("Close: %v after %s", err, time.Since(began))
	}
	for range 1000 {
		if err := <-failed; err == nil {
			t.Fatal("a row was stored")
		}
	}
}
