package kafka

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	"coinbit/internal/stream"
)

// ready is a client of a broker that has the suite's topics.
func ready(t testing.TB, partitions int32) *Client {
	t.Helper()
	c := newClient(t, startBroker(t))
	_, err := c.Ensure(within(t), stream.Topics(), partitions, 0)
	must(t, err)
	return c
}

func producer(t testing.TB, c *Client) *Producer {
	t.Helper()
	var built *Producer
	p, err := c.ProducerBuilder(func(p *Producer) { built = p })(c.Brokers(), "coinbit-test", stream.NewHasher)
	must(t, err)
	if p != goka.Producer(built) {
		t.Fatal("built was given another producer")
	}
	t.Cleanup(func() { must(t, p.Close()) })
	return built
}

// records reads n records of a topic, from all partitions, as sarama gives them.
func records(t testing.TB, c *Client, topic string, partitions int32, n int) []*sarama.ConsumerMessage {
	t.Helper()
	reader, err := c.Reader(c.Brokers(), "coinbit-test")
	must(t, err)
	defer func() { must(t, reader.Close()) }()
	all := make(chan *sarama.ConsumerMessage)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for p := range partitions {
		pc, err := reader.ConsumePartition(topic, p, sarama.OffsetOldest)
		must(t, err)
		wg.Go(func() {
			defer func() { _ = pc.Close() }()
			for {
				select {
				case m := <-pc.Messages():
					select {
					case all <- m:
					case <-stop:
						return
					}
				case <-stop:
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	var got []*sarama.ConsumerMessage
	for len(got) < n {
		select {
		case m := <-all:
			got = append(got, m)
		case <-within(t).Done():
			t.Fatalf("%d of %d records on %s", len(got), n, topic)
		}
	}
	return got
}

func TestProducerKeepsOrder(t *testing.T) {
	c := ready(t, 3)
	p := producer(t, c)
	const n = 500
	answers := make(chan error, n)
	for i := range n {
		p.Emit("deposit", fmt.Sprintf("w%d", i%50), fmt.Append(nil, i)).Then(func(err error) { answers <- err })
	}
	for range n {
		must(t, <-answers)
	}
	last := make(map[string]int)
	for _, m := range records(t, c, "deposit", 3, n) {
		if want := stream.Partition(string(m.Key), 3); m.Partition != want {
			t.Fatalf("%s is on partition %d, want %d", m.Key, m.Partition, want)
		}
		i, err := strconv.Atoi(string(m.Value))
		must(t, err)
		if i < last[string(m.Key)] {
			t.Fatalf("%s: %d stands after %d", m.Key, i, last[string(m.Key)])
		}
		last[string(m.Key)] = i
	}
}

var errNotOurs = errors.New("not ours")

// A stored record whose offset the broker did not tell is not a success: its
// store could not say where it stands.
func TestUnknownOffset(t *testing.T) {
	fake := &fakeAsync{in: make(chan *sarama.ProducerMessage), ok: make(chan *sarama.ProducerMessage), bad: make(chan *sarama.ProducerError)}
	p := &Producer{async: fake}
	p.drained.Add(2)
	go p.successes()
	go p.errors()
	answer := make(chan error, 1)
	emit := func() *sarama.ProducerMessage {
		go func() { p.Emit("deposit", "w", []byte("v")).Then(func(err error) { answer <- err }) }()
		return <-fake.in
	}
	fake.ok <- emit() // as it came: sarama sets no offset after ErrDuplicateSequenceNumber
	if err := <-answer; !errors.Is(err, ErrUnknownOffset) {
		t.Fatalf("got %v, want ErrUnknownOffset", err)
	}
	fake.bad <- &sarama.ProducerError{Msg: emit(), Err: errNotOurs}
	if err := <-answer; !errors.Is(err, errNotOurs) {
		t.Fatalf("got %v, want the producer's error", err)
	}
	must(t, p.Close())
}

type fakeAsync struct {
	sarama.AsyncProducer
	in  chan *sarama.ProducerMessage
	ok  chan *sarama.ProducerMessage
	bad chan *sarama.ProducerError
}

func (f *fakeAsync) Input() chan<- *sarama.ProducerMessage     { return f.in }
func (f *fakeAsync) Successes() <-chan *sarama.ProducerMessage { return f.ok }
func (f *fakeAsync) Errors() <-chan *sarama.ProducerError      { return f.bad }
func (f *fakeAsync) AsyncClose()                               { close(f.ok); close(f.bad) }

func TestEmitWithHeadersAndTombstone(t *testing.T) {
	c := ready(t, 1)
	p := producer(t, c)
	_, err := awaitPromise(within(t), p.EmitWithHeaders("deposit", "w", []byte{}, goka.Headers{"h": []byte("1")}))
	must(t, err)
	_, err = awaitPromise(within(t), p.Emit("deposit", "w", nil))
	must(t, err)
	got := records(t, c, "deposit", 1, 2)
	if got[0].Value == nil || len(got[0].Value) != 0 || len(got[0].Headers) != 1 || string(got[0].Headers[0].Value) != "1" {
		t.Errorf("the first is %+v", got[0])
	}
	if got[1].Value != nil {
		t.Errorf("the tombstone has the value %q", got[1].Value)
	}
}

// A dead letter is the record as it came: nil is not empty, a header's name may
// repeat, their order stays, and one at the size limit of its topic fits.
func TestSetAside(t *testing.T) {
	header := func(key string, value []byte) *sarama.RecordHeader {
		return &sarama.RecordHeader{Key: []byte(key), Value: value}
	}
	at := time.UnixMilli(1_700_000_000_123)
	cases := map[string]*sarama.ConsumerMessage{
		"all":        {Key: []byte("w"), Value: []byte("v"), Headers: []*sarama.RecordHeader{header("b", []byte("1")), header("a", []byte("2")), header("b", []byte("3")), header("a", nil), header("", []byte{0xff})}},
		"no key":     {Value: []byte("v")},
		"empty key":  {Key: []byte{}, Value: []byte("v")},
		"no value":   {Key: []byte("w")},
		"empty":      {Key: []byte("w"), Value: []byte{}},
		"nothing":    {},
		"odd bytes":  {Key: []byte{0xff, 0}, Value: []byte{0xc3, 0x28}},
		"ours again": {Key: []byte("w"), Value: []byte("v"), Headers: []*sarama.RecordHeader{header(HeaderReason, []byte("earlier"))}},
		"1 MiB":      {Key: []byte("w"), Value: bytes.Repeat([]byte("x"), 1<<20), Headers: []*sarama.RecordHeader{header("h", bytes.Repeat([]byte("y"), 1<<16))}},
	}
	c := ready(t, 2)
	p := producer(t, c)
	for name, m := range cases {
		m.Topic, m.Partition, m.Offset, m.Timestamp = "deposit", 1, 77, at
		if _, err := awaitPromise(within(t), p.SetAside(stream.DepositDeadLetter, m, "reason: "+name)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	for _, got := range records(t, c, string(stream.DepositDeadLetter), 2, len(cases)) {
		n := len(got.Headers) - 4
		if n < 0 {
			t.Fatalf("headers %v", got.Headers)
		}
		name := strings.TrimPrefix(string(got.Headers[n].Value), "reason: ")
		m, ok := cases[name]
		if !ok {
			t.Fatalf("reason %q", got.Headers[n].Value)
		}
		delete(cases, name)
		if !reflect.DeepEqual(got.Key, m.Key) || !reflect.DeepEqual(got.Value, m.Value) {
			t.Errorf("%s: key %.20q value %.20q (nil: %t, %t), want %.20q %.20q", name, got.Key, got.Value, got.Key == nil, got.Value == nil, m.Key, m.Value)
		}
		if !got.Timestamp.Equal(at) {
			t.Errorf("%s: time %s, want %s", name, got.Timestamp, at)
		}
		for i, h := range m.Headers {
			if g := got.Headers[i]; !bytes.Equal(g.Key, h.Key) || !reflect.DeepEqual(g.Value, h.Value) {
				t.Errorf("%s: header %d is %s=%q, want %s=%q", name, i, g.Key, g.Value, h.Key, h.Value)
			}
		}
		var ours []string
		for _, h := range got.Headers[n:] {
			ours = append(ours, fmt.Sprintf("%s=%s", h.Key, h.Value))
		}
		want := []string{HeaderReason + "=reason: " + name, HeaderTopic + "=deposit", HeaderPartition + "=1", HeaderOffset + "=77"}
		if !slices.Equal(ours, want) {
			t.Errorf("%s: %v, want %v", name, ours, want)
		}
	}
}

func TestOps(t *testing.T) {
	c := ready(t, 2)
	home := stream.Partition("w", 2)
	for want := range int64(3) {
		high, err := c.HighWater(within(t), "deposit", home)
		must(t, err)
		at, err := c.Send(within(t), "deposit", "w", fmt.Append(nil, want))
		must(t, err)
		if high != want || at != want {
			t.Fatalf("sent to %d at high watermark %d, want %d", at, high, want)
		}
	}
	var read []string
	must(t, c.Read(within(t), "deposit", home, 1, func(key string, value []byte) (bool, error) {
		read = append(read, key+string(value))
		return len(read) == 2, nil
	}))
	if !slices.Equal(read, []string{"w1", "w2"}) {
		t.Fatalf("read %v", read)
	}
	if err := c.Read(within(t), "deposit", home, 0, func(string, []byte) (bool, error) { return false, errNotOurs }); !errors.Is(err, errNotOurs) {
		t.Fatalf("got %v, want the reader's own error", err)
	}
	if err := c.Read(within(t), "deposit", home, 99, func(string, []byte) (bool, error) { return true, nil }); err == nil {
		t.Fatal("read from beyond the end")
	}
	if _, err := c.HighWater(within(t), "no_such_topic", 0); err == nil {
		t.Fatal("a topic that is not there has a high watermark")
	}
	away := newClient(t, nobody(t))
	if _, err := away.Send(within(t), "deposit", "w", nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("Send: %v", err)
	}
	if _, err := away.HighWater(within(t), "deposit", 0); !errors.Is(err, ErrUnreachable) {
		t.Errorf("HighWater: %v", err)
	}
	if err := away.Read(within(t), "deposit", 0, 0, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("Read: %v", err)
	}
}
