package app

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// build says which build of the program this is, as the Go toolchain noted it.
type build struct {
	version  string // of the module; "(devel)" but for a tagged one
	revision string // of the source; "unknown" where it was built without its repository
	modified bool   // the source had changes that were not committed
}

func thisBuild() build {
	b := build{version: "(devel)", revision: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.version = cmp.Or(info.Main.Version, b.version)
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.revision = s.Value
		case "vcs.modified":
			b.modified = s.Value == "true"
		}
	}
	return b
}

func (b build) String() string {
	modified := ""
	if b.modified {
		modified = ", with changes that are not committed"
	}
	return fmt.Sprintf("coinbit %s, revision %s%s, %s %s/%s", b.version, b.revision, modified, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// collector is the metric coinbit_build_info.
func (b build) collector() prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "coinbit_build_info", Help: "1; its labels say which build this process is of.",
		ConstLabels: prometheus.Labels{"version": b.version, "revision": b.revision, "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}
