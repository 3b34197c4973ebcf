package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc on every Linux that Go runs on.
const tick = time.Second / 100

// cpu is the CPU time that a process has used.
func cpu(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("CPU time is read from /proc, on Linux: %w", err)
	}
	// "pid (name) state …", where the name may hold anything; user and system
	// time are the 12th and 13th field after it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	var sum time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// Memory is the process's resident memory now and at its highest, in bytes.
func (s *Service) Memory() (now, peak float64, err error) {
	file := fmt.Sprintf("/proc/%d/status", s.PID())
	for prefix, to := range map[string]*float64{"VmRSS:": &now, "VmHWM:": &peak} {
		kib, _, _ := strings.Cut(firstLine(file, prefix), " ")
		n, err := strconv.ParseFloat(kib, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("memory is read from %s, on Linux: %w", file, err)
		}
		*to = n * 1024
	}
	return now, peak, nil
}

var errNotReady = errors.New("not ready")

var probes = &http.Client{Timeout: 5 * time.Second}

func (s *Service) get(path string) (status int, body string, err error) {
	res, err := probes.Get("http://" + s.Addr + path)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, string(b), err
}

// Ready waits until /readyz answers 200 and returns the time since the start.
func (s *Service) Ready(ctx context.Context, limit time.Duration) (time.Duration, error) {
	err := s.Eventually(ctx, limit, func() error {
		status, body, err := s.get("/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%w: %s", errNotReady, strings.TrimSpace(body))
		}
		return err
	})
	return time.Since(s.Started), err
}

// Metric is the sum of all samples of a metric, and how many there are.
func (s *Service) Metric(name string) (sum float64, samples int, err error) {
	_, body, err := s.get("/metrics")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(body) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64)
		if err != nil {
			return 0, 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum += v
		samples++
	}
	return sum, samples, nil
}

func machine() string {
	cpu := firstLine("/proc/cpuinfo", "model name")
	if cpu == "" {
		cpu = runtime.GOARCH
	}
	return fmt.Sprintf("%s, %d cores shared by Kafka, load and services; %s, %s/%s", cpu, runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
