package verify

import (
	"fmt"

	"coinbit/internal/out"
)

// Difference is one thing that is not what the logs demand.
type Difference struct {
	// Where is the topic in which it is.
	Where  string `json:"where"`
	Wallet string `json:"wallet,omitempty"`
	// On, Partition and Offset are a position. Where On is the same topic as Where it is
	// the record's; of a row it is the last record that the row says it has applied. A
	// row that is missing, or has applied none, has no position.
	On        string `json:"on,omitempty"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Field     string `json:"field"`
	Got       string `json:"got"`
	Want      string `json:"want"`
}

// String is one line, whatever the wallet and the values are.
func (d Difference) String() string {
	at := d.Where
	switch d.On {
	case "":
		at += fmt.Sprintf(", partition %d", d.Partition)
	case d.Where:
		at += fmt.Sprintf(" %d:%d", d.Partition, d.Offset)
	default:
		at += fmt.Sprintf(", row up to %s %d:%d", d.On, d.Partition, d.Offset)
	}
	if d.Wallet != "" {
		at += ", " + out.Text(d.Wallet)
	}
	return fmt.Sprintf("%s: %s is %s, want %s", at, d.Field, out.Text(d.Got), out.Text(d.Want))
}
