//go:build kafka

package test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestVerifyFindsACorruptedRow changes one byte of one row by hand, in the
// changelog, while nobody runs.
func TestVerifyFindsACorruptedRow(t *testing.T) {
	f := newFleet(t, bootstrap)
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	c := newClient(t, f.addr["api"])
	w := "verify-" + runID
	c.await(t, w, c.mustPost(t, w, "6000"), state{6000 * nano, false})
	c.await(t, w, c.mustPost(t, w, "6000"), state{12000 * nano, true})
	f.mustVerify()
	f.stop()

	o := newOracle(t, strings.Split(bootstrap, ","))
	records, err := o.read("balance-table", nil)
	if err != nil {
		t.Fatal(err)
	}
	var newest *kgo.Record
	for _, r := range records {
		if string(r.Key) == w {
			newest = r
		}
	}
	put := func(value []byte) {
		cl, err := kgo.NewClient(kgo.SeedBrokers(o.seeds...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "balance-table", Partition: newest.Partition, Key: newest.Key, Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	// The row holds 12,000 as a varint: e0 5d. One more is e1 5d.
	spoiled := strings.Replace(string(newest.Value), "\xe0\x5d", "\xe1\x5d", 1)
	if spoiled == string(newest.Value) {
		t.Fatalf("no 12000 in %x", newest.Value)
	}
	put([]byte(spoiled))
	text, ok := f.verify()
	if want := w + ": account.balance_units is 12001, want 12000"; ok || !strings.Contains(text, want) {
		t.Errorf("verify says (%t):\n%s\nwant %q", ok, text, want)
	}
	put(newest.Value)
	f.mustVerify()
}
