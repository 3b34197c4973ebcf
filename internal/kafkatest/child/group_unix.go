//go:build unix

package child

import (
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
)

// SignalGroup sends sig to every process of the program's group.
func (p *Process) SignalGroup(sig syscall.Signal) error { return syscall.Kill(-p.PID(), sig) }

// Guard kills the program's whole group should this process die, however it
// dies: for programs that start others, which the kernel would leave behind. The
// caller ends the guard with release when the group is gone.
func (p *Process) Guard() (release func(), err error) {
	cmd := exec.Command("sh", "-c", `read -r _; kill -9 -- "-$1"`, "guard", strconv.Itoa(p.PID()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // no parent-death signal: it must live on
	pipe, err := cmd.StdinPipe()                          // ends when we do
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return func() {
		_ = cmd.Process.Kill() // before the pipe closes, or it would do its work
		_ = cmd.Wait()
		_ = pipe.Close()
	}, nil
}
