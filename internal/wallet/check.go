package wallet

import (
	"errors"
	"fmt"
	"slices"
)

// What follows says whether a row that was read can be one of ours at all. A row that
// can not is refused as a whole: to fold on from it could panic, or lose money.

var errImpossible = errors.New("impossible")

func impossible(what string) error { return fmt.Errorf("%w %s", errImpossible, what) }

// maxOffset is above every offset that a log will reach, and offsets up to it can be
// added to.
const maxOffset = 1 << 62

func offsetIn(offset, next int64) bool { return 0 <= offset && offset < next }

func timeIn(ms int64) bool { return ms == boundedTime(ms) }

func (a Amount) valid() bool { return a.Nanos < nanosPerUnit && a.Units <= maxAmount.Units }

// Check is nil for an account that deposits can have made.
func (a *Account) Check() error {
	switch {
	case a.NextOffset < 0 || a.NextOffset > maxOffset:
		return impossible("next offset")
	case !a.Balance.valid() || (a.Deposits == 0) != (a.Balance == Amount{}):
		return impossible("balance")
	case !timeIn(a.FirstAt) || !timeIn(a.LastAt) || a.FirstAt > a.LastAt:
		return impossible("times")
	case len(a.RecentKeys) > keptKeys:
		return impossible("number of keys")
	case len(a.Origins) > maxOrigins || a.Pacemaker > 0 && int(a.Pacemaker) >= len(a.Origins) || a.Missed >= maxMissed:
		return impossible("origins")
	}
	for i := range a.RecentKeys {
		if use := &a.RecentKeys[i]; !use.Amount.valid() || !offsetIn(use.Offset, a.NextOffset) {
			return impossible("key")
		}
	}
	for i := range a.Origins {
		o := &a.Origins[i]
		if !timeIn(o.LatestAt) || o.Idle < 0 || o.Idle > maxTime || (o.ID == 0) != (o.Sequence == 0) {
			return impossible("origin")
		}
		for _, other := range a.Origins[:i] {
			if other.ID == o.ID {
				return impossible("origins: one is there twice")
			}
		}
	}
	return nil
}

// Check is nil for a counter that deposits can have made.
func (c *Counter) Check() error {
	if err := c.Account.Check(); err != nil {
		return err
	}
	w := &c.Window
	if len(w.Cells) > maxCells || len(w.Past) > maxPast || len(w.Told) > maxTold || slices.ContainsFunc(w.Told, func(t int64) bool { return !timeIn(t) }) || int(w.RuleChanges) < len(w.Past) || !w.Rule.Threshold.valid() {
		return impossible("window")
	}
	if err := checkCells(w.Cells, c.Account.NextOffset, c.Account.Balance); err != nil {
		return err
	}
	if c.Tip != nil && !offsetIn(c.Tip.Offset, c.Account.NextOffset) {
		return impossible("tip")
	}
	return c.Tip.Check()
}

// Check is nil for a flag that events can have made.
func (f *Flag) Check() error {
	switch {
	case f.NextOffset < 0 || f.NextOffset > maxOffset:
		return impossible("next offset")
	case f.NextTip < 0 || f.NextTip > maxOffset || f.RemovedUpto < 0 || len(f.RecentEventIDs) > keptEvents || len(f.Parts) > MaxParts:
		return impossible("flag")
	case f.NextTip > 0 && (f.Evidence == nil || f.Evidence.Offset >= f.NextTip):
		return impossible("evidence: that of the latest crossing is missing")
	}
	for _, e := range []*Evidence{f.Evidence, f.Latest} {
		if err := e.Check(); err != nil {
			return err
		}
	}
	return CheckParts(f.Parts)
}

// CheckParts is nil for cells that a crossing can tell of.
func CheckParts(parts []Cell) error { return checkCells(parts, maxOffset, maxAmount) }

// Check is nil for evidence that a crossing can carry, and for none.
func (e *Evidence) Check() error {
	if e == nil {
		return nil
	}
	if !offsetIn(e.Offset, maxOffset) || !e.Total.valid() || !e.Rule.Threshold.valid() || !timeIn(e.TippedAt) {
		return impossible("evidence")
	}
	return nil
}

// checkCells checks that cells are ordered and apart, and hold no more than most.
func checkCells(cells []Cell, next int64, most Amount) error {
	var sum Amount
	for i := range cells {
		c := &cells[i]
		if !timeIn(c.First) || !timeIn(c.Last) || c.First > c.Last || c.Count == 0 || c.Count == 1 && c.First != c.Last ||
			!offsetIn(c.Offset, next) || !c.Sum.valid() || i > 0 && cells[i-1].Last > c.First {
			return impossible("window")
		}
		var ok bool
		if sum, ok = sum.Add(c.Sum); !ok || sum.Cmp(most) > 0 {
			return impossible("window: it holds more than the balance")
		}
	}
	return nil
}
