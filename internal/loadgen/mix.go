package loadgen

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"

	"coinbit/internal/wallet"
)

// Mix describes a load on the suite's API. Each request follows from Seed and its
// number alone, whichever connection sends it.
type Mix struct {
	// Host is the header; it decides nothing.
	Host string
	// APIKey is the bearer key, "" for none.
	APIKey string
	// Wallets is how many there are: load-0, load-1, …
	Wallets int
	// Zipf is the skew: the k-th wallet is drawn in proportion to 1/k^Zipf. 0 draws
	// all alike.
	Zipf float64
	// Keys is the share of deposits that carry an Idempotency-Key of their own.
	Keys float64
	// Amount is an amount, or LOW..HIGH: drawn evenly, in steps of the finest
	// decimal place of the two.
	Amount string
	// Checks is the share of requests that are GET /api/check.
	Checks float64
	Seed   uint64
}

const (
	maxWallets = 10_000_000
	maxZipf    = 10
	// maxAmount in nanos stays well within 64 bits.
	maxAmount = 1_000_000_000
)

// Kinds of a Mix.
const (
	kindDeposit = iota
	kindCheck
)

// requests is a Mix, ready to build requests.
type requests struct {
	Mix
	amounts
	cumulated []float64 // chances of the wallets up to each, nil when all are alike
	deposit   []byte    // up to its key or length
	check     []byte    // up to the wallet's number
	checkEnd  []byte
}

// amounts are low, low+step, … low+steps·step, in nanos.
type amounts struct{ low, step, steps uint64 }

// Options are those of the Mix: Request and Kinds. It fails with an OptionError.
func (m Mix) Options() (Options, error) {
	share := func(f float64) bool { return f >= 0 && f <= 1 }
	switch {
	case m.Wallets < 1 || m.Wallets > maxWallets:
		return Options{}, takes("wallets", m.Wallets, fmt.Sprintf("1 to %d", maxWallets))
	case !(m.Zipf >= 0 && m.Zipf <= maxZipf):
		return Options{}, takes("zipf", m.Zipf, fmt.Sprintf("0 (all wallets alike) to %d", maxZipf))
	case !share(m.Keys):
		return Options{}, takes("keys", m.Keys, "a share from 0 to 1")
	case !share(m.Checks):
		return Options{}, takes("checks", m.Checks, "a share from 0 to 1")
	}
	a, err := parseAmounts(m.Amount)
	if err != nil {
		return Options{}, err
	}
	headers := "Host: " + m.Host + "\r\n"
	if m.APIKey != "" {
		headers += "Authorization: Bearer " + m.APIKey + "\r\n"
	}
	r := &requests{
		Mix: m, amounts: a,
		deposit:  []byte("POST /api/deposit HTTP/1.1\r\n" + headers + "Content-Type: application/json\r\n"),
		check:    []byte("GET /api/check/load-"),
		checkEnd: []byte(" HTTP/1.1\r\n" + headers + "\r\n"),
	}
	if m.Zipf > 0 {
		r.cumulated = make([]float64, m.Wallets)
		sum := 0.0
		for k := range r.cumulated {
			sum += math.Pow(float64(k+1), -m.Zipf)
			r.cumulated[k] = sum
		}
	}
	return Options{Request: r.request, Kinds: []string{"deposit", "check"}}, nil
}

// Requests is how many requests have n deposits among them. Checks is below 1.
func (m Mix) Requests(deposits uint64) uint64 {
	n := uint64(math.Ceil(float64(deposits) / (1 - m.Checks)))
	for n > 0 && n-m.checksBefore(n) >= deposits { // rounding may be a few off
		n--
	}
	for n-m.checksBefore(n) < deposits {
		n++
	}
	return n
}

// checksBefore is how many of the first n requests are checks: evenly spread.
func (m Mix) checksBefore(n uint64) uint64 { return uint64(float64(n) * m.Checks) }

func (r *requests) request(b []byte, i uint64) ([]byte, int) {
	chance := rand.NewPCG(r.Seed, i)
	id := r.wallet(chance)
	if r.checksBefore(i+1) > r.checksBefore(i) {
		b = append(b, r.check...)
		b = strconv.AppendUint(b, id, 10)
		return append(b, r.checkEnd...), kindCheck
	}
	b = append(b, r.deposit...)
	if r.Keys > 0 && fraction(chance) < r.Keys {
		b = append(b, "Idempotency-Key: "...)
		b = strconv.AppendUint(b, r.Seed, 36)
		b = append(b, '-')
		b = strconv.AppendUint(b, i, 36)
		b = append(b, "\r\n"...)
	}
	// The body has from 10 to 99 bytes: its length is filled in behind it.
	b = append(b, "Content-Length: 00\r\n\r\n"...)
	body := len(b)
	b = append(b, `{"wallet_id":"load-`...)
	b = strconv.AppendUint(b, id, 10)
	b = append(b, `","amount":`...)
	b = appendNanos(b, r.low+r.step*below(chance, r.steps+1))
	b = append(b, '}')
	n := len(b) - body
	b[body-6], b[body-5] = '0'+byte(n/10), '0'+byte(n%10) //nolint:gosec // two digits
	return b, kindDeposit
}

// wallet draws a wallet's number.
func (r *requests) wallet(chance *rand.PCG) uint64 {
	if r.cumulated == nil {
		return below(chance, uint64(r.Wallets)) //nolint:gosec // above 0
	}
	at := fraction(chance) * r.cumulated[len(r.cumulated)-1]
	return uint64(min(sort.SearchFloat64s(r.cumulated, at), len(r.cumulated)-1)) //nolint:gosec // an index
}

// below draws a number below n; the bias is below n/2^64.
func below(chance *rand.PCG, n uint64) uint64 {
	hi, _ := bits.Mul64(chance.Uint64(), n)
	return hi
}

// fraction draws a number from 0 to below 1.
func fraction(chance *rand.PCG) float64 { return float64(chance.Uint64()>>11) / (1 << 53) }

// parseAmounts reads AMOUNT or LOW..HIGH.
func parseAmounts(text string) (amounts, error) {
	bad := func(why any) (amounts, error) {
		return amounts{}, &OptionError{"amount", fmt.Sprintf("got %q, takes an amount or LOW..HIGH, such as 0.01..100, up to %d: %v", text, maxAmount, why)}
	}
	first, last, isRange := strings.Cut(text, "..")
	if !isRange {
		last = first
	}
	var nanos [2]uint64
	for i, s := range []string{first, last} {
		a, err := wallet.ParseAmount(s)
		if err != nil {
			return bad(err)
		}
		if a.Units > maxAmount || a.Units == maxAmount && a.Nanos > 0 {
			return bad("too large")
		}
		nanos[i] = a.Units*1e9 + uint64(a.Nanos)
	}
	if nanos[0] > nanos[1] {
		return bad("LOW is above HIGH")
	}
	step := uint64(1e9)
	for nanos[0]%step != 0 || nanos[1]%step != 0 {
		step /= 10
	}
	return amounts{nanos[0], step, (nanos[1] - nanos[0]) / step}, nil
}

// appendNanos appends n billionths as a decimal without trailing zeros.
func appendNanos(b []byte, n uint64) []byte {
	b = strconv.AppendUint(b, n/1e9, 10)
	rest := n % 1e9
	if rest == 0 {
		return b
	}
	b = append(b, '.')
	for unit := uint64(1e8); rest > 0; unit /= 10 {
		b = append(b, '0'+byte(rest/unit)) //nolint:gosec // a digit
		rest %= unit
	}
	return b
}

// Fixed is the Request of a load that sends the same bytes again and again.
func Fixed(request []byte) func([]byte, uint64) ([]byte, int) {
	return func([]byte, uint64) ([]byte, int) { return request, 0 }
}
