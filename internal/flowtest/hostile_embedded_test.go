//go:build !kafka

package flowtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/protobuf/proto"

	"coinbit/internal/pb"
)

// text is a deposit as it goes over a connection.
func text(body string, headers ...string) string {
	h := strings.Join(append(headers, ""), "\r\n")
	return fmt.Sprintf("POST /api/deposit HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", h, len(body), body)
}

func (s *suite) dial() net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.byName["api"].addr)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(deadline))
	return conn
}

// TestHangingBroker: Kafka answers, but appends nothing for a while. The API
// takes a bounded number of deposits into bounded memory and refuses the others;
// afterwards all that was not refused is there once, and nothing of what was.
func TestHangingBroker(t *testing.T) {
	const (
		wave  = 2500
		waves = 4
		bound = 96 << 20
	)
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kafka.Close)
	var hangs atomic.Bool
	released := make(chan struct{})
	release := sync.OnceFunc(func() { hangs.Store(false); close(released) })
	t.Cleanup(release)
	kafka.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		kafka.KeepControl()
		deposits := func(p kmsg.ProduceRequestTopic) bool { return p.Topic == "deposit" }
		if hangs.Load() && slices.ContainsFunc(r.(*kmsg.ProduceRequest).Topics, deposits) {
			kafka.SleepControl(func() { <-released })
		}
		return nil, nil, false
	})
	s := newSuite(t, kafka.ListenAddrs()[0])
	memory := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}

	hangs.Store(true)
	before, largest := memory(), int64(0)
	sent, refused := 0, 0
	for range waves {
		conns := make([]net.Conn, wave)
		for i := range conns {
			conns[i] = s.dial()
			if _, err := io.WriteString(conns[i], text(fmt.Sprintf(`{"wallet_id":"w%d","amount":1}`, i%100))); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		var answered sync.WaitGroup
		var mu sync.Mutex
		for _, conn := range conns {
			answered.Go(func() {
				_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
				res, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), nil)
				_ = conn.Close() // the others give up
				if err != nil {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
					t.Errorf("%d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
				}
				refused++
			})
		}
		answered.Wait()
		largest = max(largest, memory()-before)
		t.Logf("%d deposits sent, %d refused so far, %d MB more in use", sent, refused, (memory()-before)>>20)
	}
	if sent-refused != 4096 {
		t.Errorf("%d deposits were taken, want as many as may be in flight", sent-refused)
	}
	if largest > bound {
		t.Errorf("%d MB", largest>>20)
	}
	if status, text := s.get("api", "/readyz", nil); status != http.StatusOK {
		t.Errorf("reads still work: %d %s", status, text)
	}
	release()
	s.eventually("all that was taken is there", func() error {
		sum := 0
		for i := range 100 {
			sum += s.balance(fmt.Sprintf("w%d", i), nil)
		}
		if sum > sent-refused {
			t.Fatalf("%d of %d", sum, sent-refused)
		}
		if sum < sent-refused {
			return fmt.Errorf("%d of %d", sum, sent-refused)
		}
		return nil
	})
}

// TestHostileClients: beside a thousand clients that send slowly, leave in
// mid-body, repeat themselves or send nonsense, deposits are taken and the sums
// are exact.
func TestHostileClients(t *testing.T) {
	s := newSuite(t, startBroker(t), "API_KEYS=k,l")
	key := "Authorization: Bearer k"
	nonsense := []string{
		`{"wallet_id":"victim","amount":1,"amount":1000000}`,
		`{"wallet_id":"victim","wallet_id":"other","amount":1000000}`,
		`{"wallet_id":"victim","amount":1e999999999}`,
		`{"wallet_id":"victim","amount":-1000000}`,
		`{"wallet_id":"victim","amount":"1e6"}`,
		`{"wallet_id":"victim","Amount":1000000}`,
		`{"wallet_id":"victim","amount":1000000}{}`,
		`{"wallet_id":"victim\u0000","amount":1000000}`,
		`{"wallet_id":"_claim","amount":1000000}`,
		strings.Repeat(`{"a":`, 10_000),
		strings.Repeat("[", 65_000),
		strings.Repeat(" ", 64<<10) + `{"wallet_id":"victim","amount":1000000}`,
	}
	var clients sync.WaitGroup
	for i := range 1000 {
		conn := s.dial()
		defer func() { _ = conn.Close() }()
		clients.Go(func() {
			whole := text(`{"wallet_id":"victim","amount":1000000}`, key)
			switch i % 5 {
			case 0: // waits
				_, _ = io.WriteString(conn, whole[:1+i%len(whole)/2])
			case 1: // leaves in mid-body
				_, _ = io.WriteString(conn, whole[:len(whole)-1])
				_ = conn.Close()
			case 2: // nonsense
				_, _ = io.WriteString(conn, text(nonsense[i/5%len(nonsense)], key))
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || res.StatusCode != 400 && res.StatusCode != 413 {
					t.Errorf("nonsense %d: %v %v", i/5%len(nonsense), res, err)
				}
			case 3: // no key
				_, _ = io.WriteString(conn, text(`{"wallet_id":"victim","amount":1000000}`, "Authorization: Bearer m"))
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || res.StatusCode != 401 {
					t.Errorf("wrong key: %v %v", res, err)
				}
			case 4: // the same request many times at once
				_, _ = io.WriteString(conn, text(`{"wallet_id":"repeated","amount":7}`, key, "Idempotency-Key: same"))
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || res.StatusCode != 200 {
					t.Errorf("repeated: %v %v", res, err)
				}
			}
		})
	}
	open := http.Header{"Authorization": {"Bearer l"}}
	const deposits = 500
	last := open.Clone()
	for range deposits {
		status, text, header := s.request(http.MethodPost, "api", "/api/deposit", `{"wallet_id":"honest","amount":3}`, open)
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, text)
		}
		last["X-Deposit-Position"] = header["X-Deposit-Position"]
	}
	clients.Wait()
	if got := s.balance("honest", last); got != 3*deposits {
		t.Errorf("honest: %d", got)
	}
	if got := s.balance("repeated", open); got != 7 {
		t.Errorf("repeated: %d", got)
	}
	for _, id := range []string{"victim", "other"} {
		if got := s.balance(id, open); got != 0 {
			t.Errorf("%s: %d", id, got)
		}
	}
}

// TestFlagTopicHangs: while no crossing is answered, threshold holds a bounded part of the
// deposits behind it, and reads on when it is.
func TestFlagTopicHangs(t *testing.T) {
	const deposits, bound = 100_000, 80_000
	embedded, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(embedded.Close)
	var hangs atomic.Bool
	released := make(chan struct{})
	release := sync.OnceFunc(func() { hangs.Store(false); close(released) })
	embedded.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		embedded.KeepControl()
		flags := func(p kmsg.ProduceRequestTopic) bool { return p.Topic == "flag_wallet" }
		if hangs.Load() && slices.ContainsFunc(r.(*kmsg.ProduceRequest).Topics, flags) {
			embedded.SleepControl(func() { <-released })
		}
		return nil, nil, false
	})
	s := newSuite(t, embedded.ListenAddrs()[0], "PARTITIONS=1")
	t.Cleanup(release) // before the services stop
	r := newRaw(s, embedded.ListenAddrs()[0])
	hangs.Store(true)
	began := time.Now()
	deposit := func(wallet string, units int64) *kgo.Record {
		b, err := proto.Marshal(&pb.Deposit{WalletId: wallet, Units: units, AcceptedAtMs: s.clock.now().UnixMilli()})
		if err != nil {
			t.Fatal(err)
		}
		return &kgo.Record{Topic: "deposit", Key: []byte(wallet), Value: b}
	}
	long := strings.Repeat("w", 90) // so that one fetch brings few
	records := []*kgo.Record{deposit("crosses", 20_000)}
	for i := 1; i < deposits; i++ {
		records = append(records, deposit(fmt.Sprintf("%s%d", long, i%1000), 1))
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := r.cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	applied := func(group string) int {
		_, text := s.get(group, "/metrics", nil)
		for line := range strings.Lines(text) {
			var n float64
			if _, err := fmt.Sscanf(line, `coinbit_messages_total{group="`+group+`",verdict="applied"} %g`, &n); err == nil {
				return int(n)
			}
		}
		return 0
	}
	// until waits until a count is there, or stands still for as long as patience.
	until := func(group string, want int, patience time.Duration) (last int) {
		for since := time.Now(); time.Since(since) < patience && last != want; time.Sleep(50 * time.Millisecond) {
			if n := applied(group); n != last || n == 0 {
				last, since = n, time.Now()
			}
		}
		return last
	}
	if n := until("balance", deposits, deadline); n != deposits {
		t.Fatalf("balance applied %d of %d", n, deposits)
	}
	last := until("threshold", deposits, 5*time.Second)
	t.Logf("threshold applied %d of %d behind one that is not answered", last, deposits)
	if last > bound {
		t.Errorf("%d deposits are held behind one", last)
	}
	release()
	if n := until("threshold", deposits, deadline); n != deposits {
		t.Fatalf("threshold applied %d of %d", n, deposits)
	}
	s.eventually("the flag is raised", func() error {
		status, text := s.get("api", "/api/check/crosses", nil)
		if status != http.StatusOK || !strings.Contains(text, `"above_threshold":true`) {
			return fmt.Errorf("%d %s", status, text)
		}
		return nil
	})
	t.Logf("all is applied after %s", time.Since(began))
}
