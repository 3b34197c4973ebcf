package flowtest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

// soon is far below the 30 s after which a command gives up on Kafka.
const soon = 15 * time.Second

// quick is command, which must not take long.
func (s *suite) quick(args ...string) string {
	s.t.Helper()
	began := time.Now()
	out := s.command(args...)
	if took := time.Since(began); took > soon {
		s.t.Errorf("%v took %s", args, took)
	}
	return out
}

// Another producer that writes deposits in transactions: what it aborts was never there,
// and the control records that it leaves hold nobody up, also after a restart.
func TestForeignTransactions(t *testing.T) {
	broker := startBroker(t)
	s := newSuite(t, broker)
	w := fmt.Sprintf("foreign.%d", time.Now().UnixNano())
	p := stream.Partition(w, 4)
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(broker, ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxVersions(kversion.V3_8_0()), kgo.TransactionalID(w))
	must(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	transaction := func(units int64, end kgo.TransactionEndTry) {
		t.Helper()
		value, err := proto.Marshal(&pb.Deposit{WalletId: w, Units: units, AcceptedAtMs: s.clock.now().UnixMilli()})
		must(t, err)
		must(t, cl.BeginTransaction())
		must(t, cl.ProduceSync(ctx, &kgo.Record{Topic: "deposit", Partition: p, Key: []byte(w), Value: value}).FirstErr())
		must(t, cl.EndTransaction(ctx, end))
	}
	holds := func(balance int, flagged bool) {
		t.Helper()
		want := fmt.Sprintf(`{"wallet_id":%q,"balance":%d,"above_threshold":%t}`, w, balance, flagged)
		s.eventually(want, func() error {
			if status, body := s.get("api", "/api/check/"+w, nil); status != http.StatusOK || body != want {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	}
	transaction(6000, kgo.TryCommit)
	transaction(50_000, kgo.TryAbort)
	transaction(300, kgo.TryCommit)
	holds(6300, false)
	transaction(7, kgo.TryAbort)
	s.restart("balance", "threshold") // each is ready again: nothing is left to apply
	s.loseState("balance")
	s.restart("balance")
	holds(6300, false)
	if out := s.quick("-service=verify"); !strings.Contains(out, ": all as the logs say\n") {
		t.Error(out)
	}
	if out := s.quick("-service=whatif", "-threshold", "6200"); !strings.Contains(out, w) {
		t.Error(out)
	}
	if out := s.quick("-service=statement", "-wallet", w); !strings.Contains(out, w+": balance 6300 from 2 deposits; not flagged") {
		t.Error(out)
	}
	transaction(6000, kgo.TryCommit)
	holds(12_300, true)
	s.eventually("no lag", func() error {
		_, body := s.get("balance", "/metrics", nil)
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, "coinbit_lag_messages") && !strings.HasSuffix(line, " 0\n") {
				return fmt.Errorf("%s", line)
			}
		}
		return nil
	})
}

// A deposit that the log has twice, as when a broker forgot its producer, counts once, and
// verify says where it stands.
func TestTwiceInTheLog(t *testing.T) {
	broker := startBroker(t)
	s := newSuite(t, broker)
	r := newRaw(s, broker)
	w := fmt.Sprintf("twice.%d", time.Now().UnixNano())
	var at []string
	for range 3 {
		status, body, header := s.request(http.MethodPost, "api", "/api/deposit", fmt.Sprintf(`{"wallet_id":%q,"amount":5}`, w), nil)
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		at = append(at, header.Get("X-Deposit-Position"))
	}
	for _, record := range r.read("deposit") {
		if string(record.Key) == w && fmt.Sprintf("%d:%d", record.Partition, record.Offset) == at[1] {
			again := &kgo.Record{Topic: "deposit", Key: record.Key, Value: record.Value, Partition: record.Partition}
			r.produce(again)
			at = append(at, fmt.Sprintf("%d:%d", again.Partition, again.Offset))
		}
	}
	status, body := s.get("api", "/api/check/"+w, http.Header{"X-Deposit-Position": at[3:]})
	if want := fmt.Sprintf(`{"wallet_id":%q,"balance":15,"above_threshold":false}`, w); status != http.StatusOK || body != want {
		t.Errorf("%d %s", status, body)
	}
	if out, want := s.quick("-service=verify"), "deposit "+at[1]+", "+w+": stands in the log again, at "+at[3]+": counted once\n"; !strings.Contains(out, want) {
		t.Errorf("%s does not say %q", out, want)
	}
}

// Dead letters that were purged are missed by nobody.
func TestPurgedDeadLetters(t *testing.T) {
	broker := startBroker(t)
	s := newSuite(t, broker)
	r := newRaw(s, broker)
	w := fmt.Sprintf("purged.%d", time.Now().UnixNano())
	poison := func(value string) {
		t.Helper()
		r.produce(&kgo.Record{Topic: "deposit", Key: []byte(w), Value: []byte(value), Partition: stream.Partition(w, 4),
			Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h"}, {}}})
		s.eventually("the letter", func() error {
			if text := s.command("-service=deadletter"); !strings.Contains(text, fmt.Sprintf("%q", value)) {
				return fmt.Errorf("%s", text)
			}
			return nil
		})
	}
	poison("one")
	ends := make(kadm.Offsets)
	for p, end := range r.ends("deposit_dead_letter") {
		ends.AddOffset("deposit_dead_letter", p, end, -1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	_, err := kadm.NewClient(r.cl).DeleteRecords(ctx, ends)
	must(t, err)
	if out := s.quick("-service=deadletter"); !strings.HasSuffix(out, "0 set aside\n") {
		t.Error(out)
	}
	s.eventually("verify counts it, once the group has committed the record", func() error {
		if out := s.quick("-service=verify"); !strings.Contains(out, ": all as the logs say; 1 record without a dead letter, where letters were purged\n") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if out := s.quick("-service=verify", "-json"); !strings.Contains(out, `"purged_letters":1,"deposits_twice":0,"deposits_late":0,"differences":0`) {
		t.Error(out)
	}
	poison("two")
	if out := s.quick("-service=deadletter"); !strings.HasSuffix(out, "1 set aside\n") {
		t.Error(out)
	}
	if out := s.quick("-service=verify"); !strings.Contains(out, "and 1 dead letter compared in") || !strings.Contains(out, ": all as the logs say;") {
		t.Error(out)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
