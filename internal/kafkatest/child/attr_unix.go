//go:build unix && !linux

package child

import "syscall"

// Without a parent-death signal a child outlives a test process that is killed
// with -9; every orderly end still stops it.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
