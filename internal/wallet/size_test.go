package wallet

import (
	"math/rand/v2"
	"testing"
)

// The cheap bound of a row's size is never below the exact one.
func TestRoughSizeIsABound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var c Counter
		var at int64
		for range 1 + r.IntN(300) {
			at += r.Int64N(1 << r.IntN(50))
			c.Window.Cells = append(c.Window.Cells, Cell{
				First: at, Last: at + r.Int64N(1<<r.IntN(40)), Sum: Amount{Units: r.Uint64() >> r.IntN(64), Nanos: r.Uint32() >> r.IntN(32)},
				Count: r.Uint32() >> r.IntN(32), Offset: r.Int64() >> r.IntN(64),
			})
		}
		for range r.IntN(maxOrigins) {
			c.Account.Origins = append(c.Account.Origins, Origin{ID: r.Uint64(), Sequence: r.Uint64() >> r.IntN(64), LatestAt: r.Int64(), Idle: r.Int64() >> r.IntN(64)})
		}
		for range r.IntN(keptKeys) {
			c.Account.RecentKeys = append(c.Account.RecentKeys, KeyUse{Amount: Amount{Units: r.Uint64(), Nanos: r.Uint32()}, Offset: r.Int64() >> r.IntN(64)})
		}
		if rough, exact := c.roughSize(), c.sizeWithoutCells()+c.Window.cellsSize(); rough < exact {
			t.Fatalf("%d is below %d for %+v", rough, exact, c)
		}
	}
}
