package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"coinbit/internal/hostile"
)

// TestFewDescriptors: where a process may have 1,024 open files and 1,500 clients connect
// and ask nothing, everything in one process keeps what it needs for Kafka and local state,
// and those who do ask are answered.
func TestFewDescriptors(t *testing.T) {
	const clients, asked = 1500, 100
	f := newFleet(t, freeAddr(t))
	program := filepath.Join(f.dir, "limited")
	script := fmt.Sprintf("#!/bin/sh\nulimit -n 1024\nexec '%s' \"$@\"\n", binary)
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	f.launchAs(program, "api", "all", "PORT="+f.addr["api"], "DATA_DIR="+filepath.Join(f.dir, "log"))
	f.awaitReady(60*time.Second, "api")
	open := func() int {
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", f.proc("api").PID()))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	idle := open()
	crowd := hostile.Start(f.addr["api"], hostile.Kind{Name: "idle"}, clients, 500)
	defer crowd.Stop()
	if err := crowd.Await(clients, 60*time.Second); err != nil {
		t.Fatal(err)
	}
	answered, most := 0, 0
	for began := time.Now(); answered < asked || time.Since(began) < 5*time.Second; { // Kafka is taken for away within 2 s
		res, err := probes.Post("http://"+f.addr["api"]+"/api/deposit", "", strings.NewReader(`{"wallet_id":"honest","amount":1}`))
		if err != nil {
			t.Fatalf("after %d answers: %v", answered, err)
		}
		if body, err := readAll(res); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("after %d answers: %d %s %v", answered, res.StatusCode, body, err)
		}
		answered++
		most = max(most, open())
	}
	t.Logf("%d open files at rest, %d at most", idle, most)
	log := f.logs["api"].all()
	if !strings.Contains(log, "the limit of open files is low") || !strings.Contains(log, "open_files=1024 connections=512") {
		t.Errorf("there is no warning of the limit:\n%s", log)
	}
	if strings.Contains(log, "kafka is away") {
		t.Errorf("clients took what Kafka needs:\n%s", log)
	}
}
