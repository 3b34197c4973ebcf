package child_test

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"coinbit/internal/kafkatest/child"
)

// TestMain doubles as the program the tests start.
func TestMain(m *testing.M) {
	switch os.Getenv("CHILD_TEST") {
	case "exit3":
		os.Exit(3)
	case "sleep":
		<-time.After(time.Minute)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, mode string) *child.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "CHILD_TEST="+mode)
	p, err := child.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestEnds(t *testing.T) {
	tests := []struct {
		name string
		mode string
		end  func(*child.Process)
		code int
	}{
		{"by itself", "exit3", func(p *child.Process) { p.Wait(10 * time.Second) }, 3},
		{"killed", "sleep", (*child.Process).Kill, -1},
		{"killed twice", "sleep", func(p *child.Process) { p.Kill(); p.Kill() }, -1},
		{"asked", "sleep", func(p *child.Process) { p.Stop(10 * time.Second) }, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, tt.mode)
			tt.end(p)
			if p.Running() {
				t.Fatal("still running")
			}
			if got := p.ExitCode(); got != tt.code {
				t.Errorf("exit code %d, want %d", got, tt.code)
			}
		})
	}
}

func TestWaitHasADeadline(t *testing.T) {
	p := start(t, "sleep")
	if p.Wait(10 * time.Millisecond) {
		t.Error("Wait says a sleeping program ended")
	}
	if !p.Running() {
		t.Error("not running")
	}
}

func TestStartSaysWhy(t *testing.T) {
	if _, err := child.Start(exec.Command("/no/such/program")); err == nil {
		t.Error("no error for a program that does not exist")
	}
}

func TestFreePort(t *testing.T) {
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.PortFree(port); err != nil {
		t.Errorf("port %d is not free: %v", port, err)
	}
}

func TestFreePortIsGivenOnce(t *testing.T) {
	given := map[int]bool{}
	for range 2000 { // of 22,000: chance alone would repeat some ninety
		port, err := child.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if given[port] {
			t.Fatalf("%d is given twice", port)
		}
		given[port] = true
	}
}

func TestGuardEndsTheWholeGroup(t *testing.T) {
	p, err := child.Start(exec.Command("sh", "-c", "sleep 60 & wait"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	release, err := p.Guard()
	if err != nil {
		t.Fatal(err)
	}
	if p.GroupGone() {
		t.Error("the group is gone although it runs")
	}
	release()
	if !p.Running() {
		t.Error("release ended the program")
	}
	if err := p.SignalGroup(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !p.GroupGone(); {
		if time.Now().After(deadline) {
			t.Fatal("the group is still there 10 s after SIGKILL")
		}
		runtime.Gosched()
	}
}
