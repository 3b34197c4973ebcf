package wallet_test

import (
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"coinbit/internal/wallet"
)

func TestParseAmount(t *testing.T) {
	zeros := strings.Repeat("0", 60_000)
	for _, c := range []struct {
		text, want string
		err        error
	}{
		{"3500", "3500", nil},
		{"0.3", "0.3", nil},
		{"0.1", "0.1", nil},
		{"1.0000000000000", "1", nil},
		{"1." + zeros, "1", nil},
		{"1e3", "1000", nil},
		{"1E+3", "1000", nil},
		{"1E-9", "0.000000001", nil},
		{"1.5e-8", "0.000000015", nil},
		{"100e-2", "1", nil},
		{"1000000000000", "1000000000000", nil},
		{"1e12", "1000000000000", nil},
		{"1000000000000.000000000", "1000000000000", nil},
		{"999999999999.999999999", "999999999999.999999999", nil},
		{"0." + zeros + "1e60001", "1", nil},
		{"1" + zeros + "e-60000", "1", nil},

		{"0", "", wallet.ErrNotPositive},
		{"-0", "", wallet.ErrNotPositive},
		{"0e999999999999999999999", "", wallet.ErrNotPositive},
		{"-1", "", wallet.ErrNotPositive},
		{"-1e999999999", "", wallet.ErrNotPositive},

		{"1000000000000.000000001", "", wallet.ErrTooLarge},
		{"1000000000001", "", wallet.ErrTooLarge},
		{"2e12", "", wallet.ErrTooLarge},
		{"1e13", "", wallet.ErrTooLarge},
		{"1e999999999", "", wallet.ErrTooLarge},
		{"1e99999999999999999999999", "", wallet.ErrTooLarge},
		{strings.Repeat("9", 60_000), "", wallet.ErrTooLarge},
		{"1000000000000.00000000001", "", wallet.ErrTooLarge}, // too fine as well

		{"0.0000000001", "", wallet.ErrTooFine},
		{"1e-10", "", wallet.ErrTooFine},
		{"1e-999999999", "", wallet.ErrTooFine},
		{"1e-99999999999999999999999", "", wallet.ErrTooFine},
		{"1.0000000001", "", wallet.ErrTooFine},
		{"0." + strings.Repeat("3", 60_000), "", wallet.ErrTooFine},

		{"", "", wallet.ErrNotNumber},
		{" 1", "", wallet.ErrNotNumber},
		{"1 ", "", wallet.ErrNotNumber},
		{"+1", "", wallet.ErrNotNumber},
		{".5", "", wallet.ErrNotNumber},
		{"1.", "", wallet.ErrNotNumber},
		{"01", "", wallet.ErrNotNumber},
		{"1e", "", wallet.ErrNotNumber},
		{"0x10", "", wallet.ErrNotNumber},
		{"1_000", "", wallet.ErrNotNumber},
		{"1,5", "", wallet.ErrNotNumber},
		{"NaN", "", wallet.ErrNotNumber},
		{"Infinity", "", wallet.ErrNotNumber},
		{`"1"`, "", wallet.ErrNotNumber},
		{"[1,1", "", wallet.ErrNotNumber},
		{"true", "", wallet.ErrNotNumber},
	} {
		name := c.text[:min(len(c.text), 40)]
		start := time.Now()
		a, err := wallet.ParseAmount(c.text)
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("%q took %v", name, took)
		}
		if !errors.Is(err, c.err) || err == nil && a.String() != c.want || err != nil && a != (wallet.Amount{}) {
			t.Errorf("%q: %v, %v; want %q, %v", name, a, err, c.want, c.err)
		}
	}
}

// The texts are what clients see.
func TestAmountErrors(t *testing.T) {
	for err, want := range map[error]string{
		wallet.ErrNotPositive: "amount must be greater than 0",
		wallet.ErrTooLarge:    "amount must be at most 1000000000000",
		wallet.ErrTooFine:     "amount must have at most 9 decimal places",
		wallet.ErrNotNumber:   "amount must be a number",
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}

func TestNewDepositAmount(t *testing.T) {
	for _, c := range []struct {
		units int64
		nanos int32
		ok    bool
	}{
		{1, 0, true},
		{0, 1, true},
		{0, 999_999_999, true},
		{1_000_000_000_000, 0, true},
		{0, 0, false},
		{-1, 0, false},
		{1, -1, false},
		{0, 1_000_000_000, false},
		{1_000_000_000_000, 1, false},
		{math.MaxInt64, 0, false},
	} {
		a, err := wallet.NewDepositAmount(c.units, c.nanos)
		if (err == nil) != c.ok || c.ok && a != (wallet.Amount{Units: uint64(c.units), Nanos: uint32(c.nanos)}) {
			t.Errorf("%d, %d: %v, %v", c.units, c.nanos, a, err)
		}
	}
}

func TestAmountString(t *testing.T) {
	for a, want := range map[wallet.Amount]string{
		{}:                                  "0",
		{Units: 3500}:                       "3500",
		{Nanos: 300_000_000}:                "0.3",
		{Units: 10, Nanos: 1}:               "10.000000001",
		{Units: math.MaxInt64, Nanos: 10}:   "9223372036854775807.00000001",
		{Units: 1_000_000_000_000_000_000}:  "1000000000000000000",
		{Units: 120, Nanos: 120_000_000}:    "120.12",
		{Units: 0, Nanos: 999_999_999}:      "0.999999999",
		{Units: math.MaxUint64, Nanos: 500}: "18446744073709551615.0000005",
	} {
		if got := a.String(); got != want {
			t.Errorf("%#v: %q, want %q", a, got, want)
		}
	}
}

func TestAmountAdd(t *testing.T) {
	most := wallet.Amount{Units: math.MaxInt64, Nanos: 999_999_999}
	for _, c := range []struct {
		a, b, sum wallet.Amount
		ok        bool
	}{
		{money(100_000_000), money(200_000_000), money(300_000_000), true},
		{money(999_999_999), money(1), money(billion), true},
		{money(1_999_999_999), money(1_999_999_999), money(3_999_999_998), true},
		{wallet.Amount{Units: math.MaxInt64}, money(999_999_999), most, true},
		{most, money(1), wallet.Amount{}, false},
		{most, most, wallet.Amount{}, false},
		{wallet.Amount{Units: math.MaxUint64}, money(billion), wallet.Amount{}, false},
	} {
		for range 2 {
			if sum, ok := c.a.Add(c.b); sum != c.sum || ok != c.ok {
				t.Errorf("%v + %v: %v, %v", c.a, c.b, sum, ok)
			}
			c.a, c.b = c.b, c.a
		}
	}
}

func TestAmountCmp(t *testing.T) {
	ascending := []wallet.Amount{{}, {Nanos: 1}, {Nanos: 2}, {Units: 1}, {Units: 1, Nanos: 1}, {Units: 2}}
	for i, a := range ascending {
		for j, b := range ascending {
			if got, want := a.Cmp(b), min(max(i-j, -1), 1); got != want {
				t.Errorf("%v, %v: %d, want %d", a, b, got, want)
			}
		}
	}
}

// FuzzParseAmount holds every short text against exact rationals.
func FuzzParseAmount(f *testing.F) {
	for _, seed := range []string{"3500", "0.3", "1e3", "1E-9", "-0", "1000000000000.000000001", "1e999999999", "1.", "NaN", "0e-400", "1/2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := wallet.ParseAmount(text)
		if len(text) > 24 || exponentDigits(text) > 3 || errors.Is(err, wallet.ErrNotNumber) {
			return
		}
		r, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("%q is not a number, got %v, %v", text, a, err)
		}
		nanos := new(big.Rat).Mul(r, big.NewRat(billion, 1))
		var want error
		switch {
		case r.Sign() <= 0:
			want = wallet.ErrNotPositive
		case r.Cmp(big.NewRat(1_000_000_000_000, 1)) > 0:
			want = wallet.ErrTooLarge
		case !nanos.IsInt():
			want = wallet.ErrTooFine
		}
		if !errors.Is(err, want) {
			t.Fatalf("%q: %v, want %v", text, err, want)
		}
		if want != nil {
			return
		}
		if back, _ := new(big.Rat).SetString(a.String()); back.Cmp(r) != 0 {
			t.Fatalf("%q became %v", text, a)
		}
	})
}

func exponentDigits(text string) int {
	i := strings.IndexAny(text, "eE")
	if i < 0 {
		return 0
	}
	return len(text) - i - 1
}
