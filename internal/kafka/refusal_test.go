package kafka

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"coinbit/internal/stream"
)

// strict is a broker whose judge sees each batch that is to be appended, and may refuse it.
type strict struct {
	*kfake.Cluster
	mu    sync.Mutex
	judge func(topic string, b *kmsg.RecordBatch) *kerr.Error
}

func newStrict(t testing.TB) *strict {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	must(t, err)
	t.Cleanup(k.Close)
	s := &strict{Cluster: k}
	k.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		s.mu.Lock()
		defer s.mu.Unlock()
		req := r.(*kmsg.ProduceRequest)
		res := req.ResponseKind().(*kmsg.ProduceResponse)
		refused := false
		for _, rt := range req.Topics {
			t := kmsg.NewProduceResponseTopic()
			t.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				p := kmsg.NewProduceResponseTopicPartition()
				p.Partition = rp.Partition
				var b kmsg.RecordBatch
				if err := b.ReadFrom(rp.Records); err == nil && s.judge != nil {
					if e := s.judge(rt.Topic, &b); e != nil {
						p.ErrorCode, refused = e.Code, true
					}
				}
				t.Partitions = append(t.Partitions, p)
			}
			res.Topics = append(res.Topics, t)
		}
		return res, nil, refused // these tests write one partition at a time
	})
	return s
}

func (s *strict) judged(judge func(topic string, b *kmsg.RecordBatch) *kerr.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judge = judge
}

// noisy is a client of it with all topics, and what it logs.
func (s *strict) noisy(t testing.TB, partitions int32) (*Client, *logBook) {
	t.Helper()
	said := new(logBook)
	c, err := NewClient(Settings{Brokers: s.ListenAddrs()}, said.logger())
	must(t, err)
	_, err = c.Ensure(within(t), stream.Topics(), partitions, 0)
	must(t, err)
	return c, said
}

// burst emits records all at once and returns each one's answer.
func burst(t testing.TB, w *Producer, n int, value func(i int) []byte) []error {
	t.Helper()
	errs := make([]error, n)
	var answered sync.WaitGroup
	answered.Add(n)
	for i := range n {
		w.Emit(w.topic, "w", value(i)).Then(func(err error) { errs[i] = err; answered.Done() })
	}
	done := make(chan struct{})
	go func() { answered.Wait(); close(done) }()
	select {
	case <-done:
	case <-within(t).Done():
		t.Fatal("records without an answer")
	}
	return errs
}

// store appends a record and waits for its offset.
func store(t testing.TB, p *Producer, value string) (int64, error) {
	t.Helper()
	return awaitPromise(within(t), p.Emit(p.topic, "w", []byte(value)))
}

// A broker that thinks the clock wrong takes the records all the same, without a time, in
// their order; one line says what to do.
func TestClockAhead(t *testing.T) {
	s := newStrict(t)
	c, said := s.noisy(t, 1)
	s.judged(func(_ string, b *kmsg.RecordBatch) *kerr.Error {
		if b.FirstTimestamp != -1 || b.MaxTimestamp != -1 {
			return kerr.InvalidTimestamp
		}
		return nil
	})
	w, err := c.Producer(within(t), "test", "deposit")
	must(t, err)
	defer func() { must(t, w.Close()) }()
	const n = 2000
	for range 3 {
		for i, err := range burst(t, w, n, func(i int) []byte { return fmt.Append(nil, i) }) {
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
		}
	}
	for i, m := range records(t, c, "deposit", 1, 3*n) {
		if string(m.Value) != fmt.Sprint(i%n) || !m.Timestamp.IsZero() {
			t.Fatalf("%d is %s at %s", i, m.Value, m.Timestamp)
		}
	}
	if said.count("message.timestamp.after.max.ms") != 1 || said.count("kafka refuses records") != 1 {
		t.Errorf("it says %s", said.b.String())
	}
}

// A clock that is right again: records have a time again.
func TestClockMended(t *testing.T) {
	l := idleLane(maxLogQueue)
	l.untimed, l.relearn = true, time.Now().Add(time.Hour)
	one := []record{{key: "w"}}
	if b := l.batch(one); !b.FirstTimestamp.IsZero() || !b.MaxTimestamp.IsZero() {
		t.Errorf("%s", b.FirstTimestamp)
	}
	l.relearn = time.Now().Add(-time.Second)
	if b := l.batch(one); b.FirstTimestamp.IsZero() || b.MaxTimestamp.IsZero() {
		t.Error("no time")
	}
	l.limit = 1
	l.queue = slices.Repeat(one, 5)
	if got, _ := l.take(); len(got) != 5 {
		t.Errorf("batches of %d", len(got))
	}
}

// A topic that takes little at a time: batches become smaller, all is there in order. A
// record that alone is too large is refused for certain, and what comes later is stored:
// its sequence numbers follow.
func TestBatchesBecomeSmaller(t *testing.T) {
	s := newStrict(t)
	c, said := s.noisy(t, 1)
	refused := 0
	s.judged(func(_ string, b *kmsg.RecordBatch) *kerr.Error {
		if len(b.Records) > 8192 {
			refused++
			return kerr.MessageTooLarge
		}
		return nil
	})
	w, err := c.Producer(within(t), "test", "deposit")
	must(t, err)
	defer func() { must(t, w.Close()) }()
	const n, huge = 5000, 1234
	was := w.lane(0).identity
	errs := burst(t, w, n, func(i int) []byte {
		if i == huge {
			return bytes.Repeat([]byte("x"), 9000)
		}
		return fmt.Append(nil, i)
	})
	for i, err := range errs {
		if (err != nil) != (i == huge) || err != nil && !errors.Is(err, ErrNotAppended) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	want := 0
	for _, m := range records(t, c, "deposit", 1, n-1) {
		if want == huge {
			want++
		}
		if string(m.Value) != fmt.Sprint(want) {
			t.Fatalf("%.20q in the place of %d", m.Value, want)
		}
		want++
	}
	if w.lane(0).identity != was {
		t.Error("another producer id: nothing was in doubt")
	}
	if refused > 30 {
		t.Errorf("%d batches were refused", refused)
	}
	if said.count("kafka refuses records") != 1 || said.count("max.message.bytes") != 1 {
		t.Errorf("it says %s", said.b.String())
	}
}

// What the broker refuses before it appends anything is certainly not in the log; after
// an attempt in doubt nothing is certain.
func TestCertainRefusals(t *testing.T) {
	for _, e := range []*kerr.Error{kerr.InvalidRecord, kerr.PolicyViolation, kerr.TopicAuthorizationFailed, kerr.MessageTooLarge} {
		t.Run(e.Message, func(t *testing.T) {
			s := newStrict(t)
			c, said := s.noisy(t, 1)
			w, err := c.Producer(within(t), "test", "deposit")
			must(t, err)
			defer func() { must(t, w.Close()) }()
			was := w.lane(0).identity
			_, err = store(t, w, "1")
			must(t, err)
			s.judged(func(string, *kmsg.RecordBatch) *kerr.Error { return e })
			if _, err := store(t, w, "2"); !errors.Is(err, ErrNotAppended) {
				t.Fatalf("got %v", err)
			}
			first := true
			s.judged(func(string, *kmsg.RecordBatch) *kerr.Error {
				if first {
					first = false
					return kerr.NotEnoughReplicasAfterAppend // it may be there
				}
				return e
			})
			if _, err := store(t, w, "3"); err == nil || errors.Is(err, ErrNotAppended) {
				t.Fatalf("in doubt, but got %v", err)
			}
			s.judged(nil)
			if at, err := store(t, w, "4"); err != nil || at != 1 {
				t.Fatalf("%d, %v", at, err)
			}
			if w.lane(0).identity == was {
				t.Error("the producer id is that of a batch in doubt")
			}
			if said.count("kafka refuses records") == 0 && e != kerr.TopicAuthorizationFailed {
				t.Error("it says nothing")
			}
		})
	}
}

// A dead letter that the broker does not take, for whatever lies in it, is described;
// those around it are copied.
func TestRefusedLettersAreDescribed(t *testing.T) {
	s := newStrict(t)
	c, _ := s.noisy(t, 1)
	p := producer(t, c, string(stream.DepositDeadLetter))
	s.judged(func(_ string, b *kmsg.RecordBatch) *kerr.Error {
		if bytes.Contains(b.Records, []byte("canary")) && len(b.Records) > 2000 {
			return kerr.InvalidRecord
		}
		return nil
	})
	const n = 50
	canary := bytes.Repeat([]byte("canary"), 600)
	answers := make(chan error, n)
	for i := range n {
		m := &sarama.ConsumerMessage{Topic: "deposit", Offset: int64(i), Value: fmt.Append(nil, i)}
		if i%7 == 3 {
			m.Value = canary
		}
		p.SetAside(m, "test").Then(func(err error) { answers <- err })
	}
	for range n {
		must(t, <-answers)
	}
	for i, m := range records(t, c, string(stream.DepositDeadLetter), 1, n) {
		notes, own, ok := ReadNotes(m)
		if !ok || own != 0 || notes.Offset != fmt.Sprint(i) {
			t.Fatalf("letter %d: %+v", i, notes)
		}
		if i%7 != 3 {
			if notes.About != nil || string(m.Value) != fmt.Sprint(i) {
				t.Fatalf("letter %d is %q, %+v", i, m.Value, notes)
			}
			continue
		}
		if notes.About == nil || !notes.About.Matches(&sarama.ConsumerMessage{Value: canary}) || !bytes.Equal(m.Value, canary[:maxShown]) {
			t.Fatalf("letter %d is %.20q, %+v", i, m.Value, notes.About)
		}
	}
}

// Whatever a record is, it can be set aside.
func TestHardLetters(t *testing.T) {
	c := ready(t, 2)
	p := producer(t, c, string(stream.DepositDeadLetter))
	big := bytes.Repeat([]byte{0}, 9<<20)
	cases := map[string]*sarama.ConsumerMessage{
		"5 MiB":             {Key: []byte("w"), Value: big[:5<<20]},
		"9 MiB":             {Value: big},
		"a key of 9 MiB":    {Key: big, Value: []byte("v")},
		"a header of 9 MiB": {Key: []byte("w"), Headers: []*sarama.RecordHeader{{Key: []byte("h"), Value: big}}},
		"100,000 headers":   {Value: []byte("v"), Headers: slices.Repeat([]*sarama.RecordHeader{{Key: []byte("h")}}, 100_000)},
		"almost too large":  {Value: big[:stream.MaxDeadLetter-4<<10]},
		"nameless headers":  {Value: []byte("v"), Headers: []*sarama.RecordHeader{{}, {Value: []byte("x")}, nil}},
		"no time":           {Value: []byte("v"), Timestamp: time.UnixMilli(-1)},
		"year 1":            {Value: []byte("v"), Timestamp: time.Time{}.Add(time.Hour)},
		"1969":              {Value: []byte("v"), Timestamp: time.Unix(-1e6, 0)},
		"year 292277026596": {Value: []byte("v"), Timestamp: time.Unix(1<<62, 0)},
		"tomorrow":          {Value: []byte("v"), Timestamp: time.Now().Add(24 * time.Hour)},
		"2017":              {Value: []byte("v"), Timestamp: time.UnixMilli(1_500_000_000_000)},
	}
	answers := make(chan error, len(cases))
	for name, m := range cases { // at once: they share batches
		m.Topic, m.Offset = "deposit", 1<<40
		p.SetAside(m, "reason: "+name+strings.Repeat(" long", 1000)).Then(func(err error) { answers <- err })
	}
	for range cases {
		must(t, <-answers)
	}
	for _, got := range records(t, c, string(stream.DepositDeadLetter), 2, len(cases)) {
		notes, own, ok := ReadNotes(got)
		if !ok {
			t.Fatalf("no notes: %d headers", len(got.Headers))
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(notes.Reason, "reason: "), " long")
		m := cases[name]
		if m == nil || notes.Offset != fmt.Sprint(int64(1<<40)) {
			t.Fatalf("%+v", notes)
		}
		delete(cases, name)
		if at := got.Timestamp.UnixMilli(); (name == "2017") != (at == 1_500_000_000_000) || at > time.Now().UnixMilli() {
			t.Errorf("%s: %s", name, got.Timestamp)
		}
		large := strings.Contains(name, "MiB")
		if about := notes.About; (about != nil) != large || large && (!about.Matches(m) || own != 0 ||
			len(got.Key) > maxShown || len(got.Value) > maxShown || (got.Value == nil) != (m.Value == nil)) {
			t.Errorf("%s: key of %d bytes, value of %d, %+v", name, len(got.Key), len(got.Value), about)
		}
		if !large && (!bytes.Equal(got.Value, m.Value) || (got.Key == nil) != (m.Key == nil)) {
			t.Errorf("%s: %.20q", name, got.Value)
		}
	}
}

// A copy is not taken for a description, whatever headers its record had.
func TestForgedDescription(t *testing.T) {
	c := ready(t, 1)
	p := producer(t, c, string(stream.DepositDeadLetter))
	m := &sarama.ConsumerMessage{Topic: "deposit", Value: []byte("v"), Headers: headers(HeaderReason, "x", HeaderTopic, "x",
		HeaderPartition, "1", HeaderOffset, "2", HeaderKeySize, "1", HeaderKeyHash, "2", HeaderValueSize, "3", HeaderValueHash, "4", HeaderHeadersSize, "5")}
	_, err := awaitPromise(within(t), p.SetAside(m, "test"))
	must(t, err)
	if n, own, ok := ReadNotes(records(t, c, string(stream.DepositDeadLetter), 1, 1)[0]); !ok || own != len(m.Headers) || n.About != nil || n.Reason != "test" {
		t.Errorf("%+v, %d own headers", n, own)
	}
}

// Brokers are replaced, with a new address or after they were gone: their senders stay
// as many as there are broker ids.
func TestReplacedBrokersLeaveNothing(t *testing.T) {
	_, w := logWriter(t, 1)
	for i := range 20 {
		if _, err := add(t, w, "w", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		must(t, w.client.RefreshBrokers(w.owner.Brokers())) // forgets all brokers
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.senders) != 1 {
		t.Errorf("%d senders for one broker", len(w.senders))
	}
}

// A request never has more than brokers take.
func TestRequestIsBounded(t *testing.T) {
	const partitions = 12
	c := ready(t, partitions)
	w, err := c.LogWriter(within(t), "test", "deposit", partitions)
	must(t, err)
	defer func() { must(t, w.Close()) }()
	leader, err := w.client.Leader("deposit", 0)
	must(t, err)
	var jobs []job
	for id := range int32(partitions) {
		l := idleLane(1 << 40)
		l.w, l.id = w.writer, id
		l.queue = []record{{key: "w", value: make([]byte, 4<<20)}}
		jobs = append(jobs, job{leader, l, &flight{}, make(chan answer, 1)})
	}
	n := 0
	for rest := jobs; len(rest) > 0; n++ {
		rest = w.request(rest, new(confirmation))
	}
	if n < 2 {
		t.Errorf("%d requests for %d MiB", n, 4*partitions)
	}
}
