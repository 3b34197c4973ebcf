// Package wallet is the pure core: exact amounts, the balance, the rolling
// window and the flag. Every function maps a state and an event to the next
// state; time comes in with the event. It knows no Kafka, no clock and no
// logging, and money is never a float.
package wallet

import (
	"encoding/json"
	"errors"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"github.com/cockroachdb/apd/v3"
)

// nanosPerUnit is how many billionths make one currency unit.
const nanosPerUnit = 1_000_000_000

// maxDeposit is the largest deposit, in units.
const maxDeposit = 1_000_000_000_000

// Amount is an exact amount of money: whole units and billionths of one. The
// zero value is 0. Nanos is below 1e9.
type Amount struct {
	Units uint64
	Nanos uint32
}

// Why an amount is refused. The texts go to clients.
var (
	ErrNotNumber   = errors.New("amount must be a number")
	ErrNotPositive = errors.New("amount must be greater than 0")
	ErrTooLarge    = errors.New("amount must be at most 1000000000000")
	ErrTooFine     = errors.New("amount must have at most 9 decimal places")
)

// ParseAmount reads the text of a JSON number, exactly. An exponent is fine. The
// errors are the four above. The cost is that of reading the text once: neither
// 1e999999999 nor 64 KiB of digits are ever computed with.
func ParseAmount(text string) (Amount, error) {
	if a, ok := plain(text); ok {
		return a, nil
	}
	if !isJSONNumber(text) {
		return Amount{}, ErrNotNumber
	}
	mantissa, power := text, ""
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		mantissa, power = text[:i], text[i+1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" || text[0] == '-' {
		return Amount{}, ErrNotPositive
	}
	significant := strings.TrimRight(digits, "0")
	scale := exponent(power) + len(digits) - len(significant) - len(fraction)

	// The number is significant · 10^scale, and has this many digits before the point.
	if before := len(significant) + scale; before > 13 || before == 13 && significant != "1" {
		return Amount{}, ErrTooLarge
	}
	if scale < -9 {
		return Amount{}, ErrTooFine
	}
	return fromDecimal(significant, scale)
}

// plain reads what nearly every amount is, at a twentieth of the cost: 1 to 12
// digits, and 1 to 9 after a point. It is false for all else, and for 0.
func plain(text string) (a Amount, ok bool) {
	whole, fraction, point := strings.Cut(text, ".")
	if len(whole) < 1 || len(whole) > 12 || whole[0] == '0' && len(whole) > 1 ||
		len(fraction) > 9 || point != (fraction != "") {
		return Amount{}, false
	}
	for i := range len(whole) {
		if whole[i] < '0' || whole[i] > '9' {
			return Amount{}, false
		}
		a.Units = 10*a.Units + uint64(whole[i]-'0')
	}
	for i := range 9 {
		digit := byte('0')
		if i < len(fraction) {
			digit = fraction[i]
		}
		if digit < '0' || digit > '9' {
			return Amount{}, false
		}
		a.Nanos = 10*a.Nanos + uint32(digit-'0')
	}
	if a == (Amount{}) { // which is refused with a reason
		return Amount{}, false
	}
	return a, true
}

// isJSONNumber is stricter than the decimal library, which reads NaN and +.5.
func isJSONNumber(text string) bool {
	if text == "" || text[len(text)-1] < '0' || text[len(text)-1] > '9' {
		return false
	}
	return (text[0] == '-' || text[0] >= '0' && text[0] <= '9') && json.Valid([]byte(text))
}

// exponent reads a power of ten. What does not fit an int is as good as
// any power that no mantissa can make up for.
func exponent(power string) int {
	const beyond = 1 << 30
	if power == "" {
		return 0
	}
	n, err := strconv.Atoi(power)
	if err != nil && power[0] == '-' {
		return -beyond
	}
	if err != nil {
		return beyond
	}
	return min(max(n, -beyond), beyond)
}

// fromDecimal is digits · 10^scale for at most 22 digits and a scale of -9 to 12.
func fromDecimal(digits string, scale int) (Amount, error) {
	number, _, err := apd.NewFromString(digits + "e" + strconv.Itoa(scale))
	if err != nil {
		return Amount{}, ErrNotNumber
	}
	var units, rest apd.Decimal
	number.Modf(&units, &rest)
	whole, err := units.Int64()
	if err != nil {
		return Amount{}, ErrTooLarge
	}
	rest.Exponent += 9 // in billionths
	nanos, err := rest.Int64()
	if err != nil {
		return Amount{}, ErrTooFine
	}
	return NewDepositAmount(whole, int32(nanos)) //nolint:gosec // below 1e9
}

// NewDepositAmount checks an amount that came as units and nanos.
func NewDepositAmount(units int64, nanos int32) (Amount, error) {
	if units < 0 || nanos < 0 || nanos >= nanosPerUnit || units == 0 && nanos == 0 {
		return Amount{}, ErrNotPositive
	}
	a := Amount{Units: uint64(units), Nanos: uint32(nanos)}
	if a.Cmp(Amount{Units: maxDeposit}) > 0 {
		return Amount{}, ErrTooLarge
	}
	return a, nil
}

// String is the plain decimal, without exponent or trailing zeros.
func (a Amount) String() string {
	s := strconv.FormatUint(a.Units, 10)
	if a.Nanos == 0 {
		return s
	}
	fraction := strconv.FormatUint(nanosPerUnit+uint64(a.Nanos), 10)[1:]
	return s + "." + strings.TrimRight(fraction, "0")
}

// Add returns a + b; false when that has more than math.MaxInt64 units.
func (a Amount) Add(b Amount) (Amount, bool) {
	nanos, carry := a.Nanos+b.Nanos, uint64(0)
	if nanos >= nanosPerUnit {
		nanos, carry = nanos-nanosPerUnit, 1
	}
	units, over := bits.Add64(a.Units, b.Units, carry)
	if over != 0 || units > math.MaxInt64 {
		return Amount{}, false
	}
	return Amount{Units: units, Nanos: nanos}, true
}

var maxAmount = Amount{Units: math.MaxInt64, Nanos: nanosPerUnit - 1}

// plus is Add that stays at the largest amount instead of overflowing: for sums
// that are only compared.
func (a Amount) plus(b Amount) Amount {
	if sum, ok := a.Add(b); ok {
		return sum
	}
	return maxAmount
}

// Minus is a − b for b ≤ a.
func (a Amount) Minus(b Amount) Amount { return a.minus(b) }

// minus is a − b for b ≤ a.
func (a Amount) minus(b Amount) Amount {
	if a.Nanos < b.Nanos {
		return Amount{Units: a.Units - b.Units - 1, Nanos: a.Nanos + nanosPerUnit - b.Nanos}
	}
	return Amount{Units: a.Units - b.Units, Nanos: a.Nanos - b.Nanos}
}

// Cmp is -1, 0 or 1 as a is below, equal to or above b.
func (a Amount) Cmp(b Amount) int {
	switch {
	case a.Units < b.Units || a.Units == b.Units && a.Nanos < b.Nanos:
		return -1
	case a == b:
		return 0
	default:
		return 1
	}
}
