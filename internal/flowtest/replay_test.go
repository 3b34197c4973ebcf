package flowtest

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"coinbit/internal/app"
	"coinbit/internal/stream"
)

// command runs the program with the suite's settings and returns what it printed.
func (s *suite) command(args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	var out, log bytes.Buffer
	if code := app.Main(ctx, args, s.env, &out, &log); code != 0 {
		s.t.Fatalf("%v: exit %d\n%s%s", args, code, &out, &log)
	}
	return out.String()
}

// TestQuestions asks whatif, statement and deadletter about deposits that went the whole
// way, and about what was set aside.
func TestQuestions(t *testing.T) {
	broker := startBroker(t)
	s := newSuite(t, broker)
	now := time.Now()
	base := time.Date(2027, 5, 1, 0, 0, 0, 0, time.UTC)
	name := func(id string) string { return fmt.Sprintf("%s.%d", id, now.UnixNano()) }
	at := func(after time.Duration) string { return base.Add(after).Format(time.RFC3339Nano) }
	a, b, c := name("a"), name("b"), name("c")
	last := make(map[string]string)
	deposit := func(after time.Duration, wallet, amount string) {
		t.Helper()
		s.clock.set(base.Add(after))
		status, body, header := s.request(http.MethodPost, "api", "/api/deposit", fmt.Sprintf(`{"wallet_id":%q,"amount":%s}`, wallet, amount), nil)
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		last[wallet] = header.Get("X-Deposit-Position")
	}
	deposit(0, a, "6000")
	deposit(time.Minute, a, "3000.5")
	deposit(0, b, "4000")
	deposit(5*time.Minute, b, "4000")
	deposit(time.Hour, c, "10001")
	deposit(25*time.Hour, c, "1")
	status, body := s.get("api", "/api/check/"+c, http.Header{"X-Deposit-Position": {last[c]}})
	if want := fmt.Sprintf(`{"wallet_id":%q,"balance":10002,"above_threshold":true}`, c); status != http.StatusOK || body != want {
		t.Fatalf("%d %s", status, body)
	}
	s.clock.set(base.Add(2 * time.Hour))
	s.command("-service=flag", "-wallet", b) // by the wall's clock: now
	poison := &kgo.Record{Topic: "deposit", Key: []byte(a), Value: []byte("\x1b[2J"), Partition: stream.Partition(a, 4)}
	r := newRaw(s, broker)
	r.produce(poison)

	t.Run("whatif", func(t *testing.T) {
		svg := filepath.Join(t.TempDir(), "plot.svg")
		ask := []string{"-service=whatif", "-rule", "5000/10m", "-rule", "20000/10m", "-from", at(0), "-to", at(24 * time.Hour)}
		records, err := csv.NewReader(strings.NewReader(s.command(append(ask, "-csv", "-svg", svg)...))).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range records {
			if strings.HasSuffix(r[2], name("")) {
				got = append(got, strings.Join([]string{r[0], r[1], strings.TrimSuffix(r[2], name("")), r[3], r[4], r[7], r[8]}, " "))
			}
		}
		want := []string{
			"10000 2m c same 2027-05-01T01:00:00.000Z 10001 1",
			"5000 10m a new 2027-05-01T00:00:00.000Z 6000 1",
			"5000 10m b new 2027-05-01T00:05:00.000Z 8000 2",
			"5000 10m c same 2027-05-01T01:00:00.000Z 10001 1",
			"20000 10m c gone 2027-05-01T01:00:00.000Z 10001 1",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		var doc struct {
			Records, Deposits int64
			Rules             []struct {
				Threshold string
				InForce   bool `json:"in_force"`
				New, Gone int
			}
		}
		if err := json.Unmarshal([]byte(s.command(append(ask, "-json")...)), &doc); err != nil {
			t.Fatal(err)
		}
		if len(doc.Rules) != 3 || !doc.Rules[0].InForce || doc.Rules[1].New < 2 || doc.Rules[2].Gone < 1 || doc.Deposits < 5 || doc.Records < 7 {
			t.Errorf("%+v", doc)
		}
		if text := s.command(ask...); !strings.Contains(text, "5000/10m would flag, which 10000/2m does not:\n") {
			t.Error(text)
		}
		if text := s.command("-service=whatif", "-threshold", "1", "-to", "1999-01-01T00:00:00Z"); !strings.HasPrefix(text, "0 deposits of 0 wallets judged") {
			t.Error(text)
		}
		if plot, err := os.ReadFile(svg); err != nil || !strings.Contains(string(plot), "</svg>") {
			t.Errorf("%v %s", err, plot)
		}
	})
	t.Run("statement", func(t *testing.T) {
		text := s.command("-service=statement", "-wallet", a)
		for _, line := range []string{
			"6000  applied                     6000              6000",
			"3000.5  applied                   9000.5            9000.5",
			"set_aside                 9000.5                    malformed: not a Deposit message",
			a + ": balance 9000.5 from 2 deposits; not flagged",
		} {
			if !strings.Contains(text, line) {
				t.Errorf("%s\ndoes not say %q", text, line)
			}
		}
		wrong := (stream.Partition(a, 4) + 1) % 4
		r.produce(&kgo.Record{Topic: "deposit", Key: []byte(a), Value: []byte("x"), Partition: wrong})
		s.eventually("the record on a wrong partition", func() error {
			text := s.command("-service=statement", "-wallet", a)
			if !strings.Contains(text, fmt.Sprintf("  %d:", wrong)) || strings.Count(text, "set_aside") != 2 {
				return fmt.Errorf("%s", text)
			}
			return nil
		})
		if text := s.command("-service=statement", "-wallet", c, "-csv"); !strings.Contains(text, ",10001,applied,10001,10001,crosses,\n") {
			t.Error(text)
		}
		for after, want := range map[time.Duration]string{
			time.Hour - time.Millisecond: "no deposits at 2027-05-01T00:59:59.999Z; not flagged\n2 records made later left out\n",
			time.Hour:                    "10001 from 1 deposit; flagged, last crossing of 10000/2m: 10001 from",
			48 * time.Hour:               "10002 from 2 deposits; flagged",
		} {
			if text := s.command("-service=statement", "-wallet", c, "-at", at(after)); !strings.Contains(text, want) {
				t.Errorf("%v: %s does not say %q", after, text, want)
			}
		}
		lines := strings.Split(strings.TrimSpace(s.command("-service=statement", "-wallet", b, "-json")), "\n")
		if end := lines[len(lines)-1]; len(lines) != 3 || !strings.Contains(end, `"balance":"8000"`) || !strings.Contains(end, `"flagged":true,"flagged_by_operator":true`) {
			t.Error(lines)
		}
		if text := s.command("-service=statement", "-wallet", name("nobody")); text != name("nobody")+": no deposits; not flagged\n" {
			t.Errorf("%q", text)
		}
	})
	t.Run("deadletter", func(t *testing.T) {
		want := fmt.Sprintf("deposit %d:%d: malformed: not a Deposit message\n  key     %q\n  value   4 bytes, 4 at the end not decoded: \"\\x1b[2J\"\n",
			poison.Partition, poison.Offset, a)
		s.eventually("the letter", func() error {
			if text := s.command("-service=deadletter"); !strings.Contains(text, want) {
				return fmt.Errorf("%s does not say\n%s", text, want)
			}
			return nil
		})
		if text := s.command("-service=deadletter", "-json"); !strings.Contains(text, `"value_base64":"G1sySg=="`) || strings.Contains(text, "\x1b") {
			t.Error(text)
		}
	})
}
