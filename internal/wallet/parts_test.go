package wallet_test

import (
	"math/rand/v2"
	"testing"

	"coinbit/internal/wallet"
)

// At a crossing the parts are the deposits of the window, and add up to its total;
// told again later, they are what the row still holds of them.
func TestPartsAddUpToTheEvidence(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	crossings := 0
	for range 300 {
		c, rl := &wallet.Counter{}, rule(10_000*billion, 120_000)
		at := int64(1_800_000_000_000)
		for offset := range int64(60) {
			at += r.Int64N(20_000) - 2_000
			d := wallet.Deposit{Amount: wallet.Amount{Units: 1 + r.Uint64N(3_000)}, At: at, Offset: offset}
			if o := c.Apply(d, rl); o.Emit {
				crossings++
				parts, sum, count := c.Parts(), wallet.Amount{}, uint32(0)
				for _, p := range parts {
					sum, _ = sum.Add(p.Sum)
					count += p.Count
					if p.Last <= c.Tip.WindowStart || p.First > c.Tip.WindowEnd {
						t.Fatalf("%+v lies outside of %+v", p, c.Tip)
					}
				}
				if sum != c.Tip.Total || count != c.Tip.Deposits {
					t.Fatalf("%v from %d deposits, the evidence has %+v", sum, count, c.Tip)
				}
			}
			for _, p := range c.Parts() {
				if p.Offset > c.Tip.Offset {
					t.Fatalf("%+v came after %+v", p, c.Tip)
				}
			}
		}
	}
	if crossings < 300 {
		t.Fatalf("only %d crossings", crossings)
	}
}

// A late deposit that tips a window of many others is one of its parts.
func TestTippingDepositIsAPart(t *testing.T) {
	c, rl := &wallet.Counter{}, rule(1_000*billion, 120_000)
	const at = 1_800_000_000_000
	for i := range int64(130) {
		c.Apply(wallet.Deposit{Amount: money(billion), At: at + i, Offset: i}, rl)
	}
	if !c.Apply(wallet.Deposit{Amount: money(870*billion + 1), At: at - 1_000, Offset: 130}, rl).Emit {
		t.Fatal("no crossing")
	}
	parts := c.Parts()
	if len(parts) != wallet.MaxParts || parts[0].Offset != 130 || parts[0].Sum != money(870*billion+1) || parts[127].Offset != 129 {
		t.Errorf("%d parts, from %+v to %+v", len(parts), parts[0], parts[len(parts)-1])
	}
	if c.Tip.TippedAt != at-1_000 || c.Tip.WindowEnd != at+129 {
		t.Errorf("%+v", c.Tip)
	}
}

func TestPartsAreBounded(t *testing.T) {
	c, rl := &wallet.Counter{}, rule(199*billion, 120_000)
	for i := range int64(200) {
		c.Apply(wallet.Deposit{Amount: wallet.Amount{Units: 1}, At: 1_800_000_000_000 + i, Offset: i}, rl)
	}
	if c.Tip == nil || c.Tip.Deposits != 200 {
		t.Fatalf("%+v", c.Tip)
	}
	parts := c.Parts()
	if len(parts) != wallet.MaxParts || parts[len(parts)-1].Offset != 199 {
		t.Fatalf("%d parts, the last %+v", len(parts), parts[len(parts)-1])
	}
	if (&wallet.Counter{}).Parts() != nil {
		t.Fatal("parts without a crossing")
	}
}
