package flowtest

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
	"coinbit/internal/stream"
)

// TestPositionsOfTheLog: Kafka says which positions there are. One that another API was
// told is waited for, one that is nobody's is answered at once.
func TestPositionsOfTheLog(t *testing.T) {
	broker := startBroker(t)
	s := newSuite(t, broker)
	r := newRaw(s, broker)
	const wallet = "w"
	p := stream.Partition(wallet, 4)
	for i := range 20 {
		value, err := proto.Marshal(&pb.Deposit{WalletId: wallet, Units: 1, AcceptedAtMs: s.clock.now().UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		record := &kgo.Record{Topic: "deposit", Partition: p, Key: []byte(wallet), Value: value}
		r.produce(record)
		at := http.Header{"X-Deposit-Position": {fmt.Sprintf("%d:%d", p, record.Offset)}}
		if got := s.balance(wallet, at); got != i+1 {
			t.Fatalf("after %d deposits of another API: %d", i+1, got)
		}
	}
	began := time.Now()
	const asked = 10
	for i := range asked {
		at := http.Header{"X-Deposit-Position": {fmt.Sprintf("%d:%d", p, 20+i*i*i*i*i*i*i*i)}}
		if status, text := s.get("api", "/api/check/"+wallet, at); status != http.StatusServiceUnavailable {
			t.Errorf("%v: %d %s", at, status, text)
		}
	}
	if took := time.Since(began) / asked; took > time.Second {
		t.Errorf("a position that the log does not hold is answered after %s", took)
	}
}
