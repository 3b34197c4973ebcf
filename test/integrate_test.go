//go:build kafka

package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"coinbit/internal/kafkatest/child"
)

// consumerProgram is an example of docs/integrate.md: how it is started, without its flags.
type consumerProgram struct {
	argv  []string
	dash  string // before a flag's name
	never string // a -commit-every that does not come
	often string
	env   []string
}

// TestIntegrate runs both consumers of docs/integrate.md. Each is killed between
// the effect and the commit: nothing is lost and nothing is there twice.
func TestIntegrate(t *testing.T) {
	const period = 500 * time.Millisecond
	f := newFleet(t, bootstrap, "ROLLING_PERIOD="+period.String())
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	for name, program := range map[string]consumerProgram{"go": goConsumer(t), "python": pythonConsumer(t)} {
		t.Run(name, func(t *testing.T) {
			x := &integration{
				t: t, fleet: f, program: program, api: newClient(t, f.addr["api"]), oracle: newOracle(t, strings.Split(bootstrap, ",")),
				wallet: "integrate-" + name + "-" + runID, dir: t.TempDir(),
			}
			cross := func() {
				t.Helper()
				x.api.await(t, x.wallet, x.api.mustPost(t, x.wallet, "10001"), state{x.deposited(), true})
			}
			p := x.start(program.never)
			cross()
			x.await("raised")
			x.remove()
			x.await("raised removed")
			pause(period) // the window moves on, so that the next deposit crosses again
			cross()
			x.await("raised removed raised")
			p.Kill() // the effect is there, and no offset is committed
			if at := x.committed(); len(at) > 0 {
				t.Fatalf("committed at %v: killed too late", at)
			}
			x.tear()
			x.remove()
			x.operator(": flagged")
			x.remove()
			x.sendAgain() // all of it, under new offsets
			pause(period)
			cross()
			p = x.start(program.often)
			x.await("raised removed raised removed raised removed raised")
			x.sendAgain()
			x.awaitCommitted()
			x.await("raised removed raised removed raised removed raised")
			if err := p.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if !p.Wait(20*time.Second) || p.ExitCode() != 0 {
				t.Errorf("exit code %d after SIGTERM", p.ExitCode())
			}
		})
	}
}

func goConsumer(t *testing.T) consumerProgram {
	t.Helper()
	program := filepath.Join(t.TempDir(), "consumer")
	build := exec.Command("go", "build", "-race=false", "-o", program, "./docs/integrate/go/consumer")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return consumerProgram{argv: []string{program}, dash: "-", never: "1h", often: "50ms"}
}

// pythonConsumer has an environment of its own below .cache, one for each state of
// requirements.txt.
func pythonConsumer(t *testing.T) consumerProgram {
	t.Helper()
	dir, err := filepath.Abs("../docs/integrate/python")
	if err != nil {
		t.Fatal(err)
	}
	wanted := readRepo(t, "docs/integrate/python/requirements.txt")
	venv, err := filepath.Abs(fmt.Sprintf("../.cache/integrate-python-%x", sha256.Sum256([]byte(wanted)))[:40])
	if err != nil {
		t.Fatal(err)
	}
	python := filepath.Join(venv, "bin", "python")
	generated := t.TempDir()
	command := func(name string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	complete := filepath.Join(venv, "complete")
	if _, err := os.Stat(complete); err != nil {
		command("python3", "-m", "venv", "--clear", venv)
		command(python, "-m", "pip", "install", "-q", "--require-hashes", "-r", filepath.Join(dir, "requirements.txt"))
		if err := os.WriteFile(complete, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command("protoc", "-I", "proto", "--python_out="+generated, "flag.proto")
	return consumerProgram{
		argv: []string{python, filepath.Join(dir, "consumer.py")}, dash: "--", never: "3600", often: "0.05",
		env: []string{"PYTHONPATH=" + generated, "PYTHONDONTWRITEBYTECODE=1"},
	}
}

type integration struct {
	t       *testing.T
	fleet   *fleet
	program consumerProgram
	api     *client
	oracle  *oracle
	wallet  string
	dir     string
	posted  int64
	said    output
}

func (x *integration) journal() string { return filepath.Join(x.dir, "flags.ndjson") }

// deposited is what the wallet holds after one more deposit of 10001.
func (x *integration) deposited() int64 {
	x.posted += 10001 * nano
	return x.posted
}

func (x *integration) start(commitEvery string) *child.Process {
	x.t.Helper()
	args := slices.Clone(x.program.argv[1:])
	for _, flag := range [][2]string{
		{"brokers", bootstrap}, {"group", x.wallet}, {"journal", x.journal()}, {"commit-every", commitEvery},
	} {
		args = append(args, x.program.dash+flag[0], flag[1])
	}
	cmd := exec.Command(x.program.argv[0], args...)
	cmd.Env = append(os.Environ(), x.program.env...)
	cmd.Stdout, cmd.Stderr = &x.said, &x.said
	p, err := child.Start(cmd)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() {
		p.Kill()
		if x.t.Failed() {
			x.t.Logf("the consumer said:\n%s", x.said.tail(25))
		}
	})
	return p
}

// effects are those in the journal on the wallet's flag.
func (x *integration) effects() string {
	x.t.Helper()
	text, err := os.ReadFile(x.journal())
	if err != nil && !os.IsNotExist(err) {
		x.t.Fatal(err)
	}
	var all []string
	for line := range bytes.Lines(text) {
		var e struct{ Wallet, Effect string }
		if err := json.Unmarshal(line, &e); err == nil && e.Wallet == x.wallet && e.Effect != "" {
			all = append(all, e.Effect)
		}
	}
	return strings.Join(all, " ")
}

func (x *integration) await(want string) {
	x.t.Helper()
	if !eventually(60*time.Second, func() bool { return len(x.effects()) >= len(want) }) || x.effects() != want {
		x.t.Fatalf("effects %q, want %q", x.effects(), want)
	}
}

func (x *integration) remove() {
	x.t.Helper()
	x.operator(": not flagged", "-remove")
}

// operator raises the flag by hand, or removes it.
func (x *integration) operator(want string, flags ...string) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"-service=flag", "-wallet", x.wallet}, flags...)...)
	cmd.Dir, cmd.Env = x.fleet.dir, x.fleet.env
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), x.wallet+want) {
		x.t.Fatalf("%v\n%s", err, out)
	}
}

// tear leaves the beginning of a line, as a crash does in the midst of a write.
func (x *integration) tear() {
	x.t.Helper()
	f, err := os.OpenFile(x.journal(), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString(`{"wallet": "` + x.wallet)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		x.t.Fatal(err)
	}
}

// mine are the wallet's records on flag_wallet.
func (x *integration) mine() (records []*kgo.Record) {
	x.t.Helper()
	all, err := x.oracle.read("flag_wallet", nil)
	if err != nil {
		x.t.Fatal(err)
	}
	for _, r := range all {
		if string(r.Key) == x.wallet {
			records = append(records, r)
		}
	}
	if len(records) == 0 {
		x.t.Fatal("no flag events of the wallet")
	}
	return records
}

// sendAgain sends all flag events of the wallet once more, as they are.
func (x *integration) sendAgain() {
	x.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(x.oracle.seeds...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		x.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := x.oracle.ctx()
	defer cancel()
	for _, r := range x.mine() {
		again := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value}
		if err := cl.ProduceSync(ctx, again).FirstErr(); err != nil {
			x.t.Fatal(err)
		}
	}
}

// committed is the group's offset on each partition that has one.
func (x *integration) committed() map[int32]int64 {
	x.t.Helper()
	ctx, cancel := x.oracle.ctx()
	defer cancel()
	offsets, err := x.oracle.admin.FetchOffsets(ctx, x.wallet)
	if err != nil {
		x.t.Fatal(err)
	}
	at := map[int32]int64{}
	for _, o := range offsets["flag_wallet"] {
		if o.At >= 0 {
			at[o.Partition] = o.At
		}
	}
	return at
}

// awaitCommitted waits until everything on the wallet's partition is taken.
func (x *integration) awaitCommitted() {
	x.t.Helper()
	records := x.mine()
	last := records[len(records)-1]
	if !eventually(60*time.Second, func() bool { return x.committed()[last.Partition] > last.Offset }) {
		x.t.Fatalf("committed at %v, the last record is %d:%d", x.committed(), last.Partition, last.Offset)
	}
}
