package figure

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// markdown is the whole generated page. plots are file names.
func (r *Report) markdown(plots []string) string {
	var b strings.Builder
	b.WriteString("<!-- Written by `make bench`. Do not edit: docs/performance.md is for words. -->\n# Figures\n\n")
	for _, s := range r.Setup {
		fmt.Fprintf(&b, "- %s\n", s)
	}
	b.WriteString("\nMedian (lowest – highest) of the rounds. The ratio is taken round by round: both sides ran one after the other.\n\n")
	b.WriteString("| what | unit | coinbit | ceiling | ratio | must | try for |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, f := range r.Figures {
		what := f.What
		if f.Note != "" {
			what += " (" + f.Note + ")"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", what, f.Unit,
			spread(f.Subject), spread(f.Ceiling), spread(f.Ratios()), target(f.Must), target(f.Try))
	}
	for _, p := range plots {
		fmt.Fprintf(&b, "\n![%s](%s)\n", strings.TrimSuffix(p, ".svg"), p)
	}
	return b.String()
}

// Line is the figure on one line, for the terminal.
func (f *Figure) Line() string {
	s := fmt.Sprintf("%s: %s %s", f.What, spread(f.Subject), f.Unit)
	if len(f.Ceiling) > 0 {
		s += fmt.Sprintf(", ceiling %s", spread(f.Ceiling))
	}
	if len(f.Ratios()) > 0 {
		s += fmt.Sprintf(", ratio %s", spread(f.Ratios()))
	}
	return s
}

func target(v float64) string {
	if v == 0 {
		return ""
	}
	return number(v)
}

func spread(values []float64) string {
	switch len(values) {
	case 0:
		return "–"
	case 1:
		return number(values[0])
	}
	return fmt.Sprintf("%s (%s – %s)", number(Median(values)), number(slices.Min(values)), number(slices.Max(values)))
}

// number keeps three digits that matter, and thousands apart.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 10_000:
		s := fmt.Sprintf("%.0f", v)
		for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
