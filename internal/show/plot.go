package show

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"coinbit/internal/out"
	"coinbit/internal/replay"
)

// The plot, in pixels: its size, and the lines' frame within.
const (
	plotWidth, plotHeight = 960, 480
	plotLeft, plotRight   = 80, 720
	plotTop, plotBottom   = 60, 410
)

// Colours that differ for colour-blind eyes too (Okabe and Ito); dashes tell further
// lines apart.
var (
	colours = []string{"#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"}
	dashes  = []string{"", "8 4", "2 3"}
)

// WhatIfPlot draws as SVG how many wallets each rule has flagged by when: a wallet counts
// from its first crossing on.
func WhatIfPlot(w io.Writer, a replay.Answer) error {
	most := 1
	for _, v := range a.Rules {
		most = max(most, len(v.Flags))
	}
	step := nice(float64(most) / 5)
	top := int(step * math.Ceil(float64(most)/step))
	x := func(at int64) float64 {
		return plotLeft + (plotRight-plotLeft)*float64(at-a.FirstAt)/float64(max(1, a.LastAt-a.FirstAt))
	}
	y := func(n int) float64 { return plotBottom - (plotBottom-plotTop)*float64(n)/float64(top) }

	l := out.New(w)
	l.F(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="13" role="img">`+"\n",
		plotWidth, plotHeight)
	l.F("<title>Wallets flagged over time, by rule</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n")
	l.F(`<text x="%d" y="24" font-size="16">Wallets flagged, by event time</text>`+"\n", plotLeft)
	for n := 0; n <= top; n += int(step) {
		l.F(`<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			plotLeft, y(n), plotRight, plotLeft-8, y(n)+4, count(n))
	}
	const marks = 5
	for i := range marks {
		at := a.FirstAt + (a.LastAt-a.FirstAt)*int64(i)/(marks-1)
		anchor := []string{"start", "middle", "middle", "middle", "end"}[i]
		date, clock, _ := strings.Cut(time.UnixMilli(at).UTC().Format("2006-01-02 15:04:05"), " ")
		l.F(`<path d="M%.1f %dv6" stroke="#000"/><text x="%.1f" y="%d" text-anchor="%s">%s<tspan x="%.1f" dy="16">%s</tspan></text>`+"\n",
			x(at), plotBottom, x(at), plotBottom+22, anchor, date, x(at), clock)
	}
	l.F(`<path d="M%d %dV%dH%d" fill="none" stroke="#000"/>`+"\n", plotLeft, plotTop, plotBottom, plotRight)
	for i, v := range a.Rules {
		style := fmt.Sprintf(`fill="none" stroke="%s" stroke-width="2" stroke-dasharray="%s"`, colours[i%len(colours)], dashes[i/len(colours)%len(dashes)])
		l.F(`<path d="%s" %s/>`+"\n", steps(v.Flags, x, y), style)
		name := Rule(v.Rule)
		if i == 0 {
			name += " (in force)"
		}
		l.F(`<path d="M%d %dh30" %s/><text x="%d" y="%d">%s: %s</text>`+"\n",
			plotRight+16, plotTop+20*i, style, plotRight+54, plotTop+4+20*i, name, count(len(v.Flags)))
	}
	l.F("</svg>\n")
	return l.Err()
}

// steps is a path that rises by one at each flag: at most one step for each pixel, however
// many flags there are.
func steps(flags []replay.Flag, x func(int64) float64, y func(int) float64) string {
	var path strings.Builder
	fmt.Fprintf(&path, "M%d %.1f", plotLeft, y(0))
	for i, f := range flags {
		if i+1 < len(flags) && int(x(flags[i+1].At)) == int(x(f.At)) {
			continue
		}
		fmt.Fprintf(&path, "H%.1fV%.1f", x(f.At), y(i+1))
	}
	fmt.Fprintf(&path, "H%d", plotRight)
	return path.String()
}

// nice is the next of 1, 2, 5, 10, 20, … that is not below v, and at least 1.
func nice(v float64) float64 {
	for unit := 1.0; ; unit *= 10 {
		for _, n := range []float64{1, 2, 5} {
			if n*unit >= v {
				return n * unit
			}
		}
	}
}
