//go:build !kafka

package test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// TestHostileToBroker attacks the process of -service=kafka with what ended it, and as a
// page of any origin could. It goes on, takes no memory for it, and ends as it should.
func TestHostileToBroker(t *testing.T) {
	addr := freeAddr(t)
	f := newFleet(t, addr, "DATA_DIR="+t.TempDir())
	f.launch("kafka")
	up := func() {
		t.Helper()
		if !eventually(30*time.Second, func() bool {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				return false
			}
			_ = c.Close()
			return true
		}) || !f.proc("kafka").Running() {
			t.Fatalf("it is gone:\n%s", f.logs["kafka"].tail(25))
		}
	}
	up()
	before := peak(t, f.proc("kafka").PID())
	for range 20 {
		c, err := net.Dial("tcp", addr)
		must(t, err)
		must(t, c.SetDeadline(time.Now().Add(30*time.Second)))
		_, err = io.WriteString(c, "\x00\x00\x00\x0a\x7f\xff\x00\x00\x00\x00\x00\x01\xff\xff")
		must(t, err)
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
			t.Fatalf("not cut off: %d, %v", n, err)
		}
		_ = c.Close()
		page := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		if res, err := page.Post("http://"+addr, "text/plain", bytes.NewReader(make([]byte, 32<<20))); err == nil {
			t.Fatalf("an answer: %s", res.Status)
		}
	}
	up()
	if text, ok := f.command([]string{"REPLICATION_FACTOR=1"}, "-service=topics"); !ok {
		t.Fatal(text)
	}
	if grown := peak(t, f.proc("kafka").PID()) - before; grown > 64<<10 {
		t.Errorf("the memory of the process grew by %d MB", grown>>10)
	}
	if _, code := f.term("kafka", 10*time.Second); code != 0 {
		t.Errorf("exit %d\n%s", code, f.logs["kafka"].tail(25))
	}
}

// peak is the most memory that a process has had, in KiB; 0 where /proc does not say.
func peak(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if os.IsNotExist(err) {
		return 0
	}
	must(t, err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	n, err := strconv.Atoi(string(m[1]))
	must(t, err)
	return n
}
