package figure_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"coinbit/test/bench/figure"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}} {
		if got := figure.Median(c.values); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.values, got, c.want)
		}
	}
}

func TestRatiosAreOfEachRound(t *testing.T) {
	f := figure.Figure{Subject: []float64{10, 30, 5}, Ceiling: []float64{20, 30}}
	if got := f.Ratios(); len(got) != 2 || got[0] != 0.5 || got[1] != 1 {
		t.Errorf("%v", got)
	}
}

// A second run of one row keeps what the first one measured of the others.
func TestWriteKeepsOtherRows(t *testing.T) {
	dir := t.TempDir()
	first := figure.Report{Setup: []string{"a machine"}}
	first.Add(
		figure.Figure{Row: "a", What: "kept", Unit: "rows/s", Subject: []float64{12345}, Ceiling: []float64{20000}, Must: 0.5, Try: 0.8},
		figure.Figure{Row: "b", What: "replaced", Subject: []float64{1}},
	)
	first.Draw(figure.Series{Row: "a", What: "A curve", Lines: []figure.Line{{Name: "one", X: []float64{1, 10, 100}, Y: []float64{5, 6, 5}}}})
	if err := first.Write(dir); err != nil {
		t.Fatal(err)
	}
	var second figure.Report
	second.Add(figure.Figure{Row: "b", What: "newer", Subject: []float64{1, 2, 3}})
	if err := second.Write(dir); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "performance-figures.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| kept | rows/s | 12,345 | 20,000 | 0.62 | 0.50 | 0.80 |", "| newer |  | 2.00 (1.00 – 3.00) | – | – |  |  |",
		"performance-ratios.svg", "performance-a-curve.svg",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if strings.Contains(string(page), "replaced") {
		t.Errorf("the older figure is still in\n%s", page)
	}
	for _, plot := range []string{"performance-ratios.svg", "performance-a-curve.svg"} {
		svg, err := os.ReadFile(filepath.Join(dir, plot))
		if err != nil || !strings.Contains(string(svg), "</svg>") {
			t.Errorf("%s: %v", plot, err)
		}
	}
}
