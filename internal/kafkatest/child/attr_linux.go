package child

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// GroupGone says whether no process of the group runs any more. It looks at the
// process table because a zombie that nobody collects still answers signals.
func (p *Process) GroupGone() bool {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return false
	}
	group := []byte(strconv.Itoa(p.PID()))
	for _, name := range files {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // ended since the listing
		}
		// "pid (name) state parent group …", where the name may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) > 2 && bytes.Equal(fields[2], group) && fields[0][0] != 'Z' && fields[0][0] != 'X' {
			return false
		}
	}
	return true
}
