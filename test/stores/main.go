// Command stores compares embedded stores on what internal/store asks of one: rows
// and the offset that covers them, in one batch. Each runs in a process of its own,
// round by round. It is a module of its own, so that the stores that were not chosen
// are no dependencies of the suite.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// engine is an embedded store. Rows come sorted by key, without doubles.
type engine interface {
	// write puts rows and the offset that covers them, all or nothing.
	write(rows []row, offset uint64) error
	// get returns a copy of a value, nil for none.
	get(key []byte) ([]byte, error)
	close() error
}

type row struct{ key, value []byte }

var offsetKey = []byte{'o'}

// engines open a store in dir. None syncs: the changelog is the truth.
var engines = []struct {
	name string
	open func(dir string) (engine, error)
}{
	{"goleveldb", openLevel},
	{"goleveldb, as chosen", openLevelOurs},
	{"pebble", openPebble},
	{"pebble, sorted tables", openPebbleTables},
	{"bbolt", openBolt},
}

// memory is what an engine may use for its buffers and caches, in bytes.
const memory = 12 << 20

// batchBytes is about what one batch of recovery holds.
const batchBytes = 4 << 20

// result is one process's, in µs a row unless said otherwise.
type result struct {
	Recover, RecoverCPU float64 // 1 M rows from nothing
	Read, Write         float64 // CPU-bound work: random reads, then batches of rows read
	Open                float64 // ms
	Disk                float64 // bytes a row
	Peak                float64 // MB resident
}

func main() {
	rows := flag.Int("rows", 1_000_000, "rows of the table")
	rounds := flag.Int("rounds", 3, "rounds")
	one := flag.String("engine", "", "run this one here and print its result as JSON")
	flag.Parse()
	if err := run(*rows, *rounds, *one); err != nil {
		fmt.Fprintln(os.Stderr, "stores:", err)
		os.Exit(1)
	}
}

func run(rows, rounds int, one string) error {
	if one != "" {
		for _, e := range engines {
			if e.name == one {
				r, err := measure(e.open, rows)
				if err != nil {
					return err
				}
				return json.NewEncoder(os.Stdout).Encode(r)
			}
		}
		return fmt.Errorf("no engine %q", one)
	}
	results := map[string][]result{}
	for range rounds {
		for _, e := range engines {
			cmd := exec.Command(os.Args[0], "-rows", fmt.Sprint(rows), "-engine", e.name)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			var r result
			if err := json.Unmarshal(out, &r); err != nil {
				return err
			}
			results[e.name] = append(results[e.name], r)
		}
	}
	fmt.Printf("%d rows of 300 bytes, %d rounds, medians\n\n", rows, rounds)
	fmt.Println("| store | recovery, µs a row | of CPU | random read, µs | row written again, µs of CPU | open, ms | bytes a row on disk | peak MB |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, e := range engines {
		rs := results[e.name]
		mid := func(of func(result) float64) float64 {
			slices.SortFunc(rs, func(a, b result) int { return cmp.Compare(of(a), of(b)) })
			return of(rs[len(rs)/2])
		}
		fmt.Printf("| %s | %.2f | %.2f | %.2f | %.2f | %.0f | %.0f | %.0f |\n", e.name,
			mid(func(r result) float64 { return r.Recover }), mid(func(r result) float64 { return r.RecoverCPU }),
			mid(func(r result) float64 { return r.Read }), mid(func(r result) float64 { return r.Write }),
			mid(func(r result) float64 { return r.Open }), mid(func(r result) float64 { return r.Disk }), mid(func(r result) float64 { return r.Peak }))
	}
	return nil
}

func measure(open func(string) (engine, error), n int) (r result, err error) {
	dir, err := os.MkdirTemp("", "stores")
	if err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	random := rand.New(rand.NewPCG(1, 2))
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "r%016x%016x", random.Uint64(), random.Uint64())
	}
	value := func() []byte { // half of it random, as rows are
		v := make([]byte, 300)
		for i := range 150 {
			v[i] = byte(random.Uint32())
		}
		return v
	}

	e, err := open(dir)
	if err != nil {
		return r, err
	}
	const perBatch = batchBytes / 300
	var offset uint64
	put := func(batch []row) error {
		offset += uint64(len(batch))
		slices.SortFunc(batch, func(a, b row) int { return bytes.Compare(a.key, b.key) })
		return e.write(slices.CompactFunc(batch, func(a, b row) bool { return bytes.Equal(a.key, b.key) }), offset)
	}
	var took, cpu time.Duration
	for from := 0; from < n; from += perBatch {
		var batch []row
		for _, key := range keys[from:min(from+perBatch, n)] {
			batch = append(batch, row{key, value()})
		}
		began, used := time.Now(), cpuTime()
		if err := put(batch); err != nil {
			return r, err
		}
		took, cpu = took+time.Since(began), cpu+cpuTime()-used
	}
	began, used := time.Now(), cpuTime()
	if err := e.close(); err != nil {
		return r, err
	}
	took, cpu = took+time.Since(began), cpu+cpuTime()-used
	r.Recover, r.RecoverCPU = micros(took, n), micros(cpu, n)

	began = time.Now()
	if e, err = open(dir); err != nil {
		return r, err
	}
	r.Open = float64(time.Since(began).Microseconds()) / 1000

	const batches, each = 50, 2000
	var reading, writing time.Duration
	for range batches {
		var batch []row
		used := cpuTime()
		for range each {
			key := keys[random.IntN(n)]
			v, err := e.get(key)
			if err != nil || len(v) != 300 {
				return r, fmt.Errorf("get %s: %x, %w", key, v, err)
			}
			batch = append(batch, row{key, v})
		}
		reading += cpuTime() - used
		used = cpuTime()
		if err := put(batch); err != nil {
			return r, err
		}
		writing += cpuTime() - used
	}
	r.Read, r.Write = micros(reading, batches*each), micros(writing, batches*each)
	if err := e.close(); err != nil {
		return r, err
	}
	var size int64
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				size += info.Size()
			}
		}
		return err
	})
	r.Disk, r.Peak = float64(size)/float64(n), peakMB()
	return r, err
}

func micros(d time.Duration, n int) float64 { return float64(d.Microseconds()) / float64(n) }

// cpuTime is what this process has used, of all cores.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func peakMB() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Maxrss) / 1024
}
