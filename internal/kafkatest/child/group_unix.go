//go:build unix

package child

import (
	"errors"
	"syscall"
)

// SignalGroup sends sig to every process of the program's group.
func (p *Process) SignalGroup(sig syscall.Signal) error { return syscall.Kill(-p.PID(), sig) }

// GroupGone says whether no process of the group is left.
func (p *Process) GroupGone() bool { return errors.Is(syscall.Kill(-p.PID(), 0), syscall.ESRCH) }
