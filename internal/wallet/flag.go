package wallet

import "slices"

// keptEvents is how many operator events a row remembers by id.
const keptEvents = 16

// FlagEvent is one message of topic flag_wallet: exactly one of Crossing, Raise
// and Remove.
type FlagEvent struct {
	Offset   int64 // on flag_wallet
	Crossing *Evidence
	Parts    []Cell // of the crossing's window, see Counter.Parts
	Raise    bool
	Remove   bool
	ID       uint64 // of an operator's event
	At       int64  // of an operator's event, Unix milliseconds
	// RemovedUpto goes with Remove: crossings whose deposit lies below it go.
	RemovedUpto int64
}

// Flag is a wallet's flag. A crossing is versioned by the offset of the deposit
// that tipped it, a removal by the deposits that were there when it was said:
// so a crossing seen late, or twice, changes nothing that was decided.
type Flag struct {
	NextOffset     int64 // on flag_wallet, 0 for none
	NextTip        int64 // offset + 1 of the latest crossing's deposit, 0 for none
	RemovedUpto    int64
	OpRaised       bool
	RecentEventIDs []uint64 // oldest first
	// Evidence is of the crossing that raised the flag; later ones do not move it. Parts
	// are of its window, none where they are not known.
	Evidence *Evidence
	Parts    []Cell
	// Latest is the evidence of the latest crossing, nil where Evidence is.
	Latest        *Evidence
	Removals      uint32
	LastRemovalAt int64
	RaisedAt      int64
}

// Raised tells whether the wallet is flagged.
func (f *Flag) Raised() bool { return f.OpRaised || f.Stands() }

// Apply folds e in, in the order of the partition.
func (f *Flag) Apply(e FlagEvent) Verdict {
	if e.Offset < f.NextOffset {
		return Redelivered
	}
	f.NextOffset = e.Offset + 1
	if e.Crossing != nil {
		if e.Crossing.Offset < f.NextTip {
			return Repeated
		}
		f.cross(*e.Crossing, e.Parts)
		return Applied
	}
	if e.ID != 0 {
		if slices.Contains(f.RecentEventIDs, e.ID) {
			return Repeated
		}
		f.RecentEventIDs = remember(f.RecentEventIDs, e.ID, keptEvents)
	}
	if e.Raise {
		f.OpRaised, f.RaisedAt = true, e.At
		return Applied
	}
	f.remove(e)
	return Applied
}

// cross folds in a crossing that is newer than all before.
func (f *Flag) cross(e Evidence, parts []Cell) {
	if f.Stands() {
		f.Latest = &e
	} else {
		f.Evidence, f.Parts, f.Latest = &e, parts, nil
	}
	f.NextTip = e.Offset + 1
}

// remove folds in a removal. A crossing that it did not know of raises the flag from
// here on, so its evidence takes the place of the one that is removed.
func (f *Flag) remove(e FlagEvent) {
	f.OpRaised = false
	f.RemovedUpto = max(f.RemovedUpto, e.RemovedUpto)
	f.Removals++
	f.LastRemovalAt = e.At
	if f.Stands() && f.Latest != nil && f.Evidence.Offset < f.RemovedUpto {
		f.Evidence, f.Parts, f.Latest = f.Latest, nil, nil
	}
}
