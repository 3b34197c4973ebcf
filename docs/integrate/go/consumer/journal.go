package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// event is one line of the journal.
type event struct {
	Wallet string `json:"wallet"`
	Kind   string `json:"event"` // crossing, raise or removal
	// Version is an offset on topic deposit: a crossing's is the deposit that tipped
	// the window, a removal's the first deposit that it leaves alone.
	Version int64  `json:"version"`
	ID      uint64 `json:"id,string,omitempty"` // of an operator's event
	Effect  string `json:"effect,omitempty"`    // raised or removed, if this event did that
}

// account is what is known of one wallet: the same fold as the suite's own
// (internal/wallet/flag.go).
type account struct {
	nextTip int64 // version + 1 of the latest crossing, 0 for none
	removed int64 // crossings below are removed
	byHand  bool
	ids     map[uint64]bool
}

func (a *account) raised() bool { return a.byHand || a.nextTip > 0 && a.nextTip-1 >= a.removed }

// seen tells whether e was taken before: sent twice, or delivered again.
func (a *account) seen(e event) bool {
	if e.Kind == "crossing" {
		return e.Version < a.nextTip
	}
	return a.ids[e.ID]
}

func (a *account) apply(e event) {
	switch e.Kind {
	case "crossing":
		a.nextTip = e.Version + 1
		return
	case "raise":
		a.byHand = true
	case "removal":
		a.byHand, a.removed = false, max(a.removed, e.Version)
	}
	if e.ID != 0 { // 0: the sender gave none
		a.ids[e.ID] = true
	}
}

// journal holds what was taken: one appended line is the event, its version and
// its effect, so that a crash keeps all of it or nothing.
type journal struct {
	*os.File
	wallets map[string]*account
}

// openJournal reads a journal, if there is one. A line that a crash cut short is
// no line: its event was not committed and comes again.
func openJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600) //nolint:gosec // G304: the operator names it
	if err != nil {
		return nil, err
	}
	j := &journal{f, map[string]*account{}}
	if err := j.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return j, nil
}

func (j *journal) load() error {
	text, err := io.ReadAll(j)
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	for line := range bytes.Lines(text[:whole]) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		j.wallet(e.Wallet).apply(e)
	}
	return j.Truncate(int64(whole))
}

func (j *journal) wallet(id string) *account {
	if j.wallets[id] == nil {
		j.wallets[id] = &account{ids: map[uint64]bool{}}
	}
	return j.wallets[id]
}

// take appends an event that was not taken before, and prints what it changed.
func (j *journal) take(e event) error {
	a := j.wallet(e.Wallet)
	if a.seen(e) {
		return nil
	}
	before := a.raised()
	a.apply(e)
	switch after := a.raised(); {
	case after && !before:
		e.Effect = "raised"
	case before && !after:
		e.Effect = "removed"
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := j.Write(append(line, '\n')); err != nil {
		return err
	}
	if e.Effect != "" {
		fmt.Println(e.Wallet, e.Effect)
	}
	return nil
}
