package live_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"coinbit/internal/live"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tickTime = 250 * time.Millisecond

// event is a message as a page reads it.
type event struct {
	name string
	id   int64
	data struct {
		Total    int64
		P50, P99 *int64
		Deposits []live.Deposit
		Flags    []live.Flag
		Points   []struct{ Total int64 }
		About    string
		Mood     string
	}
}

func parse(t *testing.T, message []byte) event {
	t.Helper()
	var e event
	if !strings.HasSuffix(string(message), "\n\n") {
		t.Fatalf("no end: %q", message)
	}
	for line := range strings.Lines(string(message)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "event":
			e.name = value
		case "id":
			_, _ = fmt.Sscan(value, &e.id)
		case "data":
			if err := json.Unmarshal([]byte(value), &e.data); err != nil {
				t.Fatalf("%v: %s", err, value)
			}
		case "":
		default:
			t.Fatalf("%q in %q", name, message)
		}
	}
	return e
}

// world is a hub that runs in a bubble of its own time.
type world struct {
	t   *testing.T
	hub *live.Hub
	end func()
}

func run(t *testing.T, o live.Options, scenario func(world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.Tick, o.StateEvery = tickTime, time.Second
		if o.Watchers == 0 {
			o.Watchers = 4
		}
		hub, err := live.New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); hub.Run(ctx) }()
		w := world{t, hub, func() { cancel(); <-done }}
		defer w.end()
		scenario(w)
	})
}

// ticks lets n ticks pass, and a moment more.
func (w world) ticks(n int) {
	time.Sleep(time.Duration(n)*tickTime + time.Millisecond)
	synctest.Wait()
}

func (w world) watch() (<-chan []byte, func()) {
	w.t.Helper()
	c, stop, ok := w.hub.Watch()
	if !ok {
		w.t.Fatal("nobody else may watch")
	}
	return c, stop
}

// had are the events that wait in c.
func (w world) had(c <-chan []byte) []event {
	w.t.Helper()
	var list []event
	for {
		select {
		case m, ok := <-c:
			if !ok {
				return list
			}
			list = append(list, parse(w.t, m))
		default:
			return list
		}
	}
}

// deposits takes n deposits as a view does, and returns how many were looked at.
func (w world) deposits(n int) (looked int) {
	for i := range n {
		if w.hub.Count() {
			looked++
			w.hub.Show(live.Deposit{WalletID: fmt.Sprint("w", i), DelayMs: int64(i + 1)})
		}
	}
	return looked
}

func TestStory(t *testing.T) {
	run(t, live.Options{Hello: "the rule"}, func(w world) {
		if w.deposits(3) != 0 {
			t.Error("deposits are looked at though nobody watches")
		}
		w.ticks(2)
		c, stop := w.watch()
		defer stop()
		if n := w.deposits(100); n != 64 || !w.hub.Room() {
			t.Errorf("%d of the first deposits are looked at", n)
		}
		w.hub.ShowFlag(live.Flag{WalletID: "alice", Raised: true})
		w.ticks(1)
		w.ticks(1)
		got := w.had(c)
		if len(got) != 3 || got[0].name != "hello" || got[1].name != "tick" || got[2].name != "tick" {
			t.Fatalf("%+v", got)
		}
		hello, tick, quiet := got[0].data, got[1].data, got[2].data
		if hello.About != "the rule" || len(hello.Points) != 2 || hello.Points[1].Total != 3 || len(hello.Deposits) != 0 {
			t.Errorf("hello %+v", hello)
		}
		// 64 found place: delays of 1 to 64 ms, of which the last twelve are shown.
		if tick.Total != 103 || len(tick.Deposits) != 12 || tick.Deposits[0].WalletID != "w63" || tick.Deposits[11].WalletID != "w52" {
			t.Errorf("tick %+v", tick)
		}
		if *tick.P50 != 32 || *tick.P99 != 64 || len(tick.Flags) != 1 || tick.Flags[0].WalletID != "alice" {
			t.Errorf("tick %+v, p50 %d, p99 %d", tick, *tick.P50, *tick.P99)
		}
		if quiet.Total != 103 || len(quiet.Deposits) != 0 || len(quiet.Flags) != 0 || *quiet.P50 != 32 {
			t.Errorf("quiet tick %+v", quiet)
		}
		w.ticks(10)
		w.had(c)
		w.ticks(10)
		late := w.had(c)
		if p := late[len(late)-1].data; p.P50 != nil || p.P99 != nil {
			t.Errorf("delays of more than 5 s ago still count: %+v", p)
		}
		again, stop2 := w.watch()
		defer stop2()
		if h := w.had(again)[0].data; len(h.Points) != 24 || len(h.Deposits) != 12 || len(h.Flags) != 1 {
			t.Errorf("who comes later does not see what was: %+v", h)
		}
	})
}

// What is looked at in a tick is bounded whatever the rate, and spread over it.
func TestSampling(t *testing.T) {
	run(t, live.Options{}, func(w world) {
		c, stop := w.watch()
		defer stop()
		w.deposits(2500)
		w.ticks(1)
		for range 5 {
			if looked := w.deposits(2500); looked < 48 || looked > 64 {
				t.Errorf("%d of 2500 looked at", looked)
			}
			w.ticks(1)
		}
		all := w.had(c)
		last := all[len(all)-1].data
		if last.Total != 15000 || len(last.Deposits) != 12 {
			t.Errorf("%+v", last)
		}
		// The samples come from all of the 2500, not from the first or last few.
		if *last.P50 < 1000 || *last.P50 > 1500 || *last.P99 < 2300 {
			t.Errorf("p50 %d, p99 %d", *last.P50, *last.P99)
		}
		w.ticks(1) // a quiet one, and each deposit shows again
		if w.deposits(1) != 1 {
			t.Error("a single deposit after many is not looked at")
		}
	})
}

// Flags have a bound too.
func TestFlagsBound(t *testing.T) {
	run(t, live.Options{}, func(w world) {
		c, stop := w.watch()
		defer stop()
		n := 0
		for ; w.hub.Room(); n++ {
			w.hub.ShowFlag(live.Flag{WalletID: fmt.Sprint("w", n)})
		}
		w.hub.ShowFlag(live.Flag{WalletID: "too many"})
		w.ticks(1)
		got := w.had(c)
		if f := got[len(got)-1].data.Flags; n != 64 || len(f) != 12 || f[0].WalletID != "w63" {
			t.Errorf("%d taken, shown %+v", n, f)
		}
		if !w.hub.Room() {
			t.Error("no room in the next tick")
		}
	})
}

// Who does not read misses ticks, in order and without holes in the totals, and
// holds up neither the others nor those who tell.
func TestSlowWatcher(t *testing.T) {
	run(t, live.Options{}, func(w world) {
		slow, stop := w.watch()
		defer stop()
		quick, stop2 := w.watch()
		defer stop2()
		var seen []event
		for range 100 {
			w.deposits(10)
			w.ticks(1)
			seen = append(seen, w.had(quick)...)
		}
		if len(seen) != 101 {
			t.Errorf("the quick one has %d events, want 101", len(seen))
		}
		old := w.had(slow)
		if len(old) != 16 {
			t.Errorf("the slow one has %d events, want 16", len(old))
		}
		w.ticks(1)
		fresh := w.had(slow)
		if len(fresh) != 1 || fresh[0].id != 101 || fresh[0].data.Total != 1000 {
			t.Errorf("after it read again it has %+v", fresh)
		}
		for _, list := range [][]event{seen, append(old, fresh...)} {
			for i := 1; i < len(list); i++ {
				if list[i].id <= list[i-1].id {
					t.Fatalf("event %d after %d", list[i].id, list[i-1].id)
				}
			}
		}
	})
}

func TestBoundedWatchers(t *testing.T) {
	run(t, live.Options{Watchers: 3}, func(w world) {
		var stops []func()
		for range 3 {
			_, stop := w.watch()
			stops = append(stops, stop)
		}
		if _, _, ok := w.hub.Watch(); ok {
			t.Error("a fourth may watch")
		}
		stops[0]()
		stops[0]() // twice does no harm
		_, stop := w.watch()
		if _, _, ok := w.hub.Watch(); ok {
			t.Error("one place was given back twice")
		}
		stop()
		stops[1]()
		stops[2]()
		if w.hub.Watched() {
			t.Error("watched by nobody")
		}
	})
}

// At the end every stream ends, at once, and nobody can begin another.
func TestEnd(t *testing.T) {
	run(t, live.Options{State: func(ctx context.Context) any { <-ctx.Done(); return struct{}{} }}, func(w world) {
		c, stop := w.watch()
		w.ticks(1)
		began := time.Now()
		w.end()
		if took := time.Since(began); took != 0 {
			t.Errorf("the end took %s", took)
		}
		w.had(c)
		if _, open := <-c; open {
			t.Error("the stream goes on")
		}
		if _, _, ok := w.hub.Watch(); ok {
			t.Error("a hub that ended can be watched")
		}
		if w.deposits(100) != 0 { // it blocks nobody either
			t.Error("looked at, for nobody")
		}
		stop()
	})
}

// The state is asked for only while somebody watches, told at once and when it
// changes, and may take its time without holding up a tick.
func TestState(t *testing.T) {
	var asked atomic.Int64
	var mood atomic.Value
	mood.Store("good")
	o := live.Options{State: func(context.Context) any {
		asked.Add(1)
		time.Sleep(3 * time.Second)
		return map[string]any{"mood": mood.Load()}
	}}
	run(t, o, func(w world) {
		w.ticks(40)
		if asked.Load() != 0 {
			t.Errorf("asked %d times though nobody watches", asked.Load())
		}
		c, stop := w.watch()
		moods := func() (list []string, ticks int) {
			for _, e := range w.had(c) {
				switch e.name {
				case "state":
					list = append(list, e.data.Mood)
				case "tick":
					ticks++
				}
			}
			return list, ticks
		}
		w.ticks(13)
		if list, ticks := moods(); len(list) != 1 || list[0] != "good" || ticks != 13 {
			t.Errorf("%v in %d ticks", list, ticks)
		}
		w.ticks(14)
		if list, _ := moods(); len(list) != 0 {
			t.Errorf("told again without a change: %v", list)
		}
		mood.Store("bad")
		w.ticks(15)
		w.ticks(15)
		if list, _ := moods(); len(list) != 1 || list[0] != "bad" {
			t.Errorf("%v", list)
		}
		w.ticks(20) // c is full
		mood.Store("worse")
		w.ticks(40)
		if list, _ := moods(); len(list) != 0 {
			t.Errorf("there was no place for %v", list)
		}
		w.ticks(1)
		if list, _ := moods(); len(list) != 1 || list[0] != "worse" {
			t.Errorf("after it read again it is told %v, want the state it missed", list)
		}
		second, stop2 := w.watch()
		if got := w.had(second); len(got) != 2 || got[1].data.Mood != "worse" {
			t.Errorf("who comes later is told %+v", got)
		}
		stop()
		stop2()
	})
}

func TestNew(t *testing.T) {
	if _, err := live.New(live.Options{Tick: time.Second, StateEvery: time.Second}); err == nil {
		t.Error("a hub that nobody may watch")
	}
}
