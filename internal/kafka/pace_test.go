package kafka

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// waited is how long pace has a request wait while records come every now and then.
func waited(t *testing.T, p *pace, every time.Duration) time.Duration {
	t.Helper()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-time.After(every):
				p.came()
			case <-stop:
				return
			}
		}
	}()
	began := time.Now()
	p.wait(time.NewTimer(0), nil)
	return time.Since(began)
}

func TestPace(t *testing.T) {
	tests := []struct {
		name       string
		unanswered int // at the end of the request before
		there      int
		want       time.Duration // with another record every 10 µs
	}{
		{"the first of all", 0, 1, 0},
		{"one at a time", 1, 1, 0},
		{"three quarters are there", 64, 48, 0},
		{"the others come", 64, 28, 200 * time.Microsecond},
		{"the others do not come in time", 1000, 1, maxWait},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPace()
				p.answered(tt.unanswered)
				for range tt.there {
					p.came()
				}
				if got := waited(t, &p, 10*time.Microsecond); got != tt.want {
					t.Errorf("waited %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// After a load has gone, a lone record soon waits no more.
func TestPaceForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		p.answered(10_000)
		n := 0
		for ; ; n++ {
			p.came()
			if waited(t, &p, time.Hour) == 0 {
				break
			}
			p.left(1)
			p.answered(1)
		}
		if n > 20 {
			t.Errorf("%d lone records waited", n)
		}
	})
}

// Nothing waits longer than maxWait, however records come and go.
func TestPaceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		r := rand.New(rand.NewPCG(1, 2))
		for range 2000 {
			n := r.IntN(200)
			for range n {
				p.came()
			}
			if got := waited(t, &p, time.Duration(1+r.IntN(300))*time.Microsecond); got > maxWait {
				t.Fatalf("waited %v", got)
			}
			p.left(int(p.waiting.Load()))
			p.answered(n)
		}
	})
}
