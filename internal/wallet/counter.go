package wallet

import "slices"

// Rule is the threshold rule: strictly more than Threshold within one window of
// PeriodMs milliseconds.
type Rule struct {
	Threshold Amount
	PeriodMs  int64
}

// Evidence is why a wallet was flagged.
type Evidence struct {
	// Partition and Offset on topic deposit of the deposit that tipped the window.
	Partition int32
	Offset    int64
	// TippedAt is that deposit's event time, in Unix milliseconds.
	TippedAt int64
	// The window is (WindowStart, WindowEnd], in Unix milliseconds.
	WindowStart, WindowEnd int64
	Total                  Amount
	Deposits               uint32
	Rule                   Rule
}

// Counter is a row of the threshold table: a wallet's account and rolling
// window. The zero Counter is a wallet never seen.
type Counter struct {
	Account Account
	Window  Window
	// Tip is the evidence of the latest crossing; its offset is its version.
	Tip *Evidence
}

// Outcome is what the processor has to do after Apply.
type Outcome struct {
	Verdict Verdict
	// Emit says that Tip is to be sent, for the first time or again.
	Emit bool
	// RuleChanged says that the row was folded with another rule before.
	RuleChanged bool
}

// MaxParts bounds Parts, so that a row of the flagger table stays small too.
const MaxParts = 128

// Parts are the deposits of the window that Tip tells of, as far as the row still
// holds them, oldest first: the one that tipped it and the latest others, MaxParts in all.
func (c *Counter) Parts() []Cell {
	if c.Tip == nil {
		return nil
	}
	var parts []Cell
	for _, cell := range c.Window.Cells {
		if cell.Last > c.Tip.WindowStart && cell.First <= c.Tip.WindowEnd && cell.Offset <= c.Tip.Offset {
			parts = append(parts, cell)
		}
	}
	over := len(parts) - MaxParts
	if over <= 0 {
		return parts
	}
	if i := slices.IndexFunc(parts, func(p Cell) bool { return p.Offset == c.Tip.Offset }); 0 <= i && i < over {
		parts[over] = parts[i]
	}
	return parts[over:]
}

// Apply folds d in, in the order of the partition, under the rule in force. It
// looks at the row and at d alone: the same log gives the same rows and the
// same crossings, wherever a processor was restarted. Redelivery of the deposit that
// tipped the window asks to send Tip again: the first one may have been lost, and the
// receiver knows it by its offset. (An earlier crossing is not sent again; the later
// one, which is, raises whatever it would have raised.)
func (c *Counter) Apply(d Deposit, rule Rule) Outcome {
	o := Outcome{Verdict: c.Account.Apply(d)}
	if o.Verdict == Redelivered {
		o.Emit = c.Tip != nil && d.Offset == c.Tip.Offset
	}
	if o.Verdict == Applied {
		o.Emit, o.RuleChanged = c.Judge(d, rule)
	}
	return o
}

// Judge is the part of Apply that follows once the account has Applied d: it holds
// the window against the rule and tells whether d crosses. It stands alone for
// those who ask of some of the deposits, or under several rules, what would be.
func (c *Counter) Judge(d Deposit, rule Rule) (crossed, ruleChanged bool) {
	was := c.Window.Rule
	ruleChanged = c.Window.adopt(rule, d.Offset)
	e, crossed := c.Window.crossing(d, was, c.Tip)
	if crossed {
		tip := e // allocated only on a crossing
		c.Window.tell(e.TippedAt, c.Tip)
		c.Tip = &tip
	}
	c.Window.insert(d)
	c.Window.prune(c.Account.needed(c.Window.period()))
	c.compact()
	return crossed, ruleChanged
}
