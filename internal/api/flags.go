package api

import (
	"net/http"
	"net/url"
	"strconv"

	"coinbit/internal/flagged"
)

// How many wallets a page has.
const (
	defaultPage = 50
	maxPage     = 500
)

// The answer of GET /api/flags.
type flagsAnswer struct {
	Flags []listedAnswer `json:"flags"`
	// NextCursor is null on the last page.
	NextCursor *string `json:"next_cursor"`
}

type listedAnswer struct {
	WalletID string `json:"wallet_id"`
	raisedAnswer
	Evidence *summaryAnswer `json:"evidence"`
}

// flags answers GET /api/flags.
func (a *API) flags(w http.ResponseWriter, r *http.Request) *failure {
	answer, f := a.list(r)
	if f != nil {
		return f
	}
	writeJSON(w, encode(answer)) // its place is given back: the client may take its time
	return nil
}

// list is the page that r asks for.
func (a *API) list(r *http.Request) (answer flagsAnswer, f *failure) {
	after, n, f := pageOf(r.URL.RawQuery)
	if f != nil {
		return answer, f
	}
	if !a.inFlight.enter() {
		return answer, fail(codeBusy, "too many requests at once; try again")
	}
	defer a.inFlight.leave()
	if err := a.Tables.Ready(); err != nil {
		return answer, fail(codeNotReady, err.Error())
	}
	page, more, err := a.Tables.Flagged(after, n)
	if err != nil {
		return answer, fail(codeNotReady, "the flags cannot be read at the moment").because(err)
	}
	answer = flagsAnswer{Flags: make([]listedAnswer, 0, len(page))}
	for _, e := range page {
		flag, err := a.Tables.Flag(e.WalletID)
		if err != nil {
			return answer, unreadable(err)
		}
		if flag.Raised() { // or it was removed this moment
			answer.Flags = append(answer.Flags, listedAnswer{e.WalletID, raised(&flag), summary(&flag)})
		}
	}
	if more {
		cursor := page[len(page)-1].Cursor()
		answer.NextCursor = &cursor
	}
	return answer, nil
}

// pageOf reads the query of a page: where it begins, nil for the first, and how
// much it has at most. Other parameters are ignored.
func pageOf(query string) (after *flagged.Entry, n int, f *failure) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, 0, fail(codeQuery, "the query is not well formed")
	}
	if texts, given := values["cursor"]; given {
		e, err := flagged.ParseCursor(texts[0])
		if err != nil || len(texts) > 1 {
			return nil, 0, fail(codeCursor, flagged.ErrCursor.Error())
		}
		after = &e
	}
	n = defaultPage
	if texts, given := values["limit"]; given {
		n, err = strconv.Atoi(texts[0])
		if err != nil || len(texts) > 1 || n < 1 || n > maxPage || texts[0] != strconv.Itoa(n) {
			return nil, 0, fail(codeLimit, "limit must be a whole number from 1 to 500")
		}
	}
	return after, n, nil
}
