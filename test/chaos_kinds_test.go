//go:build kafka

package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// kind is one kind of fault.
type kind struct {
	group, name string
	// on chooses what the fault is done to; no other fault touches it meanwhile.
	on func(c *chaos, r *rand.Rand) []string
	// hold is how long it lasts, at least and at most.
	hold [2]time.Duration
	// slow ones are left out unless they are asked for by name.
	slow bool
	// brokers is how many are needed.
	brokers int
	run     func(c *chaos, on []string, r *rand.Rand, hold time.Duration)
}

const (
	ms = time.Millisecond
	s  = time.Second
)

// Groups and services of the fleet. Of each there are two instances.
var pairs = []string{"api", "balance", "threshold", "flagger"}

func instances() []string {
	var all []string
	for _, p := range pairs {
		all = append(all, p, p+"-2")
	}
	return all
}

func one(of ...string) func(*chaos, *rand.Rand) []string {
	return func(_ *chaos, r *rand.Rand) []string { return []string{of[r.IntN(len(of))]} }
}

func all(of ...string) func(*chaos, *rand.Rand) []string {
	return func(*chaos, *rand.Rand) []string { return of }
}

func anyInstance(_ *chaos, r *rand.Rand) []string { return one(instances()...)(nil, r) }

func anyGroup(_ *chaos, r *rand.Rand) []string {
	g := pairs[1+r.IntN(3)]
	return []string{g, g + "-2"}
}

func anyBroker(c *chaos, r *rand.Rand) []string {
	return []string{fmt.Sprint("broker-", r.IntN(len(c.kafka.Addrs())))}
}

func allBrokers(c *chaos, _ *rand.Rand) []string {
	var on []string
	for i := range c.kafka.Addrs() {
		on = append(on, fmt.Sprint("broker-", i))
	}
	return on
}

func number0(broker string) int { return int(broker[len(broker)-1] - '0') }

// kinds is every fault the harness knows.
func kinds() []kind {
	return []kind{
		{"process", "kill", anyInstance, [2]time.Duration{0, 1 * s}, false, 1, killed},
		{"process", "kill all", all(instances()...), [2]time.Duration{0, 1 * s}, false, 1, killed},
		{"process", "kill in recovery", anyInstance, [2]time.Duration{50 * ms, 900 * ms}, false, 1, killedInRecovery},
		{"process", "kill api", one("api", "api-2"), [2]time.Duration{0, 300 * ms}, false, 1, killed},
		{"process", "kill before the answer", anyAPIAndNetwork, [2]time.Duration{100 * ms, 800 * ms}, false, 1, killedBeforeAnswer},
		{"process", "terminate", anyInstance, [2]time.Duration{0, 1 * s}, false, 1, terminated},
		{"process", "stop briefly", anyInstance, [2]time.Duration{500 * ms, 4 * s}, false, 1, stopped},
		{"process", "no descriptors", anyInstance, [2]time.Duration{1 * s, 4 * s}, false, 1, noDescriptors},
		{"process", "rolling restart", all(instances()...), [2]time.Duration{0, 200 * ms}, false, 1, rolled},
		{"process", "sleeper", anyGroup, [2]time.Duration{11 * s, 13 * s}, true, 1, sleeper},

		{"broker", "restart", anyBroker, [2]time.Duration{0, 1 * s}, false, 1, brokerRestart},
		{"broker", "kill", anyBroker, [2]time.Duration{0, 1 * s}, false, 1, brokerKill},
		{"broker", "kill controller", allBrokers, [2]time.Duration{0, 1 * s}, false, 3, controllerKill},
		{"broker", "kill coordinator", allBrokers, [2]time.Duration{0, 1 * s}, false, 3, coordinatorKill},
		{"broker", "disk full", anyBroker, [2]time.Duration{2 * s, 5 * s}, false, 1, brokerDiskFull},
		{"broker", "stop", anyBroker, [2]time.Duration{1 * s, 5 * s}, false, 1, brokerStop},
		{"broker", "all down", allBrokers, [2]time.Duration{5 * s, 9 * s}, false, 1, brokersDown},
		{"broker", "all down for 70 s", allBrokers, [2]time.Duration{70 * s, 71 * s}, true, 1, brokersDown},
		{"broker", "too few in sync", allBrokers, [2]time.Duration{3 * s, 6 * s}, false, 3, tooFewInSync},
		{"broker", "leaders move", allBrokers, [2]time.Duration{2 * s, 5 * s}, false, 3, leadersMove},

		{"network", "latency", network0, [2]time.Duration{1 * s, 4 * s}, false, 1, toxic("latency", "downstream", map[string]any{"latency": 150, "jitter": 100})},
		{"network", "black hole to broker", network0, [2]time.Duration{1 * s, 5 * s}, false, 1, toxic("timeout", "upstream", map[string]any{"timeout": 0})},
		{"network", "black hole from broker", network0, [2]time.Duration{1 * s, 5 * s}, false, 1, toxic("timeout", "downstream", map[string]any{"timeout": 0})},
		{"network", "lost acknowledgements", network0, [2]time.Duration{200 * ms, 1 * s}, false, 1, lostAcks},
		{"network", "cut in mid-frame", network0, [2]time.Duration{500 * ms, 2 * s}, false, 1, midFrame},
		{"network", "reset", network0, [2]time.Duration{500 * ms, 2 * s}, false, 1, toxic("reset_peer", "upstream", map[string]any{"timeout": 50})},
		{"network", "1 KB/s", network0, [2]time.Duration{1 * s, 4 * s}, false, 1, toxic("bandwidth", "upstream", map[string]any{"rate": 1})},
		{"network", "corrupt bytes", network0, [2]time.Duration{1 * s, 3 * s}, false, 1, toxic("flip", "upstream", map[string]any{})},
		{"network", "cut off", network0, [2]time.Duration{1 * s, 6 * s}, false, 1, cutOff},

		{"disk", "state deleted", anyInstance, [2]time.Duration{0, 500 * ms}, false, 1, disk(func(dir string, _ *rand.Rand) error { return os.RemoveAll(dir) })},
		{"disk", "state truncated", anyInstance, [2]time.Duration{0, 500 * ms}, false, 1, disk(truncateFiles)},
		{"disk", "bits flipped", anyInstance, [2]time.Duration{0, 500 * ms}, false, 1, disk(flipBits)},
		{"disk", "older copy", anyInstance, [2]time.Duration{1 * s, 3 * s}, false, 1, olderCopy},
		{"disk", "disk full", anyInstance, [2]time.Duration{1 * s, 3 * s}, false, 1, diskFull},
		{"disk", "read-only", anyInstance, [2]time.Duration{1 * s, 3 * s}, false, 1, readOnly},

		{"group", "third comes and goes", anyGroup, [2]time.Duration{3 * s, 5 * s}, false, 1, comesAndGoes},
		{"group", "one state directory", anyGroup, [2]time.Duration{1 * s, 3 * s}, false, 1, oneDirectory},
		{"group", "offsets rewound", anyGroup, [2]time.Duration{0, 1 * s}, false, 1, rewound},

		{"data", "malformed", nowhere, [2]time.Duration{0, 100 * ms}, false, 1, malformed},
		{"data", "twice", nowhere, [2]time.Duration{0, 100 * ms}, false, 1, twice},
		{"data", "late events", nowhere, [2]time.Duration{0, 100 * ms}, false, 1, late},
		{"data", "clock an hour off", nowhere, [2]time.Duration{0, 100 * ms}, false, 1, hourOff},

		{"http", "same request twice", nowhere, [2]time.Duration{0, 100 * ms}, false, 1, sameTwice},
		{"http", "client gone", nowhere, [2]time.Duration{0, 100 * ms}, false, 1, clientGone},
		{"http", "bad bodies", nowhere, [2]time.Duration{0, 100 * ms}, false, 1, badBodies},
		{"http", "slow clients", nowhere, [2]time.Duration{2 * s, 4 * s}, false, 1, slowClients},
	}
}

func nowhere(*chaos, *rand.Rand) []string { return nil }

func anyAPIAndNetwork(_ *chaos, r *rand.Rand) []string {
	return [][]string{{"FIRST", "api"}, {"SECOND", "api-2"}}[r.IntN(2)]
}

func network0(_ *chaos, r *rand.Rand) []string {
	return []string{[]string{"FIRST", "SECOND"}[r.IntN(2)]}
}

// --- process

func killed(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	for _, name := range on {
		c.f.kill9(name)
	}
	pause(hold)
	c.up(on...)
}

func killedInRecovery(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	for range 3 {
		c.f.kill9(on[0])
		c.up(on[0])
		pause(hold)
	}
}

// killedBeforeAnswer ends an API between produce and answer: the broker has what
// no client was told of.
func killedBeforeAnswer(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	listener, api := on[0], on[1]
	heal := c.net.add(listener, "timeout", "downstream", map[string]any{"timeout": 0})
	pause(hold)
	c.f.kill9(api)
	c.net.drop(listener, false)
	heal()
	c.up(api)
}

func terminated(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	c.term(on[0])
	pause(hold)
	c.up(on[0])
}

func stopped(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	for _, name := range on {
		_ = c.f.proc(name).Signal(syscall.SIGSTOP)
	}
	pause(hold)
	for _, name := range on {
		_ = c.f.proc(name).Signal(syscall.SIGCONT)
	}
}

// sleeper stops one instance of a group for longer than its session, in the
// middle of a burst, while the other takes over.
func sleeper(c *chaos, on []string, r *rand.Rand, hold time.Duration) {
	wallets := make([]string, 50)
	for i := range wallets {
		wallets[i] = c.rawWallet(r, fmt.Sprint("burst-", i))
	}
	var burst []*kgo.Record
	for range 20_000 {
		burst = append(burst, record(c.partitions, wallets[r.IntN(len(wallets))], 1+r.Int64N(200*nano), time.Now().UnixMilli(), r.Uint64()))
	}
	var sent sync.WaitGroup
	sent.Go(func() { c.inject(burst...) })
	pause(time.Duration(50+r.IntN(300)) * ms)
	stopped(c, on[r.IntN(2):][:1], r, hold)
	sent.Wait()
}

func noDescriptors(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	pid := c.f.proc(on[0]).PID()
	var before unix.Rlimit
	if unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 12, Max: 1 << 16}, &before) != nil {
		return // it is down
	}
	pause(hold)
	_ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: before.Cur, Max: before.Cur}, nil)
}

// rolled restarts every instance, one after another, with the other build.
func rolled(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	c.other = !c.other
	for _, name := range on {
		c.term(name)
		c.up(name)
		pause(hold)
	}
}

// --- broker

func brokerRestart(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	c.kafka.StopBroker(number0(on[0]))
	pause(hold)
	c.brokersUp(on)
}

func brokerKill(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	c.kafka.Kill(number0(on[0]))
	pause(hold)
	c.brokersUp(on)
}

func controllerKill(c *chaos, on []string, r *rand.Rand, hold time.Duration) {
	ctx, cancel := c.oracle.ctx()
	defer cancel()
	id := int32(1)
	if q, err := c.oracle.admin.BrokerMetadata(ctx); err == nil && q.Controller > 0 {
		id = q.Controller
	}
	brokerKill(c, on[id-1:id], r, hold)
}

// coordinatorKill ends the broker that coordinates one of the groups.
func coordinatorKill(c *chaos, on []string, r *rand.Rand, hold time.Duration) {
	ctx, cancel := c.oracle.ctx()
	defer cancel()
	id, group := int32(1), pairs[1+r.IntN(3)]
	if found := c.oracle.admin.FindGroupCoordinators(ctx, group)[group]; found.Err == nil && found.NodeID > 0 {
		id = found.NodeID
	}
	brokerKill(c, on[id-1:id], r, hold)
}

// brokerDiskFull runs a broker on a small file system, which is then filled up for a
// while, and at last with what it wrote there on the old one again.
func brokerDiskFull(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	i := number0(on[0])
	dir := c.kafka.DataDir(i)
	kept := dir + ".kept"
	run := func(name string, args ...string) bool {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			c.t.Errorf("%s %s (this kind needs root; leave it out with KINDS): %v %s", name, strings.Join(args, " "), err, out)
		}
		return err == nil
	}
	c.kafka.StopBroker(i)
	if run("mv", dir, kept) && run("mkdir", dir) {
		used, err := exec.Command("du", "-sk", kept).Output()
		var kb int
		if _, scanErr := fmt.Sscan(string(used), &kb); err != nil || scanErr != nil {
			c.t.Errorf("du: %v %v", err, scanErr)
		}
		size := fmt.Sprintf("size=%dk", kb+kb/10+16<<10)
		if run("mount", "-t", "tmpfs", "-o", size, "tmpfs", dir) {
			if run("cp", "-a", "--sparse=always", kept+"/.", dir) && c.kafka.Restart(i) == nil {
				filler := filepath.Join(dir, "filler")
				_ = exec.Command("dd", "if=/dev/zero", "bs=64k", "of="+filler).Run() // until nothing is left
				pause(hold)
				_ = os.Remove(filler)
			}
			c.kafka.Kill(i)
			run("rm", "-rf", kept)
			run("cp", "-a", "--sparse=always", dir, kept)
			run("umount", "-l", dir)
		}
		run("rmdir", dir)
		run("mv", kept, dir)
	}
	c.brokersUp(on)
}

func brokerStop(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	_ = c.kafka.Signal(number0(on[0]), syscall.SIGSTOP)
	pause(hold)
	_ = c.kafka.Signal(number0(on[0]), syscall.SIGCONT)
}

func brokersDown(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	for _, b := range on {
		c.kafka.Kill(number0(b))
	}
	pause(hold)
	c.brokersUp(on)
}

// tooFewInSync leaves one of three: nothing may be acknowledged.
func tooFewInSync(c *chaos, on []string, r *rand.Rand, hold time.Duration) {
	left := r.IntN(len(on))
	var down []string
	for i, b := range on {
		if i != left {
			c.kafka.Kill(i)
			down = append(down, b)
		}
	}
	pause(hold)
	c.brokersUp(down)
}

// leadersMove puts another replica first and elects it, again and again.
func leadersMove(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	topics := []string{"deposit", "flag_wallet", "balance-table", "threshold-table", "flagger-table"}
	for end := time.Now().Add(hold); time.Now().Before(end); pause(300 * ms) {
		ctx, cancel := c.oracle.ctx()
		meta, err := c.oracle.admin.Metadata(ctx, topics...)
		if err == nil {
			var req kadm.AlterPartitionAssignmentsReq
			for _, t := range meta.Topics {
				for _, p := range t.Partitions {
					if n := len(p.Replicas); n > 1 {
						req.Assign(t.Topic, p.Partition, append(append([]int32{}, p.Replicas[1:]...), p.Replicas[0]))
					}
				}
			}
			_, _ = c.oracle.admin.AlterPartitionAssignments(ctx, req)
			_, _ = c.oracle.admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil)
		}
		cancel()
	}
}

// --- network

func toxic(kind, direction string, attributes map[string]any) func(*chaos, []string, *rand.Rand, time.Duration) {
	return func(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
		heal := c.net.add(on[0], kind, direction, attributes)
		pause(hold)
		heal()
		if kind == "timeout" {
			c.net.drop(on[0], false) // what was swallowed cannot go on
		}
	}
}

// lostAcks lets requests through, swallows the answers and then cuts: the broker
// has committed what the client does not know of.
func lostAcks(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	heal := c.net.add(on[0], "timeout", "downstream", map[string]any{"timeout": 0})
	pause(hold)
	c.net.drop(on[0], false)
	heal()
}

func midFrame(c *chaos, on []string, r *rand.Rand, hold time.Duration) {
	direction := []string{"upstream", "downstream"}[r.IntN(2)]
	heal := c.net.add(on[0], "limit_data", direction, map[string]any{"bytes": 200 + r.IntN(4000)})
	pause(hold)
	heal()
}

func cutOff(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	up := c.net.drop(on[0], true)
	pause(hold)
	up()
}

// --- disk

// disk kills an instance, does something to its state and starts it again.
func disk(harm func(dir string, r *rand.Rand) error) func(*chaos, []string, *rand.Rand, time.Duration) {
	return func(c *chaos, on []string, r *rand.Rand, hold time.Duration) {
		c.f.kill9(on[0])
		if err := harm(c.stateDir(on[0]), r); err != nil {
			c.t.Errorf("%s: %v", on[0], err)
		}
		pause(hold)
		c.up(on[0])
	}
}

// eachFile calls f for about a third of the files below dir.
func eachFile(dir string, r *rand.Rand, f func(path string, size int64) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || r.IntN(3) > 0 {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err != nil || info.Size() == 0 {
			return ignoreGone(err)
		}
		return f(path, info.Size())
	})
}

func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

func truncateFiles(dir string, r *rand.Rand) error {
	return eachFile(dir, r, func(path string, size int64) error { return os.Truncate(path, r.Int64N(size)) })
}

func flipBits(dir string, r *rand.Rand) error {
	return eachFile(dir, r, func(path string, _ int64) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for range 1 + r.IntN(8) {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		return os.WriteFile(path, b, 0o600)
	})
}

// olderCopy puts back the state of some moments ago.
func olderCopy(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	dir, kept := c.stateDir(on[0]), filepath.Join(c.f.t.TempDir(), "kept")
	c.f.kill9(on[0])
	_ = os.CopyFS(kept, os.DirFS(dir)) // may be empty
	c.up(on[0])
	pause(hold)
	c.f.kill9(on[0])
	if err := os.RemoveAll(dir); err != nil {
		c.t.Error(err)
	}
	_ = os.CopyFS(dir, os.DirFS(kept))
	c.up(on[0])
}

// diskFull runs an instance on a tiny file system for a while.
func diskFull(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	mounted(c, on[0], hold, "size=200k")
}

func readOnly(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	mounted(c, on[0], hold, "size=200k,ro")
}

func mounted(c *chaos, name string, hold time.Duration, options string) {
	dir := c.stateDir(name)
	c.f.kill9(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Error(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir).CombinedOutput(); err != nil {
		c.t.Errorf("mount (this kind needs root; leave it out with KINDS): %v %s", err, out)
		c.up(name)
		return
	}
	c.up(name)
	pause(hold)
	c.f.kill9(name)
	if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
		c.t.Errorf("umount: %v %s", err, out)
	}
	c.up(name)
}

// --- group

func comesAndGoes(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	third := on[0] + "-3"
	for end := time.Now().Add(hold); time.Now().Before(end); {
		c.up(third)
		pause(1 * s)
		c.term(third)
		pause(500 * ms)
	}
}

func oneDirectory(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	c.f.kill9(on[1])
	c.launch(on[1], c.stateDir(on[0]))
	pause(hold)
	c.f.kill9(on[1])
	c.up(on[1])
}

// rewound sets the committed offsets of a group back while nobody is in it.
func rewound(c *chaos, on []string, r *rand.Rand, hold time.Duration) {
	for _, name := range on {
		c.term(name)
	}
	ctx, cancel := c.oracle.ctx()
	defer cancel()
	if offsets, err := c.oracle.admin.FetchOffsets(ctx, on[0]); err == nil {
		var back kadm.Offsets
		offsets.Each(func(o kadm.OffsetResponse) {
			back.AddOffset(o.Topic, o.Partition, max(0, o.At-r.Int64N(1+max(1, o.At))), -1)
		})
		_ = c.oracle.admin.CommitAllOffsets(ctx, on[0], back) // refused while a member's session lasts
	}
	pause(hold)
	c.up(on...)
}

// --- data

// inject appends records to the deposit log. Without an answer a record may be
// there or not: the oracle takes the log as it is.
func (c *chaos) inject(records ...*kgo.Record) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.kafka.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(1<<20), kgo.RecordDeliveryTimeout(60*s))
	if err != nil {
		c.t.Error(err)
		return
	}
	defer cl.Close()
	ctx, cancel := c.oracle.ctx()
	defer cancel()
	for _, r := range records {
		r.Topic = "deposit"
	}
	_ = cl.ProduceSync(ctx, records...)
}

// record is a deposit as the API would write it.
func record(partitions int32, wallet string, nanos, at int64, id uint64) *kgo.Record {
	var b []byte
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, wallet)
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(nanos/nano))
	b = protowire.AppendTag(b, 3, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(nanos%nano))
	b = protowire.AppendTag(b, 4, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(at))
	b = protowire.AppendTag(b, 5, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, id)
	return &kgo.Record{Key: []byte(wallet), Value: b, Partition: home(wallet, partitions)}
}

func (c *chaos) rawWallet(r *rand.Rand, name string) string {
	w := fmt.Sprintf("c-%s-%d-%s-%d", runID, c.round, name, r.IntN(1000))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rawWallets[w] = true
	return w
}

func malformed(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	w := c.rawWallet(r, "bad")
	good := record(c.partitions, w, nano, time.Now().UnixMilli(), r.Uint64())
	elsewhere := *good
	elsewhere.Partition = (elsewhere.Partition + 1) % c.partitions
	large := make([]byte, 1000<<10)
	c.inject(
		&kgo.Record{Key: []byte(w), Value: []byte{0xff, 1, 2}, Partition: home(w, c.partitions)},
		&kgo.Record{Key: []byte(w), Partition: home(w, c.partitions)},
		&kgo.Record{Key: []byte(w), Value: large, Partition: home(w, c.partitions)},
		&kgo.Record{Value: good.Value, Partition: 0},
		&elsewhere,
		good,
	)
}

func twice(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	w := c.rawWallet(r, "twice")
	d := record(c.partitions, w, 7000*nano, time.Now().UnixMilli(), r.Uint64())
	again := *d
	c.inject(d, &again)
}

// late events arrive up to 10 s after others that are younger.
func late(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	w, now := c.rawWallet(r, "late"), time.Now().UnixMilli()
	var records []*kgo.Record
	for range 12 {
		records = append(records, record(c.partitions, w, (500+r.Int64N(4000))*nano, now-r.Int64N(10_000), r.Uint64()))
	}
	c.inject(records...)
}

// hourOff comes of two clocks an hour apart. Which of them crosses is not
// promised, the balance is.
func hourOff(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	w, now := c.rawWallet(r, "hour"), time.Now().UnixMilli()
	c.mu.Lock()
	c.loose[w] = true
	c.mu.Unlock()
	var records []*kgo.Record
	for range 12 {
		records = append(records, record(c.partitions, w, (500+r.Int64N(4000))*nano, now-3_600_000*r.Int64N(2), r.Uint64()))
	}
	c.inject(records...)
}

// --- HTTP

// sameTwice sends one request with a key on two connections at the same time.
func sameTwice(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	l := c.ledger
	e := &entry{wallet: l.wallets[r.IntN(len(l.wallets))], nanos: l.nanos(1 + r.Int64N(100_000)),
		key: fmt.Sprintf("both-%x", r.Uint64()), verdict: unknown}
	l.note(e)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // other faults go on meanwhile
	defer cancel()
	var wg sync.WaitGroup
	seed := r.Uint64()
	for i := range c.apis {
		wg.Go(func() { l.deposit(ctx, c.apis[i], c.apis, e, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	wg.Wait()
}

func (c *chaos) dial(r *rand.Rand) net.Conn {
	conn, err := net.DialTimeout("tcp", c.f.addr[[]string{"api", "api-2"}[r.IntN(2)]], s)
	if err != nil {
		return nil
	}
	_ = conn.SetDeadline(time.Now().Add(30 * s))
	return conn
}

func clientGone(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	for range 20 {
		if conn := c.dial(r); conn != nil {
			fmt.Fprintf(conn, "POST /api/deposit HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"wallet_id\": %q, \"amo", c.ledger.wallets[0])
			_ = conn.Close()
		}
	}
}

// badBodies must be refused with 4xx, or 503 while there is no Kafka.
func badBodies(c *chaos, _ []string, _ *rand.Rand, _ time.Duration) {
	for _, body := range []string{
		strings.Repeat(`{"a":`, 10_000), `{"wallet_id":"w","amount":1` + strings.Repeat(" ", 70_000) + "}",
		`{"wallet_id":"w","amount":-1}`, `{"wallet_id":"w","amount":1e400}`, `[]`, "",
	} {
		for _, api := range c.apis {
			res, err := api.http.Post(api.base+"/api/deposit", "", bytes.NewReader([]byte(body)))
			if err != nil {
				continue // it is down
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if res.StatusCode/100 != 4 && res.StatusCode != 503 {
				c.t.Errorf("%d for %.40q", res.StatusCode, body)
			}
		}
	}
}

func slowClients(c *chaos, _ []string, r *rand.Rand, hold time.Duration) {
	var conns []net.Conn
	for range 1000 {
		if conn := c.dial(r); conn != nil {
			_, _ = conn.Write([]byte("P"))
			conns = append(conns, conn)
		}
	}
	pause(hold)
	for _, conn := range conns {
		_ = conn.Close()
	}
}
