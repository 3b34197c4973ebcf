package verify

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"coinbit/internal/wallet"
)

// Doubt is a rule that is not the one in force, and who names it. The logs do not tell
// which rules were in force when: an operator who changed them recognises it, or not.
type Doubt struct {
	// Rule as -rule takes it, such as 5000/10m0s.
	Rule string `json:"rule"`
	// Rows of the threshold table name it, for now or for earlier, and so do Crossings on
	// flag_wallet.
	Rows      int64 `json:"rows"`
	Crossings int64 `json:"crossings"`
	// FirstRow and FirstCrossing are one of each, such as "wallet w1, partition 0" and
	// "flag_wallet 0:5".
	FirstRow      string `json:"first_row,omitempty"`
	FirstCrossing string `json:"first_crossing,omitempty"`
}

func ruleText(r wallet.Rule) string {
	return fmt.Sprintf("%s/%s", r.Threshold, time.Duration(r.PeriodMs)*time.Millisecond)
}

// doubt is the Doubt of a rule, nil for the one in force.
func (r *run) doubt(rule wallet.Rule) *Doubt {
	if rule == r.Rule {
		return nil
	}
	if r.doubts[rule] == nil {
		r.doubts[rule] = &Doubt{Rule: ruleText(rule)}
	}
	return r.doubts[rule]
}

// span is the deposits of a partition, from one offset on and below another, for which
// its rows name a rule.
type span struct{ from, below int64 }

// named is what the rows of one partition say of its rules.
type named struct {
	spans map[wallet.Rule]span
	// forgotten is the offset below which some row has forgotten rules.
	forgotten int64
}

// add notes what a row names. A rule that it names last may still be in force.
func (n *named) add(w *wallet.Window) (rules []wallet.Rule) {
	from := int64(0)
	for i, past := range w.Past {
		if i == 0 && int(w.RuleChanges) > len(w.Past) {
			n.forgotten = max(n.forgotten, past.Upto)
		}
		rules = append(rules, n.widen(past.Rule, span{from, past.Upto}))
		from = past.Upto
	}
	return slices.Compact(slices.SortedFunc(slices.Values(append(rules, n.widen(w.Rule, span{from, math.MaxInt64}))), compareRules))
}

func (n *named) widen(rule wallet.Rule, s span) wallet.Rule {
	if old, ok := n.spans[rule]; ok {
		s = span{min(s.from, old.from), max(s.below, old.below)}
	}
	n.spans[rule] = s
	return rule
}

func compareRules(a, b wallet.Rule) int {
	return cmp.Or(a.Threshold.Cmp(b.Threshold), cmp.Compare(a.PeriodMs, b.PeriodMs))
}

// has tells whether a rule may have judged the deposit at an offset. The deposit at which
// a row changed its rule may have been judged by both: by an owner that was killed before
// it stored the row, and by the next one.
func (n *named) has(rule wallet.Rule, offset int64) bool {
	s, ok := n.spans[rule]
	return ok && s.from <= offset && offset <= s.below || offset < n.forgotten
}

// sorted are the doubts, those that most rows name first.
func (r *run) sorted() []Doubt {
	list := []Doubt{} // in JSON too
	for _, d := range r.doubts {
		list = append(list, *d)
	}
	slices.SortFunc(list, func(a, b Doubt) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), cmp.Compare(b.Crossings, a.Crossings), strings.Compare(a.Rule, b.Rule))
	})
	return list
}
