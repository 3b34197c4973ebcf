// Package child starts other programs for tests and makes sure they end: with
// the test that started them, or with the test process itself, however it dies.
// It knows nothing of Kafka or of the services.
package child

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Process is one running program. Its methods may be called at any time, also
// after it has ended.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; valid once done is closed
}

// Start runs cmd in a process group of its own. On Linux the kernel kills the
// program when this process dies.
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = attributes()
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel's parent-death signal is sent when the *thread* that
		// started the child ends, so this one stays until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID is the program's process id, which is also its group's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running says whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ExitCode waits for the end and returns the exit code, -1 when a signal ended
// the program.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Err waits for the end and returns what exec.Cmd.Wait returned.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Signal sends sig to the program alone.
func (p *Process) Signal(sig os.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Kill ends the program at once, as kill -9 does, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.Signal(os.Kill) // gone already is what we want
	<-p.done
}

// Stop asks the program to end (SIGTERM) and kills it when it has not after
// grace. It says whether the program ended by itself.
func (p *Process) Stop(grace time.Duration) bool {
	if err := p.Signal(syscall.SIGTERM); err != nil { // not every system has it
		p.Kill()
		return false
	}
	if p.Wait(grace) {
		return true
	}
	p.Kill()
	return false
}

// Wait waits at most d for the end and says whether it came.
func (p *Process) Wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

// FreePort finds a port nobody listens on at 127.0.0.1. It prefers one outside
// the range systems take outgoing ports from: while a killed server is away, a
// client that keeps dialling its port could otherwise be given that very port
// as its own and so keep the server from coming back. A process is never given
// the same one twice: it may not listen on the first yet.
func FreePort() (int, error) {
	for range 100 {
		port := 10000 + rand.IntN(22000)
		if _, again := given.LoadOrStore(port, true); !again && PortFree(port) == nil {
			return port, nil
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// given are the ports that FreePort has looked at.
var given sync.Map

// PortFree returns an error when a server cannot listen on port at 127.0.0.1.
func PortFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}
