// Package figure holds what a benchmark measured and writes it down: a table in
// Markdown, plots as SVG, and JSON, from which a later run of some rows keeps the
// others.
package figure

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Figure is one measured quantity, round by round. Round i of Subject and round
// i of Ceiling ran one after the other.
type Figure struct {
	Row  string // the benchmark's row that measured it
	What string
	Unit string
	// Subject is this project's, Ceiling what it is held against; either may be empty.
	Subject, Ceiling []float64
	// Lower says that less is better.
	Lower bool
	// Must and Try are targets: of the ratio subject ÷ ceiling where there is a
	// ceiling, else of the value. 0: none.
	Must, Try float64
	Note      string
}

// Series is a curve or several over one axis.
type Series struct {
	Row, What    string
	X, Y         string // axes, with units
	Lines        []Line
	Logarithmic  bool // the Y axis; X always is
	FromZeroUpTo float64
}

// Line is one curve of a Series.
type Line struct {
	Name string
	X, Y []float64
}

// Report collects figures; it is for one goroutine.
type Report struct {
	// Setup says what the figures were measured on and with, a line each.
	Setup   []string
	Figures []Figure
	Series  []Series
}

// Add appends figures.
func (r *Report) Add(f ...Figure) { r.Figures = append(r.Figures, f...) }

// Draw appends a series.
func (r *Report) Draw(s Series) { r.Series = append(r.Series, s) }

const (
	dataFile     = "performance-figures.json"
	markdownFile = "performance-figures.md"
)

// Write puts the report into dir. What an earlier run left there of rows that
// this one did not run is kept.
func (r *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var all Report
	data, err := os.ReadFile(filepath.Join(dir, dataFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(data, &all); err != nil {
			return fmt.Errorf("%s: %w", dataFile, err)
		}
	}
	all.merge(r)
	if data, err = json.MarshalIndent(all, "", " "); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, dataFile), append(data, '\n'), 0o644); err != nil {
		return err
	}
	plots, err := all.plot(dir)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, markdownFile), []byte(all.markdown(plots)), 0o644)
}

// merge puts the rows of n in the place of older ones.
func (r *Report) merge(n *Report) {
	fresh := make(map[string]bool)
	for _, f := range n.Figures {
		fresh[f.Row] = true
	}
	for _, s := range n.Series {
		fresh[s.Row] = true
	}
	r.Figures = append(slices.DeleteFunc(r.Figures, func(f Figure) bool { return fresh[f.Row] }), n.Figures...)
	r.Series = append(slices.DeleteFunc(r.Series, func(s Series) bool { return fresh[s.Row] }), n.Series...)
	r.Setup = n.Setup
}

// Ratios are subject ÷ ceiling, round by round.
func (f *Figure) Ratios() []float64 {
	n := min(len(f.Subject), len(f.Ceiling))
	ratios := make([]float64, n)
	for i := range n {
		ratios[i] = f.Subject[i] / f.Ceiling[i]
	}
	return ratios
}

// Median of the values, 0 for none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
