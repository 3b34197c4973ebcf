//go:build kafka

package test

import (
	"testing"
	"time"
)

// TestKill kills each service with kill -9, KILLS times (3), at random moments
// under load, and starts it again. In the end every balance and every flag must
// be what the log demands, and the log must hold what was acknowledged.
func TestKill(t *testing.T) {
	const period = 3 * time.Second
	kills := number(t, "KILLS", 3)
	f := newFleet(t, bootstrap, "ROLLING_PERIOD="+period.String())
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	log := newLog(t, bootstrap)
	c := newClient(t, f.addr["api"])
	for _, victim := range services {
		t.Run(victim, func(t *testing.T) {
			rnd, seed := seeded(t)
			from := log.ends("deposit")
			l := startLoad(t, c, "kill-"+victim, 50, seed, 20*time.Millisecond)
			for range kills {
				pause(between(rnd, 200*time.Millisecond, 3*time.Second))
				f.kill9(victim)
				pause(between(rnd, 0, 500*time.Millisecond))
				f.start(victim)
			}
			f.awaitReady(60*time.Second, services...)
			pause(between(rnd, 200*time.Millisecond, time.Second)) // some load on the last incarnation
			l.finish(t)
			l.settle(t, log, from, period)
		})
	}
	f.mustVerify()
}

// TestTwoInstances lets a second instance of each group come and go, on the same
// state directory, in order and by kill -9: partitions wander under load.
func TestTwoInstances(t *testing.T) {
	const period = 3 * time.Second
	f := newFleet(t, bootstrap, "ROLLING_PERIOD="+period.String())
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	log := newLog(t, bootstrap)
	rnd, seed := seeded(t)
	from := log.ends("deposit")
	l := startLoad(t, newClient(t, f.addr["api"]), "two", 50, seed, 20*time.Millisecond)
	for round := range 3 {
		for _, s := range []string{"balance", "threshold", "flagger"} {
			second := s + "-2"
			f.addr[second] = freeAddr(t)
			f.launchAs(binary, second, s, "ADMIN_PORT="+f.addr[second])
			f.awaitReady(60*time.Second, second)
		}
		pause(between(rnd, 500*time.Millisecond, 2*time.Second))
		for _, s := range []string{"balance", "threshold", "flagger"} {
			if round == 1 { // the first instance goes the hard way, the second takes over
				f.kill9(s)
				f.start(s)
				continue
			}
			if took, code := f.term(s+"-2", 15*time.Second); code != 0 {
				t.Errorf("%s: exit %d after %v", s, code, took)
			}
		}
		pause(between(rnd, 0, 500*time.Millisecond))
		for _, s := range []string{"balance", "threshold", "flagger"} {
			if round == 1 {
				f.kill9(s + "-2")
			}
		}
	}
	f.awaitReady(60*time.Second, services...)
	l.finish(t)
	l.settle(t, log, from, period)
	f.mustVerify()
}

// TestFiftyRestarts kills and starts the balance service fifty times on one
// state directory. Nobody may have to tidy up after it.
func TestFiftyRestarts(t *testing.T) {
	const period = 3 * time.Second
	f := newFleet(t, bootstrap, "ROLLING_PERIOD="+period.String())
	f.start(services...)
	f.awaitReady(60*time.Second, services...)
	log := newLog(t, bootstrap)
	rnd, seed := seeded(t)
	from := log.ends("deposit")
	l := startLoad(t, newClient(t, f.addr["api"]), "fifty", 50, seed, 50*time.Millisecond)
	for i := range 50 {
		f.kill9("balance")
		f.start("balance")
		if i%20 == 19 { // the group waits for the session of the killed one to end
			began := time.Now()
			f.awaitReady(60*time.Second, "balance")
			t.Logf("ready %v after start %d", time.Since(began).Round(time.Millisecond), i+1)
		} else {
			pause(between(rnd, 50*time.Millisecond, 800*time.Millisecond))
		}
	}
	f.awaitReady(60*time.Second, "balance")
	l.finish(t)
	l.settle(t, log, from, period)
}
