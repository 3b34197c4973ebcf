package loadgen

import (
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// newSleeper returns a sleep that wakes within microseconds. time.Sleep may be a
// millisecond late, because the runtime waits in whole ones, and all of that
// would show as the server's latency. The goroutine keeps its thread.
func newSleeper() func(time.Duration) {
	runtime.LockOSThread() // the thread ends with the goroutine
	// The kernel may wake a thread up to 50 µs late, to save power, unless told.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // refused: that much later
	return func(d time.Duration) {
		ts := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&ts, nil) // cut short by a signal: the caller looks again
	}
}
