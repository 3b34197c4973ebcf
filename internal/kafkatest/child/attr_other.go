//go:build !unix

package child

import "syscall"

func attributes() *syscall.SysProcAttr { return nil }

// SignalGroup ends the program: this system has no process groups.
func (p *Process) SignalGroup(syscall.Signal) error { p.Kill(); return nil }

// GroupGone says whether the program has ended.
func (p *Process) GroupGone() bool { return !p.Running() }

// Guard does nothing on this system.
func (p *Process) Guard() (release func(), err error) { return func() {}, nil }
