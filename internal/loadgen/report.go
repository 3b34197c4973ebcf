package loadgen

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"coinbit/internal/out"
)

// Report is what came of a load.
type Report struct {
	// Requests is how many were sent and answered or not, Seconds from the start
	// to the last of their ends.
	Requests  int64   `json:"requests"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"per_second"` // answers
	// Asked is the rate that was asked for, in requests/s, 0 in a closed loop.
	Asked       float64 `json:"asked_per_second"`
	Connections int     `json:"connections"`
	// Status counts answers by status code.
	Status map[int]int64 `json:"status"`
	// Failed counts requests without an answer: not connected, timed out, cut off
	// (the connection ended), malformed.
	Failed map[string]int64 `json:"failed"`
	// Unsent were due in the open loop and not sent a second after its end.
	Unsent int64 `json:"unsent"`
	// Kinds are the latencies of each kind of request.
	Kinds []Latency `json:"latency"`
	// Queued is how late requests of the open loop were sent: part of the latency,
	// spent waiting for a connection, or by this program for a processor.
	Queued Latency `json:"queued"`
}

// Latency is a distribution of times in microseconds, of relative error below
// 0.1 %. In the open loop they count from when a request was due; of requests
// that were never sent, from then to the end.
type Latency struct {
	Kind  string `json:"kind"`
	Count int64  `json:"count"`
	P50   int64  `json:"p50_us"`
	P90   int64  `json:"p90_us"`
	P99   int64  `json:"p99_us"`
	P999  int64  `json:"p99_9_us"`
	Max   int64  `json:"max_us"`
	bands []band
}

// band is how many times lie at or below a bound and above the band before.
type band struct {
	below time.Duration
	count int64
}

// longest is what a histogram can hold; more counts as that.
const longest = time.Hour

// tally counts for all workers of a load.
type tally struct {
	kinds []string

	mu     sync.Mutex
	count  int64
	status [600]int64
	failed map[string]int64
	missed int64
	end    time.Duration
	times  []*hdrhistogram.Histogram // by kind
	queued *hdrhistogram.Histogram
}

func newTally(kinds []string) *tally {
	t := &tally{kinds: kinds, failed: map[string]int64{}, queued: newHistogram()}
	for range kinds {
		t.times = append(t.times, newHistogram())
	}
	return t
}

// newHistogram holds microseconds with three significant digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, longest.Microseconds(), 3)
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d, 0), longest).Microseconds()) // fails only above longest
}

// add counts a request that ended at end, after took, of which queued were spent
// waiting. The times of those without an answer count too.
func (t *tally) add(kind, status int, err error, end, took, queued time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	t.end = max(t.end, end)
	if err != nil {
		t.failed[failure(err)]++
	} else {
		t.status[min(status, len(t.status)-1)]++
	}
	record(t.times[kind], took)
	record(t.queued, queued)
}

func (t *tally) unsent(kind int, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missed++
	record(t.times[kind], took)
	record(t.queued, took)
}

func (t *tally) done() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// report is what has been counted.
func (l *load) report() Report {
	t := l.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Report{
		Requests: t.count, Seconds: t.end.Seconds(), Asked: l.Rate, Connections: l.Connections,
		Status: map[int]int64{}, Failed: t.failed, Unsent: t.missed, Queued: latency("", t.queued),
	}
	answers := t.count
	for _, n := range t.failed {
		answers -= n
	}
	if t.end > 0 {
		r.PerSecond = float64(answers) / t.end.Seconds()
	}
	for status, n := range t.status {
		if n > 0 {
			r.Status[status] = n
		}
	}
	for i, h := range t.times {
		r.Kinds = append(r.Kinds, latency(t.kinds[i], h))
	}
	return r
}

func latency(kind string, h *hdrhistogram.Histogram) Latency {
	l := Latency{
		Kind: kind, Count: h.TotalCount(), Max: h.Max(),
		P50: h.ValueAtPercentile(50), P90: h.ValueAtPercentile(90),
		P99: h.ValueAtPercentile(99), P999: h.ValueAtPercentile(99.9),
	}
	// A factor of two from band to band fits a line each on a page.
	bound := time.Microsecond
	for _, bar := range h.Distribution() {
		if bar.Count == 0 {
			continue
		}
		for time.Duration(bar.To)*time.Microsecond > bound {
			bound *= 2
		}
		if n := len(l.bands); n == 0 || l.bands[n-1].below != bound {
			l.bands = append(l.bands, band{below: bound})
		}
		l.bands[len(l.bands)-1].count += bar.Count
	}
	return l
}

// Print writes the report for people.
func (r Report) Print(w io.Writer) error {
	var b strings.Builder
	how := "each after the last"
	if r.Asked > 0 {
		how = fmt.Sprintf("asked for %.6g/s", r.Asked)
	}
	fmt.Fprintf(&b, "%d requests in %.2f s, %.0f/s answered, on %d connections, %s\n", r.Requests, r.Seconds, r.PerSecond, r.Connections, how)
	for _, status := range slices.Sorted(maps.Keys(r.Status)) {
		fmt.Fprintf(&b, "  %-14d %d\n", status, r.Status[status])
	}
	for _, why := range slices.Sorted(maps.Keys(r.Failed)) {
		fmt.Fprintf(&b, "  %-14s %d\n", out.Text(why), r.Failed[why])
	}
	if r.Unsent > 0 {
		fmt.Fprintf(&b, "  %-14s %d were due and not sent: the server or -connections is too little for this rate\n", "late", r.Unsent)
	}
	for _, l := range r.Kinds {
		if l.Count > 0 {
			l.print(&b)
		}
	}
	if r.Asked > 0 {
		fmt.Fprintf(&b, "\nof that, before it was sent (no free connection, or no processor for this program): p50 %s  p99 %s  max %s\n", micros(r.Queued.P50), micros(r.Queued.P99), micros(r.Queued.Max))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (l Latency) print(b *strings.Builder) {
	fmt.Fprintf(b, "\n%s: p50 %s  p90 %s  p99 %s  p99.9 %s  max %s\n", l.Kind,
		micros(l.P50), micros(l.P90), micros(l.P99), micros(l.P999), micros(l.Max))
	most := slices.MaxFunc(l.bands, func(x, y band) int { return cmp.Compare(x.count, y.count) }).count
	for _, s := range l.bands {
		const width = 50
		line := fmt.Sprintf("  ≤ %8s %7.3f %%  %s", short(s.below), 100*float64(s.count)/float64(l.Count), strings.Repeat("#", int(width*s.count/most)))
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

func micros(us int64) string { return short(time.Duration(us) * time.Microsecond) }

// short is a time in three digits.
func short(d time.Duration) string {
	unit := time.Microsecond
	for unit < d/1000 && unit < time.Second {
		unit *= 1000
	}
	return fmt.Sprintf("%.3g", float64(d)/float64(unit)) + map[time.Duration]string{time.Microsecond: "µs", time.Millisecond: "ms", time.Second: "s"}[unit]
}
