package wallet

import "slices"

// RaisedBy is who raised a flag.
type RaisedBy uint8

// Who raised it.
const (
	NotRaised RaisedBy = iota
	ByCrossing
	ByOperator
)

// Stands tells whether the latest crossing has not been removed.
func (f *Flag) Stands() bool { return f.NextTip > 0 && f.NextTip-1 >= f.RemovedUpto }

// RaisedBy tells who raised the flag and when, in Unix milliseconds. A crossing that
// stands goes before the operator's raise: so the time of a flag that stays raised
// changes only when it is raised anew.
func (f *Flag) RaisedBy() (by RaisedBy, at int64) {
	switch {
	case f.Stands():
		return ByCrossing, f.tippedAt()
	case f.OpRaised:
		return ByOperator, f.RaisedAt
	default:
		return NotRaised, 0
	}
}

// tippedAt is the time of the deposit that tipped the window, or the window's end
// where the row does not hold that deposit.
func (f *Flag) tippedAt() int64 {
	if f.Evidence == nil {
		return 0
	}
	for _, part := range slices.Backward(f.Parts) {
		if part.Offset == f.Evidence.Offset {
			return part.Last
		}
	}
	return f.Evidence.WindowEnd
}
