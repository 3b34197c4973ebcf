package wallet

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
	case f.Stands() && f.Evidence != nil:
		return ByCrossing, f.Evidence.TippedAt
	case f.OpRaised:
		return ByOperator, f.RaisedAt
	default:
		return NotRaised, 0
	}
}
