package loadgen

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"coinbit/internal/wallet"
)

func mix(change func(*Mix)) Mix {
	m := Mix{Host: "127.0.0.1:8000", Wallets: 1000, Amount: "0.01..100", Seed: 7}
	change(&m)
	return m
}

// parse reads a request as a server would. Wallet and amount are in it once.
func parse(t *testing.T, b []byte) (r *http.Request, walletID string, amount wallet.Amount) {
	t.Helper()
	in := bufio.NewReader(bytes.NewReader(b))
	r, err := http.ReadRequest(in)
	if err != nil {
		t.Fatalf("%v: %q", err, b)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || in.Buffered() > 0 {
		t.Fatalf("%v, %d bytes behind it: %q", err, in.Buffered(), b)
	}
	walletID, isCheck := strings.CutPrefix(r.URL.Path, "/api/check/")
	if !isCheck {
		var d struct {
			WalletID string          `json:"wallet_id"`
			Amount   json.RawMessage `json:"amount"`
		}
		if err := json.Unmarshal(body, &d); err != nil || r.Method != http.MethodPost || r.URL.Path != "/api/deposit" {
			t.Fatalf("%v: %q", err, b)
		}
		if walletID = d.WalletID; len(body) < 10 {
			t.Fatalf("%q", b)
		}
		if amount, err = wallet.ParseAmount(string(d.Amount)); err != nil {
			t.Fatalf("%v: %q", err, b)
		}
	}
	if err := wallet.ValidWalletID(walletID); err != nil {
		t.Fatalf("%v: %q", err, b)
	}
	return r, walletID, amount
}

// Every request is whole, within its bounds, in its share, and always the same.
func TestMix(t *testing.T) {
	m := mix(func(m *Mix) { m.Checks, m.Keys, m.APIKey = 0.3, 0.25, "secret-key" })
	o, err := m.Options()
	if err != nil {
		t.Fatal(err)
	}
	const n = 20_000
	checks, seen, keys := 0, map[string]bool{}, map[string]bool{}
	low, high := wallet.Amount{Nanos: 10_000_000}, wallet.Amount{Units: 100}
	for i := range uint64(n) {
		b, kind := o.Request(make([]byte, 0, 1024), i)
		r, id, amount := parse(t, b)
		again, _ := o.Request(nil, i)
		if !bytes.Equal(b, again) {
			t.Fatalf("another one at the second call: %q, %q", b, again)
		}
		if r.Header.Get("Authorization") != "Bearer secret-key" || r.Host != "127.0.0.1:8000" {
			t.Fatalf("%q", b)
		}
		seen[id] = true
		if kind == kindCheck {
			checks++
			continue
		}
		if amount.Cmp(low) < 0 || amount.Cmp(high) > 0 || amount.Nanos%10_000_000 != 0 {
			t.Fatalf("amount %s", amount)
		}
		if k := r.Header.Get("Idempotency-Key"); k != "" {
			if wallet.ValidKey(k) != nil || keys[k] {
				t.Fatalf("key %q, seen before: %v", k, keys[k])
			}
			keys[k] = true
		}
	}
	if checks != n*3/10 || len(seen) != 1000 || math.Abs(float64(len(keys))/(n*0.7)-0.25) > 0.02 {
		t.Errorf("%d checks, %d wallets, %d keys of %d", checks, len(seen), len(keys), n)
	}
}

func TestMixBounds(t *testing.T) {
	for want, change := range map[string]func(*Mix){
		"wallets": func(m *Mix) { m.Wallets = 0 },
		"zipf":    func(m *Mix) { m.Zipf = math.NaN() },
		"keys":    func(m *Mix) { m.Keys = 1.1 },
		"checks":  func(m *Mix) { m.Checks = -0.1 },
		"amount":  func(m *Mix) { m.Amount = "" },
	} {
		_, err := mix(change).Options()
		if got := (*OptionError)(nil); !errors.As(err, &got) || got.Option != want || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestAmounts(t *testing.T) {
	for text, want := range map[string]amounts{
		"5":                  {5e9, 1e9, 0},
		"1..100":             {1e9, 1e9, 99},
		"0.01..1":            {1e7, 1e7, 99},
		"0.5..1e3":           {5e8, 1e8, 9995},
		"0.000000001..0.1":   {1, 1, 99_999_999},
		"1000000000":         {1e18, 1e9, 0},
		"0.000000001..1e9":   {1, 1, 999_999_999_999_999_999},
		"0.1..0.1":           {1e8, 1e8, 0},
		"999999999.99..1e9":  {999_999_999_990_000_000, 1e7, 1},
		"0.01..1000000000.0": {1e7, 1e7, 99_999_999_999},
	} {
		if got, err := parseAmounts(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "..", "1..", "..1", "2..1", "1...2", "0..1", "-1", "1-2", "x", "1e10", "1000000000.1", "1..2..3", "0.0000000001"} {
		if got, err := parseAmounts(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// The smallest and the largest deposits have bodies of two digits' length.
func TestMixExtremes(t *testing.T) {
	for _, amount := range []string{"1", "999999999.000000001..1000000000"} {
		for _, wallets := range []int{1, maxWallets} {
			o, err := mix(func(m *Mix) { m.Amount, m.Wallets = amount, wallets }).Options()
			if err != nil {
				t.Fatal(err)
			}
			for i := range uint64(1000) {
				b, _ := o.Request(nil, i)
				parse(t, b)
			}
		}
	}
}

// The first wallet is drawn 2^Zipf times as often as the second.
func TestZipf(t *testing.T) {
	for _, zipf := range []float64{0.5, 1, 1.5} {
		o, err := mix(func(m *Mix) { m.Zipf, m.Wallets, m.Checks = zipf, 100, 1 }).Options()
		if err != nil {
			t.Fatal(err)
		}
		count := map[string]float64{}
		for i := range uint64(200_000) {
			b, _ := o.Request(nil, i)
			id, _, _ := strings.Cut(string(b), " HTTP")
			count[id]++
		}
		if got, want := count["GET /api/check/load-0"]/count["GET /api/check/load-1"], math.Pow(2, zipf); math.Abs(got/want-1) > 0.05 {
			t.Errorf("zipf %v: the first comes %.2f times as often as the second, want %.2f", zipf, got, want)
		}
	}
}

// Requests have so many deposits among them, and the last of them is one.
func TestDepositsAmong(t *testing.T) {
	for _, checks := range []float64{0, 0.1, 1.0 / 3, 0.5, 0.9, 0.999} {
		m := mix(func(m *Mix) { m.Checks = checks })
		o, err := m.Options()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []uint64{0, 1, 2, 7, 1000} {
			n, got := m.Requests(want), uint64(0)
			for i := range n {
				if _, kind := o.Request(nil, i); kind == kindDeposit {
					got++
				}
			}
			if got != want {
				t.Errorf("checks %v: %d of %d requests are deposits, want %d", checks, got, n, want)
			}
		}
	}
}
