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

func producer(t testing.TB, c *Client, topic string) *Producer {
	t.Helper()
	p, err := c.Producer(within(t), "coinbit-test", topic)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
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
	p := producer(t, c, "deposit")
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

func TestEmitTombstone(t *testing.T) {
	c := ready(t, 1)
	p := producer(t, c, "deposit")
	if _, err := awaitPromise(within(t), p.EmitWithHeaders("deposit", "w", []byte{}, goka.Headers{"h": []byte("1")})); err == nil {
		t.Error("headers are dropped")
	}
	_, err := awaitPromise(within(t), p.EmitWithHeaders("deposit", "w", []byte{}, nil))
	must(t, err)
	_, err = awaitPromise(within(t), p.Emit("deposit", "w", nil))
	must(t, err)
	got := records(t, c, "deposit", 1, 2)
	if got[0].Value == nil || len(got[0].Value) != 0 {
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
	p := producer(t, c, string(stream.DepositDeadLetter))
	for name, m := range cases {
		m.Topic, m.Partition, m.Offset, m.Timestamp = "deposit", 1, 77, at
		if _, err := awaitPromise(within(t), p.SetAside(m, "reason: "+name)); err != nil {
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

// A high watermark that lags is no proof that records are gone: the leader is asked.
func TestHoldsAsksTheLeader(t *testing.T) {
	c := ready(t, 1)
	for range 10 {
		_, err := c.Send(within(t), "deposit", "w", []byte("v"))
		must(t, err)
	}
	f := &Inflight{}
	f.begin(newFakeSession(1))
	claim := newFakeClaim("deposit", 0, 0)
	f.claim(claim)
	claim.setHigh(7)
	for n, want := range map[int64]bool{7: true, 8: true, 10: true, 11: false} {
		if got, err := c.Holds(within(t), f, "deposit", 0, n); err != nil || got != want {
			t.Errorf("%d: %t, %v", n, got, err)
		}
	}
	away := newClient(t, nobody(t))
	if _, err := away.Holds(within(t), f, "deposit", 0, 8); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	if got, err := away.Holds(within(t), f, "deposit", 0, 7); err != nil || !got { // needs nobody
		t.Errorf("%t, %v", got, err)
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
