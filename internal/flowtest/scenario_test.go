package flowtest

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"coinbit/internal/app"
	"coinbit/internal/config"
	"coinbit/internal/stream"
)

// TestScenarios runs testdata/*.txt, each against the same services with wallets
// of its own. The verbs are the methods of scenario below.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	broker := startBroker(t)
	s := newSuite(t, broker)
	for n, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			s.t = t
			sc := &scenario{
				suite: s, raw: newRaw(s, broker), suffix: fmt.Sprintf(".%d.%d", n, time.Now().UnixNano()),
				base: time.Date(2026, 1, 1+n, 0, 0, 0, 0, time.UTC), last: make(map[string]string),
			}
			sc.run(file)
		})
	}
	s.t = t
}

type scenario struct {
	*suite
	raw    *raw
	suffix string // makes the wallets of a run its own
	base   time.Time
	last   map[string]string // wallet → position of its last deposit
	// settling: the next check may have to wait for what no position tells of.
	settling bool
}

func (sc *scenario) run(file string) {
	sc.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		sc.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if err := sc.step(words); err != nil {
			sc.t.Fatalf("%s:%d: %s: %v", file, n, strings.TrimSpace(text), err)
		}
	}
}

// step runs one line: an optional time ("1m59.999s") and a verb with its words.
func (sc *scenario) step(words []string) error {
	if at, err := time.ParseDuration(words[0]); err == nil {
		sc.clock.set(sc.base.Add(at))
		words = words[1:]
	}
	verbs := map[string]func(args []string) error{
		"deposit": sc.deposit, "stream": sc.stream, "stream-of": sc.streamOf, "check": sc.check, "flag": sc.flag, "again": sc.again, "poison": sc.poison,
		"window": sc.window, "raised": sc.raised, "evidence": sc.evidence, "flagged": sc.flagged,
		"restart": sc.restartVerb, "rewind": sc.rewindVerb, "lose-state": sc.loseStateVerb,
	}
	verb, ok := verbs[words[0]]
	if !ok {
		return fmt.Errorf("unknown verb %q", words[0])
	}
	err := verb(words[1:])
	sc.settling = words[0] == "flag"
	return err
}

// deposit WALLET AMOUNT [key=K] [status=N]: posts and notes the position.
func (sc *scenario) deposit(args []string) error {
	header, want := http.Header{}, http.StatusOK
	for _, a := range args[2:] {
		if k, ok := strings.CutPrefix(a, "key="); ok {
			header.Set("Idempotency-Key", k)
		}
		if n, ok := strings.CutPrefix(a, "status="); ok {
			want, _ = strconv.Atoi(n)
		}
	}
	wallet := args[0] + sc.suffix
	status, body, answer := sc.request(http.MethodPost, "api", "/api/deposit",
		fmt.Sprintf(`{"wallet_id":%q,"amount":%s}`, wallet, args[1]), header)
	if status != want {
		return fmt.Errorf("status %d: %s", status, body)
	}
	if status != http.StatusOK {
		return nil
	}
	if want := `{"code":200,"data":null,"message":"success"}`; body != want {
		return fmt.Errorf("body %s, want %s", body, want)
	}
	sc.last[wallet] = answer.Get("X-Deposit-Position")
	return nil
}

// stream WALLET AMOUNT [key=K] [status=N] [replayed] / …: posts all in one
// request and notes the positions.
func (sc *scenario) stream(args []string) error {
	type want struct {
		wallet   string
		status   int
		replayed bool
	}
	var body strings.Builder
	var wants []want
	for each := range strings.SplitSeq(strings.Join(args, " "), " / ") {
		words := strings.Fields(each)
		w := want{wallet: words[0] + sc.suffix, status: http.StatusOK}
		fmt.Fprintf(&body, `{"wallet_id":%q,"amount":%s`, w.wallet, words[1])
		for _, a := range words[2:] {
			if k, ok := strings.CutPrefix(a, "key="); ok {
				fmt.Fprintf(&body, `,"idempotency_key":%q`, k)
			}
			if n, ok := strings.CutPrefix(a, "status="); ok {
				w.status, _ = strconv.Atoi(n)
			}
			w.replayed = w.replayed || a == "replayed"
		}
		body.WriteString("}\n")
		wants = append(wants, w)
	}
	status, text := sc.do(http.MethodPost, "api", "/api/deposits", body.String(), nil)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if status != http.StatusOK || len(lines) != len(wants) {
		return fmt.Errorf("%d %s", status, text)
	}
	for i, w := range wants {
		got := struct {
			Line, Code int
			Position   string
			Replayed   bool
		}{Code: http.StatusOK}
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil {
			return err
		}
		if got.Line != i+1 || got.Code != w.status || got.Replayed != w.replayed || (got.Position == "") != (w.status != http.StatusOK) {
			return errors.New(lines[i])
		}
		if got.Position != "" {
			sc.last[w.wallet] = got.Position
		}
	}
	return nil
}

// stream-of COUNT WALLET AMOUNT: so many alike.
func (sc *scenario) streamOf(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	each := args[1] + " " + args[2]
	return sc.stream(strings.Fields(each + strings.Repeat(" / "+each, n-1)))
}

// check WALLET BALANCE true|false: reads its own writes.
func (sc *scenario) check(args []string) error {
	wallet := args[0] + sc.suffix
	header := http.Header{}
	if p := sc.last[wallet]; p != "" {
		header.Set("X-Deposit-Position", p)
	}
	want := fmt.Sprintf(`{"wallet_id":%q,"balance":%s,"above_threshold":%s}`, wallet, args[1], args[2])
	var got string
	for end := time.Now().Add(deadline); time.Now().Before(end); {
		status, body := sc.get("api", "/api/check/"+wallet, header)
		if status == http.StatusOK && body == want {
			return nil
		}
		got = fmt.Sprintf("%d %s", status, body)
		// A position says that the answer has everything; only what an operator
		// did, or a restart, may take a moment to show.
		if status == http.StatusOK && !sc.settling {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("got %s, want %s", got, want)
}

// flag WALLET raise|remove: as the operator does.
func (sc *scenario) flag(args []string) error {
	cfg, err := config.Load("", sc.env)
	if err != nil {
		return err
	}
	var out lockedBuffer
	rt, err := app.New(cfg, app.Options{Stdout: &out, Now: sc.clock.now})
	if err != nil {
		return err
	}
	wallet := args[0] + sc.suffix
	err = rt.Run(context.Background(), app.Command{Service: "flag", Wallet: wallet, Remove: args[1] == "remove"})
	if err != nil {
		return err
	}
	want := ": flagged ("
	if args[1] == "remove" {
		want = ": not flagged ("
	}
	if !strings.Contains(out.String(), want) {
		return fmt.Errorf("printed %q", out.String())
	}
	return nil
}

// again WALLET: the wallet's last deposit stands in the log a second time.
func (sc *scenario) again(args []string) error {
	wallet := args[0] + sc.suffix
	partition, offset, _ := strings.Cut(sc.last[wallet], ":")
	p, _ := strconv.ParseInt(partition, 10, 32)
	o, _ := strconv.ParseInt(offset, 10, 64)
	rec := sc.raw.at(string(stream.DepositStream), int32(p), o)
	copied := &kgo.Record{Topic: rec.Topic, Partition: rec.Partition, Key: rec.Key, Value: rec.Value}
	sc.raw.produce(copied)
	sc.last[wallet] = fmt.Sprintf("%d:%d", copied.Partition, copied.Offset)
	return nil
}

// poison TOPIC key=K|nokey value=HEX|novalue partition=P reason=WORDS…: goes
// straight to the topic, and to its dead letter topic unchanged.
func (sc *scenario) poison(args []string) error {
	topic, rec, reason := args[0], &kgo.Record{Topic: args[0]}, ""
	for i, a := range args[1:] {
		name, v, _ := strings.Cut(a, "=")
		switch name {
		case "key":
			rec.Key = []byte(v)
		case "value":
			b, err := hex.DecodeString(v)
			if err != nil {
				return err
			}
			rec.Value = append([]byte{}, b...)
		case "partition":
			p, _ := strconv.Atoi(v)
			rec.Partition = int32(p)
		case "reason":
			reason = strings.Join(append([]string{v}, args[i+2:]...), " ")
		}
		if reason != "" {
			break
		}
	}
	rec.Headers = []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "b", Value: nil}, {Key: "a", Value: []byte("2")}}
	sc.raw.produce(rec)
	sc.eventually("dead letter of "+strings.Join(args, " "), func() error {
		for _, d := range sc.raw.read(topic + "_dead_letter") {
			h := make(map[string]string)
			for _, x := range d.Headers {
				h[x.Key] = string(x.Value)
			}
			if h["dead-letter-partition"] != strconv.Itoa(int(rec.Partition)) || h["dead-letter-offset"] != strconv.FormatInt(rec.Offset, 10) {
				continue
			}
			if string(d.Value) != string(rec.Value) || (d.Value == nil) != (rec.Value == nil) || string(d.Key) != string(rec.Key) {
				sc.t.Errorf("dead letter %q=%x differs from %q=%x", d.Key, d.Value, rec.Key, rec.Value)
			}
			for i, x := range rec.Headers {
				if d.Headers[i].Key != x.Key || string(d.Headers[i].Value) != string(x.Value) {
					sc.t.Errorf("header %d is %v, want %v", i, d.Headers[i], x)
				}
			}
			if !strings.Contains(h["dead-letter-reason"], reason) || h["dead-letter-topic"] != topic {
				sc.t.Errorf("headers %v, want reason %q", h, reason)
			}
			return nil
		}
		return fmt.Errorf("not there")
	})
	return nil
}

// restart SERVICE…
func (sc *scenario) restartVerb(args []string) error {
	sc.restart(args...)
	return nil
}

// rewind GROUP: as if nothing had ever been committed.
func (sc *scenario) rewindVerb(args []string) error {
	topic := stream.DepositStream
	if args[0] == string(stream.FlaggerGroup) {
		topic = stream.FlagWalletStream
	}
	sc.stop(args[0])
	sc.raw.rewind(args[0], string(topic))
	sc.start(args[0])
	return nil
}

// lose-state SERVICE: its disk is gone.
func (sc *scenario) loseStateVerb(args []string) error {
	sc.stop(args[0])
	name := args[0]
	if name == "api" {
		name = "view-*"
	}
	sc.loseState(name)
	sc.start(args[0])
	return nil
}
