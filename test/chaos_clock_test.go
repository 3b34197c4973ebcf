package test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// clockOff restarts both of a pair with a clock that is two hours off. They must do
// their work all the same.
func clockOff(c *chaos, on []string, r *rand.Rand, hold time.Duration) {
	shift := []string{"7200", "-7200"}[r.IntN(2)]
	c.mu.Lock()
	program := c.shiftable()
	c.mu.Unlock()
	for _, name := range on {
		c.term(name)
		c.launchAs(program, name, c.stateDir(name), "CLOCK_SHIFT="+shift)
	}
	c.goesOn(fmt.Sprintf("the clock of %s is off by %s s", on[0], shift))
	pause(hold)
	for _, name := range on {
		c.term(name)
	}
	c.up(on...)
}

// buildShiftable builds the program with a time.Now that the environment's
// CLOCK_SHIFT, in seconds, puts ahead: every clock of the process, Kafka clients'
// too, without a hook in the program. Monotonic time goes on as it is.
func buildShiftable(t *testing.T) string {
	t.Helper()
	const was = "\tsec, nsec, mono := runtimeNow()\n"
	dir := t.TempDir()
	original := filepath.Join(goRoot(t), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(source), was, was+"\tsec += shift\n", 1)
	text = strings.Replace(text, "\nimport (\n", "\nimport (\n\t\"syscall\"\n", 1)
	text += `
var shift = func() int64 {
	s, _ := syscall.Getenv("CLOCK_SHIFT")
	n, _ := atoi(s)
	return int64(n)
}()
`
	changed, overlay, program := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "shiftable")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{changed: text, overlay: string(replace)} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-race=false", "-overlay", overlay, "-o", program, "./cmd")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program with a clock to shift, on %s: %v\n%s", runtime.Version(), err, out)
	}
	return program
}

func goRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
