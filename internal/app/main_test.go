package app

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lovoo/goka/storage"
	"go.uber.org/goleak"

	"coinbit/internal/out"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Kept connections of the tests' HTTP client.
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		// LevelDB's, which ends within a second after Close.
		goleak.IgnoreAnyFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"))
}

// deadline bounds every wait.
const deadline = 60 * time.Second

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for end := time.Now().Add(deadline); ; time.Sleep(5 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// freeAddr is an address where nothing listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"", exitUsage, []string{"coinbit: -service is missing, takes all, api, balance, threshold, flagger, ", "health; -h for help\n"}},
		{"-service=nonsense", exitUsage, []string{`"nonsense"`, "takes all, api"}},
		{"-service=broker", exitUsage, []string{"-broker_name"}},
		{"-service=broker -broker_name=api", exitUsage, []string{"balance, flagger or threshold"}},
		{"-service=api -broker_name=balance", exitUsage, []string{"-broker_name goes with"}},
		{"-service=flag", exitUsage, []string{"-wallet is missing"}},
		{"-service=api -remove", exitUsage, []string{"goes with -service=flag"}},
		{"-service=api -acls", exitUsage, []string{"goes with -service=topics"}},
		{"-service=topics -principal User:%s", exitUsage, []string{"-principal goes with -acls"}},
		{"-service=topics -acls -principal User:x", exitUsage, []string{"-principal", "%s"}},
		{"-service=api -rate 5", exitUsage, []string{"-rate goes with -service=loadgen"}},
		{"-service=loadgen -wallet w", exitUsage, []string{"goes with -service=flag"}},
		{"-service=whatif", exitUsage, []string{"-rule are missing", "5000/10m"}},
		{"-service=whatif -threshold 5,000", exitUsage, []string{`-threshold: got "5,000", takes a decimal`}},
		{"-service=whatif -period 10", exitUsage, []string{`-period: got "10", takes a duration`}},
		{"-service=whatif -rule 5000", exitUsage, []string{`-rule: got "5000", takes AMOUNT/PERIOD`}},
		{"-service=whatif -rule 0/10m", exitUsage, []string{`-rule: got "0", takes a decimal above 0`}},
		{"-service=whatif -rule 1/0s", exitUsage, []string{`-rule: got "0s", takes a duration`}},
		{"-service=whatif -period 10m -from yesterday", exitUsage, []string{`-from: got "yesterday", takes an RFC 3339 time`}},
		{"-service=whatif -period 10m -from 2026-02-01T00:00:00Z -to 2026-01-01T00:00:00Z", exitUsage, []string{"-from: got 2026-02-01T00:00:00Z, which is not before -to 2026-01-01T00:00:00Z"}},
		{"-service=whatif -period 10m -from 2026-01-31T00:00:00.0000000001Z", exitUsage, []string{"-from: got", "takes an RFC 3339 time"}},
		{"-service=statement -wallet w -at=", exitUsage, []string{"-at: got nothing, takes a value"}},
		{"-service=whatif -period 10m -to=", exitUsage, []string{"-to: got nothing, takes a value"}},
		{"-service=whatif -rule=", exitUsage, []string{"-rule: got nothing, takes a value"}},
		{"-service=flag -wallet=", exitUsage, []string{"-wallet: got nothing, takes a value"}},
		{"-service=whatif -period 10m -csv -json", exitUsage, []string{"-csv and -json: takes one of them"}},
		{"-service=whatif" + manyRules(17), exitUsage, []string{"-rule: got 17 rules, takes up to 16"}},
		{"-service=whatif -h", exitOK, []string{"-rule AMOUNT/PERIOD", "coinbit -service=whatif -rule 5000/2m -rule 5000/10m"}},
		{"-service=statement", exitUsage, []string{"-wallet is missing"}},
		{"-service=statement -wallet .bad", exitUsage, []string{"-wallet: wallet_id must be"}},
		{"-service=statement -wallet w -at 1969-12-31T23:59:59Z", exitUsage, []string{`-at: got "1969-12-31T23:59:59Z", takes`}},
		{"-service=statement -wallet w -csv -json", exitUsage, []string{"-csv and -json: takes one of them"}},
		{"-service=statement -wallet w -rule 5000/10m", exitUsage, []string{"-rule goes with -service=whatif"}},
		{"-service=statement -h", exitOK, []string{"-at TIME", "coinbit -service=statement -wallet 69da5a28 -csv >statement.csv"}},
		{"-service=deadletter -csv", exitUsage, []string{"-csv goes with -service=whatif and -service=statement"}},
		{"-service=deadletter -h", exitOK, []string{"coinbit -service=deadletter -json"}},
		{"-csv -wallet=w -service=statement=x", exitUsage, []string{"-service: got"}},
		{"-service=loadgen -h", exitOK, []string{"-zipf", "all alike", "default 64"}},
		{"-service=loadgen -rate -5", exitUsage, []string{"-rate: got -5, takes"}},
		{"-service=loadgen -checks 1 -deposits 5", exitUsage, []string{"-deposits: there are none"}},
		{"-service=loadgen -amount 5..1", exitUsage, []string{`-amount: got "5..1", takes`}},
		{"-service=loadgen -target here", exitUsage, []string{`-target: got "here", takes HOST:PORT`}},
		{"-service=api more", exitUsage, []string{`"more"`}},
		{"-bogus", exitUsage, []string{"-bogus"}},
		{"-h", exitOK, []string{"-service=all", "STATE_DIR"}},
		{"-service=flag -h", exitOK, []string{"-remove"}},
		{"-service=flag -wallet .bad", exitUsage, []string{"-wallet", "wallet_id"}},
	} {
		var stderr syncBuffer
		if code := Main(context.Background(), strings.Fields(c.args), nil, io.Discard, &stderr); code != c.code {
			t.Errorf("%q: exit %d, want %d", c.args, code, c.code)
		}
		for _, s := range c.says {
			if !strings.Contains(stderr.String(), s) {
				t.Errorf("%q does not say %q:\n%s", c.args, s, stderr.String())
			}
		}
	}
}

func TestMisspelledSettingIsSaid(t *testing.T) {
	var stderr syncBuffer
	Main(context.Background(), []string{"-service=statement", "-wallet", ".bad"}, []string{"TRESHOLD_AMOUNT=5", "PATH=/bin", "PORT=1"}, io.Discard, &stderr)
	if text := stderr.String(); strings.Count(text, "did you mean") != 1 || !strings.Contains(text, "did you mean THRESHOLD_AMOUNT?") {
		t.Error(text)
	}
}

func manyRules(n int) (args string) {
	for i := range n {
		args += fmt.Sprintf(" -rule %d/10m", i+1)
	}
	return args
}

// A question that cannot be asked is one line.
func TestBadQuestionsAreOneLine(t *testing.T) {
	for _, args := range []string{"-service=whatif -rule x", "-service=whatif -period 10m -to x", "-service=statement -wallet w -at x"} {
		var stderr syncBuffer
		code := Main(context.Background(), strings.Fields(args), nil, io.Discard, &stderr)
		if said := stderr.String(); code != exitUsage || strings.Count(said, "\n") != 1 {
			t.Errorf("%q: exit %d, says %q", args, code, said)
		}
	}
}

// A flag that several services have takes a value in all of them or in none, so that
// either can read a command line; and -h of each names its own flags.
func TestFlagsOfServices(t *testing.T) {
	isBool := func(f *flag.Flag) bool {
		b, ok := f.Value.(interface{ IsBoolFlag() bool })
		return ok && b.IsBoolFlag()
	}
	all, owners := allFlags()
	for _, s := range services() {
		var help bytes.Buffer
		usage(&help, s.name)
		s.flagSet(new(Command)).VisitAll(func(f *flag.Flag) {
			if isBool(f) != isBool(all.Lookup(f.Name)) || f.Usage == "" || f.Name == "service" {
				t.Errorf("-service=%s has -%s: %q", s.name, f.Name, f.Usage)
			}
			if !slices.Contains(owners[f.Name], s.name) || !strings.Contains(help.String(), "\n  -"+f.Name) {
				t.Errorf("-service=%s -h does not say -%s:\n%s", s.name, f.Name, &help)
			}
		})
		if !strings.Contains(help.String(), s.example) || s.run == nil && s.name != "broker" {
			t.Errorf("-service=%s", s.name)
		}
	}
}

func TestBadSettings(t *testing.T) {
	for env, says := range map[string]string{
		"PARTITIONS=0":                    "PARTITIONS",
		"ROLLING_PERIOD=2":                "ROLLING_PERIOD",
		"KAFKA_TLS_CA=/does/not/exist":    "KAFKA_TLS_CA",
		"THRESHOLD_AMOUNT=ten":            "THRESHOLD_AMOUNT",
		"KAFKA_SASL_MECHANISM=CARRIER":    "KAFKA_SASL_MECHANISM",
		"STATE_DIR=/proc/none":            "STATE_DIR",
		"KAFKA_SASL_MECHANISM=SCRAM-SHA-": "KAFKA_SASL_MECHANISM",
	} {
		var stderr syncBuffer
		addr := freeAddr(t)
		code := Main(context.Background(), []string{"-service=all"},
			[]string{"BROKER=" + addr, "PORT=0", "DATA_DIR=" + t.TempDir(), env}, io.Discard, &stderr)
		if last := lastLine(stderr.String()); code != exitUsage || !strings.Contains(last, says) {
			t.Errorf("%s: exit %d, says %q", env, code, last)
		}
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// instance is -service=all in this process, as Main runs it.
type instance struct {
	stop   context.CancelFunc
	code   chan int
	stderr *syncBuffer
	api    string
}

func startAll(t *testing.T, env ...string) *instance {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	i := &instance{stop: cancel, code: make(chan int, 1), stderr: &syncBuffer{}, api: freeAddr(t)}
	go func() {
		i.code <- Main(ctx, []string{"-service=all"}, append([]string{"PORT=" + i.api, "PARTITIONS=2"}, env...), io.Discard, i.stderr)
	}()
	eventually(t, "ready", func() error {
		select {
		case code := <-i.code:
			t.Fatalf("ended with %d:\n%s", code, i.stderr)
		default:
		}
		res, err := http.Get("http://" + i.api + "/readyz")
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", body)
		}
		return nil
	})
	return i
}

func (i *instance) end(t *testing.T) {
	t.Helper()
	i.stop()
	select {
	case code := <-i.code:
		if code != exitOK {
			t.Errorf("exit %d:\n%s", code, i.stderr)
		}
	case <-time.After(deadline):
		t.Fatal("does not end")
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body)
	return string(b)
}

// recoveryLeft is what the dashboard shows of each partition.
func recoveryLeft(t *testing.T, metrics string) (left []string) {
	t.Helper()
	reached := make(map[string]string)
	for line := range strings.Lines(metrics) {
		if labels, value, ok := strings.Cut(strings.TrimPrefix(line, "coinbit_recovery_offset"), " "); ok && strings.HasPrefix(line, "coinbit_recovery_offset") {
			reached[labels] = value
		}
	}
	for line := range strings.Lines(metrics) {
		labels, value, ok := strings.Cut(strings.TrimPrefix(line, "coinbit_recovery_target_offset"), " ")
		if !ok || !strings.HasPrefix(line, "coinbit_recovery_target_offset") {
			continue
		}
		to, err := strconv.Atoi(strings.TrimSpace(value))
		from, err2 := strconv.Atoi(strings.TrimSpace(reached[labels]))
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		left = append(left, strconv.Itoa(to-from))
	}
	return left
}

// TestAll: one process is enough, another one uses its broker, and everything is
// there after a restart.
func TestAll(t *testing.T) {
	addr, data, state := freeAddr(t), t.TempDir(), t.TempDir()
	env := []string{"BROKER=" + addr, "DATA_DIR=" + data, "STATE_DIR=" + state}
	first := startAll(t, env...)
	res, err := http.Post("http://"+first.api+"/api/deposit", "", strings.NewReader(`{"wallet_id":"a","amount":0.3}`))
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", res, err)
	}
	_ = res.Body.Close()
	check := func(i *instance) {
		t.Helper()
		eventually(t, "the balance", func() error {
			if got := get(t, "http://"+i.api+"/api/check/a"); got != `{"wallet_id":"a","balance":0.3,"above_threshold":false}` {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
	}
	check(first)
	metrics := get(t, "http://"+first.api+"/metrics")
	for _, name := range []string{
		`coinbit_deposits_total{result="accepted"} 1`, "coinbit_http_request_seconds", `coinbit_messages_total{group="balance",verdict="applied"} 1`,
		"coinbit_apply_delay_seconds", "coinbit_lag_messages", "coinbit_recovery_offset", "coinbit_recovery_target_offset",
		"coinbit_stale_rows_total", "go_goroutines",
	} {
		if !strings.Contains(metrics, name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	second := startAll(t, env...)
	if !strings.Contains(second.stderr.String(), "a Kafka answers already, using it") {
		t.Error("the second instance does not say whose broker it uses")
	}
	check(second)
	var out syncBuffer
	if code := Main(context.Background(), []string{"-service=flag", "-wallet", "a"}, env, &out, io.Discard); code != exitOK ||
		!strings.HasPrefix(out.String(), "a: flagged (flag_wallet ") {
		t.Errorf("exit %d, printed %q", code, &out)
	}
	eventually(t, "the first instance is ready again, with the partitions that the second left it", func() error {
		if code := Main(context.Background(), []string{"-service=health"}, []string{"PORT=" + first.api}, &out, io.Discard); code != exitOK {
			return fmt.Errorf("health: exit %d", code)
		}
		return nil
	})
	second.end(t)
	first.end(t)
	if code := Main(context.Background(), []string{"-service=health"}, []string{"PORT=" + first.api}, &out, io.Discard); code != exitFailed {
		t.Errorf("health of nothing: exit %d", code)
	}
	again := startAll(t, env...)
	if left := recoveryLeft(t, get(t, "http://"+again.api+"/metrics")); len(left) < 3 || strings.Trim(strings.Join(left, ""), "0") != "" {
		t.Errorf("recovery has left %v", left)
	}
	defer again.end(t)
	eventually(t, "everything is there again", func() error {
		if got := get(t, "http://"+again.api+"/api/check/a"); got != `{"wallet_id":"a","balance":0.3,"above_threshold":true}` {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

// TestPortTaken: what is no Kafka on BROKER's port is an error, not a guess.
func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	var stderr syncBuffer
	code := Main(context.Background(), []string{"-service=all"},
		[]string{"BROKER=" + ln.Addr().String(), "PORT=0", "DATA_DIR=" + t.TempDir(), "STATE_DIR=" + t.TempDir()}, io.Discard, &stderr)
	if code != exitFailed || !strings.Contains(stderr.String(), "BROKER") {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}

// TestWithoutKafka: a service waits for Kafka, says so once, and ends in time.
func TestWithoutKafka(t *testing.T) {
	for _, name := range []string{"api", "balance"} {
		ctx, cancel := context.WithCancel(context.Background())
		var stderr syncBuffer
		code := make(chan int, 1)
		env := []string{"BROKER=" + freeAddr(t), "PORT=0", "STATE_DIR=" + t.TempDir()}
		go func() { code <- Main(ctx, []string{"-service=" + name}, env, io.Discard, &stderr) }()
		eventually(t, "the line", func() error {
			if !strings.Contains(stderr.String(), "kafka is away, waiting for it") {
				return fmt.Errorf("%s", &stderr)
			}
			return nil
		})
		began := time.Now()
		cancel()
		select {
		case c := <-code:
			if c != exitFailed || time.Since(began) > 10*time.Second {
				t.Errorf("%s: exit %d after %s", name, c, time.Since(began))
			}
		case <-time.After(deadline):
			t.Fatalf("%s does not end", name)
		}
	}
}

func TestRunBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	stuck := make(chan struct{})
	defer close(stuck)
	began := time.Now()
	if err := runBounded(ctx, func() error { <-stuck; return nil }); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// rowsInMemory is as much of a storage as updater needs.
type rowsInMemory struct {
	storage.Storage
	m map[string][]byte
}

func (r rowsInMemory) Get(k string) ([]byte, error)   { return r.m[k], nil }
func (r rowsInMemory) Set(k string, v []byte) error   { r.m[k] = v; return nil }
func (r rowsInMemory) Has(k string) (bool, error)     { return r.m[k] != nil, nil }
func (r rowsInMemory) GetOffset(int64) (int64, error) { return 0, nil }

func TestAppendRefuses(t *testing.T) {
	d := &deposits{Runtime: &Runtime{log: slog.New(slog.DiscardHandler)}}
	if err := d.ready(); err == nil {
		t.Error("ready without an emitter")
	}
	if _, err := d.Append(context.Background(), nil, nil); err == nil || !strings.Contains(err.Error(), "kafka is away") {
		t.Errorf("%v", err)
	}
	if _, err := d.partition("w"); err == nil {
		t.Error("a partition without a cluster")
	}
}

// Any command line is a command that names a service and all it needs, or one
// line that says what is wrong.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"-service=all", "-service=broker -broker_name=balance", "-service=flag -wallet w -remove", "-h", "--service api",
		"-service=api more", "-remove=maybe -service=flag", "-service=", "-", "--", "-service=flag -wallet=\n", "-=x", "-service=broker -broker_name=all"} {
		f.Add(strings.ReplaceAll(s, " ", "\x00"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		var said bytes.Buffer
		cmd, err := parse(strings.Split(line, "\x00"), io.Discard)
		if err != nil {
			out.New(&said).F("coinbit: %v\n", err)
			if n := strings.Count(said.String(), "\n"); n != 1 || notPrintable(said.String()) {
				t.Fatalf("not one plain line: %q", &said)
			}
			return
		}
		if _, ok := find(cmd.Service); !ok || cmd.Service == "broker" ||
			(cmd.Service == "flag" || cmd.Service == "statement") != (cmd.Wallet != "") || cmd.Remove && cmd.Service != "flag" {
			t.Fatalf("accepted %+v", cmd)
		}
	})
}

func TestLocal(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:8000": true, "127.9.9.9:0": true, "[::1]:8000": true, "localhost:8000": true,
		":8000": false, "0.0.0.0:8000": false, "[::]:8000": false, "10.0.0.1:8000": false, "coinbit.example:8000": false,
	} {
		if got := local(addr); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

func TestOpenBrokerIsWarnedOf(t *testing.T) {
	for addr, want := range map[string]int{"127.0.0.1:9092": 0, "[::1]:9092": 0, "[::]:9092": 1, "0.0.0.0:9092": 1, "10.0.0.1:9092": 1} {
		rt, log := runtimeOf(t, Options{})
		rt.warnIfOpen(addr)
		if n := strings.Count(log.String(), "open to the network"); n != want {
			t.Errorf("%s: %q", addr, log)
		}
	}
}
