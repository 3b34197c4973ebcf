package kafka

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

func logWriter(t testing.TB, partitions int32) (*Client, *LogWriter) {
	t.Helper()
	c := newClient(t, tableBroker(t))
	topic := fmt.Sprint("log", time.Now().UnixNano(), "-", tables.Add(1))
	_, err := c.Ensure(within(t), []stream.Topic{{Name: topic, Copartitioned: true}}, partitions, 0)
	must(t, err)
	w, err := c.LogWriter(within(t), "test", topic, partitions)
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	return c, w
}

// add appends a record and waits for its place.
func add(t testing.TB, w *LogWriter, key, value string) (*sarama.ProducerMessage, error) {
	t.Helper()
	type answer struct {
		m   *sarama.ProducerMessage
		err error
	}
	answers := make(chan answer, 1)
	w.Emit(w.topic, key, []byte(value)).ThenWithMessage(func(m *sarama.ProducerMessage, err error) { answers <- answer{m, err} })
	select {
	case a := <-answers:
		return a.m, a.err
	case <-within(t).Done():
		t.Fatal("no answer")
		return nil, nil
	}
}

func TestLogKeepsOrderAndTellsPlaces(t *testing.T) {
	const partitions, n = 3, 3000
	c, w := logWriter(t, partitions)
	type place struct {
		value string
		m     *sarama.ProducerMessage
		err   error
	}
	places := make(chan place, n)
	for i := range n {
		value := fmt.Sprint(i)
		w.Emit(w.topic, fmt.Sprint("w", i%50), []byte(value)).ThenWithMessage(func(m *sarama.ProducerMessage, err error) { places <- place{value, m, err} })
	}
	told := map[string]string{}
	for range n {
		p := <-places
		must(t, p.err)
		told[fmt.Sprint(p.m.Partition, ":", p.m.Offset)] = p.value
	}
	last := map[string]string{}
	for _, m := range records(t, c, w.topic, partitions, n) {
		value := string(m.Value[:len(m.Value)-numberSize(m.Value)])
		if told[fmt.Sprint(m.Partition, ":", m.Offset)] != value || stream.Partition(string(m.Key), partitions) != m.Partition {
			t.Fatalf("%d:%d is %s=%s", m.Partition, m.Offset, m.Key, m.Value)
		}
		if was := last[string(m.Key)]; len(was) > len(value) || len(was) == len(value) && was > value {
			t.Fatalf("%s: %s comes after %s", m.Key, value, was)
		}
		last[string(m.Key)] = value
	}
}

// numberSize is how many bytes of a value are the number that the writer appended.
func numberSize(value []byte) int {
	for n := 11; n < 20; n++ { // a tag and eight bytes, a tag and one to ten
		if at := len(value) - n; at >= 0 && value[at] == 7<<3|1 && value[at+9] == 8<<3 {
			return n
		}
	}
	return 0
}

func TestProduceWaitsForAllReplicas(t *testing.T) {
	if req := produceRequest(); req.RequiredAcks != sarama.WaitForAll || req.Timeout <= 0 {
		t.Errorf("%+v", req)
	}
}

// A batch that is sent again, as after a lost answer, is recognised.
func TestBatchSentAgainIsThereOnce(t *testing.T) {
	c, w := logWriter(t, 1)
	l := w.lane(0)
	both := []record{{key: "w", value: []byte("1")}, {key: "w", value: []byte("2")}}
	f := &flight{records: both, batch: l.batch(both)}
	for range 3 {
		if a := <-w.submit(l, f); a.err != nil || a.offset != 0 {
			t.Fatalf("%+v", a)
		}
	}
	if m, err := add(t, w, "w", "3"); err != nil || m.Offset != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	records(t, c, w.topic, 1, 3)
}

// What the broker refuses for good fails. What comes later goes on under another
// producer id.
func TestLogGoesOnAfterAFailure(t *testing.T) {
	c, w := logWriter(t, 2)
	if _, err := add(t, w, "w", "1"); err != nil {
		t.Fatal(err)
	}
	l := w.lane(stream.Partition("w", 2))
	was := l.identity
	l.sequence += 5 // the broker takes it that something is missing
	if _, err := add(t, w, "w", "lost"); !errors.Is(err, sarama.ErrOutOfOrderSequenceNumber) {
		t.Fatalf("got %v", err)
	}
	for i := range 3 {
		if m, err := add(t, w, "w", "2"); err != nil || m.Offset != int64(i+1) {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	if l.identity == was {
		t.Error("the producer id is the old one")
	}
	for _, m := range records(t, c, w.topic, 2, 4) {
		if string(m.Value) == "lost" {
			t.Error("what failed is there")
		}
	}
}

func TestLogClose(t *testing.T) {
	_, w := logWriter(t, 2)
	const n = 1000
	answers := make(chan error, n)
	for i := range n {
		w.Emit(w.topic, fmt.Sprint("w", i), []byte("v")).Then(func(err error) { answers <- err })
	}
	must(t, w.Close())
	if len(answers) != n {
		t.Fatalf("%d of %d answers at Close", len(answers), n)
	}
	for range n {
		must(t, <-answers)
	}
	if _, err := add(t, w, "w", "v"); err == nil {
		t.Error("it takes records after Close")
	}
}

func TestLogIsOfOneTopicWithoutHeaders(t *testing.T) {
	_, w := logWriter(t, 1)
	for name, p := range map[string]*goka.Promise{
		"another topic": w.Emit("another", "k", nil),
		"headers":       w.EmitWithHeaders(w.topic, "k", nil, goka.Headers{"a": nil}),
	} {
		failed := false
		p.Then(func(err error) { failed = err != nil })
		if !failed {
			t.Errorf("%s is taken", name)
		}
	}
}

// Deposits are numbered in the order of the log, each partition from 1, whoever put them:
// a number that was overtaken would be taken for a repeat, and money lost.
func TestNumberedInTheOrderOfTheLog(t *testing.T) {
	const partitions, writers, each = 3, 16, 400
	c, w := logWriter(t, partitions)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			var answers sync.WaitGroup
			for n := range each {
				answers.Add(1)
				w.Emit(w.topic, fmt.Sprint("w", i, "-", n%7), nil).ThenWithMessage(func(_ *sarama.ProducerMessage, err error) {
					defer answers.Done()
					if err != nil {
						t.Error(err)
					}
				})
			}
			answers.Wait()
		})
	}
	wg.Wait()
	var last [partitions]uint64
	var origin uint64
	for _, m := range records(t, c, w.topic, partitions, writers*each) {
		var d pb.Deposit
		must(t, proto.Unmarshal(m.Value, &d))
		if d.Sequence != last[m.Partition]+1 || d.Origin == 0 || origin != 0 && d.Origin != origin {
			t.Fatalf("partition %d: number %d of origin %x follows %d of %x", m.Partition, d.Sequence, d.Origin, last[m.Partition], origin)
		}
		last[m.Partition], origin = d.Sequence, d.Origin
	}
}

// After an attempt that may have appended a batch, one that certainly did not says
// nothing of the first.
func TestCertainOfTheLastAttemptAlone(t *testing.T) {
	_, w := logWriter(t, 1)
	l := w.lane(0)
	for _, first := range []bool{true, false} {
		one := []record{{key: "w", value: []byte("1")}}
		f := &flight{records: one, batch: l.batch(one), loaded: time.Now()}
		answers := make(chan answer, 1)
		answers <- answer{sent: first, err: notAppended(ErrMoved)}
		if _, err := l.await(f, answers); !errors.Is(err, ErrMoved) || errors.Is(err, ErrNotAppended) == first {
			t.Errorf("an attempt before that may have appended: %t; got %v", first, err)
		}
	}
}

// A batch that an API took up before it slept for longer than anybody remembers is not
// sent again.
func TestOldBatchIsNotRepeated(t *testing.T) {
	c, w := logWriter(t, 1)
	l := w.lane(0)
	both := []record{{key: "w", value: []byte("1")}}
	f := &flight{records: both, batch: l.batch(both), loaded: time.Now().Round(0).Add(-repeatFor - time.Second)}
	answers := make(chan answer, 1)
	answers <- answer{sent: true, err: sarama.ErrRequestTimedOut}
	if _, err := l.await(f, answers); !errors.Is(err, sarama.ErrRequestTimedOut) || errors.Is(err, ErrNotAppended) {
		t.Fatalf("got %v", err)
	}
	l.sequence = 0 // as that batch never was with the broker
	if m, err := add(t, w, "w", "2"); err != nil || m.Offset != 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	records(t, c, w.topic, 1, 1)
}

// A broker that knows a batch, but not where it put it, tells no offset: 0 would be a place
// where something else stands.
func TestUnknownOffset(t *testing.T) {
	_, w := logWriter(t, 1)
	answers := make(chan answer, 1)
	answers <- answer{sent: true, err: sarama.ErrDuplicateSequenceNumber}
	if offset, err := w.lane(0).await(&flight{}, answers); !errors.Is(err, errUnknownOffset) || errors.Is(err, ErrNotAppended) {
		t.Fatalf("%d, %v", offset, err)
	}
}
