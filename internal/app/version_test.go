package app

import (
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Which build this is: on the command line, without settings, and as a metric.
func TestVersion(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, arg := range []string{"-version", "--version"} {
		var out, errs strings.Builder
		if code := Main(t.Context(), []string{arg}, []string{"PORT=nonsense"}, &out, &errs); code != exitOK || errs.Len() > 0 {
			t.Fatalf("exit %d: %s", code, &errs)
		}
		if got := out.String(); !strings.HasPrefix(got, "coinbit ") || !strings.Contains(got, runtime.Version()) || !strings.HasSuffix(got, "\n") {
			t.Errorf("%s says %q", arg, got)
		}
	}
	r := prometheus.NewRegistry()
	newMetrics(r)
	if n, err := testutil.GatherAndCount(r, "coinbit_build_info"); n != 1 || err != nil {
		t.Errorf("%d of coinbit_build_info: %v", n, err)
	}
}
