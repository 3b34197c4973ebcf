package test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"coinbit/internal/kafkatest/child"
)

// Every service of the suite, in the order deposits reach them.
var services = []string{"api", "balance", "threshold", "flagger"}

// ownSettings keeps what the caller's environment may hold out of the tests: an
// empty setting counts as unset.
var ownSettings = []string{
	"PARTITIONS=", "REPLICATION_FACTOR=", "THRESHOLD_AMOUNT=", "ROLLING_PERIOD=", "DATA_DIR=",
	"ADMIN_PORT=", "PORT=", "LOG_LEVEL=", "LOG_FORMAT=", "API_KEYS=", "RATE_LIMIT=",
}

// environ is the environment without what only tests read, and is close to a setting.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "BROKERS=") })
}

// output collects what a process prints and keeps its end.
type output struct {
	mu   sync.Mutex
	last []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = append(o.last, p...)
	o.last = o.last[max(0, len(o.last)-1<<16):]
	return len(p), nil
}

func (o *output) all() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.last)
}

// tail is the last n lines.
func (o *output) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := bytes.SplitAfter(o.last, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-1-n):], nil))
}

// fleet is the services of one test: processes on one Kafka, with one state
// directory and fixed addresses, so that one that is started again is found
// where it was.
type fleet struct {
	t     *testing.T
	dir   string
	env   []string
	addr  map[string]string
	mu    sync.Mutex
	procs map[string]*child.Process
	logs  map[string]*output
}

// proc is the latest process of an instance, nil before the first.
func (f *fleet) proc(name string) *child.Process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.procs[name]
}

// newFleet prepares the services on the Kafka at broker; nothing runs yet. env
// goes before the defaults. When the test ends, so does what still runs.
func newFleet(t *testing.T, broker string, env ...string) *fleet {
	t.Helper()
	f := &fleet{
		t: t, dir: t.TempDir(), addr: map[string]string{},
		procs: map[string]*child.Process{}, logs: map[string]*output{},
	}
	f.env = slices.Concat(environ(), ownSettings, []string{"BROKER=" + broker, "STATE_DIR=" + f.dir}, env)
	for _, s := range services {
		f.addr[s] = freeAddr(t)
		f.logs[s] = &output{}
	}
	t.Cleanup(f.stop)
	return f
}

func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// start starts a service, also one that was killed before.
func (f *fleet) start(names ...string) {
	f.t.Helper()
	for _, name := range names {
		setting := "ADMIN_PORT="
		if name == "api" {
			setting = "PORT="
		}
		f.launch(name, setting+f.addr[name])
	}
}

func (f *fleet) launch(name string, env ...string) {
	f.t.Helper()
	f.launchAs(binary, name, name, env...)
}

// launchAs is launch for one of several instances of a service, and for any build.
func (f *fleet) launchAs(program, name, service string, env ...string) {
	f.t.Helper()
	cmd := exec.Command(program, "-service="+service)
	cmd.Dir = f.dir // no config.env there
	cmd.Env = append(slices.Clone(f.env), env...)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.logs[name] == nil {
		f.logs[name] = &output{}
	}
	cmd.Stdout, cmd.Stderr = f.logs[name], f.logs[name]
	p, err := child.Start(cmd)
	if err != nil {
		f.t.Fatal(err)
	}
	f.procs[name] = p
}

// awaitReady waits until the services answer /readyz with 200.
func (f *fleet) awaitReady(limit time.Duration, names ...string) {
	f.t.Helper()
	for _, name := range names {
		last := "nothing yet"
		ok := eventually(limit, func() bool {
			if !f.proc(name).Running() {
				f.t.Fatalf("%s ended while it was to become ready: %v\n%s", name, f.proc(name).Err(), f.logs[name].tail(25))
			}
			var ready bool
			ready, last = f.ready(name)
			return ready
		})
		if !ok {
			f.t.Fatalf("%s is not ready after %v: %s\n%s", name, limit, last, f.logs[name].tail(25))
		}
	}
}

func (f *fleet) ready(name string) (ok bool, body string) {
	res, err := probes.Get("http://" + f.addr[name] + "/readyz")
	if err != nil {
		return false, err.Error()
	}
	b, err := readAll(res)
	if err != nil {
		return false, err.Error()
	}
	return res.StatusCode == http.StatusOK, fmt.Sprintf("%d %s", res.StatusCode, b)
}

// kill9 ends a service as kill -9 does.
func (f *fleet) kill9(name string) { f.proc(name).Kill() }

// term sends SIGTERM and returns how long the service took to end and its exit
// code. One that has not ended within limit is an error and is killed.
func (f *fleet) term(name string, limit time.Duration) (took time.Duration, code int) {
	p := f.proc(name)
	began := time.Now()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		f.t.Errorf("%s: %v", name, err)
	}
	if !p.Wait(limit) {
		f.t.Errorf("%s still runs %v after SIGTERM\n%s", name, limit, f.logs[name].tail(25))
		p.Kill()
	}
	return time.Since(began), p.ExitCode()
}

// verify folds the logs anew and compares every row, as -service=verify.
func (f *fleet) verify() (text string, ok bool) { return f.command(nil, "-service=verify") }

// command runs the program until it ends by itself, with env over the fleet's own.
func (f *fleet) command(env []string, args ...string) (text string, ok bool) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir, cmd.Env = f.dir, append(slices.Clone(f.env), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// mustVerify expects that no row differs.
func (f *fleet) mustVerify() {
	f.t.Helper()
	text, ok := f.verify()
	f.t.Logf("verify: %.2000s", strings.TrimSpace(text))
	if !ok {
		f.t.Error("verify found differences")
	}
}

// stop ends everything, all at once, and shows the logs of a failed test.
func (f *fleet) stop() {
	var wg sync.WaitGroup
	for _, p := range f.procs {
		wg.Go(func() { p.Stop(15 * time.Second) })
	}
	wg.Wait()
	if f.t.Failed() {
		for name, log := range f.logs {
			f.t.Logf("the log of %s ends:\n%s", name, log.tail(25))
		}
	}
}

// eventually asks ok again and again until it holds, at most for limit.
func eventually(limit time.Duration, ok func() bool) bool {
	deadline := time.Now().Add(limit)
	for {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		pause(50 * time.Millisecond)
	}
}

// pause lets real time pass: between two looks at a condition, or because the
// passing of time is what a test is about.
func pause(d time.Duration) { <-time.After(d) }
