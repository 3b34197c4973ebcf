//go:build unix && !linux

package child

import (
	"errors"
	"syscall"
)

// Without a parent-death signal a child outlives a test process that is killed
// with -9; every orderly end still stops it.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// GroupGone says whether no process of the group is left.
func (p *Process) GroupGone() bool { return errors.Is(syscall.Kill(-p.PID(), 0), syscall.ESRCH) }
