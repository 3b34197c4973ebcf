package model

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"coinbit/internal/wallet"
)

const (
	stepsEach = 70 // of a schedule, before it is healed
	schedules = 20_000
)

// steps are what can happen next, as often as they stand here.
var steps = []struct {
	name   string
	weight int
	do     func(w *world)
}{
	{"deposit", 5, (*world).deposited},
	{"repeat", 1, (*world).repeated},
	{"API starts anew", 1, func(w *world) {
		if w.faults > 0 {
			w.faults--
			w.starts(w.pick(partitions), w.pick(apis))
		}
	}},
	{"operator", 1, (*world).operated},
	{"advance", 6, func(w *world) {
		if o := w.owners[w.pick(groups)][w.pick(partitions)]; o != nil && !o.running {
			w.advance(o)
		}
	}},
	{"process", 10, func(w *world) { w.process(w.anyOwner()) }},
	{"send", 6, func(w *world) { w.send(w.anyOwner()) }},
	{"answer", 6, func(w *world) { w.answered(w.anyOwner()) }},
	{"tell", 4, func(w *world) { w.tell(w.anyOwner()) }},
	{"commit", 3, func(w *world) { w.commit(w.anyOwner()) }},
	{"flush", 2, func(w *world) { w.flush(w.anyOwner()) }},
	{"look", 3, (*world).look},
	{"compact", 1, (*world).compact},
	{"assign", 4, func(w *world) { // to a partition that has no owner
		if g, p := w.pick(groups), w.pick(partitions); w.owners[g][p] == nil {
			w.rebalance(g, p, w.pick(instances))
		}
	}},
	{"rebalance", 2, func(w *world) {
		if w.faults > 0 {
			w.faults--
			w.rebalance(w.pick(groups), w.pick(partitions), w.pick(instances))
		}
	}},
	{"crash", 1, func(w *world) { // what was on the wire arrived, or not
		if o := w.anyOwner(); w.faults > 0 && o.epoch > 0 {
			w.faults--
			w.drop(o)
		}
	}},
	{"disk", 1, func(w *world) {
		if w.faults == 0 {
			return
		}
		w.faults--
		g, i, p := w.pick(groups), w.pick(instances), w.pick(partitions)
		for _, o := range append(slices.Clone(w.zombies), w.owners[g][p]) { // its instance is not running
			if o != nil && o.group == g && o.partition == p && o.instance == i {
				w.drop(o)
			}
		}
		switch w.pick(3) {
		case 0:
			w.copies[g][i][p] = w.disks[g][i][p]
		case 1:
			w.disks[g][i][p] = w.copies[g][i][p]
		case 2:
			w.disks[g][i][p] = empty
		}
		w.log("disk of instance %d, group %d/%d: at %d now", i, g, p, w.disks[g][i][p].offset)
	}},
}

var lots = func() (lots []int) {
	for i, s := range steps {
		for range s.weight {
			lots = append(lots, i)
		}
	}
	return lots
}()

// anyOwner is one that runs, or a zombie; a blank one when there is none.
func (w *world) anyOwner() *owner {
	if n := len(w.zombies); n > 0 && w.pick(4) == 0 {
		return w.zombies[w.pick(n)]
	}
	if o := w.owners[w.pick(groups)][w.pick(partitions)]; o != nil {
		return o
	}
	return &owner{wireAt: -1}
}

// heal ends all faults and runs on until nothing is left to do.
func (w *world) heal() {
	w.log("--- healed")
	w.faults = 0
	w.pick = func(int) int { return 0 }
	for g := range groups {
		for p := range partitions {
			for rounds := 0; ; rounds++ {
				if rounds > 2000 {
					w.fail("group %d never gets done with partition %d", g, p)
				}
				o := w.owners[g][p]
				if o == nil {
					w.rebalance(g, p, 0)
					continue
				}
				if !o.running {
					w.advance(o)
					continue
				}
				before := *o
				w.process(o)
				w.send(o)
				w.answered(o)
				w.tell(o)
				if w.owners[g][p] != o {
					continue
				}
				if o.next >= w.inputEnd(g, p) && len(o.inflight) == 0 && len(o.puts)+len(o.wire)+len(o.emits) == 0 {
					w.commit(o)
					w.flush(o)
					break
				}
				if before.next == o.next && before.marked == o.marked && len(before.puts) == len(o.puts) && len(before.wire) == len(o.wire) && len(before.emits) == len(o.emits) {
					w.fail("group %d is stuck on partition %d", g, p)
				}
			}
		}
	}
	// Late ones wake after all is done, and must not matter.
	for _, z := range slices.Clone(w.zombies) {
		for range 4 {
			w.process(z)
			w.send(z)
		}
	}
}

// judge holds the newest rows, and rows rebuilt from nothing, against the
// deposits.
func (w *world) judge() {
	for p := range partitions {
		w.compactAll()
		var newest [groups][wallets]*row
		for g := range groups {
			for _, r := range w.tables[g][p].records {
				if !r.gone && r.key != claimKey {
					newest[g][r.key] = r.row
				}
			}
		}
		for k := range wallets {
			want := w.latest[p][k]
			if want == nil {
				continue
			}
			got := newest[threshold][k]
			if got == nil || !same(want, got) {
				w.fail("in the end wallet %d:%d holds %+v, want %+v", p, k, got, want)
			}
			if got := got.counter.Account.Balance; got != w.told[p][k] {
				w.fail("in the end wallet %d:%d holds %v, and its clients deposited %v", p, k, got, w.told[p][k])
			}
			var f wallet.Flag
			if x := newest[flagger][k]; x != nil {
				f = x.flag
			}
			if got, want := f.Raised(), w.raised(p, k); got != want {
				w.fail("in the end wallet %d:%d is flagged %t, want %t", p, k, got, want)
			}
		}
	}
}

func (w *world) compactAll() {
	for g := range groups {
		for p := range partitions {
			n := 0
			w.pick = func(int) int { n++; return []int{g, p}[n-1] }
			w.compact()
		}
	}
}

// above tells whether the wallet's deposit at an offset is one after which it must be
// flagged, whoever had cleared it before: of what counts, looked at without the core,
// some window that holds it is above the threshold.
func (w *world) above(p, k int, offset int64) bool {
	highest := map[uint64]uint64{}
	var counts []wallet.Deposit
	for _, x := range w.deposits[p][:offset+1] {
		if x.wallet == k && x.d.Sequence > highest[x.d.Origin] {
			highest[x.d.Origin] = x.d.Sequence
			counts = append(counts, x.d)
		}
	}
	if len(counts) == 0 || counts[len(counts)-1].Offset != offset {
		return false // not this wallet's, or a repeat
	}
	at, threshold := counts[len(counts)-1].At, int64(rule.Threshold.Units)
	for end := at; end < at+rule.PeriodMs; end++ {
		var sum int64
		for _, d := range counts {
			if end-rule.PeriodMs < d.At && d.At <= end {
				sum += int64(d.Amount.Units)
			}
		}
		if sum > threshold {
			return true
		}
	}
	return false
}

// raised is the flag by the plain rule: the last word of the operators, or a
// crossing that no removal knew of.
func (w *world) raised(p, k int) bool {
	raised, upto := false, int64(0)
	for _, e := range w.flags[p] {
		if e.wallet != k || e.e.Crossing != nil {
			continue
		}
		raised = e.e.Raise
		if e.e.Remove {
			upto = e.knew
		}
	}
	var tipped []int64 // the latest event time of a crossing's deposit, if any
	for at := range int64(len(w.deposits[p])) {
		if !w.above(p, k, at) {
			continue
		}
		crosses := slices.Contains(w.crossings[p], at)
		raised = raised || crosses && at >= upto
		t := w.deposits[p][at].d.At
		if !crosses && (tipped == nil || t-tipped[0] >= rule.PeriodMs) {
			w.fail("wallet %d:%d is above with deposit %d, a period after it last crossed, and does not cross", p, k, at)
		}
		if crosses && (tipped == nil || t > tipped[0]) {
			tipped = []int64{t}
		}
	}
	for _, at := range w.crossings[p] {
		if w.deposits[p][at].wallet == k && !w.above(p, k, at) {
			w.fail("wallet %d:%d crosses with deposit %d, and no window is above", p, k, at)
		}
	}
	return raised
}

// run runs one schedule, given by the numbers that pick answers, and returns
// the invariant that it broke.
func run(bug string, script *script, say func(string, ...any)) (broken string) {
	w := newWorld(bug, script.pick)
	w.say = say
	defer func() {
		if r := recover(); r != nil {
			v, ok := r.(violation)
			if !ok {
				panic(r)
			}
			broken = string(v)
		}
	}()
	for script.step() {
		steps[lots[w.pick(len(lots))]].do(w)
	}
	w.heal()
	w.judge()
	return ""
}

// script is a schedule: for each step the numbers that were picked. A new one
// draws them at random; a given one is played again, 0 where it has none.
type script struct {
	random *rand.Rand
	steps  [][]int
	at, n  int
}

func (s *script) step() bool {
	s.n = 0
	if s.random != nil {
		if len(s.steps) == stepsEach {
			return false
		}
		s.steps = append(s.steps, nil)
		return true
	}
	s.at++
	return s.at <= len(s.steps)
}

func (s *script) pick(n int) int {
	if s.random != nil {
		x := s.random.IntN(n)
		last := len(s.steps) - 1
		s.steps[last] = append(s.steps[last], x)
		return x
	}
	picks := s.steps[s.at-1]
	s.n++
	if s.n > len(picks) {
		return 0
	}
	return min(picks[s.n-1], n-1)
}

// shrink leaves out steps as long as something still breaks.
func shrink(bug string, steps [][]int) [][]int {
	for size := len(steps) / 2; size > 0; size /= 2 {
		for from := 0; from+size <= len(steps); {
			less := slices.Concat(steps[:from], steps[from+size:])
			if run(bug, &script{steps: less}, nil) != "" {
				steps = less
			} else {
				from++
			}
		}
	}
	return steps
}

// search runs n schedules from a seed on and returns the first that breaks an
// invariant, with its number.
func search(bug string, seed, n uint64) (broken string, found [][]int, tried uint64) {
	for i := range n {
		s := &script{random: rand.New(rand.NewPCG(seed, i))}
		if broken := run(bug, s, nil); broken != "" {
			return broken, s.steps, i + 1
		}
	}
	return "", nil, n
}

func readable(bug string, steps [][]int) string {
	var b strings.Builder
	broken := run(bug, &script{steps: steps}, func(format string, args ...any) { fmt.Fprintf(&b, "  "+format+"\n", args...) })
	return b.String() + "  => " + broken
}

// TestSchedules runs SCHEDULES random schedules, on all cores, from SEED.
func TestSchedules(t *testing.T) {
	total, seed := uint64(schedules), uint64(time.Now().UnixNano())
	if s := os.Getenv("SCHEDULES"); s != "" {
		var err error
		if total, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("SCHEDULES: %v", err)
		}
	}
	if s := os.Getenv("SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("SEED: %v", err)
		}
	}
	began := time.Now()
	var wg sync.WaitGroup
	var done atomic.Uint64
	workers := uint64(runtime.GOMAXPROCS(0))
	for i := range workers {
		wg.Go(func() {
			broken, steps, tried := search("", seed+i, total/workers)
			done.Add(tried)
			if broken != "" {
				t.Errorf("%s\nSEED=%d\n%s", broken, seed, readable("", shrink("", steps)))
			}
		})
	}
	wg.Wait()
	t.Logf("%d schedules of %d steps in %s, SEED=%d", done.Load(), stepsEach, time.Since(began).Round(time.Millisecond), seed)
}

// Each planted bug gives a counterexample.
func TestPlantedBugs(t *testing.T) {
	for _, bug := range []string{
		"no offset check", "sequence not remembered", "one origin remembered", "numbered before the queue", "no emit again", "unordered marks",
		"marks before the answer", "values ahead of the offset", "offset ahead of the values", "no fencing",
		"claim after recovery", "recovery stops before the claim", "acknowledged by the leader alone",
		"removal without watermark", "newest offset", "tip not compared", "view shown before ready",
		"older row in place of the newer", "recovery in part taken for whole",
	} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			broken, steps, tried := search(bug, 1, 200_000)
			if broken == "" {
				t.Fatalf("not found in %d schedules", tried)
			}
			small := shrink(bug, steps)
			t.Logf("found in schedule %d, %d steps after shrinking:\n%s", tried, len(small), readable(bug, small))
		})
	}
}
