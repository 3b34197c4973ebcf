package flowtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"coinbit/internal/kafka"
	"coinbit/internal/stream"
)

// pack appends records in compressed batches.
func (r *raw) pack(records ...*kgo.Record) {
	r.s.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.cl.OptValue(kgo.SeedBrokers).([]string)...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(64<<20), kgo.ProducerLinger(50*time.Millisecond))
	if err != nil {
		r.s.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		r.s.t.Fatal(err)
	}
}

// configure sets a topic's setting as an operator would.
func (r *raw) configure(topic, name, value string) {
	r.s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	res := kmsg.NewIncrementalAlterConfigsRequestResource()
	res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Value = name, &value
	res.Configs = append(res.Configs, c)
	req.Resources = append(req.Resources, res)
	got, err := req.RequestWith(ctx, r.cl)
	if err != nil || got.Resources[0].ErrorCode != 0 {
		r.s.t.Fatalf("%+v, %v", got, err)
	}
}

// balance is what the API says the wallet holds, in whole units.
func (s *suite) balance(id string, header http.Header) int {
	s.t.Helper()
	status, text := s.get("api", "/api/check/"+id, header)
	var row struct{ Balance int }
	if err := json.Unmarshal([]byte(text), &row); status != http.StatusOK || err != nil {
		s.t.Fatalf("%d %s", status, text)
	}
	return row.Balance
}

// rebuilds are the lines that say that services were built anew, but for those of a
// member that a busy machine kept from its group.
func (s *suite) rebuilds() (lines []string, busy int) {
	for line := range strings.Lines(s.log.String()) {
		switch {
		case !strings.Contains(line, "building it anew"):
		case strings.Contains(line, "generation id is not the current"):
			busy++
		default:
			lines = append(lines, line)
		}
	}
	return lines, busy
}

// TestHardLetters: records that are small compressed and larger than any topic takes as
// they are, and records without a time, are set aside once and hold up nobody.
func TestHardLetters(t *testing.T) {
	broker := startBroker(t)
	s := newSuite(t, broker)
	r := newRaw(s, broker)
	big := make([]byte, 9<<20)
	now := time.Now()
	wallet := "hard"
	home := stream.Partition(wallet, 4)
	before := r.ends("deposit")[home]
	r.pack(
		&kgo.Record{Topic: "deposit", Partition: home, Key: []byte(wallet), Value: big[:5<<20], Timestamp: now},
		&kgo.Record{Topic: "deposit", Partition: home, Value: big, Timestamp: now},
		&kgo.Record{Topic: "deposit", Partition: home, Key: []byte(wallet), Value: []byte("a"), Timestamp: now},
		&kgo.Record{Topic: "deposit", Partition: home, Key: []byte(wallet), Value: []byte("b"), Timestamp: time.UnixMilli(-1)},
		&kgo.Record{Topic: "deposit", Partition: home, Key: []byte(wallet), Value: []byte("c"), Timestamp: now},
		&kgo.Record{Topic: "flag_wallet", Partition: home, Key: []byte(wallet), Value: big, Timestamp: now},
	)
	var position http.Header
	s.eventually("a keyed deposit behind them", func() error {
		status, text, header := s.request(http.MethodPost, "api", "/api/deposit", `{"wallet_id":"hard","amount":3}`, http.Header{"Idempotency-Key": {"k"}})
		if status != http.StatusOK {
			return fmt.Errorf("%d %s", status, text)
		}
		position = http.Header{"X-Deposit-Position": header["X-Deposit-Position"]}
		return nil
	})
	if got := s.balance(wallet, position); got != 3 {
		t.Errorf("balance %d", got)
	}
	all := map[string]int{}
	s.eventually("6 letters", func() error {
		all = map[string]int{}
		for _, topic := range []string{string(stream.DepositDeadLetter), string(stream.FlagWalletDeadLetter)} {
			for _, rec := range r.read(topic) {
				h := map[string]string{}
				for _, x := range rec.Headers {
					h[x.Key] = string(x.Value)
				}
				all[h[kafka.HeaderTopic]+" "+h[kafka.HeaderOffset]]++
				_, described := h[kafka.HeaderValueHash]
				if described == (len(rec.Value) == 1 && len(rec.Headers) == 4) {
					t.Fatalf("%v: %d headers, value of %d bytes", h, len(rec.Headers), len(rec.Value))
				}
			}
		}
		if len(all) != 6 {
			return fmt.Errorf("%v", all)
		}
		return nil
	})
	failed, busy := s.rebuilds()
	for where, n := range all {
		if n > 1+busy { // at least once, as ever
			t.Errorf("%s was set aside %d times", where, n)
		}
	}
	for o := before; o < before+5; o++ {
		if all[fmt.Sprint("deposit ", o)] == 0 {
			t.Errorf("%d is missing: %v", o, all)
		}
	}
	if len(failed) > 0 {
		t.Errorf("services were built anew: %s", failed)
	}
}

// TestHugeRow: a record in a table that is larger than any row rebuilds nothing but what
// owns the table, once, and every other wallet is served.
func TestHugeRow(t *testing.T) {
	broker := startBroker(t)
	s := newSuite(t, broker)
	r := newRaw(s, broker)
	for _, g := range stream.Groups() {
		r.pack(&kgo.Record{Topic: string(g.Table()), Partition: stream.Partition("huge", 4), Key: []byte("huge"), Value: make([]byte, 9<<20)})
	}
	for i := range 40 {
		status, text, header := s.request(http.MethodPost, "api", "/api/deposit", fmt.Sprintf(`{"wallet_id":"w%d","amount":3}`, i), nil)
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, text)
		}
		s.eventually("the deposit counts", func() error {
			status, text := s.get("api", fmt.Sprintf("/api/check/w%d", i), http.Header{"X-Deposit-Position": header["X-Deposit-Position"]})
			if status != http.StatusOK || !strings.Contains(text, `"balance":3,`) {
				return fmt.Errorf("%d %s", status, text)
			}
			return nil
		})
	}
	s.restart("api")
	if got := s.balance("w0", nil); got != 3 {
		t.Errorf("%d", got)
	}
	failed, _ := s.rebuilds()
	for _, line := range failed {
		if strings.Contains(line, `service="view`) {
			t.Errorf("a view was built anew: %s", line)
		}
	}
	if len(failed) > 2*len(stream.Groups()) {
		t.Errorf("services were built anew: %s", failed)
	}
}

// TestSmallMessages: a topic that takes 8 KiB at a time gets a whole stream, in batches
// that it takes; one that takes no record at all is a certain 503. Both are said.
func TestSmallMessages(t *testing.T) {
	broker := startBroker(t)
	s := newSuite(t, broker)
	r := newRaw(s, broker)
	const lines = 20_000
	stream := func() (ok, refused, other int) {
		var body bytes.Buffer
		for i := range lines {
			fmt.Fprintf(&body, `{"wallet_id":"w%d","amount":1}`+"\n", i%100)
		}
		res, err := http.Post("http://"+s.byName["api"].addr+"/api/deposits", "", &body)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%d %s %v", res.StatusCode, text, err)
		}
		for line := range strings.Lines(string(text)) {
			var a struct{ Code int }
			if err := json.Unmarshal([]byte(line), &a); err != nil {
				t.Fatal(err)
			}
			switch a.Code {
			case 0:
				ok++
			case http.StatusServiceUnavailable:
				refused++
			default:
				other++
			}
		}
		return ok, refused, other
	}
	r.configure("deposit", "max.message.bytes", "8192")
	if ok, refused, other := stream(); ok != lines || refused != 0 || other != 0 {
		t.Errorf("%d lines stored, %d refused, %d neither", ok, refused, other)
	}
	if n := strings.Count(s.log.String(), "kafka refuses records"); n != 1 || !strings.Contains(s.log.String(), "max.message.bytes") {
		t.Errorf("said %d times", n)
	}
	r.configure("deposit", "max.message.bytes", "64")
	status, text := s.do(http.MethodPost, "api", "/api/deposit", `{"wallet_id":"w1","amount":1}`, nil)
	if status != http.StatusServiceUnavailable || !strings.Contains(text, "does not count") {
		t.Errorf("%d %s", status, text)
	}
	r.configure("deposit", "max.message.bytes", "1048588")
	status, text, header := s.request(http.MethodPost, "api", "/api/deposit", `{"wallet_id":"w1","amount":1}`, nil)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	if got := s.balance("w1", http.Header{"X-Deposit-Position": header["X-Deposit-Position"]}); got != lines/100+1 {
		t.Errorf("balance %d", got)
	}
}
