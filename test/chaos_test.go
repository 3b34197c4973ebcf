//go:build kafka

package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"coinbit/internal/kafkatest"
)

// chaos is the whole suite under faults: real brokers behind proxies, two
// instances of every service.
type chaos struct {
	t          *testing.T
	kafka      *kafkatest.Cluster
	net        *network
	f          *fleet
	apis       []*client
	oracle     *oracle
	partitions int32
	otherBuild string // the rolling restart's second binary
	other      bool   // which of the two is rolled out

	locks map[string]*sync.Mutex

	// of the round
	round      int
	ledger     *ledger
	mu         sync.Mutex
	from       map[int32]int64 // where its deposits begin
	rawWallets map[string]bool // of records that the harness wrote itself
	loose      map[string]bool // wallets whose flag is not promised
}

// period is the rolling period of the fleet.
const period = 3 * time.Second

func startChaos(t *testing.T, brokers int) *chaos {
	t.Helper()
	c := &chaos{t: t, net: newNetwork(t), partitions: 8, locks: map[string]*sync.Mutex{}}
	var err error
	c.kafka, err = kafkatest.Start(context.Background(), kafkatest.Options{
		Dir: t.TempDir(), Brokers: brokers, Listeners: []string{"FIRST", "SECOND"}, Advertise: c.net.advertise,
		Props: map[string]string{ // aggressive compaction: what is not newest goes within seconds
			"log.roll.ms": "4000", "log.cleaner.min.cleanable.ratio": "0.01", "log.cleaner.backoff.ms": "500",
			"log.cleaner.delete.retention.ms": "500", "offsets.topic.segment.bytes": "1048576",
			"group.min.session.timeout.ms": "6000",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kafka.Stop)
	c.otherBuild = buildOther(t)
	c.oracle = newOracle(t, c.kafka.Addrs())
	c.f = newFleet(t, c.kafka.Bootstrap(), "ROLLING_PERIOD="+period.String(), fmt.Sprint("PARTITIONS=", c.partitions))
	for _, name := range instances() {
		c.f.addr[name] = freeAddr(t)
	}
	c.up(instances()...)
	c.f.awaitReady(90*time.Second, instances()...)
	c.apis = []*client{newClient(t, c.f.addr["api"]), newClient(t, c.f.addr["api-2"])}
	return c
}

// buildOther builds the program as of the commit that OLD names, or else this one
// with the race detector, which then sees the faults too.
func buildOther(t *testing.T) string {
	t.Helper()
	program, dir, flag := filepath.Join(t.TempDir(), "other"), "..", "-race"
	if old := os.Getenv("OLD"); old != "" {
		dir, flag = t.TempDir(), "-race=false"
		archive := exec.Command("bash", "-o", "pipefail", "-c", `git -C .. archive "$0" | tar -x -C "$1"`, old, dir)
		if out, err := archive.CombinedOutput(); err != nil {
			t.Fatalf("OLD=%s: %v %s", old, err, out)
		}
	}
	build := exec.Command("go", "build", flag, "-o", program, "./cmd")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the other program: %v\n%s", err, out)
	}
	return program
}

// stateDir is an instance's own.
func (c *chaos) stateDir(name string) string { return filepath.Join(c.f.dir, name) }

// up starts instances that do not run.
func (c *chaos) up(names ...string) {
	for _, name := range names {
		if p := c.f.proc(name); p == nil || !p.Running() {
			c.launch(name, c.stateDir(name))
		}
	}
}

// launch starts an instance. The second ones have a network of their own.
func (c *chaos) launch(name, stateDir string) {
	service, number, _ := strings.Cut(name, "-")
	listener := "FIRST"
	if number == "2" {
		listener = "SECOND"
	}
	env := []string{"BROKER=" + c.net.bootstrap(listener), "STATE_DIR=" + stateDir}
	if addr := c.f.addr[name]; addr != "" {
		setting := "ADMIN_PORT="
		if service == "api" {
			setting = "PORT="
		}
		env = append(env, setting+addr)
	}
	program := binary
	if c.other {
		program = c.otherBuild
	}
	c.f.launchAs(program, name, service, env...)
}

// term ends an instance in an orderly way, or not at all: Kafka may be away.
func (c *chaos) term(name string) {
	c.f.proc(name).Stop(15 * time.Second)
}

func (c *chaos) brokersUp(brokers []string) {
	var wg sync.WaitGroup
	for _, b := range brokers {
		wg.Go(func() {
			if err := c.kafka.Restart(number0(b)); err != nil {
				c.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// planned is one fault of the schedule.
type planned struct {
	kind kind
	on   []string
	hold time.Duration
	seed uint64
	gap  time.Duration // before the next one begins
}

// schedule plans n faults; the same seed plans the same ones.
func (c *chaos) schedule(r *rand.Rand, from []kind, n int) []planned {
	var plan []planned
	for range n {
		k := from[r.IntN(len(from))]
		hold := k.hold[0] + time.Duration(r.Int64N(int64(max(1, k.hold[1]-k.hold[0]))))
		on := k.on(c, r)
		slices.Sort(on)
		plan = append(plan, planned{k, on, hold, r.Uint64(), time.Duration(r.IntN(1500)) * time.Millisecond})
	}
	return plan
}

// chosenKinds are those that KINDS names, by name or group, or all that are not slow.
func chosenKinds(t *testing.T, brokers int) []kind {
	t.Helper()
	names := strings.Split(os.Getenv("KINDS"), ",")
	var chosen []kind
	for _, k := range kinds() {
		named := slices.Contains(names, k.name) || slices.Contains(names, k.group)
		if k.brokers <= brokers && (named || os.Getenv("KINDS") == "" && !k.slow) {
			chosen = append(chosen, k)
		}
	}
	if len(chosen) == 0 {
		t.Fatalf("KINDS=%s: no such kind or group", os.Getenv("KINDS"))
	}
	return chosen
}

// inject runs the faults of a round, up to two at a time, and returns when all
// are healed.
func (c *chaos) injectAll(plan []planned) {
	slots := make(chan struct{}, 2)
	var wg sync.WaitGroup
	for i, p := range plan {
		slots <- struct{}{}
		var locks []*sync.Mutex // sorted: no two faults wait for each other
		for _, target := range p.on {
			if c.locks[target] == nil {
				c.locks[target] = &sync.Mutex{}
			}
			locks = append(locks, c.locks[target])
		}
		wg.Go(func() {
			defer func() { <-slots }()
			for _, lock := range locks {
				lock.Lock()
				defer lock.Unlock()
			}
			began := time.Now()
			p.kind.run(c, p.on, rand.New(rand.NewPCG(p.seed, 1)), p.hold)
			c.t.Logf("  %d.%d %s: %s %s, %v", c.round, i+1, p.kind.group, p.kind.name, strings.Join(p.on, " "), time.Since(began).Round(time.Millisecond))
		})
		pause(p.gap)
	}
	wg.Wait()
}

// runRound injects a plan under load, heals, and asks the oracle.
func (c *chaos) runRound(round int, seed uint64, plan []planned) (ok bool) {
	c.round, c.rawWallets, c.loose = round, map[string]bool{}, map[string]bool{}
	c.ledger = newLedger(round, 30)
	var err error
	if c.from, err = c.oracle.ends("deposit"); err != nil {
		c.t.Error(err)
		return false
	}
	ctx, cancel := context.WithCancel(context.Background())
	var load sync.WaitGroup
	load.Go(func() { c.ledger.run(ctx, seed, c.apis) })
	var older []string
	load.Go(func() { older = c.oracle.follow(ctx) })
	pause(500 * time.Millisecond)
	c.injectAll(plan)
	healed := time.Now()
	c.up(instances()...)
	c.f.awaitReady(60*time.Second, instances()...)
	ready := time.Since(healed)
	pause(500 * time.Millisecond)
	cancel()
	load.Wait()
	if len(older) > 0 {
		c.t.Errorf("round %d: %d rows were followed by older ones:\n%s", round, len(older), strings.Join(older[:min(len(older), 5)], "\n"))
	}
	if !c.exact() || len(older) > 0 {
		return false
	}
	counts := c.ledger.count()
	c.t.Logf("round %d: exact. %d acknowledged, %d refused, %d unknown; all ready %v after healing, exact after %v",
		round, counts[acked], counts[refused], counts[unknown], ready.Round(time.Millisecond), time.Since(healed).Round(time.Millisecond))
	return true
}

// exact waits until the oracle finds nothing wrong with the round.
func (c *chaos) exact() bool {
	var bad []string
	if eventually(60*time.Second, func() bool {
		bad = c.judge()
		return len(bad) == 0
	}) {
		text, ok := c.f.verify()
		if !ok {
			c.t.Errorf("round %d: verify: %.3000s", c.round, text)
		}
		return ok
	}
	c.t.Errorf("round %d: %d faults found:\n%s", c.round, len(bad), strings.Join(bad[:min(len(bad), 15)], "\n"))
	return false
}

// judge is the oracle's whole verdict on the round.
func (c *chaos) judge() []string {
	log, err := c.oracle.read("deposit", c.from)
	if err != nil {
		return []string{err.Error()}
	}
	v := fold(log, c.partitions)
	wallets := slices.Clone(c.ledger.wallets)
	for w := range c.rawWallets {
		if len(v.wallets[w]) > 0 {
			wallets = append(wallets, w)
		}
	}
	bad := ledgerFaults(c.ledger, v)
	tables, err := c.oracle.tableFaults(v, wallets, period, c.loose)
	if err != nil {
		return []string{err.Error()}
	}
	dead, err := c.oracle.read("deposit_dead_letter", nil)
	if err != nil {
		return []string{err.Error()}
	}
	bad = append(append(bad, tables...), deadFaults(dead, v, c.from)...)
	for _, api := range c.apis { // the views
		for _, w := range wallets {
			var want int64
			if ps := v.wallets[w]; len(ps) > 0 {
				want = ps[len(ps)-1].sum
			}
			got, ok, err := api.check(w, "")
			if err != nil || !ok || got.nanos != want || got.above != above(v.wallets[w], period) && !c.loose[w] {
				bad = append(bad, fmt.Sprintf("%s shows %s as %v (%t, %v), want %s", api.base, w, got, ok, err, decimal(want)))
			}
		}
	}
	return bad
}

// fromNothing deletes all local state at once and holds what is rebuilt against
// the same log.
func (c *chaos) fromNothing() {
	for _, name := range instances() {
		c.f.kill9(name)
	}
	for _, name := range instances() {
		if err := os.RemoveAll(c.stateDir(name)); err != nil {
			c.t.Error(err)
		}
	}
	c.up(instances()...)
	c.f.awaitReady(60*time.Second, instances()...)
}

// TestChaos injects FAULTS faults (60) of the given KINDS (all but the slow
// ones), planned by SEED (1), with BROKERS 1 or 3. OLD names the commit whose
// build takes turns with this one in rolling restarts.
func TestChaos(t *testing.T) {
	const perRound = 10
	faults, seed, brokers := int(number(t, "FAULTS", 60)), number(t, "SEED", 1), int(number(t, "BROKERS", 1))
	t.Logf("FAULTS=%d SEED=%d BROKERS=%d KINDS=%s", faults, seed, brokers, os.Getenv("KINDS"))
	chosen := chosenKinds(t, brokers)
	c := startChaos(t, brokers)
	r := rand.New(rand.NewPCG(seed, 0))
	counts := map[string]int{}
	injected, began := 0, time.Now()
	var first map[string]gauges
	for round := 1; injected < faults && !t.Failed(); round++ {
		plan := c.schedule(r, chosen, min(perRound, faults-injected))
		if !c.runRound(round, r.Uint64(), plan) {
			t.Errorf("repeat with: make chaos FAULTS=%d SEED=%d BROKERS=%d KINDS=%q", faults, seed, brokers, os.Getenv("KINDS"))
			break
		}
		for _, p := range plan {
			counts[p.kind.group+": "+p.kind.name]++
		}
		injected += len(plan)
		if first == nil {
			first = c.gauges()
		}
		t.Logf("%d of %d faults, %v", injected, faults, time.Since(began).Round(time.Second))
	}
	if !t.Failed() {
		c.fromNothing()
		if !c.exact() {
			t.Error("that was after all local state was deleted")
		}
		for name, now := range c.gauges() {
			t.Logf("%s: %.0f goroutines, %.0f MB; after the first round %.0f and %.0f", name, now.goroutines, now.bytes/1e6, first[name].goroutines, first[name].bytes/1e6)
			if now.goroutines > 2*first[name].goroutines+50 || now.bytes > 3*first[name].bytes+200e6 {
				t.Errorf("%s has grown", name)
			}
		}
	}
	var table []string
	for k, n := range counts {
		table = append(table, fmt.Sprintf("%4d  %s", n, k))
	}
	slices.SortFunc(table, func(a, b string) int { return strings.Compare(a[6:], b[6:]) })
	fenced := 0
	for name, log := range c.f.logs {
		fenced += strings.Count(log.all(), "another instance owns the partition")
		if strings.Contains(log.all(), "DATA RACE") {
			t.Errorf("%s has a data race:\n%s", name, log.all())
		}
	}
	t.Logf("late owners that the brokers refused, in what is left of the logs: %d", fenced)
	t.Logf("%d faults in %v:\n%s", injected, time.Since(began).Round(time.Second), strings.Join(table, "\n"))
}

// gauges are an instance's goroutines and resident bytes.
type gauges struct{ goroutines, bytes float64 }

func (c *chaos) gauges() map[string]gauges {
	all := map[string]gauges{}
	for _, name := range instances() {
		res, err := probes.Get("http://" + c.f.addr[name] + "/metrics")
		if err != nil {
			continue
		}
		body, _ := readAll(res)
		var g gauges
		for line := range strings.Lines(body) {
			_, _ = fmt.Sscanf(line, "go_goroutines %f", &g.goroutines)
			_, _ = fmt.Sscanf(line, "process_resident_memory_bytes %g", &g.bytes)
		}
		all[name] = g
	}
	return all
}
