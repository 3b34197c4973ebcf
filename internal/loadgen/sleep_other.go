//go:build !linux

package loadgen

import "time"

// newSleeper is time.Sleep where nothing finer is at hand.
func newSleeper() func(time.Duration) { return time.Sleep }
