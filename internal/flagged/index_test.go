package flagged_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"coinbit/internal/flagged"
)

// twin sorts everything anew for every page.
type twin map[string]int64

func (w twin) page(after *flagged.Entry, n int) ([]flagged.Entry, bool) {
	all := []flagged.Entry{}
	order := func(a, b flagged.Entry) int {
		if a.At != b.At {
			return int(b.At - a.At)
		}
		return strings.Compare(a.WalletID, b.WalletID)
	}
	for id, at := range w {
		if e := (flagged.Entry{At: at, WalletID: id}); after == nil || order(*after, e) < 0 {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, order)
	return all[:min(n, len(all))], len(all) > n
}

// Whatever happens to the flags, every page is the twin's.
func TestIndexAsTheTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, w := flagged.New(), twin{}
		id := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("w%d", rapid.IntRange(0, 200).Draw(t, "id")) })
		at := rapid.Int64Range(0, 60)
		t.Repeat(map[string]func(*rapid.T){
			"raise": func(t *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(t, "times") {
					id, at := id.Draw(t, "wallet"), at.Draw(t, "at")
					x.Raise(id, at)
					w[id] = at
				}
			},
			"lower": func(t *rapid.T) {
				id := id.Draw(t, "wallet")
				x.Lower(id)
				delete(w, id)
			},
			"": func(t *rapid.T) {
				var after *flagged.Entry
				if rapid.Bool().Draw(t, "from") {
					after = &flagged.Entry{At: at.Draw(t, "after"), WalletID: id.Draw(t, "after wallet")}
				}
				n := rapid.IntRange(1, 50).Draw(t, "n")
				got, more := x.Page(after, n)
				want, wantMore := w.page(after, n)
				if !slices.Equal(got, want) || more != wantMore || x.Len() != len(w) {
					t.Fatalf("%v %v of %d, want %v %v of %d", got, more, x.Len(), want, wantMore, len(w))
				}
			},
		})
	})
}

// Paging while flags are raised and lowered: who stays flagged and is not raised
// anew comes exactly once, in order.
func TestPagingAmongChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := flagged.New()
		steady := map[string]bool{}
		at := rapid.Int64Range(0, 30)
		for i := range rapid.IntRange(0, 60).Draw(t, "wallets") {
			id := fmt.Sprintf("w%d", i)
			x.Raise(id, at.Draw(t, "at"))
			steady[id] = true
		}
		seen := map[string]int{}
		last := flagged.Entry{At: 1 << 60}
		var after *flagged.Entry
		for more := true; more; {
			var page []flagged.Entry
			page, more = x.Page(after, rapid.IntRange(1, 7).Draw(t, "n"))
			for _, e := range page {
				seen[e.WalletID]++
				if e.At > last.At || e.At == last.At && e.WalletID <= last.WalletID {
					t.Fatalf("%v after %v", e, last)
				}
				last = e
			}
			if len(page) > 0 { // as a client does: through the cursor
				e, err := flagged.ParseCursor(page[len(page)-1].Cursor())
				if err != nil {
					t.Fatal(err)
				}
				after = &e
			}
			for range rapid.IntRange(0, 5).Draw(t, "changes") {
				id := fmt.Sprintf("w%d", rapid.IntRange(0, 70).Draw(t, "wallet"))
				if delete(steady, id); rapid.Bool().Draw(t, "raise") {
					x.Raise(id, at.Draw(t, "at"))
				} else {
					x.Lower(id)
				}
			}
		}
		for id := range steady {
			if seen[id] != 1 {
				t.Fatalf("%s was there all the time and came %d times", id, seen[id])
			}
		}
	})
}

func TestIndexFromManySides(t *testing.T) {
	x := flagged.New()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2_000 {
				id := fmt.Sprintf("%d-%d", g, i%100)
				x.Raise(id, int64(i))
				if i%3 == 0 {
					x.Lower(id)
				}
				x.Page(&flagged.Entry{At: int64(i)}, 10)
			}
		})
	}
	wg.Wait()
	page, more := x.Page(nil, 1_000)
	if len(page) != x.Len() || more || !slices.IsSortedFunc(page, func(a, b flagged.Entry) int { return int(b.At - a.At) }) {
		t.Fatalf("%d of %d, more %v", len(page), x.Len(), more)
	}
}

// What a flagged wallet costs in memory, with the ids of 36 characters of the
// contract's example: MEASURE=1000000 measures a million, as docs/decisions/17-openapi.md
// has it. The bound is twice what is needed, and holds after all were raised anew.
func TestBytesPerWallet(t *testing.T) {
	n := 100_000
	if os.Getenv("MEASURE") != "" {
		_, _ = fmt.Sscan(os.Getenv("MEASURE"), &n)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	id := func(i int) string { return fmt.Sprintf("69da5a28bfee68a8b0bfeba076ee%08x", uint32(i)*2654435761) }
	empty := heap()
	x := flagged.New()
	for round := range 2 {
		for i := range n {
			x.Raise(id(i), int64(round*n+i*7919%n))
		}
		per := float64(heap()-empty) / float64(n)
		t.Logf("%d wallets: %.0f bytes each", x.Len(), per)
		if per > 270 {
			t.Errorf("%.0f bytes for each of %d wallets", per, n)
		}
	}
	runtime.KeepAlive(x)
}

func TestCursor(t *testing.T) {
	for cursor, want := range map[string]flagged.Entry{
		"AQAAAAAAAAAAdw":      {WalletID: "w"},
		"AQAAAYvP5Wh7YWxpY2U": {At: 1_700_000_000_123, WalletID: "alice"},
		"AX_________8YTpi":    {At: 1<<63 - 4, WalletID: "a:b"},
	} {
		got, err := flagged.ParseCursor(cursor)
		if err != nil || got != want || got.Cursor() != cursor {
			t.Errorf("%s: %+v %v, want %s", cursor, got, err, want.Cursor())
		}
	}
	bad := []string{"", "A", "AQ", "AQAAAAAAAAAA", "AgAAAAAAAAAAdw", "AQAAAAAAAAAAdw==", "AQAAAAAAAAAAdx", "AQAAAAAA\nAAAAdw", "AQAAAAAAAAAAIA", strings.Repeat("A", 10_000)}
	for _, text := range bad {
		if e, err := flagged.ParseCursor(text); err == nil {
			t.Errorf("%q is taken as %+v", text, e)
		}
	}
}

// No text but its own cursor is an entry, whatever comes in.
func FuzzCursor(f *testing.F) {
	for _, text := range []string{"", "AQAAAAAAAAAAdw", "AQAAAYvP5Wh7YWxpY2U", "AQAA=="} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := flagged.ParseCursor(text); err == nil && e.Cursor() != text {
			t.Fatalf("%q is %+v, which is %q", text, e, e.Cursor())
		}
	})
}
