//go:build kafka

package test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"coinbit/internal/kafkatest/child"
)

// makeTarget is one `make run-dev-…` as a developer runs it: make, go run and the
// program in one process group.
type makeTarget struct {
	*child.Process
	name string
	log  *output
}

func startMake(t *testing.T, target string, env []string) *makeTarget {
	t.Helper()
	m := &makeTarget{name: target, log: &output{}}
	cmd := exec.Command("make", target)
	cmd.Dir = ".."
	cmd.Env = slices.Concat(os.Environ(), ownSettings, env)
	cmd.Stdout, cmd.Stderr = m.log, m.log
	cmd.WaitDelay = 10 * time.Second // the program may outlive make and hold its output
	var err error
	if m.Process, err = child.Start(cmd); err != nil {
		t.Fatal(err)
	}
	release, err := m.Guard()
	if err != nil {
		m.Kill()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.SignalGroup(syscall.SIGKILL) // nobody left is what we want
		<-m.Done()
		release()
		if t.Failed() {
			t.Logf("the output of make %s ends:\n%s", target, m.log.tail(25))
		}
	})
	return m
}

// TestSeedCommands runs the commands of the task's own text, to the letter.
func TestSeedCommands(t *testing.T) {
	const period = 4 * time.Second
	addr := freeAddr(t)
	env := []string{"BROKER=" + bootstrap, "PORT=" + addr, "STATE_DIR=" + t.TempDir(), "ROLLING_PERIOD=" + period.String()}
	var targets []*makeTarget
	for _, name := range []string{"run-dev-api", "run-dev-broker-balance", "run-dev-broker-flagger", "run-dev-broker-detector"} {
		targets = append(targets, startMake(t, name, env))
	}
	up := eventually(3*time.Minute, func() bool { // go run compiles first
		for _, m := range targets {
			if !m.Running() {
				t.Fatalf("make %s ended:\n%s", m.name, m.log.tail(25))
			}
		}
		res, err := probes.Get("http://" + addr + "/readyz")
		if err != nil {
			return false
		}
		_, err = readAll(res)
		return err == nil && res.StatusCode == 200
	})
	if !up {
		t.Fatal("the API is not ready after 3 minutes")
	}
	c := newClient(t, addr)

	t.Run("curl", func(t *testing.T) {
		wallet := "69da5a28bfee68a8b0bfeba076ee43f8ca4"
		if !ownKafka { // it may have had this deposit before
			wallet = "69da5a28bfee68a8b0bfeba076ee" + runID[1:]
		}
		curl(t, success, "-X", "POST", "http://"+addr+"/api/deposit", "-d", `{"wallet_id": "`+wallet+`", "amount": 3500}`)
		want := `{"wallet_id":"` + wallet + `","balance":3500,"above_threshold":false}`
		var got string
		// The processors may still be starting.
		if !eventually(60*time.Second, func() bool {
			got = runCurl(t, "http://"+addr+"/api/check/"+wallet)
			return got == want
		}) {
			t.Errorf("curl of the check: %q, want %q", got, want)
		}
	})

	// The four cases of the task, with a period of 4 s instead of 2 minutes.
	cases := []struct {
		name  string
		steps []step
		above bool
	}{
		{"two of 6000 in one window", []step{{6000, 0}, {6000, period / 2}}, true},
		{"two of 6000 a period apart", []step{{6000, 0}, {6000, period}}, false},
		{"five of 2000, then 6000 after the window", append(repeat(5, step{2000, 50 * time.Millisecond}), step{6000, period + 200*time.Millisecond}), false},
		{"six of 2000 in one window", repeat(6, step{2000, 50 * time.Millisecond}), true},
	}
	t.Run("threshold", func(t *testing.T) {
		for i, tt := range cases {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				wallet := fmt.Sprintf("seed-%s-%d", runID, i)
				var balance int64
				for n, s := range tt.steps {
					pause(s.after) // since the last answer, so at least this long between acceptances
					position := c.mustPost(t, wallet, fmt.Sprint(s.amount))
					balance += s.amount * nano
					last := n == len(tt.steps)-1
					if last || s.amount != tt.steps[n+1].amount { // after each part of the case
						c.await(t, wallet, position, state{balance, last && tt.above})
					}
				}
			})
		}
	})

	// As Ctrl-C does, the signal goes to the whole group.
	began := time.Now()
	for _, m := range targets {
		if err := m.SignalGroup(syscall.SIGTERM); err != nil {
			t.Errorf("make %s: %v", m.name, err)
		}
	}
	for _, m := range targets {
		if !eventually(5*time.Second-time.Since(began), m.GroupGone) {
			t.Errorf("make %s: something still runs 5 s after SIGTERM", m.name)
		}
	}
	t.Logf("all gone %v after SIGTERM", time.Since(began).Round(time.Millisecond))
}

// step is a deposit some time after the answer to the previous one.
type step struct {
	amount int64
	after  time.Duration
}

func repeat(n int, s step) []step { return slices.Repeat([]step{s}, n) }

func curl(t *testing.T, want string, args ...string) {
	t.Helper()
	if got := runCurl(t, args...); got != want {
		t.Errorf("curl %s: %q, want %q", strings.Join(args, " "), got, want)
	}
}

func runCurl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("curl", append([]string{"-sS", "-m", "15"}, args...)...).Output()
	if err != nil {
		t.Fatalf("curl %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}
