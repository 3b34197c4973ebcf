package figure

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Colours of subject and ceiling, then of further lines.
var colours = []color.RGBA{{31, 119, 180, 255}, {170, 170, 170, 255}, {214, 39, 40, 255}, {44, 160, 44, 255}}

// plot draws the ratios and every series and returns the names of the files.
func (r *Report) plot(dir string) ([]string, error) {
	var files []string
	save := func(p *plot.Plot, name string) error {
		p.BackgroundColor = color.White
		files = append(files, name)
		return p.Save(18*vg.Centimeter, 9*vg.Centimeter, filepath.Join(dir, name))
	}
	if p, err := r.ratios(); err != nil {
		return nil, err
	} else if p != nil {
		if err := save(p, "performance-ratios.svg"); err != nil {
			return nil, err
		}
	}
	for _, s := range r.Series {
		p, err := s.plot()
		if err != nil {
			return nil, fmt.Errorf("plot %s: %w", s.What, err)
		}
		if err := save(p, "performance-"+slug(s.What)+".svg"); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func slug(s string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(s)), "-")
}

// ratios is a bar for each figure beside its ceiling, with the range of the
// rounds and the two targets; nil where nothing has a ceiling.
func (r *Report) ratios() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = "Beside the ceiling (1 = as fast)"
	p.X.Label.Text = "ratio; red: must, green: try for"
	var medians plotter.Values
	var names []string
	var errs ranges
	for _, f := range r.Figures {
		ratios := f.Ratios()
		if len(ratios) == 0 || f.Must == 0 || f.Lower { // less is better: a curve shows it
			continue
		}
		m := Median(ratios)
		y := float64(len(names))
		errs.XYs = append(errs.XYs, plotter.XY{X: m, Y: y})
		errs.XErrors = append(errs.XErrors, struct{ Low, High float64 }{m - slices.Min(ratios), slices.Max(ratios) - m})
		for i, t := range []float64{f.Must, f.Try} {
			line, err := plotter.NewLine(plotter.XYs{{X: t, Y: y - 0.4}, {X: t, Y: y + 0.4}})
			if err != nil {
				return nil, err
			}
			line.Color, line.Width = colours[2+i], vg.Points(1.5)
			p.Add(line)
		}
		medians, names = append(medians, m), append(names, f.What)
	}
	if len(names) == 0 {
		return nil, nil //nolint:nilnil // nothing to draw is a normal answer
	}
	bars, err := plotter.NewBarChart(medians, vg.Points(12))
	if err != nil {
		return nil, err
	}
	bars.Horizontal, bars.Color, bars.LineStyle.Width = true, colours[0], 0
	whiskers, err := plotter.NewXErrorBars(errs)
	if err != nil {
		return nil, err
	}
	p.Add(bars, whiskers)
	p.NominalY(names...)
	p.X.Min = 0
	p.X.Max = max(p.X.Max, 1)
	return p, nil
}

type ranges struct {
	plotter.XYs
	plotter.XErrors
}

func (s *Series) plot() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = s.What, s.X, s.Y
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, decades{}
	p.Y.Min = 0
	if s.Logarithmic {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades{}
		p.Y.Min = math.Inf(1)
	}
	p.Add(plotter.NewGrid())
	for i, l := range s.Lines {
		points := make(plotter.XYs, len(l.X))
		for j := range points {
			points[j] = plotter.XY{X: l.X[j], Y: l.Y[j]}
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		c := colours[i%len(colours)]
		line.Color, line.Width, dots.Color, dots.Shape = c, vg.Points(1.5), c, draw.CircleGlyph{}
		p.Add(line, dots)
		p.Legend.Add(l.Name, line, dots)
	}
	p.Legend.Top = true
	if !s.Logarithmic {
		p.Y.Max = max(p.Y.Max*1.4, s.FromZeroUpTo)
	}
	return p, nil
}

// decades marks the powers of ten.
type decades struct{}

func (decades) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		ticks = append(ticks, plot.Tick{Value: math.Pow(10, e), Label: fmt.Sprintf("10^%d", int(e))})
	}
	return ticks
}
