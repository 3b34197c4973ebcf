package show_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"coinbit/internal/replay"
	"coinbit/internal/show"
	"coinbit/internal/wallet"
)

const start = 1_700_000_000_000

var (
	inForce = wallet.Rule{Threshold: wallet.Amount{Units: 10_000}, PeriodMs: 120_000}
	other   = wallet.Rule{Threshold: wallet.Amount{Units: 5000, Nanos: 500_000_000}, PeriodMs: 3_600_000}
)

// golden compares with testdata; UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, file string, write func(w io.Writer) error) {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join("testdata", file)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", file, &b, want)
	}
	if err := write(full{}); !errors.Is(err, errFull) {
		t.Errorf("%s: a write that fails gives %v", file, err)
	}
}

type full struct{}

var errFull = errors.New("disk full")

func (full) Write([]byte) (int, error) { return 0, errFull }

func flags(r wallet.Rule, name string, n int) (list []replay.Flag) {
	for i := range n {
		at := int64(start + 60_000*i)
		list = append(list, replay.Flag{Wallet: fmt.Sprint(name, i), At: at, Evidence: wallet.Evidence{
			Partition: 3, Offset: int64(100 + i), WindowStart: at - r.PeriodMs, WindowEnd: at,
			Total: wallet.Amount{Units: 12_000, Nanos: 10_000_000}, Deposits: uint32(1 + i), Rule: r}})
	}
	return list
}

func byTime(lists ...[]replay.Flag) []replay.Flag {
	return slices.SortedStableFunc(slices.Values(slices.Concat(lists...)), func(a, b replay.Flag) int { return int(a.At - b.At) })
}

// answer is of two rules: the other one flags twelve wallets anew and one no longer.
func answer() replay.Answer {
	both, gone, anew := flags(inForce, "both", 2), flags(inForce, "gone", 1), flags(other, "new", 12)
	return replay.Answer{Records: 1_234_567, SetAside: 2, Deposits: 1_234_560, Wallets: 1000, FirstAt: start, LastAt: start + 3_600_000,
		Rules: []replay.Verdicts{
			{Rule: inForce, Flags: byTime(both, gone)},
			{Rule: other, Flags: byTime(flags(other, "both", 2), anew), New: anew, Gone: gone},
		}}
}

func TestWhatIf(t *testing.T) {
	const took = 1500 * time.Millisecond
	a := answer()
	golden(t, "whatif.txt", func(w io.Writer) error { return show.WhatIfText(w, a, took) })
	golden(t, "whatif.csv", func(w io.Writer) error { return show.WhatIfCSV(w, a) })
	golden(t, "whatif.json", func(w io.Writer) error { return show.WhatIfJSON(w, a, took) })
	golden(t, "whatif.svg", func(w io.Writer) error { return show.WhatIfPlot(w, a) })
	none := replay.Answer{Rules: []replay.Verdicts{{Rule: inForce}, {Rule: other}}}
	golden(t, "whatif-none.txt", func(w io.Writer) error { return show.WhatIfText(w, none, took) })
}

// A plot is well-formed and stays small and within its frame, however many flags there are.
func TestPlot(t *testing.T) {
	for _, n := range []int{0, 1, 7, 100_000} {
		a := replay.Answer{FirstAt: start, LastAt: start + 60_000*100_000, Rules: []replay.Verdicts{{Rule: inForce, Flags: flags(inForce, "w", n)}, {Rule: other}}}
		var b bytes.Buffer
		if err := show.WhatIfPlot(&b, a); err != nil {
			t.Fatal(err)
		}
		if b.Len() > 40_000 {
			t.Errorf("%d flags: %d bytes", n, b.Len())
		}
		for d := xml.NewDecoder(&b); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%d flags: %v", n, err)
			}
		}
	}
}

func entries() []replay.Entry {
	at := func(offset int64) replay.Position { return replay.Position{Partition: 3, Offset: offset} }
	sum := wallet.Amount{Units: 12_000, Nanos: 10_000_000}
	return []replay.Entry{
		{Position: at(1), At: start, Amount: wallet.Amount{Units: 6000}, Balance: wallet.Amount{Units: 6000}, Window: wallet.Amount{Units: 6000}},
		{Position: at(5), At: start + 1, Amount: wallet.Amount{Units: 6000, Nanos: 10_000_000}, Balance: sum, Window: sum, Crosses: true},
		{Position: at(6), At: start + 2, Amount: wallet.Amount{Units: 1}, Verdict: wallet.KeyConflict, Balance: sum},
		{Position: at(7), At: start + 3, SetAside: "malformed: not a \x1b[31mDeposit message", Balance: sum},
		{Position: at(8), At: start + 4, Amount: wallet.Amount{Units: 1_000_000_000_000}, Verdict: wallet.Overflow, SetAside: "the balance would overflow", Balance: sum},
	}
}

func TestStatement(t *testing.T) {
	q := replay.Statement{Wallet: "alice", Rule: inForce}
	end := replay.Closing{Records: 9, Deposits: 2, Balance: wallet.Amount{Units: 12_000, Nanos: 10_000_000}, Flag: wallet.Flag{NextTip: 6,
		Evidence: &flags(other, "", 1)[0].Evidence, Removals: 1, LastRemovalAt: start - 5}}
	whole := func(s show.Statement, entries []replay.Entry, end replay.Closing) error {
		for _, e := range entries {
			if err := s.Entry(e); err != nil {
				return err
			}
		}
		return s.Close(end, time.Second)
	}
	golden(t, "statement.txt", func(w io.Writer) error { return whole(show.StatementText(w, q), entries(), end) })
	golden(t, "statement.csv", func(w io.Writer) error { return whole(show.StatementCSV(w), entries(), end) })
	golden(t, "statement.json", func(w io.Writer) error { return whole(show.StatementJSON(w, q), entries(), end) })
	q.At = start
	raised := replay.Closing{Later: 1200, Deposits: 1, Flag: wallet.Flag{OpRaised: true, RaisedAt: start - 1}}
	golden(t, "statement-at.txt", func(w io.Writer) error { return whole(show.StatementText(w, q), entries()[:1], raised) })
	golden(t, "statement-none.txt", func(w io.Writer) error {
		return whole(show.StatementText(w, replay.Statement{Wallet: "nobody"}), nil, replay.Closing{})
	})
}

func letter() replay.Letter {
	return replay.Letter{Topic: "deposit_dead_letter", Position: replay.Position{Partition: 2, Offset: 7}, Time: time.UnixMilli(start),
		Reason: "malformed: not a Deposit message", SourceTopic: "deposit", SourcePosition: "3:17",
		Key: []byte("al\x1b[31mice"), Value: []byte("\x0a\x01a\x10\x05\xff\x00\x07"), Undecoded: 3,
		Fields:  []replay.Field{{Name: "wallet_id", Text: "a"}, {Name: "units", Text: "5"}},
		Headers: []replay.Header{{Key: []byte("trace"), Value: []byte("\u202e1")}}}
}

func TestLetter(t *testing.T) {
	none := replay.Letter{Topic: "deposit_dead_letter", Time: time.UnixMilli(start)}
	golden(t, "letter.txt", func(w io.Writer) error { return errors.Join(show.LetterText(w, letter()), show.LetterText(w, none)) })
	golden(t, "letter.json", func(w io.Writer) error { return errors.Join(show.LetterJSON(w, letter()), show.LetterJSON(w, none)) })
}

// Whatever lies in a letter, a terminal is given printable text, and JSON has every byte.
func FuzzLetter(f *testing.F) {
	f.Add("al\x1b[31mice", []byte("\x0a\x01a\xff"), "\u202e", "\x9b2J", 2)
	f.Add("", []byte{}, "\xff", "", 0)
	f.Fuzz(func(t *testing.T, key string, value []byte, header, reason string, undecoded int) {
		l := letter()
		l.Key, l.Value, l.Undecoded = []byte(key), value, min(max(0, undecoded), len(value))
		l.Reason, l.SourceTopic, l.SourcePosition = reason, header, header
		l.Headers = []replay.Header{{Key: []byte(header), Value: value}}
		l.Fields = []replay.Field{{Name: "wallet_id", Text: string(value)}}
		var text, doc bytes.Buffer
		if err := errors.Join(show.LetterText(&text, l), show.LetterJSON(&doc, l)); err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{text.String(), doc.String()} {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
				t.Fatalf("not printable: %q", s)
			}
		}
		var back struct {
			Key   []byte `json:"key_base64"`
			Value []byte `json:"value_base64"`
		}
		if err := json.Unmarshal(doc.Bytes(), &back); err != nil || string(back.Key) != key || !bytes.Equal(back.Value, value) {
			t.Fatalf("%v: %q %q", err, back.Key, back.Value)
		}
	})
}
