package test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// chaos is the whole suite under faults: brokers, Apache Kafka's behind proxies, and
// two instances of every service.
type chaos struct {
	t      *testing.T
	kafka  cluster
	net    *network
	f      *fleet
	apis   []*client
	oracle *oracle
	// partitions are those that a wallet's is one of. Only a fault that is alone
	// changes them.
	partitions int32

	otherBuild func() string // the rolling restart's second binary
	other      bool          // which of the two is rolled out
	shiftable  func() string // a binary whose clock can be off

	alone sync.RWMutex // held by a fault that is alone, and shared by all others
	locks map[string]*sync.Mutex

	// of the round
	round         int
	ledger        *ledger
	mu            sync.Mutex
	from          map[int32]int64 // where its deposits begin
	eras          []era           // before the present one
	rawWallets    map[string]bool // of records that the harness wrote itself
	lettersPurged map[string]bool // positions of what they told of
	followed      func()          // ends follow
	older         []string        // rows that were followed by older ones
}

// firstPartitions is how many the services make.
const firstPartitions = 8

// period is the rolling period of the fleet.
const period = 3 * time.Second

func startChaos(t *testing.T, brokers string) *chaos {
	t.Helper()
	c := &chaos{t: t, net: newNetwork(t), partitions: firstPartitions, locks: map[string]*sync.Mutex{}}
	c.kafka = startCluster(t, brokers, c.net)
	c.otherBuild = sync.OnceValue(func() string { return buildOther(t) })
	c.shiftable = sync.OnceValue(func() string { return buildShiftable(t) })
	c.oracle = newOracle(t, c.kafka.Addrs())
	c.f = newFleet(t, c.kafka.Bootstrap(), "ROLLING_PERIOD="+period.String(), fmt.Sprint("PARTITIONS=", firstPartitions))
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

// launch starts an instance.
func (c *chaos) launch(name, stateDir string) {
	program := binary
	if c.other {
		program = c.otherBuild()
	}
	c.launchAs(program, name, stateDir)
}

// launchAs is launch for any build. The second instances have a network of their own.
func (c *chaos) launchAs(program, name, stateDir string, env ...string) {
	service, number, _ := strings.Cut(name, "-")
	listener := "FIRST"
	if number == "2" {
		listener = "SECOND"
	}
	env = append(env, "STATE_DIR="+stateDir)
	if behind := c.net.bootstrap(listener); behind != "" {
		env = append(env, "BROKER="+behind)
	}
	if addr := c.f.addr[name]; addr != "" {
		setting := "ADMIN_PORT="
		if service == "api" {
			setting = "PORT="
		}
		env = append(env, setting+addr)
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
	name string
	kind
	on   []string
	hold time.Duration
	seed uint64
	gap  time.Duration // before the next one begins
}

// schedule plans n faults of the named kinds, or, if n is 0, one of each; the same
// seed plans the same ones.
func (c *chaos) schedule(r *rand.Rand, names []string, n int) []planned {
	chosen := slices.Clone(names)
	r.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	if n > 0 {
		chosen = nil
	}
	for range n {
		chosen = append(chosen, names[r.IntN(len(names))])
	}
	var plan []planned
	for _, name := range chosen {
		k := kinds[name]
		hold := k.least + time.Duration(r.Int64N(int64(max(1, k.most-k.least))))
		on := k.on(c, r)
		slices.Sort(on)
		plan = append(plan, planned{name, k, on, hold, r.Uint64(), time.Duration(r.IntN(1500)) * time.Millisecond})
	}
	return plan
}

// chosenKinds are those that KINDS names, by name, group or, for what `make test`
// tries, as "brief"; or all that can be on these brokers and are not slow.
func chosenKinds(t *testing.T, brokers string) (chosen []string) {
	t.Helper()
	on, ok := map[string]traits{"embedded": embedded, "1": single, "3": three}[brokers]
	if !ok {
		t.Fatalf("BROKERS: got %s, takes embedded, 1 or 3", brokers)
	}
	wanted, ok := os.LookupEnv("KINDS")
	if !ok {
		wanted = chaosKinds
	}
	for _, want := range strings.Split(wanted, ",") {
		known := want == ""
		for _, name := range slices.Sorted(maps.Keys(kinds)) {
			k := kinds[name]
			named := want == name || want == k.group || want == "brief" && k.traits&brief != 0
			known = known || named
			if k.traits&on != 0 && (named || want == "" && k.traits&slow == 0) && !slices.Contains(chosen, name) {
				chosen = append(chosen, name)
			}
		}
		if !known {
			t.Fatalf("KINDS: no kind or group is called %q; KINDS=list lists them", want)
		}
	}
	if len(chosen) == 0 {
		t.Fatalf("KINDS=%s: none of these can be tried with BROKERS=%s", wanted, brokers)
	}
	return chosen
}

// listKinds says what each does, and what it needs.
func listKinds(t *testing.T) {
	var lines []string
	for name, k := range kinds {
		var needs []string
		for _, needed := range []struct {
			is   bool
			what string
		}{{k.traits&embedded == 0, "Apache Kafka"}, {k.traits&(embedded|single) == 0, "three brokers"},
			{k.traits&real == 0, "the embedded broker"}, {k.traits&slow != 0, "to be named"}} {
			if needed.is {
				needs = append(needs, needed.what)
			}
		}
		line := fmt.Sprintf("%-8s %-24s %s", k.group, name, k.doc)
		if len(needs) > 0 {
			line += "; needs " + strings.Join(needs, ", ")
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	t.Logf("the kinds of faults:\n%s", strings.Join(lines, "\n"))
}

// injectAll runs the faults of a round, up to two at a time, and returns when all
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
			if p.traits&alone != 0 {
				c.alone.Lock()
				defer c.alone.Unlock()
			} else {
				c.alone.RLock()
				defer c.alone.RUnlock()
			}
			for _, lock := range locks {
				lock.Lock()
				defer lock.Unlock()
			}
			if c.t.Failed() {
				return // what is broken already says nothing of the next
			}
			began := time.Now()
			p.run(c, p.on, rand.New(rand.NewPCG(p.seed, 1)), p.hold)
			c.t.Logf("  %d.%d %s: %s %s, %v", c.round, i+1, p.group, p.name, strings.Join(p.on, " "), time.Since(began).Round(time.Millisecond))
		})
		pause(p.gap)
	}
	wg.Wait()
}

// runRound injects a plan under load, heals, and asks the oracle.
func (c *chaos) runRound(round int, seed uint64, plan []planned) (ok bool) {
	c.round, c.rawWallets, c.lettersPurged = round, map[string]bool{}, map[string]bool{}
	c.ledger, c.eras, c.older = newLedger(round, 30), nil, nil
	var err error
	if _, c.from, err = c.oracle.bounds("deposit"); err != nil {
		c.t.Error(err)
		return false
	}
	ctx, cancel := context.WithCancel(context.Background())
	var load sync.WaitGroup
	load.Go(func() { c.ledger.run(ctx, seed, c.apis) })
	c.follow()
	pause(500 * time.Millisecond)
	c.injectAll(plan)
	healed := time.Now()
	c.up(instances()...)
	c.f.awaitReady(60*time.Second, instances()...)
	ready := time.Since(healed)
	pause(500 * time.Millisecond)
	cancel()
	load.Wait()
	c.followed()
	if len(c.older) > 0 {
		c.t.Errorf("round %d: %d rows were followed by older ones:\n%s", round, len(c.older), strings.Join(c.older[:min(len(c.older), 5)], "\n"))
	}
	if !c.exact() || c.t.Failed() {
		return false
	}
	counts := c.ledger.count()
	c.t.Logf("round %d: exact. %d acknowledged, %d refused, %d unknown; all ready %v after healing, exact after %v",
		round, counts[acked], counts[refused], counts[unknown], ready.Round(time.Millisecond), time.Since(healed).Round(time.Millisecond))
	return true
}

// follow follows the changelogs until followed.
func (c *chaos) follow() {
	ctx, cancel := context.WithCancel(context.Background())
	found := make(chan []string, 1)
	go func() { found <- c.oracle.follow(ctx) }()
	c.followed = func() {
		cancel()
		c.older = append(c.older, <-found...)
	}
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
	var logs []verdicts
	for _, e := range c.eras {
		logs = append(logs, fold(e.log, e.partitions))
	}
	wallets := slices.Clone(c.ledger.wallets)
	for w := range c.rawWallets {
		if len(v.wallets[w]) > 0 {
			wallets = append(wallets, w)
		}
	}
	bad := ledgerFaults(c.ledger, append(logs, v)...)
	tables, err := c.oracle.tableFaults(v, wallets, period)
	if err != nil {
		return []string{err.Error()}
	}
	dead, err := c.oracle.read("deposit_dead_letter", nil)
	if err != nil {
		return []string{err.Error()}
	}
	bad = append(append(bad, tables...), deadFaults(dead, v, c.from, c.lettersPurged)...)
	for _, api := range c.apis { // the views
		for _, w := range wallets {
			want := v.balance(w)
			got, ok, err := api.check(w, "")
			if err != nil || !ok || got.nanos != want || got.above != above(v.wallets[w], period) {
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

// TestChaos injects FAULTS faults (one of each kind) of the given KINDS (empty: all
// but the slow ones), planned by SEED (1), with BROKERS embedded, 1 or 3. OLD names the
// commit whose build takes turns with this one in rolling restarts. KINDS=list lists
// the kinds.
func TestChaos(t *testing.T) {
	if os.Getenv("KINDS") == "list" {
		listKinds(t)
		return
	}
	const perRound = 10
	faults, seed, brokers := int(number(t, "FAULTS", 0)), number(t, "SEED", 1), cmp.Or(os.Getenv("BROKERS"), chaosBrokers)
	chosen := chosenKinds(t, brokers)
	c := startChaos(t, brokers)
	r := rand.New(rand.NewPCG(seed, 0))
	plan := c.schedule(r, chosen, faults)
	t.Logf("FAULTS=%d SEED=%d BROKERS=%s KINDS=%s: %d faults", faults, seed, brokers, strings.Join(chosen, ","), len(plan))
	counts := map[string]int{}
	injected, began := 0, time.Now()
	var first map[string]gauges
	for round := 1; injected < len(plan) && !t.Failed(); round++ {
		next := plan[injected:min(len(plan), injected+perRound)]
		if !c.runRound(round, r.Uint64(), next) {
			t.Errorf("repeat with: make chaos FAULTS=%d SEED=%d BROKERS=%s KINDS='%s'", faults, seed, brokers, strings.Join(chosen, ","))
			break
		}
		for _, p := range next {
			counts[p.group+": "+p.name]++
		}
		injected += len(next)
		if first == nil {
			first = c.gauges()
		}
		t.Logf("%d of %d faults, %v", injected, len(plan), time.Since(began).Round(time.Second))
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
