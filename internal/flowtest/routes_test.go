package flowtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// told is as much of GET /api/wallets/{wallet_id} as scenarios speak of.
type told struct {
	Deposits int
	Flag     struct {
		Raised   bool
		RaisedAt *time.Time `json:"raised_at"`
		RaisedBy *string    `json:"raised_by"`
		Removals int
		Evidence *struct {
			Total    json.Number
			Deposits int
			Position string
			Removed  bool
			Parts    []struct{ Amount json.Number }
		}
	}
	Window struct {
		Total, Headroom json.Number
		OldestExpiresAt *time.Time `json:"oldest_expires_at"`
	}
}

// tells waits until GET /api/wallets/{wallet_id} tells what f looks for. The
// position of the wallet's last deposit makes that at once, but for what an
// operator did.
func (sc *scenario) tells(name string, f func(told) error) error {
	header := http.Header{}
	if p := sc.last[name+sc.suffix]; p != "" {
		header.Set("X-Deposit-Position", p)
	}
	for end := time.Now().Add(deadline); ; time.Sleep(5 * time.Millisecond) {
		status, body := sc.get("api", "/api/wallets/"+name+sc.suffix, header)
		var got told
		err := errors.New("no answer to look at")
		if status == http.StatusOK {
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				return err
			}
			err = f(got)
		}
		switch {
		case err == nil:
			return nil
		case status == http.StatusOK && !sc.settling, time.Now().After(end):
			return fmt.Errorf("%d %s: %w", status, body, err)
		}
	}
}

// window WALLET DEPOSITS TOTAL HEADROOM EXPIRES|never: its account and its window now.
func (sc *scenario) window(args []string) error {
	return sc.tells(args[0], func(got told) error {
		expires := "never"
		if at := got.Window.OldestExpiresAt; at != nil {
			expires = at.Sub(sc.base).String()
		}
		return same(args[1:], fmt.Sprint(got.Deposits), got.Window.Total.String(), got.Window.Headroom.String(), expires)
	})
}

// raised WALLET crossing|operator AT REMOVALS, or raised WALLET no REMOVALS.
func (sc *scenario) raised(args []string) error {
	return sc.tells(args[0], func(got told) error {
		f := got.Flag
		if !f.Raised || f.RaisedAt == nil || f.RaisedBy == nil {
			return same(args[1:], "no", fmt.Sprint(f.Removals))
		}
		return same(args[1:], *f.RaisedBy, f.RaisedAt.Sub(sc.base).String(), fmt.Sprint(f.Removals))
	})
}

// evidence WALLET stands|removed TOTAL AMOUNT…: what tipped it, the last deposit
// noted or an earlier one, and what was in the window.
func (sc *scenario) evidence(args []string) error {
	return sc.tells(args[0], func(got told) error {
		e := got.Flag.Evidence
		if e == nil {
			return errors.New("no evidence")
		}
		words := []string{"stands", e.Total.String()}
		if e.Removed {
			words[0] = "removed"
		}
		for _, p := range e.Parts {
			words = append(words, p.Amount.String())
		}
		if e.Deposits != len(e.Parts) || e.Position == "" {
			return fmt.Errorf("evidence of %d deposits, %d parts, position %q", e.Deposits, len(e.Parts), e.Position)
		}
		return same(args[1:], words...)
	})
}

func same(want []string, got ...string) error {
	if !slices.Equal(got, want) {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

// flagged WALLET…: the flagged wallets of this scenario, newest first, read in pages
// of two.
func (sc *scenario) flagged(args []string) error {
	var names []string
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		names = nil
		for cursor := ""; ; {
			status, body := sc.get("api", "/api/flags?limit=2"+cursor, nil)
			var page struct {
				Flags []struct {
					WalletID string `json:"wallet_id"`
				}
				NextCursor *string `json:"next_cursor"`
			}
			if status != http.StatusOK {
				return fmt.Errorf("%d %s", status, body)
			}
			if err := json.Unmarshal([]byte(body), &page); err != nil {
				return err
			}
			for _, f := range page.Flags {
				if name, ok := strings.CutSuffix(f.WalletID, sc.suffix); ok {
					names = append(names, name)
				}
			}
			if page.NextCursor == nil {
				break
			}
			cursor = "&cursor=" + url.QueryEscape(*page.NextCursor)
		}
		if slices.Equal(names, args) {
			return nil
		}
	}
	return fmt.Errorf("got %v, want %v", names, args)
}
