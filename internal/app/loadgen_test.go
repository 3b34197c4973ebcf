package app

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"coinbit/internal/loadgen"
)

// loadOn sends a load to an API and returns exit code, report and log.
func loadOn(addr, args string, env ...string) (int, loadgen.Report, string) {
	var out bytes.Buffer
	var stderr syncBuffer
	code := Main(context.Background(), strings.Fields("-service=loadgen -json "+args), append(env, "PORT="+addr), &out, &stderr)
	var r loadgen.Report
	_ = json.Unmarshal(out.Bytes(), &r) // nothing when it failed before
	return code, r, stderr.String()
}

// A load makes the deposits it was asked for, and says what is wrong when it cannot.
func TestLoadgen(t *testing.T) {
	env := []string{"BROKER=" + freeAddr(t), "DATA_DIR=" + t.TempDir(), "STATE_DIR=" + t.TempDir(), "API_KEYS=a-long-secret-key,another-one"}
	all := startAll(t, env...)
	defer all.end(t)
	code, r, log := loadOn(all.api, "-deposits 300 -checks 0.25 -keys 0.2 -wallets 20 -zipf 1 -connections 8", env...)
	if code != exitOK || r.Requests != 400-1 || r.Status[200] != r.Requests || r.Kinds[0].Count != 300 || r.Kinds[0].P50 <= 0 {
		t.Errorf("exit %d, %+v\n%s", code, r, log)
	}
	if accepted := `coinbit_deposits_total{result="accepted"} 300`; !strings.Contains(get(t, "http://"+all.api+"/metrics"), accepted) {
		t.Errorf("the API does not say %s", accepted)
	}
	if code, r, log = loadOn(all.api, "-rate 200 -duration 500ms -target "+all.api, env...); code != exitOK || r.Status[200] != 100 {
		t.Errorf("exit %d, %+v\n%s", code, r, log)
	}
	for says, env := range map[string]string{"API_KEYS: the API wants one": "API_KEYS=", "PORT: cannot connect to": "PORT=" + freeAddr(t)} {
		var stderr syncBuffer
		code := Main(context.Background(), strings.Fields("-service=loadgen -deposits 5"), []string{"PORT=" + all.api, env}, io.Discard, &stderr)
		if code != exitFailed || !strings.Contains(lastLine(stderr.String()), says) {
			t.Errorf("%s: exit %d\n%s", env, code, &stderr)
		}
	}
}
