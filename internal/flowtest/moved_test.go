package flowtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"coinbit/internal/app"
	"coinbit/internal/stream"
)

// topicsOn makes the suite's topics on a broker, as an admin does beforehand.
func topicsOn(t testing.TB, broker string, partitions int) {
	t.Helper()
	var out strings.Builder
	env := []string{"BROKER=" + broker, "PARTITIONS=" + strconv.Itoa(partitions)}
	if code := app.Main(context.Background(), []string{"-service=topics"}, env, &out, io.Discard); code != 0 {
		t.Fatalf("exit %d: %s", code, &out)
	}
}

func admin(t testing.TB, broker string) sarama.ClusterAdmin {
	t.Helper()
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	a, err := sarama.NewClusterAdmin([]string{broker}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// onLog counts the deposits of each wallet that the topic deposit holds now on the
// wallet's partition, and those that are on another.
func onLog(t testing.TB, broker string) (n map[string]int, astray int) {
	t.Helper()
	cfg := sarama.NewConfig()
	cfg.Version = sarama.V2_8_0_0
	client, err := sarama.NewClient([]string{broker}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close(); _ = client.Close() }()
	partitions, err := client.Partitions("deposit")
	if err != nil {
		t.Fatal(err)
	}
	n = make(map[string]int)
	for _, p := range partitions {
		end, err := client.GetOffset("deposit", p, sarama.OffsetNewest)
		if err != nil {
			t.Fatal(err)
		}
		records, err := reader.ConsumePartition("deposit", p, sarama.OffsetOldest)
		if err != nil {
			t.Fatal(err)
		}
		for next := int64(0); next < end; {
			select {
			case m := <-records.Messages():
				next = m.Offset + 1
				if stream.Partition(string(m.Key), int32(len(partitions))) == p {
					n[string(m.Key)]++
				} else {
					astray++
				}
			case <-time.After(deadline):
				t.Fatalf("deposit/%d ends at %d, not %d", p, next, end)
			}
		}
		_ = records.Close()
	}
	return n, astray
}

// post sends one deposit to each of n wallets at the same time, and answers which of
// them were answered 200. All others must be 503 or 504.
func (s *suite) post(n int) map[string]bool {
	s.t.Helper()
	accepted := make(map[string]bool)
	var mu sync.Mutex
	var wg sync.WaitGroup
	addr := s.byName["api"].addr
	for i := range n {
		wg.Go(func() {
			id := fmt.Sprint("w", i)
			res, err := client.Post("http://"+addr+"/api/deposit", "", strings.NewReader(fmt.Sprintf(`{"wallet_id":%q,"amount":1}`, id)))
			if err != nil {
				s.t.Error(err)
				return
			}
			_ = res.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			switch res.StatusCode {
			case http.StatusOK:
				accepted[id] = true
			case http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			default:
				s.t.Errorf("%s: %d", id, res.StatusCode)
			}
		})
	}
	wg.Wait()
	return accepted
}

// untilTaken posts to n wallets until all are answered 200, and says how many 200s each
// had.
func (s *suite) untilTaken(n int) map[string]int {
	s.t.Helper()
	taken := make(map[string]int)
	s.eventually("all are taken", func() error {
		accepted := s.post(n)
		for id := range accepted {
			taken[id]++
		}
		if len(accepted) < n {
			return fmt.Errorf("%d of %d", len(accepted), n)
		}
		return nil
	})
	return taken
}

// The cluster is replaced under living services, by one with another count of
// partitions and by one with the same: every 200 is in the log of the present cluster,
// on the wallet's partition, and shows.
func TestClusterReplaced(t *testing.T) {
	for _, partitions := range []int{3, 4} { // 4 is what the suite began with
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			broker, replace := startReplaceable(t)
			s := newSuite(t, broker)
			s.untilTaken(10)
			replace(func(addr string) { topicsOn(t, addr, partitions) })
			const wallets = 40
			taken := s.untilTaken(wallets)
			log, astray := onLog(t, broker)
			if astray > 0 {
				t.Errorf("%d deposits are on a wrong partition", astray)
			}
			for id, n := range taken {
				if log[id] < n {
					t.Errorf("%s: %d answered 200, %d in the log", id, n, log[id])
				}
			}
			s.eventually("each shows what is in the log", func() error {
				for id := range taken {
					var row struct{ Balance int }
					_, text := s.get("api", "/api/check/"+id, nil)
					if err := json.Unmarshal([]byte(text), &row); err != nil || row.Balance != log[id] {
						return fmt.Errorf("%s: %s, want %d", id, text, log[id])
					}
				}
				return nil
			})
		})
	}
}

// Topics are deleted and made anew, with another count, in a moment when nothing is
// sent: the next deposit goes over the connection that was there, to the name that was
// there. It is not answered 200 unless it is where it belongs.
func TestTopicsMadeAnew(t *testing.T) {
	broker, _ := startReplaceable(t)
	s := newSuite(t, broker)
	s.untilTaken(10)
	s.stop("balance", "threshold", "flagger")
	a := admin(t, broker)
	for _, topic := range stream.Topics() {
		if err := a.DeleteTopic(topic.Name); err != nil {
			t.Fatal(err)
		}
	}
	for _, topic := range stream.Topics() {
		config := make(map[string]*string)
		for k, v := range topic.Config {
			config[k] = &v
		}
		detail := &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1, ConfigEntries: config}
		s.eventually("topic "+topic.Name, func() error { return a.CreateTopic(topic.Name, detail, false) })
	}
	taken := make(map[string]int)
	count := func(accepted map[string]bool) {
		for id := range accepted {
			taken[id]++
		}
	}
	count(s.post(40)) // before anybody can have noticed
	for id, n := range s.untilTaken(40) {
		taken[id] += n
	}
	log, astray := onLog(t, broker)
	t.Logf("%d deposits of those that were not answered 200 are on a wrong partition", astray)
	for id, n := range taken {
		if log[id] < n {
			t.Errorf("%s: %d answered 200, %d in the log", id, n, log[id])
		}
	}
}

// Partitions are added to the logs, under living services and before the next start: all
// go on with those that were there.
func TestPartitionsAdded(t *testing.T) {
	broker, _ := startReplaceable(t)
	s := newSuite(t, broker)
	const wallets = 20
	sum := make(map[string]int)
	deposit := func() {
		t.Helper()
		for id, n := range s.untilTaken(wallets) {
			sum[id] += n
		}
	}
	deposit()
	a := admin(t, broker)
	for _, topic := range []string{"deposit", "flag_wallet"} {
		if err := a.CreatePartitions(topic, 7, nil, false); err != nil {
			t.Fatal(err)
		}
	}
	deposit()
	s.restart(services...)
	deposit()
	if status, text := s.do(http.MethodPost, "api", "/api/deposit", `{"wallet_id":"w0","amount":20000}`, nil); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	sum["w0"] += 20000
	s.eventually("all are counted, and the flag is raised", func() error {
		for id, want := range sum {
			var row struct {
				Balance int
				Above   bool `json:"above_threshold"`
			}
			_, text := s.get("api", "/api/check/"+id, nil)
			if err := json.Unmarshal([]byte(text), &row); err != nil || row.Balance < want || row.Above != (id == "w0") {
				return fmt.Errorf("%s: %s, want %d", id, text, want)
			}
		}
		return nil
	})
}
