package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sys/unix"
)

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
	c.signal(syscall.SIGSTOP, on...)
	pause(hold)
	c.signal(syscall.SIGCONT, on...)
}

func (c *chaos) signal(sig syscall.Signal, names ...string) {
	for _, name := range names {
		_ = c.f.proc(name).Signal(sig)
	}
}

// sleeper stops one instance of a group for longer than its session, in the
// middle of a burst, while the other takes over.
func sleeper(c *chaos, on []string, r *rand.Rand, hold time.Duration) {
	wallets := make([]string, 50)
	for i := range wallets {
		wallets[i] = c.rawWallet(r, fmt.Sprint("burst-", i))
	}
	var sent sync.WaitGroup
	sent.Go(func() { c.burst(r, wallets, 20_000) })
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

// asleepWhileForgotten stops an API in mid-stream while the broker is killed and
// so forgets, if it is the embedded one, who sent what.
func asleepWhileForgotten(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	c.signal(syscall.SIGSTOP, on[0])
	c.kafka.Kill(0)
	pause(hold)
	c.brokersUp(on[1:])
	c.signal(syscall.SIGCONT, on[0])
}

// asleepWhileExpired swallows the answers to an API and stops it for longer than
// the brokers remember producers. What it sends again then, they take for new.
func asleepWhileExpired(c *chaos, on []string, _ *rand.Rand, hold time.Duration) {
	listener, api := on[0], on[1]
	heal := c.net.add(listener, "timeout", "downstream", map[string]any{"timeout": 0})
	pause(300 * ms)
	c.signal(syscall.SIGSTOP, api)
	c.net.drop(listener, false)
	heal()
	c.brokerSetting("producer.id.expiration.ms", "500")
	pause(hold)
	c.brokerSetting("producer.id.expiration.ms", "86400000")
	c.signal(syscall.SIGCONT, api)
	c.counts(slices.Index([]string{"api", "api-2"}, api), "it slept for longer than the brokers remember")
}

// brokerSetting sets a setting of all brokers, while they run.
func (c *chaos) brokerSetting(name, value string) {
	ctx, cancel := c.oracle.ctx()
	defer cancel()
	res, err := c.oracle.admin.AlterBrokerConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}})
	for _, r := range res {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		c.t.Errorf("set %s: %v", name, err)
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

// flagsHang swallows all that goes to flag_wallet by one listener, and its answers,
// while deposits pour in. Who waits for them must not take more and more.
func flagsHang(c *chaos, on []string, r *rand.Rand, hold time.Duration) {
	const limit = 150e6
	wallets := make([]string, 40)
	for i := range wallets {
		wallets[i] = c.rawWallet(r, fmt.Sprint("hung-", i))
	}
	detector := on[1]
	before := c.gauges()[detector].bytes
	heal := c.net.add(on[0], "hang", "upstream", map[string]any{"topic": "flag_wallet"})
	c.net.drop(on[0], false) // the hang sees connections from their begin
	c.burst(r, wallets, 200_000)
	pause(hold)
	if now := c.gauges()[detector].bytes; now > before+limit {
		c.t.Errorf("%s grew from %.0f MB to %.0f MB while flag_wallet hung", detector, before/1e6, now/1e6)
	}
	heal()
	c.net.drop(on[0], false)
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

// --- HTTP

// sameTwice sends one request with a key on two connections at the same time.
func sameTwice(c *chaos, _ []string, r *rand.Rand, _ time.Duration) {
	l := c.ledger
	e := &entry{wallet: l.wallets[r.IntN(len(l.wallets))], nanos: l.nanos(1 + r.Int64N(100_000)),
		key: fmt.Sprintf("both-%x", r.Uint64()), verdict: unknown}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // other faults go on meanwhile
	defer cancel()
	var wg sync.WaitGroup
	seed := r.Uint64()
	for i := range c.apis {
		wg.Go(func() { l.deposit(ctx, c.apis[i], c.apis, e, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	wg.Wait()
}

// keysInStorm lets many clients at once, each with a key of its own, deposit to one
// wallet and ask until they are answered, while a group is away.
func keysInStorm(c *chaos, on []string, r *rand.Rand, hold time.Duration) {
	l := c.ledger
	wallet := l.wallets[r.IntN(len(l.wallets))]
	c.f.kill9(on[0])
	c.f.kill9(on[1])
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // other faults go on meanwhile
	defer cancel()
	var clients sync.WaitGroup
	for i := range 150 {
		e := &entry{wallet: wallet, nanos: l.nanos(1 + r.Int64N(2000)), key: fmt.Sprintf("storm-%x", r.Uint64()), verdict: unknown}
		rnd := rand.New(rand.NewPCG(r.Uint64(), 1))
		clients.Go(func() { l.deposit(ctx, c.apis[i%2], c.apis, e, rnd) })
	}
	pause(hold)
	c.up(on...)
	clients.Wait()
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
